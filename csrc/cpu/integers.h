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

}  // namespace pydenoise::cpu
