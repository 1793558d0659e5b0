"""The ops of several patches a sample, in the order of ``cutmix_cuda/_ops.py``: check, allocate, launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._ops import (
    BLENDED_DTYPES,
    LONGEST_SIDE,
    MOST_MASKED_PIXELS,
    MOST_PATCHES,
    NO_FILL,
    PATCH_METHODS,
    PLAN_COLUMNS,
    QUANTILE_INTERVALS,
    RICAP_PATCHES,
    Partner,
    PatchDraw,
    PatchMethod,
    PatchSampling,
    Placement,
    Scope,
    TargetFormat,
    patch_ops,
)
from .._validation import FLOAT_DTYPES, MAX_BATCH
from ..reference import can_draw, may_blend
from ..reference_patches import draws_holes_alone
from .augment_ops import check_seed
from .launch import Labels
from .ops import check, dense, is_aligned, new_targets
from .patches_launch import GivenPatches, PatchPixels, patches_launch
from .rows import Rows, rows_of, same_order


def check_patch_extent(batch: int, height: int, width: int) -> None:
    check(0 <= batch <= MAX_BATCH, "the batch size must be in 0..2^30")
    check(min(height, width) >= 0 and max(height, width) <= LONGEST_SIDE, "height and width must be in 0..32768")


def check_draw(draw: PatchDraw, dtype: torch.dtype = torch.float32) -> None:
    """Raises unless patches can be drawn for images of a dtype."""
    seed, quantiles, bounds, sampling = draw
    check_seed(seed, quantiles.device)
    check(
        quantiles.shape == (PATCH_METHODS, QUANTILE_INTERVALS + 1)
        and quantiles.dtype == torch.float32
        and quantiles.is_contiguous(),
        "quantiles must be a contiguous float32 tensor of a row of 4097 knots for each method",
    )
    check(len(bounds) == PATCH_METHODS, "bounds must be a number for each method")
    choices = PatchSampling(len(Scope), len(Partner), len(Placement), MOST_PATCHES + 1, MOST_PATCHES + 1)
    known = len(sampling) == len(choices) and all(0 <= a < b for a, b in zip(sampling, choices, strict=True))
    least = RICAP_PATCHES if can_draw(PatchMethod.ricap, bounds) else 1
    check(
        known and sampling[-2] >= 1 and sampling[-1] >= max(sampling[-2], least),
        "patch_sampling must be a known scope, partner and placement, a number of holes, and one of patches that is "
        "enough, at most 64",
    )
    check(
        dtype in BLENDED_DTYPES or not may_blend(bounds),
        "mixup blends images of dtype uint8, float16, bfloat16, float32 and float64 only",
    )


def new_patches(draw: PatchDraw, batch: int) -> GivenPatches:
    """Empty rows and sources to draw into."""
    patches = PatchSampling(*draw.sampling).patches
    rows = draw.quantiles.new_empty((batch, patches, PLAN_COLUMNS), dtype=torch.int32)
    return GivenPatches(rows, draw.quantiles.new_empty((batch, patches, 4), dtype=torch.int32))


def checked_patches(given: GivenPatches, batch: int, height: int, width: int, device: torch.device) -> GivenPatches:
    rows, sources, masks, weights = given
    check(
        rows.dim() == 3
        and rows.shape[0] <= MAX_BATCH
        and 1 <= rows.shape[1] <= MOST_PATCHES
        and rows.shape[2] == PLAN_COLUMNS
        and rows.dtype == torch.int32
        and rows.device == device,
        "rows must be int32 of shape (samples, 1 to 64 patches, 8) on the device of the images",
    )
    samples, patches, _ = rows.shape
    check(samples == 0 or batch > 0, "images must not be empty for a plan of samples")
    check(
        sources is None
        or (sources.shape == (samples, patches, 4) and sources.dtype == torch.int32 and sources.device == device),
        "sources must be int32 of shape (samples, patches, 4) on the device of the images",
    )
    check(
        masks is None
        or (
            masks.dim() in (3, 4)
            and masks.dtype in (torch.bool, torch.float32)
            and all(1 <= side <= LONGEST_SIDE for side in masks.shape[-2:])
            and masks.device == device
        ),
        "masks must be bool or float32 of shape (masks, 1 to 32768, 1 to 32768), or (masks, channels, 1 to 32768, "
        "1 to 32768), on the device of the images",
    )
    check(
        masks is None
        or masks.dim() == 3
        or (masks.shape[1] >= 1 and masks.shape[1] * max(height * width, 1) <= MOST_MASKED_PIXELS),
        "masks of each channel must be for at most 2^38 pixels of all channels",
    )
    check(
        weights is None
        or (weights.shape == (samples, 1 + patches) and weights.dtype == torch.float32 and weights.device == device),
        "weights must be float32 of shape (samples, 1 + patches) on the device of the images",
    )
    parts = (None if part is None else dense(part) for part in (sources, masks, weights))
    return GivenPatches(dense(rows), *parts)


def check_like(images: Tensor, other: Tensor, samples: int, message: str) -> None:
    check(
        other.shape == (samples, *images.shape[1:])
        and other.dtype.itemsize == images.dtype.itemsize
        and other.device == images.device,
        message,
    )


def patch_targets(
    labels: Tensor | None, other_labels: Tensor | None, like: Tensor, batch: int, others: int, samples: int, format_
) -> tuple[Tensor, Labels | None, Tensor | None]:
    """The empty targets, what the kernel needs to write them, and the second batch's labels."""
    checked, writes = new_targets(labels, like, batch, format_)
    targets = like.new_empty((samples, checked.shape[1]), dtype=format_.dtype)
    if labels is None:
        return targets, None, None
    check((other_labels is not None) == (others > 0), "other_labels must be given with others")
    if other_labels is not None:
        shape = (others, format_.num_classes) if labels.dtype in FLOAT_DTYPES else (others,)
        check(
            other_labels.shape == shape and other_labels.dtype == labels.dtype and other_labels.device == like.device,
            "other_labels must be one a sample of others, of the dtype of labels, on their device",
        )
        other_labels = dense(other_labels)
    if targets.numel() == 0:
        return targets, None, None
    return targets, Labels(dense(labels), targets, format_.label_smoothing), other_labels


