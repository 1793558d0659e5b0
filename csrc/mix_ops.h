// The ops on tensors, once for every compiled backend: check, allocate, return if empty, run.
//
// A backend gives `run(const MixCall&, const Tensor& anchor)`, the anchor being a tensor on the device to run on, and
// `takes(const Images&)`, whether it can go through images as they lie in memory; if not, they are copied first. It
// registers MixOps<Backend> at the foot of its own file. The Python side (cutmix_cuda/_validation.py) has already said
// what is wrong in words; the checks here keep a direct call of an op from leading outside a tensor.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "mix_call.h"
#include "stable_abi.h"

namespace cutmix {

using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kPlanColumns = 8;

inline int32_t to_int32(int64_t value, const char* name) {
    STD_TORCH_CHECK(value >= 0 && value <= std::numeric_limits<int32_t>::max(), name, " must be in 0..2^31-1");
    return static_cast<int32_t>(value);
}

// The images' height and width are indices of pixels, their product a number of pixels: int32 all three.
inline void set_extent(Plan* plan, int64_t batch, int64_t height, int64_t width) {
    plan->batch = to_int32(batch, "the batch size");
    STD_TORCH_CHECK(batch <= 1 << 30, "the batch size must be at most 2^30");
    plan->height = to_int32(height, "height");
    plan->width = to_int32(width, "width");
    to_int32(height * width, "height * width");
}

struct DrawArgs {  // the arguments of every op that samples, in the order of the schemas
    const OptionalTensor& seed;
    const Tensor& quantiles;
    const std::vector<double>& bounds;
    const std::vector<int64_t>& sampling;
};

// Drawn where there is none. On the CPU by value; the kernel loads it from the device of the anchor.
inline void set_seed(Plan* plan, const OptionalTensor& given, const Tensor& anchor) {
    if (!given.has_value()) {
        plan->seed = static_cast<uint64_t>(draw_seed());
        return;
    }
    const Tensor& seed = *given;
    STD_TORCH_CHECK(seed.numel() == 1 && seed.scalar_type() == ScalarType::Long, "seed must be one int64");
    if (seed.is_cpu()) {
        plan->seed = static_cast<uint64_t>(*static_cast<const int64_t*>(seed.const_data_ptr()));
    } else {
        STD_TORCH_CHECK(same_device(seed, anchor), "seed must be on the CPU or on the device of the images");
        plan->device_seed = static_cast<const int64_t*>(seed.const_data_ptr());
    }
}

// Sets up sampling into a new packed plan, which it returns.
inline Tensor set_draw(Plan* plan, const DrawArgs& args) {
    const Tensor& quantiles = args.quantiles;
    Draw& draw = plan->draw;
    STD_TORCH_CHECK(quantiles.dim() == 2 && quantiles.size(0) == kKinds && quantiles.size(1) == kKnots &&
                        quantiles.scalar_type() == ScalarType::Float && quantiles.is_contiguous(),
                    "quantiles must be a contiguous float32 tensor of a row of 4097 knots for each kind");
    STD_TORCH_CHECK(args.bounds.size() == kKinds, "bounds must be a number for each kind");
    STD_TORCH_CHECK(args.sampling.size() == kSamplingOptions && decode_sampling(args.sampling.data(), &draw.sampling),
                    "sampling must be a known scope, partner and placement, and correct_lam");
    draw.quantiles = static_cast<const float*>(quantiles.const_data_ptr());
    std::copy(args.bounds.begin(), args.bounds.end(), draw.bounds);
    draw.height = plan->height;
    draw.width = plan->width;
    STD_TORCH_CHECK(plan->can_blend || !may_blend(draw.bounds),
                    "mixup blends images of dtype uint8, float16, bfloat16, float32 and float64 only");
    set_seed(plan, args.seed, quantiles);
    Tensor sampled = new_matrix(plan->batch, kPlanColumns, ScalarType::Int, quantiles);
    plan->sampled = static_cast<PlanRow*>(sampled.mutable_data_ptr());
    return sampled;
}

// Follows a given packed plan; returns the tensor that keeps its memory.
inline Tensor set_given(Plan* plan, const Tensor& packed) {
    STD_TORCH_CHECK(packed.dim() == 2 && packed.size(0) == plan->batch && packed.size(1) == kPlanColumns &&
                        packed.scalar_type() == ScalarType::Int,
                    "plan must be int32 of shape (batch, 8)");
    Tensor kept = dense(packed, alignof(PlanRow));
    plan->given = static_cast<const PlanRow*>(kept.const_data_ptr());
    return kept;
}

struct TargetFormat {  // the arguments of every op that writes targets, in the order of the schemas
    int64_t num_classes;
    double label_smoothing;
    ScalarType dtype;
};

// The targets to be written, and the labels that have to live until they are.
struct TargetTensors {
    Tensor labels, out;
};

inline TargetTensors set_targets(Targets* targets, const OptionalTensor& labels, const TargetFormat& format,
                                 int64_t batch, const Tensor& anchor) {
    const int32_t num_classes = to_int32(format.num_classes, "num_classes");
    const int32_t classes = labels.has_value() ? num_classes : 0;
    TargetTensors tensors = {anchor, new_matrix(batch, classes, format.dtype, anchor)};
    if (!labels.has_value()) return tensors;

    targets->labels_dtype = dtype_of(labels->scalar_type());
    targets->out_dtype = dtype_of(format.dtype);
    const bool soft = is_float(targets->labels_dtype);
    STD_TORCH_CHECK(is_float(targets->out_dtype), "targets must be of a float type");
    STD_TORCH_CHECK(same_device(*labels, anchor), "labels must be on the device of the images");
    STD_TORCH_CHECK(
        labels->dim() == (soft ? 2 : 1) && labels->size(0) == batch && (!soft || labels->size(1) == classes),
        "labels must be integers of shape (batch,) or floats of shape (batch, num_classes)");
    tensors.labels = dense(*labels, labels->element_size());
    targets->labels = tensors.labels.const_data_ptr();
    targets->out = tensors.out.mutable_data_ptr();
    targets->num_classes = classes;
    targets->smoothing = smoothing_of(format.label_smoothing, classes);
    return tensors;
}

// Refuses class indices outside of 0..num_classes-1.
inline void check_classes(const Targets& targets, int64_t batch) {
    if (!targets.labels || is_float(targets.labels_dtype)) return;
    for (int64_t i = 0; i < batch; ++i)
        STD_TORCH_CHECK(load_class(targets, i) >= 0, "labels must be in 0..num_classes-1");
}

inline bool tensor_rows(const Tensor& tensor, Rows* rows) {
    return rows_of(tensor.dim(), tensor.sizes().data(), tensor.strides().data(),
                   static_cast<int64_t>(tensor.element_size()), rows);
}

template <typename Backend>
struct MixOps {
    // ---- Pixels, and whatever else the call has set up

