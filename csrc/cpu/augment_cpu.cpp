// The batch tail on the CPU: one pass over the rows of the output, on torch's own threads.

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "augment_ops.h"
#include "byte_tables.h"
#include "target_rows.h"
#include "threads.h"

namespace cutmix {
namespace {

constexpr int64_t kElementsPerTask = 1 << 13;
constexpr int64_t kSamplesPerTask = 1 << 6;

// ---- The plan and the views

void sample_plan(const AugmentCall& call) {
    const Plan& plan = call.plan;
    const uint32_t batch = static_cast<uint32_t>(plan.batch);
    const PartnerMap map = partner_map(plan.draw.sampling.partner, plan.seed, batch);
    for (uint32_t i = 0; i < batch; ++i)
        plan.sampled[i] = sample_row(plan.draw, plan.seed, i, partner_of(map, i, batch));
}

void sample_views(const AugmentCall& call) {
    const Views& views = call.views;
    parallel(0, call.plan.batch, kSamplesPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const auto index = static_cast<uint32_t>(i);
            int32_t* view = views.sampled + i * views.columns();
            const Geometry geometry = sample_geometry(views.sampling, call.plan.seed, index);
            std::memcpy(view, &geometry, sizeof geometry);
            const int32_t count = sample_box_count(views.sampling, call.plan.seed, index);
            for (int32_t number = 0; number < views.boxes; ++number) {
                const Box box = sample_box(views.sampling, call.plan.seed, index, number, count);
                std::memcpy(view + (1 + number) * Views::kQuadruple, &box, sizeof box);
            }
            for (int32_t row = 0; views.coloured && row < kColourRows; ++row) {
                const ColourRow colour = sample_colour(views.sampling, call.plan.seed, index, row);
                std::memcpy(view + (1 + views.boxes + row) * Views::kQuadruple, &colour, sizeof colour);
            }
        }
    });
}

// ---- What becomes of each sample

// A sample as it looks before it is mixed: its pixels through its view.
struct Seen {
    int64_t sample;
    Geometry geometry;
    const Box* erased;
    int32_t boxes;
    const ColourRow* colour;  // the rows of its matrix; null where it is not coloured
};

// One that cannot be followed is kept, and seen as it is.
struct Followed {
    PlanRow row;
    bool valid;
    Seen seen;

    Kind kind() const { return valid ? static_cast<Kind>(row.kind) : Kind::kKeep; }
};

// The elements of a row of an image in the order of the output: a line for each channel, or pixel by pixel.
struct RowOrder {
    bool packed;  // pixel by pixel
    int32_t channels, width;

    int64_t size() const { return int64_t{channels} * width; }
    int64_t at(int32_t channel, int32_t x) const {
        return packed ? int64_t{x} * channels + channel : int64_t{channel} * width + x;
    }
};

inline int64_t bytes_of(Dtype dtype) { return dtype == Dtype::kU8 ? 1 : dtype == Dtype::kF32 ? 4 : 2; }

using Floats = std::vector<float>;

enum Constant : int32_t { kMean = 0, kScale = 1, kErase = 2, kFill = 3 };

struct Work;
struct Scratch;
struct Span;

// The coloured pixels that a span of an output row shows of a row of the image, channel by channel, in scratch.
const float* colour_span(const Work& work, const Seen& seen, int32_t y, Span span, Scratch& scratch);

struct Work {
    const AugmentCall& call;
    decltype(colour_span)* coloured_span;
    RowOrder order;
    std::vector<Box> quadruples;  // of the packed views
    std::vector<ColourRow> colours;
    std::vector<Seen> seen;
    std::vector<Followed> samples;
    Floats mean, scale;  // of the elements of a row
#if CUTMIX_X86
    std::vector<ByteTable> tables;  // of the channels, where they are looked up
#endif

    explicit Work(const AugmentCall& of) : call(of), coloured_span(for_processor<colour_span>()) {
        const Plan& plan = call.plan;
        const int32_t* packed = call.views.given ? call.views.given : call.views.sampled;
        const int64_t quadruples_each = call.views.quadruples(), rows_each = call.views.coloured ? kColourRows : 0;
        quadruples.resize(static_cast<size_t>(plan.batch * quadruples_each));
        if (!quadruples.empty()) std::memcpy(quadruples.data(), packed, quadruples.size() * sizeof(Box));
        colours.resize(static_cast<size_t>(plan.batch * rows_each));
        std::vector<bool> valid_views;
        for (int32_t i = 0; i < plan.batch; ++i) {
            const Box* view = quadruples.data() + i * quadruples_each;
            Seen one = {i, {}, view + 1, call.views.boxes, nullptr};
            std::memcpy(&one.geometry, view, sizeof one.geometry);
            if (call.views.coloured) {
                ColourRow* colour = colours.data() + i * rows_each;
                std::memcpy(colour, one.erased + one.boxes, kColourRows * sizeof *colour);
                one.colour = colour;
            }
            seen.push_back(one);
            valid_views.push_back(valid_geometry(one.geometry, plan.height, plan.width) &&
                                  std::all_of(one.erased, one.erased + one.boxes,
                                              [&](const Box& box) { return valid_box(box, plan.height, plan.width); }));
        }
        const PlanRow* rows = plan.given ? plan.given : plan.sampled;
        for (int32_t i = 0; i < plan.batch; ++i) {
            const PlanRow& row = rows[i];
            const bool valid = valid_row(row, plan.batch, plan.height, plan.width, true) && valid_views[i] &&
                               (!has_partner(static_cast<Kind>(row.kind)) || valid_views[row.partner]);
            samples.push_back({row, valid, valid ? seen[i] : Seen{i, {}, nullptr, 0, nullptr}});
        }

        order = {call.images.out_strides.channel == 1 && call.images.channels > 1, call.images.channels, plan.width};
        repeat_constants();
#if CUTMIX_X86
        if (call.images.in_dtype != Dtype::kU8 || call.views.coloured || !has_avx512_vbmi()) return;
        if (call.images.out_dtype == Dtype::kF16) make_tables<ElementF16>();
        if (call.images.out_dtype == Dtype::kBF16) make_tables<ElementBF16>();
#endif
    }

    // The same with rows of so many rows of the image, one behind the other.
    Work(const Work& of, int32_t rows) : Work(of) {
        order.width *= rows;
        repeat_constants();
    }

