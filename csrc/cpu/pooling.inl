// The inner loops of pooling.cpp, included inside the target region of each instruction set: one
// row of the result. A run is the channels of a pixel, or a single element of a plane.

// One tap of every window of a row: candidate and what is best so far, run by run. `pixel` is the
// place of the first candidate, the next one's is `stride` further; where < 0 says that there is
// none so far.
template <class T>
void keep_larger(T* best, int64_t* where, const T* candidate, int64_t pixel, int64_t stride,
                 int64_t runs, int64_t run) {
  for (int64_t x = 0; x < runs; ++x, pixel += stride) {
    for (int64_t c = 0; c < run; ++c) {
      const T value = candidate[c], before = best[c];
      const int64_t place = where[c];
      const bool wins = (place < 0) | (value > before) | (value != value);
      best[c] = wins ? value : before;
      where[c] = wins ? pixel : place;
    }
    best += run;
    where += run;
    candidate += stride * run;
  }
}

// Sums of the blocks of a row, from 0, a block's rows and then its columns in order.
template <class T>
void add_block(T* sums, const T* from, int64_t runs, int64_t run, int64_t block_h,
               int64_t block_w) {
  for (int64_t x = 0; x < runs; ++x, sums += run) {
    for (int64_t c = 0; c < run; ++c) {
      T sum = 0;
      for (int64_t i = 0; i < block_h; ++i) {
        for (int64_t j = 0; j < block_w; ++j) {
          sum += from[((i * runs + x) * block_w + j) * run + c];
        }
      }
      sums[c] = sum;
    }
  }
}
