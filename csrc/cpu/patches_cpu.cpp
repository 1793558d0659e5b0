// Several patches a sample on the CPU: rows that are alike at a time, as runs of columns of one owner each.

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "../patch_ops.h"
#include "threads.h"
#include "writers.h"

namespace cutmix {
namespace {

constexpr int64_t kBytesPerTask = 1 << 15;  // less than this is not worth a thread
constexpr int64_t kPatchesPerTask = 1 << 7;
constexpr int64_t kTargetsPerTask = 1 << 12;
constexpr int32_t kBandsAtOnce = 32;  // of which rows are written in one go
constexpr int32_t kCanvas = -1;       // the owner of a pixel that no patch brings
constexpr int64_t kPixelUnits = static_cast<int64_t>(kUnits);

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

struct PaintedRow;
struct RowBuffers;
using PutRows = void(const PaintedRow& row, int32_t end, RowBuffers* buffers);
PutRows* put_rows_for(const Images& images);

// What all rows of a call have in common.
struct Work {
    const PatchCall& call;
    const CheckedPatches& plan;
    PutRows* put_rows = nullptr;  // out of place
    std::vector<uint8_t> fill_row;
    std::vector<int32_t> cells;  // the mask's column of each column of pixels

    Work(const PatchCall& of_call, const CheckedPatches& of_plan) : call(of_call), plan(of_plan) {
        const Images& images = call.images;
        if (images.out) {
            fill_row.resize(static_cast<size_t>(images.out_rows.row_bytes()));
            for (size_t k = 0; k < fill_row.size(); ++k) fill_row[k] = images.fill[k % sizeof images.fill];
            if (!images.in_place) put_rows = put_rows_for(images);
        }
        if (call.masks.count > 0) {
            cells.resize(static_cast<size_t>(call.width));
            for (int32_t x = 0; x < call.width; ++x)
                cells[static_cast<size_t>(x)] = cell_of(x, call.masks.width, call.width);
        }
    }

    const Patch* patches_of(int32_t sample) const { return plan.patches.data() + int64_t{sample} * call.patches; }

    // A row of a bool mask.
    const uint8_t* mask_row(const Patch& patch, int32_t channel, int32_t y) const {
        const Masks& masks = call.masks;
        const int64_t row = plane_of(patch, masks, channel) * masks.height + cell_of(y, masks.height, call.height);
        return static_cast<const uint8_t*>(masks.data) + row * masks.width;
    }

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

// Whether what lies below a patch may have a weight in it that is neither 0 nor 1.
bool is_weighed(const Patch& patch, const Masks& masks) {
    return blends(patch.kind()) || (patch.mask() != 0 && masks.soft);
}

bool changes_pixels(Kind kind) { return kind != Kind::kKeep; }

// Columns of one owner.
struct Run {
    int32_t begin, end, owner;
};

// Rows of a sample that are alike, and whose their pixels are, or what of them is of one channel.
struct Band {
    int32_t end = 0;               // the first row behind them
    std::vector<Run> runs;         // from the first column to the last
    std::vector<uint8_t> blended;  // whether patches above the owner of a column are blended over it
    std::vector<float> below;      // (patches, width), the weights of what lies below; of blended columns alone
    bool any_blended = false;

    // Those from y on, of the patches whose kinds count.
    void find(const Work& work, const Patch* patches, int32_t channel, int32_t y, bool (*counts)(Kind)) {
        const PatchCall& call = work.call;
        owners_.assign(static_cast<size_t>(call.width), kCanvas);
        any_blended = false;
        end = call.height;
        for (int32_t k = 0; k < call.patches; ++k) {
            if (!counts(patches[k].kind())) continue;
            end_before_cut(call, patches[k], y);
            if (covers_row(patches[k], y)) cover(work, patches, k, channel, y);
        }
        find_runs();
    }

  private:
    using Owner = int8_t;  // of a column: kCanvas or a patch
    static_assert(kMostPatches <= 128);

    std::vector<Owner> owners_;

