// The whole-number arithmetic of blocking; all operands are at least 0, divisors at least 1.
#pragma once

#include <cstdint>

namespace pydenoise::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
inline int64_t round_up(int64_t a, int64_t b) {
  return ceil_div(a, b) * b;
}
inline int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}
inline int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

// The product, or kTooMany where it is larger: more elements than any memory holds, yet small
// enough to multiply by a number of threads and bytes.
constexpr int64_t kTooMany = int64_t{1} << 48;
inline int64_t bounded_product(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) || product > kTooMany ? kTooMany : product;
}

}  // namespace pydenoise::cpu
