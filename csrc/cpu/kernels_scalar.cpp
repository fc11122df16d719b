// Micro-kernels for every machine: vectors of 16 bytes in the compiler's own notation, which it
// turns into whatever the machine has. A product and a sum each round here, there is no fused
// multiply-add to count on.
#include <cstring>
#include <utility>

#include "cpu/kernels.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kVectorBytes = 16;
constexpr bool kFused = false;
#include "cpu/im2col.inl"
#include "cpu/pointwise.inl"
#include "cpu/pooling.inl"

template <class Element, class Vector>
struct Portable {
  using T = Element;
  using V = Vector;
  static constexpr int kLanes = sizeof(V) / sizeof(T);
  static V zero() { return V{}; }
  static V load(const T* p) { return load_some(p, kLanes); }
  static V load_some(const T* p, int lanes) {
    V v = zero();
    std::memcpy(&v, p, static_cast<size_t>(lanes) * sizeof(T));
    return v;
  }
  static V load_once(const T* p) { return load(p); }
  static V broadcast(const T* p) { return zero() + *p; }
  static void store(T* p, V v) { store_some(p, v, kLanes); }
  static void store_some(T* p, V v, int lanes) {
    std::memcpy(p, &v, static_cast<size_t>(lanes) * sizeof(T));
  }
  static V add(V a, V b) { return a + b; }
  static V multiply_add(V a, V b, V c) { return a * b + c; }
  static V relu(V x) { return x < zero() ? zero() : x; }
  static V relu_backward(V gradient, V output) { return output <= zero() ? zero() : gradient; }
  static V leaky_relu(V value, V sign, T slope) { return sign > zero() ? value : value * slope; }
};

using Floats = Portable<float, float __attribute__((vector_size(16)))>;
using Doubles = Portable<double, double __attribute__((vector_size(16)))>;

#include "cpu/ukernel.inl"
#include "cpu/winograd.inl"
#include "cpu/ruler.inl"
#include "cpu/kernels.inl"

constexpr OuterKernel<float> kFloatOuter[] = {{4, 8, 8, outer_kernel<Floats, 4, 2>}};
constexpr OuterKernel<double> kDoubleOuter[] = {{4, 4, 8, outer_kernel<Doubles, 4, 2>}};
constexpr GatherKernel<float> kFloatGather[] = {{4, 8, 20, gather_kernel<Floats, 4, 2>},
                                                {8, 4, 11, gather_kernel<Floats, 8, 1>}};
constexpr GatherKernel<double> kDoubleGather[] = {{4, 4, 20, gather_kernel<Doubles, 4, 2>},
                                                  {8, 2, 11, gather_kernel<Doubles, 8, 1>}};
constexpr PlaneKernel<float> kFloatPlane[] = {{1, 8, Floats::kLanes, plane_kernel<Floats, 1, 8>},
                                              {2, 4, Floats::kLanes, plane_kernel<Floats, 2, 4>},
                                              {3, 3, Floats::kLanes, plane_kernel<Floats, 3, 3>},
                                              {4, 2, Floats::kLanes, plane_kernel<Floats, 4, 2>}};
constexpr PlaneKernel<double> kDoublePlane[] = {
    {1, 8, Doubles::kLanes, plane_kernel<Doubles, 1, 8>},
    {2, 4, Doubles::kLanes, plane_kernel<Doubles, 2, 4>},
    {3, 3, Doubles::kLanes, plane_kernel<Doubles, 3, 3>},
    {4, 2, Doubles::kLanes, plane_kernel<Doubles, 4, 2>}};

}  // namespace

Kernels<float> float_kernels_scalar() {
  return kernels<Floats, 12>(table(kFloatOuter), table(kFloatGather), table(kFloatPlane));
}
Kernels<double> double_kernels_scalar() {
  return kernels<Doubles, 12>(table(kDoubleOuter), table(kDoubleGather), table(kDoublePlane));
}

}  // namespace pydenoise::cpu
