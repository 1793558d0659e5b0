// What the kernels of mixing and of the batch tail have in common: vectors of bytes, and how plan and targets are drawn
// and written. No torch, no shared memory, no barrier.
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

#include "launch_geometry.h"

namespace cutmix {

#if defined(__CUDA_ARCH__)
#define CUTMIX_NO_UNROLL _Pragma("unroll 1")
#else
#define CUTMIX_NO_UNROLL
#endif

// Kept in a register: of itself the compiler would rather repeat a product at every step of a loop.
CUTMIX_HD int64_t computed_once(int64_t value) {
#if defined(__CUDA_ARCH__)
    asm("" : "+l"(value));
#endif
    return value;
}

// ---- Vectors of bytes

template <int kBytes>
struct WordOf {
    using type = uint32_t;
};
template <>
struct WordOf<2> {
    using type = uint16_t;
};
template <>
struct WordOf<1> {
    using type = uint8_t;
};

// Moved as one load and one store.
template <int kBytes>
struct alignas(kBytes) Vector {
    using Word = typename WordOf<kBytes>::type;
    static constexpr int kWords = kBytes / static_cast<int>(sizeof(Word));

    Word word[kWords];
};

template <int kBytes>
CUTMIX_HD Vector<kBytes> load(const uint8_t* from) {
    return *reinterpret_cast<const Vector<kBytes>*>(from);
}

template <int kBytes>
CUTMIX_HD void store(uint8_t* to, const Vector<kBytes>& vector) {
    *reinterpret_cast<Vector<kBytes>*>(to) = vector;
}

template <int kBytes>
CUTMIX_HD Vector<kBytes> vector_of(const void* bytes) {
    Vector<kBytes> vector;
    memcpy(&vector, bytes, kBytes);
    return vector;
}

// All bits of a word from bit `first` on; none from 32 on.
CUTMIX_HD uint32_t bits_from(uint32_t first) {
#if defined(__CUDA_ARCH__)
    return __funnelshift_lc(0, ~0u, first);
#else
    return first < 32 ? ~0u << first : 0;
#endif
}

// The bits of bytes [begin, end) of a vector, 0 <= begin <= end <= kBytes.
template <int kBytes>
CUTMIX_HD Vector<kBytes> byte_mask(int32_t begin, int32_t end) {
    Vector<kBytes> mask;
    for (int k = 0; k < mask.kWords; ++k) {
        const int32_t first = k == 0 ? 8 * begin : max_of(8 * begin - 32 * k, 0);
        const int32_t behind = k == 0 ? 8 * end : max_of(8 * end - 32 * k, 0);
        mask.word[k] = static_cast<typename Vector<kBytes>::Word>(bits_from(static_cast<uint32_t>(first)) -
                                                                  bits_from(static_cast<uint32_t>(behind)));
    }
    return mask;
}

// Where the mask is set b, elsewhere a: what one machine instruction does, though PTX compiled from C++ has three.
CUTMIX_HD uint32_t select_bits(uint32_t mask, uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
    uint32_t result;
    asm("lop3.b32 %0, %1, %2, %3, 0xAC;" : "=r"(result) : "r"(mask), "r"(a), "r"(b));
    return result;
#else
    return (a & ~mask) | (b & mask);
#endif
}

template <int kBytes>
CUTMIX_HD Vector<kBytes> select(const Vector<kBytes>& mask, const Vector<kBytes>& a, const Vector<kBytes>& b) {
    Vector<kBytes> result;
    for (int k = 0; k < result.kWords; ++k)
        result.word[k] = static_cast<typename Vector<kBytes>::Word>(select_bits(mask.word[k], a.word[k], b.word[k]));
    return result;
}

// ---- The plan

struct CheckedRow {
    PlanRow row;
    bool valid;  // may be followed

