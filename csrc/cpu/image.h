// ImageView: a batch of pictures in memory, in either of torch's formats. Four strides say where
// element (n, c, h, w) lies; kernels look at stride_c and stride_w only to pick the loop order.
#pragma once

#include <cstdint>

namespace pydenoise::cpu {

template <class T>
struct ImageView {
  T* data;
  int64_t stride_n, stride_c, stride_h, stride_w;  // in elements

  T* at(int64_t n, int64_t c) const { return data + n * stride_n + c * stride_c; }
};

// Dense (N, C, H, W): channels_last keeps the channels of one pixel together.
template <class T>
ImageView<T> dense_image(T* data, int64_t channels, int64_t height, int64_t width,
                         bool channels_last) {
  const int64_t picture = channels * height * width;
  if (channels_last) return {data, picture, 1, width * channels, channels};
  return {data, picture, height * width, width, 1};
}

}  // namespace pydenoise::cpu
