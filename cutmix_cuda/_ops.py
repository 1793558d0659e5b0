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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._library import Library

PLAN_COLUMNS = 8
QUANTILE_INTERVALS = 4096

# The dtypes that mixup blends: float64 in float64, the others in float32. Mirrors values.h::can_blend.
BLENDED_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


# Of plans of several patches.
MOST_PATCHES = 64  # of a sample. Mirrors patches.h::kMostPatches
LONGEST_SIDE = 1 << 15  # pixels, of images and masks: the product of two sides is an int32. Mirrors patches.h
MOST_MASKED_PIXELS = 1 << 38  # of all channels with masks of their own. Mirrors patches.h::kMostMaskedPixels

# Of the batch tail.
QUADRUPLE = 4  # 32-bit numbers of a part of a packed view: its geometry, an erased box, a row of its colour matrix
COLOUR_ROWS = 3  # of the matrix of a coloured view, which is behind the boxes. Mirrors views.h::kColourRows
CONSTANTS = 4  # rows of constants: mean, scale, erase, fill
FEW_CHANNELS = 4  # whose constants are on the CPU and travel by value. Mirrors views.h::kFewChannels

# What is read and written. float64 would need arithmetic of its own.
AUGMENTED_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


class Scope(enum.IntEnum):
    """Who shares a draw of lambda and box. Mirrors mix_math.h::Scope."""

    sample = 0
    pair = 1
    batch = 2


class Partner(enum.IntEnum):
    """Whose pixels are pasted. Mirrors mix_math.h::Partner."""

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


INVERSE_OF_THEMSELVES = (Partner.flip, Partner.mirror)
KINDS = len(Kind) - 1  # that do something: each has a table of quantiles and a bound
RICAP_PATCHES = 4  # of a sample. Mirrors patches.h::kRicapPatches


class PatchMethod(enum.IntEnum):
    """How a sample with patches is mixed, if not as one of the kinds. Mirrors patches.h::PatchMethod."""

    resizemix = KINDS + 1
    ricap = KINDS + 2


PATCH_METHODS = KINDS + len(PatchMethod)  # that do something: each has a table of quantiles and a bound


class Sampling(NamedTuple):
    """The integers ``sampling`` of the ops, in their order. Mirrors mix_math.h::Sampling."""

    scope: int  # of the enumerations above, as plain numbers, which the dispatcher takes faster
    partner: int
    placement: int
    correct_lam: int  # 0 or 1


class PatchSampling(NamedTuple):
    """The integers ``patch_sampling`` of the ops, in their order. Read by patch_ops.h::decode_patch_sampling."""

    scope: int  # of the enumerations above, as plain numbers
    partner: int  # of all but ricap, which has four of its own
    placement: int
    holes: int  # of a sample that is cut out
    patches: int  # of every sample, as many as any method may need: those behind its own are kept


class PatchDraw(NamedTuple):
    """How patches are drawn, in the order of the ops' arguments.

    Attributes:
        seed: int64 (1,), on the CPU or on the device of the images.
        quantiles: float32 (PATCH_METHODS, 4097), a row for each kind but keep and each method behind them, in the order
            of their numbers: of lambda of the kinds, of the scale of resizemix, and of the corner of ricap.
        bounds: of a random number in [0, 1), for each of these methods, as in :class:`Draw`.
        sampling: see :class:`PatchSampling`.
    """

    seed: Tensor
    quantiles: Tensor
    bounds: Sequence[float]
    sampling: Sequence[int]


class ViewParameters(NamedTuple):
    """The numbers that views are drawn by, in the order of `float[] view_parameters`. Mirrors views.h::ViewSampling."""

    flip_below: float = 0.0  # of a random number in [0, 1)
    erase_below: float = 0.0
    min_area: float = 0.0  # fractions of the image
    max_area: float = 0.0
    max_aspect: float = 1.0  # height / width; what the table of aspects is divided by
    brightness_least: float = 1.0  # factors are uniform from the least to the most
    brightness_most: float = 1.0
    contrast_least: float = 1.0
    contrast_most: float = 1.0
    saturation_least: float = 1.0
    saturation_most: float = 1.0
    grey_below: float = 0.0  # of a random number in [0, 1)


