// torch's own threads, on which numbers are what they are.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cfenv>

#if defined(__x86_64__)
#include <pmmintrin.h>
#endif

namespace cutmix {

// For as long as it lives, subnormal numbers are what they are on its thread, whatever torch.set_flush_denormal says:
// the setting is of one thread, and torch's others do not have it, so that bits would depend on who computes them.
class KeepSubnormals {
  public:
#if defined(__x86_64__)
    KeepSubnormals() : before_(_mm_getcsr()) { set(before_ & ~(_MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON)); }
    ~KeepSubnormals() { set(before_); }

  private:
    static void set(unsigned control) {
        if (_mm_getcsr() != control) _mm_setcsr(control);
    }
    const unsigned before_;
#else
    KeepSubnormals() {
        std::fegetenv(&before_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~KeepSubnormals() { std::fesetenv(&before_); }

  private:
    std::fenv_t before_;
#endif
};

// As torch's parallel_for, and with subnormal numbers kept on each thread.
template <typename Work>
void parallel(int64_t begin, int64_t end, int64_t grain_size, const Work& work) {
    torch::stable::parallel_for(begin, end, grain_size, [&](int64_t first, int64_t last) {
        const KeepSubnormals keep;
        work(first, last);
    });
}

// count * part / whole, without overflow on the way.
inline int64_t share_of(int64_t count, int64_t part, int64_t whole) {
    return static_cast<int64_t>(static_cast<unsigned __int128>(count) * part / whole);
}

}  // namespace cutmix
