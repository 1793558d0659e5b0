// The maths of the batch tail: how a sample is seen before it is mixed, and how its pixels become what a model takes.
//
// Like mix_math.h it knows no torch, is host C++ and CUDA, and rounds each operation in one way; the twins of the same
// names stand in cutmix_cuda/reference_augment.py. How a call is laid out (see augment_call.h for its struct):
//
// A *view* is what a sample looks like before mixing. Own pixels and the partner's are both seen through their own
// sample's view. For the output pixel (y, x) of channel c of sample i, in this order:
//
//   1. flip, translate   the raw pixel at source_y(geometry, y), source_x(geometry, x, width); 0 where that lies
//   outside
//   2. colour            of three channels, where views are coloured: coloured_value of the raw channels by the
//                        sample's matrix
//   3. normalise         n = normalized(raw, mean[c], scale[c]); without constants mean is 0 and scale 1, which changes
//                        no value, so that there is one path
//   4. erase, "before"   where one of the sample's erased boxes holds (y, x): the erased value instead
//   5. mix               by the sample's row of the mixing plan, on float32: kept and pasted n as it is, a blend
//                        mixed_value(lam, n_own, n_partner), a cut out box fill[c]
//   6. erase, "after"    the sample's own erased boxes on top, where the order says so instead of 4
//   7. cast once         Element::of(value) of values.h, and store in the layout of the output
//
// The erased value is a constant erase[c], or noise: one normal number a box and channel, or one a pixel and channel.
// Erased boxes and noise live in the coordinates of the output, so flips and shifts do not move them.
//
// Packed views are int32 (batch, quadruples, 4), each quadruple 16 bytes at a multiple of 16:
//
//   quadruple 0          flip (0 or 1), dy, dx, 0
//   quadruple 1..boxes   y0, x0, y1, x1 of an erased box, half open; empty where nothing is erased
//   the last three       of coloured views the rows of the colour matrix, as bits of float32
//
// Constants are float32 (4, channels): rows mean, scale, erase, fill. For few channels (kFewChannels) they travel by
// value in the call.
//
// Random words are philox(seed, sample, stream, position, group); the streams are listed in mix_math.h. Nothing here
// shares a word with the mixing plan, so old seeds keep their plans.
//
//   kPerView      position 0                     flip, dy, dx, -
//   kPerErasing   position 0                     whether anything is erased, how many boxes, -, -
//   kPerTry       position box * kTries + try    area, aspect, y0, x0
//   kPerNoise     group c >> 2, word c & 3       position: box ("channel"), y * width + x ("pixel")
//   kPerColour    position 0                     brightness, contrast, saturation, whether grey
//
// A sample whose row of the plan, whose view, or whose partner's view (where the partner's pixels are used) is not
// valid is kept: seen as it is, unmixed, with a row of NaN as its target.
#pragma once

#include "values.h"

