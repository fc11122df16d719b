// Gradients of the parameters: sums over all pixels of all pictures.
//
// One order of summation: the pixels are cut into chunks of at most kPixelChunk that never cross
// a picture, the chunks into pieces whose number depends on the shape (and the instruction set's
// tile) alone. A piece is summed pixel by pixel, then the pieces in order. Threads take pieces and
// blocks of columns, so their number changes nothing.
#include "cpu/conv2d.h"
#include "cpu/gemm.h"
#include "cpu/patches.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kPixelChunk = 256;
constexpr int64_t kTasksWanted = 16;  // pieces x blocks x groups, enough to keep threads busy

template <class T>
struct Plan {
  const Ukernel<T>& kernel;
  int64_t rows, terms;  // of one group: gradient is rows x terms
  int64_t row_panels, term_panels;
  int64_t block_panels, blocks;            // term panels taken together
  int64_t picture_chunks, chunks, pieces;  // of pixels
  int64_t partial_size, slot_size;

  explicit Plan(const ConvShape& s)
      : kernel(ukernel_for<T>(s.group_out_channels(), s.group_in_channels() * s.taps())),
        rows(s.group_out_channels()),
        terms(s.group_in_channels() * s.taps()),
        row_panels(ceil_div(rows, kernel.mr)),
        term_panels(ceil_div(terms, kernel.nr)),
        block_panels(larger(1, kNBlock / kernel.nr)),
        blocks(ceil_div(term_panels, block_panels)),
        picture_chunks(ceil_div(s.out_pixels(), kPixelChunk)),
        chunks(s.batch * picture_chunks),
        pieces(larger(1, smaller(chunks, ceil_div(kTasksWanted, blocks * s.groups)))),
        partial_size(row_panels * kernel.mr * term_panels * kernel.nr),
        slot_size(round_up(kPixelChunk * (block_panels * kernel.nr + kernel.mr), kAlignment)) {}

  // Tile (i, j) of the partial sums of one (group, piece).
  int64_t tile(int64_t i, int64_t j) const { return (j * row_panels + i) * kernel.mr * kernel.nr; }
};

// The chunks of one piece, for one block of term panels.
template <class T>
void sum_piece(T* partial, ImageView<const T> grad_output, ImageView<const T> input, T* scratch,
               const ConvShape& s, const Plan<T>& plan, int64_t group, int64_t piece,
               int64_t block) {
  const Ukernel<T>& kernel = plan.kernel;
  const int64_t j0 = block * plan.block_panels;
  const int64_t j1 = smaller(plan.term_panels, j0 + plan.block_panels);
  T* const right = scratch;
  T* const left = right + kPixelChunk * plan.block_panels * kernel.nr;
  const int64_t begin = piece * plan.chunks / plan.pieces;
  const int64_t end = (piece + 1) * plan.chunks / plan.pieces;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t n = chunk / plan.picture_chunks;
    const int64_t pixel0 = chunk % plan.picture_chunks * kPixelChunk;
    const int64_t count = smaller(kPixelChunk, s.out_pixels() - pixel0);
    const Patches<T> patches{input.at(n, group * s.group_in_channels()),
                             input.stride_c,
                             input.stride_h,
                             input.stride_w,
                             s.group_in_channels(),
                             forward_rows(s),
                             forward_cols(s)};
    // All pixels of a dense picture are evenly spaced, in either format.
    const StridedOperand<T> gradient{grad_output.at(n, group * plan.rows), plan.rows,
                                     grad_output.stride_c, grad_output.stride_w, kernel.mr};
    for (int64_t j = j0; j < j1; ++j) {
      pack_terms(right + (j - j0) * kPixelChunk * kernel.nr, kernel.nr, j * kernel.nr, pixel0,
                 count, patches);
    }
    for (int64_t i = 0; i < plan.row_panels; ++i) {
      gradient.panel(i, pixel0, count, left);
      for (int64_t j = j0; j < j1; ++j) {
        kernel.run(partial + plan.tile(i, j), left, right + (j - j0) * kPixelChunk * kernel.nr,
                   count, chunk > begin);
      }
    }
  }
}

