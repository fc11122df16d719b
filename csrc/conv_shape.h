// ConvShape: every number of one 2-d convolution, and every formula that turns one index
// into another. Host and device share this file; nowhere else is such a formula written.
//
// A convolution is a sum over taps. Forward, output pixel (oh, ow) reads input pixel
//     ih = oh * stride_h - padding_h + kh * dilation_h            (the same for w).
// The mirrored direction (grad_input, transposed convolution) inverts that line: input row ih
// receives from output row oh = (ih + padding_h - kh * dilation_h) / stride_h where this
// divides evenly. Rows with the same ih mod stride_h share their taps: they form a *phase*, and
// inside a phase the map is linear again, with step 1. So both directions are one `GatherAxis`.
#pragma once

#include <cstdint>
#include <string>

#if defined(__CUDACC__)
#define PYDENOISE_HOST_DEVICE __host__ __device__
#else
#define PYDENOISE_HOST_DEVICE
#endif

namespace pydenoise {

// Always seen from the forward convolution. out_h and out_w are stored, not derived: a
// transposed convolution with output_padding fixes both sides, and then
// 1 <= out_h <= extent(in_h, ...).
struct ConvShape {
  int64_t batch, groups;
  int64_t in_channels, in_h, in_w;
  int64_t out_channels, out_h, out_w;
  int64_t kernel_h, kernel_w;
  int64_t stride_h, stride_w;
  int64_t padding_h, padding_w;
  int64_t dilation_h, dilation_w;

  PYDENOISE_HOST_DEVICE int64_t taps() const { return kernel_h * kernel_w; }
  PYDENOISE_HOST_DEVICE int64_t group_in_channels() const { return in_channels / groups; }
  PYDENOISE_HOST_DEVICE int64_t group_out_channels() const { return out_channels / groups; }
  PYDENOISE_HOST_DEVICE int64_t out_pixels() const { return out_h * out_w; }
};

// Positions of a kernel along one side.
PYDENOISE_HOST_DEVICE inline int64_t extent(int64_t size, int64_t kernel, int64_t stride,
                                            int64_t padding, int64_t dilation) {
  return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
}

// One side of a gather: position j of the destination reads, through tap t, source index
//     j * step + t * tap_step + offset        where 0 <= that < source_size, and zero elsewhere;
// tap t is the kernel's own index first_tap + t * tap_stride. Destination position j is index
// dest_first + j * dest_step of its picture.
struct GatherAxis {
  int64_t count;                   // destination positions
  int64_t taps;                    // taps that reach them
  int64_t step, tap_step, offset;  // the linear map
  int64_t source_size;
  int64_t first_tap, tap_stride;  // tap -> kernel index
  int64_t dest_first, dest_step;  // position -> index in the destination picture

  PYDENOISE_HOST_DEVICE int64_t source(int64_t position, int64_t tap) const {
    return position * step + tap * tap_step + offset;
  }
  PYDENOISE_HOST_DEVICE bool inside(int64_t source_index) const {
    return static_cast<uint64_t>(source_index) < static_cast<uint64_t>(source_size);
  }
  PYDENOISE_HOST_DEVICE int64_t kernel_index(int64_t tap) const {
    return first_tap + tap * tap_stride;
  }
  PYDENOISE_HOST_DEVICE int64_t dest(int64_t position) const {
    return dest_first + position * dest_step;
  }
};

// Forward: destination is the output, source the input.
PYDENOISE_HOST_DEVICE inline GatherAxis forward_axis(int64_t in_size, int64_t out_size,
                                                     int64_t kernel, int64_t stride,
                                                     int64_t padding, int64_t dilation) {
  return {out_size, kernel, stride, dilation, -padding, in_size, 0, 1, 0, 1};
}

PYDENOISE_HOST_DEVICE inline int64_t greatest_common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// Mirrored: destination is the input, source the output; the positions with index mod stride ==
// phase. Tap k reaches the phase where (phase + padding - k * dilation) mod stride == 0: none, or
// every (stride / gcd(stride, dilation))-th k from the first.
PYDENOISE_HOST_DEVICE inline GatherAxis mirrored_axis(int64_t in_size, int64_t out_size,
                                                      int64_t kernel, int64_t stride,
                                                      int64_t padding, int64_t dilation,
                                                      int64_t phase) {
  const int64_t count = phase < in_size ? (in_size - phase + stride - 1) / stride : 0;
  const int64_t tap_stride = stride / greatest_common_divisor(stride, dilation);
  int64_t first = 0;
  while (first < kernel && first < tap_stride &&
         (phase + padding - first * dilation) % stride != 0) {
    ++first;
  }
  const bool reached = first < kernel && first < tap_stride;
  const int64_t taps = reached ? (kernel - first + tap_stride - 1) / tap_stride : 0;
  const int64_t offset = reached ? (phase + padding - first * dilation) / stride : 0;
  return {count,      taps,  1,     -(tap_stride * dilation) / stride, offset, out_size, first,
          tap_stride, phase, stride};
}

// The same gather with its taps in the order of the source: what they read may then be one run.
PYDENOISE_HOST_DEVICE inline GatherAxis in_source_order(GatherAxis a) {
  if (a.tap_step < 0) {
    a.offset += (a.taps - 1) * a.tap_step;
    a.first_tap += (a.taps - 1) * a.tap_stride;
    a.tap_step = -a.tap_step;
    a.tap_stride = -a.tap_stride;
  }
  return a;
}

// Positions [begin, end) of `count` whose source index first + i * step lies in [0, size).
struct InsideRun {
  int64_t begin, end;
};
PYDENOISE_HOST_DEVICE inline InsideRun inside_run(int64_t first, int64_t step, int64_t size,
                                                  int64_t count) {
  const auto positions = [step](int64_t distance) {  // a division costs as much as a short run
    return step == 1 ? distance : (step == 2 ? (distance + 1) >> 1 : (distance + step - 1) / step);
  };
  int64_t begin = first >= 0 ? 0 : positions(-first);
  int64_t end = first >= size ? 0 : positions(size - first);
  begin = begin < count ? begin : count;
  end = end < count ? end : count;
  return {begin, end > begin ? end : begin};
}

PYDENOISE_HOST_DEVICE inline GatherAxis forward_rows(const ConvShape& s) {
  return forward_axis(s.in_h, s.out_h, s.kernel_h, s.stride_h, s.padding_h, s.dilation_h);
}
PYDENOISE_HOST_DEVICE inline GatherAxis forward_cols(const ConvShape& s) {
  return forward_axis(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.padding_w, s.dilation_w);
}
PYDENOISE_HOST_DEVICE inline GatherAxis mirrored_rows(const ConvShape& s, int64_t phase) {
  return mirrored_axis(s.in_h, s.out_h, s.kernel_h, s.stride_h, s.padding_h, s.dilation_h, phase);
}
PYDENOISE_HOST_DEVICE inline GatherAxis mirrored_cols(const ConvShape& s, int64_t phase) {
  return mirrored_axis(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.padding_w, s.dilation_w, phase);
}

// "conv 16x3x32x32 -> 48x16x16, kernel 3x3, stride 2x2, padding 1x1, dilation 1x1, groups 1"
std::string to_string(const ConvShape& shape);

// Empty when the shape is one that the kernels may run; otherwise the sentence that says why not.
std::string why_invalid(const ConvShape& shape);

}  // namespace pydenoise
