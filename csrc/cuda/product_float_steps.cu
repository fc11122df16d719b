#include "cuda/product_float.cuh"

namespace pydenoise::cuda {

template Status multiply_float<true>(const Product<float>&, const Access&, cudaStream_t);

}  // namespace pydenoise::cuda
