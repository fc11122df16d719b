#include "cpu/gemm.h"

#include "cpu/integers.h"
#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Sides of a block of C, in elements: the packed right side stays in the second-level cache.
constexpr int64_t kMBlock = 192;
constexpr int64_t kNBlock = 128;

// C[m0, m1) x [n0, n1) of one product.
struct Block {
  int64_t m0, m1, n0, n1;
};

// Rows [first, last) of a strided matrix, columns [k0, k0 + kc), as one panel: packed[k][width].
template <class T>
void pack(T* packed, int64_t width, const T* matrix, int64_t row_stride, int64_t k_stride,
          int64_t first, int64_t last, int64_t k0, int64_t kc) {
  const int64_t valid = smaller(width, last - first);
  const T* source = matrix + first * row_stride + k0 * k_stride;
  if (row_stride == 1) {
    for (int64_t k = 0; k < kc; ++k) {
      T* to = packed + k * width;
      for (int64_t i = 0; i < valid; ++i) to[i] = source[k * k_stride + i];
      for (int64_t i = valid; i < width; ++i) to[i] = T(0);
    }
    return;
  }
  for (int64_t i = 0; i < valid; ++i) {
    const T* from = source + i * row_stride;
    for (int64_t k = 0; k < kc; ++k) packed[k * width + i] = from[k * k_stride];
  }
  for (int64_t i = valid; i < width; ++i) {
    for (int64_t k = 0; k < kc; ++k) packed[k * width + i] = T(0);
  }
}

template <class T>
int64_t block_workspace(const OuterKernel<T>& kernel) {
  const int64_t m = round_up(kMBlock, kernel.mr), n = round_up(kNBlock, kernel.nr);
  return round_up(kTermBlock * (n + kernel.mr) + m * n, kAlignment);
}

// The tiles of one block, dense one after the other (row by row) at the returned address.
template <class T>
const T* multiply_block(const OuterKernel<T>& kernel, const Block& block, int64_t k,
                        MatrixView<const T> left, MatrixView<const T> right, T* workspace) {
  const int64_t mr = kernel.mr, nr = kernel.nr;
  const int64_t rows = ceil_div(block.m1 - block.m0, mr);
  const int64_t cols = ceil_div(block.n1 - block.n0, nr);
  T* const right_panels = workspace;
  T* const left_panel = right_panels + kTermBlock * round_up(kNBlock, nr);
  T* const tiles = left_panel + kTermBlock * mr;
  int64_t k0 = 0;
  do {  // once also for k = 0: an empty sum is zero
    const int64_t kc = smaller(kTermBlock, k - k0);
    const OuterWalk walk{{1, 1, kc}, {0, 0, mr}, {0, 0, nr}};
    for (int64_t j = 0; j < cols; ++j) {
      pack(right_panels + j * kTermBlock * nr, nr, right.data, right.col_stride, right.row_stride,
           block.n0 + j * nr, block.n1, k0, kc);
    }
    for (int64_t i = 0; i < rows; ++i) {
      pack(left_panel, mr, left.data, left.row_stride, left.col_stride, block.m0 + i * mr, block.m1,
           k0, kc);
      for (int64_t j = 0; j < cols; ++j) {
        kernel.run(tiles + (i * cols + j) * mr * nr, left_panel, right_panels + j * kTermBlock * nr,
                   walk, k0 > 0);
      }
    }
    k0 += kc;
  } while (k0 < k);
  return tiles;
}

template <class T>
void store_block(MatrixView<T> out, const T* tiles, const OuterKernel<T>& kernel,
                 const Block& block, bool accumulate) {
  const int64_t cols = ceil_div(block.n1 - block.n0, kernel.nr);
  for (int64_t i = block.m0; i < block.m1; ++i) {
    const int64_t tile_row = (i - block.m0) / kernel.mr, row = (i - block.m0) % kernel.mr;
    for (int64_t tile_col = 0; tile_col < cols; ++tile_col) {
      const int64_t j0 = block.n0 + tile_col * kernel.nr;
      const T* from = tiles + ((tile_row * cols + tile_col) * kernel.mr + row) * kernel.nr;
      T* to = out.data + i * out.row_stride + j0 * out.col_stride;
      for (int64_t j = 0; j < smaller(kernel.nr, block.n1 - j0); ++j) {
        T& element = to[j * out.col_stride];
        element = accumulate ? element + from[j] : from[j];
      }
    }
  }
}

template <class T>
MatrixView<T> matrix_of(MatrixView<T> view, int64_t batch) {
  view.data += batch * view.batch_stride;
  return view;
}

}  // namespace

template <class T>
int64_t matmul_workspace(int64_t m, int64_t n, int64_t threads) {
  return threads * block_workspace(outer_kernel_for<T>(m, n));
}

template <class T>
void matmul(MatrixView<T> out, MatrixView<const T> left, MatrixView<const T> right, T* workspace,
            int64_t batch, int64_t m, int64_t n, int64_t k, bool accumulate) {
  const OuterKernel<T>& kernel = outer_kernel_for<T>(m, n);
  const int64_t slot_size = block_workspace(kernel);
  const int64_t m_step = round_up(kMBlock, kernel.mr), n_step = round_up(kNBlock, kernel.nr);
  const int64_t m_blocks = ceil_div(m, m_step), n_blocks = ceil_div(n, n_step);

  parallel_tasks(batch * m_blocks * n_blocks, thread_count(), [&](int64_t task, int64_t slot) {
    const int64_t b = task / (m_blocks * n_blocks);
    const int64_t m0 = task / n_blocks % m_blocks * m_step, n0 = task % n_blocks * n_step;
    const Block block{m0, smaller(m, m0 + m_step), n0, smaller(n, n0 + n_step)};
    const T* tiles = multiply_block(kernel, block, k, matrix_of(left, b), matrix_of(right, b),
                                    workspace + slot * slot_size);
    store_block(matrix_of(out, b), tiles, kernel, block, accumulate);
  });
}

template int64_t matmul_workspace<float>(int64_t, int64_t, int64_t);
template int64_t matmul_workspace<double>(int64_t, int64_t, int64_t);
template void matmul(MatrixView<float>, MatrixView<const float>, MatrixView<const float>, float*,
                     int64_t, int64_t, int64_t, int64_t, bool);
template void matmul(MatrixView<double>, MatrixView<const double>, MatrixView<const double>,
                     double*, int64_t, int64_t, int64_t, int64_t, bool);

}  // namespace pydenoise::cpu
