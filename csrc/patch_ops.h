// The ops of several patches a sample on tensors, once for all compiled backends, as mix_ops.h for mixing: check,
// allocate, return if empty, run. A backend gives `run(const PatchCall&, const Tensor& anchor)` and `takes`.
#pragma once

#include <vector>

#include "mix_ops.h"
#include "patches.h"

namespace cutmix {

using PatchNumbers = std::vector<int64_t>;

struct PatchTensors {  // a given plan, in the order of the schemas
    const Tensor& rows;
    const OptionalTensor& sources;
    const OptionalTensor& masks;
    const OptionalTensor& weights;
};

struct PatchDrawArgs {  // in the order of the schemas
    const Tensor& seed;
    const Tensor& quantiles;
    const std::vector<double>& bounds;
    const PatchNumbers& sampling;
};

inline void set_patch_extent(PatchCall* call, int64_t batch, int64_t height, int64_t width) {
    STD_TORCH_CHECK(batch >= 0 && batch <= 1 << 30, "the batch size must be in 0..2^30");
    STD_TORCH_CHECK(height >= 0 && height <= kLongestSide && width >= 0 && width <= kLongestSide,
                    "height and width must be in 0..32768");
    call->batch = static_cast<int32_t>(batch);
    call->height = static_cast<int32_t>(height);
    call->width = static_cast<int32_t>(width);
}

// The integers `patch_sampling` of an op into a call whose bounds are known, if they are known: see
// _ops.py::PatchSampling.
inline bool decode_patch_sampling(const PatchNumbers& options, PatchCall* call) {
    if (options.size() != 5) return false;
    PatchDraw& draw = call->draw;
    const int64_t holes = options[3], patches = options[4], of_kinds[] = {options[0], options[1], options[2], 1};
    const int64_t least = can_draw(PatchMethod::kRicap, draw.bounds) ? kRicapPatches : 1;
    if (!decode_sampling(of_kinds, &draw.kinds.sampling)) return false;
    if (holes < 1 || patches < std::max(holes, least) || patches > kMostPatches) return false;
    draw.holes = static_cast<int32_t>(holes);
    call->patches = static_cast<int32_t>(patches);
    return true;
}

// Uninitialised int32 (samples, patches, columns).
inline Tensor new_patches(int64_t samples, int64_t patches, int64_t columns, const Tensor& like) {
    const int64_t sizes[] = {samples, patches, columns}, strides[] = {patches * columns, columns, 1};
    return new_strided(3, sizes, strides, shim_dtype(ScalarType::Int), like);
}

// Sets up sampling into new rows and sources, which it returns.
inline std::tuple<Tensor, Tensor> set_patch_draw(PatchCall* call, const PatchDrawArgs& args) {
    const Tensor& quantiles = args.quantiles;
    PatchDraw& draw = call->draw;
    STD_TORCH_CHECK(quantiles.dim() == 2 && quantiles.size(0) == kPatchMethods && quantiles.size(1) == kKnots &&
                        quantiles.scalar_type() == ScalarType::Float && quantiles.is_contiguous(),
                    "quantiles must be a contiguous float32 tensor of a row of 4097 knots for each method");
    STD_TORCH_CHECK(args.bounds.size() == kPatchMethods, "bounds must be a number for each method");
    std::copy(args.bounds.begin(), args.bounds.end(), draw.bounds);
    std::copy(draw.bounds, draw.bounds + kKinds, draw.kinds.bounds);
    STD_TORCH_CHECK(
        decode_patch_sampling(args.sampling, call),
        "patch_sampling must be a known scope, partner and placement, a number of holes, and one of patches "
        "that is enough, at most 64");
    draw.kinds.quantiles = static_cast<const float*>(quantiles.const_data_ptr());
    draw.kinds.height = call->height;
    draw.kinds.width = call->width;
    STD_TORCH_CHECK(call->can_blend || !may_blend(draw.kinds.bounds),
                    "mixup blends images of dtype uint8, float16, bfloat16, float32 and float64 only");
    Plan seeds = {};
    set_seed(&seeds, args.seed, quantiles);
    call->seed = seeds.seed;
    call->device_seed = seeds.device_seed;
    call->samples = call->batch;
    Tensor rows = new_patches(call->samples, call->patches, kPlanColumns, quantiles);
    Tensor sources = new_patches(call->samples, call->patches, 4, quantiles);
    call->sampled_rows = static_cast<PlanRow*>(rows.mutable_data_ptr());
    call->sampled_sources = static_cast<Box*>(sources.mutable_data_ptr());
    return {rows, sources};
}

inline bool is_patch_part(const Tensor& part, int64_t samples, int64_t patches, int64_t columns, const Tensor& anchor) {
    return part.dim() == 3 && part.size(0) == samples && part.size(1) == patches && part.size(2) == columns &&
           part.scalar_type() == ScalarType::Int && same_device(part, anchor);
}

// Follows a given plan; returns the tensors that keep its memory.
inline std::vector<Tensor> set_given_patches(PatchCall* call, const PatchTensors& given, const Tensor& anchor) {
    const Tensor& rows = given.rows;
    STD_TORCH_CHECK(rows.dim() == 3 && rows.size(0) <= 1 << 30 && rows.size(1) >= 1 && rows.size(1) <= kMostPatches &&
                        is_patch_part(rows, rows.size(0), rows.size(1), kPlanColumns, anchor),
                    "rows must be int32 of shape (samples, 1 to 64 patches, 8) on the device of the images");
    call->samples = static_cast<int32_t>(rows.size(0));
    call->patches = static_cast<int32_t>(rows.size(1));
    STD_TORCH_CHECK(call->samples == 0 || call->batch > 0, "images must not be empty for a plan of samples");
    std::vector<Tensor> kept = {dense(rows, alignof(PlanRow))};
    call->rows = static_cast<const PlanRow*>(kept.back().const_data_ptr());
    if (given.sources) {
        STD_TORCH_CHECK(is_patch_part(*given.sources, call->samples, call->patches, 4, anchor),
                        "sources must be int32 of shape (samples, patches, 4) on the device of the images");
        kept.push_back(dense(*given.sources, alignof(PlanRow)));
        call->sources = static_cast<const Box*>(kept.back().const_data_ptr());
    }
    if (given.masks) {
        const Tensor& masks = *given.masks;
        const bool soft = masks.scalar_type() == ScalarType::Float;
        const int64_t dims = masks.dim(), channels = dims == 4 ? masks.size(1) : 1;
        STD_TORCH_CHECK((dims == 3 || dims == 4) && (soft || masks.scalar_type() == ScalarType::Bool) &&
                            same_device(masks, anchor) && masks.size(0) <= 1 << 30 && masks.size(dims - 2) >= 1 &&
                            masks.size(dims - 2) <= kLongestSide && masks.size(dims - 1) >= 1 &&
                            masks.size(dims - 1) <= kLongestSide,
                        "masks must be bool or float32 of shape (masks, 1 to 32768, 1 to 32768), or (masks, channels, "
                        "1 to 32768, 1 to 32768), on the device of the images");
        STD_TORCH_CHECK(channels >= 1 && channels <= kMostMaskedPixels &&
                            channels * std::max<int64_t>(int64_t{call->height} * call->width, 1) <= kMostMaskedPixels,
                        "masks of each channel must be for at most 2^38 pixels of all channels");
        kept.push_back(dense(masks, soft ? 4 : 1));
        call->masks = {kept.back().const_data_ptr(),
                       static_cast<int32_t>(masks.size(0)),
                       static_cast<int32_t>(masks.size(dims - 2)),
                       static_cast<int32_t>(masks.size(dims - 1)),
                       soft,
                       to_int32(channels, "the channels of masks")};
    }
    if (given.weights) {
        const Tensor& weights = *given.weights;
        STD_TORCH_CHECK(weights.dim() == 2 && weights.size(0) == call->samples &&
                            weights.size(1) == 1 + call->patches && weights.scalar_type() == ScalarType::Float &&
                            same_device(weights, anchor),
                        "weights must be float32 of shape (samples, 1 + patches) on the device of the images");
        kept.push_back(dense(weights, 4));
        call->weights = static_cast<const float*>(kept.back().const_data_ptr());
    }
    return kept;
}

// The targets to be written, and the labels that have to live until they are.
struct PatchTargetTensors {
    TargetTensors targets;
    OptionalTensor other_labels;
};

inline PatchTargetTensors set_patch_targets(PatchCall* call, const OptionalTensor& labels,
                                            const OptionalTensor& other_labels, const TargetFormat& format,
                                            const Tensor& anchor) {
    PatchTargetTensors kept = {set_targets(&call->targets, labels, format, call->batch, anchor), std::nullopt};
    if (labels.has_value() && call->samples != call->batch) {
        kept.targets.out = new_matrix(call->samples, call->targets.num_classes, format.dtype, anchor);
        call->targets.out = kept.targets.out.mutable_data_ptr();
    }
    if (!labels.has_value()) {
        kept.targets.out = new_matrix(call->samples, 0, format.dtype, anchor);
        return kept;
    }
    STD_TORCH_CHECK(other_labels.has_value() == (call->others > 0), "other_labels must be given with others");
    if (!other_labels.has_value()) return kept;
    const bool soft = is_float(call->targets.labels_dtype);
    STD_TORCH_CHECK(other_labels->scalar_type() == labels->scalar_type() && same_device(*other_labels, anchor) &&
                        other_labels->dim() == labels->dim() && other_labels->size(0) == call->others &&
                        (!soft || other_labels->size(1) == call->targets.num_classes),
                    "other_labels must be one a sample of others, of the dtype of labels, on their device");
    kept.other_labels = dense(*other_labels, other_labels->element_size());
    call->other_labels = kept.other_labels->const_data_ptr();
    return kept;
}

// A new tensor like images, of so many samples. Mirrors _ops.py::new_painted.
inline Tensor new_painted(const Tensor& images, int64_t samples) {
    if (samples == images.size(0)) return new_like(images);
    const int64_t dims = images.dim();
    std::vector<int64_t> sizes(images.sizes().begin(), images.sizes().end()), strides(static_cast<size_t>(dims));
    sizes[0] = samples;
    const bool channels_last = dims == 4 && !images.is_contiguous() && images.stride(1) == 1;
    const std::vector<int64_t> inner_first = channels_last ? std::vector<int64_t>{1, 3, 2, 0} : std::vector<int64_t>();
    int64_t stride = 1;
    for (int64_t k = 0; k < dims; ++k) {
        const int64_t dim = channels_last ? inner_first[static_cast<size_t>(k)] : dims - 1 - k;
        strides[static_cast<size_t>(dim)] = stride;
        stride *= std::max<int64_t>(sizes[static_cast<size_t>(dim)], 1);
    }
    int32_t dtype;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(images.get(), &dtype));
    return new_strided(dims, sizes.data(), strides.data(), dtype, images);
}

