// Products of float: the tiles of one order of the left panel in each of two files, which compile
// side by side.
#pragma once

#include "cuda/product.cuh"

namespace pydenoise::cuda {

template <bool by_steps>
struct FloatTiles {
  static constexpr const auto& all = kFloatTiles;
  template <int i>
  using Multiply = Fma<float, all[i].depth, all[i].rows, all[i].columns, all[i].rows / 16,
                       all[i].columns / 8, all[i].resident, all[i].stages, by_steps>;
};

template <bool by_steps>
using Narrow = Fma<float, kNarrowTile.depth, kNarrowTile.rows, kNarrowTile.columns, 1,
                   kNarrowColumns, kNarrowTile.resident, kNarrowTile.stages, by_steps>;

template <bool by_steps>
Status multiply_float(const Product<float>& p, const Access& access, cudaStream_t stream) {
  if (p.columns <= kNarrowColumns) return run<Narrow<by_steps>>(p, access, stream);
  return run_quickest<FloatTiles<by_steps>>(p, access, stream);
}

}  // namespace pydenoise::cuda
