// Module _cuda: pointers and byte counts in, checked again, kernels launched.
//
// The entries of _C (bindings.cpp) with the same names and arguments, then device and stream; what
// needs scratch memory takes it as `workspace` before those two, at least as large as
// *_workspace(...) says. Nothing is waited for. Without a driver the module loads, and every entry
// that needs a device says why there is none.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <tuple>
#include <vector>

#include "bindings_device.h"
#include "bindings_memory.h"
#include "bindings_shape.h"
#include "conv_shape.h"
#include "cuda/conv2d.h"
#include "cuda/gather.h"
#include "cuda/im2col.h"
#include "cuda/pointwise.h"

namespace py = pybind11;

namespace pydenoise {
namespace {

using cuda::Status;

void check_size(const ConvShape& s, bool columns = false) {
  const char* const why = cuda::why_too_large(s, columns);
  if (why != nullptr) throw std::invalid_argument(to_string(s) + ": " + why);
}

void check_count(int64_t count) {
  if (count > cuda::kMostElements) throw std::invalid_argument("too many elements for a GPU");
}

void im2col(bool is_double, Memory columns, Memory input, bool input_last, const ConvShape& s,
            int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("im2col", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    check_size(s, true);
    T* to = queue.take<T>(columns, columns_count(s), "columns");
    const T* from = queue.take<const T>(input, input_count(s), "input");
    return cuda::im2col<T>(to, {from, input_last}, s, queue.stream);
  });
}

void col2im(bool is_double, Memory output, bool output_last, Memory columns, const ConvShape& s,
            int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("col2im", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    check_size(s, true);
    T* to = queue.take<T>(output, input_count(s), "output");
    const T* from = queue.take<const T>(columns, columns_count(s), "columns");
    return cuda::col2im<T>({to, output_last}, from, s, queue.stream);
  });
}

// One matrix of a batch, all of them allocated; its last element must lie within reach of 32 bits.
template <class T>
cuda::Matrix<T> matrix(const Memory& memory, const Numbers3& stride, int64_t batch, int64_t rows,
                       int64_t cols, const char* name, int device) {
  T* const data = strided_elements<T>(memory, {batch, rows, cols}, stride, name);
  if (data == nullptr) return {};
  check_count(product({rows - 1, stride[1]}));
  check_count(product({cols - 1, stride[2]}));
  check_count((rows - 1) * stride[1] + (cols - 1) * stride[2]);
  check_on_device(data, device, name);
  // the step of a side of one element is never taken, and may be anything
  return {data, stride[0], rows > 1 ? stride[1] : 0, cols > 1 ? stride[2] : 0};
}

void matmul(bool is_double, Memory out, const Numbers3& out_stride, Memory left,
            const Numbers3& left_stride, Memory right, const Numbers3& right_stride,
            const Sizes4& sizes, bool accumulate, int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("matmul", is_double, queue, [&](auto zero) -> Status {
    using T = decltype(zero);
    const auto [batch, m, n, k] = sizes;
    const int64_t count = product({batch, m, n});
    if (count == 0) return cudaSuccess;
    check_count(count);
    check_count(product({batch, k}));
    return cuda::matmul<T>(matrix<T>(out, out_stride, batch, m, n, "out", device),
                           matrix<const T>(left, left_stride, batch, m, k, "left", device),
                           matrix<const T>(right, right_stride, batch, k, n, "right", device),
                           batch, m, n, k, accumulate, queue.stream);
  });
}

template <class T>
cuda::Finish<T> finish_of(const T* bias, int64_t activation, double slope, const T* output) {
  if (activation < 0 || activation > static_cast<int64_t>(cuda::Activation::kLeakyRelu)) {
    throw std::invalid_argument("no such activation");
  }
  return {bias, static_cast<cuda::Activation>(activation), static_cast<T>(slope), output};
}

template <int64_t (*elements)(const ConvShape&)>
int64_t workspace_bytes(bool is_double, const ConvShape& s) {
  check_size(s);
  const int64_t each = is_double ? sizeof(double) : sizeof(float);
  return product({elements(s), each});
}

