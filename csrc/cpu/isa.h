// Which instruction set runs: found once, lowered by PYDENOISE_ISA or set_isa, read by the
// products when they pick a micro-kernel.
#pragma once

#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace pydenoise::cpu {

// Names of what this machine can run, the slowest first: "scalar", "avx2", "avx512".
std::vector<std::string> available_isas();

std::string isa();

// False when the name is not one of available_isas(); nothing changes then.
bool set_isa(const std::string& name);

template <class T>
Kernels<T> kernels_in_use();

// The micro-kernel of the instruction set in use that needs the fewest instructions for a
// product of m x n; which one it is does not change a bit of the result.
template <class T>
const Ukernel<T>& ukernel_for(int64_t m, int64_t n);

}  // namespace pydenoise::cpu
