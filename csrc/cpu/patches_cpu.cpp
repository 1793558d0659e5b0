// Several patches a sample on the CPU: a row of pixels at a time, as runs of bytes of one owner each.

#include <algorithm>
#include <cstring>
#include <vector>

#include "../patch_ops.h"
#include "threads.h"

namespace cutmix {
namespace {

constexpr int64_t kBytesPerTask = 1 << 15;  // less than this is not worth a thread
constexpr int64_t kPatchesPerTask = 1 << 7;
constexpr int64_t kTargetsPerTask = 1 << 12;
constexpr int32_t kCanvas = -1;  // the owner of a pixel that no patch brings

// ---- The plan

void sample_patches(const PatchCall& call) {
    const uint32_t batch = static_cast<uint32_t>(call.batch);
    const PartnerMap map = partner_map(call.draw.kinds.sampling.partner, call.seed, batch);
    const int64_t patches = call.patches;
    parallel(0, call.samples * patches, kPatchesPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
            const uint32_t sample = static_cast<uint32_t>(k / patches);
            const Patch patch = sample_patch(call.draw, call.seed, sample, partner_of(map, sample, batch),
                                             static_cast<uint32_t>(k % patches), batch);
            call.sampled_rows[k] = patch.row;
            call.sampled_sources[k] = patch.source;
        }
    });
}

// The patches of all samples, those of a sample that may not be followed kept.
struct CheckedPatches {
    std::vector<Patch> patches;
    std::vector<uint8_t> valid;  // of samples
};

CheckedPatches checked_patches(const PatchCall& call) {
    const PlanRow* rows = call.sampled_rows ? call.sampled_rows : call.rows;
    const Box* sources = call.sampled_rows ? call.sampled_sources : call.sources;
    const int64_t count = int64_t{call.samples} * call.patches;
    CheckedPatches checked = {std::vector<Patch>(static_cast<size_t>(count)),
                              std::vector<uint8_t>(static_cast<size_t>(call.samples))};
    for (int32_t i = 0; i < call.samples; ++i) {
        Patch* own = checked.patches.data() + int64_t{i} * call.patches;
        bool valid = true;
        for (int32_t k = 0; k < call.patches; ++k) {
            const int64_t at = int64_t{i} * call.patches + k;
            own[k] = {rows[at], sources ? sources[at] : rows[at].box};
            valid = valid && valid_patch(own[k], call);
        }
        for (int32_t k = 0; call.weights && k <= call.patches; ++k)
            valid = valid && valid_weight(call.weights[int64_t{i} * (call.patches + 1) + k]);
        checked.valid[static_cast<size_t>(i)] = valid;
        for (int32_t k = 0; !valid && k < call.patches; ++k) own[k] = {kept_row(0), {0, 0, 0, 0}};
    }
    return checked;
}

// ---- Pixels

// What all rows of a call have in common.
struct Work {
    const PatchCall& call;
    const CheckedPatches& plan;
    std::vector<uint8_t> fill_row;
    std::vector<int32_t> cells;  // the mask's column of each column of pixels

    Work(const PatchCall& of_call, const CheckedPatches& of_plan) : call(of_call), plan(of_plan) {
        if (call.images.out) {
            fill_row.resize(static_cast<size_t>(call.images.out_rows.row_bytes()));
            for (size_t k = 0; k < fill_row.size(); ++k) fill_row[k] = call.images.fill[k % sizeof call.images.fill];
        }
        if (call.masks.count > 0) {
            cells.resize(static_cast<size_t>(call.width));
            for (int32_t x = 0; x < call.width; ++x)
                cells[static_cast<size_t>(x)] = cell_of(x, call.masks.width, call.width);
        }
    }

    const Patch* patches_of(int32_t sample) const { return plan.patches.data() + int64_t{sample} * call.patches; }

    // The weights of what lies below a patch in a row of its box, of which `below` has one for each column.
    void weights_of_row(const Patch& patch, int32_t y, float* below) const {
        const Box& box = patch.row.box;
        const int32_t cell_y = patch.mask() == 0 ? 0 : cell_of(y, call.masks.height, call.height);
        for (int32_t x = box.x0; x < box.x1; ++x)
            below[x] = weight_in_box(patch, call.masks, cell_y, patch.mask() == 0 ? 0 : cells[static_cast<size_t>(x)]);
    }
};

bool covers_row(const Patch& patch, int32_t y) {
    return patch.kind() != Kind::kKeep && y >= patch.row.box.y0 && y < patch.row.box.y1;
}

