#include "cuda/pointwise.h"

#include "cuda/launch.cuh"

namespace pydenoise::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kThreads)
    sgd_kernel(T* param, const T* grad, T* momentum_buffer, int64_t count, const double* rule,
               bool nesterov, bool first) {
  const T lr = static_cast<T>(rule[0]), momentum = static_cast<T>(rule[1]);
  const T fresh = static_cast<T>(1 - rule[2]), weight_decay = static_cast<T>(rule[3]);
  for (int64_t i = first_element(); i < count; i += element_step()) {
    const T d = grad[i] + weight_decay * param[i];
    T step = d;
    if (momentum_buffer != nullptr) {
      const T v = first ? d : momentum * momentum_buffer[i] + fresh * d;
      momentum_buffer[i] = v;
      step = nesterov ? d + momentum * v : v;
    }
    param[i] -= lr * step;
  }
}

// An Adam rule and its step as they enter the loop, worked out once for a block.
struct AdamFactors {
  double step_size, root_scale;  // lr / (1 - beta1^step), 1 / sqrt(1 - beta2^step)
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t count,
                const double* rule, bool decoupled) {
  auto& factors = shared_memory<AdamFactors>();
  if (threadIdx.x == 0) {
    factors.step_size = rule[0] / (1 - pow(rule[1], rule[5]));
    factors.root_scale = 1 / sqrt(1 - pow(rule[2], rule[5]));
  }
  __syncthreads();
  const T beta1 = static_cast<T>(rule[1]), fresh1 = static_cast<T>(1 - rule[1]);
  const T beta2 = static_cast<T>(rule[2]), fresh2 = static_cast<T>(1 - rule[2]);
  const T eps = static_cast<T>(rule[3]);
  const T weight_decay = static_cast<T>(decoupled ? 0 : rule[4]);
  const T kept = static_cast<T>(decoupled ? 1 - rule[0] * rule[4] : 1);
  const T step_size = static_cast<T>(factors.step_size);
  const T root_scale = static_cast<T>(factors.root_scale);
  for (int64_t i = first_element(); i < count; i += element_step()) {
    const T g = grad[i] + weight_decay * param[i];
    const T m = beta1 * exp_avg[i] + fresh1 * g;
    const T v = beta2 * exp_avg_sq[i] + fresh2 * (g * g);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    param[i] = kept * param[i] - step_size * m / (sqrt(v) * root_scale + eps);
  }
}

}  // namespace

template <class T>
Status sgd_step(T* param, const T* grad, T* momentum_buffer, int64_t count, const double* rule,
                bool nesterov, bool first, cudaStream_t stream) {
  return launch(sgd_kernel<T>, blocks_over(count), kThreads, 0, stream, param, grad,
                momentum_buffer, count, rule, nesterov, first);
}

template <class T>
Status adam_step(T* param, const T* grad, T* exp_avg, T* exp_avg_sq, int64_t count,
                 const double* rule, bool decoupled, cudaStream_t stream) {
  return launch(adam_kernel<T>, blocks_over(count), kThreads, sizeof(AdamFactors), stream, param,
                grad, exp_avg, exp_avg_sq, count, rule, decoupled);
}

template Status sgd_step(float*, const float*, float*, int64_t, const double*, bool, bool,
                         cudaStream_t);
template Status sgd_step(double*, const double*, double*, int64_t, const double*, bool, bool,
                         cudaStream_t);
template Status adam_step(float*, const float*, float*, float*, int64_t, const double*, bool,
                          cudaStream_t);
template Status adam_step(double*, const double*, double*, double*, int64_t, const double*, bool,
                          cudaStream_t);

}  // namespace pydenoise::cuda
