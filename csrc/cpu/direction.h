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
        dest_w(is_mirrored ? s.in_w : s.out_w) {
    for (int64_t i = 0; i < smaller(kKept, phases_h); ++i) kept_rows[i] = make_rows(i);
    for (int64_t j = 0; j < smaller(kKept, phases_w); ++j) kept_cols[j] = make_cols(j);
  }

  int64_t phases() const { return phases_h * phases_w; }
  GatherAxis rows(int64_t phase) const {
    const int64_t i = phase / phases_w;
    return i < kKept ? kept_rows[i] : make_rows(i);
  }
  GatherAxis cols(int64_t phase) const {
    const int64_t j = phase % phases_w;
    return j < kKept ? kept_cols[j] : make_cols(j);
  }
  // body(rows, cols, terms of all phases before), phase by phase
  template <class Body>
  void for_each_phase(const Body& body) const {
    int64_t terms_before = 0;
    for (int64_t phase = 0; phase < phases(); ++phase) {
      const GatherAxis of_rows = rows(phase), of_cols = cols(phase);
      body(of_rows, of_cols, terms_before);
      terms_before += of_rows.taps * of_cols.taps * source_channels;
    }
  }
  int64_t all_terms() const { return source_channels * shape.taps(); }

 private:
  static constexpr int64_t kKept = 8;  // axes worked out once; those of large strides when asked

  GatherAxis make_rows(int64_t i) const {
    return mirrored ? in_source_order(mirrored_rows(shape, i)) : forward_rows(shape);
  }
  GatherAxis make_cols(int64_t j) const {
    return mirrored ? in_source_order(mirrored_cols(shape, j)) : forward_cols(shape);
  }

  GatherAxis kept_rows[kKept], kept_cols[kKept];
};

}  // namespace pydenoise::cpu
