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

template <bool by_steps>
Status multiply_as(const Product<float>& p, const Access& access, cudaStream_t stream) {
  if (p.columns <= kNarrowColumns) return run<FloatNarrow<by_steps>>(p, access, stream);
  const TileSize tile = tile_of(p);
  if (tile.rows == kMediumRows) {
    return run<FloatTile<kMediumRows, 48, 4, by_steps>>(p, access, stream);
  }
  if (tile.rows == kSmallTile) return run<FloatSmall<by_steps>>(p, access, stream);
  switch (tile.columns) {
    case 64:
      return run<FloatTile<kLargeRows, 64, 3, by_steps>>(p, access, stream);
    case 48:
      return run<FloatTile<kLargeRows, 48, 4, by_steps>>(p, access, stream);
    default:
      return run<FloatTile<kLargeRows, 32, 3, by_steps>>(p, access, stream);
  }
}

}  // namespace

Status multiply(const Product<float>& p, bool tf32, cudaStream_t stream) {
  const Access access = access_of(p);
  if (tf32 && p.columns > kNarrowColumns && has_tf32()) return multiply_tf32(p, access, stream);
  return access.left_along_steps ? multiply_as<true>(p, access, stream)
                                 : multiply_as<false>(p, access, stream);
}

}  // namespace pydenoise::cuda
