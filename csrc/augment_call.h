// What one call of the batch tail asks of a backend, in plain pointers and sizes; views.h says what has to be done.
#pragma once

#include "mix_call.h"
#include "views.h"

namespace cutmix {

struct Strides {  // in elements, of a tensor (batch, channels, height, width)
    int64_t sample, channel, row, pixel;
};

// Of either layout, or of views of one: the elements of a row are dense (pixel == 1), or those of a pixel are
// (channel == 1 and pixel == channels).
struct AugmentedImages {
    const void* in;  // uint8, float16, bfloat16 or float32
    void* out;       // of these, too; null where there are no elements
    Dtype in_dtype, out_dtype;
    int32_t channels;
    Strides in_strides, out_strides;
};

struct Views {
    const int32_t* given;  // follow these; null: sample them and write them to `sampled`
    int32_t* sampled;
    int32_t boxes;          // erased boxes that each has room for
    bool coloured;          // whether each has a colour matrix
    ViewSampling sampling;  // for sampling alone

    static constexpr int32_t kQuadruple = 4;
    CUTMIX_HD int64_t quadruples() const { return 1 + int64_t{boxes} + (coloured ? kColourRows : 0); }
    CUTMIX_HD int64_t columns() const { return quadruples() * kQuadruple; }
};

// Rows mean, scale, erase, fill of (4, channels).
struct Constants {
    float few[4][kFewChannels];  // by value, where `wide` is null
    const float* wide;           // on the device of the images, for more than kFewChannels
};

struct AugmentCall {
    Plan plan;  // its seed is that of the views and the noise as well
    Views views;
    Erasing erasing;
    Constants constants;
    AugmentedImages images;
    Targets targets;
};

}  // namespace cutmix