template <typename Backend>
struct PatchOps {
    static bool alike(const Tensor& a, const Rows& rows, const Tensor& b, const Rows& other) {
        Rows same_batch = other;
        same_batch.batch = rows.batch;
        return rows.same_shape(same_batch) &&
               same_order(a.dim(), a.sizes().data(), a.strides().data(), b.strides().data());
    }

    // False where images, others or out cannot be gone through as they lie in memory.
    static bool set_pixels(PatchCall* call, const Tensor& images, const OptionalTensor& others, const Tensor& out) {
        Images& pixels = call->images;
        pixels.out = static_cast<uint8_t*>(out.mutable_data_ptr());
        pixels.in = static_cast<const uint8_t*>(images.const_data_ptr());
        if (!tensor_rows(images, &pixels.in_rows) || !tensor_rows(out, &pixels.out_rows)) return false;
        if (pixels.out_rows.empty()) {
            pixels.out = nullptr;
            return true;
        }
        if (!alike(images, pixels.in_rows, out, pixels.out_rows)) return false;
        call->channel_place = channel_place(images.dim(), images.sizes().data(), images.strides().data(),
                                            static_cast<int64_t>(images.element_size()), pixels.in_rows);
        call->other_rows = pixels.in_rows;
        if (others) {
            call->other_images = static_cast<const uint8_t*>(others->const_data_ptr());
            if (!tensor_rows(*others, &call->other_rows)) return false;
            if (others->size(0) > 0 && !alike(images, pixels.in_rows, *others, call->other_rows)) return false;
        }
        return Backend::takes(*call);
    }

