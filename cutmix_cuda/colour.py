"""Random colour: how brightness, contrast and saturation are drawn, and as which matrix they are applied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import _validation
from .erasing import check_two_numbers

Factor = float | tuple[float, float]


@dataclass(frozen=True)
class Colour:
    """Random brightness, contrast and saturation, and random greyscale, drawn for each sample of a batch.

    The arguments are those of torchvision's ``ColorJitter``, and the probability of its ``RandomGrayscale``: factors
    are uniform in [max(0, 1 - x), 1 + x], or between the two numbers given. All of it is one matrix of 3 x 4 a sample,
    which is applied to the raw values in the launch, and the result is clamped to the images' range: 0..255 of uint8,
    0..1 of floats. It differs from torchvision's in three ways:

    - Contrast is around mid-grey, as in DALI and triton-augment. torchvision's is around the mean of the image's own
      grey, which would take a pass over the image of its own.
    - Brightness comes first, then contrast, then saturation, and values are clamped once, after all of them.
    - There is no hue to draw, because turning it in HSV is no matrix. A rotation around the grey axis is one, as other
      matrices of your own are: :func:`cutmix_cuda.augment` and :meth:`cutmix_cuda.Views.make` take them.

    Grey is 0.299 red + 0.587 green + 0.114 blue (Rec. ITU-R BT.601).

    Args:
        brightness: x, or the least and greatest factor of all channels.
        contrast: x, or the least and greatest factor of the distance from mid-grey.
        saturation: x, or the least and greatest factor of the distance from the pixel's own grey.
        greyscale: the probability that a sample has no saturation at all.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """

    brightness: Factor = 0.0
    contrast: Factor = 0.0
    saturation: Factor = 0.0
    greyscale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _factors(name, getattr(self, name))
        _validation.check_share("greyscale", self.greyscale)

    @property
    def parameters(self) -> dict[str, float]:
        """Those of ``ViewParameters``."""
        parameters = {"grey_below": float(self.greyscale)}
        for name in ("brightness", "contrast", "saturation"):
            parameters[f"{name}_least"], parameters[f"{name}_most"] = _factors(name, getattr(self, name))
        return parameters


def _factors(name: str, factor: Factor) -> tuple[float, float]:
    if isinstance(factor, Sequence):
        least, most = check_two_numbers(name, factor)
    else:
        reach = _validation.check_number(name, factor)
        least, most = max(0.0, 1.0 - reach), 1.0 + reach
    if not 0.0 <= least <= most < math.inf:
        raise ValueError(
            f"{name} must be a finite number that is not negative, or two of them, least <= most, got {factor!r}"
        )
    return least, most