    void repeat_constants() {
        for (Floats* row : {&mean, &scale}) row->resize(static_cast<size_t>(order.size()));
        for (int32_t channel = 0; channel < order.channels; ++channel)
            for (int32_t x = 0; x < order.width; ++x) {
                const int64_t at = order.at(channel, x);
                mean[at] = constant(kMean, channel);
                scale[at] = constant(kScale, channel);
            }
    }

#if CUTMIX_X86
    template <typename Out>
    void make_tables() {
        tables.resize(static_cast<size_t>(order.channels));
        for (int32_t channel = 0; channel < order.channels; ++channel)
            for (int32_t byte = 0; byte < 256; ++byte) {
                const float raw = ElementU8::value(static_cast<uint8_t>(byte));
                const float value = normalized(raw, constant(kMean, channel), constant(kScale, channel));
                tables[channel].set(byte, Out::of(value));
            }
    }
#endif

    int64_t out_rows() const { return call.images.out ? int64_t{call.plan.batch} * call.plan.height : 0; }
    int64_t out_bytes() const { return out_rows() * order.size() * bytes_of(call.images.out_dtype); }

    // Whether what is stored for a byte is looked up.
    bool looks_up() const {
#if CUTMIX_X86
        return !tables.empty();
#else
        return false;
#endif
    }

    float constant(Constant which, int32_t channel) const {
        const Constants& constants = call.constants;
        return constants.wide ? constants.wide[which * int64_t{order.channels} + channel]
                              : constants.few[which][channel];
    }
};

// ---- Bytes of a row, put into the order of the output. Elements are integers of their size.

