// The Python module cutmix_cuda._build_info: how this package was built. It links no torch and no CUDA, so it also
// loads where those do not and can say why.
//
// pybind11 has this one job. The ops themselves are registered with torch in csrc/cpu and csrc/cuda.

#include <pybind11/pybind11.h>

namespace cutmix {

void bind_for_tests(pybind11::module_& module);  // test_bindings.cpp

}  // namespace cutmix

// Text, empty where there is no CUDA part.
PYBIND11_MODULE(_build_info, module) {
    module.doc() = "How cutmix_cuda was built, and its shared C++ maths on numpy arrays.";
    module.attr("version") = CUTMIX_VERSION;
    module.attr("torch") = CUTMIX_TORCH_VERSION;
    module.attr("cxx") = __VERSION__;
    module.attr("cxx_flags") = CUTMIX_CXX_FLAGS;
    module.attr("nvcc") = CUTMIX_NVCC_VERSION;
    module.attr("nvcc_flags") = CUTMIX_CUDA_FLAGS;
    module.attr("cuda_archs") = CUTMIX_CUDA_ARCHS;
    cutmix::bind_for_tests(module);
}
