"""The kernel of the batch tail: what ``csrc/views.h`` says, in one launch.

**Programs** are those of kernel.py: each owns one sample and one chunk of its pixels, works out the sample's row of the
plan and its view for itself, and the first of a sample writes both. Where a pair of samples is blended, each the
partner of the other, its programs take half of the positions each and write both samples, so that every pixel is read
once for two outputs.

**The order is that of the output**, so that it is written in vectors of up to 16 bytes whatever the input is like. Of
how many elements (VECTOR) its addresses, strides and sizes decide. Outputs have one of four forms, by their layout and
number of channels:

=========================  ===============================================  ============================================
channels                   planes (INTERLEAVED false)                       pixels of channels side by side
=========================  ===============================================  ============================================
few (CHANNELS, up to 4)    VECTOR pixels of a row; a part is a channel      VECTOR pixels of a row; a part is a vector
more (CHANNELS is 0)       VECTOR pixels of a row of a channel              VECTOR channels of a pixel
=========================  ===============================================  ============================================

A thread goes through the parts one after another. Of few channels the constants come by value, and which of them
belongs to an element is known when compiling. The input is read in vectors as well where it lies as the output does
(ALIKE) and the view neither mirrors nor shifts it by part of a vector; otherwise by elements, whose neighbours the
first-level cache keeps.

**Erased boxes.** The first of a sample is kept in registers. Others, if there may be any, are drawn or loaded anew for
each block of pixels, which is slower. Blocks whose rows a box does not meet skip it, as they do the plan's box.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._ops import COLOUR_ROWS, EraseValue
from .kernel import (
    PLAN_ARGUMENTS,
    TARGET_ARGUMENTS,
    change_of,
    given_row,
    sample_index,
    seed_of,
    write_row,
    write_targets,
)
from .kinds import COMPUTES_ALONE, COMPUTES_IN_BOX, KEEP, computed, fills, has_box, has_partner, pastes, reads_own
from .mix_math import partner_map, partner_of, sample_row
from .values import element_bits, element_value
from .views import (
    coloured_value,
    contains,
    noise,
    normalized,
    sample_box,
    sample_box_count,
    sample_colour,
    sample_geometry,
    source_x,
    source_y,
    valid_box,
    valid_geometry,
)

ERASE_CHANNEL = tl.constexpr(int(EraseValue.channel))
ERASE_PIXEL = tl.constexpr(int(EraseValue.pixel))
QUADRUPLES_OF_COLOUR = tl.constexpr(COLOUR_ROWS)


@triton.jit
def divided(number, magic, shift):
    """number / divisor for numbers below 2^30; magic and shift are those of `divider`."""
    return ((number.to(tl.int64) * magic) >> shift).to(tl.int32)


# ---- Views


@triton.jit
def load_quadruple(views, index, number, quadruples):
    """A quadruple of a packed view."""
    quadruple = views + (index.to(tl.int64) * quadruples + number) * 4
    return tl.load(quadruple), tl.load(quadruple + 1), tl.load(quadruple + 2), tl.load(quadruple + 3)


@triton.jit
def store_quadruple(views, index, number, quadruples, values):
    """Writes a quadruple of a packed view."""
    column = tl.arange(0, 4)
    value = tl.where(column == 0, values[0], values[1])
    value = tl.where(column == 2, values[2], value)
    value = tl.where(column == 3, values[3], value)
    tl.store(views + (index.to(tl.int64) * quadruples + number) * 4 + column, value)


@triton.jit
def erased_box(views, sampling, seed, index, number, count, quadruples, SAMPLED: tl.constexpr):
    """An erased box of a sample that has `count`, drawn or loaded."""
    if SAMPLED:
        box = sample_box(sampling, seed, index, number, count)
    else:
        y0, x0, y1, x1 = load_quadruple(views, index, 1 + number, quadruples)
        there = number < count
        box = tl.where(there, y0, 0), tl.where(there, x0, 0), tl.where(there, y1, 0), tl.where(there, x1, 0)
    return box


@triton.jit
def view_of(views, sampling, seed, index, boxes, quadruples, SAMPLED: tl.constexpr, BOXES: tl.constexpr):
    """A sample's geometry and number of erased boxes, and whether its view may be followed."""
    height, width = sampling[3], sampling[4]
    if SAMPLED:
        geometry = sample_geometry(sampling, seed, index)
        valid = boxes >= 0
        count = boxes - boxes
        if BOXES > 0:
            count = sample_box_count(sampling, seed, index)
    else:
        flip, dy, dx, _ = load_quadruple(views, index, 0, quadruples)
        geometry = flip, dy, dx
        valid = valid_geometry(geometry, height, width)
        count = boxes
        if BOXES > 0:
            for number in range(boxes):
                valid = valid & valid_box(load_quadruple(views, index, 1 + number, quadruples), height, width)
    return geometry, count, valid


