// The maths of mixing: whose pixels to paste, where, and with which weight.
//
// One definition for host C++ and CUDA. Twins with the same names stand in cutmix_cuda/reference.py (PyTorch) and
// triton_kernels/mix_math.py (Triton); the tests hold all of them to the same bits. That works because nothing here
// rounds in more than one way: 32-bit integers, float32 + - * / sqrt rounded to nearest, truncation, comparison. No
// fused multiply-add (compile with -ffp-contract=off; the device side uses the *_rn intrinsics), no fast-math.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define CUTMIX_HD __host__ __device__ __forceinline__
#else
#define CUTMIX_HD inline
#endif

#if defined(__CUDA_ARCH__)
#define CUTMIX_UNROLL _Pragma("unroll")
#else
#define CUTMIX_UNROLL
#include <cmath>
#endif

namespace cutmix {

// ---- Arithmetic that every backend rounds alike

#if defined(__CUDA_ARCH__)
CUTMIX_HD float add_rn(float a, float b) { return __fadd_rn(a, b); }
CUTMIX_HD float sub_rn(float a, float b) { return __fsub_rn(a, b); }
CUTMIX_HD float mul_rn(float a, float b) { return __fmul_rn(a, b); }
CUTMIX_HD float div_rn(float a, float b) { return __fdiv_rn(a, b); }
CUTMIX_HD float sqrt_rn(float a) { return __fsqrt_rn(a); }
CUTMIX_HD double add_rn(double a, double b) { return __dadd_rn(a, b); }
CUTMIX_HD double sub_rn(double a, double b) { return __dsub_rn(a, b); }
CUTMIX_HD double mul_rn(double a, double b) { return __dmul_rn(a, b); }
CUTMIX_HD uint32_t mulhi(uint32_t a, uint32_t b) { return __umulhi(a, b); }
#else
CUTMIX_HD float add_rn(float a, float b) { return a + b; }
CUTMIX_HD float sub_rn(float a, float b) { return a - b; }
CUTMIX_HD float mul_rn(float a, float b) { return a * b; }
CUTMIX_HD float div_rn(float a, float b) { return a / b; }
CUTMIX_HD float sqrt_rn(float a) { return std::sqrt(a); }
CUTMIX_HD double add_rn(double a, double b) { return a + b; }
CUTMIX_HD double sub_rn(double a, double b) { return a - b; }
CUTMIX_HD double mul_rn(double a, double b) { return a * b; }
CUTMIX_HD uint32_t mulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); }
#endif

CUTMIX_HD int32_t min_of(int32_t a, int32_t b) { return a < b ? a : b; }
CUTMIX_HD int32_t max_of(int32_t a, int32_t b) { return a > b ? a : b; }

// ---- Random words: Philox4x32-10 (Salmon et al., SC 2011)

enum Stream : uint32_t {
    kPerBatch = 0,
    kPerDraw = 1,
    kPerView = 2,
    kPerErasing = 3,
    kPerTry = 4,
    kPerNoise = 5,
    kPerColour = 6
};

struct Words {
    uint32_t word[4];
};

