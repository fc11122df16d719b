// Matrix products: blocking and packing around a micro-kernel.
//
// An operand is anything that can show a packed panel of itself: a stored matrix packed before
// (PackedOperand), a strided one packed now (StridedOperand), or patches gathered from a picture
// (patches.h). multiply_block walks one block of C and never asks which.
//
//   operand.panel(index, k0, kc, scratch) -> const T*
//       rows [k0, k0 + kc) of panel `index`, width mr (left) or nr (right), zero beyond the
//       operand's edge; in `scratch` (kKBlock x width) or where it already lies packed.
//   store(i0, j0, tile)
//       called once for each finished mr x nr tile whose first element is C[i0][j0]; writes what
//       lies inside C.
//
// All functions run on one thread and allocate nothing; callers split the work.
#pragma once

#include <cstdint>

#include "cpu/integers.h"
#include "cpu/isa.h"

namespace pydenoise::cpu {

// Terms of one sum that are packed, and added up from zero, at a time. A constant: the order of
// summation may not depend on anything else.
constexpr int64_t kKBlock = 512;

// Widths of a block of C, in elements: the packed right side stays in the second-level cache.
constexpr int64_t kMBlock = 192;
constexpr int64_t kNBlock = 128;

// C[m0, m1) x [n0, n1), m0 and n0 on panel borders, sizes at most kMBlock and kNBlock rounded up
// to panels.
struct Block {
  int64_t m0, m1, n0, n1;
};

// Elements of scratch memory that multiply_block needs.
template <class T>
int64_t block_workspace(const Ukernel<T>& kernel) {
  const int64_t m = round_up(kMBlock, kernel.mr), n = round_up(kNBlock, kernel.nr);
  return kKBlock * (n + kernel.mr) + m * n;
}

template <class T, class Left, class Right, class Store>
void multiply_block(const Ukernel<T>& kernel, const Block& block, int64_t k, const Left& left,
                    const Right& right, const Store& store, T* workspace) {
  const int64_t mr = kernel.mr, nr = kernel.nr;
  const int64_t rows = ceil_div(block.m1 - block.m0, mr);
  const int64_t cols = ceil_div(block.n1 - block.n0, nr);
  T* const right_scratch = workspace;
  T* const left_scratch = right_scratch + kKBlock * round_up(kNBlock, nr);
  T* const tiles = left_scratch + kKBlock * mr;
  const T* right_panels[kNBlock];
  int64_t k0 = 0;
  do {  // once also for k = 0: an empty sum is zero
    const int64_t kc = smaller(kKBlock, k - k0);
    const bool last = k0 + kc == k;
    for (int64_t j = 0; j < cols; ++j) {
      right_panels[j] = right.panel(block.n0 / nr + j, k0, kc, right_scratch + j * kKBlock * nr);
    }
    for (int64_t i = 0; i < rows; ++i) {
      const T* left_panel = left.panel(block.m0 / mr + i, k0, kc, left_scratch);
      for (int64_t j = 0; j < cols; ++j) {
        T* tile = tiles + (i * cols + j) * mr * nr;
        kernel.run(tile, left_panel, right_panels[j], kc, k0 > 0);
        if (last) store(block.m0 + i * mr, block.n0 + j * nr, tile);
      }
    }
    k0 += kc;
  } while (k0 < k);
}

// Packed beforehand: panel p, all k rows of it, at data + p * k * width.
template <class T>
struct PackedOperand {
  const T* data;
  int64_t k, width;

  const T* panel(int64_t index, int64_t k0, int64_t, T*) const {
    return data + (index * k + k0) * width;
  }
};

// Element (row, k) of a matrix at data + row * row_stride + k * k_stride.
template <class T>
struct StridedOperand {
  const T* data;
  int64_t rows, row_stride, k_stride, width;

  const T* panel(int64_t index, int64_t k0, int64_t kc, T* scratch) const {
    const int64_t first = index * width;
    const int64_t valid = smaller(width, rows - first);
    const T* source = data + first * row_stride + k0 * k_stride;
    if (row_stride == 1) {
      for (int64_t k = 0; k < kc; ++k) {
        T* to = scratch + k * width;
        for (int64_t i = 0; i < valid; ++i) to[i] = source[k * k_stride + i];
        for (int64_t i = valid; i < width; ++i) to[i] = T(0);
      }
      return scratch;
    }
    for (int64_t i = 0; i < valid; ++i) {
      const T* from = source + i * row_stride;
      for (int64_t k = 0; k < kc; ++k) scratch[k * width + i] = from[k * k_stride];
    }
    for (int64_t i = valid; i < width; ++i) {
      for (int64_t k = 0; k < kc; ++k) scratch[k * width + i] = T(0);
    }
    return scratch;
  }
};

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
