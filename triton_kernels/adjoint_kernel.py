"""The kernels of the adjoint of mixing: who takes from whom, and the sums. See ``csrc/adjoint_call.h`` for a picture.

**Two launches,** because a sum has to know all of its takers, and any row of the plan may be one. The first writes them
as lists: a program looks at all rows for its sample. In the second a program owns a chunk of a sample's
gradients, which it sums by vectors of VECTOR elements, counted through the whole sample whether or not rows are
multiples of them. Nothing is read where nothing is given.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .augment_kernel import divided
from .kernel import given_row, sample_index
from .kinds import KEEP, blends, has_box, has_partner
from .values import element_bits, element_value

NOBODY = tl.constexpr(2**31 - 1)


@triton.jit
def partner_taken_from(plan, index, batch, height, width):
    """Whom samples take from; -1 nobody, as where a row may not be followed. Mirrors adjoint_kernels.cuh."""
    there = index < batch
    row, valid = given_row(plan, tl.minimum(index, batch - 1), batch, height, width, there)
    return tl.where(there & valid & has_partner(row[3]), row[0], -1)


@triton.jit(do_not_specialize=["plan", "links", "batch", "height", "width"])
def link_kernel(
    plan,  # int32 (batch, 8)
    links,  # int32 (batch, 2), written: a sample's first taker, and the taker behind it of the same sample; -1 none
    batch: tl.int32,
    height: tl.int32,
    width: tl.int32,
    ROWS: tl.constexpr,  # at a time
):
    sample = tl.program_id(0)
    taken_from = partner_taken_from(plan, sample, batch, height, width)
    first = tl.full((ROWS,), NOBODY, tl.int32)
    following = first
    for start in range(0, batch, ROWS):
        row = start + tl.arange(0, ROWS)
        partner = partner_taken_from(plan, row, batch, height, width)
        first = tl.minimum(first, tl.where(partner == sample, row, NOBODY))
        following = tl.minimum(following, tl.where((partner == taken_from) & (row > sample), row, NOBODY))
    link = links + 2 * sample.to(tl.int64)
    first, following = tl.min(first, axis=0), tl.min(following, axis=0)
    tl.store(link, tl.where(first == NOBODY, -1, first))
    tl.store(link + 1, tl.where((following == NOBODY) | (taken_from < 0), -1, following))


@triton.jit
def region_of(row, kind, height, row_elements, pixel):
    """Where a mixed sample changed: the first row and how many, the first element of a row and that behind the last."""
    y0, x0, y1, x1 = row[1]
    boxed = has_box(kind)
    rows = tl.where(boxed, y1 - y0, tl.where(kind == KEEP, 0, height))
    return tl.where(boxed, y0, 0), rows, tl.where(boxed, x0 * pixel, 0), tl.where(boxed, x1 * pixel, row_elements)


@triton.jit
def bits_inside(region, y, x, COUNT: tl.constexpr):
    """A bit for each of COUNT elements from x on, before and behind whose row there is nothing."""
    top, rows, left, right = region
    begin = tl.minimum(tl.maximum(left - x, 0), COUNT)
    end = tl.minimum(tl.maximum(right - x, 0), COUNT)
    return tl.where((y - top).to(tl.uint32) < rows.to(tl.uint32), (1 << end) - (1 << begin), 0)


@triton.jit
def vector_bits(region, y, x, height, row_elements, VECTOR: tl.constexpr, ACROSS: tl.constexpr):
    """A bit for each element of a vector that begins at x of row y, and lies across so many rows at most."""
    bits = bits_inside(region, y, x, VECTOR)
    for _ in tl.static_range(ACROSS - 1):
        y = tl.where(y + 1 < height, y + 1, 0)
        x -= row_elements
        bits |= bits_inside(region, y, x, VECTOR)
    return bits


@triton.jit
def elements_of(bits, VECTOR: tl.constexpr):
    """The bits of vectors as truth values of their elements."""
    return ((bits >> tl.arange(0, VECTOR)[None, :]) & 1) != 0


@triton.jit
def part_of(vectors, bits, weight, mask, VECTOR: tl.constexpr, ELEMENT: tl.constexpr):
    """A part of a sum, read where any of a vector is there."""
    value = element_value(tl.load(element_pointers(vectors, VECTOR), mask=mask & (bits != 0), other=0), ELEMENT)
    return weight.to(value.dtype) * value


@triton.jit
def element_pointers(vectors, VECTOR: tl.constexpr):
    """The elements of each vector, side by side, aligned for one access a vector."""
    WIDTH: tl.constexpr = VECTOR * vectors.dtype.element_ty.primitive_bitwidth // 8
    return tl.multiple_of(vectors + tl.arange(0, VECTOR)[None, :], (1, WIDTH))


@triton.jit
def partner_weight(lam, ELEMENT: tl.constexpr):
    """The weight of a blended partner. Mirrors adjoint_call.h::partner_weight."""
    if ELEMENT.is_fp64():
        return 1.0 - lam.to(tl.float64)
    else:
        return 1.0 - lam


SUM_RUN_TIME = [
    *("gradients", "out", "plan", "links", "batch", "height", "width", "in_stride", "out_stride"),
    *("vectors", "row_elements", "row_magic", "row_shift", "rows_magic", "rows_shift", "pixel"),
]


@triton.jit(do_not_specialize=SUM_RUN_TIME)
def sum_kernel(
    gradients,  # as unsigned integers
    out,
    plan,
    links,
    batch: tl.int32,
    height: tl.int32,
    width: tl.int32,
    in_stride: tl.int64,  # from sample to sample, in vectors
    out_stride: tl.int64,
    vectors: tl.int32,  # of a sample
    row_elements: tl.int32,
    row_magic: tl.int32,
    row_shift: tl.int32,
    rows_magic: tl.int32,
    rows_shift: tl.int32,
    pixel: tl.int32,  # elements
    ELEMENT: tl.constexpr,
    VECTOR: tl.constexpr,  # elements
    BLOCK: tl.constexpr,  # vectors at a time
    SPAN: tl.constexpr,  # vectors of a chunk
    ACROSS: tl.constexpr,  # rows that a vector may lie across
    LARGE: tl.constexpr,  # whether a sample has too many elements for the fast division
):
    index = sample_index()
    if index >= batch:
        return
    own, valid = given_row(plan, index, batch, height, width, batch > 0)
    own_kind = tl.where(valid, own[3], KEEP)
    own_weight = tl.where(blends(own_kind), own[2], 1.0)
    own_region = region_of(own, own_kind, height, row_elements, pixel)
    ALL: tl.constexpr = (1 << VECTOR) - 1
    first = tl.load(links + 2 * index.to(tl.int64))
    start = tl.program_id(0) * SPAN
    for step in range(0, SPAN, BLOCK):
        vector = start + step + tl.arange(0, BLOCK)[:, None]
        mask = vector < vectors
        element = vector * VECTOR
        if LARGE:
            row = element // row_elements
            y = row - row // height * height
        else:
            row = divided(element, row_magic, row_shift)
            y = row - divided(row, rows_magic, rows_shift) * height
        x = element - row * row_elements

        changed = vector_bits(own_region, y, x, height, row_elements, VECTOR, ACROSS)
        there = tl.where(blends(own_kind), ALL, ALL ^ changed)
        own_vectors = gradients + (index * in_stride + vector) * VECTOR
        total = part_of(own_vectors, there, own_weight, mask, VECTOR, ELEMENT)
        taker = first
        while taker >= 0:
            taken, _ = given_row(plan, taker, batch, height, width, batch > 0)
            region = region_of(taken, taken[3], height, row_elements, pixel)
            takes = vector_bits(region, y, x, height, row_elements, VECTOR, ACROSS)
            weight = tl.where(blends(taken[3]), partner_weight(taken[2], ELEMENT), 1.0)
            part = part_of(gradients + (taker * in_stride + vector) * VECTOR, takes, weight, mask, VECTOR, ELEMENT)
            summed = tl.where(elements_of(there, VECTOR), total + part, part)  # what is only moved stays as it is
            total = tl.where(elements_of(takes, VECTOR), summed, total)
            there |= takes
            taker = tl.load(links + 2 * taker.to(tl.int64) + 1)
        total = tl.where(elements_of(there, VECTOR), total, 0.0)
        to = element_pointers(out + (index * out_stride + vector) * VECTOR, VECTOR)
        tl.store(to, element_bits(total, ELEMENT), mask=mask)
