// Micro-kernels in plain C++, for every machine; compilers turn the inner loop into vectors.
// A product and a sum each round here, there is no fused multiply-add to count on.
#include <utility>

#include "cpu/kernels.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kVectorBytes = 16;
#include "cpu/im2col.inl"

template <class T, int MR, int NR>
void ukernel(T* c, const T* a, const T* b, int64_t k, bool accumulate) {
  T sum[MR][NR];
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NR; ++j) sum[i][j] = T(0);
  }
  for (; k > 0; --k, a += MR, b += NR) {
    for (int i = 0; i < MR; ++i) {
      for (int j = 0; j < NR; ++j) sum[i][j] += a[i] * b[j];
    }
  }
  for (int i = 0; i < MR; ++i) {
    for (int j = 0; j < NR; ++j) {
      T& element = c[i * NR + j];
      element = accumulate ? element + sum[i][j] : sum[i][j];
    }
  }
}

constexpr Ukernel<float> kFloat[] = {{4, 8, 14, ukernel<float, 4, 8>}};
constexpr Ukernel<double> kDouble[] = {{4, 4, 14, ukernel<double, 4, 4>}};

}  // namespace

Kernels<float> float_kernels_scalar() {
  return {kFloat, sizeof kFloat / sizeof *kFloat, im2col_channels<float>, col2im_channels<float>};
}
Kernels<double> double_kernels_scalar() {
  return {kDouble, sizeof kDouble / sizeof *kDouble, im2col_channels<double>,
          col2im_channels<double>};
}

}  // namespace pydenoise::cpu
