// What the machine can do at most: multiply-adds on registers alone, on all threads at once. No
// memory is touched in the loop, so no kernel of this instruction set can be faster.
#pragma once

#include <cstdint>

namespace pydenoise::cpu {

// Runs the register loop of the instruction set in use `iterations` times on every thread; returns
// the operations done by all of them, a product and a sum counting as two.
template <class T>
int64_t multiply_adds(int64_t iterations);

}  // namespace pydenoise::cpu
