// grad_weight: an outer product over pixels. One side is grad_output, its channels together; the
// other is what a tap reads of the input, channels together too. Both are read in place where the
// picture lies so, and a tap that leaves the picture then skips the pixels where it is outside.
//
// One order of summation: the pixels are cut into chunks of about kChunk, the chunks into pieces
// whose number depends on the shape (and the instruction set's tile) alone. A chunk is summed pixel
// by pixel from zero, the chunks of a piece are added in order, then the pieces. Threads take
// pieces and blocks of terms, so their number changes nothing.
#include <algorithm>

#include "cpu/conv2d.h"
#include "cpu/isa.h"
#include "cpu/source.h"
#include "cpu/transpose.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kChunk = 256;       // pixels
constexpr int64_t kBlockTerms = 192;  // of one row of taps, in one block
constexpr int64_t kTasksWanted = 16;  // pieces x blocks, enough to keep threads busy
constexpr int64_t kPiece = 8192;      // elements of a task that only copies
constexpr int64_t kSlack = 64;        // elements that a tile may read behind the last

template <class T>
struct Plan {
  int64_t channels, rows;  // of one group: the gradient is rows x (taps, channels)
  bool by_tap;             // a unit of terms is the channels of a tap, or else of a row of taps
  int64_t unit, units;     // terms of a unit, units of a row of taps
  const OuterKernel<T>& kernel;
  int64_t padded_unit;                 // a whole number of tiles
  int64_t block_terms, unit_blocks;    // terms of a block, blocks of a unit
  int64_t panels, blocks;              // panels of kernel.nr rows, blocks of one group
  int64_t chunk_pictures, chunk_rows;  // a chunk is some pictures, or some rows of one
  int64_t picture_chunks, chunks, pieces;
  int64_t partial_size;               // of one piece of one group
  int64_t input_size, gradient_size;  // buffers of one picture of a chunk
  int64_t slot_size;

  explicit Plan(const ConvShape& s)
      : channels(s.group_in_channels()),
        rows(s.group_out_channels()),
        by_tap(channels % 8 == 0 || s.dilation_w != 1),
        unit(by_tap ? channels : channels * s.kernel_w),
        units(by_tap ? s.kernel_w : 1),
        kernel(outer_kernel_for<T>(unit, rows)),
        padded_unit(round_up(unit, kernel.mr)),
        block_terms(smaller(padded_unit, round_up(kBlockTerms, kernel.mr))),
        unit_blocks(ceil_div(padded_unit, block_terms)),
        panels(ceil_div(rows, kernel.nr)),
        blocks(panels * s.kernel_h * units * unit_blocks),
        chunk_pictures(larger(1, smaller(s.batch, kChunk / s.out_pixels()))),
        chunk_rows(smaller(s.out_h, larger(1, kChunk / s.out_w))),
        picture_chunks(ceil_div(s.out_h, chunk_rows)),
        chunks(ceil_div(s.batch, chunk_pictures) * picture_chunks),
        pieces(larger(1, smaller(chunks, ceil_div(kTasksWanted, blocks * s.groups)))),
        partial_size(panels * s.kernel_h * units * padded_unit * kernel.nr),
        input_size(
            round_up(Source<T>::buffer_size(Direction(s, false), chunk_rows) + kSlack, kAlignment)),
        gradient_size(round_up(chunk_rows * s.out_w * kernel.nr, kAlignment)),
        slot_size(larger(chunk_pictures * (input_size + gradient_size),
                         round_up(s.taps() * kernel.nr, kAlignment))) {}
};

// One block of terms: those of some tiles, in one unit of one row of taps, for one panel of rows.
struct Block {
  int64_t panel, tap_row, unit, first, last;  // terms [first, last) of the padded unit

  template <class T>
  Block(int64_t index, const ConvShape& s, const Plan<T>& plan)
      : panel(index / (s.kernel_h * plan.units * plan.unit_blocks)),
        tap_row(index / (plan.units * plan.unit_blocks) % s.kernel_h),
        unit(index / plan.unit_blocks % plan.units),
        first(index % plan.unit_blocks * plan.block_terms),
        last(smaller(plan.padded_unit, first + plan.block_terms)) {}
};

