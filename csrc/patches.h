// Several patches a sample: how they are drawn, which may be followed, what is painted, and what of a target is whose.
//
// Sample i starts as sample i mod batch, its canvas. Its patches are painted over it in their order, each in its box:
// nothing (keep), the partner's pixels (paste), lam * what lies below + (1 - lam) * the partner's (blend), or one value
// (fill). A mask says how much of what lies below is left. A patch is then a weight of what lies below at each pixel,
// weight_below, 1 outside of its box, and a pixel is what the topmost patch of weight 0 brings, with those above
// blended over it: it is read from its owner alone, and rounded once.
//
// Twins with the same names stand in cutmix_cuda/reference_patches.py and triton_kernels/patches_math.py.
#pragma once

#include "mix_call.h"

namespace cutmix {

constexpr int32_t kMostPatches = 64;       // of a sample. Mirrors _ops.py::MOST_PATCHES
constexpr int32_t kLongestSide = 1 << 15;  // of images and masks: the product of two is an int32

enum PatchStream : uint32_t { kPerPatchBatch = 8, kPerPatch = 9 };  // behind those of mix_math.h

// ---- What a call asks of a backend, in plain pointers and sizes

struct Masks {
    const void* data;  // (count, channels, height, width), bool or float32
    int32_t count, height, width;
    bool soft;             // float32
    int32_t channels = 1;  // of which each has a mask of its own; 1: all have one
};

constexpr int64_t kMostMaskedPixels = int64_t{1} << 38;  // of all channels, so that their units are an int64

struct Patch {  // a row of the plan and its source
    PlanRow row;
    Box source;

    CUTMIX_HD Kind kind() const { return static_cast<Kind>(row.kind); }
    CUTMIX_HD int32_t mask() const { return row.reserved; }  // its number from 1; 0 for none
};

// How a sample is mixed: as one of the kinds of mix_math.h, with their numbers, or otherwise.
enum class PatchMethod : int32_t {
    kKeep = static_cast<int32_t>(Kind::kKeep),
    kCutout = static_cast<int32_t>(Kind::kCutout),
    kResizeMix = kKinds + 1,  // the partner, made smaller
    kRicap,                   // four partners, one in each corner
    kEnd                      // of the methods
};

constexpr int32_t kPatchMethods = static_cast<int32_t>(PatchMethod::kEnd) - 1;  // that do something
constexpr int32_t kRicapPatches = 4;

// How patches are drawn, but for the seed. A random number says which method is a sample's, as it says its kind in
// mix_math.h: so what is mixed as one of the kinds is what it would be without other methods.
struct PatchDraw {
    Draw kinds;                   // with a table for each method, and targets by the area
    float bounds[kPatchMethods];  // of a random number in [0, 1): see first_below. The first are those of the kinds
    int32_t holes;                // of a sample that is cut out
};

struct PatchCall {
    // The plan: given, or to be sampled and written where `sampled_rows` is not null.
    const PlanRow* rows;  // (samples, patches)
    const Box* sources;   // the same; null: the boxes
    PlanRow* sampled_rows;
    Box* sampled_sources;
    PatchDraw draw;
    uint64_t seed;
    const int64_t* device_seed;  // where set, the kernel loads the seed from here

    Masks masks;
    ChannelPlace channel_place;  // where masks.channels are in the images
    const float* weights;        // (samples, 1 + patches), or null
    int32_t samples, patches;
    int32_t batch, others;  // partners are batch samples and, behind them, others
    int32_t height, width;
    bool can_blend;

