// What is compiled once for each instruction set: the micro-kernels and the inner loops of im2col,
// of col2im, of pooling and of all that is pointwise. isa.cpp holds the table and picks.
//
// One file for each instruction set (kernels_avx2.cpp, ...) includes the .inl files inside a target
// region, in an anonymous namespace, after all headers: nothing compiled there can be taken by the
// linker for the rest of the program.
#pragma once

#include "conv_shape.h"
#include "cpu/integers.h"
#include "cpu/pointwise_kernels.h"
#include "cpu/ukernel.h"

namespace pydenoise::cpu {

// Kernels of one kind to pick from.
template <class Kernel>
struct KernelTable {
  const Kernel* data;
  int64_t count;

  const Kernel* begin() const { return data; }
  const Kernel* end() const { return data + count; }
};
template <class Kernel, int64_t kCount>
constexpr KernelTable<Kernel> table(const Kernel (&kernels)[kCount]) {
  return {kernels, kCount};
}

// The register loop behind ruler.h: `flop` operations an iteration; the value says nothing.
template <class T>
struct Ruler {
  int64_t flop;
  T (*run)(int64_t iterations);
};

template <class T>
struct Kernels {
  KernelTable<OuterKernel<T>> outer;
  KernelTable<GatherKernel<T>> gather;
  KernelTable<PlaneKernel<T>> plane;
  KernelTable<WinogradKernel<T>> winograd;
  KernelTable<WinogradGradient<T>> winograd_gradients;

  // sums[c] += channel c of `count` pixels, `step` elements apart
  void (*add_pixels)(double* sums, const T* pixels, int64_t step, int64_t count, int64_t channels);

  // Neighbouring channels. plane: element (c, y, x) at c * stride_c + y * stride_h + x * stride_w;
  // columns: their dense rows of the patch matrix. Both overwrite what they write; what `streams`
  // is written past the caches, where rows are whole registers.
  void (*im2col_channels)(T* columns, const T* plane, int64_t stride_c, int64_t stride_h,
                          int64_t stride_w, int64_t channels, const ConvShape& shape, bool streams);
  void (*col2im_channels)(T* plane, int64_t stride_c, int64_t stride_h, int64_t stride_w,
                          const T* columns, int64_t channels, const ConvShape& shape, bool streams);

  // One row of max pooling and of nearest upsampling's sums, see pooling.inl.
  void (*keep_larger)(T* best, int64_t* where, const T* candidate, int64_t pixel, int64_t stride,
                      int64_t runs, int64_t run);
  void (*add_block)(T* sums, const T* from, int64_t runs, int64_t run, int64_t block_h,
                    int64_t block_w);

  PointwiseKernels<T> pointwise;
  Ruler<T> ruler;
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