// Whose the pixels of a row are.
struct RowOwners {
    std::vector<int32_t> owner;    // of each pixel: kCanvas or a patch
    std::vector<uint8_t> blended;  // whether patches above it are blended over it
    std::vector<float> below;      // (patches, width), the weights of what lies below; of blended pixels alone
    bool any_blended = false;

    void find(const Work& work, const Patch* patches, int32_t y) {
        const size_t width = static_cast<size_t>(work.call.width);
        owner.assign(width, kCanvas);
        any_blended = false;
        for (int32_t k = 0; k < work.call.patches; ++k) {
            const Patch& patch = patches[k];
            const Box& box = patch.row.box;
            if (!covers_row(patch, y)) continue;
            if (patch.mask() == 0 && !blends(patch.kind())) {
                std::fill(owner.begin() + box.x0, owner.begin() + box.x1, k);
                if (any_blended) std::fill(blended.begin() + box.x0, blended.begin() + box.x1, uint8_t{0});
                continue;
            }
            below.resize(width * static_cast<size_t>(work.call.patches));
            float* row = below.data() + width * static_cast<size_t>(k);
            work.weights_of_row(patch, y, row);
            for (int32_t x = box.x0; x < box.x1; ++x) {
                const size_t at = static_cast<size_t>(x);
                if (row[x] == 0.0f) {
                    owner[at] = k;
                    if (any_blended) blended[at] = 0;
                } else if (row[x] < 1.0f) {
                    if (!any_blended) blended.assign(width, 0);
                    any_blended = true;
                    blended[at] = 1;
                }
            }
        }
    }
};

const uint8_t* sample_at(const PatchCall& call, int32_t partner, int64_t slice, int64_t y) {
    const bool first = partner < call.batch;
    const Rows& rows = first ? call.images.in_rows : call.other_rows;
    return (first ? call.images.in : call.other_images) +
           (first ? partner : partner - call.batch) * rows.sample_stride + slice * rows.slice_stride +
           y * rows.row_stride;
}

// A patch as it is seen from a row of one slice: where its columns come from.
struct PatchRow {
    const Patch* patch;
    const uint8_t* from;  // the row that its source reads, or the fill

    // Where the pixel at a column is.
    const uint8_t* at(int32_t x, int64_t pixel_bytes) const {
        const Box &box = patch->row.box, &source = patch->source;
        if (!has_partner(patch->kind())) return from + x * pixel_bytes;
        return from + source_of(x, box.x0, box.x1, source.x0, source.x1) * pixel_bytes;
    }

    // Whether columns side by side are so in the source.
    bool runs() const {
        const Box &box = patch->row.box, &source = patch->source;
        return !has_partner(patch->kind()) || box.x1 - box.x0 == source.x1 - source.x0;
    }
};

PatchRow patch_row(const Work& work, const Patch& patch, int64_t slice, int32_t y) {
    if (!has_partner(patch.kind())) return {&patch, work.fill_row.data()};
    const Box &box = patch.row.box, &source = patch.source;
    return {&patch, sample_at(work.call, patch.row.partner, slice, source_of(y, box.y0, box.y1, source.y0, source.y1))};
}

// A patch that is blended over pixels of a row.
struct BlendedPatch {
    int32_t index;
    PatchRow row;
    const float* below;
};

template <typename Element>
void blend_pixels(const Work& work, const Patch* patches, const RowOwners& owners, int64_t slice, int32_t y,
                  uint8_t* out) {
    using Bits = typename Element::Bits;
    const PatchCall& call = work.call;
    const int64_t pixel_bytes = call.images.out_rows.pixel_bytes;
    std::vector<BlendedPatch> above;
    for (int32_t k = 0; k < call.patches; ++k) {
        const bool may_blend = patches[k].mask() != 0 || blends(patches[k].kind());
        if (may_blend && covers_row(patches[k], y))
            above.push_back({k, patch_row(work, patches[k], slice, y),
                             owners.below.data() + static_cast<size_t>(k) * static_cast<size_t>(call.width)});
    }
    for (int32_t x = 0; x < call.width; ++x) {
        if (!owners.blended[static_cast<size_t>(x)]) continue;
        uint8_t* const pixel = out + x * pixel_bytes;
        for (int64_t at = 0; at < pixel_bytes; at += static_cast<int64_t>(sizeof(Bits))) {
            Bits bits;
            std::memcpy(&bits, pixel + at, sizeof bits);
            auto value = Element::value(bits);
            for (const BlendedPatch& patch : above) {
                const Box& box = patch.row.patch->row.box;
                if (patch.index <= owners.owner[static_cast<size_t>(x)] || x < box.x0 || x >= box.x1) continue;
                const float below = patch.below[x];
                if (!(below < 1.0f)) continue;
                std::memcpy(&bits, patch.row.at(x, pixel_bytes) + at, sizeof bits);
                value = mixed_value(below, value, Element::value(bits));
            }
            bits = Element::of(value);
            std::memcpy(pixel + at, &bits, sizeof bits);
        }
    }
}

