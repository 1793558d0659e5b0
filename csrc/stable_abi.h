// What the ops need of torch's C++ side: the LibTorch stable ABI, target 2.10, so that one build serves every torch
// since.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <tuple>
#include <vector>

#include "values.h"

namespace cutmix {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(ScalarType type) {
    switch (type) {
        case ScalarType::Byte:
            return Dtype::kU8;
        case ScalarType::Char:
            return Dtype::kI8;
        case ScalarType::UInt16:
            return Dtype::kU16;
        case ScalarType::Short:
            return Dtype::kI16;
        case ScalarType::UInt32:
            return Dtype::kU32;
        case ScalarType::Int:
            return Dtype::kI32;
        case ScalarType::UInt64:
            return Dtype::kU64;
        case ScalarType::Long:
            return Dtype::kI64;
        case ScalarType::Half:
            return Dtype::kF16;
        case ScalarType::BFloat16:
            return Dtype::kBF16;
        case ScalarType::Float:
            return Dtype::kF32;
        case ScalarType::Double:
            return Dtype::kF64;
        default:
            STD_TORCH_CHECK(false, "labels and targets must be integers, or float16, bfloat16, float32 or float64");
    }
}

// What mixup would blend. Asked of the shim, because scalar_type() throws for dtypes that the stable ABI has no name
// for (float8_e8m0fnu), and as bytes they can be moved like any other.
inline Dtype pixel_dtype_of(const Tensor& images) {
    int32_t type;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(images.get(), &type));
    if (type == aoti_torch_dtype_uint8()) return Dtype::kU8;
    if (type == aoti_torch_dtype_float16()) return Dtype::kF16;
    if (type == aoti_torch_dtype_bfloat16()) return Dtype::kBF16;
    if (type == aoti_torch_dtype_float32()) return Dtype::kF32;
    return type == aoti_torch_dtype_float64() ? Dtype::kF64 : Dtype::kOther;
}

inline bool same_device(const Tensor& a, const Tensor& b) {
    return a.is_cuda() == b.is_cuda() && a.get_device_index() == b.get_device_index();
}

// Uninitialised, on the device of another tensor. The shim costs a fifth of a call of aten::new_empty or
// aten::empty_like, which look their op up by name each time.
inline Tensor new_strided(int64_t dims, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                          const Tensor& like) {
    int32_t device_type;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
    AtenTensorHandle handle;
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_empty_strided(dims, sizes, strides, dtype, device_type, like.get_device_index(), &handle));
    return Tensor(handle);
}

inline int32_t shim_dtype(ScalarType type) {
    return torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
}

inline Tensor new_matrix(int64_t rows, int64_t columns, ScalarType type, const Tensor& like) {
    const int64_t sizes[] = {rows, columns}, strides[] = {columns > 0 ? columns : 1, 1};
    return new_strided(2, sizes, strides, shim_dtype(type), like);
}

// As torch.empty_like.
inline Tensor new_like(const Tensor& tensor) {
    if (!tensor.is_contiguous()) return torch::stable::empty_like(tensor);
    int32_t dtype;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &dtype));
    return new_strided(tensor.dim(), tensor.sizes().data(), tensor.strides().data(), dtype, tensor);
}

// As torch.empty(1, dtype=torch.int64).random_(), on the CPU from torch's default generator.
inline int64_t draw_seed() {
    const int64_t one = 1;
    AtenTensorHandle handle;
    TORCH_ERROR_CODE_CHECK(
        aoti_torch_empty_strided(1, &one, &one, aoti_torch_dtype_int64(), aoti_torch_device_type_cpu(), 0, &handle));
    const Tensor seed(handle);
    StableIValue stack[] = {torch::stable::detail::from(seed), torch::stable::detail::from(std::nullopt)};
    TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::random_", "", stack, TORCH_ABI_VERSION));
    const Tensor same = torch::stable::detail::to<Tensor>(stack[0]);
    return *static_cast<const int64_t*>(same.const_data_ptr());
}

inline bool is_aligned(const Tensor& tensor, size_t bytes) {
    return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % bytes == 0;
}

inline bool is_aligned(const Tensor& tensor) { return is_aligned(tensor, tensor.element_size()); }

// The bytes of each element as a dimension of their own.
inline Tensor bytes_of(const Tensor& tensor) {
    const int64_t width = static_cast<int64_t>(tensor.element_size());
    std::vector<int64_t> sizes, strides;
    for (int64_t dim = 0; dim < tensor.dim(); ++dim) {
        sizes.push_back(tensor.size(dim));
        strides.push_back(tensor.stride(dim) * width);
    }
    sizes.push_back(width);
    strides.push_back(1);
    int32_t device_type;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &device_type));
    AtenTensorHandle handle;
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(
        const_cast<void*>(tensor.const_data_ptr()), tensor.dim() + 1, sizes.data(), strides.data(), 0,
        aoti_torch_dtype_uint8(), device_type, tensor.get_device_index(), &handle));
    return Tensor(handle);
}

// Also where elements are not aligned, on which torch's own kernels for a GPU fail.
inline void copy_into(const Tensor& destination, const Tensor& source) {
    const bool aligned = is_aligned(destination) && is_aligned(source);
    Tensor to = aligned ? destination : bytes_of(destination);
    torch::stable::copy_(to, aligned ? source : bytes_of(source));
}

// Contiguous and at a multiple of so many bytes, which a slice of a larger tensor may not be: the tensor or a copy.
inline Tensor dense(const Tensor& tensor, size_t alignment) {
    if (!is_aligned(tensor)) {
        Tensor copy = torch::stable::new_empty(tensor, tensor.sizes());
        copy_into(copy, tensor);
        return copy;
    }
    if (!tensor.is_contiguous()) return torch::stable::contiguous(tensor);
    return is_aligned(tensor, alignment) ? tensor : torch::stable::clone(tensor);
}

}  // namespace cutmix
