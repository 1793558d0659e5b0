// The CUDA kernels of the adjoint of mixing: who takes from whom, and the sums. No torch, no shared memory, no barrier,
// no atomics.
#pragma once

#include "adjoint_geometry.h"
#include "plan_and_targets.cuh"

namespace cutmix {

// ---- Who takes from whom

// Whom a sample takes from; -1 nobody, as where its row may not be followed.
CUTMIX_HD int32_t partner_taken_from(const AdjointParams& params, uint32_t sample) {
    if (sample >= static_cast<uint32_t>(params.batch)) return -1;
    const PlanRow row = params.plan[sample];
    return has_partner(followed_kind(row, params.batch, params.height, params.width)) ? row.partner : -1;
}

// The list of a sample as it grows. Whoever owns it writes it, links of its takers included: each has one partner.
struct GrowingList {
    Link* links;
    int32_t first, last;

    CUTMIX_HD void append(int32_t taker) {
        if (last < 0)
            first = taker;
        else
            links[last].next = taker;
        last = taker;
    }

    CUTMIX_HD void write(uint32_t sample) const {
        links[sample].first = first;
        if (last >= 0) links[last].next = -1;
    }
};

// A warp finds the takers of as many samples as it has lanes: each lane looks at a row of the plan, and of the few rows
// that take from the warp's samples all lanes learn.
CUTMIX_HD void link_takers_of(const AdjointParams& params, uint32_t block, uint32_t lane) {
    const uint32_t first = block * kWarpThreads, sample = first + lane, batch = static_cast<uint32_t>(params.batch);
    GrowingList list = {params.links, -1, -1};
#if defined(__CUDA_ARCH__)
    constexpr uint32_t kInFlight = 4;  // rows of a lane that are loaded together
    for (uint32_t base = 0; base < batch; base += kInFlight * kWarpThreads) {
        int32_t partner[kInFlight];
        for (uint32_t k = 0; k < kInFlight; ++k)
            partner[k] = partner_taken_from(params, base + k * kWarpThreads + lane);
        for (uint32_t k = 0; k < kInFlight; ++k) {
            uint32_t takers = __ballot_sync(~0u, static_cast<uint32_t>(partner[k]) - first < kWarpThreads);
            while (takers != 0) {
                const int bit = __ffs(takers) - 1;
                takers &= takers - 1;
                const uint32_t owner = static_cast<uint32_t>(__shfl_sync(~0u, partner[k], bit));
                if (owner == sample) list.append(static_cast<int32_t>(base + k * kWarpThreads) + bit);
            }
        }
    }
#else
    for (uint32_t row = 0; row < batch; ++row)
        if (partner_taken_from(params, row) == static_cast<int32_t>(sample)) list.append(static_cast<int32_t>(row));
#endif
    if (sample < batch) list.write(sample);
}

// ---- The sums

// Where a mixed sample changed: rows [y0, y0 + height) of every slice, elements [begin, end) of every row.
struct ElementRegion {
    uint32_t y0, height, begin, end;
};

// What a mixed sample gives to someone: its gradients in a region, or outside of it, times a weight.
template <typename Element>
struct PartOfSum {
    using Value = decltype(Element::value(typename Element::Bits{}));

