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

// The same value, as if it were only now known: what is made of it is worked out here, neither
// anew at every use nor long before.
template <class T>
__device__ inline T* held(T* address) {
#if defined(__CUDACC__)
  asm volatile("" : "+l"(address));
#endif
  return address;
}
__device__ inline int held(int number) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(number));
#endif
  return number;
}

// Copies some neighbours (4, 8 or 16 bytes) from global to shared memory while the thread goes on,
// or zeros where nothing is there; `from` is then not read. Before 8.0 the thread waits.
template <int bytes>
__device__ inline void copy_async(void* to, const void* from, bool is_there) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
#if !defined(__CUDACC__)
  cuda_on_host::copy_async(to, from, bytes, is_there);
#elif __CUDA_ARCH__ >= 800
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int read = is_there ? bytes : 0;
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(read));
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from),
                 "n"(bytes), "r"(read));
  }
#else
  struct alignas(bytes) Bytes {
    unsigned char of[bytes];
  };
  *static_cast<Bytes*>(to) = is_there ? *static_cast<const Bytes*>(from) : Bytes{};
#endif
}
// What was copied since the last call is one group; wait until all but so many groups are there.
__device__ inline void end_copy_group() {
#if !defined(__CUDACC__)
  cuda_on_host::end_copy_group();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;");
#endif
}
template <int but>
__device__ inline void wait_for_copies() {
#if !defined(__CUDACC__)
  cuda_on_host::wait_for_copies(but);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(but) : "memory");
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
