// The CUDA kernels: plan, pixels and targets of a call in one launch. No torch, no shared memory, no barrier.
//
// The work on an index of a block and a thread is plain C++; only the kernels at the end know CUDA's names. What each
// block does is decided by launch_geometry.h, which also shows how threads lie on the pixels.
#pragma once

#include <type_traits>

#include "plan_and_targets.cuh"

namespace cutmix {

// ---- Pixels

// Which block of which sample: the blocks of a chunk follow each other, the chunks of a run, and the runs of a sample.
struct Tile {
    uint32_t sample, run, chunk, part;
};

CUTMIX_HD Tile tile_of(const Pixels& pixels, uint32_t block) {
    const uint32_t sample = pixels.blocks_in_sample.quotient(block);
    const uint32_t in_sample = block - sample * pixels.blocks_in_sample.divisor;
    const uint32_t run = pixels.blocks_in_run.quotient(in_sample);
    const uint32_t in_run = in_sample - run * pixels.blocks_in_run.divisor;
    const uint32_t chunk = pixels.blocks_in_chunk.quotient(in_run);
    return {sample, run, chunk, in_run - chunk * pixels.blocks_in_chunk.divisor};
}

// A part of an image: rows [y0, y1) of every slice, bytes [begin, end) of every row. Where it is nothing, begin and y0
// are behind everything and the ends before it, so that a union with another region is the other.
struct Region {
    uint32_t y0, y1, begin, end;
};

// What becomes of a sample's pixels, as its row of the plan says.
struct Change {
    Kind kind;
    float lam;
    Region region;  // outside of which nothing changes
};

CUTMIX_HD Change change_of(const CheckedRow& checked, const Pixels& pixels) {
    const Box& box = checked.row.box;
    const uint32_t bytes = pixels.pixel_bytes, y0 = static_cast<uint32_t>(box.y0), y1 = static_cast<uint32_t>(box.y1);
    const Kind kind = checked.kind();
    Change change = {kind, checked.row.lam, {~0u, 0, ~0u, 0}};
    if (kind != Kind::kKeep && !has_box(kind))
        change.region = {0, pixels.height.divisor, 0, pixels.row_bytes};
    else if (kind != Kind::kKeep)
        change.region = {y0, y1, static_cast<uint32_t>(box.x0) * bytes, static_cast<uint32_t>(box.x1) * bytes};
    return change;
}

// What a region means for the vectors of one column, whatever their row.
template <int kBytes>
struct Column {
    Vector<kBytes> mask;  // the bytes inside
    uint32_t y0;
    uint32_t rows;       // from y0 on, in which any are inside
    uint32_t edge_rows;  // the same where others are outside, else none
};

template <int kBytes>
CUTMIX_HD Column<kBytes> column_of(const Region& region, uint32_t vector) {
    const int32_t first = static_cast<int32_t>(vector * kBytes);
    const int32_t begin = min_of(max_of(static_cast<int32_t>(region.begin) - first, 0), kBytes);
    const int32_t end = max_of(min_of(static_cast<int32_t>(region.end) - first, kBytes), begin);
    const uint32_t rows = begin < end ? region.y1 - region.y0 : 0;
    return {byte_mask<kBytes>(begin, end), region.y0, rows, end - begin < kBytes ? rows : 0};
}

// The vector of a row of what cutout fills with. Its 16 bytes repeat from the beginning of a row on.
template <int kBytes>
CUTMIX_HD Vector<kBytes> fill_of(const Pixels& pixels, uint32_t vector) {
    if (kBytes == 16) return vector_of<kBytes>(pixels.fill);
    const uint32_t position = vector * kBytes % 16;
    const uint64_t part = pixels.fill[position / 8] >> (8 * (position % 8));
    return vector_of<kBytes>(&part);
}

// launch_geometry.h sees to it that a vector holds whole elements.
template <typename Element, int kBytes>
CUTMIX_HD Vector<kBytes> computed_elements(Kind kind, float lam, const Vector<kBytes>& own,
                                           const Vector<kBytes>& partner) {
    using Bits = typename Element::Bits;
    Vector<kBytes> mixed = {};
    if constexpr (sizeof(Bits) <= kBytes) {
        Bits own_bits[kBytes / sizeof(Bits)], partner_bits[kBytes / sizeof(Bits)], mixed_bits[kBytes / sizeof(Bits)];
        memcpy(own_bits, &own, kBytes);
        memcpy(partner_bits, &partner, kBytes);
        for (size_t k = 0; k < kBytes / sizeof(Bits); ++k)
            mixed_bits[k] = computed<Element>(kind, lam, own_bits[k], partner_bits[k]);
        memcpy(&mixed, mixed_bits, kBytes);
    }
    return mixed;
}

template <int kBytes>
CUTMIX_HD Vector<kBytes> computed_vector(Dtype dtype, Kind kind, float lam, const Vector<kBytes>& own,
                                         const Vector<kBytes>& partner) {
    switch (dtype) {
        case Dtype::kU8:
            return computed_elements<ElementU8>(kind, lam, own, partner);
        case Dtype::kF16:
            return computed_elements<ElementF16>(kind, lam, own, partner);
        case Dtype::kBF16:
            return computed_elements<ElementBF16>(kind, lam, own, partner);
        case Dtype::kF32:
            return computed_elements<ElementF32>(kind, lam, own, partner);
        default:  // a plan that computes is not valid for any other
            return computed_elements<ElementF64>(kind, lam, own, partner);
    }
}

// What the kinds make of a vector.
template <int kBytes>
struct PixelRule {
    Dtype dtype;
    Vector<kBytes> fill;

