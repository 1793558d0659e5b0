// The ops of the batch tail on tensors, once for all compiled backends, as mix_ops.h for mixing: check, allocate,
// return if empty, run. A backend gives `run(const AugmentCall&, const Tensor& anchor)`.
#pragma once

#include <algorithm>
#include <vector>

#include "augment_call.h"
#include "mix_ops.h"

namespace cutmix {

using Numbers = std::vector<double>;
using Integers = std::vector<int64_t>;

struct ViewArgs {  // how views are drawn, in the order of the schemas
    const Tensor& tables;
    const OptionalTensor& colours;
    const Numbers& parameters;
    const Integers& choices;
};

struct ValueArgs {
    const Tensor& constants;
    const Integers& erasing;
};

inline Tensor new_views(int64_t batch, const Views& views, const Tensor& like) {
    const int64_t quadruple = Views::kQuadruple, sizes[] = {batch, views.quadruples(), quadruple},
                  strides[] = {views.columns(), quadruple, 1};
    return new_strided(3, sizes, strides, shim_dtype(ScalarType::Int), like);
}

inline bool has_tables(const Tensor& tables, int64_t least) {
    return tables.dim() == 2 && tables.size(0) >= least && tables.size(1) == kKnots &&
           tables.scalar_type() == ScalarType::Float && tables.is_contiguous();
}

// Where given colour matrices lie, or null.
inline const float* colours_of(const OptionalTensor& colours, int64_t batch, const Tensor& like) {
    if (!colours) return nullptr;
    STD_TORCH_CHECK(colours->dim() == 3 && colours->size(0) == batch && colours->size(1) == kColourRows &&
                        colours->size(2) == Views::kQuadruple && colours->scalar_type() == ScalarType::Float &&
                        colours->is_contiguous() && same_device(*colours, like),
                    "colours must be contiguous float32 of shape (batch, 3, 4) on the device of view_tables");
    return static_cast<const float*>(colours->const_data_ptr());
}

// Sets up sampling into new packed views, which it returns.
inline Tensor set_view_sampling(AugmentCall* call, const ViewArgs& args) {
    STD_TORCH_CHECK(args.parameters.size() == kViewParameters && args.choices.size() == kViewChoices,
                    "view_parameters must have 12 entries, and view_choices 6");
    for (const int64_t choice : args.choices) to_int32(choice, "each of view_choices");
    const int64_t min_boxes = args.choices[2], max_boxes = args.choices[3], coloured = args.choices[5];
    STD_TORCH_CHECK(coloured <= 1, "the last of view_choices must be 0 or 1");
    STD_TORCH_CHECK(min_boxes <= max_boxes && max_boxes <= kMaxBoxes, "boxes must be min <= max <= 1024");
    STD_TORCH_CHECK(
        has_tables(args.tables, max_boxes > 0 ? 1 : 0),
        "view_tables must be a contiguous float32 tensor of 4097 knots a table, one where boxes are erased");
    const auto* aspects = static_cast<const float*>(args.tables.const_data_ptr());
    call->views.sampling =
        view_sampling(aspects, colours_of(args.colours, call->plan.batch, args.tables), call->plan.height,
                      call->plan.width, args.parameters.data(), args.choices.data());
    call->views.boxes = call->views.sampling.max_boxes;
    call->views.coloured = coloured == 1;
    Tensor sampled = new_views(call->plan.batch, call->views, args.tables);
    call->views.sampled = static_cast<int32_t*>(sampled.mutable_data_ptr());
    return sampled;
}

// Follows given packed views; returns the tensor that keeps their memory.
inline Tensor set_given_views(AugmentCall* call, const Tensor& packed, bool coloured) {
    const int64_t others = 1 + (coloured ? kColourRows : 0), boxes = packed.dim() == 3 ? packed.size(1) - others : -1;
    STD_TORCH_CHECK(boxes >= 0 && boxes <= kMaxBoxes && packed.size(0) == call->plan.batch &&
                        packed.size(2) == Views::kQuadruple && packed.scalar_type() == ScalarType::Int,
                    "views must be int32 of shape (batch, 1 + boxes, 4), or (batch, 4 + boxes, 4) with colours");
    Tensor kept = dense(packed, sizeof(Geometry));
    call->views.given = static_cast<const int32_t*>(kept.const_data_ptr());
    call->views.boxes = static_cast<int32_t>(boxes);
    call->views.coloured = coloured;
    return kept;
}

inline void set_values(AugmentCall* call, const ValueArgs& args, const Tensor& images) {
    const int32_t channels = call->images.channels;
    const Tensor& constants = args.constants;
    STD_TORCH_CHECK(constants.dim() == 2 && constants.size(0) == 4 && constants.size(1) == channels &&
                        constants.scalar_type() == ScalarType::Float && constants.is_contiguous(),
                    "constants must be a contiguous float32 tensor of shape (4, channels)");
    const auto* rows = static_cast<const float*>(constants.const_data_ptr());
    if (channels <= kFewChannels) {
        STD_TORCH_CHECK(constants.is_cpu(), "constants of up to 4 channels must be on the CPU");
        for (int32_t row = 0; row < 4; ++row)
            for (int32_t channel = 0; channel < channels; ++channel)
                call->constants.few[row][channel] = rows[row * channels + channel];
    } else {
        STD_TORCH_CHECK(same_device(constants, images), "constants must be on the device of the images");
        call->constants.wide = rows;
    }
    STD_TORCH_CHECK(args.erasing.size() == 2 && args.erasing[0] >= 0 && args.erasing[0] <= 2 && args.erasing[1] >= 0 &&
                        args.erasing[1] <= 1,
                    "erasing must be a value in 0..2 and an order in 0..1");
    call->erasing = {static_cast<EraseValue>(args.erasing[0]), static_cast<EraseOrder>(args.erasing[1])};
}

inline bool is_augmented(Dtype dtype) {
    return dtype == Dtype::kU8 || dtype == Dtype::kF16 || dtype == Dtype::kBF16 || dtype == Dtype::kF32;
}

// The strides of a tensor whose rows or pixels are dense; false for any other. Those of dimensions of size 1, which
// lead nowhere, are as if dense.
inline bool strides_of(const Tensor& tensor, Strides* strides) {
    const int64_t channels = tensor.size(1), width = tensor.size(3);
    *strides = {tensor.stride(0), tensor.stride(1), tensor.stride(2), tensor.stride(3)};
    if (width == 1) strides->pixel = channels > 1 && strides->channel == 1 ? channels : 1;
    if (channels == 1 && strides->pixel == 1) strides->channel = tensor.stride(2) * tensor.size(2);
    return strides->pixel == 1 || (strides->channel == 1 && strides->pixel == channels);
}

template <typename Backend>
struct AugmentOps {
    static AugmentCall call_for(const Tensor& images) {
        STD_TORCH_CHECK(images.dim() == 4, "images must be of shape (batch, channels, height, width)");
        AugmentCall call = {};
        set_extent(&call.plan, images.size(0), images.size(2), images.size(3));
        call.plan.can_blend = true;
        call.images.channels = to_int32(images.size(1), "channels");
        call.images.in_dtype = dtype_of(images.scalar_type());
        STD_TORCH_CHECK(is_augmented(call.images.in_dtype), "images must be uint8, float16, bfloat16 or float32");
        return call;
    }

