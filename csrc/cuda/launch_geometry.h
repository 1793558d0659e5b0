// From a call to the one launch that serves it: which kernel, how many blocks of how many threads, and its parameters.
//
// Host C++ without CUDA, so that tests can ask what a user's call launches, and feed exactly that to whatever executes
// the compiled kernels.
//
// The blocks of a launch, in this order (what is first starts first, and the pixels hide what is slow to start):
//
//   targets   a warp writes up to kColumnsPerWarp columns of one sample's row, fewer of soft labels
//   plan      two threads write one row of a sampled plan, a half each
//   pixels    a block moves a tile of one sample (in place: of a pair of samples), as below
//
// A row is cut into vectors of 16 bytes, or of as few as alignment asks. The threads of a block stand on a few rows at
// once and walk down the sample together. Every thread stays in its column, so what the box means for its vectors
// (inside, outside, which bytes of the vector on the edge) is found once, and one Philox serves all of its vectors:
//
//                columns of a chunk
//             0   1   2   3   4   5   6
//           +---+---+---+---+---+---+---+
//     row 0 | 0 | 1 | 2 | 3 | 4 | 5 | 6 |   rows_at_once = 2: the first vectors of threads 0..13,
//         1 | 7 | 8 | 9 |10 |11 |12 |13 |
//         2 | 0 | 1 | 2 | 3 | 4 | 5 | 6 |   and the second vectors of the same threads
//         3 | 7 | 8 | 9 |10 |11 |12 |13 |
//           ...
//
// The constants below are those of the least times on an H100, of 128 x 3 x 224 x 224 uint8, bfloat16 and float32 taken
// together, and of 128 x 3 x 32 x 32 float32. What is said of times was seen there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../mix_call.h"

namespace cutmix {

// A warp of any NVIDIA GPU.
constexpr uint32_t kWarpThreads = 32;

// Small samples get smaller blocks rather than fewer vectors a thread.
constexpr int64_t kThreads = 256, kFewestThreads = 64, kThreadsInPlace = 128;

// Sampling costs about 280 instructions a warp (in place, for two samples, 350), and moving a vector about 25 (45), of
// the 280 that an H100 can issue while memory moves the vectors of one warp. So sampling hides behind few vectors a
// thread, and with few there are threads for all of the GPU: CutMix of uint8 takes 16.8 us at 8 vectors a thread, 18.3
// at 16 and 19.8 at 24. In place only half of a sample's vectors lie between the edges of two boxes, and of 6 a thread
// gets 3: 11.5 us, for 12.8 at 12 and 15.7 at 24. At 2 to 4 vectors it takes as long, with up to twice the
// instructions.
constexpr int64_t kVectorsPerThread = 8, kVectorsPerThreadInPlace = 6;

// But first there have to be so many threads: 9 warps for each of an H100's 132 multiprocessors, which with two loads
// of 16 bytes under way in each thread keep 9 KiB under way in each: what half of its bandwidth, the half that reads,
// takes at 700 ns a load. With half as many the small images take 5 to 20 % longer, and more gain nothing.
constexpr int64_t kThreadsWanted = 132 * 9 * 32;

// Fewer whole blocks than two for each of those multiprocessors spread unevenly over them: they are halved.
constexpr int64_t kBlocksWanted = 2 * 132;

// Of class indices a warp only writes, 1024 float32 as 8 vectors for each lane. Soft labels are loaded, and each lane
// has those of all of its columns under way at once: 1000 columns of 128 samples take 3.1 us, for 5.4 where a lane
// loads four times, and 25.8 where it loads 32 times.
constexpr uint32_t kColumnsPerWarp = 1024;
constexpr uint32_t kSoftColumnsPerLane = 4, kSoftColumnsPerWarp = kSoftColumnsPerLane * kWarpThreads;

// gridDim.x, and numerators of Divider.
constexpr int64_t kLargest = INT32_MAX;

// Rows of a pair are dealt out to at most so many blocks, so that row + stride stays below 2^32.
constexpr int64_t kMostShares = 65535;

// Division of n < 2^31 by a constant d in 1..2^31-1, as Granlund and Montgomery (1994).
//
// With 2^(l-1) < d <= 2^l and m = floor(2^(31+l) / d) + 1, m * d = 2^(31+l) + e where 0 < e <= d <= 2^l, so
// n * m / 2^(31+l) = n/d + (n / 2^31) * (e / 2^l) / d < n/d + 1/d, and its floor is that of n/d. m is at most 2^32 - 3
// (2^31 + 1 for d = 1), and 2n < 2^32, so the upper word of 2n * m, shifted by l, is all it takes.
struct Divider {
    uint32_t divisor, multiplier, shift;

