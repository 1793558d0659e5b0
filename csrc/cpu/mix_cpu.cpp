// Mixing on the CPU: one pass over the rows, on torch's own threads.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "mix_ops.h"
#include "target_rows.h"
#include "threads.h"
#include "writers.h"

namespace cutmix {
namespace {

// Less than this is not worth a thread.
constexpr int64_t kBytesPerTask = 1 << 17, kComputedBytesPerTask = 1 << 15;  // of pixels that are moved, or computed
constexpr int64_t kTargetsPerTask = 1 << 13;                                 // target values
constexpr int64_t kPlanRowsPerTask = 1 << 8;

int64_t rows_per_task(const Rows& rows, bool computed) {
    const int64_t bytes = computed ? kComputedBytesPerTask : kBytesPerTask;
    return std::max<int64_t>(1, bytes / std::max<int64_t>(1, rows.row_bytes()));
}

int64_t targets_per_task(const Targets& targets) {
    return std::max<int64_t>(1, kTargetsPerTask / std::max<int64_t>(1, targets.num_classes));
}

// ---- The plan

void sample_plan(const Plan& plan) {
    const uint32_t batch = static_cast<uint32_t>(plan.batch);
    const PartnerMap map = partner_map(plan.draw.sampling.partner, plan.seed, batch);
    parallel(0, plan.batch, kPlanRowsPerTask, [&](int64_t begin, int64_t end) {
        for (uint32_t i = static_cast<uint32_t>(begin); i < static_cast<uint32_t>(end); ++i)
            plan.sampled[i] = sample_row(plan.draw, plan.seed, i, partner_of(map, i, batch));
    });
}

// A sample's row of the plan, and whether it may be followed.
struct CheckedRow {
    PlanRow row;
    bool valid;
    Kind kind;   // keep where the row is not valid
    Box region;  // outside of which nothing changes
};

Box region_of(const Plan& plan, Kind kind, const Box& box) {
    if (kind == Kind::kKeep) return {};
    return has_box(kind) ? box : Box{0, 0, plan.height, plan.width};
}

std::vector<CheckedRow> checked_rows(const Plan& plan, bool in_place) {
    const PlanRow* rows = plan.given ? plan.given : plan.sampled;
    std::vector<CheckedRow> checked(static_cast<size_t>(plan.batch));
    for (int32_t i = 0; i < plan.batch; ++i) {
        const PlanRow& row = rows[i];
        const bool valid = valid_row(row, plan.batch, plan.height, plan.width, plan.can_blend) &&
                           (!in_place || rows[row.partner].partner == i);
        const Kind kind = valid ? static_cast<Kind>(row.kind) : Kind::kKeep;
        checked[i] = {row, valid, kind, region_of(plan, kind, row.box)};
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

// Where the bytes in a box come from: rows like the image's, or one row over and over.
struct Source {
    const uint8_t* row;
    int64_t step;  // bytes from row to row
};

constexpr int64_t kLinesAhead = 16;

// `count` consecutive rows without a gap, the first of them at height y: copies own, with the box from a source.
template <typename Out>
inline void copy_rows(const uint8_t* own, const Source& source, Out&& out, int64_t y, int64_t count, const Rows& rows,
                      const Box& box) {
    const int64_t row_bytes = rows.row_bytes(), total = count * row_bytes;
    const Run run = run_of(box, rows);
    const auto fetch = [&](int64_t row) {  // of own, what lies between the run of the row before and this one's
        prefetch(own + row * row_bytes + run.begin - (row_bytes - run.size()), row_bytes - run.size());
        prefetch(source.row + row * source.step + run.begin, run.size());
    };
    int64_t done = 0;  // bytes
    if (run.size() > 0 && box.y1 > box.y0) {
        for (int64_t top = -y; top < count; top += rows.height) {  // the first row of a slice, relative to the span
            const int64_t first = std::max<int64_t>(0, top + box.y0), last = std::min(count, top + box.y1);
            for (int64_t row = first + 1; row < std::min(last, first + kRowsAhead); ++row) fetch(row);
            for (int64_t row = first; row < last; ++row) {
                const int64_t begin = row * row_bytes + run.begin, ahead = row + kRowsAhead;
                if (ahead < last) fetch(ahead);
                out.put(own + done, begin - done);
                out.put(source.row + row * source.step + run.begin, run.size());
                done = begin + run.size();
            }
        }
    }
    out.put(own + done, total - done);
    out.finish();
}

void copy_rows_anywhere(const uint8_t* own, const Source& source, uint8_t* out, int64_t y, int64_t count,
                        const Rows& rows, const Box& box) {
    copy_rows(own, source, Writer{out}, y, count, rows, box);
}

#if CUTMIX_X86
// flatten: the writer's registers have to stay registers.
template <bool kPastCaches>
CUTMIX_AVX512 __attribute__((flatten)) void copy_rows_by_lines(const uint8_t* own, const Source& source, uint8_t* out,
                                                               int64_t y, int64_t count, const Rows& rows,
                                                               const Box& box) {
    copy_rows(own, source, LineWriter<kPastCaches>(out), y, count, rows, box);
}

CUTMIX_AVX2 __attribute__((flatten)) void copy_rows_past_caches(const uint8_t* own, const Source& source, uint8_t* out,
                                                                int64_t y, int64_t count, const Rows& rows,
                                                                const Box& box) {
    copy_rows(own, source, PastCachesWriter(out), y, count, rows, box);
}
#endif

using CopyRows = decltype(copy_rows_anywhere);

#if CUTMIX_X86
constexpr int64_t kLongestCopiedRow = 128, kLongestMixedRow = 256;  // out of place, in place; longer ones pay alone

// The bytes of a box as bits, a word for each line of 64 bytes. Where rows follow each other without a gap, the words
// repeat after a few lines, and short rows cost no more than long ones: nothing is done row by row.
class LineMasks {
  public:
    // Whether there are few words, and rows so short that it pays.
    static bool fit(const Rows& rows, int64_t longest) {
        return rows.dense() && rows.row_bytes() <= longest && lines_of(rows.row_bytes()) <= kMostLines;
    }

    LineMasks(const Rows& rows, const Box& box) : row_bytes_(rows.row_bytes()) {
        const Run run = run_of(box, rows);
        if (run.size() <= 0) return;
        span_ = {box.y0 * row_bytes_, box.y1 * row_bytes_};
        lines_ = lines_of(row_bytes_);
        std::fill_n(masks_, lines_, 0);
        for (int64_t row = 0; row < lines_ * kLine; row += row_bytes_)
            for (int64_t line = (row + run.begin) / kLine; line * kLine < row + run.end; ++line)
                masks_[line] |= bits({row + run.begin, row + run.end}, line);
    }

    // What of some bytes of a slice is in rows of the box.
    Run in_rows(const Run& bytes) const {
        const int64_t begin = std::clamp(span_.begin, bytes.begin, bytes.end);
        return {begin, std::clamp(span_.end, begin, bytes.end)};
    }

    // Lines are counted from the first byte of a slice; each has a place among the words that repeat.
    int64_t place(int64_t line) const { return line % lines_; }
    int64_t after(int64_t place) const { return place + 1 < lines_ ? place + 1 : 0; }
    // The bytes of the box in a line of which every row is one of the box's,
    uint64_t inside(int64_t place) const { return masks_[place]; }
    // and in any line, as far as it lies in these bytes.
    uint64_t at(int64_t place, int64_t line, const Run& bytes) const {
        if (line * kLine >= bytes.begin && (line + 1) * kLine <= bytes.end) return masks_[place];
        return masks_[place] & bits(bytes, line);
    }

    // Which bytes of a line are these.
    static uint64_t bits(const Run& bytes, int64_t line) {
        return below(bytes.end - line * kLine) & ~below(bytes.begin - line * kLine);
    }

  private:
    static constexpr int64_t kMostLines = 16;

    static int64_t lines_of(int64_t row_bytes) { return row_bytes / std::gcd(row_bytes, kLine); }
    static uint64_t below(int64_t bit) { return bit >= kLine ? ~0ull : bit > 0 ? ~(~0ull << bit) : 0; }

    const int64_t row_bytes_;
    int64_t lines_ = 1;  // words
    Run span_ = {0, 0};  // the box's rows in a slice
    uint64_t masks_[kMostLines] = {};
};

CUTMIX_AVX512 inline void copy_by_lines(const uint8_t* from, uint8_t* out, int64_t count) {
    int64_t k = 0;
    for (; k + kLine <= count; k += kLine) _mm512_storeu_si512(out + k, _mm512_loadu_si512(from + k));
    const __mmask64 rest = LineMasks::bits({0, count - k}, 0);
    if (rest) _mm512_mask_storeu_epi8(out + k, rest, _mm512_maskz_loadu_epi8(rest, from + k));
}

// These bytes of a slice: copies own, with the box from a source that follows the slice, or has one line for all.
CUTMIX_AVX512 inline void copy_slice(const uint8_t* own, const Source& source, uint8_t* out, const Run& bytes,
                                     const LineMasks& masks) {
    const int64_t step = source.step == 0 ? 0 : kLine;
    const Run box = masks.in_rows(bytes);
    copy_by_lines(own + bytes.begin, out + bytes.begin, box.begin - bytes.begin);
    int64_t done = box.begin;
    if (box.size() > 0) {
        const int64_t first = box.begin / kLine, last = (box.end - 1) / kLine;
        done = std::min((last + 1) * kLine, bytes.end);
        int64_t place = masks.place(first);
        for (int64_t line = first; line <= last; ++line, place = masks.after(place)) {
            const uint8_t* from = source.row + line * step;
            if (line > first && line < last) {
                const __m512i kept = _mm512_loadu_si512(own + line * kLine);
                _mm512_storeu_si512(out + line * kLine, _mm512_mask_loadu_epi8(kept, masks.inside(place), from));
                continue;
            }
            const __mmask64 written = LineMasks::bits({box.begin, done}, line), pasted = masks.at(place, line, box);
            const __m512i kept = _mm512_maskz_loadu_epi8(written & ~pasted, own + line * kLine);
            _mm512_mask_storeu_epi8(out + line * kLine, written, _mm512_mask_loadu_epi8(kept, pasted, from));
        }
    }
    copy_by_lines(own + done, out + done, bytes.end - done);
}

CUTMIX_AVX512 __attribute__((flatten)) void copy_rows_by_masks(const uint8_t* own, const Source& source, uint8_t* out,
                                                               int64_t y, int64_t count, const Rows& rows,
                                                               const Box& box) {
    const int64_t total = count * rows.row_bytes(), slice_bytes = rows.height * rows.row_bytes();
    const LineMasks masks(rows, box);
    for (int64_t slice = -y * rows.row_bytes(); slice < total; slice += slice_bytes) {  // relative to the first byte
        const Run bytes = {std::max<int64_t>(0, -slice), std::min(slice_bytes, total - slice)};
        const Source here = {source.step == 0 ? source.row : source.row + slice, source.step};
        copy_slice(own + slice, here, out + slice, bytes, masks);
    }
}
#endif

// The fastest of them on this processor. Short rows stay in the caches whatever the size of the output: past them they
// were no faster.
CopyRows* copy_rows_for(const Images& images, Writing writing) {
#if CUTMIX_X86
    const bool short_rows = LineMasks::fit(images.out_rows, kLongestCopiedRow) && images.in_rows.dense();
    if (has_avx512() && short_rows) return copy_rows_by_masks;
#endif
    switch (writing) {
#if CUTMIX_X86
        case Writing::kLines:
            return copy_rows_by_lines<false>;
        case Writing::kLinesPastCaches:
            return copy_rows_by_lines<true>;
        case Writing::kPastCaches:
            return copy_rows_past_caches;
#endif
        default:
            return copy_rows_anywhere;
    }
}

// out overlaps neither own nor partner.
template <typename Element>
void compute_elements(Kind kind, float lam, const uint8_t* __restrict own, const uint8_t* __restrict partner,
                      uint8_t* __restrict out, int64_t bytes) {
    using Bits = typename Element::Bits;
    for (int64_t k = 0; k < bytes / static_cast<int64_t>(sizeof(Bits)); ++k) {
        Bits own_bits, partner_bits;  // of images at any address
        std::memcpy(&own_bits, own + k * sizeof(Bits), sizeof(Bits));
        std::memcpy(&partner_bits, partner + k * sizeof(Bits), sizeof(Bits));
        const Bits changed = computed<Element>(kind, lam, own_bits, partner_bits);
        std::memcpy(out + k * sizeof(Bits), &changed, sizeof(Bits));
    }
}

#if CUTMIX_X86
// Half precision by the processor's own conversions, which round alike and are ten times as fast. Bits are those of
// compute_elements<ElementF16>, but for which NaN a NaN becomes.
CUTMIX_AVX2 void blend_halves(float lam, const uint8_t* own, const uint8_t* partner, uint8_t* out, int64_t bytes) {
    constexpr int64_t kVector = 16;  // bytes: eight halves
    const __m256 weight = _mm256_set1_ps(lam), rest = _mm256_sub_ps(_mm256_set1_ps(1.0f), weight);
    int64_t k = 0;
    for (; k + kVector <= bytes; k += kVector) {
        const __m256 a = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(own + k)));
        const __m256 b = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(partner + k)));
        const __m256 mixed = _mm256_add_ps(_mm256_mul_ps(weight, a), _mm256_mul_ps(rest, b));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + k), _mm256_cvtps_ph(mixed, _MM_FROUND_TO_NEAREST_INT));
    }
    compute_elements<ElementF16>(Kind::kMixUp, lam, own + k, partner + k, out + k, bytes - k);
}
#endif

