// The CUDA kernels of the batch tail: plan, views, pixels and targets of a call in one launch. views.h says what
// becomes of a pixel, augment_geometry.h which block does what. No torch.
//
// As in mix_kernels.cuh, all but the kernels at the end is plain C++ on an index of a block and a thread. The threads
// of a block share what they draw for their sample through shared memory, with one barrier.
#pragma once

#include <type_traits>

#include "augment_geometry.h"
#include "plan_and_targets.cuh"

namespace cutmix {

#if defined(__CUDA_ARCH__)
#define CUTMIX_UNROLL _Pragma("unroll")
#else
#define CUTMIX_UNROLL
#endif

// ---- Plan and views

static_assert(sizeof(Box) == 16 && sizeof(PlanRow) == 32, "they are moved as vectors of 16 bytes");

// By value, because of what lies in memory a compiler copies byte by byte.
template <typename Value>
CUTMIX_HD Value value_of(Vector<16> bits) {
    static_assert(sizeof(Value) == sizeof bits);
    Value value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

CUTMIX_HD uint64_t seed_of(const Plan& plan) {
    return plan.device_seed ? static_cast<uint64_t>(*plan.device_seed) : plan.seed;
}

// One quadruple of a sample's view, given or drawn.
template <bool kColoured>
CUTMIX_HD Vector<16> view_quadruple(const AugmentParams& params, uint64_t seed, uint32_t sample, uint32_t number) {
    const Views& views = params.views;
    if (views.given) {
        const int64_t index = int64_t{sample} * params.quadruples.divisor + number;
        return load<16>(reinterpret_cast<const uint8_t*>(views.given + index * Views::kQuadruple));
    }
    if (number == 0) {
        const Geometry geometry = sample_geometry(views.sampling, seed, sample);
        return vector_of<16>(&geometry);
    }
    const int32_t behind = static_cast<int32_t>(number) - 1;
    if (kColoured && behind >= views.boxes) {
        const ColourRow row = sample_colour(views.sampling, seed, sample, behind - views.boxes);
        return vector_of<16>(&row);
    }
    const int32_t count = sample_box_count(views.sampling, seed, sample);
    const Box box = sample_box(views.sampling, seed, sample, behind, count);
    return vector_of<16>(&box);
}

CUTMIX_HD ColourRow colour_row(const Vector<16>& bits) {
    return {float_of(bits.word[0]), float_of(bits.word[1]), float_of(bits.word[2]), float_of(bits.word[3])};
}

// A sample before it is mixed: its own pixels through its view, which stays in memory.
struct Seen {
    uint32_t sample;
    const Vector<16>* view;
    int32_t boxes;
    const Vector<16>* colour;  // rows of the matrix; null where it is not coloured

    CUTMIX_HD Geometry geometry() const { return value_of<Geometry>(view[0]); }
    CUTMIX_HD Box erased(int32_t number) const { return value_of<Box>(view[1 + number]); }
};

CUTMIX_HD Seen seen_through(const AugmentParams& params, uint32_t sample, const Vector<16>* view) {
    const Vector<16>* colour = params.views.coloured ? view + 1 + params.views.boxes : nullptr;
    return {sample, view, params.views.boxes, colour};
}

CUTMIX_HD bool valid_view(const AugmentParams& params, const Seen& seen) {
    const int32_t height = params.mix.plan.height, width = params.mix.plan.width;
    bool valid = valid_geometry(seen.geometry(), height, width);
    CUTMIX_NO_UNROLL
    for (int32_t number = 0; number < seen.boxes; ++number)
        valid = valid && valid_box(seen.erased(number), height, width);
    return valid;
}

template <bool kColoured>
CUTMIX_HD void write_view(const AugmentParams& params, uint32_t index) {
    const uint32_t sample = params.quadruples.quotient(index);
    if (sample >= static_cast<uint32_t>(params.mix.plan.batch)) return;
    const Vector<16> drawn =
        view_quadruple<kColoured>(params, seed_of(params.mix.plan), sample, index - sample * params.quadruples.divisor);
    store<16>(reinterpret_cast<uint8_t*>(params.views.sampled + int64_t{index} * Views::kQuadruple), drawn);
}

// As write_targets, of a sample whose view, and whose partner's, has to be valid as well.
CUTMIX_HD void write_seen_targets(const AugmentParams& params, uint32_t warp, uint32_t lane) {
    if (warp >= params.mix.target_warps) return;
    const uint32_t sample = params.mix.warps_in_target.quotient(warp);
    CheckedRow checked = plan_row<true>(params.mix, plan_source(params.mix), sample);
    if (params.views.given) {
        const auto valid = [&](uint32_t index) {
            const auto* views = reinterpret_cast<const Vector<16>*>(params.views.given);
            return valid_view(params, seen_through(params, index, views + int64_t{index} * params.quadruples.divisor));
        };
        checked.valid = checked.valid && valid(sample) &&
                        (!has_partner(checked.kind()) || valid(static_cast<uint32_t>(checked.row.partner)));
    }
    write_target_part(params.mix, checked, sample, warp, lane);
}

// ---- A block's samples

// A sample and its partner, as all threads of a block know them.
struct Pair {
    uint64_t seed;
    CheckedRow rows[2];
    Seen seen[2];
    bool both;  // The block writes both samples; else the first.
};

// In shared memory: a sample's row, its view and the noise of its erased boxes; the same of its partner; and the view
// of a sample that is seen as it is.
CUTMIX_HD uint32_t vectors_of_sample(const AugmentParams& params) {
    return 2 + params.quadruples.divisor + params.noises;
}

CUTMIX_HD uint32_t partner_in(const KernelParams& params, const PlanSource& source, uint32_t sample) {
    const Plan& plan = params.plan;
    const uint32_t batch = static_cast<uint32_t>(plan.batch);
    if (!plan.given) return partner_of(source.map, sample, batch);
    const uint32_t partner = static_cast<uint32_t>(plan.given[sample].partner);
    return partner < batch ? partner : sample;  // then the row is not valid
}

// Rows and quadruples are dealt out to one thread of each warp: drawing any of them takes some hundred instructions,
// which the threads of a warp would take one after the other.
template <bool kColoured>
CUTMIX_HD void draw_pair(const AugmentParams& params, const PlanSource& source, uint32_t sample, uint32_t partner,
                         uint32_t thread, uint32_t threads, Vector<16>* memory) {
    if (thread % kWarpThreads != 0) return;
    const uint64_t seed = seed_of(params.mix.plan);
    if (thread == 0) memory[2 * vectors_of_sample(params)] = {};
    const uint32_t parts = vectors_of_sample(params) - 1, warps = (threads + kWarpThreads - 1) / kWarpThreads;
    CUTMIX_NO_UNROLL
    for (uint32_t task = thread / kWarpThreads; task < 2 * parts; task += warps) {
        const uint32_t index = task % 2 == 0 ? sample : partner, part = task / 2;
        Vector<16>* of_sample = memory + task % 2 * vectors_of_sample(params);
        if (part == 0) {
            const PlanRow row = plan_row<true>(params.mix, source, index).row;
            Vector<16> halves[2];
            memcpy(halves, &row, sizeof row);
            of_sample[0] = halves[0];
            of_sample[1] = halves[1];
        } else if (part <= params.quadruples.divisor) {
            of_sample[1 + part] = view_quadruple<kColoured>(params, seed, index, part - 1);
        } else {
            const Words words = philox(seed, index, kPerNoise, part - 1 - params.quadruples.divisor);
            of_sample[1 + part] = vector_of<16>(&words);
        }
    }
}

CUTMIX_HD Pair drawn_pair(const AugmentParams& params, uint32_t sample, uint32_t partner, const Vector<16>* memory) {
    const Plan& plan = params.mix.plan;
    const auto checked = [&](const Vector<16>* vectors) {
        CheckedRow checked = {{}, true};
        const Vector<16> row[2] = {vectors[0], vectors[1]};
        memcpy(&checked.row, row, sizeof row);
        if (plan.given) checked.valid = valid_row(checked.row, plan.batch, plan.height, plan.width, plan.can_blend);
        return checked;
    };
    const Vector<16>* behind = memory + vectors_of_sample(params);
    Pair pair = {seed_of(plan),
                 {checked(memory), checked(behind)},
                 {seen_through(params, sample, memory + 2), seen_through(params, partner, behind + 2)},
                 false};
    bool own_valid = true, partner_valid = true;
    if (params.views.given) {
        own_valid = valid_view(params, pair.seen[0]);
        partner_valid = valid_view(params, pair.seen[1]);
    }
    CheckedRow &own = pair.rows[0], &other = pair.rows[1];
    own.valid = own.valid && own_valid && (partner_valid || !has_partner(own.kind()));
    if (!own.valid) pair.seen[0] = {sample, behind + vectors_of_sample(params), 0, nullptr};
    // What is blended is read once for two samples that are each other's partner. What is pasted is read once anyway.
    pair.both = own.valid && other.valid && own_valid && partner_valid && sample != partner &&
                other.row.partner == static_cast<int32_t>(sample) && (reads_own(own.kind()) || reads_own(other.kind()));
    return pair;
}

// ---- Values

enum Constant : int32_t { kMean = 0, kScale = 1, kErase = 2, kFill = 3 };

CUTMIX_HD float constant_of(const AugmentParams& params, Constant which, int32_t channel) {
    const Constants& constants = params.constants;
    return constants.wide ? constants.wide[which * int64_t{params.images.channels} + channel]
                          : constants.few[which][channel];
}

CUTMIX_HD float load_element(const void* data, Dtype dtype, int64_t index) {
    if (dtype == Dtype::kU8) return ElementU8::value(static_cast<const uint8_t*>(data)[index]);
    return load_value<float>(data, dtype, index);
}

CUTMIX_HD void store_element(void* data, Dtype dtype, int64_t index, float value) {
    if (dtype == Dtype::kU8)
        static_cast<uint8_t*>(data)[index] = ElementU8::of(value);
    else
        store_value(data, dtype, index, value);
}

// ---- Pixel by pixel, of any dtypes, layouts and number of channels

CUTMIX_HD uint32_t word_of(const Words& words, int32_t index) {
    const uint32_t low = index & 1 ? words.word[1] : words.word[0], high = index & 1 ? words.word[3] : words.word[2];
    return index & 2 ? high : low;
}

// A pixel of a sample before it is mixed.
template <bool kColoured>
struct SeenPixel {
    uint32_t sample;
    const Vector<16>* colour;
    int64_t offset;     // of its first channel, in elements; -1 where it lies outside of the image
    int32_t erased_by;  // the last box that holds it, or -1
    uint32_t position;  // of its noise
    Words words;        // of the noise of four channels

    CUTMIX_HD float raw(const AugmentParams& params, int32_t channel) const {
        if (offset < 0) return 0.0f;
        const AugmentedImages& images = params.images;
        return load_element(images.in, images.in_dtype, offset + channel * images.in_strides.channel);
    }

    CUTMIX_HD float coloured(const AugmentParams& params, int32_t channel) const {
        if (!kColoured || !colour) return raw(params, channel);
        return coloured_value(colour_row(colour[channel]), raw(params, 0), raw(params, 1), raw(params, 2),
                              white_of(params.images.in_dtype));
    }

    // Channels are asked for in order.
    CUTMIX_HD float erased(const AugmentParams& params, uint64_t seed, int32_t channel) {
        if (params.erasing.value == EraseValue::kConstant) return constant_of(params, kErase, channel);
        if (channel % 4 == 0) words = philox(seed, sample, kPerNoise, position, static_cast<uint32_t>(channel) / 4);
        return noise_of(word_of(words, channel % 4));
    }

    CUTMIX_HD float value(const AugmentParams& params, uint64_t seed, int32_t channel) {
        if (erased_by >= 0 && params.erasing.order == EraseOrder::kBefore) return erased(params, seed, channel);
        return normalized(coloured(params, channel), constant_of(params, kMean, channel),
                          constant_of(params, kScale, channel));
    }
};

template <bool kColoured>
CUTMIX_HD SeenPixel<kColoured> seen_pixel(const AugmentParams& params, const Seen& seen, int32_t y, int32_t x) {
    const int32_t height = params.mix.plan.height, width = params.mix.plan.width;
    const Strides& strides = params.images.in_strides;
    const Geometry geometry = seen.geometry();
    const int32_t from_y = source_y(geometry, y), from_x = source_x(geometry, x, width);
    SeenPixel<kColoured> pixel = {seen.sample, seen.colour, -1, -1, 0, {}};
    if (from_y >= 0 && from_y < height && from_x >= 0 && from_x < width)
        pixel.offset = seen.sample * strides.sample + from_y * strides.row + from_x * strides.pixel;
    CUTMIX_NO_UNROLL
    for (int32_t number = 0; number < seen.boxes; ++number)
        if (contains(seen.erased(number), y, x)) pixel.erased_by = number;
    pixel.position = params.erasing.value == EraseValue::kChannel
                         ? static_cast<uint32_t>(pixel.erased_by)
                         : static_cast<uint32_t>(y) * static_cast<uint32_t>(width) + static_cast<uint32_t>(x);
    return pixel;
}

// Whether a pixel of a sample is another after mixing.
CUTMIX_HD bool is_mixed(const CheckedRow& checked, int32_t y, int32_t x) {
    return checked.kind() != Kind::kKeep && (!has_box(checked.kind()) || contains(checked.row.box, y, x));
}

// One pixel of one or both samples of a pair, all channels: reads what either needs, once.
template <bool kColoured>
CUTMIX_HD void write_pixel(const AugmentParams& params, const Pair& pair, int32_t y, int32_t x) {
    const AugmentedImages& images = params.images;
    const CheckedRow &own_row = pair.rows[0], &other_row = pair.rows[1];
    const bool mixed = is_mixed(own_row, y, x), other_mixed = pair.both && is_mixed(other_row, y, x);
    const bool needs_other = pair.both || (mixed && has_partner(own_row.kind()));
    const bool needs_own = pair.both || !mixed || reads_own(own_row.kind());
    auto own = seen_pixel<kColoured>(params, pair.seen[0], y, x);
    auto other = seen_pixel<kColoured>(params, pair.seen[1], y, x);

    const Strides& strides = images.out_strides;
    const int64_t offset = y * strides.row + x * strides.pixel;
    const auto write = [&](const CheckedRow& checked, bool is_mixed, SeenPixel<kColoured>& pixel, float value,
                           float partner, int32_t channel) {
        if (is_mixed) {
            const Kind kind = checked.kind();
            value = reads_own(kind)     ? computed<ElementF32>(kind, checked.row.lam, value, partner)
                    : has_partner(kind) ? partner
                                        : constant_of(params, kFill, channel);
        }
        if (pixel.erased_by >= 0 && params.erasing.order == EraseOrder::kAfter)
            value = pixel.erased(params, pair.seed, channel);
        const int64_t index = pixel.sample * strides.sample + offset + channel * strides.channel;
        store_element(images.out, images.out_dtype, index, value);
    };
    CUTMIX_NO_UNROLL
    for (int32_t channel = 0; channel < images.channels; ++channel) {
        const float own_value = needs_own ? own.value(params, pair.seed, channel) : 0.0f;
        const float other_value = needs_other ? other.value(params, pair.seed, channel) : 0.0f;
        write(own_row, mixed, own, own_value, other_value, channel);
        if (pair.both) write(other_row, other_mixed, other, other_value, own_value, channel);
    }
}

template <bool kWithColour>
struct PixelUnits {
    static constexpr bool kColoured = kWithColour;

    static CUTMIX_HD void write(const AugmentParams& params, const Pair& pair, int32_t y, int32_t unit) {
        write_pixel<kColoured>(params, pair, y, unit);
    }
};

// ---- Vectors of bytes: uint8 of kChannels channels, the neighbours of a unit at once

// Bytes of two words, by their numbers in four digits: 0..3 in the first word, 4..7 in the second.
CUTMIX_HD uint32_t permuted(uint32_t first, uint32_t second, uint32_t digits) {
#if defined(__CUDA_ARCH__)
    return __byte_perm(first, second, digits);
#else
    const uint64_t both = uint64_t{second} << 32 | first;
    uint32_t result = 0;
    for (int k = 0; k < 4; ++k) result |= static_cast<uint32_t>(both >> 8 * (digits >> 4 * k & 7) & 0xFF) << 8 * k;
    return result;
#endif
}

// The word that begins so many bits, 0..31, behind the beginning of the first.
CUTMIX_HD uint32_t word_behind(uint32_t first, uint32_t second, uint32_t bits) {
#if defined(__CUDA_ARCH__)
    return __funnelshift_r(first, second, bits);
#else
    return static_cast<uint32_t>((uint64_t{second} << 32 | first) >> bits);
#endif
}

// A byte of a word as a float, as ElementU8::value.
CUTMIX_HD float byte_value(uint32_t word, uint32_t byte) {
    return sub_rn(float_of(permuted(word, 0x4B000000u, 0x7440u | byte)), 0x1p23f);
}

// The raw pixels of a unit or of a part of one, channel by channel.
template <int kChannels, int kPixels>
struct Raw {
    uint32_t word[kChannels][kPixels / 4];

    CUTMIX_HD float byte(int channel, int pixel) const {
        return byte_value(word[channel][pixel / 4], static_cast<uint32_t>(pixel % 4));
    }

    // The value before mixing of a sample with these rows of a colour matrix, if it is coloured.
    template <bool kColoured>
    CUTMIX_HD float value(const AugmentParams& params, const Vector<16>* colour, int channel, int pixel) const {
        const float (&constants)[4][kFewChannels] = params.constants.few;
        float raw;
        if constexpr (kColoured)
            raw = coloured_value(colour_row(colour[channel]), byte(0, pixel), byte(1, pixel), byte(2, pixel), 255.0f);
        else
            raw = byte(channel, pixel);
        return normalized(raw, constants[kMean][channel], constants[kScale][channel]);
    }

    // The first pixels, which go to the end: whoever takes all of them finds the raw pixels as they were.
    template <int kFirst>
    CUTMIX_HD Raw<kChannels, kFirst> next() {
        constexpr int kWords = kPixels / 4, kTaken = kFirst / 4;
        const Raw before = *this;
        Raw<kChannels, kFirst> taken;
        CUTMIX_UNROLL
        for (int channel = 0; channel < kChannels; ++channel) {
            CUTMIX_UNROLL
            for (int k = 0; k < kWords; ++k) word[channel][k] = before.word[channel][(k + kTaken) % kWords];
            CUTMIX_UNROLL
            for (int k = 0; k < kTaken; ++k) taken.word[channel][k] = before.word[channel][k];
        }
        return taken;
    }
};

// So many words of a row of bytes from byte `begin` on, which may lie outside: there they are 0. The row begins at a
// multiple of 16 bytes and is as long. Where pixels do not move, the words are those of a unit, which lies inside.
template <bool kMove, int kWords>
CUTMIX_HD void load_words(const uint8_t* row, int32_t row_bytes, int32_t begin, uint32_t* words) {
    constexpr int kAtOnce = kWords % 4 == 0 ? 4 : 2;
    if (!kMove || (begin % (4 * kAtOnce) == 0 && begin >= 0 && begin <= row_bytes - 4 * kWords)) {
        CUTMIX_UNROLL
        for (int k = 0; k < kWords; k += kAtOnce) {
            const Vector<4 * kAtOnce> vector = load<4 * kAtOnce>(row + begin + 4 * k);
            CUTMIX_UNROLL
            for (int j = 0; j < kAtOnce; ++j) words[k + j] = vector.word[j];
        }
        return;
    }
    const int32_t first = begin & ~3;
    const auto word_at = [&](int32_t byte) { return byte >= 0 && byte < row_bytes ? load<4>(row + byte).word[0] : 0; };
    const uint32_t bits = 8 * static_cast<uint32_t>(begin & 3);
    uint32_t word = word_at(first);
    CUTMIX_UNROLL
    for (int k = 0; k < kWords; ++k) {
        const uint32_t next = word_at(first + 4 * (k + 1));
        words[k] = word_behind(word, next, bits);
        word = next;
    }
}

// The digits for `permuted` that take what bytes 0..3 of a word of one channel are of word `source` of kChannels words
// of pixels, and keep the rest of the first argument.
template <int kChannels>
CUTMIX_HD constexpr uint32_t gathering_digits(int channel, int source) {
    uint32_t digits = 0;
    for (int k = 0; k < 4; ++k) {
        const int byte = kChannels * k + channel;
        digits |= static_cast<uint32_t>(byte / 4 == source        ? 4 + byte % 4
                                        : source == 1 && byte < 4 ? byte
                                                                  : k)
                  << 4 * k;
    }
    return digits;
}

// Of pixels that follow each other the channels, each by itself.
template <int kChannels, int kPixels>
CUTMIX_HD void part_channels(const uint32_t* pixels, Raw<kChannels, kPixels>* raw) {
    CUTMIX_UNROLL
    for (int k = 0; k < kPixels / 4; ++k) {
        CUTMIX_UNROLL
        for (int channel = 0; channel < kChannels; ++channel) {
            uint32_t word = pixels[kChannels * k];
            CUTMIX_UNROLL
            for (int source = 1; source < kChannels; ++source)
                word = permuted(word, pixels[kChannels * k + source], gathering_digits<kChannels>(channel, source));
            raw->word[channel][k] = word;
        }
    }
}

template <int kChannels, Path kPath>
CUTMIX_HD Raw<kChannels, unit_pixels(kPath)> load_unit(const AugmentParams& params, const Seen& seen, int32_t y,
                                                       int32_t x) {
    constexpr bool kMove = kPath != Path::kPlain;
    constexpr int kPixels = unit_pixels(kPath), kWords = kPixels / 4;
    const Strides& strides = params.images.in_strides;
    const Geometry geometry = kMove ? seen.geometry() : Geometry{};
    const int32_t height = params.mix.plan.height, width = params.mix.plan.width;
    const int32_t from_y = source_y(geometry, y);
    // The leftmost pixel is the source of the first, or of the last where they are mirrored.
    const int32_t first = geometry.dx + (geometry.flip ? width - kPixels - x : x);
    Raw<kChannels, kPixels> raw = {};
    if (from_y < 0 || from_y >= height) return raw;
    const auto* row =
        static_cast<const uint8_t*>(params.images.in) + seen.sample * strides.sample + from_y * strides.row;
    if (is_planar(strides)) {
        CUTMIX_UNROLL
        for (int channel = 0; channel < kChannels; ++channel)
            load_words<kMove, kWords>(row + channel * strides.channel, width, first, raw.word[channel]);
    } else if constexpr (kChannels > 1) {
        uint32_t pixels[kChannels * kWords];
        load_words<kMove, kChannels * kWords>(row, kChannels * width, kChannels * first, pixels);
        part_channels(pixels, &raw);
    }
    if (!geometry.flip) return raw;
    Raw<kChannels, kPixels> mirrored;
    CUTMIX_UNROLL
    for (int channel = 0; channel < kChannels; ++channel) {
        CUTMIX_UNROLL
        for (int k = 0; k < kWords; ++k)
            mirrored.word[channel][k] = permuted(raw.word[channel][kWords - 1 - k], 0, 0x0123);
    }
    return mirrored;
}

// Two values as elements of 16 bits in a word, the first one low.
template <typename Element>
CUTMIX_HD uint32_t two_elements(float first, float second) {
    return Element::of(first) | static_cast<uint32_t>(Element::of(second)) << 16;
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
template <>
CUTMIX_HD uint32_t two_elements<ElementBF16>(float first, float second) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
}

template <>
CUTMIX_HD uint32_t two_elements<ElementF16>(float first, float second) {
    uint32_t word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
}
#endif

template <typename Element>
constexpr int kElementsOfVector = 16 / static_cast<int>(sizeof(typename Element::Bits));

// The vector of what `value` says for 0..kElementsOfVector-1.
template <typename Element, typename ValueOf>
CUTMIX_HD Vector<16> vector_of_values(const ValueOf& value) {
    Vector<16> vector;
    CUTMIX_UNROLL
    for (int k = 0; k < vector.kWords; ++k) {
        if constexpr (sizeof(typename Element::Bits) == 2)
            vector.word[k] = two_elements<Element>(value(2 * k), value(2 * k + 1));
        else
            vector.word[k] = bits_of(value(k));
    }
    return vector;
}

// Where a sample's unit is written.
template <typename Element>
CUTMIX_HD typename Element::Bits* unit_out(const AugmentedImages& images, uint32_t sample, int32_t y, int32_t x) {
    const Strides& strides = images.out_strides;
    return static_cast<typename Element::Bits*>(images.out) + sample * strides.sample + y * strides.row +
           x * strides.pixel;
}

// Writes the pixels of a unit that are as many as elements in a vector, from pixel `first` on: in either layout they
// are a vector for each channel. `value` says channel and pixel, the first of them 0.
template <typename Element, int kChannels, typename ValueOf>
CUTMIX_HD void store_part(const AugmentedImages& images, typename Element::Bits* out, int32_t first,
                          const ValueOf& value) {
    constexpr int kAtOnce = kElementsOfVector<Element>;
    if (is_planar(images.out_strides)) {
        CUTMIX_UNROLL
        for (int channel = 0; channel < kChannels; ++channel)
            store<16>(reinterpret_cast<uint8_t*>(out + channel * images.out_strides.channel + first),
                      vector_of_values<Element>([&](int k) { return value(channel, k); }));
    } else if constexpr (kChannels > 1) {
        CUTMIX_UNROLL
        for (int behind = 0; behind < kChannels * kAtOnce; behind += kAtOnce)
            store<16>(reinterpret_cast<uint8_t*>(out + kChannels * first + behind),
                      vector_of_values<Element>(
                          [&](int k) { return value((behind + k) % kChannels, (behind + k) / kChannels); }));
    }
}

// Writes a unit of a sample; `value` says channel and pixel in the unit.
template <typename Element, int kChannels, int kPixels, typename ValueOf>
CUTMIX_HD void store_unit(const AugmentedImages& images, uint32_t sample, int32_t y, int32_t x, const ValueOf& value) {
    auto* out = unit_out<Element>(images, sample, y, x);
    CUTMIX_UNROLL
    for (int first = 0; first < kPixels; first += kElementsOfVector<Element>)
        store_part<Element, kChannels>(images, out, first,
                                       [&](int channel, int pixel) { return value(channel, first + pixel); });
}

// The pixels [begin, end) of a unit of kPixels in a box.
template <int kPixels>
struct Span {
    int32_t begin, end;

    CUTMIX_HD bool empty() const { return begin >= end; }
    CUTMIX_HD bool whole() const { return begin == 0 && end == kPixels; }
};

template <int kPixels>
CUTMIX_HD Vector<16> mask_of(const Span<kPixels>& span) {
    return span.empty() ? Vector<16>{} : byte_mask<16>(span.begin, span.end);
}

// Own pixels, but the partner's in the mask.
template <int kChannels, int kPixels>
CUTMIX_HD Raw<kChannels, kPixels> mixed_raw(const Raw<kChannels, kPixels>& own, const Raw<kChannels, kPixels>& partner,
                                            const uint32_t* mask) {
    Raw<kChannels, kPixels> mixed;
    CUTMIX_UNROLL
    for (int channel = 0; channel < kChannels; ++channel) {
        CUTMIX_UNROLL
        for (int k = 0; k < kPixels / 4; ++k)
            mixed.word[channel][k] = select_bits(mask[k], own.word[channel][k], partner.word[channel][k]);
    }
    return mixed;
}

template <int kPixels>
CUTMIX_HD Span<kPixels> span_of(const Box& box, int32_t y, int32_t x) {
    if (y < box.y0 || y >= box.y1) return {0, 0};
    return {max_of(box.x0 - x, 0), min_of(box.x1 - x, kPixels)};
}

// All bits of a byte for each of the first four bits.
CUTMIX_HD uint32_t byte_masks(uint32_t bits) { return ((bits & 0xFu) * 0x00204081u & 0x01010101u) * 0xFFu; }

// A bit for each pixel of a span, the first one lowest.
template <int kPixels>
CUTMIX_HD uint32_t pixels_in(const Span<kPixels>& span) {
    return span.empty() ? 0
                        : bits_from(static_cast<uint32_t>(span.begin)) & ~bits_from(static_cast<uint32_t>(span.end));
}

CUTMIX_HD bool has_pixel(uint32_t pixels, int pixel) { return pixels >> pixel & 1; }

template <int kPixels>
CUTMIX_HD uint32_t erased_pixels(const Seen& seen, int32_t y, int32_t x) {
    uint32_t pixels = 0;
    CUTMIX_NO_UNROLL
    for (int32_t number = 0; number < seen.boxes; ++number)
        pixels |= pixels_in(span_of<kPixels>(seen.erased(number), y, x));
    return pixels;
}

// What a unit means for a sample.
template <int kPixels>
struct Needs {
    Span<kPixels> mixed;  // its pixels that are others after mixing
    bool own, partner;
};

template <int kPixels>
CUTMIX_HD Needs<kPixels> needs_of(const CheckedRow& checked, int32_t y, int32_t x) {
    const Kind kind = checked.kind();
    Needs<kPixels> needs = {{0, 0}, true, false};
    if (kind == Kind::kKeep) return needs;
    needs.mixed = has_box(kind) ? span_of<kPixels>(checked.row.box, y, x) : Span<kPixels>{0, kPixels};
    needs.own = reads_own(kind) || !needs.mixed.whole();
    needs.partner = has_partner(kind) && !needs.mixed.empty();
    return needs;
}

// ---- Units of which pixels are erased, cut out or the like, in parts of as many pixels as elements in a vector

// The noise of the erased pixels of a part, as sums of bytes, two in a word.
template <int kChannels, int kPixels>
struct PartNoise {
    uint32_t word[kChannels][kPixels / 2];

    CUTMIX_HD float value(int channel, int pixel) const {
        return noise_of_sum(static_cast<int32_t>(permuted(word[channel][pixel / 2], 0, pixel % 2 ? 0x4432 : 0x4410)));
    }

    // Pixels move on by one, and the noise of another comes in behind.
    CUTMIX_HD void append(const Words& words) {
        CUTMIX_UNROLL
        for (int channel = 0; channel < kChannels; ++channel) {
            const auto sum = static_cast<uint32_t>(byte_sum(words.word[channel]));
            CUTMIX_UNROLL
            for (int k = 0; k < kPixels / 2; ++k)
                word[channel][k] = permuted(word[channel][k], k < kPixels / 2 - 1 ? word[channel][k + 1] : sum, 0x5432);
        }
    }

    CUTMIX_HD void set(uint32_t pixels, const Words& words) {
        CUTMIX_UNROLL
        for (int k = 0; k < kPixels / 2; ++k) {
            const uint32_t mask =
                (has_pixel(pixels, 2 * k) ? 0xFFFFu : 0) | (has_pixel(pixels, 2 * k + 1) ? ~0xFFFFu : 0);
            CUTMIX_UNROLL
            for (int channel = 0; channel < kChannels; ++channel)
                word[channel][k] = select_bits(mask, word[channel][k],
                                               0x10001u * static_cast<uint32_t>(byte_sum(words.word[channel])));
        }
    }
};

// Adds the noise of the pixels of a part of a row that a sample's boxes erase, a number for each box.
template <int kChannels, int kPixels>
CUTMIX_HD void add_noise_of_boxes(const AugmentParams& params, const Seen& seen, int32_t y, int32_t x, uint32_t pixels,
                                  PartNoise<kChannels, kPixels>* noise) {
    if (pixels == 0) return;
    CUTMIX_NO_UNROLL
    for (int32_t number = 0; number < seen.boxes; ++number) {
        const uint32_t in_box = pixels & pixels_in(span_of<kPixels>(seen.erased(number), y, x));
        if (in_box) noise->set(in_box, value_of<Words>(seen.view[params.quadruples.divisor + number]));
    }
}

// The noise of erased pixels of a part of a row, of a sample and of its partner.
template <int kChannels, int kPixels>
CUTMIX_HD PartNoise<kChannels, kPixels> part_noise(const AugmentParams& params, uint64_t seed, const Seen& seen,
                                                   const Seen& seen_partner, int32_t y, int32_t x, uint32_t erased,
                                                   uint32_t erased_partner) {
    PartNoise<kChannels, kPixels> noise = {};
    if (params.erasing.value == EraseValue::kChannel) {
        add_noise_of_boxes(params, seen, y, x, erased, &noise);
        add_noise_of_boxes(params, seen_partner, y, x, erased_partner, &noise);
    } else if (params.erasing.value == EraseValue::kPixel && (erased | erased_partner)) {
        const uint32_t row = static_cast<uint32_t>(y) * static_cast<uint32_t>(params.mix.plan.width);
        CUTMIX_NO_UNROLL
        for (int pixel = 0; pixel < kPixels; ++pixel) {
            const uint32_t sample = has_pixel(erased_partner, pixel) ? seen_partner.sample : seen.sample;
            Words words = {};
            if (has_pixel(erased | erased_partner, pixel))
                words = philox(seed, sample, kPerNoise, row + static_cast<uint32_t>(x + pixel));
            noise.append(words);
        }
    }
    return noise;
}

// A sample whose unit is written: its row of the plan, its view and its partner's, raw pixels as far as they count.
template <int kChannels, int kPixels>
struct Mixing {
    const CheckedRow& checked;
    const Seen &seen, &seen_partner;
    Raw<kChannels, kPixels>&raw, &partner;
    Span<kPixels> mixed;
};

// Writes a unit of which nothing is erased, of a kind that does not take parts. Where samples are coloured, it is mixed
// as a whole.
template <typename Element, bool kColoured, int kChannels, int kPixels>
CUTMIX_HD void mix_unit(const AugmentParams& params, const Mixing<kChannels, kPixels>& unit, int32_t y, int32_t x) {
    const Raw<kChannels, kPixels>&raw = unit.raw, &partner = unit.partner;
    const Vector<16>*colour = unit.seen.colour, *colour_partner = unit.seen_partner.colour;
    const Kind kind = unit.checked.kind();
    if (reads_own(kind)) {
        const float lam = unit.checked.row.lam;
        store_unit<Element, kChannels, kPixels>(params.images, unit.seen.sample, y, x, [&](int channel, int pixel) {
            return computed<ElementF32>(kind, lam, raw.template value<kColoured>(params, colour, channel, pixel),
                                        partner.template value<kColoured>(params, colour_partner, channel, pixel));
        });
        return;
    }
    const Raw<kChannels, kPixels> mixed = mixed_raw(raw, partner, mask_of(unit.mixed).word);
    const Vector<16>* colour_mixed = unit.mixed.empty() ? colour : colour_partner;
    store_unit<Element, kChannels, kPixels>(params.images, unit.seen.sample, y, x, [&](int channel, int pixel) {
        return mixed.template value<kColoured>(params, colour_mixed, channel, pixel);
    });
}

// Writes any unit.
template <typename Element, bool kColoured, int kChannels, int kUnit>
CUTMIX_HD void mix_parts(const AugmentParams& params, uint64_t seed, const Mixing<kChannels, kUnit>& unit, int32_t y,
                         int32_t x) {
    constexpr int kPixels = kElementsOfVector<Element>;
    using Part = Raw<kChannels, kPixels>;
    using Noise = PartNoise<kChannels, kPixels>;
    const Kind kind = unit.checked.kind();
    const Seen &seen = unit.seen, &seen_partner = unit.seen_partner;
    const Vector<16>*colour = seen.colour, *colour_partner = seen_partner.colour;
    const float lam = unit.checked.row.lam;
    const bool before = params.erasing.order == EraseOrder::kBefore;
    const bool constant = params.erasing.value == EraseValue::kConstant;
    uint32_t mixed = pixels_in(unit.mixed), erased = erased_pixels<kUnit>(seen, y, x);
    uint32_t erased_partner = before && has_partner(kind) ? erased_pixels<kUnit>(seen_partner, y, x) & mixed : 0;
    if (before && !reads_own(kind)) erased &= ~mixed;
    auto* out = unit_out<Element>(params.images, seen.sample, y, x);
    const auto value = [&](const Part& part, const Vector<16>* rows, int channel, int pixel) {
        return part.template value<kColoured>(params, rows, channel, pixel);
    };
    const auto erased_value = [&](const Noise& noise, int channel, int pixel) {
        return constant ? params.constants.few[kErase][channel] : noise.value(channel, pixel);
    };
    CUTMIX_NO_UNROLL
    for (int32_t first = 0; first < kUnit; first += kPixels) {
        const Part own = unit.raw.template next<kPixels>(), partner = unit.partner.template next<kPixels>();
        const auto noise_in = [&](uint32_t of_own, uint32_t of_partner) {
            return part_noise<kChannels, kPixels>(params, seed, seen, seen_partner, y, x + first, of_own, of_partner);
        };
        if (reads_own(kind)) {
            const Noise noise = noise_in(erased, 0), noise_partner = noise_in(0, erased_partner);
            store_part<Element, kChannels>(params.images, out, first, [&](int channel, int pixel) {
                const bool is_erased = has_pixel(erased, pixel);
                const float instead = erased_value(noise, channel, pixel);
                float mine = value(own, colour, channel, pixel),
                      theirs = value(partner, colour_partner, channel, pixel);
                mine = before && is_erased ? instead : mine;
                theirs = has_pixel(erased_partner, pixel) ? erased_value(noise_partner, channel, pixel) : theirs;
                if (!computes_in_box(kind) || has_pixel(mixed, pixel))
                    mine = computed<ElementF32>(kind, lam, mine, theirs);
                return !before && is_erased ? instead : mine;
            });
        } else {
            const Noise noise = noise_in(erased, erased_partner);
            const uint32_t pasted = has_partner(kind) ? mixed : 0, filled = mixed & ~pasted;
            uint32_t mask[kPixels / 4];
            CUTMIX_UNROLL
            for (int k = 0; k < kPixels / 4; ++k) mask[k] = byte_masks(pasted >> 4 * k);
            const Part part = mixed_raw(own, partner, mask);
            store_part<Element, kChannels>(params.images, out, first, [&](int channel, int pixel) {
                const Vector<16>* rows = has_pixel(pasted, pixel) ? colour_partner : colour;
                float result = value(part, rows, channel, pixel);
                result = has_pixel(filled, pixel) ? params.constants.few[kFill][channel] : result;
                return has_pixel(erased | erased_partner, pixel) ? erased_value(noise, channel, pixel) : result;
            });
        }
        mixed >>= kPixels;
        erased >>= kPixels;
        erased_partner >>= kPixels;
    }
}

// Whether it is true of one of the threads of a warp that ask together. Those would wait for it anyway.
CUTMIX_HD bool any_of_warp(bool value) {
#if defined(__CUDA_ARCH__)
    return __any_sync(__activemask(), value);
#else
    return value;
#endif
}

// Whether a unit takes more than mix_unit.
template <bool kColoured, int kPixels>
CUTMIX_HD bool unit_takes_parts(const CheckedRow& checked, const Needs<kPixels>& needs, const Seen& seen,
                                const Seen& seen_partner, int32_t y, int32_t x) {
    const bool in_parts = takes_parts(checked.kind()) && !needs.mixed.empty();
    const bool two_colours = kColoured && !needs.mixed.empty() && !needs.mixed.whole();
    return in_parts || two_colours || erased_pixels<kPixels>(seen, y, x) ||
           (needs.partner && erased_pixels<kPixels>(seen_partner, y, x));
}

template <typename Element, int kChannels, Path kPath>
struct VectorUnits {
    static constexpr bool kColoured = kPath == Path::kColoured;
    static constexpr int kPixels = unit_pixels(kPath);

    static CUTMIX_HD void write(const AugmentParams& params, const Pair& pair, int32_t y, int32_t unit) {
        const int32_t x = unit * kPixels;
        const Seen &seen = pair.seen[0], &seen_partner = pair.seen[1];
        const auto own = needs_of<kPixels>(pair.rows[0], y, x), other = needs_of<kPixels>(pair.rows[1], y, x);
        // A sample that is not coloured as the others are, because it is not valid.
        if (kColoured && !seen.colour) {
            CUTMIX_NO_UNROLL
            for (int32_t k = 0; k < kPixels; ++k) write_pixel<kColoured>(params, pair, y, x + k);
            return;
        }
        Raw<kChannels, kPixels> raw = {}, partner = {};
        if (own.own || (pair.both && other.partner)) raw = load_unit<kChannels, kPath>(params, seen, y, x);
        if (own.partner || (pair.both && other.own)) partner = load_unit<kChannels, kPath>(params, seen_partner, y, x);
        // A loop, so that there is one copy of its machine code for both samples.
        CUTMIX_NO_UNROLL
        for (bool first = true;; first = false) {
            const CheckedRow checked = first ? pair.rows[0] : pair.rows[1];
            const Seen one = first ? seen : seen_partner, another = first ? seen_partner : seen;
            const auto needs = first ? own : other;
            const Mixing<kChannels, kPixels> mixing = {checked, one, another, raw, partner, needs.mixed};
            if (kPath != Path::kPlain && any_of_warp(unit_takes_parts<kColoured>(checked, needs, one, another, y, x)))
                mix_parts<Element, kColoured>(params, pair.seed, mixing, y, x);
            else
                mix_unit<Element, kColoured>(params, mixing, y, x);
            if (!first || !pair.both) break;
            const Raw<kChannels, kPixels> swapped = raw;
            raw = partner;
            partner = swapped;
        }
    }
};

// ---- Blocks

CUTMIX_HD void wait_for_block() {
#if defined(__CUDA_ARCH__)
    __syncthreads();
#endif
}

// What a block of `threads` threads does, as one of them; `memory` is theirs together. A block may have one thread.
template <typename Units>
CUTMIX_HD void augment_block(const AugmentParams& params, uint32_t block, uint32_t thread, uint32_t threads,
                             Vector<16>* memory) {
    const KernelParams& mix = params.mix;
    const uint32_t warps = (threads + kWarpThreads - 1) / kWarpThreads;
    if (block < mix.target_blocks) {
        write_seen_targets(params, block * warps + thread / kWarpThreads, thread % kWarpThreads);
        return;
    }
    block -= mix.target_blocks;
    if (block < mix.plan_blocks) {
        write_plan(mix, block * threads + thread);
        return;
    }
    block -= mix.plan_blocks;
    if (block < params.view_blocks) {
        write_view<Units::kColoured>(params, block * threads + thread);
        return;
    }
    block -= params.view_blocks;

    const PlanSource source = plan_source(mix);
    const uint32_t sample = params.blocks_in_sample.quotient(block);
    const uint32_t partner = partner_in(mix, source, sample);
    draw_pair<Units::kColoured>(params, source, sample, partner, thread, threads, memory);
    wait_for_block();
    const Pair pair = drawn_pair(params, sample, partner, memory);
    if (pair.both && sample > partner) return;  // the partner's block writes both

    const uint32_t first = (block - sample * params.blocks_in_sample.divisor) * params.units_in_block;
    const uint32_t behind = first + params.units_in_block;
    const uint32_t end = behind < params.units_in_sample ? behind : params.units_in_sample;
    CUTMIX_NO_UNROLL
    for (uint32_t unit = first + thread; unit < end; unit += threads) {
        const uint32_t y = params.units_in_row.quotient(unit);
        Units::write(params, pair, static_cast<int32_t>(y),
                     static_cast<int32_t>(unit - y * params.units_in_row.divisor));
    }
}

// ---- Kernels

template <bool kColoured>
__global__ void __launch_bounds__(kAugmentThreads) augment_pixels(const __grid_constant__ AugmentParams params) {
    extern __shared__ Vector<16> block_memory[];
    augment_block<PixelUnits<kColoured>>(params, blockIdx.x, threadIdx.x, blockDim.x, block_memory);
}

// How many blocks have to fit on a multiprocessor at the same time; 0 leaves it to the compiler. augment_geometry.h
// says what four of the plain kernel do; what is coloured needs many values at a time.
constexpr int blocks_wanted(Path path) { return path == Path::kPlain ? 4 : path == Path::kColoured ? 2 : 0; }

template <typename Element, int kChannels, Path kPath>
__global__ void __launch_bounds__(kAugmentThreads, blocks_wanted(kPath))
    augment_vectors(const __grid_constant__ AugmentParams params) {
    extern __shared__ Vector<16> block_memory[];
    augment_block<VectorUnits<Element, kChannels, kPath>>(params, blockIdx.x, threadIdx.x, blockDim.x, block_memory);
}

// ---- Launch

using AugmentKernel = void (*)(AugmentParams);

template <typename Element, int kChannels>
AugmentKernel vector_kernel(Path path) {
    if (path == Path::kPlain) return augment_vectors<Element, kChannels, Path::kPlain>;
    if constexpr (kChannels == 3)
        if (path == Path::kColoured) return augment_vectors<Element, kChannels, Path::kColoured>;
    return augment_vectors<Element, kChannels, Path::kViewed>;
}

template <typename Element>
AugmentKernel vector_kernel(const AugmentLaunch& launch) {
    return launch.channels == 1 ? vector_kernel<Element, 1>(launch.path) : vector_kernel<Element, 3>(launch.path);
}

inline AugmentKernel kernel_of(const AugmentLaunch& launch) {
    if (!launch.vectors) return launch.path == Path::kColoured ? augment_pixels<true> : augment_pixels<false>;
    switch (launch.out_dtype) {
        case Dtype::kF16:
            return vector_kernel<ElementF16>(launch);
        case Dtype::kBF16:
            return vector_kernel<ElementBF16>(launch);
        default:
            return vector_kernel<ElementF32>(launch);
    }
}

inline cudaError_t launch_augment(const AugmentCall& call, cudaStream_t stream) {
    AugmentLaunch launch = augment_geometry(call);
    if (launch.grid == 0) return cudaSuccess;
    void* arguments[] = {&launch.params};
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel_of(launch)), dim3(launch.grid), dim3(launch.block),
                            arguments, launch.shared_bytes, stream);
}

}  // namespace cutmix
