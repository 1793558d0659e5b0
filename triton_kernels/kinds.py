"""What a kind needs, and what it makes of pixels. Twins of functions in ``csrc/mix_math.h``, with the same names."""

from __future__ import annotations

import triton
import triton.language as tl

from .._ops import KINDS, Kind
from ..reference import has_box as host_has_box
from ..reference import has_partner as host_has_partner
from ..reference import reads_own as host_reads_own
from .values import element_bits, element_value, mixed_value

KEEP = tl.constexpr(int(Kind.keep))
CUTMIX = tl.constexpr(int(Kind.cutmix))
MIXUP = tl.constexpr(int(Kind.mixup))
CUTOUT = tl.constexpr(int(Kind.cutout))
LAST_KIND = tl.constexpr(KINDS)

# Whether any kind that reads its own changes a box alone, or takes nothing from a partner. No kernel has code for it as
# long as there is none.
COMPUTES_IN_BOX = tl.constexpr(any(host_reads_own(kind) and host_has_box(kind) for kind in Kind))
COMPUTES_ALONE = tl.constexpr(any(host_reads_own(kind) and not host_has_partner(kind) for kind in Kind))


@triton.jit
def is_kind(kind):
    """Whether there is such a kind. Mirrors mix_math.h::is_kind."""
    return (kind >= KEEP) & (kind <= LAST_KIND)


@triton.jit
def has_partner(kind):
    """Whether pixels of the partner come in. Mirrors mix_math.h::has_partner."""
    return (kind == CUTMIX) | (kind == MIXUP)


@triton.jit
def has_box(kind):
    """Whether only a box of the image changes. Mirrors mix_math.h::has_box."""
    return (kind == CUTMIX) | (kind == CUTOUT)


@triton.jit
def reads_own(kind):
    """Whether changed pixels follow from the sample's own. Mirrors mix_math.h::reads_own."""
    return kind == MIXUP


@triton.jit
def blends(kind):
    """Whether pixels are computed with, and so of a dtype that allows it. Mirrors mix_math.h::blends."""
    return kind == MIXUP


@triton.jit
def mixes_target(kind):
    """Whether the partner's target comes in. Mirrors mix_math.h::mixes_target."""
    return (kind == CUTMIX) | (kind == MIXUP)


@triton.jit
def pastes(kind):
    """Whether changed pixels are the partner's as they are. Mirrors mix_math.h::pastes."""
    return has_partner(kind) & ~reads_own(kind)


@triton.jit
def fills(kind):
    """Whether they are a value that is given. Mirrors mix_math.h::fills."""
    return kind == CUTOUT


@triton.jit
def computed(kind, lam, own, partner, ELEMENT: tl.constexpr):
    """Changed elements, as unsigned integers, of a kind that reads its own. Mirrors mix_math.h::computed."""
    own, partner = element_value(own, ELEMENT), element_value(partner, ELEMENT)
    return element_bits(mixed_value(lam, own, partner), ELEMENT)  # mixup, the only one


@triton.jit
def in_pairs(words):
    """Words of 32 bits as words of 64, half as many."""
    low, high = tl.split(words.reshape(words.shape[0], words.shape[1] // 2, 2))
    return (high.to(tl.uint64) << 32) | low


@triton.jit
def computed_words(kind, lam, own, partner, ELEMENT: tl.constexpr):
    """Words of computed elements, of which a word holds several, or half of one."""
    WORD: tl.constexpr = own.dtype
    WORD_BITS: tl.constexpr = WORD.primitive_bitwidth
    BITS: tl.constexpr = ELEMENT.primitive_bitwidth
    if BITS > WORD_BITS:
        new = computed(kind, lam, in_pairs(own), in_pairs(partner), ELEMENT)
        return tl.join(new.to(WORD), (new >> WORD_BITS).to(WORD)).reshape(own.shape)
    elif BITS == WORD_BITS:
        return computed(kind, lam, own, partner, ELEMENT)
    else:
        UNIT: tl.constexpr = tl.uint8 if BITS == 8 else tl.uint16
        words = own ^ own
        for part in tl.static_range(WORD_BITS // BITS):
            new = computed(kind, lam, (own >> (BITS * part)).to(UNIT), (partner >> (BITS * part)).to(UNIT), ELEMENT)
            words |= new.to(WORD) << (BITS * part)
        return words


@triton.jit
def changed(kind, lam, own, partner, fill, ELEMENT: tl.constexpr):
    """What the words of a sample become where it is changed. Without fill there is no kind but cutmix."""
    words = partner
    if fill is not None:
        words = tl.where(fills(kind), fill, words)
    if ELEMENT is not None:  # noqa: SIM102 - known when compiling, unlike the kind
        if reads_own(kind):
            words = computed_words(kind, lam, own, partner, ELEMENT)
    return words
