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
    std::vector<int32_t> mates;  // the same, in place
};

CheckedPatches checked_patches(const PatchCall& call) {
    const PlanRow* rows = call.sampled_rows ? call.sampled_rows : call.rows;
    const Box* sources = call.sampled_rows ? call.sampled_sources : call.sources;
    const int64_t count = int64_t{call.samples} * call.patches;
    CheckedPatches checked = {
        std::vector<Patch>(static_cast<size_t>(count)), std::vector<uint8_t>(static_cast<size_t>(call.samples)), {}};
    for (int32_t i = 0; i < call.samples; ++i) {
        Patch* own = checked.patches.data() + int64_t{i} * call.patches;
        bool valid = true;
        if (call.images.in_place) checked.mates.push_back(mate_of(call, i));
        for (int32_t k = 0; k < call.patches; ++k) {
            const int64_t at = int64_t{i} * call.patches + k;
            own[k] = {rows[at], sources ? sources[at] : rows[at].box};
            valid = valid && valid_patch(own[k], call) &&
                    (!call.images.in_place || valid_in_place(own[k], checked.mates.back()));
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
    void weights_of_row(const Patch& patch, int32_t channel, int32_t y, float* below) const {
        const Box& box = patch.row.box;
        const int32_t cell_y = patch.mask() == 0 ? 0 : cell_of(y, call.masks.height, call.height);
        for (int32_t x = box.x0; x < box.x1; ++x)
            below[x] = weight_in_box(patch, call.masks, channel, cell_y,
                                     patch.mask() == 0 ? 0 : cells[static_cast<size_t>(x)]);
    }
};

bool covers_row(const Patch& patch, int32_t y) {
    return patch.kind() != Kind::kKeep && y >= patch.row.box.y0 && y < patch.row.box.y1;
}

// Whose the pixels of a row are, or what of them is of one channel.
struct RowOwners {
    std::vector<int32_t> owner;    // of each pixel: kCanvas or a patch
    std::vector<uint8_t> blended;  // whether patches above it are blended over it
    std::vector<float> below;      // (patches, width), the weights of what lies below; of blended pixels alone
    bool any_blended = false;

    void find(const Work& work, const Patch* patches, int32_t channel, int32_t y) {
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
            work.weights_of_row(patch, channel, y, row);
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

// What of a pixel is to be painted: so many bytes from the first on, and after each step.
struct PixelPart {
    int64_t first, bytes, step;
};

// A row of pixels to be painted, of one slice of a sample.
struct PaintedRow {
    const Work& work;
    const Patch* patches;
    const RowOwners& owners;
    PixelPart part;
    int32_t sample;
    int64_t slice;
    int32_t y;
    const uint8_t* partner;  // in place, the mate's row; else null

    uint8_t* out() const {
        const Rows& rows = work.call.images.out_rows;
        return work.call.images.out + sample * rows.sample_stride + slice * rows.slice_stride + y * rows.row_stride;
    }
};

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

PatchRow patch_row(const PaintedRow& row, const Patch& patch) {
    if (!has_partner(patch.kind())) return {&patch, row.work.fill_row.data()};
    if (row.partner) return {&patch, row.partner};
    const Box &box = patch.row.box, &source = patch.source;
    return {&patch, sample_at(row.work.call, patch.row.partner, row.slice,
                              source_of(row.y, box.y0, box.y1, source.y0, source.y1))};
}

// A patch that is blended over pixels of a row.
struct BlendedPatch {
    int32_t index;
    PatchRow row;
    const float* below;
};

template <typename Element>
void blend_pixels(const PaintedRow& row) {
    using Bits = typename Element::Bits;
    const PatchCall& call = row.work.call;
    const RowOwners& owners = row.owners;
    const int64_t pixel_bytes = call.images.out_rows.pixel_bytes;
    uint8_t* const out = row.out();
    std::vector<BlendedPatch> above;
    for (int32_t k = 0; k < call.patches; ++k) {
        const Patch& patch = row.patches[k];
        if ((patch.mask() != 0 || blends(patch.kind())) && covers_row(patch, row.y))
            above.push_back({k, patch_row(row, patch),
                             owners.below.data() + static_cast<size_t>(k) * static_cast<size_t>(call.width)});
    }
    for (int32_t x = 0; x < call.width; ++x) {
        if (!owners.blended[static_cast<size_t>(x)]) continue;
        uint8_t* const pixel = out + x * pixel_bytes;
        for (int64_t byte = row.part.first; byte < pixel_bytes; byte += row.part.step)
            for (int64_t at = byte; at < byte + row.part.bytes; at += static_cast<int64_t>(sizeof(Bits))) {
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

void blend_row(const PaintedRow& row) {
    switch (row.work.call.images.dtype) {
        case Dtype::kU8:
            return blend_pixels<ElementU8>(row);
        case Dtype::kF16:
            return blend_pixels<ElementF16>(row);
        case Dtype::kBF16:
            return blend_pixels<ElementBF16>(row);
        case Dtype::kF32:
            return blend_pixels<ElementF32>(row);
        case Dtype::kF64:
            return blend_pixels<ElementF64>(row);
        default:  // a plan that blends is not valid for any other
            return;
    }
}

// What every pixel's owner brings, and what is blended over it.
void paint_row(const PaintedRow& row) {
    const PatchCall& call = row.work.call;
    const RowOwners& owners = row.owners;
    const int64_t pixel = call.images.out_rows.pixel_bytes;
    uint8_t* const out = row.out();
    const uint8_t* const canvas = sample_at(call, row.sample % call.batch, row.slice, row.y);
    const auto move_part = [&](uint8_t* to, const uint8_t* from) {
        for (int64_t at = row.part.first; at < pixel; at += row.part.step)
            std::memcpy(to + at, from + at, static_cast<size_t>(row.part.bytes));
    };
    for (int32_t x = 0, end; x < call.width; x = end) {
        const int32_t owner = owners.owner[static_cast<size_t>(x)];
        end = x + 1;
        while (end < call.width && owners.owner[static_cast<size_t>(end)] == owner) ++end;
        const bool own = owner == kCanvas;
        if (own && canvas == out) continue;
        const PatchRow from = own ? PatchRow{} : patch_row(row, row.patches[owner]);
        const auto brought = [&](int32_t column) { return own ? canvas + column * pixel : from.at(column, pixel); };
        if (row.part.bytes == pixel && (own || from.runs()))
            std::memcpy(out + x * pixel, brought(x), static_cast<size_t>((end - x) * pixel));
        else
            for (int32_t each = x; each < end; ++each) move_part(out + each * pixel, brought(each));
    }
    if (owners.any_blended) blend_row(row);
}

// Calls a function with each channel that masks tell apart, and with a function that calls another with each slice that
// it is in and the part of the pixels.
template <typename Function>
void for_each_channel(const PatchCall& call, const Function& function) {
    const int64_t channels = call.masks.channels, step = call.channel_place.step;
    const int64_t pixel = call.images.out_rows.pixel_bytes, slices = call.images.out_rows.slices;
    const bool in_pixel = call.channel_place.in_pixel;
    for (int64_t channel = 0; channel < channels; ++channel)
        function(static_cast<int32_t>(channel), [&](const auto& of_slice) {
            PixelPart part = {0, pixel, pixel};
            if (channels > 1 && in_pixel) part = {channel * step, step, channels * step};
            for (int64_t slice = 0; slice < slices; ++slice)
                if (channels == 1 || in_pixel || slice / step % channels == channel) of_slice(slice, part);
        });
}

void paint_rows(const Work& work, int64_t begin, int64_t end) {
    RowOwners owners;
    for (int64_t row = begin; row < end; ++row) {
        const int32_t sample = static_cast<int32_t>(row / work.call.height);
        const int32_t y = static_cast<int32_t>(row % work.call.height);
        const Patch* const patches = work.patches_of(sample);
        for_each_channel(work.call, [&](int32_t channel, const auto& with_slices) {
            owners.find(work, patches, channel, y);
            with_slices([&](int64_t slice, const PixelPart& part) {
                paint_row({work, patches, owners, part, sample, slice, y, nullptr});
            });
        });
    }
}

// ---- In place

// Which of a sample's patches matter in a row.
struct RowNeeds {
    bool changes = false, reads_mate = false;

    RowNeeds(const Patch* patches, int32_t count, int32_t y) {
        for (int32_t k = 0; k < count; ++k) {
            if (!covers_row(patches[k], y)) continue;
            changes = true;
            reads_mate = reads_mate || has_partner(patches[k].kind());
        }
    }
};

// Rows of pairs, each at the first of its two samples. That one is painted first, after a copy of what it was for the
// other.
void paint_rows_in_place(const Work& work, int64_t begin, int64_t end) {
    const PatchCall& call = work.call;
    const Rows& rows = call.images.out_rows;
    RowOwners owners, mate_owners;
    std::vector<uint8_t> copy(static_cast<size_t>(rows.row_bytes()));
    for (int64_t row = begin; row < end; ++row) {
        const int32_t sample = static_cast<int32_t>(row / call.height), y = static_cast<int32_t>(row % call.height);
        const int32_t mate = work.plan.mates[static_cast<size_t>(sample)];
        if (mate < sample) continue;
        const bool alone = mate == sample;
        const Patch *const patches = work.patches_of(sample), *const theirs = work.patches_of(mate);
        const RowNeeds own(patches, call.patches, y), other(theirs, call.patches, y);
        if (!own.changes && !other.changes) continue;
        for_each_channel(call, [&](int32_t channel, const auto& with_slices) {
            if (own.changes) owners.find(work, patches, channel, y);
            if (other.changes && !alone) mate_owners.find(work, theirs, channel, y);
            with_slices([&](int64_t slice, const PixelPart& part) {
                if (other.reads_mate) std::memcpy(copy.data(), sample_at(call, sample, slice, y), copy.size());
                const uint8_t* const from = alone ? copy.data() : sample_at(call, mate, slice, y);
                if (own.changes) paint_row({work, patches, owners, part, sample, slice, y, from});
                if (other.changes && !alone) paint_row({work, theirs, mate_owners, part, mate, slice, y, copy.data()});
            });
        });
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
    const int64_t pixels = int64_t{call.height} * call.width * call.masks.channels;
    int64_t own = pixels * (int64_t{1} << 24);
    const bool empty = own == 0;
    if (!call.weights) {
        const size_t width = static_cast<size_t>(call.width);
        scratch->below.resize(width);
        for (int32_t channel = 0; channel < call.masks.channels; ++channel) {
            for (int32_t y = 0, next; y < call.height; y = next) {
                next = next_cut(call, patches, y);
                scratch->left.assign(width, 1.0f);
                for (int32_t k = call.patches - 1; k >= 0; --k) {
                    if (!mixes_target(patches[k].kind()) || !covers_row(patches[k], y)) continue;
                    work.weights_of_row(patches[k], channel, y, scratch->below.data());
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
            made.weight = share_of(part == 0 ? own : units[static_cast<size_t>(part - 1)], static_cast<float>(pixels));
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
            const auto paint = call.images.in_place ? paint_rows_in_place : paint_rows;
            parallel(0, int64_t{call.samples} * call.height, grain,
                     [&](int64_t begin, int64_t end) { paint(work, begin, end); });
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
