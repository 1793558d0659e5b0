"""Launches: how a call becomes the kernel's arguments, without touching a GPU.

**Sizes.** A program has 128 threads, which go through two lines at a time: 32 bytes are under way for a thread, 64
where both samples of a pair are read, and 40 to 48 KiB for a multiprocessor that is full, because a thread takes 40 to
48 registers. An H100 needs 18 KiB to hide its latency (25 GB/s, the share of one of its multiprocessors, times 700 ns).
Four lines at a time take twice the registers, and save 5 instructions of a vector.

They go on for 16 vectors, because every thread works out the row of the plan for itself: some 350 instructions, 22 for
each vector, beside the 65 to 75 that a vector takes. In place that is two rows of the plan, and of 24 vectors boxes
meet about half. (While memory reads and writes a vector, an H100 issues 280 instructions of one thread.) But first
every multiprocessor gets 9 warps, or 4 in place, so that a small batch is cut into more programs. A sample smaller than
a program gets one of fewer threads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import JITFunction

from .._ops import BLENDED_DTYPES, KINDS, Draw, Kind, Sampling
from ..reference import can_draw
from .kernel import mix_kernel
from .rows import Rows

MAX_GRID_Y = 65535
MAX_THREADS = 128
ROWS = 2  # that a lane goes through at a time
NARROW_LANES = 2  # of a thread, where vectors are of one word
CHUNKINGS = 4  # of a row, to choose from
SPAN_BYTES, SPAN_BYTES_IN_PLACE = 16 * 16 * MAX_THREADS, 24 * 16 * MAX_THREADS
THREADS_WANTED, THREADS_WANTED_IN_PLACE = 132 * 9 * 32, 132 * 4 * 32  # of an H100's multiprocessors
MAX_FAST_POSITIONS = 1 << 26  # in a sample; with those past the end and 16 bytes each 32 bits count them
COLUMNS_PER_THREAD = 8
BLENDED_ELEMENTS = {dtype: getattr(tl, str(dtype).removeprefix("torch.")) for dtype in BLENDED_DTYPES}


# Kernels as they were compiled, with the constants that they are launched with. Triton finds them as well, but asks
# every argument of every call for its type, which takes longer than all the rest of a call.
_compiled: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}


@lru_cache(maxsize=16)
def _untyped(kernel: JITFunction) -> tuple[int, ...]:
    """Which parameters are of the type of their argument: tensors and tuples, or None."""
    return tuple(each.num for each in kernel.params if not (each.is_constexpr or each.annotation_type))


def _type_of(argument: Any) -> Any:
    return len(argument) if type(argument) is tuple else getattr(argument, "dtype", None)


class Launch(NamedTuple):
    """A launch that has not happened yet: all that ``kernel[grid](*arguments, **options)`` needs."""

    kernel: Any
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]  # tensors and numbers, in the order of the kernel's parameters
    options: dict[str, Any]  # the kernel's constants, and what Triton compiles it with

    def __call__(self, device: torch.device) -> None:
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                return self(device)
        if not isinstance(self.kernel, JITFunction):  # interpreted
            self.kernel[self.grid](*self.arguments, **self.options)
            return
        key = device, self.compiled_for()
        if key not in _compiled:
            kernel = self.kernel[self.grid](*self.arguments, **self.options)
            _compiled[key] = kernel, tuple(self.options[name] for name in self.kernel.arg_names[len(self.arguments) :])
            return
        kernel, constants = _compiled[key]
        kernel[self.grid](*self.arguments, *constants)

    def compiled_for(self) -> tuple[Any, ...]:
        """What decides which kernel is compiled. Nothing else does, because Triton specialises on no argument."""
        types = [_type_of(self.arguments[number]) for number in _untyped(self.kernel)]
        return self.kernel.fn, *types, *self.options.values()


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


def lowest_bit(number: int) -> int:
    return number & -number


def next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


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

    numbers: tuple[int, ...]  # the kernel's run-time arguments, from strides on
    constants: dict[str, Any]
    chunks: int  # of a sample
    threads: int


def vector_width(rows: Rows, out_rows: Rows, addresses: int) -> int:
    """Bytes of the widest vector that divides every address and every row."""
    bits = 16 | addresses | rows.row_bytes
    for each in (rows, out_rows):
        for size, stride in zip((each.batch, each.slices, each.height), each.strides, strict=True):
            if size > 1:
                bits |= stride
    return lowest_bit(bits)


def is_even(rows: Rows) -> bool:
    """Whether all rows of a sample are evenly spaced."""
    return rows.slices == 1 or rows.slice_stride == rows.height * rows.row_stride


def chunks_of_row(row_vectors: int, lanes: int) -> int:
    """The fewest that a row can be cut into so that at most a quarter of the lanes finds no place on a whole line."""

    def idle(chunks: int) -> float:
        columns = -(-row_vectors // chunks)
        return 1 - row_vectors * (lanes // columns) / (chunks * lanes)

    fewest = -(-row_vectors // lanes)
    return min(range(fewest, fewest + CHUNKINGS), key=lambda chunks: (idle(chunks) > 0.25, chunks))


@lru_cache(maxsize=1024)  # a training run asks for few, and working one out takes as long as launching it
def geometry(rows: Rows, out_rows: Rows, addresses: int, in_place: bool) -> Geometry:
    """`addresses` are the bits below 16 in which any address of images and out differs from a multiple of 16."""
    width = vector_width(rows, out_rows, addresses)
    granule = lowest_bit(rows.pixel_bytes)
    row_vectors = rows.row_bytes // width
    all_lines = rows.slices * rows.height
    shared_by = 2 if in_place else 1  # the programs of the pair's other sample do their part
    lanes_of_thread = 1 if width > 4 else NARROW_LANES
    lanes = clamp(next_power_of_2(-(-row_vectors * all_lines // shared_by)), 32, MAX_THREADS * lanes_of_thread)

    chunks = chunks_of_row(row_vectors, lanes)
    columns = -(-row_vectors // chunks)
    vectors = -(-all_lines // (shared_by * (lanes // columns)))  # of a thread that does all of a chunk
    at_once = clamp(next_power_of_2(vectors), 1, ROWS)
    span = max((SPAN_BYTES_IN_PLACE if in_place else SPAN_BYTES) // (lanes * width), at_once)
    threads = lanes // lanes_of_thread
    wanted = THREADS_WANTED_IN_PLACE if in_place else THREADS_WANTED
    parts = clamp(-(-wanted // (rows.batch * chunks * threads)), -(-vectors // span), -(-vectors // at_once))
    constants = {
        "WIDTH": width,
        "GRANULE": width if granule >= width else min(granule, 4),
        "LANES": lanes,
        "ROWS": at_once,
        "EVEN": not in_place and all(is_even(each) for each in (rows, out_rows)),
        "LARGE": row_vectors * all_lines > MAX_FAST_POSITIONS,
    }
    numbers = (*rows.strides, *out_rows.strides, rows.slices, row_vectors, columns, parts, rows.pixel_bytes)
    return Geometry(numbers, constants, chunks * parts, threads)


NO_PIXELS = Geometry(
    (0,) * 11,
    {"WIDTH": 16, "GRANULE": 16, "LANES": 32, "ROWS": 1, "EVEN": True, "LARGE": False},
    0,
    0,
)


def pixel_arguments(pixels: Pixels | None, in_place: bool) -> tuple[tuple, Geometry]:
    if pixels is None:
        return (None, None, *NO_PIXELS.numbers), NO_PIXELS
    images, out, rows, out_rows = pixels
    seen = geometry(rows, out_rows, (images.data_ptr() | out.data_ptr()) % 16, in_place)
    return (triton.reinterpret(images, tl.uint8), triton.reinterpret(out, tl.uint8), *seen.numbers), seen


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
    grid, threads, target_block = launch_sizes(batch, seen.chunks, seen.threads, targets)
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
        "enable_fp_fusion": False,
    }
    return Launch(mix_kernel, grid, arguments, options)
