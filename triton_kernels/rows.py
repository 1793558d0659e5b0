"""A batch of images as rows: the view in which every layout is the same. See ``csrc/rows.h`` for a picture."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor


class Rows(NamedTuple):
    """Rows of pixels, dense in memory; strides in bytes. Mirrors rows.h::Rows."""

    batch: int
    slices: int  # planes of height rows in a sample
    height: int  # rows in a slice
    width: int  # pixels in a row
    pixel_bytes: int
    sample_stride: int
    slice_stride: int
    row_stride: int

    @property
    def row_bytes(self) -> int:
        return self.width * self.pixel_bytes

    @property
    def strides(self) -> tuple[int, int, int]:
        return self.sample_stride, self.slice_stride, self.row_stride

    @property
    def shape(self) -> tuple[int, ...]:
        return self[:5]


def inner_dims(sizes: tuple[int, ...]) -> list[int]:
    """The dimensions between batch and height that are more than one long, innermost first."""
    return [dim for dim in range(len(sizes) - 3, 0, -1) if sizes[dim] != 1]


def rows_of(images: Tensor) -> Rows | None:
    """A tensor (batch, ..., height, width) as rows; None where its rows are not dense, or its slices not evenly spaced.

    Mirrors rows.h::rows_of.
    """
    return rows_of_view(images.shape, images.stride(), images.dtype.itemsize)


@lru_cache(maxsize=1024)  # see launch.geometry
def rows_of_view(sizes: tuple[int, ...], strides: tuple[int, ...], element_bytes: int) -> Rows | None:
    batch, height, width = sizes[0], sizes[-2], sizes[-1]
    if 0 in sizes:
        return Rows(batch, 0, height, width, element_bytes, 0, 0, 0)

    # Those packed below the width belong to the pixel.
    inner = sorted(inner_dims(sizes), key=lambda dim: strides[dim])
    pixel, packed = 1, 0
    for dim in inner:
        if not (strides[dim] == pixel and width > 1 and pixel < strides[-1]):
            break
        pixel *= sizes[dim]
        packed += 1
    if width > 1 and strides[-1] != pixel:
        return None

    # The others are slices, and have to collapse to one stride.
    slices, slice_stride = 1, 0
    for dim in inner[packed:]:
        if slices == 1:
            slice_stride = strides[dim]
        elif strides[dim] != slices * slice_stride:
            return None
        slices *= sizes[dim]
    return Rows(
        batch,
        slices,
        height,
        width,
        pixel * element_bytes,
        strides[0] * element_bytes,
        slice_stride * element_bytes,
        strides[-2] * element_bytes,
    )


def same_order(images: Tensor, out: Tensor) -> bool:
    """Whether the dimensions between batch and height follow each other in memory alike. Mirrors rows.h::same_order.

    Rows of one shape match slice by slice and byte by byte only then: a transposed video has the same shape.
    """
    if images.stride() == out.stride():
        return True
    inner = inner_dims(images.shape)
    return sorted(inner, key=images.stride) == sorted(inner, key=out.stride)


class ChannelPlace(NamedTuple):
    """Where the second dimension of a tensor is among its rows: the index in it of what is in a slice is slice // step,
    or, of what is at a byte of a pixel that holds the dimension, byte // step; modulo its size."""

    in_pixel: bool
    step: int


def channel_place(tensor: Tensor, rows: Rows) -> ChannelPlace:
    """Mirrors rows.h::channel_place."""
    sizes, strides = tensor.shape, tensor.stride()
    inside = 1  # of what lies inside of it, in the order of rows_of
    for dim in range(2, tensor.dim() - 2):
        if sizes[dim] != 1 and strides[dim] <= strides[1]:
            inside *= sizes[dim]
    pixel = rows.pixel_bytes // tensor.element_size()
    if inside * sizes[1] <= pixel:
        return ChannelPlace(True, inside * tensor.element_size())
    return ChannelPlace(False, max(inside // pixel, 1))
