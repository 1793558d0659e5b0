"""Several patches a sample in Triton: twins of the functions in ``csrc/patches.h``, with the same names and bits.

A patch is a tuple (partner, box, lam, kind, mask, source), of scalars, or of blocks for several at once. What a
sample's are taken from is a tuple PLAN: (rows, sources, drawn, index, height, width), with the sample's first row and
source, or with what drawn_patches gives.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._ops import RICAP_PATCHES, PatchMethod
from .kinds import CUTMIX, CUTOUT, KEEP, LAST_KIND, blends, has_box, has_partner, is_kind
from .mix_math import (
    KNOTS,
    PER_DRAW,
    PLACEMENT_CLIP,
    clipped_box,
    draw_index,
    first_below,
    inside_box,
    mulhi,
    partner_of,
    philox,
    quantile,
    sample_row,
    share_outside,
)

PER_PATCH_BATCH = tl.constexpr(8)  # streams
PER_PATCH = tl.constexpr(9)
RESIZEMIX = tl.constexpr(int(PatchMethod.resizemix))
RICAP = tl.constexpr(int(PatchMethod.ricap))
CORNERS = tl.constexpr(RICAP_PATCHES)
UNITS = tl.constexpr(2.0**24)  # of a pixel's weight


@triton.jit
def nearest_part_of(share, length):
    """A share of a length in whole pixels, halves up. Mirrors patches.h::nearest_part_of."""
    return tl.minimum((share * length.to(tl.float32) + 0.5).to(tl.int32), length)


@triton.jit
def scaled_box(scale, word_x, word_y, height, width):
    """A box of the image's shape, or a span of an image one pixel high or wide, anywhere inside.

    Mirrors patches.h::scaled_box.
    """
    return inside_box(scale * 0, word_x, word_y, height, width, scale)


@triton.jit
def sample_method(quantiles, bounds, scope, placement, mapping, seed, index, batch, height, width):
    """What the patches of a sample that is drawn have in common: its method; its patch, where it is mixed as one of the
    kinds; and the index of its draw, its mapped partner and the corner of ricap. For sample_patch."""
    mapped = partner_of(mapping, index, batch)
    drawn = draw_index(scope, index, mapped)
    method = first_below(bounds, philox(seed, drawn, PER_DRAW)[3], False)
    alone = (method == RESIZEMIX) & (mapped == index)
    method = tl.where(alone | (height == 0) | (width == 0), KEEP, method)
    draw = (quantiles, bounds[:LAST_KIND], scope, placement, 1, height, width)
    partner, box, lam, kind = sample_row(draw, seed, index, mapped, False)
    everywhere = (kind != KEEP) & ~has_box(kind)
    bottom, right = tl.where(everywhere, height, box[2]), tl.where(everywhere, width, box[3])
    corner_y, corner_x = height * 0, width * 0
    if method == RICAP:
        words = philox(seed, drawn, PER_PATCH)
        corners = quantiles + (RICAP - 1) * KNOTS
        corner_y = nearest_part_of(quantile(corners, words[0]), height)
        corner_x = nearest_part_of(quantile(corners, words[1]), width)
    return method, (partner, (box[0], box[1], bottom, right), lam, kind), (drawn, mapped, corner_y, corner_x)


@triton.jit
def sample_patch(draw, patch):
    """A patch of a sample, or a block of them. Mirrors patches.h::sample_patch.

    draw is (quantiles, holes, placement, *sample_method(...), seed, index, batch, height, width).
    """
    quantiles, holes, placement, method, of_kind, of_sample, seed, index, batch, height, width = draw
    drawn, mapped, corner_y, corner_x = of_sample
    partner, box, lam, kind = of_kind
    each = patch * 0
    partner, lam, kind = each + partner, each + lam, each + kind
    y0, x0, y1, x1 = each + box[0], each + box[1], each + box[2], each + box[3]
    sy0, sx0, sy1, sx1 = y0, x0, y1, x1
    changes = patch == 0
    several_holes = (method == CUTOUT) & (holes > 1)
    if several_holes | (method > LAST_KIND):
        table = quantiles + (method - 1) * KNOTS
        words = philox(seed, drawn, PER_PATCH, 1 + patch)
        size, place_x, place_y = quantile(table, words[0]), words[1], words[2]
        lam, kind = size * 0 + 1.0, each + CUTMIX
        if method == CUTOUT:
            if placement == PLACEMENT_CLIP:
                y0, x0, y1, x1 = clipped_box(size, place_x, place_y, height, width)
            else:
                y0, x0, y1, x1 = inside_box(size, place_x, place_y, height, width)
            sy0, sx0, sy1, sx1 = y0, x0, y1, x1
            kind = each + CUTOUT
            changes = patch < holes
        elif method == RESIZEMIX:
            y0, x0, y1, x1 = scaled_box(size, place_x, place_y, height, width)
            sy0, sx0, sy1, sx1 = each, each, each + height, each + width
        else:
            total = index + mulhi(philox(seed, 0, PER_PATCH_BATCH, patch)[0], batch).to(tl.int32)
            partner = tl.where(total >= batch, total - batch, total)
            lower, right = patch // 2 == 1, patch % 2 == 1
            y0, y1 = tl.where(lower, corner_y, 0), tl.where(lower, height, corner_y)
            x0, x1 = tl.where(right, corner_x, 0), tl.where(right, width, corner_x)
            sy0 = mulhi(place_y, (height - (y1 - y0)).to(tl.uint32) + 1).to(tl.int32)
            sx0 = mulhi(place_x, (width - (x1 - x0)).to(tl.uint32) + 1).to(tl.int32)
            sy1, sx1 = sy0 + (y1 - y0), sx0 + (x1 - x0)
            changes = patch < CORNERS
        if method != CUTOUT:
            lam = share_outside((y0, x0, y1, x1), height, width)
    changes = changes & (method != KEEP)
    lam = tl.where(changes, lam, 1.0)
    box = (tl.where(changes, y0, 0), tl.where(changes, x0, 0), tl.where(changes, y1, 0), tl.where(changes, x1, 0))
    source = (
        tl.where(changes, sy0, 0),
        tl.where(changes, sx0, 0),
        tl.where(changes, sy1, 0),
        tl.where(changes, sx1, 0),
    )
    return tl.where(changes, partner, mapped), box, lam, tl.where(changes, kind, KEEP), each, source


@triton.jit
def drawn_patches(draw, PARTS: tl.constexpr):
    """All patches of a sample, a thread each, by few words: see drawn_patch."""
    partner, box, lam, kind, _, source = sample_patch(draw, tl.arange(0, PARTS))
    begin, end = box[0] | (box[1] << 16), box[2] | (box[3] << 16)
    source_begin, source_end = source[0] | (source[1] << 16), source[2] | (source[3] << 16)
    return partner, begin, end, lam.to(tl.int32, bitcast=True), kind, source_begin, source_end


@triton.jit
def word_of(words, patch):
    """A word of one thread's patch, for all threads."""
    return tl.sum(tl.where(tl.arange(0, words.shape[0]) == patch, words, 0))


