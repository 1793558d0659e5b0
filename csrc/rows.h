// A batch of images as rows: the view in which every layout is the same.
//
// A row is one line of pixels, dense in memory. NCHW has channels * height rows a sample and a pixel of one element;
// channels-last has height rows and a pixel of all channels. Video, volumes and masks are rows as well. Mixing is one
// loop for all: copy the row, with the middle run from the partner.
//
//   NCHW           sample: | slice 0: row 0, row 1, ... | slice 1: row 0, ... |     pixel = 1 element
//   channels-last  sample: | row 0, row 1, ...                                |     pixel = C elements
//
// Mirrored by triton_kernels/rows.py::rows_of.
#pragma once

#include <algorithm>
#include <cstdint>

namespace cutmix {

struct Rows {
    int64_t batch;                                    // samples
    int64_t slices;                                   // planes of height rows in a sample
    int64_t height;                                   // rows in a slice
    int64_t width;                                    // pixels in a row
    int64_t pixel_bytes;                              // bytes in a pixel
    int64_t sample_stride, slice_stride, row_stride;  // in bytes

    int64_t row_bytes() const { return width * pixel_bytes; }
    int64_t all_bytes() const { return batch * slices * height * row_bytes(); }
    bool empty() const { return all_bytes() == 0; }
    // Whether a sample is one run of bytes without a gap.
    bool dense() const {
        return (height == 1 || row_stride == row_bytes()) && (slices == 1 || slice_stride == height * row_bytes());
    }
    bool same_shape(const Rows& other) const {
        return batch == other.batch && slices == other.slices && height == other.height && width == other.width &&
               pixel_bytes == other.pixel_bytes;
    }
};

constexpr int64_t kMaxImageDims = 8;

// Sees a tensor (batch, ..., height, width) of at least three dimensions as rows; false where its rows are not dense,
// or its slices not evenly spaced: then it has to be made contiguous first. Sizes and strides in elements.
inline bool rows_of(int64_t dims, const int64_t* sizes, const int64_t* strides, int64_t element_bytes, Rows* rows) {
    if (dims < 3 || dims > kMaxImageDims) return false;
    const int64_t height = sizes[dims - 2], width = sizes[dims - 1];
    *rows = {sizes[0], 1, height, width, element_bytes, 0, 0, 0};
    if (std::find(sizes, sizes + dims, 0) != sizes + dims) {
        rows->slices = 0;
        return true;
    }

    // The dimensions between batch and height, innermost first.
    int64_t inner[kMaxImageDims], inner_count = 0;
    for (int64_t dim = dims - 3; dim >= 1; --dim)
        if (sizes[dim] != 1) inner[inner_count++] = dim;
    std::stable_sort(inner, inner + inner_count, [&](int64_t a, int64_t b) { return strides[a] < strides[b]; });

    // Those packed below the width belong to the pixel.
    int64_t pixel = 1, next = 0;
    while (next < inner_count && strides[inner[next]] == pixel && width > 1 && pixel < strides[dims - 1])
        pixel *= sizes[inner[next++]];
    if (width > 1 && strides[dims - 1] != pixel) return false;

    // The others are slices, and have to collapse to one stride.
    int64_t slices = 1, slice_stride = 0;
    for (; next < inner_count; ++next) {
        const int64_t dim = inner[next];
        if (slices == 1)
            slice_stride = strides[dim];
        else if (strides[dim] != slices * slice_stride)
            return false;
        slices *= sizes[dim];
    }
    rows->slices = slices;
    rows->pixel_bytes = pixel * element_bytes;
    rows->sample_stride = strides[0] * element_bytes;
    rows->slice_stride = slice_stride * element_bytes;
    rows->row_stride = strides[dims - 2] * element_bytes;
    return true;
}

// Where the second dimension of a tensor is among its rows: the index in it of what is in a slice is slice / step, or,
// of what is at a byte of a pixel that holds the dimension, byte / step; modulo its size.
struct ChannelPlace {
    bool in_pixel;
    int64_t step;
};

inline ChannelPlace channel_place(int64_t dims, const int64_t* sizes, const int64_t* strides, int64_t element_bytes,
                                  const Rows& rows) {
    int64_t inside = 1;  // of what lies inside of it, in the order of rows_of
    for (int64_t dim = 2; dim < dims - 2; ++dim)
        if (sizes[dim] != 1 && strides[dim] <= strides[1]) inside *= sizes[dim];
    const int64_t pixel = rows.pixel_bytes / element_bytes;
    if (inside * sizes[1] <= pixel) return {true, inside * element_bytes};
    return {false, std::max<int64_t>(inside / pixel, 1)};
}

// Whether the dimensions between batch and height follow each other in memory in the same order in two tensors of these
// sizes. Rows of one shape match slice by slice and byte by byte only then: a transposed video has the same shape.
inline bool same_order(int64_t dims, const int64_t* sizes, const int64_t* strides, const int64_t* other) {
    for (int64_t a = 1; a < dims - 2; ++a)
        for (int64_t b = a + 1; b < dims - 2; ++b)
            if (sizes[a] != 1 && sizes[b] != 1 && (strides[a] < strides[b]) != (other[a] < other[b])) return false;
    return true;
}

}  // namespace cutmix
