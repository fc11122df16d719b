// Micro-kernels for AVX2 with FMA: 16 registers of 32 bytes.
//   6 x 2 vectors: 12 accumulators + 2 of B + 1 of A = 15 of 16
//   4 x 2 vectors:  8 accumulators, for what 6 does not divide
//  12 x 1 vector:  12 accumulators + 1 of B + 1 of A = 14, for narrow C
#include <utility>

#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace pydenoise::cpu {
namespace {

constexpr int64_t kVectorBytes = 32;
#include "cpu/im2col.inl"

struct Floats {
  using T = float;
  using V = __m256;
  static constexpr int kLanes = 8;
  static V zero() { return _mm256_setzero_ps(); }
  static V load(const T* p) { return _mm256_load_ps(p); }
  static V broadcast(const T* p) { return _mm256_broadcast_ss(p); }
  static void store(T* p, V v) { _mm256_store_ps(p, v); }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
};

struct Doubles {
  using T = double;
  using V = __m256d;
  static constexpr int kLanes = 4;
  static V zero() { return _mm256_setzero_pd(); }
  static V load(const T* p) { return _mm256_load_pd(p); }
  static V broadcast(const T* p) { return _mm256_broadcast_sd(p); }
  static void store(T* p, V v) { _mm256_store_pd(p, v); }
  static V add(V a, V b) { return _mm256_add_pd(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
};

#include "cpu/ukernel.inl"

constexpr Ukernel<float> kFloat[] = {{6, 16, 20, ukernel<Floats, 6, 2>},
                                     {4, 16, 14, ukernel<Floats, 4, 2>},
                                     {12, 8, 25, ukernel<Floats, 12, 1>}};
constexpr Ukernel<double> kDouble[] = {{6, 8, 20, ukernel<Doubles, 6, 2>},
                                       {4, 8, 14, ukernel<Doubles, 4, 2>},
                                       {12, 4, 25, ukernel<Doubles, 12, 1>}};

}  // namespace

Kernels<float> float_kernels_avx2() {
  return {kFloat, sizeof kFloat / sizeof *kFloat, im2col_channels<float>, col2im_channels<float>};
}
Kernels<double> double_kernels_avx2() {
  return {kDouble, sizeof kDouble / sizeof *kDouble, im2col_channels<double>,
          col2im_channels<double>};
}

}  // namespace pydenoise::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
