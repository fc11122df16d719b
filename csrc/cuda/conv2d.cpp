// Convolutions as products: what are rows, columns and steps of each.
#include "cuda/conv2d.h"

namespace pydenoise::cuda {
namespace {

template <class T>
Strides strides_of_input(const Pictures<T>& p, const ConvShape& s) {
  return dense_strides(s.in_channels, s.in_h, s.in_w, p.channels_last);
}
template <class T>
Strides strides_of_output(const Pictures<T>& p, const ConvShape& s) {
  return dense_strides(s.out_channels, s.out_h, s.out_w, p.channels_last);
}

// Whether weights are packed first: not where they lie that way, nor where they are few, nor for so
// little that packing would take longer than it saves.
bool is_worth_packing(const Direction& d) {
  constexpr int64_t kManySteps = 64, kManySums = int64_t{1} << 16;
  const ConvShape& s = d.shape;
  const int64_t positions = d.mirrored ? s.in_h * s.in_w : s.out_pixels();
  return d.weight_dest_stride() > 1 && d.dest_channels() > kNarrowColumns &&
         d.source_channels() * s.taps() > kManySteps &&
         s.batch * s.groups * d.dest_channels() * positions >= kManySums;
}
int64_t workspace_of(const Direction& d) {
  const ConvShape& s = d.shape;
  return is_worth_packing(d) ? s.out_channels * s.group_in_channels() * s.taps() : 0;
}

// Rows are the positions of dest, columns its channels, steps the terms of a sum.
template <class T>
Status convolve(T* dest, const T* source, const T* weight, const Finish<T>& finish, T* workspace,
                Direction d, bool tf32, cudaStream_t stream) {
  const ConvShape& s = d.shape;
  if (s.batch == 0) return cudaSuccess;
  if (is_worth_packing(d)) {
    const Status status = pack_weight(workspace, weight, d, stream);
    if (status != cudaSuccess) return status;
    d.packed = true;
    weight = workspace;
  }
  Product<T> p;
  p.left = source;
  p.right = weight;
  p.out = dest;
  p.height = static_cast<int32_t>(d.rows(0).source_size);
  p.width = static_cast<int32_t>(d.cols(0).source_size);
  p.columns = static_cast<int32_t>(d.dest_channels());
  p.right_stride = static_cast<int32_t>(d.weight_dest_stride());
  p.out_stride = static_cast<int32_t>(d.dest.c);
  p.groups = static_cast<int32_t>(s.groups);
  p.left_group = d.source_channels() * d.source.c;
  p.right_group = s.group_out_channels() * s.group_in_channels() * s.taps();
  p.out_group = d.dest_channels() * d.dest.c;
  p.finish = finish;
  const int64_t phases = d.phases_h() * d.phases_w();
  Status status = cudaSuccess;
  for (int64_t first = 0; first < phases && status == cudaSuccess; first += kMostPhases) {
    p.phases = static_cast<int32_t>(smaller(kMostPhases, phases - first));
    for (int i = 0; i < p.phases; ++i) p.phase[i] = phase_of(d, first + i);
    status = multiply(p, tf32, stream);
  }
  return status;
}

}  // namespace

int64_t conv2d_workspace(const ConvShape& s) {
  return workspace_of({s, false, {}, {}});
}

int64_t conv2d_grad_input_workspace(const ConvShape& s) {
  return workspace_of({s, true, {}, {}});
}

template <class T>
Status conv2d(Pictures<T> output, Pictures<const T> input, const T* weight, const Finish<T>& finish,
              T* workspace, const ConvShape& s, bool tf32, cudaStream_t stream) {
  const Direction forward{s, false, strides_of_input(input, s), strides_of_output(output, s)};
  return convolve(output.data, input.data, weight, finish, workspace, forward, tf32, stream);
}

template <class T>
Status conv2d_grad_input(Pictures<T> grad_input, Pictures<const T> grad_output, const T* weight,
                         const Finish<T>& finish, T* workspace, const ConvShape& s, bool tf32,
                         cudaStream_t stream) {
  const Direction mirrored{s, true, strides_of_output(grad_output, s),
                           strides_of_input(grad_input, s)};
  return convolve(grad_input.data, grad_output.data, weight, finish, workspace, mirrored, tf32,
                  stream);
}

template <class T>
Status matmul(Matrix<T> out, Matrix<const T> left, Matrix<const T> right, int64_t batch, int64_t m,
              int64_t n, int64_t k, bool accumulate, cudaStream_t stream) {
  if (batch == 0 || m == 0 || n == 0) return cudaSuccess;
  Product<T> p;
  p.left = left.data;
  p.right = right.data;
  p.out = out.data;
  p.height = p.width = 1;
  p.columns = static_cast<int32_t>(n);
  p.right_stride = static_cast<int32_t>(right.col_stride);
  p.out_stride = static_cast<int32_t>(out.col_stride);
  p.groups = static_cast<int32_t>(batch);
  p.left_group = left.batch_stride;
  p.right_group = right.batch_stride;
  p.out_group = out.batch_stride;
  p.accumulate = accumulate;
  p.phase[0] =
      matrix_phase(m, left.row_stride, out.row_stride, k, left.col_stride, right.row_stride);
  return multiply(p, false, stream);
}

#define PYDENOISE_INSTANTIATE(T)                                                                 \
  template Status conv2d(Pictures<T>, Pictures<const T>, const T*, const Finish<T>&, T*,         \
                         const ConvShape&, bool, cudaStream_t);                                  \
  template Status conv2d_grad_input(Pictures<T>, Pictures<const T>, const T*, const Finish<T>&,  \
                                    T*, const ConvShape&, bool, cudaStream_t);                   \
  template Status matmul(Matrix<T>, Matrix<const T>, Matrix<const T>, int64_t, int64_t, int64_t, \
                         int64_t, bool, cudaStream_t);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cuda
