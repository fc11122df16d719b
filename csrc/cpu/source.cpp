#include "cpu/source.h"

#include <algorithm>

#include "cpu/transpose.h"

namespace pydenoise::cpu {
namespace {

// Source indices that positions [0, count) of one side read through all phases.
struct Reach {
  int64_t first, last;  // of position 0
  int64_t step;         // for each further position
  int64_t size;

  int64_t width(int64_t positions) const { return last - first + 1 + (positions - 1) * step; }
  bool inside(int64_t positions) const {
    return first >= 0 && last + (positions - 1) * step < size;
  }
};

void widen(Reach& reach, const GatherAxis& axis) {
  if (axis.taps == 0) return;
  const bool is_first = reach.last < reach.first;
  const int64_t last = axis.offset + (axis.taps - 1) * axis.tap_step;
  reach.first = is_first ? axis.offset : smaller(reach.first, axis.offset);
  reach.last = is_first ? last : larger(reach.last, last);
}

Reach row_reach(const Direction& d) {
  const GatherAxis axis = d.rows(0);
  Reach reach{0, -1, axis.step, axis.source_size};
  for (int64_t i = 0; i < d.phases_h; ++i) widen(reach, d.rows(i * d.phases_w));
  return reach;
}
Reach col_reach(const Direction& d) {
  const GatherAxis axis = d.cols(0);
  Reach reach{0, -1, axis.step, axis.source_size};
  for (int64_t j = 0; j < d.phases_w; ++j) widen(reach, d.cols(j));
  return reach;
}

int64_t most_taps(const Direction& d) {
  int64_t row_taps = 0, col_taps = 0;
  for (int64_t i = 0; i < d.phases_h; ++i) row_taps = larger(row_taps, d.rows(i * d.phases_w).taps);
  for (int64_t j = 0; j < d.phases_w; ++j) col_taps = larger(col_taps, d.cols(j).taps);
  return row_taps * col_taps;
}

int64_t rows_size(const Direction& d, int64_t band) {
  return row_reach(d).width(band) * col_reach(d).width(d.cols(0).count) * d.source_channels;
}
int64_t patches_size(const Direction& d, int64_t band) {
  return band * d.cols(0).count * most_taps(d) * d.source_channels;
}

// A choice by the shape alone, for one position after the other.
bool copies_rows(const Direction& d) {
  return rows_size(d, 2) - rows_size(d, 1) <= patches_size(d, 1);
}

}  // namespace

template <class T>
int64_t Source<T>::buffer_size(const Direction& d, int64_t band) {
  return copies_rows(d) ? rows_size(d, band) : patches_size(d, band);
}

template <class T>
Source<T>::Source(ImageView<const T> image, const Direction& direction, bool always_copy)
    : image_(image),
      direction_(direction),
      channels_(direction.source_channels),
      channels_together_(image.stride_c == 1 || channels_ == 1) {
  const bool stays_inside = row_reach(direction).inside(direction.rows(0).count) &&
                            col_reach(direction).inside(direction.cols(0).count);
  way_ = copies_rows(direction) ? Way::kRows : Way::kPatches;
  if (channels_together_ && stays_inside && !always_copy) way_ = Way::kInPlace;
}

// to[pixel][channel] from neighbouring pixels of one row.
template <class T>
void Source<T>::copy_channels(T* to, const T* from, int64_t pixels) const {
  if (!channels_together_) {
    transpose(to, channels_, from, image_.stride_c, channels_, pixels);
  } else if (image_.stride_w == channels_) {
    std::copy(from, from + pixels * channels_, to);
  } else {
    for (int64_t i = 0; i < pixels; ++i) {
      std::copy(from + i * image_.stride_w, from + i * image_.stride_w + channels_,
                to + i * channels_);
    }
  }
}

template <class T>
void Source<T>::prepare(T* buffer, int64_t picture, int64_t group, int64_t y0, int64_t y1) const {
  if (way_ != Way::kRows) return;
  const Reach rows = row_reach(direction_), cols = col_reach(direction_);
  const int64_t width = cols.width(direction_.cols(0).count);
  const InsideRun in = inside_run(cols.first, 1, cols.size, width);
  const T* from = image_.at(picture, group * channels_);
  for (int64_t i = 0; i < rows.width(y1 - y0); ++i) {
    T* to = buffer + i * width * channels_;
    T* const end = to + width * channels_;
    const int64_t row = rows.first + y0 * rows.step + i;
    if (row < 0 || row >= rows.size || in.begin == in.end) {
      std::fill(to, end, T(0));
      continue;
    }
    std::fill(to, to + in.begin * channels_, T(0));
    copy_channels(to + in.begin * channels_,
                  from + row * image_.stride_h + (cols.first + in.begin) * image_.stride_w,
                  in.end - in.begin);
    std::fill(to + in.end * channels_, end, T(0));
  }
}

template <class T>
void Source<T>::copy_patches(T* buffer, const T* from, const GatherAxis& rows,
                             const GatherAxis& cols, int64_t y0, int64_t y1) const {
  T* to = buffer;
  for (int64_t y = y0; y < y1; ++y) {
    for (int64_t x = 0; x < cols.count; ++x) {
      for (int64_t i = 0; i < rows.taps; ++i) {
        for (int64_t j = 0; j < cols.taps; ++j, to += channels_) {
          const int64_t row = rows.source(y, i), col = cols.source(x, j);
          if (rows.inside(row) && cols.inside(col)) {
            copy_channels(to, from + row * image_.stride_h + col * image_.stride_w, 1);
          } else {
            std::fill(to, to + channels_, T(0));
          }
        }
      }
    }
  }
}

template <class T>
Reading<T> Source<T>::reading(T* buffer, int64_t picture, int64_t group, int64_t phase, int64_t y0,
                              int64_t y1) const {
  const GatherAxis rows = direction_.rows(phase), cols = direction_.cols(phase);
  const T* const image = image_.at(picture, group * channels_);
  const int64_t all_taps = rows.taps * cols.taps;
  if (way_ == Way::kPatches) {
    copy_patches(buffer, image, rows, cols, y0, y1);
    const int64_t terms = all_taps * channels_;
    return {buffer,    cols.count * terms,    terms,     rows.taps,
            cols.taps, cols.taps * channels_, channels_, channels_};
  }
  const Reach row_range = row_reach(direction_), col_range = col_reach(direction_);
  const int64_t width = col_range.width(direction_.cols(0).count);
  const bool in_place = way_ == Way::kInPlace;
  const int64_t row_pitch = in_place ? image_.stride_h : width * channels_;
  const int64_t pixel_pitch = in_place ? image_.stride_w : channels_;
  const T* first = buffer;
  if (all_taps > 0) {
    first = in_place
                ? image + (y0 * rows.step + rows.offset) * row_pitch + cols.offset * pixel_pitch
                : buffer + (rows.offset - row_range.first) * row_pitch +
                      (cols.offset - col_range.first) * pixel_pitch;
  }
  return {first,     rows.step * row_pitch,     cols.step * pixel_pitch,     rows.taps,
          cols.taps, rows.tap_step * row_pitch, cols.tap_step * pixel_pitch, channels_};
}

template class Source<float>;
template class Source<double>;

}  // namespace pydenoise::cpu
