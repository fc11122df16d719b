// Sums of a block's threads in one fixed order.
#pragma once

#include "cuda/launch.cuh"

namespace pydenoise::cuda {

// sums[i] += sums[i + half], for every half of `threads` down to `stop` (powers of two): thread i
// then holds what its column of threads i, i + stop, ... added. All threads of the block call it; a
// kernel may number them its own way.
template <class T>
__device__ T sum_of_columns(T* sums, int threads, int stop, T own,
                            int thread = static_cast<int>(threadIdx.x)) {
  sums[thread] = own;
  for (int half = threads / 2; half >= stop; half /= 2) {
    __syncthreads();
    if (thread < half) sums[thread] += sums[thread + half];
  }
  return sums[thread];
}

}  // namespace pydenoise::cuda
