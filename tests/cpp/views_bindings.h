// views.h as functions on numpy arrays: a part of bindings.cpp.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <vector>

#include "views.h"

namespace cutmix {

// As _ops.py::sample_views, on the calling thread: tables of (tables, 4097), parameters and choices in their
// order there.
inline pybind11::array_t<int32_t> bound_sample_views(
    uint64_t seed, int32_t batch, int32_t height, int32_t width,
    const pybind11::array_t<float, pybind11::array::c_style | pybind11::array::forcecast>& tables,
    const std::vector<double>& parameters, const std::vector<int64_t>& choices) {
    if (parameters.size() != kViewParameters || choices.size() != kViewChoices || tables.size() < kKnots)
        throw std::invalid_argument("12 parameters, 6 choices and a table of 4097 knots");
    const ViewSampling sampling =
        view_sampling(tables.data(), nullptr, height, width, parameters.data(), choices.data());
    const int32_t colour_rows = sampling.coloured ? kColourRows : 0, rows = 1 + sampling.max_boxes + colour_rows;
    pybind11::array_t<int32_t> views({pybind11::ssize_t{batch}, pybind11::ssize_t{rows}, pybind11::ssize_t{4}});
    for (int32_t i = 0; i < batch; ++i) {
        const Geometry geometry = sample_geometry(sampling, seed, static_cast<uint32_t>(i));
        std::memcpy(views.mutable_data(i, 0, 0), &geometry, sizeof geometry);
        const int32_t count = sample_box_count(sampling, seed, static_cast<uint32_t>(i));
        for (int32_t number = 0; number < sampling.max_boxes; ++number) {
            const Box box = sample_box(sampling, seed, static_cast<uint32_t>(i), number, count);
            std::memcpy(views.mutable_data(i, 1 + number, 0), &box, sizeof box);
        }
        for (int32_t row = 0; row < colour_rows; ++row) {
            const ColourRow colour = sample_colour(sampling, seed, static_cast<uint32_t>(i), row);
            std::memcpy(views.mutable_data(i, 1 + sampling.max_boxes + row, 0), &colour, sizeof colour);
        }
    }
    return views;
}

inline void bind_views(pybind11::module_& module) {
    using pybind11::vectorize;
    module.def("philox_at",
               vectorize([](uint64_t seed, uint32_t index, uint32_t stream, uint32_t position, uint32_t group,
                            int32_t word) { return philox(seed, index, stream, position, group).word[word & 3]; }));
    module.def("source_y", vectorize([](int32_t dy, int32_t y) { return source_y({0, dy, 0, 0}, y); }));
    module.def("source_x", vectorize([](int32_t flip, int32_t dx, int32_t x, int32_t width) {
                   return source_x({flip, 0, dx, 0}, x, width);
               }));
    module.def("nearest_int", vectorize(nearest_int));
    module.def("offset_within", vectorize(offset_within));
    module.def("sample_views", &bound_sample_views);
    module.def("valid_view", vectorize([](int32_t flip, int32_t dy, int32_t dx, int32_t height, int32_t width) {
                   return valid_geometry({flip, dy, dx, 0}, height, width);
               }));
    module.def("valid_box", vectorize([](int32_t y0, int32_t x0, int32_t y1, int32_t x1, int32_t height,
                                         int32_t width) { return valid_box({y0, x0, y1, x1}, height, width); }));
    module.def("coloured_value", vectorize([](float of_red, float of_green, float of_blue, float offset, float red,
                                              float green, float blue, float white) {
                   return coloured_value({of_red, of_green, of_blue, offset}, red, green, blue, white);
               }));
    module.def("normalized", vectorize(normalized));
    module.def("byte_sum", vectorize(byte_sum));
    module.def("noise_of", vectorize(noise_of));
    module.def("noise", vectorize(noise));
}

}  // namespace cutmix
