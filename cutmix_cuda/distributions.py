"""Distributions of lambda, the share of its own pixels that a sample keeps.

Every backend draws lambda by the inverse of its distribution function, from a table of 4097 float32 knots,
Q(k / 4096), computed once in float64 on the host. The distribution function is exact at every knot and off by less than
1/4096 between them, up to the rounding of lambda to float32 (at alpha = 0.01 most draws round to 0 or 1). Any
one-dimensional law costs the kernels the same.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

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


def check_alpha(name: str, alpha: float | Distribution) -> float | Distribution:
    """A distribution itself, or a number, which stands for Beta(alpha, alpha).

    Raises TypeError for anything else and ValueError for a number that is not positive and finite.
    """
    return alpha if isinstance(alpha, Distribution) else check_positive(name, alpha)


def as_distribution(alpha: float | Distribution) -> Distribution:
    """Beta(alpha, alpha) for a number; a distribution itself. Raises as :func:`check_alpha`."""
    alpha = check_alpha("alpha", alpha)
    return alpha if isinstance(alpha, Distribution) else Beta(alpha, alpha)


class Laws(NamedTuple):
    """What each kind is drawn by; None where it is not drawn."""

    cutmix: float | Distribution | None = None  # of lambda
    mixup: float | Distribution | None = None  # of lambda
    cutout_area: float | Distribution | None = None  # of the box's share of the image, a number being that share


def constant(number: float) -> float:
    """A number that is a symbol in a compiled graph of dynamic sizes, made a constant again by its digits."""
    return operator.index(number) if isinstance(number, int) else float.fromhex(number.hex())


def quantiles(laws: Laws, device: torch.device) -> Tensor:
    """The tables of lambda of cutmix, mixup and cutout, float32 (3, 4097), on a device. Built once for each of them."""
    if torch.compiler.is_compiling():
        parts = _parts(laws.cutmix), _parts(laws.mixup), _parts(laws.cutout_area)
        return getattr(_OfGraphs, _name_of_tables(*parts, device))
    return _tables(laws.cutmix, laws.mixup, laws.cutout_area, device)


def _parts(law: Any) -> Any:
    """A distribution as its class and the arguments of its constructor, which a graph can hold as constants."""
    if isinstance(law, Distribution) and is_dataclass(law):
        arguments = [(field.name, _parts(getattr(law, field.name))) for field in fields(law) if field.init]
        return type(law), tuple(arguments)
    return constant(law) if isinstance(law, (int, float)) and not isinstance(law, bool) else law


def _made_of(parts: Any) -> Any:
    """The inverse of _parts."""
    if isinstance(parts, tuple) and len(parts) == 2 and isinstance(parts[0], type):
        kind, arguments = parts
        return kind(**{name: _made_of(value) for name, value in arguments})
    return parts


def knots_of(distribution: Distribution) -> np.ndarray:
    """The quantiles Q(k / 4096), k = 0..4096, float64 in [0, 1]."""
    probability = np.arange(QUANTILE_INTERVALS + 1, dtype=np.float64) / QUANTILE_INTERVALS
    knots = distribution.inverse_cdf(probability)
    if not np.isfinite(knots).all():
        raise ValueError(f"alpha must have finite quantiles, and inverse_cdf of {distribution!r} gives NaN or infinity")
    return np.clip(knots, 0.0, 1.0)


_built: dict[tuple[object, ...], Tensor] = {}


def _tables(
    cutmix: float | Distribution | None,
    mixup: float | Distribution | None,
    cutout_area: float | Distribution | None,
    device: torch.device,
) -> Tensor:
    key = cutmix, mixup, cutout_area, device
    # Where a mode (FakeTensorMode, torch.export) or a transform makes tensors of its own, they are for it alone.
    traced = torch._C._len_torch_dispatch_stack() > 0
    tables = None if traced else _built.get(key)
    if tables is None:
        never = np.ones(QUANTILE_INTERVALS + 1)
        knots = [never if law is None else knots_of(as_distribution(law)) for law in (cutmix, mixup)]
        if cutout_area is None:
            knots.append(never)
        else:
            area = cutout_area if isinstance(cutout_area, Distribution) else Constant(cutout_area)
            knots.append(1.0 - knots_of(area)[::-1])  # lambda is what is left of the image
        with torch.inference_mode(False):  # a graph may save them for its backward
            tables = torch.from_numpy(np.stack(knots).astype(np.float32)).to(device)
        if not traced and not torch._is_functional_tensor(tables):
            _built[key] = tables
    return tables


class _OfGraphs:
    """The tables of compiled graphs, each under a name, because torch takes two constants of one function for one."""


def _name_of_tables(cutmix: Any, mixup: Any, cutout_area: Any, device: torch.device) -> str:
    tables = _tables(_made_of(cutmix), _made_of(mixup), _made_of(cutout_area), device)
    name = f"tables_{id(tables)}"
    setattr(_OfGraphs, name, tables)
    tables._dynamo_static_input_type = "unguarded"  # type: ignore[attr-defined]  # torch._dynamo.mark_static_address
    return name


# Called while a graph is traced, and a constant in it: torch.compiler.assume_constant_result. It and
# mark_static_address would import torch._dynamo, and so double the import of torch.
_name_of_tables._dynamo_marked_constant = True  # type: ignore[attr-defined]
