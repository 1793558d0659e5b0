// From a call of the batch tail to the one launch that serves it, as launch_geometry.h for mixing: host C++ without
// CUDA.
//
// The blocks of a launch, in this order:
//
//   targets   a warp writes up to kColumnsPerWarp columns of one sample's row
//   plan      two threads write one row of a sampled plan, a half each
//   views     a thread writes one quadruple of the sampled views
//   pixels    a block writes a run of units of one sample, whose plan and view its threads draw together
//
// A unit is what a thread writes at once, of all channels: a pixel or, with the vector kernels, kUnitPixels
// neighbours in a row. These kernels are for what a loader gives and a model takes: uint8 of one or three channels in
// rows of whole units, to floats. For everything else a thread takes pixel by pixel, which costs several times the
// instructions.
//
// The constants below come from counting instructions; nothing here was timed on a GPU.
#pragma once

#include <string>

#include "../augment_call.h"
#include "launch_geometry.h"

namespace cutmix {

constexpr int32_t kUnitPixels = 16;

// What a block's threads draw together before they write costs as much as two units of one of its warps.
constexpr int64_t kUnitsPerThread = 8;

// Of sampled views, for whose boxes a thread makes up to kTries tries.
constexpr int64_t kAugmentThreads = 256;

struct AugmentParams {
    KernelParams mix;  // plan and targets; without pixels
    Views views;
    Erasing erasing;
    Constants constants;
    AugmentedImages images;
    uint32_t view_blocks;
    Divider quadruples;  // of a packed view
    uint32_t noises;     // that blocks draw once, for each erased box
    uint32_t units_in_sample, units_in_block;
    Divider units_in_row;
    Divider blocks_in_sample;
};

struct AugmentLaunch {
    bool vectors;
    Dtype out_dtype;   // of the vector kernels,
    int32_t channels;  // and how many
    bool coloured;
    uint32_t grid, block, shared_bytes;
    AugmentParams params;

    // The kernel in augment_kernels.cuh.
    std::string kernel() const {
        const std::string colour = coloured ? "true>" : "false>";
        if (!vectors) return "augment_pixels<" + colour;
        const char* const element = out_dtype == Dtype::kF16    ? "ElementF16"
                                    : out_dtype == Dtype::kBF16 ? "ElementBF16"
                                                                : "ElementF32";
        return "augment_vectors<" + std::string(element) + "," + std::to_string(channels) + "," + colour;
    }
};

CUTMIX_HD bool is_planar(const Strides& strides) { return strides.pixel == 1; }

// Whether every row of every channel (or of all channels, where they are not planar) begins at a multiple of 16 bytes.
inline bool has_aligned_rows(const Plan& plan, int32_t channels, const void* data, const Strides& strides,
                             int64_t element_bytes) {
    int64_t all = 0;
    if (plan.batch > 1) all |= strides.sample;
    if (plan.height > 1) all |= strides.row;
    if (channels > 1 && is_planar(strides)) all |= strides.channel;
    return (static_cast<uint64_t>(all * element_bytes) | reinterpret_cast<uint64_t>(data)) % 16 == 0;
}

inline bool fits_vectors(const Plan& plan, const AugmentedImages& images) {
    const int32_t channels = images.channels;
    return images.in_dtype == Dtype::kU8 && is_float(images.out_dtype) && (channels == 1 || channels == 3) &&
           plan.width % kUnitPixels == 0 && has_aligned_rows(plan, channels, images.in, images.in_strides, 1) &&
           has_aligned_rows(plan, channels, images.out, images.out_strides, blended_bytes(images.out_dtype));
}

// Cuts the pixels into blocks; returns how many.
inline int64_t cut_units(const Plan& plan, AugmentLaunch* launch) {
    AugmentParams& params = launch->params;
    const int64_t units_in_row = launch->vectors ? plan.width / kUnitPixels : plan.width;
    const int64_t units = units_in_row * plan.height;
    const int64_t units_each = std::clamp<int64_t>(plan.batch * units / kThreadsWanted, 1, kUnitsPerThread);
    int64_t blocks = ceil_div(units, launch->block * units_each);
    params.units_in_sample = limited(units, "an image of 2^31 pixels");
    params.units_in_block = static_cast<uint32_t>(ceil_div(units, blocks));
    blocks = ceil_div(units, params.units_in_block);
    params.units_in_row = divider(units_in_row);
    params.blocks_in_sample = divider(blocks);
    return plan.batch * blocks;
}

inline AugmentLaunch augment_geometry(const AugmentCall& call) {
    const Plan& plan = call.plan;
    AugmentLaunch launch = {};
    launch.block = kAugmentThreads;
    AugmentParams& params = launch.params;
    params.views = call.views;
    params.erasing = call.erasing;
    params.constants = call.constants;
    params.images = call.images;
    launch.coloured = call.views.coloured;

    int64_t blocks = cut_plan_and_targets(plan, call.targets, launch.block, &params.mix);
    const int64_t quadruples = call.views.quadruples();
    params.quadruples = divider(quadruples);
    if (call.views.sampled) {
        const int64_t all_quadruples = limited(plan.batch * quadruples, "all views");
        params.view_blocks = static_cast<uint32_t>(ceil_div(all_quadruples, launch.block));
        blocks += params.view_blocks;
    }
    if (call.images.out) {
        launch.vectors = fits_vectors(plan, call.images);
        launch.out_dtype = call.images.out_dtype;
        launch.channels = call.images.channels;
        const bool draws_noises = launch.vectors && call.erasing.value == EraseValue::kChannel;
        params.noises = draws_noises ? static_cast<uint32_t>(call.views.boxes) : 0;
        const int64_t boxes = quadruples + params.noises;
        launch.shared_bytes = static_cast<uint32_t>(2 * (sizeof(PlanRow) + boxes * sizeof(Box)) + sizeof(Geometry));
        blocks += cut_units(plan, &launch);
    }
    launch.grid = limited(blocks, "all blocks");
    return launch;
}

}  // namespace cutmix
