"""Values by type: how pixels are read, mixed and rounded. Twins of functions in ``csrc/values.h``."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
TWO_POW_23 = tl.constexpr(2.0**23)


@triton.jit
def float_to_bfloat16(value):
    """The bits, rounded to nearest even. Mirrors values.h::float_to_bfloat16.

    A GPU has an instruction for it, with other bits of a NaN; Triton's interpreter truncates.
    """
    if not INTERPRETED:
        return value.to(tl.float32).to(tl.bfloat16).to(tl.uint16, bitcast=True)
    bits = value.to(tl.uint32, bitcast=True)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return tl.where(value == value, rounded, 0x7FC0).to(tl.uint16)


@triton.jit
def mixed_value(lam, own, partner):
    """lam * own + (1 - lam) * partner, in the type of own and partner. Mirrors mix_math.h::mixed_value."""
    weight = lam.to(own.dtype)
    return weight * own + (1.0 - weight) * partner


@triton.jit
def bfloat16_to_float(bits):
    """The value, which of a subnormal Triton's interpreter gets wrong. Mirrors values.h::bfloat16_to_float."""
    return (bits.to(tl.uint32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def element_value(bits, ELEMENT: tl.constexpr):
    """The value of an element as it is blended. Mirrors value() of the elements of values.h."""
    if ELEMENT.is_uint8():
        return bits.to(tl.float32)
    elif ELEMENT.is_fp16():
        return bits.to(tl.float16, bitcast=True).to(tl.float32)
    elif ELEMENT.is_bf16():
        return bfloat16_to_float(bits)
    else:
        return bits.to(ELEMENT, bitcast=True)


@triton.jit
def element_bits(value, ELEMENT: tl.constexpr):
    """The bits of a blended element, rounded once, to nearest even. Mirrors of() of the elements of values.h."""
    if ELEMENT.is_uint8():
        # Of a sum with 2^23 the last bit of 24 is worth 1.
        return (value + TWO_POW_23).to(tl.uint32, bitcast=True).to(tl.uint8)
    elif ELEMENT.is_fp16():
        return value.to(tl.float16).to(tl.uint16, bitcast=True)
    elif ELEMENT.is_bf16():
        return float_to_bfloat16(value)
    elif ELEMENT.is_fp32():
        return value.to(tl.uint32, bitcast=True)
    else:
        return value.to(tl.uint64, bitcast=True)
