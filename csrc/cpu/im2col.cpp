#include "cpu/im2col.h"

#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Channels taken by one task: enough work, and in channels_last pictures neighbours that share
// cache lines.
constexpr int64_t kChannelBlock = 16;

// Calls body(picture, channel) on several threads.
template <class Body>
void for_each_channel(const ConvShape& s, const Body& body) {
  const int64_t blocks = ceil_div(s.in_channels, kChannelBlock);
  parallel_tasks(s.batch * blocks, thread_count(), [&](int64_t task, int64_t) {
    const int64_t first = task % blocks * kChannelBlock;
    const int64_t end = smaller(first + kChannelBlock, s.in_channels);
    for (int64_t c = first; c < end; ++c) body(task / blocks, c);
  });
}

}  // namespace

template <class T>
void im2col(T* columns, ImageView<const T> input, const ConvShape& s) {
  const Kernels<T> kernels = kernels_in_use<T>();
  for_each_channel(s, [&](int64_t n, int64_t c) {
    kernels.im2col_channel(columns + (n * s.in_channels + c) * s.taps() * s.out_pixels(),
                           input.at(n, c), input.stride_h, input.stride_w, s);
  });
}

template <class T>
void col2im(ImageView<T> output, const T* columns, const ConvShape& s) {
  const Kernels<T> kernels = kernels_in_use<T>();
  for_each_channel(s, [&](int64_t n, int64_t c) {
    kernels.col2im_channel(output.at(n, c), output.stride_h, output.stride_w,
                           columns + (n * s.in_channels + c) * s.taps() * s.out_pixels(), s);
  });
}

template void im2col(float*, ImageView<const float>, const ConvShape&);
template void im2col(double*, ImageView<const double>, const ConvShape&);
template void col2im(ImageView<float>, const float*, const ConvShape&);
template void col2im(ImageView<double>, const double*, const ConvShape&);

}  // namespace pydenoise::cpu