namespace cutmix {

// ---- Geometry

struct Geometry {  // the first quadruple of a packed view
    int32_t flip, dy, dx, reserved;
};
static_assert(sizeof(Geometry) == sizeof(Box), "a view is quadruples of int32");

// The source of an output pixel: shifted, then mirrored. As torchvision's RandomCrop with padding, whose offset is
// dy + padding, followed by its RandomHorizontalFlip.
CUTMIX_HD int32_t source_y(const Geometry& geometry, int32_t y) { return y + geometry.dy; }
CUTMIX_HD int32_t source_x(const Geometry& geometry, int32_t x, int32_t width) {
    return (geometry.flip ? width - 1 - x : x) + geometry.dx;
}

CUTMIX_HD bool contains(const Box& box, int32_t y, int32_t x) {
    return y >= box.y0 && y < box.y1 && x >= box.x0 && x < box.x1;
}

// ---- Drawing a view

constexpr int32_t kTries = 10;       // of a box that fits, as torchvision and timm
constexpr int32_t kMaxBoxes = 1024;  // of a sample

struct Range {  // of numbers that are uniform between the two
    float least, most;
};

struct ViewSampling {
    const float* aspects;  // the table of quantiles of an erased box's height / width, divided by max_aspect
    const float* colours;  // the matrices (batch, 3, 4); null to draw them
    int32_t height, width;
    float flip_below, erase_below;  // of random numbers in [0, 1)
    float min_area, max_area;       // fractions of the image, of all boxes of a sample together
    float max_aspect;
    Range brightness, contrast, saturation;
    float grey_below;
    int32_t translate_y, translate_x;  // offsets are in -translate..translate, and at most the image's size
    int32_t min_boxes, max_boxes;      // of a sample that is erased; max_boxes is that of the packed views
    int32_t first_erased;  // samples before this one are not erased, as the clean split of timm's aug-splits
    int32_t coloured;      // 0 or 1: whether views have a colour matrix
};

// The lists of the ops: float[] view_parameters and int[] view_choices, in the order of _ops.py.
constexpr int32_t kViewParameters = 12, kViewChoices = 6;

inline ViewSampling view_sampling(const float* aspects, const float* colours, int32_t height, int32_t width,
                                  const double* parameters, const int64_t* choices) {
    const auto number = [&](int32_t which) { return static_cast<float>(parameters[which]); };
    const auto range = [&](int32_t which) { return Range{number(which), number(which + 1)}; };
    const auto integer = [&](int32_t which) { return static_cast<int32_t>(choices[which]); };
    return {aspects,    colours,    height,     width,      number(0), number(1),  number(2),
            number(3),  number(4),  range(5),   range(7),   range(9),  number(11), integer(0),
            integer(1), integer(2), integer(3), integer(4), integer(5)};
}

CUTMIX_HD float uniform(const Range& range, uint32_t word) {
    return add_rn(range.least, mul_rn(sub_rn(range.most, range.least), unit_float(word)));
}

// A number in -most..most. most is below 2^31.
CUTMIX_HD int32_t offset_within(int32_t most, uint32_t word) {
    return static_cast<int32_t>(mulhi(word, 2 * static_cast<uint32_t>(most) + 1)) - most;
}

CUTMIX_HD Geometry sample_geometry(const ViewSampling& sampling, uint64_t seed, uint32_t index) {
    const Words draw = philox(seed, index, kPerView);
    return {unit_float(draw.word[0]) < sampling.flip_below,
            offset_within(min_of(sampling.translate_y, sampling.height), draw.word[1]),
            offset_within(min_of(sampling.translate_x, sampling.width), draw.word[2]), 0};
}

// How many boxes of a sample are erased.
CUTMIX_HD int32_t sample_box_count(const ViewSampling& sampling, uint64_t seed, uint32_t index) {
    const Words draw = philox(seed, index, kPerErasing);
    if (static_cast<int32_t>(index) < sampling.first_erased || !(unit_float(draw.word[0]) < sampling.erase_below))
        return 0;
    const uint32_t choices = static_cast<uint32_t>(sampling.max_boxes - sampling.min_boxes) + 1;
    return sampling.min_boxes + static_cast<int32_t>(mulhi(draw.word[1], choices));
}

// The nearest whole number, ties to even, of a number that is not negative; from 2^30 on 2^30. NaN gives 0.
CUTMIX_HD int32_t nearest_int(float number) {
    const float bounded = number > 0.0f ? (number < 0x1p30f ? number : 0x1p30f) : 0.0f;
    const int32_t whole = static_cast<int32_t>(bounded);
    const float rest = sub_rn(bounded, static_cast<float>(whole));
    return whole + (rest > 0.5f || (rest == 0.5f && whole % 2 == 1));
}

// One try of a box of `count` that share the erased area, as Zhong et al. (2020), torchvision and timm: the area
// uniform, the aspect by its table. Accepted where it is smaller than the image on both sides; any place of it that
// fits is as likely.
CUTMIX_HD bool try_box(const ViewSampling& sampling, uint64_t seed, uint32_t index, int32_t position, int32_t count,
                       Box* box) {
    const int32_t height = sampling.height, width = sampling.width;
    const Words draw = philox(seed, index, kPerTry, static_cast<uint32_t>(position));
    const float fraction = uniform({sampling.min_area, sampling.max_area}, draw.word[0]);
    const float pixels = div_rn(static_cast<float>(height * width), static_cast<float>(count));
    const float area = mul_rn(fraction, pixels);
    const float aspect = mul_rn(sampling.max_aspect, quantile(sampling.aspects, draw.word[1]));
    const int32_t box_height = nearest_int(sqrt_rn(mul_rn(area, aspect)));
    const int32_t box_width = nearest_int(sqrt_rn(div_rn(area, aspect)));
    if (box_height >= height || box_width >= width) return false;
    box->y0 = static_cast<int32_t>(mulhi(draw.word[2], static_cast<uint32_t>(height - box_height) + 1));
    box->x0 = static_cast<int32_t>(mulhi(draw.word[3], static_cast<uint32_t>(width - box_width) + 1));
    box->y1 = box->y0 + box_height;
    box->x1 = box->x0 + box_width;
    return true;
}

// A box of `count`; empty where no try fits.
CUTMIX_HD Box sample_box(const ViewSampling& sampling, uint64_t seed, uint32_t index, int32_t number, int32_t count) {
    Box box = {0, 0, 0, 0};
    if (number >= count) return box;
    for (int32_t attempt = 0; attempt < kTries; ++attempt)
        if (try_box(sampling, seed, index, number * kTries + attempt, count, &box)) break;
    return box;
}

constexpr int32_t kColourRows = 3;  // of a matrix, one for each channel that comes out

// A row of the colour matrix: what red, green, blue and white, the greatest value of a channel, count for it.
struct ColourRow {
    float red, green, blue, white;
};
static_assert(sizeof(ColourRow) == sizeof(Box), "a view is quadruples of 32 bits");

// The weights of red, green and blue in grey, by Rec. ITU-R BT.601.
constexpr float kLumaRed = 0.299f, kLumaGreen = 0.587f, kLumaBlue = 0.114f;

// Brightness, then contrast around mid-grey, then saturation.
CUTMIX_HD ColourRow colour_matrix(float brightness, float contrast, float saturation, int32_t row) {
    const float gain = mul_rn(brightness, contrast), own = mul_rn(gain, saturation);
    const float grey = mul_rn(gain, sub_rn(1.0f, saturation));
    return {add_rn(mul_rn(grey, kLumaRed), row == 0 ? own : 0.0f),
            add_rn(mul_rn(grey, kLumaGreen), row == 1 ? own : 0.0f),
            add_rn(mul_rn(grey, kLumaBlue), row == 2 ? own : 0.0f), mul_rn(0.5f, sub_rn(1.0f, contrast))};
}

// A row of the matrix of a sample, given or drawn.
CUTMIX_HD ColourRow sample_colour(const ViewSampling& sampling, uint64_t seed, uint32_t index, int32_t row) {
    if (sampling.colours) {
        const float* given = sampling.colours + (int64_t{index} * kColourRows + row) * 4;
        return {given[0], given[1], given[2], given[3]};
    }
    const Words draw = philox(seed, index, kPerColour);
    const bool grey = unit_float(draw.word[3]) < sampling.grey_below;
    return colour_matrix(uniform(sampling.brightness, draw.word[0]), uniform(sampling.contrast, draw.word[1]),
                         grey ? 0.0f : uniform(sampling.saturation, draw.word[2]), row);
}

// Whether a view made by anyone may be followed. Any colour matrix may. Offsets are at most the image's size, so that
// sums with them fit.
CUTMIX_HD bool valid_geometry(const Geometry& geometry, int32_t height, int32_t width) {
    return (geometry.flip == 0 || geometry.flip == 1) && geometry.dy >= -height && geometry.dy <= height &&
           geometry.dx >= -width && geometry.dx <= width;
}

CUTMIX_HD bool valid_box(const Box& box, int32_t height, int32_t width) {
    return box.y0 >= 0 && box.y0 <= box.y1 && box.y1 <= height && box.x0 >= 0 && box.x0 <= box.x1 && box.x1 <= width;
}

// ---- Values

constexpr int32_t kFewChannels = 4;  // their constants travel by value

// The greatest value of a channel; floats are in [0, 1].
CUTMIX_HD float white_of(Dtype dtype) { return dtype == Dtype::kU8 ? 255.0f : 1.0f; }

// A channel of a coloured pixel, in 0..white; 0 where it is not a number.
CUTMIX_HD float coloured_value(const ColourRow& row, float red, float green, float blue, float white) {
    const float of_two = add_rn(mul_rn(row.red, red), mul_rn(row.green, green));
    const float value = add_rn(add_rn(of_two, mul_rn(row.blue, blue)), mul_rn(row.white, white));
#if defined(__CUDA_ARCH__)
    return fminf(fmaxf(value, 0.0f), white);  // the greater of 0 and what is not a number is 0
#else
    const float positive = value > 0.0f ? value : 0.0f;  // one instruction, as the next
    return positive < white ? positive : white;
#endif
}

// Never raw * a + b, which a compiler contracts and which cancels near the mean, and no division.
CUTMIX_HD float normalized(float raw, float mean, float scale) { return mul_rn(sub_rn(raw, mean), scale); }

enum class EraseValue : int32_t { kConstant = 0, kChannel = 1, kPixel = 2 };  // what an erased box is filled with
enum class EraseOrder : int32_t { kBefore = 0, kAfter = 1 };                  // mixing

struct Erasing {
    EraseValue value;
    EraseOrder order;
};

constexpr float kNoiseScale = 0x1.bb688cp-8f;  // 1 / sqrt(21845): one by the deviation of the sum of four random bytes

CUTMIX_HD int32_t byte_sum(uint32_t word) {
#if defined(__CUDA_ARCH__)
    return static_cast<int32_t>(__dp4a(word, 0x01010101u, 0u));
#else
    return static_cast<int32_t>((word & 0xFFu) + (word >> 8 & 0xFFu) + (word >> 16 & 0xFFu) + (word >> 24));
#endif
}

// A number of mean 0 and variance 1, the same on every backend because it is exact up to one product: its distribution
// function is within 0.0084 of the normal distribution's, and it ends at 3.45.
CUTMIX_HD float noise_of_sum(int32_t sum) { return mul_rn(static_cast<float>(sum - 510), kNoiseScale); }
CUTMIX_HD float noise_of(uint32_t word) { return noise_of_sum(byte_sum(word)); }

CUTMIX_HD float noise(uint64_t seed, uint32_t index, uint32_t position, int32_t channel) {
    return noise_of(philox(seed, index, kPerNoise, position, static_cast<uint32_t>(channel) >> 2).word[channel & 3]);
}

}  // namespace cutmix
