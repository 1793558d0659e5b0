// Writes bytes to memory one after the other, the fastest way that the processor knows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "../mix_call.h"
#include "pages.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(CUTMIX_PORTABLE)
#include <immintrin.h>
#define CUTMIX_X86 1  // vectors of one processor or another are there to be asked for; see __builtin_cpu_supports
#define CUTMIX_AVX2 __attribute__((target("avx2,f16c")))  // whoever has AVX2 has F16C
#define CUTMIX_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,bmi2")))
// What is called is compiled for these vectors as well. Not under the address sanitizer, whose checks make so large a
// function take minutes to compile.
#ifdef __SANITIZE_ADDRESS__
#define CUTMIX_FLATTEN
#else
#define CUTMIX_FLATTEN __attribute__((flatten))
#endif
#endif

namespace cutmix {

constexpr int64_t kLine = 64;  // bytes of a cache line, and of the widest vectors

// The processor fetches ahead what is read in one go, but not the short runs of a box.
constexpr int32_t kRowsAhead = 8;

// Asks for every line of the cache that so many bytes lie in.
inline void prefetch(const uint8_t* from, int64_t count) {
    const auto begin = reinterpret_cast<uintptr_t>(from);
    for (uintptr_t line = begin / kLine * kLine; line < begin + static_cast<uintptr_t>(count); line += kLine)
        __builtin_prefetch(reinterpret_cast<const void*>(line));
    asm volatile("");  // or else GCC takes what does no more for a function without effect, and drops its calls
}

// Runs of a box are short, and a call of memcpy costs as much as moving a hundred bytes; it pays for long ones.
inline void copy_bytes(uint8_t* to, const uint8_t* from, int64_t count) {
    constexpr int64_t kVector = 16, kLong = 2048;
    if (count < kVector || count >= kLong) {
        std::memcpy(to, from, static_cast<size_t>(count));
        return;
    }
    for (int64_t k = 0; k < count - kVector; k += kVector) std::memcpy(to + k, from + k, kVector);
    std::memcpy(to + count - kVector, from + count - kVector, kVector);
}

// Writes bytes one after the other.
struct Writer {
    uint8_t* out;

    void put(const uint8_t* from, int64_t count) {
        copy_bytes(out, from, count);
        out += count;
    }
    void finish() {}
};

#if CUTMIX_X86
// The same, a cache line at a time: what of a line comes from where is put together in a register, and the line written
// once. Past the caches, where the output does not fit into them: it is then not read from memory before it is written,
// a third of the traffic of a copy.
template <bool kPastCaches>
struct alignas(64) LineWriter {  // by itself the compiler asks new for memory that is aligned less
    uint8_t* line;               // the one that is put together,
    __m512i pending;             // what of it there is so far,
    int64_t end;                 // as far as here,
    __mmask64 outside;           // and the bytes before the output, in its first line

    CUTMIX_AVX512 explicit LineWriter(uint8_t* out)
        : pending(_mm512_setzero_si512()), end(reinterpret_cast<uintptr_t>(out) % kLine), outside(first(end)) {
        line = out - end;
    }

    CUTMIX_AVX512 void put(const uint8_t* from, int64_t count) {
        if (end > 0) {
            const int64_t part = std::min(count, kLine - end);
            // A vector that begins `end` bytes early, where nothing is read.
            const auto early = reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(from) - end);
            pending = _mm512_mask_loadu_epi8(pending, first(part) << end, early);
            end += part;
            if (end < kLine) return;
            store(line, pending);
            line += kLine;
            from += part;
            count -= part;
        }
        uint8_t* to = line;  // a local, because as far as the compiler knows, what is stored might be the member
        for (; count >= kLine; count -= kLine, from += kLine, to += kLine) store_whole(to, _mm512_loadu_si512(from));
        line = to;
        pending = _mm512_maskz_loadu_epi8(first(count), from);
        end = count;
    }

    CUTMIX_AVX512 void finish() {
        _mm512_mask_storeu_epi8(line, first(end) & ~outside, pending);
        if (kPastCaches) _mm_sfence();
    }

    // A line that is complete, but for what of the first one is not the output.
    CUTMIX_AVX512 void store(uint8_t* to, __m512i bytes) {
        if (!outside) return store_whole(to, bytes);
        _mm512_mask_storeu_epi8(to, ~outside, bytes);
        outside = 0;
    }

