// Bytes that nothing blends have 256 values, so what is stored for them is looked up. A processor with AVX-512 VBMI
// looks 64 bytes up in a table of 256 by two permutations, fewer instructions than normalising and rounding take.
#pragma once

#include <array>

#include "writers.h"

#if CUTMIX_X86
#define CUTMIX_VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi2,avx512vbmi")))

namespace cutmix {

inline bool has_avx512_vbmi() { return has_avx512() && __builtin_cpu_supports("avx512vbmi"); }

// The two bytes of what is stored for each byte.
struct alignas(64) ByteTable {
    std::array<uint8_t, 256> low, high;

    void set(int32_t byte, uint16_t stored) {
        low[byte] = static_cast<uint8_t>(stored);
        high[byte] = static_cast<uint8_t>(stored >> 8);
    }
};

template <typename T>
struct alignas(64) VectorOf {
    std::array<T, 64 / sizeof(T)> at;

    CUTMIX_VBMI __m512i load() const { return _mm512_load_si512(at.data()); }
};

// Low and high bytes are put together in each quarter of a vector, of its first eight bytes, then of its last eight.
// In this order of the 64 bytes, reversed where they are flipped, the result is in order.
constexpr VectorOf<uint8_t> order_of_bytes(bool flip) {
    VectorOf<uint8_t> order = {};
    for (int32_t k = 0; k < 64; ++k) {
        const int32_t byte = k / 16 * 8 + k % 8 + (k % 16 < 8 ? 0 : 32);
        order.at[k] = static_cast<uint8_t>(flip ? 63 - byte : byte);
    }
    return order;
}

inline constexpr VectorOf<uint8_t> kOrderOfBytes = order_of_bytes(false), kFlippedOrderOfBytes = order_of_bytes(true);

// The first bits of a mask, at most all 64, and none of fewer than none.
CUTMIX_VBMI inline __mmask64 first_bits(int64_t count) {
    return _bzhi_u64(~0ull, static_cast<uint32_t>(std::clamp<int64_t>(count, 0, 64)));
}

CUTMIX_VBMI inline __m512i look_up64(const __m512i* table, __m512i bytes) {
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), _mm512_permutex2var_epi8(table[0], bytes, table[1]),
                                  _mm512_permutex2var_epi8(table[2], bytes, table[3]));
}

// What a table says about `count` bytes from `from` on, or where they are flipped, from `from` back.
CUTMIX_VBMI inline void look_up(const ByteTable& table, const uint8_t* from, bool flip, uint16_t* to, int64_t count) {
    const __m512i order = (flip ? kFlippedOrderOfBytes : kOrderOfBytes).load();
    __m512i low[4], high[4];
    for (int32_t quarter = 0; quarter < 4; ++quarter) {
        low[quarter] = _mm512_load_si512(&table.low[64 * quarter]);
        high[quarter] = _mm512_load_si512(&table.high[64 * quarter]);
    }
    for (int64_t k = 0; k < count; k += 64) {
        const int64_t rest = std::min<int64_t>(64, count - k);
        const auto address = reinterpret_cast<uintptr_t>(from) + (flip ? -k - 63 : k);
        const __mmask64 there = flip ? ~first_bits(64 - rest) : first_bits(rest);  // nothing else is read
        // Masked by all ones, because GCC warns of the undefined vector inside permutexvar.
        const __m512i bytes = _mm512_maskz_permutexvar_epi8(
            ~0ull, order, _mm512_maskz_loadu_epi8(there, reinterpret_cast<const void*>(address)));
        const __m512i lows = look_up64(low, bytes), highs = look_up64(high, bytes);
        _mm512_mask_storeu_epi16(to + k, static_cast<__mmask32>(first_bits(rest)), _mm512_unpacklo_epi8(lows, highs));
        if (rest > 32)
            _mm512_mask_storeu_epi16(to + k + 32, static_cast<__mmask32>(first_bits(rest - 32)),
                                     _mm512_unpackhi_epi8(lows, highs));
    }
}

// Three lines of words, `apart` words from each other, pixel by pixel.
CUTMIX_VBMI inline void interleave_words(const uint16_t* from, int64_t apart, uint16_t* to, int64_t count) {
    struct Order {
        VectorOf<uint16_t> pixel[3];   // of each word of three vectors
        uint32_t second[3], third[3];  // those that are of the second and of the third line
    };
    static constexpr Order kOrder = [] {
        Order order = {};
        for (int32_t word = 0; word < 96; ++word) {
            const uint32_t bit = 1u << word % 32;
            order.pixel[word / 32].at[word % 32] = static_cast<uint16_t>(word / 3);
            if (word % 3 == 1) order.second[word / 32] |= bit;
            if (word % 3 == 2) order.third[word / 32] |= bit;
        }
        return order;
    }();
    const __m512i pixels[3] = {kOrder.pixel[0].load(), kOrder.pixel[1].load(), kOrder.pixel[2].load()};
    for (int64_t k = 0; k < count; k += 32) {
        const int64_t rest = std::min<int64_t>(32, count - k);
        const auto there = static_cast<__mmask32>(first_bits(rest));
        __m512i lines[3];
        for (int32_t line = 0; line < 3; ++line) lines[line] = _mm512_maskz_loadu_epi16(there, from + line * apart + k);
        for (int32_t vector = 0; vector < 3; ++vector) {
            __m512i words = _mm512_maskz_permutexvar_epi16(~0u, pixels[vector], lines[0]);
            words = _mm512_mask_permutexvar_epi16(words, kOrder.second[vector], pixels[vector], lines[1]);
            words = _mm512_mask_permutexvar_epi16(words, kOrder.third[vector], pixels[vector], lines[2]);
            _mm512_mask_storeu_epi16(to + 3 * k + 32 * vector,
                                     static_cast<__mmask32>(first_bits(3 * rest - 32 * vector)), words);
        }
    }
}

}  // namespace cutmix
#endif