    static void run_into(PatchCall* call, const Tensor& images, const OptionalTensor& others, const Tensor& out) {
        if (set_pixels(call, images, others, out)) {
            Backend::run(*call, images);
            return;
        }
        const auto copy_of = [](const Tensor& tensor) { return dense(tensor, tensor.element_size()); };
        const Tensor dense_images = copy_of(images);
        const OptionalTensor dense_others = others ? OptionalTensor(copy_of(*others)) : std::nullopt;
        const Tensor dense_out = call->images.in_place ? dense_images : torch::stable::new_empty(images, out.sizes());
        STD_TORCH_CHECK(set_pixels(call, dense_images, dense_others, dense_out), "images must be dense");
        Backend::run(*call, dense_images);
        copy_into(out, dense_out);
    }

    static void set_images(PatchCall* call, const Tensor& images, const OptionalTensor& others,
                           const std::vector<int64_t>& fill) {
        STD_TORCH_CHECK(images.dim() >= 3 && images.dim() <= kMaxImageDims,
                        "images must be of shape (batch, ..., height, width), of 3 to 8 dimensions");
        const int64_t dims = images.dim();
        set_patch_extent(call, images.size(0), images.size(dims - 2), images.size(dims - 1));
        if (others) {
            check_like(images, *others, others->size(0), "others must be samples like images");
            STD_TORCH_CHECK(others->size(0) <= 1 << 30, "others must be at most 2^30");
            call->others = static_cast<int32_t>(others->size(0));
        }
        call->images.dtype = pixel_dtype_of(images);
        call->can_blend = can_blend(call->images.dtype);
        STD_TORCH_CHECK(fill.size() == 2, "fill must be 16 bytes in two integers");
        std::memcpy(call->images.fill, fill.data(), sizeof call->images.fill);
    }