// Of a kind that reads its own: what becomes of bytes of an image.
void compute_bytes(Dtype dtype, Kind kind, float lam, const uint8_t* own, const uint8_t* partner, uint8_t* out,
                   int64_t bytes) {
#if CUTMIX_X86
    if (kind == Kind::kMixUp && dtype == Dtype::kF16 && has_avx2()) return blend_halves(lam, own, partner, out, bytes);
#endif
    switch (dtype) {
        case Dtype::kU8:
            return compute_elements<ElementU8>(kind, lam, own, partner, out, bytes);
        case Dtype::kF16:
            return compute_elements<ElementF16>(kind, lam, own, partner, out, bytes);
        case Dtype::kBF16:
            return compute_elements<ElementBF16>(kind, lam, own, partner, out, bytes);
        case Dtype::kF32:
            return compute_elements<ElementF32>(kind, lam, own, partner, out, bytes);
        case Dtype::kF64:
            return compute_elements<ElementF64>(kind, lam, own, partner, out, bytes);
        default:  // a plan that computes is not valid for any other
            return;
    }
}

using Bytes = std::vector<uint8_t>;

// A row of the value that cutout fills with, and at least a line of it.
Bytes fill_row_of(const Images& images) {
    Bytes row(static_cast<size_t>(std::max<int64_t>(kLine, images.out_rows.row_bytes())));
    for (size_t k = 0; k < row.size(); ++k) row[k] = images.fill[k % sizeof images.fill];
    return row;
}

