"""The ops of the batch tail, in the order of ``cutmix_cuda/_ops.py``: check, allocate, launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._ops import (
    AUGMENTED_DTYPES,
    COLOUR_ROWS,
    CONSTANTS,
    FEW_CHANNELS,
    QUADRUPLE,
    QUANTILE_INTERVALS,
    Draw,
    EraseOrder,
    EraseValue,
    Erasing,
    MemoryFormat,
    TargetFormat,
    ViewChoices,
    ViewParameters,
    new_images,
)
from .._validation import MAX_INT32
from .augment_launch import DrawnViews, Values, augment_launch, boxes_of
from .ops import check, check_extent, checked_plan, copy_into, dense, is_aligned, new_plan, new_targets

MAX_BOXES = 1024  # of a sample. Mirrors views.h::kMaxBoxes


def check_seed(seed: Tensor, device: torch.device) -> None:
    check(seed.numel() == 1 and seed.dtype == torch.int64, "seed must be one int64")
    check(seed.device.type == "cpu" or seed.device == device, "seed must be on the CPU or on the device of the images")


def new_views(batch: int, drawn_by: DrawnViews) -> Tensor:
    """Empty views to sample into, after a check of what to draw by."""
    tables, colours, parameters, choices = drawn_by
    check(
        len(parameters) == len(ViewParameters._fields) and len(choices) == len(ViewChoices._fields),
        "view_parameters must have 12 entries, and view_choices 6",
    )
    check(all(0 <= choice <= MAX_INT32 for choice in choices), "each of view_choices must be in 0..2^31-1")
    named = ViewChoices(*choices)
    check(named.coloured <= 1, "the last of view_choices must be 0 or 1")
    check(
        colours is None
        or (
            colours.shape == (batch, COLOUR_ROWS, QUADRUPLE)
            and colours.dtype == torch.float32
            and colours.is_contiguous()
            and colours.device == tables.device
        ),
        "colours must be contiguous float32 of shape (batch, 3, 4) on the device of view_tables",
    )
    check(named.min_boxes <= named.max_boxes <= MAX_BOXES, "boxes must be min <= max <= 1024")
    least = 1 if named.max_boxes > 0 else 0
    check(
        tables.dim() == 2
        and tables.shape[0] >= least
        and tables.shape[1] == QUANTILE_INTERVALS + 1
        and tables.dtype == torch.float32
        and tables.is_contiguous(),
        "view_tables must be a contiguous float32 tensor of 4097 knots a table, one where boxes are erased",
    )
    rows = 1 + named.max_boxes + COLOUR_ROWS * named.coloured
    return tables.new_empty((batch, rows, QUADRUPLE), dtype=torch.int32)


def checked_views(views: Tensor, coloured: bool, batch: int, device: torch.device) -> Tensor:
    check(
        views.dim() == 3
        and views.shape[0] == batch
        and 0 <= boxes_of(views, coloured) <= MAX_BOXES
        and views.shape[2] == QUADRUPLE
        and views.dtype == torch.int32
        and views.device == device,
        "views must be int32 of shape (batch, 1 + boxes, 4), or (batch, 4 + boxes, 4) with colours, on the device of "
        "the images",
    )
    return dense(views)


def checked_values(constants: Tensor, erasing: Sequence[int], images: Tensor) -> Values:
    channels = images.shape[1]
    check(
        constants.shape == (CONSTANTS, channels) and constants.dtype == torch.float32 and constants.is_contiguous(),
        "constants must be a contiguous float32 tensor of shape (4, channels)",
    )
    if channels <= FEW_CHANNELS:
        check(constants.device.type == "cpu", "constants of up to 4 channels must be on the CPU")
    else:
        check(constants.device == images.device, "constants must be on the device of the images")
    check(
        len(erasing) == 2 and 0 <= erasing[0] < len(EraseValue) and 0 <= erasing[1] < len(EraseOrder),
        "erasing must be a value in 0..2 and an order in 0..1",
    )
    return Values(constants, Erasing(*erasing))


def check_augmented(images: Tensor) -> None:
    check(images.dim() == 4, "images must be of shape (batch, channels, height, width)")
    check(images.dtype in AUGMENTED_DTYPES, "images must be uint8, float16, bfloat16 or float32")
    check_extent(images.shape[0], *images.shape[2:])


def check_out(images: Tensor, out: Tensor, values: Values) -> None:
    check(out.shape == images.shape and out.device == images.device, "out must have the shape and device of images")
    to_bytes = images.dtype == torch.uint8 and values.erasing.value == EraseValue.constant
    check(
        out.dtype in AUGMENTED_DTYPES and (out.dtype != torch.uint8 or to_bytes),
        "out must be float16, bfloat16 or float32; or uint8, of images of uint8 without noise",
    )


def run(
    images: Tensor,
    labels: Tensor | None,
    seed: Tensor,
    plan: Tensor | Draw,
    views: Tensor | DrawnViews,
    coloured: bool,
    target_format: TargetFormat,
    constants: Tensor,
    erasing: Sequence[int],
    out: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Augments images into out by a plan and views that are given, or to be drawn; returns targets, plan and views."""
    check_augmented(images)
    batch, _, height, width = images.shape
    values = checked_values(constants, erasing, images)
    check_out(images, out, values)
    check_seed(seed, images.device)
    draw = plan if isinstance(plan, Draw) else None
    drawn_by = views if isinstance(views, DrawnViews) else None
    if isinstance(plan, Draw):
        check(plan.quantiles.device == images.device, "quantiles must be on the device of the images")
        plan = new_plan(plan, batch)
    else:
        plan = checked_plan(plan, batch, images.device)
    if isinstance(views, DrawnViews):
        check(views.tables.device == images.device, "view_tables must be on the device of the images")
        views = new_views(batch, views)
    else:
        views = checked_views(views, coloured, batch, images.device)
    check(not coloured or images.shape[1] == COLOUR_ROWS, "images must have 3 channels to be coloured")
    targets, writes = new_targets(labels, images, batch, target_format)
    if batch > 0:
        destination = out if is_aligned(out) else torch.empty_like(out)
        source = images if is_aligned(images) else dense(images)
        pixels = (source, destination) if images.numel() > 0 else None
        launch = augment_launch(
            *(batch, height, width, seed, plan, draw, views, coloured, drawn_by),
            *(values if pixels else None, pixels, writes),
        )
        launch(images.device)
        if destination is not out:
            copy_into(out, destination)
    return targets, plan, views


