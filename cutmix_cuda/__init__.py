"""CutMix, MixUp and Cutout for PyTorch in one kernel launch: boxes, pixels and soft targets, each sample its own."""

from . import distributions, masks
from ._backends import available_backends
from .augmentation import Augment, augment, normalize_images, sample_views
from .boxes import MixedBoxes
from .colour import Colour
from .erasing import Erase
from .features import MixFeatures, mix_features
from .functional import (
    apply_plan,
    apply_plan_,
    cutmix,
    cutmix_,
    mix,
    mix_,
    mix_targets,
    sample_plan,
)
from .images import mix_images, mix_images_
from .pairs import PairTargets, cross_entropy
from .patch_plan import PatchPlan
from .patches import mix_by_masks, mix_by_masks_, paint, paint_, paint_targets
from .plan import MixPlan
from .transforms import RICAP, CutMix, Cutout, FMix, Mix, MixUp, ResizeMix
from .views import Views

__version__ = "0.1.0"

__all__ = [
    "RICAP",
    "Augment",
    "Colour",
    "CutMix",
    "Cutout",
    "Erase",
    "FMix",
    "Mix",
    "MixFeatures",
    "MixPlan",
    "MixUp",
    "MixedBoxes",
    "PairTargets",
    "PatchPlan",
    "ResizeMix",
    "Views",
    "apply_plan",
    "apply_plan_",
    "augment",
    "available_backends",
    "cross_entropy",
    "cutmix",
    "cutmix_",
    "distributions",
    "masks",
    "mix",
    "mix_",
    "mix_by_masks",
    "mix_by_masks_",
    "mix_features",
    "mix_images",
    "mix_images_",
    "mix_targets",
    "normalize_images",
    "paint",
    "paint_",
    "paint_targets",
    "sample_plan",
    "sample_views",
]


def __dir__() -> list[str]:
    return [name for name in globals() if name in __all__ or name.startswith("__")]
