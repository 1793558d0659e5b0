// Drives mix_math.h, rows.h, values.h, targets.h and launch_geometry.h with random and extreme values on heap buffers
// of exactly the size they need, to be compiled with the address and undefined-behaviour sanitizers by
// tests/kernels/test_sanitizers.py.
//
// Called with an argument it reads one knot past a table instead, to show that the sanitizers are there.

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "cuda/launch_geometry.h"
#include "mix_math.h"
#include "rows.h"
#include "targets.h"

using namespace cutmix;

namespace {

std::mt19937_64 random_bits(2026);

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_bits); }

uint32_t any_word() { return static_cast<uint32_t>(random_bits()); }

// Mostly near zero, now and then anything.
int32_t any_int() { return static_cast<int32_t>(between(0, 7) ? between(-2, 9) : static_cast<int32_t>(any_word())); }

void require(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "%s\n", what);
    std::exit(1);
}

// Height and width of an image of less than 2^31 pixels.
struct Extent {
    int32_t height, width;
};

Extent any_extent() {
    const int64_t most = std::numeric_limits<int32_t>::max();
    const int64_t height = between(0, 3) ? between(0, 300) : between(1, most);
    const int64_t room = height ? most / height : most;
    const int64_t width = between(0, 3) ? between(0, std::min<int64_t>(300, room)) : between(0, room);
    if (between(0, 1)) return {static_cast<int32_t>(width), static_cast<int32_t>(height)};
    return {static_cast<int32_t>(height), static_cast<int32_t>(width)};
}

float any_bound() { return between(0, 3) ? static_cast<float>(between(0, 4)) / 4 : float_of(any_word()); }

// Any tables, NaNs and infinities too, and any bounds give a plan that stays inside batch, image and [0, 1].
void fuzz_plan() {
    const std::unique_ptr<float[]> table(new float[kKinds * kKnots]);
    for (int32_t k = 0; k < kKinds * kKnots; ++k)
        table[k] = between(0, 1) ? float_of(any_word()) : static_cast<float>(between(-1, 2));
    const Extent extent = any_extent();
    const auto batch = static_cast<int32_t>(between(0, 3) ? between(1, 20) : between(1, 1 << 30));
    Draw draw = {table.get(), {}, {}, extent.height, extent.width};
    for (float& bound : draw.bounds) bound = any_bound();
    const int64_t options[kSamplingOptions] = {between(-1, 3), between(-1, 4), between(-1, 2), between(-1, 2)};
    const bool known = options[0] >= 0 && options[0] < 3 && options[1] >= 0 && options[1] < 4 && options[2] >= 0 &&
                       options[2] < 2 && options[3] >= 0 && options[3] < 2;
    require(decode_sampling(options, &draw.sampling) == known, "an option is taken for what it is not");
    const uint64_t seed = random_bits();
    const PartnerMap map = partner_map(draw.sampling.partner, seed, static_cast<uint32_t>(batch));
    for (int i = 0; i < 50; ++i) {
        const uint32_t index = static_cast<uint32_t>(between(0, batch - 1));
        const PlanRow row = sample_row(draw, seed, index, partner_of(map, index, static_cast<uint32_t>(batch)));
        require(valid_row(row, batch, extent.height, extent.width, true), "a sampled row leads outside");
        const bool mixup = row.kind == static_cast<int32_t>(Kind::kMixUp);
        require(valid_row(row, batch, extent.height, extent.width, false) == !mixup, "mixup of what has no mean");
        require(!mixup || may_blend(draw.bounds), "a kind is drawn for which the bounds leave no room");
    }
}