    // No row of the band is behind one at which the patch, or a cell of its mask, begins or ends.
    void end_before_cut(const PatchCall& call, const Patch& patch, int32_t y) {
        for (const int32_t edge : {patch.row.box.y0, patch.row.box.y1})
            if (edge > y) end = std::min(end, edge);
        if (patch.mask() != 0 && covers_row(patch, y)) {
            const int32_t cells = call.masks.height, cell = cell_of(y, cells, call.height);
            end = std::min(end, ((cell + 1) * call.height + cells - 1) / cells);
        }
    }

    // Puts patch k over what those before it made of a row.
    void cover(const Work& work, const Patch* patches, int32_t k, int32_t channel, int32_t y) {
        const Patch& patch = patches[k];
        const int32_t begin = patch.row.box.x0, stop = patch.row.box.x1;
        Owner* const owners = owners_.data();
        if (is_weighed(patch, work.call.masks)) return blend(work, patch, k, channel, y);
        if (patch.mask() == 0) {
            std::fill(owners + begin, owners + stop, static_cast<Owner>(k));
            if (any_blended) std::fill(blended.begin() + begin, blended.begin() + stop, uint8_t{0});
            return;
        }
        const uint8_t* const mask = work.mask_row(patch, channel, y);
        const int32_t* const cells = work.cells.data();
        if (work.call.masks.width == work.call.width)  // by vectors
            for (int32_t x = begin; x < stop; ++x) owners[x] = mask[x] != 0 ? owners[x] : static_cast<Owner>(k);
        else
            for (int32_t x = begin; x < stop; ++x) owners[x] = mask[cells[x]] != 0 ? owners[x] : static_cast<Owner>(k);
        for (int32_t x = begin; any_blended && x < stop; ++x)
            if (mask[cells[x]] == 0) blended[static_cast<size_t>(x)] = 0;
    }

    void blend(const Work& work, const Patch& patch, int32_t k, int32_t channel, int32_t y) {
        const size_t width = owners_.size();
        below.resize(width * static_cast<size_t>(work.call.patches));
        float* const row = below.data() + width * static_cast<size_t>(k);
        work.weights_of_row(patch, channel, y, row);
        for (int32_t x = patch.row.box.x0; x < patch.row.box.x1; ++x) {
            const size_t at = static_cast<size_t>(x);
            if (row[x] == 0.0f) {
                owners_[at] = static_cast<Owner>(k);
                if (any_blended) blended[at] = 0;
            } else if (row[x] < 1.0f) {
                if (!any_blended) blended.assign(width, 0);
                any_blended = true;
                blended[at] = 1;
            }
        }
    }

