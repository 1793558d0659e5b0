// The CUDA kernel of several patches a sample: plan, pixels and targets of a call in one launch. No torch. What each
// block does is decided by patches_geometry.h.
#pragma once

#include "patches_geometry.h"
#include "plan_and_targets.cuh"

namespace cutmix {

// Of itself the compiler takes 40 registers and spills; with these bounds it spills a word in some kernels, or none. A
// multiprocessor of compute capability 7.5 has room for 4 blocks at most.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kPatchBlocksResident = 0;  // no wish
#else
constexpr int kPatchBlocksResident = 5;
#endif
constexpr int kPatchBlocksOfChannels = 4, kPatchBlocksInPlace = 3;
constexpr int kPatchWarps = static_cast<int>(kPatchThreads) / static_cast<int>(kWarpThreads);

// What the threads of a block know together about its sample.
struct SharedPatches {
    Patch patches[kMostPatches];
    uint8_t valid[kMostPatches + 1];
    int64_t units[kMostPatches][kPatchWarps];
    Part parts[kMostPatches + 1];
};

// The patches of a block's sample that are painted: none of one that may not be followed.
struct Painting {
    const PatchParams& params;
    const Patch* patches;
    int32_t sample, count;

    __device__ const PatchCall& call() const { return params.call; }

    template <typename Channel>
    __device__ float below(int32_t k, Channel channel, int32_t y, int32_t x) const {
        return weight_below(patches[k], call().masks, channel, y, x, call().height, call().width);
    }