template <typename T>
inline void reverse_line(const T* __restrict last, T* __restrict to, int64_t count) {
    for (int64_t k = 0; k < count; ++k) to[k] = last[-k];
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CUTMIX_SHUFFLES 1  // which the compiler turns into those of the processor
#endif
#endif

#if CUTMIX_SHUFFLES
typedef uint8_t Bytes16 __attribute__((vector_size(16)));

inline Bytes16 load16(const uint8_t* from) {
    Bytes16 bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return bytes;
}

inline void store16(uint8_t* to, Bytes16 bytes) { std::memcpy(to, &bytes, sizeof bytes); }

// Five pixels of three bytes, the last of them at `last`, in reverse, and a byte behind them. Reads a byte before them.
inline void reverse5(const uint8_t* last, uint8_t* to) {
    const Bytes16 bytes = load16(last - 13);
    store16(to, __builtin_shufflevector(bytes, bytes, 13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0));
}

// Sixteen pixels of three lines a, b and c, pixel by pixel. First a and b, with a gap for c after each pair.
inline void interleave16(Bytes16 a, Bytes16 b, Bytes16 c, uint8_t* to) {
    const Bytes16 ab0 = __builtin_shufflevector(a, b, 0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5);
    const Bytes16 ab1 = __builtin_shufflevector(a, b, 21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26);
    const Bytes16 ab2 = __builtin_shufflevector(a, b, 0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0);
    store16(to, __builtin_shufflevector(ab0, c, 0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15));
    store16(to + 16, __builtin_shufflevector(ab1, c, 0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15));
    store16(to + 32, __builtin_shufflevector(ab2, c, 26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31));
}

// The inverse: sixteen pixels of three channels as three lines.
inline void separate16(const uint8_t* from, uint8_t* a, uint8_t* b, uint8_t* c) {
    const Bytes16 p = load16(from), q = load16(from + 16), r = load16(from + 32);
    const Bytes16 a01 = __builtin_shufflevector(p, q, 0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 0, 0, 0, 0, 0);
    const Bytes16 b01 = __builtin_shufflevector(p, q, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 0, 0, 0, 0, 0);
    const Bytes16 c01 = __builtin_shufflevector(p, q, 2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 0, 0, 0, 0, 0, 0);
    store16(a, __builtin_shufflevector(a01, r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 17, 20, 23, 26, 29));
    store16(b, __builtin_shufflevector(b01, r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 18, 21, 24, 27, 30));
    store16(c, __builtin_shufflevector(c01, r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 19, 22, 25, 28, 31));
}
#endif

template <typename T>
inline void reverse_pixels(const T* last, T* to, int64_t count, int64_t channels) {
    int64_t k = 0;
#if CUTMIX_SHUFFLES
    if constexpr (sizeof(T) == 1) {
        if (channels == 3)
            for (; k + 5 < count; k += 5) reverse5(last - 3 * k, to + 3 * k);
    }
#endif
    for (; k < count; ++k)
        for (int64_t channel = 0; channel < channels; ++channel)
            to[k * channels + channel] = last[channel - k * channels];
}

// Lines `apart` elements from each other, pixel by pixel.
template <typename T>
inline void interleave(const T* from, int64_t apart, T* to, int64_t count, int64_t channels) {
    int64_t k = 0;
#if CUTMIX_SHUFFLES
    if constexpr (sizeof(T) == 1) {
        if (channels == 3)
            for (; k + 16 <= count; k += 16)
                interleave16(load16(from + k), load16(from + apart + k), load16(from + 2 * apart + k), to + 3 * k);
    }
#endif
    for (; k < count; ++k)
        for (int64_t channel = 0; channel < channels; ++channel) to[k * channels + channel] = from[channel * apart + k];
}

// The inverse.
template <typename T>
inline void separate(const T* from, T* to, int64_t apart, int64_t count, int64_t channels) {
    int64_t k = 0;
#if CUTMIX_SHUFFLES
    if constexpr (sizeof(T) == 1) {
        if (channels == 3)
            for (; k + 16 <= count; k += 16) separate16(from + 3 * k, to + k, to + apart + k, to + 2 * apart + k);
    }
#endif
    for (; k < count; ++k)
        for (int64_t channel = 0; channel < channels; ++channel) to[channel * apart + k] = from[k * channels + channel];
}

// ---- Values of a row: float32 where something blends them, or else what is stored

template <typename In, typename Out>
inline void normalize_line(const typename In::Bits* __restrict raw, const float* __restrict mean,
                           const float* __restrict scale, typename Out::Bits* __restrict values, int64_t count) {
    for (int64_t k = 0; k < count; ++k) values[k] = Out::of(normalized(In::value(raw[k]), mean[k], scale[k]));
}

template <typename In, typename Out>
inline void compute_normalized_line(Kind kind, float lam, const typename In::Bits* __restrict own,
                                    const typename In::Bits* __restrict partner, const float* __restrict mean,
                                    const float* __restrict scale, typename Out::Bits* __restrict out, int64_t count) {
    for (int64_t k = 0; k < count; ++k)
        out[k] = Out::of(computed<ElementF32>(kind, lam, normalized(In::value(own[k]), mean[k], scale[k]),
                                              normalized(In::value(partner[k]), mean[k], scale[k])));
}

inline void compute_line(Kind kind, float lam, const float* __restrict partner, float* __restrict values,
                         int64_t count) {
    for (int64_t k = 0; k < count; ++k) values[k] = computed<ElementF32>(kind, lam, values[k], partner[k]);
}

template <typename Element>
inline void cast_line(const float* __restrict values, typename Element::Bits* __restrict out, int64_t count) {
    for (int64_t k = 0; k < count; ++k) out[k] = Element::of(values[k]);
}

struct Span {
    int32_t begin, end;  // pixels of a row

    int32_t size() const { return end - begin; }
};

// Calls a function with the lines that a span is made of, one for each channel where the order is not packed: where the
// pixels of one begin in a row, how many elements they are, and how many there were before in the lines of this span.
template <typename Function>
inline void each_line(const RowOrder& order, Span span, const Function& function) {
    const int64_t lines = order.packed ? 1 : order.channels, pixels = span.size();
    const int64_t elements = order.packed ? pixels * order.channels : pixels;
    for (int64_t line = 0; line < lines; ++line)
        function(order.at(static_cast<int32_t>(line), span.begin), elements, line);
}

struct alignas(kLine) CacheLine {
    uint8_t bytes[kLine];
};

using Room = std::vector<CacheLine>;  // for a row of the widest element, aligned as vectors are

// Rooms for one row of one thread.
struct Scratch {
    Room raw, lines, partner_raw, partner_lines, copied, out;
    Floats coloured, values, partner;
#if CUTMIX_X86
    std::vector<LineWriter<false>> writers;
#endif

    Scratch(const RowOrder& order, bool has_colour)
        : raw(static_cast<size_t>(order.size() * sizeof(float) / kLine + 1)),
          lines(raw.size()),
          partner_raw(raw.size()),
          partner_lines(raw.size()),
          copied(raw.size()),
          out(raw.size()),
          coloured(static_cast<size_t>(has_colour ? order.size() : 0)),
          values(static_cast<size_t>(order.size())),
          partner(values.size()) {}
};

template <typename T>
T* room(Room& scratch) {
    return reinterpret_cast<T*>(scratch.data());
}

// Raw pixels that follow each other in a row, in the order of the input: a line for each channel, or one of pixels.
template <typename T>
struct Lines {
    const T* first;
    int64_t apart;      // elements from one line to the next
    bool flip = false;  // the other pixels lie before the first
};

// The pixels of row y of the image that the output shows from x on.
template <typename T>
inline Lines<T> source_of(const Work& work, const Seen& seen, int32_t y, int32_t x) {
    const Strides& strides = work.call.images.in_strides;
    const T* first = static_cast<const T*>(work.call.images.in) + seen.sample * strides.sample + y * strides.row +
                     source_x(seen.geometry, x, work.order.width) * strides.pixel;
    return {first, strides.channel, seen.geometry.flip != 0};
}

// Puts so many pixels where they go, in the order of the input.
template <typename T>
inline void put_pixels(const Work& work, const Lines<T>& source, int64_t count, T* to, int64_t apart) {
    const int64_t channels = work.order.channels, pixel = work.call.images.in_strides.pixel;
    if (source.flip && pixel != 1) return reverse_pixels(source.first, to, count, channels);
    for (int64_t line = 0; line < (pixel == 1 ? channels : 1); ++line, to += apart) {
        const T* from = source.first + line * source.apart;
        if (source.flip)
            reverse_line(from, to, count);
        else
            copy_bytes(reinterpret_cast<uint8_t*>(to), reinterpret_cast<const uint8_t*>(from),
                       count * pixel * sizeof(T));
    }
}

// So many pixels, none of which lies before the first.
template <typename T>
inline Lines<T> straight_lines(const Work& work, const Lines<T>& source, int64_t count, Room& flipped) {
    if (!source.flip) return source;
    T* to = room<T>(flipped);
    put_pixels(work, source, count, to, count);
    return {to, count};
}

// The same, channel by channel.
template <typename T>
inline Lines<T> planar_lines(const Work& work, const Lines<T>& lines, int64_t count, Room& raw) {
    if (work.call.images.in_strides.pixel == 1) return lines;
    T* to = room<T>(raw);
    separate(lines.first, to, count, count, work.order.channels);
    return {to, count};
}

// The same, in the order of the output.
template <typename T>
inline Lines<T> ordered_lines(const Work& work, const Lines<T>& source, int64_t count, Room& raw, Room& flipped) {
    const Lines<T> lines = straight_lines(work, source, count, flipped);
    if (!work.order.packed) return planar_lines(work, lines, count, raw);
    if (work.call.images.in_strides.pixel != 1) return lines;
    T* to = room<T>(raw);
    interleave(lines.first, lines.apart, to, count, work.order.channels);
    return {to, count};
}

// Pixels [span) of a row, normalised.
template <typename In, typename Out>
inline void load_span(const Work& work, const Lines<typename In::Bits>& source, Span span, Scratch& scratch,
                      typename Out::Bits* values) {
    using T = typename In::Bits;
    const Lines<T> lines = ordered_lines(work, source, span.size(), scratch.raw, scratch.lines);
    each_line(work.order, span, [&](int64_t at, int64_t elements, int64_t line) {
        normalize_line<In, Out>(lines.first + line * lines.apart, &work.mean[at], &work.scale[at], values + at,
                                elements);
    });
}

// Pixels [span) of an output row, which row y of the image has, coloured and normalised. Colours come as floats,
// channel by channel.
template <typename Out>
inline void load_coloured_span(const Work& work, const Seen& seen, int32_t y, Span span, Scratch& scratch,
                               typename Out::Bits* values) {
    const RowOrder& order = work.order;
    const int64_t count = span.size();
    const float* raw = work.coloured_span(work, seen, y, span, scratch);
    if (order.packed) {
        float* packed = room<float>(scratch.raw);
        interleave(raw, count, packed, count, kColourRows);
        raw = packed;
    }
    each_line(order, span, [&](int64_t at, int64_t elements, int64_t line) {
        normalize_line<ElementF32, Out>(raw + line * count, &work.mean[at], &work.scale[at], values + at, elements);
    });
}

template <typename Out>
constexpr bool kFloats = std::is_same_v<Out, ElementF32>;

// The same of any sample. What is stored right away is coloured, and anything may become floats.
template <typename Out>
inline void load_span(const Work& work, const Seen& seen, int32_t y, Span span, Scratch& scratch,
                      typename Out::Bits* values) {
    if (seen.colour || !kFloats<Out>) return load_coloured_span<Out>(work, seen, y, span, scratch, values);
    if constexpr (kFloats<Out>) {
        const auto load = [&]<typename In>(In) {
            load_span<In, Out>(work, source_of<typename In::Bits>(work, seen, y, span.begin), span, scratch, values);
        };
        switch (work.call.images.in_dtype) {
            case Dtype::kU8:
                return load(ElementU8{});
            case Dtype::kF16:
                return load(ElementF16{});
            case Dtype::kBF16:
                return load(ElementBF16{});
            default:
                return load(ElementF32{});
        }
    }
}

// ---- Colour

// Calls a function with pieces of a line of so many elements. They are of constant lengths, whose loops become vectors
// and nothing else, because what is left over, one by one, takes as long as the rest of a short row. The last piece may
// overlap the one before.
template <typename Function>
inline void in_pieces(int64_t count, const Function& function) {
    int64_t at = 0;
    const auto pieces_of = [&](auto length) {
        for (; count - at >= length; at += length) function(at, length);
    };
    constexpr std::integral_constant<int64_t, 16> kShortest;
    pieces_of(std::integral_constant<int64_t, 64>{});
    pieces_of(std::integral_constant<int64_t, 32>{});
    pieces_of(kShortest);
    if (at == count) return;
    if (at > 0)
        function(count - kShortest, kShortest);
    else
        function(at, count);
}

// Pixels of three lines, into three that are so many values apart.
template <typename In>
inline void colour_lines(const Lines<typename In::Bits>& lines, const ColourRow* colour, float white,
                         float* __restrict values, int64_t apart, int64_t count) {
    const typename In::Bits* __restrict reds = lines.first;
    const typename In::Bits* __restrict greens = lines.first + lines.apart;
    const typename In::Bits* __restrict blues = lines.first + 2 * lines.apart;
    const ColourRow red = colour[0], green = colour[1], blue = colour[2];
    for (int64_t k = 0; k < count; ++k) {
        const float r = In::value(reds[k]), g = In::value(greens[k]), b = In::value(blues[k]);
        values[k] = coloured_value(red, r, g, b, white);
        values[apart + k] = coloured_value(green, r, g, b, white);
        values[2 * apart + k] = coloured_value(blue, r, g, b, white);
    }
}

template <typename In>
inline const float* colour_span_of(const Work& work, const Seen& seen, int32_t y, Span span, Scratch& scratch) {
    using T = typename In::Bits;
    const int64_t count = span.size();
    const Lines<T> lines = planar_lines(
        work, straight_lines(work, source_of<T>(work, seen, y, span.begin), count, scratch.lines), count, scratch.raw);
    float* const values = scratch.coloured.data();
    in_pieces(count, [&](int64_t at, auto elements) {
        colour_lines<In>({lines.first + at, lines.apart}, seen.colour, white_of(work.call.images.in_dtype), values + at,
                         count, elements);
    });
    return values;
}

const float* colour_span(const Work& work, const Seen& seen, int32_t y, Span span, Scratch& scratch) {
    switch (work.call.images.in_dtype) {
        case Dtype::kU8:
            return colour_span_of<ElementU8>(work, seen, y, span, scratch);
        case Dtype::kF16:
            return colour_span_of<ElementF16>(work, seen, y, span, scratch);
        case Dtype::kBF16:
            return colour_span_of<ElementBF16>(work, seen, y, span, scratch);
        default:
            return colour_span_of<ElementF32>(work, seen, y, span, scratch);
    }
}

template <typename Out, typename Value>
inline void fill_span(const RowOrder& order, Span span, typename Out::Bits* values, const Value& value_of) {
    for (int32_t channel = 0; channel < order.channels; ++channel) {
        const auto value = Out::of(value_of(channel));
        for (int32_t x = span.begin; x < span.end; ++x) values[order.at(channel, x)] = value;
    }
}

// One call of the generator gives the noise of four channels of a pixel.
template <typename Out>
inline void fill_noise(const Work& work, uint32_t index, int32_t y, Span span, typename Out::Bits* values) {
    constexpr int32_t kAtOnce = 64, kWords = 4;  // pixels; of one call
    const RowOrder& order = work.order;
    const uint64_t seed = work.call.plan.seed;
    const uint32_t row = static_cast<uint32_t>(y) * static_cast<uint32_t>(order.width);
    for (int32_t first = 0; first < order.channels; first += kWords) {
        const int32_t channels = std::min(kWords, order.channels - first);
        for (int32_t begin = span.begin; begin < span.end; begin += kAtOnce) {
            const int32_t count = std::min(kAtOnce, span.end - begin);
            const uint32_t position = row + static_cast<uint32_t>(begin);
            float drawn[kWords][kAtOnce];
            for (uint32_t k = 0; k < static_cast<uint32_t>(count); ++k) {
                const Words words = philox(seed, index, kPerNoise, position + k, static_cast<uint32_t>(first / kWords));
                for (int32_t word = 0; word < kWords; ++word) drawn[word][k] = noise_of(words.word[word]);
            }
            for (int32_t channel = 0; channel < channels; ++channel)
                for (int32_t k = 0; k < count; ++k)
                    values[order.at(first + channel, begin + k)] = Out::of(drawn[channel][k]);
        }
    }
}

inline Span intersection(Span a, Span b) {
    const int32_t begin = std::max(a.begin, b.begin);
    return {begin, std::max(begin, std::min(a.end, b.end))};
}

inline bool on_row(const Box& box, int32_t y) { return y >= box.y0 && y < box.y1; }

template <typename Out>
inline void erase_span(const Work& work, const Seen& seen, int32_t y, Span span, typename Out::Bits* values) {
    const auto index = static_cast<uint32_t>(seen.sample);
    const AugmentCall& call = work.call;
    for (int32_t number = 0; number < seen.boxes; ++number) {
        const Box& box = seen.erased[number];
        const Span inside = intersection(span, {box.x0, box.x1});
        if (!on_row(box, y) || inside.size() == 0) continue;
        if (call.erasing.value == EraseValue::kPixel)
            fill_noise<Out>(work, index, y, inside, values);
        else if (call.erasing.value == EraseValue::kChannel)
            fill_span<Out>(work.order, inside, values, [&](int32_t channel) {
                return noise(call.plan.seed, index, static_cast<uint32_t>(number), channel);
            });
        else
            fill_span<Out>(work.order, inside, values, [&](int32_t channel) { return work.constant(kErase, channel); });
    }
}

// Those pixels of [span) of row y of an output whose source lies in the image; if there are none, the span's end.
inline Span inside_image(const Work& work, const Seen& seen, int32_t y, Span span) {
    const Geometry& geometry = seen.geometry;
    const int32_t from = source_y(geometry, y), width = work.order.width, dx = geometry.dx;
    const Span inside = intersection(span, geometry.flip ? Span{dx, width + dx} : Span{-dx, width - dx});
    const bool none = from < 0 || from >= work.call.plan.height || inside.size() == 0;
    return none ? Span{span.end, span.end} : inside;
}

// Pixels [span) of row y of a sample as they are before mixing.
template <typename Out>
inline void see_span(const Work& work, const Seen& seen, int32_t y, Span span, Scratch& scratch,
                     typename Out::Bits* values) {
    const Span inside = inside_image(work, seen, y, span);
    if (inside.size() > 0) load_span<Out>(work, seen, source_y(seen.geometry, y), inside, scratch, values);
    for (const Span missing : {Span{span.begin, inside.begin}, Span{inside.end, span.end}})
        if (missing.size() > 0)
            fill_span<Out>(work.order, missing, values, [&](int32_t channel) {
                const float white = white_of(work.call.images.in_dtype);
                const float raw = seen.colour ? coloured_value(seen.colour[channel], 0.0f, 0.0f, 0.0f, white) : 0.0f;
                return normalized(raw, work.constant(kMean, channel), work.constant(kScale, channel));
            });
    if (work.call.erasing.order == EraseOrder::kBefore) erase_span<Out>(work, seen, y, span, values);
}

// A row of the output, and of which sample. Or several, gone through together as one that is as long: they are seen as
// they lie in the image, with nothing erased, and filled nowhere.
struct OutputRow {
    const Followed& sample;
    int32_t y;
    int32_t rows;
    int32_t width;  // pixels, of all rows

    // The pixels that are others after mixing, of the first row.
    Span changed() const {
        const Kind kind = sample.kind();
        if (kind == Kind::kKeep) return {0, 0};
        const Box& box = sample.row.box;
        return !has_box(kind) ? Span{0, width} : on_row(box, y) ? Span{box.x0, box.x1} : Span{0, 0};
    }
};

// Pixels of a row of the output that a sample shows.
struct Part {
    const Seen* seen = nullptr;
    Span span = {};
};

// All of them, of one row: what is beside a box, between it what is pasted there. Or where samples are blended, the
// sample's own, and the partner's.
using Parts = std::array<Part, 3>;
constexpr size_t kPartner = 1;  // whose part that is

inline Parts parts_of(const Work& work, const OutputRow& row) {
    const Kind kind = row.sample.kind();
    const Seen* const own = &row.sample.seen;
    const Span changed = row.changed();
    if (changed.size() == 0) return {{{own, {0, row.width}}}};
    const Part partner = has_partner(kind) ? Part{&work.seen[row.sample.row.partner], changed} : Part{};
    if (reads_own(kind)) return {{{own, {0, row.width}}, partner}};
    return {{{own, {0, changed.begin}}, partner, {own, {changed.end, row.width}}}};
}

// A row of the output, but for what is erased after mixing. All that looking at a sample takes is compiled into the one
// place that calls it.
template <typename Out>
inline void mix_row(const Work& work, const OutputRow& row, Scratch& scratch, typename Out::Bits* values) {
    const Kind kind = row.sample.kind();
    const Span changed = row.changed();
    const Parts parts = parts_of(work, row);
    for (size_t which = 0; which < parts.size(); ++which) {
        const auto& [seen, span] = parts[which];
        auto* to = values;
        if constexpr (kFloats<Out>)
            if (which == kPartner && reads_own(kind)) to = scratch.partner.data();
        if (span.size() > 0) see_span<Out>(work, *seen, row.y, span, scratch, to);
    }
    if (changed.size() == 0) return;
    if (fills(kind))
        fill_span<Out>(work.order, changed, values, [&](int32_t channel) { return work.constant(kFill, channel); });
    if constexpr (kFloats<Out>)
        if (reads_own(kind))
            each_line(work.order, changed, [&](int64_t at, int64_t elements, int64_t) {
                compute_line(kind, row.sample.row.lam, &scratch.partner[at], values + at, elements);
            });
}

bool is_erased(const Seen& seen, int32_t y) {
    return std::any_of(seen.erased, seen.erased + seen.boxes, [&](const Box& box) { return on_row(box, y); });
}

// Whether a row of a sample shows nothing but raw bytes: none are coloured, and no box is erased from it before mixing.
bool shows_bytes(const Work& work, const Seen& seen, int32_t y) {
    return !seen.colour && (work.call.erasing.order != EraseOrder::kBefore || !is_erased(seen, y));
}

// How the elements of a row of the output are made.
enum class Way {
    kCopied,   // of bytes that are copied from one sample or two, in one pass over them
    kBlended,  // of the bytes of two samples that are computed with and nothing else, in one pass over them
    kStored,   // of colours, stored as soon as they are normalised
    kValues,   // of floats, which are rounded in the end
};

Way way_of(const Work& work, const OutputRow& row) {
    const Kind kind = row.sample.kind();
    if (work.call.images.in_dtype != Dtype::kU8) return Way::kValues;
    if (!reads_own(kind) && !row.sample.seen.colour) return Way::kCopied;
    if (reads_both(kind) && !has_box(kind) && shows_bytes(work, row.sample.seen, row.y) &&
        shows_bytes(work, work.seen[row.sample.row.partner], row.y))
        return Way::kBlended;
    return reads_own(kind) || work.call.images.out_dtype == Dtype::kF32 ? Way::kValues : Way::kStored;
}

// Whether a row is of bytes that are looked up and nothing is drawn over them: it need not be put together in scratch.
bool is_looked_up(const Work& work, const OutputRow& row) {
    const Kind kind = row.sample.kind();
    if (!work.looks_up() || reads_own(kind) || is_erased(row.sample.seen, row.y)) return false;
    if (row.changed().size() == 0) return true;
    return !fills(kind) &&
           !(work.call.erasing.order == EraseOrder::kBefore && is_erased(work.seen[row.sample.row.partner], row.y));
}

// Puts the raw bytes of [span) of an output row, 0 outside of the image, where they belong in lines of the input.
inline void put_span(const Work& work, const Seen& seen, int32_t y, Span span, uint8_t* to, int64_t apart) {
    const int64_t pixel = work.call.images.in_strides.pixel, lines = pixel == 1 ? work.order.channels : 1;
    const Span inside = inside_image(work, seen, y, span);
    if (inside.size() < span.size())
        for (int64_t line = 0; line < lines; ++line)
            std::fill_n(to + line * apart + span.begin * pixel, span.size() * pixel, uint8_t{0});
    if (inside.size() > 0)
        put_pixels(work, source_of<uint8_t>(work, seen, source_y(seen.geometry, y), inside.begin), inside.size(),
                   to + inside.begin * pixel, apart);
}

// The raw bytes of a row as a sample is seen: where they lie in the image, or where that is not all, in scratch.
inline Lines<uint8_t> seen_lines(const Work& work, const Seen& seen, int32_t y, int32_t width, Room& scratch) {
    const Span all = {0, width};
    if (inside_image(work, seen, y, all).size() == width)
        return source_of<uint8_t>(work, seen, source_y(seen.geometry, y), 0);
    uint8_t* const to = room<uint8_t>(scratch);
    put_span(work, seen, y, all, to, width);
    return {to, width};
}

// The raw bytes of a row of the output that is copied: where they lie in the image, or put together in scratch.
inline Lines<uint8_t> copied_lines(const Work& work, const OutputRow& row, Scratch& scratch) {
    const Kind kind = row.sample.kind();
    const Box whole = {0, 0, work.call.plan.height, work.call.plan.width};
    const Box& box = has_box(kind) ? row.sample.row.box : whole;
    const int32_t first = std::max(row.y, box.y0), end = std::min(row.y + row.rows, box.y1);  // of the rows in the box
    const bool pasted = pastes(kind) && first < end;
    if (!pasted) return seen_lines(work, row.sample.seen, row.y, row.width, scratch.copied);
    uint8_t* const to = room<uint8_t>(scratch.copied);
    put_span(work, row.sample.seen, row.y, {0, row.width}, to, row.width);
    const int64_t row_bytes = int64_t{work.call.plan.width} * work.call.images.in_strides.pixel;
    for (int32_t y = first; y < end; ++y)
        put_span(work, work.seen[row.sample.row.partner], y, {box.x0, box.x1}, to + (y - row.y) * row_bytes, row.width);
    return {to, row.width};
}

#if CUTMIX_X86
// Bytes channel by channel, still flipped where they are. Put there where they have to be taken apart.
inline Lines<uint8_t> planar_bytes(const Work& work, const Lines<uint8_t>& source, int64_t count, uint8_t* to,
                                   int64_t apart) {
    if (work.call.images.in_strides.pixel == 1) return source;
    const int64_t last = source.flip ? count - 1 : 0;  // which is the first of the output
    separate(source.first - last * work.order.channels, to, apart, count, work.order.channels);
    return {to + last, apart, source.flip};
}

// A row of bytes that are copied, looked up on its way to a writer for each line of the output.
template <bool kPastCaches>
CUTMIX_VBMI CUTMIX_FLATTEN void look_up_row(const Work& work, const OutputRow& row, Scratch& scratch,
                                            std::vector<LineWriter<kPastCaches>>& writers) {
    const Parts whole = {{{&row.sample.seen, {0, row.width}}}};  // where a box is filled, what lies below comes first
    Parts parts = fills(row.sample.kind()) ? whole : parts_of(work, row);
    Lines<uint8_t> lines[std::tuple_size_v<Parts>];
    const bool in_images = row.rows == 1 && std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
                               const int32_t pixels = part.span.size();
                               return pixels == 0 || inside_image(work, *part.seen, row.y, part.span).size() == pixels;
                           });
    if (!in_images) {  // they are put together first
        parts = whole;
        lines[0] = copied_lines(work, row, scratch);
    }
    for (size_t which = 0; which < parts.size(); ++which) {
        const auto& [seen, span] = parts[which];
        if (span.size() == 0) continue;
        if (in_images) lines[which] = source_of<uint8_t>(work, *seen, source_y(seen->geometry, row.y), span.begin);
        lines[which] =
            planar_bytes(work, lines[which], span.size(), room<uint8_t>(scratch.raw) + span.begin, row.width);
    }
    const auto look_up_channel = [&](int32_t channel, auto& writer) CUTMIX_VBMI {
        for (size_t which = 0; which < parts.size(); ++which)
            if (const int32_t pixels = parts[which].span.size(); pixels > 0)
                look_up(work.tables[channel], lines[which].first + channel * lines[which].apart, lines[which].flip,
                        pixels, writer);
    };
    const int32_t channels = work.order.channels;
    if (!work.order.packed) {
        for (int32_t channel = 0; channel < channels; ++channel) look_up_channel(channel, writers[channel]);
        return;
    }
    auto* const words = room<uint16_t>(scratch.lines);
    for (int32_t channel = 0; channel < channels; ++channel) {
        LineWriter<false> writer(reinterpret_cast<uint8_t*>(words + int64_t{channel} * row.width));
        look_up_channel(channel, writer);
        writer.finish();
    }
    if (channels == 3) return interleave_words(words, row.width, row.width, writers[0]);
    auto* const pixels = room<uint16_t>(scratch.raw);
    interleave(words, row.width, pixels, row.width, channels);
    writers[0].put(reinterpret_cast<const uint8_t*>(pixels), int64_t{row.width} * channels * sizeof *pixels);
}

