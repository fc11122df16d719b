// How a product is carried out, decided by its sizes alone: the way threads walk through memory,
// the tile, the number of parts.
#include "cuda/product.h"

namespace pydenoise::cuda {
namespace {

// The digit that moves first: the last one of more than one value.
int nearest_digit(const Line& line) {
  return line.last > 1 ? 2 : (line.middle > 1 ? 1 : 0);
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

// Whether `width` indices from a multiple of it on are neighbours in one pixel.
bool comes_in_runs(const Line& line, int width) {
  const Place& step = line.step[2];
  return line.last % width == 0 && step.source == 1 && step.row == 0 && step.col == 0 &&
         multiples(line, &Place::source, width, 2);
}

template <class T>
bool aligned(const T* data, int64_t group, int width) {
  return reinterpret_cast<uintptr_t>(data) % (width * sizeof(T)) == 0 && group % width == 0;
}

template <class T>
Access decide(const Product<T>& p) {
  constexpr int kWidth = 16 / sizeof(T);
  const Phase& first = p.phase[0];
  Access access;
  access.left_along_steps =
      distance(first.steps, &Place::source) < distance(first.rows, &Place::source);
  access.right_along_steps = distance(first.steps, &Place::other) < p.right_stride;
  access.left_wide = aligned(p.left, p.left_group, kWidth);
  access.right_wide = !access.right_along_steps && p.right_stride == 1 && p.columns % kWidth == 0 &&
                      aligned(p.right, p.right_group, kWidth);
  access.out_wide = p.out_stride == 1 && p.columns % 4 == 0 && !p.accumulate &&
                    aligned(p.out, p.out_group, 4) && p.out_part % 4 == 0;
  for (int i = 0; i < p.phases; ++i) {
    const Line &rows = p.phase[i].rows, &steps = p.phase[i].steps;
    const Line& runs = access.left_along_steps ? steps : rows;
    const Line& others = access.left_along_steps ? rows : steps;
    access.left_wide = access.left_wide && comes_in_runs(runs, kWidth) &&
                       multiples(others, &Place::source, kWidth);
    access.right_wide = access.right_wide && multiples(steps, &Place::other, kWidth);
    access.out_wide = access.out_wide && multiples(rows, &Place::other, 4);
  }
  return access;
}

// Blocks from which large tiles fill a GPU (two for each of 132 multiprocessors); with fewer, small
// tiles make more of them.
constexpr int64_t kEnoughBlocks = 264;

// Of 48 and 64 the one that leaves fewer columns empty.
int columns_of_large(int64_t columns) {
  return ceil_div(columns, 48) * 48 < ceil_div(columns, 64) * 64 ? 48 : 64;
}

bool suits_large(int64_t rows, int64_t columns) {
  return rows > kLargeRows / 2 && columns > kSmallTile;
}

}  // namespace

Access access_of(const Product<float>& product) {
  return decide(product);
}
Access access_of(const Product<double>& product) {
  return decide(product);
}

int large_tile(const Product<float>& p) {
  int64_t rows = 0;
  for (int i = 0; i < p.phases; ++i) rows = larger(rows, p.phase[i].rows.count);
  const int columns = columns_of_large(p.columns);
  const int64_t blocks =
      ceil_div(rows, kLargeRows) * ceil_div(p.columns, columns) * p.groups * p.parts * p.phases;
  return suits_large(rows, p.columns) && blocks >= kEnoughBlocks ? columns : 0;
}

int32_t parts_of(int64_t rows, int64_t columns, int64_t groups, int64_t steps) {
  constexpr int64_t kManySteps = 512, kFewestSteps = 128, kMostParts = 512;
  if (suits_large(rows, columns)) {
    const int64_t tiles =
        ceil_div(rows, kLargeRows) * ceil_div(columns, columns_of_large(columns)) * groups;
    const int64_t wanted = ceil_div(kEnoughBlocks, tiles);
    if (steps >= wanted * kManySteps) return static_cast<int32_t>(wanted);
  }
  const int64_t tiles = ceil_div(rows, kSmallTile) * ceil_div(columns, kSmallTile) * groups;
  const int64_t wanted = smaller(ceil_div(2 * kEnoughBlocks, tiles), ceil_div(steps, kFewestSteps));
  return static_cast<int32_t>(larger(1, smaller(wanted, kMostParts)));
}

}  // namespace pydenoise::cuda