// Adds up the pieces of one term panel and writes it where it belongs in the weights.
template <class T>
void reduce_panel(T* grad_weight, const T* partials, const ConvShape& s, const Plan<T>& plan,
                  int64_t group, int64_t j, bool accumulate) {
  const int64_t mr = plan.kernel.mr, nr = plan.kernel.nr, channels = s.group_in_channels();
  const int64_t valid = smaller(nr, plan.terms - j * nr);
  for (int64_t row = 0; row < plan.rows; ++row) {
    const T* from = partials + plan.tile(row / mr, j) + row % mr * nr;
    T* to = grad_weight + (group * plan.rows + row) * plan.terms;
    for (int64_t i = 0; i < valid; ++i) {
      const int64_t term = j * nr + i;
      T sum = plan.chunks == 0 ? T(0) : from[i];
      for (int64_t piece = 1; piece < plan.pieces; ++piece) {
        sum += from[piece * plan.partial_size + i];
      }
      T& element = to[term % channels * s.taps() + term / channels];
      element = accumulate ? element + sum : sum;
    }
  }
}

// Channels of conv2d_grad_bias summed side by side, and sums of one row side by side.
constexpr int64_t kLanes = 16;

// One plane whose pixels are neighbours: lane l takes pixels l, l + kLanes, ...
template <class T>
double sum_plane(const T* plane, int64_t pixels) {
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= pixels; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += plane[i + lane];
  }
  for (int64_t lane = 0; i < pixels; ++i, ++lane) lanes[lane] += plane[i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace

template <class T>
int64_t conv2d_grad_weight_workspace(const ConvShape& shape, int64_t threads) {
  const Plan<T> plan(shape);
  return round_up(shape.groups * plan.pieces * plan.partial_size, kAlignment) +
         threads * plan.slot_size;
}

template <class T>
void conv2d_grad_weight(T* grad_weight, ImageView<const T> grad_output, ImageView<const T> input,
                        T* workspace, const ConvShape& s, bool accumulate) {
  const Plan<T> plan(s);
  const int64_t group_size = plan.pieces * plan.partial_size, threads = thread_count();
  T* const slots = workspace + round_up(s.groups * group_size, kAlignment);
  const int64_t tasks = plan.chunks == 0 ? 0 : s.groups * plan.pieces * plan.blocks;
  parallel_tasks(tasks, threads, [&](int64_t task, int64_t slot) {
    const int64_t block = task % plan.blocks, piece = task / plan.blocks % plan.pieces;
    const int64_t group = task / (plan.blocks * plan.pieces);
    sum_piece(workspace + group * group_size + piece * plan.partial_size, grad_output, input,
              slots + slot * plan.slot_size, s, plan, group, piece, block);
  });
  parallel_tasks(s.groups * plan.term_panels, threads, [&](int64_t task, int64_t) {
    const int64_t j = task % plan.term_panels, group = task / plan.term_panels;
    reduce_panel(grad_weight, workspace + group * group_size, s, plan, group, j, accumulate);
  });
}

template <class T>
void conv2d_grad_bias(T* grad_bias, ImageView<const T> grad_output, int64_t batch, int64_t channels,
                      int64_t height, int64_t width, bool accumulate) {
  const int64_t pixels = height * width;
  parallel_tasks(ceil_div(channels, kLanes), thread_count(), [&](int64_t task, int64_t) {
    const int64_t first = task * kLanes, count = smaller(kLanes, channels - first);
    double sums[kLanes] = {};
    for (int64_t n = 0; n < batch; ++n) {
      const T* picture = grad_output.at(n, first);
      if (grad_output.stride_w == 1) {
        for (int64_t c = 0; c < count; ++c) {
          sums[c] += sum_plane(picture + c * grad_output.stride_c, pixels);
        }
      } else {
        double lanes[kLanes] = {};
        for (int64_t i = 0; i < pixels; ++i) {
          const T* pixel = picture + i * grad_output.stride_w;
          for (int64_t c = 0; c < count; ++c) lanes[c] += pixel[c];
        }
        for (int64_t c = 0; c < count; ++c) sums[c] += lanes[c];
      }
    }
    for (int64_t c = 0; c < count; ++c) {
      T& element = grad_bias[first + c];
      element = static_cast<T>(accumulate ? element + sums[c] : sums[c]);
    }
  });
}

template int64_t conv2d_grad_weight_workspace<float>(const ConvShape&, int64_t);
template int64_t conv2d_grad_weight_workspace<double>(const ConvShape&, int64_t);
template void conv2d_grad_weight(float*, ImageView<const float>, ImageView<const float>, float*,
                                 const ConvShape&, bool);
template void conv2d_grad_weight(double*, ImageView<const double>, ImageView<const double>, double*,
                                 const ConvShape&, bool);
template void conv2d_grad_bias(float*, ImageView<const float>, int64_t, int64_t, int64_t, int64_t,
                               bool);
template void conv2d_grad_bias(double*, ImageView<const double>, int64_t, int64_t, int64_t, int64_t,
                               bool);

}  // namespace pydenoise::cpu
