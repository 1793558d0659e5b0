// The host side of the shared headers as functions on numpy arrays: the tests hold every twin to the same bits by them,
// and ask them what a call launches on a GPU. tests/bindings.py compiles and imports them.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/adjoint_geometry.h"
#include "cuda/augment_geometry.h"
#include "cuda/launch_geometry.h"
#include "cuda/patches_geometry.h"
#include "mix_math.h"
#include "rows.h"
#include "targets.h"
#include "values.h"
#include "views_bindings.h"

namespace py = pybind11;
using namespace py::literals;

namespace cutmix {
namespace {

template <typename Value>
using Array = py::array_t<Value, py::array::c_style | py::array::forcecast>;

const float* knots_of(const Array<float>& table, int32_t tables) {
    if (table.size() != tables * kKnots) throw std::invalid_argument("a table has 4097 knots");
    return table.data();
}

int32_t edge_of(const Box& box, int32_t edge) {
    const int32_t edges[] = {box.y0, box.x0, box.y1, box.x1};
    return edges[edge & 3];
}

// As the arguments of the ops.
using Bounds = std::vector<double>;
using Options = std::vector<int64_t>;

Draw draw_of(const float* quantiles, const Bounds& bounds, const Options& sampling, int32_t height, int32_t width) {
    Draw draw = {quantiles, {}, {}, height, width};
    if (bounds.size() != kKinds) throw std::invalid_argument("a bound for each kind");
    std::copy(bounds.begin(), bounds.end(), draw.bounds);
    if (sampling.size() != kSamplingOptions || !decode_sampling(sampling.data(), &draw.sampling))
        throw std::invalid_argument("unknown sampling");
    return draw;
}

// As _ops.py::sample_plan, on the calling thread.
py::array_t<int32_t> sample_plan(uint64_t seed, const Array<float>& quantiles, const Bounds& bounds,
                                 const Options& sampling, int32_t batch, int32_t height, int32_t width) {
    const Draw draw = draw_of(knots_of(quantiles, kKinds), bounds, sampling, height, width);
    const PartnerMap map = partner_map(draw.sampling.partner, seed, static_cast<uint32_t>(batch));
    py::array_t<int32_t> plan({py::ssize_t{batch}, py::ssize_t{8}});
    for (int32_t i = 0; i < batch; ++i) {
        const uint32_t partner = partner_of(map, static_cast<uint32_t>(i), static_cast<uint32_t>(batch));
        const PlanRow row = sample_row(draw, seed, static_cast<uint32_t>(i), partner);
        std::memcpy(plan.mutable_data(i, 0), &row, sizeof row);
    }
    return plan;
}

py::array_t<bool> valid_rows(const Array<int32_t>& plan, int32_t height, int32_t width, bool can_blend) {
    if (plan.ndim() != 2 || plan.shape(1) != 8) throw std::invalid_argument("the plan must be of shape (batch, 8)");
    const int32_t batch = static_cast<int32_t>(plan.shape(0));
    py::array_t<bool> valid(batch);
    for (int32_t i = 0; i < batch; ++i) {
        PlanRow row;
        std::memcpy(&row, plan.data(i, 0), sizeof row);
        valid.mutable_at(i) = valid_row(row, batch, height, width, can_blend);
    }
    return valid;
}

// Words and edges are chosen by a last argument, so that broadcasting it against arange(4) gives all four.
void bind_mix_math(py::module_& module) {
    module.def("mulhi", py::vectorize(mulhi));
    module.def("philox", py::vectorize([](uint64_t seed, uint32_t index, uint32_t stream, int32_t word) {
                   return philox(seed, index, stream).word[word & 3];
               }));
    module.def("sqrt_rn", py::vectorize(sqrt_rn));
    module.def("unit_float", py::vectorize(unit_float));
    module.def("quantile", [](const Array<float>& table, const py::array_t<uint32_t>& word) {
        return py::vectorize([knots = knots_of(table, 1)](uint32_t word) { return quantile(knots, word); })(word);
    });
    module.def("clipped_box", py::vectorize([](float lam, uint32_t word_x, uint32_t word_y, int32_t height,
                                               int32_t width, int32_t edge) {
                   return edge_of(clipped_box(lam, word_x, word_y, height, width), edge);
               }));
    module.def("inside_box", py::vectorize([](float lam, uint32_t word_x, uint32_t word_y, int32_t height,
                                              int32_t width, int32_t edge) {
                   return edge_of(inside_box(lam, word_x, word_y, height, width), edge);
               }));
    module.def("share_outside",
               py::vectorize([](int32_t y0, int32_t x0, int32_t y1, int32_t x1, int32_t height, int32_t width) {
                   return share_outside({y0, x0, y1, x1}, height, width);
               }));
    module.def("partner_map", [](int32_t rule, uint64_t seed, uint32_t batch) {
        const PartnerMap map = partner_map(static_cast<Partner>(rule), seed, batch);
        return py::make_tuple(map.reflects, map.shift);
    });
    module.def("partner_of", py::vectorize([](bool reflects, uint32_t shift, uint32_t index, uint32_t batch) {
                   return partner_of({reflects, shift}, index, batch);
               }));
    module.def("draw_index", py::vectorize([](int32_t scope, uint32_t index, uint32_t partner) {
                   return draw_index(static_cast<Scope>(scope), index, partner);
               }));
    module.attr("kinds") = kKinds;
    module.def("is_kind", py::vectorize(is_kind));
    const auto bind_need = [&](const char* name, bool (*need)(Kind)) {
        module.def(name, py::vectorize([need](int32_t kind) { return need(static_cast<Kind>(kind)); }));
    };
    bind_need("has_partner", has_partner);
    bind_need("has_box", has_box);
    bind_need("reads_own", reads_own);
    bind_need("pastes", pastes);
    bind_need("fills", fills);
    bind_need("blends", blends);
    bind_need("mixes_target", mixes_target);
    module.def("can_draw", [](int32_t kind, const Bounds& bounds) {
        return can_draw(static_cast<Kind>(kind), draw_of(nullptr, bounds, {0, 0, 0, 0}, 0, 0).bounds);
    });
    module.def("sample_plan", &sample_plan);
    module.def("valid_rows", &valid_rows);
    module.def("smoothing_of", [](double label_smoothing, int64_t num_classes) {
        const Smoothing smoothing = smoothing_of(label_smoothing, num_classes);
        return py::make_tuple(smoothing.scale, smoothing.off, smoothing.on);
    });
    module.def("mixed_value_float32", py::vectorize(mixed_value<float>));
    module.def("mixed_value_float64", py::vectorize(mixed_value<double>));
}

void bind_rows(py::module_& module) {
    module.def("rows_of",
               [](const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                  int64_t element_bytes) -> py::object {
                   if (sizes.size() != strides.size()) throw std::invalid_argument("as many sizes as strides");
                   Rows rows;
                   const auto dims = static_cast<int64_t>(sizes.size());
                   if (!rows_of(dims, sizes.data(), strides.data(), element_bytes, &rows)) return py::none();
                   return py::dict("batch"_a = rows.batch, "slices"_a = rows.slices, "height"_a = rows.height,
                                   "width"_a = rows.width, "pixel_bytes"_a = rows.pixel_bytes,
                                   "sample_stride"_a = rows.sample_stride, "slice_stride"_a = rows.slice_stride,
                                   "row_stride"_a = rows.row_stride, "dense"_a = rows.dense(),
                                   "empty"_a = rows.empty());
               });
    module.def("channel_place",
               [](const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides, int64_t element_bytes) {
                   const auto dims = static_cast<int64_t>(sizes.size());
                   Rows rows;
                   if (sizes.size() != strides.size() || dims < 4 ||
                       !rows_of(dims, sizes.data(), strides.data(), element_bytes, &rows))
                       throw std::invalid_argument("rows of images with channels");
                   const ChannelPlace place = channel_place(dims, sizes.data(), strides.data(), element_bytes, rows);
                   return std::pair(place.in_pixel, place.step);
               });
    module.def("same_order", [](const std::vector<int64_t>& sizes, const std::vector<int64_t>& strides,
                                const std::vector<int64_t>& other) {
        if (sizes.size() != strides.size() || sizes.size() != other.size())
            throw std::invalid_argument("as many sizes as strides");
        return same_order(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), other.data());
    });
}

void bind_values(py::module_& module) {
    module.def("half_to_float", py::vectorize(half_to_float));
    module.def("float_to_half", py::vectorize(float_to_half));
    module.def("bfloat16_to_float", py::vectorize(bfloat16_to_float));
    module.def("float_to_bfloat16", py::vectorize(float_to_bfloat16));
    module.def("float_to_uint8", py::vectorize(ElementU8::of));
}

// ---- What a call launches on a GPU. Addresses are integers: nothing here follows them.

template <typename Pointee>
Pointee* at(uint64_t address) {
    return reinterpret_cast<Pointee*>(address);
}

Dtype dtype_named(const std::string& name) {
    const char* const names[] = {"uint8",  "int8",  "uint16",  "int16",    "uint32",  "int32",
                                 "uint64", "int64", "float16", "bfloat16", "float32", "float64"};
    return static_cast<Dtype>(std::find(std::begin(names), std::end(names), name) - std::begin(names));  // else kOther
}

using Shape = std::vector<int64_t>;
using DrawArgs = std::tuple<uint64_t, Bounds, Options>;  // address of the quantiles, then as in the schemas
using TensorArgs = std::tuple<uint64_t, Shape, Shape>;   // address, sizes, strides
using LabelArgs = std::tuple<uint64_t, std::string>;     // address, dtype

Rows rows_or_throw(const TensorArgs& tensor, int64_t element_bytes) {
    const auto& [address, sizes, strides] = tensor;
    Rows rows;
    if (sizes.size() != strides.size() ||
        !rows_of(static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), element_bytes, &rows))
        throw std::invalid_argument("not dense rows: the ops make such images contiguous first");
    return rows;
}

