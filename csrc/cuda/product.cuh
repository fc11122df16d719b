// The kernel of product.h for one tile: included by the files that instantiate it.
#pragma once

#include <type_traits>

#include "cuda/multiply.cuh"
#include "cuda/product.h"

namespace pydenoise::cuda {

template <class Multiply>
struct Scratch {
  typename Multiply::Panel panels[Multiply::kStages];
  Place rows[Multiply::kRows];
  Place steps[Multiply::kStages][Multiply::kDepth];  // of the panels
};

// Which tile of which product the block works on; tiles of the same rows are neighbours, so that
// what one reads the next finds in the cache.
struct Tile {
  int phase, group, part, first_row, first_col;
};
template <class Multiply, class T>
__device__ Tile tile_of_block(const Product<T>& p, int row_tiles) {
  const int col_tiles = (p.columns + Multiply::kCols - 1) / Multiply::kCols;
  int index = static_cast<int>(blockIdx.x);
  Tile tile;
  tile.first_col = index % col_tiles * Multiply::kCols;
  index /= col_tiles;
  tile.first_row = index % row_tiles * Multiply::kRows;
  index /= row_tiles;
  tile.part = index % p.parts;
  index /= p.parts;
  tile.group = index % p.groups;
  tile.phase = index / p.groups;
  return tile;
}

// body(step, place along the side) for what one thread brings of a panel of [depth] x [side]
// elements, `width` neighbours at a time.
template <int depth, int side, int threads, int width, bool along_steps, class Body>
__device__ void each_share(const Body& body) {
  constexpr int kRuns = (along_steps ? depth : side) / width, kAll = depth * side / width;
#pragma unroll 4
  for (int i = 0; i < (kAll + threads - 1) / threads; ++i) {
    const int run = static_cast<int>(threadIdx.x) + i * threads;
    if (kAll % threads != 0 && run >= kAll) break;
    if constexpr (along_steps) {
      body(run % kRuns * width, run / kRuns);
    } else {
      body(run / kRuns, run % kRuns * width);
    }
  }
}

// The row whose elements a thread brings, where rows lie side by side: the same one in each panel.
template <class Multiply>
__device__ int own_row(bool wide) {
  constexpr int kWidth = 16 / sizeof(typename Multiply::T), kRuns = Multiply::kRows / kWidth;
  static_assert(Multiply::kThreads % Multiply::kRows == 0);
  const int thread = static_cast<int>(threadIdx.x);
  return wide ? thread % kRuns * kWidth : thread % Multiply::kRows;
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
__device__ void write(const Product<T>& p, const Tile& tile, uint32_t row, int col, bool is_tall,
                      Pack<T, width> sums, bool at_once, bool onto, bool last) {
  const size_t at = static_cast<size_t>(tile.group * p.out_group + tile.part * p.out_part) + row +
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
      const int channel = tile.group * p.columns + (is_tall ? col : col + v);
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
  static_assert(kStages * kDepth <= kThreads);
  auto& scratch = shared_memory<Scratch<Multiply>>();
  const Tile tile = tile_of_block<Multiply>(p, row_tiles);
  const Phase& phase = p.phase[tile.phase];
  const int all_rows = phase.rows.count;
  if (tile.first_row >= all_rows) return;  // a phase of fewer rows than the first
  const int all_steps = phase.steps.count;
  const int begin = p.parts == 1 ? 0 : tile.part * p.part_steps;
  const int end = p.part_steps < all_steps - begin ? begin + p.part_steps : all_steps;
  const T* const left = p.left + tile.group * p.left_group;
  const T* const right = p.right + tile.group * p.right_group;
  const auto thread = static_cast<int>(threadIdx.x);

  for (int m = thread; m < kRows; m += kThreads) {
    scratch.rows[m] = place_of(phase.rows, tile.first_row + m, all_rows);
  }
  __syncthreads();
  Place own = {};
  if constexpr (!Multiply::kBySteps) own = scratch.rows[own_row<Multiply>(access.left_wide)];

  // Starts the copies of the panel whose steps are there.
  const auto fetch = [&](int slot) {
    auto& panel = scratch.panels[slot];
    const Place* const steps = scratch.steps[slot];
    const auto bring_left = [&](auto width, int k, int m) {
      const Place at = (Multiply::kBySteps ? scratch.rows[m] : own) + steps[k];
      const bool is_there = inside(at, p.height, p.width);
      constexpr int kBytes = decltype(width)::value * sizeof(T);
      copy_async<kBytes>(panel.left_at(k, m), left + (is_there ? at.source : 0), is_there);
    };
    const auto bring_right = [&](auto width, int k, int n) {
      const int col = tile.first_col + n;
      const bool is_there = col < p.columns && steps[k].row != kNowhere;
      const size_t at =
          steps[k].other + static_cast<size_t>(col) * static_cast<size_t>(p.right_stride);
      constexpr int kBytes = decltype(width)::value * sizeof(T);
      copy_async<kBytes>(&panel.right[k][n], right + (is_there ? at : 0), is_there);
    };
    constexpr std::integral_constant<int, kWidth> wide{};
    constexpr std::integral_constant<int, 1> one{};
    if (access.left_wide) {
      each_share<kDepth, kRows, kThreads, kWidth, Multiply::kBySteps>(
          [&](int k, int m) { bring_left(wide, k, m); });
    } else {
      each_share<kDepth, kRows, kThreads, 1, Multiply::kBySteps>(
          [&](int k, int m) { bring_left(one, k, m); });
    }
    if (access.right_wide) {
      each_share<kDepth, kCols, kThreads, kWidth, false>(
          [&](int k, int n) { bring_right(wide, k, n); });
    } else if (access.right_along_steps) {
      each_share<kDepth, kCols, kThreads, 1, true>([&](int k, int n) { bring_right(one, k, n); });
    } else {
      each_share<kDepth, kCols, kThreads, 1, false>([&](int k, int n) { bring_right(one, k, n); });
    }
  };

  constexpr int kLongest = Multiply::kLongestSum;
  int first = begin;
  do {
    const bool is_cut = kLongest > 0 && kLongest < end - first;
    const int until = is_cut ? first + kLongest : end;
    if (first > begin) __syncthreads();  // the panels before are read
    if (thread < kStages * kDepth) {
      scratch.steps[thread / kDepth][thread % kDepth] =
          place_of(phase.steps, first + thread, until);
    }
    __syncthreads();
    Multiply product;
    // The first panels are only fetched.
    int fetched = 0;
    for (int k = first - kAhead * kDepth; k < until; k += kDepth) {
      if (k >= first) {
        wait_for_copies<kAhead - 1>();
        __syncthreads();  // everybody's copies are there, and the panel before is read
      }
      if (k + kAhead * kDepth < until) fetch(fetched);
      end_copy_group();
      fetched = fetched + 1 == kStages ? 0 : fetched + 1;
      if (k < first) continue;
      // `fetched` is now the panel to multiply: its steps are no longer needed
      if (thread < kDepth) {
        scratch.steps[fetched][thread] =
            place_of(phase.steps, k + kStages * kDepth + thread, until);
      }
      product.add(scratch.panels[fetched]);
    }
    const bool onto = p.accumulate || first > begin;
    const bool last = until >= end;
    const auto put = [&](int row, int col, bool is_tall, auto sums, bool at_once) {
      if (tile.first_row + row >= all_rows) return;
      write(p, tile, scratch.rows[row].other, tile.first_col + col, is_tall, sums, at_once, onto,
            last);
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

// All tiles are the work of 128 threads.
template <int rows, int cols, int resident, bool by_steps>
using FloatTile = Fma<float, 16, rows, cols, rows / 16, cols / 8, resident, 3, by_steps>;
template <bool by_steps>
using FloatSmall = Fma<float, 32, kSmallTile, kSmallTile, 4, 2, 6, 3, by_steps>;
template <bool by_steps>
using FloatNarrow = Fma<float, 16, 128, kNarrowColumns, 1, kNarrowColumns, 8, 3, by_steps>;
template <bool by_steps>
using DoubleSmall = Fma<double, 16, kSmallTile, kSmallTile, 4, 2, 4, 3, by_steps>;
template <int cols, bool by_steps>
using Tf32Large = Tf32<16, kLargeRows, cols, 2, 2, 3, 3, by_steps>;
template <bool by_steps>
using Tf32Small = Tf32<16, kSmallTile, kSmallTile, 2, 2, 6, 3, by_steps>;

Status multiply_tf32(const Product<float>& product, const Access& access, cudaStream_t stream);

}  // namespace pydenoise::cuda
