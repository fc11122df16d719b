// Matrix transposition, the one step between "pixels are neighbours" and "channels are neighbours".
#pragma once

#include <cstdint>

#include "cpu/integers.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace pydenoise::cpu {

// A 4 x 4 block; false where this machine has no faster way than one element after the other.
template <bool kAdd, class T>
inline bool transpose_block(T*, int64_t, const T*, int64_t) {
  return false;
}
#if defined(__SSE__)
template <bool kAdd>
inline bool transpose_block(float* to, int64_t to_stride, const float* from, int64_t from_stride) {
  __m128 r0 = _mm_loadu_ps(from), r1 = _mm_loadu_ps(from + from_stride);
  __m128 r2 = _mm_loadu_ps(from + 2 * from_stride), r3 = _mm_loadu_ps(from + 3 * from_stride);
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  const auto store = [](float* p, __m128 v) {
    _mm_storeu_ps(p, kAdd ? _mm_add_ps(_mm_loadu_ps(p), v) : v);
  };
  store(to, r0);
  store(to + to_stride, r1);
  store(to + 2 * to_stride, r2);
  store(to + 3 * to_stride, r3);
  return true;
}
#endif

// Three rows as triples without a gap, as far as there is a faster way than one element after the
// other; returns how many columns are done.
template <class T>
inline int64_t interleave_three(T*, const T*, int64_t, int64_t) {
  return 0;
}
#if defined(__SSE__)
inline int64_t interleave_three(float* to, const float* from, int64_t from_stride, int64_t cols) {
  int64_t j = 0;
  for (; j + 4 < cols; j += 4) {  // each store writes one element of the next triple, too
    __m128 r0 = _mm_loadu_ps(from + j), r1 = _mm_loadu_ps(from + from_stride + j);
    __m128 r2 = _mm_loadu_ps(from + 2 * from_stride + j), r3 = _mm_setzero_ps();
    _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
    _mm_storeu_ps(to + 3 * j, r0);
    _mm_storeu_ps(to + 3 * j + 3, r1);
    _mm_storeu_ps(to + 3 * j + 6, r2);
    _mm_storeu_ps(to + 3 * j + 9, r3);
  }
  return j;
}
#endif

// to[j * to_stride + i] = from[i * from_stride + j], or += when kAdd; i < rows, j < cols
template <bool kAdd = false, class T>
void transpose(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t rows,
               int64_t cols) {
  constexpr int64_t kSide = 4;
  const auto one_by_one = [=](int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
    for (int64_t j = j0; j < j1; ++j) {
      for (int64_t i = i0; i < i1; ++i) {
        T& element = to[j * to_stride + i];
        const T value = from[i * from_stride + j];
        element = kAdd ? element + value : value;
      }
    }
  };
  const auto block = [=](int64_t i, int64_t j) {
    if (!transpose_block<kAdd>(to + j * to_stride + i, to_stride, from + i * from_stride + j,
                               from_stride)) {
      one_by_one(i, i + kSide, j, j + kSide);
    }
  };
  if (!kAdd && rows == 3 && to_stride == 3) {
    return one_by_one(0, rows, interleave_three(to, from, from_stride, cols), cols);
  }
  if (rows < kSide || cols < kSide) return one_by_one(0, rows, 0, cols);
  // The last block may overlap the one before it, but a sum may not be added twice.
  const int64_t whole_rows = kAdd ? rows - rows % kSide : rows;
  const int64_t whole_cols = kAdd ? cols - cols % kSide : cols;
  for (int64_t i = 0; i < whole_rows; i += kSide) {
    for (int64_t j = 0; j < whole_cols; j += kSide) {
      block(smaller(i, rows - kSide), smaller(j, cols - kSide));
    }
  }
  one_by_one(0, whole_rows, whole_cols, cols);
  one_by_one(whole_rows, rows, 0, cols);
}

}  // namespace pydenoise::cpu
