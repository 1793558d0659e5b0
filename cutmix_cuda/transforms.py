"""The transforms: modules for a training loop, a collate function or a Compose."""

from __future__ import annotations

from collections.abc import Mapping
from types import GenericAlias
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from . import _backends, _validation
from ._literals import BackendName
from ._ops import Sampling
from ._options import (
    CutMixOptions,
    CutoutOptions,
    FMixOptions,
    MaskSettings,
    MixPatchesOptions,
    MixUpOptions,
    PatchSettings,
    ResizeMixOptions,
    RICAPOptions,
    Settings,
    check_holes,
    complete,
    settings_of_mix,
    with_options,
)
from ._output import check_reuse
from ._seed import counted_seed
from ._tensors import plain
from .functional import draw_plan, returned, run
from .patches import draw_masks, draw_patches, follow_patches, run_patches
from .reference_patches import draws_holes_alone


class Transform(nn.Module):
    """What the transforms have in common: settings checked once, and a call for each batch."""

    __class_getitem__: Any = classmethod(GenericAlias)  # ``CutMix[PairTargets]`` in annotations; see __init__.pyi

    def __init__(
        self,
        settings: Settings | PatchSettings | MaskSettings,
        options: Mapping[str, Any],
        num_classes: int | None,
        inplace: bool | None,
        reuse_output: bool,
        seed: int | Tensor | None,
        generator: torch.Generator | None,
        backend: BackendName | None,
    ) -> None:
        """inplace is None where there is no such option."""
        super().__init__()
        if num_classes is not None:
            _validation.check_num_classes(num_classes)
        if inplace and isinstance(settings, Settings):
            _validation.check_own_inverse(Sampling(*settings.sampling).partner)
        if inplace and isinstance(settings, PatchSettings) and not draws_holes_alone(settings.bounds):
            raise ValueError(
                "inplace must be False where ricap or resizemix may be drawn, or several holes beside other kinds"
            )
        if inplace and isinstance(settings, MaskSettings):
            _validation.check_own_inverse(settings.partner)
        self.seeds = counted_seed(seed, generator)
        self._settings = settings
        self.num_classes = num_classes
        self.inplace = bool(inplace)
        self._output = check_reuse(reuse_output, self.inplace)
        self.generator = generator
        _backends.check_backend(backend)
        self.backend = backend
        if backend is None:
            _backends.check_variable()
        shown = {name: value for name, value in options.items() if name != "target_dtype"}
        self._arguments = {"num_classes": num_classes, **shown}  # for repr
        if inplace is not None:
            self._arguments["inplace"] = inplace
        self._arguments["reuse_output"] = reuse_output

    def forward(self, images: Tensor, labels: Tensor | None = None, *, return_plan: bool = False):
        """Mixes a batch.

        Args:
            images: (B, ..., H, W).
            labels: class indices (B,), soft labels (B, K), or None.
            return_plan: also return the plan, to mix anything else alike.

        Returns:
            (images, targets) or (images, targets, plan), as :func:`cutmix_cuda.cutmix`.

        Raises:
            TypeError, ValueError: the batch is wrong; nothing was written.
        """
        settings, reused = self._settings, self._output
        mix: Any = self._mix_by_masks  # to images, targets and the plan
        if not isinstance(settings, MaskSettings):
            mix = run if isinstance(settings, Settings) else run_patches
        out = None if reused is None else reused.memory_for(images)
        mixed = mix(
            images,
            labels,
            self.num_classes,
            settings,
            seed=self._next_seed(),
            generator=self.generator,
            inplace=self.inplace,
            out=out,
            backend=self.backend,
        )
        if reused is not None:
            mixed = (reused.keep(mixed[0], images), *mixed[1:])
        if isinstance(settings, Settings):
            return returned(images, mixed, return_plan)
        return mixed if return_plan else mixed[:2]

    def _mix_by_masks(
        self,
        images: Tensor,
        labels: Tensor | None,
        num_classes: int | None,
        settings: MaskSettings,
        *,
        seed: Tensor | None,
        generator: torch.Generator | None,
        **where: Any,
    ):
        _validation.check_images(plain(images))
        batch, height, width = images.shape[0], *images.shape[-2:]
        plan = draw_masks(batch, height, width, settings, seed=seed, generator=generator, device=images.device)
        formats: dict[str, Any] = {"label_smoothing": settings.label_smoothing, "target_dtype": settings.target_dtype}
        mixed = follow_patches(images, labels, plan, num_classes, fill=0.0, **formats, **where)
        return *mixed, plan

    def sample_plan(
        self,
        batch_size: int,
        height: int,
        width: int,
        *,
        seed: int | Tensor | None = None,
        device: torch.device | str | None = None,
    ):
        """The plan that a batch of these sizes would be mixed by.

        Args:
            batch_size: samples.
            height: pixels.
            width: pixels.
            seed: an int, or a tensor of one int64. None: one is drawn as a call draws it, and counts as a call.
            device: where the plan is to be; the CPU by default.

        Returns:
            A :class:`MixPlan` of the batch; a :class:`PatchPlan` where a sample may have several patches, or sources or
            masks.

        Raises:
            TypeError, ValueError: an argument is wrong.
        """
        generator = self.generator if seed is None else None
        if seed is None:
            seed = self._next_seed()
        sizes = batch_size, height, width
        settings = self._settings
        if isinstance(settings, MaskSettings):
            return draw_masks(*sizes, settings, seed=seed, generator=generator, device=device)
        if isinstance(settings, PatchSettings):
            return draw_patches(*sizes, settings, seed=seed, generator=generator, device=device, backend=self.backend)
        return draw_plan(*sizes, settings, seed=seed, generator=generator, device=device, backend=self.backend)

    def _next_seed(self) -> Tensor | None:
        return None if self.seeds is None else self.seeds.next()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())


