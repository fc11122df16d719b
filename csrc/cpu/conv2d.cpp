// Forward and grad_input: one product, "every destination pixel gathers its taps", run once for
// the forward direction and once for each output phase of the mirrored one (conv_shape.h).
#include "cpu/conv2d.h"

#include <algorithm>

#include "cpu/bands.h"
#include "cpu/dest.h"
#include "cpu/few_channels.h"
#include "cpu/isa.h"
#include "cpu/panels.h"
#include "cpu/source.h"
#include "cpu/transpose.h"
#include "cpu/winograd.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// Where a tap's first channel lies in the packed weights of a group, for panel 0, and how far the
// next panel is: packed[phase][panel][term][channel]. Negative where no phase has pixels for it.
struct PackedTap {
  int64_t begin, panel_step;
};

template <class T>
struct Plan {
  const GatherKernel<T>& kernel;
  int64_t panels;      // of packed weights, kernel.nr channels each
  int64_t group_size;  // packed elements of one group
  int64_t taps_size;   // elements of the table of packed taps
  Bands bands;
  int64_t source_size, dest_size;  // elements of the buffers of one task
  int64_t slot_size;

  explicit Plan(const Direction& d)
      : kernel(gather_kernel_for<T>(d.dest_channels)),
        panels(ceil_div(d.dest_channels, kernel.nr)),
        group_size(round_up(panels * kernel.nr * d.all_terms(), kAlignment)),
        taps_size(round_up(d.shape.taps() * static_cast<int64_t>(sizeof(PackedTap) / sizeof(T)),
                           kAlignment)),
        bands(d, larger(Source<T>::buffer_size(d, 2) - Source<T>::buffer_size(d, 1),
                        Dest<T>::buffer_size(d, 1))),
        source_size(round_up(Source<T>::buffer_size(d, bands.rows), kAlignment)),
        dest_size(round_up(Dest<T>::buffer_size(d, bands.rows), kAlignment)),
        slot_size(
            larger(source_size + dest_size, round_up(d.shape.taps() * kernel.nr, kAlignment))) {}
};

template <class T>
void locate_taps(PackedTap* taps, const Direction& d, const Plan<T>& plan) {
  const int64_t width = plan.kernel.nr;
  std::fill(taps, taps + d.shape.taps(), PackedTap{-1, 0});
  d.for_each_phase([&](const GatherAxis& rows, const GatherAxis& cols, int64_t terms_before) {
    const int64_t begin = terms_before * plan.panels * width;
    const int64_t panel_step = rows.taps * cols.taps * d.source_channels * width;
    for (int64_t i = 0; i < rows.taps; ++i) {
      for (int64_t j = 0; j < cols.taps; ++j) {
        taps[rows.kernel_index(i) * d.shape.kernel_w + cols.kernel_index(j)] = {
            begin + (i * cols.taps + j) * d.source_channels * width, panel_step};
      }
    }
  });
}

// Weights of one group and panel between source channels [c0, c1), for all phases.
template <class T>
void pack_panel(T* packed, const T* weight, T* scratch, const PackedTap* taps, int64_t panel,
                int64_t c0, int64_t c1, const Direction& d, const Plan<T>& plan) {
  const int64_t width = plan.kernel.nr, count = d.shape.taps();
  const int64_t first = panel * width, valid = smaller(width, d.dest_channels - first);
  std::fill(scratch, scratch + count * width, T(0));
  for (int64_t c = c0; c < c1; ++c) {
    transpose(scratch, width, weight + first * d.weight_dest_stride + c * d.weight_source_stride,
              d.weight_dest_stride, valid, count);  // scratch[tap][channel]
    for (int64_t tap = 0; tap < count; ++tap) {
      const T* from = scratch + tap * width;
      if (taps[tap].begin < 0) continue;
      std::copy(from, from + width,
                packed + taps[tap].begin + panel * taps[tap].panel_step + c * width);
    }
  }
}