@triton.jit
def corners(begin, end):
    """A rectangle of two words, each with a row and, from bit 16 on, a column, of up to 2^15."""
    return begin & 0xFFFF, (begin >> 16) & 0xFFFF, end & 0xFFFF, (end >> 16) & 0xFFFF


@triton.jit
def drawn_patch(drawn, patch):
    """A patch of those that were drawn at once."""
    partner, begin, end, lam, kind, source_begin, source_end = drawn
    box = corners(word_of(begin, patch), word_of(end, patch))
    source = corners(word_of(source_begin, patch), word_of(source_end, patch))
    lam = word_of(lam, patch).to(tl.float32, bitcast=True)
    return word_of(partner, patch), box, lam, word_of(kind, patch), 0, source


@triton.jit
def given_patch(plan, patch, SOURCES: tl.constexpr):
    """A patch of a sample of a given plan."""
    row = plan[0] + patch * 8
    box = (tl.load(row + 1), tl.load(row + 2), tl.load(row + 3), tl.load(row + 4))
    source = box
    if SOURCES:
        from_ = plan[1] + patch * 4
        source = (tl.load(from_), tl.load(from_ + 1), tl.load(from_ + 2), tl.load(from_ + 3))
    lam = tl.load(row + 5).to(tl.float32, bitcast=True)
    return tl.load(row), box, lam, tl.load(row + 6), tl.load(row + 7), source


@triton.jit
def patch_of(plan, patch, valid, DRAWN: tl.constexpr, SOURCES: tl.constexpr):
    """A patch of a sample; one that is kept where the sample may not be followed."""
    if DRAWN:
        return drawn_patch(plan[2], patch)
    else:
        partner, box, lam, kind, mask, source = given_patch(plan, patch, SOURCES)
        return tl.where(valid, partner, 0), box, lam, tl.where(valid, kind, KEEP), mask, source


@triton.jit
def inside(box, height, width):
    """Mirrors patches.h::inside."""
    y0, x0, y1, x1 = box
    return (y0 >= 0) & (y0 <= y1) & (y1 <= height) & (x0 >= 0) & (x0 <= x1) & (x1 <= width)


@triton.jit
def valid_patch(patch, partners, masks, height, width, can_blend, SOFT: tl.constexpr):
    """Whether a patch may be followed. Mirrors patches.h::valid_patch."""
    partner, box, lam, kind, mask, source = patch
    valid = (partner >= 0) & (partner < partners) & is_kind(kind) & (lam >= 0.0) & (lam <= 1.0)
    valid = valid & (mask >= 0) & (mask <= masks) & inside(box, height, width) & inside(source, height, width)
    computed = blends(kind)
    if SOFT:
        computed = computed | ((mask != 0) & (kind != KEEP))
    nothing = (source[0] == source[2]) | (source[1] == source[3])
    something = (box[0] < box[2]) & (box[1] < box[3])
    return valid & (can_blend | ~computed) & ~(nothing & has_partner(kind) & something)