    CUTMIX_HD uint32_t quotient(uint32_t n) const { return mulhi(2 * n, multiplier) >> shift; }
};

CUTMIX_HD Divider divider(int64_t divisor) {
    uint32_t shift = 0;
    while (int64_t{1} << shift < divisor) ++shift;
    const uint64_t multiplier = (uint64_t{1} << (31 + shift)) / static_cast<uint64_t>(divisor) + 1;
    return {static_cast<uint32_t>(divisor), static_cast<uint32_t>(multiplier), shift};
}

// ---- What the kernels get

struct ByteStrides {
    int64_t sample, slice, row;
};

struct Pixels {
    const uint8_t* in;
    uint8_t* out;
    ByteStrides in_strides, out_strides;
    uint64_t fill[2];  // for cutout
    Dtype dtype;       // for mixup
    uint32_t slices, pixel_bytes, row_bytes, row_vectors;
    // Out of place a thread walks down a run of evenly spaced rows: a sample, or a slice where there are gaps between.
    uint32_t rows_in_run;
    uint32_t rows_at_once;  // of a block
    uint32_t rows_in_block;
    uint32_t step_y;            // rows_at_once mod height
    int64_t in_step, out_step;  // bytes to a thread's next row
    Divider height;
    Divider blocks_in_sample;  // in place: in a pair
    Divider blocks_in_run;
    Divider blocks_in_chunk;
    Divider chunk_vectors;  // a row is cut into chunks that a block spans
};

struct KernelParams {
    Plan plan;
    PartnerMap partner_map;  // of plan.seed; where the seed is on the device, the kernel makes its own
    bool in_place;
    bool vector_targets;  // targets can be written 16 bytes at a time
    Targets targets;
    Pixels pixels;
    Divider warps_in_target;  // warps that write one row of targets
    uint32_t target_warps, target_blocks, plan_blocks;
};

enum class Mode : int32_t { kNoPixels, kOutOfPlace, kInPlace };

struct Launch {
    Mode mode;
    int32_t vector_bytes;
    uint32_t grid, block;
    KernelParams params;

