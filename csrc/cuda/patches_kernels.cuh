// The CUDA kernel of several patches a sample: plan, pixels and targets of a call in one launch. No torch. What each
// block does is decided by patches_geometry.h.
//
// The pixels of a sample are layers: the canvas, and upon it each patch. A vector that its topmost layer brings whole
// is moved. The others, on the edges of boxes and masks, wait until a warp is through with those, so that they fill its
// lanes: they are put together from a vector of each layer that brings a part. What is blended comes last.
#pragma once

#include "patches_geometry.h"
#include "plan_and_targets.cuh"

namespace cutmix {

// With these bounds the compiler takes up to 48, 64 and 80 registers, and spills in the kernels of channels and in
// place alone, where several patches are blended over each other. A multiprocessor of compute capability 7.5 has room
// for 4 blocks at most.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kPatchBlocksResident = 0;  // no wish
#else
constexpr int kPatchBlocksResident = 5;
#endif
constexpr int kPatchBlocksOfChannels = 4, kPatchBlocksInPlace = 3;
constexpr int kPatchWarps = static_cast<int>(kPatchThreads) / static_cast<int>(kWarpThreads);

// Of loops whose loads need not wait for each other.
#if defined(__CUDA_ARCH__)
#define CUTMIX_UNROLL_LOADS _Pragma("unroll 4")
#else
#define CUTMIX_UNROLL_LOADS
#endif

// From a position in a box to one in its source.
struct Scale {
    Divider length;  // of the box; known only where the source's is another
    int32_t source_length;
    bool resizes;

    __device__ int32_t source_of(int32_t position) const {
        if (!resizes) return position;
        return static_cast<int32_t>(length.quotient(static_cast<uint32_t>(position * source_length)));
    }
};

__device__ __forceinline__ void set_scale(Scale* scale, int32_t length, int32_t source_length) {
    scale->source_length = source_length;
    scale->resizes = length != source_length;
    if (length != source_length) scale->length = divider(length);
}

// What lies upon the layers below it: the canvas, or in its box a patch.
struct alignas(16) Layer {
    struct alignas(16) Span {
        int32_t y0, rows, begin, end;  // elements [begin, end) of some rows from y0 on; none of a patch that is kept
    } span;
    const uint8_t* corner;  // the first element that it brings
    const uint8_t* cells;   // of a mask of bool, of the first channel; or null
    int64_t slice_stride, row_stride;
    Scale rows, columns;
    bool blends, fills;  // may be blended with what is below; brings the fill
    bool moves;          // does neither, and brings pixels as they are beside each other
};

// Of each warp the vectors of which no layer brings all, by their numbers in the block's tile.
using Seams = uint16_t[kPatchWarps][kVectorsPerPatchThread * kWarpThreads];

// What the threads of a block know together about its sample.
struct SharedPatches {
    Patch patches[kMostPatches];
    uint8_t valid[kMostPatches + 1];
    union {
        struct {                                       // of targets
            int64_t units[kMostPatches][kPatchWarps];  // of which the first is the sum in the end
            bool by_block[kMostPatches];               // all threads find these units together
            Part parts[kMostPatches + 1];
        };
        struct {                             // of pixels
            Layer layers[1 + kMostPatches];  // the canvas, and each patch above it
            Seams seams;
        };
    };
};

// The patches of a block's sample that are painted: none of one that may not be followed.
struct Painting {
    const PatchParams& params;
    const Patch* patches;
    const Layer* layers;
    int32_t sample, count;

    __device__ const PatchCall& call() const { return params.call; }

    template <typename Channel>
    __device__ float below(int32_t k, Channel channel, int32_t y, int32_t x) const {
        return weight_below(patches[k], call().masks, channel, y, x, call().height, call().width);
    }

