// From a call of the adjoint to the two launches that serve it: one that finds the takers of each sample, and one that
// sums their gradients. Host C++ without CUDA, as launch_geometry.h, so that tests can ask for them.
//
// What is to be summed is known by the sample alone, so the plan may be of any shape: vectors of 16 bytes are counted
// through a whole sample, whether or not rows are multiples of them (7 x 7 maps are not). Where a vector lies across
// rows, it is in the boxes by parts.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>

#include "../adjoint_call.h"
#include "launch_geometry.h"

namespace cutmix {

constexpr uint32_t kAdjointThreads = 256;

// A thread finds out about its sample by loads that wait for each other, and its vectors share that.
constexpr int64_t kAdjointVectorsPerThread = 16;

struct AdjointParams {
    const PlanRow* plan;
    Link* links;
    int32_t batch, height, width;
    const uint8_t* in;
    uint8_t* out;
    int64_t in_stride, out_stride;  // bytes from sample to sample
    uint32_t pixel_elements;
    uint32_t rows_across;  // that a vector may lie across
    uint32_t sample_vectors, vectors_in_block;
    Divider row_elements, rows, blocks_in_sample;  // rows of a slice
};

struct AdjointLaunch {
    Dtype dtype;
    int32_t vector_bytes;
    uint32_t link_grid, grid, block;
    AdjointParams params;

    // The kernel in adjoint_kernels.cuh.
    std::string kernel() const {
        const char* element = dtype == Dtype::kF16    ? "ElementF16"
                              : dtype == Dtype::kBF16 ? "ElementBF16"
                              : dtype == Dtype::kF32  ? "ElementF32"
                                                      : "ElementF64";
        return "sum_takers<" + std::string(element) + "," + std::to_string(vector_bytes) + ">";
    }
};

inline AdjointLaunch adjoint_geometry(const AdjointCall& call) {
    const Rows& rows = call.in_rows;
    const int64_t element_bytes = blended_bytes(call.dtype);
    const int64_t sample_bytes = rows.slices * rows.height * rows.row_bytes();
    limited(sample_bytes / element_bytes, "a sample of 2^31 elements");

    uint64_t all = reinterpret_cast<uint64_t>(call.in) | reinterpret_cast<uint64_t>(call.out) |
                   static_cast<uint64_t>(sample_bytes);
    if (rows.batch > 1) all |= static_cast<uint64_t>(rows.sample_stride | call.out_rows.sample_stride);

    AdjointLaunch launch = {};
    launch.dtype = call.dtype;
    launch.vector_bytes = all % 16 == 0 ? 16 : static_cast<int32_t>(element_bytes);
    const int64_t vectors = sample_bytes / launch.vector_bytes;
    const int64_t each = std::clamp<int64_t>(rows.batch * vectors / kThreadsWanted, 1, kAdjointVectorsPerThread);
    launch.block = static_cast<uint32_t>(
        std::clamp<int64_t>(ceil_div(ceil_div(vectors, each), kWarpThreads) * kWarpThreads, 1, kAdjointThreads));
    const int64_t in_block = launch.block * each, blocks = ceil_div(vectors, in_block);
    launch.grid = limited(rows.batch * blocks, "all blocks");
    launch.link_grid = static_cast<uint32_t>(ceil_div(rows.batch, kWarpThreads));

    AdjointParams& params = launch.params;
    params.plan = call.plan;
    params.links = call.links;
    params.batch = call.batch;
    params.height = call.height;
    params.width = call.width;
    params.in = call.in;
    params.out = call.out;
    params.in_stride = rows.sample_stride;
    params.out_stride = call.out_rows.sample_stride;
    const int64_t row_elements = rows.row_bytes() / element_bytes, elements = launch.vector_bytes / element_bytes;
    params.rows_across = row_elements % elements == 0 ? 1 : static_cast<uint32_t>((elements - 2) / row_elements + 2);
    params.pixel_elements = static_cast<uint32_t>(rows.pixel_bytes / element_bytes);
    params.sample_vectors = static_cast<uint32_t>(vectors);
    params.vectors_in_block = static_cast<uint32_t>(in_block);
    params.row_elements = divider(row_elements);
    params.rows = divider(rows.height);
    params.blocks_in_sample = divider(blocks);
    return launch;
}

}  // namespace cutmix