// What every thread needs to know about the pixels of a call.
struct PixelWork {
    const Images& images;
    const std::vector<CheckedRow>& plan;
    Bytes fill_row;  // empty where nothing is cut out
    CopyRows* copy;  // out of place
    decltype(compute_bytes)* compute;
    Writing writing;
};

// What a kind puts into its region, if it does not read its own: copies of these rows.
Source source_of(const PixelWork& work, Kind kind, const uint8_t* partner) {
    if (fills(kind)) return {work.fill_row.data(), 0};
    return {partner, work.images.in_rows.row_bytes()};
}

void compute(const PixelWork& work, const CheckedRow& checked, const uint8_t* own, const uint8_t* partner, uint8_t* out,
             int64_t bytes) {
    work.compute(work.images.dtype, checked.kind, checked.row.lam, own, partner, out, bytes);
}

// Bytes that are computed in one go: into a buffer, and in place, where more come from memory too late.
constexpr int64_t kComputedTogether = 1 << 12, kChangedTogether = 1 << 10;

#if CUTMIX_X86
// The same, written past the caches.
CUTMIX_AVX512 void compute_by_lines(const PixelWork& work, const CheckedRow& checked, const uint8_t* own,
                                    const uint8_t* partner, uint8_t* out, int64_t bytes) {
    LineWriter<true> writer(out);
    alignas(kLine) uint8_t values[kComputedTogether];
    for (int64_t k = 0; k < bytes; k += kComputedTogether) {
        const int64_t part = std::min(bytes - k, kComputedTogether);
        compute(work, checked, own + k, partner + k, values, part);
        writer.put(values, part);
    }
    writer.finish();
}
#endif

