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

// The four vectors of one of the bytes of a table.
struct TableVectors {
    __m512i first, second, third, fourth;

    CUTMIX_VBMI explicit TableVectors(const std::array<uint8_t, 256>& bytes)
        : first(_mm512_load_si512(&bytes[0])),
          second(_mm512_load_si512(&bytes[64])),
          third(_mm512_load_si512(&bytes[128])),
          fourth(_mm512_load_si512(&bytes[192])) {}

    CUTMIX_VBMI __m512i look_up(__m512i bytes) const {
        return _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), _mm512_permutex2var_epi8(first, bytes, second),
                                      _mm512_permutex2var_epi8(third, bytes, fourth));
    }
};

// Writes what a table says about `count` bytes from `from` on, or where they are flipped, from `from` back. The writer
// is between two words.
template <bool kPastCaches>
CUTMIX_VBMI inline void look_up(const ByteTable& table, const uint8_t* from, bool flip, int64_t count,
                                LineWriter<kPastCaches>& writer) {
    const __m512i order = (flip ? kFlippedOrderOfBytes : kOrderOfBytes).load();
    const TableVectors low(table.low), high(table.high);
    const int64_t before = writer.end / 2;  // words that the line has, with which the first vector begins
    uint8_t* line = writer.line;
    __m512i pending = writer.pending;
    for (int64_t k = -before; k < count; k += 64) {
        const int64_t begin = std::max<int64_t>(0, -k), end = std::min<int64_t>(64, count - k);
        // Nothing else is read.
        const __mmask64 there =
            flip ? first_bits(64 - begin) & ~first_bits(64 - end) : first_bits(end) & ~first_bits(begin);
        const auto address = reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) + (flip ? -k - 63 : k));
        // Masked by all ones, because GCC warns of the undefined vector inside permutexvar.
        const __m512i bytes = _mm512_maskz_permutexvar_epi8(~0ull, order, _mm512_maskz_loadu_epi8(there, address));
        const __m512i lows = low.look_up(bytes), highs = high.look_up(bytes);
        pending = _mm512_mask_mov_epi16(pending, static_cast<__mmask32>(~first_bits(begin)),
                                        _mm512_unpacklo_epi8(lows, highs));
        if (end < 32) break;
        writer.store(line, pending);
        line += kLine;
        pending = _mm512_unpackhi_epi8(lows, highs);
        if (end < 64) break;
        writer.store_whole(line, pending);
        line += kLine;
    }
    writer.line = line;
    writer.pending = pending;
    writer.end = (before + count) * 2 % kLine;
}

// Writes three lines of words, `apart` words from each other, pixel by pixel. The writer is between two words.
template <bool kPastCaches>
CUTMIX_VBMI inline void interleave_words(const uint16_t* from, int64_t apart, int64_t count,
                                         LineWriter<kPastCaches>& writer) {
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
    for (int64_t k = 0, step; k < count; k += step) {
        // As many as end a line: 3 * 21 words more are one less than two lines.
        const int64_t to_line = writer.end / 2 * 21 % 32;
        step = std::min<int64_t>(to_line == 0 ? 32 : to_line, count - k);
        const auto there = static_cast<__mmask32>(first_bits(step));
        __m512i lines[3], words[3];
        for (int32_t line = 0; line < 3; ++line) lines[line] = _mm512_maskz_loadu_epi16(there, from + line * apart + k);
        for (int32_t vector = 0; vector < 3; ++vector) {
            words[vector] = _mm512_maskz_permutexvar_epi16(~0u, pixels[vector], lines[0]);
            words[vector] =
                _mm512_mask_permutexvar_epi16(words[vector], kOrder.second[vector], pixels[vector], lines[1]);
            words[vector] =
                _mm512_mask_permutexvar_epi16(words[vector], kOrder.third[vector], pixels[vector], lines[2]);
        }
        if (writer.end == 0 && step == 32) {
            for (int32_t vector = 0; vector < 3; ++vector)
                writer.store_whole(writer.line + vector * kLine, words[vector]);
            writer.line += 3 * kLine;
        } else {
            alignas(64) uint8_t bytes[3 * kLine];
            for (int32_t vector = 0; vector < 3; ++vector) _mm512_store_si512(bytes + vector * kLine, words[vector]);
            writer.put(bytes, step * 6);
        }
    }
}

}  // namespace cutmix
#endif