@triton.jit
def load_matrix(rows):
    """Three rows of a colour matrix."""
    return (
        (tl.load(rows), tl.load(rows + 1), tl.load(rows + 2), tl.load(rows + 3)),
        (tl.load(rows + 4), tl.load(rows + 5), tl.load(rows + 6), tl.load(rows + 7)),
        (tl.load(rows + 8), tl.load(rows + 9), tl.load(rows + 10), tl.load(rows + 11)),
    )


@triton.jit
def colour_of(views, colours, factors, seed, index, boxes, quadruples, SAMPLED: tl.constexpr):
    """The three rows of a sample's colour matrix, drawn, or loaded from the matrices or the views that are given."""
    if SAMPLED and colours is None:
        matrix = sample_colour(factors, seed, index)
    elif SAMPLED:
        matrix = load_matrix(colours + index.to(tl.int64) * 12)
    else:
        rows = views + (index.to(tl.int64) * quadruples + 1 + boxes) * 4
        matrix = load_matrix(rows.to(tl.pointer_type(tl.float32), bitcast=True))
    return matrix


@triton.jit
def write_view(views, sampling, seed, index, boxes, quadruples, geometry, count, BOXES: tl.constexpr):
    """Writes a sample's drawn view, but for its colour."""
    flip, dy, dx = geometry
    store_quadruple(views, index, 0, quadruples, (flip, dy, dx, 0))
    if BOXES > 0:
        for number in range(boxes):
            store_quadruple(views, index, 1 + number, quadruples, sample_box(sampling, seed, index, number, count))


@triton.jit
def write_colour(views, index, boxes, quadruples, colour):
    """Writes a sample's colour matrix."""
    for number in tl.static_range(QUADRUPLES_OF_COLOUR):
        red, green, blue, offset = colour[number]
        store_quadruple(
            views, index, 1 + boxes + number, quadruples,
            (
                red.to(tl.int32, bitcast=True), green.to(tl.int32, bitcast=True), blue.to(tl.int32, bitcast=True),
                offset.to(tl.int32, bitcast=True),
            ),
        )  # fmt: skip


@triton.jit
def looked_at(view, followed, views, sampling, seed, quadruples, SAMPLED: tl.constexpr, BOXES: tl.constexpr):
    """What pixels need of a sample's view: its index, its geometry, its number of erased boxes and the first of them,
    whether it is followed, and its colour. One that is not followed is seen as it is."""
    index, geometry, count, colour = view
    flip, dy, dx = geometry
    geometry = tl.where(followed, flip, 0), tl.where(followed, dy, 0), tl.where(followed, dx, 0)
    count = tl.where(followed, count, 0)
    first = (count, count, count, count)
    if BOXES > 0:
        first = erased_box(views, sampling, seed, index, 0, count, quadruples, SAMPLED)
    return index, geometry, count, first, followed, colour


# ---- Pixels
#
# A place is the first and the last row of a block of pixels, the row of each vector and the column of its first pixel,
# and for each element how many columns after that it is, and its channel.


@triton.jit
def is_within(box, place):
    """Whether elements are in a box, which is moved against each vector: an element then costs one subtraction."""
    _, y, x, step, _ = place
    y0, x0, y1, x1 = box
    return contains((y0, x0 - x, y1, x1 - x), y, step)


@triton.jit
def meets(box, rows):
    """Whether a box has a part in rows first..last."""
    return (box[0] <= rows[1]) & (box[2] > rows[0]) & (box[1] < box[3])


