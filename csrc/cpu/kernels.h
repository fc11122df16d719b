// What is compiled once for each instruction set: the micro-kernels and the inner loops of im2col
// and col2im. isa.cpp holds the table and picks.
//
// One file for each instruction set (kernels_avx2.cpp, ...) includes the .inl files inside a target
// region, in an anonymous namespace, after all headers: nothing compiled there can be taken by the
// linker for the rest of the program.
#pragma once

#include "conv_shape.h"
#include "cpu/ukernel.h"

namespace pydenoise::cpu {

template <class T>
struct Kernels {
  const Ukernel<T>* ukernels;
  int64_t ukernel_count;

  // One channel of one picture. plane: element (y, x) at y * stride_h + x * stride_w; columns: its
  // kernel_h * kernel_w dense rows of the patch matrix. Both overwrite their first argument.
  void (*im2col_channel)(T* columns, const T* plane, int64_t stride_h, int64_t stride_w,
                         const ConvShape& shape);
  void (*col2im_channel)(T* plane, int64_t stride_h, int64_t stride_w, const T* columns,
                         const ConvShape& shape);
};

Kernels<float> float_kernels_scalar();
Kernels<double> double_kernels_scalar();
#if defined(__x86_64__)
Kernels<float> float_kernels_avx2();
Kernels<double> double_kernels_avx2();
Kernels<float> float_kernels_avx512();
Kernels<double> double_kernels_avx512();
#endif

}  // namespace pydenoise::cpu
