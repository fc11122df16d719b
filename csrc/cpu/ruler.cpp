#include "cpu/ruler.h"

#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {

template <class T>
int64_t multiply_adds(int64_t iterations) {
  struct Loop {
    Ruler<T> ruler;
    int64_t iterations;
  } loop{kernels_in_use<T>().ruler, iterations};
  const int64_t threads = thread_count();
  parallel_slots(
      threads,
      [](int64_t, void* context) {
        const auto& work = *static_cast<Loop*>(context);
        volatile T kept = work.ruler.run(work.iterations);  // a sum nobody reads is not computed
        static_cast<void>(kept);
      },
      &loop);
  return threads * iterations * loop.ruler.flop;
}

template int64_t multiply_adds<float>(int64_t);
template int64_t multiply_adds<double>(int64_t);

}  // namespace pydenoise::cpu
