"""What a kind needs, and what it makes of pixels. Twins of functions in ``csrc/mix_math.h``, with the same names."""

from __future__ import annotations

import triton
import triton.language as tl

from .._ops import KINDS, Kind
from .values import blended_words

KEEP = tl.constexpr(int(Kind.keep))
CUTMIX = tl.constexpr(int(Kind.cutmix))
MIXUP = tl.constexpr(int(Kind.mixup))
CUTOUT = tl.constexpr(int(Kind.cutout))
LAST_KIND = tl.constexpr(KINDS)


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
def changed(kind, lam, own, partner, fill, ELEMENT: tl.constexpr):
    """What the words of a sample become where it is changed. Without fill there is no kind but cutmix."""
    words = partner
    if fill is not None:
        words = tl.where(kind == CUTOUT, fill, words)
    if ELEMENT is not None:  # noqa: SIM102 - known when compiling, unlike the kind
        if kind == MIXUP:
            words = blended_words(lam, own, partner, ELEMENT)
    return words