Plan plan_of(int32_t batch, int32_t height, int32_t width, uint64_t plan, const std::optional<DrawArgs>& draw,
             uint64_t seed, uint64_t device_seed) {
    Plan made = {};
    made.batch = batch;
    made.height = height;
    made.width = width;
    made.can_blend = true;
    made.seed = seed;
    made.device_seed = at<const int64_t>(device_seed);
    if (draw) {
        const auto& [quantiles, bounds, sampling] = *draw;
        made.sampled = at<PlanRow>(plan);
        made.draw = draw_of(at<const float>(quantiles), bounds, sampling, height, width);
    } else {
        made.given = at<const PlanRow>(plan);
    }
    return made;
}

Images images_of(const TensorArgs& images, const TensorArgs& out, int64_t element_bytes, bool in_place,
                 const std::string& dtype, std::pair<int64_t, int64_t> fill) {
    Images made = {at<const uint8_t>(std::get<0>(images)),
                   at<uint8_t>(std::get<0>(out)),
                   rows_or_throw(images, element_bytes),
                   rows_or_throw(out, element_bytes),
                   in_place,
                   dtype_named(dtype),
                   {}};
    std::memcpy(made.fill, &fill.first, 8);
    std::memcpy(made.fill + 8, &fill.second, 8);
    return made;
}

