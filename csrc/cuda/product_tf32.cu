#include "cuda/product.cuh"

namespace pydenoise::cuda {

Status multiply_tf32(const Product<float>& p, const Access& access, cudaStream_t stream) {
  const bool fills = p.columns > Tf32Small::kCols && blocks_of<Tf32Large>(p) >= kEnoughBlocks;
  return fills ? run<Tf32Large>(p, access, stream) : run<Tf32Small>(p, access, stream);
}

}  // namespace pydenoise::cuda
