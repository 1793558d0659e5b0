"""The functions: sample a plan, follow one, or do both in a single launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack

from . import _backends, _validation, reference
from ._fill import check_fill, fill_words
from ._literals import BackendName, TargetsName
from ._ops import BLENDED_DTYPES, Sampling
from ._options import CutMixOptions, MixOptions, PlanOptions, Settings, TargetOptions, complete, with_options
from ._seed import is_drawn_by_op, seed_tensor
from ._tensors import of_class, plain
from ._tv_tensors import classes_of
from .distributions import quantiles
from .features import mix_soft_labels, needs_derivative
from .pairs import PairTargets, Targets, check_class_indices, check_targets, pairs_of
from .plan import MixPlan, check_plan, check_plan_batch


@lru_cache(maxsize=256, typed=True)
def _remembered(make: Callable[..., Settings], **options: Any) -> Settings:
    return make(**options)


def settings_of(make: Callable[..., Settings], options: Mapping[str, Any]) -> Settings:
    """What options come to. Checked once, because that takes as long as a small batch."""
    if torch.compiler.is_compiling():
        return make(**options)
    try:
        return _remembered(make, **options)
    except TypeError:  # what cannot be hashed cannot be found again
        return make(**options)


def _mark_written(tensor: Tensor) -> None:
    """Tells autograd, as torch's own in-place operations do: backward through what it saved of the tensor raises."""
    if not (torch.compiler.is_compiling() or tensor.is_inference()):
        torch.autograd.graph.increment_version(tensor)


def _labels_of_op(
    labels: Tensor | None,
    num_classes: int | None,
    batch: int,
    device: torch.device,
    wanted: Targets,
    *,
    differentiable: bool = False,
    op_looks: bool = False,
) -> tuple[Tensor | None, int]:
    """What an op is to make dense targets of, and their classes, after every check: no labels where pairs are made."""
    if wanted is Targets.pairs:
        check_class_indices(labels, num_classes, batch, device)
        return None, 0
    return labels, _validation.check_labels(
        labels, num_classes, batch, device, differentiable=differentiable, op_looks=op_looks
    )


def run(
    images: Tensor,
    labels: Tensor | None,
    num_classes: int | None,
    settings: Settings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    inplace: bool,
    out: Tensor | None,
    backend: str | None,
) -> tuple[Tensor, Tensor | PairTargets | None, Tensor]:
    """Samples, mixes and writes dense targets in one launch: images, targets, packed plan.

    Everything is checked before anything is written.
    """
    given, images, labels = images, plain(images), plain(labels)
    _validation.check_images(images)
    device = images.device
    if settings.blends:
        _validation.check_blends(given)
    at_once = _validation.runs_at_once(images)
    op_looks = at_once and device.type == "cpu"  # at the labels; elsewhere the host would have to wait
    op_labels, classes = _labels_of_op(
        labels, num_classes, images.shape[0], device, settings.targets, op_looks=op_looks
    )
    fill = fill_words(settings.fill, images.dtype)
    ops = _backends.ops_for(backend, device)
    if inplace:
        _validation.check_in_place(images, Sampling(*settings.sampling).partner)
    elif out is not None:
        _validation.check_out(out, images)
    op_draws = at_once and is_drawn_by_op(seed, generator, device)
    arguments = (
        op_labels,
        None if op_draws else seed_tensor(seed, generator, device, like=images),
        quantiles(settings.distributions, device),
        settings.bounds,
        settings.sampling,
        classes,
        settings.label_smoothing,
        settings.target_dtype,
    )
    try:
        if inplace:
            mixed = given
            dense, packed = ops.sample_and_apply_(images, *arguments, fill, op_looks)
        elif out is not None:
            mixed = out
            dense, packed = ops.sample_and_apply_out(images, *arguments, plain(out), fill, op_looks)
        else:
            mixed, dense, packed = ops.sample_and_apply(images, *arguments, fill, op_looks)
            mixed = of_class(mixed, given)
    except RuntimeError:
        if op_looks and op_labels is not None and op_labels.dim() == 1:
            try:
                _validation.check_range("labels", op_labels, classes)
            except ValueError as in_words:
                raise in_words from None
        raise
    if inplace or out is not None:
        _mark_written(mixed)
    if labels is None:
        return mixed, None, packed
    return mixed, dense if op_labels is not None else pairs_of(labels, packed), packed


