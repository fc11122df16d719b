// What every launcher shares, as its callers see it. Knows nothing of convolutions.
//
// Launchers take raw device pointers and a stream, start kernels and return at once, with the error
// of the launch. They allocate nothing and wait for nothing, so a CUDA graph may record them.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace pydenoise::cuda {

using Status = cudaError_t;

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

}  // namespace pydenoise::cuda
