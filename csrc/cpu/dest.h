// Where a convolution writes: channels together, in the picture itself where they lie so there, or
// else in a buffer that is then transposed into it.
#pragma once

#include "cpu/direction.h"
#include "cpu/image.h"
#include "cpu/transpose.h"

namespace pydenoise::cpu {

// The destination rows of one band and group: pixel (row, col) at
// data + row * row_pitch + col * pixel_pitch. `output` is the same pixel of Finish::output, or
// null.
template <class T>
struct DestBand {
  T* data;
  const T* output;
  int64_t row_pitch, pixel_pitch;

  int64_t offset(int64_t row, int64_t col) const { return row * row_pitch + col * pixel_pitch; }
};

template <class T>
class Dest {
 public:
  Dest(ImageView<T> image, ImageView<const T> output, const Direction& direction)
      : image_(image),
        output_(output),
        direction_(direction),
        step_(direction.rows(0).dest_step),
        in_place_(image.stride_c == 1 || direction.dest_channels == 1) {}

  static int64_t buffer_size(const Direction& d, int64_t positions) {
    const int64_t row = bounded_product(d.dest_w, d.dest_channels);
    return bounded_product(positions * d.rows(0).dest_step, row);
  }

  DestBand<T> band(T* buffer, int64_t picture, int64_t group, int64_t y0) const {
    const int64_t channels = direction_.dest_channels;
    if (!in_place_) return {buffer, nullptr, direction_.dest_w * channels, channels};
    T* const data = first_row(picture, group, y0);
    const T* output = output_.data == nullptr ? nullptr : output_.data + (data - image_.data);
    return {data, output, image_.stride_h, image_.stride_w};
  }

  // Positions [y0, y1) of the band are written.
  void finish(const T* buffer, int64_t picture, int64_t group, int64_t y0, int64_t y1) const {
    if (in_place_) return;
    const int64_t channels = direction_.dest_channels, width = direction_.dest_w;
    T* const to = first_row(picture, group, y0);
    const int64_t rows = smaller(direction_.dest_h - y0 * step_, (y1 - y0) * step_);
    for (int64_t row = 0; row < rows; ++row) {
      transpose(to + row * image_.stride_h, image_.stride_c, buffer + row * width * channels,
                channels, width, channels);
    }
  }

 private:
  T* first_row(int64_t picture, int64_t group, int64_t y0) const {
    return image_.at(picture, group * direction_.dest_channels) + y0 * step_ * image_.stride_h;
  }

  ImageView<T> image_;
  ImageView<const T> output_;
  const Direction& direction_;
  int64_t step_;
  bool in_place_;
};

}  // namespace pydenoise::cpu