    // Where `out` is the images themselves, too. False where they have to be contiguous and aligned first.
    static bool set_pixels(Images* pixels, const Tensor& images, const Tensor& out) {
        pixels->out = static_cast<uint8_t*>(out.mutable_data_ptr());  // first, as it may move what is written to
        pixels->in = static_cast<const uint8_t*>(images.const_data_ptr());
        if (!tensor_rows(images, &pixels->in_rows) || !tensor_rows(out, &pixels->out_rows)) return false;
        if (pixels->out_rows.empty()) {
            pixels->out = nullptr;
            return true;
        }
        return pixels->in_rows.same_shape(pixels->out_rows) &&
               same_order(images.dim(), images.sizes().data(), images.strides().data(), out.strides().data()) &&
               Backend::takes(*pixels);
    }

    static void run_into(MixCall* call, const Tensor& images, const Tensor& out) {
        if (set_pixels(&call->images, images, out)) {
            Backend::run(*call, images);
            return;
        }
        const Tensor dense_images = dense(images, images.element_size());
        const Tensor dense_out = torch::stable::new_empty(images, images.sizes());
        set_pixels(&call->images, dense_images, dense_out);
        Backend::run(*call, dense_images);
        copy_into(out, dense_out);
    }

    static void run_in_place(MixCall* call, const Tensor& images) {
        call->images.in_place = true;
        if (set_pixels(&call->images, images, images)) {
            Backend::run(*call, images);
            return;
        }
        const Tensor dense_images = dense(images, images.element_size());
        set_pixels(&call->images, dense_images, dense_images);
        Backend::run(*call, dense_images);
        copy_into(images, dense_images);
    }