void conv2d(bool is_double, Memory output, bool output_last, Memory input, bool input_last,
            Memory weight, Memory bias, const ConvShape& s, bool tf32, int64_t activation,
            double slope, Memory activated, Memory workspace, int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("conv2d", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    check_size(s);
    T* to = queue.take<T>(output, output_count(s), "output");
    const T* from = queue.take<const T>(input, input_count(s), "input");
    const T* w = queue.take<const T>(weight, weight_count(s), "weight");
    const T* b = queue.take<const T>(bias, s.out_channels, "bias", true);
    const T* z = queue.take<const T>(activated, output_count(s), "activation's output", true);
    T* scratch = queue.scratch<T>(workspace, cuda::conv2d_workspace(s));
    return cuda::conv2d<T>({to, output_last}, {from, input_last}, w,
                           finish_of(b, activation, slope, z), scratch, s, tf32, queue.stream);
  });
}

void conv2d_grad_input(bool is_double, Memory grad_input, bool grad_input_last, Memory grad_output,
                       bool grad_output_last, Memory weight, Memory bias, const ConvShape& s,
                       bool tf32, int64_t activation, double slope, Memory activated,
                       Memory workspace, int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("conv2d_grad_input", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    check_size(s);
    T* to = queue.take<T>(grad_input, input_count(s), "grad_input");
    const T* from = queue.take<const T>(grad_output, output_count(s), "grad_output");
    const T* w = queue.take<const T>(weight, weight_count(s), "weight");
    const T* b = queue.take<const T>(bias, s.in_channels, "bias", true);
    const T* z = queue.take<const T>(activated, input_count(s), "activation's output", true);
    T* scratch = queue.scratch<T>(workspace, cuda::conv2d_grad_input_workspace(s));
    return cuda::conv2d_grad_input<T>({to, grad_input_last}, {from, grad_output_last}, w,
                                      finish_of(b, activation, slope, z), scratch, s, tf32,
                                      queue.stream);
  });
}

void conv2d_grad_weight(bool is_double, Memory grad_weight, Memory grad_output,
                        bool grad_output_last, Memory input, bool input_last, const ConvShape& s,
                        bool accumulate, Memory workspace, int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("conv2d_grad_weight", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    check_size(s);
    T* to = queue.take<T>(grad_weight, weight_count(s), "grad_weight");
    const T* gz = queue.take<const T>(grad_output, output_count(s), "grad_output");
    const T* x = queue.take<const T>(input, input_count(s), "input");
    T* scratch = queue.scratch<T>(workspace, cuda::conv2d_grad_weight_workspace(s));
    return cuda::conv2d_grad_weight<T>(to, {gz, grad_output_last}, {x, input_last}, scratch, s,
                                       accumulate, queue.stream);
  });
}

int64_t conv2d_grad_bias_workspace(bool, const Sizes4& sizes) {
  const auto [batch, channels, height, width] = sizes;
  check_count(product({batch, channels, height, width}));
  return cuda::conv2d_grad_bias_workspace(batch, channels, height * width) *
         static_cast<int64_t>(sizeof(double));
}

void conv2d_grad_bias(bool is_double, Memory grad_bias, Memory grad_output, bool grad_output_last,
                      const Sizes4& sizes, bool accumulate, Memory workspace, int device,
                      uintptr_t stream) {
  const Queue queue(device, stream);
  run("conv2d_grad_bias", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, channels, height, width] = sizes;
    const int64_t count = product({batch, channels, height, width}), pixels = height * width;
    check_count(count);
    T* to = queue.take<T>(grad_bias, channels, "grad_bias");
    const T* from = queue.take<const T>(grad_output, count, "grad_output");
    auto* scratch =
        queue.scratch<double>(workspace, cuda::conv2d_grad_bias_workspace(batch, channels, pixels));
    return cuda::conv2d_grad_bias<T>(to, {from, grad_output_last}, scratch, batch, channels, pixels,
                                     accumulate, queue.stream);
  });
}

void add_bias(bool is_double, Memory image, bool image_last, Memory bias, const Sizes4& sizes,
              int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("add_bias", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, channels, height, width] = sizes;
    const int64_t count = product({batch, channels, height, width});
    check_count(count);
    T* to = queue.take<T>(image, count, "image");
    const T* b = queue.take<const T>(bias, channels, "bias");
    return cuda::add_bias<T>(to, b, count, channels, height * width, image_last, queue.stream);
  });
}