@triton.jit
def erase_box(values, box, number, seed, index, place, constant, width, VALUE: tl.constexpr):
    """Values with those in a box erased."""
    rows, y, x, step, channel = place
    if meets(box, rows):
        if VALUE == ERASE_CHANNEL:
            erased = noise(seed, index, number, channel)
        elif VALUE == ERASE_PIXEL:
            erased = noise(seed, index, y * width + (x + step), channel)
        else:
            erased = constant
        values = tl.where(is_within(box, place), erased, values)
    return values


@triton.jit
def erase(
    values, view, packed, seed, place, constant, SAMPLED: tl.constexpr, BOXES: tl.constexpr, VALUE: tl.constexpr
):  # fmt: skip
    """Values with those in a sample's erased boxes erased."""
    index, _, count, first, _, _ = view
    views, sampling, quadruples = packed
    width = sampling[4]
    if BOXES > 0:
        values = erase_box(values, first, 0, seed, index, place, constant, width, VALUE)
    if BOXES > 1:
        for number in range(1, count):
            box = erased_box(views, sampling, seed, index, number, count, quadruples, SAMPLED)
            values = erase_box(values, box, number, seed, index, place, constant, width, VALUE)
    return values


@triton.jit
def constants_of(few, wide, channels, channel, mask, CHANNELS: tl.constexpr):
    """Mean, scale, erased value and fill of each channel."""
    if CHANNELS > 0:
        mean, scale, erased, fill = few[0], few[CHANNELS], few[2 * CHANNELS], few[3 * CHANNELS]
        for each in tl.static_range(1, CHANNELS):
            mean = tl.where(channel == each, few[each], mean)
            scale = tl.where(channel == each, few[CHANNELS + each], scale)
            erased = tl.where(channel == each, few[2 * CHANNELS + each], erased)
            fill = tl.where(channel == each, few[3 * CHANNELS + each], fill)
    else:
        constants = wide + channel
        mean = tl.load(constants, mask=mask, other=0.0)
        scale = tl.load(constants + channels, mask=mask, other=0.0)
        erased = tl.load(constants + 2 * channels, mask=mask, other=0.0)
        fill = tl.load(constants + 3 * channels, mask=mask, other=0.0)
    return mean, scale, erased, fill


@triton.jit
def elements_of(
    place, vector, strides, VECTOR: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, INDEX: tl.constexpr
):  # fmt: skip
    """The offsets of elements, which are side by side in each vector."""
    _, y, _, _, channel_of = place
    x, channel, part = vector
    channel_stride, row_stride, pixel_stride = strides
    element = tl.arange(0, VECTOR)[None, :]
    row = y.to(INDEX) * row_stride
    if VECTOR == 1:
        return row + channel_of * channel_stride + x.to(INDEX) * pixel_stride
    elif not INTERLEAVED:
        return row + channel * channel_stride + x + element
    elif CHANNELS > 0:
        return row + x * CHANNELS + part * VECTOR + element
    else:
        return row + x.to(INDEX) * pixel_stride + channel + element


@triton.jit
def position_of(vector, element, VECTOR: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr):
    """How many columns after the first an element of a vector is, and its channel. `vector` is the column and the
    channel of the first, and the part."""
    _, channel, part = vector
    if INTERLEAVED and CHANNELS > 0:
        place = part * VECTOR + element
        return place // CHANNELS, place % CHANNELS
    elif INTERLEAVED:
        return element - element, channel + element
    else:
        return element, channel + (element - element)


@triton.jit
def is_needed(needs, y, first, last):
    """Whether any pixel of columns first..last is read: everywhere, or those inside or outside of a box."""
    everywhere, box, inside = needs
    if inside:
        needed = (y >= box[0]) & (y < box[2]) & (last >= box[1]) & (first < box[3])
    else:
        needed = ~(contains(box, y, first) & contains(box, y, last))
    return everywhere | needed


