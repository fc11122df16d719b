// What Winograd's convolutions (winograd.cpp) and weight gradients (winograd_grad_weight.cpp)
// share.
#pragma once

#include "cpu/direction.h"

namespace pydenoise::cpu {

constexpr int64_t kWinogradTaps = 9;
constexpr int64_t kWinogradBlock = int64_t{3} << 15;  // elements of transformed tiles: in the cache

// The shape with the destination's sides rounded up to whole tiles of `side` positions. Of the
// source it keeps what the true sides read: what only the added pixels would read is zero, as what
// lies beyond the picture.
inline ConvShape whole_tiles(const Direction& d, int64_t side) {
  ConvShape s = d.shape;
  int64_t &dest_h = d.mirrored ? s.in_h : s.out_h, &source_h = d.mirrored ? s.out_h : s.in_h;
  int64_t &dest_w = d.mirrored ? s.in_w : s.out_w, &source_w = d.mirrored ? s.out_w : s.in_w;
  const auto end = [](const GatherAxis& a) { return a.source(a.count - 1, a.taps - 1) + 1; };
  int64_t end_h = 0, end_w = 0;
  for (int64_t i = 0; i < d.phases_h; ++i) end_h = larger(end_h, end(d.rows(i * d.phases_w)));
  for (int64_t j = 0; j < d.phases_w; ++j) end_w = larger(end_w, end(d.cols(j)));
  source_h = smaller(source_h, end_h);
  source_w = smaller(source_w, end_w);
  dest_h = round_up(dest_h, side * d.rows(0).dest_step);
  dest_w = round_up(dest_w, side * d.cols(0).dest_step);
  return s;
}

}  // namespace pydenoise::cpu
