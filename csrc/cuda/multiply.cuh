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

// Rows of the left panel lie side by side, or steps do: as their copies find them in memory.
template <class T, int depth, int rows, int cols, int pad, bool by_steps>
struct alignas(16) Panels {
  static constexpr int kLines = by_steps ? rows : depth, kLine = by_steps ? depth + 4 : rows + pad;
  T left[kLines][kLine];
  T right[depth][cols + pad];

  __device__ T* left_at(int step, int row) {
    return by_steps ? left[row] + step : left[step] + row;
  }
  __device__ const T* left_at(int step, int row) const {
    return by_steps ? left[row] + step : left[step] + row;
  }
};

template <class Element, int depth, int rows, int cols, int thread_rows, int thread_cols,
          int resident, int stages, bool by_steps>
struct Fma {
  using T = Element;
  static constexpr int kDepth = depth, kRows = rows, kCols = cols;
  static constexpr int kThreads = rows / thread_rows * (cols / thread_cols);
  static constexpr int kResident = resident;  // blocks that share a multiprocessor
  static constexpr int kStages = stages;      // panels in shared memory
  static constexpr int kChunk = stages * depth <= 64 ? 64 : 128;  // steps looked up at a time
  static constexpr bool kBySteps = by_steps;
  // Steps of a sum that begins at zero; longer ones are made of such, or the roundings of equal
  // terms, all one way, would eat their digits. A multiple of every depth.
  static constexpr int kLongestSum = 2048;
  using Panel = Panels<T, depth, rows, cols, 4, by_steps>;  // 4: lines stay aligned, and apart

  T sums[thread_rows][thread_cols] = {};

  __device__ void add(const Panel& panel) {
    // of this group of steps and the next, on its way while sums are made
    T left[2][thread_rows][kLeftGroup], right[2][kGroup][thread_cols];
    take_left(left[0], panel, 0);
    take_right(right[0], panel, 0);
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int next = k + kGroup;
      if (next < kDepth && next % kLeftGroup == 0) {
        take_left(left[next / kLeftGroup % 2], panel, next);
      }
      if (next < kDepth && next % kGroup == 0) take_right(right[next / kGroup % 2], panel, next);
#pragma unroll
      for (int i = 0; i < thread_rows; ++i) {
        const T from_left = left[k / kLeftGroup % 2][i][k % kLeftGroup];
#pragma unroll
        for (int j = 0; j < thread_cols; ++j) {
          sums[i][j] = fma(from_left, right[k / kGroup % 2][k % kGroup][j], sums[i][j]);
        }
      }
    }
  }

  // body(row, column, sums of neighbouring columns)
  template <class Body>
  __device__ void each(const Body& body) const {
#pragma unroll
    for (int i = 0; i < thread_rows; ++i) {
#pragma unroll
      for (int j = 0; j < thread_cols; j += kWide) {
        Pack<T, kWide> pack;
#pragma unroll
        for (int v = 0; v < kWide; ++v) pack.values[v] = sums[i][j + v];
        body(row_of(i), col_of(j), pack);
      }
    }
  }
  // body(row, column, sums of neighbouring rows)
  template <class Body>
  __device__ void each_tall(const Body& body) const {
#pragma unroll
    for (int j = 0; j < thread_cols; ++j) {
#pragma unroll
      for (int i = 0; i < thread_rows; i += kTall) {
        Pack<T, kTall> pack;
#pragma unroll
        for (int v = 0; v < kTall; ++v) pack.values[v] = sums[i + v][j];
        body(row_of(i), col_of(j), pack);
      }
    }
  }

  static constexpr int kTall =
      by_steps || thread_rows % 2 != 0 ? 1 : (thread_rows % 4 == 0 ? 4 : 2);

 private:
  // Steps whose numbers are read together, so long before they are needed: the more the fewer sums
  // a thread makes of each.
  static constexpr int kSums = thread_rows * thread_cols;
  static constexpr int kGroup = kSums >= 24 ? 1 : (kSums >= 8 ? 4 : 8);
  static constexpr int kRun = by_steps ? 16 / sizeof(T) : 1;  // steps that lie side by side
  static constexpr int kLeftGroup = kRun > kGroup ? kRun : kGroup;
  static constexpr int kWide = thread_cols % 4 == 0 ? 4 : 2;

  // A thread's rows and columns are runs, far apart: neighbours' runs then lie side by side in the
  // banks.
  __device__ static int row_of(int i) {
    const int thread = static_cast<int>(threadIdx.x) / (cols / thread_cols);
    return i / kTall * (rows / thread_rows * kTall) + thread * kTall + i % kTall;
  }
  __device__ static int col_of(int j) {
    const int thread = static_cast<int>(threadIdx.x) % (cols / thread_cols);
    return j / kWide * (cols / thread_cols * kWide) + thread * kWide + j % kWide;
  }
  __device__ static void take_left(T (&to)[thread_rows][kLeftGroup], const Panel& panel, int step) {
#pragma unroll
    for (int k = 0; k < kLeftGroup; k += kRun) {
#pragma unroll
      for (int i = 0; i < thread_rows; i += kTall) {
        T some[kTall * kRun];  // one of the two is 1
        take<kTall * kRun>(some, panel.left_at(step + k, row_of(i)));
#pragma unroll
        for (int v = 0; v < kTall; ++v) {
#pragma unroll
          for (int u = 0; u < kRun; ++u) to[i + v][k + u] = some[v + u];
        }
      }
    }
  }
  __device__ static void take_right(T (&to)[kGroup][thread_cols], const Panel& panel, int step) {
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
#pragma unroll
      for (int j = 0; j < thread_cols; j += kWide) {
        take<kWide>(to[k] + j, panel.right[step + k] + col_of(j));
      }
    }
  }
  template <int width>
  __device__ static void take(T* to, const T* from) {
    const auto some = *reinterpret_cast<const Pack<T, width>*>(from);
#pragma unroll
    for (int v = 0; v < width; ++v) to[v] = some.values[v];
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
template <int depth, int rows, int cols, int warp_rows, int warp_cols, int resident, int stages,
          bool by_steps>
struct Tf32 {
  using T = float;
  static constexpr int kDepth = depth, kRows = rows, kCols = cols;
  static constexpr int kThreads = 32 * warp_rows * warp_cols;
  static constexpr int kResident = resident, kStages = stages, kChunk = 64;
  static constexpr bool kBySteps = by_steps;
  static constexpr int kLongestSum = 0;  // never cut: its factors have 3 digits
  static constexpr int kTall = 1;
  static constexpr int kHigh = rows / warp_rows / 16, kWide = cols / warp_cols / 8;
  // 8: a warp's 4 steps of 8 rows lie in 32 banks
  using Panel = Panels<T, depth, rows, cols, 8, by_steps>;

  float sums[kHigh][kWide][4] = {};

  __device__ void add(const Panel& panel) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      uint32_t left[kHigh][4], right[kWide][2];
      const int step = k + place();
#pragma unroll
      for (int i = 0; i < kHigh; ++i) {
        const int row = first_row() + 16 * i + quad();
        left[i][0] = bits(*panel.left_at(step, row));
        left[i][1] = bits(*panel.left_at(step, row + 8));
        left[i][2] = bits(*panel.left_at(step + 4, row));
        left[i][3] = bits(*panel.left_at(step + 4, row + 8));
      }
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const int col = first_col() + 8 * j + quad();
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
    const float rounded = rounded_to_tf32(value);
#if defined(__CUDACC__)
    return __float_as_uint(rounded);
#else
    return cuda_on_host::float_as_uint(rounded);
#endif
  }
};

}  // namespace pydenoise::cuda
