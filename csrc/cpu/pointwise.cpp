#include "cpu/pointwise.h"

#include <cmath>

#include "cpu/integers.h"
#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Elements of one task: a quarter of a first-level cache.
constexpr int64_t kPiece = 8192;
// Elements that are worth a thread: vectors take them in about two microseconds, twice what it
// takes to hand them to a thread that has just worked.
constexpr int64_t kShare = 2 * kPiece;

int64_t threads_for(int64_t count, int64_t share = kShare) {
  return larger(1, smaller(thread_count(), count / share));
}

// body(first, count) over pieces of [0, count).
template <class Body>
void for_each_piece(int64_t count, int64_t threads, const Body& body) {
  parallel_tasks(ceil_div(count, kPiece), threads, [&](int64_t task, int64_t) {
    const int64_t first = task * kPiece;
    body(first, smaller(kPiece, count - first));
  });
}

template <class Body>
void for_each_piece(int64_t count, const Body& body) {
  for_each_piece(count, threads_for(count), body);
}

// Sum of body(first, count) over pieces of fixed size of [0, count), added in order.
template <class Body>
double sum_pieces(int64_t count, const Body& body) {
  constexpr int64_t kBatch = 256;  // pieces summed between two additions in order
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBatch * kPiece) {
    double sums[kBatch];
    const int64_t here = smaller(kBatch * kPiece, count - begin);
    for_each_piece(
        here, [&](int64_t first, int64_t n) { sums[first / kPiece] = body(begin + first, n); });
    for (int64_t piece = 0; piece < ceil_div(here, kPiece); ++piece) total += sums[piece];
  }
  return total;
}

}  // namespace

template <class T>
void relu(T* out, const T* input, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.relu;
  for_each_piece(count, [=](int64_t i, int64_t n) { run(out + i, input + i, n); });
}

template <class T>
void relu_backward(T* out, const T* grad_output, const T* output, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.relu_backward;
  for_each_piece(count,
                 [=](int64_t i, int64_t n) { run(out + i, grad_output + i, output + i, n); });
}

template <class T>
void leaky_relu(T* out, const T* input, T negative_slope, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.leaky_relu;
  for_each_piece(count, [=](int64_t i, int64_t n) { run(out + i, input + i, negative_slope, n); });
}

template <class T>
void leaky_relu_backward(T* out, const T* grad_output, const T* input, T negative_slope,
                         int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.leaky_relu_backward;
  for_each_piece(count, [=](int64_t i, int64_t n) {
    run(out + i, grad_output + i, input + i, negative_slope, n);
  });
}

template <class T>
void sigmoid(T* out, const T* input, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.sigmoid;
  const int64_t share = sizeof(T) == sizeof(float) ? kShare : kPiece;  // in double one at a time
  for_each_piece(count, threads_for(count, share),
                 [=](int64_t i, int64_t n) { run(out + i, input + i, n); });
}

template <class T>
void sigmoid_backward(T* out, const T* grad_output, const T* output, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.sigmoid_backward;
  for_each_piece(count,
                 [=](int64_t i, int64_t n) { run(out + i, grad_output + i, output + i, n); });
}

template <class T>
void add_bias(ImageView<T> image, const T* bias, int64_t batch, int64_t channels, int64_t height,
              int64_t width) {
  const PointwiseKernels<T> kernels = kernels_in_use<T>().pointwise;
  const int64_t pixels = height * width, threads = threads_for(batch * channels * pixels);
  if (image.stride_c == 1) {
    const int64_t step = larger(1, kPiece / channels);  // pixels of a task
    const int64_t steps = ceil_div(pixels, step);
    parallel_tasks(batch * steps, threads, [&](int64_t task, int64_t) {
      const int64_t first = task % steps * step;
      T* to = image.at(task / steps, 0) + first * channels;
      kernels.add_row(to, bias, channels, smaller(step, pixels - first) * channels);
    });
    return;
  }
  for_each_piece(batch * channels * pixels, threads, [&](int64_t first, int64_t count) {
    for (int64_t end = first + count; first < end;) {
      const int64_t plane = first / pixels, channel = plane % channels;
      const int64_t n = smaller(end, (plane + 1) * pixels) - first;
      kernels.add_value(image.at(plane / channels, channel) + first % pixels, bias[channel], n);
      first += n;
    }
  });
}