// The same of a whole image, or of whole rows of it, out of place.
void compute_whole(const PixelWork& work, const CheckedRow& checked, const uint8_t* own, const uint8_t* partner,
                   uint8_t* out, int64_t bytes) {
#if CUTMIX_X86
    if (work.writing == Writing::kLinesPastCaches) return compute_by_lines(work, checked, own, partner, out, bytes);
#endif
    compute(work, checked, own, partner, out, bytes);
}

bool is_whole(const Box& region, const Rows& rows) {
    return region.y0 == 0 && region.y1 == rows.height && run_of(region, rows).size() == rows.row_bytes();
}

Run run_at(const Box& region, const Rows& rows, int64_t y) {
    return y >= region.y0 && y < region.y1 ? run_of(region, rows) : Run{0, 0};
}

// `count` consecutive rows without a gap, the first of them at height y, of a kind that reads its own.
void compute_rows(const PixelWork& work, const CheckedRow& checked, const uint8_t* own, const uint8_t* partner,
                  uint8_t* out, int64_t y, int64_t count) {
    const Rows& rows = work.images.in_rows;
    const int64_t row_bytes = rows.row_bytes();
    if (is_whole(checked.region, rows)) return compute_whole(work, checked, own, partner, out, count * row_bytes);
    for (int64_t row = 0; row < count; ++row, own += row_bytes, partner += row_bytes, out += row_bytes) {
        const Run run = run_at(checked.region, rows, (y + row) % rows.height);
        copy_bytes(out, own, run.begin);
        compute(work, checked, own + run.begin, partner + run.begin, out + run.begin, run.size());
        copy_bytes(out + run.end, own + run.end, row_bytes - run.end);
    }
}

