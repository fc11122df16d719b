#include "cpu/gemm.h"

#include "parallel.h"

namespace pydenoise::cpu {

template <class T>
int64_t matmul_workspace(int64_t m, int64_t n, int64_t threads) {
  return threads * round_up(block_workspace(ukernel_for<T>(m, n)), kAlignment);
}

template <class T>
void matmul(MatrixView<T> out, MatrixView<const T> left, MatrixView<const T> right, T* workspace,
            int64_t batch, int64_t m, int64_t n, int64_t k, bool accumulate) {
  const Ukernel<T>& kernel = ukernel_for<T>(m, n);
  const int64_t slot_size = round_up(block_workspace(kernel), kAlignment);
  const int64_t m_step = round_up(kMBlock, kernel.mr), n_step = round_up(kNBlock, kernel.nr);
  const int64_t m_blocks = ceil_div(m, m_step), n_blocks = ceil_div(n, n_step);

  parallel_tasks(batch * m_blocks * n_blocks, thread_count(), [&](int64_t task, int64_t slot) {
    const int64_t b = task / (m_blocks * n_blocks);
    const int64_t m0 = task / n_blocks % m_blocks * m_step, n0 = task % n_blocks * n_step;
    const Block block{m0, smaller(m, m0 + m_step), n0, smaller(n, n0 + n_step)};
    const StridedOperand<T> rows{left.data + b * left.batch_stride, m, left.row_stride,
                                 left.col_stride, kernel.mr};
    const StridedOperand<T> cols{right.data + b * right.batch_stride, n, right.col_stride,
                                 right.row_stride, kernel.nr};
    const auto store = [&](int64_t i0, int64_t j0, const T* tile) {
      const int64_t i1 = smaller(kernel.mr, m - i0), j1 = smaller(kernel.nr, n - j0);
      for (int64_t i = 0; i < i1; ++i) {
        T* to = out.data + b * out.batch_stride + (i0 + i) * out.row_stride + j0 * out.col_stride;
        const T* from = tile + i * kernel.nr;
        for (int64_t j = 0; j < j1; ++j) {
          T& element = to[j * out.col_stride];
          element = accumulate ? element + from[j] : from[j];
        }
      }
    };
    multiply_block(kernel, block, k, rows, cols, store, workspace + slot * slot_size);
  });
}

template int64_t matmul_workspace<float>(int64_t, int64_t, int64_t);
template int64_t matmul_workspace<double>(int64_t, int64_t, int64_t);
template void matmul(MatrixView<float>, MatrixView<const float>, MatrixView<const float>, float*,
                     int64_t, int64_t, int64_t, int64_t, bool);
template void matmul(MatrixView<double>, MatrixView<const double>, MatrixView<const double>,
                     double*, int64_t, int64_t, int64_t, int64_t, bool);

}  // namespace pydenoise::cpu
