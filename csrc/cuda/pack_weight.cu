#include "cuda/conv2d.h"
#include "cuda/launch.cuh"

namespace pydenoise::cuda {
namespace {

// Packed index (group, tap, source, dest); weights lie as (out channel, in channel, tap).
template <class T>
__global__ void __launch_bounds__(kThreads)
    pack_kernel(T* packed, const T* weight, uint32_t count, Divisor dest, Divisor source,
                Divisor taps, uint32_t source_stride, uint32_t dest_stride) {
  for (auto i = static_cast<uint32_t>(first_element()); i < count;
       i += static_cast<uint32_t>(element_step())) {
    const uint32_t rest = quotient(i, dest), above = quotient(rest, source);
    const uint32_t group = quotient(above, taps), tap = above - group * taps.by;
    packed[i] =
        weight[group * (taps.by * source.by * dest.by) + (i - rest * dest.by) * dest_stride +
               (rest - above * source.by) * source_stride + tap];
  }
}

}  // namespace

template <class T>
Status pack_weight(T* packed, const T* weight, const Direction& d, cudaStream_t stream) {
  const auto narrow = [](int64_t number) { return static_cast<uint32_t>(number); };
  const int64_t taps = d.shape.taps();
  const int64_t count = d.shape.groups * taps * d.source_channels() * d.dest_channels();
  return launch(pack_kernel<T>, blocks_over(count), kThreads, 0, stream, packed, weight,
                narrow(count), divisor(narrow(d.dest_channels())),
                divisor(narrow(d.source_channels())), divisor(narrow(taps)),
                narrow(d.weight_source_stride()), narrow(d.weight_dest_stride()));
}

template Status pack_weight(float*, const float*, const Direction&, cudaStream_t);
template Status pack_weight(double*, const double*, const Direction&, cudaStream_t);

}  // namespace pydenoise::cuda
