"""What follows plans of several patches, and draws them: RICAP, ResizeMix, FMix, holes, masks of any kind."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import Unpack

from . import _backends, _validation, reference, reference_patches
from ._fill import check_fill, fill_words
from ._literals import BackendName
from ._ops import BLENDED_DTYPES, PATCH_METHODS, PLAN_COLUMNS, Kind
from ._options import DenseTargetOptions, MaskSettings, PaintOptions, PatchSettings, complete, with_options
from ._seed import seed_tensor
from ._tensors import of_class, plain
from ._tv_tensors import classes_of
from .distributions import quantiles
from .functional import _labels_of_op, _mark_written
from .masks import fmix
from .pairs import PairTargets, pairs_of
from .patch_plan import PatchPlan, check_patch_plan, check_sides
from .plan import check_plan_size


def _check_others(images: Tensor, others: Tensor, labels: Tensor | None, other_labels: Tensor | None) -> None:
    """Raises unless a second batch is like the first."""
    _validation.check_images(others, "others")
    for name in ("dtype", "device"):
        given, wanted = getattr(others, name), getattr(images, name)
        if given != wanted:
            raise ValueError(f"others must have the {name} of images, {wanted}, got {given}")
    if others.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"others must be samples like images, of shape {tuple(images.shape[1:])}, got {tuple(others.shape[1:])}"
        )
    if (labels is None) != (other_labels is None):
        raise ValueError("other_labels must be given where labels and others are, and not otherwise")


def _check_labels(
    labels: Tensor | None,
    other_labels: Tensor | None,
    num_classes: int | None,
    batch: int,
    others: int,
    device: torch.device,
) -> int:
    """The number of classes, after every check of the labels of both batches."""
    classes = _validation.check_labels(labels, num_classes, batch, device)
    if other_labels is not None and labels is not None:
        _validation.check_labels_tensor(other_labels, "other_labels")
        if other_labels.dtype != labels.dtype:
            raise ValueError(f"other_labels must be of the dtype of labels, {labels.dtype}, got {other_labels.dtype}")
        _validation.check_labels(other_labels, classes, others, device, name="other_labels")
    return classes


def _check_format(options: DenseTargetOptions) -> tuple[float, torch.dtype]:
    """How dense targets are made: smoothing and dtype."""
    smoothing, dtype = complete(DenseTargetOptions, options).values()
    return (
        _validation.check_share("label_smoothing", smoothing),
        _validation.check_target_dtype("target_dtype", dtype),
    )


def follow_patches(
    images: Tensor,
    labels: Tensor | None,
    plan: PatchPlan,
    num_classes: int | None,
    *,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
    fill: float = 0.0,
    inplace: bool = False,
    out: Tensor | None = None,
    backend: str | None,
    **options: Unpack[DenseTargetOptions],
) -> tuple[Tensor, Tensor | None]:
    """Paints and writes dense targets in one launch. Everything is checked before anything is written."""
    given, images, labels, others = images, plain(images), plain(labels), plain(others)
    other_labels = plain(other_labels)
    _validation.check_images(images)
    if others is not None:
        _check_others(images, others, labels, other_labels)
    elif other_labels is not None:
        raise ValueError("others must be given with other_labels, got None")
    batch, second = images.shape[0], 0 if others is None else others.shape[0]
    check_patch_plan(plan, batch, images.device, "images")
    check_plan_size(plan, images)
    masks = plan.masks
    if masks is not None and masks.dim() == 4 and (images.dim() < 4 or images.shape[1] != masks.shape[1]):
        raise ValueError(
            "masks of shape (masks, channels, h, w) must be of the channels of images (B, channels, ..., H, W), got "
            f"{tuple(masks.shape)} for {tuple(images.shape)}"
        )
    pixels = plain(classes_of(given))
    if inplace and plan.rows.shape[0] != batch:  # len() would make a symbol of a graph one number
        raise ValueError(f"in place, plan must be of the {batch} samples of images, got one of {len(plan)}")
    plan.check(batch + second, pixels.dtype in BLENDED_DTYPES, in_place=inplace)
    classes = _check_labels(labels, other_labels, num_classes, batch, second, images.device)
    smoothing, dtype = _check_format(options)
    ops = _backends.ops_for(backend, images.device)
    words = fill_words(check_fill(fill), images.dtype)
    as_pixels = pixels.dtype == images.dtype
    second_pixels = others if as_pixels or others is None else others.view(pixels.dtype)
    rest = (*plan._patches, classes, smoothing, dtype)
    arguments = (pixels, second_pixels, labels, other_labels, *rest)
    if inplace:
        _validation.check_in_place(images)
        if masks is not None:
            _validation.check_apart(images, masks, "masks", written_name="images")
        mixed, targets = given, ops.paint_(pixels, labels, *rest, words)
    elif out is not None:
        _validation.check_out_like(out, images, None, torch.Size((len(plan), *images.shape[1:])))
        _validation.check_apart(out, images, "images")
        if others is not None:
            _validation.check_apart(out, others, "others")
        if masks is not None:
            _validation.check_apart(out, masks, "masks")
        written = plain(out) if as_pixels else plain(out).view(pixels.dtype)
        mixed, targets = out, ops.paint_out(*arguments, written, words)
    else:
        mixed, targets = ops.paint(*arguments, words)
        mixed = of_class(mixed if as_pixels else mixed.view(images.dtype), given)
    if inplace or out is not None:
        _mark_written(mixed)
    return mixed, None if labels is None else targets


@with_options
def paint(
    images: Tensor,
    labels: Tensor | None,
    plan: PatchPlan,
    num_classes: int | None = None,
    *,
    fill: float = 0.0,
    out: Tensor | None = None,
    backend: BackendName | None = None,
    **options: Unpack[PaintOptions],
) -> tuple[Tensor, Tensor | None]:
    """Images and targets by a plan of several patches, in one launch: :func:`apply_plan` for a :class:`PatchPlan`.

    >>> masks = torch.rand(4, 16, 16) > 0.5
    >>> plan = PatchPlan.from_masks(masks, torch.tensor([3, 2, 1, 0]), height=16, width=16)
    >>> mixed, targets = paint(images, labels, plan, 10)

    Args:
        images: (B, ..., H, W) of any dtype, H and W those of the plan. Not changed. Blended patches and masks of floats
            need uint8, float16, bfloat16, float32 or float64.
        labels: class indices of any integer dtype, (B,); or soft labels, float (B, K); or None, without targets.
        plan: on the device of the images, of any number N of samples.
        num_classes: K, needed with class indices.
        others: a second batch (B2, ..., H, W) of the same dtype, whose samples are the partners from B on; nothing is
            concatenated.
        other_labels: the labels of the others, like labels.
        fill: what filled patches are filled with, a value of the images' dtype.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K.
        target_dtype: float32, float16, bfloat16 or float64.
        out: (N, ..., H, W) to write to, of the dtype of images, which must not overlap them.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        Images (N, ..., H, W), and targets (N, K) or None. A class's part of a target is the sum over its own and
        its patches' partners' labels, each weighted by its share of the sample's pixels or by the plan's weights.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written. On a GPU, where looking would make the host
            wait, a sample one of whose rows leads outside is left as it was instead, and its target is NaN.
        RuntimeError: the backend asked for is not available.
    """
    return follow_patches(images, labels, plan, num_classes, fill=fill, out=out, backend=backend, **options)


@with_options
def paint_(
    images: Tensor,
    labels: Tensor | None,
    plan: PatchPlan,
    num_classes: int | None = None,
    *,
    fill: float = 0.0,
    backend: BackendName | None = None,
    **options: Unpack[DenseTargetOptions],
) -> tuple[Tensor, Tensor | None]:
    """:func:`paint` in place: writes only what is in the boxes.

    >>> masks = torch.rand(4, 16, 16) > 0.5
    >>> plan = PatchPlan.from_masks(masks, torch.tensor([3, 2, 1, 0]), height=16, width=16)
    >>> mixed, targets = paint_(images, labels, plan, 10)
    >>> mixed is images
    True

    The arguments are those of :func:`paint`. Samples exchange pixels in pairs: all patches of a sample have one
    partner, whose patches all have it as theirs, and sources, if there are any, are the boxes. A sample of which all
    patches are filled or kept, as with holes, needs no partner. The plan is of as many samples as there are images,
    which must not overlap themselves in memory (an expanded view does), nor the masks.

    Returns:
        (images, targets), as :func:`paint`; the images are those given, painted.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint`, or, on the CPU, samples do not exchange pixels in pairs.
            On a GPU, where looking would make the host wait, a sample that does not is left as it was instead, and its
            target is NaN.
    """
    return follow_patches(images, labels, plan, num_classes, fill=fill, inplace=True, backend=backend, **options)


@with_options
def paint_targets(
    labels: Tensor,
    plan: PatchPlan,
    num_classes: int | None = None,
    *,
    other_labels: Tensor | None = None,
    backend: BackendName | None = None,
    **options: Unpack[DenseTargetOptions],
) -> Tensor:
    """The targets of :func:`paint` alone, for a teacher's probabilities, say.

    >>> plan = PatchPlan.from_plan(sample_plan(4, 16, 16, seed=0))
    >>> paint_targets(torch.rand(4, 10).softmax(dim=1), plan).shape
    torch.Size([4, 10])

    Args:
        labels: class indices of any integer dtype, (B,), or soft labels, float (B, K).
        plan: on the device of the labels.
        num_classes, other_labels, label_smoothing, target_dtype, backend: as for :func:`paint`.

    Returns:
        (N, K) of target_dtype.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint`.
    """
    if labels is None:
        raise TypeError("labels must be a tensor, got None")
    labels, other_labels = plain(labels), plain(other_labels)
    _validation.check_labels_tensor(labels)
    batch, second = labels.shape[0], 0 if other_labels is None else other_labels.shape[0]
    check_patch_plan(plan, batch, labels.device, "labels")
    classes = _check_labels(labels, other_labels, num_classes, batch, second, labels.device)
    plan.check(batch + second)
    smoothing, dtype = _check_format(options)
    ops = _backends.ops_for(backend, labels.device)
    rows, _, masks, weights = plan._patches
    sizes = plan.height, plan.width, classes
    return ops.paint_targets(labels, other_labels, rows, masks, weights, *sizes, smoothing, dtype)


@with_options
def mix_by_masks(
    images: Tensor,
    labels: Tensor | None,
    masks: Tensor,
    num_classes: int | None = None,
    *,
    partner: Tensor | None = None,
    weights: Tensor | None = None,
    out: Tensor | None = None,
    backend: BackendName | None = None,
    **options: Unpack[PaintOptions],
) -> tuple[Tensor, Tensor | None]:
    """Pastes each sample's partner where its mask says so, whoever made the masks: a model's attention, say.

    >>> attention = torch.rand(4, 4, 4)  # of patches of 4 x 4 pixels
    >>> mixed, targets = mix_by_masks(images, labels, attention < 0.7, 10)

    Args:
        images, labels, num_classes: as for :func:`paint`.
        masks: bool or floats (N, h, w), the weight of a sample's own pixels; a mask of h x w cells covers the image. Or
            (N, C, h, w), a mask for each channel of images (N, C, ..., H, W), whose mean weighs the labels.
        partner: integers (N,), whose pixels are pasted; by default those of the sample before, as torchvision.
        weights: floats (N, 2) in [0, 1], of the own and the partner's label; by default the shares of the pixels.
        others, other_labels, label_smoothing, target_dtype, out, backend: as for :func:`paint`.

    Returns:
        Images and targets, as :func:`paint`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint` and :meth:`PatchPlan.from_masks`.
    """
    _validation.check_images(plain(images))
    if partner is None:
        partner = torch.arange(images.shape[0], device=images.device).roll(1)
    plan = PatchPlan.from_masks(masks, partner, *images.shape[-2:], weights=weights)
    return follow_patches(images, labels, plan, num_classes, out=out, backend=backend, **options)


@with_options
def mix_by_masks_(
    images: Tensor,
    labels: Tensor | None,
    masks: Tensor,
    num_classes: int | None = None,
    *,
    partner: Tensor,
    weights: Tensor | None = None,
    backend: BackendName | None = None,
    **options: Unpack[DenseTargetOptions],
) -> tuple[Tensor, Tensor | None]:
    """:func:`mix_by_masks` in place.

    >>> partner = torch.tensor([3, 2, 1, 0])
    >>> mixed, targets = mix_by_masks_(images, labels, torch.rand(4, 8, 8) < 0.7, 10, partner=partner)
    >>> mixed is images
    True

    Args:
        images, labels, masks, num_classes, weights, label_smoothing, target_dtype, backend: as for
            :func:`mix_by_masks`.
        partner: integers (N,), its own inverse: ``partner[partner[i]] == i``.

    Returns:
        (images, targets), as :func:`paint`; the images are those given, mixed.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`paint_` and :meth:`PatchPlan.from_masks`.
    """
    _validation.check_images(plain(images))
    plan = PatchPlan.from_masks(masks, partner, *images.shape[-2:], weights=weights)
    return follow_patches(images, labels, plan, num_classes, inplace=True, backend=backend, **options)


def run_patches(
    images: Tensor,
    labels: Tensor | None,
    num_classes: int | None,
    settings: PatchSettings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    inplace: bool,
    out: Tensor | None,
    backend: str | None,
) -> tuple[Tensor, Tensor | PairTargets | None, PatchPlan]:
    """Draws patches, paints and writes dense targets in one launch: images, targets and the plan.

    Everything is checked before anything is written.
    """
    given, images, labels = images, plain(images), plain(labels)
    _validation.check_images(images)
    if settings.blends:
        _validation.check_blends(given)
    device, (height, width) = images.device, images.shape[-2:]
    check_sides(height, width)
    op_labels, classes = _labels_of_op(labels, num_classes, images.shape[0], device, settings.targets)
    fill = fill_words(settings.fill, images.dtype)
    ops = _backends.ops_for(backend, device)
    if inplace:
        _validation.check_in_place(images)
    elif out is not None:
        _validation.check_out(out, images)
    arguments = (
        op_labels,
        seed_tensor(seed, generator, device, like=images),
        quantiles(settings.distributions, device, PATCH_METHODS),
        settings.bounds,
        settings.sampling,
        classes,
        settings.label_smoothing,
        settings.target_dtype,
    )
    if inplace:
        mixed = given
        dense, rows, sources = ops.sample_and_paint_(images, *arguments, fill)
    elif out is not None:
        mixed = out
        dense, rows, sources = ops.sample_and_paint_out(images, *arguments, plain(out), fill)
    else:
        mixed, dense, rows, sources = ops.sample_and_paint(images, *arguments, fill)
        mixed = of_class(mixed, given)
    if inplace or out is not None:
        _mark_written(mixed)
    plan = PatchPlan._unchecked(rows, height, width, sources)
    if labels is None:
        return mixed, None, plan
    # Without ricap there is at most one patch that mixes the target, the first.
    return mixed, dense if op_labels is not None else pairs_of(labels, rows[:, 0]), plan


def draw_patches(
    batch_size: int,
    height: int,
    width: int,
    settings: PatchSettings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    device: torch.device | str | None,
    backend: str | None,
) -> PatchPlan:
    """The plan that :func:`run_patches` with the same arguments would follow."""
    sizes = _validation.check_size("batch_size", batch_size, _validation.MAX_BATCH), *check_sides(height, width)
    tables = quantiles(settings.distributions, torch.empty(0, device=device).device, PATCH_METHODS)
    ops = _backends.ops_for(backend, tables.device)
    drawn = seed_tensor(seed, generator, tables.device)
    rows, sources = ops.sample_patches(drawn, tables, settings.bounds, settings.sampling, *sizes)
    return PatchPlan._unchecked(rows, height, width, sources)


def draw_masks(
    batch_size: int,
    height: int,
    width: int,
    settings: MaskSettings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    device: torch.device | str | None,
) -> PatchPlan:
    """A plan of one masked patch a sample, by torch's operations on the device."""
    _validation.check_size("batch_size", batch_size, _validation.MAX_BATCH)
    check_sides(height, width)
    table = quantiles((settings.distribution,), torch.empty(0, device=device).device)[0]
    drawn = seed_tensor(seed, generator, table.device).to(table.device).reshape(1)
    index = torch.arange(batch_size, device=table.device)
    if batch_size == 0 or height * width == 0:
        rows = torch.zeros((batch_size, 1, PLAN_COLUMNS), dtype=torch.int32, device=table.device)
        return PatchPlan._unchecked(rows, height, width)
    partner = reference.partner_of(reference.partner_map(settings.partner, drawn, batch_size), index, batch_size)
    word_lam, _, _, word_kept = reference.philox(drawn, index, reference_patches.PER_PATCH)
    number = reference.unit_float(word_kept)
    mixed = (number < torch.full_like(number, settings.prob)) & (partner != index)
    masks = fmix(reference.quantile(table, word_lam), height, width, decay=settings.decay, seed=drawn)
    zero = torch.zeros_like(index)
    kind = torch.where(mixed, int(Kind.cutmix), int(Kind.keep))
    one = torch.ones(batch_size, device=table.device).view(torch.int32)
    columns = [partner, zero, zero, zero + height, zero + width, one, kind, index + 1]
    rows = torch.stack([column.to(torch.int32) for column in columns], dim=1)[:, None]
    return PatchPlan._unchecked(rows, height, width, None, masks)
