"""The launch of several patches a sample: how a call becomes the kernel's arguments, without touching a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._ops import BLENDED_DTYPES, PATCH_METHODS, PatchDraw, PatchSampling
from .._validation import MAX_INT32
from ..reference import may_blend
from .augment_launch import MAX_FAST_DIVISION, divider
from .launch import (
    BLENDED_ELEMENTS,
    MAX_GRID_Y,
    NO_SEED,
    Labels,
    Launch,
    clamp,
    lowest_bit,
    next_power_of_2,
    seed_arguments,
    target_arguments,
    vector_width,
)
from .patches_kernel import patches_kernel
from .rows import ChannelPlace, Rows, channel_place

THREADS = 128
FEWEST_LINES, MOST_ROWS, MOST_COLUMNS = 16, 64, 32  # whose units are summed at a time: no fewer cells than threads
VECTOR_BYTES = 16
# At a time; where vectors are elements, fewer. With twice as many, which save 5 to 25 % of the instructions, a thread
# takes all 255 registers instead of 100 to 170.
ELEMENTS_PER_THREAD, NARROW_PER_THREAD = 16, 8
SPAN_BYTES = 1 << 14  # of a program
BITS = {1: tl.uint8, 2: tl.uint16, 4: tl.uint32, 8: tl.uint64}  # by the bytes of an element


class PatchPixels(NamedTuple):
    """Images, others and out, and how they lie in memory."""

    images: Tensor
    others: Tensor | None
    out: Tensor
    rows: Rows
    other_rows: Rows
    out_rows: Rows


class GivenPatches(NamedTuple):
    """The tensors of a plan; rows and sources are written where it is drawn."""

    rows: Tensor
    sources: Tensor | None
    masks: Tensor | None = None
    weights: Tensor | None = None


class PatchGeometry(NamedTuple):
    """How the kernel walks through the pixels of a sample."""

    numbers: tuple[int, ...]  # the kernel's run-time arguments, from strides on
    constants: dict[str, Any]
    chunks: int  # of a sample


def element_bytes(rows: Rows, dtype: torch.dtype, place: ChannelPlace) -> int:
    """Those moved as one: an element that may be blended, or what the pixel, or a channel of it, is made of."""
    if dtype in BLENDED_DTYPES:
        return dtype.itemsize
    return min(lowest_bit(rows.pixel_bytes | (place.step if place.in_pixel else 0)), 8)


@lru_cache(maxsize=1024)  # a training run asks for few, and working one out takes as long as launching it
def patch_geometry(rows: Rows, other_rows: Rows, out_rows: Rows, size: int, addresses: int) -> PatchGeometry:
    """`addresses` are the bits in which those of images and out differ from multiples of 16; all, to go by elements."""
    wide = min(vector_width(each, out_rows, addresses) for each in (rows, other_rows)) == VECTOR_BYTES
    vector = VECTOR_BYTES // size if wide else 1
    strides = [stride // size for each in (rows, other_rows, out_rows) for stride in each.strides]
    row_elements, pixel_elements = rows.row_bytes // size, rows.pixel_bytes // size
    row_vectors = row_elements // vector
    vectors = rows.slices * rows.height * row_vectors
    reach = max((rows.slices - 1) * strides[k + 1] + (rows.height - 1) * strides[k + 2] for k in (0, 3, 6))
    small = vectors * vector <= MAX_FAST_DIVISION and reach + row_elements <= MAX_INT32
    numbers = [divider(each) if small else (0, 0) for each in (row_vectors, rows.height, pixel_elements)]
    of_thread = ELEMENTS_PER_THREAD // vector if wide else NARROW_PER_THREAD
    at_once = clamp(next_power_of_2(vectors), THREADS, THREADS * of_thread)
    span = max(at_once, SPAN_BYTES // (vector * size))
    constants = {
        "PIXEL": min(pixel_elements, 2),
        "VECTOR": vector,
        "VECTORS": at_once,
        "SPAN": span,
        "LARGE": not small,
    }
    walk = (vectors, row_vectors, *numbers[0], *numbers[1], pixel_elements, *numbers[2])
    return PatchGeometry((*strides, *walk), constants, -(-vectors // span))


NO_PIXELS = PatchGeometry(
    (0,) * 18,
    {
        "PIXEL": 1,
        "VECTOR": 1,
        "VECTORS": THREADS,
        "SPAN": THREADS,
        "LARGE": False,
        "ANYWHERE": False,
        "IN_PIXEL": False,
    },
    0,
)


def pixel_arguments(pixels: PatchPixels | None, of_channels: bool, in_place: bool) -> tuple[tuple, PatchGeometry]:
    if pixels is None:
        return (None, None, None, *NO_PIXELS.numbers, 1), NO_PIXELS
    images, others, out, rows, other_rows, out_rows = pixels
    place = channel_place(images, rows) if of_channels else ChannelPlace(False, 1)
    size = element_bytes(rows, images.dtype, place)
    addresses = images.data_ptr() | out.data_ptr() | (0 if others is None else others.data_ptr())
    # In place the bytes of boxes alone are touched.
    walk = patch_geometry(rows, other_rows, out_rows, size, 1 if in_place else addresses % VECTOR_BYTES)
    seen = (None if each is None else triton.reinterpret(each, BITS[size]) for each in (images, others, out))
    within = rows.slices * rows.slice_stride + rows.height * rows.row_stride + rows.row_bytes
    anywhere = others is not None or rows.batch * rows.sample_stride + within > size * MAX_INT32
    walk = walk._replace(constants={**walk.constants, "ANYWHERE": anywhere, "IN_PIXEL": place.in_pixel})
    return (*seen, *walk.numbers, place.step // size if place.in_pixel else place.step), walk


def draw_arguments(draw: PatchDraw | None) -> tuple:
    if draw is None:
        return None, (0.0,) * PATCH_METHODS, 0, 0, 0, 0, *NO_SEED
    *options, _ = PatchSampling(*draw.sampling)
    return draw.quantiles, tuple(map(float, draw.bounds)), *options, *seed_arguments(draw.seed)


def mask_arguments(masks: Tensor | None) -> tuple:
    if masks is None or masks.shape[0] == 0:
        return None, 0, 1, 1, 1
    count, *channels, height, width = masks.shape
    cells = channels[0] if channels else 1, height, width
    return triton.reinterpret(masks, tl.uint8) if masks.dtype == torch.bool else masks, count, *cells


def lines_at_once(cells: int, length: int, patches: int, most: int) -> int:
    """See lines_of in patches_kernel.py."""
    return clamp(next_power_of_2(max(min(cells + 2 * patches, length), 1)), FEWEST_LINES, most)


def patches_launch(
    batch: int,
    other_count: int,
    height: int,
    width: int,
    given: GivenPatches,
    draw: PatchDraw | None = None,
    pixels: PatchPixels | None = None,
    targets: Labels | None = None,
    other_labels: Tensor | None = None,
    *,
    in_place: bool = False,
    dtype: torch.dtype = torch.float32,
    fill: Sequence[int] = (0, 0),
) -> Launch:
    """The launch of a call for samples that there are: a plan is drawn or given, pixels and targets may be absent.

    Looks at addresses, sizes and strides of its tensors alone, so that CPU tensors make the launch that CUDA tensors
    would.
    """
    rows, sources, masks, weights = given
    samples, patches, _ = rows.shape
    of_channels = masks is not None and masks.dim() == 4 and masks.shape[1] > 1
    images, walk = pixel_arguments(pixels, of_channels, in_place)
    front = int(draw is not None or targets is not None)
    labels, out, *smoothing = target_arguments(targets)
    classes = out.shape[1] if out is not None else 1
    soft = masks is not None and masks.dtype == torch.float32
    can_blend = dtype in BLENDED_DTYPES
    seen_masks, count, *cells = mask_arguments(masks)
    programs = front + walk.chunks  # of a sample
    grid_z = -(-samples // min(MAX_GRID_Y, MAX_INT32 // programs))
    arguments = (
        *(rows, sources, *draw_arguments(draw), seen_masks, count, *cells, weights),
        *(samples, batch, other_count, height, width, *images, *fill, labels, other_labels, out, *smoothing),
    )
    options = {
        "PATCHES": patches,
        "PARTS": next_power_of_2(patches + 1) if patches < 32 else THREADS,
        "FRONT": front,
        "IN_PLACE": in_place,
        "SOFT": soft,
        "OF_CHANNELS": of_channels,
        "CAN_BLEND": can_blend,
        "ELEMENT": BLENDED_ELEMENTS.get(dtype) if draw is None or may_blend(draw.bounds) else None,
        **walk.constants,
        "TALL": lines_at_once(cells[1], height, patches, MOST_ROWS),
        "WIDE": lines_at_once(cells[2], width, patches, MOST_COLUMNS),
        "TARGET_BLOCK": clamp(next_power_of_2(classes), THREADS, 8 * THREADS),
        "num_warps": THREADS // 32,
        "num_stages": 1,
        "enable_fp_fusion": False,
    }
    return Launch(patches_kernel, (programs, -(-samples // grid_z), grid_z), arguments, options)