    static void check_images(const Tensor& images) {
        STD_TORCH_CHECK(images.dim() >= 3 && images.dim() <= kMaxImageDims,
                        "images must be of shape (batch, ..., height, width), of 3 to 8 dimensions");
    }

    static void check_out(const Tensor& images, const Tensor& out) {
        const auto sizes = images.sizes();
        bool same =
            out.dim() == images.dim() && out.element_size() == images.element_size() && same_device(images, out);
        for (int64_t dim = 0; same && dim < images.dim(); ++dim) same = out.size(dim) == sizes[dim];
        STD_TORCH_CHECK(same, "out must have the shape, dtype and device of images");
    }

    static MixCall call_for(const Tensor& images, const std::vector<int64_t>& fill) {
        check_images(images);
        const int64_t dims = images.dim();
        MixCall call = {};
        set_extent(&call.plan, images.size(0), images.size(dims - 2), images.size(dims - 1));
        call.images.dtype = pixel_dtype_of(images);
        call.plan.can_blend = can_blend(call.images.dtype);
        STD_TORCH_CHECK(fill.size() == 2, "fill must be 16 bytes in two integers");
        std::memcpy(call.images.fill, fill.data(), sizeof call.images.fill);
        return call;
    }

    // In place where there is no out.
    static void run(MixCall* call, const Tensor& images, const OptionalTensor& out) {
        if (images.size(0) == 0) return;
        if (out.has_value())
            run_into(call, images, *out);
        else
            run_in_place(call, images);
    }

    static Tensor follow(const Tensor& images, const OptionalTensor& labels, const Tensor& packed,
                         const TargetFormat& format, const OptionalTensor& out, const std::vector<int64_t>& fill) {
        MixCall call = call_for(images, fill);
        STD_TORCH_CHECK(same_device(packed, images), "plan must be on the device of the images");
        const Tensor plan = set_given(&call.plan, packed);
        const TargetTensors targets = set_targets(&call.targets, labels, format, images.size(0), images);
        run(&call, images, out);
        return targets.out;
    }

    static std::tuple<Tensor, Tensor> sample_and_follow(const Tensor& images, const OptionalTensor& labels,
                                                        const DrawArgs& draw, const TargetFormat& format,
                                                        const OptionalTensor& out, const std::vector<int64_t>& fill,
                                                        bool check_labels) {
        MixCall call = call_for(images, fill);
        STD_TORCH_CHECK(same_device(draw.quantiles, images), "quantiles must be on the device of the images");
        const TargetTensors targets = set_targets(&call.targets, labels, format, images.size(0), images);
        if (check_labels && images.is_cpu()) check_classes(call.targets, images.size(0));
        Tensor packed = set_draw(&call.plan, draw);
        STD_TORCH_CHECK(out.has_value() || own_inverse(call.plan.draw.sampling.partner),
                        "in place, partner must be its own inverse: flip or mirror");
        run(&call, images, out);
        return {targets.out, packed};
    }

    // ---- The ops, in the order of cutmix_cuda/_ops.py

    using Floats = std::vector<double>;
    using Ints = std::vector<int64_t>;

    static Tensor sample_plan(Tensor seed, Tensor quantiles, Floats bounds, Ints sampling, int64_t batch,
                              int64_t height, int64_t width) {
        MixCall call = {};
        set_extent(&call.plan, batch, height, width);
        call.plan.can_blend = true;
        Tensor packed = set_draw(&call.plan, {seed, quantiles, bounds, sampling});
        if (batch > 0) Backend::run(call, quantiles);
        return packed;
    }

