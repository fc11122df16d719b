#include "cpu/source.h"

#include <algorithm>

#include "cpu/transpose.h"

namespace pydenoise::cpu {
namespace {

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
  const int64_t row = bounded_product(col_reach(d).width(d.cols(0).count), d.source_channels);
  return bounded_product(row_reach(d).width(band), row);
}
int64_t patches_size(const Direction& d, int64_t band) {
  const int64_t terms = bounded_product(most_taps(d), d.source_channels);
  return bounded_product(bounded_product(band, d.cols(0).count), terms);
}

// Elements of a row of a plane: vectors of pixels may begin at every lane-th position.
int64_t plane_width(const Reach& cols, int64_t positions) {
  return cols.width(round_up(positions, kMostLanes));
}

// A choice by the shape alone: for one position after the other, unless the first spans too much.
bool copies_rows(const Direction& d) {
  constexpr int64_t kMostWaste = 4;
  const int64_t first = rows_size(d, 1), patches = patches_size(d, 1);
  return first <= kMostWaste * patches && rows_size(d, 2) - first <= patches;
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
      rows_(row_reach(direction)),
      cols_(col_reach(direction)),
      width_(cols_.width(direction.cols(0).count)),
      channels_(direction.source_channels),
      channels_together_(image.stride_c == 1 || channels_ == 1) {
  const bool stays_inside =
      rows_.inside(direction.rows(0).count) && cols_.inside(direction.cols(0).count);
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
  const InsideRun in = inside_run(cols_.first, 1, cols_.size, width_);
  const T* from = image_.at(picture, group * channels_);
  for (int64_t i = 0; i < rows_.width(y1 - y0); ++i) {
    T* to = buffer + i * width_ * channels_;
    T* const end = to + width_ * channels_;
    const int64_t row = rows_.first + y0 * rows_.step + i;
    if (row < 0 || row >= rows_.size || in.begin == in.end) {
      std::fill(to, end, T(0));
      continue;
    }
    std::fill(to, to + in.begin * channels_, T(0));
    copy_channels(to + in.begin * channels_,
                  from + row * image_.stride_h + (cols_.first + in.begin) * image_.stride_w,
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
Reading<T> Source<T>::reading(T* buffer, int64_t picture, int64_t group, const GatherAxis& rows,
                              const GatherAxis& cols, int64_t y0, int64_t y1) const {
  const T* const image = image_.at(picture, group * channels_);
  const int64_t all_taps = rows.taps * cols.taps;
  if (way_ == Way::kPatches) {
    copy_patches(buffer, image, rows, cols, y0, y1);
    const int64_t terms = all_taps * channels_;
    return {buffer,    cols.count * terms,    terms,     rows.taps,
            cols.taps, cols.taps * channels_, channels_, channels_};
  }
  const bool in_place = way_ == Way::kInPlace;
  const int64_t row_pitch = in_place ? image_.stride_h : width_ * channels_;
  const int64_t pixel_pitch = in_place ? image_.stride_w : channels_;
  const T* first = buffer;
  if (all_taps > 0) {
    first = in_place
                ? image + (y0 * rows.step + rows.offset) * row_pitch + cols.offset * pixel_pitch
                : buffer + (rows.offset - rows_.first) * row_pitch +
                      (cols.offset - cols_.first) * pixel_pitch;
  }
  return {first,     rows.step * row_pitch,     cols.step * pixel_pitch,     rows.taps,
          cols.taps, rows.tap_step * row_pitch, cols.tap_step * pixel_pitch, channels_};
}

template <class T>
int64_t Source<T>::planes_size(const Direction& d, int64_t band) {
  const int64_t row = plane_width(col_reach(d), d.cols(0).count);
  return bounded_product(bounded_product(row_reach(d).width(band), row), d.source_channels);
}

template <class T>
void Source<T>::prepare_planes(T* buffer, int64_t picture, int64_t group, int64_t y0,
                               int64_t y1) const {
  const int64_t width = plane_width(cols_, direction_.cols(0).count), height = rows_.width(y1 - y0);
  const int64_t plane = height * width;
  const InsideRun in = inside_run(cols_.first, 1, cols_.size, width_);
  const T* from = image_.at(picture, group * channels_);
  for (int64_t i = 0; i < height; ++i) {
    T* const to = buffer + i * width;
    const int64_t row = rows_.first + y0 * rows_.step + i;
    const bool has_pixels = row >= 0 && row < rows_.size;
    const int64_t begin = has_pixels ? in.begin : width_, end = has_pixels ? in.end : width_;
    for (int64_t c = 0; c < channels_; ++c) {
      std::fill(to + c * plane, to + c * plane + begin, T(0));
      std::fill(to + c * plane + end, to + c * plane + width_, T(0));
    }
    if (begin == end) continue;
    const T* pixels = from + row * image_.stride_h + (cols_.first + begin) * image_.stride_w;
    if (channels_together_) {
      transpose(to + begin, plane, pixels, image_.stride_w, end - begin, channels_);
    } else {
      for (int64_t c = 0; c < channels_; ++c) {
        const T* channel = pixels + c * image_.stride_c;
        std::copy(channel, channel + (end - begin), to + c * plane + begin);
      }
    }
  }
}

template <class T>
PlaneReading<T> Source<T>::plane_reading(const T* buffer, const GatherAxis& rows,
                                         const GatherAxis& cols, int64_t band) const {
  const int64_t width = plane_width(cols_, direction_.cols(0).count);
  const int64_t first = rows.taps * cols.taps == 0
                            ? 0
                            : (rows.offset - rows_.first) * width + cols.offset - cols_.first;
  return {buffer + first,        rows.step * width, rows.taps, cols.taps,
          rows.tap_step * width, cols.tap_step,     channels_, rows_.width(band) * width};
}

template class Source<float>;
template class Source<double>;

}  // namespace pydenoise::cpu
