// The op apply_adjoint_out on tensors, once for every compiled backend: check, return if empty, run.
//
// A backend gives `run(const AdjointCall&, const Tensor& anchor)`, the anchor being a tensor on the device to run on,
// and kWantsLinks, whether it writes the lists of takers to memory.
#pragma once

#include "adjoint_call.h"
#include "mix_ops.h"

namespace cutmix {

template <typename Backend>
struct AdjointOps {
    // False where samples have gaps in them, or elements lie across their alignment: they are copied then.
    static bool set_gradients(AdjointCall* call, const Tensor& gradients, const Tensor& out) {
        call->out = static_cast<uint8_t*>(out.mutable_data_ptr());  // first, as it may move what is written to
        call->in = static_cast<const uint8_t*>(gradients.const_data_ptr());
        return tensor_rows(gradients, &call->in_rows) && tensor_rows(out, &call->out_rows) && call->in_rows.dense() &&
               call->out_rows.dense() && call->in_rows.same_shape(call->out_rows) &&
               same_order(gradients.dim(), gradients.sizes().data(), gradients.strides().data(),
                          out.strides().data()) &&
               is_aligned(gradients) && is_aligned(out);
    }

    static void apply_adjoint_out(Tensor gradients, Tensor packed, Tensor out) {
        MixOps<Backend>::check_images(gradients);
        MixOps<Backend>::check_out(gradients, out);
        const int64_t dims = gradients.dim();
        Plan plan = {};
        set_extent(&plan, gradients.size(0), gradients.size(dims - 2), gradients.size(dims - 1));
        STD_TORCH_CHECK(same_device(packed, gradients), "plan must be on the device of the gradients");
        const Tensor kept = set_given(&plan, packed);
        AdjointCall call = {};
        call.plan = plan.given;
        call.batch = plan.batch;
        call.height = plan.height;
        call.width = plan.width;
        call.dtype = pixel_dtype_of(gradients);
        STD_TORCH_CHECK(is_float(call.dtype) && call.dtype == pixel_dtype_of(out),
                        "gradients and out must be of one dtype: float16, bfloat16, float32 or float64");
        if (gradients.numel() == 0) return;
        Tensor links = kept;
        if (Backend::kWantsLinks) {
            links = new_matrix(plan.batch, sizeof(Link) / sizeof(int32_t), ScalarType::Int, packed);
            call.links = static_cast<Link*>(links.mutable_data_ptr());
        }
        if (set_gradients(&call, gradients, out)) {
            Backend::run(call, gradients);
            return;
        }
        const Tensor dense_gradients = dense(gradients, gradients.element_size());
        const Tensor dense_out = torch::stable::new_empty(gradients, gradients.sizes());
        set_gradients(&call, dense_gradients, dense_out);
        Backend::run(call, dense_gradients);
        copy_into(out, dense_out);
    }

    static void register_ops(torch::stable::detail::StableLibrary& library) {
        library.impl("apply_adjoint_out", TORCH_BOX(&apply_adjoint_out));
    }
};

}  // namespace cutmix