    // own and partner count for the kinds alone that read them; kMasked: of a kind with a box only the masked bytes
    // change, else all. A kind that reads its own is a constant where it is computed: kNumber goes through them.
    template <bool kMasked, int32_t kNumber = 1>
    CUTMIX_HD Vector<kBytes> changed(Kind kind, float lam, const Vector<kBytes>& mask, const Vector<kBytes>& own,
                                     const Vector<kBytes>& partner) const {
        const auto in_box = [&](const Vector<kBytes>& inside) { return kMasked ? select(mask, own, inside) : inside; };
        if constexpr (kNumber > kKinds) {
            return has_partner(kind) ? in_box(partner) : in_box(fill);
        } else {
            constexpr Kind kKind = static_cast<Kind>(kNumber);
            if constexpr (reads_own(kKind)) {
                if (kind == kKind) {
                    const Vector<kBytes> computed = computed_vector(dtype, kKind, lam, own, partner);
                    return has_box(kKind) ? in_box(computed) : computed;
                }
            }
            return changed<kMasked, kNumber + 1>(kind, lam, mask, own, partner);
        }
    }
};

// ---- Out of place

constexpr int kRowsInFlight = 2;  // of a thread: loads that are under way together

// A thread's place in its column, on its way down the run.
struct Walk {
    const uint8_t* in;
    uint8_t* out;
    uint32_t y;  // rows below the upper edge of the box, modulo height

    CUTMIX_HD void step(const Pixels& pixels) {
        in += pixels.in_step;
        out += pixels.out_step;
        y += pixels.step_y;
        if (y >= pixels.height.divisor) y -= pixels.height.divisor;
    }
};

// A column whose samples are of a kind that the compiler knows.
template <Kind kKind, int kBytes>
struct ColumnOfKind {
    const Pixels& pixels;
    Column<kBytes> box;
    PixelRule<kBytes> rule;
    float lam;
    int64_t to_partner;  // the partner's pixels lie so many bytes behind the own

    // A vector of which all or nothing is inside the box, by one load from its owner, if it has one.
    CUTMIX_HD Vector<kBytes> whole(const uint8_t* own, bool inside) const {
        if constexpr (pastes(kKind)) return load<kBytes>(own + (inside ? to_partner : 0));
        return inside ? rule.template changed<false>(kKind, lam, {}, {}, {}) : load<kBytes>(own);
    }