    const uint8_t* gradients;
    ElementRegion region;
    bool outside;
    Value weight;
};

CUTMIX_HD ElementRegion element_region(const AdjointParams& params, const PlanRow& row, Kind kind) {
    const uint32_t pixel = params.pixel_elements;
    if (kind == Kind::kKeep) return {0, 0, 0, 0};
    if (!has_box(kind)) return {0, params.rows.divisor, 0, params.row_elements.divisor};
    return {static_cast<uint32_t>(row.box.y0), static_cast<uint32_t>(row.box.y1 - row.box.y0),
            static_cast<uint32_t>(row.box.x0) * pixel, static_cast<uint32_t>(row.box.x1) * pixel};
}

// What a sample gives to itself: what did not change, or all of it, blended.
template <typename Element>
CUTMIX_HD PartOfSum<Element> own_part(const AdjointParams& params, uint32_t sample) {
    using Value = typename PartOfSum<Element>::Value;
    const PlanRow row = params.plan[sample];
    const Kind kind = followed_kind(row, params.batch, params.height, params.width);
    return {params.in + sample * params.in_stride, element_region(params, row, kind), !blends(kind),
            blends(kind) ? own_weight<Value>(row.lam) : Value{1}};
}

// What a taker gives back.
template <typename Element>
CUTMIX_HD PartOfSum<Element> taker_part(const AdjointParams& params, int32_t taker) {
    using Value = typename PartOfSum<Element>::Value;
    if (taker < 0) return {params.in, {0, 0, 0, 0}, false, Value{1}};
    const PlanRow row = params.plan[taker];
    const Kind kind = static_cast<Kind>(row.kind);  // it is linked, so its row may be followed
    return {params.in + taker * params.in_stride, element_region(params, row, kind), false,
            blends(kind) ? partner_weight<Value>(row.lam) : Value{1}};
}

// The place of a vector: its first element's in the row, and the row's in the slice.
struct Place {
    uint32_t x, y;
};

CUTMIX_HD Place place_of(const AdjointParams& params, uint32_t element) {
    const uint32_t row = params.row_elements.quotient(element);
    return {element - row * params.row_elements.divisor, row - params.rows.quotient(row) * params.rows.divisor};
}

// A bit for each element of a vector that is in a region. The vector may end in rows below that of its place.
template <int kElements>
CUTMIX_HD uint32_t bits_inside(const AdjointParams& params, const ElementRegion& region, const Place& place) {
    uint32_t bits = 0, y = place.y;
    if (region.height == 0) return 0;
    int32_t to_begin = static_cast<int32_t>(region.begin) - static_cast<int32_t>(place.x);
    int32_t to_end = static_cast<int32_t>(region.end) - static_cast<int32_t>(place.x);
    CUTMIX_NO_UNROLL
    for (uint32_t row = 0;;) {
        const int32_t begin = min_of(max_of(to_begin, 0), kElements), end = min_of(max_of(to_end, 0), kElements);
        if (y - region.y0 < region.height) bits |= (1u << end) - (1u << begin);
        if (++row == params.rows_across) return bits;
        y = y + 1 < params.rows.divisor ? y + 1 : 0;
        to_begin += static_cast<int32_t>(params.row_elements.divisor);
        to_end += static_cast<int32_t>(params.row_elements.divisor);
    }
}

template <typename Element, int kBytes>
struct Sum {
    using Bits = typename Element::Bits;
    using Value = typename PartOfSum<Element>::Value;
    using Part = PartOfSum<Element>;
    static constexpr int kElements = kBytes / static_cast<int>(sizeof(Bits));
    static constexpr uint32_t kAll = (1u << kElements) - 1;

    const AdjointParams& params;
    Part own, taker;
    int32_t next_taker;

    CUTMIX_HD static uint32_t bits_of_part(const AdjointParams& params, const Part& part, Place place) {
        const uint32_t inside = bits_inside<kElements>(params, part.region, place);
        return part.outside ? kAll & ~inside : inside;
    }

    // Adds a part where it is there. The first part of an element is added to -0, which leaves it as it is.
    CUTMIX_HD static void add(Value (&sums)[kElements], const Vector<kBytes>& vector, const Part& part, uint32_t bits) {
        Bits elements[kElements];
        memcpy(elements, &vector, kBytes);
        CUTMIX_UNROLL
        for (int k = 0; k < kElements; ++k) {
            const Value value = mul_rn(part.weight, Element::value(elements[k]));
            sums[k] = add_rn(sums[k], bits >> k & 1 ? value : Value{-0.0f});
        }
    }

    // A vector on its way: what of it is whose, and what is loaded of it. Nothing is read where nothing is given.
    struct Pending {
        uint32_t number, own_bits, taker_bits;
        Vector<kBytes> from_own, from_taker;
    };

    CUTMIX_HD Pending begin(uint32_t number, uint32_t end) const {
        Pending pending = {number, 0, 0, {}, {}};
        if (number >= end) return pending;
        const Place place = place_of(params, number * kElements);
        const int64_t offset = int64_t{number} * kBytes;
        pending.own_bits = bits_of_part(params, own, place);
        pending.taker_bits = bits_of_part(params, taker, place);
        if (pending.own_bits != 0) pending.from_own = load<kBytes>(own.gradients + offset);
        if (pending.taker_bits != 0) pending.from_taker = load<kBytes>(taker.gradients + offset);
        return pending;
    }

    CUTMIX_HD Vector<kBytes> summed(const Pending& pending) const {
        uint32_t there = pending.own_bits | pending.taker_bits;
        Value sums[kElements];
        CUTMIX_UNROLL
        for (int k = 0; k < kElements; ++k) sums[k] = Value{-0.0f};
        add(sums, pending.from_own, own, pending.own_bits);
        add(sums, pending.from_taker, taker, pending.taker_bits);
        CUTMIX_NO_UNROLL
        for (int32_t number = next_taker; number >= 0; number = params.links[number].next) {
            const Part part = taker_part<Element>(params, number);
            const uint32_t bits = bits_of_part(params, part, place_of(params, pending.number * kElements));
            there |= bits;
            if (bits != 0) add(sums, load<kBytes>(part.gradients + int64_t{pending.number} * kBytes), part, bits);
        }
        Bits elements[kElements];
        CUTMIX_UNROLL
        for (int k = 0; k < kElements; ++k) elements[k] = there >> k & 1 ? Element::of(sums[k]) : Bits{};
        return vector_of<kBytes>(elements);
    }

