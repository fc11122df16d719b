// How an entry of _C runs its kernel: in one of two types, without Python's lock, with scratch
// memory.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "bindings_memory.h"
#include "cpu/ukernel.h"

namespace pydenoise {

// Scratch memory of this thread, kept from call to call; a very large one is given back.
class Workspace {
 public:
  template <class T>
  T* take(int64_t count) {
    const auto bytes = static_cast<size_t>(product({count, static_cast<int64_t>(sizeof(T))}));
    if (bytes > size_) {
      memory_.reset();
      size_ = 0;
      const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
      memory_.reset(std::aligned_alloc(kAlignment, rounded));
      if (memory_ == nullptr) throw std::bad_alloc();
      size_ = rounded;
    }
    return static_cast<T*>(memory_.get());
  }
  void trim() {
    if (size_ > kKept) {
      memory_.reset();
      size_ = 0;
    }
  }

 private:
  static constexpr size_t kAlignment = cpu::kAlignment, kKept = size_t{64} << 20;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  size_t size_ = 0;
};
inline thread_local Workspace workspace;

// Calls body(T()) without Python's lock, T = float or double.
template <class Body>
auto run(bool is_double, const Body& body) {
  pybind11::gil_scoped_release unlocked;
  struct Trim {
    ~Trim() { workspace.trim(); }
  } at_end;
  return is_double ? body(double()) : body(float());
}

}  // namespace pydenoise
