// The adjoint of mixing on NVIDIA GPUs: the op on torch's device and stream.

#include "adjoint_kernels.cuh"
#include "adjoint_ops.h"

namespace cutmix {
namespace {

using torch::stable::accelerator::DeviceGuard;
using torch::stable::accelerator::DeviceIndex;

struct Cuda {
    static constexpr bool kWantsLinks = true;

    static void run(const AdjointCall& call, const Tensor& anchor) {
        const DeviceIndex device = anchor.get_device_index();
        const DeviceGuard guard(device);
        void* stream = nullptr;
        TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
        const cudaError_t error = launch_adjoint(call, static_cast<cudaStream_t>(stream));
        STD_TORCH_CHECK(error == cudaSuccess, "the launch of a CUDA kernel failed: ", cudaGetErrorString(error));
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CUDA, library) { cutmix::AdjointOps<cutmix::Cuda>::register_ops(library); }
