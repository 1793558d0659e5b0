"""The kernel.

**One launch an op, one kernel.** A program owns one sample and one chunk of its pixels. It finds the sample's row of
the plan (draws it, or reads a given plan), moves its chunk of pixels, writes its chunk of the targets' row, and, being
the first of the sample, writes the row of the plan. Nothing passes from program to program.

    grid = (chunks of a sample, samples, samples / 65535)     no division to find one's place; any batch size

**Pixels are bytes, in vectors,** until mixup blends them. A row of pixels (see rows.py) is a number of vectors of WIDTH
bytes, the widest of 16, 8, 4, 2 and 1 that addresses, strides and row length allow. A wide vector is one line of a
(LANES, WORDS) block, so that a thread holds all its words and loads and stores them with one instruction.

**Every lane stays in its column** of vectors and goes down the rows, so that what a box means for it (inside, outside,
which bytes of the vector on the edge: a number of WIDTH bits) is found once, as is its place, by the only divisions.
The lanes of a program stand on as many whole lines, the columns of a chunk of a row, as find place; the programs of a
chunk take turns on all lines of the sample, slice after slice:

                columns of a chunk
             0   1   2   3   4   5   6
           +---+---+---+---+---+---+---+
    line 0 | 0 | 1 | 2 | 3 | 4 | 5 | 6 |   the lanes of part 0 on their first lines,
         1 | 7 | 8 | 9 |10 |11 |12 |13 |
         2 | 0 | 1 | 2 | 3 | 4 | 5 | 6 |   of part 1,
         3 | 7 | 8 | 9 |10 |11 |12 |13 |
         4 | 0 | 1 | 2 | 3 | 4 | 5 | 6 |   and of part 0 again, where there are two
           ...

At a time a lane goes through ROWS of its lines: it reads all of them before it writes the first.

**Kinds.** A sample has one, so that all threads of its program go the same way. In its box cutmix takes the words of
the partner, and cutout those of the fill, by a select. The box of mixup is the image: words are taken apart into
elements, blended and put together again (see values.py), which programs of other samples jump over.

**In place** lines and columns are those that hold both boxes of a pair, and no others are visited. The programs of one
sample begin with the first lines, those of its partner with the next; a sample that is its own partner has its own
alone. The lane that owns a position owns it in both samples: it reads what either needs of the other, then writes.
Nobody else touches these two vectors, which is why those on the edge of a box are written whole, with the bytes outside
as they were.

**Specialisations.** Sizes, strides, seeds and the options of sampling are run-time arguments, none of them specialised
on: a new batch size compiles nothing. What is compiled for: in place or not, a plan sampled or given, the constants at
the end of the kernel's parameters (they follow from the shape of an image, its layout, element size and alignment, and
the number of classes), the dtypes of labels and targets, and whether the seed is on the device; also whether there may
be other kinds than cutmix, and then for the dtype of the images, if mixup can blend it. Where only cutmix can be drawn,
the other kinds cost nothing; a given plan may hold any. A training run on images of one shape and one choice of kinds
compiles one kernel, or two if it captures CUDA graphs, for which the seed is on the device.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .kinds import KEEP, changed, has_box, has_partner, mixes_target, reads_own
from .mix_math import partner_map, partner_of, sample_row, valid_row
from .values import bfloat16_to_float, float_to_bfloat16, mixed_value

BEHIND = tl.constexpr(2**31 - 1)  # every row, and as far as 32 bits count every byte


@triton.jit
def sample_index():
    """The sample of a program, which there may not be: the grid's last layer need not be full."""
    return tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)