// Rows of a dense tensor, its dimensions in any order, touch every byte of it once and no other.
void fuzz_rows() {
    const int64_t dims = between(3, kMaxImageDims), element = int64_t{1} << between(0, 4);
    std::vector<int64_t> sizes(dims), strides(dims), order(dims);
    for (int64_t dim = 0; dim < dims; ++dim) sizes[dim] = between(between(0, 9) ? 1 : 0, 4), order[dim] = dim;
    if (between(0, 1)) std::shuffle(order.begin() + 1, order.end(), random_bits);
    int64_t count = 1;
    for (int64_t at = dims - 1; at >= 0; --at)
        strides[order[at]] = count, count *= std::max<int64_t>(1, sizes[order[at]]);
    Rows rows;
    if (!rows_of(dims, sizes.data(), strides.data(), element, &rows) || rows.empty()) return;
    require(rows.batch * rows.slices * rows.height * rows.row_bytes() == count * element, "rows of another size");

    std::vector<uint8_t> bytes(static_cast<size_t>(count * element));
    for (int64_t sample = 0; sample < rows.batch; ++sample)
        for (int64_t slice = 0; slice < rows.slices; ++slice)
            for (int64_t y = 0; y < rows.height; ++y) {
                uint8_t* row =
                    bytes.data() + sample * rows.sample_stride + slice * rows.slice_stride + y * rows.row_stride;
                for (int64_t k = 0; k < rows.row_bytes(); ++k) ++row[k];
            }
    for (const uint8_t touched : bytes) require(touched == 1, "rows miss or repeat a byte");
}

size_t bytes_of(Dtype dtype) {
    constexpr size_t kBytes[] = {1, 1, 2, 2, 4, 4, 8, 8, 2, 2, 4, 8};
    return kBytes[static_cast<int32_t>(dtype)];
}

// Any plan and any labels write each target once, whether or not they make sense.
void fuzz_targets() {
    const auto batch = static_cast<int32_t>(between(1, 6));
    const int64_t classes = between(1, 9);
    Targets targets = {};
    targets.labels_dtype = static_cast<Dtype>(between(0, 11));
    targets.out_dtype = static_cast<Dtype>(between(8, 11));
    targets.num_classes = classes;
    targets.smoothing = smoothing_of(static_cast<double>(between(0, 10)) / 10, classes);

    const int64_t labels_count = is_float(targets.labels_dtype) ? batch * classes : batch;
    const size_t label_bytes = bytes_of(targets.labels_dtype);
    const std::unique_ptr<uint8_t[]> labels(new uint8_t[labels_count * label_bytes]);
    for (int64_t i = 0; i < labels_count; ++i) {
        const int64_t label = between(0, 3) ? between(-1, classes) : static_cast<int64_t>(random_bits());
        std::memcpy(labels.get() + i * label_bytes, &label, label_bytes);  // little-endian: wrapped to its type
    }
    const std::unique_ptr<uint8_t[]> out(new uint8_t[batch * classes * bytes_of(targets.out_dtype)]);
    targets.labels = labels.get();
    targets.out = out.get();

    for (int32_t i = 0; i < batch; ++i) {
        const PlanRow row = {
            any_int(), {any_int(), any_int(), any_int(), any_int()}, float_of(any_word()), any_int(), 0};
        const TargetRow target = target_row(targets, row, valid_row(row, batch, 7, 8, between(0, 1) == 1), i);
        for (int64_t column = 0; column < classes; ++column) write_target(targets, target, column);
    }
}

void fuzz_halves() {
    for (int i = 0; i < 100; ++i) {
        const float value = float_of(any_word());
        const auto half = static_cast<uint16_t>(any_word());
        require(float_to_half(half_to_float(half)) == half || (half & 0x7FFF) > 0x7C00, "half precision is not kept");
        const float rounded = bfloat16_to_float(float_to_bfloat16(value));
        require(value != value || std::abs(rounded - value) <= std::max(std::abs(value) / 256, 0x1p-134f) ||
                    std::isinf(rounded),
                "bfloat16 is not near");
    }
}

