// The micro-kernels: a tile of a result held in registers until its sums are finished.
//
// OuterKernel sums over pixels (or the k of a matrix product); both operands lie side by side:
//
//   c[i][j] = sum over steps of a[step][i] * b[step][j]        i < mr, j < nr, c dense
//
// GatherKernel sums over the terms of a convolution, which it reads in place: for pixel i of the
// tile and channel j
//
//   dest[i][j] = finish( sum over taps, k of source[i][tap + k] * weights[tap, k][j] )
//
// where the channels of a tap, or of a whole row of taps, are one run of memory. Weights are
// packed, nr channels a term, zero-padded.
//
// PlaneKernel is GatherKernel for few channels, where vectors of channels would be mostly padding:
// its vectors hold neighbouring pixels, and the weights are broadcast.
//
//   dest[j][i] = finish( sum over taps, c of weights[tap, c][j] * source[tap, plane c][i] )
//
// Order: each sum runs over its terms upwards from zero, one fused multiply-add a term; in a
// GatherKernel and a PlaneKernel in blocks of kTermBlock terms that are then added up, in an
// OuterKernel over what one call walks. So the bits depend neither on mr, nr nor the tile's place,
// and the rounding of a long sum grows with its blocks.
#pragma once

#include <cstdint>

#include "cpu/finish.h"

namespace pydenoise::cpu {

constexpr int64_t kAlignment = 64;

// Terms that are added up from zero at a time.
constexpr int64_t kTermBlock = 512;

constexpr int64_t kMostRows = 8;  // of a GatherKernel

// count[0] x count[1] x count[2] steps, the last the fastest; how far each moves a and b.
struct OuterWalk {
  int64_t count[3], a_step[3], b_step[3];
};

template <class T>
struct OuterKernel {
  int64_t mr, nr;
  int64_t cost;  // of one step, relative
  // Overwrites c, or adds the finished sums to it. Reads whole rows of mr and nr at every step.
  void (*run)(T* c, const T* a, const T* b, const OuterWalk& walk, bool accumulate);
};

template <class T>
struct GatherTile {
  const T* source[kMostRows];  // first term of each pixel
  T* dest[kMostRows];          // its first channel of this panel
  const T* output[kMostRows];  // the same of Finish::output; unused without it
  const T* weights;
  int64_t tap_rows, tap_row_step, tap_cols, tap_col_step, run;  // steps and lengths in elements
  int64_t channels;                                             // written, at most nr
};

template <class T>
struct GatherKernel {
  int64_t mr, nr;
  int64_t cost;  // of one term of one pixel, relative
  // All mr rows are computed and written; callers point surplus ones at memory to spare.
  void (*run)(const GatherTile<T>& tile, const T* bias, const Finish<T>& finish);
};

constexpr int64_t kMostVectors = 8;  // of a PlaneKernel's tile

template <class T>
struct PlaneTile {
  const T* source[kMostVectors];  // first pixel of each vector
  T* dest[kMostVectors];          // the same of the first channel
  int64_t dest_plane;             // from a channel to the next
  const T* weights;               // packed[tap, c][channel]
  int64_t tap_rows, tap_row_step, tap_cols, tap_col_step, channels, plane;
};

template <class T>
struct PlaneKernel {
  int64_t channels;  // that it writes
  int64_t vectors, lanes;
  // Writes whole vectors; callers point surplus ones at memory to spare.
  void (*run)(const PlaneTile<T>& tile, const T* bias, const Finish<T>& finish);
};

// One tile of Winograd's results on its way out: element (i, j) of channel c at
// from[(i, j) * step + c], whole vectors of channels readable.
template <class T>
struct WinogradTile {
  const T* from;
  int64_t step;
  T* dest;          // its first pixel
  const T* output;  // the same of Finish::output, or null
  int64_t row_pitch, pixel_pitch;
  int64_t rows, cols, channels;  // of the tile that exist
};

// What Winograd's algorithms differ in: stride 1 with tiles of 2 and of 4; stride 2, both
// directions.
enum class WinogradForm { kTwo, kFour, kStrided, kMirrored };

// One of them, see winograd.inl. A tile is `positions` destination positions along each side, where
// result i is the sum of count[i] products of neighbouring planes, from first[i] on, with the next
// of the terms.
template <class T>
struct WinogradKernel {
  static constexpr int kMost = 6;
  int64_t positions, planes, terms, results;
  int64_t first[kMost], count[kMost];
  void (*input)(T* to, int64_t to_step, const T* from, int64_t row_pitch, int64_t pixel_pitch,
                int64_t channels);
  void (*weights)(T* to, int64_t to_step, const T* taps, int64_t tap_step, int64_t width);
  void (*output)(const WinogradTile<T>& tile, const T* bias, const Finish<T>& finish);
};

// The way back to the weights, for tiles of 2 x 2 pixels of grad_output: along each side sum i adds
// up `count` products of planes of the input, two apart from `plane` on, with transformed
// gradients, two apart from `result` on.
template <class T>
struct WinogradGradient {
  static constexpr int kMost = 4;
  int64_t planes, results, sums;
  struct {
    int64_t plane, result, count;
  } sum[kMost];
  void (*input)(T* to, int64_t to_step, const T* from, int64_t row_pitch, int64_t pixel_pitch,
                int64_t channels);
  // Of the tile's pixels rows x cols exist; the others are zero.
  void (*gradient)(T* to, int64_t to_step, const T* from, int64_t row_pitch, int64_t pixel_pitch,
                   int64_t rows, int64_t cols, int64_t channels);
  void (*taps)(T* taps, const T* sums, int64_t width);
};

}  // namespace pydenoise::cpu
