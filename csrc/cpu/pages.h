// The pages of the memory that an output lies in.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace cutmix {

constexpr int64_t kLargeOutput = 1 << 23;  // bytes, which no cache holds

// Whether the page of an address is in memory. A new one is not: when it is first written, the kernel clears it, and it
// is in the caches then.
inline bool is_resident([[maybe_unused]] const uint8_t* address) {
    unsigned char resident = 1;  // and stays so where the kernel does not tell
#if defined(__linux__)
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    mincore(reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) / page * page), 1, &resident);
#endif
    return resident & 1;
}

// Asks for huge pages where a large output lies in new memory, as it does at each call where malloc gives that of the
// last one back to the system: the kernel then clears 2 MB at a time instead of 4 KB.
inline void ask_for_huge_pages([[maybe_unused]] uint8_t* out, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
    if (bytes < kLargeOutput || is_resident(out + bytes / 2)) return;
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), first = reinterpret_cast<uintptr_t>(out);
    const uintptr_t begin = (first + page - 1) / page * page,
                    end = (first + static_cast<uintptr_t>(bytes)) / page * page;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // where that is refused, pages are small
#endif
}

}  // namespace cutmix
