// A stand-in for CUDA's header, by which g++ compiles the kernels as plain C++ and runs them here.
//
// Every CUDA thread is a fiber. Blocks run one after the other; the fibers of a block take turns at
// barriers alone, in an order that order_of_threads() changes: what a missing __syncthreads lets
// through then gives other numbers. Shared memory starts as NaN in every block. Pointers are the
// host's. One host thread at a time.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned of_x = 1, unsigned of_y = 1, unsigned of_z = 1)
      : x(of_x), y(of_y), z(of_z) {}
};
inline dim3 gridDim, blockDim, blockIdx, threadIdx;

using std::abs, std::exp, std::fabs, std::fma, std::pow, std::sqrt;

using cudaStream_t = struct CUstream_st*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorIllegalAddress = 700,
  cudaErrorMemoryAllocation = 2,
  cudaErrorLaunchFailure = 719
};
enum cudaMemoryType { cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2, cudaMemoryTypeManaged = 3 };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};

namespace cuda_on_host {

enum class Wait { kNothing, kWarp, kBlock, kEnd };

constexpr size_t kStack = 64 << 10;
constexpr int kWarp = 32;

// The kernel of the launch that runs, called by every fiber in turn.
struct Body {
  virtual void run() const = 0;
};

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  ucontext_t context;
  jmp_buf place;
  bool started = false;
  Wait wait = Wait::kEnd;
};

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  bool is_there;
};

struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers;
  Fiber scheduler;
  Fiber* running = nullptr;
  const Body* body = nullptr;
  std::vector<unsigned char> shared;
  std::vector<std::vector<float>> exchange[2];  // of each warp, by turns: what mma's threads hold
  std::vector<int> exchanges;                   // of each thread
  std::vector<std::vector<std::vector<Copy>>> copies;  // of each thread, in groups, the last open
  int order = 0;
  const char* fault = nullptr;
};
inline Machine machine;

// Saves where `from` is and goes on with `to`. Sanitizers follow swapcontext alone, which costs a
// system call.
__attribute__((noinline)) inline void switch_fibers(Fiber& from, Fiber& to) {
  from.started = true;
#if defined(__SANITIZE_ADDRESS__)
  swapcontext(&from.context, &to.context);
#else
  if (_setjmp(from.place) != 0) return;
  if (to.started) _longjmp(to.place, 1);
  setcontext(&to.context);
#endif
}

__attribute__((noinline)) inline void pause(Wait wait) {
  Fiber* const self = machine.running;
  self->wait = wait;
  switch_fibers(*self, machine.scheduler);
}

// A fiber outlives its thread: it is the same thread of the next block.
inline void fiber_main() {
  for (;;) {
    machine.body->run();
    pause(Wait::kEnd);
  }
}

inline void resume(size_t thread) {
  while (machine.fibers.size() <= thread) {
    auto fiber = std::make_unique<Fiber>();
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = kStack;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, fiber_main, 0);
    machine.fibers.push_back(std::move(fiber));
  }
  threadIdx = dim3(static_cast<unsigned>(thread));
  machine.running = machine.fibers[thread].get();
  switch_fibers(machine.scheduler, *machine.running);
}

// The numbers from 0 in the order asked for: 0 forward, 1 backward, above that shuffled.
inline std::vector<size_t> in_order(size_t count) {
  std::vector<size_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), size_t{0});
  if (machine.order == 1) std::reverse(numbers.begin(), numbers.end());
  if (machine.order > 1) {
    std::mt19937 random(static_cast<unsigned>(machine.order));
    std::shuffle(numbers.begin(), numbers.end(), random);
  }
  return numbers;
}

// Runs the threads of a warp to where all wait for the block, or to their end.
inline Wait run_warp(size_t first, const std::vector<size_t>& lanes) {
  Wait wait = Wait::kWarp;
  while (wait == Wait::kWarp) {
    wait = Wait::kNothing;
    for (const size_t lane : lanes) {
      resume(first + lane);
      const Wait here = machine.running->wait;
      if (wait != Wait::kNothing && here != wait) machine.fault = "threads of a warp part ways";
      wait = here;
    }
    if (machine.fault != nullptr) break;
  }
  return wait;
}

