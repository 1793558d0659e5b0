"""The ops, in the order of ``cutmix_cuda/_ops.py``: check, allocate, launch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from .._ops import (
    BLENDED_DTYPES,
    INVERSE_OF_THEMSELVES,
    KINDS,
    NO_FILL,
    PLAN_COLUMNS,
    QUANTILE_INTERVALS,
    Draw,
    Partner,
    Placement,
    Sampling,
    Scope,
    TargetFormat,
)
from .._seed import seed_of_call
from .._validation import FLOAT_DTYPES, INTEGER_DTYPES, MAX_BATCH, MAX_INT32
from ..reference import may_blend
from .launch import Labels, Pixels, mix_launch
from .rows import rows_of, same_order


def check(condition: bool, message: str) -> None:
    """For direct calls of an op: the functions of cutmix_cuda have said in more words what is wrong."""
    if not condition:
        raise RuntimeError(message)


def is_aligned(tensor: Tensor) -> bool:
    """Whether its address is a multiple of the bytes of an element."""
    return tensor.data_ptr() % tensor.dtype.itemsize == 0


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of each element as a dimension of their own."""
    width, storage = tensor.dtype.itemsize, tensor.untyped_storage()
    strides = (*(width * stride for stride in tensor.stride()), 1)
    empty = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return empty.set_(storage, width * tensor.storage_offset(), (*tensor.shape, width), strides)


def copy_into(destination: Tensor, source: Tensor) -> None:
    """Also where elements are not aligned, on which torch's own kernels fail. Mirrors stable_abi.h::copy_into."""
    if is_aligned(destination) and is_aligned(source):
        destination.copy_(source)
    else:
        bytes_of(destination).copy_(bytes_of(source))


def dense(tensor: Tensor) -> Tensor:
    """Contiguous and aligned: the tensor or a copy. Mirrors stable_abi.h::dense."""
    if is_aligned(tensor):
        return tensor.contiguous()
    copy = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    copy_into(copy, tensor)
    return copy


def check_extent(batch: int, height: int, width: int) -> None:
    check(0 <= batch <= MAX_BATCH, "the batch size must be in 0..2^30")
    check(
        min(height, width) >= 0 and max(height, width, height * width) <= MAX_INT32,
        "height, width and their product must be in 0..2^31-1",
    )


def check_images(images: Tensor, out: Tensor) -> None:
    check(3 <= images.dim() <= 8, "images must be of shape (batch, ..., height, width), of 3 to 8 dimensions")
    check(
        out is images
        or (out.shape == images.shape and out.dtype.itemsize == images.dtype.itemsize and out.device == images.device),
        "out must have the shape, dtype and device of images",
    )


@lru_cache(maxsize=256)
def is_known(sampling: tuple[int, ...]) -> bool:
    """Whether the integers are those of a Sampling."""
    choices = Sampling(len(Scope), len(Partner), len(Placement), 2)
    return len(sampling) == len(choices) and all(0 <= a < b for a, b in zip(sampling, choices, strict=True))


