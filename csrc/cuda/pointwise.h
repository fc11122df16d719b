// Activations, losses and optimizer updates on a GPU: one pass over memory each.
//
// The formulas of cpu/pointwise.h, element by element with the same roundings (but those of exp).
// Destination first; all pointers name `count` elements in the same order; destinations are
// overwritten, optimizer state is updated in place; nothing overlaps, but the rectifiers and their
// gradients may overwrite their first input.
#pragma once

#include "cuda/launch.h"

namespace pydenoise::cuda {

// out = max(input, 0); NaN stays
template <class T>
Status relu(T* out, const T* input, int64_t count, cudaStream_t stream);
// out = grad_output where output > 0, else 0
template <class T>
Status relu_backward(T* out, const T* grad_output, const T* output, int64_t count,
                     cudaStream_t stream);
// out = input > 0 ? input : negative_slope * input
template <class T>
Status leaky_relu(T* out, const T* input, T negative_slope, int64_t count, cudaStream_t stream);
// out = input > 0 ? grad_output : negative_slope * grad_output
template <class T>
Status leaky_relu_backward(T* out, const T* grad_output, const T* input, T negative_slope,
                           int64_t count, cudaStream_t stream);
// out = 1 / (1 + exp(-input))
template <class T>
Status sigmoid(T* out, const T* input, int64_t count, cudaStream_t stream);
// out = grad_output * output * (1 - output)
template <class T>
Status sigmoid_backward(T* out, const T* grad_output, const T* output, int64_t count,
                        cudaStream_t stream);

// image[n, c, y, x] += bias[c], in either memory format
template <class T>
Status add_bias(T* image, const T* bias, int64_t count, int64_t channels, int64_t pixels,
                bool channels_last, cudaStream_t stream);

// loss = mean((input - target)^2) or mean|input - target|, added in double in a fixed order;
// count > 0; workspace: loss_workspace(count) elements
enum class Loss { kMse, kL1 };
int64_t loss_workspace(int64_t count);
template <class T>
Status mean_loss(Loss loss, double* mean, const T* input, const T* target, double* workspace,
                 int64_t count, cudaStream_t stream);
// out = grad_output 2 (input - target) / count, out = grad_output sign(input - target) / count
template <class T>
Status mean_loss_backward(Loss loss, T* out, const T* input, const T* target, T grad_output,
                          int64_t count, cudaStream_t stream);

// The rules' numbers lie on the device, so that a recorded graph meets a new learning rate.
//   SGD:  lr, momentum, dampening, weight_decay
//   Adam: lr, beta1, beta2, eps, weight_decay, step (from 1)
constexpr int64_t kRuleNumbers = 8;

// torch.optim.SGD's step; momentum_buffer is null without momentum
template <class T>
Status sgd_step(T* param, const T* grad, T* momentum_buffer, int64_t count, const double* rule,
                bool nesterov, bool first, cudaStream_t stream);
// torch.optim.Adam's step, AdamW's when decoupled
template <class T>
Status adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t count,
                 const double* rule, bool decoupled, cudaStream_t stream);

}  // namespace pydenoise::cuda