class CutMix(Transform):
    """CutMix (Yun et al., ICCV 2019), each sample with its own box and lambda, in one launch.

    >>> cutmix = CutMix(num_classes=1000)
    >>> mixed, targets = cutmix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)
    >>> targets.shape
    torch.Size([4, 1000])

    It mixes in eval mode as well: call it in the training loop and not in validation. Arguments are fixed from then on.
    What they mean in full, the shapes and the dtypes are in :func:`cutmix_cuda.cutmix`.

    Args:
        num_classes: K, needed with class indices for dense targets.
        alpha: lambda, the fraction of its own pixels that a sample keeps, is drawn from Beta(alpha, alpha): at 1 every
            fraction is equally likely, below 1 those near 0 and 1, above 1 those near a half. Or a distribution of
            :mod:`cutmix_cuda.distributions`.
        prob: the probability that a sample (with scope "batch", the batch) is mixed.
        scope: who has a lambda and a box in common: "sample", nobody; "pair", two samples that are each other's
            partner; "batch", all samples.
        partner: whose pixels are pasted into sample i of a batch of B: "mirror", those of sample s - i, with a new s
            at each call; "shift", i + s; "roll", i - 1, as torchvision; "flip", B - 1 - i, as timm; all modulo B.
        placement: "clip", a box centred anywhere and clipped at the border, as in the paper; "inside", a box that is
            never clipped.
        correct_lam: recompute lambda from the box's real area, after it was clipped and rounded.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K.
        target_dtype: float32, float16, bfloat16 or float64, of dense targets.
        targets: "dense", a matrix (B, K); or "pairs", two class indices and a weight a sample, for
            :func:`cutmix_cuda.cross_entropy`.
        inplace: mix the images where they are, at 0.32 of the traffic of a copy for alpha = 1. Needs partner "mirror"
            or "flip".
        reuse_output: write each batch to the memory of the last one, instead of new memory, whose pages the system has
            to clear. The next call overwrites what the last one returned: use up a batch, or copy it, before the next
            call. A batch of another shape, strides, dtype or device, or one that lies in that memory, gets new memory.
            Not with inplace, nor in ``DataLoader`` workers. A graph of torch.compile breaks there, and with
            fullgraph=True it is an error.
        seed: decides the seed of each call together with the number of calls before it, the rank in torch.distributed
            and the ``DataLoader`` worker; an int, or a tensor of one int64 on the CPU. The count is saved in the
            ``state_dict``, so that a run resumed from a checkpoint draws what it would have drawn. A worker's copy
            counts for itself and is not saved: each epoch starts new ones, with other seeds. None: each seed is drawn
            from the generator. Leave it None to capture CUDA graphs, whose replays count nothing (RuntimeError).
        generator: a CPU generator to draw the seed of each call from, instead of torch's default one. Excludes seed.
        backend: "cuda", "triton", "cpu" or "reference"; None takes the best for the device.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.cutmix`; whatever does not depend on the batch at
            once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        inplace: bool = False,
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
        **options: Unpack[CutMixOptions],
    ) -> None:
        settings, every = Settings.of_cutmix(**options), complete(CutMixOptions, options)
        super().__init__(settings, every, num_classes, inplace, reuse_output, seed, generator, backend)


class MixUp(Transform):
    """MixUp (Zhang et al., ICLR 2018), each sample with its own lambda, in one launch.

    >>> mixup = MixUp(num_classes=1000, alpha=0.2)
    >>> mixed, targets = mixup(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    A mixed sample is lam * own + (1 - lam) * partner's, and so is its target. Images are uint8, float16, bfloat16,
    float32 or float64. :class:`Mix` with no other kind than mixup; as it, it mixes in eval mode as well.

    Args:
        num_classes: K, needed with class indices for dense targets.
        alpha: lambda is drawn from Beta(alpha, alpha), or from a distribution of :mod:`cutmix_cuda.distributions`.
        prob: the probability that a sample (with scope "batch", the batch) is mixed.
        scope: who has a lambda in common: "sample", nobody; "pair", two samples that are each other's partner; "batch",
            all samples.
        partner: whose pixels are blended in: "mirror", "shift", "roll" or "flip", as for :class:`CutMix`.
        label_smoothing, target_dtype, targets, inplace, reuse_output, seed, generator, backend: as for
            :class:`CutMix`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.mix`; whatever does not depend on the batch at once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        inplace: bool = False,
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
        **options: Unpack[MixUpOptions],
    ) -> None:
        settings, every = Settings.of_mixup(**options), complete(MixUpOptions, options)
        super().__init__(settings, every, num_classes, inplace, reuse_output, seed, generator, backend)


class Cutout(Transform):
    """Cutout (DeVries and Taylor, 2017), each sample with its own box, in one launch.

    >>> cutout = Cutout(area=0.25)
    >>> images, _ = cutout(images)  # (B, C, H, W) -> (B, C, H, W)

    The box is filled with one value, and targets stay what they were, as a matrix (B, K) or as pairs. Images are of any
    dtype. :class:`Mix` with no other kind than cutout; as it, it cuts out in eval mode as well. Boxes of random size,
    aspect or noise are :class:`Erase`'s.

    Args:
        num_classes: K, needed with class indices for dense targets.
        area: the fraction of the image that a box covers before it is clipped, or its distribution. The paper's 16 of
            32 pixels are 0.25. Sides below 2 / sqrt(area) pixels, and 1 / sqrt(area) with placement "inside", are too
            small for a box of one pixel.
        prob: the probability that a sample (with scope "batch", the batch) is cut out.
        fill: what boxes are filled with, a value of the images' dtype.
        scope: who has a box in common: "sample", nobody; "pair", two samples that are each other's partner; "batch",
            all samples.
        placement: "clip", a box centred anywhere and clipped at the border, as in the paper; "inside", a box that is
            never clipped.
        holes: boxes a sample, each of that area and where it likes, up to 64. With more than one the plan is a
            :class:`PatchPlan`.
        label_smoothing, target_dtype, targets, inplace, reuse_output, seed, generator, backend: as for
            :class:`CutMix`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.mix`; whatever does not depend on the batch at once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        inplace: bool = False,
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
        **options: Unpack[CutoutOptions],
    ) -> None:
        every = complete(CutoutOptions, options)
        several = check_holes("holes", every["holes"]) > 1
        settings = PatchSettings.of_holes(**options) if several else Settings.of_cutout(**options)
        super().__init__(settings, every, num_classes, inplace, reuse_output, seed, generator, backend)


