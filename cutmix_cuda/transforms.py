"""The transforms: modules for a training loop, a collate function or a Compose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from . import _backends, _validation
from ._ops import Sampling
from ._options import CutMixOptions, MixOptions, Settings, complete, with_options
from ._seed import counted_seed
from .functional import draw_plan, returned, run
from .plan import MixPlan


class _Transform(nn.Module):
    """What the transforms share: settings checked once, and a call for each batch."""

    def __init__(
        self,
        settings: Settings,
        options: Mapping[str, Any],
        num_classes: int | None,
        inplace: bool,
        seed: int | Tensor | None,
        generator: torch.Generator | None,
        backend: str | None,
    ) -> None:
        super().__init__()
        if num_classes is not None:
            _validation.check_num_classes(num_classes)
        if inplace:
            _validation.check_own_inverse(Sampling(*settings.sampling).partner)
        self.seeds = counted_seed(seed, generator)
        self._settings = settings
        self.num_classes = num_classes
        self.inplace = inplace
        self.generator = generator
        self.backend = _backends.check_backend(backend)
        if backend is None:
            _backends.check_variable()
        shown = {name: value for name, value in options.items() if name != "target_dtype"}
        self._arguments = {"num_classes": num_classes, **shown, "inplace": inplace}  # for repr

    def forward(self, images: Tensor, labels: Tensor | None = None, *, return_plan: bool = False):
        """Images (B, ..., H, W), labels (B,) or (B, K) or None -> mixed images, targets (B, K) or pairs or None.

        return_plan: also return the :class:`MixPlan`, to mix anything else with the same boxes.
        """
        mixed = run(
            images,
            labels,
            self.num_classes,
            self._settings,
            seed=self._next_seed(),
            generator=self.generator,
            inplace=self.inplace,
            out=None,
            backend=self.backend,
        )
        return returned(images, mixed, return_plan)

    def sample_plan(
        self,
        batch_size: int,
        height: int,
        width: int,
        *,
        seed: int | Tensor | None = None,
        device: torch.device | str | None = None,
    ) -> MixPlan:
        """The plan that a batch of these sizes would be mixed by, with the arguments of :func:`sample_plan`.

        Without a seed it draws one as a call does, and so counts as one.
        """
        generator = self.generator if seed is None else None
        if seed is None:
            seed = self._next_seed()
        return draw_plan(
            batch_size,
            height,
            width,
            self._settings,
            seed=seed,
            generator=generator,
            device=device,
            backend=self.backend,
        )

    def _next_seed(self) -> Tensor | None:
        return None if self.seeds is None else self.seeds.next()

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._arguments.items())


class CutMix(_Transform):
    """CutMix (Yun et al., ICCV 2019), each sample with its own box and lambda, in one launch.

    >>> cutmix = CutMix(num_classes=1000)
    >>> images, targets = cutmix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    It mixes in eval mode as well: call it in the training loop alone. The arguments, fixed from then on, are those of
    :func:`cutmix_cuda.cutmix`, and:

    Args:
        inplace: mix the images where they are, at 0.32 of the traffic of a copy for alpha = 1. Needs partner "mirror"
            or "flip".
        seed: decides the seed of each call together with the number of calls before it, the rank in torch.distributed
            and the ``DataLoader`` worker; an int, or a tensor of one int64 on the CPU. The count is saved in the
            ``state_dict``, so that a run resumed from a checkpoint draws what it would have drawn. A worker's copy
            counts for itself and is not saved: each epoch starts new ones, with other seeds. None: each seed is drawn
            from the generator. Leave it None to capture CUDA graphs, whose replays count nothing (RuntimeError).
        generator: a CPU generator to draw the seed of each call from, instead of torch's default one. Excludes seed.

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
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: str | None = None,
        **options: Unpack[CutMixOptions],
    ) -> None:
        settings, every = Settings.of_cutmix(**options), complete(CutMixOptions, options)
        super().__init__(settings, every, num_classes, inplace, seed, generator, backend)


class Mix(_Transform):
    """CutMix, MixUp, Cutout and nothing, side by side in one batch and one launch.

    >>> mix = Mix(num_classes=1000, cutmix_alpha=1.0, mixup_alpha=0.2, cutout=0.1)
    >>> images, targets = mix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    It mixes in eval mode as well: call it in the training loop alone. The arguments, fixed from then on, are those of
    :func:`cutmix_cuda.mix`, and:

    Args:
        seed: as for :class:`CutMix`.
        generator: a CPU generator to draw the seed of each call from, instead of torch's default one. Excludes seed.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.mix`; whatever does not depend on the batch at once.
    """

    @with_options
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        inplace: bool = False,
        seed: int | Tensor | None = None,
        generator: torch.Generator | None = None,
        backend: str | None = None,
        **options: Unpack[MixOptions],
    ) -> None:
        settings, every = Settings.of_mix(**options), complete(MixOptions, options)
        super().__init__(settings, every, num_classes, inplace, seed, generator, backend)
