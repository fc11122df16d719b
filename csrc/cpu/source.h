// How a convolution reads its source: channels together, nothing outside memory.
//
// A band is the destination positions [y0, y1) of one picture and group, in every phase. Where the
// picture already lies channels together and no tap leaves it, it is read in place; else the rows
// that the band reads are copied, channels together, zeros around them. Where such a copy would
// hold more than the patches themselves (large strides, dilations or paddings), the patches are
// copied.
#pragma once

#include "cpu/direction.h"
#include "cpu/image.h"

namespace pydenoise::cpu {

// Channel c of tap (i, j) of the pixel at position (y, x) of a band and phase:
//   first[(y - y0) * y_step + x * x_step + i * tap_row_step + j * tap_col_step + c]
template <class T>
struct Reading {
  const T* first;
  int64_t y_step, x_step;
  int64_t tap_rows, tap_cols, tap_row_step, tap_col_step;
  int64_t channels;
};

// The same with every channel a plane of its own, pixels together. Only for directions in which
// neighbouring positions read neighbouring pixels (cols.step == 1). Rows have room for whole
// vectors of positions; what lies behind the last one that exists means nothing.
//   first[(y - y0) * y_step + x + i * tap_row_step + j * tap_col_step + c * plane]
template <class T>
struct PlaneReading {
  const T* first;
  int64_t y_step;
  int64_t tap_rows, tap_cols, tap_row_step, tap_col_step;
  int64_t channels, plane;
};
constexpr int64_t kMostLanes = 16;  // of a vector of pixels

// Source indices that the positions of one side read, through all phases and taps.
struct Reach {
  int64_t first, last;  // of position 0
  int64_t step;         // for each further position
  int64_t size;         // of the picture's side

  int64_t width(int64_t positions) const { return last - first + 1 + (positions - 1) * step; }
  bool inside(int64_t positions) const {
    return first >= 0 && last + (positions - 1) * step < size;
  }
};

template <class T>
class Source {
 public:
  // With `always_copy` never in place: for a kernel that reads more than the channels.
  Source(ImageView<const T> image, const Direction& direction, bool always_copy = false);

  // Elements that a band of so many positions needs in a buffer, for reading in any format.
  static int64_t buffer_size(const Direction& direction, int64_t band);

  // Copies what all phases of the band read, where that is the way; before `reading`.
  void prepare(T* buffer, int64_t picture, int64_t group, int64_t y0, int64_t y1) const;
  // One phase of the band; copies its patches where that is the way.
  Reading<T> reading(T* buffer, int64_t picture, int64_t group, const GatherAxis& rows,
                     const GatherAxis& cols, int64_t y0, int64_t y1) const;

  static int64_t planes_size(const Direction& direction, int64_t band);
  void prepare_planes(T* buffer, int64_t picture, int64_t group, int64_t y0, int64_t y1) const;
  PlaneReading<T> plane_reading(const T* buffer, const GatherAxis& rows, const GatherAxis& cols,
                                int64_t band) const;

 private:
  enum class Way { kInPlace, kRows, kPatches };

  void copy_channels(T* to, const T* from, int64_t pixels) const;
  void copy_patches(T* buffer, const T* from, const GatherAxis& rows, const GatherAxis& cols,
                    int64_t y0, int64_t y1) const;

  ImageView<const T> image_;
  const Direction& direction_;
  Reach rows_, cols_;
  int64_t width_;  // pixels of a copied row
  int64_t channels_;
  bool channels_together_;
  Way way_;
};

}  // namespace pydenoise::cpu
