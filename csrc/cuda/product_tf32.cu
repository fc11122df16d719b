#include "cuda/product.cuh"

namespace pydenoise::cuda {

Status multiply_tf32(const Product<float>& p, const Access& access, cudaStream_t stream) {
  switch (large_tile(p)) {
    case 64:
      return run<Tf32Large64>(p, access, stream);
    case 48:
      return run<Tf32Large48>(p, access, stream);
    default:
      return run<Tf32Small>(p, access, stream);
  }
}

}  // namespace pydenoise::cuda
