"""PTX types as numpy arrays, and the roundings that IEEE 754 fixes.

A register holds bits: an unsigned array (bool for a predicate) with one element per thread, or a single element that
every thread shares. A `Type` reads those bits as numbers and writes numbers back as bits. float16 and bfloat16 are
computed in float64, where their sums and products are exact or carry enough digits to be rounded once more.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np

Dtypes = dict[int, np.dtype[Any]]
UNSIGNED: Dtypes = {1: np.dtype(bool), 8: np.dtype("u1"), 16: np.dtype("u2"), 32: np.dtype("u4"), 64: np.dtype("u8")}
SIGNED: Dtypes = {8: np.dtype("i1"), 16: np.dtype("i2"), 32: np.dtype("i4"), 64: np.dtype("i8")}
# What the hardware returns for every NaN that an instruction makes. The payload of a float64 NaN is not modelled.
CANONICAL_NAN = {"f16": 0x7FFF, "bf16": 0x7FFF, "f32": 0x7FFFFFFF}


class Type:
    """A PTX type by name: `pred`, `b32`, `u8`, `s64`, `f16`, `bf16`, `f32x2`, ..."""

    def __init__(self, name: str):
        match = re.fullmatch(r"(pred)|(?:(bf|[busf])(8|16|32|64))(x2)?", name)
        assert match is not None, name
        self.name = name
        self.kind = match[1] or match[2]
        self.packed = bool(match[4])
        self.lane_bits = 1 if match[1] else int(match[3])
        self.bits = self.lane_bits * (2 if self.packed else 1)
        self.lane_name = name.removesuffix("x2")
        self.is_float = self.kind in ("f", "bf")

    def decode(self, bits: np.ndarray) -> np.ndarray:
        """The numbers that the bits stand for; packed types gain a last axis of two."""
        if self.packed:
            bits = np.ascontiguousarray(bits).view(UNSIGNED[self.lane_bits]).reshape(-1, 2)
        if self.kind == "s":
            return bits.view(SIGNED[self.bits])
        if self.kind == "bf":
            return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
        if self.kind == "f":
            numbers = bits.view(f"f{self.lane_bits // 8}")
            return numbers.astype(np.float64) if self.lane_bits == 16 else numbers
        return bits

    def encode(self, numbers: np.ndarray) -> np.ndarray:
        """The bits of the numbers: integers wrap, floats must already be representable or are float64 and rounded."""
        if not self.is_float:
            dtype = UNSIGNED[self.bits]
            if numbers.dtype.kind == "i" and numbers.dtype.itemsize == dtype.itemsize:
                return numbers.view(dtype)
            return numbers.astype(dtype, copy=False)
        if self.lane_name == "f64":
            return numbers.view(np.uint64)
        if self.lane_name == "f32":
            bits = numbers.astype(np.float32, copy=False).view(np.uint32)
            nan = numbers != numbers
            if nan.any():
                bits = np.where(nan, np.uint32(CANONICAL_NAN["f32"]), bits)
        else:
            bits = round_float(numbers, self.lane_name)
        return np.ascontiguousarray(bits).view(UNSIGNED[self.bits]).reshape(-1) if self.packed else bits


def trunc_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer quotient truncated towards zero; the divisor is not zero."""
    if a.dtype.kind == "u":
        return a // b
    unsigned = UNSIGNED[8 * a.dtype.itemsize]
    quotient = np.abs(a).view(unsigned) // np.abs(b).view(unsigned)
    return np.where((a < 0) != (b < 0), np.zeros_like(quotient) - quotient, quotient).view(a.dtype)


def multiply_high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Upper half of the double-width product."""
    bits = 8 * a.dtype.itemsize
    if bits < 64:
        wide = np.dtype(f"{a.dtype.kind}{a.dtype.itemsize * 2}")
        return (a.astype(wide) * b.astype(wide) >> wide.type(bits)).astype(a.dtype)
    ua, ub = a.view(np.uint64), b.view(np.uint64)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1, b0, b1 = ua & low, ua >> half, ub & low, ub >> half
    middle = a1 * b0 + (a0 * b0 >> half)
    high = a1 * b1 + (middle >> half) + ((a0 * b1 + (middle & low)) >> half)
    if a.dtype.kind == "i":
        high = high - np.where(a < 0, ub, np.uint64(0)) - np.where(b < 0, ua, np.uint64(0))
    return high.view(a.dtype)


def minimum(a: np.ndarray, b: np.ndarray, nan: bool = False) -> np.ndarray:
    """PTX `min`: -0 is below +0; a NaN loses against a number, or wins with `.NaN`."""
    if a.dtype.kind != "f":
        return np.minimum(a, b)
    smaller = np.minimum(a, b) if nan else np.fmin(a, b)
    return np.where(a == b, np.where(np.signbit(a), a, b), smaller)


def maximum(a: np.ndarray, b: np.ndarray, nan: bool = False) -> np.ndarray:
    """PTX `max`, as `minimum`."""
    if a.dtype.kind != "f":
        return np.maximum(a, b)
    larger = np.maximum(a, b) if nan else np.fmax(a, b)
    return np.where(a == b, np.where(np.signbit(a), b, a), larger)


def _odd_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b in float64, rounded to odd: an inexact sum gets an odd last digit, so that rounding it once more to at
    most 51 digits gives what rounding the exact sum would have given (Boldo and Melquiond, 2008)."""
    total = a + b
    shadow = total - a
    error = (a - (total - shadow)) + (b - shadow)  # exact (Knuth's TwoSum) while nothing overflows
    bits = total.view(np.int64)
    adjust = (error != 0) & np.isfinite(total) & (bits & 1 == 0)
    step = np.where((error > 0) == (total > 0), 1, -1)
    return np.where(adjust, bits + step, bits).view(np.float64)