    // The channel of a slice, or of an element of a pixel, where masks tell channels apart.
    template <bool kOfChannels>
    __device__ auto channel(uint32_t slice, uint32_t element) const {
        if constexpr (kOfChannels) {
            const uint32_t index = params.channel_step.quotient(call().channel_place.in_pixel ? element : slice);
            return static_cast<int32_t>(index - params.channels.quotient(index) * params.channels.divisor);
        } else {
            return EveryChannel{};
        }
    }
};

// A thread loads or draws each patch; returns whether all may be followed, in place with a mate.
template <bool kInPlace = false>
__device__ __forceinline__ bool load_patches(const PatchParams& params, uint32_t sample, SharedPatches* shared,
                                             int32_t mate = 0) {
    const PatchCall& call = params.call;
    const uint32_t thread = threadIdx.x, patches = static_cast<uint32_t>(call.patches);
    bool valid = true;
    if (thread < patches) {
        const int64_t at = int64_t{sample} * patches + thread;
        Patch patch;
        if (call.sampled_rows) {
            const uint32_t batch = static_cast<uint32_t>(call.batch);
            const uint64_t seed = call.device_seed ? static_cast<uint64_t>(*call.device_seed) : call.seed;
            const PartnerMap map =
                call.device_seed ? partner_map(call.draw.kinds.sampling.partner, seed, batch) : params.partner_map;
            patch = sample_patch(call.draw, seed, sample, partner_of(map, sample, batch), thread, batch);
        } else {
            patch.row = call.rows[at];
            patch.source = call.sources ? call.sources[at] : patch.row.box;
            valid = valid_patch(patch, call);
            if constexpr (kInPlace) valid = valid && valid_in_place(patch, mate);
        }
        shared->patches[thread] = patch;
    }
    if (thread <= patches) {
        if (call.weights) valid = valid && valid_weight(call.weights[int64_t{sample} * (patches + 1) + thread]);
        shared->valid[thread] = valid;
    }
    __syncthreads();
    bool all = true;
    CUTMIX_NO_UNROLL
    for (uint32_t k = thread % kWarpThreads; k <= patches; k += kWarpThreads) all = all && shared->valid[k];
    return __all_sync(~0u, all);
}

// ---- Pixels

// Sets a layer of the pixels of a sample, or of one of the others behind the batch.
__device__ __forceinline__ void set_layer(Layer* layer, const PatchParams& params, int32_t partner, const Box& box,
                                          const Box& source) {
    const PatchCall& call = params.call;
    const bool first = partner < call.batch;
    const Rows& rows = first ? call.images.in_rows : call.other_rows;
    const int32_t pixel_elements = static_cast<int32_t>(params.pixel_elements.divisor);
    layer->span = {box.y0, box.y1 - box.y0, box.x0 * pixel_elements, box.x1 * pixel_elements};
    layer->corner = (first ? call.images.in : call.other_images) +
                    int64_t{first ? partner : partner - call.batch} * rows.sample_stride + source.y0 * rows.row_stride +
                    source.x0 * rows.pixel_bytes;
    layer->cells = nullptr;
    layer->slice_stride = rows.slice_stride;
    layer->row_stride = rows.row_stride;
    set_scale(&layer->rows, box.y1 - box.y0, source.y1 - source.y0);
    set_scale(&layer->columns, box.x1 - box.x0, source.x1 - source.x0);
    layer->blends = layer->fills = false;
    layer->moves = !layer->rows.resizes && !layer->columns.resizes;
}

__device__ __forceinline__ void set_layer(Layer* layer, const PatchParams& params, const Patch& patch) {
    const Box& box = patch.row.box;
    if (patch.kind() == Kind::kKeep || box.y0 == box.y1 || box.x0 == box.x1) {
        layer->span = {};
        return;
    }
    const bool fills = !has_partner(patch.kind());
    set_layer(layer, params, patch.row.partner, box, fills ? box : patch.source);
    const Masks& masks = params.call.masks;
    if (patch.mask() != 0 && !masks.soft)
        layer->cells = static_cast<const uint8_t*>(masks.data) +
                       int64_t{patch.mask() - 1} * masks.channels * masks.height * masks.width;
    layer->fills = fills;
    layer->blends = blends(patch.kind()) || (patch.mask() != 0 && masks.soft);
    layer->moves = layer->moves && !layer->fills && !layer->blends;
}

// A thread sets each layer of a sample.
__device__ __forceinline__ Painting set_layers(const PatchParams& params, int32_t sample, bool valid,
                                               SharedPatches* shared) {
    const int32_t count = valid ? params.call.patches : 0, k = static_cast<int32_t>(threadIdx.x);
    if (k == 0) {
        const Box whole = {0, 0, params.call.height, params.call.width};
        set_layer(&shared->layers[0], params, sample % params.call.batch, whole, whole);
    } else if (k <= count) {
        set_layer(&shared->layers[k], params, shared->patches[k - 1]);
    }
    __syncthreads();
    return {params, shared->patches, shared->layers, sample, count};
}

// Where a vector is: its slice, its row, and its first element there.
struct Place {
    uint32_t slice;
    int32_t y, first;
};

template <typename Element, int kBytes>
constexpr int kElementsOf = kBytes / static_cast<int>(sizeof(typename Element::Bits));

// The elements of a vector, a bit each.
template <int kElements>
constexpr uint32_t kEveryElement = (1u << kElements) - 1;

// Calls a function with each of a vector's elements, its pixel and its number in the pixel.
template <int kElements, typename Function>
__device__ __forceinline__ void for_each_element(const Divider& pixel_elements, const Place& at,
                                                 const Function& function) {
    uint32_t x = pixel_elements.quotient(static_cast<uint32_t>(at.first));
    uint32_t element = static_cast<uint32_t>(at.first) - x * pixel_elements.divisor;
    CUTMIX_UNROLL
    for (int k = 0; k < kElements; ++k) {
        function(k, static_cast<int32_t>(x), element);
        if (++element == pixel_elements.divisor) {
            element = 0;
            ++x;
        }
    }
}

// The bits of a vector's elements in a layer's box.
__device__ __forceinline__ uint32_t elements_in_box(const Layer& layer, const Place& at) {
    const Layer::Span span = layer.span;
    const uint32_t from_begin = bits_from(static_cast<uint32_t>(max_of(span.begin - at.first, 0)));
    const uint32_t from_end = bits_from(static_cast<uint32_t>(max_of(span.end - at.first, 0)));
    return static_cast<uint32_t>(at.y - span.y0) < static_cast<uint32_t>(span.rows) ? from_begin & ~from_end : 0;
}

// Which bytes of a word are zero, by the upper bit of each.
__device__ __forceinline__ uint32_t zero_byte_flags(uint32_t word) {
    return ~(((word & 0x7F7F7F7Fu) + 0x7F7F7F7Fu) | word) & 0x80808080u;
}

// The same by the lowest four bits.
__device__ __forceinline__ uint32_t zero_bytes(uint32_t word) {
    return zero_byte_flags(word) * 0x00204081u >> 28;  // bits 7, 15, 23 and 31 to 28..31
}

// Which elements of a vector the mask of a layer leaves to it.
template <int kElements, bool kOfChannels>
__device__ __forceinline__ uint32_t unmasked_elements(const Painting& painting, const Layer& layer, const Place& at) {
    const PatchParams& params = painting.params;
    const Masks& masks = params.call.masks;
    const int32_t cell_y = static_cast<int32_t>(params.height.quotient(static_cast<uint32_t>(at.y * masks.height)));
    const auto row_of_channel = [&](uint32_t element) {
        const uint8_t* row = layer.cells + cell_y * masks.width;
        if constexpr (kOfChannels)
            row += int64_t{painting.channel<true>(at.slice, element)} * (masks.height * masks.width);
        return row;
    };
    const bool in_pixel = kOfChannels && params.call.channel_place.in_pixel;
    const uint8_t* row = row_of_channel(0);
    uint32_t unmasked = 0;
    if (params.cells_in_vectors && !in_pixel) {
        const Vector<kElements> cells = load<kElements>(row + at.first);
        for (int k = 0; k < cells.kWords; ++k) unmasked |= zero_bytes(cells.word[k]) << (4 * k);
        return unmasked;
    }
    for_each_element<kElements>(params.pixel_elements, at, [&](int k, int32_t x, uint32_t element) {
        if (in_pixel) row = row_of_channel(element);
        if (row[params.width.quotient(static_cast<uint32_t>(x * masks.width))] == 0) unmasked |= 1u << k;
    });
    return unmasked;
}

// Goes down from a layer to the next one that brings some of the wanted elements, and returns which: in the end the
// canvas, all of them.
template <int kElements, bool kOfChannels>
__device__ __forceinline__ uint32_t next_layer(const Painting& painting, const Place& at, uint32_t wanted, int32_t* k) {
    for (;;) {
        const Layer& layer = painting.layers[--*k];
        uint32_t bits = wanted & elements_in_box(layer, at);
        if (bits == 0) continue;
        if (layer.cells) bits &= unmasked_elements<kElements, kOfChannels>(painting, layer, at);
        if (bits != 0) return bits;
    }
}

// The bytes of a word that a selector names, or of which it takes the sign.
__device__ __forceinline__ uint32_t permuted(uint32_t word, uint32_t selector) {
    uint32_t result;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(result) : "r"(word), "r"(selector));
    return result;
}

