// The batch tail on NVIDIA GPUs: the ops on torch's device and stream.

#include "augment_kernels.cuh"
#include "augment_ops.h"

namespace cutmix {
namespace {

using torch::stable::accelerator::DeviceGuard;
using torch::stable::accelerator::DeviceIndex;

struct Cuda {
    static void run(const AugmentCall& call, const Tensor& anchor) {
        const DeviceIndex device = anchor.get_device_index();
        const DeviceGuard guard(device);
        void* stream = nullptr;
        TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
        const cudaError_t error = launch_augment(call, static_cast<cudaStream_t>(stream));
        STD_TORCH_CHECK(error == cudaSuccess, "the launch of a CUDA kernel failed: ", cudaGetErrorString(error));
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CUDA, library) { cutmix::AugmentOps<cutmix::Cuda>::register_ops(library); }
