// Targets: one (batch, classes) row a sample, from class indices or from soft labels of any float type.
//
// Types are values here, not template parameters: targets are a hundredth of the bytes of the images, and a switch on a
// launch-wide constant costs less than sixteen copies of every kernel.
#pragma once

#include "mix_math.h"

namespace cutmix {

enum class Dtype : int32_t { kU8, kI8, kU16, kI16, kU32, kI32, kU64, kI64, kF16, kBF16, kF32, kF64 };

CUTMIX_HD bool is_float(Dtype dtype) { return dtype >= Dtype::kF16; }

struct Targets {
    const void* labels;  // integer: (batch,); float: (batch, num_classes); contiguous
    void* out;           // (batch, num_classes), contiguous; null where there are no labels
    Dtype labels_dtype, out_dtype;
    int32_t num_classes;
    Smoothing smoothing;
};

// ---- Half precision as bits, rounded to nearest even

CUTMIX_HD uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

CUTMIX_HD float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

CUTMIX_HD float bfloat16_to_float(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }

CUTMIX_HD uint16_t float_to_bfloat16(float value) {
    const uint32_t bits = bits_of(value);
    if (value != value) return 0x7FC0;
    return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

CUTMIX_HD float half_to_float(uint16_t bits) {
    const uint32_t sign = (bits & 0x8000u) << 16, magnitude = bits & 0x7FFFu;
    if (magnitude >= 0x7C00u) return float_of(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13);  // infinity, NaN
    // Shifted into place the exponent is 112 too small; one exact product mends it, subnormals included.
    return float_of(sign | bits_of(mul_rn(float_of(magnitude << 13), 0x1p112f)));
}

CUTMIX_HD uint16_t float_to_half(float value) {
    const uint32_t bits = bits_of(value), magnitude = bits & 0x7FFFFFFFu;
    const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
    if (magnitude > 0x7F800000u) return 0x7E00;
    if (magnitude >= 0x477FF000u) return sign | 0x7C00;  // rounds to infinity
    if (magnitude < 0x38800000u) {                       // subnormal: adding 1/2 rounds the bits below 2^-24
        const uint32_t sum = bits_of(add_rn(float_of(magnitude), 0.5f));
        return static_cast<uint16_t>(sign | (sum - 0x3F000000u));
    }
    return static_cast<uint16_t>(sign | ((magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
}

// ---- Loads and stores by type

template <typename Value>
CUTMIX_HD Value load_value(const void* data, Dtype dtype, int64_t index) {
    switch (dtype) {
        case Dtype::kF16:
            return static_cast<Value>(half_to_float(static_cast<const uint16_t*>(data)[index]));
        case Dtype::kBF16:
            return static_cast<Value>(bfloat16_to_float(static_cast<const uint16_t*>(data)[index]));
        case Dtype::kF32:
            return static_cast<Value>(static_cast<const float*>(data)[index]);
        default:
            return static_cast<Value>(static_cast<const double*>(data)[index]);
    }
}

template <typename Value>
CUTMIX_HD void store_value(void* data, Dtype dtype, int64_t index, Value value) {
    switch (dtype) {
        case Dtype::kF16:
            static_cast<uint16_t*>(data)[index] = float_to_half(static_cast<float>(value));
            break;
        case Dtype::kBF16:
            static_cast<uint16_t*>(data)[index] = float_to_bfloat16(static_cast<float>(value));
            break;
        case Dtype::kF32:
            static_cast<float*>(data)[index] = static_cast<float>(value);
            break;
        default:
            static_cast<double*>(data)[index] = static_cast<double>(value);
            break;
    }
}

// The class index of a sample; -1 where it is outside 0..num_classes-1.
CUTMIX_HD int32_t load_class(const Targets& targets, int64_t sample) {
    int64_t label = -1;
    switch (targets.labels_dtype) {
        case Dtype::kU8:
            label = static_cast<const uint8_t*>(targets.labels)[sample];
            break;
        case Dtype::kI8:
            label = static_cast<const int8_t*>(targets.labels)[sample];
            break;
        case Dtype::kU16:
            label = static_cast<const uint16_t*>(targets.labels)[sample];
            break;
        case Dtype::kI16:
            label = static_cast<const int16_t*>(targets.labels)[sample];
            break;
        case Dtype::kU32:
            label = static_cast<const uint32_t*>(targets.labels)[sample];
            break;
        case Dtype::kI32:
            label = static_cast<const int32_t*>(targets.labels)[sample];
            break;
        default:  // 64 bits; an unsigned value past 2^63 reads as negative, and is as far outside
            label = static_cast<const int64_t*>(targets.labels)[sample];
            break;
    }
    return label >= 0 && label < targets.num_classes ? static_cast<int32_t>(label) : -1;
}

// ---- One row

// What a row needs to know before its first class: computed once, read by every column.
struct TargetRow {
    int32_t sample, partner;
    int32_t own_class, partner_class;  // for class indices
    float lam;
    bool keep;   // the sample's own target alone
    bool valid;  // otherwise the row is NaN
};

CUTMIX_HD TargetRow target_row(const Targets& targets, const PlanRow& row, bool valid, int32_t sample) {
    TargetRow target = {sample, row.partner, -1, -1, row.lam, row.kind == static_cast<int32_t>(Kind::kKeep), valid};
    if (valid && !is_float(targets.labels_dtype)) {
        target.own_class = load_class(targets, sample);
        target.partner_class = target.keep ? target.own_class : load_class(targets, row.partner);
        target.valid = target.own_class >= 0 && target.partner_class >= 0;
    }
    return target;
}

template <typename Value>
CUTMIX_HD Value nan_value() {
    return static_cast<Value>(float_of(0x7FC00000u));
}

template <typename Value>
CUTMIX_HD Value target_value(const Targets& targets, const TargetRow& row, int32_t column) {
    if (!row.valid) return nan_value<Value>();
    Value own, partner;
    if (is_float(targets.labels_dtype)) {
        const Value scale = static_cast<Value>(targets.smoothing.scale),
                    off = static_cast<Value>(targets.smoothing.off);
        const int64_t classes = targets.num_classes;
        own = load_value<Value>(targets.labels, targets.labels_dtype, row.sample * classes + column);
        own = add_rn(mul_rn(own, scale), off);
        if (row.keep) return own;
        partner = load_value<Value>(targets.labels, targets.labels_dtype, row.partner * classes + column);
        partner = add_rn(mul_rn(partner, scale), off);
    } else {
        const Value on = static_cast<Value>(targets.smoothing.on), off = static_cast<Value>(targets.smoothing.off);
        own = column == row.own_class ? on : off;
        if (row.keep) return own;
        partner = column == row.partner_class ? on : off;
    }
    return mixed_target(row.lam, own, partner);
}

CUTMIX_HD void write_target(const Targets& targets, const TargetRow& row, int32_t column) {
    const int64_t index = int64_t{row.sample} * targets.num_classes + column;
    if (targets.out_dtype == Dtype::kF64)
        store_value(targets.out, targets.out_dtype, index, target_value<double>(targets, row, column));
    else
        store_value(targets.out, targets.out_dtype, index, target_value<float>(targets, row, column));
}

}  // namespace cutmix
