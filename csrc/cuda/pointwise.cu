#include "cuda/pointwise.h"

#include "cuda/reduce.cuh"

namespace pydenoise::cuda {
namespace {

// body(i) for every element i.
template <class Body>
__global__ void __launch_bounds__(kThreads) each_kernel(int64_t count, const Body body) {
  for (int64_t i = first_element(); i < count; i += element_step()) body(i);
}

template <class Body>
Status each(int64_t count, cudaStream_t stream, const Body& body) {
  return launch(each_kernel<Body>, blocks_over(count), kThreads, 0, stream, count, body);
}

template <class T>
struct Relu {
  T* out;
  const T* input;
  __device__ void operator()(int64_t i) const { out[i] = input[i] < 0 ? T(0) : input[i]; }
};

template <class T>
struct ReluBackward {
  T* out;
  const T *grad_output, *output;
  __device__ void operator()(int64_t i) const { out[i] = output[i] <= 0 ? T(0) : grad_output[i]; }
};

template <class T>
struct LeakyRelu {
  T* out;
  const T* input;
  T slope;
  __device__ void operator()(int64_t i) const {
    const T x = input[i];
    out[i] = x > 0 ? x : x * slope;
  }
};

template <class T>
struct LeakyReluBackward {
  T* out;
  const T *grad_output, *input;
  T slope;
  __device__ void operator()(int64_t i) const {
    out[i] = input[i] > 0 ? grad_output[i] : grad_output[i] * slope;
  }
};

template <class T>
struct Sigmoid {
  T* out;
  const T* input;
  __device__ void operator()(int64_t i) const {
    const T x = input[i], decay = exp(-fabs(x));  // so that nothing overflows
    out[i] = (x < 0 ? decay : T(1)) / (T(1) + decay);
  }
};

template <class T>
struct SigmoidBackward {
  T* out;
  const T *grad_output, *output;
  __device__ void operator()(int64_t i) const {
    out[i] = grad_output[i] * (output[i] * (T(1) - output[i]));
  }
};

template <class T>
struct AddBias {
  T* image;
  const T* bias;
  uint32_t channels, run;  // elements in a row that share a channel
  __device__ void operator()(int64_t i) const {
    image[i] += bias[static_cast<uint32_t>(i) / run % channels];
  }
};

template <class T>
struct SquaredErrorBackward {
  T* out;
  const T *input, *target;
  T scale;
  __device__ void operator()(int64_t i) const { out[i] = (input[i] - target[i]) * scale; }
};

template <class T>
struct AbsoluteErrorBackward {
  T* out;
  const T *input, *target;
  T scale;
  __device__ void operator()(int64_t i) const {
    const T difference = input[i] - target[i], negative = difference < 0 ? -scale : T(0);
    out[i] = difference > 0 ? scale : negative;
  }
};

// The number of pieces is a function of the count alone; the second pass is one block.
constexpr int64_t kPiece = 4096, kMostPieces = 1024;

int64_t pieces_of(int64_t count) {
  return larger(1, smaller(kMostPieces, ceil_div(count, kPiece)));
}

struct Sums {
  double of_thread[kThreads];
};

template <class T, Loss loss>
__global__ void __launch_bounds__(kThreads)
    errors_kernel(double* sums, const T* input, const T* target, int64_t count) {
  double sum = 0;
  for (int64_t i = first_element(); i < count; i += element_step()) {
    const double error = static_cast<double>(input[i]) - static_cast<double>(target[i]);
    sum += loss == Loss::kMse ? error * error : fabs(error);
  }
  sum = sum_of_columns(shared_memory<Sums>().of_thread, kThreads, 1, sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads)
    mean_kernel(double* mean, const double* sums, int64_t pieces, int64_t count) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) sum += sums[i];
  sum = sum_of_columns(shared_memory<Sums>().of_thread, kThreads, 1, sum);
  if (threadIdx.x == 0) *mean = sum / static_cast<double>(count);
}

}  // namespace

template <class T>
Status relu(T* out, const T* input, int64_t count, cudaStream_t stream) {
  return each(count, stream, Relu<T>{out, input});
}

template <class T>
Status relu_backward(T* out, const T* grad_output, const T* output, int64_t count,
                     cudaStream_t stream) {
  return each(count, stream, ReluBackward<T>{out, grad_output, output});
}

template <class T>
Status leaky_relu(T* out, const T* input, T negative_slope, int64_t count, cudaStream_t stream) {
  return each(count, stream, LeakyRelu<T>{out, input, negative_slope});
}

template <class T>
Status leaky_relu_backward(T* out, const T* grad_output, const T* input, T negative_slope,
                           int64_t count, cudaStream_t stream) {
  return each(count, stream, LeakyReluBackward<T>{out, grad_output, input, negative_slope});
}

template <class T>
Status sigmoid(T* out, const T* input, int64_t count, cudaStream_t stream) {
  return each(count, stream, Sigmoid<T>{out, input});
}

template <class T>
Status sigmoid_backward(T* out, const T* grad_output, const T* output, int64_t count,
                        cudaStream_t stream) {
  return each(count, stream, SigmoidBackward<T>{out, grad_output, output});
}

template <class T>
Status add_bias(T* image, const T* bias, int64_t count, int64_t channels, int64_t pixels,
                bool channels_last, cudaStream_t stream) {
  return each(count, stream,
              AddBias<T>{image, bias, static_cast<uint32_t>(channels),
                         static_cast<uint32_t>(channels_last ? 1 : pixels)});
}

int64_t loss_workspace(int64_t count) {
  return pieces_of(count);
}

template <class T>
Status mean_loss(Loss loss, double* mean, const T* input, const T* target, double* workspace,
                 int64_t count, cudaStream_t stream) {
  const int64_t pieces = pieces_of(count);
  const auto kernel =
      loss == Loss::kMse ? errors_kernel<T, Loss::kMse> : errors_kernel<T, Loss::kL1>;
  const Status status =
      launch(kernel, pieces, kThreads, sizeof(Sums), stream, workspace, input, target, count);
  if (status != cudaSuccess) return status;
  return launch(mean_kernel, 1, kThreads, sizeof(Sums), stream, mean, workspace, pieces, count);
}

template <class T>
Status mean_loss_backward(Loss loss, T* out, const T* input, const T* target, T grad_output,
                          int64_t count, cudaStream_t stream) {
  const T scale = T(loss == Loss::kMse ? 2 : 1) / static_cast<T>(count) * grad_output;
  if (loss == Loss::kMse) {
    return each(count, stream, SquaredErrorBackward<T>{out, input, target, scale});
  }
  return each(count, stream, AbsoluteErrorBackward<T>{out, input, target, scale});
}

#define PYDENOISE_INSTANTIATE(T)                                                                \
  template Status relu(T*, const T*, int64_t, cudaStream_t);                                    \
  template Status relu_backward(T*, const T*, const T*, int64_t, cudaStream_t);                 \
  template Status leaky_relu(T*, const T*, T, int64_t, cudaStream_t);                           \
  template Status leaky_relu_backward(T*, const T*, const T*, T, int64_t, cudaStream_t);        \
  template Status sigmoid(T*, const T*, int64_t, cudaStream_t);                                 \
  template Status sigmoid_backward(T*, const T*, const T*, int64_t, cudaStream_t);              \
  template Status add_bias(T*, const T*, int64_t, int64_t, int64_t, bool, cudaStream_t);        \
  template Status mean_loss(Loss, double*, const T*, const T*, double*, int64_t, cudaStream_t); \
  template Status mean_loss_backward(Loss, T*, const T*, const T*, T, int64_t, cudaStream_t);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cuda
