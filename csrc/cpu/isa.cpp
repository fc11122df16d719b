#include "cpu/isa.h"

#include <atomic>
#include <cstdlib>

#include "cpu/image.h"

namespace pydenoise::cpu {
namespace {

struct InstructionSet {
  const char* name;
  bool (*runs_here)();
  UkernelList<float> (*floats)();
  UkernelList<double> (*doubles)();
};

constexpr InstructionSet kSets[] = {
    {"scalar", [] { return true; }, sgemm_ukernels_scalar, dgemm_ukernels_scalar},
#if defined(__x86_64__)
    {"avx2",
     [] { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; },
     sgemm_ukernels_avx2, dgemm_ukernels_avx2},
    {"avx512", [] { return __builtin_cpu_supports("avx512f") != 0; }, sgemm_ukernels_avx512,
     dgemm_ukernels_avx512},
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

UkernelList<float> list_of(const InstructionSet& set, float) {
  return set.floats();
}
UkernelList<double> list_of(const InstructionSet& set, double) {
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
const Ukernel<T>& ukernel_for(int64_t m, int64_t n) {
  const UkernelList<T> list = list_of(*in_use().load(), T());
  const auto cost = [&](const Ukernel<T>& k) {
    return ceil_div(m, k.mr) * ceil_div(n, k.nr) * k.cost;
  };
  const Ukernel<T>* best = &list.kernels[0];
  for (int64_t i = 1; i < list.count; ++i) {
    if (cost(list.kernels[i]) < cost(*best)) best = &list.kernels[i];
  }
  return *best;
}

template const Ukernel<float>& ukernel_for<float>(int64_t, int64_t);
template const Ukernel<double>& ukernel_for<double>(int64_t, int64_t);

}  // namespace pydenoise::cpu
