"""The ops: every schema, the meaning of its integers, and its fake, in one place and one order.

Each backend implements the same ops. They live in one namespace a backend, so that a backend asked for by name is as
much an op (to ``opcheck``, to ``torch.compile``) as the automatic choice:

========================== =======================================================================================
``cutmix_cuda``            whatever is best for the device: compiled C++ or CUDA, else Triton, else the reference
``cutmix_cuda_triton``     :mod:`cutmix_cuda.triton_kernels`
``cutmix_cuda_reference``  :mod:`cutmix_cuda.reference`
========================== =======================================================================================

C++ (``csrc/mix_ops.h``), Triton and the reference only implement these; :mod:`cutmix_cuda._backends` registers them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import torch
from torch import Tensor

from ._library import Library

NAMESPACES = ("cutmix_cuda", "cutmix_cuda_triton", "cutmix_cuda_reference")

PLAN_COLUMNS = 8
QUANTILE_INTERVALS = 4096

# The dtypes that mixup blends: float64 in float64, the others in float32. Mirrors values.h::can_blend.
BLENDED_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Scope(enum.IntEnum):
    """Who shares a draw of lambda and box. Mirrors mix_math.h::Scope."""

    sample = 0
    pair = 1
    batch = 2


class Partner(enum.IntEnum):
    """Whose pixels are pasted. Mirrors mix_math.h::PartnerRule."""

    roll = 0
    flip = 1
    shift = 2
    mirror = 3


class Placement(enum.IntEnum):
    """Where the box may lie. Mirrors mix_math.h::Placement."""

    clip = 0
    inside = 1


class Kind(enum.IntEnum):
    """What becomes of a sample. Mirrors mix_math.h::Kind."""

    keep = 0
    cutmix = 1
    mixup = 2
    cutout = 3


INVERSE_OF_THEMSELVES = (Partner.flip, Partner.mirror)

# How a plan is drawn. quantiles: float32 (3, 4097), the laws of lambda of cutmix, mixup and cutout. The kind follows
# from a random number in [0, 1): the first of cutmix, mixup and cutout whose bound it is below, or else keep.
_LAWS = "Tensor seed, Tensor quantiles"
_RULES = (
    "float cutmix_below, float mixup_below, float cutout_below, int scope, int partner, int placement, bool correct_lam"
)
_SAMPLING = f"{_LAWS}, {_RULES}"
_TARGETS = "SymInt num_classes, float label_smoothing, ScalarType dtype"
_SIZES = "SymInt batch, SymInt height, SymInt width"
_FILL = "int fill_low=0, int fill_high=0"  # 16 bytes: what cutout fills with, an element of the images over and over

# mix, mix_out and mix_ follow a given plan; cutmix, cutmix_out and cutmix_ sample one, follow it and return it.
SCHEMAS = {
    "sample_plan": f"({_LAWS}, {_SIZES}, {_RULES}) -> Tensor",
    "mix_targets": f"(Tensor labels, Tensor plan, {_TARGETS}) -> Tensor",
    "mix": f"(Tensor images, Tensor? labels, Tensor plan, {_TARGETS}, {_FILL}) -> (Tensor, Tensor)",
    "mix_out": f"(Tensor images, Tensor? labels, Tensor plan, {_TARGETS}, Tensor(a!) out, {_FILL}) -> Tensor",
    "mix_": f"(Tensor(a!) images, Tensor? labels, Tensor plan, {_TARGETS}, {_FILL}) -> Tensor",
    "cutmix": f"(Tensor images, Tensor? labels, {_SAMPLING}, {_TARGETS}, {_FILL}) -> (Tensor, Tensor, Tensor)",
    "cutmix_out": (
        f"(Tensor images, Tensor? labels, {_SAMPLING}, {_TARGETS}, Tensor(a!) out, {_FILL}) -> (Tensor, Tensor)"
    ),
    "cutmix_": f"(Tensor(a!) images, Tensor? labels, {_SAMPLING}, {_TARGETS}, {_FILL}) -> (Tensor, Tensor)",
}


_RULE_COUNT = _RULES.count(",") + 1

# Fakes: the outputs' shapes, strides, dtypes and devices. Without labels the targets are empty: (batch, 0).


def _fake_plan(like: Tensor, batch: int) -> Tensor:
    return like.new_empty((batch, PLAN_COLUMNS), dtype=torch.int32)


def _fake_targets(images: Tensor, labels: Tensor | None, num_classes: int, dtype: torch.dtype) -> Tensor:
    return images.new_empty((images.shape[0], num_classes if labels is not None else 0), dtype=dtype)


def _fake_sample_plan(seed, quantiles, batch, height, width, *rules):
    return _fake_plan(quantiles, batch)


def _fake_mix_targets(labels, plan, num_classes, label_smoothing, dtype):
    return plan.new_empty((plan.shape[0], num_classes), dtype=dtype)


def _fake_mix(images, labels, plan, num_classes, label_smoothing, dtype, *fill):
    return torch.empty_like(images), _fake_targets(images, labels, num_classes, dtype)


def _fake_mix_out(images, labels, plan, num_classes, label_smoothing, dtype, out, *fill):
    return _fake_targets(images, labels, num_classes, dtype)


def _fake_mix_(images, labels, plan, num_classes, label_smoothing, dtype, *fill):
    return _fake_targets(images, labels, num_classes, dtype)


def _fake_cutmix(images, labels, seed, quantiles, *args):
    num_classes, _, dtype = args[_RULE_COUNT : _RULE_COUNT + 3]
    targets = _fake_targets(images, labels, num_classes, dtype)
    return torch.empty_like(images), targets, _fake_plan(images, images.shape[0])


def _fake_cutmix_out(images, labels, seed, quantiles, *args):
    return _fake_cutmix(images, labels, seed, quantiles, *args)[1:]


def _fake_cutmix_(images, labels, seed, quantiles, *args):
    return _fake_cutmix(images, labels, seed, quantiles, *args)[1:]


_FAKES: dict[str, Callable[..., object]] = {
    "sample_plan": _fake_sample_plan,
    "mix_targets": _fake_mix_targets,
    "mix": _fake_mix,
    "mix_out": _fake_mix_out,
    "mix_": _fake_mix_,
    "cutmix": _fake_cutmix,
    "cutmix_out": _fake_cutmix_out,
    "cutmix_": _fake_cutmix_,
}


def _define(namespace: str) -> Library:
    library = Library(namespace)
    for name, schema in SCHEMAS.items():
        library.define(name, schema, _FAKES[name], torch.Tag.pt2_compliant_tag)
    return library


LIBRARIES = {namespace: _define(namespace) for namespace in NAMESPACES}
