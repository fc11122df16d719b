#include "cpu/im2col.h"

#include <algorithm>

#include "cpu/patches.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Rows of the patch matrix taken by one task, in channels: enough work, and in channels_last
// pictures neighbours that share cache lines.
constexpr int64_t kChannelBlock = 16;

// to[i * step] += from[i]
template <class T>
inline void add_run(T* to, const T* from, int64_t step, int64_t count) {
  if (step == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] += from[i];
  } else {
    for (int64_t i = 0; i < count; ++i) to[step * i] += from[i];
  }
}

// One (channel, tap) row of the patch matrix.
template <class T>
void fill_row(T* row, const T* plane, int64_t stride_h, int64_t stride_w, const GatherAxis& rows,
              const GatherAxis& cols, int64_t i, int64_t j) {
  const int64_t first = cols.source(0, j);
  const InsideRun in = inside_run(first, cols.step, cols.source_size, cols.count);
  for (int64_t y = 0; y < rows.count; ++y, row += cols.count) {
    const int64_t source_y = rows.source(y, i);
    if (!rows.inside(source_y)) {
      std::fill(row, row + cols.count, T(0));
      continue;
    }
    std::fill(row, row + in.begin, T(0));
    copy_run(row + in.begin,
             plane + source_y * stride_h + (first + in.begin * cols.step) * stride_w,
             cols.step * stride_w, in.end - in.begin);
    std::fill(row + in.end, row + cols.count, T(0));
  }
}

// One (channel, tap) row of the patch matrix, back into the picture.
template <class T>
void add_row(T* plane, const T* row, int64_t stride_h, int64_t stride_w, const GatherAxis& rows,
             const GatherAxis& cols, int64_t i, int64_t j) {
  const int64_t first = cols.source(0, j);
  const InsideRun in = inside_run(first, cols.step, cols.source_size, cols.count);
  for (int64_t y = 0; y < rows.count; ++y, row += cols.count) {
    const int64_t source_y = rows.source(y, i);
    if (!rows.inside(source_y)) continue;
    add_run(plane + source_y * stride_h + (first + in.begin * cols.step) * stride_w, row + in.begin,
            cols.step * stride_w, in.end - in.begin);
  }
}

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
  const GatherAxis rows = forward_rows(s), cols = forward_cols(s);
  for_each_channel_block(s, [&](int64_t n, int64_t first, int64_t count) {
    for (int64_t c = first; c < first + count; ++c) {
      T* to = columns + (n * s.in_channels + c) * s.taps() * s.out_pixels();
      for (int64_t tap = 0; tap < s.taps(); ++tap, to += s.out_pixels()) {
        fill_row(to, input.at(n, c), input.stride_h, input.stride_w, rows, cols, tap / s.kernel_w,
                 tap % s.kernel_w);
      }
    }
  });
}

template <class T>
void col2im(ImageView<T> output, const T* columns, const ConvShape& s) {
  const GatherAxis rows = forward_rows(s), cols = forward_cols(s);
  for_each_channel_block(s, [&](int64_t n, int64_t first, int64_t count) {
    for (int64_t y = 0; y < s.in_h; ++y) {
      for (int64_t x = 0; x < s.in_w; ++x) {
        T* pixel = output.at(n, first) + y * output.stride_h + x * output.stride_w;
        for (int64_t c = 0; c < count; ++c) pixel[c * output.stride_c] = T(0);
      }
    }
    for (int64_t c = first; c < first + count; ++c) {
      const T* from = columns + (n * s.in_channels + c) * s.taps() * s.out_pixels();
      for (int64_t tap = 0; tap < s.taps(); ++tap, from += s.out_pixels()) {
        add_row(output.at(n, c), from, output.stride_h, output.stride_w, rows, cols,
                tap / s.kernel_w, tap % s.kernel_w);
      }
    }
  });
}

template void im2col(float*, ImageView<const float>, const ConvShape&);
template void im2col(double*, ImageView<const double>, const ConvShape&);
template void col2im(ImageView<float>, const float*, const ConvShape&);
template void col2im(ImageView<double>, const double*, const ConvShape&);

}  // namespace pydenoise::cpu
