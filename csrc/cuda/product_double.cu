#include "cuda/product.cuh"

namespace pydenoise::cuda {
namespace {

template <bool by_steps>
using Double = Fma<double, 16, 32, 32, 4, 2, 4, 3, by_steps>;

}  // namespace

Status multiply(const Product<double>& p, bool, cudaStream_t stream) {
  const Access access = access_of(p);
  return access.left_along_steps ? run<Double<true>>(p, access, stream)
                                 : run<Double<false>>(p, access, stream);
}

}  // namespace pydenoise::cuda
