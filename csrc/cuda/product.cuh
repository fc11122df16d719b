// The kernel of product.h for one tile: included by the files that instantiate it.
#pragma once

#include <iterator>
#include <utility>

#include "cuda/multiply.cuh"
#include "cuda/product.h"

namespace pydenoise::cuda {

template <class Multiply>
struct Scratch {
  typename Multiply::Panel panels[Multiply::kStages];
  Place rows[Multiply::kRows];
  Place steps[2 * Multiply::kChunk];  // a chunk that is fetched, and the next
};

// Which tile of which product the block works on; tiles of the same rows are neighbours, so that
// what one reads the next finds in the cache.
struct Share {
  int phase, group, part, first_row, first_col;
};
template <class Multiply, class T>
__device__ Share share_of_block(const Product<T>& p, int row_tiles) {
  const int col_tiles = (p.columns + Multiply::kCols - 1) / Multiply::kCols;
  int index = static_cast<int>(blockIdx.x);
  Share share;
  share.first_col = index % col_tiles * Multiply::kCols;
  index /= col_tiles;
  share.first_row = index % row_tiles * Multiply::kRows;
  index /= row_tiles;
  share.part = index % p.parts;
  index /= p.parts;
  share.group = index % p.groups;
  share.phase = index / p.groups;
  return share;
}

// Threads that share a line of so many runs: those of one lane bring the same runs of every line.
// Powers of two, as the number of threads is.
__device__ constexpr unsigned lanes_of(unsigned runs, unsigned lines, unsigned threads) {
  const unsigned common = runs & (~runs + 1);
  if (common == runs || lines % (threads / common) == 0) return common;
  unsigned lanes = 1;  // and the last ones nothing
  while (lanes < runs) lanes *= 2;
  return lanes;
}

// Of some neighbours into a panel.
struct Copy {
  void* to;
  const void* from;
  bool is_there;  // or zeros come
};

// Starts one thread's copies of a panel of [depth] x [side] elements, `width` neighbours each:
// what(step, place along the side). Places are looked up for some copies at once, before they
// start: no read of shared memory passes a copy into it.
template <class T, int depth, int side, int threads, int width, bool along_steps, class What>
__device__ void bring(const What& what) {
  constexpr unsigned kRuns = (along_steps ? depth : side) / width;
  constexpr unsigned kLines = along_steps ? side : depth;
  constexpr unsigned kLanes = lanes_of(kRuns, kLines, threads), kAtOnce = threads / kLanes;
  constexpr unsigned kOfLine = (kRuns + kLanes - 1) / kLanes, kTogether = 4;
  constexpr unsigned kAll = (kLines + kAtOnce - 1) / kAtOnce * kOfLine;
  const unsigned lane = threadIdx.x % kLanes, first = threadIdx.x / kLanes;
#pragma unroll
  for (unsigned begin = 0; begin < kAll; begin += kTogether) {
    Copy copies[kTogether];
    bool is_mine[kTogether];
#pragma unroll
    for (unsigned i = 0; i < kTogether; ++i) {
      const unsigned line = first + (begin + i) / kOfLine * kAtOnce;
      const unsigned run = lane + (begin + i) % kOfLine * kLanes;
      is_mine[i] = begin + i < kAll && (kLines % kAtOnce == 0 || line < kLines) &&
                   (kRuns % kLanes == 0 || run < kRuns);
      if (!is_mine[i]) continue;
      const auto at = static_cast<int>(run * width), other = static_cast<int>(line);
      copies[i] = along_steps ? what(at, other) : what(other, at);
    }
#pragma unroll
    for (unsigned i = 0; i < kTogether; ++i) {
      const auto [to, from, is_there] = copies[i];
      if (is_mine[i]) copy_async<width * sizeof(T)>(to, from, is_there);
    }
  }
}

// Of the left panel's elements a thread brings those of one row, or of one step where they lie side
// by side.
template <class Multiply>
__device__ int own_place(bool wide) {
  constexpr int kSide = Multiply::kBySteps ? Multiply::kDepth : Multiply::kRows;
  constexpr int kWidth = 16 / sizeof(typename Multiply::T), kRuns = kSide / kWidth;
  static_assert(Multiply::kThreads % kSide == 0);
  const int thread = static_cast<int>(threadIdx.x);
  return wide ? thread % kRuns * kWidth : thread % kSide;
}

template <class T>
__device__ T finished(T sum, const Finish<T>& finish, size_t at) {
  if (finish.activation == Activation::kNone) return sum;
  const bool backward = finish.output != nullptr;
  const T decides = backward ? finish.output[at] : sum;
  if (finish.activation == Activation::kLeakyRelu) return decides > 0 ? sum : sum * finish.slope;
  return (backward ? decides <= 0 : decides < 0) ? T(0) : sum;
}

// Stores the sums of neighbours, the first of them at row and `col`, and `stride` apart; added to
// what is there where they go `onto` it; bias and activation once they are the `last`.
template <class T, int width>
__device__ void write(const Product<T>& p, const Share& share, uint32_t row, int col, bool is_tall,
                      Pack<T, width> sums, bool at_once, bool onto, bool last) {
  const size_t at = static_cast<size_t>(share.group * p.out_group + share.part * p.out_part) + row +
                    static_cast<size_t>(col) * static_cast<size_t>(p.out_stride);
  const size_t stride = is_tall ? 1 : static_cast<size_t>(p.out_stride);
  const int all = p.columns - col;
  const int count = is_tall ? (all > 0 ? width : 0) : all;
#pragma unroll
  for (int v = 0; v < width; ++v) {
    if (v >= count) break;
    const size_t here = at + static_cast<size_t>(v) * stride;
    if (onto) sums.values[v] = p.out[here] + sums.values[v];
    if (last && p.finish.bias != nullptr) {
      const int channel = share.group * p.columns + (is_tall ? col : col + v);
      sums.values[v] = sums.values[v] + p.finish.bias[channel];
    }
    if (last) sums.values[v] = finished(sums.values[v], p.finish, here);
    if (!at_once) p.out[here] = sums.values[v];
  }
  if (at_once && count > 0) *reinterpret_cast<Pack<T, width>*>(p.out + at) = sums;
}

template <class Multiply>
__global__ void __launch_bounds__(Multiply::kThreads, Multiply::kResident)
    product_kernel(const __grid_constant__ Product<typename Multiply::T> p,
                   const __grid_constant__ Access access, const int row_tiles) {
  using T = typename Multiply::T;
  constexpr int kDepth = Multiply::kDepth, kThreads = Multiply::kThreads;
  constexpr int kRows = Multiply::kRows, kCols = Multiply::kCols, kWidth = 16 / sizeof(T);
  constexpr int kStages = Multiply::kStages, kAhead = kStages - 1;  // panels on their way
  // Steps whose places are found at a time, while the chunk before is fetched.
  constexpr int kChunk = Multiply::kChunk;
  static_assert(kChunk % kDepth == 0 && kStages * kDepth <= kChunk && kChunk <= kThreads);
  auto& scratch = shared_memory<Scratch<Multiply>>();
  const Share share = share_of_block<Multiply>(p, row_tiles);
  const Phase& phase = p.phase[share.phase];
  const int all_rows = phase.rows.count;
  if (share.first_row >= all_rows) return;  // a phase of fewer rows than the first
  const int all_steps = phase.steps.count;
  const int begin = p.parts == 1 ? 0 : share.part * p.part_steps;
  const int end = p.part_steps < all_steps - begin ? begin + p.part_steps : all_steps;
  const T* const left = held(p.left + share.group * p.left_group);
  const T* const right = held(p.right + share.group * p.right_group);
  const auto thread = static_cast<int>(threadIdx.x);

  for (int m = thread; m < kRows; m += kThreads) {
    scratch.rows[m] = place_of(phase.rows, share.first_row + m, all_rows);
  }
  __syncthreads();
  const int own_index = own_place<Multiply>(access.left_wide);
  Place own = {};
  if constexpr (!Multiply::kBySteps) own = scratch.rows[own_index];

  // Starts the copies of a panel.
  const auto fetch = [&](int slot, const Place* steps) {
    auto& panel = scratch.panels[slot];
    if constexpr (Multiply::kBySteps) own = steps[own_index];
    const auto from_left = [&](int k, int m) -> Copy {
      const Place at = own + (Multiply::kBySteps ? scratch.rows[m] : steps[k]);
      return {panel.left_at(k, m), left + at.source, inside(at, p.height, p.width)};
    };
    const auto from_right = [&](int k, int n) -> Copy {
      const int col = share.first_col + n;
      const uint32_t at =
          steps[k].other + static_cast<uint32_t>(col) * static_cast<uint32_t>(p.right_stride);
      return {&panel.right[k][n], right + at, col < p.columns && steps[k].row != kNowhere};
    };
    if (access.left_wide) {
      bring<T, kDepth, kRows, kThreads, kWidth, Multiply::kBySteps>(from_left);
    } else {
      bring<T, kDepth, kRows, kThreads, 1, Multiply::kBySteps>(from_left);
    }
    if (access.right_wide) {
      bring<T, kDepth, kCols, kThreads, kWidth, false>(from_right);
    } else if (access.right_along_steps) {
      bring<T, kDepth, kCols, kThreads, 1, true>(from_right);
    } else {
      bring<T, kDepth, kCols, kThreads, 1, false>(from_right);
    }
  };

  constexpr int kLongest = Multiply::kLongestSum;
  int first = begin;
  do {
    const bool is_cut = kLongest > 0 && kLongest < end - first;
    const int until = is_cut ? first + kLongest : end;
    if (first > begin) __syncthreads();  // the panels before are read
    if (thread < kChunk) scratch.steps[thread] = place_of(phase.steps, first + thread, until);
    __syncthreads();
    Multiply product;
    // The first panels are only fetched.
    int fetched = 0;
    for (int k = first - kAhead * kDepth; k < until; k += kDepth) {
      if (k >= first) {
        wait_for_copies<kAhead - 1>();
        __syncthreads();  // everybody's copies are there, and the panel before is read
      }
      const int ahead = k + kAhead * kDepth;
      if (ahead < until) fetch(fetched, scratch.steps + (ahead - first) % (2 * kChunk));
      end_copy_group();
      fetched = fetched + 1 == kStages ? 0 : fetched + 1;
      if (k < first) continue;
      const int next_chunk = k - first + kChunk;
      if (thread < kChunk && next_chunk % kChunk == 0 && first + next_chunk < until) {
        scratch.steps[next_chunk % (2 * kChunk) + thread] =
            place_of(phase.steps, first + next_chunk + thread, until);
      }
      product.add(scratch.panels[fetched]);
    }
    const bool onto = p.accumulate || first > begin;
    const bool last = until >= end;
    const int first_col = held(share.first_col);
    const auto put = [&](int row, int col, bool is_tall, auto sums, bool at_once) {
      if (share.first_row + row >= all_rows) return;
      write(p, share, scratch.rows[row].other, first_col + col, is_tall, sums, at_once, onto, last);
    };
    if (Multiply::kTall > 1 && access.out_tall) {
      if constexpr (Multiply::kTall > 1) {
        product.each_tall([&](int row, int col, auto sums) { put(row, col, true, sums, true); });
      }
    } else {
      product.each(
          [&](int row, int col, auto sums) { put(row, col, false, sums, access.out_wide); });
    }
    first = until;
  } while (first < end);
}

template <class Multiply>
int64_t row_tiles_of(const Product<typename Multiply::T>& p) {
  int64_t most = 0;
  for (int i = 0; i < p.phases; ++i) most = larger(most, p.phase[i].rows.count);
  return ceil_div(most, Multiply::kRows);
}
template <class Multiply>
int64_t blocks_of(const Product<typename Multiply::T>& p) {
  return row_tiles_of<Multiply>(p) * ceil_div(p.columns, Multiply::kCols) * p.groups * p.parts *
         p.phases;
}

template <class Multiply>
Status run(const Product<typename Multiply::T>& p, const Access& access, cudaStream_t stream) {
  return launch(product_kernel<Multiply>, blocks_of<Multiply>(p), Multiply::kThreads,
                sizeof(Scratch<Multiply>), stream, p, access,
                static_cast<int>(row_tiles_of<Multiply>(p)));
}

template <class Tiles, int... index>
Status run_one(int which, std::integer_sequence<int, index...>, const Product<float>& p,
               const Access& access, cudaStream_t stream) {
  Status status = cudaErrorLaunchFailure;
  ((which == index ? static_cast<void>(
                         status = run<typename Tiles::template Multiply<index>>(p, access, stream))
                   : static_cast<void>(0)),
   ...);
  return status;
}

// Runs the quickest of the tiles of a family: Tiles::Multiply<index> works on those of `all`.
template <class Tiles>
Status run_quickest(const Product<float>& p, const Access& access, cudaStream_t stream) {
  constexpr int kCount = static_cast<int>(std::size(Tiles::all));
  return run_one<Tiles>(quickest(p, Tiles::all, kCount), std::make_integer_sequence<int, kCount>(),
                        p, access, stream);
}

Status multiply_tf32(const Product<float>& product, const Access& access, cudaStream_t stream);

}  // namespace pydenoise::cuda