    static Tensor mix_targets(Tensor labels, Tensor packed, int64_t num_classes, double label_smoothing,
                              ScalarType dtype) {
        MixCall call = {};
        const int32_t any = std::numeric_limits<int32_t>::max();
        call.plan.batch = to_int32(packed.size(0), "the batch size");
        call.plan.height = call.plan.width = any;
        call.plan.can_blend = true;
        const Tensor plan = set_given(&call.plan, packed);
        STD_TORCH_CHECK(same_device(packed, labels), "plan must be on the device of the labels");
        const TargetTensors targets =
            set_targets(&call.targets, labels, {num_classes, label_smoothing, dtype}, call.plan.batch, packed);
        if (targets.out.numel() > 0) Backend::run(call, packed);
        return targets.out;
    }

    static std::tuple<Tensor, Tensor> apply(Tensor images, OptionalTensor labels, Tensor packed, int64_t num_classes,
                                            double label_smoothing, ScalarType dtype, Ints fill) {
        Tensor out = new_like(images);
        return {out, follow(images, labels, packed, {num_classes, label_smoothing, dtype}, out, fill)};
    }

    static Tensor apply_out(Tensor images, OptionalTensor labels, Tensor packed, int64_t num_classes,
                            double label_smoothing, ScalarType dtype, Tensor out, Ints fill) {
        check_out(images, out);
        return follow(images, labels, packed, {num_classes, label_smoothing, dtype}, out, fill);
    }

    static Tensor apply_(Tensor images, OptionalTensor labels, Tensor packed, int64_t num_classes,
                         double label_smoothing, ScalarType dtype, Ints fill) {
        return follow(images, labels, packed, {num_classes, label_smoothing, dtype}, std::nullopt, fill);
    }

    static std::tuple<Tensor, Tensor, Tensor> sample_and_apply(Tensor images, OptionalTensor labels,
                                                               OptionalTensor seed, Tensor quantiles, Floats bounds,
                                                               Ints sampling, int64_t num_classes,
                                                               double label_smoothing, ScalarType dtype, Ints fill,
                                                               bool check_labels) {
        Tensor out = new_like(images);
        auto [targets, packed] = sample_and_follow(images, labels, {seed, quantiles, bounds, sampling},
                                                   {num_classes, label_smoothing, dtype}, out, fill, check_labels);
        return {out, targets, packed};
    }

    static std::tuple<Tensor, Tensor> sample_and_apply_out(Tensor images, OptionalTensor labels, OptionalTensor seed,
                                                           Tensor quantiles, Floats bounds, Ints sampling,
                                                           int64_t num_classes, double label_smoothing,
                                                           ScalarType dtype, Tensor out, Ints fill, bool check_labels) {
        check_out(images, out);
        return sample_and_follow(images, labels, {seed, quantiles, bounds, sampling},
                                 {num_classes, label_smoothing, dtype}, out, fill, check_labels);
    }

    static std::tuple<Tensor, Tensor> sample_and_apply_(Tensor images, OptionalTensor labels, OptionalTensor seed,
                                                        Tensor quantiles, Floats bounds, Ints sampling,
                                                        int64_t num_classes, double label_smoothing, ScalarType dtype,
                                                        Ints fill, bool check_labels) {
        return sample_and_follow(images, labels, {seed, quantiles, bounds, sampling},
                                 {num_classes, label_smoothing, dtype}, std::nullopt, fill, check_labels);
    }

    static void register_ops(torch::stable::detail::StableLibrary& library) {
        library.impl("sample_plan", TORCH_BOX(&sample_plan));
        library.impl("mix_targets", TORCH_BOX(&mix_targets));
        library.impl("apply", TORCH_BOX(&apply));
        library.impl("apply_out", TORCH_BOX(&apply_out));
        library.impl("apply_", TORCH_BOX(&apply_));
        library.impl("sample_and_apply", TORCH_BOX(&sample_and_apply));
        library.impl("sample_and_apply_out", TORCH_BOX(&sample_and_apply_out));
        library.impl("sample_and_apply_", TORCH_BOX(&sample_and_apply_));
    }
};

}  // namespace cutmix
