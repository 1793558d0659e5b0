// Mixing on NVIDIA GPUs: the ops on torch's device and stream.

#include "mix_kernels.cuh"
#include "mix_ops.h"

namespace cutmix {
namespace {

using torch::stable::accelerator::DeviceGuard;
using torch::stable::accelerator::DeviceIndex;

struct Cuda {
    static bool takes(const Images& images) { return fits_launch(images); }

    static void run(const MixCall& call, const Tensor& anchor) {
        const DeviceIndex device = anchor.get_device_index();
        const DeviceGuard guard(device);
        void* stream = nullptr;
        TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
        const cudaError_t error = launch_mix(call, static_cast<cudaStream_t>(stream));
        STD_TORCH_CHECK(error == cudaSuccess, "the launch of a CUDA kernel failed: ", cudaGetErrorString(error));
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CUDA, library) { cutmix::MixOps<cutmix::Cuda>::register_ops(library); }
