// The one product behind every convolution: out[m, n] = finish(sum over k of left(m, k) right(k,
// n))
//
//   left(m, k)   gathered:  left[rows.source + steps.source], zero outside its picture
//   right(k, n)  right[steps.other + n * right_stride]
//   out(m, n)    out[rows.other + n * out_stride]
//
// with the places of rows and steps as in gather.h: for a convolution rows are pixels, steps the
// terms of their sums, right the weights; for grad_weight rows are weights, steps the pixels, right
// the gradient; for a plain product of matrices everything is inside. Groups, phases of a mirrored
// convolution and parts of a long sum are further products in the same launch.
#pragma once

#include "cuda/gather.h"
#include "cuda/launch.h"

namespace pydenoise::cuda {

enum class Activation : int64_t { kNone, kRelu, kLeakyRelu };

// Forward (no output): activation(sum + bias). Backward: the sum where the activation's output was
// positive, else 0 or sum * slope; `output` has the format of what is written.
template <class T>
struct Finish {
  const T* bias = nullptr;  // one value for each channel, or null
  Activation activation = Activation::kNone;
  T slope = 0;  // of leaky ReLU, not negative
  const T* output = nullptr;
};

constexpr int kMostPhases = 16;  // of one launch: a kernel's arguments have 4 KiB

template <class T>
struct Product {
  const T* left;
  const T* right;
  T* out;
  int32_t height, width;  // of left's pictures
  int32_t columns;        // n of one group
  int32_t right_stride, out_stride;
  int64_t left_group, right_group, out_group;  // elements from one group to the next
  int32_t groups = 1;
  int32_t parts = 1, part_steps = INT32_MAX;  // part p sums the steps [p, p + 1) * part_steps
  int64_t out_part = 0;                       // elements from one part's out to the next
  bool accumulate = false;
  Finish<T> finish = {};
  int32_t phases = 1;
  Phase phase[kMostPhases];
};

// Which neighbours threads take, and whether 16 bytes at once: where memory is dense that way.
// Sums go out by neighbouring columns (wide) or rows (tall).
struct Access {
  bool left_along_steps, left_wide, right_along_steps, right_wide, out_wide, out_tall;
};

Access access_of(const Product<float>& product);
Access access_of(const Product<double>& product);

// A block's share of a product: rows and columns of the result, and how its panels lie in shared
// memory. `resident` blocks share a multiprocessor; `speed` is how many products of two numbers a
// GPU of 132 makes of them, in 10^12 a second, while none waits.
struct Tile {
  int rows, columns, depth, stages, resident;
  double speed;
};
constexpr int kNarrowColumns = 4;
inline constexpr Tile kNarrowTile = {128, kNarrowColumns, 16, 3, 8, 4.8};
inline constexpr Tile kFloatTiles[] = {{128, 64, 16, 3, 3, 26}, {64, 96, 16, 3, 4, 23.5},
                                       {128, 48, 16, 3, 4, 22}, {128, 32, 16, 3, 4, 20.5},
                                       {64, 48, 16, 3, 4, 18},  {32, 32, 32, 3, 6, 13},
                                       {32, 16, 32, 3, 6, 8.4}, {16, 16, 64, 2, 6, 5.2}};
inline constexpr Tile kTf32Tiles[] = {{128, 64, 16, 3, 3, 42},
                                      {128, 48, 16, 3, 3, 42},
                                      {128, 32, 16, 3, 3, 32},
                                      {32, 32, 16, 3, 6, 15}};

// Which of some tiles is expected to take the shortest.
int quickest(const Product<float>& product, const Tile* tiles, int count);
// For tests and measurements, from now on: the tile of this index where float has a choice, and so
// many parts of sums over pixels; -1 and 0 leave both to the sizes again. Not while another thread
// works with the kernels.
void prescribe(int tile, int parts);

// `tf32` rounds the factors and multiplies by tensor cores, in float and where the device has them.
// The tile is chosen by the sizes alone and changes no bit.
Status multiply(const Product<float>& product, bool tf32, cudaStream_t stream);
Status multiply(const Product<double>& product, bool tf32, cudaStream_t stream);

// Parts that a sum of `steps` is cut into so that there is work for a whole GPU.
int32_t parts_of(int64_t rows, int64_t columns, int64_t groups, int64_t steps);

}  // namespace pydenoise::cuda
