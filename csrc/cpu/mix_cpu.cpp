// Mixing on the CPU: one pass over the rows, on torch's own threads.

#include <algorithm>
#include <cstring>
#include <vector>

#include "mix_ops.h"

namespace cutmix {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kBytesPerTask = 1 << 15;    // less than this is not worth a thread
constexpr int64_t kTargetsPerTask = 1 << 13;  // target values
constexpr int64_t kPlanRowsPerTask = 1 << 8;

int64_t rows_per_task(const Rows& rows) {
    return std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(1, rows.row_bytes()));
}

int64_t targets_per_task(const Targets& targets) {
    return std::max<int64_t>(1, kTargetsPerTask / std::max<int64_t>(1, targets.num_classes));
}

// ---- The plan

void sample_plan(const Plan& plan) {
    const PartnerMap map = partner_map(plan.sampling.partner, plan.seed, static_cast<uint32_t>(plan.batch));
    parallel_for(0, plan.batch, kPlanRowsPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            plan.sampled[i] = sample_row(plan.sampling, plan.seed, map, static_cast<uint32_t>(i));
    });
}

// A sample's row of the plan, and whether it may be followed.
struct CheckedRow {
    PlanRow row;
    bool valid;

    bool pastes() const { return valid && row.kind == static_cast<int32_t>(Kind::kCutMix); }
};

std::vector<CheckedRow> checked_rows(const Plan& plan, bool in_place) {
    const PlanRow* rows = plan.given ? plan.given : plan.sampled;
    std::vector<CheckedRow> checked(static_cast<size_t>(plan.batch));
    for (int32_t i = 0; i < plan.batch; ++i) {
        const PlanRow& row = rows[i];
        const bool valid = valid_row(row, plan.batch, plan.height, plan.width);
        checked[i] = {row, valid && (!in_place || rows[row.partner].partner == i)};
    }
    return checked;
}

// ---- Pixels

const uint8_t* row_at(const uint8_t* base, const Rows& rows, int64_t sample, int64_t slice, int64_t y) {
    return base + sample * rows.sample_stride + slice * rows.slice_stride + y * rows.row_stride;
}

uint8_t* row_at(uint8_t* base, const Rows& rows, int64_t sample, int64_t slice, int64_t y) {
    return base + sample * rows.sample_stride + slice * rows.slice_stride + y * rows.row_stride;
}

struct Run {
    int64_t begin, end;  // bytes of a row

    int64_t size() const { return end - begin; }
};

Run run_of(const Box& box, const Rows& rows) { return {box.x0 * rows.pixel_bytes, box.x1 * rows.pixel_bytes}; }

// `count` consecutive rows without a gap, the first of them at height y: copies own, with the box from partner.
void mix_span(const uint8_t* own, const uint8_t* partner, uint8_t* out, int64_t y, int64_t count, const Rows& rows,
              const Box& box) {
    const int64_t row_bytes = rows.row_bytes(), total = count * row_bytes;
    const Run run = run_of(box, rows);
    int64_t done = 0;  // bytes
    if (run.size() > 0 && box.y1 > box.y0) {
        for (int64_t top = -y; top < count; top += rows.height) {  // the first row of a slice, relative to the span
            for (int64_t row = std::max<int64_t>(0, top + box.y0); row < std::min(count, top + box.y1); ++row) {
                const int64_t begin = row * row_bytes + run.begin;
                std::memcpy(out + done, own + done, begin - done);
                std::memcpy(out + begin, partner + begin, run.size());
                done = begin + run.size();
            }
        }
    }
    std::memcpy(out + done, own + done, total - done);
}

// Rows [begin, end) of all samples' rows.
void mix_out_of_place(const Images& images, const std::vector<CheckedRow>& plan, int64_t begin, int64_t end) {
    const Rows &in = images.in_rows, &out = images.out_rows;
    const int64_t rows_per_sample = in.slices * in.height;
    const bool dense = in.dense() && out.dense();
    while (begin < end) {
        const int64_t sample = begin / rows_per_sample, row = begin % rows_per_sample;
        const int64_t slice = row / in.height, y = row % in.height;
        const int64_t count = dense ? std::min(end - begin, rows_per_sample - row) : 1;
        const CheckedRow& checked = plan[sample];
        const Box box = checked.pastes() ? checked.row.box : Box{0, 0, 0, 0};
        const int64_t partner = checked.pastes() ? checked.row.partner : sample;
        mix_span(row_at(images.in, in, sample, slice, y), row_at(images.in, in, partner, slice, y),
                 row_at(images.out, out, sample, slice, y), y, count, in, box);
        begin += count;
    }
}

void swap_bytes(uint8_t* a, uint8_t* b, int64_t count) {
    for (int64_t k = 0; k < count; ++k) std::swap(a[k], b[k]);
}

// One row of a pair: a takes b's bytes in run_a, b takes a's in run_b; where both do, they swap. Every byte is read
// before it is overwritten, and none outside the runs is touched.
void exchange_row(uint8_t* a, uint8_t* b, Run run_a, Run run_b) {
    const int64_t both_begin = std::max(run_a.begin, run_b.begin), both_end = std::min(run_a.end, run_b.end);
    if (both_begin >= both_end) {
        std::memcpy(a + run_a.begin, b + run_a.begin, run_a.size());
        std::memcpy(b + run_b.begin, a + run_b.begin, run_b.size());
        return;
    }
    swap_bytes(a + both_begin, b + both_begin, both_end - both_begin);
    const auto copy = [](uint8_t* to, const uint8_t* from, int64_t begin, int64_t end) {
        if (begin < end) std::memcpy(to + begin, from + begin, end - begin);
    };
    copy(a, b, run_a.begin, both_begin);
    copy(a, b, both_end, run_a.end);
    copy(b, a, run_b.begin, both_begin);
    copy(b, a, both_end, run_b.end);
}

