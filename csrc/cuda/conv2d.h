// The three products of a convolution on a GPU; the patch matrix is never stored.
//
// Destination first, inputs next, shape last, then the stream. Pictures are dense, in either memory
// format, each its own; weights are dense (out_channels, in_channels/groups, kernel_h, kernel_w).
// Everything is overwritten unless `accumulate`. Callers have checked the shape (why_invalid,
// why_too_large) and that nothing overlaps. Results are the same bits in every run.
//
// The terms of one element are added in one order, whatever the size of the pictures: taps row by
// row, as they lie in the source, in each tap the channels, bias last.
#pragma once

#include "conv_shape.h"
#include "cuda/product.h"

namespace pydenoise::cuda {

// A dense picture batch and its memory format.
template <class T>
struct Pictures {
  T* data;
  bool channels_last;
};

// Workspaces have as many elements as the function of that name says, and may be null for none.

// output[n, m, y, x] = finish(sum over (i, j, c) of weight[m, c, i, j] * input at that tap)
int64_t conv2d_workspace(const ConvShape& shape);
template <class T>
Status conv2d(Pictures<T> output, Pictures<const T> input, const T* weight, const Finish<T>& finish,
              T* workspace, const ConvShape& shape, bool tf32, cudaStream_t stream);

// grad_input = finish(f(W^T grad_output)); a bias is a transposed convolution's own
int64_t conv2d_grad_input_workspace(const ConvShape& shape);
template <class T>
Status conv2d_grad_input(Pictures<T> grad_input, Pictures<const T> grad_output, const T* weight,
                         const Finish<T>& finish, T* workspace, const ConvShape& shape, bool tf32,
                         cudaStream_t stream);

// grad_weight (+)= grad_output u(input)^T
int64_t conv2d_grad_weight_workspace(const ConvShape& shape);
template <class T>
Status conv2d_grad_weight(T* grad_weight, Pictures<const T> grad_output, Pictures<const T> input,
                          T* workspace, const ConvShape& shape, bool accumulate,
                          cudaStream_t stream);

// grad_bias[c] (+)= sum over n, y, x of grad_output (batch, channels, pixels), in double
int64_t conv2d_grad_bias_workspace(int64_t batch, int64_t channels, int64_t pixels);
template <class T>
Status conv2d_grad_bias(T* grad_bias, Pictures<const T> grad_output, double* workspace,
                        int64_t batch, int64_t channels, int64_t pixels, bool accumulate,
                        cudaStream_t stream);

// packed = the weights of one direction in the order in which its steps meet them, see gather.h
template <class T>
Status pack_weight(T* packed, const T* weight, const Direction& direction, cudaStream_t stream);

// Element (b, i, j) at data + b*batch_stride + i*row_stride + j*col_stride.
template <class T>
struct Matrix {
  T* data;
  int64_t batch_stride, row_stride, col_stride;
};

// out[b] = left[b] right[b], or += when accumulate: (batch, m, k) x (batch, k, n); offsets inside
// one matrix fit 31 bits.
template <class T>
Status matmul(Matrix<T> out, Matrix<const T> left, Matrix<const T> right, int64_t batch, int64_t m,
              int64_t n, int64_t k, bool accumulate, cudaStream_t stream);

}  // namespace pydenoise::cuda
