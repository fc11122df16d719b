// Micro-kernels for AVX2 with FMA: 16 registers of 32 bytes.
//   4 x 3 vectors: 12 accumulators + 3 of the right side + 1 broadcast = all 16
//   6 x 2, 12 x 1 and narrower ones for what these do not divide
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
constexpr bool kFused = true;
#include "cpu/im2col.inl"
#include "cpu/pointwise.inl"
#include "cpu/pooling.inl"

// Keeps the compiler from loading a value again for each instruction that uses it.
template <class V>
V in_register(V v) {
  asm("" : "+x"(v));
  return v;
}

struct Floats {
  using T = float;
  using V = __m256;
  static constexpr int kLanes = 8;
  static V zero() { return _mm256_setzero_ps(); }
  static V load(const T* p) { return _mm256_loadu_ps(p); }
  static V load_some(const T* p, int lanes) { return _mm256_maskload_ps(p, first(lanes)); }
  static V load_once(const T* p) { return in_register(load(p)); }
  static V broadcast(const T* p) { return _mm256_broadcast_ss(p); }
  static void store(T* p, V v) { _mm256_storeu_ps(p, v); }
  static void store_some(T* p, V v, int lanes) {  // masked stores are slow on many processors
    lanes == kLanes ? store(p, v) : _mm256_maskstore_ps(p, first(lanes), v);
  }
  static V add(V a, V b) { return _mm256_add_ps(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
  static V relu(V x) { return _mm256_max_ps(zero(), x); }  // the second operand where one is NaN
  static V relu_backward(V gradient, V output) {
    return _mm256_andnot_ps(_mm256_cmp_ps(output, zero(), _CMP_LE_OQ), gradient);
  }
  static V leaky_relu(V value, V sign, T slope) {
    const V scaled = _mm256_mul_ps(value, _mm256_set1_ps(slope));
    return _mm256_blendv_ps(scaled, value, _mm256_cmp_ps(sign, zero(), _CMP_GT_OQ));
  }
  static __m256i first(int lanes) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), lane);
  }
};

struct Doubles {
  using T = double;
  using V = __m256d;
  static constexpr int kLanes = 4;
  static V zero() { return _mm256_setzero_pd(); }
  static V load(const T* p) { return _mm256_loadu_pd(p); }
  static V load_some(const T* p, int lanes) { return _mm256_maskload_pd(p, first(lanes)); }
  static V load_once(const T* p) { return in_register(load(p)); }
  static V broadcast(const T* p) { return _mm256_broadcast_sd(p); }
  static void store(T* p, V v) { _mm256_storeu_pd(p, v); }
  static void store_some(T* p, V v, int lanes) {
    lanes == kLanes ? store(p, v) : _mm256_maskstore_pd(p, first(lanes), v);
  }
  static V add(V a, V b) { return _mm256_add_pd(a, b); }
  static V multiply_add(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
  static V relu(V x) { return _mm256_max_pd(zero(), x); }
  static V relu_backward(V gradient, V output) {
    return _mm256_andnot_pd(_mm256_cmp_pd(output, zero(), _CMP_LE_OQ), gradient);
  }
  static V leaky_relu(V value, V sign, T slope) {
    const V scaled = _mm256_mul_pd(value, _mm256_set1_pd(slope));
    return _mm256_blendv_pd(scaled, value, _mm256_cmp_pd(sign, zero(), _CMP_GT_OQ));
  }
  static __m256i first(int lanes) {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(lanes), lane);
  }
};

#include "cpu/ukernel.inl"
#include "cpu/winograd.inl"
#include "cpu/ruler.inl"
#include "cpu/kernels.inl"

constexpr OuterKernel<float> kFloatOuter[] = {{4, 24, 12, outer_kernel<Floats, 4, 3>},
                                              {6, 16, 12, outer_kernel<Floats, 6, 2>},
                                              {4, 16, 9, outer_kernel<Floats, 4, 2>},
                                              {9, 8, 10, outer_kernel<Floats, 9, 1>},
                                              {12, 8, 13, outer_kernel<Floats, 12, 1>}};
constexpr OuterKernel<double> kDoubleOuter[] = {{4, 12, 12, outer_kernel<Doubles, 4, 3>},
                                                {6, 8, 12, outer_kernel<Doubles, 6, 2>},
                                                {12, 4, 13, outer_kernel<Doubles, 12, 1>}};
constexpr GatherKernel<float> kFloatGather[] = {{4, 24, 30, gather_kernel<Floats, 4, 3>},
                                                {6, 16, 21, gather_kernel<Floats, 6, 2>},
                                                {8, 8, 12, gather_kernel<Floats, 8, 1>}};
constexpr GatherKernel<double> kDoubleGather[] = {{4, 12, 30, gather_kernel<Doubles, 4, 3>},
                                                  {6, 8, 21, gather_kernel<Doubles, 6, 2>},
                                                  {8, 4, 12, gather_kernel<Doubles, 8, 1>}};
constexpr PlaneKernel<float> kFloatPlane[] = {{1, 8, Floats::kLanes, plane_kernel<Floats, 1, 8>},
                                              {2, 6, Floats::kLanes, plane_kernel<Floats, 2, 6>},
                                              {3, 4, Floats::kLanes, plane_kernel<Floats, 3, 4>},
                                              {4, 3, Floats::kLanes, plane_kernel<Floats, 4, 3>}};
constexpr PlaneKernel<double> kDoublePlane[] = {
    {1, 8, Doubles::kLanes, plane_kernel<Doubles, 1, 8>},
    {2, 6, Doubles::kLanes, plane_kernel<Doubles, 2, 6>},
    {3, 4, Doubles::kLanes, plane_kernel<Doubles, 3, 4>},
    {4, 3, Doubles::kLanes, plane_kernel<Doubles, 4, 3>}};

}  // namespace

Kernels<float> float_kernels_avx2() {
  return kernels<Floats, 12>(table(kFloatOuter), table(kFloatGather), table(kFloatPlane));
}
Kernels<double> double_kernels_avx2() {
  return kernels<Doubles, 12>(table(kDoubleOuter), table(kDoubleGather), table(kDoublePlane));
}

}  // namespace pydenoise::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif  // __x86_64__
