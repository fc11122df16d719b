#include "cpu/few_channels.h"

#include "cpu/bands.h"
#include "cpu/isa.h"
#include "cpu/source.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Times the memory of the general way that planes may take: taps far apart leave most of them
// empty.
constexpr int64_t kMostWaste = 32;

template <class T>
struct Plan {
  const PlaneKernel<T>& kernel;
  int64_t group_size;  // packed weights of one group
  int64_t dest_width;  // of a row of the buffer, whole vectors
  Bands bands;
  int64_t source_size, slot_size;

  explicit Plan(const Direction& d)
      : kernel(*plane_kernel_for<T>(d.dest_channels)),
        group_size(round_up(d.dest_channels * d.all_terms(), kAlignment)),
        dest_width(round_up(d.cols(0).count, kernel.lanes)),
        bands(d, larger(Source<T>::planes_size(d, 2) - Source<T>::planes_size(d, 1),
                        d.dest_channels * dest_width)),
        source_size(round_up(Source<T>::planes_size(d, bands.rows), kAlignment)),
        slot_size(source_size + round_up(d.dest_channels * bands.rows * dest_width, kAlignment)) {}
};

// packed[phase][tap][source channel][dest channel] of one group
template <class T>
void pack(T* packed, const T* weight, const Direction& d) {
  d.for_each_phase([&](const GatherAxis& rows, const GatherAxis& cols, int64_t terms_before) {
    T* to = packed + terms_before * d.dest_channels;
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t j = 0; j < cols.taps; ++j) {
        const T* from = weight + rows.kernel_index(i) * d.shape.kernel_w + cols.kernel_index(j);
        for (int64_t c = 0; c < d.source_channels; ++c) {
          for (int64_t m = 0; m < d.dest_channels; ++m) {
            *to++ = from[m * d.weight_dest_stride + c * d.weight_source_stride];
          }
        }
      }
    }
  });
}

// One phase of a band into planes of positions x plan.dest_width.
template <class T>
void fill_planes(T* planes, const PlaneReading<T>& reading, const T* packed, const T* bias,
                 const Finish<T>& finish, int64_t positions, const Plan<T>& plan) {
  const PlaneKernel<T>& kernel = plan.kernel;
  PlaneTile<T> tile{};
  tile.dest_plane = positions * plan.dest_width;
  tile.weights = packed;
  tile.tap_rows = reading.tap_rows;
  tile.tap_row_step = reading.tap_row_step;
  tile.tap_cols = reading.tap_cols;
  tile.tap_col_step = reading.tap_col_step;
  tile.channels = reading.channels;
  tile.plane = reading.plane;
  int64_t y = 0, x = 0;
  while (y < positions) {
    for (int64_t v = 0; v < kernel.vectors; ++v) {
      if (y == positions) {  // a surplus vector repeats the last
        tile.source[v] = tile.source[v - 1];
        tile.dest[v] = tile.dest[v - 1];
        continue;
      }
      tile.source[v] = reading.first + y * reading.y_step + x;
      tile.dest[v] = planes + y * plan.dest_width + x;
      x += kernel.lanes;
      if (x >= plan.dest_width) {
        x = 0;
        ++y;
      }
    }
    kernel.run(tile, bias, finish);
  }
}

// Planes of one phase to where its pixels lie in the picture.
template <class T>
void scatter(T* to, const ImageView<T>& dest, const T* planes, const GatherAxis& rows,
             const GatherAxis& cols, int64_t positions, const Direction& d, const Plan<T>& plan) {
  for (int64_t y = 0; y < positions; ++y) {
    for (int64_t c = 0; c < d.dest_channels; ++c) {
      const T* from = planes + (c * positions + y) * plan.dest_width;
      T* row =
          to + c * dest.stride_c + rows.dest(y) * dest.stride_h + cols.dest_first * dest.stride_w;
      const int64_t step = cols.dest_step * dest.stride_w;
      for (int64_t x = 0; x < cols.count; ++x) row[x * step] = from[x];
    }
  }
}

}  // namespace

template <class T>
bool has_few_channels(const Direction& d, const Finish<T>& finish) {
  return finish.output.data == nullptr && d.cols(0).step == 1 && d.source_channels > 1 &&
         plane_kernel_for<T>(d.dest_channels) != nullptr &&
         Source<T>::planes_size(d, 1) <= kMostWaste * Source<T>::buffer_size(d, 1);
}

template <class T>
int64_t few_channels_workspace(const Direction& d, int64_t threads) {
  const Plan<T> plan(d);
  return d.shape.groups * plan.group_size + threads * plan.slot_size;
}

template <class T>
void few_channels_convolution(ImageView<T> dest, ImageView<const T> image, const T* weight,
                              const Finish<T>& finish, T* workspace, const Direction& d) {
  const ConvShape& s = d.shape;
  const Plan<T> plan(d);
  const Source<T> source(image, d);
  T* const slots = workspace + s.groups * plan.group_size;
  for (int64_t group = 0; group < s.groups; ++group) {
    pack(workspace + group * plan.group_size,
         weight + group * d.source_channels * d.dest_channels * s.taps(), d);
  }
  parallel_tasks(plan.bands.tasks(d), thread_count(), [&](int64_t task, int64_t slot) {
    const Bands::Task band = plan.bands.task(task, d);
    T* const planes = slots + slot * plan.slot_size;
    T* const results = planes + plan.source_size;
    T* const to = dest.at(band.picture, band.group * d.dest_channels) +
                  band.y0 * d.rows(0).dest_step * dest.stride_h;
    const T* bias = finish.bias == nullptr ? nullptr : finish.bias + band.group * d.dest_channels;
    source.prepare_planes(planes, band.picture, band.group, band.y0, band.y1);
    d.for_each_phase([&](const GatherAxis& rows, const GatherAxis& cols, int64_t terms_before) {
      const int64_t positions = smaller(rows.count, band.y1) - band.y0;
      if (positions <= 0 || cols.count == 0) return;
      const PlaneReading<T> reading = source.plane_reading(planes, rows, cols, band.y1 - band.y0);
      const T* packed = workspace + band.group * plan.group_size + terms_before * d.dest_channels;
      fill_planes(results, reading, packed, bias, finish, positions, plan);
      scatter(to, dest, results, rows, cols, positions, d, plan);
    });
  });
}

#define PYDENOISE_INSTANTIATE(T)                                                     \
  template bool has_few_channels(const Direction&, const Finish<T>&);                \
  template int64_t few_channels_workspace<T>(const Direction&, int64_t);             \
  template void few_channels_convolution(ImageView<T>, ImageView<const T>, const T*, \
                                         const Finish<T>&, T*, const Direction&);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cpu
