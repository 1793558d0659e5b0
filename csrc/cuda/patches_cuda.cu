// Several patches a sample on NVIDIA GPUs: the ops on torch's device and stream.

#include "../patch_ops.h"
#include "patches_kernels.cuh"

namespace cutmix {
namespace {

using torch::stable::accelerator::DeviceGuard;
using torch::stable::accelerator::DeviceIndex;

struct PatchCuda {
    static bool takes(const PatchCall& call) { return fits_patch_launch(call); }

    static void run(const PatchCall& call, const Tensor& anchor) {
        const DeviceIndex device = anchor.get_device_index();
        const DeviceGuard guard(device);
        void* stream = nullptr;
        TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
        const cudaError_t error = launch_patches(call, static_cast<cudaStream_t>(stream));
        STD_TORCH_CHECK(error == cudaSuccess, "the launch of a CUDA kernel failed: ", cudaGetErrorString(error));
    }
};

}  // namespace
}  // namespace cutmix

STABLE_TORCH_LIBRARY_IMPL(cutmix_cuda, CUDA, library) { cutmix::PatchOps<cutmix::PatchCuda>::register_ops(library); }
