"""``Mixup`` and ``FastCollateMixup`` of timm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from ... import _backends, _validation, reference
from ..._literals import BackendName, ScopeName
from ..._ops import Scope
from ..._options import Settings
from ..._seed import counted_seed, seed_tensor
from ...functional import apply_plan_, draw_plan, run
from ...plan import MixPlan

_SCOPES: dict[str, ScopeName] = {"batch": "batch", "pair": "pair", "elem": "sample", "half": "sample"}
_MINMAX_STREAM = 1 << 16  # of random words, far from those that mix_math.h draws from


class Mixup(nn.Module):
    """MixUp and CutMix of a batch in place, with the arguments and attributes of ``timm.data.Mixup``.

    With the same lambda and box, pixels and targets are equal to timm's. What differs:

    - Random numbers come from torch, not numpy: ``torch.manual_seed`` reproduces them, on every device alike. The
      distributions of lambda are the same.
    - Boxes of CutMix have even sides before they are clipped, as the paper's and torchvision's; timm also draws odd
      ones. With cutmix_minmax, sides and places are distributed as timm's, drawn on the host and copied to the device.
    - In images one pixel high or wide, where timm's boxes are empty, a box is a span of the other side.
    - With seed, ranks of torch.distributed and loader workers draw apart, and the count of the calls is in the
      ``state_dict``. Without, as in timm, ranks that were seeded alike draw alike.
    - Any batch size: the sample in the middle of an odd batch is kept. timm wants an even one.
    - Images may be uint8 (rounded to nearest), float16 or bfloat16, and lambda is float32 for all of them; timm rounds
      it to the images' dtype, to 0 in uint8.
    - Class indices are of an integer dtype, any of them. Without multi_label, a float (B, K) target is soft labels,
      smoothed to y * (1 - s) + s / K; timm takes its entries for indices.

    As in timm, the attributes may be changed between calls: ``mixup.mixup_enabled = False`` stops mixing and goes on
    smoothing.

    Args:
        mixup_alpha: lambda of mixup ~ Beta(mixup_alpha, mixup_alpha); not positive: no mixup.
        cutmix_alpha: the same for cutmix.
        cutmix_minmax: (lo, hi), fractions in [0, 1]: the sides of boxes are uniform in lo..hi of the image's, and lie
            inside it; cutmix_alpha is then 1.
        prob: the probability that a batch, pair or sample, by mode, is mixed.
        switch_prob: the probability that what is mixed is mixed by cutmix, where there are both.
        mode: what has a draw of its own: the "batch", each "pair", or each sample, "elem".
        correct_lam: recompute lambda from the box's real area.
        label_smoothing: s in [0, 1], before mixing: off = s / K, on = 1 - s + off.
        num_classes: the number of classes, K.
        multi_label: targets are (B, K), of any dtype, each entry smoothed towards a half: y * (1 - s) + s / 2.
        seed: as for :class:`cutmix_cuda.CutMix`. None: each seed is drawn from the generator.
        generator: a CPU generator to draw from, instead of torch's default one. Excludes seed.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Raises:
        ValueError, TypeError: an argument is wrong; or, where a batch would be mixed, neither mixup nor cutmix is
            active (where timm asserts). Otherwise as :func:`cutmix_cuda.mix` in place. Nothing was written.
    """

    MODES: tuple[str, ...] = ("batch", "pair", "elem")

    def __init__(
        self,
        mixup_alpha: float = 1.0,
        cutmix_alpha: float = 0.0,
        cutmix_minmax: Sequence[float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: str = "batch",
        correct_lam: bool = True,
        label_smoothing: float = 0.1,
        num_classes: int = 1000,
        multi_label: bool = False,
        *,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
    ) -> None:
        super().__init__()
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha if cutmix_minmax is None else 1.0
        self.cutmix_minmax = cutmix_minmax
        self.mix_prob = prob
        self.switch_prob = switch_prob
        self.mode = mode
        self.correct_lam = correct_lam
        self.label_smoothing = label_smoothing
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.mixup_enabled = True
        self.seeds = counted_seed(seed, generator)
        self.generator = generator
        _backends.check_backend(backend)
        self.backend = backend
        _validation.check_num_classes(num_classes)
        if cutmix_minmax is not None:
            _check_minmax(cutmix_minmax)
        _check_mode(mode, self.MODES)
        settings_of(self)

    def forward(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W), target (B,), or (B, K) -> x itself, mixed, and float32 targets (B, K)."""
        _check_mode(self.mode, self.MODES)
        target, settings = labels_and_settings(self, target)
        seed = None if self.seeds is None else self.seeds.next()
        if self.cutmix_minmax is None:
            _, targets, _ = run(
                x,
                target,
                self.num_classes,
                settings,
                seed=seed,
                generator=self.generator,
                inplace=True,
                out=None,
                backend=self.backend,
            )
        else:
            _validation.check_images(x)
            plan = minmax_plan(self, x, settings, seed_tensor(seed, self.generator, x.device), self.backend)
            _, targets = apply_plan_(
                x, target, plan, self.num_classes, label_smoothing=settings.label_smoothing, backend=self.backend
            )
        assert isinstance(targets, Tensor)  # there were labels
        return x, targets


