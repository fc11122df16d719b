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
#include "cpu/bands.h"
#include "cpu/grad_weight.h"
#include "cpu/isa.h"
#include "cpu/source.h"
#include "cpu/transpose.h"
#include "cpu/winograd.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kChunk = 256;         // pixels, at most: one side of a tile in the first cache
constexpr int64_t kPiecePixels = 4096;  // that are worth partial sums of their own
constexpr int64_t kPartials = int64_t{1} << 16;  // elements of partial sums that cost nothing
constexpr int64_t kCopied = 8192;                // elements of a task that only copies
constexpr int64_t kSlack = 64;                   // elements that a tile may read behind the last

template <class T>
struct Plan {
  int64_t channels, rows;  // of one group: the gradient is rows x (taps, channels)
  bool by_tap;             // a unit of terms is the channels of a tap, or else of a row of taps
  int64_t unit, units;     // terms of a unit, units of a row of taps
  const OuterKernel<T>& kernel;
  int64_t padded_unit;             // a whole number of tiles
  int64_t panels, blocks, shares;  // of kernel.nr rows; of one group; tasks, of one block or all
  int64_t chunk_pictures, chunk_rows, chunk_cols;  // pictures, or rows of one, or a part of a row
  int64_t chunks_h, chunks_w, chunks, pieces;
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
        panels(ceil_div(rows, kernel.nr)),
        blocks(panels * s.kernel_h * units),
        chunk_pictures(larger(1, smaller(s.batch, kChunk / s.out_pixels()))),
        chunk_rows(smaller(s.out_h, larger(1, kChunk / s.out_w))),
        chunk_cols(smaller(s.out_w, kChunk)),
        chunks_h(ceil_div(s.out_h, chunk_rows)),
        chunks_w(ceil_div(s.out_w, chunk_cols)),
        chunks(ceil_div(s.batch, chunk_pictures) * chunks_h * chunks_w),
        partial_size(panels * s.kernel_h * units * padded_unit * kernel.nr),
        input_size(
            round_up(Source<T>::buffer_size(Direction(s, false), chunk_rows) + kSlack, kAlignment)),
        gradient_size(round_up(chunk_rows * s.out_w * panels * kernel.nr, kAlignment)),
        slot_size(larger(chunk_pictures * (input_size + gradient_size),
                         round_up(s.taps() * kernel.nr, kAlignment))) {
    const int64_t worthwhile =
        larger(s.batch * s.out_pixels() / kPiecePixels, kPartials / partial_size);
    pieces = larger(1, smaller(smaller(chunks, Bands::kTasksWanted), worthwhile));
    shares = pieces * s.groups < Bands::kTasksWanted ? blocks : 1;
  }
};

// Terms of one unit of one row of taps, for one panel of rows.
struct Block {
  int64_t panel, tap_row, unit;
};

template <class T>
Block block_at(int64_t index, const ConvShape& s, const Plan<T>& plan) {
  return {index / (s.kernel_h * plan.units), index / plan.units % s.kernel_h, index % plan.units};
}

// Where the partial sums of a term begin.
template <class T>
int64_t partial_row(const Block& block, int64_t term, const ConvShape& s, const Plan<T>& plan) {
  const int64_t units = (block.panel * s.kernel_h + block.tap_row) * plan.units + block.unit;
  return (units * plan.padded_unit + term) * plan.kernel.nr;
}

// The pixels of one chunk.
struct Chunk {
  int64_t n0, n1, y0, y1, x0, x1;

  template <class T>
  Chunk(int64_t index, const ConvShape& s, const Plan<T>& plan)
      : n0(index / (plan.chunks_h * plan.chunks_w) * plan.chunk_pictures),
        n1(smaller(s.batch, n0 + plan.chunk_pictures)),
        y0(index / plan.chunks_w % plan.chunks_h * plan.chunk_rows),
        y1(smaller(s.out_h, y0 + plan.chunk_rows)),
        x0(index % plan.chunks_w * plan.chunk_cols),
        x1(smaller(s.out_w, x0 + plan.chunk_cols)) {}
};

// Both sides of the product over one chunk: operands and the steps between pixels.
template <class T>
struct Operands {
  const T* input;
  const T* gradient;
  OuterWalk walk;
};

