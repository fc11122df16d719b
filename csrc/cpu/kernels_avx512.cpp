// Micro-kernels for AVX-512: 32 registers of 64 bytes.
//   8 x 3 vectors: 24 accumulators + 3 of the right side + 1 broadcast = 28 of 32
//   6 x 4, 14 x 2, 9 x 3 and narrower ones for what these do not divide
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
constexpr bool kFused = true;
#include "cpu/im2col.inl"
#include "cpu/pointwise.inl"
#include "cpu/pooling.inl"

// Keeps the compiler from loading a value again for each instruction that uses it.
template <class V>
V in_register(V v) {
  asm("" : "+v"(v));
  return v;
}

struct Floats {
  using T = float;
  using V = __m512;
  static constexpr int kLanes = 16;
  static V zero() { return _mm512_setzero_ps(); }
  static V load(const T* p) { return _mm512_loadu_ps(p); }
  static V load_some(const T* p, int lanes) { return _mm512_maskz_loadu_ps(first(lanes), p); }
  static V load_once(const T* p) { return in_register(load(p)); }
  static V broadcast(const T* p) { return _mm512_set1_ps(*p); }
  static void store(T* p, V v) { _mm512_storeu_ps(p, v); }
  static void store_some(T* p, V v, int lanes) { _mm512_mask_storeu_ps(p, first(lanes), v); }
  static V add(V a, V b) { return _mm512_add_ps(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
  static V relu(V x) {
    return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, zero(), _CMP_LT_OQ), zero());
  }
  static V relu_backward(V gradient, V output) {
    const __mmask16 off = _mm512_cmp_ps_mask(output, zero(), _CMP_LE_OQ);
    return _mm512_mask_mov_ps(gradient, off, zero());
  }
  static V leaky_relu(V value, V sign, T slope) {
    const __mmask16 on = _mm512_cmp_ps_mask(sign, zero(), _CMP_GT_OQ);
    return _mm512_mask_mov_ps(_mm512_mul_ps(value, _mm512_set1_ps(slope)), on, value);
  }
  static __mmask16 first(int lanes) { return static_cast<__mmask16>((1U << lanes) - 1); }
};

struct Doubles {
  using T = double;
  using V = __m512d;
  static constexpr int kLanes = 8;
  static V zero() { return _mm512_setzero_pd(); }
  static V load(const T* p) { return _mm512_loadu_pd(p); }
  static V load_some(const T* p, int lanes) { return _mm512_maskz_loadu_pd(first(lanes), p); }
  static V load_once(const T* p) { return in_register(load(p)); }
  static V broadcast(const T* p) { return _mm512_set1_pd(*p); }
  static void store(T* p, V v) { _mm512_storeu_pd(p, v); }
  static void store_some(T* p, V v, int lanes) { _mm512_mask_storeu_pd(p, first(lanes), v); }
  static V add(V a, V b) { return _mm512_add_pd(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
  static V relu(V x) {
    return _mm512_mask_mov_pd(x, _mm512_cmp_pd_mask(x, zero(), _CMP_LT_OQ), zero());
  }
  static V relu_backward(V gradient, V output) {
    const __mmask8 off = _mm512_cmp_pd_mask(output, zero(), _CMP_LE_OQ);
    return _mm512_mask_mov_pd(gradient, off, zero());
  }
  static V leaky_relu(V value, V sign, T slope) {
    const __mmask8 on = _mm512_cmp_pd_mask(sign, zero(), _CMP_GT_OQ);
    return _mm512_mask_mov_pd(_mm512_mul_pd(value, _mm512_set1_pd(slope)), on, value);
  }
  static __mmask8 first(int lanes) { return static_cast<__mmask8>((1U << lanes) - 1); }
};

#include "cpu/ukernel.inl"
#include "cpu/winograd.inl"
#include "cpu/ruler.inl"
#include "cpu/kernels.inl"

constexpr OuterKernel<float> kFloatOuter[] = {
    {14, 32, 28, outer_kernel<Floats, 14, 2>}, {8, 48, 24, outer_kernel<Floats, 8, 3>},
    {9, 48, 27, outer_kernel<Floats, 9, 3>},   {8, 32, 16, outer_kernel<Floats, 8, 2>},
    {4, 64, 17, outer_kernel<Floats, 4, 4>},   {16, 16, 20, outer_kernel<Floats, 16, 1>}};
constexpr OuterKernel<double> kDoubleOuter[] = {{8, 24, 24, outer_kernel<Doubles, 8, 3>},
                                                {8, 16, 16, outer_kernel<Doubles, 8, 2>},
                                                {16, 8, 20, outer_kernel<Doubles, 16, 1>}};
constexpr GatherKernel<float> kFloatGather[] = {{6, 64, 41, gather_kernel<Floats, 6, 4>},
                                                {8, 48, 32, gather_kernel<Floats, 8, 3>},
                                                {8, 32, 22, gather_kernel<Floats, 8, 2>},
                                                {8, 16, 13, gather_kernel<Floats, 8, 1>}};
constexpr GatherKernel<double> kDoubleGather[] = {{8, 24, 32, gather_kernel<Doubles, 8, 3>},
                                                  {8, 16, 22, gather_kernel<Doubles, 8, 2>},
                                                  {8, 8, 13, gather_kernel<Doubles, 8, 1>}};
constexpr PlaneKernel<float> kFloatPlane[] = {{1, 8, Floats::kLanes, plane_kernel<Floats, 1, 8>},
                                              {2, 8, Floats::kLanes, plane_kernel<Floats, 2, 8>},
                                              {3, 8, Floats::kLanes, plane_kernel<Floats, 3, 8>},
                                              {4, 6, Floats::kLanes, plane_kernel<Floats, 4, 6>}};
constexpr PlaneKernel<double> kDoublePlane[] = {
    {1, 8, Doubles::kLanes, plane_kernel<Doubles, 1, 8>},
    {2, 8, Doubles::kLanes, plane_kernel<Doubles, 2, 8>},
    {3, 8, Doubles::kLanes, plane_kernel<Doubles, 3, 8>},
    {4, 6, Doubles::kLanes, plane_kernel<Doubles, 4, 6>}};

}  // namespace

Kernels<float> float_kernels_avx512() {
  return kernels<Floats, 24>(table(kFloatOuter), table(kFloatGather), table(kFloatPlane));
}
Kernels<double> double_kernels_avx512() {
  return kernels<Doubles, 24>(table(kDoubleOuter), table(kDoubleGather), table(kDoublePlane));
}

}  // namespace pydenoise::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
