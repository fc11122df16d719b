// Explicit im2col and col2im, the report's u(x) and f(.): one of the two ways to convolve, and the
// faster where a strided gradient has few channels.
//
// columns: dense (batch, in_channels * kernel_h * kernel_w, out_h * out_w). Pictures may be in
// either memory format. Destination overwritten (col2im does not add to what was there), past the
// caches where there is more than they hold. Callers have checked the shape; groups plays no part.
#pragma once

#include "conv_shape.h"
#include "cpu/image.h"

namespace pydenoise::cpu {

// columns[n, (c, i, j), (y, x)] = input at that tap, zero outside the picture
template <class T>
void im2col(T* columns, ImageView<const T> input, const ConvShape& shape);

// output[n, c, y, x] = sum of all columns that im2col fills from it; taps are added row by row
template <class T>
void col2im(ImageView<T> output, const T* columns, const ConvShape& shape);

}  // namespace pydenoise::cpu
