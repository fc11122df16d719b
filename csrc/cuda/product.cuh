// The kernel of product.h for one tile: included by the files that instantiate it.
#pragma once

#include "cuda/multiply.cuh"
#include "cuda/product.h"

namespace pydenoise::cuda {

template <class Multiply>
struct Scratch {
  typename Multiply::Panel panels[2];
  Place rows[Multiply::kRows];
  Place steps[2][Multiply::kDepth];
  int begin, end;  // of the part's steps; here because a thread has no register to spare
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

// What one thread brings of a panel: [depth] x [side] elements, `width` neighbours at a time.
template <class T, int depth, int side, int threads>
struct Share {
  static constexpr int kCount = side * depth / threads, kWidth = 16 / sizeof(T);
  T values[kCount];

  // body(step, place along the side, index of the first value)
  template <int width, bool along_steps, class Body>
  __device__ static void each(const Body& body) {
#pragma unroll
    for (int i = 0; i < kCount / width; ++i) {
      const int element = static_cast<int>(threadIdx.x) + i * threads;
      if constexpr (along_steps) {
        constexpr int kRuns = depth / width;
        body(element % kRuns * width, element / kRuns, i * width);
      } else {
        constexpr int kRuns = side / width;
        body(element / kRuns, element % kRuns * width, i * width);
      }
    }
  }

  // read(step, place, wide): the address of the element there, or null for zeros
  template <int width, bool along_steps, class Read>
  __device__ void fetch_as(const Read& read) {
    each<width, along_steps>([&](int step, int at, int first) {
      const T* const from = read(step, at);
      Pack<T, width> pack = {};
      if (from != nullptr) pack = *reinterpret_cast<const Pack<T, width>*>(from);
#pragma unroll
      for (int v = 0; v < width; ++v) values[first + v] = pack.values[v];
    });
  }
  template <class Read>
  __device__ void fetch(bool along_steps, bool wide, const Read& read) {
    if constexpr (kCount >= kWidth) {
      if (wide) {
        if (along_steps) return fetch_as<kWidth, true>(read);
        return fetch_as<kWidth, false>(read);
      }
    }
    if (along_steps) return fetch_as<1, true>(read);
    fetch_as<1, false>(read);
  }

