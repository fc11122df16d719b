// Work on packed panels of channels, cut into tasks.
#pragma once

#include "cpu/integers.h"
#include "parallel.h"

namespace pydenoise::cpu {

// body(group, panel, c0, c1, slot) for the channels of every panel, a few at a time.
template <class Body>
void parallel_panels(int64_t groups, int64_t panels, int64_t channels, const Body& body) {
  constexpr int64_t kChannels = 16;  // of a task
  const int64_t steps = ceil_div(channels, kChannels);
  parallel_tasks(groups * panels * steps, thread_count(), [&](int64_t task, int64_t slot) {
    const int64_t c0 = task % steps * kChannels;
    body(task / (panels * steps), task / steps % panels, c0, smaller(channels, c0 + kChannels),
         slot);
  });
}

}  // namespace pydenoise::cpu
