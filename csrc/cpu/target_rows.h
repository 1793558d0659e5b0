// Rows of targets on the CPU, each written in one go, with the types of labels and targets known to its loop.
#pragma once

#include <algorithm>

#include "targets.h"

namespace cutmix {

// Calls work with an element of a float type; see values.h.
template <typename Work>
void with_float(Dtype dtype, const Work& work) {
    switch (dtype) {
        case Dtype::kF16:
            return work(ElementF16());
        case Dtype::kBF16:
            return work(ElementBF16());
        case Dtype::kF32:
            return work(ElementF32());
        default:
            return work(ElementF64());
    }
}

// All columns of a row that are of neither of its two classes hold one value; all of them, where the row is not valid.
template <typename Out>
void write_class_row(const Targets& targets, const TargetRow& row) {
    auto* const first = static_cast<typename Out::Bits*>(targets.out) + int64_t{row.sample} * targets.num_classes;
    TargetRow other = row;
    other.own_class = other.partner_class = -1;
    write_target(targets, other, 0);
    std::fill(first + 1, first + targets.num_classes, *first);
    if (!row.valid || is_float(targets.labels_dtype)) return;
    write_target(targets, row, row.own_class);
    write_target(targets, row, row.partner_class);
}

template <typename Label, typename Out>
void write_soft_row(const Targets& targets, const TargetRow& row) {
    using Value = decltype(Out::value({}));
    const int64_t classes = targets.num_classes;
    const auto* const labels = static_cast<const typename Label::Bits*>(targets.labels);
    const auto* const own = labels + row.sample * classes;
    const auto* const partner = row.keep ? own : labels + row.partner * classes;
    auto* const out = static_cast<typename Out::Bits*>(targets.out) + row.sample * classes;
    for (int64_t column = 0; column < classes; ++column)
        out[column] = Out::of(soft_value(targets, row, static_cast<Value>(Label::value(own[column])),
                                         static_cast<Value>(Label::value(partner[column]))));
}

// A row of at least one class.
inline void write_target_row(const Targets& targets, const TargetRow& row) {
    with_float(targets.out_dtype, [&](auto out) {
        using Out = decltype(out);
        if (!row.valid || !is_float(targets.labels_dtype)) return write_class_row<Out>(targets, row);
        with_float(targets.labels_dtype, [&](auto label) { write_soft_row<decltype(label), Out>(targets, row); });
    });
}

}  // namespace cutmix