// All bits of the elements of a vector whose bit is set.
template <typename Element>
__device__ __forceinline__ Vector<16> element_mask(uint32_t bits) {
    constexpr int kElement = static_cast<int>(sizeof(typename Element::Bits));
    Vector<16> mask;
    // Each bit to the upper end of its element, of which then every byte takes the sign.
    for (int k = 0; k < mask.kWords; ++k) {
        if constexpr (kElement == 1)
            mask.word[k] = permuted((bits >> (4 * k) & 15) * 0x10204080u, 0xBA98);
        else if constexpr (kElement == 2)
            mask.word[k] = permuted((bits >> (2 * k) & 3) * 0x40008000u, 0xBB99);
        else
            mask.word[k] = 0 - (bits >> (4 * k / kElement) & 1);
    }
    return mask;
}

// The 16 bytes of two aligned vectors from byte `first` on.
__device__ __forceinline__ Vector<16> shifted(const Vector<16>& low, const Vector<16>& high, uint32_t first) {
    uint32_t words[8];
    for (int k = 0; k < 4; ++k) {
        words[k] = low.word[k];
        words[k + 4] = high.word[k];
    }
    if (first & 8)
        for (int k = 0; k < 6; ++k) words[k] = words[k + 2];
    if (first & 4)
        for (int k = 0; k < 5; ++k) words[k] = words[k + 1];
    Vector<16> result;
    for (int k = 0; k < 4; ++k) result.word[k] = __funnelshift_r(words[k], words[k + 1], 8 * (first & 3));
    return result;
}

// Some elements of a vector from anywhere, by two aligned loads of what holds one of them, and so lies in a row, which
// is of whole vectors; they are the same load where one holds all. Elsewhere the vector holds anything.
template <typename Element, int kBytes>
__device__ __forceinline__ Vector<kBytes> load_elements(const uint8_t* from, uint32_t bits) {
    if constexpr (kBytes == 16) {
        constexpr uint32_t kElement = sizeof(typename Element::Bits);
        const uint32_t first = static_cast<uint32_t>(reinterpret_cast<uint64_t>(from)) % 16;
        const uint32_t behind = bits_from(16 / kElement - first / kElement);  // those of the second
        const uint8_t* const low = from - first;
        const uint8_t* const high = low + 16;
        return shifted(load<16>((bits & ~behind) != 0 ? low : high), load<16>((bits & behind) != 0 ? high : low),
                       first);
    }
    return load<kBytes>(from);  // as wide as an element, and aligned
}

// Of the row of what is filled with, from a byte of the row on: a vector, or an element.
template <int kBytes>
__device__ __forceinline__ Vector<kBytes> fill_vector(const PatchCall& call, uint32_t byte) {
    uint64_t halves[2];
    memcpy(halves, call.images.fill, sizeof halves);
    if (kBytes == 16) return vector_of<kBytes>(halves);
    const uint64_t part = (byte % 16 < 8 ? halves[0] : halves[1]) >> (8 * (byte % 8));
    return vector_of<kBytes>(&part);
}

// The vector of the elements of a row that a layer brings, made wider or narrower.
template <typename Element, int kBytes>
__device__ __forceinline__ Vector<kBytes> resized(const Painting& painting, int32_t k, const Place& at,
                                                  const uint8_t* row) {
    using Bits = typename Element::Bits;
    const Scale& columns = painting.layers[k].columns;
    const Box& box = painting.patches[k - 1].row.box;
    const Divider& pixel_elements = painting.params.pixel_elements;
    Bits elements[kElementsOf<Element, kBytes>];
    for_each_element<kElementsOf<Element, kBytes>>(pixel_elements, at, [&](int i, int32_t x, uint32_t element) {
        const int32_t column = columns.source_of(min_of(max_of(x, box.x0), box.x1 - 1) - box.x0);
        const uint32_t index = static_cast<uint32_t>(column) * pixel_elements.divisor + element;
        elements[i] = reinterpret_cast<const Bits*>(row)[index];
    });
    return vector_of<kBytes>(elements);
}

// What a layer brings of a vector: right in the elements whose bits are set.
template <typename Element, int kBytes>
__device__ __forceinline__ Vector<kBytes> brought(const Painting& painting, int32_t k, const Place& at, uint32_t bits) {
    constexpr int kElement = static_cast<int>(sizeof(typename Element::Bits));
    const Layer& layer = painting.layers[k];
    int32_t y = at.y - layer.span.y0;
    if (!layer.moves) {
        if (layer.fills) return fill_vector<kBytes>(painting.call(), static_cast<uint32_t>(at.first) * kElement);
        y = layer.rows.source_of(y);
    }
    const uint8_t* const row = layer.corner + at.slice * layer.slice_stride + y * layer.row_stride;
    if (!layer.moves && layer.columns.resizes) return resized<Element, kBytes>(painting, k, at, row);
    return load_elements<Element, kBytes>(row + (at.first - layer.span.begin) * kElement, bits);
}

template <int kBytes>
struct UnitOf {
    using type = uint32_t;
};
template <>
struct UnitOf<1> {
    using type = uint8_t;
};
template <>
struct UnitOf<2> {
    using type = uint16_t;
};
template <>
struct UnitOf<8> {
    using type = uint64_t;
};

// The words of a vector, of which each holds whole elements.
template <typename Element, int kBytes>
struct UnitsOf {
    static constexpr int kElement = static_cast<int>(sizeof(typename Element::Bits));
    using Unit = typename UnitOf<kElement == 8 ? 8 : (kBytes < 4 ? kBytes : 4)>::type;
};

// An element of which patches of weights between 0 and 1 bring parts. bits_of_layer(k) is what a layer brings.
template <typename Element, typename Channel, typename BitsOfLayer>
__device__ __forceinline__ typename Element::Bits blended_element(const Painting& painting, Channel channel, int32_t y,
                                                                  int32_t x, const BitsOfLayer& bits_of_layer) {
    using Bits = typename Element::Bits;
    int32_t base = painting.count;
    bool blended = false;
    CUTMIX_NO_UNROLL
    for (; base > 0; --base) {
        const float below = painting.below(base - 1, channel, y, x);
        if (below == 0.0f) break;
        blended = blended || below < 1.0f;
    }
    Bits bits = bits_of_layer(base);
    if (!blended) return bits;
    auto value = Element::value(bits);
    CUTMIX_NO_UNROLL
    for (int32_t k = base + 1; k <= painting.count; ++k) {
        const float below = painting.below(k - 1, channel, y, x);
        if (below < 1.0f) value = mixed_value(below, value, Element::value(bits_of_layer(k)));
    }
    return Element::of(value);
}

