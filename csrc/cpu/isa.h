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

// The kernels of the instruction set in use that need the least time: for an outer product of
// m x n, for pixels of so many channels. Which one it is changes no bit of a sum over terms; the
// pieces of grad_weight depend on it.
template <class T>
const OuterKernel<T>& outer_kernel_for(int64_t m, int64_t n);
template <class T>
const GatherKernel<T>& gather_kernel_for(int64_t channels);

// The kernel that writes exactly so many channels; null for more than a few.
template <class T>
const PlaneKernel<T>* plane_kernel_for(int64_t channels);

// Winograd's transforms, and those of weights' gradients for stride 1 or 2.
template <class T>
const WinogradKernel<T>& winograd_kernel(WinogradForm form);
template <class T>
const WinogradGradient<T>& winograd_gradient_kernel(int64_t stride);

}  // namespace pydenoise::cpu
