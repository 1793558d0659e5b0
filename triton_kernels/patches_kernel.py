"""The kernel of several patches a sample, in one launch.

    grid = (front and chunks of a sample, samples, samples / 65535)

The fronts, one a sample, come first: see place_in_grid. Each writes its sample's rows of the plan and of the targets,
where there are any. The others paint a chunk of a sample's pixels each. Every program draws the patches of its sample
for itself, or looks whether those given may be followed, a thread a patch.

**Targets.** Lines of rows and lines of columns, between the edges of boxes and of masks' cells, cut the image into
cells of constant weight, of which there are few unless masks have as many cells as the image has pixels. A block of
them at a time goes through the patches once, from the topmost down.

**Pixels** are elements, of vectors of 16 bytes where addresses, strides and rows allow, a thread having all elements of
a vector, the first dimension of a block. From the topmost patch down, by those alone that meet the rows at hand, an
integer says of each vector which of its elements no patch hides yet; where each is read from is chosen by that, and
only then are they read, once. Vectors of rows that no patch meets are copied whole. What masks or lam make partly
visible is blended over, from the lowest patch up, in programs of samples that have such patches.

**In place** a program of the first sample of a pair reads and writes the elements of both that a box covers, and no
others.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .augment_kernel import divided
from .kernel import load_class, load_labels, seed_of
from .kinds import KEEP, blends, has_partner, mixes_target
from .mix_math import partner_map
from .patches_math import (
    cell_of,
    corners,
    drawn_patches,
    first_of_cell,
    given_patch,
    mate_of,
    patch_of,
    sample_method,
    scaled,
    share_of,
    source_of,
    units_of,
    valid_in_place,
    valid_patch,
    weight_below,
    weight_of_cells,
)
from .values import element_bits, element_value, float_to_bfloat16, mixed_value

RUN_TIME = [
    *("bounds", "scope", "partner_rule", "placement", "holes", "seed_low", "seed_high"),
    *("mask_count", "mask_channels", "mask_height", "mask_width", "samples", "batch", "other_count", "height", "width"),
    *("images_sample", "images_slice", "images_row", "others_sample", "others_slice", "others_row"),
    *("out_sample", "out_slice", "out_row", "sample_vectors", "row_vectors", "row_magic", "row_shift", "height_magic"),
    *("height_shift", "pixel_elements", "pixel_magic", "pixel_shift", "channel_step", "fill_low", "fill_high"),
    *("num_classes", "scale", "off", "on"),
]


@triton.jit
def place_in_grid(FRONT: tl.constexpr):
    """The chunk and the sample of a program. The fronts of a layer of the grid come before all chunks of pixels: one
    may take as long as many of those, which are then done beside it."""
    chunk, sample, samples = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    if FRONT == 1:
        number = sample * tl.num_programs(0) + chunk
        chunks = tl.maximum(tl.num_programs(0) - 1, 1)
        behind = number - samples
        sample = tl.where(behind < 0, number, behind // chunks)
        chunk = tl.where(behind < 0, 0, 1 + behind % chunks)
    return chunk, tl.program_id(2) * samples + sample


@triton.jit
def every_valid(
    plan, mate, weights, partners, masks, can_blend,
    IN_PLACE: tl.constexpr, PATCHES: tl.constexpr, PARTS: tl.constexpr, SOURCES: tl.constexpr, SOFT: tl.constexpr,
):  # fmt: skip
    """Whether all patches of a sample of a given plan may be followed; a thread looks at one of them."""
    part = tl.arange(0, PARTS)
    patch = given_patch(plan, tl.minimum(part, PATCHES - 1), SOURCES)
    valid = (partners > 0) & valid_patch(patch, partners, masks, plan[4], plan[5], can_blend, SOFT)
    if IN_PLACE:
        valid = valid & valid_in_place(patch, mate)
    if weights is not None:
        weight = tl.load(weights + plan[3].to(tl.int64) * (PATCHES + 1) + tl.minimum(part, PATCHES))
        valid = valid & (weight >= 0.0) & (weight <= 1.0)
    return tl.min(valid.to(tl.int32)) > 0


@triton.jit
def sample_rows(images, others, strides, other_strides, partner, batch, OTHERS: tl.constexpr, FAR: tl.constexpr):
    """Where a partner's pixels begin, in elements from those of images on, and the strides of its slices and rows."""
    images_sample, images_slice, images_row = strides
    first = partner.to(FAR) * images_sample.to(FAR)
    slice_stride, row_stride = images_slice.to(FAR), images_row.to(FAR)
    if OTHERS:
        others_sample, others_slice, others_row = other_strides
        BYTES: tl.constexpr = images.dtype.element_ty.primitive_bitwidth // 8
        behind = (others.to(tl.int64) - images.to(tl.int64)) // BYTES + (partner - batch).to(FAR) * others_sample
        first = tl.where(partner < batch, first, behind)
        slice_stride = tl.where(partner < batch, slice_stride, others_slice)
        row_stride = tl.where(partner < batch, row_stride, others_row)
    return first, slice_stride, row_stride