// Some elements of a vector as blended_element has them, the others as they are. bits_of_layer(k, x, element, word,
// shift) is what a layer brings at an element of pixel x, and at a shift of the vector's word.
template <typename Element, int kBytes, bool kOfChannels, typename BitsOfLayer>
__device__ __forceinline__ Vector<kBytes> blended_elements(const Painting& painting, const Place& at, uint32_t blended,
                                                           const Vector<kBytes>& others,
                                                           const BitsOfLayer& bits_of_layer) {
    using Bits = typename Element::Bits;
    constexpr int kElement = static_cast<int>(sizeof(Bits));
    using Unit = typename UnitsOf<Element, kBytes>::Unit;
    constexpr int kUnit = static_cast<int>(sizeof(Unit));
    const Divider& pixel_elements = painting.params.pixel_elements;
    uint32_t x = pixel_elements.quotient(static_cast<uint32_t>(at.first));
    uint32_t element = static_cast<uint32_t>(at.first) - x * pixel_elements.divisor;
    Unit units[kBytes / kUnit];
    memcpy(units, &others, kBytes);
    CUTMIX_UNROLL
    for (int k = 0; k < kBytes / kUnit; ++k) {
        CUTMIX_NO_UNROLL
        for (int j = 0; j < kUnit / kElement; ++j) {
            if (blended >> (k * (kUnit / kElement) + j) & 1) {
                const int shift = 8 * kElement * j;
                const Bits bits = blended_element<Element>(
                    painting, painting.channel<kOfChannels>(at.slice, element), at.y, static_cast<int32_t>(x),
                    [&](int32_t layer) { return bits_of_layer(layer, static_cast<int32_t>(x), element, k, shift); });
                Unit part = 0, old = 0;
                memcpy(&part, &bits, sizeof bits);
                memset(&old, 0xFF, sizeof bits);
                units[k] = static_cast<Unit>((units[k] & ~(old << shift)) | part << shift);
            }
            if (++element == pixel_elements.divisor) {
                element = 0;
                ++x;
            }
        }
    }
    return vector_of<kBytes>(units);
}

// A vector with the elements of another where bits are set.
template <typename Element, int kBytes>
__device__ __forceinline__ Vector<kBytes> with_elements(const Vector<kBytes>& vector, const Vector<kBytes>& other,
                                                        uint32_t bits) {
    if constexpr (kElementsOf<Element, kBytes> == 1) {
        return bits != 0 ? other : vector;
    } else {
        return select(element_mask<Element>(bits), vector, other);
    }
}

// Some elements of a vector with those of a layer blended over them.
template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ Vector<kBytes> blended_over(const Painting& painting, int32_t k, const Place& at,
                                                       uint32_t bits, const Vector<kBytes>& vector) {
    using Bits = typename Element::Bits;
    using Unit = typename UnitsOf<Element, kBytes>::Unit;
    constexpr int kElement = static_cast<int>(sizeof(Bits)), kInUnit = static_cast<int>(sizeof(Unit)) / kElement;
    const Masks& masks = painting.call().masks;
    const Patch& patch = painting.patches[k - 1];
    const bool soft = masks.soft && patch.mask() != 0;
    const int32_t cell_y =
        static_cast<int32_t>(painting.params.height.quotient(static_cast<uint32_t>(soft ? at.y * masks.height : 0)));
    const Vector<kBytes> over = brought<Element, kBytes>(painting, k, at, bits);
    Unit units[kBytes / sizeof(Unit)], over_units[kBytes / sizeof(Unit)];
    memcpy(units, &vector, kBytes);
    memcpy(over_units, &over, kBytes);
    for_each_element<kBytes / kElement>(painting.params.pixel_elements, at, [&](int i, int32_t x, uint32_t element) {
        float below = patch.row.lam;
        if (soft) {
            const uint32_t cell_x = painting.params.width.quotient(static_cast<uint32_t>(x * masks.width));
            below = weight_in_box(patch, masks, painting.channel<kOfChannels>(at.slice, element), cell_y,
                                  static_cast<int32_t>(cell_x));
        }
        if ((bits >> i & 1) == 0 || below == 1.0f) return;
        Unit& unit = units[i / kInUnit];
        const int shift = 8 * kElement * (i % kInUnit);
        const Unit unit_over = over_units[i / kInUnit] >> shift, unit_below = unit >> shift;
        Bits result, bits_below;
        memcpy(&result, &unit_over, kElement);
        memcpy(&bits_below, &unit_below, kElement);
        if (below > 0.0f) result = Element::of(mixed_value(below, Element::value(bits_below), Element::value(result)));
        Unit part = 0, mask = 0;
        memcpy(&part, &result, kElement);
        memset(&mask, 0xFF, kElement);
        unit = static_cast<Unit>((unit & ~(mask << shift)) | part << shift);
    });
    return vector_of<kBytes>(units);
}

