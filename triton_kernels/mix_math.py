"""The maths of mixing in Triton: twins of the functions in ``csrc/mix_math.h``, with the same names and the same bits.

Each takes scalars or blocks of them. A box is a tuple (y0, x0, y1, x1), a row of the plan a tuple
(partner, box, lam, kind). Division and square root are the ``_rn`` ones, for Triton's plain ``/`` is approximate, and
the kernels are compiled without fused multiply-add.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._ops import QUANTILE_INTERVALS, Partner, Placement, Scope
from .kinds import KEEP, blends, has_box, has_partner, is_kind, mixes_target

PER_BATCH = tl.constexpr(0)  # streams
PER_DRAW = tl.constexpr(1)

SCOPE_PAIR = tl.constexpr(int(Scope.pair))
SCOPE_BATCH = tl.constexpr(int(Scope.batch))
PARTNER_FLIP = tl.constexpr(int(Partner.flip))
PARTNER_SHIFT = tl.constexpr(int(Partner.shift))
PARTNER_MIRROR = tl.constexpr(int(Partner.mirror))
PLACEMENT_CLIP = tl.constexpr(int(Placement.clip))
KNOTS = tl.constexpr(QUANTILE_INTERVALS + 1)  # of a table

TWO_POW_MINUS_24 = tl.constexpr(2.0**-24)
TWO_POW_MINUS_20 = tl.constexpr(2.0**-20)


@triton.jit
def mulhi(a, b):
    """The upper word of the product of two words. Mirrors mix_math.h::mulhi."""
    return tl.umulhi(a, b.to(tl.uint32))


@triton.jit
def philox(seed, index, stream, position=0, group=0):
    """Philox4x32-10 at counter (index, position, stream, group), keyed by an int64. Mirrors mix_math.h::philox."""
    return tl.philox(seed, index, position, stream, group)


@triton.jit
def unit_float(word):
    """A word as a float32 in [0, 1), from its upper 24 bits. Mirrors mix_math.h::unit_float."""
    return (word >> 8).to(tl.float32) * TWO_POW_MINUS_24


@triton.jit
def quantile(table, word):
    """The inverse distribution function at a random word, linear between the knots. Mirrors mix_math.h::quantile."""
    knot = (word >> 20).to(tl.int32)
    fraction = (word & 0xFFFFF).to(tl.float32) * TWO_POW_MINUS_20
    lower, upper = tl.load(table + knot), tl.load(table + knot + 1)
    value = lower + fraction * (upper - lower)
    return tl.where(value > 0.0, tl.where(value < 1.0, value, 1.0), 0.0)


@triton.jit
def part_of(share, length):
    """The whole pixels in a share of a length. Mirrors mix_math.h::part_of."""
    all_of_it = length.to(tl.float32)
    part = share * all_of_it
    return tl.where(part < all_of_it, part.to(tl.int32), length)


@triton.jit
def sides_of(lam, scale, height, width):
    """Height and width of a box times a scale, of a span in an image of one row or column.

    Mirrors mix_math.h::sides_of.
    """
    share = 1.0 - lam
    row = height == 1
    column = (width == 1) & (height != 1)
    ratio = scale * tl.where(row | column, share, tl.sqrt_rn(share))
    return tl.where(row, 1, part_of(ratio, height)), tl.where(column, 1, part_of(ratio, width))


@triton.jit
def clipped_box(lam, word_x, word_y, height, width):
    """A box centred anywhere and clipped at the border. Mirrors mix_math.h::clipped_box."""
    half_height, half_width = sides_of(lam, 0.5, height, width)
    x = mulhi(word_x, width).to(tl.int32)
    y = mulhi(word_y, height).to(tl.int32)
    return (
        tl.maximum(y - half_height, 0),
        tl.maximum(x - half_width, 0),
        y + tl.minimum(half_height, height - y),
        x + tl.minimum(half_width, width - x),
    )


@triton.jit
def inside_box(lam, word_x, word_y, height, width, scale=1.0):
    """A box that lies inside the image. Mirrors mix_math.h::inside_box."""
    box_height, box_width = sides_of(lam, scale, height, width)
    x0 = mulhi(word_x, (width - box_width).to(tl.uint32) + 1).to(tl.int32)
    y0 = mulhi(word_y, (height - box_height).to(tl.uint32) + 1).to(tl.int32)
    return y0, x0, y0 + box_height, x0 + box_width


@triton.jit
def share_outside(box, height, width):
    """The share of the image outside the box. Mirrors mix_math.h::share_outside."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return 1.0 - tl.div_rn(area.to(tl.float32), (height * width).to(tl.float32))


