// Forward and grad_input of 3 x 3 convolutions with stride 1 by Winograd's F(2 x 2) or F(4 x 4):
// 2.25 or 4 times fewer products, more rounding. Tiles begin at multiples of their size in every
// picture, so that a picture cut at such multiples gives the same bits as the whole.
#pragma once

#include "cpu/direction.h"
#include "cpu/finish.h"
#include "cpu/image.h"

namespace pydenoise::cpu {

// True for a shape that these kernels can compute.
bool has_winograd(const ConvShape& shape);

// out: 2 or 4, the side of a tile
template <class T>
int64_t winograd_workspace(const Direction& direction, int64_t out, int64_t threads);
template <class T>
void winograd_convolution(ImageView<T> dest, ImageView<const T> image, const T* weight,
                          const Finish<T>& finish, T* workspace, const Direction& direction,
                          int64_t out);

}  // namespace pydenoise::cpu
