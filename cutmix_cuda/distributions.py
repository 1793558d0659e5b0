"""Distributions of lambda, the share of its own pixels that a sample keeps.

Every backend draws lambda by the inverse of its distribution function, from one table of 4097 float32 knots,
Q(k / 4096), computed once in float64 on the host. The distribution function is exact at every knot and off by less than
1/4096 between them, up to the rounding of lambda to float32 (at alpha = 0.01 most draws round to 0 or 1). Any
one-dimensional law costs the kernels the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
import torch
from torch import Tensor

from ._ops import QUANTILE_INTERVALS
from ._validation import check_positive, check_share


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


def check_alpha(alpha: float | Distribution) -> float | Distribution:
    """A distribution itself, or a number, which stands for Beta(alpha, alpha).

    Raises TypeError for anything else and ValueError for a number that is not positive and finite.
    """
    return alpha if isinstance(alpha, Distribution) else check_positive("alpha", alpha)


def as_distribution(alpha: float | Distribution) -> Distribution:
    """Beta(alpha, alpha) for a number; a distribution itself. Raises as :func:`check_alpha`."""
    alpha = check_alpha(alpha)
    return alpha if isinstance(alpha, Distribution) else Beta(alpha, alpha)


_tables: dict[tuple[float | Distribution, torch.device], Tensor] = {}


def quantiles(alpha: float | Distribution, device: torch.device) -> Tensor:
    """The table of as_distribution(alpha), float32 (4097,), on a device. Built once for each pair of them."""
    if torch.compiler.is_compiling() and isinstance(alpha, float):
        alpha = float.fromhex(alpha.hex())  # a symbol, in a graph of dynamic sizes: its digits make it a constant again
    return _table(alpha, device)


def _table(alpha: float | Distribution, device: torch.device) -> Tensor:
    table = _tables.get((alpha, device))
    if table is None:
        probability = np.arange(QUANTILE_INTERVALS + 1, dtype=np.float64) / QUANTILE_INTERVALS
        distribution = as_distribution(alpha)
        knots = distribution.inverse_cdf(probability)
        if not np.isfinite(knots).all():
            raise ValueError(
                f"alpha must have finite quantiles, and inverse_cdf of {distribution!r} gives NaN or infinity"
            )
        knots = np.clip(knots, 0.0, 1.0).astype(np.float32)
        table = torch.from_numpy(knots).to(device)
        _tables[alpha, device] = table
    return table


# In a compiled graph the table is a constant, so alpha has to be one too: a distribution made in the graph is not. This
# is torch.compiler.assume_constant_result without its import of torch._dynamo, which would double that of torch.
_table._dynamo_marked_constant = True  # type: ignore[attr-defined]
