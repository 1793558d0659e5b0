"""CutMix, MixUp and Cutout for PyTorch in one kernel launch: boxes, pixels and soft targets, each sample its own."""

from . import distributions
from ._backends import available_backends
from .boxes import MixedBoxes
from .functional import apply_plan, apply_plan_, cutmix, cutmix_, mix, mix_images, mix_images_, mix_targets, sample_plan
from .pairs import PairTargets, cross_entropy
from .plan import MixPlan
from .transforms import CutMix, Mix

__version__ = "0.1.0"

__all__ = [
    "CutMix",
    "Mix",
    "MixPlan",
    "MixedBoxes",
    "PairTargets",
    "apply_plan",
    "apply_plan_",
    "available_backends",
    "cross_entropy",
    "cutmix",
    "cutmix_",
    "distributions",
    "mix",
    "mix_images",
    "mix_images_",
    "mix_targets",
    "sample_plan",
]