@triton.jit
def circle_of(batch):
    """The modulus of maps that reflect. Mirrors mix_math.h::circle_of."""
    return (batch - 1) | 1


@triton.jit
def partner_map(rule, seed, batch):
    """Whether the index is reflected, and the shift. Mirrors mix_math.h::partner_map."""
    reflects = (rule == PARTNER_FLIP) | (rule == PARTNER_MIRROR)
    shift = tl.where((rule == PARTNER_FLIP) & (batch % 2 == 0), 0, batch - 1)
    if (rule == PARTNER_SHIFT) | (rule == PARTNER_MIRROR):
        word = philox(seed, 0, PER_BATCH)[0]
        if rule == PARTNER_SHIFT:
            shift = 1 + mulhi(word, batch - 1).to(tl.int32)
        else:
            shift = mulhi(word, circle_of(batch)).to(tl.int32)
    return reflects, shift


@triton.jit
def partner_of(mapping, index, batch):
    """The partner of an index under a partner map. Mirrors mix_math.h::partner_of."""
    shift, circle = mapping[1], circle_of(batch)
    difference = shift - index
    total = shift + index
    reflected = tl.where(difference >= 0, difference, difference + circle)
    reflected = tl.where((reflected == index) & (circle < batch), circle, reflected)
    # By bits, because // and % round toward zero, which of a number that is never negative is five instructions more.
    reflected = tl.where(index == circle, (shift + (shift & 1) * circle) >> 1, reflected)
    shifted = tl.where(total >= batch, total - batch, total)
    return tl.where(mapping[0], reflected, shifted)


@triton.jit
def draw_index(scope, index, partner):
    """Which draw a sample takes. Mirrors mix_math.h::draw_index."""
    draw = tl.where(scope == SCOPE_PAIR, tl.minimum(index, partner), index)
    return tl.where(scope == SCOPE_BATCH, 0, draw)


@triton.jit
def first_below(bounds, word, ONLY_CUTMIX: tl.constexpr):
    """Which bound, from 1, is the first that a random number is below; 0 where there is none. Mirrors
    mix_math.h::first_below.

    With ONLY_CUTMIX the first bound alone counts.
    """
    number = unit_float(word)
    first = 0
    if not ONLY_CUTMIX:
        for each in tl.static_range(len(bounds) - 1, 0, -1):  # the first bound comes last, and prevails
            first = tl.where(number < bounds[each], each + 1, first)
    return tl.where(number < bounds[0], 1, first)


@triton.jit
def sample_row(draw, seed, index, partner, ONLY_CUTMIX: tl.constexpr):
    """The row of the plan of a sample that has a partner. Mirrors mix_math.h::sample_row.

    draw is (quantiles, bounds, scope, placement, correct_lam, height, width).
    """
    quantiles, bounds, scope, placement, correct_lam, height, width = draw
    word_lam, word_x, word_y, word_kind = philox(seed, draw_index(scope, index, partner), PER_DRAW)
    kind = first_below(bounds, word_kind, ONLY_CUTMIX)
    mixed = ((partner != index) | ~has_partner(kind)) & (height != 0) & (width != 0)
    kind = tl.where(mixed, kind, KEEP)

    lam = quantile(quantiles + tl.maximum(kind - 1, 0) * KNOTS, word_lam)
    if placement == PLACEMENT_CLIP:
        y0, x0, y1, x1 = clipped_box(lam, word_x, word_y, height, width)
    else:
        y0, x0, y1, x1 = inside_box(lam, word_x, word_y, height, width)
    boxed = has_box(kind)
    if correct_lam != 0:
        lam = tl.where(boxed, share_outside((y0, x0, y1, x1), height, width), lam)
    box = (tl.where(boxed, y0, 0), tl.where(boxed, x0, 0), tl.where(boxed, y1, 0), tl.where(boxed, x1, 0))
    return partner, box, tl.where(mixes_target(kind), lam, 1.0), kind


@triton.jit
def valid_row(row, batch, height, width, can_blend):
    """Whether a row may be followed: it leads outside neither batch, image nor [0, 1], and a kind that blends meets
    pixels that can be blended. Mirrors mix_math.h::valid_row."""
    partner, box, lam, kind = row
    y0, x0, y1, x1 = box
    inside = (y0 >= 0) & (y0 <= y1) & (y1 <= height) & (x0 >= 0) & (x0 <= x1) & (x1 <= width)
    inside = inside & (partner >= 0) & (partner < batch) & (lam >= 0.0) & (lam <= 1.0)
    return inside & is_kind(kind) & (~blends(kind) | can_blend)