// Rows [begin, end) of all samples' rows.
void mix_out_of_place(const PixelWork& work, int64_t begin, int64_t end) {
    const Images& images = work.images;
    const Rows &in = images.in_rows, &out = images.out_rows;
    const int64_t rows_per_sample = in.slices * in.height;
    const bool dense = in.dense() && out.dense();
    while (begin < end) {
        const int64_t sample = begin / rows_per_sample, row = begin % rows_per_sample;
        const int64_t slice = row / in.height, y = row % in.height;
        const int64_t count = dense ? std::min(end - begin, rows_per_sample - row) : 1;
        const CheckedRow& checked = work.plan[sample];
        const int64_t other = has_partner(checked.kind) ? checked.row.partner : sample;
        const uint8_t* own = row_at(images.in, in, sample, slice, y);
        const uint8_t* partner = row_at(images.in, in, other, slice, y);
        uint8_t* to = row_at(images.out, out, sample, slice, y);
        if (reads_own(checked.kind))
            compute_rows(work, checked, own, partner, to, y, count);
        else
            work.copy(own, source_of(work, checked.kind, partner), to, y, count, in, checked.region);
        begin += count;
    }
}

void swap_bytes(uint8_t* a, uint8_t* b, int64_t count) {
    for (int64_t k = 0; k < count; ++k) std::swap(a[k], b[k]);
}