// out from one input, or from two, elementwise: kernel(out, inputs..., count, stream).
template <class Kernel>
void unary(const char* name, bool is_double, Memory out, Memory input, const Queue& queue,
           const Kernel& kernel) {
  run(name, is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(out);
    T* to = queue.take<T>(out, n, "out");
    return kernel(to, queue.take<const T>(input, n, "input"), n, queue.stream);
  });
}

template <class Kernel>
void binary(const char* name, bool is_double, Memory out, Memory first, Memory second,
            const Queue& queue, const Kernel& kernel) {
  run(name, is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(out);
    T* to = queue.take<T>(out, n, "out");
    const T* x = queue.take<const T>(first, n, "first input");
    return kernel(to, x, queue.take<const T>(second, n, "second input"), n, queue.stream);
  });
}

void leaky_relu(bool is_double, Memory out, Memory input, double negative_slope, int device,
                uintptr_t stream) {
  unary("leaky_relu", is_double, out, input, {device, stream},
        [=](auto* to, auto* x, int64_t n, cudaStream_t on) {
          using T = std::remove_pointer_t<decltype(to)>;
          return cuda::leaky_relu(to, x, static_cast<T>(negative_slope), n, on);
        });
}

void leaky_relu_backward(bool is_double, Memory out, Memory grad_output, Memory input,
                         double negative_slope, int device, uintptr_t stream) {
  binary("leaky_relu_backward", is_double, out, grad_output, input, {device, stream},
         [=](auto* to, auto* gz, auto* x, int64_t n, cudaStream_t on) {
           using T = std::remove_pointer_t<decltype(to)>;
           return cuda::leaky_relu_backward(to, gz, x, static_cast<T>(negative_slope), n, on);
         });
}

int64_t mean_loss_workspace(bool, int64_t count) {
  if (count < 1) throw std::invalid_argument("the mean of nothing");
  return cuda::loss_workspace(count) * static_cast<int64_t>(sizeof(double));
}

template <cuda::Loss loss>
void mean_loss(bool is_double, Memory mean, Memory input, Memory target, Memory workspace,
               int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("mean_loss", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(input);
    if (n < 1) throw std::invalid_argument("the mean of nothing");
    double* to = queue.take<double>(mean, 1, "loss");
    const T* y = queue.take<const T>(input, n, "input");
    const T* t = queue.take<const T>(target, n, "target");
    double* scratch = queue.scratch<double>(workspace, cuda::loss_workspace(n));
    return cuda::mean_loss(loss, to, y, t, scratch, n, queue.stream);
  });
}

template <cuda::Loss loss>
void mean_loss_backward(bool is_double, Memory out, Memory input, Memory target, double grad_output,
                        int device, uintptr_t stream) {
  binary("mean_loss_backward", is_double, out, input, target, {device, stream},
         [=](auto* to, auto* x, auto* y, int64_t n, cudaStream_t on) {
           using T = std::remove_pointer_t<decltype(to)>;
           return cuda::mean_loss_backward(loss, to, x, y, static_cast<T>(grad_output), n, on);
         });
}

void sgd_step(bool is_double, Memory param, Memory grad, Memory momentum_buffer, Memory rule,
              bool nesterov, bool first, int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("sgd_step", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(param);
    T* p = queue.take<T>(param, n, "param");
    const T* g = queue.take<const T>(grad, n, "grad");
    T* v = queue.take<T>(momentum_buffer, n, "momentum_buffer", true);
    const double* r = queue.take<const double>(rule, cuda::kRuleNumbers, "rule");
    return cuda::sgd_step(p, g, v, n, r, nesterov, first, queue.stream);
  });
}

void adam_step(bool is_double, Memory param, Memory grad, Memory exp_avg, Memory exp_avg_sq,
               Memory rule, bool decoupled, int device, uintptr_t stream) {
  const Queue queue(device, stream);
  run("adam_step", is_double, queue, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(param);
    T* p = queue.take<T>(param, n, "param");
    const T* g = queue.take<const T>(grad, n, "grad");
    T* m = queue.take<T>(exp_avg, n, "exp_avg");
    T* v = queue.take<T>(exp_avg_sq, n, "exp_avg_sq");
    const double* r = queue.take<const double>(rule, cuda::kRuleNumbers, "rule");
    return cuda::adam_step(p, g, m, v, n, r, decoupled, queue.stream);
  });
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