// key = the seed; counter = (index, position, stream, group).
CUTMIX_HD Words philox(uint64_t seed, uint32_t index, uint32_t stream, uint32_t position = 0, uint32_t group = 0) {
    uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    uint32_t c0 = index, c1 = position, c2 = stream, c3 = group;
    CUTMIX_UNROLL
    for (int round = 0; round < 10; ++round) {
        const uint32_t hi0 = mulhi(0xD2511F53u, c0), lo0 = 0xD2511F53u * c0;
        const uint32_t hi1 = mulhi(0xCD9E8D57u, c2), lo1 = 0xCD9E8D57u * c2;
        c0 = hi1 ^ c1 ^ key0;
        c1 = lo1;
        c2 = hi0 ^ c3 ^ key1;
        c3 = lo0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// A word as a float in [0, 1): its upper 24 bits, exactly.
CUTMIX_HD float unit_float(uint32_t word) { return mul_rn(static_cast<float>(word >> 8), 0x1p-24f); }

// ---- Lambda: the inverse of its distribution function, by table

constexpr int32_t kQuantileIntervals = 4096;
constexpr int32_t kKnots = kQuantileIntervals + 1;  // of a table: Q(k / 4096), k = 0..4096

// Linear between the knots; clamped to [0, 1], so that no table, however wrong, leads outside the image.
CUTMIX_HD float quantile(const float* table, uint32_t word) {
    const uint32_t knot = word >> 20;
    const float fraction = mul_rn(static_cast<float>(word & 0xFFFFFu), 0x1p-20f);
    const float lower = table[knot], upper = table[knot + 1];
    const float value = add_rn(lower, mul_rn(fraction, sub_rn(upper, lower)));
    return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f;
}

// ---- Boxes

struct Box {
    int32_t y0, x0, y1, x1;  // pixels, half open
};

// The whole pixels in a share of a length. Beyond 2^24 float(length) may be rounded up, and all of it be too much.
CUTMIX_HD int32_t part_of(float share, int32_t length) {
    const float all = static_cast<float>(length), part = mul_rn(share, all);
    return part < all ? static_cast<int32_t>(part) : length;
}

struct Sides {
    int32_t height, width;
};

// The sides of a box of the share 1 - lam of the image, in pixels, times a scale: each the root of the share of the
// image's side. In an image one pixel high or wide, which that would cut to nothing, the box is a span: it covers the
// pixel, and takes the share itself of the other side.
CUTMIX_HD Sides sides_of(float lam, float scale, int32_t height, int32_t width) {
    const float share = sub_rn(1.0f, lam);
    if (min_of(height, width) == 1) {
        const float part = mul_rn(scale, share);
        return {height == 1 ? 1 : part_of(part, height), height == 1 ? part_of(part, width) : 1};
    }
    const float ratio = mul_rn(scale, sqrt_rn(share));
    return {part_of(ratio, height), part_of(ratio, width)};
}

// Centre anywhere in the image, clipped at its border: as Yun et al. (2019) and torchvision.
CUTMIX_HD Box clipped_box(float lam, uint32_t word_x, uint32_t word_y, int32_t height, int32_t width) {
    const Sides half = sides_of(lam, 0.5f, height, width);
    const int32_t x = static_cast<int32_t>(mulhi(word_x, static_cast<uint32_t>(width)));
    const int32_t y = static_cast<int32_t>(mulhi(word_y, static_cast<uint32_t>(height)));
    return {max_of(y - half.height, 0), max_of(x - half.width, 0), y + min_of(half.height, height - y),
            x + min_of(half.width, width - x)};
}

// Anywhere it fits, never clipped; both ends of the range are reached.
CUTMIX_HD Box inside_box(float lam, uint32_t word_x, uint32_t word_y, int32_t height, int32_t width,
                         float scale = 1.0f) {
    const Sides box = sides_of(lam, scale, height, width);
    const int32_t x0 = static_cast<int32_t>(mulhi(word_x, static_cast<uint32_t>(width - box.width) + 1));
    const int32_t y0 = static_cast<int32_t>(mulhi(word_y, static_cast<uint32_t>(height - box.height) + 1));
    return {y0, x0, y0 + box.height, x0 + box.width};
}

// The share of the image outside the box. Both areas are exact integers below 2^31; as float32 they are exact below
// 2^24 and rounded to nearest beyond.
CUTMIX_HD float share_outside(Box box, int32_t height, int32_t width) {
    const int32_t area = (box.y1 - box.y0) * (box.x1 - box.x0);
    return sub_rn(1.0f, div_rn(static_cast<float>(area), static_cast<float>(height * width)));
}

// ---- Partners: an affine map of the index that every thread computes for itself
//
// index + shift (mod batch), or shift - index, which is its own inverse. Modulo an odd number the latter pairs all but
// one sample, a new one at each shift. An even batch is taken as an odd one and a last sample, which is paired with the
// one that is left: the circle method, by which each of the others is the partner at exactly one of the shifts.

enum class Partner : int32_t {
    kRoll = 0,    // index - 1, as torchvision
    kFlip = 1,    // batch - 1 - index, as timm
    kShift = 2,   // index + s, s drawn once a batch
    kMirror = 3,  // s - index, s drawn once a batch: a new pairing at every call
};

// Whether samples exchange pixels in pairs, as mixing in place needs. Mirrored by _ops.py::INVERSE_OF_THEMSELVES.
CUTMIX_HD constexpr bool own_inverse(Partner rule) { return rule == Partner::kFlip || rule == Partner::kMirror; }

struct PartnerMap {
    bool reflects;   // shift - index if set, else index + shift
    uint32_t shift;  // in [0, batch)
};

// The modulus of maps that reflect: the batch without the last sample of an even one.
CUTMIX_HD uint32_t circle_of(uint32_t batch) { return (batch - 1) | 1; }

CUTMIX_HD PartnerMap partner_map(Partner rule, uint64_t seed, uint32_t batch) {
    if (rule == Partner::kRoll) return {false, batch - 1};
    // Modulo batch - 1, batch - 1 - index is -index.
    if (rule == Partner::kFlip) return {true, batch % 2 == 0 ? 0 : batch - 1};
    const uint32_t word = philox(seed, 0, kPerBatch).word[0];
    if (rule == Partner::kShift) return {false, 1 + mulhi(word, batch - 1)};
    return {true, mulhi(word, circle_of(batch))};
}

CUTMIX_HD uint32_t partner_of(PartnerMap map, uint32_t index, uint32_t batch) {
    if (map.reflects) {
        const uint32_t circle = circle_of(batch);
        if (index == circle) return (map.shift + map.shift % 2 * circle) / 2;  // the one that the circle leaves
        const uint32_t partner = map.shift >= index ? map.shift - index : map.shift + circle - index;
        return partner == index && circle < batch ? circle : partner;
    }
    const uint32_t sum = index + map.shift;
    return sum >= batch ? sum - batch : sum;
}

// ---- Kinds: what becomes of a sample

enum class Kind : int32_t {
    kKeep = 0,    // nothing
    kCutMix = 1,  // a box of its partner is pasted
    kMixUp = 2,   // all of it is blended with its partner
    kCutout = 3,  // a box of it is filled with one value
    kEnd          // of the kinds
};

constexpr int32_t kKinds = static_cast<int32_t>(Kind::kEnd) - 1;  // that do something

CUTMIX_HD constexpr bool is_kind(int32_t kind) { return kind >= 0 && kind <= kKinds; }

// Whether pixels of the partner come in.
CUTMIX_HD constexpr bool has_partner(Kind kind) { return kind == Kind::kCutMix || kind == Kind::kMixUp; }

// Whether only a box of the image changes.
CUTMIX_HD constexpr bool has_box(Kind kind) { return kind == Kind::kCutMix || kind == Kind::kCutout; }

// Whether changed pixels follow from the sample's own.
CUTMIX_HD constexpr bool reads_own(Kind kind) { return kind == Kind::kMixUp; }

// Whether changed pixels are the partner's as they are.
CUTMIX_HD constexpr bool pastes(Kind kind) { return has_partner(kind) && !reads_own(kind); }

// Whether they follow from the sample's own and its partner's.
CUTMIX_HD constexpr bool reads_both(Kind kind) { return has_partner(kind) && reads_own(kind); }

// Whether they are a value that is given.
CUTMIX_HD constexpr bool fills(Kind kind) { return kind != Kind::kKeep && !has_partner(kind) && !reads_own(kind); }

CUTMIX_HD constexpr bool any_kind_computes_in_box() {
    for (int32_t k = 1; k <= kKinds; ++k)
        if (reads_own(static_cast<Kind>(k)) && has_box(static_cast<Kind>(k))) return true;
    return false;
}

// Whether they follow from the sample's own, in a box. As long as there is no such kind, no kernel has code for it.
CUTMIX_HD constexpr bool computes_in_box(Kind kind) {
    constexpr bool kAny = any_kind_computes_in_box();
    return kAny && reads_own(kind) && has_box(kind);
}

// Whether pixels are computed with, and so of a dtype that allows it.
CUTMIX_HD constexpr bool blends(Kind kind) { return kind == Kind::kMixUp; }

// Whether the partner's target comes in.
CUTMIX_HD constexpr bool mixes_target(Kind kind) { return kind == Kind::kCutMix || kind == Kind::kMixUp; }

// Of pixels and of targets: lam * own + (1 - lam) * partner, each step rounded to nearest. Value is double for what is
// stored as double, or else float.
template <typename Value>
CUTMIX_HD Value mixed_value(float lam, Value own, Value partner) {
    const Value weight = static_cast<Value>(lam);
    return add_rn(mul_rn(weight, own), mul_rn(sub_rn(Value{1}, weight), partner));
}

// What a changed element becomes, of a kind that reads its own: computed as the value of an Element (see values.h), and
// rounded once. The one place where C++ and CUDA say so, of the batch tail too, whose elements are normalised floats.
template <typename Element>
CUTMIX_HD typename Element::Bits computed([[maybe_unused]] Kind kind, float lam, typename Element::Bits own,
                                          typename Element::Bits partner) {
    return Element::of(mixed_value(lam, Element::value(own), Element::value(partner)));  // mixup, the only one
}

// ---- The plan: one row a sample

struct alignas(16) PlanRow {  // the eight int32 columns of a packed plan
    int32_t partner;
    Box box;    // empty where the kind has none
    float lam;  // weight of the sample's own target, 1 where its kind does not mix it
    int32_t kind;
    int32_t reserved;
};
static_assert(sizeof(PlanRow) == 32, "a plan row is eight int32 columns");

enum class Scope : int32_t { kSample = 0, kPair = 1, kBatch = 2 };  // who shares a draw of lambda and box
enum class Placement : int32_t { kClip = 0, kInside = 1 };

// The integers `sampling` of the ops, in their order: see _ops.py::Sampling.
struct Sampling {
    Scope scope;
    Partner partner;
    Placement placement;
    bool correct_lam;
};
constexpr int64_t kSamplingOptions = 4;

// Options that are known, from the integers of an op; false where one is not.
inline bool decode_sampling(const int64_t* options, Sampling* sampling) {
    const auto known = [&](int64_t option, int64_t last) { return options[option] >= 0 && options[option] <= last; };
    if (!known(0, static_cast<int64_t>(Scope::kBatch)) || !known(1, static_cast<int64_t>(Partner::kMirror)) ||
        !known(2, static_cast<int64_t>(Placement::kInside)) || !known(3, 1))
        return false;
    *sampling = {static_cast<Scope>(options[0]), static_cast<Partner>(options[1]), static_cast<Placement>(options[2]),
                 options[3] != 0};
    return true;
}

// How a plan is drawn, but for the seed.
struct Draw {
    const float* quantiles;  // of lambda: kKinds tables, in the order of the kinds
    float bounds[kKinds];    // and these, of a random number in [0, 1): see first_below
    Sampling sampling;
    int32_t height, width;
};

CUTMIX_HD PlanRow kept_row(uint32_t partner) {
    return {static_cast<int32_t>(partner), {0, 0, 0, 0}, 1.0f, static_cast<int32_t>(Kind::kKeep), 0};
}

CUTMIX_HD uint32_t draw_index(Scope scope, uint32_t index, uint32_t partner) {
    if (scope == Scope::kBatch) return 0;
    return scope == Scope::kPair && partner < index ? partner : index;
}

// Which bound, from 1, is the first that a random number in [0, 1) is below; 0 where there is none. Of the bounds of
// kinds this is the kind.
template <int32_t kBounds>
CUTMIX_HD int32_t first_below(const float (&bounds)[kBounds], uint32_t word) {
    const float number = unit_float(word);
    CUTMIX_UNROLL
    for (int32_t k = 0; k < kBounds; ++k)
        if (number < bounds[k]) return k + 1;
    return 0;
}

// Whether the bounds leave room for a kind, or whatever else they are of.
template <typename Choice, int32_t kBounds>
bool can_draw(Choice choice, const float (&bounds)[kBounds]) {
    const int32_t last = static_cast<int32_t>(choice) - 1;
    for (int32_t k = 0; k < last; ++k)
        if (bounds[k] >= bounds[last]) return false;
    return bounds[last] > 0.0f;
}

// Whether a kind that blends can be drawn.
inline bool may_blend(const float (&bounds)[kKinds]) {
    for (int32_t k = 1; k <= kKinds; ++k)
        if (blends(static_cast<Kind>(k)) && can_draw(static_cast<Kind>(k), bounds)) return true;
    return false;
}

// Words of a draw: 0 lambda, 1 centre x, 2 centre y, 3 which kind.
CUTMIX_HD PlanRow sample_row(const Draw& draw, uint64_t seed, uint32_t index, uint32_t partner) {
    const Sampling& sampling = draw.sampling;
    const int32_t height = draw.height, width = draw.width;
    const Words words = philox(seed, draw_index(sampling.scope, index, partner), kPerDraw);
    const Kind kind = static_cast<Kind>(first_below(draw.bounds, words.word[3]));
    const bool alone = partner == index && has_partner(kind);
    if (kind == Kind::kKeep || alone || min_of(height, width) == 0) return kept_row(partner);

    const float lam = quantile(draw.quantiles + (static_cast<int32_t>(kind) - 1) * kKnots, words.word[0]);
    PlanRow row = {static_cast<int32_t>(partner), {0, 0, 0, 0}, lam, static_cast<int32_t>(kind), 0};
    if (has_box(kind))
        row.box = sampling.placement == Placement::kClip ? clipped_box(lam, words.word[1], words.word[2], height, width)
                                                         : inside_box(lam, words.word[1], words.word[2], height, width);
    if (!mixes_target(kind))
        row.lam = 1.0f;
    else if (has_box(kind) && sampling.correct_lam)
        row.lam = share_outside(row.box, height, width);
    return row;
}

// Whether a plan made by anyone may be followed: nothing in it leads outside the batch, the image or [0, 1], and a kind
// that blends meets pixels that can be blended.
CUTMIX_HD bool valid_row(const PlanRow& row, int32_t batch, int32_t height, int32_t width, bool can_blend) {
    const Box& box = row.box;
    return row.partner >= 0 && row.partner < batch && box.y0 >= 0 && box.y0 <= box.y1 && box.y1 <= height &&
           box.x0 >= 0 && box.x0 <= box.x1 && box.x1 <= width && row.lam >= 0.0f && row.lam <= 1.0f &&
           is_kind(row.kind) && (can_blend || !blends(static_cast<Kind>(row.kind)));
}

// ---- Label smoothing

// Label smoothing s over K classes, before mixing: a soft label y becomes y * (1 - s) + s / K, and a class index, as in
// timm, 1 - s + s / K at its place and s / K elsewhere.
struct Smoothing {
    double scale, off, on;
};

CUTMIX_HD Smoothing smoothing_of(double label_smoothing, int64_t num_classes) {
    const double scale = 1.0 - label_smoothing;
    const double off = num_classes > 0 ? label_smoothing / static_cast<double>(num_classes) : 0.0;
    return {scale, off, scale + off};
}

}  // namespace cutmix