    // The kernel in mix_kernels.cuh.
    std::string kernel() const {
        if (mode == Mode::kNoPixels) return "mix_no_pixels";
        const std::string name = mode == Mode::kInPlace ? "mix_in_place" : "mix_out_of_place";
        return name + "<" + std::to_string(vector_bytes) + ">";
    }
};

// ---- How it is decided

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline uint32_t limited(int64_t value, const char* what) {
    if (value > kLargest) throw std::length_error(std::string("too large for a CUDA launch: ") + what);
    return static_cast<uint32_t>(value);
}

// The widest vector that every address allows.
inline int32_t vector_bytes_of(const Images& images) {
    uint64_t all = reinterpret_cast<uint64_t>(images.in) | reinterpret_cast<uint64_t>(images.out);
    for (const Rows* rows : {&images.in_rows, &images.out_rows}) {
        all |= static_cast<uint64_t>(rows->row_bytes());
        if (rows->batch > 1) all |= static_cast<uint64_t>(rows->sample_stride);
        if (rows->slices > 1) all |= static_cast<uint64_t>(rows->slice_stride);
        if (rows->height > 1) all |= static_cast<uint64_t>(rows->row_stride);
    }
    int32_t bytes = 16;
    while (all % static_cast<uint64_t>(bytes) != 0) bytes /= 2;
    return bytes;
}

// Of an element that mixup may blend, which has to lie in one vector; 1 for any other.
inline int32_t blended_bytes(Dtype dtype) {
    switch (dtype) {
        case Dtype::kF16:
        case Dtype::kBF16:
            return 2;
        case Dtype::kF32:
            return 4;
        case Dtype::kF64:
            return 8;
        default:
            return 1;
    }
}

inline ByteStrides strides_of(const Rows& rows) { return {rows.sample_stride, rows.slice_stride, rows.row_stride}; }

inline bool evenly_spaced(const Rows& rows) {
    return rows.slices == 1 || rows.slice_stride == rows.height * rows.row_stride;
}

// Whether the kernels can go through images as they lie in memory: not where an element that may be blended lies across
// vectors, nor where slices with gaps between them, which take blocks of their own, are more than a launch has blocks.
// Without gaps it would take 64 GiB of rows that no vector wider than a byte fits to reach so many.
inline bool fits_launch(const Images& images) {
    if (vector_bytes_of(images) < blended_bytes(images.dtype)) return false;
    const Rows& rows = images.out_rows;
    return images.in_place || (evenly_spaced(images.in_rows) && evenly_spaced(rows)) ||
           rows.batch * rows.slices * ceil_div(rows.row_bytes(), kThreads / 2) <= kLargest / 2;
}

// Cuts the pixels into blocks; returns how many, and sets launch.block and launch.params.pixels.
inline int64_t cut_pixels(const Images& images, bool sampled, Launch* launch) {
    const Rows& rows = images.out_rows;
    const bool in_place = images.in_place;
    const int64_t row_vectors = rows.row_bytes() / launch->vector_bytes;
    limited(rows.row_bytes(), "a row of 2^31 bytes");
    if (launch->vector_bytes < blended_bytes(images.dtype))
        throw std::invalid_argument("images must be as aligned as their elements are wide");

    const bool one_run = in_place || (evenly_spaced(images.in_rows) && evenly_spaced(images.out_rows));
    const int64_t runs = one_run ? 1 : rows.slices, rows_in_run = rows.slices * rows.height / runs;
    limited(rows_in_run, "a sample of 2^31 rows");

    // Chunks end at a full line of 128 bytes, so that no two blocks share a sector of memory.
    const int64_t chunk_limit = in_place ? kThreadsInPlace / 2 : kThreads / 2;
    const int64_t fewest_chunks = ceil_div(row_vectors, chunk_limit);
    const int64_t chunk_vectors = fewest_chunks == 1 ? row_vectors : ceil_div(row_vectors, 8 * fewest_chunks) * 8;
    const int64_t chunks = ceil_div(row_vectors, chunk_vectors);

    // A plan sampled for work in place pairs all samples; in a given plan anyone can have any partner.
    const int64_t owners = in_place && sampled ? (rows.batch + 1) / 2 : rows.batch;
    const int64_t all_vectors = owners * runs * rows_in_run * row_vectors;
    const int64_t most_vectors = in_place ? kVectorsPerThreadInPlace : kVectorsPerThread;
    const int64_t vectors_each = std::clamp<int64_t>(all_vectors / kThreadsWanted, 1, most_vectors);

    int64_t threads = kThreadsInPlace;
    if (!in_place) {
        threads = all_vectors / vectors_each / kThreads >= kBlocksWanted ? kThreads : kThreads / 2;
        threads = std::clamp<int64_t>(rows_in_run * chunk_vectors / vectors_each, kFewestThreads, threads);
    }
    int64_t rows_at_once = std::clamp<int64_t>(threads / chunk_vectors, 1, rows_in_run);
    // Two rows with an odd number of vectors share a sector; blocks should not.
    if (rows_at_once > 1 && chunk_vectors % 2 == 1) rows_at_once -= rows_at_once % 2;

    // In place the columns between the edges of two boxes are fewer, and leave no thread without a row.
    const int64_t steps = ceil_div(rows_in_run, rows_at_once);  // that one block alone would take for a chunk of a run
    const int64_t vectors_alone = in_place ? rows_in_run * chunk_vectors / threads : steps;
    int64_t blocks_in_chunk = std::max<int64_t>(1, (vectors_alone + vectors_each / 2) / vectors_each);
    if (in_place) blocks_in_chunk = std::min(blocks_in_chunk, kMostShares);
    const int64_t all_chunks = owners * runs * chunks;
    while (blocks_in_chunk > 1 && all_chunks * blocks_in_chunk > kLargest / 2) blocks_in_chunk /= 2;
    // Whole steps, rounded up, may be done in fewer blocks: none begins behind the last row.
    const int64_t steps_in_block = ceil_div(steps, blocks_in_chunk);
    if (!in_place) blocks_in_chunk = ceil_div(steps, steps_in_block);

    if (!in_place) threads = ceil_div(rows_at_once * chunk_vectors, kWarpThreads) * kWarpThreads;
    launch->block = static_cast<uint32_t>(threads);
    Pixels& pixels = launch->params.pixels;
    pixels.in = images.in;
    pixels.out = images.out;
    std::memcpy(pixels.fill, images.fill, sizeof pixels.fill);
    pixels.dtype = images.dtype;
    pixels.in_strides = strides_of(images.in_rows);
    pixels.out_strides = strides_of(images.out_rows);
    pixels.slices = static_cast<uint32_t>(rows.slices);
    pixels.pixel_bytes = static_cast<uint32_t>(rows.pixel_bytes);
    pixels.row_bytes = static_cast<uint32_t>(rows.row_bytes());
    pixels.row_vectors = static_cast<uint32_t>(row_vectors);
    pixels.rows_in_run = static_cast<uint32_t>(rows_in_run);
    pixels.rows_at_once = static_cast<uint32_t>(rows_at_once);
    pixels.rows_in_block = static_cast<uint32_t>(steps_in_block * rows_at_once);
    pixels.step_y = static_cast<uint32_t>(rows_at_once % rows.height);
    pixels.in_step = rows_at_once * images.in_rows.row_stride;
    pixels.out_step = rows_at_once * images.out_rows.row_stride;
    pixels.height = divider(rows.height);
    pixels.blocks_in_sample = divider(limited(runs * chunks * blocks_in_chunk, "the blocks of a sample"));
    pixels.blocks_in_run = divider(chunks * blocks_in_chunk);
    pixels.blocks_in_chunk = divider(blocks_in_chunk);
    pixels.chunk_vectors = divider(chunk_vectors);
    return all_chunks * blocks_in_chunk;
}

// Gives the plan and the targets to blocks of `block` threads; returns how many.
inline int64_t cut_plan_and_targets(const Plan& plan, const Targets& targets, uint32_t block, KernelParams* params) {
    params->plan = plan;
    params->targets = targets;
    if (!plan.given && !plan.device_seed)
        params->partner_map = partner_map(plan.draw.sampling.partner, plan.seed, static_cast<uint32_t>(plan.batch));
    if (targets.out && targets.num_classes > 0) {
        const bool soft = is_float(targets.labels_dtype);
        const int64_t warps = ceil_div(targets.num_classes, soft ? kSoftColumnsPerWarp : kColumnsPerWarp);
        params->warps_in_target = divider(warps);
        params->target_warps = limited(plan.batch * warps, "all targets");
        params->target_blocks = static_cast<uint32_t>(ceil_div(params->target_warps, block / kWarpThreads));
        params->vector_targets = targets.out_dtype == Dtype::kF32 && !soft && targets.num_classes % 4 == 0 &&
                                 reinterpret_cast<uint64_t>(targets.out) % 16 == 0;
    }
    if (plan.sampled) params->plan_blocks = static_cast<uint32_t>(ceil_div(int64_t{2} * plan.batch, block));
    return int64_t{params->target_blocks} + params->plan_blocks;
}

inline Launch launch_geometry(const MixCall& call) {
    const Images& images = call.images;
    Launch launch = {};
    launch.block = kThreads;
    launch.vector_bytes = 1;
    launch.params.in_place = images.in_place;

    int64_t pixel_blocks = 0;
    if (images.out) {
        launch.mode = images.in_place ? Mode::kInPlace : Mode::kOutOfPlace;
        launch.vector_bytes = vector_bytes_of(images);
        pixel_blocks = cut_pixels(images, call.plan.given == nullptr, &launch);
    }
    const int64_t other_blocks = cut_plan_and_targets(call.plan, call.targets, launch.block, &launch.params);
    launch.grid = limited(pixel_blocks + other_blocks, "all blocks");
    return launch;
}

}  // namespace cutmix