void define_pointwise(py::module_& m) {
  m.def("set_tensors", &set_tensors);
  m.def("relu", [](bool is_double, Memory out, Memory input, int device, uintptr_t stream) {
    unary("relu", is_double, out, input, {device, stream},
          [](auto* to, auto* x, int64_t n, cudaStream_t on) { return cuda::relu(to, x, n, on); });
  });
  m.def("relu_backward", [](bool is_double, Memory out, Memory grad_output, Memory output,
                            int device, uintptr_t stream) {
    binary("relu_backward", is_double, out, grad_output, output, {device, stream},
           [](auto* to, auto* gz, auto* z, int64_t n, cudaStream_t on) {
             return cuda::relu_backward(to, gz, z, n, on);
           });
  });
  m.def("leaky_relu", &leaky_relu);
  m.def("leaky_relu_backward", &leaky_relu_backward);
  m.def("sigmoid", [](bool is_double, Memory out, Memory input, int device, uintptr_t stream) {
    unary(
        "sigmoid", is_double, out, input, {device, stream},
        [](auto* to, auto* x, int64_t n, cudaStream_t on) { return cuda::sigmoid(to, x, n, on); });
  });
  m.def("sigmoid_backward", [](bool is_double, Memory out, Memory grad_output, Memory output,
                               int device, uintptr_t stream) {
    binary("sigmoid_backward", is_double, out, grad_output, output, {device, stream},
           [](auto* to, auto* gz, auto* z, int64_t n, cudaStream_t on) {
             return cuda::sigmoid_backward(to, gz, z, n, on);
           });
  });
  m.def("mse_loss_workspace", &mean_loss_workspace);
  m.def("l1_loss_workspace", &mean_loss_workspace);
  m.def("mse_loss", &mean_loss<cuda::Loss::kMse>);
  m.def("l1_loss", &mean_loss<cuda::Loss::kL1>);
  m.def("mse_loss_backward", &mean_loss_backward<cuda::Loss::kMse>);
  m.def("l1_loss_backward", &mean_loss_backward<cuda::Loss::kL1>);
  m.def("sgd_step", &sgd_step);
  m.def("adam_step", &adam_step);
}

// Rows, columns, and blocks that share a multiprocessor.
template <size_t kCount>
std::vector<std::tuple<int, int, int>> described(const cuda::Tile (&tiles)[kCount]) {
  std::vector<std::tuple<int, int, int>> all;
  for (const cuda::Tile& tile : tiles) all.emplace_back(tile.rows, tile.columns, tile.resident);
  return all;
}

}  // namespace
}  // namespace pydenoise

// tests/cuda_on_host builds the same module under a name of its own.
#if !defined(PYDENOISE_CUDA_MODULE)
#define PYDENOISE_CUDA_MODULE _cuda
#endif

PYBIND11_MODULE(PYDENOISE_CUDA_MODULE, m) {
  using namespace pydenoise;
  m.doc() = "pydenoise's CUDA kernels on raw memory; use pydenoise.ops.";
  // _C has a Shape of its own
  close(py::class_<ConvShape>(m, "_Shape", py::module_local()));
  m.def("Shape", &checked);
  m.def("device_count", &device_count);
  m.def("driver_version", &driver_version);
  m.def("why_unavailable", &why_unavailable);
  m.def("built_architectures", &built_architectures);
  m.def("prescribe", &cuda::prescribe);
  m.attr("FLOAT_TILES") = described(cuda::kFloatTiles);
  m.attr("TF32_TILES") = described(cuda::kTf32Tiles);
  m.def("im2col", &im2col);
  m.def("col2im", &col2im);
  m.def("matmul", &matmul);
  m.def("conv2d", &conv2d);
  m.def("conv2d_grad_input", &conv2d_grad_input);
  m.def("conv2d_workspace", &workspace_bytes<cuda::conv2d_workspace>);
  m.def("conv2d_grad_input_workspace", &workspace_bytes<cuda::conv2d_grad_input_workspace>);
  m.def("conv2d_grad_weight_workspace", &workspace_bytes<cuda::conv2d_grad_weight_workspace>);
  m.def("conv2d_grad_weight", &conv2d_grad_weight);
  m.def("conv2d_grad_bias_workspace", &conv2d_grad_bias_workspace);
  m.def("conv2d_grad_bias", &conv2d_grad_bias);
  m.def("add_bias", &add_bias);
  define_pointwise(m);
}
