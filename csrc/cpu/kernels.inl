// The table of one instruction set (kernels.h), from the tiles that fit its registers; included
// behind everything else.

template <class Vec, int kRulerAccumulators>
Kernels<typename Vec::T> kernels(KernelTable<OuterKernel<typename Vec::T>> outer,
                                 KernelTable<GatherKernel<typename Vec::T>> gather,
                                 KernelTable<PlaneKernel<typename Vec::T>> plane) {
  using T = typename Vec::T;
  return {outer,
          gather,
          plane,
          table(kWinograd<Vec>),
          table(kWinogradGradients<Vec>),
          add_pixels<Vec>,
          im2col_channels<T>,
          col2im_channels<T>,
          keep_larger<T>,
          add_block<T>,
          kPointwise<T>,
          ruler<Vec, kRulerAccumulators>()};
}
