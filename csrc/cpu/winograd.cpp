#include "cpu/winograd.h"

#include <algorithm>

#include "cpu/bands.h"
#include "cpu/dest.h"
#include "cpu/isa.h"
#include "cpu/panels.h"
#include "cpu/source.h"
#include "cpu/transpose.h"
#include "cpu/winograd_tiles.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

WinogradForm form_of(const Direction& d, int64_t side) {
  if (d.shape.stride_h == 2) return d.mirrored ? WinogradForm::kMirrored : WinogradForm::kStrided;
  return side == 2 ? WinogradForm::kTwo : WinogradForm::kFour;
}

template <class T>
struct Plan {
  ConvShape whole;
  Direction rounded;
  const WinogradKernel<T>& form;
  const GatherKernel<T>& kernel;
  int64_t planes, results;        // of a tile
  int64_t panels, width;          // of dest channels; padded dest channels
  int64_t term_size, panel_size;  // packed weights of one panel
  Bands bands;                    // of rows of tiles
  int64_t block;                  // tiles transformed together
  int64_t source_size, dest_size, input_size, slot_size;

  Plan(const Direction& d, int64_t side)
      : whole(whole_tiles(d, side)),
        rounded(whole, d.mirrored),
        form(winograd_kernel<T>(form_of(d, side))),
        kernel(gather_kernel_for<T>(d.dest_channels)),
        planes(form.planes * form.planes),
        results(form.results * form.results),
        panels(ceil_div(d.dest_channels, kernel.nr)),
        width(panels * kernel.nr),
        term_size(d.source_channels * kernel.nr),
        panel_size(form.terms * form.terms * term_size),
        bands(rounded,
              larger(Source<T>::buffer_size(rounded, 2) - Source<T>::buffer_size(rounded, 1),
                     Dest<T>::buffer_size(d, 1))),
        block(round_up(larger(1, kWinogradBlock / (planes * d.source_channels + results * width)),
                       kernel.mr)) {
    bands.align(side, rounded);
    source_size = round_up(Source<T>::buffer_size(rounded, bands.rows), kAlignment);
    dest_size = round_up(Dest<T>::buffer_size(rounded, bands.rows), kAlignment);
    input_size = round_up(planes * block * d.source_channels, kAlignment);
    slot_size = larger(source_size + dest_size + input_size + results * block * width,
                       round_up(kWinogradTaps * width, kAlignment));
  }

  int64_t group_size() const { return round_up(panels * panel_size, kAlignment); }
};

// Transformed weights of one group and panel between source channels [c0, c1).
template <class T>
void pack_panel(T* packed, const T* weight, T* scratch, int64_t panel, int64_t c0, int64_t c1,
                const Direction& d, const Plan<T>& plan) {
  const int64_t nr = plan.kernel.nr, first = panel * nr;
  const int64_t valid = smaller(nr, d.dest_channels - first);
  std::fill(scratch, scratch + kWinogradTaps * nr, T(0));
  for (int64_t c = c0; c < c1; ++c) {
    transpose(scratch, nr, weight + first * d.weight_dest_stride + c * d.weight_source_stride,
              d.weight_dest_stride, valid, kWinogradTaps);  // scratch[tap][channel]
    const int64_t tap_step = d.mirrored ? -nr : nr;
    plan.form.weights(packed + panel * plan.panel_size + c * nr, plan.term_size,
                      d.mirrored ? scratch + (kWinogradTaps - 1) * nr : scratch, tap_step, nr);
  }
}

// packed[group][panel][term][source channel][channel]
template <class T>
void pack_weights(T* packed, const T* weight, T* slots, const Direction& d, const Plan<T>& plan) {
  const int64_t group_weights = d.source_channels * d.dest_channels * kWinogradTaps;
  parallel_panels(d.shape.groups, plan.panels, d.source_channels,
                  [&](int64_t group, int64_t panel, int64_t c0, int64_t c1, int64_t slot) {
                    pack_panel(packed + group * plan.group_size(), weight + group * group_weights,
                               slots + slot * plan.slot_size, panel, c0, c1, d, plan);
                  });
}

// The results of one block of transformed tiles: out[result][tile][channel].
template <class T>
void multiply(T* out, const T* input, const T* packed, int64_t tiles, const Direction& d,
              const Plan<T>& plan) {
  const WinogradKernel<T>& form = plan.form;
  const int64_t plane = plan.block * d.source_channels;
  GatherTile<T> tile{};
  tile.run = d.source_channels;
  tile.channels = plan.kernel.nr;
  tile.tap_row_step = form.planes * plane;
  tile.tap_col_step = plane;
  for (int64_t result = 0; result < plan.results; ++result) {
    const int64_t row = result / form.results, col = result % form.results;
    const T* const from = input + (form.first[row] * form.planes + form.first[col]) * plane;
    T* const to = out + result * plan.block * plan.width;
    tile.tap_rows = form.count[row];
    tile.tap_cols = form.count[col];
    for (int64_t first = 0; first < tiles; first += plan.kernel.mr) {
      for (int64_t panel = 0; panel < plan.panels; ++panel) {
        for (int64_t i = 0; i < plan.kernel.mr; ++i) {
          const int64_t index = smaller(first + i, tiles - 1);
          tile.source[i] = from + index * d.source_channels;
          tile.dest[i] = to + index * plan.width + panel * plan.kernel.nr;
        }
        tile.weights = packed + panel * plan.panel_size;
        plan.kernel.run(tile, nullptr, Finish<T>{});
      }
    }
    packed += tile.tap_rows * tile.tap_cols * plan.term_size;
  }
}

