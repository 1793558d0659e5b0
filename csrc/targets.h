// Targets: one (batch, classes) row a sample, from class indices or from soft labels of any float type.
#pragma once

#include "values.h"

namespace cutmix {

struct Targets {
    const void* labels;  // integer: (batch,); float: (batch, num_classes); contiguous
    void* out;           // (batch, num_classes), contiguous; null where there are no labels
    Dtype labels_dtype, out_dtype;
    int32_t num_classes;
    Smoothing smoothing;
};

// ---- One row

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

// What a row needs to know before its first class: computed once, read by every column.
struct TargetRow {
    int32_t sample, partner;
    int32_t own_class, partner_class;  // for class indices
    float lam;
    bool keep;   // the sample's own target alone
    bool valid;  // otherwise the row is NaN
};

CUTMIX_HD TargetRow target_row(const Targets& targets, const PlanRow& row, bool valid, int32_t sample) {
    TargetRow target = {sample, row.partner, -1, -1, row.lam, !mixes_target(static_cast<Kind>(row.kind)), valid};
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

// Of class indices.
template <typename Value>
CUTMIX_HD Value class_value(const Targets& targets, const TargetRow& row, int32_t column) {
    if (!row.valid) return nan_value<Value>();
    const Value on = static_cast<Value>(targets.smoothing.on), off = static_cast<Value>(targets.smoothing.off);
    const Value own = column == row.own_class ? on : off;
    return row.keep ? own : mixed_value(row.lam, own, column == row.partner_class ? on : off);
}

// Of two soft labels.
template <typename Value>
CUTMIX_HD Value soft_value(const Targets& targets, const TargetRow& row, Value own, Value partner) {
    const Value scale = static_cast<Value>(targets.smoothing.scale), off = static_cast<Value>(targets.smoothing.off);
    own = add_rn(mul_rn(own, scale), off);
    return row.keep ? own : mixed_value(row.lam, own, add_rn(mul_rn(partner, scale), off));
}

template <typename Value>
CUTMIX_HD Value target_value(const Targets& targets, const TargetRow& row, int32_t column) {
    if (!is_float(targets.labels_dtype)) return class_value<Value>(targets, row, column);
    if (!row.valid) return nan_value<Value>();
    const auto label = [&](int32_t sample) {
        return load_value<Value>(targets.labels, targets.labels_dtype, int64_t{sample} * targets.num_classes + column);
    };
    const Value own = label(row.sample);
    return soft_value(targets, row, own, row.keep ? own : label(row.partner));
}

CUTMIX_HD void write_target(const Targets& targets, const TargetRow& row, int32_t column) {
    const int64_t index = int64_t{row.sample} * targets.num_classes + column;
    if (targets.out_dtype == Dtype::kF64)
        store_value(targets.out, targets.out_dtype, index, target_value<double>(targets, row, column));
    else
        store_value(targets.out, targets.out_dtype, index, target_value<float>(targets, row, column));
}

}  // namespace cutmix
