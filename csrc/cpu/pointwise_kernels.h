// The inner loops of pointwise.cpp, compiled once for each instruction set (pointwise.inl): one
// piece of the elements, on one thread. What they compute says pointwise.h.
#pragma once

#include <cstdint>

namespace pydenoise::cpu {

// An SgdRule as it enters the loop.
template <class T>
struct SgdFactors {
  T lr, momentum, fresh, weight_decay;  // fresh = 1 - dampening
  bool nesterov, first;
};

// An AdamRule and its step as they enter the loop.
template <class T>
struct AdamFactors {
  T beta1, fresh1, beta2, fresh2;  // fresh = 1 - beta
  T step_size, root_scale;         // lr / (1 - beta1^step), 1 / sqrt(1 - beta2^step)
  T eps, weight_decay, kept;       // kept: what decoupled decay leaves of the parameter
};

template <class T>
struct PointwiseKernels {
  void (*relu)(T* out, const T* input, int64_t count);
  void (*relu_backward)(T* out, const T* grad_output, const T* output, int64_t count);
  void (*leaky_relu)(T* out, const T* input, T negative_slope, int64_t count);
  void (*leaky_relu_backward)(T* out, const T* grad_output, const T* input, T negative_slope,
                              int64_t count);
  void (*sigmoid)(T* out, const T* input, int64_t count);
  void (*sigmoid_backward)(T* out, const T* grad_output, const T* output, int64_t count);

  // to[i] += value, to[i] += row[i % width]
  void (*add_value)(T* to, T value, int64_t count);
  void (*add_row)(T* to, const T* row, int64_t width, int64_t count);

  // Sums of (input - target)^2 and |input - target|: in double, in lanes that are the same for
  // every instruction set
  double (*squared_error)(const T* input, const T* target, int64_t count);
  double (*absolute_error)(const T* input, const T* target, int64_t count);
  // out = (input - target) * scale, out = sign(input - target) * scale
  void (*squared_error_backward)(T* out, const T* input, const T* target, T scale, int64_t count);
  void (*absolute_error_backward)(T* out, const T* input, const T* target, T scale, int64_t count);

  void (*sgd)(T* param, const T* grad, SgdFactors<T> factors, int64_t count);
  void (*sgd_with_momentum)(T* param, const T* grad, T* momentum_buffer, SgdFactors<T> factors,
                            int64_t count);
  void (*adam)(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, AdamFactors<T> factors,
               int64_t count);
};

}  // namespace pydenoise::cpu