    static void run_into(AugmentCall* call, const Tensor& images, const Tensor& out) {
        AugmentedImages& pixels = call->images;
        STD_TORCH_CHECK(!call->views.coloured || pixels.channels == 3, "images must have 3 channels to be coloured");
        if (images.numel() == 0) {
            Backend::run(*call, images);
        } else if (is_aligned(images) && is_aligned(out) && strides_of(images, &pixels.in_strides) &&
                   strides_of(out, &pixels.out_strides)) {
            pixels.in = images.const_data_ptr();
            pixels.out = out.mutable_data_ptr();
            Backend::run(*call, images);
        } else {
            const Tensor dense_out = new_images(images, out.scalar_type(), 0);
            run_into(call, dense(images, images.element_size()), dense_out);
            copy_into(out, dense_out);
        }
    }

    static Tensor new_images(const Tensor& images, ScalarType type, int64_t memory_format) {
        STD_TORCH_CHECK(images.dim() == 4, "images must be of shape (batch, channels, height, width)");
        STD_TORCH_CHECK(memory_format == 0 || memory_format == 1, "memory_format must be 0 or 1");
        const int64_t channels = images.size(1), height = images.size(2), width = images.size(3);
        const auto step = [](int64_t size) { return std::max<int64_t>(size, 1); };  // as torch.empty
        const int64_t plane = step(height) * step(width);
        const int64_t contiguous[] = {step(channels) * plane, plane, step(width), 1};
        const int64_t channels_last[] = {channels * width * height, 1, channels * width, channels};
        return new_strided(4, images.sizes().data(), memory_format == 0 ? contiguous : channels_last, shim_dtype(type),
                           images);
    }

    static void check_out(const AugmentCall& call, const Tensor& images, const Tensor& out) {
        bool same = out.dim() == 4 && same_device(images, out);
        for (int64_t dim = 0; same && dim < 4; ++dim) same = out.size(dim) == images.size(dim);
        STD_TORCH_CHECK(same, "out must have the shape and device of images");
        const bool bytes = call.images.out_dtype == Dtype::kU8;
        STD_TORCH_CHECK(
            is_augmented(call.images.out_dtype) &&
                (!bytes || (call.images.in_dtype == Dtype::kU8 && call.erasing.value == EraseValue::kConstant)),
            "out must be float16, bfloat16 or float32; or uint8, of images of uint8 without noise");
    }

