// Forward and grad_input for a destination of few channels, with vectors of pixels. Terms are added
// in conv2d.h's order, so that the bits are those of the general way.
#pragma once

#include "cpu/direction.h"
#include "cpu/finish.h"
#include "cpu/image.h"

namespace pydenoise::cpu {

// True where this way exists and pays: few destination channels, neighbouring positions that read
// neighbouring pixels, near each other, and no activation's output to read.
template <class T>
bool has_few_channels(const Direction& direction, const Finish<T>& finish);

template <class T>
int64_t few_channels_workspace(const Direction& direction, int64_t threads);
template <class T>
void few_channels_convolution(ImageView<T> dest, ImageView<const T> image, const T* weight,
                              const Finish<T>& finish, T* workspace, const Direction& direction);

}  // namespace pydenoise::cpu
