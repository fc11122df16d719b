// The products of 3 x 3 convolutions by Winograd's F(2 x 2) or F(4 x 4): 2.25 or 4 times
// fewer products with stride 1, 1.44 times with stride 2, and more rounding. A tile is `side` x
// `side` destination positions (with stride 2, mirrored, twice as many pixels). Tiles begin at
// multiples of their size in every picture, so that a picture cut at such multiples gives the same
// bits as the whole.
#pragma once

#include "cpu/direction.h"
#include "cpu/finish.h"
#include "cpu/image.h"

namespace pydenoise::cpu {

// True for what these kernels can compute: side 2 or 4 with stride 1; side 2 with stride 2 where
// the paddings are odd, so that the middle tap comes first in the mirrored direction.
bool has_winograd(const ConvShape& shape, int64_t side);

template <class T>
int64_t winograd_workspace(const Direction& direction, int64_t side, int64_t threads);
template <class T>
void winograd_convolution(ImageView<T> dest, ImageView<const T> image, const T* weight,
                          const Finish<T>& finish, T* workspace, const Direction& direction,
                          int64_t side);

// grad_weight (+)= grad_output u(input)^T, for has_winograd(shape, 2); grad_output channels
// together
template <class T>
int64_t winograd_grad_weight_workspace(const ConvShape& shape, int64_t threads);
template <class T>
void winograd_grad_weight(T* grad_weight, ImageView<const T> grad_output, ImageView<const T> input,
                          T* workspace, const ConvShape& shape, bool accumulate);

}  // namespace pydenoise::cpu
