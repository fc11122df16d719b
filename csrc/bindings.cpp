// Module _C: pointers and byte counts in, checked again, kernels called.
//
// Memory arrives as a tensor, or None for nothing; a shape as an object made once from the 16
// numbers of ConvShape. Every entry checks that the shape describes memory of exactly that size,
// all of it allocated, before a kernel sees it, and releases Python's lock while the kernel runs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings_memory.h"
#include "bindings_pooling.h"
#include "bindings_run.h"
#include "bindings_shape.h"
#include "bindings_tape.h"
#include "conv_shape.h"
#include "cpu/conv2d.h"
#include "cpu/gemm.h"
#include "cpu/im2col.h"
#include "cpu/isa.h"
#include "cpu/pointwise.h"
#include "cpu/winograd.h"
#include "cpu/ruler.h"
#include "cpu/ukernel.h"
#include "parallel.h"

namespace py = pybind11;

namespace pydenoise {
namespace {

template <class T>
cpu::ImageView<T> input_image(T* data, const ConvShape& s, bool channels_last) {
  return cpu::dense_image(data, s.in_channels, s.in_h, s.in_w, channels_last);
}
template <class T>
cpu::ImageView<T> output_image(T* data, const ConvShape& s, bool channels_last) {
  return cpu::dense_image(data, s.out_channels, s.out_h, s.out_w, channels_last);
}

void im2col(bool is_double, Memory columns, Memory input, bool input_last, const ConvShape& s) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    T* to = elements<T>(columns, columns_count(s), "columns");
    const T* from = elements<const T>(input, input_count(s), "input");
    cpu::im2col(to, input_image(from, s, input_last), s);
  });
}

void col2im(bool is_double, Memory output, bool output_last, Memory columns, const ConvShape& s) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    T* to = elements<T>(output, input_count(s), "output");
    const T* from = elements<const T>(columns, columns_count(s), "columns");
    cpu::col2im(input_image(to, s, output_last), from, s);
  });
}

template <class T>
cpu::MatrixView<T> matrices(const Memory& memory, const Numbers3& sizes, const Numbers3& strides,
                            const char* name) {
  T* const data = strided_elements<T>(memory, sizes, strides, name);
  return {data, strides[0], strides[1], strides[2]};
}

void matmul(bool is_double, Memory out, const Numbers3& out_stride, Memory left,
            const Numbers3& left_stride, Memory right, const Numbers3& right_stride,
            const Sizes4& sizes, bool accumulate) {
  Tape::spoil();
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, m, n, k] = sizes;
    if (product({batch, m, n}) == 0) return;
    const auto to = matrices<T>(out, {batch, m, n}, out_stride, "out");
    const auto a = matrices<const T>(left, {batch, m, k}, left_stride, "left");
    const auto b = matrices<const T>(right, {batch, k, n}, right_stride, "right");
    T* scratch = workspace.take<T>(cpu::matmul_workspace<T>(m, n, thread_count()));
    cpu::matmul(to, a, b, scratch, batch, m, n, k, accumulate);
  });
}

int64_t checked_winograd(int64_t winograd, const ConvShape& s, int64_t most = 4) {
  if (winograd != 0 && !(winograd <= most && cpu::has_winograd(s, winograd))) {
    throw std::invalid_argument(to_string(s) + ": no Winograd products of this size");
  }
  return winograd;
}

// What is done to sums before they are written to `dest`, of `count` elements.
template <class T>
cpu::Finish<T> finish_of(const T* bias, int64_t activation, double slope, const Memory& activated,
                         int64_t count, const cpu::ImageView<T>& dest) {
  if (activation < 0 || activation > static_cast<int64_t>(cpu::Activation::kLeakyRelu)) {
    throw std::invalid_argument("no such activation");
  }
  cpu::Finish<T> finish;
  finish.bias = bias;
  finish.activation = static_cast<cpu::Activation>(activation);
  finish.slope = static_cast<T>(slope);
  const T* output = elements<const T>(activated, count, "activation's output", true);
  if (output != nullptr && dest.stride_c != 1) {
    throw std::invalid_argument("an activation's output is read channels together alone");
  }
  finish.output = {output, dest.stride_n, dest.stride_c, dest.stride_h, dest.stride_w};
  return finish;
}