def returned(images: Tensor, mixed: tuple[Tensor, Tensor | PairTargets | None, Tensor], return_plan: bool):
    """What the user asked for of what :func:`run` gave: images, targets and perhaps the plan."""
    return (*mixed[:2], MixPlan(mixed[2], *images.shape[-2:])) if return_plan else mixed[:2]


@with_options
def cutmix(
    images: Tensor,
    labels: Tensor | None = None,
    num_classes: int | None = None,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
    return_plan: bool = False,
    backend: BackendName | None = None,
    **options: Unpack[CutMixOptions],
):
    """CutMix (Yun et al., ICCV 2019) of a batch: pastes a box of each sample's partner and mixes the targets alike.

    >>> mixed, targets, plan = cutmix(images, labels, 10, seed=0, return_plan=True)
    >>> mixed.shape == images.shape, targets.shape, plan.boxes.shape
    (True, torch.Size([4, 10]), torch.Size([4, 4]))

    Args:
        images: (B, ..., H, W) of any dtype and 3 to 8 dimensions, on any device, for instance (B, C, H, W) in NCHW or
            channels-last, (B, H, W), (B, T, C, H, W) or (B, C, D, H, W). A sample has one box, the same in each of its
            slices; where H or W is 1, as of signals (B, C, 1, L), it is a span, 1 - lambda of the other side. Not
            changed. Views work; rows that are not dense in memory are copied first.
        labels: class indices of any integer dtype, (B,); or soft labels, float (B, K); or None, without targets.
        num_classes: K, needed with class indices for dense targets.
        alpha: lambda, the fraction of its own pixels that a sample keeps, is drawn from Beta(alpha, alpha), or from a
            distribution of :mod:`cutmix_cuda.distributions`.
        prob: the probability that a sample (a pair or the batch, see scope) is mixed; the others are kept as they are.
        scope: who has a draw of lambda and box in common: "sample", nobody; "pair", two samples that are each other's
            partner, as they are with partner "mirror" and "flip"; "batch", all samples.
        partner: whose pixels are pasted into sample i: "mirror" (s - i) mod B with s drawn at each call, so that the
            pairing is new each time, its own inverse, and uniform over the other samples (of an even B it is mod B - 1,
            and the last sample takes the one that is left); "shift" (i + s) mod B; "roll" i - 1, as torchvision; "flip"
            B - 1 - i, as timm. A sample that is its own partner, as one of an odd B, is kept.
        placement: "clip", a box centred anywhere and clipped at the border, as the paper and torchvision; "inside", a
            box that lies inside the image.
        correct_lam: recompute lambda from the box's real area. If not, lambda stays as drawn.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K, as timm and torch's cross entropy.
        target_dtype: float32, float16, bfloat16 or float64, of dense targets.
        targets: "dense", or "pairs" for two class indices and a weight a sample, :class:`PairTargets`, which
            :func:`cross_entropy` takes; no (B, K) matrix is written. Labels then are class indices, and label_smoothing
            is an argument of the loss.
        seed: an int, or a tensor of one int64 on the CPU or on the device of the images. The same seed gives the same
            bits on every backend and device. None: drawn from the generator; while a CUDA graph is being captured, on
            the device, so that each replay draws anew. Call once before capturing: the first call copies a table.
        generator: a CPU generator, instead of torch's default one. Processes that start with a copy of it draw alike,
            as the workers of a ``DataLoader`` do; give the transforms a seed there.
        out: a tensor like images to write to, which must not overlap it.
        return_plan: also return the :class:`MixPlan`, to mix anything else with the same boxes.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        (images, targets) or (images, targets, plan). The images keep dtype, strides and memory format. Targets are
        (B, K), lam * own + (1 - lam) * partner's, or :class:`PairTargets`, or None where there were no labels.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written. On a GPU, where looking at labels would make
            the host wait, and in a compiled graph, a label outside 0..K-1 gives a row of NaN instead; in pairs it
            stays, for the loss to meet.
        RuntimeError: the backend asked for is not available.
    """
    settings = settings_of(Settings.of_cutmix, options)
    mixed = run(
        images,
        labels,
        num_classes,
        settings,
        seed=seed,
        generator=generator,
        inplace=False,
        out=out,
        backend=backend,
    )
    return returned(images, mixed, return_plan)


