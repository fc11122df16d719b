// The three products of a convolution as implicit GEMM: the patch matrix is never stored.
//
// Destination first, inputs next, shape last. Pictures may be in either memory format, each its
// own. Weights are dense (out_channels, in_channels/groups, kernel_h, kernel_w). Everything is
// overwritten unless `accumulate`. Callers have checked the shape (why_invalid) and that nothing
// overlaps; workspace holds that many elements, aligned to kAlignment bytes, for the current
// instruction set and at most `threads` threads.
//
// winograd: 0, or a side of winograd.h's tiles for which has_winograd(shape, side); 2 for weights.
//
// The order in which the terms of one element are added: taps row by row, as they lie in the
// source, in each tap the channels, bias last; with Winograd's products the channels of each plane
// that a result sums, then the transform; grad_weight: in pieces, see conv2d_grad_weight.cpp and
// winograd_grad_weight.cpp.
#pragma once

#include "conv_shape.h"
#include "cpu/finish.h"
#include "cpu/image.h"

namespace pydenoise::cpu {

// output[n, m, y, x] = finish(sum over (i, j, c) of weight[m, c, i, j] * input at that tap)
template <class T>
int64_t conv2d_workspace(const ConvShape& shape, int64_t threads, int64_t winograd);
template <class T>
void conv2d(ImageView<T> output, ImageView<const T> input, const T* weight, const Finish<T>& finish,
            T* workspace, const ConvShape& shape, int64_t winograd);

// grad_input = finish(f(W^T grad_output)); a bias is a transposed convolution's own
template <class T>
int64_t conv2d_grad_input_workspace(const ConvShape& shape, int64_t threads, int64_t winograd);
template <class T>
void conv2d_grad_input(ImageView<T> grad_input, ImageView<const T> grad_output, const T* weight,
                       const Finish<T>& finish, T* workspace, const ConvShape& shape,
                       int64_t winograd);

// grad_weight (+)= grad_output u(input)^T
template <class T>
int64_t conv2d_grad_weight_workspace(ImageView<const T> grad_output, ImageView<const T> input,
                                     const ConvShape& shape, int64_t threads, int64_t winograd);
template <class T>
void conv2d_grad_weight(T* grad_weight, ImageView<const T> grad_output, ImageView<const T> input,
                        T* workspace, const ConvShape& shape, bool accumulate, int64_t winograd);

// grad_bias[c] (+)= sum over n, y, x of grad_output (batch, channels, height, width)
template <class T>
int64_t conv2d_grad_bias_workspace(ImageView<const T> grad_output, int64_t batch, int64_t channels,
                                   int64_t pixels, int64_t threads);
template <class T>
void conv2d_grad_bias(T* grad_bias, ImageView<const T> grad_output, double* workspace,
                      int64_t batch, int64_t channels, int64_t height, int64_t width,
                      bool accumulate);

}  // namespace pydenoise::cpu