Targets targets_of(const LabelArgs& labels, const LabelArgs& targets, int32_t num_classes, double label_smoothing) {
    return {at<const void>(std::get<0>(labels)),
            at<void>(std::get<0>(targets)),
            dtype_named(std::get<1>(labels)),
            dtype_named(std::get<1>(targets)),
            num_classes,
            smoothing_of(label_smoothing, num_classes)};
}

// What every launch says of itself, and what one kind of it adds.
template <typename Launch, typename... More>
py::dict launched(const Launch& launch, More&&... more) {
    return py::dict("kernel"_a = launch.kernel(), "grid"_a = launch.grid, "block"_a = launch.block,
                    "params"_a = py::bytes(reinterpret_cast<const char*>(&launch.params), sizeof launch.params),
                    std::forward<More>(more)...);
}

py::dict launch_geometry_of(int32_t batch, int32_t height, int32_t width, uint64_t plan,
                            const std::optional<DrawArgs>& draw, uint64_t seed, uint64_t device_seed,
                            const std::optional<TensorArgs>& images, const std::optional<TensorArgs>& out,
                            int64_t element_bytes, bool in_place, const std::optional<LabelArgs>& labels,
                            const std::optional<LabelArgs>& targets, int32_t num_classes, double label_smoothing,
                            const std::string& dtype, std::pair<int64_t, int64_t> fill) {
    MixCall call = {};
    call.plan = plan_of(batch, height, width, plan, draw, seed, device_seed);
    call.plan.can_blend = !images || can_blend(dtype_named(dtype));
    if (images && out) call.images = images_of(*images, *out, element_bytes, in_place, dtype, fill);
    if (labels && targets) call.targets = targets_of(*labels, *targets, num_classes, label_smoothing);
    const Launch launch = launch_geometry(call);
    return launched(launch);
}

