// The batch tail on the CPU: one pass over the rows of the output, on torch's own threads.

#include <algorithm>
#include <cstring>
#include <vector>

#include "augment_ops.h"

namespace cutmix {
namespace {

using torch::stable::parallel_for;

constexpr int64_t kElementsPerTask = 1 << 13;
constexpr int64_t kSamplesPerTask = 1 << 6;

// ---- The plan and the views

void sample_plan(const AugmentCall& call) {
    const Plan& plan = call.plan;
    const uint32_t batch = static_cast<uint32_t>(plan.batch);
    const PartnerMap map = partner_map(plan.draw.sampling.partner, plan.seed, batch);
    for (uint32_t i = 0; i < batch; ++i)
        plan.sampled[i] = sample_row(plan.draw, plan.seed, i, partner_of(map, i, batch));
}

void sample_views(const AugmentCall& call) {
    const Views& views = call.views;
    parallel_for(0, call.plan.batch, kSamplesPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const auto index = static_cast<uint32_t>(i);
            int32_t* view = views.sampled + i * views.columns();
            const Geometry geometry = sample_geometry(views.sampling, call.plan.seed, index);
            std::memcpy(view, &geometry, sizeof geometry);
            const int32_t count = sample_box_count(views.sampling, call.plan.seed, index);
            for (int32_t number = 0; number < views.boxes; ++number) {
                const Box box = sample_box(views.sampling, call.plan.seed, index, number, count);
                std::memcpy(view + (1 + number) * Views::kQuadruple, &box, sizeof box);
            }
        }
    });
}

// A sample before it is mixed: its own pixels through its view.
struct Seen {
    int64_t sample;
    Geometry geometry;
    std::vector<Box> erased;
};

// What becomes of a sample. One that cannot be followed is kept, and seen as it is.
struct Followed {
    PlanRow row;
    bool valid;

    Kind kind() const { return valid ? static_cast<Kind>(row.kind) : Kind::kKeep; }
};

struct Work {
    const AugmentCall& call;
    std::vector<Seen> seen;
    std::vector<Followed> samples;

    explicit Work(const AugmentCall& of) : call(of) {
        const Plan& plan = call.plan;
        const PlanRow* rows = plan.given ? plan.given : plan.sampled;
        std::vector<bool> valid_views;
        for (int32_t i = 0; i < plan.batch; ++i) {
            seen.push_back(view_of(i));
            const Seen& one = seen.back();
            valid_views.push_back(valid_geometry(one.geometry, plan.height, plan.width) &&
                                  std::all_of(one.erased.begin(), one.erased.end(),
                                              [&](const Box& box) { return valid_box(box, plan.height, plan.width); }));
        }
        for (int32_t i = 0; i < plan.batch; ++i) {
            const PlanRow& row = rows[i];
            const auto kind = static_cast<Kind>(row.kind);
            const bool valid = valid_row(row, plan.batch, plan.height, plan.width, true) && valid_views[i] &&
                               (!has_partner(kind) || valid_views[row.partner]);
            samples.push_back({row, valid});
        }
    }

    Seen view_of(int64_t sample) const {
        const int32_t* packed = call.views.given ? call.views.given : call.views.sampled;
        const int32_t* view = packed + sample * call.views.columns();
        Seen one = {sample, {}, std::vector<Box>(static_cast<size_t>(call.views.boxes))};
        std::memcpy(&one.geometry, view, sizeof one.geometry);
        if (call.views.boxes > 0)
            std::memcpy(one.erased.data(), view + Views::kQuadruple, one.erased.size() * sizeof(Box));
        return one;
    }
};

// ---- Pixels

enum Constant : int32_t { kMean = 0, kScale = 1, kErase = 2, kFill = 3 };

float constant_of(const AugmentCall& call, Constant which, int32_t channel) {
    const Constants& constants = call.constants;
    return constants.wide ? constants.wide[which * int64_t{call.images.channels} + channel]
                          : constants.few[which][channel];
}

using Row = std::vector<float>;  // of one channel

template <typename Element>
void load_row(const AugmentCall& call, const Seen& seen, int32_t channel, int32_t y, Row& row) {
    const Strides& strides = call.images.in_strides;
    const int32_t height = call.plan.height, width = call.plan.width, from = source_y(seen.geometry, y);
    std::fill(row.begin(), row.end(), 0.0f);
    if (from < 0 || from >= height) return;
    const auto* in = static_cast<const typename Element::Bits*>(call.images.in) + seen.sample * strides.sample +
                     channel * strides.channel + from * strides.row;
    for (int32_t x = 0; x < width; ++x) {
        const int32_t column = source_x(seen.geometry, x, width);
        if (column >= 0 && column < width) row[x] = Element::value(in[column * strides.pixel]);
    }
}

void erase_row(const AugmentCall& call, const Seen& seen, int32_t channel, int32_t y, Row& row) {
    const auto index = static_cast<uint32_t>(seen.sample);
    for (size_t number = 0; number < seen.erased.size(); ++number) {
        const Box& box = seen.erased[number];
        if (y < box.y0 || y >= box.y1) continue;
        if (call.erasing.value == EraseValue::kPixel) {
            const uint32_t first = static_cast<uint32_t>(y) * static_cast<uint32_t>(call.plan.width);
            for (int32_t x = box.x0; x < box.x1; ++x)
                row[x] = noise(call.plan.seed, index, first + static_cast<uint32_t>(x), channel);
            continue;
        }
        const float value = call.erasing.value == EraseValue::kChannel
                                ? noise(call.plan.seed, index, static_cast<uint32_t>(number), channel)
                                : constant_of(call, kErase, channel);
        std::fill(row.begin() + box.x0, row.begin() + box.x1, value);
    }
}