    // The channel at a byte of a pixel, where masks tell channels apart.
    template <bool kOfChannels>
    __device__ auto channel(uint32_t slice, uint32_t byte) const {
        if constexpr (kOfChannels) {
            const uint32_t index = params.channel_step.quotient(call().channel_place.in_pixel ? byte : slice);
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
    if (thread < patches) {
        const int64_t at = int64_t{sample} * patches + thread;
        Patch patch;
        bool valid = true;
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
        shared->valid[thread] = valid;
    }
    if (thread <= patches && call.weights) {
        const bool valid = valid_weight(call.weights[int64_t{sample} * (patches + 1) + thread]);
        shared->parts[thread].known_class = valid;
    }
    __syncthreads();
    bool valid = true;
    CUTMIX_NO_UNROLL
    for (uint32_t k = 0; k < patches; ++k) valid = valid && shared->valid[k];
    CUTMIX_NO_UNROLL
    for (uint32_t k = 0; call.weights && k <= patches; ++k) valid = valid && shared->parts[k].known_class;
    return valid;
}

// ---- Pixels

__device__ __forceinline__ const uint8_t* patch_row_at(const PatchCall& call, int32_t partner, uint32_t slice,
                                                       int32_t y) {
    const bool first = partner < call.batch;
    const Rows& rows = first ? call.images.in_rows : call.other_rows;
    return (first ? call.images.in : call.other_images) +
           int64_t{first ? partner : partner - call.batch} * rows.sample_stride + slice * rows.slice_stride +
           y * rows.row_stride;
}

// The row of the source that a row of a patch reads.
__device__ __forceinline__ const uint8_t* source_row(const Painting& painting, const Patch& patch, uint32_t slice,
                                                     int32_t y) {
    const Box &box = patch.row.box, &source = patch.source;
    return patch_row_at(painting.call(), patch.row.partner, slice, source_of(y, box.y0, box.y1, source.y0, source.y1));
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

// A vector from anywhere in a row, by one or two aligned loads. Rows are whole vectors, so that both lie in the row.
template <int kBytes>
__device__ __forceinline__ Vector<kBytes> load_anywhere(const uint8_t* from) {
    if constexpr (kBytes == 16) {
        const uint32_t first = static_cast<uint32_t>(reinterpret_cast<uint64_t>(from) % 16);
        const uint8_t* const aligned = from - first;
        const Vector<16> low = load<16>(aligned);
        return first == 0 ? low : shifted(low, load<16>(aligned + 16), first);
    }
    return load<kBytes>(from);  // as wide as an element, and aligned
}

// An element of the row of what is filled with, at a byte of the row.
template <typename Bits>
__device__ __forceinline__ Bits fill_element(const PatchCall& call, uint32_t byte) {
    uint64_t halves[2];
    memcpy(halves, call.images.fill, sizeof halves);
    const uint64_t part = (byte % 16 < 8 ? halves[0] : halves[1]) >> (8 * (byte % 8));
    Bits bits;
    memcpy(&bits, &part, sizeof bits);
    return bits;
}

// The same of a vector.
template <int kBytes>
__device__ __forceinline__ Vector<kBytes> fill_vector(const PatchCall& call, uint32_t byte) {
    uint64_t halves[2];
    memcpy(halves, call.images.fill, sizeof halves);
    if (kBytes == 16) return vector_of<kBytes>(halves);
    const uint64_t part = (byte % 16 < 8 ? halves[0] : halves[1]) >> (8 * (byte % 8));
    return vector_of<kBytes>(&part);
}

// A pixel's element. `brought` gives that of a patch with a partner, or of the canvas (-1), and `fill` that of a patch
// without.
template <typename Element, typename Channel, typename Brought, typename Fill>
__device__ __forceinline__ typename Element::Bits painted_element(const Painting& painting, Channel channel, int32_t y,
                                                                  int32_t x, const Brought& brought, const Fill& fill) {
    using Bits = typename Element::Bits;
    const auto element = [&](int32_t owner) {
        return owner >= 0 && !has_partner(painting.patches[owner].kind()) ? fill() : brought(owner);
    };
    int32_t base = painting.count - 1;
    bool blended = false;
    CUTMIX_NO_UNROLL
    for (; base >= 0; --base) {
        const float below = painting.below(base, channel, y, x);
        if (below == 0.0f) break;
        blended = blended || below < 1.0f;
    }
    Bits bits = element(base);
    if (!blended) return bits;
    auto value = Element::value(bits);
    CUTMIX_NO_UNROLL
    for (int32_t k = base + 1; k < painting.count; ++k) {
        const float below = painting.below(k, channel, y, x);
        if (below < 1.0f) value = mixed_value(below, value, Element::value(element(k)));
    }
    return Element::of(value);
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

// A vector whose elements may be of several patches, element by element. brought(owner, x, byte, word, shift) is the
// element that a patch with a partner brings, or the canvas (-1), at a byte of pixel x and a shift of the vector's
// word.
template <typename Element, int kBytes, bool kOfChannels, typename Brought>
__device__ __forceinline__ Vector<kBytes> painted_elements(const Painting& painting, uint32_t slice, int32_t y,
                                                           uint32_t begin, const Brought& brought) {
    using Bits = typename Element::Bits;
    constexpr int kElement = static_cast<int>(sizeof(Bits));
    using Unit = typename UnitsOf<Element, kBytes>::Unit;
    constexpr int kUnit = static_cast<int>(sizeof(Unit));
    const uint32_t pixel_bytes = painting.params.pixel_bytes.divisor;
    uint32_t x = painting.params.pixel_bytes.quotient(begin), byte = begin - x * pixel_bytes;
    Unit units[kBytes / kUnit];
    for (int k = 0; k < kBytes / kUnit; ++k) {
        Unit unit = 0;
        CUTMIX_NO_UNROLL
        for (int j = 0; j < kUnit / kElement; ++j) {
            const int32_t column = static_cast<int32_t>(x);
            const Bits bits = painted_element<Element>(
                painting, painting.channel<kOfChannels>(slice, byte), y, column,
                [&](int32_t owner) { return brought(owner, column, byte, k, 8 * kElement * j); },
                [&] { return fill_element<Bits>(painting.call(), x * pixel_bytes + byte); });
            Unit part = 0;
            memcpy(&part, &bits, sizeof bits);
            unit = static_cast<Unit>(unit | part << (8 * kElement * j));
            byte += kElement;
            if (byte == pixel_bytes) {
                byte = 0;
                ++x;
            }
        }
        units[k] = unit;
    }
    Vector<kBytes> vector;
    memcpy(&vector, units, kBytes);
    return vector;
}

// Calls one of three functions: canvas() where a vector is the canvas's, whole(k) where patch k brings all of it, or
// parts(), where some.
template <int kBytes, typename Canvas, typename Parts, typename Whole>
__device__ __forceinline__ auto with_owner(const Painting& painting, int32_t y, uint32_t begin, const Canvas& canvas,
                                           const Parts& parts, const Whole& whole) {
    const Divider& pixel_bytes = painting.params.pixel_bytes;
    const int32_t first = static_cast<int32_t>(pixel_bytes.quotient(begin));
    const int32_t last = static_cast<int32_t>(pixel_bytes.quotient(begin + kBytes - 1));
    CUTMIX_NO_UNROLL
    for (int32_t k = painting.count - 1; k >= 0; --k) {
        const Patch& patch = painting.patches[k];
        const Box &box = patch.row.box, &source = patch.source;
        if (patch.kind() == Kind::kKeep || y < box.y0 || y >= box.y1 || last < box.x0 || first >= box.x1) continue;
        const bool all = first >= box.x0 && last < box.x1 && patch.mask() == 0 && !blends(patch.kind());
        if (!all || (has_partner(patch.kind()) && box.x1 - box.x0 != source.x1 - source.x0)) return parts();
        return whole(k);
    }
    return canvas();
}

// A vector that one patch, or the canvas, brings whole is moved by one or two loads.
template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ Vector<kBytes> painted_vector(const Painting& painting, uint32_t slice, int32_t y,
                                                         uint32_t begin) {
    const PatchCall& call = painting.call();
    const uint32_t pixel_bytes = painting.params.pixel_bytes.divisor;
    const auto canvas = [&] { return patch_row_at(call, painting.sample % call.batch, slice, y); };
    const auto brought = [&](int32_t owner, int32_t x, uint32_t byte, int, int) {
        const uint8_t* row;
        int32_t column = x;
        if (owner < 0) {
            row = canvas();
        } else {
            const Patch& patch = painting.patches[owner];
            row = source_row(painting, patch, slice, y);
            column = source_of(x, patch.row.box.x0, patch.row.box.x1, patch.source.x0, patch.source.x1);
        }
        return *reinterpret_cast<const typename Element::Bits*>(row + int64_t{column} * pixel_bytes + byte);
    };
    return with_owner<kBytes>(
        painting, y, begin, [&] { return load<kBytes>(canvas() + begin); },
        [&] { return painted_elements<Element, kBytes, kOfChannels>(painting, slice, y, begin, brought); },
        [&](int32_t k) {
            const Patch& patch = painting.patches[k];
            if (!has_partner(patch.kind())) return fill_vector<kBytes>(call, begin);
            const int64_t apart = int64_t{patch.source.x0 - patch.row.box.x0} * pixel_bytes;
            return load_anywhere<kBytes>(source_row(painting, patch, slice, y) + begin + apart);
        });
}

// Calls a function with slice, row and byte of each of a thread's vectors.
template <int kBytes, typename Function>
__device__ __forceinline__ void for_each_vector(const PatchParams& params, uint32_t tile, const Function& function) {
    const uint32_t begin = tile * params.vectors_in_block;
    const uint32_t end = lower(begin + params.vectors_in_block, params.sample_vectors);
    CUTMIX_NO_UNROLL
    for (uint32_t vector = begin + threadIdx.x; vector < end; vector += kPatchThreads) {
        const uint32_t row = params.row_vectors.quotient(vector);
        const uint32_t byte = (vector - row * params.row_vectors.divisor) * kBytes;
        const uint32_t slice = params.height.quotient(row), y = row - slice * params.height.divisor;
        function(slice, static_cast<int32_t>(y), byte);
    }
}

template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ void paint_tile(const Painting& painting, uint32_t tile) {
    const Rows& rows = painting.call().images.out_rows;
    uint8_t* const out = painting.call().images.out + painting.sample * rows.sample_stride;
    for_each_vector<kBytes>(painting.params, tile, [&](uint32_t slice, int32_t y, uint32_t byte) {
        store<kBytes>(out + slice * rows.slice_stride + y * rows.row_stride + byte,
                      painted_vector<Element, kBytes, kOfChannels>(painting, slice, y, byte));
    });
}

// ---- Pixels, in place

// The patch that brings all of a vector; or, less than 0, none, or several that bring parts.
constexpr int32_t kNone = -1, kParts = -2;

template <int kBytes>
__device__ __forceinline__ int32_t owner_of_vector(const Painting& painting, int32_t y, uint32_t begin) {
    return with_owner<kBytes>(
        painting, y, begin, [] { return kNone; }, [] { return kParts; }, [](int32_t k) { return k; });
}

// A vector of a sample, of which something changes, by what it and its mate were.
template <typename Element, int kBytes>
__device__ __forceinline__ Vector<kBytes> exchanged_vector(const Painting& painting, int32_t owner, uint32_t slice,
                                                           int32_t y, uint32_t begin, const Vector<kBytes>& own,
                                                           const Vector<kBytes>& mate) {
    if (owner != kParts)
        return has_partner(painting.patches[owner].kind()) ? mate : fill_vector<kBytes>(painting.call(), begin);
    using Unit = typename UnitsOf<Element, kBytes>::Unit;
    Unit own_units[kBytes / sizeof(Unit)], mate_units[kBytes / sizeof(Unit)];
    memcpy(own_units, &own, kBytes);
    memcpy(mate_units, &mate, kBytes);
    return painted_elements<Element, kBytes, true>(
        painting, slice, y, begin, [&](int32_t owner, int32_t, uint32_t, int k, int shift) {
            const Unit unit = (owner < 0 ? own_units[k] : mate_units[k]) >> shift;
            typename Element::Bits bits;
            memcpy(&bits, &unit, sizeof bits);
            return bits;
        });
}

// A thread owns a position of both samples of a pair: it reads what either needs, then writes what changes. That is why
// a vector on the edge of a box may be written whole.
template <typename Element, int kBytes>
__device__ __forceinline__ void exchange_tile(const Painting& own, const Painting& mate, uint32_t tile) {
    const Rows& rows = own.call().images.out_rows;
    uint8_t* const out = own.call().images.out + own.sample * rows.sample_stride;
    const int64_t to_mate = int64_t{mate.sample - own.sample} * rows.sample_stride;
    for_each_vector<kBytes>(own.params, tile, [&](uint32_t slice, int32_t y, uint32_t byte) {
        const int32_t owner = owner_of_vector<kBytes>(own, y, byte), mates = owner_of_vector<kBytes>(mate, y, byte);
        if (owner == kNone && mates == kNone) return;
        const auto brings = [](const Painting& painting, int32_t k) {
            return k == kParts || (k >= 0 && has_partner(painting.patches[k].kind()));
        };
        uint8_t* const at = out + slice * rows.slice_stride + y * rows.row_stride + byte;
        Vector<kBytes> own_was = {}, mate_was = {};
        if (owner == kParts || brings(mate, mates)) own_was = load<kBytes>(at);
        if (mates == kParts || brings(own, owner)) mate_was = load<kBytes>(at + to_mate);
        Vector<kBytes> own_is, mate_is;
        if (owner != kNone) own_is = exchanged_vector<Element, kBytes>(own, owner, slice, y, byte, own_was, mate_was);
        if (mates != kNone) mate_is = exchanged_vector<Element, kBytes>(mate, mates, slice, y, byte, mate_was, own_was);
        if (owner != kNone) store<kBytes>(at, own_is);
        if (mates != kNone) store<kBytes>(at + to_mate, mate_is);
    });
}

// ---- Targets

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

// A thread's part of a patch's units.
template <typename Channel>
__device__ __forceinline__ int64_t units_of_patch(const Painting& painting, int32_t k, Channel channel) {
    const Box& box = painting.patches[k].row.box;
    int64_t sum = 0;
    if (!mixes_target(painting.patches[k].kind())) return sum;
    CUTMIX_NO_UNROLL
    for (int32_t y = box.y0, next; y < box.y1; y = next) {
        next = next_cut(painting, k, y);
        CUTMIX_NO_UNROLL
        for (int32_t x = box.x0 + static_cast<int32_t>(threadIdx.x); x < box.x1; x += kPatchThreads) {
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

template <bool kOfChannels>
__device__ __forceinline__ int64_t units_of_channels(const Painting& painting, int32_t k) {
    if constexpr (!kOfChannels) {
        return units_of_patch(painting, k, EveryChannel{});
    } else {
        int64_t sum = 0;
        CUTMIX_NO_UNROLL
        for (int32_t channel = 0; channel < painting.call().masks.channels; ++channel)
            sum += units_of_patch(painting, k, channel);
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
        for (int warp = 0; warp < kPatchWarps; ++warp) units += shared.units[k][warp];
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

template <bool kOfChannels>
__device__ __forceinline__ void write_front(const Painting& painting, SharedPatches* shared, bool valid) {
    const PatchCall& call = painting.call();
    const int32_t thread = static_cast<int32_t>(threadIdx.x), count = painting.count + 1;
    if (call.sampled_rows && thread < call.patches) {
        const int64_t at = int64_t{painting.sample} * call.patches + thread;
        call.sampled_rows[at] = painting.patches[thread].row;
        call.sampled_sources[at] = painting.patches[thread].source;
    }
    if (!call.targets.out) return;
    CUTMIX_NO_UNROLL
    for (int32_t k = 0; !call.weights && k < painting.count; ++k) {
        const int64_t sum = warp_sum(units_of_channels<kOfChannels>(painting, k));
        if (thread % static_cast<int32_t>(kWarpThreads) == 0)
            shared->units[k][thread / static_cast<int32_t>(kWarpThreads)] = sum;
    }
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
    for (int32_t k = 0; k < count; ++k) valid = valid && shared->parts[k].known_class >= 0;
    if (call.targets.out_dtype == Dtype::kF64)
        write_patch_targets<double>(call, painting.sample, shared->parts, count, valid);
    else
        write_patch_targets<float>(call, painting.sample, shared->parts, count, valid);
}

// ---- Kernel and launch

template <typename Element, int kBytes, bool kOfChannels>
__device__ __forceinline__ void paint_block(const PatchParams& params) {
    __shared__ SharedPatches shared;
    const uint32_t sample = params.blocks_in_sample.quotient(blockIdx.x);
    const uint32_t block = blockIdx.x - sample * params.blocks_in_sample.divisor;
    const bool valid = load_patches(params, sample, &shared);
    const Painting painting = {params, shared.patches, static_cast<int32_t>(sample), valid ? params.call.patches : 0};
    if (block < params.front_blocks) {
        __syncthreads();  // parts are written anew
        write_front<kOfChannels>(painting, &shared, valid);
    } else {
        paint_tile<Element, kBytes, kOfChannels>(painting, block - params.front_blocks);
    }
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
    const int32_t mate = mate_of(params.call, sample), patches = params.call.patches;
    if (!front && mate < sample) return;
    const bool valid = load_patches<true>(params, static_cast<uint32_t>(sample), &shared, mate);
    const Painting own = {params, shared.patches, sample, valid ? patches : 0};
    if (front) {
        __syncthreads();  // parts are written anew
        write_front<true>(own, &shared, valid);
        return;
    }
    const bool both = mate != sample && load_patches<true>(params, static_cast<uint32_t>(mate), &shared_mate, sample);
    exchange_tile<Element, kBytes>(own, {params, shared_mate.patches, mate, both ? patches : 0},
                                   block - params.front_blocks);
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
