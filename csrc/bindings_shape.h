// The shape as Python hands it over, found valid once, and the elements of what it describes.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings_memory.h"
#include "conv_shape.h"

namespace pydenoise {

using ShapeNumbers = std::array<int64_t, 16>;
using Sizes4 = std::array<int64_t, 4>;

inline ConvShape checked(const ShapeNumbers& n) {
  const ConvShape shape{n[0], n[1], n[2],  n[3],  n[4],  n[5],  n[6],  n[7],
                        n[8], n[9], n[10], n[11], n[12], n[13], n[14], n[15]};
  const std::string why = why_invalid(shape);
  if (!why.empty()) throw std::invalid_argument(to_string(shape) + ": " + why);
  return shape;
}

// Makes a class whose objects come from this module's functions alone: Python can make none that
// no constructor has seen, nor turn one into an object of another class.
inline void close(const pybind11::object& type) {
  auto* const closed = reinterpret_cast<PyTypeObject*>(type.ptr());
  closed->tp_new = [](PyTypeObject* of, PyObject*, PyObject*) -> PyObject* {
    return PyErr_Format(PyExc_TypeError, "%s: not made like this", of->tp_name);
  };
  closed->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
}

inline int64_t input_count(const ConvShape& s) {
  return product({s.batch, s.in_channels, s.in_h, s.in_w});
}
inline int64_t output_count(const ConvShape& s) {
  return product({s.batch, s.out_channels, s.out_h, s.out_w});
}
inline int64_t weight_count(const ConvShape& s) {
  return product({s.out_channels, s.group_in_channels(), s.kernel_h, s.kernel_w});
}
inline int64_t columns_count(const ConvShape& s) {
  return product({s.batch, s.in_channels, s.taps(), s.out_h, s.out_w});
}

}  // namespace pydenoise
