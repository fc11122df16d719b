#include "cpu/winograd.h"

#include <algorithm>

#include "cpu/bands.h"
#include "cpu/dest.h"
#include "cpu/isa.h"
#include "cpu/source.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kTaps = 9;
constexpr int64_t kBlockElements = int64_t{3} << 15;  // of transformed tiles: stays in cache

// The shape with the destination's sides rounded up to whole tiles. Of the source it keeps what the
// true sides read: what only the added pixels would read is zero, as what lies beyond the picture.
ConvShape whole_tiles(const Direction& d, int64_t out) {
  ConvShape s = d.shape;
  const auto round = [out](int64_t& dest, int64_t& source, const GatherAxis& axis) {
    source = smaller(source, axis.source(axis.count - 1, axis.taps - 1) + 1);
    dest = round_up(dest, out);
  };
  round(d.mirrored ? s.in_h : s.out_h, d.mirrored ? s.out_h : s.in_h, d.rows(0));
  round(d.mirrored ? s.in_w : s.out_w, d.mirrored ? s.out_w : s.in_w, d.cols(0));
  return s;
}

template <class T>
struct Plan {
  ConvShape whole;
  Direction rounded;
  const WinogradKernel<T>& transforms;
  const GatherKernel<T>& kernel;
  int64_t products;       // elements of a transformed tile
  int64_t panels, width;  // of dest channels; padded dest channels
  int64_t matrix_size;    // packed weights of one product
  Bands bands;            // of rows of tiles
  int64_t block;          // tiles transformed together
  int64_t source_size, dest_size, input_size, slot_size;

  Plan(const Direction& d, int64_t out)
      : whole(whole_tiles(d, out)),
        rounded(whole, d.mirrored),
        transforms(*winograd_kernel_for<T>(out)),
        kernel(gather_kernel_for<T>(d.dest_channels)),
        products((out + 2) * (out + 2)),
        panels(ceil_div(d.dest_channels, kernel.nr)),
        width(panels * kernel.nr),
        matrix_size(d.source_channels * width),
        bands(rounded,
              larger(Source<T>::buffer_size(rounded, 2) - Source<T>::buffer_size(rounded, 1),
                     Dest<T>::buffer_size(d, 1))),
        block(round_up(larger(1, kBlockElements / (products * (d.source_channels + width))),
                       kernel.mr)) {
    bands.align(out, rounded);
    source_size = round_up(Source<T>::buffer_size(rounded, bands.rows), kAlignment);
    dest_size = round_up(Dest<T>::buffer_size(rounded, bands.rows), kAlignment);
    input_size = round_up(products * block * d.source_channels, kAlignment);
    slot_size = larger(source_size + dest_size + input_size + products * block * width,
                       round_up(kTaps * width, kAlignment));
  }

  int64_t group_size() const { return round_up(products * matrix_size, kAlignment); }
};

// Transformed weights of one group and panel: packed[product][panel][source channel][channel].
template <class T>
void pack_panel(T* packed, const T* weight, T* taps, int64_t panel, const Direction& d,
                const Plan<T>& plan) {
  const int64_t nr = plan.kernel.nr, first = panel * nr;
  const int64_t valid = smaller(nr, d.dest_channels - first);
  const GatherAxis rows = d.rows(0), cols = d.cols(0);
  std::fill(taps, taps + kTaps * nr, T(0));
  for (int64_t c = 0; c < d.source_channels; ++c) {
    const T* from = weight + first * d.weight_dest_stride + c * d.weight_source_stride;
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const T* element = from + rows.kernel_index(tap / 3) * 3 + cols.kernel_index(tap % 3);
      for (int64_t m = 0; m < valid; ++m) taps[tap * nr + m] = element[m * d.weight_dest_stride];
    }
    plan.transforms.weights(packed + (panel * d.source_channels + c) * nr, plan.matrix_size, taps,
                            nr);
  }
}

