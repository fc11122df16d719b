#include "cpu/im2col.h"

#include "cpu/integers.h"
#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Where a pixel's channels lie side by side a task takes as many as share cache lines; where large
// strides go over the pictures in many passes, as many as stay in the caches.
constexpr int64_t kChannelBlock = 8;
constexpr int64_t kTasksPerThread = 4;
// A task of fewer bytes of columns costs more to plan than it is worth.
constexpr int64_t kTaskBytes = int64_t{256} << 10;
// Columns of more bytes leave the caches, and take pictures with them, before they are used again:
// they are written past the caches, and so is a picture that so many were read for.
constexpr int64_t kColumnsStreamed = int64_t{16} << 20, kColumnsPassing = int64_t{4} << 20;

template <class T>
int64_t columns_bytes(const ConvShape& s) {
  return s.batch * s.in_channels * s.taps() * s.out_pixels() * static_cast<int64_t>(sizeof(T));
}

// Calls body(picture, first channel, number of channels) on several threads. Dense pictures are
// one row of channels, of which a task takes many: it plans once for all.
template <class T, class Body>
void for_each_run_of_channels(const ImageView<T>& image, const ConvShape& s, const Body& body) {
  const bool in_a_row = image.stride_n == s.in_channels * image.stride_c;
  const int64_t pictures = in_a_row ? 1 : s.batch, threads = thread_count();
  const int64_t channels = in_a_row ? s.batch * s.in_channels : s.in_channels;
  const int64_t worthwhile = larger(columns_bytes<T>(s) / kTaskBytes, threads);
  const int64_t tasks = threads == 1 ? 1 : smaller(worthwhile, threads * kTasksPerThread);
  const bool in_passes = s.stride_h > 2 || s.stride_w > 2;
  const int64_t block =
      in_a_row && !in_passes ? larger(ceil_div(channels, tasks), 1) : kChannelBlock;
  const int64_t blocks = ceil_div(channels, block);
  parallel_tasks(pictures * blocks, threads, [&](int64_t task, int64_t) {
    const int64_t first = task % blocks * block;
    body(task / blocks, first, smaller(block, channels - first));
  });
}

}  // namespace

template <class T>
void im2col(T* columns, ImageView<const T> input, const ConvShape& s) {
  const Kernels<T> kernels = kernels_in_use<T>();
  const bool streams = columns_bytes<T>(s) > kColumnsStreamed;
  for_each_run_of_channels(input, s, [&](int64_t n, int64_t first, int64_t count) {
    T* to = columns + (n * s.in_channels + first) * s.taps() * s.out_pixels();
    kernels.im2col_channels(to, input.at(n, first), input.stride_c, input.stride_h, input.stride_w,
                            count, s, streams);
  });
}

template <class T>
void col2im(ImageView<T> output, const T* columns, const ConvShape& s) {
  const Kernels<T> kernels = kernels_in_use<T>();
  const bool streams = columns_bytes<T>(s) > kColumnsPassing;
  for_each_run_of_channels(output, s, [&](int64_t n, int64_t first, int64_t count) {
    const T* from = columns + (n * s.in_channels + first) * s.taps() * s.out_pixels();
    kernels.col2im_channels(output.at(n, first), output.stride_c, output.stride_h, output.stride_w,
                            from, count, s, streams);
  });
}

template void im2col(float*, ImageView<const float>, const ConvShape&);
template void im2col(double*, ImageView<const double>, const ConvShape&);
template void col2im(ImageView<float>, const float*, const ConvShape&);
template void col2im(ImageView<double>, const double*, const ConvShape&);

}  // namespace pydenoise::cpu