AugmentedImages augmented_images(const TensorArgs& images, const std::string& dtype, const TensorArgs& out,
                                 const std::string& out_dtype) {
    const auto strides_of = [](const TensorArgs& tensor) {
        const Shape& strides = std::get<2>(tensor);
        if (strides.size() != 4) throw std::invalid_argument("four dimensions");
        return Strides{strides[0], strides[1], strides[2], strides[3]};
    };
    return {at<const void>(std::get<0>(images)),
            at<void>(std::get<0>(out)),
            dtype_named(dtype),
            dtype_named(out_dtype),
            static_cast<int32_t>(std::get<1>(images).at(1)),
            strides_of(images),
            strides_of(out)};
}

// Constants are those of few channels, (4, channels), or the address of more.
py::dict augment_geometry_of(int32_t batch, int32_t height, int32_t width, uint64_t plan, uint64_t views, int32_t boxes,
                             bool coloured, uint64_t seed, uint64_t device_seed, const std::optional<DrawArgs>& draw,
                             uint64_t aspects, uint64_t colours,
                             const std::optional<std::vector<double>>& view_parameters,
                             const std::vector<int64_t>& view_choices, std::pair<int32_t, int32_t> erasing,
                             const Array<float>& few_constants, uint64_t wide_constants,
                             const std::optional<TensorArgs>& images, const std::optional<TensorArgs>& out,
                             const std::string& dtype, const std::string& out_dtype,
                             const std::optional<LabelArgs>& labels, const std::optional<LabelArgs>& targets,
                             int32_t num_classes, double label_smoothing) {
    AugmentCall call = {};
    call.plan = plan_of(batch, height, width, plan, draw, seed, device_seed);
    call.views.boxes = boxes;
    call.views.coloured = coloured;
    if (view_parameters) {
        if (view_parameters->size() != kViewParameters || view_choices.size() != kViewChoices)
            throw std::invalid_argument("12 parameters and 6 choices");
        call.views.sampled = at<int32_t>(views);
        call.views.sampling = view_sampling(at<const float>(aspects), at<const float>(colours), height, width,
                                            view_parameters->data(), view_choices.data());
    } else {
        call.views.given = at<const int32_t>(views);
    }
    call.erasing = {static_cast<EraseValue>(erasing.first), static_cast<EraseOrder>(erasing.second)};
    call.constants.wide = at<const float>(wide_constants);
    if (few_constants.ndim() == 2 && few_constants.shape(0) == 4 && few_constants.shape(1) <= kFewChannels)
        for (int row = 0; row < 4; ++row)
            for (int channel = 0; channel < few_constants.shape(1); ++channel)
                call.constants.few[row][channel] = few_constants.at(row, channel);
    if (images && out) call.images = augmented_images(*images, dtype, *out, out_dtype);
    if (labels && targets) call.targets = targets_of(*labels, *targets, num_classes, label_smoothing);
    const AugmentLaunch launch = augment_geometry(call);
    return launched(launch, "shared_bytes"_a = launch.shared_bytes);
}