// The elements of a vector come from the topmost layers that bring them, a whole vector of each layer: of one on
// most vectors, of two across an edge.
template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ Vector<kBytes> painted_vector(const Painting& painting, const Place& at) {
    using Bits = typename Element::Bits;
    constexpr int kElements = kElementsOf<Element, kBytes>;
    uint32_t wanted = kEveryElement<kElements>;
    uint32_t over = 0, blended = 0;  // elements over which one layer is blended, and which others are as well
    int32_t layer_over = 0;
    Vector<kBytes> vector = {};
    CUTMIX_NO_UNROLL
    for (int32_t k = painting.count + 1; wanted != 0;) {
        const uint32_t bits = next_layer<kElements, kOfChannels>(painting, at, wanted, &k);
        const bool blends = painting.layers[k].blends;
        if (blends && over == 0) {
            over = bits;
            layer_over = k;
            continue;  // what lies below is wanted still
        }
        wanted &= ~bits;
        if (blends)
            blended |= bits;
        else
            vector = with_elements<Element>(vector, brought<Element, kBytes>(painting, k, at, bits), bits);
    }
    over &= ~blended;
    if (over != 0) vector = blended_over<Element, kBytes, kOfChannels>(painting, layer_over, at, over, vector);
    if (blended == 0) return vector;
    return blended_elements<Element, kBytes, kOfChannels>(
        painting, at, blended, vector, [&](int32_t k, int32_t x, uint32_t element, int, int) {
            const Layer& layer = painting.layers[k];
            const uint32_t pixel_elements = painting.params.pixel_elements.divisor;
            const uint32_t byte = (static_cast<uint32_t>(x) * pixel_elements + element) * sizeof(Bits);
            Bits bits;
            if (layer.fills) {
                const auto filled = fill_vector<sizeof(Bits)>(painting.call(), byte);
                memcpy(&bits, &filled, sizeof bits);
                return bits;
            }
            const uint8_t* const row = layer.corner + at.slice * layer.slice_stride +
                                       layer.rows.source_of(at.y - layer.span.y0) * layer.row_stride;
            const int32_t x0 = k == 0 ? 0 : painting.patches[k - 1].row.box.x0;
            const uint32_t column = static_cast<uint32_t>(layer.columns.source_of(x - x0));
            return reinterpret_cast<const Bits*>(row)[column * pixel_elements + element];
        });
}

// The place of a vector of a sample.
template <typename Element, int kBytes>
__device__ __forceinline__ Place place_of(const PatchParams& params, uint32_t vector) {
    const uint32_t row = params.row_vectors.quotient(vector);
    const uint32_t first = (vector - row * params.row_vectors.divisor) * kElementsOf<Element, kBytes>;
    const uint32_t slice = params.height.quotient(row), y = row - slice * params.height.divisor;
    return {slice, static_cast<int32_t>(y), static_cast<int32_t>(first)};
}

// The address of a place of a sample of out.
template <typename Element>
__device__ __forceinline__ uint8_t* out_at(const Painting& painting, const Place& at) {
    const Rows& rows = painting.call().images.out_rows;
    return painting.call().images.out + painting.sample * rows.sample_stride + at.slice * rows.slice_stride +
           at.y * rows.row_stride + at.first * static_cast<int64_t>(sizeof(typename Element::Bits));
}

// Paints a vector if its topmost layer brings all of it as it is; returns whether.
template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ bool painted_whole(const Painting& painting, uint32_t vector) {
    constexpr int kElements = kElementsOf<Element, kBytes>;
    constexpr uint32_t kEvery = kEveryElement<kElements>;
    const Place at = place_of<Element, kBytes>(painting.params, vector);
    int32_t k = painting.count + 1;
    const uint32_t bits = next_layer<kElements, kOfChannels>(painting, at, kEvery, &k);
    const Layer& layer = painting.layers[k];
    if (bits != kEvery || layer.blends || !(layer.moves || layer.fills)) return false;
    store<kBytes>(out_at<Element>(painting, at), brought<Element, kBytes>(painting, k, at, kEvery));
    return true;
}

// Vectors on seams wait until a warp has its others behind it, for then they fill its lanes.
template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ void paint_tile(const Painting& painting, uint32_t tile, Seams& all_seams) {
    const PatchParams& params = painting.params;
    const uint32_t warp = threadIdx.x / kWarpThreads, lane = threadIdx.x % kWarpThreads;
    const uint32_t begin = tile * params.vectors_in_block;
    const uint32_t end = lower(begin + params.vectors_in_block, params.sample_vectors);
    uint16_t* const seams = all_seams[warp];
    uint32_t count = 0;
    CUTMIX_NO_UNROLL
    for (uint32_t first = begin + warp * kWarpThreads; first < end; first += kPatchThreads) {
        const uint32_t vector = first + lane;
        const bool seam = vector < end && !painted_whole<Element, kBytes, kOfChannels>(painting, vector);
        const uint32_t lanes = __ballot_sync(~0u, seam);
        if (seam) seams[count + __popc(lanes & ~bits_from(lane))] = static_cast<uint16_t>(vector - begin);
        count += __popc(lanes);
    }
    __syncthreads();
    CUTMIX_NO_UNROLL
    for (uint32_t k = lane; k < count; k += kWarpThreads) {
        const Place at = place_of<Element, kBytes>(params, begin + seams[k]);
        store<kBytes>(out_at<Element>(painting, at), painted_vector<Element, kBytes, kOfChannels>(painting, at));
    }
}

// ---- Pixels, in place

// Whose the elements of a vector are: the mate's, those filled, and those blended. The others are the sample's own.
struct Owners {
    uint32_t mates, filled, blended;

    __device__ uint32_t changed() const { return mates | filled | blended; }
};

template <int kElements>
__device__ __forceinline__ Owners owners_of(const Painting& painting, const Place& at) {
    Owners owners = {};
    uint32_t wanted = kEveryElement<kElements>;
    CUTMIX_NO_UNROLL
    for (int32_t k = painting.count + 1; wanted != 0;) {
        const uint32_t bits = next_layer<kElements, true>(painting, at, wanted, &k);
        wanted &= ~bits;
        if (k == 0) break;
        const Layer& layer = painting.layers[k];
        if (layer.blends)
            owners.blended |= bits;
        else if (layer.fills)
            owners.filled |= bits;
        else
            owners.mates |= bits;
    }
    return owners;
}

// A vector of a sample by what it and its mate were.
template <typename Element, int kBytes>
__device__ __forceinline__ Vector<kBytes> exchanged_vector(const Painting& painting, const Owners& owners,
                                                           const Place& at, const Vector<kBytes>& own,
                                                           const Vector<kBytes>& mate) {
    using Bits = typename Element::Bits;
    constexpr int kElement = static_cast<int>(sizeof(Bits));
    const auto fill = fill_vector<kBytes>(painting.call(), static_cast<uint32_t>(at.first) * kElement);
    Vector<kBytes> vector = with_elements<Element>(own, mate, owners.mates);
    vector = with_elements<Element>(vector, fill, owners.filled);
    if (owners.blended == 0) return vector;
    using Unit = typename UnitsOf<Element, kBytes>::Unit;
    Unit own_units[kBytes / sizeof(Unit)], mate_units[kBytes / sizeof(Unit)], fill_units[kBytes / sizeof(Unit)];
    memcpy(own_units, &own, kBytes);
    memcpy(mate_units, &mate, kBytes);
    memcpy(fill_units, &fill, kBytes);
    return blended_elements<Element, kBytes, true>(painting, at, owners.blended, vector,
                                                   [&](int32_t k, int32_t, uint32_t, int word, int shift) {
                                                       Unit unit = k == 0 ? own_units[word] : mate_units[word];
                                                       if (painting.layers[k].fills) unit = fill_units[word];
                                                       unit = static_cast<Unit>(unit >> shift);
                                                       Bits bits;
                                                       memcpy(&bits, &unit, sizeof bits);
                                                       return bits;
                                                   });
}