@triton.jit
def seed_of(seed_low, seed_high, device_seed):
    """The seed, of two words by value or on the device."""
    if device_seed is not None:
        return tl.load(device_seed)
    else:
        return (seed_high.to(tl.int64) << 32) | (seed_low.to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def given_row(plan, index, batch, height, width, can_blend):
    """A row of a given plan, and whether it may be followed."""
    row = plan + index.to(tl.int64) * 8
    box = (tl.load(row + 1), tl.load(row + 2), tl.load(row + 3), tl.load(row + 4))
    given = tl.load(row), box, tl.load(row + 5).to(tl.float32, bitcast=True), tl.load(row + 6)
    return given, valid_row(given, batch, height, width, can_blend)


@triton.jit
def write_row(plan, index, row):
    """Writes a row of the plan."""
    partner, box, lam, kind = row
    column = tl.arange(0, 8)
    value = tl.where(column == 0, partner, 0)
    value = tl.where(column == 1, box[0], value)
    value = tl.where(column == 2, box[1], value)
    value = tl.where(column == 3, box[2], value)
    value = tl.where(column == 4, box[3], value)
    value = tl.where(column == 5, lam.to(tl.int32, bitcast=True), value)
    value = tl.where(column == 6, kind, value)
    tl.store(plan + index.to(tl.int64) * 8 + column, value)


@triton.jit
def region_of(change, pixel_bytes):
    """The rows that a change reaches, and the bytes of each. Where nothing changes, beginnings are behind everything
    and ends before it, so that a union with another region is the other."""
    kind, _, box = change
    y0, x0, y1, x1 = box
    none = kind == KEEP
    begin, end = x0 * pixel_bytes, x1 * pixel_bytes
    return tl.where(none, BEHIND, y0), tl.where(none, 0, y1), tl.where(none, BEHIND, begin), tl.where(none, 0, end)


@triton.jit
def column_of(region, position, WIDTH: tl.constexpr, GRANULE: tl.constexpr):
    """What a region means for vectors at byte `position` of any row: its first row, in how many rows from there on any
    of their bytes are inside, and which: bit k for byte k."""
    y0, y1, begin, end = region
    if GRANULE == WIDTH:
        bits = tl.where((position >= begin) & (position < end), (1 << WIDTH) - 1, 0)
    else:
        begin = tl.minimum(tl.maximum(begin - position, 0), WIDTH).to(tl.int32)
        end = tl.maximum(tl.minimum(end - position, WIDTH).to(tl.int32), begin)
        bits = (1 << end) - (1 << begin)
    return y0, tl.where(bits != 0, y1 - y0, 0).to(tl.uint32, bitcast=True), bits


@triton.jit
def is_inside(y, first, rows):
    """Whether rows y are among so many from the first on."""
    return (y - first).to(tl.uint32, bitcast=True) < rows


@triton.jit
def word_pointers(vectors, WIDTH: tl.constexpr):
    """The words of vectors at byte addresses, side by side, aligned for one access a vector."""
    WORD: tl.constexpr = tl.uint8 if WIDTH == 1 else tl.uint16 if WIDTH == 2 else tl.uint32
    words = vectors.to(tl.pointer_type(WORD), bitcast=True)
    return tl.multiple_of(words + tl.arange(0, WIDTH // 4 if WIDTH >= 4 else 1)[None, :], (1, WIDTH))


@triton.jit
def chosen(bits, inside, outside, WIDTH: tl.constexpr, GRANULE: tl.constexpr):
    """The bytes of `inside` where bits are set, else those of `outside`, for the words of each vector."""
    word = tl.arange(0, WIDTH // 4 if WIDTH >= 4 else 1)[None, :]
    if GRANULE == WIDTH:
        return tl.where(bits != 0, inside, outside)
    elif GRANULE == 4:
        return tl.where(((bits >> (4 * word)) & 1) != 0, inside, outside)
    else:
        nibble = ((bits >> (4 * word)) & 0xF).to(tl.uint32)
        # Four copies of the nibble, 7 bits apart, bring bit k to bit 8 * k; times 255 each fills its byte.
        mask = (((nibble * 0x00204081) & 0x01010101) * 0xFF).to(inside.dtype)
        return outside ^ ((inside ^ outside) & mask)


@triton.jit
def fill_words(low, high, position, WIDTH: tl.constexpr):
    """The words of vectors at byte `position` of a row filled with 16 bytes over and over."""
    WORD: tl.constexpr = tl.uint8 if WIDTH == 1 else tl.uint16 if WIDTH == 2 else tl.uint32
    word = tl.arange(0, WIDTH // 4 if WIDTH >= 4 else 1)[None, :]
    bit = (8 * position.to(tl.int32) + 32 * word) & 127
    return (tl.where(bit < 64, low, high) >> (bit & 63)).to(WORD)


@triton.jit
def change_of(row, valid, height, width):
    """What becomes of a sample's pixels: a kind, its lam, and the box that it changes, or the whole image."""
    _, box, lam, kind = row
    y0, x0, y1, x1 = box
    kind = tl.where(valid, kind, KEEP)
    everywhere = (kind != KEEP) & ~has_box(kind)
    y0, x0 = tl.where(everywhere, 0, y0), tl.where(everywhere, 0, x0)
    y1, x1 = tl.where(everywhere, height, y1), tl.where(everywhere, width, x1)
    return kind, lam, (y0, x0, y1, x1)


@triton.jit
def next_row(place, walk, EVEN: tl.constexpr):
    """A thread's next vector: its line among those of the region, its row, and its addresses in images and out."""
    line, y, own, out = place
    stride, step_y, y1, region_height, step, wrapped_step, out_step, wrapped_out_step = walk
    y += step_y
    before = y - region_height
    if EVEN:  # and the region begins in row 0: as an unsigned integer, a row before that is the larger one
        y = tl.minimum(y.to(tl.uint32, bitcast=True), before.to(tl.uint32, bitcast=True)).to(tl.int32, bitcast=True)
        return line + stride, y, own + step, out + out_step
    else:
        past = y >= y1  # and so in the next slice
        y = tl.where(past, before, y)
        return (
            line + stride,
            y,
            own + tl.where(past, wrapped_step, step),
            out + tl.where(past, wrapped_out_step, out_step),
        )


@triton.jit
def paste_rows(
    place, walk, lines, to_partner, change, column, fill,
    WIDTH: tl.constexpr, GRANULE: tl.constexpr, ELEMENT: tl.constexpr, EVEN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Copies a sample's vectors, with the bytes in its box changed, and returns the place of the next: each is read
    from whoever owns it, and from both where an edge of the box crosses it."""
    ALL: tl.constexpr = (1 << WIDTH) - 1
    line, y, own, out = place
    kind, lam, _ = change
    y0, rows, bits = column
    mask = line < lines
    inside = is_inside(y, y0, rows)
    replaced = is_inside(y, y0, tl.where((bits == ALL) & ~reads_own(kind), rows, 0))
    own_words = tl.load(word_pointers(own, WIDTH), mask=mask & ~replaced)
    their_mask = mask & inside
    if fill is not None:  # there are other kinds than cutmix
        their_mask = their_mask & has_partner(kind)
    their_words = tl.load(word_pointers(own + to_partner, WIDTH), mask=their_mask)
    following = next_row(place, walk, EVEN)
    if ROWS > 1:
        following = paste_rows(
            following, walk, lines, to_partner, change, column, fill, WIDTH, GRANULE, ELEMENT, EVEN, ROWS - 1
        )
    words = changed(kind, lam, own_words, their_words, fill, ELEMENT)
    words = tl.where(inside, chosen(bits, words, own_words, WIDTH, GRANULE), own_words)
    tl.store(word_pointers(out, WIDTH), words, mask=mask)
    return following


@triton.jit
def exchange_rows(
    place, walk, lines, to_partner, changes, columns, fill,
    WIDTH: tl.constexpr, GRANULE: tl.constexpr, ELEMENT: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Changes a pair's vectors, each by what the other was, and returns the place of the next: both are read, then
    written, by one thread."""
    ALL: tl.constexpr = (1 << WIDTH) - 1
    line, y, own, _ = place
    own_kind, own_lam, _ = changes[0]
    their_kind, their_lam, _ = changes[1]
    own_y0, own_rows, own_bits = columns[0]
    their_y0, their_rows, their_bits = columns[1]
    mask = line < lines
    own_inside, their_inside = mask & is_inside(y, own_y0, own_rows), mask & is_inside(y, their_y0, their_rows)
    own_mask, their_mask = own_inside & (own_bits != ALL), their_inside & (their_bits != ALL)
    if fill is None:  # no kind but cutmix: to look at the kinds would cost registers
        own_mask, their_mask = own_mask | their_inside, their_mask | own_inside
    else:
        own_mask = own_mask | (own_inside & reads_own(own_kind)) | (their_inside & has_partner(their_kind))
        their_mask = their_mask | (their_inside & reads_own(their_kind)) | (own_inside & has_partner(own_kind))
    own_words = tl.load(word_pointers(own, WIDTH), mask=own_mask)
    # own + to_partner is written out at each use: a bug in the compiler of Triton 3.6 takes no name for it.
    their_words = tl.load(word_pointers(own + to_partner, WIDTH), mask=their_mask)
    following = next_row(place, walk, False)
    if ROWS > 1:
        following = exchange_rows(
            following, walk, lines, to_partner, changes, columns, fill, WIDTH, GRANULE, ELEMENT, ROWS - 1
        )
    own_new = changed(own_kind, own_lam, own_words, their_words, fill, ELEMENT)
    their_new = changed(their_kind, their_lam, their_words, own_words, fill, ELEMENT)
    tl.store(word_pointers(own, WIDTH), chosen(own_bits, own_new, own_words, WIDTH, GRANULE), mask=own_inside)
    tl.store(
        word_pointers(own + to_partner, WIDTH),
        chosen(their_bits, their_new, their_words, WIDTH, GRANULE),
        mask=their_inside,
    )
    return following


@triton.jit
def load_class(labels, index, num_classes, valid):
    """The class of a sample; -1 where it is outside 0..num_classes-1. Mirrors targets.h::load_class."""
    label = tl.load(labels + index, mask=valid, other=0).to(tl.int64)  # past 2^63 it reads as negative
    return tl.where(valid & (label >= 0) & (label < num_classes), label, -1)


@triton.jit
def load_labels(labels, mask, VALUE: tl.constexpr):
    """Soft labels as what they are mixed in. Mirrors values.h::load_value."""
    values = tl.load(labels, mask=mask, other=0)
    if labels.dtype.element_ty == tl.bfloat16:
        return bfloat16_to_float(values.to(tl.uint16, bitcast=True)).to(VALUE)
    else:
        return values.to(VALUE)


@triton.jit
def write_targets(
    labels, targets, num_classes, scale, off, on, index, row, valid, chunk, BLOCK: tl.constexpr
):  # fmt: skip
    """Writes a chunk of a sample's target. Mirrors targets.h::target_row and targets.h::target_value."""
    VALUE: tl.constexpr = tl.float64 if targets.dtype.element_ty == tl.float64 else tl.float32
    partner, _, lam, kind = row
    keep = ~mixes_target(kind)
    index = index.to(tl.int64)
    partner = tl.where(valid & ~keep, partner, index)
    off = off.to(tl.int64).to(tl.float64, bitcast=True).to(VALUE)
    column = chunk.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # of a chunk of many pixels it may be past 2^31
    inside = column < num_classes
    if labels.dtype.element_ty.is_floating():
        scale = scale.to(tl.int64).to(tl.float64, bitcast=True).to(VALUE)
        own = load_labels(labels + index * num_classes + column, inside & valid, VALUE) * scale + off
        other = load_labels(labels + partner * num_classes + column, inside & valid, VALUE) * scale + off
    else:
        on = on.to(tl.int64).to(tl.float64, bitcast=True).to(VALUE)
        own_class = load_class(labels, index, num_classes, valid)
        partner_class = load_class(labels, partner, num_classes, valid)
        valid = (own_class >= 0) & (partner_class >= 0)
        own = tl.where(column == own_class, on, off)
        other = tl.where(column == partner_class, on, off)
    value = tl.where(keep, own, mixed_value(lam, own, other))
    value = tl.where(valid, value, float("nan"))
    if targets.dtype.element_ty == tl.bfloat16:
        value = float_to_bfloat16(value).to(tl.bfloat16, bitcast=True)
    else:
        value = value.to(targets.dtype.element_ty)
    tl.store(targets + index * num_classes + column, value, mask=inside)


PLAN_ARGUMENTS = [
    *("plan", "quantiles", "scope", "partner_rule", "placement", "correct_lam"),
    *("seed_low", "seed_high", "device_seed", "batch", "height", "width"),
]
TARGET_ARGUMENTS = ["labels", "targets", "num_classes", "scale", "off", "on"]
RUN_TIME = [
    *PLAN_ARGUMENTS,
    *("images", "out", "images_sample", "images_slice", "images_row", "out_sample", "out_slice", "out_row"),
    *("slices", "row_vectors", "columns", "parts", "pixel_bytes"),
    *("fill_low", "fill_high"),
    *TARGET_ARGUMENTS,
]


@triton.jit(do_not_specialize=RUN_TIME)
def mix_kernel(
    # The plan: int32 (batch, 8), written where there are quantiles to sample it by, else read.
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
    # The images as bytes.
    images,
    out,
    images_sample: tl.int64,
    images_slice: tl.int64,
    images_row: tl.int64,
    out_sample: tl.int64,
    out_slice: tl.int64,
    out_row: tl.int64,
    slices: tl.int64,  # of a sample
    row_vectors: tl.int64,
    columns: tl.int32,  # of a chunk
    parts: tl.int32,  # of a chunk
    pixel_bytes: tl.int64,
    fill_low: tl.int64,
    fill_high: tl.int64,
    # The targets; the values of smoothing are the bits of doubles.
    labels,
    targets,
    num_classes: tl.int32,
    scale: tl.int64,
    off: tl.int64,
    on: tl.int64,
    IN_PLACE: tl.constexpr,
    ONLY_CUTMIX: tl.constexpr,  # whether there can be no other kind
    ELEMENT: tl.constexpr,  # what mixup blends; None where it cannot
    WIDTH: tl.constexpr,  # bytes in a vector
    GRANULE: tl.constexpr,  # bytes that are always of one sample
    LANES: tl.constexpr,  # vectors at a time
    ROWS: tl.constexpr,  # that a thread goes through at a time
    EVEN: tl.constexpr,  # whether all rows of a sample are evenly spaced
    LARGE: tl.constexpr,  # whether lines of a sample or bytes of a row need 64 bits
    TARGET_BLOCK: tl.constexpr,  # columns in a chunk
):
    chunk = tl.program_id(0)
    index = sample_index()
    if index >= batch:
        return

    # The row of the plan.
    if quantiles is not None:
        draw = (quantiles, bounds, scope, placement, correct_lam, height, width)
        seed = seed_of(seed_low, seed_high, device_seed)
        mapping = partner_map(partner_rule, seed, batch)
        row = sample_row(draw, seed, index, partner_of(mapping, index, batch), ONLY_CUTMIX)
        valid = batch > 0
        if chunk == 0:
            write_row(plan, index, row)
    else:
        row, valid = given_row(plan, index, batch, height, width, ELEMENT is not None)
    partner = row[0]

    # In place, the other row of the pair: both of its samples see it alike.
    if IN_PLACE:
        there = (partner >= 0) & (partner < batch)
        partner = tl.where(there, partner, index)
        if quantiles is not None:
            other_row = sample_row(draw, seed, partner, index, ONLY_CUTMIX)
            other_valid = valid
        else:
            other_row, other_valid = given_row(plan, partner, batch, height, width, ELEMENT is not None)
        paired = there & (other_row[0] == index)
        valid, other_valid = valid & paired, other_valid & paired & (partner != index)  # a self-paired one changes once

    # The pixels.
    if images is not None:
        INDEX: tl.constexpr = tl.int64 if LARGE else tl.int32
        chunk_of_row, part = chunk // parts, chunk % parts
        pixel_bytes = pixel_bytes.to(INDEX)
        change = change_of(row, valid, height, width)
        region = region_of(change, pixel_bytes)
        if IN_PLACE:
            # What changes in either sample.
            other_change = change_of(other_row, other_valid, height, width)
            other_region = region_of(other_change, pixel_bytes)
            y0, y1 = tl.minimum(region[0], other_region[0]), tl.maximum(region[1], other_region[1])
            begin, end = tl.minimum(region[2], other_region[2]), tl.maximum(region[3], other_region[3])
            part = tl.where(index > partner, parts + part, part)
            parts = tl.where(index == partner, parts, 2 * parts)
        else:
            y0, y1, begin, end = 0, height, pixel_bytes - pixel_bytes, width * pixel_bytes
            partner = tl.where(change[0] != KEEP, partner, index)
        # Past all chunks there may be those of the targets.
        chunk_begin = tl.minimum(chunk_of_row.to(tl.int64) * columns, row_vectors).to(INDEX)
        first = tl.maximum(begin // WIDTH, chunk_begin)
        last = tl.minimum((end + (WIDTH - 1)) // WIDTH, chunk_begin + columns)
        region_height = y1 - y0
        lines = tl.where((first < last) & (y0 < y1), slices.to(INDEX) * region_height, 0)
        region_height = tl.maximum(region_height, 1)
        region_columns = tl.maximum(last - first, 1).to(tl.int32)

        # Where a lane begins, and how it goes on.
        lane = tl.arange(0, LANES)[:, None]
        lines_at_once = LANES // region_columns
        line_of_lane = lane // region_columns
        position = (first + (lane - line_of_lane * region_columns)) * WIDTH
        line = part.to(INDEX) * lines_at_once + line_of_lane
        line_slice = line // region_height
        y = y0 + (line - line_slice * region_height).to(tl.int32)
        line = tl.where(line_of_lane < lines_at_once, line, lines)
        stride = parts.to(INDEX) * lines_at_once
        step_slices = stride // region_height
        step_y = (stride - step_slices * region_height).to(tl.int32)
        images_row, images_slice = images_row.to(tl.int64), images_slice.to(tl.int64)
        own = images + index.to(tl.int64) * images_sample
        own += line_slice * images_slice + y * images_row + position
        to_partner = (partner - index).to(tl.int64) * images_sample
        step = step_slices * images_slice + step_y * images_row
        wrapped_step = step + images_slice - region_height * images_row
        column = column_of(region, position, WIDTH, GRANULE)
        fill = None
        if not ONLY_CUTMIX:
            fill = fill_words(fill_low.to(tl.int64), fill_high.to(tl.int64), position, WIDTH)
        if IN_PLACE:
            walk = (stride, step_y, y1, region_height, step, wrapped_step, 0, 0)
            other_column = column_of(other_region, position, WIDTH, GRANULE)
            for _ in range(part.to(INDEX) * lines_at_once, lines, ROWS * stride):
                line, y, own, _ = exchange_rows(
                    (line, y, own, 0), walk, lines, to_partner, (change, other_change), (column, other_column), fill,
                    WIDTH, GRANULE, ELEMENT, ROWS,
                )  # fmt: skip
        else:
            out_row, out_slice = out_row.to(tl.int64), out_slice.to(tl.int64)
            destination = out + index.to(tl.int64) * out_sample
            destination += line_slice * out_slice + y * out_row + position
            out_step = step_slices * out_slice + step_y * out_row
            wrapped_out_step = out_step + out_slice - region_height * out_row
            walk = (stride, step_y, y1, region_height, step, wrapped_step, out_step, wrapped_out_step)
            for _ in range(part.to(INDEX) * lines_at_once, lines, ROWS * stride):
                line, y, own, destination = paste_rows(
                    (line, y, own, destination), walk, lines, to_partner, change, column, fill,
                    WIDTH, GRANULE, ELEMENT, EVEN, ROWS,
                )  # fmt: skip

    # The targets.
    if targets is not None:
        write_targets(labels, targets, num_classes, scale, off, on, index, row, valid, chunk, TARGET_BLOCK)
