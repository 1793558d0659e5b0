// What one call asks of a backend, in plain pointers and sizes: no torch, so that the same object code runs under
// torch, in a small C++ program, and under a simulator.
#pragma once

#include "mix_math.h"
#include "rows.h"
#include "targets.h"

namespace cutmix {

struct Images {
    const uint8_t* in;
    uint8_t* out;            // null where there are no images, or no bytes in them
    Rows in_rows, out_rows;  // of one shape; strides may differ
    bool in_place;           // in == out, and every partner map has to be its own inverse
    Dtype dtype;             // of what is blended; kOther is moved as bytes, and never blended
    uint8_t fill[16];        // what cutout fills with: the bytes of a pixel's element, over and over
};

struct Plan {
    const PlanRow* given;  // follow this plan; null: sample one and write it to `sampled`
    PlanRow* sampled;
    int32_t batch, height, width;  // what `given` is checked against
    bool can_blend;                // the same: whether there may be kinds that blend
    Draw draw;                     // the rest is for sampling alone
    uint64_t seed;
    const int64_t* device_seed;  // where set, the kernel loads the seed from here
};

struct MixCall {
    Plan plan;
    Images images;
    Targets targets;
};

}  // namespace cutmix
