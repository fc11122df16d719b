// How a product is carried out, decided by its sizes alone: the way threads walk through memory,
// the tile, the number of parts.
#include "cuda/product.h"

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

// Of a GPU: with fewer blocks than these, smaller tiles make more of them. Sums in parts need fewer
// large ones, for theirs are long.
constexpr int64_t kMultiprocessors = 132, kEnoughBlocks = 2 * kMultiprocessors, kEnoughParts = 200;

// Of 64, 48 and 32 the one that leaves the fewest columns empty.
int columns_of_tile(int64_t columns) {
  int best = 64;
  for (const int each : {48, 32}) {
    if (ceil_div(columns, each) * each < ceil_div(columns, best) * best) best = each;
  }
  return best;
}

int64_t tiles_of(int64_t rows, int64_t columns, const TileSize& tile) {
  return ceil_div(rows, tile.rows) * ceil_div(columns, tile.columns);
}

}  // namespace

Access access_of(const Product<float>& product) {
  return decide(product);
}
Access access_of(const Product<double>& product) {
  return decide(product);
}

TileSize tile_of(const Product<float>& p) {
  int64_t rows = 0;
  for (int i = 0; i < p.phases; ++i) rows = larger(rows, p.phase[i].rows.count);
  const int64_t times = static_cast<int64_t>(p.groups) * p.parts * p.phases;
  const TileSize large{kLargeRows, columns_of_tile(p.columns)}, medium{kMediumRows, 48};
  const int64_t enough = p.parts > 1 ? kEnoughParts : kEnoughBlocks;
  if (rows > kMediumRows && tiles_of(rows, p.columns, large) * times >= enough) return large;
  if (rows > kSmallTile && large.columns > kSmallTile &&
      tiles_of(rows, p.columns, medium) * times >= kMultiprocessors) {
    return medium;
  }
  return {kSmallTile, kSmallTile};
}

int32_t parts_of(int64_t rows, int64_t columns, int64_t groups, int64_t steps) {
  constexpr int64_t kBlocks = 4 * kMultiprocessors, kMostParts = 512;
  const auto parts = [&](const TileSize& tile, int64_t fewest_steps) {
    const int64_t tiles = tiles_of(rows, columns, tile) * groups;
    const int64_t found = smaller(ceil_div(kBlocks, tiles), ceil_div(steps, fewest_steps));
    return larger(1, smaller(found, kMostParts));
  };
  const TileSize large{kLargeRows, columns_of_tile(columns)};
  const int64_t of_large = parts(large, 256);
  const bool is_enough = tiles_of(rows, columns, large) * groups * of_large >= kEnoughParts;
  if (rows > kMediumRows && is_enough) return static_cast<int32_t>(of_large);
  return static_cast<int32_t>(parts({kSmallTile, kSmallTile}, 128));
}

}  // namespace pydenoise::cuda
