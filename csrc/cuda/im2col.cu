#include "cuda/im2col.h"

#include "cuda/launch.cuh"

namespace pydenoise::cuda {
namespace {

constexpr int kSteps = 32;  // whose places a block holds at a time

struct Steps {
  Place place[kSteps];
};

// One block: kThreads positions, neighbours in memory, and up to kSteps of (channel, tap).
template <class T>
__global__ void __launch_bounds__(kThreads)
    im2col_kernel(T* columns, const T* input, const __grid_constant__ Phase phase, int32_t height,
                  int32_t width, int blocks_of_rows) {
  auto& steps = shared_memory<Steps>();
  const int first = static_cast<int>(blockIdx.x) / blocks_of_rows * kSteps;
  const int count = phase.steps.count - first < kSteps ? phase.steps.count - first : kSteps;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < kSteps) {
    steps.place[thread] = place_of(phase.steps, first + thread, phase.steps.count);
  }
  __syncthreads();
  const int position = static_cast<int>(blockIdx.x) % blocks_of_rows * kThreads + thread;
  if (position >= phase.rows.count) return;
  const Place own = place_of(phase.rows, position, phase.rows.count);
  constexpr int kReads = 4;  // on their way at a time: none passes a write
  for (int first_read = 0; first_read < count; first_read += kReads) {
    T values[kReads];
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      const Place at = own + steps.place[first_read + i];
      values[i] = inside(at, height, width) ? input[at.source] : T(0);
    }
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      if (first_read + i < count)
        columns[own.other + steps.place[first_read + i].other] = values[i];
    }
  }
}

template <class T>
struct Fold {
  T* output;
  const T* columns;
  int32_t height, width;                     // of the positions in columns
  uint32_t output_channel, columns_channel;  // elements from one channel to the next
  int channels, groups;                      // of kTogether channels
  int phases;
  Phase phase[kMostPhases];
};

constexpr int kTogether = 4;  // channels of a thread: one search of places, more reads on their way

// One block: kThreads pixels of one phase and kTogether channels; each adds its taps in order.
template <class T>
__global__ void __launch_bounds__(kThreads)
    col2im_kernel(const __grid_constant__ Fold<T> fold, int blocks_of_rows) {
  auto& steps = shared_memory<Steps>();
  const int thread = static_cast<int>(threadIdx.x);
  const int index = static_cast<int>(blockIdx.x) / blocks_of_rows;
  const int channel = index % fold.groups * kTogether;
  const Phase& phase = fold.phase[index / fold.groups];
  const int position = static_cast<int>(blockIdx.x) % blocks_of_rows * kThreads + thread;
  const Place own = place_of(phase.rows, position, phase.rows.count);
  const T* columns[kTogether];  // past the last channel that one again
#pragma unroll
  for (int c = 0; c < kTogether; ++c) {
    const int each = channel + c < fold.channels ? channel + c : fold.channels - 1;
    columns[c] = held(fold.columns + static_cast<uint32_t>(each) * fold.columns_channel);
  }
  const int taps = phase.steps.count;
  T sums[kTogether] = {};
  for (int first = 0; first < taps; first += kSteps) {
    const int count = taps - first < kSteps ? taps - first : kSteps;
    if (thread < count) steps.place[thread] = place_of(phase.steps, first + thread, taps);
    __syncthreads();
#pragma unroll 2
    for (int k = 0; k < count; ++k) {
      const Place at = own + steps.place[k];
      const bool is_there = inside(at, fold.height, fold.width);
#pragma unroll
      for (int c = 0; c < kTogether; ++c) sums[c] += is_there ? columns[c][at.source] : T(0);
    }
    __syncthreads();
  }
  if (position >= phase.rows.count) return;
#pragma unroll
  for (int c = 0; c < kTogether; ++c) {
    const int at = channel + c;
    if (at < fold.channels) {
      fold.output[static_cast<uint32_t>(at) * fold.output_channel + own.other] = sums[c];
    }
  }
}

}  // namespace

template <class T>
Status im2col(T* columns, Pictures<const T> input, const ConvShape& s, cudaStream_t stream) {
  const Phase phase =
      im2col_phase(s, dense_strides(s.in_channels, s.in_h, s.in_w, input.channels_last));
  const int64_t over_rows = ceil_div(phase.rows.count, kThreads);
  return launch(im2col_kernel<T>, over_rows * ceil_div(phase.steps.count, kSteps), kThreads,
                sizeof(Steps), stream, columns, input.data, phase, static_cast<int32_t>(s.in_h),
                static_cast<int32_t>(s.in_w), static_cast<int>(over_rows));
}

template <class T>
Status col2im(Pictures<T> output, const T* columns, const ConvShape& s, cudaStream_t stream) {
  const Strides strides = dense_strides(s.in_channels, s.in_h, s.in_w, output.channels_last);
  Fold<T> fold;
  fold.output = output.data;
  fold.columns = columns;
  fold.height = static_cast<int32_t>(s.out_h);
  fold.width = static_cast<int32_t>(s.out_w);
  fold.output_channel = static_cast<uint32_t>(strides.c);
  fold.columns_channel = static_cast<uint32_t>(s.taps() * s.out_pixels());
  fold.channels = static_cast<int>(s.in_channels);
  fold.groups = static_cast<int>(ceil_div(s.in_channels, kTogether));
  const int64_t phases = smaller(s.stride_h, s.in_h) * smaller(s.stride_w, s.in_w);
  Status status = cudaSuccess;
  for (int64_t first = 0; first < phases && status == cudaSuccess; first += kMostPhases) {
    fold.phases = static_cast<int>(smaller(kMostPhases, phases - first));
    int64_t most = 0;
    for (int i = 0; i < fold.phases; ++i) {
      fold.phase[i] = col2im_phase(s, strides, first + i);
      most = larger(most, fold.phase[i].rows.count);
    }
    const int64_t over_rows = ceil_div(most, kThreads);
    status = launch(col2im_kernel<T>, over_rows * fold.groups * fold.phases, kThreads,
                    sizeof(Steps), stream, fold, static_cast<int>(over_rows));
  }
  return status;
}

template Status im2col(float*, Pictures<const float>, const ConvShape&, cudaStream_t);
template Status im2col(double*, Pictures<const double>, const ConvShape&, cudaStream_t);
template Status col2im(Pictures<float>, const float*, const ConvShape&, cudaStream_t);
template Status col2im(Pictures<double>, const double*, const ConvShape&, cudaStream_t);

}  // namespace pydenoise::cuda
