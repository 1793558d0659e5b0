"""The kernel and its launches.

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

**Sizes.** A program has 128 threads. At a time each takes 4 wide vectors, so that 64 bytes are under way for a thread
and 128 KiB for a full multiprocessor; an H100 needs 18 KiB to hide its latency (25 GB/s, the share of one of its
multiprocessors, times 700 ns). They go on until 16 KiB are moved, for every thread works out the row of the plan for
itself: some 350 instructions, 45 for each of 8 vectors, beside the 70 to 80 that a vector takes. (Of the time that an
H100's memory takes to read and write a vector, 280 instructions of one thread are the equivalent.) A sample smaller
than that gets one program, of fewer threads.

**Specialisations.** Sizes, strides, seeds and the options of sampling are run-time arguments, none of them specialised
on: a new batch size compiles nothing. What is compiled for: in place or not, a plan sampled or given, the constants at
the end of the kernel's parameters (they follow from the shape of an image, its layout, element size and alignment, and
the number of classes), the dtypes of labels and targets, and whether the seed is on the device; also whether there may
be other kinds than cutmix, and then for the dtype of the images, if mixup can blend it. Where only cutmix can be drawn,
the other kinds cost nothing; a given plan may hold any. A training run on images of one shape and one choice of kinds
compiles one kernel, or two if it captures CUDA graphs, for which the seed is on the device.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._ops import (
    BLENDED_DTYPES,
    INVERSE_OF_THEMSELVES,
    KINDS,
    PLAN_COLUMNS,
    QUANTILE_INTERVALS,
    Draw,
    Kind,
    Partner,
    Placement,
    Sampling,
    Scope,
    TargetFormat,
)
from .._validation import FLOAT_DTYPES, INTEGER_DTYPES
from ..reference import can_draw, may_blend
from .mix_math import (
    CUTOUT,
    KEEP,
    MIXUP,
    has_box,
    has_partner,
    mixed_value,
    mixes_target,
    partner_map,
    partner_of,
    reads_own,
    sample_row,
    valid_row,
)
from .rows import Rows, rows_of, same_order
from .values import blended_words, float_to_bfloat16

# ---- Device code


@triton.jit
def divided(number, magic, shift):
    """number / divisor for numbers below 2^30; magic and shift are those of `divider`."""
    return ((number.to(tl.int64) * magic) >> shift).to(tl.int32)


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
def changed(kind, lam, own, partner, fill, ELEMENT: tl.constexpr):
    """What the words of a sample become where it is changed. Without fill there is no kind but cutmix."""
    words = partner
    if fill is not None:
        words = tl.where(kind == CUTOUT, fill, words)
    if ELEMENT is not None:  # noqa: SIM102 - known when compiling, unlike the kind
        if kind == MIXUP:
            words = blended_words(lam, own, partner, ELEMENT)
    return words


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
    column = chunk * BLOCK + tl.arange(0, BLOCK)
    inside = column < num_classes
    if labels.dtype.element_ty.is_floating():
        scale = scale.to(tl.int64).to(tl.float64, bitcast=True).to(VALUE)
        own = tl.load(labels + index * num_classes + column, mask=inside & valid, other=0).to(VALUE) * scale + off
        other = tl.load(labels + partner * num_classes + column, mask=inside & valid, other=0).to(VALUE) * scale + off
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


RUN_TIME = [
    *("plan", "quantiles", "scope", "partner_rule", "placement", "correct_lam"),
    *("seed_low", "seed_high", "device_seed", "batch", "height", "width"),
    *("images", "out", "images_sample", "images_slice", "images_row", "out_sample", "out_slice", "out_row"),
    *("groups", "row_groups", "row_magic", "row_shift", "height_magic", "height_shift", "pixel_bytes"),
    *("fill_low", "fill_high"),
    *("labels", "targets", "num_classes", "scale", "off", "on"),
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
    index = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    if index >= batch:
        return

    # The row of the plan.
    if quantiles is not None:
        draw = (quantiles, bounds, scope, placement, correct_lam, height, width)
        if device_seed is not None:
            seed = tl.load(device_seed)
        else:
            seed = (seed_high.to(tl.int64) << 32) | (seed_low.to(tl.int64) & 0xFFFFFFFF)
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
        valid, other_valid = valid & paired, other_valid & paired

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


# ---- Launches: how a call becomes the kernel's arguments, without touching a GPU

MAX_BATCH = 1 << 30
MAX_GRID_Y = 65535
MAX_THREADS = 128
MAX_REGISTERS = 128  # where there may be other kinds: 512 threads a multiprocessor, with 32 KiB under way
WIDE_PER_THREAD = 4  # vectors of several words at a time
NARROW_PER_THREAD = 8  # vectors of one word
GROUPS = (256, 128, 64)
SPAN_BYTES = 1 << 14
COLUMNS_PER_THREAD = 8
MAX_FAST_DIVISION = 1 << 30
MAX_INT32 = (1 << 31) - 1
BLENDED_ELEMENTS = {dtype: getattr(tl, str(dtype).removeprefix("torch.")) for dtype in BLENDED_DTYPES}


class Launch(NamedTuple):
    """A launch that has not happened yet: all that ``kernel[grid](*arguments, **options)`` needs."""

    kernel: Any
    grid: tuple[int, int, int]
    arguments: tuple[Any, ...]  # tensors and numbers, in the order of the kernel's parameters
    options: dict[str, Any]  # the kernel's constants, and what Triton compiles it with

    def __call__(self, device: torch.device) -> None:
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            self.kernel[self.grid](*self.arguments, **self.options)


@lru_cache(maxsize=1024)
def draws_only_cutmix(bounds: tuple[float, ...]) -> bool:
    """Whether no other kind can be drawn."""
    return not any(can_draw(kind, bounds) for kind in Kind if kind not in (Kind.keep, Kind.cutmix))


class Pixels(NamedTuple):
    """The images to be mixed, with or without a sample in them."""

    images: Tensor
    out: Tensor
    rows: Rows
    out_rows: Rows


class Labels(NamedTuple):
    """The labels, and the targets to write."""

    labels: Tensor
    targets: Tensor
    label_smoothing: float


def divider(divisor: int) -> tuple[int, int]:
    """magic and shift such that number // divisor == number * magic >> shift, for number and divisor below 2^30.

    magic * divisor exceeds 2^shift by less than divisor, and 2^shift is at least 2^30 * divisor, so that the product
    exceeds number / divisor by less than 1 / divisor.
    """
    shift = 30 + (divisor - 1).bit_length()
    return -(-(1 << shift) // divisor), shift


def lowest_bit(number: int) -> int:
    return number & -number


def next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


def group_size(row_vectors: int) -> int:
    """The largest group that leaves at most a quarter of its places in a row empty."""
    return next((group for group in GROUPS if 4 * (-row_vectors % group) <= row_vectors), 1)


def clamp(number: int, low: int, high: int) -> int:
    return max(low, min(number, high))


NO_SAMPLING = (0.0,) * KINDS, *Sampling(0, 0, 0, 0)


def seed_arguments(seed: Tensor) -> tuple:
    """The words of a seed on the CPU, and the seed where it is on the device."""
    if seed.device.type == "cpu":
        return *struct.unpack("<ii", struct.pack("<q", seed.item())), None  # on the CPU: nothing to wait for
    return 0, 0, seed


def plan_arguments(plan: Tensor | None, draw: Draw | None, batch: int, height: int, width: int) -> tuple:
    sizes = batch, height, width
    if draw is None:
        return plan, None, *NO_SAMPLING, 0, 0, None, *sizes
    seed, quantiles, bounds, sampling = draw
    options = tuple(map(float, bounds)), *sampling
    return plan, quantiles, *options, *seed_arguments(seed), *sizes


class Geometry(NamedTuple):
    """How the kernel sees the images of a call, whatever they are and wherever they lie."""

    word: tl.dtype
    numbers: tuple[int, ...]  # the kernel's run-time arguments, from strides on
    constants: dict[str, Any]
    chunks: int  # of a sample

    @property
    def vectors(self) -> int:
        """At a time."""
        return self.constants["BLOCK"] * self.constants["GROUP"]


def vector_width(rows: Rows, out_rows: Rows, addresses: int) -> int:
    """Bytes of the widest vector that divides every address and every row."""
    bits = 16 | addresses | rows.row_bytes
    for each in (rows, out_rows):
        for size, stride in zip((each.batch, each.slices, each.height), each.strides, strict=True):
            if size > 1:
                bits |= stride
    return lowest_bit(bits)


@lru_cache(maxsize=1024)  # a training run asks for few, and working one out takes as long as launching it
def geometry(rows: Rows, out_rows: Rows, addresses: int, in_place: bool) -> Geometry:
    """`addresses` are the bits below 16 in which any address of images and out differs from a multiple of 16."""
    width = vector_width(rows, out_rows, addresses)
    granule = lowest_bit(rows.pixel_bytes)
    if in_place and width < 8:
        width = min(width, granule)  # so that no edge of a box crosses a vector
    word_bytes = min(width, 4)
    words = width // word_bytes
    row_vectors = rows.row_bytes // width
    group = group_size(row_vectors) if words == 1 else 1
    row_groups = -(-row_vectors // group)
    groups = rows.slices * rows.height * row_groups
    strides = [stride // width for stride in (*rows.strides, *out_rows.strides)]

    positions = -(-groups // 2) if in_place else groups  # the other sample of the pair takes the other half
    at_once = MAX_THREADS * (WIDE_PER_THREAD if words > 1 else NARROW_PER_THREAD) // group
    block = clamp(next_power_of_2(positions), -(-32 // group), at_once)
    span = max(block, SPAN_BYTES // (width * group)) if positions > block else block
    reach = max((rows.slices - 1) * strides[k + 1] + (rows.height - 1) * strides[k + 2] for k in (0, 3)) + row_vectors
    small = groups <= MAX_FAST_DIVISION and reach * words <= MAX_INT32 and rows.row_bytes <= MAX_INT32
    constants = {
        "WIDTH": width,
        "GRANULE": width if granule >= width else min(granule, 4),
        "GROUP": group,
        "BLOCK": block,
        "SPAN": span,
        "LARGE": not small,
    }
    dividers = (*divider(row_groups), *divider(rows.height)) if small else (0, 0, 0, 0)
    word = {4: tl.uint32, 2: tl.uint16, 1: tl.uint8}[word_bytes]
    numbers = (*strides, groups, row_groups, *dividers, rows.pixel_bytes)
    return Geometry(word, numbers, constants, -(-positions // span))


NO_PIXELS = Geometry(
    tl.uint32,
    (0,) * 13,
    {"WIDTH": 16, "GRANULE": 16, "GROUP": 1, "BLOCK": 32, "SPAN": 32, "LARGE": False},
    0,
)


def pixel_arguments(pixels: Pixels | None, in_place: bool) -> tuple[tuple, Geometry]:
    if pixels is None:
        return (None, None, *NO_PIXELS.numbers), NO_PIXELS
    images, out, rows, out_rows = pixels
    seen = geometry(rows, out_rows, (images.data_ptr() | out.data_ptr()) % 16, in_place)
    return (triton.reinterpret(images, seen.word), triton.reinterpret(out, seen.word), *seen.numbers), seen


def target_arguments(targets: Labels | None) -> tuple:
    if targets is None:
        return None, None, 0, 0, 0, 0
    labels, out, label_smoothing = targets
    classes = out.shape[1]
    scale = 1.0 - label_smoothing  # mirrors mix_math.h::smoothing_of
    off = label_smoothing / classes
    return labels, out, classes, *struct.unpack("<qqq", struct.pack("<ddd", scale, off, scale + off))


def mix_launch(
    batch: int,
    height: int,
    width: int,
    plan: Tensor,
    draw: Draw | None = None,
    pixels: Pixels | None = None,
    targets: Labels | None = None,
    *,
    in_place: bool = False,
    dtype: torch.dtype = torch.float32,
    fill: Sequence[int] = (0, 0),
) -> Launch:
    """The launch of a call on a batch that is not empty: a plan is drawn or given, pixels and targets may be absent.

    dtype is that of the images; without images it is one that mixup can blend. fill is 16 bytes, low and high half.

    Looks at addresses, sizes and strides of its tensors alone, so that CPU tensors make the launch that CUDA tensors
    would.
    """
    images, seen = pixel_arguments(pixels, in_place)
    classes = targets.targets.shape[1] if targets is not None else 1
    threads = seen.vectors // WIDE_PER_THREAD if pixels else next_power_of_2(classes) // COLUMNS_PER_THREAD
    threads = clamp(threads, 32, MAX_THREADS)
    target_block = clamp(next_power_of_2(classes), 32, threads * COLUMNS_PER_THREAD)
    grid_z = -(-batch // MAX_GRID_Y)
    grid = max(seen.chunks, -(-classes // target_block)), -(-batch // grid_z), grid_z
    only_cutmix = draw is not None and draws_only_cutmix(tuple(draw.bounds))
    arguments = (*plan_arguments(plan, draw, batch, height, width), *images, *fill, *target_arguments(targets))
    options = {
        "IN_PLACE": in_place,
        "ONLY_CUTMIX": only_cutmix,
        "ELEMENT": None if only_cutmix else BLENDED_ELEMENTS.get(dtype),
        **seen.constants,
        "TARGET_BLOCK": target_block,
        "num_warps": threads // 32,
        "num_stages": 1,
        "maxnreg": None if only_cutmix else MAX_REGISTERS,
        "enable_fp_fusion": False,
    }
    return Launch(mix_kernel, grid, arguments, options)


# ---- The ops, in the order of cutmix_cuda/_ops.py: check, allocate, launch


def check(condition: bool, message: str) -> None:
    """For direct calls of an op: the functions of cutmix_cuda have said in more words what is wrong."""
    if not condition:
        raise RuntimeError(message)


def check_extent(batch: int, height: int, width: int) -> None:
    check(0 <= batch <= MAX_BATCH, "the batch size must be in 0..2^30")
    check(
        min(height, width) >= 0 and max(height, width, height * width) <= MAX_INT32,
        "height, width and their product must be in 0..2^31-1",
    )


def check_images(images: Tensor, out: Tensor) -> None:
    check(3 <= images.dim() <= 8, "images must be of shape (batch, ..., height, width), of 3 to 8 dimensions")
    check(
        out is images
        or (out.shape == images.shape and out.dtype.itemsize == images.dtype.itemsize and out.device == images.device),
        "out must have the shape, dtype and device of images",
    )


def new_plan(draw: Draw, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An empty plan to sample into for images of a dtype, after a check of what to draw by."""
    seed, quantiles, bounds, sampling = draw
    check(seed.numel() == 1 and seed.dtype == torch.int64, "seed must be one int64")
    check(
        seed.device.type == "cpu" or seed.device == quantiles.device,
        "seed must be on the CPU or on the device of the images",
    )
    check(
        quantiles.shape == (KINDS, QUANTILE_INTERVALS + 1)
        and quantiles.dtype == torch.float32
        and quantiles.is_contiguous(),
        "quantiles must be a contiguous float32 tensor of a row of 4097 knots for each kind",
    )
    check(len(bounds) == KINDS, "bounds must be a number for each kind")
    choices = Scope, Partner, Placement, (False, True)
    check(
        len(sampling) == len(choices)
        and all(0 <= option < len(choice) for option, choice in zip(sampling, choices, strict=True)),
        "sampling must be a known scope, partner and placement, and correct_lam",
    )
    check(
        dtype in BLENDED_DTYPES or not may_blend(bounds),
        "mixup blends images of dtype uint8, float16, bfloat16, float32 and float64 only",
    )
    return quantiles.new_empty((batch, PLAN_COLUMNS), dtype=torch.int32)


