"""The kernel.

**One launch an op, one kernel.** A program owns one sample and one chunk of its pixels. It finds the sample's row of
the plan (draws it, or reads a given plan), moves its chunk of pixels, writes its chunk of the targets' row, and, being
the first of the sample, writes the row of the plan. Nothing passes from program to program.

    grid = (chunks of a sample, samples, samples / 65535)     no division to find one's place; any batch size

**Pixels are bytes, in vectors,** until mixup blends them. A row of pixels (see rows.py) is a number of vectors of WIDTH
bytes, the widest of 16, 8, 4, 2 and 1 that addresses, strides and row length allow. Vectors of a sample are counted
through; two divisions by multiplication give slice, row and place in the row. A wide vector is one line of a
(BLOCK, WORDS) block, so that a thread holds all its words and loads and stores them with one instruction. Vectors of
one word are found in groups, side by side in a row: a line of a (BLOCK, GROUP) block. Which bytes of a vector lie in
the box is a number of WIDTH bits.

**Kinds.** A sample has one, so that all threads of its program go the same way. In its box cutmix takes the words of
the partner, and cutout those of the fill, by a select. The box of mixup is the image: words are taken apart into
elements, blended and put together again (see values.py), which programs of other samples jump over.

**In place** the programs of a sample take half of its positions, those of its partner the other half; a sample that is
its own partner takes both. The thread that owns a position owns it in both samples: it reads what either needs of the
other, then writes, and writes nothing outside of the boxes. Bytes, where the edge of a box lies within a word, are
stored one by one.

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


@triton.jit
def divided(number, magic, shift):
    """number / divisor for numbers below 2^30; magic and shift are those of `divider`."""
    return ((number.to(tl.int64) * magic) >> shift).to(tl.int32)


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
def bits_in_box(y, position, box, pixel_bytes, mask, WIDTH: tl.constexpr, GRANULE: tl.constexpr):
    """Which bytes of the vector at byte `position` of row y lie in a box: bit k for byte k; none without mask."""
    y0, x0, y1, x1 = box
    begin, end = x0 * pixel_bytes, x1 * pixel_bytes
    in_rows = mask & (y >= y0) & (y < y1)
    if GRANULE == WIDTH:
        return tl.where(in_rows & (position >= begin) & (position < end), (1 << WIDTH) - 1, 0)
    else:
        begin = tl.minimum(tl.maximum(begin - position, 0), WIDTH).to(tl.int32)
        end = tl.minimum(tl.maximum(end - position, 0), WIDTH).to(tl.int32)
        return tl.where(in_rows, (1 << end) - (1 << begin), 0)


@triton.jit
def word_pointers(vectors, WIDTH: tl.constexpr):
    """The words of each vector, side by side, aligned for one access a vector."""
    WORDS: tl.constexpr = WIDTH // 4 if WIDTH >= 4 else 1
    return tl.multiple_of(vectors + tl.arange(0, WORDS)[None, :], (1, WIDTH))


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
def fill_words(low, high, position, WIDTH: tl.constexpr, WORD: tl.constexpr):
    """The words of vectors at byte `position` of a row filled with 16 bytes over and over."""
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
def paste(sources, out, change, bits, mask, fill, WIDTH: tl.constexpr, GRANULE: tl.constexpr, ELEMENT: tl.constexpr):
    """Copies a sample's vectors, with the bytes whose bits are set changed: each is read from whoever owns it, and from
    both where an edge of the box crosses it."""
    ALL: tl.constexpr = (1 << WIDTH) - 1
    own, theirs = sources
    kind, lam, _ = change
    own_words = tl.load(word_pointers(own, WIDTH), mask=mask & ((bits != ALL) | reads_own(kind)))
    their_words = tl.load(word_pointers(theirs, WIDTH), mask=(bits != 0) & has_partner(kind))
    words = changed(kind, lam, own_words, their_words, fill, ELEMENT)
    tl.store(word_pointers(out, WIDTH), chosen(bits, words, own_words, WIDTH, GRANULE), mask=mask)


@triton.jit
def store_bytes(vectors, words, bits, BLOCK: tl.constexpr, WIDTH: tl.constexpr, GRANULE: tl.constexpr):
    """Stores the bytes of vectors whose bits are set, and touches no other."""
    ALL: tl.constexpr = (1 << WIDTH) - 1
    tl.store(word_pointers(vectors, WIDTH), words, mask=bits == ALL)
    if GRANULE < WIDTH:
        # The vectors that an edge of the box crosses, granule by granule. Word and granule pointers are both aligned as
        # a vector, so Triton lays both blocks out alike: the thread that loaded a vector stores it.
        granule = tl.arange(0, WIDTH // GRANULE)[None, :]
        if GRANULE < 4:
            UNIT: tl.constexpr = tl.uint8 if GRANULE == 1 else tl.uint16
            part = tl.arange(0, 4 // GRANULE)[None, None, :]
            vectors = vectors.to(tl.pointer_type(UNIT))
            words = (words[:, :, None] >> (8 * GRANULE * part)).to(UNIT).reshape(BLOCK, WIDTH // GRANULE)
        marked = ((bits >> (GRANULE * granule)) & 1) != 0
        tl.store(tl.multiple_of(vectors + granule, (1, WIDTH)), words, mask=marked & (bits != ALL))


@triton.jit
def exchange(
    samples, changes, bits, fill,
    BLOCK: tl.constexpr, WIDTH: tl.constexpr, GRANULE: tl.constexpr, ELEMENT: tl.constexpr,
):  # fmt: skip
    """Changes the bytes of a pair's vectors whose bits are set, each by what the other was: all are read, then written,
    by one thread."""
    own, theirs = samples
    own_bits, their_bits = bits
    own_kind, own_lam, _ = changes[0]
    their_kind, their_lam, _ = changes[1]
    if fill is None:  # no kind but cutmix: to look at the kinds would cost registers
        own_mask, their_mask = their_bits != 0, own_bits != 0
    else:
        own_mask = ((their_bits != 0) & has_partner(their_kind)) | ((own_bits != 0) & reads_own(own_kind))
        their_mask = ((own_bits != 0) & has_partner(own_kind)) | ((their_bits != 0) & reads_own(their_kind))
    own_words = tl.load(word_pointers(own, WIDTH), mask=own_mask)
    their_words = tl.load(word_pointers(theirs, WIDTH), mask=their_mask)
    own_new = changed(own_kind, own_lam, own_words, their_words, fill, ELEMENT)
    their_new = changed(their_kind, their_lam, their_words, own_words, fill, ELEMENT)
    store_bytes(own, own_new, own_bits, BLOCK, WIDTH, GRANULE)
    store_bytes(theirs, their_new, their_bits, BLOCK, WIDTH, GRANULE)


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
    *("groups", "row_groups", "row_magic", "row_shift", "height_magic", "height_shift", "pixel_bytes"),
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
    # The images as vectors: pointers to words, strides in vectors.
    images,
    out,
    images_sample: tl.int64,
    images_slice: tl.int64,
    images_row: tl.int64,
    out_sample: tl.int64,
    out_slice: tl.int64,
    out_row: tl.int64,
    groups: tl.int64,  # in a sample
    row_groups: tl.int64,
    row_magic: tl.int32,
    row_shift: tl.int32,
    height_magic: tl.int32,
    height_shift: tl.int32,
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
    GROUP: tl.constexpr,  # vectors, side by side in a row, that are found together; 1 if they have several words
    BLOCK: tl.constexpr,  # groups at a time
    SPAN: tl.constexpr,  # groups in a chunk
    LARGE: tl.constexpr,  # whether places in a sample need 64 bits
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
        WORDS: tl.constexpr = WIDTH // 4 if WIDTH >= 4 else 1
        pixel_bytes = pixel_bytes.to(INDEX)
        change = change_of(row, valid, height, width)
        changes = change[0] != KEEP
        fill_low, fill_high = fill_low.to(tl.int64), fill_high.to(tl.int64)
        span = SPAN
        first = chunk.to(tl.int64) * SPAN
        last = groups
        if IN_PLACE:
            # The first sample's programs take the first half of the positions, the second sample's the rest.
            half = tl.cdiv(groups, 2 * SPAN) * SPAN
            if not ONLY_CUTMIX:  # those of a sample that is its own partner, alone, take twice as many: all
                span = tl.where(index == partner, 2 * SPAN, SPAN)
            first = chunk.to(tl.int64) * span + tl.where(index > partner, half, 0)
            last = tl.where(index < partner, tl.minimum(half, groups), groups)
            other_change = change_of(other_row, other_valid, height, width)
            other_changes = other_change[0] != KEEP
            last = tl.where(changes | other_changes, last, 0)
        else:
            partner = tl.where(changes, partner, index)
        own = images + index.to(tl.int64) * images_sample * WORDS
        theirs = images + partner.to(tl.int64) * images_sample * WORDS
        last = tl.minimum(first + span, last).to(INDEX)
        for start in range(tl.minimum(first, last).to(INDEX), last, BLOCK):
            group = start + tl.arange(0, BLOCK)[:, None]
            if LARGE:
                line = group // row_groups
                plane = line // height
            else:
                line = divided(group, row_magic, row_shift)
                plane = divided(line, height_magic, height_shift)
            y = line - plane * height
            x = (group - line * row_groups.to(INDEX)) * GROUP + tl.arange(0, GROUP)[None, :]
            inside = (group < last) & (x * WIDTH < width * pixel_bytes)
            offset = (plane * images_slice.to(INDEX) + y * images_row.to(INDEX)) * WORDS + x * WORDS
            fill = None
            if not ONLY_CUTMIX:
                fill = fill_words(fill_low, fill_high, x * WIDTH, WIDTH, images.dtype.element_ty)
            bits = bits_in_box(y, x * WIDTH, change[2], pixel_bytes, inside & changes, WIDTH, GRANULE)
            if IN_PLACE:
                other_box, other_mask = other_change[2], inside & other_changes
                other_bits = bits_in_box(y, x * WIDTH, other_box, pixel_bytes, other_mask, WIDTH, GRANULE)
                samples = (own + offset, theirs + offset)
                exchange(samples, (change, other_change), (bits, other_bits), fill, BLOCK, WIDTH, GRANULE, ELEMENT)
            else:
                out_offset = (plane * out_slice.to(INDEX) + y * out_row.to(INDEX)) * WORDS + x * WORDS
                destination = out + index.to(tl.int64) * out_sample * WORDS + out_offset
                sources = (own + offset, theirs + offset)
                paste(sources, destination, change, bits, inside, fill, WIDTH, GRANULE, ELEMENT)

    # The targets.
    if targets is not None:
        write_targets(labels, targets, num_classes, scale, off, on, index, row, valid, chunk, TARGET_BLOCK)