template <class T>
void pack_weights(T* workspace, const T* weight, T* slots, PackedTap* taps, const Direction& d,
                  const Plan<T>& plan) {
  const int64_t group_weights = d.source_channels * d.dest_channels * d.shape.taps();
  locate_taps(taps, d, plan);
  parallel_panels(d.shape.groups, plan.panels, d.source_channels,
                  [&](int64_t group, int64_t panel, int64_t c0, int64_t c1, int64_t slot) {
                    pack_panel(workspace + group * plan.group_size, weight + group * group_weights,
                               slots + slot * plan.slot_size, taps, panel, c0, c1, d, plan);
                  });
}

// The taps of a reading as the longest runs of memory there are.
template <class T>
GatherTile<T> tile_of_runs(const Reading<T>& reading) {
  GatherTile<T> tile{};
  tile.tap_rows = reading.tap_rows;
  tile.tap_row_step = reading.tap_row_step;
  tile.tap_cols = reading.tap_cols;
  tile.tap_col_step = reading.tap_col_step;
  tile.run = reading.channels;
  if (tile.tap_col_step == tile.run) {
    tile.run *= tile.tap_cols;
    tile.tap_cols = 1;
  }
  if (tile.tap_cols == 1 && tile.tap_row_step == tile.run) {
    tile.run *= tile.tap_rows;
    tile.tap_rows = 1;
  }
  return tile;
}

// One phase of a band: tiles of pixels, for each all panels of channels.
template <class T>
void gather_phase(const DestBand<T>& dest, const Reading<T>& reading, const T* packed,
                  const Finish<T>& finish, const GatherAxis& rows, const GatherAxis& cols,
                  int64_t positions, const Direction& d, const Plan<T>& plan) {
  const GatherKernel<T>& kernel = plan.kernel;
  GatherTile<T> tile = tile_of_runs(reading);
  const int64_t terms = tile.tap_rows * tile.tap_cols * tile.run;
  int64_t y = 0, x = 0;
  while (y < positions) {
    int64_t offsets[kMostRows];
    for (int64_t i = 0; i < kernel.mr; ++i) {
      if (y < positions) {
        tile.source[i] = reading.first + y * reading.y_step + x * reading.x_step;
        offsets[i] = dest.offset(rows.dest(y), cols.dest(x));
        if (++x == cols.count) {
          x = 0;
          ++y;
        }
      } else {  // a surplus row repeats the last pixel
        tile.source[i] = tile.source[i - 1];
        offsets[i] = offsets[i - 1];
      }
    }
    for (int64_t panel = 0; panel < plan.panels; ++panel) {
      const int64_t first = panel * kernel.nr;
      for (int64_t i = 0; i < kernel.mr; ++i) {
        tile.dest[i] = dest.data + offsets[i] + first;
        if (dest.output != nullptr) tile.output[i] = dest.output + offsets[i] + first;
      }
      tile.weights = packed + panel * terms * kernel.nr;
      tile.channels = smaller(kernel.nr, d.dest_channels - first);
      kernel.run(tile, finish.bias == nullptr ? nullptr : finish.bias + first, finish);
    }
  }
}