    CUTMIX_HD Vector<kBytes> both(const Pending& pending) const {
        Bits a[kElements], b[kElements];
        memcpy(a, &pending.from_own, kBytes);
        memcpy(b, &pending.from_taker, kBytes);
        CUTMIX_UNROLL
        for (int k = 0; k < kElements; ++k)
            a[k] = Element::of(
                add_rn(mul_rn(own.weight, Element::value(a[k])), mul_rn(taker.weight, Element::value(b[k]))));
        return vector_of<kBytes>(a);
    }

    // What is only moved is not computed with.
    CUTMIX_HD Vector<kBytes> finished(const Pending& pending) const {
        if (next_taker < 0) {
            if (pending.taker_bits == 0 && pending.own_bits == kAll && own.weight == Value{1}) return pending.from_own;
            if (pending.own_bits == 0 && pending.taker_bits == kAll && taker.weight == Value{1})
                return pending.from_taker;
            if ((pending.own_bits & pending.taker_bits) == kAll) return both(pending);
        }
        return summed(pending);
    }
};

constexpr int kVectorsInFlight = 2;  // of a thread: loads that are under way together

template <typename Element, int kBytes>
CUTMIX_HD void sum_tile(const AdjointParams& params, uint32_t block, uint32_t thread, uint32_t threads) {
    using Work = Sum<Element, kBytes>;
    const uint32_t sample = params.blocks_in_sample.quotient(block);
    const uint32_t part = block - sample * params.blocks_in_sample.divisor;
    const int32_t first = params.links[sample].first;
    const Work work = {params, own_part<Element>(params, sample), taker_part<Element>(params, first),
                       first < 0 ? -1 : params.links[first].next};
    uint8_t* out = params.out + sample * params.out_stride;
    const uint32_t begin = part * params.vectors_in_block;
    const uint32_t end = lower(begin + params.vectors_in_block, params.sample_vectors);
    CUTMIX_NO_UNROLL
    for (uint32_t number = begin + thread; number < end; number += kVectorsInFlight * threads) {
        typename Work::Pending pending[kVectorsInFlight];
        CUTMIX_UNROLL
        for (int k = 0; k < kVectorsInFlight; ++k) pending[k] = work.begin(number + k * threads, end);
        CUTMIX_UNROLL
        for (int k = 0; k < kVectorsInFlight; ++k)
            if (pending[k].number < end)
                store<kBytes>(out + int64_t{pending[k].number} * kBytes, work.finished(pending[k]));
    }
}

// ---- Kernels

// Of themselves compilers stop at 48 registers, short of a few that the rows of two samples take. 32 warps with two
// loads of 16 bytes each are three times what launch_geometry.h asks for.
constexpr int kAdjointBlocksResident = 4;

__global__ void __launch_bounds__(kWarpThreads) link_takers(const __grid_constant__ AdjointParams params) {
    link_takers_of(params, blockIdx.x, threadIdx.x);
}

template <typename Element, int kBytes>
__global__ void __launch_bounds__(kAdjointThreads, kAdjointBlocksResident)
    sum_takers(const __grid_constant__ AdjointParams params) {
    sum_tile<Element, kBytes>(params, blockIdx.x, threadIdx.x, blockDim.x);
}

// ---- Launch

using AdjointKernel = void (*)(AdjointParams);

template <typename Element>
AdjointKernel sum_kernel(const AdjointLaunch& launch) {
    return launch.vector_bytes == 16 ? sum_takers<Element, 16>
                                     : sum_takers<Element, static_cast<int>(sizeof(typename Element::Bits))>;
}

inline AdjointKernel kernel_of(const AdjointLaunch& launch) {
    switch (launch.dtype) {
        case Dtype::kF16:
            return sum_kernel<ElementF16>(launch);
        case Dtype::kBF16:
            return sum_kernel<ElementBF16>(launch);
        case Dtype::kF32:
            return sum_kernel<ElementF32>(launch);
        default:
            return sum_kernel<ElementF64>(launch);
    }
}

// Two launches, because a sum has to know all of its takers, and any row of the plan may be one.
inline cudaError_t launch_adjoint(const AdjointCall& call, cudaStream_t stream) {
    AdjointLaunch launch = adjoint_geometry(call);
    void* arguments[] = {&launch.params};
    const AdjointKernel link = link_takers;
    const cudaError_t error = cudaLaunchKernel(reinterpret_cast<const void*>(link), dim3(launch.link_grid),
                                               dim3(kWarpThreads), arguments, 0, stream);
    if (error != cudaSuccess) return error;
    return cudaLaunchKernel(reinterpret_cast<const void*>(kernel_of(launch)), dim3(launch.grid), dim3(launch.block),
                            arguments, 0, stream);
}

}  // namespace cutmix
