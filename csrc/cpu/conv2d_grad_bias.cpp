// grad_bias: the sum of grad_output over all pixels of all pictures, in double.
#include "cpu/conv2d.h"
#include "cpu/integers.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Channels of conv2d_grad_bias summed side by side, and sums of one row side by side.
constexpr int64_t kLanes = 16;

// One plane whose pixels are neighbours: lane l takes pixels l, l + kLanes, ...
template <class T>
double sum_plane(const T* plane, int64_t pixels) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= pixels; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += plane[i + lane];
  }
  for (int64_t lane = 0; i < pixels; ++i, ++lane) lanes[lane] += plane[i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace

template <class T>
void conv2d_grad_bias(T* grad_bias, ImageView<const T> grad_output, int64_t batch, int64_t channels,
                      int64_t height, int64_t width, bool accumulate) {
  const int64_t pixels = height * width;
  parallel_tasks(ceil_div(channels, kLanes), thread_count(), [&](int64_t task, int64_t) {
    const int64_t first = task * kLanes, count = smaller(kLanes, channels - first);
    double sums[kLanes] = {};
    for (int64_t n = 0; n < batch; ++n) {
      const T* picture = grad_output.at(n, first);
      if (grad_output.stride_w == 1) {
        for (int64_t c = 0; c < count; ++c) {
          sums[c] += sum_plane(picture + c * grad_output.stride_c, pixels);
        }
      } else {
        double lanes[kLanes] = {};
        for (int64_t i = 0; i < pixels; ++i) {
          const T* pixel = picture + i * grad_output.stride_w;
          for (int64_t c = 0; c < count; ++c) lanes[c] += pixel[c];
        }
        for (int64_t c = 0; c < count; ++c) sums[c] += lanes[c];
      }
    }
    for (int64_t c = 0; c < count; ++c) {
      T& element = grad_bias[first + c];
      element = static_cast<T>(accumulate ? element + sums[c] : sums[c]);
    }
  });
}

template void conv2d_grad_bias(float*, ImageView<const float>, int64_t, int64_t, int64_t, int64_t,
                               bool);
template void conv2d_grad_bias(double*, ImageView<const double>, int64_t, int64_t, int64_t, int64_t,
                               bool);

}  // namespace pydenoise::cpu
