#include "cuda/product.cuh"

namespace pydenoise::cuda {
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
  if (p.columns <= FloatNarrow::kCols) return run<FloatNarrow>(p, access, stream);
  if (tf32 && has_tf32()) return multiply_tf32(p, access, stream);
  switch (large_tile(p)) {
    case 64:
      return run<FloatLarge64>(p, access, stream);
    case 48:
      return run<FloatLarge48>(p, access, stream);
    default:
      return run<FloatSmall>(p, access, stream);
  }
}

}  // namespace pydenoise::cuda
