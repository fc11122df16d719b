#include "parallel.h"

namespace pydenoise {
namespace {

std::atomic<TorchParallelFor> torch_parallel_for{nullptr};
std::atomic<TorchGetNumThreads> torch_get_num_threads{nullptr};

struct Slots {
  void (*body)(int64_t, void*);
  void* context;
};

}  // namespace

void set_thread_pool(TorchParallelFor parallel_for, TorchGetNumThreads get_num_threads) {
  torch_parallel_for = parallel_for;
  torch_get_num_threads = get_num_threads;
}

int64_t thread_count() {
  const TorchGetNumThreads count_threads = torch_get_num_threads;
  uint32_t count = 1;
  if (torch_parallel_for.load() == nullptr || count_threads == nullptr ||
      count_threads(&count) != 0 || count < 1) {
    return 1;
  }
  return count;
}

void parallel_slots(int64_t slots, void (*body)(int64_t slot, void* context), void* context) {
  const TorchParallelFor run = torch_parallel_for;
  if (slots > 1 && run != nullptr) {
    Slots work{body, context};
    const int32_t failed = run(
        0, slots, 1,
        [](int64_t begin, int64_t end, void* pointer) {
          const auto& all = *static_cast<Slots*>(pointer);
          for (int64_t slot = begin; slot < end; ++slot) all.body(slot, all.context);
        },
        &work);
    if (failed == 0) return;
  }
  for (int64_t slot = 0; slot < slots; ++slot) body(slot, context);
}

}  // namespace pydenoise