// Where the partial sums of a term begin, for one panel of rows.
template <class T>
int64_t partial_row(int64_t panel, int64_t tap_row, int64_t unit, int64_t term, const ConvShape& s,
                    const Plan<T>& plan) {
  const int64_t units = (panel * s.kernel_h + tap_row) * plan.units + unit;
  return (units * plan.padded_unit + term) * plan.kernel.nr;
}

// The pixels of one chunk.
struct Chunk {
  int64_t n0, n1, y0, y1;

  template <class T>
  Chunk(int64_t index, const ConvShape& s, const Plan<T>& plan)
      : n0(index / plan.picture_chunks * plan.chunk_pictures),
        n1(smaller(s.batch, n0 + plan.chunk_pictures)),
        y0(index % plan.picture_chunks * plan.chunk_rows),
        y1(smaller(s.out_h, y0 + plan.chunk_rows)) {}
};

// Both sides of the product over one chunk: operands and the steps between pixels.
template <class T>
struct Operands {
  const T* input;
  const T* gradient;
  OuterWalk walk;
};

template <class T>
class Pixels {
 public:
  Pixels(ImageView<const T> gradient, ImageView<const T> input, const ConvShape& s,
         const Plan<T>& plan)
      : gradient_(gradient),
        input_(input),
        shape_(s),
        plan_(plan),
        forward_(s, false),
        source_(input, forward_, true),
        input_in_place_(plan.by_tap && plan.channels % plan.kernel.mr == 0),
        gradient_in_place_(plan.rows % plan.kernel.nr == 0) {}

  // What one block reads of one chunk; buffers of plan.slot_size elements.
  Operands<T> load(T* buffer, int64_t group, const Chunk& chunk, const Block& block) const {
    Operands<T> o{};
    o.walk.count[0] = chunk.n1 - chunk.n0;
    o.walk.count[1] = chunk.y1 - chunk.y0;
    o.walk.count[2] = shape_.out_w;
    load_gradient(o, buffer + plan_.chunk_pictures * plan_.input_size, group, chunk, block);
    if (input_in_place_) {
      point_at_input(o, group, chunk, block);
    } else {
      load_input(o, buffer, group, chunk, block);
    }
    return o;
  }

 private:
  void load_gradient(Operands<T>& o, T* buffer, int64_t group, const Chunk& chunk,
                     const Block& block) const {
    const int64_t nr = plan_.kernel.nr, first = block.panel * nr;
    const int64_t valid = smaller(nr, plan_.rows - first);
    const T* from =
        gradient_.at(chunk.n0, group * plan_.rows + first) + chunk.y0 * gradient_.stride_h;
    if (gradient_in_place_) {
      o.gradient = from;
      set_steps(o.walk.b_step, gradient_.stride_n, gradient_.stride_h, gradient_.stride_w);
      return;
    }
    o.gradient = buffer;
    set_steps(o.walk.b_step, plan_.gradient_size, shape_.out_w * nr, nr);
    const int64_t pixels = (chunk.y1 - chunk.y0) * shape_.out_w;
    for (int64_t n = chunk.n0; n < chunk.n1; ++n, buffer += plan_.gradient_size) {
      const T* picture = from + (n - chunk.n0) * gradient_.stride_n;
      for (int64_t i = 0; i < pixels; ++i) {  // pixels of a dense picture are evenly spaced
        const T* pixel = picture + i * gradient_.stride_w;
        T* const to = buffer + i * nr;
        std::fill(std::copy(pixel, pixel + valid, to), to + nr, T(0));
      }
    }
  }

