#include "conv_shape.h"

#include <sstream>

namespace pydenoise {

std::string to_string(const ConvShape& s) {
  std::ostringstream text;
  text << "conv " << s.batch << "x" << s.in_channels << "x" << s.in_h << "x" << s.in_w << " -> "
       << s.out_channels << "x" << s.out_h << "x" << s.out_w << ", kernel " << s.kernel_h << "x"
       << s.kernel_w << ", stride " << s.stride_h << "x" << s.stride_w << ", padding "
       << s.padding_h << "x" << s.padding_w << ", dilation " << s.dilation_h << "x" << s.dilation_w
       << ", groups " << s.groups;
  return text.str();
}

namespace {

// Large enough for every picture, small enough that the index formulas cannot overflow.
constexpr int64_t kLargest = int64_t{1} << 31;

const char* why_invalid_side(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                             int64_t padding, int64_t dilation) {
  if (in < 1 || out < 1) return "picture sides must be at least 1";
  if (kernel < 1 || stride < 1 || dilation < 1) {
    return "kernel, stride and dilation must be at least 1";
  }
  if (padding < 0) return "padding must not be negative";
  for (const int64_t value : {in, out, kernel, stride, padding, dilation}) {
    if (value > kLargest) return "a number is larger than 2^31";
  }
  if (in + 2 * padding < dilation * (kernel - 1) + 1) {
    return "the kernel is larger than the padded picture";
  }
  if (out > extent(in, kernel, stride, padding, dilation)) {
    return "the output is larger than the convolution's";
  }
  return nullptr;
}

// True when the product of the sizes does not fit into 2^60 elements.
bool too_many(std::initializer_list<int64_t> sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(product, size, &product)) return true;
  }
  return product > (int64_t{1} << 60);
}

}  // namespace

std::string why_invalid(const ConvShape& s) {
  if (s.batch < 0) return "batch must not be negative";
  if (s.groups < 1) return "groups must be at least 1";
  if (s.in_channels < 1 || s.out_channels < 1) return "channels must be at least 1";
  if (s.in_channels % s.groups != 0 || s.out_channels % s.groups != 0) {
    return "channels must be divisible by groups";
  }
  const char* why =
      why_invalid_side(s.in_h, s.out_h, s.kernel_h, s.stride_h, s.padding_h, s.dilation_h);
  if (why == nullptr) {
    why = why_invalid_side(s.in_w, s.out_w, s.kernel_w, s.stride_w, s.padding_w, s.dilation_w);
  }
  if (why != nullptr) return why;
  if (too_many({s.batch, s.in_channels, s.in_h, s.in_w}) ||
      too_many({s.batch, s.out_channels, s.out_h, s.out_w}) ||
      too_many({s.in_channels, s.out_channels, s.kernel_h, s.kernel_w}) ||
      too_many({s.batch, s.in_channels, s.kernel_h, s.kernel_w, s.out_h, s.out_w})) {
    return "more elements than memory can hold";
  }
  return {};
}

}  // namespace pydenoise
