"""The value that Cutout fills boxes with: exact, and as the 16 bytes that the ops take."""

from __future__ import annotations

import math
import numbers

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ._ops import NO_FILL
from .distributions import constant


def check_fill(fill: float, name: str = "fill") -> float:
    """A number, or a truth value: an int as it is, because a float holds few of the integers beyond 2^53."""
    if type(fill) in (float, int):
        return fill
    if not isinstance(fill, numbers.Real):
        raise TypeError(f"{name} must be a number, got {fill!r}")
    if isinstance(fill, numbers.Integral):
        return int(fill)
    try:
        return float(fill)
    except OverflowError:  # of a fraction
        raise ValueError(f"{name} must be a value of the images' dtype, got {fill!r}") from None


def _is_value_of(dtype: torch.dtype, fill: float) -> bool:
    """Whether an integer dtype holds the number, or a float dtype one that it rounds to."""
    if dtype.is_floating_point or dtype.is_complex:
        finite = torch.finfo(dtype).min <= fill <= torch.finfo(dtype).max
        return finite or fill != fill or fill in (-math.inf, math.inf)
    limits = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return limits[0] <= fill <= limits[1] and fill == int(fill)


_words: dict[tuple[float, torch.dtype], tuple[int, int]] = {}


def _words_of(fill: float, dtype: torch.dtype, name: str) -> tuple[int, int]:
    words = _words.get((fill, dtype))
    if words is None:
        if not _is_value_of(dtype, fill):
            raise ValueError(f"{name} must be a value of the images' dtype {dtype}, got {fill!r}")
        fraction = dtype.is_floating_point or dtype.is_complex
        with _disable_current_modes():  # FakeTensorMode and torch.export would make it a value that is not known
            number = float(fill) if fraction else int(fill)
            value = torch.tensor(number, dtype=torch.float64 if fraction else dtype, device="cpu").to(dtype)
            low, high = value.repeat(16 // dtype.itemsize).view(torch.int64).tolist()
        _words[fill, dtype] = words = low, high
    return words


_words_of._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch.compiler.assume_constant_result


def fill_words(fill: float, dtype: torch.dtype, name: str = "fill") -> tuple[int, int]:
    """A value of a dtype over and over, as the argument of the ops."""
    if fill == 0:
        return NO_FILL  # bits of 0 in every dtype; float8_e8m0fnu has no zero, and these are the bits of its least
    return _words_of(constant(fill) if torch.compiler.is_compiling() else fill, dtype, name)