  // The block's rectangle of pixels whose tap lies inside the picture.
  void point_at_input(Operands<T>& o, int64_t group, const Chunk& chunk, const Block& block) const {
    const GatherAxis rows = forward_rows(shape_), cols = forward_cols(shape_);
    const int64_t row = rows.source(chunk.y0, block.tap_row), col = cols.source(0, block.unit);
    const InsideRun y = inside_run(row, rows.step, rows.source_size, o.walk.count[1]);
    const InsideRun x = inside_run(col, cols.step, cols.source_size, o.walk.count[2]);
    o.walk.count[1] = y.end - y.begin;
    o.walk.count[2] = x.end - x.begin;
    o.gradient += y.begin * o.walk.b_step[1] + x.begin * o.walk.b_step[2];
    o.input = input_.at(chunk.n0, group * plan_.channels);
    if (o.walk.count[1] > 0 && o.walk.count[2] > 0) {
      o.input += (row + y.begin * rows.step) * input_.stride_h +
                 (col + x.begin * cols.step) * input_.stride_w;
    }
    set_steps(o.walk.a_step, input_.stride_n, rows.step * input_.stride_h,
              cols.step * input_.stride_w);
  }

  void load_input(Operands<T>& o, T* buffer, int64_t group, const Chunk& chunk,
                  const Block& block) const {
    Reading<T> reading{};
    for (int64_t n = chunk.n0; n < chunk.n1; ++n) {
      T* const here = buffer + (n - chunk.n0) * plan_.input_size;
      source_.prepare(here, n, group, chunk.y0, chunk.y1);
      const Reading<T> of_picture = source_.reading(here, n, group, 0, chunk.y0, chunk.y1);
      if (n == chunk.n0) reading = of_picture;
    }
    o.input =
        reading.first + block.tap_row * reading.tap_row_step + block.unit * reading.tap_col_step;
    set_steps(o.walk.a_step, plan_.input_size, reading.y_step, reading.x_step);
  }

  static void set_steps(int64_t* to, int64_t picture, int64_t row, int64_t pixel) {
    to[0] = picture;
    to[1] = row;
    to[2] = pixel;
  }

  ImageView<const T> gradient_, input_;
  const ConvShape& shape_;
  const Plan<T>& plan_;
  Direction forward_;
  Source<T> source_;
  bool input_in_place_, gradient_in_place_;
};

// Elements of a copy with the channels of a pixel together; none where they are.
template <class T>
int64_t copy_size(ImageView<const T> image, int64_t batch, int64_t channels, int64_t pixels) {
  if (image.stride_c == 1 || channels == 1) return 0;
  return round_up(batch * channels * pixels, kAlignment);
}

// The image, or a copy of it at the front of the workspace, which then begins behind it.
template <class T>
ImageView<const T> together(ImageView<const T> image, T*& workspace, int64_t batch,
                            int64_t channels, int64_t height, int64_t width) {
  const int64_t pixels = height * width, size = copy_size(image, batch, channels, pixels);
  if (size == 0) return image;
  T* const copy = workspace;
  workspace += size;
  const int64_t step = larger(1, kPiece / channels), steps = ceil_div(pixels, step);
  parallel_tasks(batch * steps, thread_count(), [&](int64_t task, int64_t) {
    const int64_t first = task % steps * step;
    transpose(copy + (task / steps * pixels + first) * channels, channels,
              image.at(task / steps, 0) + first, image.stride_c, channels,
              smaller(step, pixels - first));
  });
  return dense_image<const T>(copy, channels, height, width, true);
}

// Adds up the pieces of one channel and panel, and writes it where it belongs in the weights.
template <class T>
void reduce(T* grad_weight, const T* partials, T* scratch, int64_t panel, int64_t channel,
            const ConvShape& s, const Plan<T>& plan, bool accumulate) {
  const int64_t nr = plan.kernel.nr, taps = s.taps(), first = panel * nr;
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t i = tap / s.kernel_w, j = tap % s.kernel_w;
    const int64_t unit = plan.by_tap ? j : 0;
    const int64_t term = plan.by_tap ? channel : j * plan.channels + channel;
    const T* from = partials + partial_row(panel, i, unit, term, s, plan);
    T* const sum = scratch + tap * nr;
    for (int64_t o = 0; o < nr; ++o) sum[o] = plan.chunks == 0 ? T(0) : from[o];
    for (int64_t piece = 1; piece < plan.pieces; ++piece) {
      from += plan.partial_size;
      for (int64_t o = 0; o < nr; ++o) sum[o] += from[o];
    }
  }
  T* const to = grad_weight + (first * plan.channels + channel) * taps;
  const int64_t step = plan.channels * taps, valid = smaller(nr, plan.rows - first);
  if (accumulate) {
    transpose<true>(to, step, scratch, nr, taps, valid);
  } else {
    transpose(to, step, scratch, nr, taps, valid);
  }
}

}  // namespace