void conv2d(bool is_double, Memory output, bool output_last, Memory input, bool input_last,
            Memory weight, Memory bias, const ConvShape& s, int64_t winograd, int64_t activation,
            double slope, Memory activated) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    T* to = elements<T>(output, output_count(s), "output");
    const T* from = elements<const T>(input, input_count(s), "input");
    const T* w = elements<const T>(weight, weight_count(s), "weight");
    const T* b = elements<const T>(bias, s.out_channels, "bias", true);
    T* scratch = workspace.take<T>(
        cpu::conv2d_workspace<T>(s, thread_count(), checked_winograd(winograd, s)));
    const cpu::ImageView<T> dest = output_image(to, s, output_last);
    const auto finish = finish_of<T>(b, activation, slope, activated, output_count(s), dest);
    cpu::conv2d(dest, input_image(from, s, input_last), w, finish, scratch, s, winograd);
  });
}

void conv2d_grad_input(bool is_double, Memory grad_input, bool grad_input_last, Memory grad_output,
                       bool grad_output_last, Memory weight, Memory bias, const ConvShape& s,
                       int64_t winograd, int64_t activation, double slope, Memory activated) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    T* to = elements<T>(grad_input, input_count(s), "grad_input");
    const T* from = elements<const T>(grad_output, output_count(s), "grad_output");
    const T* w = elements<const T>(weight, weight_count(s), "weight");
    const T* b = elements<const T>(bias, s.in_channels, "bias", true);
    T* scratch = workspace.take<T>(
        cpu::conv2d_grad_input_workspace<T>(s, thread_count(), checked_winograd(winograd, s)));
    const cpu::ImageView<T> dest = input_image(to, s, grad_input_last);
    const auto finish = finish_of<T>(b, activation, slope, activated, input_count(s), dest);
    cpu::conv2d_grad_input(dest, output_image(from, s, grad_output_last), w, finish, scratch, s,
                           winograd);
  });
}

void conv2d_grad_weight(bool is_double, Memory grad_weight, Memory grad_output,
                        bool grad_output_last, Memory input, bool input_last, const ConvShape& s,
                        bool accumulate, int64_t winograd) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    T* to = elements<T>(grad_weight, weight_count(s), "grad_weight");
    const T* gradient = elements<const T>(grad_output, output_count(s), "grad_output");
    const T* from = elements<const T>(input, input_count(s), "input");
    const auto gz = output_image(gradient, s, grad_output_last);
    const auto x = input_image(from, s, input_last);
    T* scratch = workspace.take<T>(cpu::conv2d_grad_weight_workspace(
        gz, x, s, thread_count(), checked_winograd(winograd, s, 2)));
    cpu::conv2d_grad_weight(to, gz, x, scratch, s, accumulate, winograd);
  });
}

void conv2d_grad_bias(bool is_double, Memory grad_bias, Memory grad_output, bool grad_output_last,
                      const Sizes4& sizes, bool accumulate) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, channels, height, width] = sizes;
    const int64_t count = product({batch, channels, height, width});
    T* to = elements<T>(grad_bias, channels, "grad_bias");
    const T* from = elements<const T>(grad_output, count, "grad_output");
    const auto image = cpu::dense_image(from, channels, height, width, grad_output_last);
    auto* scratch = workspace.take<double>(cpu::conv2d_grad_bias_workspace(
        image, batch, channels, product({height, width}), thread_count()));
    cpu::conv2d_grad_bias(to, image, scratch, batch, channels, height, width, accumulate);
  });
}

void add_bias(bool is_double, Memory image, bool image_last, Memory bias, const Sizes4& sizes) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, channels, height, width] = sizes;
    T* to = elements<T>(image, product({batch, channels, height, width}), "image");
    const T* b = elements<const T>(bias, channels, "bias");
    cpu::add_bias(cpu::dense_image(to, channels, height, width, image_last), b, batch, channels,
                  height, width);
  });
}

