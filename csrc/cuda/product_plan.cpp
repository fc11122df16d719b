// How a product is carried out, decided by its sizes alone: the way threads walk through memory,
// the tile, the number of parts.
#include "cuda/product.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace pydenoise::cuda {
namespace {

// The digit that moves first: the last one of more than one value.
int nearest_digit(const Line& line) {
  return line.last.by > 1 ? 2 : (line.middle.by > 1 ? 1 : 0);
}

// Elements from one index to the next, as far as they are one digit.
int64_t distance(const Line& line, uint32_t Place::* offset) {
  const auto step = static_cast<int32_t>(line.step[nearest_digit(line)].*offset);
  return step < 0 ? -static_cast<int64_t>(step) : step;
}

// Whether every offset of the line is a multiple of `width`; `but` names a digit to leave out.
bool multiples(const Line& line, uint32_t Place::* offset, int width, int but = -1) {
  bool all = line.start.*offset % width == 0;
  for (int digit = 0; digit < 3; ++digit) {
    all = all && (digit == but || line.step[digit].*offset % width == 0);
  }
  return all;
}

// Whether `width` indices from a multiple of it on are neighbours.
bool comes_in_runs(const Line& line, uint32_t Place::* offset, int width) {
  return line.last.by % static_cast<uint32_t>(width) == 0 && line.step[2].*offset == 1 &&
         multiples(line, offset, width, 2);
}
// And all of one pixel: they are inside or outside together.
bool comes_in_pixels(const Line& line, int width) {
  const Place& step = line.step[2];
  return step.row == 0 && step.col == 0 && comes_in_runs(line, &Place::source, width);
}

template <class T>
bool aligned(const T* data, int64_t group, int width) {
  return reinterpret_cast<uintptr_t>(data) % (width * sizeof(T)) == 0 && group % width == 0;
}

template <class T>
Access decide(const Product<T>& p) {
  constexpr int kWidth = 16 / sizeof(T), kTall = 4;
  const Phase& first = p.phase[0];
  Access access;
  access.left_along_steps =
      distance(first.steps, &Place::source) < distance(first.rows, &Place::source);
  access.right_along_steps = distance(first.steps, &Place::other) < p.right_stride;
  access.left_wide = aligned(p.left, p.left_group, kWidth);
  access.right_wide = !access.right_along_steps && p.right_stride == 1 && p.columns % kWidth == 0 &&
                      aligned(p.right, p.right_group, kWidth);
  const bool out_aligned = aligned(p.out, p.out_group, 4) && p.out_part % 4 == 0;
  access.out_wide = p.out_stride == 1 && p.columns % 4 == 0 && out_aligned;
  access.out_tall = p.out_stride % kTall == 0 && out_aligned;
  for (int i = 0; i < p.phases; ++i) {
    const Line &rows = p.phase[i].rows, &steps = p.phase[i].steps;
    const Line& runs = access.left_along_steps ? steps : rows;
    const Line& others = access.left_along_steps ? rows : steps;
    access.left_wide = access.left_wide && comes_in_pixels(runs, kWidth) &&
                       multiples(others, &Place::source, kWidth);
    access.right_wide = access.right_wide && multiples(steps, &Place::other, kWidth);
    access.out_wide = access.out_wide && multiples(rows, &Place::other, 4);
    access.out_tall = access.out_tall && comes_in_runs(rows, &Place::other, kTall);
  }
  return access;
}

constexpr int64_t kMultiprocessors = 132;

int64_t tiles_of(int64_t rows, int64_t columns, const Tile& tile) {
  return ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns);
}

// What a step of `times` products of so many rows and columns may take, in microseconds. Blocks
// that share a multiprocessor keep it busy where one alone would wait, so n of them take n + 1
// times as long as one would if it never did. The constants are fitted to a thousand products
// measured on an H200: launches aside, half of them take within 10 % of this, nine tenths within 20
// %. Those of the narrow tile and of TF32 are read off whole convolutions. bench/gpu_tiles.py fits
// anew.
double time_of_step(int64_t rows, int64_t columns, int64_t times, const Tile& tile) {
  const int64_t blocks = tiles_of(rows, columns, tile) * times;
  const int64_t at_once = kMultiprocessors * tile.resident;
  const int64_t rounds = blocks / at_once, rest = ceil_div(blocks % at_once, kMultiprocessors);
  const auto turns = static_cast<double>(rounds * (tile.resident + 1) + (rest > 0 ? rest + 1 : 0));
  const auto elements = static_cast<double>(tile.rows) * tile.columns;
  return turns * elements * kMultiprocessors / (1e6 * tile.speed);
}

constexpr double kStepsOfStart = 32;    // as long as these take a block to begin and to end
constexpr double kTimeOfPart = 2.7e-6;  // of an element: written, read and added

int prescribed_tile = -1, prescribed_parts = 0;

}  // namespace

Access access_of(const Product<float>& product) {
  return decide(product);
}
Access access_of(const Product<double>& product) {
  return decide(product);
}

void prescribe(int tile, int parts) {
  prescribed_tile = tile;
  prescribed_parts = parts;
}

int quickest(const Product<float>& p, const Tile* tiles, int count) {
  const int prescribed = prescribed_tile;
  if (prescribed >= 0) return prescribed % count;
  int64_t rows = 0;
  for (int i = 0; i < p.phases; ++i) rows = larger(rows, p.phase[i].rows.count);
  const int64_t times = static_cast<int64_t>(p.groups) * p.parts * p.phases;
  const auto time = [&](const Tile& tile) { return time_of_step(rows, p.columns, times, tile); };
  const Tile* const found = std::min_element(
      tiles, tiles + count, [&](const Tile& a, const Tile& b) { return time(a) < time(b); });
  return static_cast<int>(found - tiles);
}

int32_t parts_of(int64_t rows, int64_t columns, int64_t groups, int64_t steps) {
  constexpr int64_t kMostParts = 512, kWhole = 32;  // steps of a panel
  if (prescribed_parts > 0) {
    return static_cast<int32_t>(smaller(prescribed_parts, larger(1, ceil_div(steps, kWhole))));
  }
  const bool is_narrow = columns <= kNarrowColumns;
  const Tile* const begin = is_narrow ? &kNarrowTile : kFloatTiles;
  const Tile* const end = is_narrow ? begin + 1 : std::end(kFloatTiles);
  int64_t best = 1;
  double shortest = std::numeric_limits<double>::infinity();
  for (const Tile* tile = begin; tile != end; ++tile) {
    for (const int64_t quarters : {1, 2, 3, 4, 8}) {  // of the blocks that run at once
      const int64_t blocks = quarters * kMultiprocessors * tile->resident / 4;
      const int64_t most = larger(1, blocks / (tiles_of(rows, columns, *tile) * groups));
      const int64_t of_part = ceil_div(ceil_div(steps, smaller(most, kMostParts)), kWhole) * kWhole;
      const int64_t parts = larger(1, ceil_div(steps, larger(1, of_part)));
      const double time = time_of_step(rows, columns, groups * parts, *tile) *
                              (static_cast<double>(of_part) + kStepsOfStart) +
                          kTimeOfPart * static_cast<double>(parts * groups * rows * columns);
      if (time < shortest) {
        shortest = time;
        best = parts;
      }
    }
  }
  return static_cast<int32_t>(best);
}

}  // namespace pydenoise::cuda
