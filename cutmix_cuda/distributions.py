"""Distributions of lambda, the fraction of its own pixels that a sample keeps.

Every backend draws lambda by the inverse of its distribution function, from a table of 4097 float32 knots,
Q(k / 4096), computed once in float64 on the host, and linear between them. The distribution function of what is drawn
is off by less than 1/4096 from that of the distribution rounded to float32. By that rounding everything above
1 - 2^-25 becomes 1, with which a sample stays as it is: with Beta(alpha, alpha) 1.6 % of the draws at alpha = 0.2, 9 %
at 0.1, 21 % at 0.05 and 42 % at 0.01. Any one-dimensional distribution costs the kernels the same.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._constants import OfGraphs, built_once, name_in_graphs
from ._ops import KINDS, QUANTILE_INTERVALS, PatchMethod
from ._validation import check_positive, check_share
from .reference import mixes_target


class Distribution:
    """A distribution of lambda on [0, 1]. A subclass is a frozen dataclass with the inverse of its CDF.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Triangular(distributions.Distribution):  # its density falls from 0 to 1
    ...     def inverse_cdf(self, probability):
    ...         return 1 - (1 - probability) ** 0.5
    >>> mixed, _ = cutmix(images, alpha=Triangular())
    """

    def inverse_cdf(self, probability: np.ndarray) -> np.ndarray:
        """The quantiles at given probabilities.

        Args:
            probability: float64 (n,) in [0, 1], rising from 0 to 1.

        Returns:
            An array of the same shape, in [0, 1], that nowhere decreases.

        Raises:
            ValueError: where a table is made of it, the first time that it is drawn from, if it is something else.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Beta(Distribution):
    """Beta(a, b); Beta(1, 1) is uniform. CutMix (Yun et al., ICCV 2019) draws lambda from Beta(alpha, alpha).

    >>> mixed, _ = cutmix(images, alpha=distributions.Beta(2.0, 5.0))

    Args:
        a: positive and finite.
        b: positive and finite.

    Raises:
        TypeError, ValueError: an argument is wrong.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        check_positive("a", self.a)
        check_positive("b", self.b)

    def inverse_cdf(self, probability: np.ndarray) -> np.ndarray:
        import scipy.special  # when it is needed, because it takes a tenth of a second

        return scipy.special.betaincinv(float(self.a), float(self.b), probability)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [lo, hi], with 0 <= lo <= hi <= 1.

    >>> mixed, _ = cutmix(images, alpha=distributions.Uniform(0.3, 0.7))

    Raises:
        TypeError, ValueError: an argument is wrong.
    """

    lo: float = 0.0
    hi: float = 1.0

    def __post_init__(self) -> None:
        check_share("lo", self.lo)
        check_share("hi", self.hi)
        if self.lo > self.hi:
            raise ValueError(f"lo must not be greater than hi, got lo={self.lo} and hi={self.hi}")

    def inverse_cdf(self, probability: np.ndarray) -> np.ndarray:
        return self.lo + (self.hi - self.lo) * probability


@dataclass(frozen=True)
class Constant(Distribution):
    """Always x, in [0, 1].

    >>> mixed, _ = cutmix(images, alpha=distributions.Constant(0.6))

    Raises:
        TypeError, ValueError: x is wrong.
    """

    x: float

    def __post_init__(self) -> None:
        check_share("x", self.x)

    def inverse_cdf(self, probability: np.ndarray) -> np.ndarray:
        return np.full_like(probability, self.x)


def check_alpha(name: str, alpha: float | Distribution) -> float | Distribution:
    """A distribution itself, or a number, which stands for Beta(alpha, alpha).

    Raises TypeError for anything else and ValueError for a number that is not positive and finite.
    """
    if not isinstance(alpha, Distribution):
        return check_positive(name, alpha)
    if type(alpha).__hash__ is None:
        raise TypeError(f"{name} must be hashable, to find its table again: a frozen dataclass, got {alpha!r}")
    return alpha


def as_distribution(alpha: float | Distribution) -> Distribution:
    """Beta(alpha, alpha) for a number; a distribution itself. Raises as :func:`check_alpha`."""
    alpha = check_alpha("alpha", alpha)
    return alpha if isinstance(alpha, Distribution) else Beta(alpha, alpha)