template <class T>
int64_t conv2d_grad_weight_workspace(ImageView<const T> grad_output, ImageView<const T> input,
                                     const ConvShape& shape, int64_t threads) {
  const Plan<T> plan(shape);
  return copy_size(grad_output, shape.batch, shape.out_channels, shape.out_pixels()) +
         copy_size(input, shape.batch, shape.in_channels, shape.in_h * shape.in_w) +
         round_up(shape.groups * plan.pieces * plan.partial_size, kAlignment) +
         threads * plan.slot_size;
}

template <class T>
void conv2d_grad_weight(T* grad_weight, ImageView<const T> grad_output, ImageView<const T> input,
                        T* workspace, const ConvShape& s, bool accumulate) {
  const Plan<T> plan(s);
  grad_output = together(grad_output, workspace, s.batch, s.out_channels, s.out_h, s.out_w);
  input = together(input, workspace, s.batch, s.in_channels, s.in_h, s.in_w);
  const Pixels<T> pixels(grad_output, input, s, plan);
  const int64_t group_size = plan.pieces * plan.partial_size, threads = thread_count();
  T* const slots = workspace + round_up(s.groups * group_size, kAlignment);
  const int64_t tasks = plan.chunks == 0 ? 0 : s.groups * plan.pieces * plan.blocks;
  parallel_tasks(tasks, threads, [&](int64_t task, int64_t slot) {
    const Block block(task % plan.blocks, s, plan);
    const int64_t piece = task / plan.blocks % plan.pieces;
    const int64_t group = task / (plan.blocks * plan.pieces);
    T* const partial = workspace + group * group_size + piece * plan.partial_size;
    const int64_t begin = piece * plan.chunks / plan.pieces;
    const int64_t end = (piece + 1) * plan.chunks / plan.pieces;
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const Operands<T> o =
          pixels.load(slots + slot * plan.slot_size, group, Chunk(chunk, s, plan), block);
      for (int64_t term = block.first; term < block.last; term += plan.kernel.mr) {
        T* to = partial + partial_row(block.panel, block.tap_row, block.unit, term, s, plan);
        plan.kernel.run(to, o.input + term, o.gradient, o.walk, chunk > begin);
      }
    }
  });
  constexpr int64_t kChannels = 16;  // of a task
  const int64_t steps = ceil_div(plan.channels, kChannels);
  parallel_tasks(s.groups * plan.panels * steps, threads, [&](int64_t task, int64_t slot) {
    const int64_t group = task / (plan.panels * steps), panel = task / steps % plan.panels;
    const int64_t first = task % steps * kChannels;
    for (int64_t c = first; c < smaller(plan.channels, first + kChannels); ++c) {
      reduce(grad_weight + group * plan.rows * plan.channels * s.taps(),
             workspace + group * group_size, slots + slot * plan.slot_size, panel, c, s, plan,
             accumulate);
    }
  });
}

template int64_t conv2d_grad_weight_workspace(ImageView<const float>, ImageView<const float>,
                                              const ConvShape&, int64_t);
template int64_t conv2d_grad_weight_workspace(ImageView<const double>, ImageView<const double>,
                                              const ConvShape&, int64_t);
template void conv2d_grad_weight(float*, ImageView<const float>, ImageView<const float>, float*,
                                 const ConvShape&, bool);
template void conv2d_grad_weight(double*, ImageView<const double>, ImageView<const double>, double*,
                                 const ConvShape&, bool);

}  // namespace pydenoise::cpu