template <class T>
double mse_loss(const T* input, const T* target, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.squared_error;
  const double sum =
      sum_pieces(count, [=](int64_t i, int64_t n) { return run(input + i, target + i, n); });
  return sum / static_cast<double>(count);
}

template <class T>
double l1_loss(const T* input, const T* target, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.absolute_error;
  const double sum =
      sum_pieces(count, [=](int64_t i, int64_t n) { return run(input + i, target + i, n); });
  return sum / static_cast<double>(count);
}

template <class T>
void mse_loss_backward(T* out, const T* input, const T* target, T grad_output, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.squared_error_backward;
  const T scale = T(2) / static_cast<T>(count) * grad_output;
  for_each_piece(count,
                 [=](int64_t i, int64_t n) { run(out + i, input + i, target + i, scale, n); });
}

template <class T>
void l1_loss_backward(T* out, const T* input, const T* target, T grad_output, int64_t count) {
  const auto run = kernels_in_use<T>().pointwise.absolute_error_backward;
  const T scale = T(1) / static_cast<T>(count) * grad_output;
  for_each_piece(count,
                 [=](int64_t i, int64_t n) { run(out + i, input + i, target + i, scale, n); });
}

template <class T>
void sgd_step(T* param, const T* grad, T* momentum_buffer, int64_t count, const SgdRule& rule) {
  const PointwiseKernels<T> kernels = kernels_in_use<T>().pointwise;
  const SgdFactors<T> factors = {static_cast<T>(rule.lr),
                                 static_cast<T>(rule.momentum),
                                 static_cast<T>(1 - rule.dampening),
                                 static_cast<T>(rule.weight_decay),
                                 rule.nesterov,
                                 rule.first};
  for_each_piece(count, [&](int64_t i, int64_t n) {
    if (momentum_buffer == nullptr) {
      kernels.sgd(param + i, grad + i, factors, n);
    } else {
      kernels.sgd_with_momentum(param + i, grad + i, momentum_buffer + i, factors, n);
    }
  });
}

template <class T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t count,
               const AdamRule& rule) {
  const auto run = kernels_in_use<T>().pointwise.adam;
  const auto step = static_cast<double>(rule.step);
  AdamFactors<T> factors;
  factors.beta1 = static_cast<T>(rule.beta1);
  factors.fresh1 = static_cast<T>(1 - rule.beta1);
  factors.beta2 = static_cast<T>(rule.beta2);
  factors.fresh2 = static_cast<T>(1 - rule.beta2);
  factors.step_size = static_cast<T>(rule.lr / (1 - std::pow(rule.beta1, step)));
  factors.root_scale = static_cast<T>(1 / std::sqrt(1 - std::pow(rule.beta2, step)));
  factors.eps = static_cast<T>(rule.eps);
  factors.weight_decay = static_cast<T>(rule.decoupled ? 0 : rule.weight_decay);
  factors.kept = static_cast<T>(rule.decoupled ? 1 - rule.lr * rule.weight_decay : 1);
  for_each_piece(count, [=](int64_t i, int64_t n) {
    run(param + i, grad + i, exp_avg + i, exp_avg_sq + i, factors, n);
  });
}

#define PYDENOISE_INSTANTIATE(T)                                                      \
  template void relu(T*, const T*, int64_t);                                          \
  template void relu_backward(T*, const T*, const T*, int64_t);                       \
  template void leaky_relu(T*, const T*, T, int64_t);                                 \
  template void leaky_relu_backward(T*, const T*, const T*, T, int64_t);              \
  template void sigmoid(T*, const T*, int64_t);                                       \
  template void sigmoid_backward(T*, const T*, const T*, int64_t);                    \
  template void add_bias(ImageView<T>, const T*, int64_t, int64_t, int64_t, int64_t); \
  template double mse_loss(const T*, const T*, int64_t);                              \
  template double l1_loss(const T*, const T*, int64_t);                               \
  template void mse_loss_backward(T*, const T*, const T*, T, int64_t);                \
  template void l1_loss_backward(T*, const T*, const T*, T, int64_t);                 \
  template void sgd_step(T*, const T*, T*, int64_t, const SgdRule&);                  \
  template void adam_step(T*, const T*, T*, T*, int64_t, const AdamRule&);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cpu