// The products of one block of transformed tiles: out[product][tile][channel].
template <class T>
void multiply(T* out, const T* input, const T* packed, int64_t tiles, const Direction& d,
              const Plan<T>& plan) {
  GatherTile<T> tile{};
  tile.tap_rows = tile.tap_cols = 1;
  tile.run = d.source_channels;
  tile.channels = plan.kernel.nr;
  for (int64_t product = 0; product < plan.products; ++product) {
    const T* const from = input + product * plan.block * d.source_channels;
    T* const to = out + product * plan.block * plan.width;
    for (int64_t first = 0; first < tiles; first += plan.kernel.mr) {
      for (int64_t panel = 0; panel < plan.panels; ++panel) {
        for (int64_t i = 0; i < plan.kernel.mr; ++i) {
          const int64_t index = smaller(first + i, tiles - 1);
          tile.source[i] = from + index * d.source_channels;
          tile.dest[i] = to + index * plan.width + panel * plan.kernel.nr;
        }
        tile.weights =
            packed + product * plan.matrix_size + panel * d.source_channels * plan.kernel.nr;
        plan.kernel.run(tile, nullptr, Finish<T>{});
      }
    }
  }
}

// One band: blocks of tiles in, multiplied, out.
template <class T>
void convolve_band(const DestBand<T>& dest, const Reading<T>& reading, const T* packed, T* buffer,
                   const Finish<T>& finish, int64_t y0, int64_t y1, const Direction& d,
                   const Plan<T>& plan) {
  const int64_t out = plan.transforms.out;
  const int64_t tiles_w = ceil_div(d.dest_w, out), tiles = ceil_div(y1 - y0, out) * tiles_w;
  T* const results = buffer + plan.input_size;
  for (int64_t first = 0; first < tiles; first += plan.block) {
    const int64_t count = smaller(plan.block, tiles - first);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t y = (first + i) / tiles_w * out, x = (first + i) % tiles_w * out;
      plan.transforms.input(buffer + i * d.source_channels, plan.block * d.source_channels,
                            reading.first + y * reading.y_step + x * reading.x_step, reading.y_step,
                            reading.x_step, d.source_channels);
    }
    multiply(results, buffer, packed, count, d, plan);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t y = (first + i) / tiles_w * out, x = (first + i) % tiles_w * out;
      const int64_t offset = dest.offset(y, x);
      plan.transforms.output(
          {results + i * plan.width, plan.block * plan.width, dest.data + offset,
           dest.output == nullptr ? nullptr : dest.output + offset, dest.row_pitch,
           dest.pixel_pitch, d.dest_h - y0 - y, d.dest_w - x, d.dest_channels},
          finish.bias, finish);
    }
  }
}

}  // namespace

bool has_winograd(const ConvShape& s) {
  return s.kernel_h == 3 && s.kernel_w == 3 && s.stride_h == 1 && s.stride_w == 1 &&
         s.dilation_h == 1 && s.dilation_w == 1;
}

template <class T>
int64_t winograd_workspace(const Direction& d, int64_t out, int64_t threads) {
  const Plan<T> plan(d, out);
  return d.shape.groups * plan.group_size() + threads * plan.slot_size;
}

template <class T>
void winograd_convolution(ImageView<T> dest_image, ImageView<const T> image, const T* weight,
                          const Finish<T>& finish, T* workspace, const Direction& d, int64_t out) {
  const Plan<T> plan(d, out);
  const Source<T> source(image, plan.rounded);
  const Dest<T> dest(dest_image, finish.output, d);
  const int64_t groups = d.shape.groups, threads = thread_count();
  T* const slots = workspace + groups * plan.group_size();
  parallel_tasks(groups * plan.panels, threads, [&](int64_t task, int64_t slot) {
    const int64_t group = task / plan.panels;
    pack_panel(workspace + group * plan.group_size(),
               weight + group * d.source_channels * d.dest_channels * kTaps,
               slots + slot * plan.slot_size, task % plan.panels, d, plan);
  });
  parallel_tasks(plan.bands.tasks(plan.rounded), threads, [&](int64_t task, int64_t slot) {
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