@triton.jit
def fill_bits(low, high, byte, TYPE: tl.constexpr):
    """Elements at a byte of a row filled with 16 bytes over and over."""
    bit = (8 * byte) & 127
    return (tl.where(bit < 64, low, high) >> (bit & 63)).to(TYPE)


@triton.jit
def rows_of_vectors(
    start, last, row_vectors, height, row_divider, height_divider, VECTORS: tl.constexpr, LARGE: tl.constexpr
):
    """The rows between which vectors from a number on are: all of them where they are of several slices."""
    first_line = quotient(start, row_vectors, row_divider, LARGE)
    last_line = quotient(tl.minimum(start + VECTORS, last) - 1, row_vectors, row_divider, LARGE)
    first_plane = quotient(first_line, height, height_divider, LARGE)
    last_plane = quotient(last_line, height, height_divider, LARGE)
    one = first_plane == last_plane
    first_y = tl.where(one, first_line - first_plane * height, 0)
    last_y = tl.where(one, last_line - last_plane * height, height - 1)
    return first_y.to(tl.int32), last_y.to(tl.int32)


@triton.jit
def quotient(number, divisor, divider, LARGE: tl.constexpr):
    """number // divisor; unless numbers are LARGE, by what `divider` in augment_launch.py gives for the divisor."""
    if LARGE:
        return number // divisor
    else:
        return divided(number, divider[0], divider[1])


@triton.jit
def meets(patch, rows):
    """Whether a patch changes anything between the first and the last of some rows."""
    _, box, _, kind, _, _ = patch
    return (kind != KEEP) & (box[0] <= rows[1]) & (box[2] > rows[0]) & (box[1] < box[3])


@triton.jit
def bits_between(begin, end, column, VECTOR: tl.constexpr):
    """Of vectors at columns of a row, a bit for each element from `begin` to before `end`."""
    low = tl.minimum(tl.maximum(begin - column, 0), VECTOR).to(tl.int32)
    high = tl.minimum(tl.maximum(end - column, 0), VECTOR).to(tl.int32)
    return (1 << high) - (1 << low)


@triton.jit
def have(bits, VECTOR: tl.constexpr):
    """Whether elements of vectors have their bits."""
    return ((bits[None, :] >> tl.arange(0, VECTOR)[:, None]) & 1) != 0


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
                x, x_size = lines_of(number + (column + tl.arange(0, WIDE))[None, :], rows, cells[2], width, 1, PATCHES)
                pixels = y_size * x_size
                cell_y, cell_x = cell_of(y, cells[1], height), cell_of(x, cells[2], width)
                left = tl.full((TALL, WIDE), 1.0, tl.float32)
                for behind in range(PATCHES):
                    k = PATCHES - 1 - behind
                    patch = given_patch((rows, rows), k, False)
                    if mixes_target(patch[3]):
                        below = weight_below(patch, masks, cells, channel, y, x, cell_y, cell_x, OF_CHANNELS)
                        own = tl.sum(units_of(left, below) * pixels)
                        units = tl.where(part == k + 1, units + own, units)
                        left = left * below
    return units


