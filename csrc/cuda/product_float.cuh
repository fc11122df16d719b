// Products of float: the tiles of one order of the left panel in each of two files, which compile
// side by side.
#pragma once

#include "cuda/product.cuh"

namespace pydenoise::cuda {

template <bool by_steps>
Status multiply_float(const Product<float>& p, const Access& access, cudaStream_t stream) {
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

}  // namespace pydenoise::cuda