void bind_augment_geometry(py::module_& module) {
    module.def("augment_geometry", &augment_geometry_of, py::kw_only(), "batch"_a, "height"_a, "width"_a, "plan"_a,
               "views"_a, "boxes"_a, "coloured"_a = false, "seed"_a = 0, "device_seed"_a = 0, "draw"_a = py::none(),
               "aspects"_a = 0, "colours"_a = 0, "view_parameters"_a = py::none(),
               "view_choices"_a = std::vector<int64_t>(), "erasing"_a = std::pair<int32_t, int32_t>(0, 0),
               "few_constants"_a = Array<float>(), "wide_constants"_a = 0, "images"_a = py::none(),
               "out"_a = py::none(), "dtype"_a = "", "out_dtype"_a = "", "labels"_a = py::none(),
               "targets"_a = py::none(), "num_classes"_a = 0, "label_smoothing"_a = 0.0,
               "The same of a call of the batch tail.");
}

py::dict adjoint_geometry_of(uint64_t plan, uint64_t links, const TensorArgs& gradients, const TensorArgs& out,
                             int64_t element_bytes, const std::string& dtype) {
    const Shape& sizes = std::get<1>(gradients);
    const AdjointCall call = {at<const PlanRow>(plan),
                              static_cast<int32_t>(sizes.front()),
                              static_cast<int32_t>(sizes.at(sizes.size() - 2)),
                              static_cast<int32_t>(sizes.back()),
                              dtype_named(dtype),
                              at<const uint8_t>(std::get<0>(gradients)),
                              at<uint8_t>(std::get<0>(out)),
                              rows_or_throw(gradients, element_bytes),
                              rows_or_throw(out, element_bytes),
                              at<Link>(links)};
    const AdjointLaunch launch = adjoint_geometry(call);
    return launched(launch, "link_grid"_a = launch.link_grid);
}

void bind_adjoint_geometry(py::module_& module) {
    module.def("adjoint_geometry", &adjoint_geometry_of, py::kw_only(), "plan"_a, "links"_a, "gradients"_a, "out"_a,
               "element_bytes"_a, "dtype"_a, "The two launches of a call of the adjoint.");
}

bool fits_launch_of(const TensorArgs& images, const TensorArgs& out, int64_t element_bytes, const std::string& dtype) {
    return fits_launch(images_of(images, out, element_bytes, false, dtype, {0, 0}));
}

void bind_launch_geometry(py::module_& module) {
    module.def("fits_launch", &fits_launch_of);
    module.def("launch_geometry", &launch_geometry_of, py::kw_only(), "batch"_a, "height"_a, "width"_a, "plan"_a,
               "draw"_a = py::none(), "seed"_a = 0, "device_seed"_a = 0, "images"_a = py::none(), "out"_a = py::none(),
               "element_bytes"_a = 1, "in_place"_a = false, "labels"_a = py::none(), "targets"_a = py::none(),
               "num_classes"_a = 0, "label_smoothing"_a = 0.0, "dtype"_a = "",
               "fill"_a = std::pair<int64_t, int64_t>(0, 0),
               "The kernel, grid, block and parameter bytes of the one launch that serves a call.");
    module.def("quotient", [](int64_t divisor, const py::array_t<uint32_t>& n) {
        return py::vectorize([by = divider(divisor)](uint32_t n) { return by.quotient(n); })(n);
    });
}

using PatchDrawArgs = std::tuple<uint64_t, Bounds, Options>;  // address of the quantiles, then as in the schemas
using MaskArgs = std::tuple<uint64_t, Shape, bool>;           // address, four sizes, whether they are floats