    // Of a shape but for the number of samples, an element size and a device.
    static void check_like(const Tensor& images, const Tensor& other, int64_t samples, const char* message) {
        bool same = other.dim() == images.dim() && other.element_size() == images.element_size() &&
                    same_device(images, other) && other.size(0) == samples;
        for (int64_t dim = 1; same && dim < images.dim(); ++dim) same = other.size(dim) == images.size(dim);
        STD_TORCH_CHECK(same, message);
    }

    // In place where there is no out.
    static Tensor follow(const Tensor& images, const OptionalTensor& others, const OptionalTensor& labels,
                         const OptionalTensor& other_labels, const PatchTensors& given, const TargetFormat& format,
                         const OptionalTensor& out, const std::vector<int64_t>& fill) {
        PatchCall call = {};
        set_images(&call, images, others, fill);
        const std::vector<Tensor> kept = set_given_patches(&call, given, images);
        STD_TORCH_CHECK(
            !given.masks || given.masks->dim() == 3 || (images.dim() >= 4 && images.size(1) == given.masks->size(1)),
            "masks of each channel must be of the channels of images");
        call.images.in_place = !out;
        check_like(
            images, out ? *out : images, call.samples,
            out ? "out must be samples of the plan like images" : "in place, plan must be of the images' samples");
        const PatchTargetTensors targets = set_patch_targets(&call, labels, other_labels, format, images);
        if (call.samples > 0) run_into(&call, images, others, out ? *out : images);
        return targets.targets.out;
    }

    static std::tuple<Tensor, Tensor, Tensor> sample_and_follow(const Tensor& images, const OptionalTensor& labels,
                                                                const PatchDrawArgs& draw, const TargetFormat& format,
                                                                const OptionalTensor& out,
                                                                const std::vector<int64_t>& fill) {
        PatchCall call = {};
        set_images(&call, images, std::nullopt, fill);
        STD_TORCH_CHECK(same_device(draw.quantiles, images), "quantiles must be on the device of the images");
        auto [rows, sources] = set_patch_draw(&call, draw);
        STD_TORCH_CHECK(out || draws_holes_alone(call.draw.bounds), "in place, patches that are drawn must be holes");
        call.images.in_place = !out;
        if (out) check_like(images, *out, call.samples, "out must be like images");
        const PatchTargetTensors targets = set_patch_targets(&call, labels, std::nullopt, format, images);
        if (call.samples > 0) run_into(&call, images, std::nullopt, out ? *out : images);
        return {targets.targets.out, rows, sources};
    }

    // ---- The ops, in the order of cutmix_cuda/_ops.py

    using Ints = std::vector<int64_t>;
    using Bounds = std::vector<double>;

    static std::tuple<Tensor, Tensor> paint(Tensor images, OptionalTensor others, OptionalTensor labels,
                                            OptionalTensor other_labels, Tensor rows, OptionalTensor sources,
                                            OptionalTensor masks, OptionalTensor weights, int64_t num_classes,
                                            double label_smoothing, ScalarType dtype, Ints fill) {
        STD_TORCH_CHECK(rows.dim() == 3, "rows must be of shape (samples, patches, 8)");
        Tensor out = new_painted(images, rows.size(0));
        return {out, follow(images, others, labels, other_labels, {rows, sources, masks, weights},
                            {num_classes, label_smoothing, dtype}, out, fill)};
    }