def is_coloured(choices: Sequence[int]) -> bool:
    return bool(ViewChoices(*choices).coloured)


def sample_views(seed, batch, height, width, view_tables, colours, view_parameters, view_choices):
    check_extent(batch, height, width)
    check_seed(seed, view_tables.device)
    drawn_by = DrawnViews(view_tables, colours, view_parameters, view_choices)
    coloured = is_coloured(view_choices)
    views = new_views(batch, drawn_by)
    if batch > 0:
        augment_launch(batch, height, width, seed, None, None, views, coloured, drawn_by)(views.device)
    return views


def augment(
    images, labels, seed, quantiles, bounds, sampling, view_tables, colours, view_parameters, view_choices,
    num_classes, label_smoothing, target_dtype, constants, erasing, output_dtype, memory_format,
):  # fmt: skip
    out = new_out(images, output_dtype, memory_format)
    return out, *augment_out(
        images, labels, seed, quantiles, bounds, sampling, view_tables, colours, view_parameters, view_choices,
        num_classes, label_smoothing, target_dtype, constants, erasing, out,
    )  # fmt: skip


def augment_out(
    images, labels, seed, quantiles, bounds, sampling, view_tables, colours, view_parameters, view_choices,
    num_classes, label_smoothing, target_dtype, constants, erasing, out,
):  # fmt: skip
    draw = Draw(seed, quantiles, bounds, sampling)
    drawn_by = DrawnViews(view_tables, colours, view_parameters, view_choices)
    target_format = TargetFormat(num_classes, label_smoothing, target_dtype)
    coloured = is_coloured(view_choices)
    return run(images, labels, seed, draw, drawn_by, coloured, target_format, constants, erasing, out)


def apply_views(
    images, labels, plan, views, coloured, seed, num_classes, label_smoothing, target_dtype,
    constants, erasing, output_dtype, memory_format,
):  # fmt: skip
    out = new_out(images, output_dtype, memory_format)
    return out, apply_views_out(
        images, labels, plan, views, coloured, seed, num_classes, label_smoothing, target_dtype, constants, erasing, out
    )


def apply_views_out(
    images, labels, plan, views, coloured, seed, num_classes, label_smoothing, target_dtype, constants, erasing, out
):
    target_format = TargetFormat(num_classes, label_smoothing, target_dtype)
    return run(images, labels, seed, plan, views, coloured, target_format, constants, erasing, out)[0]


def new_out(images: Tensor, dtype: torch.dtype, memory_format: int) -> Tensor:
    check(images.dim() == 4, "images must be of shape (batch, channels, height, width)")
    check(memory_format in tuple(MemoryFormat), "memory_format must be 0 or 1")
    return new_images(images, dtype, memory_format)


OPS = {
    "sample_views": sample_views,
    "augment": augment,
    "augment_out": augment_out,
    "apply_views": apply_views,
    "apply_views_out": apply_views_out,
}
