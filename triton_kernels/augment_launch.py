"""The launch of the batch tail: how a call becomes the kernel's arguments, without touching a GPU."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .._ops import AUGMENTED_DTYPES, COLOUR_ROWS, FEW_CHANNELS, Draw, EraseOrder, Erasing, ViewChoices, ViewParameters
from .._validation import MAX_INT32
from .augment_kernel import augment_kernel
from .launch import (
    MAX_THREADS,
    Labels,
    Launch,
    clamp,
    draws_only_cutmix,
    launch_sizes,
    lowest_bit,
    next_power_of_2,
    plan_arguments,
    target_arguments,
)

VECTOR_BYTES = 16  # of the output
ELEMENTS_PER_THREAD = 16  # of a part, at a time
SPAN_ELEMENTS = 1 << 15  # that a program writes, or few more
MAX_FAST_DIVISION = 1 << 30
MAX_REGISTERS = 128  # where pixels are loaded one by one: left to choose, ptxas of Triton 3.6 takes 96 and spills

FACTORS = ViewParameters._fields.index("brightness_least")  # from which on parameters are those of colours
ELEMENTS = {dtype: getattr(tl, str(dtype).removeprefix("torch.")) for dtype in AUGMENTED_DTYPES}
BITS = {1: tl.uint8, 2: tl.uint16, 4: tl.uint32}  # by the bytes of an element


class DrawnViews(NamedTuple):
    """What views are drawn by."""

    tables: Tensor
    colours: Tensor | None
    parameters: Sequence[float]
    choices: Sequence[int]


class Values(NamedTuple):
    """What becomes of values."""

    constants: Tensor  # float32 (4, channels)
    erasing: Erasing


class Layout(NamedTuple):
    """How a tensor (batch, channels, height, width) lies in memory."""

    element_bytes: int
    strides: tuple[int, int, int, int]  # in elements: of samples, channels, rows, pixels
    address: int  # modulo 16

    @staticmethod
    def of(tensor: Tensor) -> Layout:
        """Strides of dimensions of size 1, which lead nowhere, are 0."""
        sample, channel, row, pixel = (
            0 if size == 1 else stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        )
        return Layout(tensor.dtype.itemsize, (sample, channel, row, pixel), tensor.data_ptr() % VECTOR_BYTES)


class Geometry(NamedTuple):
    """How the kernel walks through the images of a call."""

    numbers: tuple[int, ...]  # the kernel's run-time arguments, from groups on
    constants: dict[str, Any]
    chunks: int  # of a sample
    threads: int


def divider(divisor: int) -> tuple[int, int]:
    """magic and shift such that number // divisor == number * magic >> shift, for number and divisor below 2^30.

    magic * divisor exceeds 2^shift by less than divisor, and 2^shift is at least 2^30 * divisor, so that the product
    exceeds number / divisor by less than 1 / divisor.
    """
    shift = 30 + (divisor - 1).bit_length()
    return -(-(1 << shift) // divisor), shift


def is_interleaved(channels: int, layout: Layout) -> bool:
    """Whether the channels of a pixel are side by side, and pixels too."""
    _, channel, _, pixel = layout.strides
    return channels > 1 and channel == 1 and pixel in (0, channels)


def vector_of(shape: Sequence[int], layout: Layout, most: int, interleaved: bool) -> int:
    """The most elements, up to a power of two, that are side by side at each multiple of them, and so aligned."""
    _, channels, _, width = shape
    wide = interleaved and channels > FEW_CHANNELS
    _, channel, row, pixel = layout.strides
    if is_interleaved(channels, layout) != interleaved or (not interleaved and pixel != 1):
        return 1
    steps = [layout.strides[0], row, pixel if wide else 0, 0 if interleaved else channel]
    bits = most | (channels if wide else width) | layout.address // layout.element_bytes
    for step in steps:
        bits |= step
    return lowest_bit(bits) if layout.address % layout.element_bytes == 0 else 1


@lru_cache(maxsize=1024)  # a training run asks for few, and working one out takes as long as launching it
def geometry(shape: tuple[int, int, int, int], layout: Layout, out: Layout) -> Geometry:
    _, channels, height, width = shape
    interleaved = is_interleaved(channels, out)
    few = channels <= FEW_CHANNELS
    vector = vector_of(shape, out, VECTOR_BYTES // out.element_bytes, interleaved)
    alike = vector > 1 and vector_of(shape, layout, vector, interleaved) == vector

    if interleaved and not few:
        inner, middle, outer = channels // vector, width, height
    else:
        inner, middle, outer = width // vector, height, 1 if few else channels
    groups = inner * middle * outer
    parts = channels if few else 1
    block = clamp(next_power_of_2(groups), max(1, 32 // vector), MAX_THREADS * ELEMENTS_PER_THREAD // vector)
    span = -(-SPAN_ELEMENTS // (parts * vector * 2 * block)) * 2 * block
    reaches = [sum((size - 1) * stride for size, stride in zip(shape[1:], each.strides[1:], strict=True))
               for each in (layout, out)]  # fmt: skip
    # Offsets of pixels that a shift leads to outside of the image are worked out, if not followed.
    small = groups <= MAX_FAST_DIVISION and 4 * max(reaches) + MAX_THREADS * ELEMENTS_PER_THREAD <= MAX_INT32
    dividers = [(size, *(divider(size) if small else (0, 0))) for size in (inner, middle)]
    constants = {
        "CHANNELS": channels if few else 0,
        "INTERLEAVED": interleaved,
        "ALIKE": alike,
        "VECTOR": vector,
        "BLOCK": block,
        "SPAN": span,
        "LARGE": not small,
    }
    numbers = groups, *dividers[0], *dividers[1]
    return Geometry(
        numbers, constants, -(-groups // span), clamp(block * vector // ELEMENTS_PER_THREAD, 32, MAX_THREADS)
    )


NO_PIXELS = Geometry(
    (0,) * 7,
    {
        "CHANNELS": 1,
        "INTERLEAVED": False,
        "ALIKE": False,
        "VECTOR": 1,
        "BLOCK": 32,
        "SPAN": 64,
        "LARGE": False,
    },
    0,
    32,
)
NO_CONSTANTS = (0.0,) * 4


def pixel_arguments(images: Tensor | None, out: Tensor | None) -> tuple[tuple, Geometry]:
    if images is None or out is None:
        return (None, None, *(0,) * 8, *NO_PIXELS.numbers), NO_PIXELS
    layouts = Layout.of(images), Layout.of(out)
    walk = geometry(tuple(images.shape), *layouts)
    seen = (triton.reinterpret(each, BITS[each.dtype.itemsize]) for each in (images, out))
    return (*seen, *layouts[0].strides, *layouts[1].strides, *walk.numbers), walk


def boxes_of(views: Tensor, coloured: bool) -> int:
    return views.shape[1] - 1 - COLOUR_ROWS * coloured


def view_arguments(views: Tensor, coloured: bool, drawn_by: DrawnViews | None) -> tuple:
    boxes = boxes_of(views, coloured)
    if drawn_by is None:
        return views, None, (0.0,) * FACTORS, boxes, 0, 0, 0, 0, None, None
    translate_y, translate_x, min_boxes, _, first_erased, _ = drawn_by.choices
    table = drawn_by.tables if boxes > 0 else None
    single = f"{len(drawn_by.parameters)}f"  # as a GPU gets them; Triton's interpreter leaves numbers in tuples alone
    parameters = struct.unpack(single, struct.pack(single, *drawn_by.parameters))
    draws_colour = coloured and drawn_by.colours is None
    return (
        *(views, table, parameters[:FACTORS]),
        *(boxes, translate_y, translate_x, min_boxes, first_erased),
        *(drawn_by.colours, parameters[FACTORS:] if draws_colour else None),
    )


def constant_arguments(values: Values | None) -> tuple:
    if values is None:
        return NO_CONSTANTS, None, 0
    channels = values.constants.shape[1]
    if channels > FEW_CHANNELS:
        return NO_CONSTANTS, values.constants, channels
    return tuple(values.constants.flatten().tolist()), None, channels  # on the CPU: nothing to wait for


def may_move(drawn_by: DrawnViews | None) -> bool:
    """Whether a view may mirror or shift its sample."""
    if drawn_by is None:
        return True
    parameters, choices = ViewParameters(*drawn_by.parameters), ViewChoices(*drawn_by.choices)
    return parameters.flip_below > 0 or choices.translate_y > 0 or choices.translate_x > 0


def augment_launch(
    batch: int,
    height: int,
    width: int,
    seed: Tensor,
    plan: Tensor | None,
    draw: Draw | None,
    views: Tensor,
    coloured: bool,
    drawn_by: DrawnViews | None,
    values: Values | None = None,
    pixels: tuple[Tensor, Tensor] | None = None,
    targets: Labels | None = None,
) -> Launch:
    """The launch of a call on a batch that is not empty: plan and views are drawn or given, pixels, the images and out,
    and targets may be absent, and where nothing but views is asked for the plan.

    Looks at addresses, sizes and strides of its tensors alone, so that CPU tensors make the launch that CUDA tensors
    would.
    """
    images, out = pixels or (None, None)
    pixel_numbers, walk = pixel_arguments(images, out)
    grid, threads, target_block = launch_sizes(batch, walk.chunks, walk.threads if pixels else 0, targets)
    erasing = values.erasing if values is not None else Erasing()
    moves = may_move(drawn_by)
    arguments = (
        *plan_arguments(plan, draw, seed, batch, height, width),
        *view_arguments(views, coloured, drawn_by),
        *(*pixel_numbers, *constant_arguments(values)),
        *target_arguments(targets),
    )
    options = {
        "SAMPLED": drawn_by is not None,
        "BOXES": min(boxes_of(views, coloured), 2),
        "ERASE_VALUE": int(erasing.value),
        "ERASE_BEFORE": erasing.order == EraseOrder.before,
        "GEOMETRY": moves,
        "COLOURED": coloured,
        "ONLY_CUTMIX": draw is not None and draws_only_cutmix(tuple(draw.bounds)),
        "ELEMENT": ELEMENTS[images.dtype] if images is not None else tl.float32,
        "OUT_ELEMENT": ELEMENTS[out.dtype] if out is not None else tl.float32,
        **walk.constants,
        "TARGET_BLOCK": target_block,
        "num_warps": threads // 32,
        "num_stages": 1,
        "maxnreg": MAX_REGISTERS if moves else None,
        "enable_fp_fusion": False,
    }
    return Launch(augment_kernel, grid, arguments, options)