def new_plan(draw: Draw, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An empty plan to sample into for images of a dtype, after a check of what to draw by."""
    seed, quantiles, bounds, sampling = draw
    check(seed.numel() == 1 and seed.dtype == torch.int64, "seed must be one int64")
    check(
        seed.device.type == "cpu" or seed.device == quantiles.device,
        "seed must be on the CPU or on the device of the images",
    )
    check(
        quantiles.shape == (KINDS, QUANTILE_INTERVALS + 1)
        and quantiles.dtype == torch.float32
        and quantiles.is_contiguous(),
        "quantiles must be a contiguous float32 tensor of a row of 4097 knots for each kind",
    )
    check(len(bounds) == KINDS, "bounds must be a number for each kind")
    check(is_known(tuple(sampling)), "sampling must be a known scope, partner and placement, and correct_lam")
    check(
        dtype in BLENDED_DTYPES or not may_blend(bounds),
        "mixup blends images of dtype uint8, float16, bfloat16, float32 and float64 only",
    )
    return quantiles.new_empty((batch, PLAN_COLUMNS), dtype=torch.int32)


def checked_plan(plan: Tensor, batch: int, device: torch.device) -> Tensor:
    check(
        plan.shape == (batch, PLAN_COLUMNS) and plan.dtype == torch.int32 and plan.device == device,
        "plan must be int32 of shape (batch, 8) on the device of the images",
    )
    return dense(plan)


def new_targets(
    labels: Tensor | None, like: Tensor, batch: int, target_format: TargetFormat
) -> tuple[Tensor, Labels | None]:
    """The empty targets, and what the kernel needs to write them; None where there is nothing to write."""
    num_classes, label_smoothing, dtype = target_format
    check(0 <= num_classes <= MAX_INT32, "num_classes must be in 0..2^31-1")
    classes = num_classes if labels is not None else 0
    targets = like.new_empty((batch, classes), dtype=dtype)
    if labels is None:
        return targets, None
    check(labels.device == like.device, "labels must be on the device of the images")
    soft = labels.dtype in FLOAT_DTYPES
    check(
        (soft or labels.dtype in INTEGER_DTYPES) and dtype in FLOAT_DTYPES,
        "labels and targets must be integers, or float16, bfloat16, float32 or float64",
    )
    check(
        labels.shape == ((batch, classes) if soft else (batch,)),
        "labels must be integers of shape (batch,) or floats of shape (batch, num_classes)",
    )
    if targets.numel() == 0:
        return targets, None
    return targets, Labels(dense(labels), targets, label_smoothing)


def sample_plan(seed, quantiles, bounds, sampling, batch, height, width):
    check_extent(batch, height, width)
    draw = Draw(seed, quantiles, bounds, sampling)
    plan = new_plan(draw, batch)
    if batch > 0:
        mix_launch(batch, height, width, plan, draw)(plan.device)
    return plan


def mix_targets(labels, plan, num_classes, label_smoothing, dtype):
    batch = plan.shape[0]
    plan = checked_plan(plan, batch, labels.device)
    targets, writes = new_targets(labels, plan, batch, TargetFormat(num_classes, label_smoothing, dtype))
    if writes is not None:
        mix_launch(batch, MAX_INT32, MAX_INT32, plan, targets=writes)(plan.device)
    return targets


def run(
    images: Tensor,
    out: Tensor,
    labels: Tensor | None,
    plan: Tensor | Draw,
    target_format: TargetFormat,
    fill: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Mixes images into out, in place where they are one, by a plan given or to be drawn; returns targets, plan."""
    check_images(images, out)
    in_place = out is images
    batch, height, width = images.shape[0], *images.shape[-2:]
    check_extent(batch, height, width)
    draw = plan if isinstance(plan, Draw) else None
    if isinstance(plan, Draw):
        check(plan.quantiles.device == images.device, "quantiles must be on the device of the images")
        inverse = Sampling(*plan.sampling).partner in INVERSE_OF_THEMSELVES
        check(inverse or not in_place, "in place, partner must be its own inverse: flip or mirror")
        plan = new_plan(plan, batch, images.dtype)
    else:
        plan = checked_plan(plan, batch, images.device)
    targets, writes = new_targets(labels, images, batch, target_format)
    if batch == 0:
        return targets, plan

    source, destination = images, out
    rows, out_rows = rows_of(images), rows_of(out)
    # A vector that is blended has to hold whole elements.
    aligned = images.dtype not in BLENDED_DTYPES or (is_aligned(images) and is_aligned(out))
    alike = rows is not None and out_rows is not None and rows.shape == out_rows.shape and same_order(images, out)
    if not (aligned and alike):
        source = dense(images)
        destination = source if in_place else torch.empty_like(source)
        rows = out_rows = rows_of(source)
    assert rows is not None and out_rows is not None
    pixels = Pixels(source, destination, rows, out_rows) if images.numel() > 0 else None
    launch = mix_launch(
        batch, height, width, plan, draw, pixels, writes, in_place=in_place, dtype=images.dtype, fill=fill
    )
    launch(images.device)
    if destination is not out:
        copy_into(out, destination)
    return targets, plan


def apply(images, labels, plan, num_classes, label_smoothing, dtype, fill=NO_FILL):
    out = torch.empty_like(images)
    return out, apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill)


def apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill=NO_FILL):
    return run(images, out, labels, plan, TargetFormat(num_classes, label_smoothing, dtype), fill)[0]


def apply_(images, labels, plan, num_classes, label_smoothing, dtype, fill=NO_FILL):
    return run(images, images, labels, plan, TargetFormat(num_classes, label_smoothing, dtype), fill)[0]


def sample_and_apply(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype,
    fill=NO_FILL, check_labels=False,
):  # fmt: skip
    seed = seed_of_call(seed, labels, num_classes, check_labels)
    out, draw = torch.empty_like(images), Draw(seed, quantiles, bounds, sampling)
    return out, *run(images, out, labels, draw, TargetFormat(num_classes, label_smoothing, dtype), fill)


def sample_and_apply_out(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype, out,
    fill=NO_FILL, check_labels=False,
):  # fmt: skip
    seed = seed_of_call(seed, labels, num_classes, check_labels)
    draw = Draw(seed, quantiles, bounds, sampling)
    return run(images, out, labels, draw, TargetFormat(num_classes, label_smoothing, dtype), fill)


def sample_and_apply_(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype,
    fill=NO_FILL, check_labels=False,
):  # fmt: skip
    seed = seed_of_call(seed, labels, num_classes, check_labels)
    draw = Draw(seed, quantiles, bounds, sampling)
    return run(images, images, labels, draw, TargetFormat(num_classes, label_smoothing, dtype), fill)


OPS = {
    "sample_plan": sample_plan,
    "mix_targets": mix_targets,
    "apply": apply,
    "apply_out": apply_out,
    "apply_": apply_,
    "sample_and_apply": sample_and_apply,
    "sample_and_apply_out": sample_and_apply_out,
    "sample_and_apply_": sample_and_apply_,
}