// The same, to where more may be drawn over it.
inline void look_up_row(const Work& work, const OutputRow& row, Scratch& scratch, uint16_t* out) {
    scratch.writers.clear();
    each_line(work.order, {0, row.width}, [&](int64_t at, int64_t, int64_t) {
        scratch.writers.emplace_back(reinterpret_cast<uint8_t*>(out + at));
    });
    look_up_row(work, row, scratch, scratch.writers);
    for (LineWriter<false>& writer : scratch.writers) writer.finish();
}
#endif

// A row of bytes that are copied with what is erased before mixing, and filled.
template <typename Out>
inline void store_copied(const Work& work, const OutputRow& row, const Lines<uint8_t>& lines, Scratch& scratch,
                         typename Out::Bits* out) {
    const Kind kind = row.sample.kind();
    const Span changed = row.changed();
    if (!work.looks_up()) load_span<ElementU8, Out>(work, lines, {0, row.width}, scratch, out);
#if CUTMIX_X86
    else if constexpr (std::is_same_v<typename Out::Bits, uint16_t>)
        look_up_row(work, row, scratch, out);
#endif
    if (work.call.erasing.order == EraseOrder::kBefore) {
        erase_span<Out>(work, row.sample.seen, row.y, {0, changed.begin}, out);
        erase_span<Out>(work, row.sample.seen, row.y, {changed.end, row.width}, out);
        if (pastes(kind)) erase_span<Out>(work, work.seen[row.sample.row.partner], row.y, changed, out);
    }
    if (fills(kind))
        fill_span<Out>(work.order, changed, out, [&](int32_t channel) { return work.constant(kFill, channel); });
}

