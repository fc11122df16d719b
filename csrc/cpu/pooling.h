// Max pooling and nearest upsampling, forward and backward.
//
// Destination first, overwritten; nothing overlaps. All images of a call lie in one memory format,
// dense. Rows are independent of each other, and what is summed is summed in row order, so results
// do not depend on the number of threads.
#pragma once

#include <cstdint>

namespace pydenoise::cpu {

// The pictures of a call: `batch` of `channels` planes each.
struct Planes {
  int64_t batch, channels;
  bool channels_last;
};
struct Size {
  int64_t height, width;
};
struct PoolWindow {
  Size kernel, stride, padding;
};

// out[y, x] = the largest element under the window at (y, x), indices[y, x] = its row * width +
// column: the first of equal ones, a NaN before any number. Every window has a pixel of the picture
// under it.
template <class T>
void max_pool2d(T* out, int64_t* indices, const T* input, const Planes& planes, Size out_size,
                Size in_size, const PoolWindow& window);
// grad_input[indices[y, x]] += grad_output[y, x], from 0; false, with the rest undefined, where an
// index lies outside the picture
template <class T>
bool max_pool2d_backward(T* grad_input, const T* grad_output, const int64_t* indices,
                         const Planes& planes, Size out_size, Size in_size);

// out[y, x] = input[y / factor.height, x / factor.width]
template <class T>
void upsample_nearest2d(T* out, const T* input, const Planes& planes, Size in_size, Size factor);
// grad_input[y, x] = the sum of grad_output over the block of (y, x)
template <class T>
void upsample_nearest2d_backward(T* grad_input, const T* grad_output, const Planes& planes,
                                 Size in_size, Size factor);

}  // namespace pydenoise::cpu
