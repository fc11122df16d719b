// How a kernel is started, where its shared memory is, how many blocks go over the elements: for
// the files that hold kernels.
//
// Grids have one side, which may be 2^31 - 1 blocks long. tests/cuda_on_host compiles the same
// files as plain C++, with fibers for threads.
#pragma once

#include "cuda/launch.h"

namespace pydenoise::cuda {

constexpr int kThreads = 256;                      // of a block that goes over elements
constexpr int64_t kMostBlocks = int64_t{1} << 14;  // of those; more elements take more rounds

inline int64_t blocks_over(int64_t count) {
  return smaller(ceil_div(count, kThreads), kMostBlocks);
}

template <class... Parameters, class... Arguments>
Status launch(void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared_bytes,
              cudaStream_t stream, const Arguments&... arguments) {
  if (blocks == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(blocks)), block(static_cast<unsigned>(threads));
#if defined(__CUDACC__)
  kernel<<<grid, block, shared_bytes, stream>>>(arguments...);
  return cudaGetLastError();
#else
  return cuda_on_host::run(grid, block, shared_bytes, stream, [&] { kernel(arguments...); });
#endif
}

// The block's shared memory, of the size that was given to launch(); not initialised.
template <class T>
__device__ T& shared_memory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char memory[];
  return *reinterpret_cast<T*>(memory);
#else
  return *static_cast<T*>(cuda_on_host::shared_memory(sizeof(T)));
#endif
}

// for (int64_t i = first_element(); i < count; i += element_step())
__device__ inline int64_t first_element() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t element_step() {
  return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

}  // namespace pydenoise::cuda