// The bytes of a row of the output in its order, of raw bytes or of the values in scratch.
template <typename Out>
inline const uint8_t* finished_row(const Work& work, const OutputRow& row, Way way, const Lines<uint8_t>& own,
                                   const Lines<uint8_t>& partner, Scratch& scratch) {
    using Bits = typename Out::Bits;
    const RowOrder& order = work.order;
    const Span all = {0, row.width};
    Bits* out = room<Bits>(scratch.out);
    if (way == Way::kCopied)
        store_copied<Out>(work, row, own, scratch, out);
    else if (way == Way::kBlended)
        each_line(order, all, [&](int64_t at, int64_t elements, int64_t line) {
            compute_normalized_line<ElementU8, Out>(row.sample.kind(), row.sample.row.lam, own.first + line * own.apart,
                                                    partner.first + line * partner.apart, &work.mean[at],
                                                    &work.scale[at], out + at, elements);
        });
    else if constexpr (kFloats<Out>)
        out = scratch.values.data();
    else if (way == Way::kStored)
        mix_row<Out>(work, row, scratch, out);
    else
        each_line(order, all, [&](int64_t at, int64_t elements, int64_t) {
            cast_line<Out>(&scratch.values[at], out + at, elements);
        });
    if (work.call.erasing.order == EraseOrder::kAfter) erase_span<Out>(work, row.sample.seen, row.y, all, out);
    return reinterpret_cast<const uint8_t*>(out);
}

