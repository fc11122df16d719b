#include "cpu/pooling.h"

#include <atomic>
#include <cstring>

#include "cpu/integers.h"
#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Elements that are worth a thread, see pointwise.cpp.
constexpr int64_t kShare = 16384;

// In either format a picture is rows of `runs` runs of `run` elements, one run after the other: the
// pixels of a row with their channels, or the rows of a plane with one element a pixel. With the
// planes apart each plane is a picture of one channel.
struct Layout {
  int64_t pictures, run;
};

Layout layout_of(const Planes& planes) {
  if (planes.channels_last) return {planes.batch, planes.channels};
  return {planes.batch * planes.channels, 1};
}

template <class Body>
void for_each_row(int64_t rows, int64_t row_elements, const Body& body) {
  const int64_t threads = larger(1, smaller(thread_count(), rows * row_elements / kShare));
  parallel_tasks(rows, threads, [&](int64_t row, int64_t) { body(row); });
}

// Output positions whose tap `k` lies inside [0, size): begin <= position < end.
struct Span {
  int64_t begin, end;
};
Span inside(int64_t tap, int64_t stride, int64_t padding, int64_t size, int64_t out_size) {
  const int64_t first = padding - tap;  // of the picture, at output position 0, negated
  const int64_t begin = first > 0 ? ceil_div(first, stride) : 0;
  const int64_t end = size + first > 0 ? ceil_div(size + first, stride) : 0;
  return {begin, smaller(end, out_size)};
}

}  // namespace

template <class T>
void max_pool2d(T* out, int64_t* indices, const T* input, const Planes& planes, Size out_size,
                Size in_size, const PoolWindow& window) {
  const auto keep_larger = kernels_in_use<T>().keep_larger;
  const Layout layout = layout_of(planes);
  const int64_t run = layout.run, row_elements = out_size.width * run;
  for_each_row(layout.pictures * out_size.height, row_elements, [&](int64_t row) {
    const int64_t y = row % out_size.height;
    T* best = out + row * row_elements;
    int64_t* where = indices + row * row_elements;
    std::memset(where, -1, static_cast<size_t>(row_elements) * sizeof(int64_t));
    const T* picture = input + row / out_size.height * in_size.height * in_size.width * run;
    for (int64_t i = 0; i < window.kernel.height; ++i) {
      const int64_t from_y = y * window.stride.height - window.padding.height + i;
      if (from_y < 0 || from_y >= in_size.height) continue;
      for (int64_t j = 0; j < window.kernel.width; ++j) {
        const Span x =
            inside(j, window.stride.width, window.padding.width, in_size.width, out_size.width);
        if (x.begin >= x.end) continue;
        const int64_t from_x = x.begin * window.stride.width - window.padding.width + j;
        const int64_t pixel = from_y * in_size.width + from_x;
        keep_larger(best + x.begin * run, where + x.begin * run, picture + pixel * run, pixel,
                    window.stride.width, x.end - x.begin, run);
      }
    }
  });
}

template <class T>
bool max_pool2d_backward(T* grad_input, const T* grad_output, const int64_t* indices,
                         const Planes& planes, Size out_size, Size in_size) {
  const Layout layout = layout_of(planes);
  const int64_t run = layout.run, pixels = in_size.height * in_size.width;
  const int64_t out_elements = out_size.height * out_size.width * run;
  std::atomic<bool> all_inside{true};
  for_each_row(layout.pictures, pixels * run, [&](int64_t picture) {
    T* to = grad_input + picture * pixels * run;
    std::memset(to, 0, static_cast<size_t>(pixels * run) * sizeof(T));
    const T* from = grad_output + picture * out_elements;
    const int64_t* where = indices + picture * out_elements;
    for (int64_t first = 0; first < out_elements; first += run) {
      for (int64_t c = 0; c < run; ++c) {
        const int64_t index = where[first + c];
        if (index < 0 || index >= pixels) {
          all_inside = false;
          return;
        }
        to[index * run + c] += from[first + c];
      }
    }
  });
  return all_inside;
}

template <class T>
void upsample_nearest2d(T* out, const T* input, const Planes& planes, Size in_size, Size factor) {
  const Layout layout = layout_of(planes);
  const int64_t run = layout.run, out_row = in_size.width * factor.width * run;
  const auto run_bytes = static_cast<size_t>(run) * sizeof(T);
  for_each_row(layout.pictures * in_size.height, out_row * factor.height, [&](int64_t row) {
    const T* from = input + row * in_size.width * run;
    T* first = out + row * factor.height * out_row;
    T* to = first;
    for (int64_t x = 0; x < in_size.width; ++x, from += run) {
      for (int64_t j = 0; j < factor.width; ++j, to += run) {
        if (run == 1) {
          *to = *from;
        } else {
          std::memcpy(to, from, run_bytes);
        }
      }
    }
    for (int64_t i = 1; i < factor.height; ++i) {
      std::memcpy(first + i * out_row, first, static_cast<size_t>(out_row) * sizeof(T));
    }
  });
}

template <class T>
void upsample_nearest2d_backward(T* grad_input, const T* grad_output, const Planes& planes,
                                 Size in_size, Size factor) {
  const auto add_block = kernels_in_use<T>().add_block;
  const Layout layout = layout_of(planes);
  const int64_t run = layout.run, out_row = in_size.width * factor.width * run;
  for_each_row(layout.pictures * in_size.height, out_row * factor.height, [&](int64_t row) {
    add_block(grad_input + row * in_size.width * run, grad_output + row * factor.height * out_row,
              in_size.width, run, factor.height, factor.width);
  });
}

#define PYDENOISE_INSTANTIATE(T)                                                                  \
  template void max_pool2d(T*, int64_t*, const T*, const Planes&, Size, Size, const PoolWindow&); \
  template bool max_pool2d_backward(T*, const T*, const int64_t*, const Planes&, Size, Size);     \
  template void upsample_nearest2d(T*, const T*, const Planes&, Size, Size);                      \
  template void upsample_nearest2d_backward(T*, const T*, const Planes&, Size, Size);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cpu