    CUTMIX_AVX512 static void store_whole(uint8_t* to, __m512i bytes) {
        if (kPastCaches)
            _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bytes);
        else
            _mm512_store_si512(to, bytes);
    }

    // The mask of the first bytes of a line, at most all 64.
    CUTMIX_AVX512 static __mmask64 first(int64_t count) { return _bzhi_u64(~0ull, static_cast<uint32_t>(count)); }
};

// Past the caches by vectors of AVX2, which have no masks: what of a line comes from where is put together in memory.
struct alignas(64) PastCachesWriter {
    uint8_t pending[kLine];  // the line that is put together,
    int64_t end;             // as far as here,
    int64_t begin;           // and from here on; before it lies what is not the output, in its first line
    uint8_t* line;

    explicit PastCachesWriter(uint8_t* out)
        : end(reinterpret_cast<uintptr_t>(out) % kLine), begin(end), line(out - end) {}

    CUTMIX_AVX2 void put(const uint8_t* from, int64_t count) {
        if (end > 0) {
            const int64_t part = std::min(count, kLine - end);
            copy_bytes(pending + end, from, part);
            end += part;
            if (end < kLine) return;
            if (begin > 0)
                store_part();
            else
                store(pending);
            from += part;
            count -= part;
        }
        for (; count >= kLine; count -= kLine, from += kLine) store(from);
        copy_bytes(pending, from, count);
        end = count;
    }

    CUTMIX_AVX2 void finish() {
        store_part();
        _mm_sfence();
    }

    CUTMIX_AVX2 void store(const uint8_t* bytes) {
        const __m256i* from = reinterpret_cast<const __m256i*>(bytes);
        const __m256i first = _mm256_loadu_si256(from), second = _mm256_loadu_si256(from + 1);
        _mm256_stream_si256(reinterpret_cast<__m256i*>(line), first);
        _mm256_stream_si256(reinterpret_cast<__m256i*>(line) + 1, second);
        line += kLine;
    }

    void store_part() {
        if (end > begin) std::memcpy(line + begin, pending + begin, static_cast<size_t>(end - begin));
        line += kLine;
        begin = 0;
    }
};

// The widest vectors that ATEN_CPU_CAPABILITY, the variable that bounds those of PyTorch's own loops, allows.
enum class Capability { kDefault, kAvx2, kAvx512 };

inline Capability allowed_capability() {
    static const Capability allowed = [] {
        const char* variable = std::getenv("ATEN_CPU_CAPABILITY");
        const std::string_view name = variable ? variable : "avx512";
        return name == "default" ? Capability::kDefault : name == "avx2" ? Capability::kAvx2 : Capability::kAvx512;
    }();
    return allowed;
}

inline bool has_avx2() { return allowed_capability() >= Capability::kAvx2 && __builtin_cpu_supports("avx2"); }

inline bool has_avx512() {
    return allowed_capability() >= Capability::kAvx512 && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("bmi2");
}

// A function compiled once more for each kind of vectors, with all that it calls.
template <auto kFunction>
struct Compiled;

template <typename Result, typename... Arguments, Result (*kFunction)(Arguments...)>
struct Compiled<kFunction> {
    CUTMIX_AVX2 CUTMIX_FLATTEN static Result avx2(Arguments... arguments) { return kFunction(arguments...); }
    CUTMIX_AVX512 CUTMIX_FLATTEN static Result avx512(Arguments... arguments) { return kFunction(arguments...); }
};

// Whether an output of so many bytes is better written past the caches.
inline bool past_caches(const uint8_t* out, int64_t bytes) {
    return bytes >= kLargeOutput && is_resident(out + bytes / 2);
}
#endif

// The function as it is compiled for this processor.
template <auto kFunction>
auto* for_processor() {
#if CUTMIX_X86
    if (has_avx512()) return &Compiled<kFunction>::avx512;
    if (has_avx2()) return &Compiled<kFunction>::avx2;
#endif
    return kFunction;
}

// Which writer is the fastest on this processor.
enum class Writing { kAnywhere, kLines, kLinesPastCaches, kPastCaches };

inline Writing writing_for([[maybe_unused]] const Images& images) {
#if CUTMIX_X86
    const int64_t bytes = images.out_rows.all_bytes();
    if (has_avx512()) return past_caches(images.out, bytes) ? Writing::kLinesPastCaches : Writing::kLines;
    constexpr int64_t kShortestRow = 256;  // shorter ones lose by the lines that are put together what that gains
    if (has_avx2() && images.out_rows.row_bytes() >= kShortestRow && past_caches(images.out, bytes))
        return Writing::kPastCaches;
#endif
    return Writing::kAnywhere;
}

}  // namespace cutmix