@triton.jit
def write_plan(drawn, rows, sources, PATCHES: tl.constexpr, PARTS: tl.constexpr):
    """Writes a sample's rows of a plan that is drawn, a thread a patch."""
    patch = tl.arange(0, PARTS)
    partner, begin, end, lam, kind, source_begin, source_end = drawn
    box, source = corners(begin, end), corners(source_begin, source_end)
    row, from_ = rows + patch * 8, sources + patch * 4
    there = patch < PATCHES
    tl.store(row, partner, mask=there)
    for edge in tl.static_range(4):
        tl.store(row + 1 + edge, box[edge], mask=there)
        tl.store(from_ + edge, source[edge], mask=there)
    tl.store(row + 5, lam, mask=there)
    tl.store(row + 6, kind, mask=there)
    tl.store(row + 7, patch * 0, mask=there)


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
    y0, y1 = plan[4], plan[4] * 0
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
    masks, cells, channel, y, x, cell_y, cell_x = how
    bits = own
    owner = tl.full(own.shape, -1, tl.int32)
    partial = owner >= 0
    for behind in range(PATCHES):
        k = PATCHES - 1 - behind
        patch = patch_of(plan, k, valid, DRAWN, SOURCES)
        below = weight_below(patch, masks, cells, channel, y, x, cell_y, cell_x, OF_CHANNELS)
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
                below = weight_below(patch, masks, cells, channel, y, x, cell_y, cell_x, OF_CHANNELS)
                over = (owner < k) & (below < 1.0)
                other = element_value(tl.where(has_partner(patch[3]), theirs, filling), ELEMENT)
                value = tl.where(over, mixed_value(below, value, other), value)
            bits = tl.where(partial, element_bits(value, ELEMENT), bits)
    return bits, (owner >= 0) | partial