// A thread owns a position of both samples of a pair: it reads what either needs, then writes what changes. That is why
// a vector on the edge of a box may be written whole.
template <typename Element, int kBytes>
__device__ __forceinline__ void exchange_tile(const Painting& own, const Painting& mate, uint32_t tile) {
    constexpr int kElements = kElementsOf<Element, kBytes>;
    const int64_t to_mate = int64_t{mate.sample - own.sample} * own.call().images.out_rows.sample_stride;
    const PatchParams& params = own.params;
    const uint32_t begin = tile * params.vectors_in_block;
    const uint32_t end = lower(begin + params.vectors_in_block, params.sample_vectors);
    CUTMIX_NO_UNROLL
    for (uint32_t vector = begin + threadIdx.x; vector < end; vector += kPatchThreads) {
        const Place at = place_of<Element, kBytes>(params, vector);
        const Owners owners = owners_of<kElements>(own, at), mates = owners_of<kElements>(mate, at);
        const bool own_changes = owners.changed() != 0, mate_changes = mates.changed() != 0;
        if (!own_changes && !mate_changes) continue;
        // Whether a sample's vector is needed: by the mate, or for what stays of it.
        const auto needed = [](const Owners& owners, const Owners& mates) {
            const uint32_t replaced = owners.mates | owners.filled;
            return (mates.mates | mates.blended) != 0 ||
                   (owners.changed() != 0 && replaced != kEveryElement<kElements>);
        };
        uint8_t* const place = out_at<Element>(own, at);
        Vector<kBytes> own_was = {}, mate_was = {};
        if (needed(owners, mates)) own_was = load<kBytes>(place);
        if (needed(mates, owners)) mate_was = load<kBytes>(place + to_mate);
        Vector<kBytes> own_is, mate_is;
        if (own_changes) own_is = exchanged_vector<Element>(own, owners, at, own_was, mate_was);
        if (mate_changes) mate_is = exchanged_vector<Element>(mate, mates, at, mate_was, own_was);
        if (own_changes) store<kBytes>(place, own_is);
        if (mate_changes) store<kBytes>(place + to_mate, mate_is);
    }
}

// ---- Targets

// Whether one of the patches above lies over a patch, for targets.
__device__ __forceinline__ bool is_covered(const Painting& painting, int32_t k) {
    const Box& box = painting.patches[k].row.box;
    bool covered = false;
    CUTMIX_NO_UNROLL
    for (int32_t above = k + 1; above < painting.count; ++above) {
        const Box& over = painting.patches[above].row.box;
        covered = covered ||
                  (mixes_target(painting.patches[above].kind()) && max_of(box.y0, over.y0) < min_of(box.y1, over.y1) &&
                   max_of(box.x0, over.x0) < min_of(box.x1, over.x1));
    }
    return covered;
}

// How many bytes of [begin, end) a thread sees that are zero, of all that the block sees.
__device__ __forceinline__ int32_t zero_bytes_between(const uint8_t* begin, const uint8_t* end) {
    const uint8_t* const first = begin + (0 - reinterpret_cast<uint64_t>(begin)) % 16;  // vector
    const uint8_t* const behind = first < end ? end - reinterpret_cast<uint64_t>(end) % 16 : first;
    const uint8_t* const head = begin + threadIdx.x;
    const uint8_t* const tail = behind + threadIdx.x;
    int32_t count = 0;
    if (head < first && head < end) count += *head == 0;
    if (tail < end) count += *tail == 0;
    CUTMIX_UNROLL_LOADS
    for (const uint8_t* at = first + 16 * threadIdx.x; at < behind; at += 16 * kPatchThreads) {
        const Vector<16> bytes = load<16>(at);
        for (uint32_t word : bytes.word) count += __popc(zero_byte_flags(word));
    }
    return count;
}

// The pixels of a cell of a mask, between those of a box.
struct Cells {
    Divider cells;
    int32_t length, begin, end;

    __device__ int32_t first_of(int32_t cell) const {
        const uint32_t numerator = static_cast<uint32_t>(cell * length) + cells.divisor - 1;
        return static_cast<int32_t>(cells.quotient(numerator));
    }
    __device__ int32_t pixels_of(int32_t cell) const {
        return max_of(min_of(first_of(cell + 1), end) - max_of(first_of(cell), begin), 0);
    }
};

// A thread's part of the units of a patch with a mask that nothing covers: of the cells of its mask.
template <typename Channel>
__device__ __forceinline__ int64_t units_of_cells(const PatchCall& call, const Patch& patch, Channel channel) {
    const Box& box = patch.row.box;
    const Masks& masks = call.masks;
    if (!masks.soft && masks.height == call.height && masks.width == call.width && box.x0 == 0 &&
        box.x1 == masks.width) {
        const uint8_t* const cells =
            static_cast<const uint8_t*>(masks.data) + plane_of(patch, masks, channel) * masks.height * masks.width;
        const float below = blends(patch.kind()) ? patch.row.lam : 0.0f;
        return units_of(1.0f, below) * zero_bytes_between(cells + box.y0 * masks.width, cells + box.y1 * masks.width);
    }
    const Cells rows = {divider(masks.height), call.height, box.y0, box.y1};
    const Cells columns = {divider(masks.width), call.width, box.x0, box.x1};
    const int32_t y0 = cell_of(box.y0, masks.height, call.height), x0 = cell_of(box.x0, masks.width, call.width);
    const int32_t y1 = cell_of(box.y1 - 1, masks.height, call.height) + 1;
    const int32_t x1 = cell_of(box.x1 - 1, masks.width, call.width) + 1;
    const Divider in_row = divider(x1 - x0);
    const bool pixels_alone = masks.height == call.height && masks.width == call.width;
    const uint32_t count = static_cast<uint32_t>((y1 - y0) * (x1 - x0));
    int64_t sum = 0;
    CUTMIX_UNROLL_LOADS
    for (uint32_t cell = threadIdx.x; cell < count; cell += kPatchThreads) {
        const int32_t row = static_cast<int32_t>(in_row.quotient(cell));
        const int32_t y = y0 + row, x = x0 + static_cast<int32_t>(cell) - row * (x1 - x0);
        const int32_t pixels = pixels_alone ? 1 : rows.pixels_of(y) * columns.pixels_of(x);
        sum += units_of(1.0f, weight_in_box(patch, masks, channel, y, x)) * pixels;
    }
    return sum;
}

