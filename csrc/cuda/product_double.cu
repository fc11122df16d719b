#include "cuda/product.cuh"

namespace pydenoise::cuda {

Status multiply(const Product<double>& p, bool, cudaStream_t stream) {
  const Access access = access_of(p);
  if (access.left_along_steps) return run<DoubleSmall<true>>(p, access, stream);
  return run<DoubleSmall<false>>(p, access, stream);
}

}  // namespace pydenoise::cuda
