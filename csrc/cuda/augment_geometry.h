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
// A unit is what a thread writes at once, of all channels: a pixel or, with the vector kernels, 8 or 16 neighbours in a
// row. These kernels are for what a loader gives and a model takes: uint8 of one or three channels in rows of whole
// units, to floats. For everything else a thread takes pixel by pixel, which costs several times the instructions.
//
// Measured on an H100, uint8 to bfloat16. Of 128 x 3 x 224 x 224, of which a copy of as many bytes takes 22 us, the
// plain kernel normalises in 25 us and mixes in 27; the viewed kernel, which can do both, in 38 and 37. Without the
// code for views and boxes, and with 8 pixels in place of 16, four blocks fit on a multiprocessor. Views with erased
// boxes take 44 us with 16 pixels, at least 49 with 8.
#pragma once

#include <string>

#include "../augment_call.h"
#include "launch_geometry.h"

namespace cutmix {

// What the samples of a call may need, each path with all that the ones before it have.
enum class Path : int32_t {
    kPlain,     // conversion, normalisation, and mixing with a partner
    kViewed,    // flips, shifts, and boxes that are erased or cut out
    kColoured,  // colour
};

// Of a unit of the vector kernels.
CUTMIX_HD constexpr int32_t unit_pixels(Path path) { return path == Path::kPlain ? 8 : 16; }

// At most. What a block's threads draw together before they write costs as much as two units of 16 pixels of one of its
// warps; the plain kernel hides that behind the other blocks, and takes 2 us less with 4 than with 16 (as above).
constexpr int64_t units_per_thread(Path path) { return path == Path::kPlain ? 4 : 8; }

// Of a block, or half as many where a sample has no more units than that: the others would have nothing to write.
// Measured as above, of 512 x 3 x 32 x 32 the plain kernel then mixes in 6.3 us in place of 7.2, and the viewed kernel
// takes 11 us in place of 15 for views with erased boxes.
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
    Path path;
    uint32_t grid, block, shared_bytes;
    AugmentParams params;

    // The kernel in augment_kernels.cuh.
    std::string kernel() const {
        if (!vectors) return path == Path::kColoured ? "augment_pixels<true>" : "augment_pixels<false>";
        const char* const element = out_dtype == Dtype::kF16    ? "ElementF16"
                                    : out_dtype == Dtype::kBF16 ? "ElementBF16"
                                                                : "ElementF32";
        const char* const what = path == Path::kPlain    ? "Path::kPlain"
                                 : path == Path::kViewed ? "Path::kViewed"
                                                         : "Path::kColoured";
        return "augment_vectors<" + std::string(element) + "," + std::to_string(channels) + "," + what + ">";
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
           plan.width % unit_pixels(Path::kViewed) == 0 &&
           has_aligned_rows(plan, channels, images.in, images.in_strides, 1) &&
           has_aligned_rows(plan, channels, images.out, images.out_strides, blended_bytes(images.out_dtype));
}

// Whether a kind changes pixels otherwise than by the partner's in their place, or by all that is computed of both.
CUTMIX_HD constexpr bool takes_parts(Kind kind) { return !has_partner(kind) || computes_in_box(kind); }

// Whether such a kind can be drawn.
inline bool may_take_parts(const float (&bounds)[kKinds]) {
    for (int32_t k = 1; k <= kKinds; ++k)
        if (takes_parts(static_cast<Kind>(k)) && can_draw(static_cast<Kind>(k), bounds)) return true;
    return false;
}

// The shortest path that serves whatever a call may draw. A given plan and given views may hold anything.
inline Path path_of(const AugmentCall& call) {
    if (call.views.coloured) return Path::kColoured;
    const ViewSampling& sampling = call.views.sampling;
    const bool moves = sampling.flip_below > 0.0f || sampling.translate_y != 0 || sampling.translate_x != 0;
    const bool given = call.plan.given || call.views.given;
    return given || moves || call.views.boxes > 0 || may_take_parts(call.plan.draw.bounds) ? Path::kViewed
                                                                                           : Path::kPlain;
}

// Cuts the pixels into blocks and says how large blocks are; returns how many.
inline int64_t cut_units(const Plan& plan, AugmentLaunch* launch) {
    AugmentParams& params = launch->params;
    const int64_t units_in_row = launch->vectors ? plan.width / unit_pixels(launch->path) : plan.width;
    const int64_t units = units_in_row * plan.height;
    if (units <= kAugmentThreads / 2) launch->block = kAugmentThreads / 2;
    const int64_t units_each =
        std::clamp<int64_t>(plan.batch * units / kThreadsWanted, 1, units_per_thread(launch->path));
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
    launch.path = path_of(call);

    int64_t blocks = 0;
    const int64_t quadruples = call.views.quadruples();
    params.quadruples = divider(quadruples);
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
    blocks += cut_plan_and_targets(plan, call.targets, launch.block, &params.mix);
    if (call.views.sampled) {
        const int64_t all_quadruples = limited(plan.batch * quadruples, "all views");
        params.view_blocks = static_cast<uint32_t>(ceil_div(all_quadruples, launch.block));
        blocks += params.view_blocks;
    }
    launch.grid = limited(blocks, "all blocks");
    return launch;
}

}  // namespace cutmix
