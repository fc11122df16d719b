// Activations, losses and optimizer updates: one pass over memory each.
//
// Destination first. All pointers name `count` elements in the same order; destinations are
// overwritten, optimizer state is updated in place; nothing overlaps, but the rectifiers and their
// gradients may overwrite their first input. Results do not depend on the number of threads:
// elements are independent, and the losses add partial sums of fixed pieces in order, in double.
#pragma once

#include <cstdint>

#include "cpu/image.h"

namespace pydenoise::cpu {

// out = max(input, 0); NaN stays
template <class T>
void relu(T* out, const T* input, int64_t count);
// out = grad_output where output > 0, else 0
template <class T>
void relu_backward(T* out, const T* grad_output, const T* output, int64_t count);
// out = input > 0 ? input : negative_slope * input
template <class T>
void leaky_relu(T* out, const T* input, T negative_slope, int64_t count);
// out = input > 0 ? grad_output : negative_slope * grad_output
template <class T>
void leaky_relu_backward(T* out, const T* grad_output, const T* input, T negative_slope,
                         int64_t count);
// out = 1 / (1 + exp(-input)), within 3 units in the last place
template <class T>
void sigmoid(T* out, const T* input, int64_t count);
// out = grad_output * output * (1 - output)
template <class T>
void sigmoid_backward(T* out, const T* grad_output, const T* output, int64_t count);

// image[n, c, y, x] += bias[c], in either memory format
template <class T>
void add_bias(ImageView<T> image, const T* bias, int64_t batch, int64_t channels, int64_t height,
              int64_t width);

// mean((input - target)^2), mean|input - target|; count > 0
template <class T>
double mse_loss(const T* input, const T* target, int64_t count);
template <class T>
double l1_loss(const T* input, const T* target, int64_t count);
// out = 2 (input - target) / count, out = sign(input - target) / count
template <class T>
void mse_loss_backward(T* out, const T* input, const T* target, T grad_output, int64_t count);
template <class T>
void l1_loss_backward(T* out, const T* input, const T* target, T grad_output, int64_t count);

struct SgdRule {
  double lr, momentum, dampening, weight_decay;
  bool nesterov, first;
};
// torch.optim.SGD's step; momentum_buffer is null without momentum
template <class T>
void sgd_step(T* param, const T* grad, T* momentum_buffer, int64_t count, const SgdRule& rule);

struct AdamRule {
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled;
  int64_t step;  // from 1
};
// torch.optim.Adam's step, AdamW's when decoupled
template <class T>
void adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t count,
               const AdamRule& rule);

}  // namespace pydenoise::cpu