class Mix(Transform):
    """CutMix, MixUp, Cutout, RICAP, ResizeMix and nothing, side by side in one batch and one launch.

    >>> mix = Mix(num_classes=1000, cutmix_alpha=1.0, mixup_alpha=0.2, cutout=0.1, resizemix=0.2)
    >>> mixed, targets = mix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    Each sample is cut out, or mixed by :class:`RICAP` or :class:`ResizeMix`, with the probabilities cutout, ricap and
    resizemix; else it is mixed with probability prob, by cutmix with probability switch_prob and by mixup otherwise, as
    timm's ``Mixup``; else it is kept. With scope "pair" or "batch" the draw is that of the pair or the batch. It mixes
    in eval mode as well: call it in the training loop and not in validation.

    With ricap, resizemix or several holes the plan is a :class:`PatchPlan`, of as many patches a sample as any of them
    needs, targets are weighted by the pixels, and mixing is in place of holes alone. What is drawn to be cutmix, mixup
    or cutout of one hole is what it would be without them.

    Args:
        num_classes: K, needed with class indices for dense targets.
        cutmix_alpha: of cutmix lambda is drawn from Beta(cutmix_alpha, cutmix_alpha), or from a distribution of
            :mod:`cutmix_cuda.distributions`. 0 or None: no cutmix.
        mixup_alpha: the same of mixup. 0 or None: no mixup.
        cutout: the probability that a sample is cut out.
        cutout_area: the fraction of the image that its box covers before it is clipped, or its distribution.
        fill: what its box is filled with, a value of the images' dtype.
        cutout_holes: boxes of a sample that is cut out, as of :class:`Cutout`, up to 64.
        ricap: the probability that a sample is mixed by ricap; cutout, ricap and resizemix are at most 1 together.
        ricap_beta: the parameter of the distribution of its corner, or a distribution, as of :class:`RICAP`.
        resizemix: the probability that a sample is mixed by resizemix.
        resizemix_scale: of its box's sides to the image's, or its distribution, as of :class:`ResizeMix`.
        prob: the probability that a sample which is none of these is mixed by cutmix or mixup.
        switch_prob: the probability that a sample which is mixed by one of the two is mixed by cutmix, where there are
            both.
        scope, partner, placement, correct_lam: of boxes and draws, as for :class:`CutMix`. ricap has partners of its
            own, and none in pairs: scope "pair" is an error with it. correct_lam has to be True with a
            :class:`PatchPlan`.
        label_smoothing, target_dtype, targets: of targets, as for :class:`CutMix`; with ricap they are "dense".
        inplace, reuse_output, seed, generator, backend: as for :class:`CutMix`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.mix`; whatever does not depend on the batch at once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        inplace: bool = False,
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
        **options: Unpack[MixPatchesOptions],
    ) -> None:
        settings, every = settings_of_mix(**options), complete(MixPatchesOptions, options)
        super().__init__(settings, every, num_classes, inplace, reuse_output, seed, generator, backend)


class RICAP(Transform):
    """RICAP (Takahashi et al., 2018): four images in the four corners of one, each sample with its own, in one launch.

    >>> ricap = RICAP(num_classes=1000)
    >>> mixed, targets = ricap(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    The point where the four meet is drawn from Beta(beta, beta) on each side. Each corner is a crop, from anywhere, of
    a sample i + s modulo B, with an s for each of the corners that is new at each call. A target is weighted by the
    areas. The published code draws one point and four crops for a whole batch: scope "batch". Images are of any dtype.
    It mixes in eval mode as well.

    Args:
        num_classes: K, needed with class indices.
        beta: the parameter of the Beta distribution, or a distribution of :mod:`cutmix_cuda.distributions`.
        prob: the probability that a sample (with scope "batch", the batch) is mixed.
        scope: who has a point and crops in common: "sample", nobody; "batch", all samples.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K.
        target_dtype: float32, float16, bfloat16 or float64.
        reuse_output, seed, generator, backend: as for :class:`CutMix`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.mix`; whatever does not depend on the batch at once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
        **options: Unpack[RICAPOptions],
    ) -> None:
        settings, every = PatchSettings.of_ricap(**options), complete(RICAPOptions, options)
        super().__init__(settings, every, num_classes, None, reuse_output, seed, generator, backend)


class ResizeMix(Transform):
    """ResizeMix (Qin et al., 2020): the whole partner, made smaller, is pasted into a sample, in one launch.

    >>> resizemix = ResizeMix(num_classes=1000)
    >>> mixed, targets = resizemix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    The box has the image's shape, lies anywhere inside, and its area is the partner's share of the target. The partner
    is resized to the nearest pixel. Of images one pixel high or wide, as signals, the box is a span, the partner at
    another speed. Images are of any dtype. It mixes in eval mode as well.

    Args:
        num_classes: K, needed with class indices.
        scale: of the box's sides to the image's, or of a span's length: a number in [0, 1], or its distribution.
        prob: the probability that a sample (with scope "batch", the batch) is mixed.
        scope: who has a box in common: "sample", nobody; "pair", two samples that are each other's partner; "batch",
            all samples.
        partner: whose pixels are pasted: "mirror", "shift", "roll" or "flip", as for :class:`CutMix`.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K.
        target_dtype: float32, float16, bfloat16 or float64.
        reuse_output, seed, generator, backend: as for :class:`CutMix`.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.mix`; whatever does not depend on the batch at once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
        **options: Unpack[ResizeMixOptions],
    ) -> None:
        settings, every = PatchSettings.of_resizemix(**options), complete(ResizeMixOptions, options)
        super().__init__(settings, every, num_classes, None, reuse_output, seed, generator, backend)