// Both pictures, channels together, as the kernel reads them.
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

  // Copies what cannot be read in place; buffer of plan.slot_size elements.
  Reading<T> load(T* buffer, int64_t group, const Chunk& chunk) const {
    Reading<T> first{};
    T* const gradients = buffer + plan_.chunk_pictures * plan_.input_size;
    for (int64_t n = chunk.n0; n < chunk.n1; ++n) {
      const int64_t i = n - chunk.n0;
      if (!gradient_in_place_) copy_gradient(gradients + i * plan_.gradient_size, group, n, chunk);
      if (input_in_place_) continue;
      T* const copy = buffer + i * plan_.input_size;
      source_.prepare(copy, n, group, chunk.y0, chunk.y1);
      const Reading<T> reading =
          source_.reading(copy, n, group, forward_.rows(0), forward_.cols(0), chunk.y0, chunk.y1);
      if (i == 0) first = reading;
    }
    return first;
  }

  // What one block reads of a loaded chunk.
  Operands<T> operands(const T* buffer, const Reading<T>& copied, int64_t group, const Chunk& chunk,
                       const Block& block) const {
    Operands<T> o{};
    const int64_t first = block.panel * plan_.kernel.nr;
    if (gradient_in_place_) {
      o.gradient = gradient_.at(chunk.n0, group * plan_.rows + first) +
                   chunk.y0 * gradient_.stride_h + chunk.x0 * gradient_.stride_w;
      set_steps(o.walk.b_step, gradient_.stride_n, gradient_.stride_h, gradient_.stride_w);
    } else {
      const int64_t width = plan_.panels * plan_.kernel.nr;
      o.gradient = buffer + plan_.chunk_pictures * plan_.input_size + chunk.x0 * width + first;
      set_steps(o.walk.b_step, plan_.gradient_size, shape_.out_w * width, width);
    }
    o.walk.count[0] = chunk.n1 - chunk.n0;
    o.walk.count[1] = chunk.y1 - chunk.y0;
    o.walk.count[2] = chunk.x1 - chunk.x0;
    if (input_in_place_) {
      point_into_picture(o, group, chunk, block);
    } else {
      o.input = copied.first + chunk.x0 * copied.x_step + block.tap_row * copied.tap_row_step +
                block.unit * copied.tap_col_step;
      set_steps(o.walk.a_step, plan_.input_size, copied.y_step, copied.x_step);
    }
    return o;
  }

 private:
  void copy_gradient(T* to, int64_t group, int64_t n, const Chunk& chunk) const {
    const int64_t width = plan_.panels * plan_.kernel.nr;
    const T* pixel = gradient_.at(n, group * plan_.rows) + chunk.y0 * gradient_.stride_h;
    for (int64_t i = 0; i < (chunk.y1 - chunk.y0) * shape_.out_w; ++i) {
      std::fill(std::copy(pixel, pixel + plan_.rows, to), to + width, T(0));
      pixel += gradient_.stride_w;  // pixels of a dense picture are evenly spaced
      to += width;
    }
  }

  // The rectangle of pixels whose tap lies inside the picture.
  void point_into_picture(Operands<T>& o, int64_t group, const Chunk& chunk,
                          const Block& block) const {
    const GatherAxis rows = forward_rows(shape_), cols = forward_cols(shape_);
    const int64_t row = rows.source(chunk.y0, block.tap_row);
    const int64_t col = cols.source(chunk.x0, block.unit);
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

// Adds the products of one piece's pixels up, for blocks [first, last).
template <class T>
void sum_piece(T* partial, T* buffer, const Pixels<T>& pixels, int64_t group, int64_t piece,
               int64_t first, int64_t last, const ConvShape& s, const Plan<T>& plan) {
  const int64_t begin = piece * plan.chunks / plan.pieces;
  const int64_t end = (piece + 1) * plan.chunks / plan.pieces;
  for (int64_t i = begin; i < end; ++i) {
    const Chunk chunk(i, s, plan);
    const Reading<T> copied = pixels.load(buffer, group, chunk);
    for (int64_t index = first; index < last; ++index) {
      const Block block = block_at(index, s, plan);
      const Operands<T> o = pixels.operands(buffer, copied, group, chunk, block);
      for (int64_t term = 0; term < plan.padded_unit; term += plan.kernel.mr) {
        plan.kernel.run(partial + partial_row(block, term, s, plan), o.input + term, o.gradient,
                        o.walk, i > begin);
      }
    }
  }
}

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
  const int64_t step = larger(1, kCopied / channels), steps = ceil_div(pixels, step);
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
  const int64_t nr = plan.kernel.nr, taps = s.taps();
  for (int64_t tap = 0; tap < taps; ++tap) {
    const int64_t j = tap % s.kernel_w;
    const Block block{panel, tap / s.kernel_w, plan.by_tap ? j : 0};
    const int64_t term = plan.by_tap ? channel : j * plan.channels + channel;
    const T* const from = partials + partial_row(block, term, s, plan);
    add_pieces(scratch + tap * nr, from, plan.partial_size, plan.chunks == 0 ? 0 : plan.pieces, nr);
  }
  write_channel(grad_weight, scratch, nr, panel, channel, s, accumulate);
}

}  // namespace

