// All index arithmetic of the kernels: where GEMM row m and GEMM step k of a convolution lie in its
// pictures. Made on the host from the GatherAxis of conv_shape.h; worked out on the device, by
// functions that the host may call too.
//
// A row is a position of the destination, a step a term (tap, channel), or for grad_weight the
// other way round. Either is three digits of one index, and everything asked about it is linear in
// the digits: so a `Line` holds where the index 0 lies and how far each digit moves, and the source
// of (m, k) is simply the sum of two places.
#pragma once

#include <cstdint>

#include "conv_shape.h"

namespace pydenoise::cuda {

// Indices are 32 bits wide in kernels; why_too_large says no to what does not fit. Sums of offsets
// may wrap around on their way, so they are unsigned.
struct alignas(16) Place {
  uint32_t source;   // elements from the start of the source
  int32_t row, col;  // in the source's picture: outside is zero
  uint32_t other;    // elements from the start of what is not gathered: dest or weight
};

PYDENOISE_HOST_DEVICE inline Place operator+(const Place& a, const Place& b) {
  return {a.source + b.source, a.row + b.row, a.col + b.col, a.other + b.other};
}
PYDENOISE_HOST_DEVICE inline Place operator*(int32_t digit, const Place& step) {
  const auto times = static_cast<uint32_t>(digit);
  return {times * step.source, digit * step.row, digit * step.col, times * step.other};
}

// Where indices past the end lie: outside every picture, with any other place added.
constexpr int32_t kNowhere = -(1 << 30);
constexpr int64_t kMostReach = int64_t{1} << 29;  // of a row or column, padding included
// A last tile or part may end beyond the last index.
constexpr int64_t kMostElements = INT32_MAX - (1 << 16);

PYDENOISE_HOST_DEVICE inline bool inside(const Place& place, int32_t height, int32_t width) {
  return static_cast<uint32_t>(place.row) < static_cast<uint32_t>(height) &&
         static_cast<uint32_t>(place.col) < static_cast<uint32_t>(width);
}

// Division by a number known beforehand as a product and a shift: of dividends below 2^31.
// T. Granlund, P. Montgomery, "Division by invariant integers using multiplication", PLDI 1994.
struct Divisor {
  uint32_t by = 1, factor = (1u << 31) + 1, shift = 31;
};
inline Divisor divisor(uint32_t by) {
  if (by == 0) return {};  // of a line without indices
  uint32_t digits = 0;
  while (uint64_t{1} << digits < by) ++digits;
  return {by, static_cast<uint32_t>((uint64_t{1} << (31 + digits)) / by + 1), 31 + digits};
}
PYDENOISE_HOST_DEVICE inline uint32_t quotient(uint32_t dividend, const Divisor& divisor) {
  return static_cast<uint32_t>(uint64_t{dividend} * divisor.factor >> divisor.shift);
}

// index = (first digit * middle + second digit) * last + third digit
struct Line {
  int32_t count;
  Divisor middle, last;
  Place start, step[3];
};

// Indices from `end` on are nowhere; end <= line.count.
PYDENOISE_HOST_DEVICE inline Place place_of(const Line& line, int32_t index, int32_t end) {
  if (index >= end) return {0, kNowhere, 0, 0};
  const auto all = static_cast<uint32_t>(index);
  const uint32_t rest = quotient(all, line.last), first = quotient(rest, line.middle);
  return line.start + static_cast<int32_t>(first) * line.step[0] +
         static_cast<int32_t>(rest - first * line.middle.by) * line.step[1] +
         static_cast<int32_t>(all - rest * line.last.by) * line.step[2];
}

// Rows m and steps k of one product.
struct Phase {
  Line rows, steps;
};

// A dense batch of pictures in either memory format: elements from one to the next.
struct Strides {
  int64_t n, c, h, w;
};
inline Strides dense_strides(int64_t channels, int64_t height, int64_t width, bool channels_last) {
  const int64_t picture = channels * height * width;
  if (channels_last) return {picture, 1, width * channels, channels};
  return {picture, height * width, width, 1};
}

// A convolution's direction, forward or mirrored, as products: out[m, n] sums left(m, k) right(k,
// n). Weights lie as (out channel, in channel, tap), or packed: (group, tap, source channel, dest
// channel), so that what a step multiplies lies side by side.
struct Direction {
  const ConvShape& shape;
  bool mirrored;
  Strides source, dest;
  bool packed = false;

  int64_t source_channels() const {
    return mirrored ? shape.group_out_channels() : shape.group_in_channels();
  }
  int64_t dest_channels() const {
    return mirrored ? shape.group_in_channels() : shape.group_out_channels();
  }
  int64_t weight_source_stride() const {
    if (packed) return dest_channels();
    return mirrored ? shape.group_in_channels() * shape.taps() : shape.taps();
  }
  int64_t weight_dest_stride() const {
    if (packed) return 1;
    return mirrored ? shape.taps() : shape.group_in_channels() * shape.taps();
  }
  int64_t weight_tap_stride() const { return packed ? source_channels() * dest_channels() : 1; }
  int64_t phases_h() const;
  int64_t phases_w() const;
  GatherAxis rows(int64_t phase) const;  // of phases_h() * phases_w(); taps in the source's order
  GatherAxis cols(int64_t phase) const;
};

// Where packed weights lie in the layers' order: (group, tap, source, dest) to (out, in, tap).
struct Unpacked {
  Divisor dest, source, taps;
  uint32_t group, source_stride, dest_stride;
};
Unpacked unpacked(const Direction& direction);
PYDENOISE_HOST_DEVICE inline uint32_t unpacked_index(const Unpacked& u, uint32_t packed) {
  const uint32_t rest = quotient(packed, u.dest), above = quotient(rest, u.source);
  const uint32_t group = quotient(above, u.taps);
  return group * u.group + (packed - rest * u.dest.by) * u.dest_stride +
         (rest - above * u.source.by) * u.source_stride + (above - group * u.taps.by);
}

// Destination positions (picture, y, x) of one phase; `other` is the element of dest.
Line positions_of(const GatherAxis& rows, const GatherAxis& cols, int64_t batch,
                  const Strides& source, const Strides& dest);
// Terms (tap row, tap column, channel); `other` is the element of the weights, whose h and w are
// the strides of taps.
Line terms_of(const GatherAxis& rows, const GatherAxis& cols, int64_t channels,
              const Strides& source, const Strides& weight);
// Rows are positions, steps terms.
Phase phase_of(const Direction& direction, int64_t phase);

// im2col: rows are positions and steps (channel, tap row, tap column); `other` adds up to the
// element of columns.
Phase im2col_phase(const ConvShape& shape, const Strides& input);
// col2im: rows are positions of one channel's pixels, `other` is the element of the output; steps
// are the taps that reach them in the kernel's order; `source` adds up to the element of columns.
Phase col2im_phase(const ConvShape& shape, const Strides& output, int64_t phase);

// Rows of left, steps along both, of plain matrices of these strides.
Phase matrix_phase(int64_t rows, int64_t left_row, int64_t out_row, int64_t steps,
                   int64_t left_step, int64_t right_step);

// Empty when 32 bits hold every index of the shape, otherwise the sentence that says why not.
// `columns` where the patch matrix is stored.
const char* why_too_large(const ConvShape& shape, bool columns);

}  // namespace pydenoise::cuda