@with_options
def cutmix_(
    images: Tensor,
    labels: Tensor | None = None,
    num_classes: int | None = None,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    return_plan: bool = False,
    backend: BackendName | None = None,
    **options: Unpack[CutMixOptions],
):
    """:func:`cutmix` in place: reads and writes only the boxes' bytes, and gives the same result.

    >>> mixed, targets = cutmix_(images, labels, 10)
    >>> mixed is images
    True

    Two samples exchange their boxes' pixels, so partner has to be its own inverse: "mirror" or "flip". Views whose rows
    are not dense in memory, as ``images[..., ::2]``, are copied, mixed and copied back.

    Args:
        images: as for :func:`cutmix`, and not overlapping themselves in memory (an expanded view does).

    The other arguments are those of :func:`cutmix`.

    Returns:
        (images, targets) or (images, targets, plan), as :func:`cutmix`; the images are those given, mixed.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix`.
    """
    settings = settings_of(Settings.of_cutmix, options)
    mixed = run(
        images,
        labels,
        num_classes,
        settings,
        seed=seed,
        generator=generator,
        inplace=True,
        out=None,
        backend=backend,
    )
    return returned(images, mixed, return_plan)


@with_options
def mix(
    images: Tensor,
    labels: Tensor | None = None,
    num_classes: int | None = None,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
    return_plan: bool = False,
    backend: BackendName | None = None,
    **options: Unpack[MixOptions],
):
    """CutMix, MixUp, Cutout and nothing, side by side in one batch and one launch.

    >>> mixed, targets, plan = mix(images, labels, 10, mixup_alpha=0.2, cutout=0.1, return_plan=True)
    >>> plan.kind.tolist()  # 0 kept, 1 cutmix, 2 mixup, 3 cutout
    [...]

    Each sample (each pair or the batch, see scope of :func:`cutmix`) is cut out with probability cutout; else it is
    mixed with probability prob, by cutmix with probability switch_prob and by mixup otherwise, as timm's ``Mixup``;
    else it is kept.

    - cutmix (Yun et al., ICCV 2019): a box of the partner is pasted, and the targets are mixed by its area.
    - mixup (Zhang et al., ICLR 2018): lam * own + (1 - lam) * partner's, over the whole image and of the targets. In
      float32, rounded once to the images' dtype (uint8 to the nearest, ties to even); float64 in float64.
    - cutout (DeVries and Taylor, 2017): a box is filled with one value, and the target kept.

    Args:
        images: as for :func:`cutmix`; with mixup of dtype uint8, float16, bfloat16, float32 or float64.
        labels, num_classes: as for :func:`cutmix`.
        cutmix_alpha: of cutmix lambda is drawn from Beta(cutmix_alpha, cutmix_alpha), or from a distribution of
            :mod:`cutmix_cuda.distributions`. 0 or None: no cutmix.
        mixup_alpha: the same of mixup. 0 or None: no mixup.
        cutout: the probability that a sample is cut out.
        cutout_area: the fraction of the image that its box covers before it is clipped, or its distribution. The
            paper's 16 of 32 pixels are 0.25. Sides below 2 / sqrt(cutout_area) pixels, and 1 / sqrt(cutout_area) with
            placement "inside", are too small for a box of one pixel.
        fill: what its box is filled with, a value of the images' dtype.
        prob: the probability that a sample which is not cut out is mixed.
        switch_prob: the probability that a sample which is mixed is mixed by cutmix, where there are both.

    The other arguments are those of :func:`cutmix`.

    Returns:
        (images, targets) or (images, targets, plan), as :func:`cutmix`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix`.
    """
    settings = settings_of(Settings.of_mix, options)
    mixed = run(
        images,
        labels,
        num_classes,
        settings,
        seed=seed,
        generator=generator,
        inplace=False,
        out=out,
        backend=backend,
    )
    return returned(images, mixed, return_plan)