// A row of one channel as it is before mixing.
void see_row(const AugmentCall& call, const Seen& seen, int32_t channel, int32_t y, Row& row) {
    switch (call.images.in_dtype) {
        case Dtype::kU8:
            load_row<ElementU8>(call, seen, channel, y, row);
            break;
        case Dtype::kF16:
            load_row<ElementF16>(call, seen, channel, y, row);
            break;
        case Dtype::kBF16:
            load_row<ElementBF16>(call, seen, channel, y, row);
            break;
        default:
            load_row<ElementF32>(call, seen, channel, y, row);
            break;
    }
    const float mean = constant_of(call, kMean, channel), scale = constant_of(call, kScale, channel);
    for (float& value : row) value = normalized(value, mean, scale);
    if (call.erasing.order == EraseOrder::kBefore) erase_row(call, seen, channel, y, row);
}

template <typename Element>
void store_row(const AugmentCall& call, const Row& row, int64_t sample, int32_t channel, int32_t y) {
    const Strides& strides = call.images.out_strides;
    auto* out = static_cast<typename Element::Bits*>(call.images.out) + sample * strides.sample +
                channel * strides.channel + y * strides.row;
    for (size_t x = 0; x < row.size(); ++x) out[static_cast<int64_t>(x) * strides.pixel] = Element::of(row[x]);
}

void store_row(const AugmentCall& call, const Row& row, int64_t sample, int32_t channel, int32_t y) {
    switch (call.images.out_dtype) {
        case Dtype::kU8:
            return store_row<ElementU8>(call, row, sample, channel, y);
        case Dtype::kF16:
            return store_row<ElementF16>(call, row, sample, channel, y);
        case Dtype::kBF16:
            return store_row<ElementBF16>(call, row, sample, channel, y);
        default:
            return store_row<ElementF32>(call, row, sample, channel, y);
    }
}

// Row y of one channel of a sample, into `own`; `partner` is room for the partner's.
void augment_row(const Work& work, const Followed& sample, const Seen& seen, int32_t channel, int32_t y, Row& own,
                 Row& partner) {
    const AugmentCall& call = work.call;
    const PlanRow& planned = sample.row;
    const bool in_box = y >= planned.box.y0 && y < planned.box.y1;
    see_row(call, seen, channel, y, own);
    switch (sample.kind()) {
        case Kind::kCutMix:
            if (!in_box) break;
            see_row(call, work.seen[planned.partner], channel, y, partner);
            std::copy(partner.begin() + planned.box.x0, partner.begin() + planned.box.x1, own.begin() + planned.box.x0);
            break;
        case Kind::kMixUp:
            see_row(call, work.seen[planned.partner], channel, y, partner);
            for (size_t x = 0; x < own.size(); ++x) own[x] = mixed_value(planned.lam, own[x], partner[x]);
            break;
        case Kind::kCutout:
            if (in_box)
                std::fill(own.begin() + planned.box.x0, own.begin() + planned.box.x1,
                          constant_of(call, kFill, channel));
            break;
        case Kind::kKeep:
            break;
    }
    if (call.erasing.order == EraseOrder::kAfter) erase_row(call, seen, channel, y, own);
}

// Rows [begin, end) of all samples' rows, each of all channels.
void augment_rows(const Work& work, int64_t begin, int64_t end) {
    const AugmentCall& call = work.call;
    Row own(static_cast<size_t>(call.plan.width)), partner(own.size());
    for (int64_t row = begin; row < end; ++row) {
        const int64_t sample = row / call.plan.height;
        const auto y = static_cast<int32_t>(row % call.plan.height);
        const Followed& followed = work.samples[sample];
        const Seen as_it_is = {sample, {}, {}}, &seen = followed.valid ? work.seen[sample] : as_it_is;
        for (int32_t channel = 0; channel < call.images.channels; ++channel) {
            augment_row(work, followed, seen, channel, y, own, partner);
            store_row(call, own, sample, channel, y);
        }
    }
}

// ---- All of it

struct Cpu {
    static void run(const AugmentCall& call, const Tensor&) {
        if (call.plan.sampled) sample_plan(call);
        if (call.views.sampled) sample_views(call);
        const Targets& targets = call.targets;
        if (!call.images.out && !targets.out) return;
        const Work work(call);
        if (call.images.out) {
            const int64_t row_elements = int64_t{call.plan.width} * call.images.channels;
            const int64_t rows_per_task = std::max<int64_t>(1, kElementsPerTask / row_elements);
            parallel_for(0, int64_t{call.plan.batch} * call.plan.height, rows_per_task,
                         [&](int64_t begin, int64_t end) { augment_rows(work, begin, end); });
        }
        if (!targets.out) return;
        const int64_t samples_per_task = std::max<int64_t>(1, kElementsPerTask / std::max(1, targets.num_classes));
        parallel_for(0, call.plan.batch, samples_per_task, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const Followed& sample = work.samples[i];
                const TargetRow row = target_row(targets, sample.row, sample.valid, static_cast<int32_t>(i));
                for (int32_t column = 0; column < targets.num_classes; ++column) write_target(targets, row, column);
            }
        });
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CPU, library) { cutmix::AugmentOps<cutmix::Cpu>::register_ops(library); }