// out from one input, or from two, elementwise: kernel(out, inputs..., count).
template <class Kernel>
void unary(bool is_double, Memory out, Memory input, const Kernel& kernel) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(out);
    kernel(elements<T>(out, n, "out"), elements<const T>(input, n, "input"), n);
  });
}

template <class Kernel>
void binary(bool is_double, Memory out, Memory first, Memory second, const Kernel& kernel) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(out);
    kernel(elements<T>(out, n, "out"), elements<const T>(first, n, "first input"),
           elements<const T>(second, n, "second input"), n);
  });
}

void relu(bool is_double, Memory out, Memory input) {
  unary(is_double, out, input, [](auto* to, auto* x, int64_t n) { cpu::relu(to, x, n); });
}

void relu_backward(bool is_double, Memory out, Memory grad_output, Memory output) {
  binary(is_double, out, grad_output, output,
         [](auto* to, auto* gz, auto* z, int64_t n) { cpu::relu_backward(to, gz, z, n); });
}

void sigmoid(bool is_double, Memory out, Memory input) {
  unary(is_double, out, input, [](auto* to, auto* x, int64_t n) { cpu::sigmoid(to, x, n); });
}

void sigmoid_backward(bool is_double, Memory out, Memory grad_output, Memory output) {
  binary(is_double, out, grad_output, output,
         [](auto* to, auto* gz, auto* s, int64_t n) { cpu::sigmoid_backward(to, gz, s, n); });
}

void leaky_relu(bool is_double, Memory out, Memory input, double negative_slope) {
  unary(is_double, out, input, [=](auto* to, auto* x, int64_t n) {
    cpu::leaky_relu(to, x, static_cast<std::remove_pointer_t<decltype(to)>>(negative_slope), n);
  });
}

void leaky_relu_backward(bool is_double, Memory out, Memory grad_output, Memory input,
                         double negative_slope) {
  binary(is_double, out, grad_output, input, [=](auto* to, auto* gz, auto* x, int64_t n) {
    cpu::leaky_relu_backward(to, gz, x,
                             static_cast<std::remove_pointer_t<decltype(to)>>(negative_slope), n);
  });
}

enum class Loss { kMse, kL1 };

template <Loss loss>
double mean_loss(bool is_double, Memory input, Memory target) {
  return run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(input);
    if (n < 1) throw std::invalid_argument("the mean of nothing");
    const T* y = elements<const T>(input, n, "input");
    const T* t = elements<const T>(target, n, "target");
    return loss == Loss::kMse ? cpu::mse_loss(y, t, n) : cpu::l1_loss(y, t, n);
  });
}

template <Loss loss>
void mean_loss_backward(bool is_double, Memory out, Memory input, Memory target,
                        double grad_output) {
  binary(is_double, out, input, target, [=](auto* to, auto* y, auto* t, int64_t n) {
    const auto scale = static_cast<std::remove_pointer_t<decltype(to)>>(grad_output);
    loss == Loss::kMse ? cpu::mse_loss_backward(to, y, t, scale, n)
                       : cpu::l1_loss_backward(to, y, t, scale, n);
  });
}

void sgd_step(bool is_double, Memory param, Memory grad, Memory momentum_buffer,
              const std::array<double, 4>& rule, bool nesterov, bool first) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(param);
    cpu::sgd_step(elements<T>(param, n, "param"), elements<const T>(grad, n, "grad"),
                  elements<T>(momentum_buffer, n, "momentum_buffer", true), n,
                  {rule[0], rule[1], rule[2], rule[3], nesterov, first});
  });
}

void adam_step(bool is_double, Memory param, Memory grad, Memory exp_avg, Memory exp_avg_sq,
               const std::array<double, 5>& rule, bool decoupled, int64_t step) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const int64_t n = count_of<T>(param);
    if (step < 1) throw std::invalid_argument("adam_step: step counts from 1");
    cpu::adam_step(elements<T>(param, n, "param"), elements<const T>(grad, n, "grad"),
                   elements<T>(exp_avg, n, "exp_avg"), elements<T>(exp_avg_sq, n, "exp_avg_sq"), n,
                   {rule[0], rule[1], rule[2], rule[3], rule[4], decoupled, step});
  });
}

}  // namespace
}  // namespace pydenoise