template <class T>
void gather_convolution(ImageView<T> dest_image, ImageView<const T> image, const T* weight,
                        const Finish<T>& finish, T* workspace, const Direction& d) {
  const Plan<T> plan(d);
  const Source<T> source(image, d);
  const Dest<T> dest(dest_image, finish.output, d);
  auto* const taps = reinterpret_cast<PackedTap*>(workspace + d.shape.groups * plan.group_size);
  T* const slots = workspace + d.shape.groups * plan.group_size + plan.taps_size;
  pack_weights(workspace, weight, slots, taps, d, plan);

  parallel_tasks(plan.bands.tasks(d), thread_count(), [&](int64_t task, int64_t slot) {
    const Bands::Task here = plan.bands.task(task, d);
    const int64_t picture = here.picture, group = here.group, y0 = here.y0, y1 = here.y1;
    T* const source_buffer = slots + slot * plan.slot_size;
    T* const dest_buffer = source_buffer + plan.source_size;
    const DestBand<T> band = dest.band(dest_buffer, picture, group, y0);
    Finish<T> of_group = finish;
    if (finish.bias != nullptr) of_group.bias += group * d.dest_channels;

    source.prepare(source_buffer, picture, group, y0, y1);
    d.for_each_phase([&](const GatherAxis& rows, const GatherAxis& cols, int64_t terms_before) {
      const int64_t positions = smaller(rows.count, y1) - y0;
      if (positions <= 0) return;
      const Reading<T> reading =
          source.reading(source_buffer, picture, group, rows, cols, y0, y0 + positions);
      const T* packed =
          workspace + group * plan.group_size + terms_before * plan.panels * plan.kernel.nr;
      gather_phase(band, reading, packed, of_group, rows, cols, positions, d, plan);
    });
    dest.finish(dest_buffer, picture, group, y0, y1);
  });
}

template <class T>
int64_t workspace_for(const Direction& d, int64_t threads, int64_t winograd) {
  if (winograd != 0) return winograd_workspace<T>(d, winograd, threads);
  const Plan<T> plan(d);
  const int64_t general =
      d.shape.groups * plan.group_size + plan.taps_size + threads * plan.slot_size;
  if (!has_few_channels(d, Finish<T>{})) return general;
  return larger(general, few_channels_workspace<T>(d, threads));
}

template <class T>
void convolve(ImageView<T> dest, ImageView<const T> image, const T* weight, const Finish<T>& finish,
              T* workspace, const Direction& d, int64_t winograd) {
  if (winograd != 0) {
    winograd_convolution(dest, image, weight, finish, workspace, d, winograd);
  } else if (has_few_channels(d, finish)) {
    few_channels_convolution(dest, image, weight, finish, workspace, d);
  } else {
    gather_convolution(dest, image, weight, finish, workspace, d);
  }
}

}  // namespace

template <class T>
int64_t conv2d_workspace(const ConvShape& shape, int64_t threads, int64_t winograd) {
  return workspace_for<T>(Direction(shape, false), threads, winograd);
}

template <class T>
void conv2d(ImageView<T> output, ImageView<const T> input, const T* weight, const Finish<T>& finish,
            T* workspace, const ConvShape& shape, int64_t winograd) {
  convolve(output, input, weight, finish, workspace, Direction(shape, false), winograd);
}

template <class T>
int64_t conv2d_grad_input_workspace(const ConvShape& shape, int64_t threads, int64_t winograd) {
  return workspace_for<T>(Direction(shape, true), threads, winograd);
}

template <class T>
void conv2d_grad_input(ImageView<T> grad_input, ImageView<const T> grad_output, const T* weight,
                       const Finish<T>& finish, T* workspace, const ConvShape& shape,
                       int64_t winograd) {
  convolve(grad_input, grad_output, weight, finish, workspace, Direction(shape, true), winograd);
}

template int64_t conv2d_workspace<float>(const ConvShape&, int64_t, int64_t);
template int64_t conv2d_workspace<double>(const ConvShape&, int64_t, int64_t);
template void conv2d(ImageView<float>, ImageView<const float>, const float*, const Finish<float>&,
                     float*, const ConvShape&, int64_t);
template void conv2d(ImageView<double>, ImageView<const double>, const double*,
                     const Finish<double>&, double*, const ConvShape&, int64_t);
template int64_t conv2d_grad_input_workspace<float>(const ConvShape&, int64_t, int64_t);
template int64_t conv2d_grad_input_workspace<double>(const ConvShape&, int64_t, int64_t);
template void conv2d_grad_input(ImageView<float>, ImageView<const float>, const float*,
                                const Finish<float>&, float*, const ConvShape&, int64_t);
template void conv2d_grad_input(ImageView<double>, ImageView<const double>, const double*,
                                const Finish<double>&, double*, const ConvShape&, int64_t);

}  // namespace pydenoise::cpu
