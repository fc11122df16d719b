// What Python hands over as memory: an address and a number of bytes, checked before it is used.
//
// It comes from any object with `data_ptr()` and `nbytes`, as a tensor has, or is nothing, from
// None. Whose memory it is and how long it lives is the caller's business.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace pydenoise {

struct Memory {
  uintptr_t address = 0;
  int64_t bytes = 0;
  PyObject* owner = nullptr;  // borrowed
};

// Number of elements, or an error where it does not fit.
inline int64_t product(std::initializer_list<int64_t> sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) {
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) {
      throw std::invalid_argument("sizes are negative or too large");
    }
  }
  return count;
}

// The memory as elements of T, exactly `count` of them, or null for nothing given.
template <class T>
T* elements(const Memory& memory, int64_t count, const char* name, bool optional = false) {
  if (optional && memory.address == 0 && memory.bytes == 0) return nullptr;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(count, static_cast<int64_t>(sizeof(T)), &bytes) ||
      memory.bytes != bytes) {
    throw std::invalid_argument(std::string(name) + ": " + std::to_string(memory.bytes) +
                                " bytes came, the shape needs " + std::to_string(count) + " x " +
                                std::to_string(sizeof(T)));
  }
  if (count > 0 && (memory.address == 0 || memory.address % alignof(T) != 0)) {
    throw std::invalid_argument(std::string(name) + ": not an address of such elements");
  }
  return reinterpret_cast<T*>(memory.address);
}

// Number of elements of type T, for entries whose inputs all have one size.
template <class T>
int64_t count_of(const Memory& memory) {
  if (memory.bytes < 0 || memory.bytes % static_cast<int64_t>(sizeof(T)) != 0) {
    throw std::invalid_argument("a byte count is no multiple of the element size");
  }
  return memory.bytes / static_cast<int64_t>(sizeof(T));
}

}  // namespace pydenoise

// In from Python alone; what the object raises goes back to the caller.
template <>
struct pybind11::detail::type_caster<pydenoise::Memory> {
  PYBIND11_TYPE_CASTER(pydenoise::Memory, const_name("Tensor | None"));
  bool load(handle tensor, bool) {
    if (tensor.is_none()) return true;
    static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
    static PyObject* const nbytes = PyUnicode_InternFromString("nbytes");
    const auto address =
        reinterpret_steal<object>(PyObject_CallMethodNoArgs(tensor.ptr(), data_ptr));
    if (!address) throw error_already_set();
    const auto bytes = reinterpret_steal<object>(PyObject_GetAttr(tensor.ptr(), nbytes));
    if (!bytes) throw error_already_set();
    value = {PyLong_AsSize_t(address.ptr()), PyLong_AsLongLong(bytes.ptr()), tensor.ptr()};
    if (PyErr_Occurred() != nullptr) throw error_already_set();
    return true;
  }
};
