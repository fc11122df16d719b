// Matrix products: blocking and packing around OuterKernel.
#pragma once

#include <cstdint>

namespace pydenoise::cpu {

// A batch of strided matrices; element (b, i, j) at data + b*batch_stride + i*row_stride +
// j*col_stride.
template <class T>
struct MatrixView {
  T* data;
  int64_t batch_stride, row_stride, col_stride;
};

// out[b] = left[b] right[b], or += when accumulate: (batch, m, k) x (batch, k, n). `out` must not
// overlap itself or an input. workspace: matmul_workspace elements, aligned to kAlignment bytes.
template <class T>
int64_t matmul_workspace(int64_t m, int64_t n, int64_t threads);
template <class T>
void matmul(MatrixView<T> out, MatrixView<const T> left, MatrixView<const T> right, T* workspace,
            int64_t batch, int64_t m, int64_t n, int64_t k, bool accumulate);

}  // namespace pydenoise::cpu
