// The adjoint of mixing on the CPU. The parts of a sample's sum are the same in all its slices, so a slice is cut into
// segments in which the parts do not change. A segment of one part is a copy, and only where parts meet is anything
// computed.

#include <algorithm>
#include <cstring>
#include <vector>

#include "adjoint_ops.h"
#include "threads.h"
#include "writers.h"

namespace cutmix {
namespace {

constexpr int64_t kBytesPerTask = 1 << 15;  // less than this is not worth a thread

// Bytes of a row in which a mixed sample gives to the one whose sum it is.
struct Part {
    int64_t begin, end;
    int32_t sample;
    double weight;

    bool operator==(const Part& other) const { return sample == other.sample && weight == other.weight; }
};

struct Segment {
    int64_t begin, end;  // bytes of a slice
    std::vector<Part> parts;
};

// The rows of a plan that are followed, and the takers of each sample.
struct Followed {
    const AdjointCall& call;
    std::vector<Kind> kinds;
    std::vector<Link> links;

    explicit Followed(const AdjointCall& call)
        : call(call), kinds(static_cast<size_t>(call.batch)), links(kinds.size(), {-1, -1}) {
        for (int32_t i = call.batch - 1; i >= 0; --i) {
            kinds[i] = followed_kind(call.plan[i], call.batch, call.height, call.width);
            if (!has_partner(kinds[i])) continue;
            links[i].next = links[call.plan[i].partner].first;
            links[call.plan[i].partner].first = i;
        }
    }

    // The bytes of row y of a mixed sample that are not its own; all of them where it is blended.
    Part changed(int32_t sample, int64_t y) const {
        const Box& box = call.plan[sample].box;
        const int64_t pixel = call.in_rows.pixel_bytes;
        if (kinds[sample] == Kind::kKeep) return {};
        if (!has_box(kinds[sample])) return {0, call.in_rows.row_bytes(), sample, 1.0};
        return y >= box.y0 && y < box.y1 ? Part{box.x0 * pixel, box.x1 * pixel, sample, 1.0} : Part{};
    }

    double weight(float lam, bool own) const {
        if (call.dtype == Dtype::kF64) return own ? own_weight<double>(lam) : partner_weight<double>(lam);
        return own ? own_weight<float>(lam) : partner_weight<float>(lam);
    }

    // Those of row y, in the order in which they are added. Some may be empty.
    std::vector<Part> parts(int32_t sample, int64_t y) const {
        const Part mine = changed(sample, y);
        std::vector<Part> parts = {{0, mine.begin, sample, 1.0}, {mine.end, call.in_rows.row_bytes(), sample, 1.0}};
        if (blends(kinds[sample])) parts = {{mine.begin, mine.end, sample, weight(call.plan[sample].lam, true)}};
        for (int32_t taker = links[sample].first; taker >= 0; taker = links[taker].next) {
            Part part = changed(taker, y);
            if (blends(kinds[taker])) part.weight = weight(call.plan[taker].lam, false);
            parts.push_back(part);
        }
        return parts;
    }