// The first row behind y at which a patch from k on, or a cell of its mask, begins or ends.
__device__ __forceinline__ int32_t next_cut(const Painting& painting, int32_t k, int32_t y) {
    const PatchCall& call = painting.call();
    int32_t next = painting.patches[k].row.box.y1;
    CUTMIX_NO_UNROLL
    for (; k < painting.count; ++k) {
        const Patch& patch = painting.patches[k];
        const Box& box = patch.row.box;
        if (!mixes_target(patch.kind())) continue;
        if (box.y0 > y) next = min_of(next, box.y0);
        if (box.y1 > y) next = min_of(next, box.y1);
        if (patch.mask() != 0 && y >= box.y0 && y < box.y1) {
            const int32_t cells = call.masks.height, cell = cell_of(y, cells, call.height);
            next = min_of(next, ((cell + 1) * call.height + cells - 1) / cells);
        }
    }
    return next;
}

// A thread's part of the units of a patch that others cover: runs of equal rows are the warps' in turn.
template <typename Channel>
__device__ __forceinline__ int64_t units_of_rows(const Painting& painting, int32_t k, Channel channel) {
    const Box& box = painting.patches[k].row.box;
    const int32_t warp = static_cast<int32_t>(threadIdx.x / kWarpThreads);
    const int32_t lane = static_cast<int32_t>(threadIdx.x % kWarpThreads);
    int64_t sum = 0;
    CUTMIX_NO_UNROLL
    for (int32_t y = box.y0, next, run = 0; y < box.y1; y = next, ++run) {
        next = next_cut(painting, k, y);
        if (run % kPatchWarps != warp) continue;
        CUTMIX_NO_UNROLL
        for (int32_t x = box.x0 + lane; x < box.x1; x += static_cast<int32_t>(kWarpThreads)) {
            float left = 1.0f;
            CUTMIX_NO_UNROLL
            for (int32_t above = painting.count - 1; above > k; --above)
                if (mixes_target(painting.patches[above].kind()))
                    left = mul_rn(left, painting.below(above, channel, y, x));
            sum += units_of(left, painting.below(k, channel, y, x)) * (next - y);
        }
    }
    return sum;
}

template <typename Channel>
__device__ __forceinline__ int64_t units_of_patch(const Painting& painting, int32_t k, bool covered, Channel channel) {
    return covered ? units_of_rows(painting, k, channel)
                   : units_of_cells(painting.call(), painting.patches[k], channel);
}

template <bool kOfChannels>
__device__ __forceinline__ int64_t units_of_channels(const Painting& painting, int32_t k) {
    const bool covered = is_covered(painting, k);
    if constexpr (!kOfChannels) {
        return units_of_patch(painting, k, covered, EveryChannel{});
    } else {
        int64_t sum = 0;
        CUTMIX_NO_UNROLL
        for (int32_t channel = 0; channel < painting.call().masks.channels; ++channel)
            sum += units_of_patch(painting, k, covered, channel);
        return sum;
    }
}

__device__ __forceinline__ int64_t warp_sum(int64_t sum) {
    CUTMIX_NO_UNROLL
    for (int offset = 16; offset > 0; offset /= 2) {
        const uint32_t low = __shfl_down_sync(~0u, static_cast<uint32_t>(sum), offset);
        const uint32_t high = __shfl_down_sync(~0u, static_cast<uint32_t>(sum >> 32), offset);
        sum += static_cast<int64_t>(static_cast<uint64_t>(high) << 32 | low);
    }
    return sum;
}

// The weight of a part, once the units of all patches are known.
template <bool kOfChannels>
__device__ __forceinline__ float weight_of_part(const Painting& painting, const SharedPatches& shared, int32_t part) {
    const PatchCall& call = painting.call();
    if (part > 0 && (part > painting.count || !mixes_target(painting.patches[part - 1].kind()))) return 0.0f;
    if (call.weights) return call.weights[int64_t{painting.sample} * (call.patches + 1) + part];
    int64_t all = int64_t{call.height} * call.width * (int64_t{1} << 24);
    float pixels = static_cast<float>(call.height * call.width);
    if constexpr (kOfChannels) {
        all *= call.masks.channels;
        pixels = static_cast<float>(int64_t{call.height} * call.width * call.masks.channels);
    }
    if (all == 0) return part == 0 ? 1.0f : 0.0f;
    int64_t units = 0;
    CUTMIX_NO_UNROLL
    for (int32_t k = part == 0 ? 0 : part - 1; k < (part == 0 ? painting.count : part); ++k)
        units += shared.units[k][0];
    return share_of(part == 0 ? all - units : units, pixels);
}

template <typename Value>
__device__ __forceinline__ void write_patch_targets(const PatchCall& call, int32_t sample, const Part* parts,
                                                    int32_t count, bool valid) {
    const Targets& targets = call.targets;
    CUTMIX_NO_UNROLL
    for (uint32_t column = threadIdx.x; column < static_cast<uint32_t>(targets.num_classes); column += kPatchThreads)
        store_value(targets.out, targets.out_dtype, int64_t{sample} * targets.num_classes + column,
                    valid ? patch_target<Value>(call, parts, count, static_cast<int32_t>(column)) : nan_value<Value>());
}