// One row of a pair: a takes b's bytes in run_a, b takes a's in run_b; where both do, they swap. Every byte is read
// before it is overwritten, and none outside the runs is touched.
void exchange_row(uint8_t* a, uint8_t* b, Run run_a, Run run_b) {
    if (a == b) return;
    const int64_t both_begin = std::max(run_a.begin, run_b.begin), both_end = std::min(run_a.end, run_b.end);
    if (both_begin >= both_end) {
        copy_bytes(a + run_a.begin, b + run_a.begin, run_a.size());
        copy_bytes(b + run_b.begin, a + run_b.begin, run_b.size());
        return;
    }
    swap_bytes(a + both_begin, b + both_begin, both_end - both_begin);
    const auto copy = [](uint8_t* to, const uint8_t* from, int64_t begin, int64_t end) {
        if (begin < end) copy_bytes(to + begin, from + begin, end - begin);
    };
    copy(a, b, run_a.begin, both_begin);
    copy(a, b, both_end, run_a.end);
    copy(b, a, run_b.begin, both_begin);
    copy(b, a, both_end, run_b.end);
}

struct Pair {
    int64_t a, b;
};

// The pairs of samples in which anything changes in place. A sample without a partner is a pair with itself.
std::vector<Pair> pairs_of(const std::vector<CheckedRow>& plan) {
    std::vector<Pair> pairs;
    for (int64_t i = 0; i < static_cast<int64_t>(plan.size()); ++i) {
        if (!plan[i].valid) continue;
        const int64_t partner = plan[i].row.partner;
        const bool owns_pair = i <= partner || !plan[partner].valid;  // once for the two of them
        if (owns_pair && (plan[i].kind != Kind::kKeep || plan[partner].kind != Kind::kKeep))
            pairs.push_back({i, partner});
    }
    return pairs;
}

// A run of a row of a sample as it becomes, from copies of the row as it was and of its partner's.
void change_run(const PixelWork& work, const CheckedRow& checked, const Bytes& own, const Bytes& partner, Run run,
                uint8_t* out) {
    if (reads_own(checked.kind))
        compute(work, checked, own.data() + run.begin, partner.data() + run.begin, out + run.begin, run.size());
    else
        copy_bytes(out + run.begin, source_of(work, checked.kind, partner.data()).row + run.begin, run.size());
}

// The smallest box around two, of which empty ones do not count.
Box around(const Box& a, const Box& b) {
    const auto empty = [](const Box& box) { return box.y0 >= box.y1 || box.x0 >= box.x1; };
    if (empty(a)) return b;
    if (empty(b)) return a;
    return {std::min(a.y0, b.y0), std::min(a.x0, b.x0), std::max(a.y1, b.y1), std::max(a.x1, b.x1)};
}