inline void run_block(size_t threads) {
  machine.copies.assign(threads, {{}});
  std::fill(machine.shared.begin(), machine.shared.end(), 0xff);  // NaN, and indices of nowhere
  const std::vector<size_t> warps = in_order((threads + kWarp - 1) / kWarp);
  std::vector<std::vector<size_t>> lanes;
  for (size_t warp = 0; warp < warps.size(); ++warp) {
    lanes.push_back(in_order(std::min<size_t>(kWarp, threads - warp * kWarp)));
  }
  for (Wait wait = Wait::kBlock; wait == Wait::kBlock && machine.fault == nullptr;) {
    wait = Wait::kNothing;
    for (const size_t warp : warps) {
      const Wait here = run_warp(warp * kWarp, lanes[warp]);
      if (wait != Wait::kNothing && here != wait) machine.fault = "warps of a block part ways";
      wait = here;
      if (machine.fault != nullptr) break;
    }
  }
}

template <class Call>
cudaError_t run(dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t, const Call& call) {
  struct Kernel : Body {
    const Call& call;
    explicit Kernel(const Call& of) : call(of) {}
    void run() const override { call(); }
  } const kernel(call);
  if (grid.x > 0x7fffffffu || block.x > 1024 || shared_bytes > 48 << 10) {
    std::fputs("cuda_on_host: no device takes such a launch\n", stderr);
    return cudaErrorLaunchFailure;
  }
  const unsigned warps = (block.x + kWarp - 1) / kWarp;
  machine.shared = std::vector<unsigned char>(shared_bytes);
  for (auto& turn : machine.exchange) turn.assign(warps, std::vector<float>(kWarp * 6));
  machine.exchanges.assign(block.x, 0);
  machine.body = &kernel;
  gridDim = grid;
  blockDim = block;
  for (unsigned index = 0; index < grid.x; ++index) {
    blockIdx = dim3(index, 0, 0);
    run_block(block.x);
    if (machine.fault == nullptr) continue;
    std::fprintf(stderr, "cuda_on_host: %s at a barrier of block %u\n", machine.fault, index);
    machine.fault = nullptr;
    machine.fibers.clear();
    return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

inline void* shared_memory(size_t bytes) {
  if (bytes > machine.shared.size()) {
    std::fputs("cuda_on_host: more shared memory used than was launched with\n", stderr);
    std::abort();
  }
  return machine.shared.data();
}

inline void land(const Copy& copy) {
  if (copy.is_there)
    std::memcpy(copy.to, copy.from, copy.bytes);
  else
    std::memset(copy.to, 0, copy.bytes);
}

// Copies are made when they are waited for, no sooner; where threads go backward, at once.
inline void copy_async(void* to, const void* from, size_t bytes, bool is_there) {
  const auto misplaced = [=](const void* at) { return reinterpret_cast<uintptr_t>(at) % bytes; };
  if (misplaced(to) != 0 || (is_there && misplaced(from) != 0)) {
    std::fputs("cuda_on_host: a copy from or to an odd address\n", stderr);
    std::abort();
  }
  const Copy copy{to, from, bytes, is_there};
  if (machine.order == 1)
    land(copy);
  else
    machine.copies[threadIdx.x].back().push_back(copy);
}
inline void end_copy_group() {
  machine.copies[threadIdx.x].emplace_back();
}
inline void wait_for_copies(size_t but) {
  auto& groups = machine.copies[threadIdx.x];
  while (groups.size() > but + 1) {
    for (const Copy& copy : groups.front()) land(copy);
    groups.erase(groups.begin());
  }
}

inline uint32_t float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline float rounded_to_tf32(float value) {
  if (!std::isfinite(value)) return value;
  return uint_as_float((float_as_uint(value) + 0x1000u) & ~0x1fffu);
}

// As the PTX manual lays out the operands of mma.m16n8k8 of .tf32.
inline void mma_m16n8k8(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  const unsigned lane = threadIdx.x % kWarp;
  std::vector<float>& all =
      machine.exchange[machine.exchanges[threadIdx.x]++ % 2][threadIdx.x / kWarp];
  for (unsigned i = 0; i < 4; ++i) all[lane * 6 + i] = uint_as_float(left[i]);
  for (unsigned i = 0; i < 2; ++i) all[lane * 6 + 4 + i] = uint_as_float(right[i]);
  pause(Wait::kWarp);
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 8; ++k) {
      const float a = all[(row % 8 * 4 + k % 4) * 6 + row / 8 + k / 4 * 2];
      const float b = all[(col * 4 + k % 4) * 6 + 4 + k / 4];
      sum[i] += a * b;
    }
  }
}

}  // namespace cuda_on_host

inline void __syncthreads() {
  cuda_on_host::pause(cuda_on_host::Wait::kBlock);
}

// What the bindings ask of the runtime: one device, all memory is its own.
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor = 75 };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 9;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void*) {
  *found = {cudaMemoryTypeDevice, 0};
  return cudaSuccess;
}
inline const char* cudaGetErrorName(cudaError_t) {
  return "cudaErrorLaunchFailure";
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "a launch failed on the host";
}