// What the types of the output share comes before the switch, because it is compiled into each place that calls it.
inline const uint8_t* bytes_of_row(const Work& work, const OutputRow& row, Scratch& scratch) {
    const Way way = way_of(work, row);
    Lines<uint8_t> own = {}, partner = {};
    if (way == Way::kCopied) {
        if (!work.looks_up()) own = copied_lines(work, row, scratch);
    } else if (way == Way::kBlended) {
        const auto ordered = [&](const Seen& seen, Room& raw, Room& lines) {
            return ordered_lines(work, seen_lines(work, seen, row.y, row.width, lines), row.width, raw, lines);
        };
        own = ordered(row.sample.seen, scratch.raw, scratch.lines);
        partner = ordered(work.seen[row.sample.row.partner], scratch.partner_raw, scratch.partner_lines);
    } else if (way == Way::kValues) {
        mix_row<ElementF32>(work, row, scratch, scratch.values.data());
    }
    switch (work.call.images.out_dtype) {
        case Dtype::kU8:
            return finished_row<ElementU8>(work, row, way, own, partner, scratch);
        case Dtype::kF16:
            return finished_row<ElementF16>(work, row, way, own, partner, scratch);
        case Dtype::kBF16:
            return finished_row<ElementBF16>(work, row, way, own, partner, scratch);
        default:
            return finished_row<ElementF32>(work, row, way, own, partner, scratch);
    }
}