@triton.jit
def load_elements(
    pointers, x, step, part, strides, mask, width,
    VECTOR: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr, GEOMETRY: tl.constexpr,
    FIRST: tl.constexpr, EVERY: tl.constexpr,
):  # fmt: skip
    """Elements FIRST, FIRST + EVERY, ... of each vector, each from wherever it is. `pointers` and x are those of the
    first element, and step is the way to the column of the next. A thread joins what it loads, with nothing to exchange
    with others."""
    if EVERY == VECTOR:
        columns, channels = position_of((0, 0, part), FIRST, VECTOR, CHANNELS, INTERLEAVED)
        if GEOMETRY:
            mask = mask & ((x + step * columns).to(tl.uint32, bitcast=True) < width)
        channel_stride, _, pixel_stride = strides
        return tl.load(pointers + (step * pixel_stride * columns + channel_stride * channels), mask=mask, other=0)
    else:
        even = load_elements(
            pointers, x, step, part, strides, mask, width, VECTOR, CHANNELS, INTERLEAVED, GEOMETRY, FIRST, 2 * EVERY
        )
        odd = load_elements(
            pointers, x, step, part, strides, mask, width,
            VECTOR, CHANNELS, INTERLEAVED, GEOMETRY, FIRST + EVERY, 2 * EVERY,
        )  # fmt: skip
        return tl.join(even, odd).reshape(even.shape[0], 2 * even.shape[1])