    void find_runs() {
        const int32_t width = static_cast<int32_t>(owners_.size());
        runs.clear();
        for (int32_t x = 0; x < width;) {
            const Owner owner = owners_[static_cast<size_t>(x)];
            const int32_t begin = x;
            Owner same[8];  // of columns that are looked at together
            std::memset(same, owner, sizeof same);
            while (x + 8 <= width && std::memcmp(owners_.data() + x, same, sizeof same) == 0) x += 8;
            while (x < width && owners_[static_cast<size_t>(x)] == owner) ++x;
            runs.push_back({begin, x, owner});
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

bool is_resized(const Patch& patch) {
    const Box &box = patch.row.box, &source = patch.source;
    return has_partner(patch.kind()) && box.x1 - box.x0 != source.x1 - source.x0;
}

// A sample to be painted, its patches, and the column that each column of those that are resized reads.
struct PaintedSample {
    int32_t index;
    const Patch* patches;
    std::vector<int32_t> columns;  // (patches, width)

    PaintedSample(const Work& work, int32_t sample) : index(sample), patches(work.patches_of(sample)) {
        const size_t width = static_cast<size_t>(work.call.width);
        for (int32_t k = 0; k < work.call.patches; ++k) {
            const Box &box = patches[k].row.box, &source = patches[k].source;
            if (!is_resized(patches[k])) continue;
            columns.resize(width * static_cast<size_t>(work.call.patches));
            int32_t* const of_patch = columns.data() + width * static_cast<size_t>(k);
            for (int32_t x = box.x0; x < box.x1; ++x) of_patch[x] = source_of(x, box.x0, box.x1, source.x0, source.x1);
        }
    }
};

// What of a pixel is to be painted: so many bytes from the first on, and after each step.
struct PixelPart {
    int64_t first, bytes, step;
};

// A row of pixels to be painted, of one slice of a sample.
struct PaintedRow {
    const Work& work;
    const PaintedSample& sample;
    const Band* band;
    int64_t slice;
    int32_t y;
    const uint8_t* partner = nullptr;  // in place, the mate's row

    void next() {
        if (++y == band->end) ++band;
    }

    const uint8_t* canvas(int32_t at) const { return sample_at(work.call, sample.index % work.call.batch, slice, at); }

    uint8_t* out() const {
        const Rows& rows = work.call.images.out_rows;
        return work.call.images.out + sample.index * rows.sample_stride + slice * rows.slice_stride +
               y * rows.row_stride;
    }
};

// What a patch, or the canvas, brings to a row.
struct Brought {
    const uint8_t* from;               // a row
    const uint8_t* ahead = nullptr;    // one that will be read soon, or null
    int32_t shift = 0;                 // from a column to the one of that row that it reads,
    const int32_t* columns = nullptr;  // or where each reads

    int64_t offset(int32_t x, int64_t pixel_bytes) const {
        return int64_t{columns ? columns[x] : x + shift} * pixel_bytes;
    }
    const uint8_t* at(int32_t x, int64_t pixel_bytes) const { return from + offset(x, pixel_bytes); }
};

Brought brought_by(const PaintedRow& row, int32_t owner) {
    const PatchCall& call = row.work.call;
    const int32_t ahead = row.y + kRowsAhead;
    if (owner == kCanvas) return {row.canvas(row.y), ahead < call.height ? row.canvas(ahead) : nullptr};
    const Patch& patch = row.sample.patches[owner];
    const Box &box = patch.row.box, &source = patch.source;
    if (!has_partner(patch.kind())) return {row.work.fill_row.data()};
    if (row.partner) return {row.partner};
    const auto read_at = [&](int32_t y) {
        return sample_at(call, patch.row.partner, row.slice, source_of(y, box.y0, box.y1, source.y0, source.y1));
    };
    const uint8_t *const from = read_at(row.y), *const later = ahead < box.y1 ? read_at(ahead) : nullptr;
    if (is_resized(patch)) return {from, later, 0, row.sample.columns.data() + int64_t{owner} * call.width};
    return {from, later, source.x0 - box.x0};
}

// Pixels of a size that the compiler knows: of one element, or of three of a channels-last image.
template <int64_t kPixel>
void gather_pixels(const Brought& brought, int32_t begin, int32_t end, uint8_t* to) {
    for (int32_t x = begin; x < end; ++x, to += kPixel)
        std::memcpy(to, brought.from + brought.columns[x] * kPixel, static_cast<size_t>(kPixel));
}

void gather(const Brought& brought, int32_t begin, int32_t end, int64_t pixel, uint8_t* to) {
    switch (pixel) {
        case 1:
            return gather_pixels<1>(brought, begin, end, to);
        case 2:
            return gather_pixels<2>(brought, begin, end, to);
        case 3:
            return gather_pixels<3>(brought, begin, end, to);
        case 4:
            return gather_pixels<4>(brought, begin, end, to);
        case 6:
            return gather_pixels<6>(brought, begin, end, to);
        case 8:
            return gather_pixels<8>(brought, begin, end, to);
        case 12:
            return gather_pixels<12>(brought, begin, end, to);
        default:
            for (int32_t x = begin; x < end; ++x, to += pixel)
                std::memcpy(to, brought.at(x, pixel), static_cast<size_t>(pixel));
    }
}

// A patch that is blended over pixels of a row.
struct BlendedPatch {
    int32_t index;
    Brought brought;
    const float* below;
};

template <typename Element>
void blend_pixels(const PaintedRow& row, const PixelPart& part, uint8_t* out) {
    using Bits = typename Element::Bits;
    const PatchCall& call = row.work.call;
    const int64_t pixel_bytes = call.images.out_rows.pixel_bytes;
    std::vector<BlendedPatch> above;
    for (int32_t k = 0; k < call.patches; ++k) {
        const Patch& patch = row.sample.patches[k];
        if (is_weighed(patch, call.masks) && covers_row(patch, row.y))
            above.push_back({k, brought_by(row, k),
                             row.band->below.data() + static_cast<size_t>(k) * static_cast<size_t>(call.width)});
    }
    for (const Run& run : row.band->runs)
        for (int32_t x = run.begin; x < run.end; ++x) {
            if (!row.band->blended[static_cast<size_t>(x)]) continue;
            uint8_t* const pixel = out + x * pixel_bytes;
            for (int64_t byte = part.first; byte < pixel_bytes; byte += part.step)
                for (int64_t at = byte; at < byte + part.bytes; at += static_cast<int64_t>(sizeof(Bits))) {
                    Bits bits;
                    std::memcpy(&bits, pixel + at, sizeof bits);
                    auto value = Element::value(bits);
                    for (const BlendedPatch& patch : above) {
                        const Box& box = row.sample.patches[patch.index].row.box;
                        if (patch.index <= run.owner || x < box.x0 || x >= box.x1) continue;
                        const float below = patch.below[x];
                        if (!(below < 1.0f)) continue;
                        std::memcpy(&bits, patch.brought.at(x, pixel_bytes) + at, sizeof bits);
                        value = mixed_value(below, value, Element::value(bits));
                    }
                    bits = Element::of(value);
                    std::memcpy(pixel + at, &bits, sizeof bits);
                }
        }
}

// What is blended over the pixels that owners brought.
void blend_row(const PaintedRow& row, const PixelPart& part, uint8_t* out) {
    switch (row.work.call.images.dtype) {
        case Dtype::kU8:
            return blend_pixels<ElementU8>(row, part, out);
        case Dtype::kF16:
            return blend_pixels<ElementF16>(row, part, out);
        case Dtype::kBF16:
            return blend_pixels<ElementBF16>(row, part, out);
        case Dtype::kF32:
            return blend_pixels<ElementF32>(row, part, out);
        case Dtype::kF64:
            return blend_pixels<ElementF64>(row, part, out);
        default:  // a plan that blends is not valid for any other
            return;
    }
}

// Rows of pixels that are put together before they are written.
struct RowBuffers {
    std::vector<uint8_t> gathered, blended;

    explicit RowBuffers(const Rows& rows)
        : gathered(static_cast<size_t>(rows.row_bytes())), blended(static_cast<size_t>(rows.row_bytes())) {}
};

// Writes what lies side by side in one go: rows of one owner, and what of it begins one row and ends another.
template <typename Out>
struct JoiningWriter {
    Out out;
    const uint8_t* from = nullptr;
    int64_t count = 0;

    void put(const uint8_t* next, int64_t bytes) {
        if (count > 0 && next == from + count) {
            count += bytes;
            return;
        }
        flush();
        from = next;
        count = bytes;
    }
    // Of bytes that are about to be overwritten.
    void put_now(const uint8_t* next, int64_t bytes) {
        flush();
        out.put(next, bytes);
    }
    void flush() {
        if (count > 0) out.put(from, count);
        count = 0;
    }
    void finish() {
        flush();
        out.finish();
    }
};

// What owners bring.
template <typename Out>
inline void put_owners(const PaintedRow& row, JoiningWriter<Out>& out, RowBuffers* buffers) {
    const int64_t pixel = row.work.call.images.out_rows.pixel_bytes;
    for (const Run& run : row.band->runs) {
        const Brought brought = brought_by(row, run.owner);
        const int64_t bytes = (run.end - run.begin) * pixel;
        if (brought.ahead) {
            const int64_t begin = brought.offset(run.begin, pixel), end = brought.offset(run.end - 1, pixel) + pixel;
            prefetch(brought.ahead + begin, end - begin);
        }
        if (brought.columns) {
            gather(brought, run.begin, run.end, pixel, buffers->gathered.data());
            out.put_now(buffers->gathered.data(), bytes);
        } else {
            out.put(brought.at(run.begin, pixel), bytes);
        }
    }
}

// Of pixels with others blended over them.
__attribute__((noinline)) void put_blended(const PaintedRow& row, RowBuffers* buffers) {
    const int64_t pixel = row.work.call.images.out_rows.pixel_bytes;
    JoiningWriter<Writer> blended = {{buffers->blended.data()}};
    put_owners(row, blended, buffers);
    blended.finish();
    blend_row(row, {0, pixel, pixel}, buffers->blended.data());
}

// Rows of bands side by side, from that of `row` to the last, which follow each other without a gap where there are
// several.
template <typename Out>
inline void put_rows(PaintedRow row, int32_t end, RowBuffers* buffers) {
    JoiningWriter<Out> out = {Out{row.out()}};
    for (; row.y < end; row.next()) {
        if (!row.band->any_blended) {
            put_owners(row, out, buffers);
            continue;
        }
        put_blended(row, buffers);
        out.put_now(buffers->blended.data(), static_cast<int64_t>(buffers->blended.size()));
    }
    out.finish();
}

void put_rows_anywhere(const PaintedRow& row, int32_t end, RowBuffers* buffers) { put_rows<Writer>(row, end, buffers); }

#if CUTMIX_X86
template <bool kPastCaches>
CUTMIX_AVX512 __attribute__((flatten)) void put_rows_by_lines(const PaintedRow& row, int32_t end, RowBuffers* buffers) {
    put_rows<LineWriter<kPastCaches>>(row, end, buffers);
}

CUTMIX_AVX2 __attribute__((flatten)) void put_rows_past_caches(const PaintedRow& row, int32_t end,
                                                               RowBuffers* buffers) {
    put_rows<PastCachesWriter>(row, end, buffers);
}
#endif

// The fastest of them on this processor.
PutRows* put_rows_for(const Images& images) {
    switch (writing_for(images)) {
#if CUTMIX_X86
        case Writing::kLines:
            return put_rows_by_lines<false>;
        case Writing::kLinesPastCaches:
            return put_rows_by_lines<true>;
        case Writing::kPastCaches:
            return put_rows_past_caches;
#endif
        default:
            return put_rows_anywhere;
    }
}

// Paints over what is there; where that is the canvas, nothing else is written.
void paint_over(const PaintedRow& row, const PixelPart& part) {
    const int64_t pixel = row.work.call.images.out_rows.pixel_bytes;
    uint8_t* const out = row.out();
    for (const Run& run : row.band->runs) {
        if (run.owner == kCanvas && row.canvas(row.y) == out) continue;
        const Brought brought = brought_by(row, run.owner);
        if (part.bytes == pixel && !brought.columns) {
            copy_bytes(out + run.begin * pixel, brought.at(run.begin, pixel), (run.end - run.begin) * pixel);
            continue;
        }
        for (int32_t x = run.begin; x < run.end; ++x)
            for (int64_t at = part.first; at < pixel; at += part.step)
                std::memcpy(out + x * pixel + at, brought.at(x, pixel) + at, static_cast<size_t>(part.bytes));
    }
    if (row.band->any_blended) blend_row(row, part, out);
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

// Rows of bands side by side, from that of `row` to the last.
void paint_slice(PaintedRow row, int32_t end, const PixelPart& part, RowBuffers* buffers) {
    const Rows& rows = row.work.call.images.out_rows;
    const bool whole = part.bytes == rows.pixel_bytes;
    if (whole && rows.row_stride == rows.row_bytes()) return row.work.put_rows(row, end, buffers);
    for (; row.y < end; row.next()) {
        if (whole)
            row.work.put_rows(row, row.y + 1, buffers);
        else
            paint_over(row, part);
    }
}

// Of all samples' rows.
void paint_rows(const Work& work, int64_t begin, int64_t end) {
    const PatchCall& call = work.call;
    const Rows& rows = call.images.out_rows;
    std::array<Band, kBandsAtOnce> bands;
    RowBuffers buffers(rows);
    while (begin < end) {
        const PaintedSample sample(work, static_cast<int32_t>(begin / call.height));
        const int32_t first = static_cast<int32_t>(begin % call.height);
        const int32_t last = static_cast<int32_t>(std::min<int64_t>(call.height, first + end - begin));
        for_each_channel(call, [&](int32_t channel, const auto& with_slices) {
            for (int32_t y = first, end_of_bands; y < last; y = end_of_bands) {
                end_of_bands = y;
                for (Band& band : bands) {
                    if (end_of_bands == last) break;
                    band.find(work, sample.patches, channel, end_of_bands, changes_pixels);
                    end_of_bands = std::min(band.end, last);
                }
                with_slices([&](int64_t slice, const PixelPart& part) {
                    paint_slice({work, sample, bands.data(), slice, y}, end_of_bands, part, &buffers);
                });
            }
        });
        begin += last - first;
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
    Band band, mate_band;
    std::vector<uint8_t> copy(static_cast<size_t>(call.images.out_rows.row_bytes()));
    for (int64_t row = begin; row < end; ++row) {
        const int32_t index = static_cast<int32_t>(row / call.height), y = static_cast<int32_t>(row % call.height);
        const int32_t mate_index = work.plan.mates[static_cast<size_t>(index)];
        if (mate_index < index) continue;
        const bool alone = mate_index == index;
        const PaintedSample sample(work, index), mate(work, mate_index);
        const RowNeeds own(sample.patches, call.patches, y), other(mate.patches, call.patches, y);
        if (!own.changes && !other.changes) continue;
        for_each_channel(call, [&](int32_t channel, const auto& with_slices) {
            if (own.changes) band.find(work, sample.patches, channel, y, changes_pixels);
            if (other.changes && !alone) mate_band.find(work, mate.patches, channel, y, changes_pixels);
            with_slices([&](int64_t slice, const PixelPart& part) {
                if (other.reads_mate) std::memcpy(copy.data(), sample_at(call, index, slice, y), copy.size());
                const uint8_t* const from = alone ? copy.data() : sample_at(call, mate_index, slice, y);
                if (own.changes) paint_over({work, sample, &band, slice, y, from}, part);
                if (other.changes && !alone) paint_over({work, mate, &mate_band, slice, y, copy.data()}, part);
            });
        });
    }
}

// ---- Targets

struct ShareScratch {
    std::vector<float> left, below;
    std::vector<int64_t> units;
    Band band;
};

// Adds the units that each patch has of rows in which patches are blended.
void add_blended_units(const Work& work, const Patch* patches, int32_t channel, int32_t y, int32_t rows,
                       ShareScratch* scratch) {
    const size_t width = static_cast<size_t>(work.call.width);
    scratch->below.resize(width);
    scratch->left.assign(width, 1.0f);
    for (int32_t k = work.call.patches - 1; k >= 0; --k) {
        if (!mixes_target(patches[k].kind()) || !covers_row(patches[k], y)) continue;
        work.weights_of_row(patches[k], channel, y, scratch->below.data());
        int64_t sum = 0;
        for (int32_t x = patches[k].row.box.x0; x < patches[k].row.box.x1; ++x) {
            float& left = scratch->left[static_cast<size_t>(x)];
            const float below = scratch->below[static_cast<size_t>(x)];
            sum += units_of(left, below);
            left = mul_rn(left, below);
        }
        scratch->units[static_cast<size_t>(k)] += sum * rows;
    }
}

// The units that each patch has of a sample's pixels: where nothing is blended, all of those that it owns.
void find_units(const Work& work, const Patch* patches, ShareScratch* scratch) {
    const PatchCall& call = work.call;
    Band& band = scratch->band;
    scratch->units.assign(static_cast<size_t>(call.patches), 0);
    for (int32_t channel = 0; channel < call.masks.channels; ++channel)
        for (int32_t y = 0; y < call.height; y = band.end) {
            band.find(work, patches, channel, y, mixes_target);
            const int32_t rows = band.end - y;
            if (band.any_blended) {
                add_blended_units(work, patches, channel, y, rows, scratch);
                continue;
            }
            for (const Run& run : band.runs)
                if (run.owner != kCanvas)
                    scratch->units[static_cast<size_t>(run.owner)] += int64_t{run.end - run.begin} * rows * kPixelUnits;
        }
}

// The parts of a sample's target.
void parts_of(const Work& work, int32_t sample, ShareScratch* scratch, std::vector<Part>* parts) {
    const PatchCall& call = work.call;
    const Patch* const patches = work.patches_of(sample);
    const int32_t count = call.patches + 1;
    parts->assign(static_cast<size_t>(count), {});
    const int64_t pixels = int64_t{call.height} * call.width * call.masks.channels;
    const bool empty = pixels == 0;
    int64_t own = pixels * kPixelUnits;
    std::vector<int64_t>& units = scratch->units;
    if (!call.weights) {
        find_units(work, patches, scratch);
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
        if (call.images.out && !call.images.in_place)
            ask_for_huge_pages(call.images.out, call.images.out_rows.all_bytes());
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