    // The segments of a slice of a sample. Neighbours of the same parts are one.
    std::vector<Segment> segments(int32_t sample) const {
        std::vector<Segment> segments;
        std::vector<int64_t> edges;
        const int64_t row_bytes = call.in_rows.row_bytes();
        for (int64_t y = 0; y < call.height; ++y) {
            const std::vector<Part> in_row = parts(sample, y);
            edges = {0, row_bytes};
            for (const Part& part : in_row) edges.insert(edges.end(), {part.begin, part.end});
            std::sort(edges.begin(), edges.end());
            for (size_t k = 0; k + 1 < edges.size(); ++k) {
                const int64_t begin = edges[k], end = edges[k + 1];
                if (begin == end) continue;
                Segment segment = {y * row_bytes + begin, y * row_bytes + end, {}};
                for (const Part& part : in_row)
                    if (part.begin <= begin && end <= part.end) segment.parts.push_back(part);
                if (!segments.empty() && segments.back().parts == segment.parts)
                    segments.back().end = segment.end;
                else
                    segments.push_back(std::move(segment));
            }
        }
        return segments;
    }
};

template <typename Element>
void sum_elements(const uint8_t* in, int64_t sample_stride, const std::vector<Part>& parts, uint8_t* out,
                  int64_t bytes) {
    using Bits = typename Element::Bits;
    using Value = decltype(Element::value(Bits{}));
    constexpr int64_t kElements = 512;
    Value sums[kElements];
    const int64_t elements = bytes / static_cast<int64_t>(sizeof(Bits));
    for (int64_t first = 0; first < elements; first += kElements) {
        const int64_t count = std::min(kElements, elements - first);
        for (size_t k = 0; k < parts.size(); ++k) {
            const Bits* bits = reinterpret_cast<const Bits*>(in + parts[k].sample * sample_stride) + first;
            const Value weight = static_cast<Value>(parts[k].weight);
            for (int64_t i = 0; i < count; ++i) {
                const Value part = mul_rn(weight, Element::value(bits[i]));
                sums[i] = k == 0 ? part : add_rn(sums[i], part);
            }
        }
        Bits* to = reinterpret_cast<Bits*>(out) + first;
        for (int64_t i = 0; i < count; ++i) to[i] = Element::of(sums[i]);
    }
}

void sum(Dtype dtype, const uint8_t* in, int64_t sample_stride, const std::vector<Part>& parts, uint8_t* out,
         int64_t bytes) {
    switch (dtype) {
        case Dtype::kF16:
            return sum_elements<ElementF16>(in, sample_stride, parts, out, bytes);
        case Dtype::kBF16:
            return sum_elements<ElementBF16>(in, sample_stride, parts, out, bytes);
        case Dtype::kF32:
            return sum_elements<ElementF32>(in, sample_stride, parts, out, bytes);
        default:
            return sum_elements<ElementF64>(in, sample_stride, parts, out, bytes);
    }
}

void write_segment(const AdjointCall& call, decltype(sum)* sum_up, const Segment& segment, const uint8_t* in,
                   uint8_t* out) {
    const int64_t bytes = segment.end - segment.begin, stride = call.in_rows.sample_stride;
    const std::vector<Part>& parts = segment.parts;
    if (parts.empty())
        std::memset(out, 0, static_cast<size_t>(bytes));
    else if (parts.size() == 1 && parts[0].weight == 1.0)
        copy_bytes(out, in + parts[0].sample * stride, bytes);
    else
        sum_up(call.dtype, in, stride, parts, out, bytes);
}

struct Cpu {
    static constexpr bool kWantsLinks = false;

    static void run(const AdjointCall& call, const Tensor&) {
        ask_for_huge_pages(call.out, call.out_rows.all_bytes());
        const Followed followed(call);
        auto* const sum_up = for_processor<sum>();
        const int64_t slices = call.in_rows.slices, slice_bytes = call.in_rows.height * call.in_rows.row_bytes();
        const int64_t slices_per_task = std::max<int64_t>(1, kBytesPerTask / slice_bytes);
        parallel(0, call.batch * slices, slices_per_task, [&](int64_t begin, int64_t end) {
            while (begin < end) {
                const int64_t sample = begin / slices, behind = std::min(end, (sample + 1) * slices);
                const std::vector<Segment> segments = followed.segments(static_cast<int32_t>(sample));
                for (; begin < behind; ++begin) {
                    const int64_t offset = begin % slices * slice_bytes;
                    uint8_t* out = call.out + sample * call.out_rows.sample_stride + offset;
                    for (const Segment& segment : segments)
                        write_segment(call, sum_up, segment, call.in + offset + segment.begin, out + segment.begin);
                }
            }
        });
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CPU, library) { cutmix::AdjointOps<cutmix::Cpu>::register_ops(library); }