def checked_plan(plan: Tensor, batch: int, device: torch.device) -> Tensor:
    check(
        plan.shape == (batch, PLAN_COLUMNS) and plan.dtype == torch.int32 and plan.device == device,
        "plan must be int32 of shape (batch, 8) on the device of the images",
    )
    return plan.contiguous()


def new_targets(
    labels: Tensor | None, like: Tensor, batch: int, target_format: TargetFormat
) -> tuple[Tensor, Labels | None]:
    """The empty targets, and what the kernel needs to write them; None where there is nothing to write."""
    num_classes, label_smoothing, dtype = target_format
    check(0 <= num_classes <= MAX_INT32, "num_classes must be in 0..2^31-1")
    classes = num_classes if labels is not None else 0
    targets = like.new_empty((batch, classes), dtype=dtype)
    if labels is None:
        return targets, None
    check(labels.device == like.device, "labels must be on the device of the images")
    soft = labels.dtype in FLOAT_DTYPES
    check(
        (soft or labels.dtype in INTEGER_DTYPES) and dtype in FLOAT_DTYPES,
        "labels and targets must be integers, or float16, bfloat16, float32 or float64",
    )
    check(
        labels.shape == ((batch, classes) if soft else (batch,)),
        "labels must be integers of shape (batch,) or floats of shape (batch, num_classes)",
    )
    if targets.numel() == 0:
        return targets, None
    return targets, Labels(labels.contiguous(), targets, label_smoothing)