    // The next kRows vectors. All are under way before the first is looked at; edges are dealt with together, lest the
    // compiler wait for the first of them before it loads the second vector.
    template <int kRows>
    CUTMIX_HD void move_rows(Walk* walk) const {
        Vector<kBytes> moved[kRows];
        Walk at[kRows];
        bool any_edge = false;
        for (int k = 0; k < kRows; ++k) {
            at[k] = *walk;
            moved[k] = whole(walk->in, walk->y < box.rows);
            any_edge = any_edge || walk->y < box.edge_rows;
            walk->step(pixels);
        }
        if (any_edge) {
            for (int k = 0; k < kRows; ++k)
                if (at[k].y < box.edge_rows) moved[k] = select(box.mask, load<kBytes>(at[k].in), moved[k]);
        }
        for (int k = 0; k < kRows; ++k) store<kBytes>(at[k].out, moved[k]);
    }

    // Each vector is read from its owner, on the edge of the box from both, and written once.
    CUTMIX_HD void move(Walk walk, int32_t rows_left) const {
        const int32_t step = static_cast<int32_t>(pixels.rows_at_once);
        for (; rows_left > (kRowsInFlight - 1) * step; rows_left -= kRowsInFlight * step)
            move_rows<kRowsInFlight>(&walk);
        for (; rows_left > 0; rows_left -= step) move_rows<1>(&walk);
    }

    // Each vector is read from both and written once. One row has two loads under way, as many as two rows that are
    // moved.
    CUTMIX_HD void compute(Walk walk, int32_t rows_left) const {
        CUTMIX_NO_UNROLL
        for (; rows_left > 0; rows_left -= static_cast<int32_t>(pixels.rows_at_once)) {
            Vector<kBytes> mixed = load<kBytes>(walk.in), partner = {};
            if (!has_box(kKind) || walk.y < box.rows) {
                if constexpr (has_partner(kKind)) partner = load<kBytes>(walk.in + to_partner);
                mixed = rule.template changed<true>(kKind, lam, box.mask, mixed, partner);
            }
            store<kBytes>(walk.out, mixed);
            walk.step(pixels);
        }
    }