Run around(const Run& a, const Run& b) {
    if (a.size() == 0) return b;
    if (b.size() == 0) return a;
    return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

// Rows [begin, end) of a slice of a pair.
void mix_slice(const PixelWork& work, const Pair& pair, int64_t slice, int64_t begin, int64_t end) {
    const Images& images = work.images;
    const Rows& rows = images.out_rows;
    const CheckedRow& plan_a = work.plan[pair.a];
    const CheckedRow plan_b = pair.a == pair.b ? CheckedRow{} : work.plan[pair.b];  // it changes once
    const Kind kind_a = plan_a.kind, kind_b = plan_b.kind;
    const Box both = around(plan_a.region, plan_b.region);
    const Run all = run_of(both, rows);
    begin = std::max<int64_t>(begin, both.y0);
    end = std::min<int64_t>(end, both.y1);
    // Rows of samples that are blended or kept go through several at a time, where they follow each other.
    const int64_t row_bytes = rows.row_bytes();
    const auto is_alike = [&](const CheckedRow& plan) {
        return plan.kind == Kind::kKeep || (reads_own(plan.kind) && is_whole(plan.region, rows));
    };
    const bool together = rows.row_stride == row_bytes && is_alike(plan_a) && is_alike(plan_b);
    const int64_t most = together ? std::max<int64_t>(1, kChangedTogether / row_bytes) : 1;
    Bytes a_before, b_before;
    for (int64_t y = begin, count; y < end; y += count) {
        count = std::min(most, end - y);
        uint8_t* a = row_at(images.out, rows, pair.a, slice, y);
        uint8_t* b = row_at(images.out, rows, pair.b, slice, y);
        const auto run_of_all = [&](const CheckedRow& plan) {
            const Run run = run_at(plan.region, rows, y);
            return Run{run.begin, run.size() > 0 ? run.end + (count - 1) * row_bytes : run.end};
        };
        const Run run_a = run_of_all(plan_a), run_b = run_of_all(plan_b);
        if (reads_own(kind_a) || reads_own(kind_b)) {
            a_before.assign(a, a + count * row_bytes);
            b_before.assign(b, b + count * row_bytes);
            change_run(work, plan_a, a_before, b_before, run_a, a);
            change_run(work, plan_b, b_before, a_before, run_b, b);
            continue;
        }
        if (y + kRowsAhead < end) {
            prefetch(a + kRowsAhead * rows.row_stride + all.begin, all.size());
            prefetch(b + kRowsAhead * rows.row_stride + all.begin, all.size());
        }
        exchange_row(a, b, pastes(kind_a) ? run_a : Run{}, pastes(kind_b) ? run_b : Run{});
        if (!pastes(kind_a)) copy_bytes(a + run_a.begin, source_of(work, kind_a, b).row + run_a.begin, run_a.size());
        if (!pastes(kind_b)) copy_bytes(b + run_b.begin, source_of(work, kind_b, a).row + run_b.begin, run_b.size());
    }
}

// Rows [row, row + count) of those of a pair.
void mix_pair_by_rows(const PixelWork& work, const Pair& pair, int64_t row, int64_t count) {
    const int64_t height = work.images.out_rows.height;
    for (const int64_t end = row + count; row < end;) {
        const int64_t y = row % height, part = std::min(end - row, height - y);
        mix_slice(work, pair, row / height, y, y + part);
        row += part;
    }
}

#if CUTMIX_X86
// Both samples' lines are read before either is written, and no byte outside of the boxes is touched.
CUTMIX_AVX512 __attribute__((flatten)) void mix_pair_by_masks(const PixelWork& work, const Pair& pair, int64_t row,
                                                              int64_t count) {
    const Rows& rows = work.images.out_rows;
    const CheckedRow& plan_a = work.plan[pair.a];
    const CheckedRow plan_b = pair.a == pair.b ? CheckedRow{} : work.plan[pair.b];  // it changes once
    if (reads_own(plan_a.kind) || reads_own(plan_b.kind)) return mix_pair_by_rows(work, pair, row, count);
    const LineMasks masks_a(rows, plan_a.region), masks_b(rows, plan_b.region);
    const int64_t end = row + count;
    for (int64_t part; row < end; row += part) {
        const int64_t slice = row / rows.height, y = row % rows.height;
        part = std::min(end - row, rows.height - y);
        uint8_t* a = row_at(work.images.out, rows, pair.a, slice, 0);
        uint8_t* b = row_at(work.images.out, rows, pair.b, slice, 0);
        const Source from_a = source_of(work, plan_b.kind, a), from_b = source_of(work, plan_a.kind, b);
        const int64_t step_a = from_a.step == 0 ? 0 : kLine, step_b = from_b.step == 0 ? 0 : kLine;
        const Run bytes = {y * rows.row_bytes(), (y + part) * rows.row_bytes()};
        const Run box_a = masks_a.in_rows(bytes), box_b = masks_b.in_rows(bytes);
        const Run both = around(box_a, box_b);
        int64_t line = both.begin / kLine;
        int64_t place_a = masks_a.place(line), place_b = masks_b.place(line);
        for (; line * kLine < both.end; ++line, place_a = masks_a.after(place_a), place_b = masks_b.after(place_b)) {
            // A masked store waits for its line.
            __builtin_prefetch(a + (line + kLinesAhead) * kLine, 1);
            __builtin_prefetch(b + (line + kLinesAhead) * kLine, 1);
            const __mmask64 in_a = masks_a.at(place_a, line, box_a), in_b = masks_b.at(place_b, line, box_b);
            const __m512i for_a = _mm512_maskz_loadu_epi8(in_a, from_b.row + line * step_b);
            const __m512i for_b = _mm512_maskz_loadu_epi8(in_b, from_a.row + line * step_a);
            _mm512_mask_storeu_epi8(a + line * kLine, in_a, for_a);
            _mm512_mask_storeu_epi8(b + line * kLine, in_b, for_b);
        }
    }
}
#endif

using MixPair = decltype(mix_pair_by_rows);

// The fastest of them on this processor.
MixPair* mix_pair_for([[maybe_unused]] const Images& images) {
#if CUTMIX_X86
    if (has_avx512() && LineMasks::fit(images.out_rows, kLongestMixedRow)) return mix_pair_by_masks;
#endif
    return mix_pair_by_rows;
}

// Rows [begin, end) of all pairs' rows.
void mix_in_place(const PixelWork& work, const std::vector<Pair>& pairs, int64_t begin, int64_t end) {
    const int64_t rows_per_sample = work.images.out_rows.slices * work.images.out_rows.height;
    MixPair* const mix_pair = mix_pair_for(work.images);
    while (begin < end) {
        const int64_t row = begin % rows_per_sample, count = std::min(end - begin, rows_per_sample - row);
        mix_pair(work, pairs[begin / rows_per_sample], row, count);
        begin += count;
    }
}

// ---- All of it

struct Cpu {
    static bool takes(const Images&) { return true; }

    // Pixels and targets in one parallel region: a task that takes a share of the rows takes as large a share of the
    // targets, so the threads wait for each other once.
    static void run(const MixCall& call, const Tensor&) {
        if (!call.plan.given) sample_plan(call.plan);
        const Images& images = call.images;
        const Targets& targets = call.targets;
        const std::vector<CheckedRow> plan = checked_rows(call.plan, images.in_place);
        const std::vector<Pair> pairs = images.in_place ? pairs_of(plan) : std::vector<Pair>();
        const auto any = [&](bool (*is)(Kind)) {
            return images.out && std::any_of(plan.begin(), plan.end(), [&](auto& row) { return is(row.kind); });
        };
        const bool writes = images.out && !images.in_place;
        if (writes) ask_for_huge_pages(images.out, images.out_rows.all_bytes());
        const Writing writing = writes ? writing_for(images) : Writing::kAnywhere;
        const PixelWork work = {images,
                                plan,
                                any(fills) ? fill_row_of(images) : Bytes(),
                                writes ? copy_rows_for(images, writing) : nullptr,
                                for_processor<compute_bytes>(),
                                writing};
        const int64_t batch = call.plan.batch, target_rows = targets.out && targets.num_classes > 0 ? batch : 0;
        int64_t pixel_rows = 0;
        if (images.out)
            pixel_rows = (images.in_place ? static_cast<int64_t>(pairs.size()) : batch) * images.out_rows.slices *
                         images.out_rows.height;

        const int64_t all = pixel_rows > 0 ? pixel_rows : target_rows;
        const int64_t grain =
            pixel_rows > 0 ? rows_per_task(images.out_rows, any(reads_own)) : targets_per_task(targets);
        parallel(0, all, grain, [&](int64_t begin, int64_t end) {
            if (pixel_rows > 0 && images.in_place) mix_in_place(work, pairs, begin, end);
            if (pixel_rows > 0 && !images.in_place) mix_out_of_place(work, begin, end);
            for (int64_t i = share_of(target_rows, begin, all); i < share_of(target_rows, end, all); ++i)
                write_target_row(targets, target_row(targets, plan[i].row, plan[i].valid, static_cast<int32_t>(i)));
        });
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CPU, library) { cutmix::MixOps<cutmix::Cpu>::register_ops(library); }
