"""Launches: how a call becomes the kernel's arguments, without touching a GPU.

**Sizes.** A program has 128 threads. At a time each takes 4 wide vectors, so that 64 bytes are under way for a thread
and 128 KiB for a full multiprocessor; an H100 needs 18 KiB to hide its latency (25 GB/s, the share of one of its
multiprocessors, times 700 ns). They go on until 16 KiB are moved, for every thread works out the row of the plan for
itself: some 350 instructions, 45 for each of 8 vectors, beside the 70 to 80 that a vector takes. (Of the time that an
H100's memory takes to read and write a vector, 280 instructions of one thread are the equivalent.) A sample smaller
than that gets one program, of fewer threads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._ops import BLENDED_DTYPES, KINDS, Draw, Kind, Sampling
from .._validation import MAX_INT32
from ..reference import can_draw
from .kernel import mix_kernel
from .rows import Rows

MAX_GRID_Y = 65535
MAX_THREADS = 128
MAX_REGISTERS = 128  # where there may be other kinds: 512 threads a multiprocessor, with 32 KiB under way
WIDE_PER_THREAD = 4  # vectors of several words at a time
NARROW_PER_THREAD = 8  # vectors of one word
GROUPS = (256, 128, 64)
SPAN_BYTES = 1 << 14
COLUMNS_PER_THREAD = 8
MAX_FAST_DIVISION = 1 << 30
BLENDED_ELEMENTS = {dtype: getattr(tl, str(dtype).removeprefix("torch.")) for dtype in BLENDED_DTYPES}


class Launch(NamedTuple):
    """A launch that has not happened yet: all that ``kernel[grid](*arguments, **options)`` needs."""

    kernel: Any
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]  # tensors and numbers, in the order of the kernel's parameters
    options: dict[str, Any]  # the kernel's constants, and what Triton compiles it with

    def __call__(self, device: torch.device) -> None:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self.kernel[self.grid](*self.arguments, **self.options)


@lru_cache(maxsize=1024)
def draws_only_cutmix(bounds: tuple[float, ...]) -> bool:
    """Whether no other kind can be drawn."""
    return not any(can_draw(kind, bounds) for kind in Kind if kind not in (Kind.keep, Kind.cutmix))


class Pixels(NamedTuple):
    """The images to be mixed, with or without a sample in them."""

    images: Tensor
    out: Tensor
    rows: Rows
    out_rows: Rows


class Labels(NamedTuple):
    """The labels, and the targets to write."""

    labels: Tensor
    targets: Tensor
    label_smoothing: float


def divider(divisor: int) -> tuple[int, int]:
    """magic and shift such that number // divisor == number * magic >> shift, for number and divisor below 2^30.

    magic * divisor exceeds 2^shift by less than divisor, and 2^shift is at least 2^30 * divisor, so that the product
    exceeds number / divisor by less than 1 / divisor.
    """
    shift = 30 + (divisor - 1).bit_length()
    return -(-(1 << shift) // divisor), shift


def lowest_bit(number: int) -> int:
    return number & -number


def next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def group_size(row_vectors: int) -> int:
    """The largest group that leaves at most a quarter of its places in a row empty."""
    return next((group for group in GROUPS if 4 * (-row_vectors % group) <= row_vectors), 1)


def clamp(number: int, low: int, high: int) -> int:
    return max(low, min(number, high))


NO_BOUNDS, NO_SAMPLING, NO_SEED = (0.0,) * KINDS, Sampling(0, 0, 0, 0), (0, 0, None)


def seed_arguments(seed: Tensor) -> tuple:
    """The words of a seed on the CPU, and the seed where it is on the device."""
    if seed.device.type == "cpu":
        return *struct.unpack("<ii", struct.pack("<q", seed.item())), None  # on the CPU: nothing to wait for
    return 0, 0, seed


def plan_arguments(
    plan: Tensor | None, draw: Draw | None, seed: Tensor | None, batch: int, height: int, width: int
) -> tuple:
    quantiles, bounds, sampling = (None, NO_BOUNDS, NO_SAMPLING) if draw is None else draw[1:]
    seeds = NO_SEED if seed is None else seed_arguments(seed)
    return plan, quantiles, tuple(map(float, bounds)), *sampling, *seeds, batch, height, width


class Geometry(NamedTuple):
    """How the kernel sees the images of a call, whatever they are and wherever they lie."""

    word: tl.dtype
    numbers: tuple[int, ...]  # the kernel's run-time arguments, from strides on
    constants: dict[str, Any]
    chunks: int  # of a sample

    @property
    def vectors(self) -> int:
        """At a time."""
        return self.constants["BLOCK"] * self.constants["GROUP"]


def vector_width(rows: Rows, out_rows: Rows, addresses: int) -> int:
    """Bytes of the widest vector that divides every address and every row."""
    bits = 16 | addresses | rows.row_bytes
    for each in (rows, out_rows):
        for size, stride in zip((each.batch, each.slices, each.height), each.strides, strict=True):
            if size > 1:
                bits |= stride
    return lowest_bit(bits)


@lru_cache(maxsize=1024)  # a training run asks for few, and working one out takes as long as launching it
def geometry(rows: Rows, out_rows: Rows, addresses: int, in_place: bool) -> Geometry:
    """`addresses` are the bits below 16 in which any address of images and out differs from a multiple of 16."""
    width = vector_width(rows, out_rows, addresses)
    granule = lowest_bit(rows.pixel_bytes)
    if in_place and width < 8:
        width = min(width, granule)  # so that no edge of a box crosses a vector
    word_bytes = min(width, 4)
    words = width // word_bytes
    row_vectors = rows.row_bytes // width
    group = group_size(row_vectors) if words == 1 else 1
    row_groups = -(-row_vectors // group)
    groups = rows.slices * rows.height * row_groups
    strides = [stride // width for stride in (*rows.strides, *out_rows.strides)]

    positions = -(-groups // 2) if in_place else groups  # the other sample of the pair takes the other half
    at_once = MAX_THREADS * (WIDE_PER_THREAD if words > 1 else NARROW_PER_THREAD) // group
    block = clamp(next_power_of_2(positions), -(-32 // group), at_once)
    span = max(block, SPAN_BYTES // (width * group)) if positions > block else block
    reach = max((rows.slices - 1) * strides[k + 1] + (rows.height - 1) * strides[k + 2] for k in (0, 3)) + row_vectors
    small = groups <= MAX_FAST_DIVISION and reach * words <= MAX_INT32 and rows.row_bytes <= MAX_INT32
    constants = {
        "WIDTH": width,
        "GRANULE": width if granule >= width else min(granule, 4),
        "GROUP": group,
        "BLOCK": block,
        "SPAN": span,
        "LARGE": not small,
    }
    dividers = (*divider(row_groups), *divider(rows.height)) if small else (0, 0, 0, 0)
    word = {4: tl.uint32, 2: tl.uint16, 1: tl.uint8}[word_bytes]
    numbers = (*strides, groups, row_groups, *dividers, rows.pixel_bytes)
    return Geometry(word, numbers, constants, -(-positions // span))


NO_PIXELS = Geometry(
    tl.uint32,
    (0,) * 13,
    {"WIDTH": 16, "GRANULE": 16, "GROUP": 1, "BLOCK": 32, "SPAN": 32, "LARGE": False},
    0,
)


def pixel_arguments(pixels: Pixels | None, in_place: bool) -> tuple[tuple, Geometry]:
    if pixels is None:
        return (None, None, *NO_PIXELS.numbers), NO_PIXELS
    images, out, rows, out_rows = pixels
    seen = geometry(rows, out_rows, (images.data_ptr() | out.data_ptr()) % 16, in_place)
    return (triton.reinterpret(images, seen.word), triton.reinterpret(out, seen.word), *seen.numbers), seen


def launch_sizes(
    batch: int, chunks: int, threads: int, targets: Labels | None
) -> tuple[tuple[int, int, int], int, int]:
    """The grid, the threads of a program, and the columns of a chunk of targets, for `chunks` of a sample's pixels by
    `threads`: 0 where there are no pixels, and the columns decide."""
    classes = targets.targets.shape[1] if targets is not None else 1
    threads = clamp(threads or next_power_of_2(classes) // COLUMNS_PER_THREAD, 32, MAX_THREADS)
    columns = clamp(next_power_of_2(classes), 32, threads * COLUMNS_PER_THREAD)
    grid_z = -(-batch // MAX_GRID_Y)
    return (max(chunks, -(-classes // columns)), -(-batch // grid_z), grid_z), threads, columns


def target_arguments(targets: Labels | None) -> tuple:
    if targets is None:
        return None, None, 0, 0, 0, 0
    labels, out, label_smoothing = targets
    classes = out.shape[1]
    scale = 1.0 - label_smoothing  # mirrors mix_math.h::smoothing_of
    off = label_smoothing / classes
    return labels, out, classes, *struct.unpack("<qqq", struct.pack("<ddd", scale, off, scale + off))


def mix_launch(
    batch: int,
    height: int,
    width: int,
    plan: Tensor,
    draw: Draw | None = None,
    pixels: Pixels | None = None,
    targets: Labels | None = None,
    *,
    in_place: bool = False,
    dtype: torch.dtype = torch.float32,
    fill: Sequence[int] = (0, 0),
) -> Launch:
    """The launch of a call on a batch that is not empty: a plan is drawn or given, pixels and targets may be absent.

    dtype is that of the images; without images it is one that mixup can blend. fill is 16 bytes, low and high half.

    Looks at addresses, sizes and strides of its tensors alone, so that CPU tensors make the launch that CUDA tensors
    would.
    """
    images, seen = pixel_arguments(pixels, in_place)
    pixel_threads = max(seen.vectors // WIDE_PER_THREAD, 32) if pixels else 0
    grid, threads, target_block = launch_sizes(batch, seen.chunks, pixel_threads, targets)
    only_cutmix = draw is not None and draws_only_cutmix(tuple(draw.bounds))
    seed = draw.seed if draw is not None else None
    arguments = (*plan_arguments(plan, draw, seed, batch, height, width), *images, *fill, *target_arguments(targets))
    options = {
        "IN_PLACE": in_place,
        "ONLY_CUTMIX": only_cutmix,
        "ELEMENT": None if only_cutmix else BLENDED_ELEMENTS.get(dtype),
        **seen.constants,
        "TARGET_BLOCK": target_block,
        "num_warps": threads // 32,
        "num_stages": 1,
        "maxnreg": None if only_cutmix else MAX_REGISTERS,
        "enable_fp_fusion": False,
    }
    return Launch(mix_kernel, grid, arguments, options)