    CUTMIX_HD void mix(const Walk& walk, int32_t rows_left) const {
        if constexpr (reads_own(kKind))
            compute(walk, rows_left);
        else
            move(walk, rows_left);
    }
};

// Calls a function with a kind as a constant. A kept sample, whose box is empty, goes with the first.
template <int32_t kNumber = kKinds, typename Function>
CUTMIX_HD void with_kind(Kind kind, const Function& function) {
    constexpr Kind kKind = static_cast<Kind>(kNumber);
    if constexpr (kNumber > 1) {
        if (kind != kKind) return with_kind<kNumber - 1>(kind, function);
    }
    function(std::integral_constant<Kind, kKind>());
}

template <int kBytes>
CUTMIX_HD void mix_tile(const KernelParams& params, uint32_t block, uint32_t thread) {
    const Pixels& pixels = params.pixels;
    const Tile tile = tile_of(pixels, block);
    const uint32_t row_of_thread = pixels.chunk_vectors.quotient(thread);
    const uint32_t vector = (tile.chunk - row_of_thread) * pixels.chunk_vectors.divisor + thread;
    const uint32_t first_row = tile.part * pixels.rows_in_block, row = first_row + row_of_thread;
    const uint32_t end_row = lower(first_row + pixels.rows_in_block, pixels.rows_in_run);
    if (row_of_thread >= pixels.rows_at_once || vector >= pixels.row_vectors || row >= end_row) return;

    const CheckedRow checked = plan_row<false>(params, plan_source(params), tile.sample);
    const Change change = change_of(checked, pixels);
    const Column<kBytes> box = column_of<kBytes>(change.region, vector);
    const int64_t to_partner = (int64_t{checked.row.partner} - int64_t{tile.sample}) * pixels.in_strides.sample;

    const auto offset = [&](const ByteStrides& strides) {
        return tile.sample * strides.sample + tile.run * strides.slice + row * strides.row + int64_t{vector} * kBytes;
    };
    const uint32_t y = row - pixels.height.quotient(row) * pixels.height.divisor;
    const Walk walk = {pixels.in + offset(pixels.in_strides), pixels.out + offset(pixels.out_strides),
                       y >= box.y0 ? y - box.y0 : y + pixels.height.divisor - box.y0};
    const int32_t rows_left = static_cast<int32_t>(end_row - row);
    with_kind(change.kind, [&](auto kind) {
        ColumnOfKind<decltype(kind)::value, kBytes>{
            pixels, box, {pixels.dtype, fill_of<kBytes>(pixels, vector)}, change.lam, to_partner}
            .mix(walk, rows_left);
    });
}

// ---- In place

// The sample that owns the `index`-th pair of a map that reflects: i and shift - i (mod circle).
//
// Up to the shift partners are shift - i, and the owners, who have the lower index, are 0..shift/2. Beyond it they are
// shift + circle - i, and the owners follow from shift + 1 on. The sample that is paired with the last of an even batch
// is one of them.
CUTMIX_HD uint32_t owner_of_pair(PartnerMap map, uint32_t index) {
    return index <= map.shift / 2 ? index : index + (map.shift + 1) / 2;
}

// In how many rows of a column, from the first that changes on, a change looks at the two samples.
struct Needs {
    uint32_t itself, partner;
};

template <int kBytes>
CUTMIX_HD Needs needs_of(Kind kind, const Column<kBytes>& column) {
    return {reads_own(kind) ? column.rows : column.edge_rows, has_partner(kind) ? column.rows : 0};
}

// A thread owns a position of both samples of a pair. It reads what either needs, then writes, so nothing is read after
// it was overwritten, and nobody else in the launch touches these two vectors. That is also why a vector on the edge of
// a box may be written whole, with its outside bytes as they were.
template <int kBytes>
CUTMIX_HD void exchange_tile(const KernelParams& params, uint32_t block, uint32_t thread) {
    const Pixels& pixels = params.pixels;
    const Tile tile = tile_of(pixels, block);
    const PlanSource source = plan_source(params);
    uint32_t sample = tile.sample;
    PairOfRows rows;
    if (params.plan.given) {
        rows.own = plan_row<false>(params, source, sample);
        if (!rows.own.valid) return;
        rows.other = plan_row<false>(params, source, static_cast<uint32_t>(rows.own.row.partner));
    } else {
        sample = owner_of_pair(source.map, sample);
        rows = sampled_pair(params, source, sample, thread);
    }
    const uint32_t partner = static_cast<uint32_t>(rows.own.row.partner);
    if (sample > partner && rows.other.valid) return;  // the partner owns this pair
    if (sample == partner) rows.other.valid = false;   // it changes once

    // The rows and vectors that hold all that changes, as far as they are in this chunk.
    const Change own = change_of(rows.own, pixels), other = change_of(rows.other, pixels);
    const uint32_t y0 = lower(own.region.y0, other.region.y0), y1 = higher(own.region.y1, other.region.y1);
    const uint32_t begin = lower(own.region.begin, other.region.begin);
    const uint32_t end = higher(own.region.end, other.region.end);
    const uint32_t chunk_begin = tile.chunk * pixels.chunk_vectors.divisor;
    const uint32_t first = higher(begin / kBytes, chunk_begin);
    const uint32_t last = lower((end + kBytes - 1) / kBytes, chunk_begin + pixels.chunk_vectors.divisor);
    if (y0 >= y1 || first >= last) return;

    // Quotients of columns for 0..kThreadsInPlace, as that times columns is less than 2^16.
    const uint32_t columns = last - first, reciprocal = (1u << 16) / columns + 1;
    const uint32_t rows_at_once = (kThreadsInPlace * reciprocal) >> 16, row_of_thread = (thread * reciprocal) >> 16;
    if (row_of_thread >= rows_at_once) return;
    const uint32_t vector = first + thread - row_of_thread * columns;
    const uint32_t height = y1 - y0, all_rows = pixels.slices * height;
    const uint32_t stride = rows_at_once * pixels.blocks_in_chunk.divisor;
    const uint32_t step_slices = stride / height, step_y = stride - step_slices * height;
    const ByteStrides& strides = pixels.out_strides;
    const int64_t step = step_slices * strides.slice + step_y * strides.row;
    const int64_t wrap = computed_once(strides.slice - height * strides.row);
    const int64_t to_partner = (int64_t{partner} - int64_t{sample}) * strides.sample;
    const Column<kBytes> own_box = column_of<kBytes>(own.region, vector);
    const Column<kBytes> other_box = column_of<kBytes>(other.region, vector);

    uint32_t row = tile.part * rows_at_once + row_of_thread;
    const uint32_t slice = row / height;
    const uint32_t first_y = y0 + row - slice * height;
    uint8_t* own_at =
        pixels.out + sample * strides.sample + slice * strides.slice + first_y * strides.row + int64_t{vector} * kBytes;
    // Rows below the upper edge of the own box, modulo 2^32; below that of the other they are `apart` more.
    uint32_t y = first_y - own_box.y0;
    const uint32_t apart = own_box.y0 - other_box.y0;
    const int32_t y_end = static_cast<int32_t>(y1 - own_box.y0);

    const auto next = [&] {
        row += stride;
        y += step_y;
        own_at += step;
        if (static_cast<int32_t>(y) >= y_end) {
            y -= height;
            own_at += wrap;
        }
    };
    // What the next kRows rows need is under way before the first is written.
    const auto exchange_rows = [&](auto rows, const Needs& own_needs, const Needs& other_needs, const auto& changed) {
        constexpr int kRows = decltype(rows)::value;
        Vector<kBytes> from_own[kRows] = {}, from_other[kRows] = {};  // the masks leave out what is not loaded
        uint8_t* at[kRows];
        uint32_t ys[kRows];
        for (int k = 0; k < kRows; ++k) {
            at[k] = own_at;
            ys[k] = y;
            const uint32_t other_y = y + apart;
            if (y < own_needs.itself || other_y < other_needs.partner) from_own[k] = load<kBytes>(own_at);
            if (other_y < other_needs.itself || y < own_needs.partner)
                from_other[k] = load<kBytes>(own_at + to_partner);
            next();
        }
        for (int k = 0; k < kRows; ++k) {
            if (ys[k] < own_box.rows) store<kBytes>(at[k], changed(own, own_box, from_own[k], from_other[k]));
            if (ys[k] + apart < other_box.rows)
                store<kBytes>(at[k] + to_partner, changed(other, other_box, from_other[k], from_own[k]));
        }
    };
    const auto exchange = [&](auto rows, const Needs& own_needs, const Needs& other_needs, const auto& changed) {
        constexpr int kRows = decltype(rows)::value;
        CUTMIX_NO_UNROLL
        while (row + (kRows - 1) * stride < all_rows) exchange_rows(rows, own_needs, other_needs, changed);
        CUTMIX_NO_UNROLL
        while (kRows > 1 && row < all_rows)
            exchange_rows(std::integral_constant<int, 1>(), own_needs, other_needs, changed);
    };
    using Bytes = Vector<kBytes>;
    const auto only_pastes = [](Kind kind) { return kind == Kind::kKeep || pastes(kind); };
    if (only_pastes(own.kind) && only_pastes(other.kind)) {
        exchange(std::integral_constant<int, kRowsInFlight>(), {own_box.edge_rows, own_box.rows},
                 {other_box.edge_rows, other_box.rows},
                 [](const Change&, const Column<kBytes>& box, const Bytes& itself, const Bytes& partner) {
                     return select(box.mask, itself, partner);
                 });
        return;
    }
    // A pair of other kinds takes more registers and instructions, which the call above does without.
    const PixelRule<kBytes> rule = {pixels.dtype, fill_of<kBytes>(pixels, vector)};
    exchange(std::integral_constant<int, 1>(), needs_of(own.kind, own_box), needs_of(other.kind, other_box),
             [&](const Change& change, const Column<kBytes>& box, const Bytes& itself, const Bytes& partner) {
                 return rule.template changed<true>(change.kind, change.lam, box.mask, itself, partner);
             });
}

// ---- Kernels

// The blocks that are not about pixels; true where the block was one of them.
CUTMIX_HD bool targets_or_plan(const KernelParams& params, uint32_t block, uint32_t thread, uint32_t threads) {
    if (block < params.target_blocks) {
        write_targets(params, block * (threads / kWarpThreads) + thread / kWarpThreads, thread % kWarpThreads);
        return true;
    }
    if (block < params.target_blocks + params.plan_blocks) {
        write_plan(params, (block - params.target_blocks) * threads + thread);
        return true;
    }
    return false;
}

// Blocks that the compiler has to leave room for on a multiprocessor of 2048 threads. Out of place 8 blocks leave a
// thread 32 registers, and vectors of 16 bytes get 40, in 6 blocks. At 32 the compiler waits for one vector before it
// loads the next, and 48 warps with two loads under way have more of them than 64 warps with one: on an H100 float32 is
// mixed in 56.8 us instead of 59.4. In place a thread holds vectors and masks of two samples: 10 blocks leave it 48
// registers, which for CutMix is up to 5 % faster there than 8 blocks with 64, and up to 4 % with vectors of 4 bytes,
// which would take 53. Mixup would fill these; it gets no kernels of its own. Compute capability 10.0 spills at 48 with
// vectors of 16 bytes. Other GPUs run at most 1536 threads, for which what the compiler takes by itself is few enough
// out of place (0: no wish), and in place all but once.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ / 100 == 9 || __CUDA_ARCH__ / 100 == 10)
constexpr int blocks_resident(int vector_bytes) { return vector_bytes == 16 ? 6 : 8; }
#else
constexpr int blocks_resident(int) { return 0; }
#endif
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ / 100 == 9)
constexpr int blocks_resident_in_place(int vector_bytes) { return vector_bytes == 16 || vector_bytes == 4 ? 10 : 8; }
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 == 10
constexpr int blocks_resident_in_place(int vector_bytes) { return vector_bytes == 4 ? 10 : 8; }
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 == 12
constexpr int blocks_resident_in_place(int vector_bytes) { return vector_bytes == 2 ? 12 : 8; }
#else
constexpr int blocks_resident_in_place(int) { return 8; }
#endif

