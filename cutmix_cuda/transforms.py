"""The transforms: modules for a training loop, a collate function or a Compose."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import _backends, _validation
from ._seed import check_generator
from .distributions import Distribution
from .functional import Settings, run_cutmix


class CutMix(nn.Module):
    """CutMix (Yun et al., ICCV 2019), each sample with its own box and lambda, in one launch.

    >>> cutmix = CutMix(num_classes=1000)
    >>> images, targets = cutmix(images, labels)  # (B, C, H, W), (B,) -> (B, C, H, W), (B, 1000)

    The arguments are those of :func:`cutmix_cuda.cutmix`, and:

    Args:
        inplace: mix the images where they are, at 0.32 of the traffic of a copy for alpha = 1. Needs partner "mirror"
            or "flip".
        generator: a CPU generator to draw the seed of each call from, instead of torch's default one.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`cutmix_cuda.cutmix`; whatever does not depend on the batch at
            once.
    """

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        alpha: float | Distribution = 1.0,
        prob: float = 1.0,
        scope: str = "sample",
        partner: str = "mirror",
        placement: str = "clip",
        correct_lam: bool = True,
        label_smoothing: float = 0.0,
        target_dtype: torch.dtype = torch.float32,
        inplace: bool = False,
        generator: torch.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self._settings = Settings.checked(
            alpha=alpha,
            prob=prob,
            scope=scope,
            partner=partner,
            placement=placement,
            correct_lam=correct_lam,
            label_smoothing=label_smoothing,
            target_dtype=target_dtype,
        )
        if num_classes is not None:
            _validation.check_num_classes(num_classes)
        if inplace:
            _validation.check_own_inverse(self._settings.sampling.partner)
        check_generator(generator)
        self.num_classes = num_classes
        self.inplace = inplace
        self.generator = generator
        self.backend = _backends.check_backend(backend)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Images (B, ..., H, W), labels (B,) or (B, K) or None -> mixed images, targets (B, K) or None."""
        mixed, targets, _ = run_cutmix(
            images,
            labels,
            self.num_classes,
            self._settings,
            seed=None,
            generator=self.generator,
            inplace=self.inplace,
            out=None,
            backend=self.backend,
        )
        return mixed, targets

    def extra_repr(self) -> str:
        settings = self._settings
        prob, scope, partner, placement, correct_lam = settings.sampling
        return (
            f"num_classes={self.num_classes}, alpha={settings.alpha}, prob={prob}, scope={scope.name!r}, "
            f"partner={partner.name!r}, placement={placement.name!r}, correct_lam={correct_lam}, "
            f"label_smoothing={settings.label_smoothing}, inplace={self.inplace}"
        )
