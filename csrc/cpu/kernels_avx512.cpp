// Micro-kernels for AVX-512: 32 registers of 64 bytes; A comes as a broadcast memory operand.
//  14 x 2 vectors: 28 accumulators + 2 of B = 30 of 32
//  12, 8 or 4 x 2:   for what 14 does not divide
//  24 x 1 vector:   24 accumulators + 1 of B, for narrow C
#include <utility>

#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif

namespace pydenoise::cpu {
namespace {

constexpr int64_t kVectorBytes = 64;
#include "cpu/im2col.inl"

struct Floats {
  using T = float;
  using V = __m512;
  static constexpr int kLanes = 16;
  static V zero() { return _mm512_setzero_ps(); }
  static V load(const T* p) { return _mm512_load_ps(p); }
  static V broadcast(const T* p) { return _mm512_set1_ps(*p); }
  static void store(T* p, V v) { _mm512_store_ps(p, v); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
};

struct Doubles {
  using T = double;
  using V = __m512d;
  static constexpr int kLanes = 8;
  static V zero() { return _mm512_setzero_pd(); }
  static V load(const T* p) { return _mm512_load_pd(p); }
  static V broadcast(const T* p) { return _mm512_set1_pd(*p); }
  static void store(T* p, V v) { _mm512_store_pd(p, v); }
  static V add(V a, V b) { return _mm512_add_pd(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
};

#include "cpu/ukernel.inl"

constexpr Ukernel<float> kFloat[] = {{14, 32, 44, ukernel<Floats, 14, 2>},
                                     {12, 32, 38, ukernel<Floats, 12, 2>},
                                     {8, 32, 26, ukernel<Floats, 8, 2>},
                                     {4, 32, 14, ukernel<Floats, 4, 2>},
                                     {24, 16, 49, ukernel<Floats, 24, 1>}};
constexpr Ukernel<double> kDouble[] = {{14, 16, 44, ukernel<Doubles, 14, 2>},
                                       {12, 16, 38, ukernel<Doubles, 12, 2>},
                                       {8, 16, 26, ukernel<Doubles, 8, 2>},
                                       {4, 16, 14, ukernel<Doubles, 4, 2>},
                                       {24, 8, 49, ukernel<Doubles, 24, 1>}};

}  // namespace

Kernels<float> float_kernels_avx512() {
  return {kFloat, sizeof kFloat / sizeof *kFloat, im2col_channels<float>, col2im_channels<float>};
}
Kernels<double> double_kernels_avx512() {
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
