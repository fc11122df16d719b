// How weight gradients end: channel by channel, from sums of whole panels into the weights.
#pragma once

#include "conv_shape.h"
#include "cpu/integers.h"
#include "cpu/panels.h"
#include "cpu/transpose.h"

namespace pydenoise::cpu {

// body(group, panel, channel, scratch) for every input channel of every panel of output channels.
template <class T, class Body>
void reduce_channels(T* slots, int64_t slot_size, int64_t panels, const ConvShape& s,
                     const Body& body) {
  parallel_panels(s.groups, panels, s.group_in_channels(),
                  [&](int64_t group, int64_t panel, int64_t c0, int64_t c1, int64_t slot) {
                    for (int64_t c = c0; c < c1; ++c) {
                      body(group, panel, c, slots + slot * slot_size);
                    }
                  });
}

// One row of a panel, added up over the pieces, `step` elements apart; zero without any.
template <class T>
void add_pieces(T* sum, const T* from, int64_t step, int64_t pieces, int64_t nr) {
  for (int64_t o = 0; o < nr; ++o) sum[o] = pieces == 0 ? T(0) : from[o];
  for (int64_t piece = 1; piece < pieces; ++piece) {
    from += step;
    for (int64_t o = 0; o < nr; ++o) sum[o] += from[o];
  }
}

// Taps [tap][nr] of one channel and panel, to where they belong in one group's weights.
template <class T>
void write_channel(T* grad_weight, const T* taps, int64_t nr, int64_t panel, int64_t channel,
                   const ConvShape& s, bool accumulate) {
  const int64_t first = panel * nr, channels = s.group_in_channels(), count = s.taps();
  T* const to = grad_weight + (first * channels + channel) * count;
  const int64_t step = channels * count, valid = smaller(nr, s.group_out_channels() - first);
  if (accumulate) {
    transpose<true>(to, step, taps, nr, count, valid);
  } else {
    transpose(to, step, taps, nr, count, valid);
  }
}

}  // namespace pydenoise::cpu
