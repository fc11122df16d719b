// The body of every vector micro-kernel, included inside the target region of its instruction
// set. Vec gives the vector type and its five operations; MR rows by NV vectors of accumulators
// stay in registers for the whole loop, which takes every inner loop unrolled.

template <class Vec, int MR, int NV>
void ukernel(typename Vec::T* c, const typename Vec::T* a, const typename Vec::T* b, int64_t k,
             bool accumulate) {
  constexpr int kLanes = Vec::kLanes;
  typename Vec::V sum[MR][NV];
#pragma GCC unroll 32
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) sum[i][v] = Vec::zero();
  }
  for (; k > 0; --k, a += MR, b += NV * kLanes) {
    typename Vec::V row[NV];
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) row[v] = Vec::load(b + v * kLanes);
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i) {
      const typename Vec::V left = Vec::broadcast(a + i);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) sum[i][v] = Vec::multiply_add(left, row[v], sum[i][v]);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      typename Vec::T* to = c + (i * NV + v) * kLanes;
      Vec::store(to, accumulate ? Vec::add(Vec::load(to), sum[i][v]) : sum[i][v]);
    }
  }
}