@triton.jit
def raw_values(
    images, view, place, vector, strides, mask, needs, height, width,
    ELEMENT: tl.constexpr, VECTOR: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr,
    ALIKE: tl.constexpr, GEOMETRY: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Pixels of a sample through its flip and offset. Vectors of which no pixel is needed are not read."""
    geometry = view[1]
    rows, y, _, steps, channel_of = place
    x, channel, part = vector
    first, _ = position_of(vector, 0, VECTOR, CHANNELS, INTERLEAVED)
    last, _ = position_of(vector, VECTOR - 1, VECTOR, CHANNELS, INTERLEAVED)
    mask = mask & is_needed(needs, y, x + first, x + last)
    step = 1 + (height - height)
    if GEOMETRY:
        y, x = source_y(geometry, y), source_x(geometry, x, width)
        mask = mask & (y.to(tl.uint32, bitcast=True) < height)
        step = tl.where(geometry[0] != 0, -1, 1)
    in_vectors = ALIKE
    if ALIKE and GEOMETRY and not (INTERLEAVED and CHANNELS == 0):
        in_vectors = (geometry[0] == 0) & (geometry[2] % VECTOR == 0)
    if in_vectors:
        # Of pixels that are neither mirrored nor shifted within vectors.
        inside = mask
        if GEOMETRY:
            inside = mask & (x.to(tl.uint32, bitcast=True) < width)
        source = (rows, y, x, steps, channel_of)
        vectors = images + elements_of(source, (x, channel, part), strides, VECTOR, CHANNELS, INTERLEAVED, INDEX)
        BYTES: tl.constexpr = VECTOR * images.dtype.element_ty.primitive_bitwidth // 8
        raw = tl.load(tl.multiple_of(vectors, (1, BYTES)), mask=inside, other=0)
    else:
        channel_stride, row_stride, pixel_stride = strides
        offset = y.to(INDEX) * row_stride + x.to(INDEX) * pixel_stride
        if not (INTERLEAVED and CHANNELS > 0):
            offset += channel * channel_stride
        raw = load_elements(
            images + offset, x, step, part, strides, mask, width, VECTOR, CHANNELS, INTERLEAVED, GEOMETRY, 0, 1
        )
    return element_value(raw, ELEMENT)


@triton.jit
def raw_channel(
    images, view, place, vector, strides, mask, needs, height, width, CHANNEL: tl.constexpr,
    ELEMENT: tl.constexpr, VECTOR: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr,
    ALIKE: tl.constexpr, GEOMETRY: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """One channel of the pixels of which raw_values has any."""
    rows, y, _, steps, channel_of = place
    x, _, part = vector
    if INTERLEAVED:
        first, _ = position_of(vector, 0, VECTOR, CHANNELS, INTERLEAVED)
        last, _ = position_of(vector, VECTOR - 1, VECTOR, CHANNELS, INTERLEAVED)
        mask = mask & is_needed(needs, y, x + first, x + last)
        y, x = source_y(view[1], y), source_x(view[1], x + steps, width)
        mask = mask & (y.to(tl.uint32, bitcast=True) < height) & (x.to(tl.uint32, bitcast=True) < width)
        channel_stride, row_stride, pixel_stride = strides
        offset = y.to(INDEX) * row_stride + x.to(INDEX) * pixel_stride + CHANNEL * channel_stride
        return element_value(tl.load(images + offset, mask=mask, other=0), ELEMENT)
    else:
        place = (rows, y, x, steps, channel_of - channel_of + CHANNEL)
        return raw_values(
            images, view, place, (x, CHANNEL, CHANNEL), strides, mask, needs, height, width,
            ELEMENT, VECTOR, CHANNELS, INTERLEAVED, ALIKE, GEOMETRY, INDEX,
        )  # fmt: skip


@triton.jit
def seen(
    images, view, place, vector, strides, mask, needs, height, width, COLOURED: tl.constexpr,
    ELEMENT: tl.constexpr, VECTOR: tl.constexpr, CHANNELS: tl.constexpr, INTERLEAVED: tl.constexpr,
    ALIKE: tl.constexpr, GEOMETRY: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Values of a sample's pixels through its view, but for its erased boxes, before they are normalised."""
    if COLOURED:
        channel = place[4]
        followed = view[4]
        of_red, of_green, of_blue = view[5]
        red = raw_channel(
            images, view, place, vector, strides, mask, needs, height, width, 0,
            ELEMENT, VECTOR, CHANNELS, INTERLEAVED, ALIKE, GEOMETRY, INDEX,
        )  # fmt: skip
        green = raw_channel(
            images, view, place, vector, strides, mask, needs, height, width, 1,
            ELEMENT, VECTOR, CHANNELS, INTERLEAVED, ALIKE, GEOMETRY, INDEX,
        )  # fmt: skip
        blue = raw_channel(
            images, view, place, vector, strides, mask, needs, height, width, 2,
            ELEMENT, VECTOR, CHANNELS, INTERLEAVED, ALIKE, GEOMETRY, INDEX,
        )  # fmt: skip
        WHITE: tl.constexpr = 255.0 if tl.uint8 == ELEMENT else 1.0
        row = (
            tl.where(channel == 0, of_red[0], tl.where(channel == 1, of_green[0], of_blue[0])),
            tl.where(channel == 0, of_red[1], tl.where(channel == 1, of_green[1], of_blue[1])),
            tl.where(channel == 0, of_red[2], tl.where(channel == 1, of_green[2], of_blue[2])),
            tl.where(channel == 0, of_red[3], tl.where(channel == 1, of_green[3], of_blue[3])),
        )
        raw = tl.where(channel == 0, red, tl.where(channel == 1, green, blue))
        raw = tl.where(followed, coloured_value(row, red, green, blue, WHITE), raw)
    else:
        raw = raw_values(
            images, view, place, vector, strides, mask, needs, height, width,
            ELEMENT, VECTOR, CHANNELS, INTERLEAVED, ALIKE, GEOMETRY, INDEX,
        )  # fmt: skip
    return raw


@triton.jit
def store_values(out, offset, values, mask, VECTOR: tl.constexpr, ELEMENT: tl.constexpr):
    """Rounds values and stores them, a vector by one instruction."""
    BYTES: tl.constexpr = VECTOR * ELEMENT.primitive_bitwidth // 8
    tl.store(tl.multiple_of(out + offset, (1, BYTES)), element_bits(values, ELEMENT), mask=mask)


@triton.jit
def computed_in_box(change, own, theirs, place):
    """The values of a sample of a kind that reads its own."""
    kind, lam, box = change
    values = computed(kind, lam, own, theirs, tl.float32).to(tl.float32, bitcast=True)
    if COMPUTES_IN_BOX:
        values = tl.where(is_within(box, place) | ~has_box(kind), values, own)
    return values


@triton.jit
def mixed(change, own, theirs, place, ONLY_CUTMIX: tl.constexpr):
    """The values of a sample with those of its partner, as its row of the plan says."""
    kind, _, box = change
    y0, x0, y1, x1 = box
    pasted = y0, x0, tl.where(pastes(kind), y1, y0), x1  # empty where nothing is
    values = tl.where(is_within(pasted, place), theirs, own)
    if not ONLY_CUTMIX:  # noqa: SIM102 - known when compiling, unlike the kind
        takes_both = reads_own(kind)
        if COMPUTES_ALONE:
            takes_both = takes_both & has_partner(kind)
        if takes_both:
            values = computed_in_box(change, own, theirs, place)
    return values


@triton.jit
def changed_alone(values, change, place, fill, ONLY_CUTMIX: tl.constexpr):
    """The values of a sample as a kind without a partner changes them, if its row of the plan says so."""
    kind, _, box = change
    if not ONLY_CUTMIX:  # noqa: SIM102 - known when compiling, unlike the kind
        if fills(kind):
            values = tl.where(is_within(box, place), fill, values)
        if COMPUTES_ALONE:  # noqa: SIM102 - known when compiling, unlike the kind
            if ~has_partner(kind) & reads_own(kind):
                values = computed_in_box(change, values, values, place)
    return values


RUN_TIME = [
    *PLAN_ARGUMENTS,
    *("views", "aspects", "boxes", "translate_y", "translate_x", "min_boxes", "first_erased", "colours"),
    *("images", "out", "images_sample", "images_channel", "images_row", "images_pixel"),
    *("out_sample", "out_channel", "out_row", "out_pixel"),
    *("groups", "inner", "inner_magic", "inner_shift", "middle", "middle_magic", "middle_shift"),
    *("wide", "channels"),
    *TARGET_ARGUMENTS,
]


@triton.jit(do_not_specialize=RUN_TIME)
def augment_kernel(
    # The plan: int32 (batch, 8), written where there are quantiles to sample it by, else read; None if it is not asked
    # for.
    plan,
    quantiles,
    bounds,  # a tuple of float32, of which Triton specialises on none
    scope: tl.int32,
    partner_rule: tl.int32,
    placement: tl.int32,
    correct_lam: tl.int32,
    seed_low: tl.int32,
    seed_high: tl.int32,
    device_seed,
    batch: tl.int32,
    height: tl.int32,
    width: tl.int32,
    # The views: int32 (batch, 1 + boxes, 4), or with three more rows of COLOURED ones, sampled or given.
    views,
    aspects,
    parameters,  # a tuple of float32
    boxes: tl.int32,
    translate_y: tl.int32,
    translate_x: tl.int32,
    min_boxes: tl.int32,
    first_erased: tl.int32,
    # Colour matrices, float32 (batch, 3, 4), or None to draw them by the least and greatest factors, a tuple of
    # float32, which is None where no colour is drawn.
    colours,
    factors,
    # The images, as unsigned integers; strides in elements. Groups are of VECTOR pixels, or of VECTOR channels.
    images,
    out,
    images_sample: tl.int64,
    images_channel: tl.int64,
    images_row: tl.int64,
    images_pixel: tl.int64,
    out_sample: tl.int64,
    out_channel: tl.int64,
    out_row: tl.int64,
    out_pixel: tl.int64,
    groups: tl.int64,  # in a sample
    inner: tl.int64,  # groups of a row, or of a pixel
    inner_magic: tl.int32,
    inner_shift: tl.int32,
    middle: tl.int64,  # rows of a channel, or pixels of a row
    middle_magic: tl.int32,
    middle_shift: tl.int32,
    # The constants: rows mean, scale, erase and fill, of few channels by value.
    few,  # a tuple of float32
    wide,
    channels: tl.int32,
    # The targets; the values of smoothing are the bits of doubles.
    labels,
    targets,
    num_classes: tl.int32,
    scale: tl.int64,
    off: tl.int64,
    on: tl.int64,
    SAMPLED: tl.constexpr,  # whether the views are
    BOXES: tl.constexpr,  # erased boxes of a view: none, one or more
    ERASE_VALUE: tl.constexpr,
    ERASE_BEFORE: tl.constexpr,  # mixing
    GEOMETRY: tl.constexpr,  # whether a sample may be mirrored or shifted
    COLOURED: tl.constexpr,
    ONLY_CUTMIX: tl.constexpr,  # whether there can be no other kind
    ELEMENT: tl.constexpr,  # of the images
    OUT_ELEMENT: tl.constexpr,
    CHANNELS: tl.constexpr,  # up to 4, or 0 for more
    INTERLEAVED: tl.constexpr,  # whether the channels of a pixel of the output are side by side
    ALIKE: tl.constexpr,  # whether vectors of the input are those of the output
    VECTOR: tl.constexpr,  # elements
    BLOCK: tl.constexpr,  # groups at a time
    SPAN: tl.constexpr,  # groups in a chunk, an even number of blocks
    LARGE: tl.constexpr,  # whether places in a sample need 64 bits
    TARGET_BLOCK: tl.constexpr,  # columns in a chunk
):
    chunk = tl.program_id(0)
    index = sample_index()
    if index >= batch:
        return
    seed = seed_of(seed_low, seed_high, device_seed)

    # The view.
    choices = (translate_y, translate_x, min_boxes, boxes, first_erased)
    sampling = (aspects, parameters, choices, height, width)
    quadruples = boxes + 1
    if COLOURED:
        quadruples = boxes + 1 + QUADRUPLES_OF_COLOUR
    geometry, count, valid = view_of(views, sampling, seed, index, boxes, quadruples, SAMPLED, BOXES)
    if SAMPLED:  # noqa: SIM102 - known when compiling, unlike the chunk
        if chunk == 0:
            write_view(views, sampling, seed, index, boxes, quadruples, geometry, count, BOXES)
            if COLOURED:
                colour = colour_of(views, colours, factors, seed, index, boxes, quadruples, SAMPLED)
                write_colour(views, index, boxes, quadruples, colour)
    # The row of the plan, and the partner's, which says whether they are a pair.
    if plan is not None:
        if quantiles is not None:
            draw = (quantiles, bounds, scope, placement, correct_lam, height, width)
            mapping = partner_map(partner_rule, seed, batch)
            row = sample_row(draw, seed, index, partner_of(mapping, index, batch), ONLY_CUTMIX)
            if chunk == 0:
                write_row(plan, index, row)
        else:
            row, valid_own_row = given_row(plan, index, batch, height, width, True)
            valid = valid & valid_own_row
        partner = tl.where((row[0] >= 0) & (row[0] < batch), row[0], index)
        their_geometry, their_count, their_valid = view_of(
            views, sampling, seed, partner, boxes, quadruples, SAMPLED, BOXES
        )
        valid = valid & (their_valid | ~has_partner(row[3]))
        change = change_of(row, valid, height, width)
        together = index != index
        if not ONLY_CUTMIX:
            if quantiles is not None:
                back = partner_of(mapping, partner, batch)
                their_row = sample_row(draw, seed, partner, back, ONLY_CUTMIX)
            else:
                their_row, valid_row_of_theirs = given_row(plan, partner, batch, height, width, True)
                their_valid = their_valid & valid_row_of_theirs
            together = (index != partner) & (their_row[0] == index) & valid & their_valid
            together = together & (reads_own(row[3]) | reads_own(their_row[3]))
            their_change = change_of(their_row, their_valid, height, width)

    # The pixels.
    if images is not None:
        INDEX: tl.constexpr = tl.int64 if LARGE else tl.int32
        PARTS: tl.constexpr = CHANNELS if CHANNELS > 0 else 1
        # Where cutmix only chooses between pixels, and nothing was erased in them, what it chose is normalised once.
        CHOOSES_FIRST: tl.constexpr = ONLY_CUTMIX and not (ERASE_BEFORE and BOXES > 0)
        kind, _, box = change
        uses_partner = together | has_partner(kind)
        own_colour, their_colour = (), ()
        if COLOURED:
            own_colour = colour_of(views, colours, factors, seed, index, boxes, quadruples, SAMPLED)
            their_colour = colour_of(views, colours, factors, seed, partner, boxes, quadruples, SAMPLED)
        own_view = looked_at(
            (index, geometry, count, own_colour), valid, views, sampling, seed, quadruples, SAMPLED, BOXES
        )
        their_view = looked_at(
            (partner, their_geometry, their_count, their_colour), uses_partner, views, sampling, seed, quadruples,
            SAMPLED, BOXES,
        )  # fmt: skip
        own_images = images + index.to(tl.int64) * images_sample
        their_images = images + partner.to(tl.int64) * images_sample
        own_out = out + index.to(tl.int64) * out_sample
        their_out = out + partner.to(tl.int64) * out_sample
        strides = (images_channel.to(INDEX), images_row.to(INDEX), images_pixel.to(INDEX))
        packed = (views, sampling, quadruples)
        out_strides = (out_channel.to(INDEX), out_row.to(INDEX), out_pixel.to(INDEX))

        # The programs of a pair that is blended take half of the positions each: the first sample's the first half.
        span = tl.where(together, SPAN // 2, SPAN)
        half = tl.cdiv(groups, SPAN) * (SPAN // 2)
        first = chunk.to(tl.int64) * span + tl.where(together & (index > partner), half, 0)
        last = tl.where(together & (index < partner), tl.minimum(half, groups), groups)
        last = tl.minimum(first + span, last).to(INDEX)
        element = tl.arange(0, VECTOR)[None, :]
        for start in range(tl.minimum(first, last).to(INDEX), last, BLOCK):
            group = start + tl.arange(0, BLOCK)[:, None]
            if LARGE:
                line = group // inner
                outer = line // middle
            else:
                line = divided(group, inner_magic, inner_shift)
                outer = divided(line, middle_magic, middle_shift)
            position = (group - line * inner.to(INDEX)).to(tl.int32)
            place_in_outer = (line - outer * middle.to(INDEX)).to(tl.int32)
            mask = group < last
            rows = (0, height - 1)
            if CHANNELS > 0:
                y, x, channel = line.to(tl.int32), position * VECTOR, 0
                final = tl.minimum(start + BLOCK, last) - 1
                initial = tl.minimum(start, final)
                if LARGE:
                    rows = ((initial // inner).to(tl.int32), (final // inner).to(tl.int32))
                else:
                    rows = (divided(initial, inner_magic, inner_shift), divided(final, inner_magic, inner_shift))
            elif INTERLEAVED:
                y, x, channel = outer.to(tl.int32), place_in_outer, position * VECTOR
            else:
                y, x, channel = place_in_outer, position * VECTOR, outer.to(tl.int32)
            for part in tl.static_range(PARTS):
                first_channel = channel
                if CHANNELS > 0:
                    first_channel = part
                vector = (x, first_channel, part)
                steps, channel_of = position_of(vector, element, VECTOR, CHANNELS, INTERLEAVED)
                mean, scale_of, erased, fill = constants_of(few, wide, channels, channel_of, mask, CHANNELS)
                place = (rows, y, x, steps, channel_of)
                needs = (together | reads_own(kind) | (kind == KEEP), box, False)
                own = seen(
                    own_images, own_view, place, vector, strides, mask, needs, height, width, COLOURED,
                    ELEMENT, VECTOR, CHANNELS, INTERLEAVED, ALIKE, GEOMETRY, INDEX,
                )  # fmt: skip
                if not CHOOSES_FIRST:
                    own = normalized(own, mean, scale_of)
                    if ERASE_BEFORE:
                        own = erase(own, own_view, packed, seed, place, erased, SAMPLED, BOXES, ERASE_VALUE)
                offset = elements_of(place, vector, out_strides, VECTOR, CHANNELS, INTERLEAVED, INDEX)
                values = own
                if together | (has_partner(kind) & meets(box, rows)):
                    needs = (together, box, True)
                    theirs = seen(
                        their_images, their_view, place, vector, strides, mask, needs, height, width, COLOURED,
                        ELEMENT, VECTOR, CHANNELS, INTERLEAVED, ALIKE, GEOMETRY, INDEX,
                    )  # fmt: skip
                    if not CHOOSES_FIRST:
                        theirs = normalized(theirs, mean, scale_of)
                        if ERASE_BEFORE:
                            theirs = erase(theirs, their_view, packed, seed, place, erased, SAMPLED, BOXES, ERASE_VALUE)
                    values = mixed(change, own, theirs, place, ONLY_CUTMIX)
                    if not ONLY_CUTMIX:  # noqa: SIM102 - known when compiling, unlike the plan
                        if together:
                            other = mixed(their_change, theirs, own, place, ONLY_CUTMIX)
                            other = changed_alone(other, their_change, place, fill, ONLY_CUTMIX)
                            if not ERASE_BEFORE:
                                other = erase(
                                    other, their_view, packed, seed, place, erased, SAMPLED, BOXES, ERASE_VALUE
                                )
                            store_values(their_out, offset, other, mask, VECTOR, OUT_ELEMENT)
                if CHOOSES_FIRST:
                    values = normalized(values, mean, scale_of)
                values = changed_alone(values, change, place, fill, ONLY_CUTMIX)
                if not ERASE_BEFORE:
                    values = erase(values, own_view, packed, seed, place, erased, SAMPLED, BOXES, ERASE_VALUE)
                store_values(own_out, offset, values, mask, VECTOR, OUT_ELEMENT)

    # The targets.
    if targets is not None:
        write_targets(labels, targets, num_classes, scale, off, on, index, row, valid, chunk, TARGET_BLOCK)
