// Values by type: how labels, targets and pixels are read, rounded and written.
//
// For labels and targets types are values, not template parameters: targets are a hundredth of the bytes of the images,
// and a switch on a launch-wide constant costs less than sixteen copies of every kernel. Pixels are bytes, whatever
// their type, until mixup blends them: then an element is one of the structs at the end.
#pragma once

#include "mix_math.h"

namespace cutmix {

enum class Dtype : int32_t { kU8, kI8, kU16, kI16, kU32, kI32, kU64, kI64, kF16, kBF16, kF32, kF64, kOther };

CUTMIX_HD bool is_float(Dtype dtype) { return dtype >= Dtype::kF16 && dtype <= Dtype::kF64; }

// Whether pixels of a type can be blended. Wider integers are class indices and the like, of which there is no mean.
CUTMIX_HD bool can_blend(Dtype dtype) { return dtype == Dtype::kU8 || is_float(dtype); }

// ---- Half precision as bits, rounded to nearest even. A GPU has instructions for it, with other bits of a NaN.

CUTMIX_HD uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

CUTMIX_HD float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

CUTMIX_HD float bfloat16_to_float(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }

CUTMIX_HD uint16_t float_to_bfloat16(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint16_t rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
    return rounded;
#else
    const uint32_t bits = bits_of(value);
    return static_cast<uint16_t>(value == value ? (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16 : 0x7FC0u);
#endif
}

CUTMIX_HD float half_to_float(uint16_t bits) {
#if defined(__CUDA_ARCH__)
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    const uint32_t sign = (bits & 0x8000u) << 16, magnitude = (bits & 0x7FFFu) << 13;
    // Shifted into place the exponent is 112 too small; one exact product mends it, subnormals included.
    const uint32_t finite = bits_of(mul_rn(float_of(magnitude), 0x1p112f));
    return float_of(sign | (magnitude < 0x0F800000u ? finite : 0x7F800000u | magnitude));
#endif
}

CUTMIX_HD uint16_t float_to_half(float value) {
#if defined(__CUDA_ARCH__)
    uint16_t rounded;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
    return rounded;
#else
    const uint32_t bits = bits_of(value), magnitude = bits & 0x7FFFFFFFu;
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t normal = (magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
    const uint32_t subnormal = bits_of(add_rn(float_of(magnitude), 0.5f)) - 0x3F000000u;  // rounds the bits below 2^-24
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t rounded = magnitude < 0x477FF000u ? finite : 0x7C00u;  // to infinity
    return static_cast<uint16_t>(magnitude <= 0x7F800000u ? sign | rounded : 0x7E00u);
#endif
}

// ---- Loads and stores by type

template <typename Value>
CUTMIX_HD Value load_value(const void* data, Dtype dtype, int64_t index) {
    switch (dtype) {
        case Dtype::kF16:
            return static_cast<Value>(half_to_float(static_cast<const uint16_t*>(data)[index]));
        case Dtype::kBF16:
            return static_cast<Value>(bfloat16_to_float(static_cast<const uint16_t*>(data)[index]));
        case Dtype::kF32:
            return static_cast<Value>(static_cast<const float*>(data)[index]);
        default:
            return static_cast<Value>(static_cast<const double*>(data)[index]);
    }
}

template <typename Value>
CUTMIX_HD void store_value(void* data, Dtype dtype, int64_t index, Value value) {
    switch (dtype) {
        case Dtype::kF16:
            static_cast<uint16_t*>(data)[index] = float_to_half(static_cast<float>(value));
            break;
        case Dtype::kBF16:
            static_cast<uint16_t*>(data)[index] = float_to_bfloat16(static_cast<float>(value));
            break;
        case Dtype::kF32:
            static_cast<float*>(data)[index] = static_cast<float>(value);
            break;
        default:
            static_cast<double*>(data)[index] = static_cast<double>(value);
            break;
    }
}

// ---- Elements of images

// Value is what they are blended as, float or double; of(value) rounds it once, to nearest, ties to even.
struct ElementU8 {
    using Bits = uint8_t;
#if defined(__CUDA_ARCH__)
    // The last byte of 2^23: two fast instructions instead of a conversion, of which a GPU does few at a time.
    static CUTMIX_HD float value(Bits bits) { return sub_rn(float_of(0x4B000000u | bits), 0x1p23f); }
#else
    static CUTMIX_HD float value(Bits bits) { return static_cast<float>(bits); }
#endif
    // Of a sum with 2^23 the last bit of 24 is worth 1.
    static CUTMIX_HD Bits of(float value) { return static_cast<Bits>(bits_of(add_rn(value, 0x1p23f))); }
};

struct ElementF16 {
    using Bits = uint16_t;
    static CUTMIX_HD float value(Bits bits) { return half_to_float(bits); }
    static CUTMIX_HD Bits of(float value) { return float_to_half(value); }
};

struct ElementBF16 {
    using Bits = uint16_t;
    static CUTMIX_HD float value(Bits bits) { return bfloat16_to_float(bits); }
    static CUTMIX_HD Bits of(float value) { return float_to_bfloat16(value); }
};

struct ElementF32 {
    using Bits = float;
    static CUTMIX_HD float value(Bits bits) { return bits; }
    static CUTMIX_HD Bits of(float value) { return value; }
};

struct ElementF64 {
    using Bits = double;
    static CUTMIX_HD double value(Bits bits) { return bits; }
    static CUTMIX_HD Bits of(double value) { return value; }
};

}  // namespace cutmix