def constant(number: float) -> float:
    """A number that is a symbol in a compiled graph of dynamic sizes, made a constant again by its digits."""
    return operator.index(number) if isinstance(number, int) else float.fromhex(number.hex())


def quantiles(
    distributions: Sequence[float | Distribution | None], device: torch.device, methods: int = KINDS
) -> Tensor:
    """The tables that the kinds draw lambda by, float32 (KINDS, 4097), on a device. Built once for each device.

    distributions are those of the kinds in their order: of lambda, where a number alpha stands for Beta(alpha, alpha),
    or, of a kind that does not mix the target, of the fraction of the image that its box covers, where a number is that
    fraction. None, or none at the end, for what is not drawn.

    With methods of PATCH_METHODS they go on behind the kinds: resizemix's of the scale of its box, where a number is
    that scale, and ricap's of its corner, where a number stands for Beta(number, number).
    """
    if torch.compiler.is_compiling():
        parts = tuple(_parts(each) for each in distributions)
        return getattr(OfGraphs, _name_of_tables(device, methods, *parts))
    return _tables(device, methods, distributions)


_ROUNDING = 1e-9  # of an inverse_cdf's float64, and less than that of the tables' float32


def _parts(drawn: Any) -> Any:
    """A distribution as its class and the arguments of its constructor, which a graph can hold as constants."""
    if isinstance(drawn, Distribution) and is_dataclass(drawn):
        arguments = [(field.name, _parts(getattr(drawn, field.name))) for field in fields(drawn) if field.init]
        return type(drawn), tuple(arguments)
    return constant(drawn) if isinstance(drawn, (int, float)) and not isinstance(drawn, bool) else drawn


def _made_of(parts: Any) -> Any:
    """The inverse of _parts."""
    if isinstance(parts, tuple) and len(parts) == 2 and isinstance(parts[0], type):
        kind, arguments = parts
        return kind(**{name: _made_of(value) for name, value in arguments})
    return parts


def knots_of(distribution: Distribution) -> np.ndarray:
    """The quantiles Q(k / 4096), k = 0..4096, float64 in [0, 1]. Raises ValueError unless inverse_cdf is one."""
    probability = np.arange(QUANTILE_INTERVALS + 1, dtype=np.float64) / QUANTILE_INTERVALS
    name = f"inverse_cdf of {distribution!r}"
    knots = np.asarray(distribution.inverse_cdf(probability), dtype=np.float64)
    if knots.shape != probability.shape:
        raise ValueError(
            f"{name} must return an array of the shape of its argument, {probability.shape}, got {knots.shape}"
        )
    for bad, must in (
        (~np.isfinite(knots), "be finite"),
        ((knots < -_ROUNDING) | (knots > 1 + _ROUNDING), "stay in [0, 1]"),
        (np.diff(knots, prepend=knots[0]) < -_ROUNDING, "not decrease"),
    ):
        if bad.any():
            at = int(bad.argmax())
            raise ValueError(f"{name} must {must}, got {knots[at]} at probability {probability[at]}")
    return np.clip(knots, 0.0, 1.0)


def _knots_of_method(method: int, drawn: float | Distribution | None) -> np.ndarray:
    if drawn is None:
        return np.ones(QUANTILE_INTERVALS + 1)
    if mixes_target(method) or method == PatchMethod.ricap:
        return knots_of(as_distribution(drawn))
    knots = knots_of(drawn if isinstance(drawn, Distribution) else Constant(drawn))
    return knots if method == PatchMethod.resizemix else 1.0 - knots[::-1]  # lambda is what is left of the image


def _new_tables(device: torch.device, methods: int, distributions: Sequence[float | Distribution | None]) -> Tensor:
    drawn = (*distributions, *[None] * (methods - len(distributions)))
    knots = [_knots_of_method(method, each) for method, each in enumerate(drawn, start=1)]
    return torch.from_numpy(np.stack(knots).astype(np.float32)).to(device)


def _tables(device: torch.device, methods: int, distributions: Sequence[float | Distribution | None]) -> Tensor:
    return built_once(("quantiles", device, methods, *distributions), _new_tables, device, methods, distributions)


def _name_of_tables(device: torch.device, methods: int, *parts: Any) -> str:
    return name_in_graphs(_tables(device, methods, [_made_of(each) for each in parts]))


_name_of_tables._dynamo_marked_constant = True  # type: ignore[attr-defined]
