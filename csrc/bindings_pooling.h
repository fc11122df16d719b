// The entries of module _C for pooling and upsampling: sizes are (batch, channels, height, width)
// of the smaller image, and all images of a call lie in one memory format.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <stdexcept>

#include "bindings_memory.h"
#include "bindings_run.h"
#include "bindings_shape.h"
#include "cpu/pooling.h"

namespace pydenoise {

// The planes of images of (batch, channels, height, width).
inline cpu::Planes planes_of(const Sizes4& sizes, bool channels_last) {
  return {sizes[0], sizes[1], channels_last};
}

using Pair = std::array<int64_t, 2>;

inline void max_pool2d(bool is_double, Memory out, Memory indices, Memory input, bool last,
                       const Sizes4& sizes, const Pair& input_size,
                       const std::array<int64_t, 6>& window) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, channels, height, width] = sizes;
    const int64_t count = product({batch, channels, height, width});
    const auto [kh, kw, sh, sw, ph, pw] = window;
    const auto [in_h, in_w] = input_size;
    constexpr int64_t kMost = int64_t{1} << 31;  // so that no sum below overflows
    if (std::max({kh, kw, sh, sw, ph, pw, in_h, in_w, height, width}) > kMost ||
        std::min({kh, kw, sh, sw}) < 1 || std::min({ph, pw, kh - 2 * ph, kw - 2 * pw}) < 0 ||
        (height - 1) * sh + kh > in_h + 2 * ph || (width - 1) * sw + kw > in_w + 2 * pw) {
      throw std::invalid_argument("max_pool2d: the windows do not fit the picture");
    }
    const T* from = elements<const T>(input, product({batch, channels, in_h, in_w}), "input");
    cpu::max_pool2d(elements<T>(out, count, "out"), elements<int64_t>(indices, count, "indices"),
                    from, planes_of(sizes, last), {height, width}, {in_h, in_w},
                    {{kh, kw}, {sh, sw}, {ph, pw}});
  });
}

inline void max_pool2d_backward(bool is_double, Memory grad_input, Memory grad_output,
                                Memory indices, bool last, const Sizes4& sizes,
                                const Pair& input_size) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, channels, height, width] = sizes;
    const int64_t count = product({batch, channels, height, width});
    const auto [in_h, in_w] = input_size;
    T* to = elements<T>(grad_input, product({batch, channels, in_h, in_w}), "grad_input");
    if (!cpu::max_pool2d_backward(to, elements<const T>(grad_output, count, "grad_output"),
                                  elements<const int64_t>(indices, count, "indices"),
                                  planes_of(sizes, last), {height, width}, {in_h, in_w})) {
      throw std::invalid_argument("max_pool2d_backward: an index lies outside the picture");
    }
  });
}

template <bool is_backward>
void upsampling(bool is_double, Memory out, Memory input, bool last, const Sizes4& sizes,
                const Pair& factor) {
  run(is_double, [&](auto zero) {
    using T = decltype(zero);
    const auto [batch, channels, height, width] = sizes;
    const auto [fh, fw] = factor;
    const int64_t small = product({batch, channels, height, width});
    const int64_t large = product({small, fh, fw});
    const T* from = elements<const T>(input, is_backward ? large : small, "input");
    T* to = elements<T>(out, is_backward ? small : large, "out");
    const auto upsample =
        is_backward ? cpu::upsample_nearest2d_backward<T> : cpu::upsample_nearest2d<T>;
    upsample(to, from, planes_of(sizes, last), {height, width}, {fh, fw});
  });
}

}  // namespace pydenoise
