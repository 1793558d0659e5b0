"""The ops of the batch tail: schemas, the meaning of their numbers, and fakes. What they compute: csrc/views.h."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ._ops import LIBRARIES, PLAN_COLUMNS

QUADRUPLE = 4  # int32 of a part of a packed view: its geometry, or an erased box. Mirrors augment_call.h::Views
CONSTANTS = 4  # rows of constants: mean, scale, erase, fill
FEW_CHANNELS = 4  # whose constants are on the CPU and travel by value. Mirrors views.h::kFewChannels

# What is read and written. float64 would need arithmetic of its own.
AUGMENTED_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


class EraseValue(enum.IntEnum):
    """What an erased box is filled with. Mirrors views.h::EraseValue."""

    constant = 0
    channel = 1
    pixel = 2


class EraseOrder(enum.IntEnum):
    """Whether a box is erased before or after mixing. Mirrors views.h::EraseOrder."""

    before = 0
    after = 1


class MemoryFormat(enum.IntEnum):
    """How the output lies in memory."""

    contiguous = 0
    channels_last = 1

    @property
    def of_torch(self) -> torch.memory_format:
        return torch.channels_last if self == MemoryFormat.channels_last else torch.contiguous_format


class ViewParameters(NamedTuple):
    """The numbers that views are drawn by, in the order of `float[] view_parameters`. Mirrors views.h::ViewSampling."""

    flip_below: float = 0.0  # of a random number in [0, 1)
    erase_below: float = 0.0
    min_area: float = 0.0  # fractions of the image
    max_area: float = 0.0
    max_aspect: float = 1.0  # height / width; what the table of aspects is divided by


class ViewChoices(NamedTuple):
    """The integers that views are drawn by, in the order of `int[] view_choices`. Mirrors views.h::ViewSampling."""

    translate_y: int = 0  # offsets are in -translate..translate
    translate_x: int = 0
    min_boxes: int = 0  # of a sample that is erased
    max_boxes: int = 0  # which the packed views have room for
    first_erased: int = 0  # samples before this one are not erased


class Erasing(NamedTuple):
    """How boxes are erased, in the order of `int[] erasing`. Mirrors views.h::Erasing."""

    value: int = int(EraseValue.constant)
    order: int = int(EraseOrder.before)


# view_tables: float32 (tables, 4097), of which the first holds the quantiles of an erased box's aspect, divided by
# max_aspect; none where nothing is erased.
# constants: float32 (4, channels), mean, scale, erase and fill; for up to FEW_CHANNELS channels on the CPU, else on the
# device of the images.
_PLAN = "Tensor seed, Tensor quantiles, float[] bounds, int[] sampling"
_VIEWS = "Tensor view_tables, float[] view_parameters, int[] view_choices"
_TARGETS = "SymInt num_classes, float label_smoothing, ScalarType target_dtype"
_VALUES = "Tensor constants, int[] erasing"
_FORMAT = "ScalarType dtype, int memory_format"
_SIZES = "SymInt batch, SymInt height, SymInt width"

# augment samples a plan and views, follows them and returns both; apply_views follows given ones, and its seed is that
# of the noise alone.
SCHEMAS = {
    "sample_views": f"(Tensor seed, {_SIZES}, {_VIEWS}) -> Tensor",
    "augment": (
        f"(Tensor images, Tensor? labels, {_PLAN}, {_VIEWS}, {_TARGETS}, {_VALUES}, {_FORMAT})"
        " -> (Tensor, Tensor, Tensor, Tensor)"
    ),
    "augment_out": (
        f"(Tensor images, Tensor? labels, {_PLAN}, {_VIEWS}, {_TARGETS}, {_VALUES}, Tensor(a!) out)"
        " -> (Tensor, Tensor, Tensor)"
    ),
    "apply_views": (
        f"(Tensor images, Tensor? labels, Tensor plan, Tensor views, Tensor seed, {_TARGETS}, {_VALUES}, {_FORMAT})"
        " -> (Tensor, Tensor)"
    ),
    "apply_views_out": (
        f"(Tensor images, Tensor? labels, Tensor plan, Tensor views, Tensor seed, {_TARGETS}, {_VALUES},"
        " Tensor(a!) out) -> Tensor"
    ),
}


def _fake_views(like: Tensor, batch: int, choices: list[int]) -> Tensor:
    return like.new_empty((batch, 1 + ViewChoices(*choices).max_boxes, QUADRUPLE), dtype=torch.int32)


def _fake_sample_views(seed, batch, height, width, tables, parameters, choices):
    return _fake_views(tables, batch, choices)


def new_images(images: Tensor, dtype: torch.dtype, memory_format: int) -> Tensor:
    """Images like others, of another dtype and layout."""
    layout = MemoryFormat(memory_format).of_torch
    return torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=layout)


def _fake_apply_views_out(images, labels, plan, views, seed, num_classes, label_smoothing, dtype, *rest):
    return images.new_empty((images.shape[0], num_classes if labels is not None else 0), dtype=dtype)


def _fake_apply_views(images, labels, *rest):
    *rest, dtype, memory_format = rest
    return new_images(images, dtype, memory_format), _fake_apply_views_out(images, labels, *rest)


def _fake_augment_out(images, labels, seed, quantiles, bounds, sampling, tables, parameters, choices, *rest):
    batch = images.shape[0]
    plan = images.new_empty((batch, PLAN_COLUMNS), dtype=torch.int32)
    targets = _fake_apply_views_out(images, labels, None, None, None, *rest)
    return targets, plan, _fake_views(images, batch, choices)


def _fake_augment(images, labels, *rest):
    *rest, dtype, memory_format = rest
    return new_images(images, dtype, memory_format), *_fake_augment_out(images, labels, *rest)


_FAKES: dict[str, Callable[..., object]] = {
    "sample_views": _fake_sample_views,
    "augment": _fake_augment,
    "augment_out": _fake_augment_out,
    "apply_views": _fake_apply_views,
    "apply_views_out": _fake_apply_views_out,
}

for _namespace, _library in LIBRARIES.items():
    for _name, _schema in SCHEMAS.items():
        _library.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.register_fake(f"{_namespace}::{_name}", _FAKES[_name], lib=_library)