__global__ void __launch_bounds__(kThreads, blocks_resident(1))
    mix_no_pixels(const __grid_constant__ KernelParams params) {
    targets_or_plan(params, blockIdx.x, threadIdx.x, blockDim.x);
}

template <int kBytes>
__global__ void __launch_bounds__(kThreads, blocks_resident(kBytes))
    mix_out_of_place(const __grid_constant__ KernelParams params) {
    if (targets_or_plan(params, blockIdx.x, threadIdx.x, blockDim.x)) return;
    mix_tile<kBytes>(params, blockIdx.x - params.target_blocks - params.plan_blocks, threadIdx.x);
}

template <int kBytes>
__global__ void __launch_bounds__(kThreadsInPlace, blocks_resident_in_place(kBytes))
    mix_in_place(const __grid_constant__ KernelParams params) {
    if (targets_or_plan(params, blockIdx.x, threadIdx.x, blockDim.x)) return;
    exchange_tile<kBytes>(params, blockIdx.x - params.target_blocks - params.plan_blocks, threadIdx.x);
}

// ---- Launch

using Kernel = void (*)(KernelParams);

template <int kBytes>
Kernel pixel_kernel(Mode mode) {
    return mode == Mode::kInPlace ? mix_in_place<kBytes> : mix_out_of_place<kBytes>;
}

inline Kernel kernel_of(const Launch& launch) {
    if (launch.mode == Mode::kNoPixels) return mix_no_pixels;
    switch (launch.vector_bytes) {
        case 16:
            return pixel_kernel<16>(launch.mode);
        case 8:
            return pixel_kernel<8>(launch.mode);
        case 4:
            return pixel_kernel<4>(launch.mode);
        case 2:
            return pixel_kernel<2>(launch.mode);
        default:
            return pixel_kernel<1>(launch.mode);
    }
}

inline cudaError_t launch_mix(const MixCall& call, cudaStream_t stream) {
    Launch launch = launch_geometry(call);
    if (launch.grid == 0) return cudaSuccess;  // a given plan for images without pixels, and no targets
    void* arguments[] = {&launch.params};
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel_of(launch)), dim3(launch.grid), dim3(launch.block),
                            arguments, 0, stream);
}

}  // namespace cutmix
