// Work on several threads: torch's own pool when Python handed us its entry point, one thread
// otherwise. No thread is created here and no count decided: torch.set_num_threads rules.
#pragma once

#include <atomic>
#include <cstdint>

namespace pydenoise {

// The C entries of libtorch (torch/csrc/stable/c/shim.h), or null to run serial.
using TorchParallelFor = int32_t (*)(int64_t begin, int64_t end, int64_t grain,
                                     void (*body)(int64_t, int64_t, void*), void* context);
using TorchGetNumThreads = int32_t (*)(uint32_t* count);
void set_thread_pool(TorchParallelFor parallel_for, TorchGetNumThreads get_num_threads);

// How many slots `parallel_slots` may use at this moment; at least 1.
int64_t thread_count();

// Calls body(slot, context) for each slot in [0, slots), concurrently where threads allow; a second
// time if the thread pool reports a failure, which must then find nothing left to do.
void parallel_slots(int64_t slots, void (*body)(int64_t slot, void* context), void* context);

// Runs body(task, slot) for every task in [0, tasks). Each slot begins with a range of its own, the
// same one in every call, so that pictures stay in the caches of the thread that made them; a slot
// that is done takes what is left of the others' ranges. So a task may write only what no other
// task touches; `slot` < slots names scratch memory that no other running task uses.
template <class Body>
void parallel_tasks(int64_t tasks, int64_t slots, const Body& body) {
  constexpr int64_t kMostRanges = 64;
  struct alignas(64) Counter {
    std::atomic<int64_t> next;
  };
  struct Shared {
    const Body& body;
    int64_t tasks, ranges;
    Counter counters[kMostRanges];

    int64_t begin(int64_t range) const { return range * tasks / ranges; }
  };
  const int64_t used = slots < tasks ? slots : tasks;
  if (used <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(task, 0);
    return;
  }
  Shared shared{body, tasks, used < kMostRanges ? used : kMostRanges, {}};
  for (int64_t range = 0; range < shared.ranges; ++range) {
    shared.counters[range].next = shared.begin(range);
  }
  parallel_slots(
      used,
      [](int64_t slot, void* context) {
        auto& work = *static_cast<Shared*>(context);
        for (int64_t i = 0; i < work.ranges; ++i) {
          const int64_t range = (slot + i) % work.ranges, end = work.begin(range + 1);
          std::atomic<int64_t>& next = work.counters[range].next;
          for (int64_t task = next++; task < end; task = next++) work.body(task, slot);
        }
      },
      &shared);
}

}  // namespace pydenoise