class FastCollateMixup(Mixup):
    """What collates samples of uint8 and mixes them, with the arguments and attributes of ``timm.data``'s.

    >>> loader = torch.utils.data.DataLoader(dataset, 256, collate_fn=FastCollateMixup(mode="elem"))  # doctest: +SKIP

    Called as a ``collate_fn``, it mixes the uint8 batch in the worker, by one call of the C++ backend. Given the same
    draws, pixels are equal to timm's, rounded to whole numbers as there, and so are targets. It differs from timm's as
    :class:`Mixup` does; images that are not uint8 are refused.

    Given to :func:`create_loader` or :class:`PrefetchLoader`, it does not run in the workers: they hand over the batch
    unmixed, and the loader mixes it on the device, on normalised values that are not rounded.

    Args:
        mode: "batch", "pair" or "elem" as for :class:`Mixup`; or "half", by which a batch of half the size comes out:
            each sample of its first half, drawn as by "elem" and mixed with one of the second half.

    The others are those of :class:`Mixup`.
    """

    MODES = (*Mixup.MODES, "half")

    def forward(self, batch: Sequence, _=None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Samples (image, label), of uint8 (C, H, W), tensors or arrays -> uint8 (B, C, H, W), float32 (B, K)."""
        images, targets = super().forward(*collate_uint8(batch))
        if self.mode == "half":
            most = (len(batch) + 1) // 2
            return images[:most], targets[:most]
        return images, targets


def collate_uint8(batch: Sequence) -> tuple[Tensor, Tensor]:
    """Samples (image, label) as one batch of uint8 images and of labels: class indices int64 (B,), or (B, K)."""
    images, targets = default_collate([sample[:2] for sample in batch])
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be uint8 tensors or arrays to be collated, got {got}")
    return images, targets.long() if targets.ndim == 1 else targets


# What follows reads only attributes that timm's mixups have too, and so serves for them as well.


def settings_of(mixup: Mixup) -> Settings:
    """What the attributes say at this moment."""
    return Settings.of_mix(
        cutmix_alpha=max(mixup.cutmix_alpha, 0.0),
        mixup_alpha=max(mixup.mixup_alpha, 0.0),
        cutout=0.0,
        cutout_area=0.0,
        prob=mixup.mix_prob if mixup.mixup_enabled else 0.0,
        switch_prob=mixup.switch_prob,
        scope=_scope(mixup.mode),
        partner="flip",
        placement="clip",
        correct_lam=mixup.correct_lam,
        label_smoothing=mixup.label_smoothing,
    )


def labels_and_settings(mixup: Mixup, target: Tensor) -> tuple[Tensor, Settings]:
    """Labels as the ops take them, and the settings of a call. ValueError where it would mix by nothing."""
    settings = settings_of(mixup)
    if mixup.mixup_enabled and mixup.mix_prob > 0 and all(each is None for each in settings.distributions):
        raise ValueError("One of mixup_alpha > 0., cutmix_alpha > 0., cutmix_minmax not None should be true.")
    if getattr(mixup, "multi_label", False):  # which timm's own has from 1.0.30 on
        if target.ndim != 2 or target.shape[1] != mixup.num_classes:
            raise ValueError("Multi-label mixup expects dense targets shaped (batch, num_classes).")
        smoothed = target.float() * (1.0 - mixup.label_smoothing) + 0.5 * mixup.label_smoothing
        return smoothed, settings._replace(label_smoothing=0.0)
    if not target.is_floating_point() and target.shape[1:] == (1,):
        target = target[:, 0]  # timm takes (B, 1) too
    return target, settings


def minmax_plan(mixup: Mixup, x: Tensor, settings: Settings, seed: Tensor, backend: BackendName | None) -> MixPlan:
    """A plan for x drawn by the settings, with other boxes: sides and places uniform, one box a draw."""
    batch, height, width = x.shape[0], *x.shape[-2:]
    plan = draw_plan(batch, height, width, settings, seed=seed, generator=None, device=x.device, backend=backend)
    # Where the seed is, which is on the device while a CUDA graph is being captured.
    index = torch.arange(batch, device=seed.device)
    draw = reference.draw_index(Scope[_scope(mixup.mode)], index, batch - 1 - index)
    words = reference.philox(seed.reshape(1), draw, _MINMAX_STREAM)
    assert mixup.cutmix_minmax is not None
    (y0, y1), (x0, x1) = (
        _edges(mixup.cutmix_minmax, *pair, length) for pair, length in ((words[:2], height), (words[2:], width))
    )
    if height == 1:  # a span: see mix_math.h::sides_of
        y0, y1 = torch.zeros_like(y0), torch.ones_like(y1)
    elif width == 1:
        x0, x1 = torch.zeros_like(x0), torch.ones_like(x1)
    boxes = torch.stack([y0, x0, y1, x1], dim=1).to(x.device, non_blocking=True)

    # Where none is pasted the box says nothing. As in timm, lambda is of these boxes whatever correct_lam says.
    outside = reference.share_outside(boxes.unbind(1), height, width)
    lam = torch.where(reference.has_box(plan.kind), outside, plan.lam)
    return MixPlan.from_boxes(plan.partner, boxes, height, width, lam=lam, kind=plan.kind)


def _edges(minmax: Sequence[float], word_side: Tensor, word_place: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """First and one past the last pixel of each box along a side of the image."""
    shortest, longest = (int(length * fraction) for fraction in minmax)
    longest = max(longest - 1, shortest)  # the upper bound is exclusive, as timm's
    side = shortest + reference.mulhi(word_side, longest - shortest + 1)
    start = reference.mulhi(word_place, length - side + 1)
    return start, start + side


def _scope(mode: str) -> ScopeName:
    return _SCOPES.get(mode, "batch")  # as timm's own mixups, which take any other mode for that of the batch


def _check_mode(mode: str, modes: Sequence[str]) -> None:
    if mode not in modes:
        raise ValueError(f"mode must be one of {', '.join(map(repr, modes))}, got {mode!r}")


def _check_minmax(minmax: Sequence[float]) -> None:
    if len(minmax) != 2:
        raise ValueError(f"cutmix_minmax must be (lo, hi), got {minmax!r}")
    for share in minmax:
        _validation.check_share("cutmix_minmax", share)
    if minmax[0] > minmax[1]:
        raise ValueError(f"cutmix_minmax must have lo <= hi, got {minmax!r}")