    // ---- The ops, in the order of cutmix_cuda/_ops.py

    static Tensor sample_views(Tensor seed, int64_t batch, int64_t height, int64_t width, Tensor tables,
                               OptionalTensor colours, Numbers parameters, Integers choices) {
        AugmentCall call = {};
        set_extent(&call.plan, batch, height, width);
        set_seed(&call.plan, seed, tables);
        Tensor views = set_view_sampling(&call, {tables, colours, parameters, choices});
        if (batch > 0) Backend::run(call, tables);
        return views;
    }

    static std::tuple<Tensor, Tensor, Tensor> augment_out(Tensor images, OptionalTensor labels, Tensor seed,
                                                          Tensor quantiles, Numbers bounds, Integers sampling,
                                                          Tensor tables, OptionalTensor colours, Numbers parameters,
                                                          Integers choices, int64_t num_classes, double label_smoothing,
                                                          ScalarType target_dtype, Tensor constants, Integers erasing,
                                                          Tensor out) {
        AugmentCall call = call_for(images);
        call.images.out_dtype = dtype_of(out.scalar_type());
        STD_TORCH_CHECK(same_device(quantiles, images) && same_device(tables, images),
                        "quantiles and view_tables must be on the device of the images");
        set_values(&call, {constants, erasing}, images);
        check_out(call, images, out);
        Tensor plan = set_draw(&call.plan, {seed, quantiles, bounds, sampling});
        Tensor views = set_view_sampling(&call, {tables, colours, parameters, choices});
        const TargetTensors targets =
            set_targets(&call.targets, labels, {num_classes, label_smoothing, target_dtype}, images.size(0), images);
        if (images.size(0) > 0) run_into(&call, images, out);
        return {targets.out, plan, views};
    }

    static std::tuple<Tensor, Tensor, Tensor, Tensor> augment(Tensor images, OptionalTensor labels, Tensor seed,
                                                              Tensor quantiles, Numbers bounds, Integers sampling,
                                                              Tensor tables, OptionalTensor colours, Numbers parameters,
                                                              Integers choices, int64_t num_classes,
                                                              double label_smoothing, ScalarType target_dtype,
                                                              Tensor constants, Integers erasing, ScalarType dtype,
                                                              int64_t memory_format) {
        Tensor out = new_images(images, dtype, memory_format);
        auto [targets, plan, views] =
            augment_out(images, labels, seed, quantiles, bounds, sampling, tables, colours, parameters, choices,
                        num_classes, label_smoothing, target_dtype, constants, erasing, out);
        return {out, targets, plan, views};
    }

    static Tensor apply_views_out(Tensor images, OptionalTensor labels, Tensor plan, Tensor views, bool coloured,
                                  Tensor seed, int64_t num_classes, double label_smoothing, ScalarType target_dtype,
                                  Tensor constants, Integers erasing, Tensor out) {
        AugmentCall call = call_for(images);
        call.images.out_dtype = dtype_of(out.scalar_type());
        STD_TORCH_CHECK(same_device(plan, images) && same_device(views, images),
                        "plan and views must be on the device of the images");
        set_values(&call, {constants, erasing}, images);
        check_out(call, images, out);
        set_seed(&call.plan, seed, images);
        const Tensor kept_plan = set_given(&call.plan, plan), kept_views = set_given_views(&call, views, coloured);
        const TargetTensors targets =
            set_targets(&call.targets, labels, {num_classes, label_smoothing, target_dtype}, images.size(0), images);
        if (images.size(0) > 0) run_into(&call, images, out);
        return targets.out;
    }

    static std::tuple<Tensor, Tensor> apply_views(Tensor images, OptionalTensor labels, Tensor plan, Tensor views,
                                                  bool coloured, Tensor seed, int64_t num_classes,
                                                  double label_smoothing, ScalarType target_dtype, Tensor constants,
                                                  Integers erasing, ScalarType dtype, int64_t memory_format) {
        Tensor out = new_images(images, dtype, memory_format);
        Tensor targets = apply_views_out(images, labels, plan, views, coloured, seed, num_classes, label_smoothing,
                                         target_dtype, constants, erasing, out);
        return {out, targets};
    }

    static void register_ops(torch::stable::detail::StableLibrary& library) {
        library.impl("sample_views", TORCH_BOX(&sample_views));
        library.impl("augment", TORCH_BOX(&augment));
        library.impl("augment_out", TORCH_BOX(&augment_out));
        library.impl("apply_views", TORCH_BOX(&apply_views));
        library.impl("apply_views_out", TORCH_BOX(&apply_views_out));
    }
};

}  // namespace cutmix
