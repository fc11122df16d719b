// What is done to a finished sum of a convolution before it is written: bias and activation
// forward, the activation's gradient backward.
#pragma once

#include <cstdint>

#include "cpu/image.h"

namespace pydenoise::cpu {

enum class Activation : int64_t { kNone, kRelu, kLeakyRelu };

// Forward (no output.data): activation(sum + bias). Backward: sum where the activation's output
// was positive, else 0 or sum * slope; `output` is an image of dest's shape and format.
template <class T>
struct Finish {
  const T* bias = nullptr;  // one value for each channel, or null
  Activation activation = Activation::kNone;
  T slope = 0;  // of leaky ReLU, not negative
  ImageView<const T> output = {};
};

}  // namespace pydenoise::cpu
