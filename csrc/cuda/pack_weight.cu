#include "cuda/conv2d.h"
#include "cuda/launch.cuh"

namespace pydenoise::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(T* packed, const T* weight, int64_t count, const Unpacked from) {
  for (int64_t i = first_element(); i < count; i += element_step()) {
    packed[i] = weight[unpacked_index(from, static_cast<uint32_t>(i))];
  }
}

}  // namespace

template <class T>
Status pack_weight(T* packed, const T* weight, const Direction& d, cudaStream_t stream) {
  const int64_t count = d.shape.groups * d.shape.taps() * d.source_channels() * d.dest_channels();
  return launch(pack_kernel<T>, blocks_over(count), kThreads, 0, stream, packed, weight, count,
                unpacked(d));
}

template Status pack_weight(float*, const float*, const Direction&, cudaStream_t);
template Status pack_weight(double*, const double*, const Direction&, cudaStream_t);

}  // namespace pydenoise::cuda
