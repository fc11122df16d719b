#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>

#include "cpu/integers.h"

namespace pydenoise::cpu {
namespace {

struct InstructionSet {
  const char* name;
  bool (*runs_here)();
  Kernels<float> (*floats)();
  Kernels<double> (*doubles)();
};

constexpr InstructionSet kSets[] = {
    {"scalar", [] { return true; }, float_kernels_scalar, double_kernels_scalar},
#if defined(__x86_64__)
    {"avx2",
     [] { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; },
     float_kernels_avx2, double_kernels_avx2},
    {"avx512", [] { return __builtin_cpu_supports("avx512f") != 0; }, float_kernels_avx512,
     double_kernels_avx512},
#endif
};

const InstructionSet* find(const std::string& name) {
  for (const InstructionSet& set : kSets) {
    if (name == set.name && set.runs_here()) return &set;
  }
  return nullptr;
}

const InstructionSet* at_start() {
  const InstructionSet* best = &kSets[0];
  for (const InstructionSet& set : kSets) {
    if (set.runs_here()) best = &set;
  }
  const char* wanted = std::getenv("PYDENOISE_ISA");
  const InstructionSet* lowered = wanted == nullptr ? nullptr : find(wanted);
  return lowered == nullptr ? best : lowered;
}

std::atomic<const InstructionSet*>& in_use() {
  static std::atomic<const InstructionSet*> set{at_start()};
  return set;
}

Kernels<float> kernels_of(const InstructionSet& set, float) {
  return set.floats();
}
Kernels<double> kernels_of(const InstructionSet& set, double) {
  return set.doubles();
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const InstructionSet& set : kSets) {
    if (set.runs_here()) names.emplace_back(set.name);
  }
  return names;
}

std::string isa() {
  return in_use().load()->name;
}

bool set_isa(const std::string& name) {
  const InstructionSet* set = find(name);
  if (set != nullptr) in_use() = set;
  return set != nullptr;
}

template <class T>
Kernels<T> kernels_in_use() {
  return kernels_of(*in_use().load(), T());
}

namespace {

template <class Kernel, class Cost>
const Kernel& cheapest(const KernelTable<Kernel>& kernels, const Cost& cost) {
  const Kernel* best = kernels.begin();
  for (const Kernel& kernel : kernels) {
    if (cost(kernel) < cost(*best)) best = &kernel;
  }
  return *best;
}

}  // namespace

template <class T>
const OuterKernel<T>& outer_kernel_for(int64_t m, int64_t n) {
  return cheapest(kernels_in_use<T>().outer, [=](const OuterKernel<T>& kernel) {
    return ceil_div(m, kernel.mr) * ceil_div(n, kernel.nr) * kernel.cost;
  });
}

template <class T>
const GatherKernel<T>& gather_kernel_for(int64_t channels) {
  return cheapest(kernels_in_use<T>().gather, [=](const GatherKernel<T>& kernel) {
    return ceil_div(channels, kernel.nr) * kernel.cost;
  });
}

template <class T>
const PlaneKernel<T>* plane_kernel_for(int64_t channels) {
  for (const PlaneKernel<T>& kernel : kernels_in_use<T>().plane) {
    if (kernel.channels == channels) return &kernel;
  }
  return nullptr;
}

template <class T>
const WinogradKernel<T>& winograd_kernel(WinogradForm form) {
  return kernels_in_use<T>().winograd.data[static_cast<int>(form)];
}

template <class T>
const WinogradGradient<T>& winograd_gradient_kernel(int64_t stride) {
  return kernels_in_use<T>().winograd_gradients.data[stride - 1];
}

template Kernels<float> kernels_in_use<float>();
template Kernels<double> kernels_in_use<double>();
template const OuterKernel<float>& outer_kernel_for<float>(int64_t, int64_t);
template const OuterKernel<double>& outer_kernel_for<double>(int64_t, int64_t);
template const GatherKernel<float>& gather_kernel_for<float>(int64_t);
template const GatherKernel<double>& gather_kernel_for<double>(int64_t);
template const PlaneKernel<float>* plane_kernel_for<float>(int64_t);
template const PlaneKernel<double>* plane_kernel_for<double>(int64_t);
template const WinogradKernel<float>& winograd_kernel<float>(WinogradForm);
template const WinogradKernel<double>& winograd_kernel<double>(WinogradForm);
template const WinogradGradient<float>& winograd_gradient_kernel<float>(int64_t);
template const WinogradGradient<double>& winograd_gradient_kernel<double>(int64_t);

}  // namespace pydenoise::cpu