@with_options
def mix_(
    images: Tensor,
    labels: Tensor | None = None,
    num_classes: int | None = None,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    return_plan: bool = False,
    backend: BackendName | None = None,
    **options: Unpack[MixOptions],
):
    """:func:`mix` in place: touches no byte of a kept sample, and of one that is not blended only its box.

    >>> mixed, targets = mix_(images, labels, 10, mixup_alpha=0.2)
    >>> mixed is images
    True

    The arguments are those of :func:`mix`, with partner "mirror" or "flip"; images must not overlap themselves in
    memory (an expanded view does).

    Returns:
        (images, targets) or (images, targets, plan), as :func:`cutmix`; the images are those given, mixed.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix`.
    """
    settings = settings_of(Settings.of_mix, options)
    mixed = run(
        images,
        labels,
        num_classes,
        settings,
        seed=seed,
        generator=generator,
        inplace=True,
        out=None,
        backend=backend,
    )
    return returned(images, mixed, return_plan)


def draw_plan(
    batch_size: int,
    height: int,
    width: int,
    settings: Settings,
    *,
    seed: int | Tensor | None,
    generator: torch.Generator | None,
    device: torch.device | str | None,
    backend: str | None,
) -> MixPlan:
    """The plan that :func:`run` with the same arguments would follow."""
    sizes = [
        _validation.check_size("batch_size", batch_size, _validation.MAX_BATCH),
        *_validation.check_extent(height, width),
    ]
    tables = quantiles(settings.distributions, torch.empty(0, device=device).device)
    ops = _backends.ops_for(backend, tables.device)
    drawn = seed_tensor(seed, generator, tables.device)
    packed = ops.sample_plan(drawn, tables, settings.bounds, settings.sampling, *sizes)
    return MixPlan(packed, height, width)


@with_options
def sample_plan(
    batch_size: int,
    height: int,
    width: int,
    *,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    backend: BackendName | None = None,
    **options: Unpack[PlanOptions],
) -> MixPlan:
    """The plan that :func:`cutmix` with the same arguments would follow.

    >>> sample_plan(4, 16, 16, seed=0)
    MixPlan(batch=4, height=16, width=16, device='cpu')

    Args:
        batch_size: samples.
        height: pixels.
        width: pixels.
        device: where the plan is to be; the CPU by default.

    The other arguments are those of :func:`cutmix`.

    Returns:
        A :class:`MixPlan` of the batch.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix`.
    """
    settings = settings_of(Settings.of_plan, options)
    return draw_plan(
        batch_size, height, width, settings, seed=seed, generator=generator, device=device, backend=backend
    )


def follow(
    images: Tensor,
    labels: Tensor | None,
    plan: MixPlan,
    num_classes: int | None,
    *,
    fill: float,
    inplace: bool,
    out: Tensor | None,
    backend: str | None,
    **options: Unpack[TargetOptions],
) -> tuple[Tensor, Tensor | PairTargets | None]:
    """Mixes and writes targets by a given plan in one launch. Everything is checked before anything is written."""
    given, images, labels = images, plain(images), plain(labels)
    _validation.check_images(images)
    check_plan(plan, given, in_place=inplace)
    label_smoothing, target_dtype, targets = complete(TargetOptions, options).values()
    share = _validation.check_share("label_smoothing", label_smoothing)
    wanted = check_targets(targets, share)
    op_labels, classes = _labels_of_op(labels, num_classes, images.shape[0], images.device, wanted)
    dtype = _validation.check_target_dtype("target_dtype", target_dtype)
    ops = _backends.ops_for(backend, images.device)
    words = fill_words(check_fill(fill), images.dtype)
    pixels = plain(classes_of(given))
    as_pixels = pixels.dtype == images.dtype
    arguments = op_labels, plan.packed, classes, share, dtype
    if inplace:
        _validation.check_in_place(images)
        mixed, dense = given, ops.apply_(pixels, *arguments, words)
    elif out is not None:
        _validation.check_out(out, images)
        written = plain(out) if as_pixels else plain(out).view(pixels.dtype)
        mixed, dense = out, ops.apply_out(pixels, *arguments, written, words)
    else:
        mixed, dense = ops.apply(pixels, *arguments, words)
        mixed = of_class(mixed if as_pixels else mixed.view(images.dtype), given)
    if inplace or out is not None:
        _mark_written(mixed)
    if labels is None:
        return mixed, None
    if op_labels is not None:
        return mixed, dense
    valid = reference.valid_rows(plan.packed, plan.height, plan.width, pixels.dtype in BLENDED_DTYPES)
    if inplace:
        valid = valid & reference.involutive_rows(plan.packed)
    return mixed, pairs_of(labels, plan.packed, valid)


