#include "cuda/product.cuh"

namespace pydenoise::cuda {
namespace {

template <bool by_steps>
struct Tf32Tiles {
  static constexpr const auto& all = kTf32Tiles;
  template <int i>
  using Multiply = Tf32<all[i].depth, all[i].rows, all[i].columns, 2, 2, all[i].resident,
                        all[i].stages, by_steps>;
};

}  // namespace

Status multiply_tf32(const Product<float>& p, const Access& access, cudaStream_t stream) {
  return access.left_along_steps ? run_quickest<Tf32Tiles<true>>(p, access, stream)
                                 : run_quickest<Tf32Tiles<false>>(p, access, stream);
}

}  // namespace pydenoise::cuda