    static Tensor paint_out(Tensor images, OptionalTensor others, OptionalTensor labels, OptionalTensor other_labels,
                            Tensor rows, OptionalTensor sources, OptionalTensor masks, OptionalTensor weights,
                            int64_t num_classes, double label_smoothing, ScalarType dtype, Tensor out, Ints fill) {
        return follow(images, others, labels, other_labels, {rows, sources, masks, weights},
                      {num_classes, label_smoothing, dtype}, out, fill);
    }

    static Tensor paint_(Tensor images, OptionalTensor labels, Tensor rows, OptionalTensor sources,
                         OptionalTensor masks, OptionalTensor weights, int64_t num_classes, double label_smoothing,
                         ScalarType dtype, Ints fill) {
        return follow(images, std::nullopt, labels, std::nullopt, {rows, sources, masks, weights},
                      {num_classes, label_smoothing, dtype}, std::nullopt, fill);
    }

    static Tensor paint_targets(Tensor labels, OptionalTensor other_labels, Tensor rows, OptionalTensor masks,
                                OptionalTensor weights, int64_t height, int64_t width, int64_t num_classes,
                                double label_smoothing, ScalarType dtype) {
        PatchCall call = {};
        STD_TORCH_CHECK(labels.dim() >= 1, "labels must be one a sample");
        set_patch_extent(&call, labels.size(0), height, width);
        call.can_blend = true;
        if (other_labels) call.others = to_int32(other_labels->size(0), "the samples of other_labels");
        const std::vector<Tensor> kept = set_given_patches(&call, {rows, std::nullopt, masks, weights}, labels);
        const PatchTargetTensors targets =
            set_patch_targets(&call, labels, other_labels, {num_classes, label_smoothing, dtype}, labels);
        if (targets.targets.out.numel() > 0) Backend::run(call, labels);
        return targets.targets.out;
    }

    static std::tuple<Tensor, Tensor> sample_patches(Tensor seed, Tensor quantiles, Bounds bounds, Ints sampling,
                                                     int64_t batch, int64_t height, int64_t width) {
        PatchCall call = {};
        set_patch_extent(&call, batch, height, width);
        call.can_blend = true;
        const auto drawn = set_patch_draw(&call, {seed, quantiles, bounds, sampling});
        if (batch > 0) Backend::run(call, quantiles);
        return drawn;
    }

    static std::tuple<Tensor, Tensor, Tensor, Tensor> sample_and_paint(Tensor images, OptionalTensor labels,
                                                                       Tensor seed, Tensor quantiles, Bounds bounds,
                                                                       Ints sampling, int64_t num_classes,
                                                                       double label_smoothing, ScalarType dtype,
                                                                       Ints fill) {
        Tensor out = new_like(images);
        auto [targets, rows, sources] = sample_and_follow(images, labels, {seed, quantiles, bounds, sampling},
                                                          {num_classes, label_smoothing, dtype}, out, fill);
        return {out, targets, rows, sources};
    }

    static std::tuple<Tensor, Tensor, Tensor> sample_and_paint_out(Tensor images, OptionalTensor labels, Tensor seed,
                                                                   Tensor quantiles, Bounds bounds, Ints sampling,
                                                                   int64_t num_classes, double label_smoothing,
                                                                   ScalarType dtype, Tensor out, Ints fill) {
        return sample_and_follow(images, labels, {seed, quantiles, bounds, sampling},
                                 {num_classes, label_smoothing, dtype}, out, fill);
    }

    static std::tuple<Tensor, Tensor, Tensor> sample_and_paint_(Tensor images, OptionalTensor labels, Tensor seed,
                                                                Tensor quantiles, Bounds bounds, Ints sampling,
                                                                int64_t num_classes, double label_smoothing,
                                                                ScalarType dtype, Ints fill) {
        return sample_and_follow(images, labels, {seed, quantiles, bounds, sampling},
                                 {num_classes, label_smoothing, dtype}, std::nullopt, fill);
    }

    static void register_ops(torch::stable::detail::StableLibrary& library) {
        library.impl("paint", TORCH_BOX(&paint));
        library.impl("paint_out", TORCH_BOX(&paint_out));
        library.impl("paint_", TORCH_BOX(&paint_));
        library.impl("paint_targets", TORCH_BOX(&paint_targets));
        library.impl("sample_patches", TORCH_BOX(&sample_patches));
        library.impl("sample_and_paint", TORCH_BOX(&sample_and_paint));
        library.impl("sample_and_paint_out", TORCH_BOX(&sample_and_paint_out));
        library.impl("sample_and_paint_", TORCH_BOX(&sample_and_paint_));
    }
};

}  // namespace cutmix