// The units of all patches into units[k][0]. One without a mask that nothing covers is one thread's, beside the others.
template <bool kOfChannels>
__device__ __forceinline__ void find_units(const Painting& painting, SharedPatches* shared) {
    const int32_t k = static_cast<int32_t>(threadIdx.x);
    const int32_t warp = k / static_cast<int32_t>(kWarpThreads);
    if (k < painting.count) {
        const Patch& patch = painting.patches[k];
        const Box& box = patch.row.box;
        const bool counts = mixes_target(patch.kind()) && box.y0 < box.y1 && box.x0 < box.x1;
        const bool by_block = counts && (patch.mask() != 0 || is_covered(painting, k));
        shared->by_block[k] = by_block;
        if (!by_block) {
            const float below = blends(patch.kind()) ? patch.row.lam : 0.0f;
            const int64_t pixels =
                int64_t{(box.y1 - box.y0) * (box.x1 - box.x0)} * (kOfChannels ? painting.call().masks.channels : 1);
            shared->units[k][0] = counts ? units_of(1.0f, below) * pixels : 0;
        }
    }
    __syncthreads();
    CUTMIX_NO_UNROLL
    for (int32_t each = 0; each < painting.count; ++each) {
        if (!shared->by_block[each]) continue;
        const int64_t sum = warp_sum(units_of_channels<kOfChannels>(painting, each));
        if (k % static_cast<int32_t>(kWarpThreads) == 0) shared->units[each][warp] = sum;
    }
    __syncthreads();
    if (k < painting.count && shared->by_block[k])
        for (int other = 1; other < kPatchWarps; ++other) shared->units[k][0] += shared->units[k][other];
}

template <bool kOfChannels>
__device__ __forceinline__ void write_front(const PatchParams& params, int32_t sample, bool valid,
                                            SharedPatches* shared) {
    const PatchCall& call = params.call;
    const Painting painting = {params, shared->patches, shared->layers, sample, valid ? call.patches : 0};
    const int32_t thread = static_cast<int32_t>(threadIdx.x), count = painting.count + 1;
    if (call.sampled_rows && thread < call.patches) {
        const int64_t at = int64_t{painting.sample} * call.patches + thread;
        call.sampled_rows[at] = painting.patches[thread].row;
        call.sampled_sources[at] = painting.patches[thread].source;
    }
    if (!call.targets.out) return;
    if (!call.weights) find_units<kOfChannels>(painting, shared);
    __syncthreads();
    if (thread < count) {
        Part part = {owner_of(call, painting.sample, painting.patches, thread), 0,
                     weight_of_part<kOfChannels>(painting, *shared, thread)};
        if (valid && part.weight > 0.0f && !is_float(call.targets.labels_dtype))
            part.known_class = class_of(call, part.owner);
        shared->parts[thread] = part;
    }
    __syncthreads();
    CUTMIX_NO_UNROLL
    for (int32_t k = thread % static_cast<int32_t>(kWarpThreads); k < count; k += static_cast<int32_t>(kWarpThreads))
        valid = valid && shared->parts[k].known_class >= 0;
    valid = __all_sync(~0u, valid);
    if (call.targets.out_dtype == Dtype::kF64)
        write_patch_targets<double>(call, painting.sample, shared->parts, count, valid);
    else
        write_patch_targets<float>(call, painting.sample, shared->parts, count, valid);
}

// ---- Kernel and launch

template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ void paint_block(const PatchParams& params) {
    __shared__ SharedPatches shared;
    const int32_t sample = static_cast<int32_t>(params.blocks_in_sample.quotient(blockIdx.x));
    const uint32_t block = blockIdx.x - static_cast<uint32_t>(sample) * params.blocks_in_sample.divisor;
    const bool valid = load_patches(params, static_cast<uint32_t>(sample), &shared);
    if (block < params.front_blocks)
        write_front<kOfChannels>(params, sample, valid, &shared);
    else
        paint_tile<Element, kBytes, kOfChannels>(set_layers(params, sample, valid, &shared),
                                                 block - params.front_blocks, shared.seams);
}

template <typename Element, int kBytes>
__global__ void __launch_bounds__(kPatchThreads, kPatchBlocksResident)
    paint_patches(const __grid_constant__ PatchParams params) {
    paint_block<Element, kBytes, false>(params);
}

// With a mask of its own for each channel.
template <typename Element, int kBytes>
__global__ void __launch_bounds__(kPatchThreads, kPatchBlocksOfChannels)
    paint_channels(const __grid_constant__ PatchParams params) {
    paint_block<Element, kBytes, true>(params);
}

// The pixels of a pair are the lower one's blocks' to paint.
template <typename Element, int kBytes>
__global__ void __launch_bounds__(kPatchThreads, kPatchBlocksInPlace)
    paint_in_place(const __grid_constant__ PatchParams params) {
    __shared__ SharedPatches shared, shared_mate;
    const int32_t sample = static_cast<int32_t>(params.blocks_in_sample.quotient(blockIdx.x));
    const uint32_t block = blockIdx.x - static_cast<uint32_t>(sample) * params.blocks_in_sample.divisor;
    const bool front = block < params.front_blocks;
    const int32_t mate = mate_of(params.call, sample);
    if (!front && mate < sample) return;
    const bool valid = load_patches<true>(params, static_cast<uint32_t>(sample), &shared, mate);
    if (front) {
        write_front<true>(params, sample, valid, &shared);
        return;
    }
    const bool both = mate != sample && load_patches<true>(params, static_cast<uint32_t>(mate), &shared_mate, sample);
    exchange_tile<Element, kBytes>(set_layers(params, sample, valid, &shared),
                                   set_layers(params, mate, both, &shared_mate), block - params.front_blocks);
}

using PatchKernel = void (*)(PatchParams);

template <typename Element>
PatchKernel patch_kernel(const PatchLaunch& launch) {
    constexpr int kElement = static_cast<int>(sizeof(typename Element::Bits));
    const bool wide = launch.vector_bytes == 16;
    if (launch.params.call.images.in_place)
        return wide ? paint_in_place<Element, 16> : paint_in_place<Element, kElement>;
    if (launch.params.call.masks.channels > 1)
        return wide ? paint_channels<Element, 16> : paint_channels<Element, kElement>;
    return wide ? paint_patches<Element, 16> : paint_patches<Element, kElement>;
}

inline PatchKernel kernel_of(const PatchLaunch& launch) {
    switch (launch.element) {
        case Dtype::kU8:
            return patch_kernel<ElementU8>(launch);
        case Dtype::kF16:
            return patch_kernel<ElementF16>(launch);
        case Dtype::kBF16:
            return patch_kernel<ElementBF16>(launch);
        case Dtype::kF32:
            return patch_kernel<ElementF32>(launch);
        default:
            return patch_kernel<ElementF64>(launch);
    }
}

inline cudaError_t launch_patches(const PatchCall& call, cudaStream_t stream) {
    PatchLaunch launch = patch_geometry(call);
    if (launch.grid == 0) return cudaSuccess;  // neither pixels nor targets
    void* arguments[] = {&launch.params};
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel_of(launch)), dim3(launch.grid), dim3(launch.block),
                            arguments, 0, stream);
}

}  // namespace cutmix