def alike(a: Tensor, rows: Rows | None, b: Tensor, other: Rows | None) -> bool:
    """Whether two batches lie in memory alike, whatever their numbers of samples."""
    return rows is not None and other is not None and rows.shape[1:] == other.shape[1:] and same_order(a, b)


def run(
    images: Tensor,
    others: Tensor | None,
    labels: Tensor | None,
    other_labels: Tensor | None,
    given: GivenPatches | PatchDraw,
    format_: TargetFormat,
    out: Tensor,
    fill: Sequence[int],
) -> tuple[Tensor, GivenPatches]:
    """Paints into out, in place where it is images, by a plan given or to be drawn; returns targets and the plan."""
    check(3 <= images.dim() <= 8, "images must be of shape (batch, ..., height, width), of 3 to 8 dimensions")
    batch, height, width = images.shape[0], *images.shape[-2:]
    check_patch_extent(batch, height, width)
    other_count = 0
    if others is not None:
        other_count = others.shape[0]
        check_like(images, others, other_count, "others must be samples like images")
    in_place = out is images
    draw = given if isinstance(given, PatchDraw) else None
    if isinstance(given, PatchDraw):
        check_draw(given, images.dtype)
        check(given.quantiles.device == images.device, "quantiles must be on the device of the images")
        check(not in_place or draws_holes_alone(given.bounds), "in place, patches that are drawn must be holes")
        given = new_patches(given, batch)
    else:
        given = checked_patches(given, batch, height, width, images.device)
        masks = given.masks
        check(
            masks is None or masks.dim() == 3 or (images.dim() >= 4 and masks.shape[1] == images.shape[1]),
            "masks of each channel must be of the channels of images",
        )
    samples = given.rows.shape[0]
    check_like(images, out, samples, "out must be samples of the plan like images")
    targets, writes, other_labels = patch_targets(labels, other_labels, images, batch, other_count, samples, format_)
    if samples == 0:
        return targets, given
    source, second, destination = images, others if other_count > 0 else None, out
    rows, out_rows = rows_of(images), rows_of(out)
    other_rows = rows if second is None else rows_of(second)
    as_they_lie = alike(images, rows, out, out_rows) and (second is None or alike(images, rows, second, other_rows))
    if not (as_they_lie and all(each is None or is_aligned(each) for each in (images, second, out))):
        source = dense(images)
        destination = source if in_place else torch.empty(out.shape, dtype=out.dtype, device=out.device)
        second = None if second is None else dense(second)
        rows, out_rows = rows_of(source), rows_of(destination)
        other_rows = rows if second is None else rows_of(second)
    assert rows is not None and out_rows is not None and other_rows is not None
    pixels = PatchPixels(source, second, destination, rows, other_rows, out_rows) if out.numel() > 0 else None
    if pixels is not None or writes is not None or draw is not None:
        patches_launch(
            *(batch, other_count, height, width, given, draw, pixels, writes, other_labels),
            in_place=in_place,
            dtype=images.dtype,
            fill=fill,
        )(images.device)
    if destination is not out:
        out.copy_(destination)
    return targets, given


def paint_out(
    images, others, labels, other_labels, rows, sources, masks, weights,
    num_classes, label_smoothing, dtype, out, fill=NO_FILL,
):  # fmt: skip
    given = GivenPatches(rows, sources, masks, weights)
    format_ = TargetFormat(num_classes, label_smoothing, dtype)
    return run(images, others, labels, other_labels, given, format_, out, fill)[0]


def paint_targets(
    labels, other_labels, rows, masks, weights, height, width, num_classes, label_smoothing, dtype
):  # fmt: skip
    batch = labels.shape[0]
    check_patch_extent(batch, height, width)
    given = checked_patches(GivenPatches(rows, None, masks, weights), batch, height, width, labels.device)
    other_count = 0 if other_labels is None else other_labels.shape[0]
    format_ = TargetFormat(num_classes, label_smoothing, dtype)
    targets, writes, other_labels = patch_targets(
        labels, other_labels, labels, batch, other_count, rows.shape[0], format_
    )
    if writes is not None:
        patches_launch(batch, other_count, height, width, given, None, None, writes, other_labels)(labels.device)
    return targets


def sample_patches(seed, quantiles, bounds, patch_sampling, batch, height, width):
    check_patch_extent(batch, height, width)
    draw = PatchDraw(seed, quantiles, bounds, patch_sampling)
    check_draw(draw)
    drawn = new_patches(draw, batch)
    if batch > 0:
        patches_launch(batch, 0, height, width, drawn, draw)(quantiles.device)
    return drawn.rows, drawn.sources


def sample_and_paint_out(
    images, labels, seed, quantiles, bounds, patch_sampling, num_classes, label_smoothing, dtype, out, fill=NO_FILL
):
    draw = PatchDraw(seed, quantiles, bounds, patch_sampling)
    format_ = TargetFormat(num_classes, label_smoothing, dtype)
    targets, drawn = run(images, None, labels, None, draw, format_, out, fill)
    return targets, drawn.rows, drawn.sources


OPS = patch_ops(paint_out, paint_targets, sample_patches, sample_and_paint_out)