// Every block of a launch on a GPU has rows to write, and together they have all of them.
void fuzz_launch() {
    const auto side = [] { return between(0, 1) ? between(1, 40) : between(1, 700); };
    const int64_t element = int64_t{1} << between(0, 4), height = side(), width = side(), channels = between(1, 4);
    Rows rows = {between(1, 300), channels, height, width, element, 0, 0, 0};
    if (between(0, 1)) rows.slices = 1, rows.pixel_bytes *= channels;  // channels-last
    rows.row_stride = rows.row_bytes() + (between(0, 3) ? 0 : element * between(0, 9));
    rows.slice_stride = height * rows.row_stride + (between(0, 3) ? 0 : element * between(0, 9));
    rows.sample_stride = rows.slices * rows.slice_stride;

    MixCall call = {};
    call.plan.batch = static_cast<int32_t>(rows.batch);
    call.plan.height = static_cast<int32_t>(height);
    call.plan.width = static_cast<int32_t>(width);
    call.images.in_rows = call.images.out_rows = rows;
    call.images.dtype = Dtype::kOther;
    // Addresses, of which only the alignment counts: nothing is read.
    call.images.in = reinterpret_cast<const uint8_t*>(uintptr_t{1} << 20);
    call.images.out = reinterpret_cast<uint8_t*>((uintptr_t{1} << 40) + element * (between(0, 3) ? 0 : 1));

    const Launch launch = launch_geometry(call);
    const Pixels& pixels = launch.params.pixels;
    const int64_t blocks = pixels.blocks_in_chunk.divisor, runs = rows.slices * height / pixels.rows_in_run;
    const int64_t chunks = pixels.blocks_in_run.divisor / blocks;
    require(runs * int64_t{pixels.rows_in_run} == rows.slices * height, "runs miss or repeat rows");
    require((blocks - 1) * int64_t{pixels.rows_in_block} < pixels.rows_in_run, "a block begins behind the last row");
    require(blocks * int64_t{pixels.rows_in_block} >= pixels.rows_in_run, "rows are left to no block");
    require(chunks * pixels.chunk_vectors.divisor >= pixels.row_vectors, "vectors are left to no chunk");
    require((chunks - 1) * pixels.chunk_vectors.divisor < pixels.row_vectors, "a chunk begins behind the last vector");
    require(launch.grid == rows.batch * runs * chunks * blocks + launch.params.plan_blocks, "a grid of another size");
}

// Between finite elements a blend lies, to the rounding of its terms; whatever they are it is some element.
template <typename Element>
void fuzz_blend(double rounding) {
    using Bits = typename Element::Bits;
    Bits bits[2];
    for (int i = 0; i < 20; ++i) {
        for (Bits& each : bits) {
            const uint64_t word = random_bits();
            std::memcpy(&each, &word, sizeof each);
        }
        const float lam =
            between(0, 3) ? static_cast<float>(between(0, 1 << 24)) * 0x1p-24f : static_cast<float>(between(0, 1));
        const double own = Element::value(bits[0]), partner = Element::value(bits[1]);
        const double mixed = Element::value(computed<Element>(Kind::kMixUp, lam, bits[0], bits[1]));
        if (!std::isfinite(own) || !std::isfinite(partner) || std::isinf(mixed)) continue;
        const double slack = rounding * std::max(std::abs(own), std::abs(partner)) + 0x1p-24;
        require(mixed >= std::min(own, partner) - slack && mixed <= std::max(own, partner) + slack,
                "a blend lies outside");
    }
}

}  // namespace

int main(int argc, char**) {
    if (argc > 1) {
        const std::unique_ptr<float[]> table(new float[kQuantileIntervals]());
        return quantile(table.get(), 0xFFFFFFFFu) > 2;
    }
    for (int i = 0; i < 5000; ++i) {
        fuzz_plan();
        fuzz_rows();
        fuzz_targets();
        fuzz_halves();
        fuzz_launch();
        fuzz_blend<ElementU8>(0);
        fuzz_blend<ElementF16>(0x1p-10);
        fuzz_blend<ElementBF16>(0x1p-7);
        fuzz_blend<ElementF32>(0x1p-22);
        fuzz_blend<ElementF64>(0x1p-51);
    }
}