def sample_plan(seed, quantiles, bounds, sampling, batch, height, width):
    check_extent(batch, height, width)
    draw = Draw(seed, quantiles, bounds, sampling)
    plan = new_plan(draw, batch)
    if batch > 0:
        mix_launch(batch, height, width, plan, draw)(plan.device)
    return plan


def mix_targets(labels, plan, num_classes, label_smoothing, dtype):
    batch = plan.shape[0]
    plan = checked_plan(plan, batch, labels.device)
    targets, writes = new_targets(labels, plan, batch, TargetFormat(num_classes, label_smoothing, dtype))
    if writes is not None:
        mix_launch(batch, MAX_INT32, MAX_INT32, plan, targets=writes)(plan.device)
    return targets


def run(
    images: Tensor,
    out: Tensor,
    labels: Tensor | None,
    plan: Tensor | Draw,
    target_format: TargetFormat,
    fill: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Mixes images into out, in place where they are one, by a plan given or to be drawn; returns targets, plan."""
    check_images(images, out)
    in_place = out is images
    batch, height, width = images.shape[0], *images.shape[-2:]
    check_extent(batch, height, width)
    draw = plan if isinstance(plan, Draw) else None
    if isinstance(plan, Draw):
        check(plan.quantiles.device == images.device, "quantiles must be on the device of the images")
        inverse = Sampling(*plan.sampling).partner in INVERSE_OF_THEMSELVES
        check(inverse or not in_place, "in place, partner must be its own inverse: flip or mirror")
        plan = new_plan(plan, batch, images.dtype)
    else:
        plan = checked_plan(plan, batch, images.device)
    targets, writes = new_targets(labels, images, batch, target_format)
    if batch == 0:
        return targets, plan

    source, destination = images, out
    rows, out_rows = rows_of(images), rows_of(out)
    # A vector that is blended has to hold whole elements.
    aligned = images.dtype not in BLENDED_DTYPES or (images.data_ptr() | out.data_ptr()) % images.dtype.itemsize == 0
    alike = rows is not None and out_rows is not None and rows.shape == out_rows.shape and same_order(images, out)
    if not (aligned and alike):
        source = images.contiguous() if aligned else images.clone(memory_format=torch.contiguous_format)
        destination = source if in_place else torch.empty_like(source)
        rows = out_rows = rows_of(source)
    assert rows is not None and out_rows is not None
    pixels = Pixels(source, destination, rows, out_rows) if images.numel() > 0 else None
    launch = mix_launch(
        batch, height, width, plan, draw, pixels, writes, in_place=in_place, dtype=images.dtype, fill=fill
    )
    launch(images.device)
    if destination is not out:
        out.copy_(destination)
    return targets, plan


NO_FILL = (0, 0)


def apply(images, labels, plan, num_classes, label_smoothing, dtype, fill=NO_FILL):
    out = torch.empty_like(images)
    return out, apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill)


def apply_out(images, labels, plan, num_classes, label_smoothing, dtype, out, fill=NO_FILL):
    return run(images, out, labels, plan, TargetFormat(num_classes, label_smoothing, dtype), fill)[0]


def apply_(images, labels, plan, num_classes, label_smoothing, dtype, fill=NO_FILL):
    return run(images, images, labels, plan, TargetFormat(num_classes, label_smoothing, dtype), fill)[0]


def sample_and_apply(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype, fill=NO_FILL
):
    out, draw = torch.empty_like(images), Draw(seed, quantiles, bounds, sampling)
    return out, *run(images, out, labels, draw, TargetFormat(num_classes, label_smoothing, dtype), fill)


def sample_and_apply_out(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype, out, fill=NO_FILL
):
    draw = Draw(seed, quantiles, bounds, sampling)
    return run(images, out, labels, draw, TargetFormat(num_classes, label_smoothing, dtype), fill)


def sample_and_apply_(
    images, labels, seed, quantiles, bounds, sampling, num_classes, label_smoothing, dtype, fill=NO_FILL
):
    draw = Draw(seed, quantiles, bounds, sampling)
    return run(images, images, labels, draw, TargetFormat(num_classes, label_smoothing, dtype), fill)


OPS = {
    "sample_plan": sample_plan,
    "mix_targets": mix_targets,
    "apply": apply,
    "apply_out": apply_out,
    "apply_": apply_,
    "sample_and_apply": sample_and_apply,
    "sample_and_apply_out": sample_and_apply_out,
    "sample_and_apply_": sample_and_apply_,
}