@with_options
def apply_plan(
    images: Tensor,
    labels: Tensor | None,
    plan: MixPlan,
    num_classes: int | None = None,
    *,
    fill: float = 0.0,
    out: Tensor | None = None,
    backend: BackendName | None = None,
    **options: Unpack[TargetOptions],
):
    """Images and targets mixed by a plan, in one launch: :func:`cutmix` with the drawing left out.

    >>> plan = sample_plan(4, 16, 16, seed=0)
    >>> mixed, targets = apply_plan(images, labels, plan, 10)
    >>> torch.equal(mixed, cutmix(images, seed=0)[0])
    True

    Args:
        images: (B, ..., H, W) of any dtype, as for :func:`cutmix`; H and W those of the plan. Not changed.
        labels: as for :func:`cutmix`.
        plan: on the device of the images.
        num_classes, label_smoothing, target_dtype, targets, out, backend: as for :func:`cutmix`.
        fill: what the boxes of samples that are cut out are filled with, a value of the images' dtype.

    Returns:
        (images, targets), as :func:`cutmix`.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written. On a GPU, where looking would make the host
            wait, a sample whose row of the plan leads outside the batch or the image is left as it was instead, and
            its target is NaN, or its pair's weight.
    """
    return follow(images, labels, plan, num_classes, fill=fill, inplace=False, out=out, backend=backend, **options)


@with_options
def apply_plan_(
    images: Tensor,
    labels: Tensor | None,
    plan: MixPlan,
    num_classes: int | None = None,
    *,
    fill: float = 0.0,
    backend: BackendName | None = None,
    **options: Unpack[TargetOptions],
):
    """:func:`apply_plan` in place: reads and writes only the boxes' bytes, or all of a sample that is blended.

    >>> mixed, targets = apply_plan_(images, labels, sample_plan(4, 16, 16), 10)
    >>> mixed is images
    True

    The arguments are those of :func:`apply_plan`. The plan has to be its own inverse, ``partner[partner[i]] == i``.

    Returns:
        (images, targets), as :func:`cutmix`; the images are those given, mixed.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`apply_plan`, or, on the CPU, the plan is not its own inverse. On
            a GPU, where looking would make the host wait, a sample for which it is not is left as it was instead, and
            its target is NaN.
    """
    return follow(images, labels, plan, num_classes, fill=fill, inplace=True, out=None, backend=backend, **options)


def mix_targets(
    labels: Tensor,
    plan: MixPlan,
    num_classes: int | None = None,
    *,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    targets: TargetsName = "dense",
    backend: BackendName | None = None,
):
    """Soft targets by a plan: lam * own + (1 - lam) * partner's, (B, K), or as pairs.

    >>> teacher = torch.rand(4, 10).softmax(dim=1)
    >>> mix_targets(teacher, sample_plan(4, 16, 16)).shape
    torch.Size([4, 10])

    Args:
        labels: class indices of any integer dtype, (B,), or soft labels (a teacher's, say), float (B, K). Soft labels
            may require grad: the targets then do.
        plan: on the device of the labels.
        num_classes: K, needed with class indices for dense targets.
        label_smoothing, target_dtype, targets, backend: as for :func:`cutmix`.

    Returns:
        (B, K) of target_dtype, or :class:`PairTargets`.

    Raises:
        TypeError, ValueError: an argument is wrong. On a GPU, where looking would make the host wait, a label outside
            0..K-1 or a row of the plan that leads outside the batch gives a row of NaN instead, as in
            :func:`apply_plan`.
    """
    if labels is None:
        raise TypeError("labels must be a tensor, got None")
    labels = plain(labels)
    share = _validation.check_share("label_smoothing", label_smoothing)
    wanted = check_targets(targets, share)
    target_dtype = _validation.check_target_dtype("target_dtype", target_dtype)
    _validation.check_labels_tensor(labels)
    check_plan_batch(plan, labels.shape[0], labels.device, "labels")
    op_labels, classes = _labels_of_op(labels, num_classes, len(plan), labels.device, wanted, differentiable=True)
    plan.check()
    ops = _backends.ops_for(backend, labels.device)
    if op_labels is None:
        return pairs_of(labels, plan.packed, reference.valid_rows(plan.packed, None, None))
    if needs_derivative(labels):
        return mix_soft_labels(labels, plan.packed, share, target_dtype, ops)
    return ops.mix_targets(labels, plan.packed, classes, share, target_dtype)
