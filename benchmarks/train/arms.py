"""Who mixes, and how: a line for each arm of the study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torchvision.transforms import v2

from cutmix_cuda import RICAP, Augment, CutMix, Erase, FMix, Mix, ResizeMix

from ..implementations import NO_MIXING
from .data import CLASSES

Mixer = Callable[[Tensor, Tensor], tuple[Tensor, Any]]  # images and labels -> mixed images and their targets


class Arm(NamedTuple):
    """
    Attributes:
        mixer: makes the mixer for a seed. Its repr tells the settings: where these change, runs are repeated.
        colour: in the pictures.
    """

    mixer: Callable[[int], Mixer]
    colour: str


# Every CutMix draws lambda from Beta(1, 1). Cutout fills with 0, which is the mean once images are normalised.
# torchvision's CutMix is the control: it draws by torch's own seed, one box a batch, and mixes half of the batches.
# RICAP, ResizeMix and FMix have the settings of their papers, but mix half of the samples, as CutMix beside them does.
ARMS = {
    NO_MIXING: Arm(lambda seed: v2.Identity(), "#24292f"),
    "CutMix, prob 0.5": Arm(lambda seed: CutMix(num_classes=CLASSES, prob=0.5, seed=seed), "#c2410c"),
    "CutMix, prob 1": Arm(lambda seed: CutMix(num_classes=CLASSES, seed=seed), "#f08c00"),
    "torchvision v2.CutMix, prob 0.5": Arm(
        lambda seed: v2.RandomApply([v2.CutMix(num_classes=CLASSES)], p=0.5), "#2b8a3e"
    ),
    "MixUp, alpha 0.2": Arm(
        lambda seed: Mix(num_classes=CLASSES, cutmix_alpha=None, mixup_alpha=0.2, seed=seed), "#7048e8"
    ),
    "Mix of the three": Arm(
        lambda seed: Mix(num_classes=CLASSES, cutmix_alpha=1.0, mixup_alpha=0.2, cutout=0.1, prob=0.8, seed=seed),
        "#ae3ec9",
    ),
    "Cutout": Arm(
        lambda seed: Mix(num_classes=CLASSES, cutmix_alpha=None, mixup_alpha=None, cutout=1.0, seed=seed), "#1c7ed6"
    ),
    "Batch tail: erasing, CutMix, prob 0.5": Arm(
        lambda seed: Augment(CutMix(num_classes=CLASSES, prob=0.5), erase=Erase(prob=0.25, value="pixel"), seed=seed),
        "#0b7285",
    ),
    "ResizeMix, prob 0.5": Arm(lambda seed: ResizeMix(num_classes=CLASSES, prob=0.5, seed=seed), "#a61e4d"),
    "RICAP, prob 0.5": Arm(lambda seed: RICAP(num_classes=CLASSES, prob=0.5, seed=seed), "#5c940d"),
    "FMix, prob 0.5": Arm(lambda seed: FMix(num_classes=CLASSES, prob=0.5, seed=seed), "#495057"),
}