  template <class Multiply, int width, bool along_steps, class Panel>
  __device__ void store_as(Panel& panel) const {
    each<width, along_steps>([&](int step, int at, int first) {
#pragma unroll
      for (int v = 0; v < width; ++v) {
        const T value = Multiply::prepared(values[first + v]);
        panel[along_steps ? step + v : step][along_steps ? at : at + v] = value;
      }
    });
  }
  template <class Multiply, class Panel>
  __device__ void store(bool along_steps, bool wide, Panel& panel) const {
    if constexpr (kCount >= kWidth) {
      if (wide) {
        if (along_steps) return store_as<Multiply, kWidth, true>(panel);
        return store_as<Multiply, kWidth, false>(panel);
      }
    }
    if (along_steps) return store_as<Multiply, 1, true>(panel);
    store_as<Multiply, 1, false>(panel);
  }
};

template <class T>
__device__ T finished(T sum, const Finish<T>& finish, size_t at) {
  if (finish.activation == Activation::kNone) return sum;
  const bool backward = finish.output != nullptr;
  const T decides = backward ? finish.output[at] : sum;
  if (finish.activation == Activation::kLeakyRelu) return decides > 0 ? sum : sum * finish.slope;
  return (backward ? decides <= 0 : decides < 0) ? T(0) : sum;
}

// Store of the sums of neighbouring columns from `col` on, added to what is there where they go
// `onto` it; bias and activation once they are the `last`.
template <class T, int width>
__device__ void write(const Product<T>& p, const Tile& tile, uint32_t row, int col,
                      Pack<T, width> sums, bool wide, bool onto, bool last) {
  const size_t at = static_cast<size_t>(tile.group * p.out_group + tile.part * p.out_part) + row +
                    static_cast<size_t>(col) * static_cast<size_t>(p.out_stride);
  const int count = p.columns - col < width ? p.columns - col : width;
#pragma unroll
  for (int v = 0; v < width; ++v) {
    if (v >= count) break;
    const size_t here = at + static_cast<size_t>(v) * static_cast<size_t>(p.out_stride);
    if (onto) sums.values[v] = p.out[here] + sums.values[v];
    if (last && p.finish.bias != nullptr) {
      sums.values[v] = sums.values[v] + p.finish.bias[tile.group * p.columns + col + v];
    }
    if (last) sums.values[v] = finished(sums.values[v], p.finish, here);
    if (!wide) p.out[here] = sums.values[v];
  }
  if (wide && count > 0) *reinterpret_cast<Pack<T, width>*>(p.out + at) = sums;
}

template <class Multiply>
__global__ void __launch_bounds__(Multiply::kThreads, Multiply::kResident)
    product_kernel(const __grid_constant__ Product<typename Multiply::T> p,
                   const __grid_constant__ Access access, const int row_tiles) {
  using T = typename Multiply::T;
  constexpr int kDepth = Multiply::kDepth, kThreads = Multiply::kThreads;
  constexpr int kRows = Multiply::kRows, kCols = Multiply::kCols;
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
  const auto write_steps = [&](int first, int until, Place* steps) {
    if (threadIdx.x < kDepth) {
      const int k = static_cast<int>(threadIdx.x);
      steps[k] = place_of(phase.steps, first + k, until);
    }
  };
  Share<T, kDepth, kRows, kThreads> left_share;
  Share<T, kDepth, kCols, kThreads> right_share;
  const auto fetch = [&](const Place* steps) {
    left_share.fetch(access.left_along_steps, access.left_wide, [&](int k, int m) -> const T* {
      const Place at = scratch.rows[m] + steps[k];
      return inside(at, p.height, p.width) ? left + at.source : nullptr;
    });
    right_share.fetch(access.right_along_steps, access.right_wide, [&](int k, int n) -> const T* {
      const int col = tile.first_col + n;
      if (col >= p.columns || steps[k].row == kNowhere) return nullptr;
      return right + steps[k].other +
             static_cast<size_t>(col) * static_cast<size_t>(p.right_stride);
    });
  };

  for (int m = static_cast<int>(threadIdx.x); m < kRows; m += kThreads) {
    scratch.rows[m] = place_of(phase.rows, tile.first_row + m, all_rows);
  }
  constexpr int kLongest = Multiply::kLongestSum;
  if (threadIdx.x == 0) {
    scratch.begin = begin;
    scratch.end = end;
  }
  int first = begin;
  do {
    __syncthreads();
    const bool is_cut = kLongest > 0 && kLongest < scratch.end - first;
    const int until = is_cut ? first + kLongest : scratch.end;
    write_steps(first, until, scratch.steps[0]);
    __syncthreads();
    Multiply product;
    if (first < until) fetch(scratch.steps[0]);
    // The panels take turns: while one is multiplied, what comes into the other is on its way.
    int turn = 0;
    for (int k = first; k < until; k += kDepth, turn ^= 1) {
      auto& panel = scratch.panels[turn];
      left_share.template store<Multiply>(access.left_along_steps, access.left_wide, panel.left);
      right_share.template store<Multiply>(access.right_along_steps, access.right_wide,
                                           panel.right);
      const bool more = k + kDepth < until;
      if (more) write_steps(k + kDepth, until, scratch.steps[turn ^ 1]);
      __syncthreads();
      if (more) fetch(scratch.steps[turn ^ 1]);
      product.add(panel);
    }
    const bool onto = p.accumulate || (kLongest > 0 && until - kLongest > scratch.begin);
    const bool last = kLongest == 0 || until >= scratch.end;
    product.each([&](int row, int col, auto sums) {
      if (tile.first_row + row >= all_rows) return;
      const uint32_t at = scratch.rows[row].other;
      write(p, tile, at, tile.first_col + col, sums, access.out_wide, onto, last);
    });
    first = until;
  } while (kLongest > 0 && first < scratch.end);
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

// Instantiated in product_float.cu, product_tf32.cu and product_double.cu.
using FloatLarge64 = Fma<float, 8, kLargeRows, 64, 8, 4, 2>;
using FloatLarge48 = Fma<float, 8, kLargeRows, 48, 8, 6, 3>;
using FloatSmall = Fma<float, 16, kSmallTile, kSmallTile, 4, 4, 6>;
using FloatNarrow = Fma<float, 8, 64, 4, 2, 4, 8>;  // few columns: 3 channels out
using DoubleSmall = Fma<double, 16, kSmallTile, kSmallTile, 4, 4, 4>;
using Tf32Large64 = Tf32<8, kLargeRows, 64, 2, 2, 3>;
using Tf32Large48 = Tf32<8, kLargeRows, 48, 2, 2, 3>;
using Tf32Small = Tf32<16, kSmallTile, kSmallTile, 1, 2, 6>;

Status multiply_tf32(const Product<float>& product, const Access& access, cudaStream_t stream);

}  // namespace pydenoise::cuda
