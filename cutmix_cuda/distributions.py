"""Distributions of lambda, the share of its own pixels that a sample keeps.

Every backend draws lambda by the inverse of its distribution function, from a table of 4097 float32 knots,
Q(k / 4096), computed once in float64 on the host. The distribution function is exact at every knot and off by less than
1/4096 between them, up to the rounding of lambda to float32 (at alpha = 0.01 most draws round to 0 or 1). Any
one-dimensional law costs the kernels the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.special
import torch
from torch import Tensor

from ._ops import KINDS, QUANTILE_INTERVALS
from ._validation import check_positive, check_share
from .reference import mixes_target


class Distribution:
    """A law of lambda on [0, 1]. A subclass is a frozen dataclass that gives its inverse distribution function."""

    def inverse_cdf(self, probability: np.ndarray) -> np.ndarray:
        """Q at each probability in [0, 1], float64 in [0, 1]."""
        raise NotImplementedError


@dataclass(frozen=True)
class Beta(Distribution):
    """Beta(a, b); Beta(1, 1) is uniform. CutMix (Yun et al., ICCV 2019) draws lambda from Beta(alpha, alpha).

    Args:
        a: positive and finite.
        b: positive and finite.
    """

    a: float
    b: float

    def __post_init__(self) -> None:
        check_positive("a", self.a)
        check_positive("b", self.b)

    def inverse_cdf(self, probability: np.ndarray) -> np.ndarray:
        return scipy.special.betaincinv(float(self.a), float(self.b), probability)


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform on [lo, hi], with 0 <= lo <= hi <= 1."""

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
    """Always x, in [0, 1]."""

    x: float

    def __post_init__(self) -> None:
        check_share("x", self.x)

    def inverse_cdf(self, probability: np.ndarray) -> np.ndarray:
        return np.full_like(probability, self.x)


def check_alpha(name: str, alpha: float | Distribution) -> float | Distribution:
    """A distribution itself, or a number, which stands for Beta(alpha, alpha).

    Raises TypeError for anything else and ValueError for a number that is not positive and finite.
    """
    return alpha if isinstance(alpha, Distribution) else check_positive(name, alpha)


def as_distribution(alpha: float | Distribution) -> Distribution:
    """Beta(alpha, alpha) for a number; a distribution itself. Raises as :func:`check_alpha`."""
    alpha = check_alpha("alpha", alpha)
    return alpha if isinstance(alpha, Distribution) else Beta(alpha, alpha)


def constant(number: float) -> float:
    """A number that is a symbol in a compiled graph of dynamic sizes, made a constant again by its digits."""
    return float.fromhex(number.hex())


def quantiles(distributions: Sequence[float | Distribution | None], device: torch.device) -> Tensor:
    """The tables that the kinds draw lambda by, float32 (KINDS, 4097), on a device. Built once for each device.

    distributions are those of the kinds in their order: of lambda, where a number alpha stands for Beta(alpha, alpha),
    or, of a kind that does not mix the target, of the fraction of the image that its box covers, where a number is that
    fraction. None, or none at the end, for what is not drawn.
    """
    if torch.compiler.is_compiling():
        distributions = [constant(each) if isinstance(each, float) else each for each in distributions]
    return _tables(device, *distributions)


def knots_of(distribution: Distribution) -> np.ndarray:
    """The quantiles Q(k / 4096), k = 0..4096, float64 in [0, 1]."""
    probability = np.arange(QUANTILE_INTERVALS + 1, dtype=np.float64) / QUANTILE_INTERVALS
    knots = distribution.inverse_cdf(probability)
    if not np.isfinite(knots).all():
        raise ValueError(f"alpha must have finite quantiles, and inverse_cdf of {distribution!r} gives NaN or infinity")
    return np.clip(knots, 0.0, 1.0)


def _knots_of_kind(kind: int, drawn: float | Distribution | None) -> np.ndarray:
    if drawn is None:
        return np.ones(QUANTILE_INTERVALS + 1)
    if mixes_target(kind):
        return knots_of(as_distribution(drawn))
    area = drawn if isinstance(drawn, Distribution) else Constant(drawn)
    return 1.0 - knots_of(area)[::-1]  # lambda is what is left of the image


_built: dict[tuple[object, ...], Tensor] = {}


def _tables(*key: Any) -> Tensor:
    """Of (device, *distributions): the arguments are the key that they are found by again."""
    # Where a mode (FakeTensorMode, torch.export) or a transform makes tensors of its own, they are for it alone.
    traced = torch._C._len_torch_dispatch_stack() > 0
    tables = None if traced else _built.get(key)
    if tables is None:
        device, *distributions = key
        drawn = distributions + [None] * (KINDS - len(distributions))
        knots = [_knots_of_kind(kind, each) for kind, each in enumerate(drawn, start=1)]
        tables = torch.from_numpy(np.stack(knots).astype(np.float32)).to(device)
        if not traced and not torch._is_functional_tensor(tables):
            _built[key] = tables
    return tables


# In a compiled graph the tables are a constant, so the distributions have to be too: one made in the graph is not.
# This is torch.compiler.assume_constant_result without its import of torch._dynamo, which would double that of torch.
_tables._dynamo_marked_constant = True  # type: ignore[attr-defined]