void blend_row(const Work& work, const Patch* patches, const RowOwners& owners, int64_t slice, int32_t y,
               uint8_t* out) {
    switch (work.call.images.dtype) {
        case Dtype::kU8:
            return blend_pixels<ElementU8>(work, patches, owners, slice, y, out);
        case Dtype::kF16:
            return blend_pixels<ElementF16>(work, patches, owners, slice, y, out);
        case Dtype::kBF16:
            return blend_pixels<ElementBF16>(work, patches, owners, slice, y, out);
        case Dtype::kF32:
            return blend_pixels<ElementF32>(work, patches, owners, slice, y, out);
        case Dtype::kF64:
            return blend_pixels<ElementF64>(work, patches, owners, slice, y, out);
        default:  // a plan that blends is not valid for any other
            return;
    }
}

// One row of one slice: what every pixel's owner brings, and what is blended over it.
void paint_row(const Work& work, const Patch* patches, const RowOwners& owners, int32_t sample, int64_t slice,
               int32_t y) {
    const PatchCall& call = work.call;
    const Rows& rows = call.images.out_rows;
    const int64_t pixel = rows.pixel_bytes;
    uint8_t* const out =
        call.images.out + sample * rows.sample_stride + slice * rows.slice_stride + y * rows.row_stride;
    const uint8_t* const canvas = sample_at(call, sample % call.batch, slice, y);
    for (int32_t x = 0; x < call.width;) {
        const int32_t owner = owners.owner[static_cast<size_t>(x)];
        int32_t end = x + 1;
        while (end < call.width && owners.owner[static_cast<size_t>(end)] == owner) ++end;
        if (owner == kCanvas) {
            std::memcpy(out + x * pixel, canvas + x * pixel, static_cast<size_t>((end - x) * pixel));
        } else {
            const PatchRow row = patch_row(work, patches[owner], slice, y);
            if (row.runs())
                std::memcpy(out + x * pixel, row.at(x, pixel), static_cast<size_t>((end - x) * pixel));
            else
                for (int32_t each = x; each < end; ++each)
                    std::memcpy(out + each * pixel, row.at(each, pixel), static_cast<size_t>(pixel));
        }
        x = end;
    }
    if (owners.any_blended) blend_row(work, patches, owners, slice, y, out);
}

void paint_rows(const Work& work, int64_t begin, int64_t end) {
    RowOwners owners;
    for (int64_t row = begin; row < end; ++row) {
        const int32_t sample = static_cast<int32_t>(row / work.call.height);
        const int32_t y = static_cast<int32_t>(row % work.call.height);
        const Patch* const patches = work.patches_of(sample);
        owners.find(work, patches, y);
        for (int64_t slice = 0; slice < work.call.images.out_rows.slices; ++slice)
            paint_row(work, patches, owners, sample, slice, y);
    }
}

// ---- Targets

// The first row behind y at which patches, or cells of their masks, begin or end.
int32_t next_cut(const PatchCall& call, const Patch* patches, int32_t y) {
    int32_t next = call.height;
    for (int32_t k = 0; k < call.patches; ++k) {
        const Patch& patch = patches[k];
        if (!mixes_target(patch.kind())) continue;
        for (const int32_t edge : {patch.row.box.y0, patch.row.box.y1})
            if (edge > y) next = std::min(next, edge);
        if (patch.mask() != 0 && covers_row(patch, y)) {
            const int32_t cells = call.masks.height, cell = cell_of(y, cells, call.height);
            next = std::min(next, ((cell + 1) * call.height + cells - 1) / cells);
        }
    }
    return next;
}

struct ShareScratch {
    std::vector<float> left, below;
    std::vector<int64_t> units;
};