def fused_multiply_add(kind: Type, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c rounded once, of numbers that `kind` decoded and will encode.

    float32: the product of two 24-digit numbers has at most 48 digits and an exponent in [-298, 256], so it is exact
    in float64; the sum is rounded to odd, and the rounding to 24 digits is then the only one that counts. The halves
    likewise. float64: by exact rationals, one element at a time.
    """
    if kind.lane_name != "f64":
        return _odd_sum(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))

    def exact(x: float, y: float, z: float) -> float:
        if not (math.isfinite(x) and math.isfinite(y)):
            return x * y + z
        if not math.isfinite(z):
            return z
        value = Fraction(x) * Fraction(y) + Fraction(z)
        if value == 0:
            return x * y + z if z == 0 else 0.0  # the sign of a zero that no rounding made
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf

    a, b, c = np.broadcast_arrays(a, b, c)
    return np.array([exact(x, y, z) for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)], np.float64)


def round_float(numbers: np.ndarray, name: str, mode: str = "rn") -> np.ndarray:
    """Bits of the float64 (or float32) numbers rounded once to f16, bf16 or f32: to nearest even, or directed by
    `mode` rz (zero), rm (down), rp (up)."""
    exact = numbers.astype(np.float64)
    near = exact.astype(np.float32)
    if name == "f32":
        bits = near.view(np.uint32)
    else:
        # Rounded to odd first: float32 has more than twice the digits of either half, so one rounding counts.
        back = near.astype(np.float64)
        odd = near.view(np.uint32) - (np.abs(back) > np.abs(exact)) | (back != exact)
        if name == "f16":
            bits = odd.view(np.float32).astype(np.float16).view(np.uint16)
        else:
            half = np.uint32(0x7FFF) + (odd >> np.uint32(16) & np.uint32(1))
            bits = (odd + half >> np.uint32(16)).astype(np.uint16)
    if mode != "rn":
        bits = _directed(bits, Type(name), exact, mode)
    return np.where(np.isnan(exact), bits.dtype.type(CANONICAL_NAN[name]), bits)


def _directed(bits: np.ndarray, kind: Type, exact: np.ndarray, mode: str) -> np.ndarray:
    """Moves values rounded to nearest by the one step that the direction asks for."""
    value = kind.decode(bits).astype(np.float64)
    one = bits.dtype.type(1)
    sign = bits.dtype.type(1 << (kind.bits - 1))
    if mode == "rz":
        return np.where(np.abs(value) > np.abs(exact), bits - one, bits)
    wrong = value > exact if mode == "rm" else value < exact
    away = (bits & sign != 0) == (mode == "rm")  # the step grows the magnitude; zeros have the sign of the number
    stepped = np.where(away, bits + one, bits - one)
    return np.where(wrong, stepped, bits)


INTEGER_ROUNDING = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def float_to_integer(numbers: np.ndarray, source: Type, target: Type, mode: str) -> np.ndarray:
    """PTX `cvt` from float to integer: rounded, then saturated; NaN gives 0, or the highest bit alone where a 64-bit
    type is on either side."""
    whole = INTEGER_ROUNDING[mode](numbers.astype(np.float64))
    dtype = (SIGNED if target.kind == "s" else UNSIGNED)[target.bits]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    above = whole >= float(high)  # float(high) is high or, at 64 bits, high + 1
    below = whole < low
    nan = np.isnan(whole)
    result = np.where(above | below | nan, 0, whole).astype(dtype)
    result = np.where(above, dtype.type(high), np.where(below, dtype.type(low), result))
    if 64 in (source.bits, target.bits):
        marker = np.array([1 << (target.bits - 1)], UNSIGNED[target.bits]).view(dtype)
        return np.where(nan, marker, result)
    return result