    CUTMIX_HD Kind kind() const { return valid ? static_cast<Kind>(row.kind) : Kind::kKeep; }
};

// Everything about the plan that all samples share.
struct PlanSource {
    uint64_t seed;
    PartnerMap map;
};

CUTMIX_HD PlanSource plan_source(const KernelParams& params) {
    const Plan& plan = params.plan;
    if (plan.given || !plan.device_seed) return {plan.seed, params.partner_map};
    const uint64_t seed = static_cast<uint64_t>(*plan.device_seed);
    return {seed, partner_map(plan.draw.sampling.partner, seed, static_cast<uint32_t>(plan.batch))};
}

// Pixels ask for a row without CutMix's own lambda: correcting it is a division, for nothing.
template <bool kWithLambda>
CUTMIX_HD PlanRow sampled_row(const KernelParams& params, const PlanSource& source, uint32_t sample, uint32_t partner) {
    Draw draw = params.plan.draw;
    if (!kWithLambda) draw.sampling.correct_lam = false;
    return sample_row(draw, source.seed, sample, partner);
}

template <bool kWithLambda>
CUTMIX_HD CheckedRow plan_row(const KernelParams& params, const PlanSource& source, uint32_t sample) {
    const Plan& plan = params.plan;
    if (!plan.given) {
        const uint32_t partner = partner_of(source.map, sample, static_cast<uint32_t>(plan.batch));
        return {sampled_row<kWithLambda>(params, source, sample, partner), true};
    }
    const PlanRow row = plan.given[sample];
    const bool valid = valid_row(row, plan.batch, plan.height, plan.width, plan.can_blend) &&
                       (!params.in_place || plan.given[row.partner].partner == static_cast<int32_t>(sample));
    return {row, valid};
}

struct PairOfRows {
    CheckedRow own, other;
};

#if defined(__CUDA_ARCH__)
// A row as a lane of the warp has it, with a partner that all lanes know.
__device__ __forceinline__ CheckedRow row_of_lane(const PlanRow& row, uint32_t partner, int lane) {
    const auto of_lane = [&](auto value) { return __shfl_sync(~0u, value, lane); };
    const Box box = {of_lane(row.box.y0), of_lane(row.box.x0), of_lane(row.box.y1), of_lane(row.box.x1)};
    return {{static_cast<int32_t>(partner), box, of_lane(row.lam), of_lane(row.kind), 0}, true};
}
#endif

// Sampled rows of a sample and its partner, for which all threads of a warp ask together: even lanes sample one and odd
// lanes the other, for sampling costs as much as moving a dozen vectors.
CUTMIX_HD PairOfRows sampled_pair(const KernelParams& params, const PlanSource& source, uint32_t sample,
                                  uint32_t thread) {
    const uint32_t partner = partner_of(source.map, sample, static_cast<uint32_t>(params.plan.batch));
#if defined(__CUDA_ARCH__)
    const bool even = thread % 2 == 0;
    const PlanRow row = sampled_row<false>(params, source, even ? sample : partner, even ? partner : sample);
    return {row_of_lane(row, partner, 0), row_of_lane(row, sample, 1)};
#else
    (void)thread;
    return {{sampled_row<false>(params, source, sample, partner), true},
            {sampled_row<false>(params, source, partner, sample), true}};
#endif
}

// Two threads write a row, so that neighbours write neighbouring vectors.
CUTMIX_HD void write_plan(const KernelParams& params, uint32_t index) {
    const uint32_t sample = index / 2, half = index % 2;
    if (sample >= static_cast<uint32_t>(params.plan.batch)) return;
    const PlanRow row = plan_row<true>(params, plan_source(params), sample).row;
    Vector<16> halves[2];
    memcpy(halves, &row, sizeof row);
    store<16>(reinterpret_cast<uint8_t*>(params.plan.sampled) + sizeof row * sample + 16 * half,
              half == 0 ? halves[0] : halves[1]);
}

CUTMIX_HD uint32_t lower(uint32_t a, uint32_t b) { return a < b ? a : b; }
CUTMIX_HD uint32_t higher(uint32_t a, uint32_t b) { return a > b ? a : b; }

// ---- Targets

constexpr int32_t kNoColumn = -2;  // no class, and not the -1 of an unknown one

// Columns are unsigned, because of 2^31 - 1 classes the step behind the last one leads further.
template <typename Value>
CUTMIX_HD void write_columns(const Targets& targets, const TargetRow& row, uint32_t begin, uint32_t end) {
    CUTMIX_NO_UNROLL
    for (uint32_t column = begin; column < end; column += kWarpThreads)
        store_value(targets.out, targets.out_dtype, int64_t{row.sample} * targets.num_classes + column,
                    class_value<Value>(targets, row, static_cast<int32_t>(column)));
}

// A lane's columns, of soft labels of a type. All loads are under way before the first is looked at.
template <typename Element, typename Value>
CUTMIX_HD void mix_soft_columns(const Targets& targets, const TargetRow& row, uint32_t column, uint32_t end,
                                Value (&mixed)[kSoftColumnsPerLane]) {
    using Bits = typename Element::Bits;
    const Bits* labels = static_cast<const Bits*>(targets.labels);
    const Bits* own_label = labels + int64_t{row.sample} * targets.num_classes;
    const Bits* partner_label = row.keep ? own_label : labels + int64_t{row.partner} * targets.num_classes;
    Bits own[kSoftColumnsPerLane] = {}, partner[kSoftColumnsPerLane] = {};
    for (uint32_t k = 0; k < kSoftColumnsPerLane; ++k) {
        const uint32_t at = column + k * kWarpThreads;
        if (at < end) {
            own[k] = own_label[at];
            partner[k] = partner_label[at];
        }
    }
    for (uint32_t k = 0; k < kSoftColumnsPerLane; ++k)
        mixed[k] = soft_value(targets, row, static_cast<Value>(Element::value(own[k])),
                              static_cast<Value>(Element::value(partner[k])));
}

template <typename Value>
CUTMIX_HD void write_soft_columns(const Targets& targets, const TargetRow& row, uint32_t column, uint32_t end) {
    Value mixed[kSoftColumnsPerLane];
    if (!row.valid) {
        for (Value& value : mixed) value = nan_value<Value>();
    } else {
        switch (targets.labels_dtype) {
            case Dtype::kF16:
                mix_soft_columns<ElementF16>(targets, row, column, end, mixed);
                break;
            case Dtype::kBF16:
                mix_soft_columns<ElementBF16>(targets, row, column, end, mixed);
                break;
            case Dtype::kF32:
                mix_soft_columns<ElementF32>(targets, row, column, end, mixed);
                break;
            default:
                mix_soft_columns<ElementF64>(targets, row, column, end, mixed);
                break;
        }
    }
    for (uint32_t k = 0; k < kSoftColumnsPerLane; ++k) {
        const uint32_t at = column + k * kWarpThreads;
        if (at < end)
            store_value(targets.out, targets.out_dtype, int64_t{row.sample} * targets.num_classes + at, mixed[k]);
    }
}

// A warp's part of a sample's row. Loops are not unrolled, and doubles have one of their own: nothing here may take
// registers from the pixels.
CUTMIX_HD void write_target_part(const KernelParams& params, const CheckedRow& checked, uint32_t sample, uint32_t warp,
                                 uint32_t lane) {
    const Targets& targets = params.targets;
    const uint32_t part = warp - sample * params.warps_in_target.divisor;
    const TargetRow row = target_row(targets, checked.row, checked.valid, static_cast<int32_t>(sample));

    const bool soft = is_float(targets.labels_dtype);
    const uint32_t columns = soft ? kSoftColumnsPerWarp : kColumnsPerWarp;
    const uint32_t first = part * columns, end = lower(first + columns, static_cast<uint32_t>(targets.num_classes));
    if (soft && targets.out_dtype == Dtype::kF64) {
        write_soft_columns<double>(targets, row, first + lane, end);
    } else if (soft) {
        write_soft_columns<float>(targets, row, first + lane, end);
    } else if (params.vector_targets) {
        // Of class indices: three values make up the row.
        const uint32_t at_own = bits_of(class_value<float>(targets, row, row.own_class));
        const uint32_t at_partner = bits_of(class_value<float>(targets, row, row.partner_class));
        const uint32_t elsewhere = bits_of(class_value<float>(targets, row, kNoColumn));
        uint8_t* out = static_cast<uint8_t*>(targets.out) + int64_t{row.sample} * targets.num_classes * sizeof(float);
        const uint32_t own_class = static_cast<uint32_t>(row.own_class);
        const uint32_t partner_class = static_cast<uint32_t>(row.partner_class);
        CUTMIX_NO_UNROLL
        for (uint32_t column = first + 4 * lane; column < end; column += 4 * kWarpThreads) {
            Vector<16> values;
            for (uint32_t k = 0; k < 4; ++k)
                values.word[k] = column + k == own_class       ? at_own
                                 : column + k == partner_class ? at_partner
                                                               : elsewhere;
            store<16>(out + int64_t{column} * sizeof(float), values);
        }
    } else if (targets.out_dtype == Dtype::kF64) {
        write_columns<double>(targets, row, first + lane, end);
    } else {
        write_columns<float>(targets, row, first + lane, end);
    }
}

CUTMIX_HD void write_targets(const KernelParams& params, uint32_t warp, uint32_t lane) {
    if (warp >= params.target_warps) return;
    const uint32_t sample = params.warps_in_target.quotient(warp);
    write_target_part(params, plan_row<true>(params, plan_source(params), sample), sample, warp, lane);
}

}  // namespace cutmix