py::dict patch_geometry_of(int32_t samples, int32_t patches, int32_t batch, int32_t others, int32_t height,
                           int32_t width, uint64_t rows, uint64_t sources, const std::optional<PatchDrawArgs>& draw,
                           uint64_t seed, uint64_t device_seed, const std::optional<MaskArgs>& masks, uint64_t weights,
                           const std::optional<TensorArgs>& images, const std::optional<TensorArgs>& other_images,
                           const std::optional<TensorArgs>& out, int64_t element_bytes, const std::string& dtype,
                           bool in_place, std::pair<int64_t, int64_t> fill, const std::optional<LabelArgs>& labels,
                           const std::optional<LabelArgs>& targets, uint64_t other_labels, int32_t num_classes,
                           double label_smoothing) {
    PatchCall call = {};
    call.samples = samples;
    call.patches = patches;
    call.batch = batch;
    call.others = others;
    call.height = height;
    call.width = width;
    call.seed = seed;
    call.device_seed = at<const int64_t>(device_seed);
    if (draw) {
        const auto& [quantiles, bounds, sampling] = *draw;
        call.sampled_rows = at<PlanRow>(rows);
        call.sampled_sources = at<Box>(sources);
        if (bounds.size() != kPatchMethods) throw std::invalid_argument("a bound for each method");
        std::copy(bounds.begin(), bounds.end(), call.draw.bounds);
        call.draw.kinds = draw_of(at<const float>(quantiles), Bounds(bounds.begin(), bounds.begin() + kKinds),
                                  {sampling.at(0), sampling.at(1), sampling.at(2), 1}, height, width);
        call.draw.holes = static_cast<int32_t>(sampling.at(3));
    } else {
        call.rows = at<const PlanRow>(rows);
        call.sources = at<const Box>(sources);
    }
    if (masks) {
        const auto& [address, sizes, soft] = *masks;
        call.masks = {at<const void>(address),
                      static_cast<int32_t>(sizes.at(0)),
                      static_cast<int32_t>(sizes.at(2)),
                      static_cast<int32_t>(sizes.at(3)),
                      soft,
                      static_cast<int32_t>(sizes.at(1))};
    }
    call.weights = at<const float>(weights);
    call.can_blend = !images || can_blend(dtype_named(dtype));
    if (images && out) {
        call.images = images_of(*images, *out, element_bytes, in_place, dtype, fill);
        const auto& [_, image_sizes, image_strides] = *images;
        call.channel_place = channel_place(static_cast<int64_t>(image_sizes.size()), image_sizes.data(),
                                           image_strides.data(), element_bytes, call.images.in_rows);
        if (other_images) {
            call.other_images = at<const uint8_t>(std::get<0>(*other_images));
            call.other_rows = rows_or_throw(*other_images, element_bytes);
        }
    }
    if (labels && targets) call.targets = targets_of(*labels, *targets, num_classes, label_smoothing);
    call.other_labels = at<const void>(other_labels);
    const PatchLaunch launch = patch_geometry(call);
    return launched(launch, "fits"_a = !call.images.out || fits_patch_launch(call));
}

void bind_patch_geometry(py::module_& module) {
    module.def("patch_geometry", &patch_geometry_of, py::kw_only(), "samples"_a, "patches"_a, "batch"_a, "others"_a = 0,
               "height"_a, "width"_a, "rows"_a, "sources"_a = 0, "draw"_a = py::none(), "seed"_a = 0,
               "device_seed"_a = 0, "masks"_a = py::none(), "weights"_a = 0, "images"_a = py::none(),
               "other_images"_a = py::none(), "out"_a = py::none(), "element_bytes"_a = 1, "dtype"_a = "",
               "in_place"_a = false, "fill"_a = std::pair<int64_t, int64_t>(0, 0), "labels"_a = py::none(),
               "targets"_a = py::none(), "other_labels"_a = 0, "num_classes"_a = 0, "label_smoothing"_a = 0.0,
               "The same of a call of several patches a sample.");
}

}  // namespace
}  // namespace cutmix

PYBIND11_MODULE(bindings, module) {
    cutmix::bind_mix_math(module);
    cutmix::bind_rows(module);
    cutmix::bind_values(module);
    cutmix::bind_views(module);
    cutmix::bind_launch_geometry(module);
    cutmix::bind_augment_geometry(module);
    cutmix::bind_patch_geometry(module);
    cutmix::bind_adjoint_geometry(module);
}