// The parts of a sample's target.
void parts_of(const Work& work, int32_t sample, ShareScratch* scratch, std::vector<Part>* parts) {
    const PatchCall& call = work.call;
    const Patch* const patches = work.patches_of(sample);
    const int32_t count = call.patches + 1;
    parts->assign(static_cast<size_t>(count), {});
    std::vector<int64_t>& units = scratch->units;
    units.assign(static_cast<size_t>(call.patches), 0);
    int64_t own = int64_t{call.height} * call.width * (int64_t{1} << 24);
    const bool empty = own == 0;
    if (!call.weights) {
        const size_t width = static_cast<size_t>(call.width);
        scratch->below.resize(width);
        for (int32_t y = 0, next; y < call.height; y = next) {
            next = next_cut(call, patches, y);
            scratch->left.assign(width, 1.0f);
            for (int32_t k = call.patches - 1; k >= 0; --k) {
                if (!mixes_target(patches[k].kind()) || !covers_row(patches[k], y)) continue;
                work.weights_of_row(patches[k], y, scratch->below.data());
                int64_t sum = 0;
                for (int32_t x = patches[k].row.box.x0; x < patches[k].row.box.x1; ++x) {
                    float& left = scratch->left[static_cast<size_t>(x)];
                    const float below = scratch->below[static_cast<size_t>(x)];
                    sum += units_of(left, below);
                    left = mul_rn(left, below);
                }
                units[static_cast<size_t>(k)] += sum * (next - y);
            }
        }
        for (const int64_t each : units) own -= each;
    }
    for (int32_t part = 0; part < count; ++part) {
        Part& made = (*parts)[static_cast<size_t>(part)];
        made.owner = owner_of(call, sample, patches, part);
        made.known_class = -1;
        if (part > 0 && !mixes_target(patches[part - 1].kind()))
            made.weight = 0.0f;
        else if (call.weights)
            made.weight = call.weights[int64_t{sample} * count + part];
        else if (empty)
            made.weight = part == 0 ? 1.0f : 0.0f;
        else
            made.weight = share_of(part == 0 ? own : units[static_cast<size_t>(part - 1)], call.height, call.width);
    }
}

template <typename Value>
void write_row(const PatchCall& call, int32_t sample, const std::vector<Part>& parts, bool valid) {
    const Targets& targets = call.targets;
    const int64_t first = int64_t{sample} * targets.num_classes;
    const int32_t count = static_cast<int32_t>(parts.size());
    // Of class indices: all columns that are no part's class hold one value.
    const bool classes = !is_float(targets.labels_dtype);
    Value elsewhere = valid && classes ? patch_target<Value>(call, parts.data(), count, -2) : nan_value<Value>();
    for (int32_t column = 0; column < targets.num_classes; ++column)
        store_value(targets.out, targets.out_dtype, first + column,
                    valid && !classes ? patch_target<Value>(call, parts.data(), count, column) : elsewhere);
    if (!valid || !classes) return;
    for (const Part& part : parts)
        if (part.weight > 0.0f)
            store_value(targets.out, targets.out_dtype, first + part.known_class,
                        patch_target<Value>(call, parts.data(), count, part.known_class));
}

void write_targets(const Work& work, int64_t begin, int64_t end) {
    const PatchCall& call = work.call;
    ShareScratch scratch;
    std::vector<Part> parts;
    for (int64_t row = begin; row < end; ++row) {
        const int32_t sample = static_cast<int32_t>(row);
        bool valid = work.plan.valid[static_cast<size_t>(sample)];
        parts_of(work, sample, &scratch, &parts);
        for (Part& part : parts) {
            if (!valid || !(part.weight > 0.0f) || is_float(call.targets.labels_dtype)) continue;
            part.known_class = class_of(call, part.owner);
            valid = part.known_class >= 0;
        }
        if (call.targets.out_dtype == Dtype::kF64)
            write_row<double>(call, sample, parts, valid);
        else
            write_row<float>(call, sample, parts, valid);
    }
}

// ---- All of it

struct PatchCpu {
    static bool takes(const PatchCall&) { return true; }

    static void run(const PatchCall& call, const Tensor&) {
        if (call.sampled_rows) sample_patches(call);
        const CheckedPatches plan = checked_patches(call);
        const Work work(call, plan);
        if (call.images.out) {
            const Rows& rows = call.images.out_rows;
            const int64_t grain = std::max<int64_t>(1, kBytesPerTask / std::max<int64_t>(1, rows.row_bytes()));
            parallel(0, int64_t{call.samples} * call.height, grain,
                     [&](int64_t begin, int64_t end) { paint_rows(work, begin, end); });
        }
        if (call.targets.out && call.targets.num_classes > 0) {
            const int64_t grain = std::max<int64_t>(1, kTargetsPerTask / call.targets.num_classes);
            parallel(0, call.samples, grain, [&](int64_t begin, int64_t end) { write_targets(work, begin, end); });
        }
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CPU, library) { cutmix::PatchOps<cutmix::PatchCpu>::register_ops(library); }
