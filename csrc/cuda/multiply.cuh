// What a block multiplies: two panels of a few steps in shared memory, one of rows and one of
// columns, into a tile of sums in registers. Knows nothing of where the panels come from.
//
// Every sum adds its products in the order of the steps, one fused multiply-add each, whatever the
// tile's size; Tf32 in groups of 8 steps, as the tensor cores do.
#pragma once

#include "cuda/launch.cuh"

namespace pydenoise::cuda {

// So many neighbours in memory, read or written at once.
template <class T, int count>
struct alignas(count * sizeof(T) < 16 ? count * sizeof(T) : 16) Pack {
  T values[count];
};

template <class T, int depth, int rows, int cols, int pad>
struct alignas(16) Panels {
  T left[depth][rows + pad];
  T right[depth][cols + pad];
};

// Registers of the 8 x 6 tile: 48 sums, 14 factors, 11 elements of the next panels.
template <class Element, int depth, int rows, int cols, int thread_rows, int thread_cols,
          int resident>
struct Fma {
  using T = Element;
  static constexpr int kDepth = depth, kRows = rows, kCols = cols;
  static constexpr int kThreads = rows / thread_rows * (cols / thread_cols);
  static constexpr int kResident = resident;  // blocks that share a multiprocessor
  // Steps of a sum that begins at zero; longer ones are made of such, or the roundings of equal
  // terms, all one way, would eat their digits. A multiple of every depth.
  static constexpr int kLongestSum = 2048;
  using Panel = Panels<T, depth, rows, cols, 4>;  // 4: rows stay aligned, and apart by some banks

  T sums[thread_rows][thread_cols] = {};

  __device__ static T prepared(T value) { return value; }

  __device__ void add(const Panel& panel) {
#pragma unroll 4
    for (int k = 0; k < kDepth; ++k) {
      T left[thread_rows], right[thread_cols];
      take<kRowPack, kRowPacks>(left, panel.left[k] + first_row(), rows / kRowPacks);
      take<kColPack, kColPacks>(right, panel.right[k] + first_col(), cols / kColPacks);
#pragma unroll
      for (int i = 0; i < thread_rows; ++i) {
#pragma unroll
        for (int j = 0; j < thread_cols; ++j) sums[i][j] = fma(left[i], right[j], sums[i][j]);
      }
    }
  }

  // body(row, column, sums of neighbouring columns)
  template <class Body>
  __device__ void each(const Body& body) const {
#pragma unroll
    for (int i = 0; i < thread_rows; ++i) {
      const int row = i / kRowPack * (rows / kRowPacks) + first_row() + i % kRowPack;
#pragma unroll
      for (int j = 0; j < kColPacks; ++j) {
        Pack<T, kColPack> pack;
#pragma unroll
        for (int v = 0; v < kColPack; ++v) pack.values[v] = sums[i][j * kColPack + v];
        body(row, j * (cols / kColPacks) + first_col(), pack);
      }
    }
  }

 private:
  // A thread's rows are runs of 4 or 2, far apart: neighbours' runs then lie side by side in the
  // banks.
  static constexpr int kRowPack = thread_rows % 4 == 0 ? 4 : 2;
  static constexpr int kColPack = thread_cols % 4 == 0 ? 4 : 2;
  static constexpr int kRowPacks = thread_rows / kRowPack, kColPacks = thread_cols / kColPack;

  __device__ static int first_row() {
    return static_cast<int>(threadIdx.x) / (cols / thread_cols) * kRowPack;
  }
  __device__ static int first_col() {
    return static_cast<int>(threadIdx.x) % (cols / thread_cols) * kColPack;
  }
  template <int width, int packs>
  __device__ static void take(T* to, const T* from, int distance) {
#pragma unroll
    for (int pack = 0; pack < packs; ++pack) {
      const auto some = *reinterpret_cast<const Pack<T, width>*>(from + pack * distance);
#pragma unroll
      for (int v = 0; v < width; ++v) to[pack * width + v] = some.values[v];
    }
  }
};

// sum += left (16 x 8) right (8 x 8) by the 32 threads of a warp; which thread holds which element
// says the PTX manual under mma.m16n8k8. Only devices from 8.0 on have it.
__device__ inline void multiply_tf32(float (&sum)[4], const uint32_t (&left)[4],
                                     const uint32_t (&right)[2]) {
#if !defined(__CUDACC__)
  cuda_on_host::mma_m16n8k8(sum, left, right);
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
#endif
}

// The nearest number of 10 bits after the point, halves away from zero.
__device__ inline float rounded_to_tf32(float value) {
#if !defined(__CUDACC__)
  return cuda_on_host::rounded_to_tf32(value);
#elif __CUDA_ARCH__ >= 800
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
#else
  return value;
#endif
}

// Warps lie beside each other, warp_cols of them; each has 16 x 8 tiles of its own.
template <int depth, int rows, int cols, int warp_rows, int warp_cols, int resident>
struct Tf32 {
  using T = float;
  static constexpr int kDepth = depth, kRows = rows, kCols = cols;
  static constexpr int kThreads = 32 * warp_rows * warp_cols;
  static constexpr int kResident = resident;
  static constexpr int kLongestSum = 0;  // never cut: its factors have 3 digits
  static constexpr int kHigh = rows / warp_rows / 16, kWide = cols / warp_cols / 8;
  using Panel = Panels<T, depth, rows, cols, 8>;  // 8: a warp's 4 steps of 8 rows lie in 32 banks

  float sums[kHigh][kWide][4] = {};

  __device__ static float prepared(float value) { return rounded_to_tf32(value); }

  __device__ void add(const Panel& panel) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      uint32_t left[kHigh][4], right[kWide][2];
#pragma unroll
      for (int i = 0; i < kHigh; ++i) {
        const int row = first_row() + 16 * i + quad(), step = k + place();
        left[i][0] = bits(panel.left[step][row]);
        left[i][1] = bits(panel.left[step][row + 8]);
        left[i][2] = bits(panel.left[step + 4][row]);
        left[i][3] = bits(panel.left[step + 4][row + 8]);
      }
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const int col = first_col() + 8 * j + quad(), step = k + place();
        right[j][0] = bits(panel.right[step][col]);
        right[j][1] = bits(panel.right[step + 4][col]);
      }
#pragma unroll
      for (int i = 0; i < kHigh; ++i) {
#pragma unroll
        for (int j = 0; j < kWide; ++j) multiply_tf32(sums[i][j], left[i], right[j]);
      }
    }
  }

  template <class Body>
  __device__ void each(const Body& body) const {
#pragma unroll
    for (int i = 0; i < kHigh; ++i) {
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const int row = first_row() + 16 * i + quad(), col = first_col() + 8 * j + 2 * place();
        body(row, col, Pack<float, 2>{{sums[i][j][0], sums[i][j][1]}});
        body(row + 8, col, Pack<float, 2>{{sums[i][j][2], sums[i][j][3]}});
      }
    }
  }

 private:
  __device__ static int warp() { return static_cast<int>(threadIdx.x) / 32; }
  __device__ static int quad() { return static_cast<int>(threadIdx.x) % 32 / 4; }
  __device__ static int place() { return static_cast<int>(threadIdx.x) % 4; }
  __device__ static int first_row() { return warp() / warp_cols * (16 * kHigh); }
  __device__ static int first_col() { return warp() % warp_cols * (8 * kWide); }
  __device__ static uint32_t bits(float value) {
#if defined(__CUDACC__)
    return __float_as_uint(value);
#else
    return cuda_on_host::float_as_uint(value);
#endif
  }
};

}  // namespace pydenoise::cuda
