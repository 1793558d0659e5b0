"""Random erasing: how the boxes are drawn, and what they are filled with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from . import _validation
from ._literals import EraseOrderName, EraseValueName
from ._ops import EraseOrder, EraseValue, Erasing

MAX_BOXES = 1024  # of a sample. Mirrors views.h::kMaxBoxes


@dataclass(frozen=True)
class Erase:
    """Random erasing of boxes (Zhong et al., AAAI 2020), drawn for each sample of a batch.

    >>> erase = Erase(prob=0.25, scale=(0.02, 0.2), value="pixel")

    A box has an area uniform in scale and an aspect log-uniform in ratio, rounded to whole pixels; it is tried up to
    ten times until it is smaller than the image on both sides, and then placed anywhere in it with the same
    probability. The defaults are those of torchvision's ``RandomErasing``; :meth:`as_in_timm` has timm's.

    Args:
        prob: the probability that a sample is erased.
        scale: the least and greatest area, as fractions of the image.
        ratio: the least and greatest aspect, height / width.
        value: what a box is filled with, in the units of the output (normalised ones where there is a mean): a number,
            one for each channel, "channel" for a random normal number for each box and channel, or "pixel" for one for
            each pixel and channel, which torchvision calls "random".
        count: boxes a sample, or the least and greatest number of them, which then divide the area among them.
        order: "before" mixing, as in DeiT, torchvision, ConvNeXt, Swin and MAE, so that a pasted patch brings the
            erased pixels of its own sample; or "after", as timm's prefetcher does it.
        num_splits: the first of so many equal parts of a batch is never erased, as the clean split of timm's
            ``--resplit``; 0 or 1 for every sample to be erased alike.

    The random normal numbers are sums of four random bytes, of mean 0 and variance 1, at most 3.45, the same bits on
    every backend; their distribution function differs from the normal one by at most 0.0084.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """

    prob: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | Sequence[float] | EraseValueName = 0.0
    count: int | tuple[int, int] = 1
    order: EraseOrderName = "before"
    num_splits: int = 0

    def __post_init__(self) -> None:
        _validation.check_share("prob", self.prob)
        low, high = check_two_numbers("scale", self.scale)
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(f"scale must be two fractions of the image, 0 <= low <= high <= 1, got {self.scale!r}")
        low, high = check_two_numbers("ratio", self.ratio)
        if not 0.0 < low <= high < math.inf:
            raise ValueError(f"ratio must be two positive, finite numbers, low <= high, got {self.ratio!r}")
        least, most = self.counts
        _validation.check_size("count", least, MAX_BOXES)
        _validation.check_size("count", most, MAX_BOXES)
        if least > most:
            raise ValueError(f"count must be the least and greatest number of boxes, in this order, got {self.count!r}")
        _validation.check_choice("order", self.order, EraseOrder)
        _validation.check_size("num_splits", self.num_splits, _validation.MAX_BATCH)
        if not isinstance(self.value, str):
            check_numbers("value", self.value)
        elif self.value not in ("channel", "pixel"):
            raise ValueError(f"value must be a number, one for each channel, 'channel' or 'pixel', got {self.value!r}")

    @classmethod
    def as_in_timm(
        cls,
        prob: float = 0.5,
        *,
        mode: str = "const",
        min_area: float = 0.02,
        max_area: float = 1 / 3,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
        min_count: int = 1,
        max_count: int | None = None,
        num_splits: int = 0,
    ) -> Erase:
        """Erasing with the arguments and defaults of timm's ``RandomErasing``, and as its prefetcher after mixing.

        >>> Erase.as_in_timm(0.25, mode="pixel").order
        'after'

        Args:
            prob: the probability that a sample is erased.
            mode: "const", boxes of 0; "rand", a random normal number for each box and channel; "pixel", one for each
                pixel and channel.
            min_area: the least area, a fraction of the image.
            max_area: the greatest.
            min_aspect: the least aspect, height / width.
            max_aspect: the greatest; None: 1 / min_aspect.
            min_count: the least number of boxes of a sample that is erased.
            max_count: the greatest; None: min_count.
            num_splits: from 2 on, the first of so many equal parts of a batch is not erased.

        Returns:
            An :class:`Erase`.

        Raises:
            TypeError, ValueError: an argument is wrong.
        """
        values: dict[str, float | EraseValueName] = {"const": 0.0, "rand": "channel", "pixel": "pixel"}
        if mode not in values:
            raise ValueError(f"mode must be one of 'const', 'rand', 'pixel', got {mode!r}")
        ratio = min_aspect, max_aspect or 1 / min_aspect
        count = min_count, max_count or min_count
        return cls(prob, (min_area, max_area), ratio, values[mode], count, "after", num_splits)

    @property
    def counts(self) -> tuple[int, int]:
        """The least and greatest number of boxes of a sample that is erased."""
        if isinstance(self.count, Sequence):
            _check_two("count", self.count)
            return self.count[0], self.count[1]
        return self.count, self.count

    def first_erased(self, batch: int) -> int:
        """How many samples of a batch come before those that may be erased."""
        return batch // self.num_splits if self.num_splits > 1 else 0

    @property
    def constants(self) -> tuple[float, ...]:
        """The value, or one for each channel; 0 where it is noise."""
        return (0.0,) if isinstance(self.value, str) else check_numbers("value", self.value)

    @property
    def parameters(self) -> dict[str, float]:
        """Those of ``ViewParameters``."""
        least, most = map(float, self.scale)
        return {
            "erase_below": float(self.prob),
            "min_area": least,
            "max_area": most,
            "max_aspect": float(self.ratio[1]),
        }

    @property
    def choices(self) -> dict[str, int]:
        """Those of ``ViewChoices``."""
        least, most = self.counts
        return {"min_boxes": least, "max_boxes": most}

    @property
    def erasing(self) -> Erasing:
        value = EraseValue[self.value] if isinstance(self.value, str) else EraseValue.constant
        return Erasing(int(value), int(EraseOrder[self.order]))


def _check_two(name: str, values: Sequence) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise TypeError(f"{name} must be two numbers, got {values!r}")


def check_two_numbers(name: str, values: Sequence[float]) -> tuple[float, float]:
    """Two numbers, in any order."""
    _check_two(name, values)
    low, high = (_validation.check_number(name, value) for value in values)
    return low, high


def check_numbers(name: str, values: float | Sequence[float]) -> tuple[float, ...]:
    """One number, or one for each channel, all of them finite."""
    several = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else [values]
    numbers = tuple(_validation.check_number(name, value) for value in several)
    # Compared, because torch.compile traces comparisons of numbers and not math.isfinite.
    if not numbers or not all([-math.inf < number < math.inf for number in numbers]):
        raise ValueError(f"{name} must be a finite number, or one for each channel, got {values!r}")
    return numbers
