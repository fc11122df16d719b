// The register loop of one instruction set, included inside its target region. Count accumulators
// that do not depend on each other, the factor and the summand, all in registers: enough to keep
// every unit busy through the latency of a multiply-add. x = x * 0.5 + 1 stays bounded. Each
// accumulator begins with a number of its own, or the compiler would see that all hold the same.

template <class Vec, int Count>
typename Vec::T register_loop(int64_t iterations) {
  using T = typename Vec::T;
  const T half = T(0.5), one = T(1);
  const typename Vec::V factor = Vec::broadcast(&half), summand = Vec::broadcast(&one);
  typename Vec::V x[Count];
#pragma GCC unroll 32
  for (int i = 0; i < Count; ++i) {
    const T first = T(i);
    x[i] = Vec::broadcast(&first);
  }
  for (; iterations > 0; --iterations) {
#pragma GCC unroll 32
    for (int i = 0; i < Count; ++i) x[i] = Vec::multiply_add(x[i], factor, summand);
  }
#pragma GCC unroll 32
  for (int i = 1; i < Count; ++i) x[0] = Vec::add(x[0], x[i]);
  alignas(64) T lanes[Vec::kLanes];
  Vec::store(lanes, x[0]);
  T sum = T(0);
  for (int i = 0; i < Vec::kLanes; ++i) sum += lanes[i];
  return sum;
}

template <class Vec, int Count>
constexpr Ruler<typename Vec::T> ruler() {
  return {2 * Count * Vec::kLanes, register_loop<Vec, Count>};
}