    Images images;  // in_rows are of `batch` samples, out_rows of `samples`, of which in place there are as many
    const uint8_t* other_images;
    Rows other_rows;
    Targets targets;
    const void* other_labels;  // or null
};

// ---- How patches are drawn

// A share of a length in whole pixels, halves up.
CUTMIX_HD int32_t nearest_part_of(float share, int32_t length) {
    return min_of(static_cast<int32_t>(add_rn(mul_rn(share, static_cast<float>(length)), 0.5f)), length);
}

// A box of the image's shape, or a span of an image one pixel high or wide, anywhere inside.
CUTMIX_HD Box scaled_box(float scale, uint32_t word_x, uint32_t word_y, int32_t height, int32_t width) {
    return inside_box(0.0f, word_x, word_y, height, width, scale);
}

// Whether no method but cutout can be drawn.
inline bool draws_holes_alone(const float (&bounds)[kPatchMethods]) {
    for (int32_t k = 1; k <= kPatchMethods; ++k)
        if (static_cast<PatchMethod>(k) != PatchMethod::kCutout && can_draw(k, bounds)) return false;
    return true;
}

// How many patches a sample has that is mixed by a method.
CUTMIX_HD uint32_t patches_of(PatchMethod method, int32_t holes) {
    if (method == PatchMethod::kKeep) return 0;
    if (method == PatchMethod::kRicap) return kRicapPatches;
    return method == PatchMethod::kCutout ? static_cast<uint32_t>(holes) : 1;
}

// A patch of a sample whose mapped partner this is; kept where its method has fewer. Words of kPerPatch, of a sample:
// 0 and 1 the corner of ricap; of a patch: 0 its size, 1 and 2 its place. The others are those of sample_row.
CUTMIX_HD Patch sample_patch(const PatchDraw& draw, uint64_t seed, uint32_t index, uint32_t mapped, uint32_t patch,
                             uint32_t batch) {
    const Sampling& sampling = draw.kinds.sampling;
    const int32_t height = draw.kinds.height, width = draw.kinds.width;
    const uint32_t drawn = draw_index(sampling.scope, index, mapped);
    const PatchMethod method =
        static_cast<PatchMethod>(first_below(draw.bounds, philox(seed, drawn, kPerDraw).word[3]));
    const bool alone = method == PatchMethod::kResizeMix && mapped == index;
    if (patch >= patches_of(method, draw.holes) || alone || height == 0 || width == 0)
        return {kept_row(mapped), {0, 0, 0, 0}};

    const bool several_holes = method == PatchMethod::kCutout && draw.holes > 1;
    if (is_kind(static_cast<int32_t>(method)) && !several_holes) {
        Patch made = {sample_row(draw.kinds, seed, index, mapped), {}};
        if (made.kind() != Kind::kKeep && !has_box(made.kind())) made.row.box = {0, 0, height, width};
        made.source = made.row.box;
        return made;
    }

    const float* const table = draw.kinds.quantiles + (static_cast<int32_t>(method) - 1) * kKnots;
    const Words of_patch = philox(seed, drawn, kPerPatch, 1 + patch);
    const uint32_t word_x = of_patch.word[1], word_y = of_patch.word[2];
    Patch made = {{static_cast<int32_t>(mapped), {}, 1.0f, static_cast<int32_t>(Kind::kCutMix), 0}, {}};
    Box& box = made.row.box;
    if (several_holes) {
        const float lam = quantile(table, of_patch.word[0]);
        box = sampling.placement == Placement::kClip ? clipped_box(lam, word_x, word_y, height, width)
                                                     : inside_box(lam, word_x, word_y, height, width);
        made.source = box;
        made.row.kind = static_cast<int32_t>(Kind::kCutout);
        return made;
    }
    if (method == PatchMethod::kResizeMix) {
        box = scaled_box(quantile(table, of_patch.word[0]), word_x, word_y, height, width);
        made.source = {0, 0, height, width};
    } else {
        const uint32_t sum = index + mulhi(philox(seed, 0, kPerPatchBatch, patch).word[0], batch);
        made.row.partner = static_cast<int32_t>(sum >= batch ? sum - batch : sum);
        const Words of_sample = philox(seed, drawn, kPerPatch);
        const int32_t corner_y = nearest_part_of(quantile(table, of_sample.word[0]), height);
        const int32_t corner_x = nearest_part_of(quantile(table, of_sample.word[1]), width);
        const bool lower = patch / 2 == 1, right = patch % 2 == 1;
        box = {lower ? corner_y : 0, right ? corner_x : 0, lower ? height : corner_y, right ? width : corner_x};
        const int32_t rows = box.y1 - box.y0, columns = box.x1 - box.x0;
        const int32_t y = static_cast<int32_t>(mulhi(word_y, static_cast<uint32_t>(height - rows) + 1));
        const int32_t x = static_cast<int32_t>(mulhi(word_x, static_cast<uint32_t>(width - columns) + 1));
        made.source = {y, x, y + rows, x + columns};
    }
    made.row.lam = share_outside(box, height, width);
    return made;
}

// ---- What a given plan may say

CUTMIX_HD bool inside(const Box& box, int32_t height, int32_t width) {
    return box.y0 >= 0 && box.y0 <= box.y1 && box.y1 <= height && box.x0 >= 0 && box.x0 <= box.x1 && box.x1 <= width;
}

CUTMIX_HD bool valid_patch(const Patch& patch, const PatchCall& call) {
    const PlanRow& row = patch.row;
    if (!(row.partner >= 0 && row.partner < int64_t{call.batch} + call.others && is_kind(row.kind) &&
          inside(row.box, call.height, call.width) && row.lam >= 0.0f && row.lam <= 1.0f && patch.mask() >= 0 &&
          patch.mask() <= call.masks.count))
        return false;
    const bool soft = call.masks.soft && patch.mask() != 0 && patch.kind() != Kind::kKeep;
    if (!call.can_blend && (soft || blends(patch.kind()))) return false;
    const Box &box = row.box, &source = patch.source;
    const bool nothing = source.y0 == source.y1 || source.x0 == source.x1;
    return inside(source, call.height, call.width) &&
           !(nothing && has_partner(patch.kind()) && box.y0 < box.y1 && box.x0 < box.x1);
}

CUTMIX_HD bool valid_weight(float weight) { return weight >= 0.0f && weight <= 1.0f; }

// In place a sample exchanges pixels with its mate alone: the partner that all of its patches have, and whose patches
// all have it. What becomes of a position of both then depends on these two pixels and on no others, so whoever reads
// both before writing either can do it. A sample without a mate is its own.
CUTMIX_HD int32_t mate_of(const PatchCall& call, int32_t sample) {
    if (!call.rows) return sample;  // holes, which bring nobody's pixels
    const PlanRow* const own = call.rows + int64_t{sample} * call.patches;
    const int32_t mate = own->partner;
    if (mate < 0 || mate >= call.batch) return sample;
    const PlanRow* const theirs = call.rows + int64_t{mate} * call.patches;
    for (int32_t k = 0; k < call.patches; ++k)
        if (own[k].partner != mate || theirs[k].partner != sample) return sample;
    return mate;
}

// Whether a patch may be painted in place: it brings nobody's pixels, or the mate's from where they are.
CUTMIX_HD bool valid_in_place(const Patch& patch, int32_t mate) {
    const Box &box = patch.row.box, &source = patch.source;
    return !has_partner(patch.kind()) || (patch.row.partner == mate && source.y0 == box.y0 && source.x0 == box.x0 &&
                                          source.y1 == box.y1 && source.x1 == box.x1);
}

// ---- What is painted

// Which plane of the masks a patch reads: one for all channels, or that of a channel.
struct EveryChannel {};
CUTMIX_HD int64_t plane_of(const Patch& patch, const Masks&, EveryChannel) { return patch.mask() - 1; }
CUTMIX_HD int64_t plane_of(const Patch& patch, const Masks& masks, int32_t channel) {
    return int64_t{patch.mask() - 1} * masks.channels + channel;
}

// The weight of what lies below a patch in its box, by its mask's there.
template <typename Channel>
CUTMIX_HD float weight_in_box(const Patch& patch, const Masks& masks, Channel channel, int32_t cell_y, int32_t cell_x) {
    const float lam = blends(patch.kind()) ? patch.row.lam : 0.0f;
    if (patch.mask() == 0) return lam;
    const int64_t cell = (plane_of(patch, masks, channel) * masks.height + cell_y) * masks.width + cell_x;
    if (!masks.soft) return static_cast<const uint8_t*>(masks.data)[cell] != 0 ? 1.0f : lam;
    float weight = static_cast<const float*>(masks.data)[cell];
    weight = weight > 0.0f ? (weight < 1.0f ? weight : 1.0f) : 0.0f;
    return add_rn(weight, mul_rn(sub_rn(1.0f, weight), lam));
}

CUTMIX_HD bool in_box(const Patch& patch, int32_t y, int32_t x) {
    const Box& box = patch.row.box;
    return patch.kind() != Kind::kKeep && y >= box.y0 && y < box.y1 && x >= box.x0 && x < box.x1;
}

// Which cell of a mask, of `cells` over a length, a pixel reads.
CUTMIX_HD int32_t cell_of(int32_t position, int32_t cells, int32_t length) {
    return cells == length ? position : position * cells / length;
}

template <typename Channel>
CUTMIX_HD float weight_below(const Patch& patch, const Masks& masks, Channel channel, int32_t y, int32_t x,
                             int32_t height, int32_t width) {
    if (!in_box(patch, y, x)) return 1.0f;
    if (patch.mask() == 0) return weight_in_box(patch, masks, channel, 0, 0);
    return weight_in_box(patch, masks, channel, cell_of(y, masks.height, height), cell_of(x, masks.width, width));
}

// Which row (or column) of a source a position in the box reads.
CUTMIX_HD int32_t source_of(int32_t position, int32_t begin, int32_t end, int32_t source_begin, int32_t source_end) {
    const int32_t length = end - begin, source_length = source_end - source_begin;
    if (length == source_length) return source_begin + position - begin;
    return source_begin + (position - begin) * source_length / length;
}

// ---- Whose a target is

constexpr float kUnits = 0x1p24f;  // of the weight of a pixel, so that sums are of integers, in any order

// A patch's part of a pixel, in units, of what the patches above leave.
CUTMIX_HD int64_t units_of(float left, float below) {
    return static_cast<int64_t>(mul_rn(mul_rn(left, sub_rn(1.0f, below)), kUnits));
}

CUTMIX_HD float share_of(int64_t units, float pixels) {
    return div_rn(static_cast<float>(units), mul_rn(pixels, kUnits));
}

// Whose label is part `part` of a target: the canvas's, then the patches' partners'.
CUTMIX_HD int32_t owner_of(const PatchCall& call, int32_t sample, const Patch* patches, int32_t part) {
    return part == 0 ? sample % call.batch : patches[part - 1].row.partner;
}

CUTMIX_HD int32_t class_of(const PatchCall& call, int32_t owner) {
    if (owner < call.batch) return load_class(call.targets, owner);
    Targets others = call.targets;
    others.labels = call.other_labels;
    return load_class(others, owner - call.batch);
}

// A class's part of a label, smoothed.
template <typename Value>
CUTMIX_HD Value label_value(const PatchCall& call, int32_t owner, int32_t known_class, int32_t column) {
    const Targets& targets = call.targets;
    const Value off = static_cast<Value>(targets.smoothing.off);
    if (!is_float(targets.labels_dtype)) return column == known_class ? static_cast<Value>(targets.smoothing.on) : off;
    const bool first = owner < call.batch;
    const int64_t row = first ? owner : owner - call.batch;
    const Value label = load_value<Value>(first ? targets.labels : call.other_labels, targets.labels_dtype,
                                          row * targets.num_classes + column);
    return add_rn(mul_rn(label, static_cast<Value>(targets.smoothing.scale)), off);
}

struct Part {  // of a target
    int32_t owner, known_class;
    float weight;  // 0: does not count
};

// A class's value: the sum of its parts, in their order.
template <typename Value>
CUTMIX_HD Value patch_target(const PatchCall& call, const Part* parts, int32_t count, int32_t column) {
    Value sum = 0;
    for (int32_t part = 0; part < count; ++part)
        if (parts[part].weight > 0.0f)
            sum = add_rn(sum, mul_rn(static_cast<Value>(parts[part].weight),
                                     label_value<Value>(call, parts[part].owner, parts[part].known_class, column)));
    return sum;
}

}  // namespace cutmix
