"""The maths of views in Triton: twins of the functions in ``csrc/views.h``, with the same names and the same bits.

Each takes scalars or blocks of them. A geometry is a tuple (flip, dy, dx), a box a tuple (y0, x0, y1, x1), and a
sampling of views a tuple (aspects, parameters, choices, height, width): the table, and the lists of the ops in the
order of their named tuples in ``cutmix_cuda/_ops.py``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .mix_math import mulhi, philox, quantile, unit_float

PER_VIEW = tl.constexpr(2)  # streams, after those of mix_math.py
PER_ERASING = tl.constexpr(3)
PER_TRY = tl.constexpr(4)
PER_NOISE = tl.constexpr(5)
PER_COLOUR = tl.constexpr(6)
TRIES = tl.constexpr(10)  # of a box that fits
NOISE_SCALE = tl.constexpr(float.fromhex("0x1.bb688cp-8"))
LUMA_RED = tl.constexpr(0.299)  # weights in grey. Mirrors views.h::kLumaRed and the others
LUMA_GREEN = tl.constexpr(0.587)
LUMA_BLUE = tl.constexpr(0.114)
TWO_POW_30 = tl.constexpr(2.0**30)

# ---- Geometry


@triton.jit
def source_y(geometry, y):
    """The source of an output row. Mirrors views.h::source_y."""
    return y + geometry[1]


@triton.jit
def source_x(geometry, x, width):
    """The source of an output column. Mirrors views.h::source_x."""
    return tl.where(geometry[0] != 0, width - 1 - x, x) + geometry[2]


@triton.jit
def contains(box, y, x):
    """Mirrors views.h::contains, of a box that is not inside out."""
    y0, x0, y1, x1 = box
    columns = tl.where((y >= y0) & (y < y1), x1 - x0, 0)
    return (x - x0).to(tl.uint32, bitcast=True) < columns.to(tl.uint32, bitcast=True)


# ---- Drawing a view


@triton.jit
def offset_within(most, word):
    """A number in -most..most. Mirrors views.h::offset_within."""
    return mulhi(word, 2 * most.to(tl.uint32) + 1).to(tl.int32) - most


@triton.jit
def uniform(least, most, word):
    """A number from the least to the most. Mirrors views.h::uniform."""
    return least + (most - least) * unit_float(word)


@triton.jit
def sample_geometry(sampling, seed, index):
    """Mirrors views.h::sample_geometry."""
    _, parameters, choices, height, width = sampling
    word_flip, word_y, word_x, _ = philox(seed, index, PER_VIEW)
    flip = (unit_float(word_flip) < parameters[0]).to(tl.int32)
    dy = offset_within(tl.minimum(choices[0], height), word_y)
    dx = offset_within(tl.minimum(choices[1], width), word_x)
    return flip, dy, dx


@triton.jit
def sample_box_count(sampling, seed, index):
    """How many boxes of a sample are erased. Mirrors views.h::sample_box_count."""
    _, parameters, choices, _, _ = sampling
    _, _, min_boxes, max_boxes, first_erased = choices
    word_erased, word_count, _, _ = philox(seed, index, PER_ERASING)
    count = min_boxes + mulhi(word_count, (max_boxes - min_boxes).to(tl.uint32) + 1).to(tl.int32)
    return tl.where((index >= first_erased) & (unit_float(word_erased) < parameters[1]), count, 0)


@triton.jit
def nearest_int(number):
    """The nearest whole number, ties to even, in 0..2^30; 0 of NaN. Mirrors views.h::nearest_int."""
    bounded = tl.where(number > 0.0, tl.where(number < TWO_POW_30, number, TWO_POW_30), 0.0)
    whole = bounded.to(tl.int32)
    rest = bounded - whole.to(tl.float32)
    return whole + ((rest > 0.5) | ((rest == 0.5) & (whole % 2 == 1))).to(tl.int32)


@triton.jit
def try_box(sampling, seed, index, position, count):
    """Whether a try fits, and its box. Mirrors views.h::try_box."""
    aspects, parameters, _, height, width = sampling
    _, _, min_area, max_area, max_aspect = parameters
    word_area, word_aspect, word_y, word_x = philox(seed, index, PER_TRY, position)
    area = uniform(min_area, max_area, word_area) * tl.div_rn((height * width).to(tl.float32), count.to(tl.float32))
    aspect = max_aspect * quantile(aspects, word_aspect)
    box_height = nearest_int(tl.sqrt_rn(area * aspect))
    box_width = nearest_int(tl.sqrt_rn(tl.div_rn(area, aspect)))
    y0 = mulhi(word_y, (height - box_height).to(tl.uint32) + 1).to(tl.int32)
    x0 = mulhi(word_x, (width - box_width).to(tl.uint32) + 1).to(tl.int32)
    return (box_height < height) & (box_width < width), (y0, x0, y0 + box_height, x0 + box_width)


@triton.jit
def sample_box(sampling, seed, index, number, count):
    """A box of `count`; empty where no try fits. Mirrors views.h::sample_box."""
    y0 = count - count
    x0, y1, x1 = y0, y0, y0
    attempt = tl.where(number < count, 0, TRIES)
    while attempt < TRIES:
        fits, box = try_box(sampling, seed, index, attempt + number * TRIES, count)
        attempt = tl.where(fits, TRIES, attempt + 1)
        y0, x0 = tl.where(fits, box[0], y0), tl.where(fits, box[1], x0)
        y1, x1 = tl.where(fits, box[2], y1), tl.where(fits, box[3], x1)
    return y0, x0, y1, x1


@triton.jit
def colour_matrix(brightness, contrast, saturation):
    """The three rows. Mirrors views.h::colour_matrix."""
    gain = brightness * contrast
    own, grey = gain * saturation, gain * (1.0 - saturation)
    red, green, blue = grey * LUMA_RED, grey * LUMA_GREEN, grey * LUMA_BLUE
    offset = 0.5 * (1.0 - contrast)
    return (
        (red + own, green + 0.0, blue + 0.0, offset),
        (red + 0.0, green + own, blue + 0.0, offset),
        (red + 0.0, green + 0.0, blue + own, offset),
    )


@triton.jit
def sample_colour(factors, seed, index):
    """The three rows of a drawn matrix. Mirrors views.h::sample_colour."""
    word_brightness, word_contrast, word_saturation, word_grey = philox(seed, index, PER_COLOUR)
    brightness = uniform(factors[0], factors[1], word_brightness)
    contrast = uniform(factors[2], factors[3], word_contrast)
    saturation = uniform(factors[4], factors[5], word_saturation)
    saturation = tl.where(unit_float(word_grey) < factors[6], 0.0, saturation)
    return colour_matrix(brightness, contrast, saturation)


@triton.jit
def valid_geometry(geometry, height, width):
    """Whether a geometry made by anyone may be followed. Mirrors views.h::valid_geometry."""
    flip, dy, dx = geometry
    return (flip >= 0) & (flip <= 1) & (dy >= -height) & (dy <= height) & (dx >= -width) & (dx <= width)


@triton.jit
def valid_box(box, height, width):
    """Whether a box made by anyone may be erased. Mirrors views.h::valid_box."""
    y0, x0, y1, x1 = box
    return (y0 >= 0) & (y0 <= y1) & (y1 <= height) & (x0 >= 0) & (x0 <= x1) & (x1 <= width)


# ---- Values


@triton.jit
def coloured_value(row, red, green, blue, white):
    """Mirrors views.h::coloured_value."""
    value = row[0] * red + row[1] * green + row[2] * blue + row[3] * white
    return tl.where(value > 0.0, tl.where(value < white, value, white), 0.0)


@triton.jit
def normalized(raw, mean, scale):
    """Mirrors views.h::normalized."""
    return (raw - mean) * scale


@triton.jit
def byte_sum(word):
    """Mirrors views.h::byte_sum."""
    pairs = (word & 0x00FF00FF) + ((word >> 8) & 0x00FF00FF)
    return ((pairs & 0xFFFF) + (pairs >> 16)).to(tl.int32)


@triton.jit
def noise_of(word):
    """A number of mean 0 and variance 1. Mirrors views.h::noise_of."""
    return (byte_sum(word) - 510).to(tl.float32) * NOISE_SCALE


@triton.jit
def noise(seed, index, position, channel):
    """Mirrors views.h::noise."""
    words = philox(seed, index, PER_NOISE, position, channel >> 2)
    word = words[0]
    for each in tl.static_range(1, 4):
        word = tl.where((channel & 3) == each, words[each], word)
    return noise_of(word)
