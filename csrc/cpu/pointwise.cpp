#include "cpu/pointwise.h"

#include <cmath>
#include <cstring>

#include "cpu/integers.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Elements of one task: a quarter of a first-level cache, long enough to be worth a thread.
constexpr int64_t kPiece = 8192;

// body(first, count) over pieces of [0, count).
template <class Body>
void for_each_piece(int64_t count, const Body& body) {
  parallel_tasks(ceil_div(count, kPiece), thread_count(), [&](int64_t task, int64_t) {
    const int64_t first = task * kPiece;
    body(first, smaller(kPiece, count - first));
  });
}

// Sum of body(i) over [0, count): pieces of fixed size in fixed lanes, added in order.
template <class Body>
double sum_pieces(int64_t count, const Body& body) {
  constexpr int64_t kLanes = 8, kBatch = 256;  // pieces summed between two additions in order
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBatch * kPiece) {
    double sums[kBatch] = {};
    const int64_t here = smaller(kBatch * kPiece, count - begin);
    for_each_piece(here, [&](int64_t first, int64_t length) {
      double lanes[kLanes] = {};
      int64_t i = 0;
      for (; i + kLanes <= length; i += kLanes) {
        for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += body(begin + first + i + lane);
      }
      for (int64_t lane = 0; i < length; ++i, ++lane) lanes[lane] += body(begin + first + i);
      double sum = 0;
      for (const double lane : lanes) sum += lane;
      sums[first / kPiece] = sum;
    });
    for (int64_t piece = 0; piece < ceil_div(here, kPiece); ++piece) total += sums[piece];
  }
  return total;
}

float power_of_two(int32_t exponent) {
  const int32_t bits = (exponent + 127) << 23;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// e^x for x <= 0, branch-free so that compilers turn it into vectors. x = n ln 2 + r with
// |r| <= ln 2 / 2; the polynomial is the Taylor series of e^r to r^7, whose error is below the
// rounding. 2^n in two factors reaches the subnormal numbers.
inline float exp_of_negative(float x) {
  x = x < -104.0f ? -104.0f : x;
  const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto exponent = static_cast<int32_t>(n < 0 ? n : 0.0f);  // NaN has no integer
  const int32_t half = exponent / 2;
  return p * power_of_two(half) * power_of_two(exponent - half);
}

inline double exp_of_negative(double x) {
  return std::exp(x);
}

}  // namespace

template <class T>
void relu(T* out, const T* input, int64_t count) {
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) out[i] = input[i] < 0 ? T(0) : input[i];
  });
}

template <class T>
void relu_backward(T* out, const T* grad_output, const T* output, int64_t count) {
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      const T gradient = grad_output[i];  // loaded always: a branch would keep out vectors
      out[i] = output[i] <= 0 ? T(0) : gradient;
    }
  });
}

template <class T>
void leaky_relu(T* out, const T* input, T negative_slope, int64_t count) {
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      out[i] = input[i] > 0 ? input[i] : input[i] * negative_slope;
    }
  });
}

template <class T>
void leaky_relu_backward(T* out, const T* grad_output, const T* input, T negative_slope,
                         int64_t count) {
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      out[i] = input[i] > 0 ? grad_output[i] : grad_output[i] * negative_slope;
    }
  });
}

template <class T>
void sigmoid(T* out, const T* input, int64_t count) {
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      const T x = input[i];
      const T decay = exp_of_negative(x < 0 ? x : -x);
      out[i] = (x < 0 ? decay : T(1)) / (T(1) + decay);
    }
  });
}

template <class T>
void sigmoid_backward(T* out, const T* grad_output, const T* output, int64_t count) {
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      out[i] = grad_output[i] * (output[i] * (T(1) - output[i]));
    }
  });
}

