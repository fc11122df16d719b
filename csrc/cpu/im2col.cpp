#include "cpu/im2col.h"

#include "cpu/integers.h"
#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Channels taken by one task: enough work, and in channels_last pictures neighbours that share
// cache lines.
constexpr int64_t kChannelBlock = 8;

// Calls body(picture, first channel, number of channels) on several threads.
template <class Body>
void for_each_channel_block(const ConvShape& s, const Body& body) {
  const int64_t blocks = ceil_div(s.in_channels, kChannelBlock);
  parallel_tasks(s.batch * blocks, thread_count(), [&](int64_t task, int64_t) {
    const int64_t first = task % blocks * kChannelBlock;
    body(task / blocks, first, smaller(kChannelBlock, s.in_channels - first));
  });
}

}  // namespace

template <class T>
void im2col(T* columns, ImageView<const T> input, const ConvShape& s) {
  const Kernels<T> kernels = kernels_in_use<T>();
  for_each_channel_block(s, [&](int64_t n, int64_t first, int64_t count) {
    T* to = columns + (n * s.in_channels + first) * s.taps() * s.out_pixels();
    kernels.im2col_channels(to, input.at(n, first), input.stride_c, input.stride_h, input.stride_w,
                            count, s);
  });
}

template <class T>
void col2im(ImageView<T> output, const T* columns, const ConvShape& s) {
  const Kernels<T> kernels = kernels_in_use<T>();
  for_each_channel_block(s, [&](int64_t n, int64_t first, int64_t count) {
    const T* from = columns + (n * s.in_channels + first) * s.taps() * s.out_pixels();
    kernels.col2im_channels(output.at(n, first), output.stride_c, output.stride_h, output.stride_w,
                            from, count, s);
  });
}

template void im2col(float*, ImageView<const float>, const ConvShape&);
template void im2col(double*, ImageView<const double>, const ConvShape&);
template void col2im(ImageView<float>, const float*, const ConvShape&);
template void col2im(ImageView<double>, const double*, const ConvShape&);

}  // namespace pydenoise::cpu
