#include "cuda/product_float.cuh"

namespace pydenoise::cuda {

extern template Status multiply_float<true>(const Product<float>&, const Access&, cudaStream_t);

namespace {

// Tensor cores that take TF32 are there from 8.0 on.
bool has_tf32() {
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         major >= 8;
}

}  // namespace

Status multiply(const Product<float>& p, bool tf32, cudaStream_t stream) {
  const Access access = access_of(p);
  if (tf32 && p.columns > kNarrowColumns && has_tf32()) return multiply_tf32(p, access, stream);
  return access.left_along_steps ? multiply_float<true>(p, access, stream)
                                 : multiply_float<false>(p, access, stream);
}

}  // namespace pydenoise::cuda