struct Pair {
    int64_t a, b;
};

// The pairs of samples between which pixels move in place.
std::vector<Pair> pairs_of(const std::vector<CheckedRow>& plan) {
    std::vector<Pair> pairs;
    for (int64_t i = 0; i < static_cast<int64_t>(plan.size()); ++i) {
        if (!plan[i].valid) continue;
        const int64_t partner = plan[i].row.partner;
        const bool owns_pair = i < partner || (i > partner && !plan[partner].valid);  // once for the two of them
        if (owns_pair && (plan[i].pastes() || plan[partner].pastes())) pairs.push_back({i, partner});
    }
    return pairs;
}

// Rows [begin, end) of all pairs' rows.
void mix_in_place(const Images& images, const std::vector<CheckedRow>& plan, const std::vector<Pair>& pairs,
                  int64_t begin, int64_t end) {
    const Rows& rows = images.out_rows;
    const int64_t rows_per_sample = rows.slices * rows.height;
    for (int64_t index = begin; index < end; ++index) {
        const Pair& pair = pairs[index / rows_per_sample];
        const int64_t row = index % rows_per_sample, slice = row / rows.height, y = row % rows.height;
        const auto run_at = [&](const CheckedRow& checked) {
            const Box& box = checked.row.box;
            return checked.pastes() && y >= box.y0 && y < box.y1 ? run_of(box, rows) : Run{0, 0};
        };
        const Run run_a = run_at(plan[pair.a]), run_b = run_at(plan[pair.b]);
        if (run_a.size() == 0 && run_b.size() == 0) continue;
        exchange_row(row_at(images.out, rows, pair.a, slice, y), row_at(images.out, rows, pair.b, slice, y), run_a,
                     run_b);
    }
}

// ---- Targets

template <typename Element>
void repeat_first(void* row, int64_t count) {
    Element* elements = static_cast<Element*>(row);
    std::fill(elements + 1, elements + count, *elements);
}

// All columns of a row that are neither of its two classes hold one value.
void write_class_row(const Targets& targets, const TargetRow& row) {
    const int64_t classes = targets.num_classes;
    const int64_t element_bytes = targets.out_dtype == Dtype::kF64 ? 8 : targets.out_dtype == Dtype::kF32 ? 4 : 2;
    void* first = static_cast<uint8_t*>(targets.out) + row.sample * classes * element_bytes;
    TargetRow other = row;
    other.own_class = other.partner_class = -1;
    write_target(targets, other, 0);
    if (element_bytes == 8) repeat_first<uint64_t>(first, classes);
    if (element_bytes == 4) repeat_first<uint32_t>(first, classes);
    if (element_bytes == 2) repeat_first<uint16_t>(first, classes);
    if (!row.valid) return;
    write_target(targets, row, row.own_class);
    write_target(targets, row, row.partner_class);
}

void write_targets(const Targets& targets, const std::vector<CheckedRow>& plan, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
        const TargetRow row = target_row(targets, plan[i].row, plan[i].valid, static_cast<int32_t>(i));
        if (is_float(targets.labels_dtype))
            for (int32_t column = 0; column < targets.num_classes; ++column) write_target(targets, row, column);
        else
            write_class_row(targets, row);
    }
}

// ---- All of it

// count * part / whole, without overflow on the way.
int64_t share_of(int64_t count, int64_t part, int64_t whole) {
    return static_cast<int64_t>(static_cast<unsigned __int128>(count) * part / whole);
}

struct Cpu {
    // Pixels and targets in one parallel region: a task that takes a share of the rows takes as large a share of the
    // targets, so the threads wait for each other once.
    static void run(const MixCall& call, const Tensor&) {
        if (!call.plan.given) sample_plan(call.plan);
        const Images& images = call.images;
        const Targets& targets = call.targets;
        const std::vector<CheckedRow> plan = checked_rows(call.plan, images.in_place);
        const std::vector<Pair> pairs = images.in_place ? pairs_of(plan) : std::vector<Pair>();
        const int64_t batch = call.plan.batch, target_rows = targets.out && targets.num_classes > 0 ? batch : 0;
        int64_t pixel_rows = 0;
        if (images.out)
            pixel_rows = (images.in_place ? static_cast<int64_t>(pairs.size()) : batch) * images.out_rows.slices *
                         images.out_rows.height;

        const int64_t all = pixel_rows > 0 ? pixel_rows : target_rows;
        const int64_t grain = pixel_rows > 0 ? rows_per_task(images.out_rows) : targets_per_task(targets);
        parallel_for(0, all, grain, [&](int64_t begin, int64_t end) {
            if (pixel_rows > 0 && images.in_place) mix_in_place(images, plan, pairs, begin, end);
            if (pixel_rows > 0 && !images.in_place) mix_out_of_place(images, plan, begin, end);
            write_targets(targets, plan, share_of(target_rows, begin, all), share_of(target_rows, end, all));
        });
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CPU, library) { cutmix::MixOps<cutmix::Cpu>::register_ops(library); }