using BytesOfRow = const uint8_t*(const Work&, const OutputRow&, Scratch&);

// Narrow images are gone through several rows at a time where nothing tells one from the next: a row costs some dozens
// of instructions before its first pixel.
constexpr int64_t kElementsTogether = 1 << 10;

int32_t rows_together(const AugmentCall& call) {
    const Strides &in = call.images.in_strides, &out = call.images.out_strides;
    const int32_t width = call.plan.width;
    if (!call.images.out || in.row != in.pixel * width || out.row != out.pixel * width) return 1;
    return static_cast<int32_t>(std::max<int64_t>(1, kElementsTogether / (int64_t{width} * call.images.channels)));
}

// How many rows from y on, at most so many, are seen as they lie in the image.
int32_t plain_rows(const Seen& seen, int32_t y, int32_t most) {
    const Geometry& geometry = seen.geometry;
    if (geometry.flip || geometry.dy != 0 || geometry.dx != 0) return 0;
    for (int32_t number = 0; number < seen.boxes; ++number)
        if (seen.erased[number].y1 > y) most = std::min(most, std::max(0, seen.erased[number].y0 - y));
    return most;
}

// How many of the rows from this one on, at most so many, may be gone through together.
int32_t rows_alike(const Work& work, const OutputRow& row, int64_t most) {
    const Kind kind = row.sample.kind();
    const Box& box = row.sample.row.box;
    int32_t rows = static_cast<int32_t>(std::min<int64_t>(most, work.call.plan.height - row.y));
    rows = plain_rows(row.sample.seen, row.y, rows);
    if (kind == Kind::kKeep) return rows;
    const int32_t before_box = !has_box(kind) ? 0 : box.y1 > row.y ? std::max(0, box.y0 - row.y) : rows;
    // Bytes are put together, whatever box they are of. Values are blended, of both samples from the first to the last.
    const bool together = way_of(work, row) == Way::kCopied ? pastes(kind) : reads_both(kind) && !has_box(kind);
    return std::min(rows,
                    std::max(before_box, together ? plain_rows(work.seen[row.sample.row.partner], row.y, rows) : 0));
}

