// How weight gradients end: channel by channel, from sums of whole panels into the weights.
#pragma once

#include "conv_shape.h"
#include "cpu/integers.h"
#include "cpu/transpose.h"
#include "parallel.h"

namespace pydenoise::cpu {

// body(group, panel, channel, scratch) for every input channel of every panel of output channels.
template <class T, class Body>
void reduce_channels(T* slots, int64_t slot_size, int64_t panels, const ConvShape& s,
                     const Body& body) {
  constexpr int64_t kChannels = 16;  // of a task
  const int64_t channels = s.group_in_channels(), steps = ceil_div(channels, kChannels);
  parallel_tasks(s.groups * panels * steps, thread_count(), [&](int64_t task, int64_t slot) {
    const int64_t first = task % steps * kChannels, last = smaller(channels, first + kChannels);
    for (int64_t c = first; c < last; ++c) {
      body(task / (panels * steps), task / steps % panels, c, slots + slot * slot_size);
    }
  });
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
