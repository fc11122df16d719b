#include "cuda/product.cuh"

namespace pydenoise::cuda {

Status multiply(const Product<double>& p, bool, cudaStream_t stream) {
  return run<DoubleSmall>(p, access_of(p), stream);
}

}  // namespace pydenoise::cuda
