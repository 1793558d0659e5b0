"""Values by type: how pixels are read, blended and rounded. Twins of functions in ``csrc/values.h``."""

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
    """lam * own + (1 - lam) * partner, in the type of own and partner. Mirrors values.h::mixed_value."""
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


@triton.jit
def blended(lam, own, partner, ELEMENT: tl.constexpr):
    """Blended elements, as unsigned integers. Mirrors values.h::blended."""
    return element_bits(mixed_value(lam, element_value(own, ELEMENT), element_value(partner, ELEMENT)), ELEMENT)


@triton.jit
def in_pairs(words):
    """Words of 32 bits as words of 64, half as many."""
    low, high = tl.split(words.reshape(words.shape[0], words.shape[1] // 2, 2))
    return (high.to(tl.uint64) << 32) | low


@triton.jit
def blended_words(lam, own, partner, ELEMENT: tl.constexpr):
    """Words of blended elements, of which a word holds several, or half of one."""
    WORD: tl.constexpr = own.dtype
    WORD_BITS: tl.constexpr = WORD.primitive_bitwidth
    BITS: tl.constexpr = ELEMENT.primitive_bitwidth
    if BITS > WORD_BITS:
        mixed = blended(lam, in_pairs(own), in_pairs(partner), ELEMENT)
        return tl.join(mixed.to(WORD), (mixed >> WORD_BITS).to(WORD)).reshape(own.shape)
    elif BITS == WORD_BITS:
        return blended(lam, own, partner, ELEMENT)
    else:
        UNIT: tl.constexpr = tl.uint8 if BITS == 8 else tl.uint16
        words = own ^ own
        for part in tl.static_range(WORD_BITS // BITS):
            mixed = blended(lam, (own >> (BITS * part)).to(UNIT), (partner >> (BITS * part)).to(UNIT), ELEMENT)
            words |= mixed.to(WORD) << (BITS * part)
        return words