@triton.jit
def blend(
    plan, valid, bits, filling, lines, masks, cells, channel, plane, y, x, cell_y, cell_x, within, present,
    images, others, strides, other_strides, pixel_elements, batch,
    PATCHES: tl.constexpr, DRAWN: tl.constexpr, SOURCES: tl.constexpr, OF_CHANNELS: tl.constexpr, OTHERS: tl.constexpr,
    FAR: tl.constexpr, ELEMENT: tl.constexpr,
):  # fmt: skip
    """Elements, of which each is what the topmost patch that hides all below it brings, with those above blended over.

    From the lowest patch on, because it rounds: what patches below that one make of it is thrown away at it.
    """
    brought = element_value(bits, ELEMENT)
    value, made = brought, bits
    for k in range(PATCHES):
        patch = patch_of(plan, k, valid, DRAWN, SOURCES)
        partner, box, _, kind, _, source = patch
        if meets(patch, lines):
            below = weight_below(patch, masks, cells, channel, y[None, :], x, cell_y, cell_x, OF_CHANNELS)
            partly = (below > 0.0) & (below < 1.0)
            theirs = filling + bits * 0
            if has_partner(kind):
                origin, slice_stride, row_stride = sample_rows(
                    images, others, strides, other_strides, partner, batch, OTHERS, FAR
                )
                row = origin + plane * slice_stride + source_of(y, box[0], box[2], source[0], source[2]) * row_stride
                from_x = source_of(x, box[1], box[3], source[1], source[3])
                theirs = row[None, :] + (from_x * pixel_elements + within)
                theirs = tl.load(images + theirs, mask=partly & present[None, :])
            value = tl.where(partly, mixed_value(below, value, element_value(theirs, ELEMENT)), value)
            value = tl.where(below == 0.0, brought, value)
            made = tl.where(partly, element_bits(value, ELEMENT), made)
            made = tl.where(below == 0.0, bits, made)
    return made


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
    sample_vectors: tl.int64,
    row_vectors: tl.int64,
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
    PIXEL: tl.constexpr,  # 1: a pixel is an element; 2: it may be several
    VECTOR: tl.constexpr,  # elements that lie side by side in a row, and are moved at once where they can
    VECTORS: tl.constexpr,  # at a time
    SPAN: tl.constexpr,  # vectors in a chunk
    LARGE: tl.constexpr,  # whether places in a sample need 64 bits
    ANYWHERE: tl.constexpr,  # whether places in all samples do
    TALL: tl.constexpr,  # lines of rows, and of columns, at a time, whose units are summed
    WIDE: tl.constexpr,
    TARGET_BLOCK: tl.constexpr,  # columns of targets at a time
):
    chunk, index = place_in_grid(FRONT)
    if index >= samples:
        return
    DRAWN: tl.constexpr = quantiles is not None
    SOURCES: tl.constexpr = sources is not None
    own_rows = rows + index.to(tl.int64) * PATCHES * 8
    own_sources, drawn = own_rows, index
    if SOURCES:
        own_sources = sources + index.to(tl.int64) * PATCHES * 4
    if DRAWN:
        seed = seed_of(seed_low, seed_high, device_seed)
        mapping = partner_map(partner_rule, seed, batch)
        method, of_kind, of_sample = sample_method(
            quantiles, bounds, scope, placement, mapping, seed, index, batch, height, width
        )
        draw = (quantiles, holes, placement, method, of_kind, of_sample, seed, index, batch, height, width)
        drawn = drawn_patches(draw, PARTS)
    plan = (own_rows, own_sources, drawn, index, height, width)
    cells = (mask_channels, mask_height, mask_width)
    valid, mate = samples > 0, index
    if not DRAWN:
        partners = batch.to(tl.int64) + other_count
        if IN_PLACE:
            mate = mate_of(rows, index, batch, PATCHES)
        valid = every_valid(
            plan, mate, weights, partners, mask_count, CAN_BLEND, IN_PLACE, PATCHES, PARTS, SOURCES, SOFT
        )

    if FRONT == 1:  # noqa: SIM102 - known when compiling, unlike the chunk
        if chunk == 0:
            if DRAWN:
                write_plan(drawn, own_rows, own_sources, PATCHES, PARTS)
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
        FAR: tl.constexpr = tl.int64 if LARGE or ANYWHERE else tl.int32
        OTHERS: tl.constexpr = others is not None
        HAS_MASKS: tl.constexpr = masks is not None
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
                mate_plan = (mate_rows, mate_sources, drawn, mate, height, width)
                mate_valid = (mate > index) & every_valid(
                    mate_plan, index, weights, partners, mask_count, CAN_BLEND, True, PATCHES, PARTS, SOURCES, SOFT
                )
                mate_y0, mate_y1 = rows_that_change(mate_plan, mate_valid, PATCHES, DRAWN, SOURCES)
                y0, y1 = tl.minimum(y0, mate_y0), tl.maximum(y1, mate_y1)
        first = (chunk - FRONT).to(tl.int64) * SPAN
        last = tl.minimum(first + SPAN, sample_vectors).to(INDEX)
        canvas = index % batch
        row_vectors = row_vectors.to(INDEX)
        pixel_elements = 1 if PIXEL == 1 else pixel_elements.to(INDEX)
        fill_low, fill_high = fill_low.to(tl.int64), fill_high.to(tl.int64)
        row_divider, height_divider, pixel_divider = (
            (row_magic, row_shift),
            (height_magic, height_shift),
            (pixel_magic, pixel_shift),
        )
        element = tl.arange(0, VECTOR)[:, None]
        one = 1 << element
        for start in range(first.to(INDEX), last, VECTORS):
            vector = start + tl.arange(0, VECTORS)
            present = vector < last
            line = quotient(vector, row_vectors, row_divider, LARGE)
            plane = quotient(line, height, height_divider, LARGE)
            y = (line - plane * height).to(tl.int32)
            column = (vector - line * row_vectors) * VECTOR
            place = column[None, :] + element
            first_x, x, within = column.to(tl.int32), place.to(tl.int32), place * 0
            if PIXEL > 1:
                first_x = quotient(column, pixel_elements, pixel_divider, LARGE).to(tl.int32)
                x = quotient(place, pixel_elements, pixel_divider, LARGE)
                within = place - x * pixel_elements
                x = x.to(tl.int32)
            channel, cell_y, cell_x = 0, y[None, :], x
            if HAS_MASKS:
                cell_y = cell_of(cell_y, mask_height, height)
                if mask_width != width:
                    cell_x = scaled(first_x[None, :], x - first_x[None, :], mask_width, width)
            if OF_CHANNELS:
                channel = (within if IN_PIXEL else plane[None, :]) // channel_step.to(INDEX) % mask_channels
            fill_byte = element * BYTES
            if VECTOR * BYTES < 16:
                fill_byte = (place * BYTES).to(tl.int32)
            if IN_PLACE:
                seen = (present & (y >= y0) & (y < y1))[None, :]
                at = (plane * images_slice.to(INDEX) + y * images_row.to(INDEX))[None, :] + place
                own_at = images + index.to(tl.int64) * images_sample + at
                own = tl.load(own_at, mask=seen, other=0)
                filling = fill_bits(fill_low, fill_high, fill_byte, TYPE)
                how = (masks, cells, channel, y[None, :], x, cell_y, cell_x)
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
                filling = fill_bits(fill_low, fill_high, fill_byte, TYPE)
                lines = rows_of_vectors(start, last, row_vectors, height, row_divider, height_divider, VECTORS, LARGE)
                origin, slice_stride, row_stride = sample_rows(
                    images, others, strides, other_strides, canvas, batch, OTHERS, FAR
                )
                own = origin + plane * slice_stride + y * row_stride + column
                place_from = own[None, :] + element  # of each element
                left = tl.where(present, (1 << VECTOR) - 1, 0)  # a bit for each element that no patch hides
                filled = left ^ left
                touched = batch < 0  # false, as a value that a loop can carry
                fills, blended = touched, touched
                for behind in range(PATCHES):
                    patch = patch_of(plan, PATCHES - 1 - behind, valid, DRAWN, SOURCES)
                    partner, box, lam, kind, mask, source = patch
                    if meets(patch, lines):
                        touched = True
                        below = tl.where(blends(kind), lam, 0.0)
                        blended = blended | (below > 0.0) | (SOFT & (mask != 0))
                        inside = bits_between(box[1] * pixel_elements, box[3] * pixel_elements, column, VECTOR)
                        inside = tl.where((y >= box[0]) & (y < box[2]) & (below == 0.0), inside & left, 0)
                        if HAS_MASKS:  # noqa: SIM102 - known when compiling, unlike the patch
                            if mask != 0:
                                seen = (inside != 0)[None, :]  # with what lies beside the box in the same vectors
                                weight = weight_of_cells(masks, cells, mask, channel, cell_y, cell_x, seen, OF_CHANNELS)
                                inside = inside & tl.sum(tl.where(weight == 0, one, 0), axis=0)
                        left = left & ~inside
                        hides = have(inside, VECTOR)
                        if has_partner(kind):
                            origin, slice_stride, row_stride = sample_rows(
                                images, others, strides, other_strides, partner, batch, OTHERS, FAR
                            )
                            row = origin + plane * slice_stride
                            row += source_of(y, box[0], box[2], source[0], source[2]) * row_stride
                            theirs = (row + (source[1] - box[1]) * pixel_elements)[None, :] + place
                            if SOURCES or DRAWN:  # noqa: SIM102 - as well
                                if box[3] - box[1] != source[3] - source[1]:
                                    from_x = source[1] + scaled(
                                        (first_x - box[1])[None, :],
                                        x - first_x[None, :],
                                        source[3] - source[1],
                                        box[3] - box[1],
                                    )
                                    theirs = row[None, :] + (from_x * pixel_elements + within)
                            place_from = tl.where(hides, theirs, place_from)
                        else:
                            fills = True
                            filled = filled | inside
                bits = tl.zeros((VECTOR, VECTORS), TYPE)
                if touched:
                    seen = present & (filled != (1 << VECTOR) - 1)
                    bits = tl.load(images + place_from, mask=seen[None, :], other=0)
                    if fills:
                        bits = tl.where(have(filled, VECTOR), filling, bits)
                else:
                    side_by_side = tl.multiple_of(images + (own[None, :] + element), (VECTOR * BYTES, 1))
                    bits = tl.load(side_by_side, mask=present[None, :], other=0)
                if ELEMENT is not None:  # noqa: SIM102 - known when compiling, unlike the patches
                    if blended:
                        bits = blend(
                            plan, valid, bits, filling, lines, masks, cells, channel, plane, y, x, cell_y, cell_x,
                            within, present, images, others, strides, other_strides, pixel_elements, batch,
                            PATCHES, DRAWN, SOURCES, OF_CHANNELS, OTHERS, FAR, ELEMENT,
                        )  # fmt: skip
                row = out + index.to(tl.int64) * out_sample
                row += plane * out_slice.to(INDEX) + y * out_row.to(INDEX) + column
                tl.store(tl.multiple_of(row[None, :] + element, (VECTOR * BYTES, 1)), bits, mask=present[None, :])
