// Weight gradients by Winograd's F(2 x 2): the products of winograd.cpp read backwards,
//   gW = G^T [sum over tiles of (A gz A^T) * (B^T x B)] G,
// an outer product of channels over the tiles for each of the transformed pixels.
//
// One order of summation: the bands of tiles are cut into pieces whose number depends on the shape
// (and the instruction set's tile) alone. Blocks of tiles are summed from zero, the blocks of a
// piece are added in order, then the pieces, then the transform.
#include <algorithm>

#include "cpu/bands.h"
#include "cpu/grad_weight.h"
#include "cpu/isa.h"
#include "cpu/source.h"
#include "cpu/winograd.h"
#include "cpu/winograd_tiles.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kSide = 2;                         // pixels of a tile of grad_output
constexpr int64_t kPieceTiles = 128;                 // that are worth partial sums of their own
constexpr int64_t kPartials = int64_t{1} << 22;      // elements of partial sums at most, beyond one
constexpr int64_t kLeastBlock = 64;                  // tiles that are worth a product
constexpr int64_t kLargestBlock = int64_t{1} << 20;  // elements, where channels are very many

template <class T>
struct Plan {
  Direction forward;
  ConvShape whole;
  Direction rounded;
  const WinogradGradient<T>& form;
  const OuterKernel<T>& kernel;
  int64_t channels, rows;           // of one group: a sum is channels x rows
  int64_t padded_channels;          // a whole number of kernel.mr
  int64_t panels, width;            // of kernel.nr rows; padded rows
  int64_t partial_size;             // of one piece of one group: [sum][panel][channel][row]
  Bands bands;                      // of rows of tiles
  int64_t items, pieces;            // bands of all pictures; what they are cut into
  int64_t block;                    // tiles transformed together
  int64_t plane_size, result_size;  // of a block: transformed pixels of input and grad_output
  int64_t source_size, planes_size, slot_size;

  explicit Plan(const ConvShape& s)
      : forward(s, false),
        whole(whole_tiles(forward, kSide)),
        rounded(whole, false),
        form(winograd_gradient_kernel<T>(s.stride_h)),
        kernel(outer_kernel_for<T>(s.group_in_channels(), s.group_out_channels())),
        channels(s.group_in_channels()),
        rows(s.group_out_channels()),
        padded_channels(round_up(channels, kernel.mr)),
        panels(ceil_div(rows, kernel.nr)),
        width(panels * kernel.nr),
        partial_size(form.sums * form.sums * padded_channels * width),
        bands(rounded, Source<T>::buffer_size(rounded, 2) - Source<T>::buffer_size(rounded, 1)) {
    bands.align(kSide, rounded);
    items = s.batch * bands.per_picture;
    const int64_t tiles = s.batch * (whole.out_h / kSide) * (whole.out_w / kSide);
    pieces = smaller(smaller(items, Bands::kTasksWanted), tiles / kPieceTiles);
    pieces = larger(1, smaller(pieces, kPartials / (s.groups * partial_size)));
    const int64_t tile_size =
        form.planes * form.planes * padded_channels + form.results * form.results * width;
    block = larger(kWinogradBlock / tile_size, smaller(kLeastBlock, kLargestBlock / tile_size));
    block = smaller(larger(1, block), larger(1, tiles));
    plane_size = block * padded_channels;
    result_size = block * width;
    source_size = round_up(Source<T>::buffer_size(rounded, bands.rows), kAlignment);
    planes_size = round_up(form.planes * form.planes * plane_size, kAlignment);
    slot_size = larger(
        source_size + planes_size + round_up(form.results * form.results * result_size, kAlignment),
        round_up((form.sums * form.sums + kWinogradTaps) * kernel.nr, kAlignment));
  }
};

// Adds the outer products of a block's tiles to the sums [first, last).
template <class T>
void add_block(T* partial, const T* planes, const T* results, int64_t tiles, int64_t first,
               int64_t last, bool accumulate, const Plan<T>& plan) {
  const WinogradGradient<T>& form = plan.form;
  OuterWalk walk{};
  walk.count[2] = tiles;
  walk.a_step[0] = 2 * form.planes * plan.plane_size;
  walk.a_step[1] = 2 * plan.plane_size;
  walk.a_step[2] = plan.padded_channels;
  walk.b_step[0] = 2 * form.results * plan.result_size;
  walk.b_step[1] = 2 * plan.result_size;
  walk.b_step[2] = plan.width;
  for (int64_t index = first; index < last; ++index) {
    const auto &row = form.sum[index / form.sums], &col = form.sum[index % form.sums];
    const T* const left = planes + (row.plane * form.planes + col.plane) * plan.plane_size;
    const T* const right = results + (row.result * form.results + col.result) * plan.result_size;
    T* to = partial + index * plan.padded_channels * plan.width;
    walk.count[0] = row.count;
    walk.count[1] = col.count;
    for (int64_t panel = 0; panel < plan.panels; ++panel) {
      for (int64_t c = 0; c < plan.padded_channels; c += plan.kernel.mr) {
        plan.kernel.run(to, left + c, right + panel * plan.kernel.nr, walk, accumulate);
        to += plan.kernel.mr * plan.kernel.nr;
      }
    }
  }
}

