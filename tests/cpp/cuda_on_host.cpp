// The CUDA kernels as ops on CPU tensors: mix_kernels.cuh and adjoint_kernels.cuh compiled by the host compiler, blocks
// and threads as loops.
//
// tests/kernels/test_sanitizers.py builds it with the address and undefined-behaviour sanitizers in place of _C.so, so
// that what drives the CPU ops drives the kernels. One thread runs after the other, and blocks from the last to the
// first: nothing in the kernels may depend on an order.

#include <cstdint>
#include <stdexcept>

// ---- What the kernels use of CUDA

#define __global__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct dim3 {
    uint32_t x;
};
inline dim3 blockIdx, blockDim, threadIdx;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess };
inline cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t shared_bytes,
                                    cudaStream_t stream);

#include "adjoint_ops.h"
#include "cuda/adjoint_kernels.cuh"
#include "cuda/mix_kernels.cuh"

namespace {

int launches = 0;
bool adjoint = false;  // whether those of its kernels

template <typename Params>
void run_thread(const void* kernel, void** arguments) {
    const auto run = reinterpret_cast<void (*)(Params)>(reinterpret_cast<uintptr_t>(kernel));
    run(*static_cast<const Params*>(arguments[0]));
}

}  // namespace

cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void** arguments, size_t, cudaStream_t) {
    ++launches;
    if (grid.x == 0 || block.x == 0 || block.x > 1024) throw std::logic_error("a launch that no GPU takes");
    const auto run = adjoint ? run_thread<cutmix::AdjointParams> : run_thread<cutmix::KernelParams>;
    blockDim = block;
    for (blockIdx.x = grid.x; blockIdx.x-- > 0;)
        for (threadIdx.x = 0; threadIdx.x < block.x; ++threadIdx.x) run(kernel, arguments);
    return cudaSuccess;
}

namespace cutmix {
namespace {

struct CudaOnHost {
    static constexpr bool kWantsLinks = true;

    static bool takes(const Images& images) { return fits_launch(images); }

    static void run(const AdjointCall& call, const Tensor&) {
        adjoint = true;
        launch_adjoint(call, nullptr);
        adjoint = false;
    }

    static void run(const MixCall& call, const Tensor&) {
        launches = 0;
        launch_mix(call, nullptr);
        if (launches > 1) throw std::logic_error("more than one launch for a call");
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CPU, library) {
    cutmix::MixOps<cutmix::CudaOnHost>::register_ops(library);
    cutmix::AdjointOps<cutmix::CudaOnHost>::register_ops(library);
}
