"""The kernel of several patches a sample, in one launch.

    grid = (front and chunks of a sample, samples, samples / 65535)

The first program of a sample writes its row of the plan and of the targets, where there are any; the others paint a
chunk of its pixels each, element by element: the topmost patch that hides all below it says where an element is read,
and those above it are blended over it. Every program reads or draws the patches of its sample for itself.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .augment_kernel import divided
from .kernel import load_class, load_labels, sample_index, seed_of
from .kinds import KEEP, has_partner, mixes_target
from .mix_math import partner_map
from .patches_math import (
    cell_of,
    first_of_cell,
    given_patch,
    mate_of,
    patch_of,
    sample_method,
    sample_patch,
    share_of,
    source_of,
    units_of,
    valid_in_place,
    valid_patch,
    weight_below,
)
from .values import element_bits, element_value, float_to_bfloat16, mixed_value

RUN_TIME = [
    *("bounds", "scope", "partner_rule", "placement", "holes", "seed_low", "seed_high"),
    *("mask_count", "mask_channels", "mask_height", "mask_width", "samples", "batch", "other_count", "height", "width"),
    *("images_sample", "images_slice", "images_row", "others_sample", "others_slice", "others_row"),
    *("out_sample", "out_slice", "out_row", "elements", "row_elements", "row_magic", "row_shift", "height_magic"),
    *("height_shift", "pixel_elements", "pixel_magic", "pixel_shift", "channel_step", "fill_low", "fill_high"),
    *("num_classes", "scale", "off", "on"),
]


@triton.jit
def every_valid(
    plan, mate, weights, partners, masks, can_blend,
    IN_PLACE: tl.constexpr, PATCHES: tl.constexpr, SOURCES: tl.constexpr, SOFT: tl.constexpr, WEIGHTS: tl.constexpr,
):  # fmt: skip
    """Whether all patches of a sample of a given plan may be followed."""
    height, width = plan[11], plan[12]
    valid = partners > 0
    for k in range(PATCHES):
        patch = given_patch(plan, k, SOURCES)
        valid = valid & valid_patch(patch, partners, masks, height, width, can_blend, SOFT)
        if IN_PLACE:
            valid = valid & valid_in_place(patch, mate)
    if WEIGHTS:
        for part in range(PATCHES + 1):
            weight = tl.load(weights + plan[9].to(tl.int64) * (PATCHES + 1) + part)
            valid = valid & (weight >= 0.0) & (weight <= 1.0)
    return valid


@triton.jit
def sample_pointer(images, others, images_sample, others_sample, partner, batch, OTHERS: tl.constexpr):
    """Where a partner's pixels begin."""
    first = images + partner.to(tl.int64) * images_sample
    if OTHERS:
        return tl.where(partner < batch, first, others + (partner - batch).to(tl.int64) * others_sample)
    else:
        return first


