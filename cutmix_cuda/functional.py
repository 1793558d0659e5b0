"""The functions: sample a plan, follow one, or do both in a single launch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _backends, _validation
from ._ops import Partner, Placement, Scope
from ._seed import seed_tensor
from .distributions import Distribution, check_alpha, quantiles
from .plan import MixPlan


class Sampling(NamedTuple):
    """How to draw a plan, in the order of the ops' arguments."""

    prob: float
    scope: Scope
    partner: Partner
    placement: Placement
    correct_lam: bool


class Settings(NamedTuple):
    """The arguments that stay the same from batch to batch, checked once."""

    alpha: float | Distribution
    sampling: Sampling
    label_smoothing: float
    target_dtype: torch.dtype

    @classmethod
    def checked(
        cls,
        *,
        alpha: float | Distribution = 1.0,
        prob: float = 1.0,
        scope: str = "sample",
        partner: str = "mirror",
        placement: str = "clip",
        correct_lam: bool = True,
        label_smoothing: float = 0.0,
        target_dtype: torch.dtype = torch.float32,
    ) -> Settings:
        sampling = Sampling(
            _validation.check_share("prob", prob),
            _validation.check_choice("scope", scope, Scope),
            _validation.check_choice("partner", partner, Partner),
            _validation.check_choice("placement", placement, Placement),
            bool(correct_lam),
        )
        return cls(
            check_alpha(alpha),
            sampling,
            _validation.check_share("label_smoothing", label_smoothing),
            _validation.check_target_dtype("target_dtype", target_dtype),
        )


def _mark_written(tensor: Tensor) -> None:
    """Tells autograd, as torch's own in-place operations do: backward through what it saved of the tensor raises."""
    if not (torch.compiler.is_compiling() or tensor.is_inference()):
        torch.autograd.graph.increment_version(tensor)


