// The adjoint of mixing: what a call asks of a backend, in plain pointers and sizes, and what a sum is made of.
//
// Mixed samples are linear in the samples. The gradient of a sample is a sum over the mixed samples that it is part of:
// itself, where its pixels stayed or were blended, and each that took from it, its takers, in ascending order:
//
//   sample 2    takers 0 and 5        own            taker 0        taker 5
//                                     g g g g        . . . .        g g . .
//                                     g . . g   +    . g g .   +    g g . .    a part is not there outside of a box,
//                                     g g g g        . g g .        . . . .    and not added
//
// In float, or double for double, each step rounded to nearest, and rounded to the dtype once. Since every sum is
// gathered by its owner, there are no atomics and the order is fixed. Mirrored by cutmix_cuda/reference_adjoint.py.
#pragma once

#include "rows.h"
#include "values.h"

namespace cutmix {

// The takers of a sample, as a list: of each sample its first taker, and behind each taker the next of the same sample.
struct Link {
    int32_t first, next;  // -1 at the end
};

struct AdjointCall {
    const PlanRow* plan;
    int32_t batch, height, width;  // what the plan is checked against
    Dtype dtype;                   // a float
    const uint8_t* in;
    uint8_t* out;
    Rows in_rows, out_rows;  // of one shape and order, each sample without a gap in it
    Link* links;             // (batch,), to be written, for backends that want it
};

// A row of the plan as it is followed: kept where it may not be.
CUTMIX_HD Kind followed_kind(const PlanRow& row, int32_t batch, int32_t height, int32_t width) {
    return valid_row(row, batch, height, width, true) ? static_cast<Kind>(row.kind) : Kind::kKeep;
}

// The weight of a blended part: of a sample's own, and of its partner's.
template <typename Value>
CUTMIX_HD Value own_weight(float lam) {
    return static_cast<Value>(lam);
}

template <typename Value>
CUTMIX_HD Value partner_weight(float lam) {
    return sub_rn(Value{1}, static_cast<Value>(lam));
}

}  // namespace cutmix
