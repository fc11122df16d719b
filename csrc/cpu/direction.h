// One direction of a convolution, seen from the pictures it writes: forward, or mirrored
// (grad_input, transposed convolution) with one phase for each remainder by the strides.
#pragma once

#include "conv_shape.h"
#include "cpu/integers.h"

namespace pydenoise::cpu {

struct Direction {
  const ConvShape& shape;
  bool mirrored;
  int64_t source_channels, dest_channels;            // of one group
  int64_t weight_dest_stride, weight_source_stride;  // element (dest, source, tap) of the weights
  int64_t phases_h, phases_w;
  int64_t dest_h, dest_w;

  Direction(const ConvShape& s, bool is_mirrored)
      : shape(s),
        mirrored(is_mirrored),
        source_channels(is_mirrored ? s.group_out_channels() : s.group_in_channels()),
        dest_channels(is_mirrored ? s.group_in_channels() : s.group_out_channels()),
        weight_dest_stride(is_mirrored ? s.taps() : s.group_in_channels() * s.taps()),
        weight_source_stride(is_mirrored ? s.group_in_channels() * s.taps() : s.taps()),
        phases_h(is_mirrored ? smaller(s.stride_h, s.in_h) : 1),
        phases_w(is_mirrored ? smaller(s.stride_w, s.in_w) : 1),
        dest_h(is_mirrored ? s.in_h : s.out_h),
        dest_w(is_mirrored ? s.in_w : s.out_w) {}

  int64_t phases() const { return phases_h * phases_w; }
  GatherAxis rows(int64_t phase) const {
    return mirrored ? in_source_order(mirrored_rows(shape, phase / phases_w)) : forward_rows(shape);
  }
  GatherAxis cols(int64_t phase) const {
    return mirrored ? in_source_order(mirrored_cols(shape, phase % phases_w)) : forward_cols(shape);
  }
  int64_t terms(int64_t phase) const {
    return rows(phase).taps * cols(phase).taps * source_channels;
  }
  // Terms of all phases before this one: rows of phases first, then the phases of the same row.
  int64_t terms_before(int64_t phase) const {
    const int64_t row = phase / phases_w, col = phase % phases_w;
    int64_t row_taps = 0, col_taps = 0, col_taps_of_all = 0;
    for (int64_t i = 0; i < row; ++i) row_taps += rows(i * phases_w).taps;
    for (int64_t j = 0; j < phases_w; ++j) {
      const int64_t taps = cols(j).taps;
      col_taps += j < col ? taps : 0;
      col_taps_of_all += taps;
    }
    return (row_taps * col_taps_of_all + rows(phase).taps * col_taps) * source_channels;
  }
  int64_t all_terms() const { return source_channels * shape.taps(); }
};

}  // namespace pydenoise::cpu
