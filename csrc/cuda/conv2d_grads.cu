// Gradients of weights and bias: sums over all pixels of all pictures, cut into parts whose number
// the shape alone decides; a second kernel adds the parts in order. No atomics.
#include "cuda/conv2d.h"
#include "cuda/reduce.cuh"

namespace pydenoise::cuda {
namespace {

constexpr int kTogether = 32;  // elements that the threads of a warp take

template <class T>
struct Sums {
  T of_thread[kThreads];
};

// out[place(i)] (+)= parts[0][i] + parts[1][i] + ...: kTogether elements a block, and of each the
// parts in kThreads / kTogether sums, which are then added in order.
template <class T, class Part, class At>
__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(T* out, const Part* parts, int count, int64_t size, const At place,
                     bool accumulate) {
  constexpr int kLanes = kThreads / kTogether;
  const int lane = static_cast<int>(threadIdx.x) / kTogether;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kTogether + threadIdx.x % kTogether;
  Part sum = 0;
  if (i < size) {
#pragma unroll 4
    for (int part = lane; part < count; part += kLanes) sum += parts[part * size + i];
  }
  sum = sum_of_columns(shared_memory<Sums<Part>>().of_thread, kThreads, kTogether, sum);
  if (lane > 0 || i >= size) return;
  T& element = out[place(static_cast<uint32_t>(i))];
  element = static_cast<T>(accumulate ? element + sum : sum);
}

template <class T, class Part, class At>
Status add_parts(T* out, const Part* parts, int count, int64_t size, const At& place,
                 bool accumulate, cudaStream_t stream) {
  return launch(add_parts_kernel<T, Part, At>, ceil_div(size, kTogether), kThreads,
                sizeof(Sums<Part>), stream, out, parts, count, size, place, accumulate);
}

struct InOrder {
  __device__ uint32_t operator()(uint32_t i) const { return i; }
};
struct Unpack {
  Unpacked from;
  __device__ uint32_t operator()(uint32_t i) const { return unpacked_index(from, i); }
};

int32_t weight_parts(const ConvShape& s) {
  return parts_of(s.group_in_channels() * s.taps(), s.group_out_channels(), s.groups,
                  s.batch * s.out_pixels());
}

constexpr int64_t kPartPixels = 1024, kMostBiasParts = 256;

int64_t bias_parts(int64_t pixels) {
  return larger(1, smaller(kMostBiasParts, pixels / kPartPixels));
}

// One block sums one part of the pixels of kChannels channels, each in kLanes sums of every
// kLanes-th pixel: the same ones in both formats. Neighbouring threads take what lies side by side.
constexpr int kChannels = 8, kLanes = kThreads / kChannels;

template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_part_kernel(double* sums, const T* grad_output, uint32_t all, uint32_t pixels,
                     uint32_t channels, uint32_t parts, bool channels_last) {
  auto& shared = shared_memory<Sums<double>>();
  const uint32_t part = blockIdx.x % parts, first = blockIdx.x / parts * kChannels;
  const uint32_t lane = channels_last ? threadIdx.x / kChannels : threadIdx.x % kLanes;
  const uint32_t of_block = channels_last ? threadIdx.x % kChannels : threadIdx.x / kLanes;
  const uint32_t channel = first + of_block;
  const auto edge = [=](uint32_t of) {
    return static_cast<uint32_t>(static_cast<uint64_t>(of) * all / parts);
  };
  const uint32_t end = edge(part + 1);
  double sum = 0;
  if (channel < channels) {
    for (uint32_t pixel = edge(part) + lane; pixel < end; pixel += kLanes) {
      const uint32_t picture = pixel / pixels;
      sum +=
          channels_last
              ? grad_output[pixel * channels + channel]
              : grad_output[(picture * channels + channel) * pixels + (pixel - picture * pixels)];
    }
  }
  const uint32_t thread = lane * kChannels + of_block;
  sum = sum_of_columns(shared.of_thread, kThreads, kChannels, sum, static_cast<int>(thread));
  if (thread < kChannels && channel < channels) sums[part * channels + channel] = sum;
}

}  // namespace

int64_t conv2d_grad_weight_workspace(const ConvShape& s) {
  return weight_parts(s) * s.out_channels * s.group_in_channels() * s.taps();
}

template <class T>
Status conv2d_grad_weight(T* grad_weight, Pictures<const T> grad_output, Pictures<const T> input,
                          T* workspace, const ConvShape& s, bool accumulate, cudaStream_t stream) {
  // The parts are packed, so that neighbouring columns of a row are neighbours there too.
  const Direction forward{
      s, false, dense_strides(s.in_channels, s.in_h, s.in_w, input.channels_last),
      dense_strides(s.out_channels, s.out_h, s.out_w, grad_output.channels_last), true};
  const Phase convolution = phase_of(forward, 0);
  const int64_t pixels = s.batch * s.out_pixels(), channels = s.group_out_channels();
  Product<T> p;
  p.left = input.data;
  p.right = grad_output.data;
  p.out = workspace;
  p.height = static_cast<int32_t>(s.in_h);
  p.width = static_cast<int32_t>(s.in_w);
  p.columns = static_cast<int32_t>(channels);
  p.right_stride = static_cast<int32_t>(forward.dest.c);
  p.out_stride = static_cast<int32_t>(forward.weight_dest_stride());
  p.groups = static_cast<int32_t>(s.groups);
  p.left_group = s.group_in_channels() * forward.source.c;
  p.right_group = channels * forward.dest.c;
  p.out_group = s.group_in_channels() * s.taps() * channels;
  p.parts = weight_parts(s);
  // whole panels, but not beyond what 32 bits hold when the last part begins
  p.part_steps = static_cast<int32_t>(ceil_div(ceil_div(pixels, p.parts), 32) * 32);
  p.out_part = s.groups * p.out_group;
  p.phase[0] = {convolution.steps, convolution.rows};  // weights are rows, pixels steps
  const Status status = multiply(p, false, stream);
  if (status != cudaSuccess) return status;
  return add_parts(grad_weight, workspace, p.parts, p.out_part, Unpack{unpacked(forward)},
                   accumulate, stream);
}

int64_t conv2d_grad_bias_workspace(int64_t batch, int64_t channels, int64_t pixels) {
  return bias_parts(batch * pixels) * channels;
}

template <class T>
Status conv2d_grad_bias(T* grad_bias, Pictures<const T> grad_output, double* workspace,
                        int64_t batch, int64_t channels, int64_t pixels, bool accumulate,
                        cudaStream_t stream) {
  const int64_t parts = bias_parts(batch * pixels);
  const int64_t blocks = parts * ceil_div(channels, kChannels);
  const Status status = launch(bias_part_kernel<T>, blocks, kThreads, sizeof(Sums<double>), stream,
                               workspace, grad_output.data, static_cast<uint32_t>(batch * pixels),
                               static_cast<uint32_t>(pixels), static_cast<uint32_t>(channels),
                               static_cast<uint32_t>(parts), grad_output.channels_last);
  if (status != cudaSuccess) return status;
  return add_parts(grad_bias, workspace, static_cast<int>(parts), channels, InOrder{}, accumulate,
                   stream);
}

#define PYDENOISE_INSTANTIATE(T)                                                              \
  template Status conv2d_grad_weight(T*, Pictures<const T>, Pictures<const T>, T*,            \
                                     const ConvShape&, bool, cudaStream_t);                   \
  template Status conv2d_grad_bias(T*, Pictures<const T>, double*, int64_t, int64_t, int64_t, \
                                   bool, cudaStream_t);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cuda