// One band: blocks of tiles in, multiplied, out.
template <class T>
void convolve_band(const DestBand<T>& dest, const Reading<T>& reading, const T* packed, T* buffer,
                   const Finish<T>& finish, int64_t y0, int64_t y1, const Direction& d,
                   const Plan<T>& plan) {
  const int64_t side = plan.form.positions, step = d.rows(0).dest_step;
  const int64_t tiles_w = ceil_div(d.dest_w, side * step);
  const int64_t tiles = ceil_div(y1 - y0, side) * tiles_w;
  // From a source pixel to the next: a tap further, or mirrored a position.
  const int64_t row_pitch = d.mirrored ? reading.y_step : reading.tap_row_step;
  const int64_t pixel_pitch = d.mirrored ? reading.x_step : reading.tap_col_step;
  T* const results = buffer + plan.input_size;
  for (int64_t first = 0; first < tiles; first += plan.block) {
    const int64_t count = smaller(plan.block, tiles - first);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t y = (first + i) / tiles_w * side, x = (first + i) % tiles_w * side;
      plan.form.input(buffer + i * d.source_channels, plan.block * d.source_channels,
                      reading.first + y * reading.y_step + x * reading.x_step, row_pitch,
                      pixel_pitch, d.source_channels);
    }
    multiply(results, buffer, packed, count, d, plan);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t y = (first + i) / tiles_w * side * step;
      const int64_t x = (first + i) % tiles_w * side * step;
      const int64_t offset = dest.offset(y, x);
      plan.form.output({results + i * plan.width, plan.block * plan.width, dest.data + offset,
                        dest.output == nullptr ? nullptr : dest.output + offset, dest.row_pitch,
                        dest.pixel_pitch, d.dest_h - y0 * step - y, d.dest_w - x, d.dest_channels},
                       finish.bias, finish);
    }
  }
}

}  // namespace

bool has_winograd(const ConvShape& s, int64_t side) {
  if (s.kernel_h != 3 || s.kernel_w != 3 || s.dilation_h != 1 || s.dilation_w != 1) return false;
  if (s.stride_h == 1 && s.stride_w == 1) return side == 2 || side == 4;
  const bool is_odd = s.padding_h % 2 == 1 && s.padding_w % 2 == 1;
  return s.stride_h == 2 && s.stride_w == 2 && is_odd && side == 2;
}

template <class T>
int64_t winograd_workspace(const Direction& d, int64_t side, int64_t threads) {
  const Plan<T> plan(d, side);
  return d.shape.groups * plan.group_size() + threads * plan.slot_size;
}

template <class T>
void winograd_convolution(ImageView<T> dest_image, ImageView<const T> image, const T* weight,
                          const Finish<T>& finish, T* workspace, const Direction& d, int64_t side) {
  const Plan<T> plan(d, side);
  const Source<T> source(image, plan.rounded);
  const Dest<T> dest(dest_image, finish.output, d);
  T* const slots = workspace + d.shape.groups * plan.group_size();
  pack_weights(workspace, weight, slots, d, plan);
  const int64_t tasks = plan.bands.tasks(plan.rounded);
  parallel_tasks(tasks, thread_count(), [&](int64_t task, int64_t slot) {
    const auto [picture, group, y0, y1] = plan.bands.task(task, plan.rounded);
    T* const source_buffer = slots + slot * plan.slot_size;
    T* const dest_buffer = source_buffer + plan.source_size;
    Finish<T> of_group = finish;
    if (finish.bias != nullptr) of_group.bias += group * d.dest_channels;
    source.prepare(source_buffer, picture, group, y0, y1);
    convolve_band(dest.band(dest_buffer, picture, group, y0),
                  source.reading(source_buffer, picture, group, plan.rounded.rows(0),
                                 plan.rounded.cols(0), y0, y1),
                  workspace + group * plan.group_size(), dest_buffer + plan.dest_size, of_group, y0,
                  y1, d, plan);
    dest.finish(dest_buffer, picture, group, y0, y1);
  });
}

#define PYDENOISE_INSTANTIATE(T)                                                                   \
  template int64_t winograd_workspace<T>(const Direction&, int64_t, int64_t);                      \
  template void winograd_convolution(ImageView<T>, ImageView<const T>, const T*, const Finish<T>&, \
                                     T*, const Direction&, int64_t);
PYDENOISE_INSTANTIATE(float)
PYDENOISE_INSTANTIATE(double)

}  // namespace pydenoise::cpu