template <class T>
void add_bias(ImageView<T> image, const T* bias, int64_t batch, int64_t channels, int64_t height,
              int64_t width) {
  const int64_t pixels = height * width;
  if (image.stride_c == 1) {
    const int64_t step = larger(1, kPiece / channels);  // pixels of a task
    const int64_t steps = ceil_div(pixels, step);
    parallel_tasks(batch * steps, thread_count(), [&](int64_t task, int64_t) {
      const int64_t first = task % steps * step, count = smaller(step, pixels - first);
      T* to = image.at(task / steps, 0) + first * channels;
      for (int64_t i = 0; i < count; ++i, to += channels) {
        for (int64_t c = 0; c < channels; ++c) to[c] += bias[c];
      }
    });
    return;
  }
  parallel_tasks(batch * channels, thread_count(), [&](int64_t task, int64_t) {
    T* to = image.at(task / channels, task % channels);
    const T add = bias[task % channels];
    for (int64_t i = 0; i < pixels; ++i) to[i] += add;
  });
}

template <class T>
double mse_loss(const T* input, const T* target, int64_t count) {
  const double sum = sum_pieces(count, [=](int64_t i) {
    const double difference = static_cast<double>(input[i]) - static_cast<double>(target[i]);
    return difference * difference;
  });
  return sum / static_cast<double>(count);
}

template <class T>
double l1_loss(const T* input, const T* target, int64_t count) {
  const double sum = sum_pieces(count, [=](int64_t i) {
    return std::abs(static_cast<double>(input[i]) - static_cast<double>(target[i]));
  });
  return sum / static_cast<double>(count);
}

template <class T>
void mse_loss_backward(T* out, const T* input, const T* target, int64_t count) {
  const T scale = T(2) / static_cast<T>(count);
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) out[i] = (input[i] - target[i]) * scale;
  });
}

template <class T>
void l1_loss_backward(T* out, const T* input, const T* target, int64_t count) {
  const T scale = T(1) / static_cast<T>(count);
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      const T difference = input[i] - target[i];
      out[i] = difference > 0 ? scale : (difference < 0 ? -scale : T(0));
    }
  });
}

template <class T>
void sgd_step(T* param, const T* grad, T* momentum_buffer, int64_t count, const SgdRule& rule) {
  const auto lr = static_cast<T>(rule.lr), momentum = static_cast<T>(rule.momentum);
  const auto fresh = static_cast<T>(1 - rule.dampening);
  const auto weight_decay = static_cast<T>(rule.weight_decay);
  const bool nesterov = rule.nesterov, first_step = rule.first;
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      T d = grad[i] + weight_decay * param[i];
      if (momentum_buffer != nullptr) {
        const T v = first_step ? d : momentum * momentum_buffer[i] + fresh * d;
        momentum_buffer[i] = v;
        d = nesterov ? d + momentum * v : v;
      }
      param[i] -= lr * d;
    }
  });
}

template <class T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t count,
               const AdamRule& rule) {
  const auto step = static_cast<double>(rule.step);
  const auto beta1 = static_cast<T>(rule.beta1), fresh1 = static_cast<T>(1 - rule.beta1);
  const auto beta2 = static_cast<T>(rule.beta2), fresh2 = static_cast<T>(1 - rule.beta2);
  const auto step_size = static_cast<T>(rule.lr / (1 - std::pow(rule.beta1, step)));
  const auto root_scale = static_cast<T>(std::sqrt(1 - std::pow(rule.beta2, step)));
  const auto eps = static_cast<T>(rule.eps);
  const auto kept = static_cast<T>(rule.decoupled ? 1 - rule.lr * rule.weight_decay : 1);
  const auto weight_decay = static_cast<T>(rule.decoupled ? 0 : rule.weight_decay);
  for_each_piece(count, [=](int64_t first, int64_t n) {
    for (int64_t i = first; i < first + n; ++i) {
      const T g = grad[i] + weight_decay * param[i];
      const T m = beta1 * exp_avg[i] + fresh1 * g;
      const T v = beta2 * exp_avg_sq[i] + fresh2 * (g * g);
      exp_avg[i] = m;
      exp_avg_sq[i] = v;
      param[i] = kept * param[i] - step_size * m / (std::sqrt(v) / root_scale + eps);
    }
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
  template void mse_loss_backward(T*, const T*, const T*, int64_t);                   \
  template void l1_loss_backward(T*, const T*, const T*, int64_t);                    \
  template void sgd_step(T*, const T*, T*, int64_t, const SgdRule&);                  \
  template void adam_step(T*, const T*, T*, T*, int64_t, const AdamRule&);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cpu