// Sums [first, last) of one piece and group.
template <class T>
void sum_piece(T* partial, T* buffer, const Source<T>& source, ImageView<const T> gradient,
               int64_t group, int64_t piece, int64_t first, int64_t last, const Plan<T>& plan) {
  const WinogradGradient<T>& form = plan.form;
  T* const planes = buffer + plan.source_size;
  T* const results = planes + plan.planes_size;
  const int64_t out_h = plan.forward.dest_h, out_w = plan.forward.dest_w;
  const int64_t tiles_w = plan.whole.out_w / kSide;
  int64_t filled = 0;
  bool has_sums = false;
  const auto flush = [&] {
    if (filled > 0) add_block(partial, planes, results, filled, first, last, has_sums, plan);
    has_sums = has_sums || filled > 0;
    filled = 0;
  };
  if (plan.padded_channels != plan.channels || plan.width != plan.rows) {
    std::fill(planes, buffer + plan.slot_size, T(0));  // channels that only fill registers
  }
  const int64_t end = (piece + 1) * plan.items / plan.pieces;
  for (int64_t item = piece * plan.items / plan.pieces; item < end; ++item) {
    const int64_t picture = item / plan.bands.per_picture;
    const int64_t y0 = item % plan.bands.per_picture * plan.bands.rows;
    const int64_t y1 = smaller(plan.whole.out_h, y0 + plan.bands.rows);
    source.prepare(buffer, picture, group, y0, y1);
    const Reading<T> reading =
        source.reading(buffer, picture, group, plan.rounded.rows(0), plan.rounded.cols(0), y0, y1);
    const T* const pixels = gradient.at(picture, group * plan.rows);
    for (int64_t tile = 0; tile < (y1 - y0) / kSide * tiles_w; ++tile) {
      const int64_t y = tile / tiles_w * kSide, x = tile % tiles_w * kSide;
      form.input(planes + filled * plan.padded_channels, plan.plane_size,
                 reading.first + y * reading.y_step + x * reading.x_step, reading.tap_row_step,
                 reading.tap_col_step, plan.channels);
      form.gradient(results + filled * plan.width, plan.result_size,
                    pixels + (y0 + y) * gradient.stride_h + x * gradient.stride_w,
                    gradient.stride_h, gradient.stride_w, out_h - y0 - y, out_w - x, plan.rows);
      if (++filled == plan.block) flush();
    }
  }
  flush();
}

// Adds up the pieces of one channel and panel, transforms them and writes the weights.
template <class T>
void reduce(T* grad_weight, const T* partials, T* scratch, int64_t panel, int64_t channel,
            const ConvShape& s, const Plan<T>& plan, bool accumulate) {
  const int64_t nr = plan.kernel.nr, count = plan.form.sums * plan.form.sums;
  T* const taps = scratch + count * nr;
  for (int64_t index = 0; index < count; ++index) {
    const T* const from =
        partials + ((index * plan.panels + panel) * plan.padded_channels + channel) * nr;
    add_pieces(scratch + index * nr, from, plan.partial_size, plan.items == 0 ? 0 : plan.pieces,
               nr);
  }
  plan.form.taps(taps, scratch, nr);
  write_channel(grad_weight, taps, nr, panel, channel, s, accumulate);
}

}  // namespace

template <class T>
int64_t winograd_grad_weight_workspace(const ConvShape& s, int64_t threads) {
  const Plan<T> plan(s);
  return round_up(s.groups * plan.pieces * plan.partial_size, kAlignment) +
         threads * plan.slot_size;
}

template <class T>
void winograd_grad_weight(T* grad_weight, ImageView<const T> gradient, ImageView<const T> input,
                          T* workspace, const ConvShape& s, bool accumulate) {
  const Plan<T> plan(s);
  const Source<T> source(input, plan.rounded);
  const int64_t group_size = plan.pieces * plan.partial_size, threads = thread_count();
  T* const slots = workspace + round_up(s.groups * group_size, kAlignment);
  // Where pieces are fewer than threads, several share one: each transforms all of it, for some of
  // the sums.
  const int64_t sums = plan.form.sums * plan.form.sums;
  int64_t shares = 1;
  while (s.groups * plan.pieces * shares < threads && shares < sums) shares *= 2;
  const int64_t tasks = plan.items == 0 ? 0 : s.groups * plan.pieces * shares;
  parallel_tasks(tasks, threads, [&](int64_t task, int64_t slot) {
    const int64_t share = task % shares, piece = task / shares % plan.pieces;
    const int64_t group = task / (shares * plan.pieces);
    sum_piece(workspace + group * group_size + piece * plan.partial_size,
              slots + slot * plan.slot_size, source, gradient, group, piece, share * sums / shares,
              (share + 1) * sums / shares, plan);
  });
  reduce_channels(slots, plan.slot_size, plan.panels, s,
                  [&](int64_t group, int64_t panel, int64_t channel, T* scratch) {
                    reduce(grad_weight + group * plan.rows * plan.channels * kWinogradTaps,
                           workspace + group * group_size, scratch, panel, channel, s, plan,
                           accumulate);
                  });
}

template int64_t winograd_grad_weight_workspace<float>(const ConvShape&, int64_t);
template int64_t winograd_grad_weight_workspace<double>(const ConvShape&, int64_t);
template void winograd_grad_weight(float*, ImageView<const float>, ImageView<const float>, float*,
                                   const ConvShape&, bool);
template void winograd_grad_weight(double*, ImageView<const double>, ImageView<const double>,
                                   double*, const ConvShape&, bool);

}  // namespace pydenoise::cpu