@triton.jit
def brought_pointer(
    patch, images, others, strides, other_strides, where, pixel_elements, batch,
    OTHERS: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Where the elements that a patch brings to places of a sample are."""
    partner, box, _, _, _, source = patch
    plane, y, x, within = where
    images_sample, images_slice, images_row = strides
    from_y = source_of(y, box[0], box[2], source[0], source[2])
    from_x = source_of(x, box[1], box[3], source[1], source[3])
    slice_stride, row_stride = images_slice.to(INDEX), images_row.to(INDEX)
    if OTHERS:
        slice_stride = tl.where(partner < batch, slice_stride, other_strides[1].to(INDEX))
        row_stride = tl.where(partner < batch, row_stride, other_strides[2].to(INDEX))
    at = plane * slice_stride + from_y * row_stride + from_x * pixel_elements + within
    return sample_pointer(images, others, images_sample, other_strides[0], partner, batch, OTHERS) + at


@triton.jit
def fill_bits(low, high, byte, TYPE: tl.constexpr):
    """Elements at a byte of a row filled with 16 bytes over and over."""
    bit = (8 * byte) & 127
    return (tl.where(bit < 64, low, high) >> (bit & 63)).to(TYPE)


@triton.jit
def line_count(cells, length, PATCHES: tl.constexpr):
    """How many lines there are: see lines_of."""
    return tl.minimum(cells + 2 * PATCHES, length)


@triton.jit
def edge_of(rows, edge, AXIS: tl.constexpr):
    """The beginning and the end of each patch's rows (AXIS 0) or columns (1)."""
    return tl.load(rows + (edge >> 1) * 8 + 1 + AXIS + (edge & 1) * 2)


@triton.jit
def lines_of(number, rows, cells, length, AXIS: tl.constexpr, PATCHES: tl.constexpr):
    """The lines (of rows by AXIS 0, of columns by 1) within which no box of a sample and no cell of a mask begins or
    ends: where those of these numbers begin, and how many rows or columns they hold, which may be none.

    Whatever begins, begins a line, and of equal ones the first is it; unless there are fewer rows than that.
    """
    start, size = number, (number < length).to(tl.int32)
    if line_count(cells, length, PATCHES) < length:
        start = tl.minimum(first_of_cell(number, cells, length), length)
        for edge in range(2 * PATCHES):
            start = tl.where(number == cells + edge, edge_of(rows, edge, AXIS), start)
        cell = cell_of(start, cells, length)
        end = tl.minimum(first_of_cell(cell + 1, cells, length), length)
        again = (number >= cells) & (start == first_of_cell(cell, cells, length))
        for edge in range(2 * PATCHES):
            position = edge_of(rows, edge, AXIS)
            end = tl.where(position > start, tl.minimum(end, position), end)
            again = again | ((number > cells + edge) & (position == start))
        size = tl.where(again, 0, end - start)
    return start, size


@triton.jit
def units_of_parts(
    rows, masks, cells, height, width,
    PATCHES: tl.constexpr, PARTS: tl.constexpr, OF_CHANNELS: tl.constexpr,
    TALL: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The units of each patch of a sample, over all pixels and, where masks tell them apart, channels; 0 of part 0."""
    part = tl.arange(0, PARTS)
    units = tl.zeros((PARTS,), tl.int64)
    number = tl.zeros((TALL, WIDE), tl.int32)  # whole blocks throughout, which Triton moves to no other threads
    channels = 1
    if OF_CHANNELS:
        channels = cells[0]
    for channel in range(channels):
        for row in range(0, line_count(cells[1], height, PATCHES), TALL):
            y, y_size = lines_of(number + (row + tl.arange(0, TALL))[:, None], rows, cells[1], height, 0, PATCHES)
            for column in range(0, line_count(cells[2], width, PATCHES), WIDE):
                x, x_size = lines_of(
                    number + (column + tl.arange(0, WIDE))[None, :], rows, cells[2], width, 1, PATCHES
                )
                pixels = y_size * x_size
                left = tl.full((TALL, WIDE), 1.0, tl.float32)
                for behind in range(PATCHES):
                    k = PATCHES - 1 - behind
                    patch = given_patch((rows, rows), k, False)
                    if mixes_target(patch[3]):
                        below = weight_below(patch, masks, cells, channel, y, x, height, width, OF_CHANNELS)
                        own = tl.sum(units_of(left, below) * pixels)
                        units = tl.where(part == k + 1, units + own, units)
                        left = left * below
    return units


@triton.jit
def write_plan(plan, rows, sources, PATCHES: tl.constexpr, PARTS: tl.constexpr):
    """Writes a sample's rows of a plan that is drawn, a thread a patch."""
    patch = tl.arange(0, PARTS)
    partner, box, lam, kind, mask, source = sample_patch(plan, patch)
    row, from_ = rows + patch * 8, sources + patch * 4
    there = patch < PATCHES
    tl.store(row, partner, mask=there)
    for edge in tl.static_range(4):
        tl.store(row + 1 + edge, box[edge], mask=there)
        tl.store(from_ + edge, source[edge], mask=there)
    tl.store(row + 5, lam.to(tl.int32, bitcast=True), mask=there)
    tl.store(row + 6, kind, mask=there)
    tl.store(row + 7, mask, mask=there)


@triton.jit
def write_targets(
    rows, valid, index, batch, height, width, masks, cells, weights, labels, other_labels, targets,
    num_classes, scale, off, on,
    PATCHES: tl.constexpr, PARTS: tl.constexpr, OF_CHANNELS: tl.constexpr,
    TALL: tl.constexpr, WIDE: tl.constexpr, TARGET_BLOCK: tl.constexpr,
):  # fmt: skip
    """Writes a sample's row of the targets."""
    VALUE: tl.constexpr = tl.float64 if targets.dtype.element_ty == tl.float64 else tl.float32
    part = tl.arange(0, PARTS)
    owners = tl.full((PARTS,), 0, tl.int32) + index % tl.maximum(batch, 1)
    there = (part >= 1) & (part <= PATCHES)
    own = rows + (part - 1) * 8
    owners = tl.where(there, tl.load(own, mask=there, other=0), owners)
    if weights is not None:
        shares = tl.load(weights + index.to(tl.int64) * (PATCHES + 1) + part, mask=part <= PATCHES, other=0.0)
        kinds = tl.load(own + 6, mask=there, other=KEEP)
        shares = tl.where((part > 0) & ~mixes_target(kinds), 0.0, shares)
    else:
        pixels = height * width
        if OF_CHANNELS:
            pixels = pixels.to(tl.int64) * cells[0]
        every = pixels.to(tl.int64) * (1 << 24)
        units = tl.zeros((PARTS,), tl.int64)
        if valid:
            units = units_of_parts(rows, masks, cells, height, width, PATCHES, PARTS, OF_CHANNELS, TALL, WIDE)
        units = tl.where(part == 0, every - tl.sum(units), units)
        # Of no pixels what is divided is 0 by 0.
        shares = tl.where(every > 0, share_of(units, pixels), tl.where(part == 0, 1.0, 0.0))
    counts = tl.where(valid, shares, 0.0) > 0.0
    first = owners < batch
    theirs = tl.where(first, owners, owners - batch).to(tl.int64)
    off = off.to(tl.int64).to(tl.float64, bitcast=True).to(VALUE)
    soft: tl.constexpr = labels.dtype.element_ty.is_floating()
    classes = owners
    if soft:
        scale = scale.to(tl.int64).to(tl.float64, bitcast=True).to(VALUE)
    else:
        on = on.to(tl.int64).to(tl.float64, bitcast=True).to(VALUE)
        classes = load_class(labels, theirs, num_classes, counts & first)
        if other_labels is not None:
            classes = tl.where(first, classes, load_class(other_labels, theirs, num_classes, counts & ~first))
        valid = valid & (tl.min(tl.where(counts & (classes < 0), 0, 1)) > 0)
    for start in range(0, num_classes, TARGET_BLOCK):
        column = start + tl.arange(0, TARGET_BLOCK)
        inside = column < num_classes
        value = tl.zeros((TARGET_BLOCK,), VALUE)
        for k in range(PATCHES + 1):
            share = tl.sum(tl.where(part == k, shares, 0.0))
            if soft:
                row = tl.sum(tl.where(part == k, theirs, 0)) * num_classes + column
                is_first = tl.sum(tl.where((part == k) & first, 1, 0)) > 0
                seen = inside & valid & (share > 0.0)
                label = load_labels(labels + row, seen & is_first, VALUE)
                if other_labels is not None:
                    label = tl.where(is_first, label, load_labels(other_labels + row, seen & ~is_first, VALUE))
                label = label * scale + off
            else:
                label = tl.where(column == tl.sum(tl.where(part == k, classes, 0)), on, off)
            value = tl.where(share > 0.0, value + share.to(VALUE) * label, value)
        value = tl.where(valid, value, float("nan"))
        if targets.dtype.element_ty == tl.bfloat16:
            value = float_to_bfloat16(value).to(tl.bfloat16, bitcast=True)
        else:
            value = value.to(targets.dtype.element_ty)
        tl.store(targets + index.to(tl.int64) * num_classes + column, value, mask=inside)


@triton.jit
def rows_that_change(plan, valid, PATCHES: tl.constexpr, DRAWN: tl.constexpr, SOURCES: tl.constexpr):
    """The rows of a sample between the first and the last of its patches'."""
    y0, y1 = plan[11], plan[11] * 0
    for k in range(PATCHES):
        _, box, _, kind, _, _ = patch_of(plan, k, valid, DRAWN, SOURCES)
        y0 = tl.where(kind != KEEP, tl.minimum(y0, box[0]), y0)
        y1 = tl.where(kind != KEEP, tl.maximum(y1, box[2]), y1)
    return y0, y1


@triton.jit
def exchanged(
    plan, valid, own, theirs, filling, how,
    PATCHES: tl.constexpr, DRAWN: tl.constexpr, SOURCES: tl.constexpr,
    OF_CHANNELS: tl.constexpr, ELEMENT: tl.constexpr,
):  # fmt: skip
    """Elements of a sample that is painted in place, by what they and its mate's were, and which of them change."""
    masks, cells, channel, y, x = how
    bits = own
    owner = tl.full(own.shape, -1, tl.int32)
    partial = owner >= 0
    for behind in range(PATCHES):
        k = PATCHES - 1 - behind
        patch = patch_of(plan, k, valid, DRAWN, SOURCES)
        below = weight_below(patch, masks, cells, channel, y, x, plan[11], plan[12], OF_CHANNELS)
        open_ = owner < 0
        hides = open_ & (below == 0.0)
        partial = partial | (open_ & (below > 0.0) & (below < 1.0))
        bits = tl.where(hides, tl.where(has_partner(patch[3]), theirs, filling), bits)
        owner = tl.where(hides, k, owner)
    if ELEMENT is not None:  # noqa: SIM102 - known when compiling, unlike the patches
        if tl.max(partial.to(tl.int32)) > 0:
            value = element_value(bits, ELEMENT)
            for k in range(PATCHES):
                patch = patch_of(plan, k, valid, DRAWN, SOURCES)
                below = weight_below(patch, masks, cells, channel, y, x, plan[11], plan[12], OF_CHANNELS)
                over = (owner < k) & (below < 1.0)
                other = element_value(tl.where(has_partner(patch[3]), theirs, filling), ELEMENT)
                value = tl.where(over, mixed_value(below, value, other), value)
            bits = tl.where(partial, element_bits(value, ELEMENT), bits)
    return bits, (owner >= 0) | partial


@triton.jit(do_not_specialize=RUN_TIME)
def patches_kernel(
    # The plan: written where there are quantiles to draw it by, else read.
    rows,
    sources,
    quantiles,
    bounds,  # a tuple of float32, of which Triton specialises on none
    scope: tl.int32,
    partner_rule: tl.int32,
    placement: tl.int32,
    holes: tl.int32,
    seed_low: tl.int32,
    seed_high: tl.int32,
    device_seed,
    masks,
    mask_count: tl.int32,
    mask_channels: tl.int32,
    mask_height: tl.int32,
    mask_width: tl.int32,
    weights,
    samples: tl.int32,
    batch: tl.int32,
    other_count: tl.int32,
    height: tl.int32,
    width: tl.int32,
    # The images by elements, as unsigned integers.
    images,
    others,
    out,
    images_sample: tl.int64,
    images_slice: tl.int64,
    images_row: tl.int64,
    others_sample: tl.int64,
    others_slice: tl.int64,
    others_row: tl.int64,
    out_sample: tl.int64,
    out_slice: tl.int64,
    out_row: tl.int64,
    elements: tl.int64,  # of a sample
    row_elements: tl.int64,
    row_magic: tl.int32,
    row_shift: tl.int32,
    height_magic: tl.int32,
    height_shift: tl.int32,
    pixel_elements: tl.int64,
    pixel_magic: tl.int32,
    pixel_shift: tl.int32,
    channel_step: tl.int64,  # slices, or elements of a pixel, of one channel
    fill_low: tl.int64,
    fill_high: tl.int64,
    labels,
    other_labels,
    targets,
    num_classes: tl.int32,
    scale: tl.int64,
    off: tl.int64,
    on: tl.int64,
    PATCHES: tl.constexpr,
    PARTS: tl.constexpr,  # 1 + patches, to a power of two
    FRONT: tl.constexpr,  # programs of a sample that write the plan and targets: 0 or 1
    IN_PLACE: tl.constexpr,
    SOFT: tl.constexpr,  # masks are floats
    OF_CHANNELS: tl.constexpr,  # each channel has a mask of its own
    IN_PIXEL: tl.constexpr,  # a pixel has all channels, or a slice has one
    CAN_BLEND: tl.constexpr,
    ELEMENT: tl.constexpr,  # what is blended; None where nothing can be
    BLOCK: tl.constexpr,  # elements at a time
    SPAN: tl.constexpr,  # elements in a chunk
    LARGE: tl.constexpr,  # whether places in a sample need 64 bits
    TALL: tl.constexpr,  # lines of rows, and of columns, at a time, whose units are summed
    WIDE: tl.constexpr,
    TARGET_BLOCK: tl.constexpr,  # columns of targets at a time
):
    chunk = tl.program_id(0)
    index = sample_index()
    if index >= samples:
        return
    DRAWN: tl.constexpr = quantiles is not None
    SOURCES: tl.constexpr = sources is not None
    WEIGHTS: tl.constexpr = weights is not None
    own_rows = rows + index.to(tl.int64) * PATCHES * 8
    table, drawn, seed = rows, (index, index, index), index
    if DRAWN:
        table = quantiles
        seed = seed_of(seed_low, seed_high, device_seed)
        mapping = partner_map(partner_rule, seed, batch)
        drawn = sample_method(quantiles, bounds, scope, placement, mapping, seed, index, batch, height, width)
    own_sources = own_rows
    if SOURCES:
        own_sources = sources + index.to(tl.int64) * PATCHES * 4
    method, of_kind, of_sample = drawn
    plan = (
        own_rows, own_sources, table, holes, placement, method, of_kind, of_sample, seed, index, batch, height, width
    )  # fmt: skip
    cells = (mask_channels, mask_height, mask_width)
    valid, mate = samples > 0, index
    if not DRAWN:
        partners = batch.to(tl.int64) + other_count
        if IN_PLACE:
            mate = mate_of(rows, index, batch, PATCHES)
        valid = every_valid(
            plan, mate, weights, partners, mask_count, CAN_BLEND, IN_PLACE, PATCHES, SOURCES, SOFT, WEIGHTS
        )

    if FRONT == 1:  # noqa: SIM102 - known when compiling, unlike the chunk
        if chunk == 0:
            if DRAWN:
                write_plan(plan, own_rows, own_sources, PATCHES, PARTS)
                tl.debug_barrier()  # because targets follow the plan as it is written
            if targets is not None:
                write_targets(
                    own_rows, valid, index, batch, height, width, masks, cells, weights, labels, other_labels, targets,
                    num_classes, scale, off, on, PATCHES, PARTS, OF_CHANNELS, TALL, WIDE, TARGET_BLOCK,
                )  # fmt: skip
            return

    if images is not None:
        INDEX: tl.constexpr = tl.int64 if LARGE else tl.int32
        TYPE: tl.constexpr = images.dtype.element_ty
        BYTES: tl.constexpr = TYPE.primitive_bitwidth // 8
        OTHERS: tl.constexpr = others is not None
        strides, other_strides = (images_sample, images_slice, images_row), (others_sample, others_slice, others_row)
        if IN_PLACE:
            if mate < index:  # which paints both
                return
            y0, y1 = rows_that_change(plan, valid, PATCHES, DRAWN, SOURCES)
            if not DRAWN:
                mate_rows = rows + mate.to(tl.int64) * PATCHES * 8
                mate_sources = mate_rows
                if SOURCES:
                    mate_sources = sources + mate.to(tl.int64) * PATCHES * 4
                mate_plan = (
                    mate_rows, mate_sources, table, holes, placement, method, of_kind, of_sample, seed, mate, batch, height,
                    width,
                )  # fmt: skip
                mate_valid = (mate > index) & every_valid(
                    mate_plan, index, weights, partners, mask_count, CAN_BLEND, True, PATCHES, SOURCES, SOFT, WEIGHTS
                )
                mate_y0, mate_y1 = rows_that_change(mate_plan, mate_valid, PATCHES, DRAWN, SOURCES)
                y0, y1 = tl.minimum(y0, mate_y0), tl.maximum(y1, mate_y1)
        first = (chunk - FRONT).to(tl.int64) * SPAN
        last = tl.minimum(first + SPAN, elements).to(INDEX)
        canvas = index % batch
        row_elements, pixel_elements = row_elements.to(INDEX), pixel_elements.to(INDEX)
        fill_low, fill_high = fill_low.to(tl.int64), fill_high.to(tl.int64)
        for start in range(first.to(INDEX), last, BLOCK):
            element = start + tl.arange(0, BLOCK)
            present = element < last
            if LARGE:
                line = element // row_elements
                plane = line // height
            else:
                line = divided(element, row_magic, row_shift)
                plane = divided(line, height_magic, height_shift)
            y = (line - plane * height).to(tl.int32)
            place = element - line * row_elements
            x = place // pixel_elements if LARGE else divided(place, pixel_magic, pixel_shift)
            within = place - x * pixel_elements
            x = x.to(tl.int32)
            where, channel = (plane, y, x, within), 0
            if OF_CHANNELS:
                channel = (within if IN_PIXEL else plane) // channel_step.to(INDEX) % mask_channels
            at = plane * images_slice.to(INDEX) + y * images_row.to(INDEX) + place
            if IN_PLACE:
                seen = present & (y >= y0) & (y < y1)
                own_at = images + index.to(tl.int64) * images_sample + at
                own = tl.load(own_at, mask=seen, other=0)
                filling = fill_bits(fill_low, fill_high, (place * BYTES).to(tl.int32), TYPE)
                how = (masks, cells, channel, y, x)
                if DRAWN:
                    made, changes = exchanged(
                        plan, valid, own, own, filling, how, PATCHES, DRAWN, SOURCES, OF_CHANNELS, ELEMENT
                    )
                    tl.store(own_at, made, mask=seen & changes)
                else:
                    mate_at = images + mate.to(tl.int64) * images_sample + at
                    theirs = tl.load(mate_at, mask=seen, other=0)
                    made, changes = exchanged(
                        plan, valid, own, theirs, filling, how, PATCHES, DRAWN, SOURCES, OF_CHANNELS, ELEMENT
                    )
                    mate_made, mate_changes = exchanged(
                        mate_plan, mate_valid, theirs, own, filling, how,
                        PATCHES, DRAWN, SOURCES, OF_CHANNELS, ELEMENT,
                    )  # fmt: skip
                    tl.store(own_at, made, mask=seen & changes)
                    tl.store(mate_at, mate_made, mask=seen & mate_changes)
            else:
                pointer = sample_pointer(images, others, images_sample, others_sample, canvas, batch, OTHERS) + at
                owner = tl.full((BLOCK,), -1, tl.int32)
                filled = owner >= 0
                partial = owner >= 0
                for behind in range(PATCHES):
                    k = PATCHES - 1 - behind
                    patch = patch_of(plan, k, valid, DRAWN, SOURCES)
                    below = weight_below(patch, masks, cells, channel, y, x, height, width, OF_CHANNELS)
                    open_ = owner < 0
                    hides = open_ & (below == 0.0)
                    partial = partial | (open_ & (below > 0.0) & (below < 1.0))
                    theirs = brought_pointer(
                        patch, images, others, strides, other_strides, where, pixel_elements, batch, OTHERS, INDEX
                    )
                    pointer = tl.where(hides, theirs, pointer)
                    filled = tl.where(hides, ~has_partner(patch[3]), filled)
                    owner = tl.where(hides, k, owner)
                bits = tl.load(pointer, mask=present & ~filled)
                bits = tl.where(filled, fill_bits(fill_low, fill_high, (place * BYTES).to(tl.int32), TYPE), bits)
                if ELEMENT is not None:  # noqa: SIM102 - known when compiling, unlike the patches
                    if tl.max((partial & present).to(tl.int32)) > 0:
                        value = element_value(bits, ELEMENT)
                        for k in range(PATCHES):
                            patch = patch_of(plan, k, valid, DRAWN, SOURCES)
                            kind = patch[3]
                            below = weight_below(
                                patch, masks, cells, channel, y, x, height, width, OF_CHANNELS
                            )
                            over = (owner < k) & (below < 1.0) & present
                            theirs = brought_pointer(
                                patch,
                                images,
                                others,
                                strides,
                                other_strides,
                                where,
                                pixel_elements,
                                batch,
                                OTHERS,
                                INDEX,
                            )
                            other = tl.load(theirs, mask=over & has_partner(kind))
                            filling = fill_bits(fill_low, fill_high, (place * BYTES).to(tl.int32), TYPE)
                            other = tl.where(has_partner(kind), other, filling)
                            value = tl.where(over, mixed_value(below, value, element_value(other, ELEMENT)), value)
                        bits = tl.where(partial, element_bits(value, ELEMENT), bits)
                at = plane * out_slice.to(INDEX) + y * out_row.to(INDEX) + place
                tl.store(out + index.to(tl.int64) * out_sample + at, bits, mask=present)
