#include "cuda/product.cuh"

namespace pydenoise::cuda {
namespace {

template <bool by_steps>
Status multiply_as(const Product<float>& p, const Access& access, cudaStream_t stream) {
  const TileSize tile = tile_of(p);
  if (tile.rows < kLargeRows) return run<Tf32Small<by_steps>>(p, access, stream);
  switch (tile.columns) {
    case 64:
      return run<Tf32Large<64, by_steps>>(p, access, stream);
    case 48:
      return run<Tf32Large<48, by_steps>>(p, access, stream);
    default:
      return run<Tf32Large<32, by_steps>>(p, access, stream);
  }
}

}  // namespace

Status multiply_tf32(const Product<float>& p, const Access& access, cudaStream_t stream) {
  return access.left_along_steps ? multiply_as<true>(p, access, stream)
                                 : multiply_as<false>(p, access, stream);
}

}  // namespace pydenoise::cuda