@triton.jit
def mate_of(rows, index, batch, PATCHES: tl.constexpr):
    """In place, the sample that this one exchanges pixels with. Mirrors patches.h::mate_of."""
    mate = tl.load(rows + index.to(tl.int64) * PATCHES * 8)
    there = (mate >= 0) & (mate < batch)
    mate = tl.where(there, mate, index)
    for k in range(PATCHES):
        own = tl.load(rows + (index.to(tl.int64) * PATCHES + k) * 8)
        theirs = tl.load(rows + (mate.to(tl.int64) * PATCHES + k) * 8)
        there = there & (own == mate) & (theirs == index)
    return tl.where(there, mate, index)


@triton.jit
def valid_in_place(patch, mate):
    """Whether a patch may be painted in place. Mirrors patches.h::valid_in_place."""
    partner, box, _, kind, _, source = patch
    stays = (source[0] == box[0]) & (source[1] == box[1]) & (source[2] == box[2]) & (source[3] == box[3])
    return ~has_partner(kind) | ((partner == mate) & stays)


@triton.jit
def cell_of(position, cells, length):
    """Which cell of a mask, of `cells` over a length, a pixel reads. Mirrors patches.h::cell_of."""
    cell = position
    if cells != length:
        cell = position * cells // tl.maximum(length, 1)
    return cell


@triton.jit
def first_of_cell(cell, cells, length):
    """The first pixel that reads a cell, where there are no more cells than pixels."""
    return (cell * length + cells - 1) // cells


@triton.jit
def in_box(patch, y, x):
    """Mirrors patches.h::in_box."""
    y0, x0, y1, x1 = patch[1]
    return ((patch[3] != KEEP) & (y >= y0) & (y < y1)) & ((x >= x0) & (x < x1))


@triton.jit
def weight_of_cells(masks, cells, mask, channel, cell_y, cell_x, seen, OF_CHANNELS: tl.constexpr):
    """What a mask, by its number, says of pixels that read these of its cells: a bool, or a weight from 0 to 1.

    There are as many cells: channels, rows, columns. OF_CHANNELS: whether each channel has its own.
    """
    channels, mask_height, mask_width = cells
    plane = (mask - 1).to(tl.int64)
    if OF_CHANNELS:
        plane = plane * channels + channel
    row = masks + (plane * mask_height + cell_y) * mask_width
    weight = tl.load(row + cell_x, mask=seen, other=0)
    if masks.dtype.element_ty.is_floating():
        weight = tl.where(weight > 0.0, tl.where(weight < 1.0, weight, 1.0), 0.0)
    return weight


@triton.jit
def weight_below(patch, masks, cells, channel, y, x, cell_y, cell_x, OF_CHANNELS: tl.constexpr):
    """The weight of what lies below a patch at pixels, which read these cells of masks, where there are any.

    Mirrors patches.h::weight_below.
    """
    _, _, lam, kind, mask, _ = patch
    inside = in_box(patch, y, x)
    below = tl.where(blends(kind), lam, 0.0)
    if masks is not None:
        weight = weight_of_cells(masks, cells, mask, channel, cell_y, cell_x, inside & (mask > 0), OF_CHANNELS)
        if masks.dtype.element_ty.is_floating():
            below = weight + (1.0 - weight) * below
        else:
            below = tl.where(weight != 0, 1.0, below)
    return tl.where(inside, below, 1.0)


@triton.jit
def source_of(position, begin, end, source_begin, source_end):
    """Which row (or column) of a source a position in the box reads. Mirrors patches.h::source_of."""
    length, source_length = end - begin, source_end - source_begin
    return source_begin + (position - begin) * source_length // tl.maximum(length, 1)


@triton.jit
def scaled(first, step, factor, divisor):
    """(first + step) * factor // divisor by one division of `first`, for steps of 0 to 15 and sides of images.

    What is left of that division and the steps are a number below 2^20, which float32 holds with its half; and half of
    a divisor's inverse, by which it is then off from the next whole quotient, is more than the rounding of its product
    with the inverse. Before the box `first` is negative; of steps that do not reach the box nobody asks for the result.
    """
    whole = first * factor
    quotient = whole // divisor
    rest = (whole - quotient * divisor + step * factor).to(tl.float32) + 0.5
    return quotient + (rest * tl.div_rn(1.0, divisor.to(tl.float32))).to(tl.int32)


@triton.jit
def units_of(left, below):
    """A patch's part of a pixel, in units, of what the patches above leave. Mirrors patches.h::units_of."""
    return (left * (1.0 - below) * UNITS).to(tl.int32).to(tl.int64)


@triton.jit
def share_of(units, pixels):
    """Mirrors patches.h::share_of."""
    return tl.div_rn(units.to(tl.float32), pixels.to(tl.float32) * UNITS)