class ViewChoices(NamedTuple):
    """The integers that views are drawn by, in the order of `int[] view_choices`. Mirrors views.h::ViewSampling."""

    translate_y: int = 0  # offsets are in -translate..translate
    translate_x: int = 0
    min_boxes: int = 0  # of a sample that is erased
    max_boxes: int = 0  # which the packed views have room for
    first_erased: int = 0  # samples before this one are not erased
    coloured: int = 0  # 0 or 1: whether views have a colour matrix


class Erasing(NamedTuple):
    """How boxes are erased, in the order of `int[] erasing`. Mirrors views.h::Erasing."""

    value: int = int(EraseValue.constant)
    order: int = int(EraseOrder.before)


class Draw(NamedTuple):
    """How a plan is drawn, in the order of the ops' arguments.

    Attributes:
        seed: int64 (1,), on the CPU or on the device of the images.
        quantiles: float32 (KINDS, 4097), of lambda, a row for each kind but keep, in the order of their numbers.
        bounds: of a random number in [0, 1), for each of these kinds. The first kind whose bound the number is below is
            the sample's; where there is none, the sample is kept.
        sampling: see :class:`Sampling`.
    """

    seed: Tensor
    quantiles: Tensor
    bounds: Sequence[float]
    sampling: Sequence[int]


class TargetFormat(NamedTuple):
    """How dense targets are written, in the order of the ops' arguments."""

    num_classes: int
    label_smoothing: float
    dtype: torch.dtype


# What a call is made of. The fill is 16 bytes in two integers: an element of the images, over and over.
_IMAGES, _IMAGES_WRITTEN, _OUT = "Tensor images, Tensor? labels", "Tensor(a!) images, Tensor? labels", "Tensor(a!) out"
_DRAW = "Tensor seed, Tensor quantiles, float[] bounds, int[] sampling"
_SIZES = "SymInt batch, SymInt height, SymInt width"
_TARGETS = "SymInt num_classes, float label_smoothing, ScalarType dtype"
_FILL = "int[] fill=[0, 0]"
# A call: without a seed it is drawn from torch's default generator on the CPU. check_labels: on the CPU class indices
# outside of 0..num_classes-1 are refused, before anything is drawn or written, instead of giving NaN targets.
_CALL_DRAW = _DRAW.replace("Tensor seed", "Tensor? seed")
_CALL = f"{_FILL}, bool check_labels=False"

# And of the batch tail.
# view_tables: float32 (tables, 4097), of which the first holds the quantiles of an erased box's aspect, divided by
# max_aspect; none where nothing is erased.
# colours: float32 (batch, 3, 4), the colour matrices of views that are drawn otherwise; None to draw these, too, where
# view_choices say that views have any.
# constants: float32 (4, channels), mean, scale, erase and fill; for up to FEW_CHANNELS channels on the CPU, else on the
# device of the images.
_VIEWS = "Tensor view_tables, Tensor? colours, float[] view_parameters, int[] view_choices"
_GIVEN = "Tensor plan, Tensor views, bool coloured, Tensor seed"
_VALUES = "Tensor constants, int[] erasing"
_OUTPUT = "ScalarType output_dtype, int memory_format"


# And of plans of several patches, which are rows int32 (samples, patches, 8), partner, y0, x0, y1, x1, the bits of lam,
# kind, mask; sources int32 (samples, patches, 4), the rectangle of the partner that fills each box, by default the box;
# masks bool or float32 (masks, h, w), the weight of what lies below, or (masks, channels, h, w), that of each channel;
# weights float32 (samples, 1 + patches), of labels. Partners are samples of images and, behind them, of others. Labels
# and other_labels are of one dtype.
_SAMPLES = "Tensor images, Tensor? others, Tensor? labels, Tensor? other_labels"
_PATCHES = "Tensor rows, Tensor? sources, Tensor? masks, Tensor? weights"
_PATCH_DRAW = "Tensor seed, Tensor quantiles, float[] bounds, int[] patch_sampling"


