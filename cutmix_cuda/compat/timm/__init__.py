"""Parts of ``timm.data`` 1.0.31 with another engine: change the imports, nothing else.

>>> from cutmix_cuda.compat.timm import FastCollateMixup, Mixup, RandomErasing  # was: from timm.data import ...
>>> mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, mode="elem", num_classes=1000)
>>> images, targets = mixup(images, labels)  # in place: (B, C, H, W), (B,) -> the same images, (B, 1000)

The loader, ``PrefetchLoader`` and ``create_loader``, is the only part that imports timm.
"""

from typing import TYPE_CHECKING

from .erasing import RandomErasing
from .mixup import FastCollateMixup, Mixup

if TYPE_CHECKING:
    from .loader import PrefetchLoader, create_loader

__all__ = ["FastCollateMixup", "Mixup", "PrefetchLoader", "RandomErasing", "create_loader"]


def __getattr__(name: str):
    if name not in ("PrefetchLoader", "create_loader"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import loader

    return getattr(loader, name)
