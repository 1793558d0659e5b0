// What a library knows of its own build, as lines of "name: value" that cutmix_cuda/_build.py reads by ctypes. Part of
// every library. It takes nothing from torch or Python, so that one wheel serves all of both.

#ifdef USE_CUDA
#include <cuda_runtime_api.h>

#define CUTMIX_TEXT_OF(macro) #macro
#define CUTMIX_TEXT(macro) CUTMIX_TEXT_OF(macro)
#define CUTMIX_CUDA_LINE "\nCUDA: " CUTMIX_TEXT(CUDART_VERSION)
#else
#define CUTMIX_CUDA_LINE ""
#endif

extern "C" __attribute__((visibility("default"))) const char* cutmix_cuda_build_info() {
    return "version: " CUTMIX_VERSION "\ncompiler: " __VERSION__ CUTMIX_CUDA_LINE;
}
