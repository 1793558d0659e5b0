"""Which batches are measured: lines through one centre, not the full product."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

CHANNELS = 3

# The mean share of an image that a box covers, for square images and lambda uniform. With u = 1 - lambda and the box's
# half side sqrt(u) / 2, its clipped side is sqrt(u) - u / 4 on average over the centre, the two sides are independent,
# and the integral of (sqrt(u) - u / 4)^2 over u is 1/2 - 1/5 + 1/48. Whole pixels take less than 1 % off at 224 x 224.
MEAN_BOX_SHARE = 1 / 2 - 1 / 5 + 1 / 48


@dataclass(frozen=True)
class Case:
    """A batch of square images (batch, 3, size, size) and what its labels are."""

    batch: int = 128
    size: int = 224
    dtype: torch.dtype = torch.float32
    channels_last: bool = False
    classes: int = 1000

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.batch, CHANNELS, self.size, self.size

    @property
    def image_bytes(self) -> int:
        """Of the whole batch: one pass over the images."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def out_dtype(self) -> torch.dtype:
        return self.dtype

    @property
    def out_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def layout(self) -> str:
        return "channels-last" if self.channels_last else "NCHW"

    @property
    def kind(self) -> str:
        return f"{self.dtype_name}, {self.layout}"

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        shape = f"{self.batch}x{CHANNELS}x{self.size}x{self.size}"
        return f"{shape} {self.dtype_name} {self.layout} K={self.classes}"

    def as_dict(self) -> dict:
        return {
            "batch": self.batch,
            "channels": CHANNELS,
            "size": self.size,
            "dtype": self.dtype_name,
            "layout": self.layout,
            "classes": self.classes,
            "image_bytes": self.image_bytes,
        }


CENTRE = Case()

BATCHES = (1, 8, 32, 128, 256, 512)
SIZES = (32, 64, 112, 224, 384)
DTYPES = (torch.uint8, torch.bfloat16, torch.float16, torch.float32)
CLASSES = (10, 1000, 21841)


def lines(centre: Case = CENTRE) -> dict[str, list[Case]]:
    """The lines by name; all but "dtype, channels-last" pass through the centre."""
    return {
        "batch": [replace(centre, batch=batch) for batch in BATCHES],
        "size": [replace(centre, size=size) for size in SIZES],
        "dtype": [replace(centre, dtype=dtype) for dtype in DTYPES],
        "dtype, channels-last": [replace(centre, dtype=dtype, channels_last=True) for dtype in DTYPES],
        "classes": [replace(centre, classes=classes) for classes in CLASSES],
    }


QUICK_CENTRE = Case(batch=16, size=32, classes=10)


def quick_lines() -> dict[str, list[Case]]:
    """As few small batches as still give every table and picture something to show."""
    centre = QUICK_CENTRE
    return {
        "batch": [replace(centre, batch=batch) for batch in (1, 4, 16)],
        "size": [replace(centre, size=size) for size in (16, 32)],
        "dtype": [replace(centre, dtype=dtype) for dtype in (torch.uint8, torch.float32)],
        "dtype, channels-last": [replace(centre, channels_last=True)],
        "classes": [replace(centre, classes=classes) for classes in (10, 100)],
    }


class Inputs(NamedTuple):
    """What one call gets. In-place implementations change the images; only pixels move, so they stay a valid batch."""

    images: Tensor  # (B, 3, size, size)
    labels: Tensor  # int64 (B,)
    soft_labels: Tensor  # float32 (B, K)
    out: Tensor  # of the images' shape, to write to


def random_inputs(case: Case, device: torch.device, seed: int = 0) -> Inputs:
    """Images of random values (0..255), labels, soft labels, and somewhere to write to."""
    draw = torch.Generator(device).manual_seed(seed)
    images = torch.randint(256, case.shape, dtype=torch.uint8, generator=draw, device=device).to(case.dtype)
    if case.channels_last:
        images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(case.classes, (case.batch,), generator=draw, device=device)
    soft_labels = torch.rand(case.batch, case.classes, generator=draw, device=device).softmax(1)
    return Inputs(images, labels, soft_labels, _out(case, device).zero_())


def _out(case: Case, device: torch.device) -> Tensor:
    return torch.empty(case.shape, dtype=case.out_dtype, device=device, memory_format=case.out_format)


def meta_inputs(case: Case) -> Inputs:
    """The same without values, on a device that has none."""
    meta = torch.device("meta")
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    images = torch.empty(case.shape, dtype=case.dtype, device=meta, memory_format=layout)
    labels = torch.empty(case.batch, dtype=torch.int64, device=meta)
    return Inputs(images, labels, torch.empty(case.batch, case.classes, device=meta), _out(case, meta))


MOST_ROTATED = 256


def rotation(case: Case, device: torch.device) -> list[Inputs]:
    """The batches that calls take in turn.

    On a GPU so many, up to 256, that four times the L2 cache lies between two calls on one of them, even where calls
    touch no more than the boxes: a call finds nothing in the cache that an earlier one left. On the CPU one: a loader
    has just written the batch there.
    """
    if device.type != "cuda":
        return [random_inputs(case, device)]
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    touched = MEAN_BOX_SHARE * case.image_bytes  # in place: what is written is what was read
    batches = min(MOST_ROTATED, max(2, math.ceil(4 * cache / touched)))
    return [random_inputs(case, device, seed) for seed in range(batches)]