PYBIND11_MODULE(_C, m) {
  using namespace pydenoise;
  m.doc() = "pydenoise's CPU kernels on raw memory; use pydenoise.ops.";
  close(py::class_<ConvShape>(m, "_Shape"));
  m.def("Shape", &checked);
  auto tape = py::class_<Tape>(m, "_Tape");
  tape.def("start", &Tape::start)
      .def("stop", &Tape::stop)
      .def("others", &Tape::others)
      .def("replay", &Tape::replay);
  close(tape);
  m.def(
      "Tape",
      [](const py::args& pictures, const py::iterable& watched) {
        return std::make_unique<Tape>(pictures, watched);
      },
      py::kw_only(), py::arg("watched"));
  m.def("set_tensors", &set_tensors);
  // The two functions of torch's pool, in capsules of their names, which Python alone cannot make.
  m.def("set_thread_pool", [](const py::capsule& parallel_for, const py::capsule& get_num_threads) {
    const auto pointer = [](const py::capsule& capsule, const char* name) {
      void* found = PyCapsule_GetPointer(capsule.ptr(), name);
      if (found == nullptr) throw py::error_already_set();
      return found;
    };
    set_thread_pool(
        reinterpret_cast<TorchParallelFor>(pointer(parallel_for, "torch_parallel_for")),
        reinterpret_cast<TorchGetNumThreads>(pointer(get_num_threads, "torch_get_num_threads")));
  });
  m.def("leave_thread_pool", [] { set_thread_pool(nullptr, nullptr); });
  m.def("thread_count", &thread_count);
  m.def("available_isas", &cpu::available_isas);
  m.def("isa", &cpu::isa);
  m.def("set_isa", [](const std::string& name) {
    if (!cpu::set_isa(name)) throw std::invalid_argument("no instruction set " + name + " here");
  });
  m.def("multiply_adds", [](bool is_double, int64_t iterations) {
    return run(is_double,
               [&](auto zero) { return cpu::multiply_adds<decltype(zero)>(iterations); });
  });
  def_recorded(m, "im2col", &im2col);
  def_recorded(m, "col2im", &col2im);
  m.def("matmul", &matmul);
  def_recorded(m, "conv2d", &conv2d);
  def_recorded(m, "conv2d_grad_input", &conv2d_grad_input);
  def_recorded(m, "conv2d_grad_weight", &conv2d_grad_weight);
  def_recorded(m, "conv2d_grad_bias", &conv2d_grad_bias);
  def_recorded(m, "add_bias", &add_bias);
  def_recorded(m, "max_pool2d", &max_pool2d);
  def_recorded(m, "max_pool2d_backward", &max_pool2d_backward);
  def_recorded(m, "upsample_nearest2d", &upsampling<false>);
  def_recorded(m, "upsample_nearest2d_backward", &upsampling<true>);
  def_recorded(m, "relu", &relu);
  def_recorded(m, "relu_backward", &relu_backward);
  def_recorded(m, "leaky_relu", &leaky_relu);
  def_recorded(m, "leaky_relu_backward", &leaky_relu_backward);
  def_recorded(m, "sigmoid", &sigmoid);
  def_recorded(m, "sigmoid_backward", &sigmoid_backward);
  def_recorded(m, "mse_loss", &mean_loss<Loss::kMse>);
  def_recorded(m, "l1_loss", &mean_loss<Loss::kL1>);
  def_recorded(m, "mse_loss_backward", &mean_loss_backward<Loss::kMse>);
  def_recorded(m, "l1_loss_backward", &mean_loss_backward<Loss::kL1>);
  def_recorded(m, "sgd_step", &sgd_step);
  def_recorded(m, "adam_step", &adam_step);
}
