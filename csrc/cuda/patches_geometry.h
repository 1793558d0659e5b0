// From a call of several patches a sample to the one launch that serves it. Host C++ without CUDA, as
// launch_geometry.h.
//
// The blocks of a sample follow each other. The first, where there are targets or a plan to be written, writes those;
// each of the others moves kVectorsPerPatchThread vectors a thread, side by side in memory. The threads of a block
// first load, or draw, the patches of its sample into shared memory, a thread each.
#pragma once

#include "../patches.h"
#include "launch_geometry.h"

namespace cutmix {

constexpr int64_t kPatchThreads = 256;
constexpr int64_t kVectorsPerPatchThread = 8;

struct PatchParams {
    PatchCall call;
    PartnerMap partner_map;  // of call.seed; where the seed is on the device, the kernel makes its own
    Divider blocks_in_sample, row_vectors, height, width, pixel_elements;
    Divider channel_step, channels;  // see ChannelPlace; in pixels the step is of elements
    bool cells_in_vectors;           // the cells of a vector's elements follow each other, as aligned as they are many
    uint32_t front_blocks;           // of a sample: 1 where there are targets or a plan to be written
    uint32_t sample_vectors, vectors_in_block;
};

struct PatchLaunch {
    Dtype element;  // as which pixels are moved: one that may be blended, or any of its size
    int32_t vector_bytes;
    uint32_t grid, block;
    PatchParams params;

    // The kernel in patches_kernels.cuh.
    std::string kernel() const {
        const char* names[] = {"ElementF16", "ElementBF16", "ElementF32", "ElementF64"};
        const std::string name =
            element == Dtype::kU8 ? "ElementU8" : names[static_cast<int>(element) - static_cast<int>(Dtype::kF16)];
        const bool of_channels = params.call.masks.channels > 1;
        const std::string kernel = params.call.images.in_place ? "paint_in_place<"
                                   : of_channels               ? "paint_channels<"
                                                               : "paint_patches<";
        return kernel + name + "," + std::to_string(vector_bytes) + ">";
    }
};

// The lowest power of two that divides a number of bytes, up to 8: what elements may be as wide as.
inline int64_t element_bytes_of(const PatchCall& call) {
    if (can_blend(call.images.dtype)) return blended_bytes(call.images.dtype);
    int64_t bytes = call.images.out_rows.pixel_bytes;  // and where masks tell channels apart, of one of them
    if (call.masks.channels > 1 && call.channel_place.in_pixel) bytes |= call.channel_place.step;
    return std::min<int64_t>(bytes & -bytes, 8);
}

inline Dtype element_of(const PatchCall& call) {
    if (can_blend(call.images.dtype)) return call.images.dtype;
    switch (element_bytes_of(call)) {
        case 1:
            return Dtype::kU8;
        case 2:
            return Dtype::kF16;
        case 4:
            return Dtype::kF32;
        default:
            return Dtype::kF64;
    }
}

// The widest vector that every address of images, others and out allows.
inline int32_t patch_vector_bytes(const PatchCall& call) {
    Images images = call.images;
    const int32_t bytes = vector_bytes_of(images);
    if (call.others == 0) return bytes;
    images.in = call.other_images;
    images.in_rows = call.other_rows;
    return std::min(bytes, vector_bytes_of(images));
}

// Whether the kernels can go through images as they lie in memory: not where elements are not aligned. Elements of
// bytes are wider than a byte where the pixel is; where only the address is odd, they are moved as bytes by a copy.
inline bool fits_patch_launch(const PatchCall& call) { return patch_vector_bytes(call) >= element_bytes_of(call); }

inline PatchLaunch patch_geometry(const PatchCall& call) {
    PatchLaunch launch = {};
    launch.element = Dtype::kU8;
    launch.vector_bytes = 16;
    launch.block = static_cast<uint32_t>(kPatchThreads);
    PatchParams& params = launch.params;
    params.call = call;
    if (call.sampled_rows && !call.device_seed)
        params.partner_map =
            partner_map(call.draw.kinds.sampling.partner, call.seed, static_cast<uint32_t>(call.batch));
    params.front_blocks = call.sampled_rows || (call.targets.out && call.targets.num_classes > 0) ? 1 : 0;
    int64_t blocks = params.front_blocks;
    if (call.images.out) {
        const Rows& rows = call.images.out_rows;
        launch.element = element_of(call);
        const int64_t element_bytes = element_bytes_of(call);
        launch.vector_bytes = static_cast<int32_t>(patch_vector_bytes(call) == 16 ? 16 : element_bytes);
        limited(rows.row_bytes(), "a row of 2^31 bytes");
        const int64_t row_vectors = rows.row_bytes() / launch.vector_bytes;
        params.sample_vectors = limited(rows.slices * rows.height * row_vectors, "the vectors of a sample");
        params.row_vectors = divider(row_vectors);
        params.height = divider(rows.height);
        params.width = divider(rows.width);
        params.pixel_elements = divider(rows.pixel_bytes / element_bytes);
        const int64_t step = call.channel_place.step / (call.channel_place.in_pixel ? element_bytes : 1);
        params.channel_step = divider(limited(std::max<int64_t>(step, 1), "slices of a channel"));
        params.channels = divider(call.masks.channels);
        const uint64_t vector_elements = static_cast<uint64_t>(launch.vector_bytes / element_bytes);
        params.cells_in_vectors = rows.pixel_bytes == element_bytes && call.masks.width == rows.width &&
                                  reinterpret_cast<uint64_t>(call.masks.data) % vector_elements == 0;
        params.vectors_in_block = static_cast<uint32_t>(kPatchThreads * kVectorsPerPatchThread);
        blocks += ceil_div(params.sample_vectors, params.vectors_in_block);
    }
    params.blocks_in_sample = divider(std::max<int64_t>(blocks, 1));
    launch.grid = limited(blocks * call.samples, "all blocks");
    return launch;
}

}  // namespace cutmix