class FMix(Transform):
    """FMix (Harris et al., 2020): a partner is pasted where noise of low frequencies is small, each sample with its
    own mask.

    >>> fmix = FMix(num_classes=1000)
    >>> mixed, targets = fmix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    The masks are made by :func:`cutmix_cuda.masks.fmix`, some dozens of torch's operations on the device of the images,
    and the mixing is one launch. A target is weighted by the mask's mean, to the pixel; the published code uses one
    mask for a batch, made on the CPU, and weights by the lambda that it was made for. Images are of any dtype. It mixes
    in eval mode as well. Other masks, soft ones and those of a model are :func:`cutmix_cuda.mix_by_masks`'s.

    Args:
        num_classes: K, needed with class indices.
        alpha: lambda, the fraction of its own pixels that a sample keeps, is drawn from Beta(alpha, alpha), or from a
            distribution of :mod:`cutmix_cuda.distributions`.
        decay: the noise of a frequency f is divided by f to this power; the greater, the smoother.
        prob: the probability that a sample is mixed.
        partner: whose pixels are pasted: "mirror", "shift", "roll" or "flip", as for :class:`CutMix`.
        label_smoothing: s in [0, 1], before mixing: y * (1 - s) + s / K.
        target_dtype: float32, float16, bfloat16 or float64.
        inplace, reuse_output, seed, generator, backend: as for :class:`CutMix`; the backend is that of the mixing.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.mix`; whatever does not depend on the batch at once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        inplace: bool = False,
        reuse_output: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: BackendName | None = None,
        **options: Unpack[FMixOptions],
    ) -> None:
        settings, every = MaskSettings.of_fmix(**options), complete(FMixOptions, options)
        super().__init__(settings, every, num_classes, inplace, reuse_output, seed, generator, backend)