template <class T>
int64_t conv2d_grad_weight_workspace(ImageView<const T> grad_output, ImageView<const T> input,
                                     const ConvShape& shape, int64_t threads, int64_t winograd) {
  const int64_t gradient_copy =
      copy_size(grad_output, shape.batch, shape.out_channels, shape.out_pixels());
  if (winograd != 0) return gradient_copy + winograd_grad_weight_workspace<T>(shape, threads);
  const Plan<T> plan(shape);
  return gradient_copy + copy_size(input, shape.batch, shape.in_channels, shape.in_h * shape.in_w) +
         round_up(shape.groups * plan.pieces * plan.partial_size, kAlignment) +
         threads * plan.slot_size;
}

template <class T>
void conv2d_grad_weight(T* grad_weight, ImageView<const T> grad_output, ImageView<const T> input,
                        T* workspace, const ConvShape& s, bool accumulate, int64_t winograd) {
  grad_output = together(grad_output, workspace, s.batch, s.out_channels, s.out_h, s.out_w);
  if (winograd != 0) {
    return winograd_grad_weight(grad_weight, grad_output, input, workspace, s, accumulate);
  }
  const Plan<T> plan(s);
  input = together(input, workspace, s.batch, s.in_channels, s.in_h, s.in_w);
  const Pixels<T> pixels(grad_output, input, s, plan);
  const int64_t group_size = plan.pieces * plan.partial_size, threads = thread_count();
  T* const slots = workspace + round_up(s.groups * group_size, kAlignment);
  const int64_t tasks = plan.chunks == 0 ? 0 : s.groups * plan.pieces * plan.shares;
  const int64_t shared = plan.blocks / plan.shares;
  parallel_tasks(tasks, threads, [&](int64_t task, int64_t slot) {
    const int64_t share = task % plan.shares, piece = task / plan.shares % plan.pieces;
    const int64_t group = task / (plan.shares * plan.pieces);
    sum_piece(workspace + group * group_size + piece * plan.partial_size,
              slots + slot * plan.slot_size, pixels, group, piece, share * shared,
              (share + 1) * shared, s, plan);
  });
  reduce_channels(slots, plan.slot_size, plan.panels, s,
                  [&](int64_t group, int64_t panel, int64_t channel, T* scratch) {
                    reduce(grad_weight + group * plan.rows * plan.channels * s.taps(),
                           workspace + group * group_size, scratch, panel, channel, s, plan,
                           accumulate);
                  });
}

template int64_t conv2d_grad_weight_workspace(ImageView<const float>, ImageView<const float>,
                                              const ConvShape&, int64_t, int64_t);
template int64_t conv2d_grad_weight_workspace(ImageView<const double>, ImageView<const double>,
                                              const ConvShape&, int64_t, int64_t);
template void conv2d_grad_weight(float*, ImageView<const float>, ImageView<const float>, float*,
                                 const ConvShape&, bool, int64_t);
template void conv2d_grad_weight(double*, ImageView<const double>, ImageView<const double>, double*,
                                 const ConvShape&, bool, int64_t);

}  // namespace pydenoise::cpu
