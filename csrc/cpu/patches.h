// Patches of a picture as a matrix that is never stored: packed straight from the picture into
// the panels of a product.
//
// The matrix has one column for each destination pixel (row-major over rows.count x cols.count)
// and one row for each term (tap, channel), channel fastest. `rows` and `cols` say which source
// pixel a tap reads; outside the picture it reads zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "conv_shape.h"
#include "cpu/integers.h"

namespace pydenoise::cpu {

template <class T>
struct Patches {
  const T* source;  // one picture, first channel of one group
  int64_t stride_c, stride_h, stride_w;
  int64_t channels;
  GatherAxis rows, cols;

  int64_t pixels() const { return rows.count * cols.count; }
  int64_t terms() const { return rows.taps * cols.taps * channels; }
};

// to[i] = from[i * step]
template <class T>
inline void copy_run(T* to, const T* from, int64_t step, int64_t count) {
  constexpr int64_t kBlock = 8;
  int64_t i = 0;
  if (step == 1) {
    for (; i + kBlock <= count; i += kBlock) std::memcpy(to + i, from + i, kBlock * sizeof(T));
  } else if (step == 2) {
    for (; i + kBlock <= count; i += kBlock) {
      for (int64_t lane = 0; lane < kBlock; ++lane) to[i + lane] = from[2 * (i + lane)];
    }
  }
  for (; i < count; ++i) to[i] = from[i * step];
}

// For every term in [k0, k0 + kc), grouped by tap: body(tap row, tap column, first channel, number
// of channels, index of the first term - k0).
template <class T, class Body>
void for_each_tap(const Patches<T>& p, int64_t k0, int64_t kc, const Body& body) {
  for (int64_t k = k0; k < k0 + kc;) {
    const int64_t tap = k / p.channels, c = k % p.channels;
    const int64_t count = smaller(p.channels - c, k0 + kc - k);
    body(tap / p.cols.taps, tap % p.cols.taps, c, count, k - k0);
    k += count;
  }
}

// Panel of `width` pixels from pixel `first`: scratch[k][i] = term k0 + k of pixel first + i.
template <class T>
void pack_pixels(T* scratch, int64_t width, int64_t first, int64_t k0, int64_t kc,
                 const Patches<T>& p) {
  const int64_t valid = smaller(width, p.pixels() - first);
  for (int64_t done = 0; done < valid;) {  // pieces of one row of the destination each
    const int64_t y = (first + done) / p.cols.count, x = (first + done) % p.cols.count;
    const int64_t run = smaller(valid - done, p.cols.count - x);
    for_each_tap(p, k0, kc, [&](int64_t ti, int64_t tj, int64_t c0, int64_t count, int64_t k) {
      T* to = scratch + k * width + done;
      const int64_t source_y = p.rows.source(y, ti), source_x = p.cols.source(x, tj);
      InsideRun in = inside_run(source_x, p.cols.step, p.cols.source_size, run);
      if (!p.rows.inside(source_y)) in = {run, run};
      for (int64_t c = 0; c < count; ++c) {
        std::fill(to + c * width, to + c * width + in.begin, T(0));
        std::fill(to + c * width + in.end, to + c * width + run, T(0));
      }
      const int64_t step = p.cols.step * p.stride_w;
      const T* from = p.source + c0 * p.stride_c + source_y * p.stride_h + source_x * p.stride_w;
      if (p.stride_c == 1) {
        for (int64_t i = in.begin; i < in.end; ++i) {
          for (int64_t c = 0; c < count; ++c) to[c * width + i] = from[i * step + c];
        }
      } else {
        for (int64_t c = 0; c < count; ++c) {
          copy_run(to + c * width + in.begin, from + c * p.stride_c + in.begin * step, step,
                   in.end - in.begin);
        }
      }
    });
    done += run;
  }
  for (int64_t k = 0; k < kc && valid < width; ++k) {
    std::fill(scratch + k * width + valid, scratch + (k + 1) * width, T(0));
  }
}

// Panel of `width` terms from term `first`: scratch[i][j] = term first + j of pixel pixel0 + i.
template <class T>
void pack_terms(T* scratch, int64_t width, int64_t first, int64_t pixel0, int64_t count,
                const Patches<T>& p) {
  const int64_t valid = smaller(width, p.terms() - first);
  for (int64_t done = 0; done < count;) {
    const int64_t y = (pixel0 + done) / p.cols.count, x = (pixel0 + done) % p.cols.count;
    const int64_t run = smaller(count - done, p.cols.count - x);
    for_each_tap(p, first, valid,
                 [&](int64_t ti, int64_t tj, int64_t c0, int64_t terms, int64_t j) {
                   T* to = scratch + done * width + j;
                   const int64_t source_y = p.rows.source(y, ti), source_x = p.cols.source(x, tj);
                   InsideRun in = inside_run(source_x, p.cols.step, p.cols.source_size, run);
                   if (!p.rows.inside(source_y)) in = {run, run};
                   const int64_t step = p.cols.step * p.stride_w;
                   const T* from =
                       p.source + c0 * p.stride_c + source_y * p.stride_h + source_x * p.stride_w;
                   for (int64_t i = 0; i < run; ++i) {
                     if (i < in.begin || i >= in.end) {
                       std::fill(to + i * width, to + i * width + terms, T(0));
                     } else {
                       copy_run(to + i * width, from + i * step, p.stride_c, terms);
                     }
                   }
                 });
    done += run;
  }
  for (int64_t i = 0; i < count && valid < width; ++i) {
    std::fill(scratch + i * width + valid, scratch + (i + 1) * width, T(0));
  }
}

// Patches as an operand whose panels hold pixels; the sum runs over terms.
template <class T>
struct PixelOperand {
  Patches<T> patches;
  int64_t width;

  const T* panel(int64_t index, int64_t k0, int64_t kc, T* scratch) const {
    pack_pixels(scratch, width, index * width, k0, kc, patches);
    return scratch;
  }
};

}  // namespace pydenoise::cpu