// Asks for what a row of the output shows of the images. Of rows of several channels, read in turn, and of boxes the
// processor does not fetch ahead enough by itself.
inline void prefetch_row(const Work& work, const OutputRow& row) {
    const AugmentedImages& images = work.call.images;
    const Strides& strides = images.in_strides;
    const int64_t bytes = bytes_of(images.in_dtype), lines = strides.pixel == 1 ? images.channels : 1;
    for (const auto& [seen, span] : parts_of(work, row)) {
        const Span inside = span.size() > 0 ? inside_image(work, *seen, row.y, span) : Span{};
        if (inside.size() == 0) continue;
        const Geometry& geometry = seen->geometry;
        const int32_t first = geometry.flip ? inside.end - 1 : inside.begin;  // in the image
        const uint8_t* from = static_cast<const uint8_t*>(images.in) +
                              (seen->sample * strides.sample + source_y(geometry, row.y) * strides.row +
                               source_x(geometry, first, row.width) * strides.pixel) *
                                  bytes;
        // Whole rows follow each other: what their first line of the cache begins with, the row before has asked for.
        const int64_t skipped = inside.size() == row.width ? kLine - 1 : 0;
        for (int64_t line = 0; line < lines; ++line)
            prefetch(from + line * strides.channel * bytes + skipped, inside.size() * strides.pixel * bytes - skipped);
    }
}

// Rows [begin, end) of all samples' rows, each of all channels; `together` is for as many as are alike. A line
// of the output that goes on in the next row of the sample, without a gap, is written by one writer.
template <typename LineWriter, BytesOfRow make_bytes>
void augment_rows(const Work& work, const Work& together, int64_t begin, int64_t end) {
    const AugmentedImages& images = work.call.images;
    const Strides& strides = images.out_strides;
    const RowOrder& order = work.order;
    const int64_t bytes = bytes_of(images.out_dtype), lines = order.packed ? 1 : order.channels;
    const int64_t line_bytes = order.size() / lines * bytes;
    const int32_t most = together.order.width / order.width;
    const bool goes_on = strides.row * bytes == line_bytes;
    Scratch scratch(together.order, work.call.views.coloured);
    std::vector<LineWriter> writers;
    const auto finish = [&] {
        for (LineWriter& writer : writers) writer.finish();
        writers.clear();
    };
    struct Place {
        int64_t sample, y;
    };
    const int64_t height = work.call.plan.height, ahead = std::max(kRowsAhead, most);
    const int64_t last_fetched = work.out_bytes() >= kLargeOutput ? end : begin;  // few images are in a cache already
    const auto place_of = [&](int64_t row) { return Place{row / height, row % height}; };
    const auto step = [&](Place& place, int64_t rows) {
        for (place.y += rows; place.y >= height; place.y -= height) ++place.sample;
    };
    const auto row_at = [&](const Place& place) {
        return OutputRow{work.samples[place.sample], static_cast<int32_t>(place.y), 1, order.width};
    };
    Place place = place_of(begin), later = place_of(begin + ahead);
    for (int64_t row = begin, count; row < end; row += count, step(place, count)) {
        OutputRow output = row_at(place);
        if (most > 1) output.rows = std::max(1, rows_alike(work, output, std::min<int64_t>(most, end - row)));
        output.width *= output.rows;
        count = output.rows;
        for (int64_t k = row + ahead; k < std::min(last_fetched, row + ahead + count); ++k, step(later, 1))
            prefetch_row(work, row_at(later));
        const Work& of = count > 1 ? together : work;
        if (output.y == 0 || !goes_on) finish();
        if (writers.empty()) {
            const int64_t first = output.sample.seen.sample * strides.sample + output.y * strides.row;
            uint8_t* out = static_cast<uint8_t*>(images.out) + first * bytes;
            for (int64_t line = 0; line < lines; ++line) writers.emplace_back(out + line * strides.channel * bytes);
        }
#if CUTMIX_X86
        if constexpr (!std::is_same_v<LineWriter, Writer>)
            if (is_looked_up(of, output)) {
                look_up_row(of, output, scratch, writers);
                continue;
            }
#endif
        const uint8_t* from = make_bytes(of, output, scratch);
        for (int64_t line = 0; line < lines; ++line)
            writers[line].put(from + line * of.order.width * bytes, count * line_bytes);
    }
    finish();
}

using AugmentRows = decltype(augment_rows<Writer, bytes_of_row>);

// The fastest of them on this processor.
AugmentRows* augment_rows_for([[maybe_unused]] const uint8_t* out, [[maybe_unused]] int64_t bytes) {
#if CUTMIX_X86
    if (has_avx512())
        return past_caches(out, bytes) ? augment_rows<LineWriter<true>, Compiled<bytes_of_row>::avx512>
                                       : augment_rows<LineWriter<false>, Compiled<bytes_of_row>::avx512>;
    if (has_avx2()) return augment_rows<Writer, Compiled<bytes_of_row>::avx2>;
#endif
    return augment_rows<Writer, bytes_of_row>;
}

// ---- All of it

struct Cpu {
    static void run(const AugmentCall& call, const Tensor&) {
        const KeepSubnormals keep;
        if (call.plan.sampled) sample_plan(call);
        if (call.views.sampled) sample_views(call);
        const Targets& targets = call.targets;
        if (!call.images.out && !targets.out) return;
        const Work work(call);
        std::optional<Work> together;
        if (const int32_t rows = rows_together(call); rows > 1) together.emplace(work, rows);
        // Rows and targets in one parallel region, so that threads wait for each other once.
        const int64_t rows = work.out_rows();
        const int64_t target_rows = targets.out && targets.num_classes > 0 ? call.plan.batch : 0;
        const int64_t all = rows > 0 ? rows : target_rows;
        const int64_t row_elements = rows > 0 ? work.order.size() : targets.num_classes;
        AugmentRows* augment = nullptr;
        if (rows > 0) {
            auto* const out = static_cast<uint8_t*>(call.images.out);
            ask_for_huge_pages(out, work.out_bytes());
            augment = augment_rows_for(out, work.out_bytes());
        }
        parallel(0, all, std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, row_elements)),
                 [&](int64_t begin, int64_t end) {
                     if (augment) augment(work, together ? *together : work, begin, end);
                     for (int64_t i = share_of(target_rows, begin, all); i < share_of(target_rows, end, all); ++i)
                         write_target_row(targets, target_row(targets, work.samples[i].row, work.samples[i].valid,
                                                              static_cast<int32_t>(i)));
                 });
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CPU, library) { cutmix::AugmentOps<cutmix::Cpu>::register_ops(library); }
