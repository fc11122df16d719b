// What Python hands over as memory: an address and a number of bytes, checked before it is used.
//
// It comes from a tensor of the one class that was named as such, whose word is taken for it, or is
// nothing, from None. How long it lives is the caller's business.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace pydenoise {

struct Memory {
  uintptr_t address = 0;
  int64_t bytes = 0;          // of its elements
  int64_t reach = 0;          // bytes from the address to the end of what is allocated
  PyObject* owner = nullptr;  // borrowed
};

// The class of tensors, and the name of the attribute that says whether one is where this module's
// kernels can read it; null where nobody asks. Set once, with Python's lock, never taken back.
struct Tensors {
  PyObject* type = nullptr;
  PyObject* is_here = nullptr;
};
inline Tensors tensors;

inline void set_tensors(const pybind11::type& type, const std::string& is_here) {
  tensors.type = type.inc_ref().ptr();
  tensors.is_here = is_here.empty() ? nullptr : PyUnicode_InternFromString(is_here.c_str());
}

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
  if (memory.bytes > memory.reach) {
    throw std::invalid_argument(std::string(name) + ": not so many bytes are allocated");
  }
  if (count > 0 && (memory.address == 0 || memory.address % alignof(T) != 0)) {
    throw std::invalid_argument(std::string(name) + ": not an address of such elements");
  }
  return reinterpret_cast<T*>(memory.address);
}

using Numbers3 = std::array<int64_t, 3>;

// The address of elements at these strides, all of them allocated; null where there are none.
template <class T>
T* strided_elements(const Memory& memory, const Numbers3& sizes, const Numbers3& strides,
                    const char* name) {
  if (product({sizes[0], sizes[1], sizes[2]}) == 0) return nullptr;
  int64_t count = 1, bytes = 0;  // up to the last element
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (__builtin_add_overflow(count, product({sizes[i] - 1, strides[i]}), &count)) {
      throw std::invalid_argument(std::string(name) + ": strides are too large");
    }
  }
  if (__builtin_mul_overflow(count, static_cast<int64_t>(sizeof(T)), &bytes) ||
      bytes > memory.reach || memory.address == 0 || memory.address % alignof(T) != 0) {
    throw std::invalid_argument(std::string(name) + ": reaches beyond what is allocated");
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

// In from Python alone; what the tensor raises goes back to the caller.
template <>
struct pybind11::detail::type_caster<pydenoise::Memory> {
  PYBIND11_TYPE_CASTER(pydenoise::Memory, const_name("Tensor | None"));
  bool load(handle tensor, bool) {
    if (tensor.is_none()) return true;
    const pydenoise::Tensors& known = pydenoise::tensors;
    if (reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr())) != known.type) return false;
    static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
    static PyObject* const nbytes = PyUnicode_InternFromString("nbytes");
    static PyObject* const storage = PyUnicode_InternFromString("untyped_storage");
    if (known.is_here != nullptr && attribute(tensor, known.is_here).ptr() != Py_True) {
      throw std::invalid_argument("a tensor is not in the memory of these kernels");
    }
    const object allocated = called(tensor, storage);
    const auto address = number<uintptr_t>(called(tensor, data_ptr));
    const auto begin = number<uintptr_t>(called(allocated, data_ptr));
    const auto size = number<int64_t>(called(allocated, nbytes));
    const auto before = static_cast<int64_t>(address - begin);
    value = {address, number<int64_t>(attribute(tensor, nbytes)), size - before, tensor.ptr()};
    return true;
  }

 private:
  static object known_or_raised(PyObject* found) {
    if (found == nullptr) throw error_already_set();
    return reinterpret_steal<object>(found);
  }
  static object called(handle on, PyObject* name) {
    return known_or_raised(PyObject_CallMethodNoArgs(on.ptr(), name));
  }
  static object attribute(handle of, PyObject* name) {
    return known_or_raised(PyObject_GetAttr(of.ptr(), name));
  }
  template <class T>
  static T number(const object& found) {
    const auto value = std::is_same_v<T, uintptr_t>
                           ? static_cast<T>(PyLong_AsSize_t(found.ptr()))
                           : static_cast<T>(PyLong_AsLongLong(found.ptr()));
    if (PyErr_Occurred() != nullptr) throw error_already_set();
    return value;
  }
};