def run_cutmix(
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
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Samples, mixes and writes targets in one launch: images, targets, packed plan.

    Everything is checked before anything is written.
    """
    _validation.check_images(images)
    device = images.device
    classes = _validation.check_labels(labels, num_classes, images.shape[0], device)
    ops = _backends.ops_for(backend, device)
    if inplace:
        _validation.check_in_place(images, settings.sampling.partner)
    elif out is not None:
        _validation.check_out(out, images)
    arguments = (
        labels,
        seed_tensor(seed, generator, device),
        quantiles(settings.alpha, device),
        *settings.sampling,
        classes,
        settings.label_smoothing,
        settings.target_dtype,
    )
    if inplace:
        mixed = images
        targets, packed = ops.cutmix_(images, *arguments)
    elif out is not None:
        mixed = out
        targets, packed = ops.cutmix_out(images, *arguments, out)
    else:
        mixed, targets, packed = ops.cutmix(images, *arguments)
    if inplace or out is not None:
        _mark_written(mixed)
    return mixed, targets if labels is not None else None, packed


def cutmix(
    images: Tensor,
    labels: Tensor | None = None,
    num_classes: int | None = None,
    *,
    alpha: float | Distribution = 1.0,
    prob: float = 1.0,
    scope: str = "sample",
    partner: str = "mirror",
    placement: str = "clip",
    correct_lam: bool = True,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    out: Tensor | None = None,
    return_plan: bool = False,
    backend: str | None = None,
):
    """CutMix (Yun et al., ICCV 2019) of a batch: pastes a box of each sample's partner and mixes the targets alike.

    Args:
        images: (B, ..., H, W) of any dtype and 3 to 8 dimensions, on any device, for instance (B, C, H, W) in NCHW or
            channels-last, (B, H, W), (B, T, C, H, W) or (B, C, D, H, W). A sample has one box, the same in each of its
            slices. Views work; rows that are not dense in memory are copied first. Not changed.
        labels: class indices of any integer dtype, (B,); or soft labels, float (B, K); or None, for images alone.
        num_classes: K. Needed with class indices.
        alpha: lambda ~ Beta(alpha, alpha), or a distribution of :mod:`cutmix_cuda.distributions`.
        prob: the share of samples (of draws, see scope) that are mixed; the others are kept as they are.
        scope: who shares a draw of lambda and box: each "sample" has its own, the two of a "pair", or the "batch".
        partner: whose pixels are pasted into sample i: "mirror" (s - i) mod B with s drawn at each call, so that the
            pairing is new each time and its own inverse; "shift" (i + s) mod B; "roll" i - 1, as torchvision; "flip"
            B - 1 - i, as timm. A sample that is its own partner is kept.
        placement: "clip", a box centred anywhere and clipped at the border, as the paper and torchvision; "inside", a
            box that lies inside the image.
        correct_lam: recompute lambda from the box's real area. If not, lambda stays as drawn.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K, as timm and torch's cross entropy.
        target_dtype: float32, float16, bfloat16 or float64.
        seed: an int, or a tensor of one int64 on the CPU or on the device of the images. The same seed gives the same
            bits on every backend and device. None: drawn from the generator; while a CUDA graph is being captured, on
            the device, so that each replay draws anew. Call once before capturing: the first call copies a table.
        generator: a CPU generator, instead of torch's default one.
        out: a tensor like images to write to, which must not overlap it.
        return_plan: also return the :class:`MixPlan`, to mix anything else with the same boxes.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Returns:
        (images, targets) or (images, targets, plan). The images keep dtype, strides and memory format. Targets are
        (B, K), lam * own + (1 - lam) * partner's, or None where there were no labels.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written. On a GPU, where looking at labels would make
            the host wait, and in a compiled graph, a label outside 0..K-1 gives a row of NaN instead.
        RuntimeError: the backend asked for is not available.
    """
    settings = Settings.checked(
        alpha=alpha,
        prob=prob,
        scope=scope,
        partner=partner,
        placement=placement,
        correct_lam=correct_lam,
        label_smoothing=label_smoothing,
        target_dtype=target_dtype,
    )
    mixed, targets, packed = run_cutmix(
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
    return (mixed, targets, MixPlan(packed, *images.shape[-2:])) if return_plan else (mixed, targets)


def cutmix_(
    images: Tensor,
    labels: Tensor | None = None,
    num_classes: int | None = None,
    *,
    alpha: float | Distribution = 1.0,
    prob: float = 1.0,
    scope: str = "sample",
    partner: str = "mirror",
    placement: str = "clip",
    correct_lam: bool = True,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    return_plan: bool = False,
    backend: str | None = None,
):
    """:func:`cutmix` in place: reads and writes the boxes' bytes alone, and gives the same result.

    Two samples exchange their boxes' pixels, so partner has to be its own inverse: "mirror" or "flip". The images must
    not overlap themselves in memory (an expanded view does). Returns the same images, mixed.
    """
    settings = Settings.checked(
        alpha=alpha,
        prob=prob,
        scope=scope,
        partner=partner,
        placement=placement,
        correct_lam=correct_lam,
        label_smoothing=label_smoothing,
        target_dtype=target_dtype,
    )
    mixed, targets, packed = run_cutmix(
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
    return (mixed, targets, MixPlan(packed, *images.shape[-2:])) if return_plan else (mixed, targets)


def sample_plan(
    batch_size: int,
    height: int,
    width: int,
    *,
    alpha: float | Distribution = 1.0,
    prob: float = 1.0,
    scope: str = "sample",
    partner: str = "mirror",
    placement: str = "clip",
    correct_lam: bool = True,
    seed: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    backend: str | None = None,
) -> MixPlan:
    """The plan that :func:`cutmix` with the same arguments would follow.

    Args:
        batch_size: samples.
        height: pixels.
        width: pixels.
        device: where the plan is to be; the CPU by default.

    The other arguments, and the errors, are those of :func:`cutmix`.
    """
    settings = Settings.checked(
        alpha=alpha, prob=prob, scope=scope, partner=partner, placement=placement, correct_lam=correct_lam
    )
    sizes = [
        _validation.check_size(name, value)
        for name, value in (("batch_size", batch_size), ("height", height), ("width", width))
    ]
    table = quantiles(settings.alpha, torch.empty(0, device=device).device)
    ops = _backends.ops_for(backend, table.device)
    packed = ops.sample_plan(seed_tensor(seed, generator, table.device), table, *sizes, *settings.sampling)
    return MixPlan(packed, height, width)


def _follow(
    images: Tensor,
    labels: Tensor | None,
    plan: MixPlan,
    num_classes: int | None,
    label_smoothing: float,
    target_dtype: torch.dtype,
    *,
    inplace: bool,
    out: Tensor | None,
    backend: str | None,
) -> tuple[Tensor, Tensor | None]:
    """Mix and write targets by a given plan in one launch. Everything is checked before anything is written."""
    _validation.check_images(images)
    _validation.check_plan(plan, images, in_place=inplace)
    classes = _validation.check_labels(labels, num_classes, images.shape[0], images.device)
    share = _validation.check_share("label_smoothing", label_smoothing)
    dtype = _validation.check_target_dtype("target_dtype", target_dtype)
    ops = _backends.ops_for(backend, images.device)
    arguments = labels, plan.packed, classes, share, dtype
    if inplace:
        _validation.check_in_place(images)
        mixed, targets = images, ops.mix_(images, *arguments)
    elif out is not None:
        _validation.check_out(out, images)
        mixed, targets = out, ops.mix_out(images, *arguments, out)
    else:
        mixed, targets = ops.mix(images, *arguments)
    if inplace or out is not None:
        _mark_written(mixed)
    return mixed, targets if labels is not None else None


def apply_plan(
    images: Tensor,
    labels: Tensor | None,
    plan: MixPlan,
    num_classes: int | None = None,
    *,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Images and targets mixed by a plan, in one launch: :func:`cutmix` with the drawing left out.

    Args:
        images: (B, ..., H, W) of any dtype, as for :func:`cutmix`; H and W those of the plan. Not changed.
        labels: as for :func:`cutmix`.
        plan: on the device of the images.
        num_classes, label_smoothing, target_dtype, out, backend: as for :func:`cutmix`.

    Returns:
        (images, targets), as :func:`cutmix`.

    Raises:
        TypeError, ValueError: an argument is wrong; nothing was written. On a GPU, where looking would make the host
            wait, a sample whose row of the plan leads outside the batch or the image is left as it was instead, and
            its target is NaN.
    """
    return _follow(
        images, labels, plan, num_classes, label_smoothing, target_dtype, inplace=False, out=out, backend=backend
    )


def apply_plan_(
    images: Tensor,
    labels: Tensor | None,
    plan: MixPlan,
    num_classes: int | None = None,
    *,
    label_smoothing: float = 0.0,
    target_dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """:func:`apply_plan` in place: reads and writes the boxes' bytes alone.

    The plan has to be its own inverse, ``partner[partner[i]] == i``; on a GPU, where looking would make the host wait,
    a sample for which it is not is left as it was, and its target is NaN. Returns the same images, mixed.
    """
    return _follow(
        images, labels, plan, num_classes, label_smoothing, target_dtype, inplace=True, out=None, backend=backend
    )


def mix_images(images: Tensor, plan: MixPlan, *, out: Tensor | None = None, backend: str | None = None) -> Tensor:
    """The images of :func:`apply_plan` alone: masks, a second camera, or the same images again."""
    return _follow(images, None, plan, None, 0.0, torch.float32, inplace=False, out=out, backend=backend)[0]


def mix_images_(images: Tensor, plan: MixPlan, *, backend: str | None = None) -> Tensor:
    """The images of :func:`apply_plan_` alone, in place. Returns the same images, mixed."""
    return _follow(images, None, plan, None, 0.0, torch.float32, inplace=True, out=None, backend=backend)[0]


def mix_targets(
    labels: Tensor,
    plan: MixPlan,
    num_classes: int | None = None,
    *,
    label_smoothing: float = 0.0,
    dtype: torch.dtype = torch.float32,
    backend: str | None = None,
) -> Tensor:
    """Soft targets by a plan: lam * own + (1 - lam) * partner's, (B, K).

    Args:
        labels: class indices of any integer dtype, (B,), or soft labels (a teacher's, say), float (B, K).
        plan: on the device of the labels.
        num_classes: K. Needed with class indices.
        label_smoothing: as for :func:`cutmix`.
        dtype: float32, float16, bfloat16 or float64.
        backend: as for :func:`cutmix`.

    Raises:
        TypeError, ValueError: an argument is wrong. On a GPU, where looking would make the host wait, a label outside
            0..K-1 or a row of the plan that leads outside the batch gives a row of NaN instead.
    """
    if labels is None:
        raise TypeError("labels must be a tensor, got None")
    share = _validation.check_share("label_smoothing", label_smoothing)
    dtype = _validation.check_target_dtype("dtype", dtype)
    device = labels.device if isinstance(labels, Tensor) else torch.device("cpu")
    _validation.check_plan_batch(plan, labels.shape[0] if isinstance(labels, Tensor) else 0, device, "labels")
    classes = _validation.check_labels(labels, num_classes, len(plan), device)
    plan.check()
    return _backends.ops_for(backend, device).mix_targets(labels, plan.packed, classes, share, dtype)
