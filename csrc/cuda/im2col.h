// Explicit im2col and col2im, the report's u(x) and f(.), on a GPU.
//
// columns: dense (batch, in_channels * kernel_h * kernel_w, out_h * out_w). Pictures are dense, in
// either memory format. Destination overwritten. Callers have checked the shape; groups plays no
// part. The same bits as the CPU's.
#pragma once

#include "conv_shape.h"
#include "cuda/conv2d.h"

namespace pydenoise::cuda {

// columns[n, (c, i, j), (y, x)] = input at that tap, zero outside the picture
template <class T>
Status im2col(T* columns, Pictures<const T> input, const ConvShape& shape, cudaStream_t stream);

// output[n, c, y, x] = sum of all columns that im2col fills from it; taps are added row by row
template <class T>
Status col2im(Pictures<T> output, const T* columns, const ConvShape& shape, cudaStream_t stream);

}  // namespace pydenoise::cuda