class Op(NamedTuple):
    """An op: its schema, and its fake, which makes outputs of the right shapes, strides, dtypes and devices."""

    schema: str
    fake: Callable[..., object]
    tags: tuple[torch.Tag, ...] = (torch.Tag.pt2_compliant_tag,)


# What reads a seed or constants on the host as it is called: the CUDA graphs that torch.compile(mode="reduce-overhead")
# makes by itself would keep those of the capture, so it has to leave such ops out of them.
READS_ON_HOST = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)


def _new_plan(like: Tensor, batch: int) -> Tensor:
    return like.new_empty((batch, PLAN_COLUMNS), dtype=torch.int32)


def _new_targets(images: Tensor, labels: Tensor | None, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Without labels the targets are empty: (batch, 0)."""
    return images.new_empty((images.shape[0], num_classes if labels is not None else 0), dtype=dtype)


def _fake_sample_plan(seed, quantiles, bounds, sampling, batch, height, width):
    return _new_plan(quantiles, batch)


def _fake_mix_targets(labels, plan, num_classes, label_smoothing, dtype):
    return plan.new_empty((plan.shape[0], num_classes), dtype=dtype)


def _fake_apply(images, labels, plan, num_classes, label_smoothing, dtype, fill=()):
    return torch.empty_like(images), _new_targets(images, labels, num_classes, dtype)


def _fake_apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill=()):
    return _new_targets(images, labels, num_classes, dtype)


def _fake_apply_(images, labels, plan, num_classes, label_smoothing, dtype, fill=()):
    return _new_targets(images, labels, num_classes, dtype)


def _fake_sample_and_apply(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype, *rest
):
    targets = _new_targets(images, labels, num_classes, dtype)
    return torch.empty_like(images), targets, _new_plan(images, images.shape[0])


def _fake_sample_and_apply_out(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype, *rest
):
    return _new_targets(images, labels, num_classes, dtype), _new_plan(images, images.shape[0])


def _fake_apply_adjoint_out(gradients, plan, out):
    return None


def _fake_mix_features(features, plan, height, width, prefix, *fill):
    as_they_lie = prefix == 0 and tuple(features.shape[-2:]) == (height, width)
    return torch.empty_like(features, memory_format=torch.preserve_format if as_they_lie else torch.contiguous_format)


def _new_views(like: Tensor, batch: int, choices: list[int]) -> Tensor:
    named = ViewChoices(*choices)
    return like.new_empty((batch, 1 + named.max_boxes + COLOUR_ROWS * named.coloured, QUADRUPLE), dtype=torch.int32)


def new_images(images: Tensor, dtype: torch.dtype, memory_format: int) -> Tensor:
    """Images like others, of another dtype and layout."""
    layout = MemoryFormat(memory_format).of_torch
    return torch.empty(images.shape, dtype=dtype, device=images.device, memory_format=layout)


def _fake_sample_views(seed, batch, height, width, tables, colours, parameters, choices):
    return _new_views(tables, batch, choices)


def _fake_apply_views_out(images, labels, plan, views, coloured, seed, num_classes, label_smoothing, dtype, *rest):
    return _new_targets(images, labels, num_classes, dtype)


def _fake_apply_views(images, labels, *rest):
    *rest, dtype, memory_format = rest
    return new_images(images, dtype, memory_format), _fake_apply_views_out(images, labels, *rest)


def _fake_augment_out(images, labels, seed, quantiles, bounds, sampling, tables, colours, parameters, choices, *rest):
    batch = images.shape[0]
    targets = _fake_apply_views_out(images, labels, None, None, None, None, *rest)
    return targets, _new_plan(images, batch), _new_views(images, batch, choices)


def _fake_augment(images, labels, *rest):
    *rest, dtype, memory_format = rest
    return new_images(images, dtype, memory_format), *_fake_augment_out(images, labels, *rest)


def _new_patches(like: Tensor, samples: int, patches: int) -> tuple[Tensor, Tensor]:
    rows = like.new_empty((samples, patches, PLAN_COLUMNS), dtype=torch.int32)
    return rows, like.new_empty((samples, patches, 4), dtype=torch.int32)


def new_painted(images: Tensor, samples: int) -> Tensor:
    """Images like others, so many of them: in channels-last where the others are, else in the order of their sizes."""
    if samples == images.shape[0]:
        return torch.empty_like(images)
    channels_last = images.dim() == 4 and not images.is_contiguous() and images.stride(1) == 1
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (samples, *images.shape[1:])
    return torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=layout)


NO_FILL = (0, 0)


def patch_ops(
    paint_out: Callable[..., Any],
    paint_targets: Callable[..., Any],
    sample_patches: Callable[..., Any],
    sample_and_paint_out: Callable[..., Any],
) -> dict[str, Callable[..., Any]]:
    """The ops of several patches of a backend in Python, by those that write to what they are given, which work in
    place where that is the images."""

    def paint(
        images, others, labels, other_labels, rows, sources, masks, weights,
        num_classes, label_smoothing, dtype, fill=NO_FILL,
    ):  # fmt: skip
        out = new_painted(images, rows.shape[0])
        given = images, others, labels, other_labels, rows, sources, masks, weights
        return out, paint_out(*given, num_classes, label_smoothing, dtype, out, fill)

    def paint_(images, labels, rows, sources, masks, weights, num_classes, label_smoothing, dtype, fill=NO_FILL):
        given = images, None, labels, None, rows, sources, masks, weights
        return paint_out(*given, num_classes, label_smoothing, dtype, images, fill)

    def sample_and_paint(
        images, labels, seed, quantiles, bounds, patch_sampling, num_classes, label_smoothing, dtype, fill=NO_FILL
    ):
        out, draw = torch.empty_like(images), PatchDraw(seed, quantiles, bounds, patch_sampling)
        return out, *sample_and_paint_out(images, labels, *draw, num_classes, label_smoothing, dtype, out, fill)

    def sample_and_paint_(
        images, labels, seed, quantiles, bounds, patch_sampling, num_classes, label_smoothing, dtype, fill=NO_FILL
    ):
        draw = PatchDraw(seed, quantiles, bounds, patch_sampling)
        return sample_and_paint_out(images, labels, *draw, num_classes, label_smoothing, dtype, images, fill)

    return {
        "paint": paint,
        "paint_out": paint_out,
        "paint_": paint_,
        "paint_targets": paint_targets,
        "sample_patches": sample_patches,
        "sample_and_paint": sample_and_paint,
        "sample_and_paint_out": sample_and_paint_out,
        "sample_and_paint_": sample_and_paint_,
    }


def _fake_paint_out(images, others, labels, other_labels, rows, sources, masks, weights, num_classes, *rest):
    dtype = rest[1]
    return images.new_empty((rows.shape[0], num_classes if labels is not None else 0), dtype=dtype)


def _fake_paint_(images, labels, rows, sources, masks, weights, num_classes, label_smoothing, dtype, *rest):
    return _new_targets(images, labels, num_classes, dtype)


def _fake_paint(images, others, labels, other_labels, rows, *rest):
    return new_painted(images, rows.shape[0]), _fake_paint_out(images, others, labels, other_labels, rows, *rest)


def _fake_paint_targets(labels, other_labels, rows, masks, weights, height, width, num_classes, smoothing, dtype):
    return rows.new_empty((rows.shape[0], num_classes), dtype=dtype)


def _fake_sample_patches(seed, quantiles, bounds, sampling, batch, height, width):
    return _new_patches(quantiles, batch, PatchSampling(*sampling).patches)


def _fake_sample_and_paint_out(images, labels, seed, quantiles, bounds, sampling, num_classes, smoothing, dtype, *rest):
    patches = _new_patches(images, images.shape[0], PatchSampling(*sampling).patches)
    return _new_targets(images, labels, num_classes, dtype), *patches


def _fake_sample_and_paint(images, *rest):
    return torch.empty_like(images), *_fake_sample_and_paint_out(images, *rest)


# The ops of every backend. apply* follow a given plan; sample_and_apply* draw one, follow it and return it.
OPS = {
    "sample_plan": Op(f"({_DRAW}, {_SIZES}) -> Tensor", _fake_sample_plan, READS_ON_HOST),
    "mix_targets": Op(f"(Tensor labels, Tensor plan, {_TARGETS}) -> Tensor", _fake_mix_targets),
    "apply": Op(f"({_IMAGES}, Tensor plan, {_TARGETS}, {_FILL}) -> (Tensor, Tensor)", _fake_apply),
    "apply_out": Op(f"({_IMAGES}, Tensor plan, {_TARGETS}, {_OUT}, {_FILL}) -> Tensor", _fake_apply_out),
    "apply_": Op(f"({_IMAGES_WRITTEN}, Tensor plan, {_TARGETS}, {_FILL}) -> Tensor", _fake_apply_),
    "sample_and_apply": Op(
        f"({_IMAGES}, {_CALL_DRAW}, {_TARGETS}, {_CALL}) -> (Tensor, Tensor, Tensor)",
        _fake_sample_and_apply,
        READS_ON_HOST,
    ),
    "sample_and_apply_out": Op(
        f"({_IMAGES}, {_CALL_DRAW}, {_TARGETS}, {_OUT}, {_CALL}) -> (Tensor, Tensor)",
        _fake_sample_and_apply_out,
        READS_ON_HOST,
    ),
    "sample_and_apply_": Op(
        f"({_IMAGES_WRITTEN}, {_CALL_DRAW}, {_TARGETS}, {_CALL}) -> (Tensor, Tensor)",
        _fake_sample_and_apply_out,
        READS_ON_HOST,
    ),
    # The adjoint of apply_out without labels: gradients of the mixed images -> those of the images.
    "apply_adjoint_out": Op("(Tensor gradients, Tensor plan, Tensor(a!) out) -> ()", _fake_apply_adjoint_out),
    # The batch tail. augment samples a plan and views, follows them and returns both; apply_views follows given ones,
    # and its seed is only that of the noise.
    "sample_views": Op(f"(Tensor seed, {_SIZES}, {_VIEWS}) -> Tensor", _fake_sample_views, READS_ON_HOST),
    "augment": Op(
        f"({_IMAGES}, {_DRAW}, {_VIEWS}, {_TARGETS}, {_VALUES}, {_OUTPUT}) -> (Tensor, Tensor, Tensor, Tensor)",
        _fake_augment,
        READS_ON_HOST,
    ),
    "augment_out": Op(
        f"({_IMAGES}, {_DRAW}, {_VIEWS}, {_TARGETS}, {_VALUES}, {_OUT}) -> (Tensor, Tensor, Tensor)",
        _fake_augment_out,
        READS_ON_HOST,
    ),
    "apply_views": Op(
        f"({_IMAGES}, {_GIVEN}, {_TARGETS}, {_VALUES}, {_OUTPUT}) -> (Tensor, Tensor)",
        _fake_apply_views,
        READS_ON_HOST,
    ),
    "apply_views_out": Op(
        f"({_IMAGES}, {_GIVEN}, {_TARGETS}, {_VALUES}, {_OUT}) -> Tensor",
        _fake_apply_views_out,
        READS_ON_HOST,
    ),
    # Several patches a sample. paint follows given ones; sample_and_paint draws them, follows them and returns them.
    "paint": Op(f"({_SAMPLES}, {_PATCHES}, {_TARGETS}, {_FILL}) -> (Tensor, Tensor)", _fake_paint),
    "paint_out": Op(f"({_SAMPLES}, {_PATCHES}, {_TARGETS}, {_OUT}, {_FILL}) -> Tensor", _fake_paint_out),
    "paint_": Op(f"({_IMAGES_WRITTEN}, {_PATCHES}, {_TARGETS}, {_FILL}) -> Tensor", _fake_paint_),
    "paint_targets": Op(
        "(Tensor labels, Tensor? other_labels, Tensor rows, Tensor? masks, Tensor? weights, "
        f"SymInt height, SymInt width, {_TARGETS}) -> Tensor",
        _fake_paint_targets,
    ),
    "sample_patches": Op(f"({_PATCH_DRAW}, {_SIZES}) -> (Tensor, Tensor)", _fake_sample_patches, READS_ON_HOST),
    "sample_and_paint": Op(
        f"({_IMAGES}, {_PATCH_DRAW}, {_TARGETS}, {_FILL}) -> (Tensor, Tensor, Tensor, Tensor)",
        _fake_sample_and_paint,
        READS_ON_HOST,
    ),
    "sample_and_paint_out": Op(
        f"({_IMAGES}, {_PATCH_DRAW}, {_TARGETS}, {_OUT}, {_FILL}) -> (Tensor, Tensor, Tensor)",
        _fake_sample_and_paint_out,
        READS_ON_HOST,
    ),
    "sample_and_paint_": Op(
        f"({_IMAGES_WRITTEN}, {_PATCH_DRAW}, {_TARGETS}, {_FILL}) -> (Tensor, Tensor, Tensor)",
        _fake_sample_and_paint_out,
        READS_ON_HOST,
    ),
}

# Features (batch, ..., rows, columns) mixed by a plan for height x width, and the adjoint, each the other's backward.
# :mod:`cutmix_cuda.features` implements them for every backend by its apply_out and apply_adjoint_out. The rows behind
# the first `prefix` have height * width elements; those of the prefix are in no box.
_FEATURES = "Tensor plan, SymInt height, SymInt width, SymInt prefix"
FEATURE_OPS = {
    "mix_features": Op(f"(Tensor features, {_FEATURES}, {_FILL}) -> Tensor", _fake_mix_features),
    "mix_features_adjoint": Op(f"(Tensor gradients, {_FEATURES}) -> Tensor", _fake_mix_features),
}

# Ops of only cutmix_cuda, which :mod:`cutmix_cuda._seed` implements. By the tag and the device torch knows what to
# restore for a draw that checkpointing recomputes. Two draws in a graph differ by their number, because torch before
# 2.12 merges equal calls whatever their tag.
SEED_OPS = {
    "draw_seed": Op(
        "(int draw, *, Device device) -> Tensor",
        lambda draw, *, device: torch.empty(1, dtype=torch.int64, device=device),
        (torch.Tag.nondeterministic_seeded,),
    ),
    "next_seed": Op(
        "(Tensor(a!) state) -> Tensor", lambda state: state.new_empty(1), (torch.Tag.nondeterministic_seeded,)
    ),
}


def _define(namespace: str, ops: dict[str, Op]) -> Library:
    library = Library(namespace)
    for name, op in ops.items():
        library.define(name, op.schema, op.fake, *op.tags)
    return library


LIBRARIES = {
    "cutmix_cuda": _define("cutmix_cuda", OPS | FEATURE_OPS | SEED_OPS),
    "cutmix_cuda_triton": _define("cutmix_cuda_triton", OPS | FEATURE_OPS),
    "cutmix_cuda_reference": _define("cutmix_cuda_reference", OPS | FEATURE_OPS),
}
