// How a direction's pictures are cut into tasks: bands of destination positions of one picture and
// group. Results do not depend on it, since every sum is formed whole by one task.
#pragma once

#include "cpu/direction.h"

namespace pydenoise::cpu {

struct Bands {
  static constexpr int64_t kElements = int64_t{1} << 16;  // of a band: stays in cache
  static constexpr int64_t kTasksWanted = 16;             // enough to keep threads busy

  int64_t rows;         // positions of a band
  int64_t per_picture;  // bands of one picture

  // row_elements: what each further position adds to the memory that a band works on.
  Bands(const Direction& d, int64_t row_elements) {
    const int64_t positions = d.rows(0).count;
    const int64_t most = ceil_div(positions * d.shape.batch * d.shape.groups, kTasksWanted);
    rows = larger(1, smaller(smaller(positions, most), kElements / larger(1, row_elements)));
    per_picture = ceil_div(positions, rows);
  }

  // Bands that begin at multiples of `side`.
  void align(int64_t side, const Direction& d) {
    rows = round_up(rows, side);
    per_picture = ceil_div(d.rows(0).count, rows);
  }

  struct Task {
    int64_t picture, group, y0, y1;
  };
  int64_t tasks(const Direction& d) const { return d.shape.batch * d.shape.groups * per_picture; }
  Task task(int64_t index, const Direction& d) const {
    const int64_t y0 = index % per_picture * rows;
    return {index / (d.shape.groups * per_picture), index / per_picture % d.shape.groups, y0,
            smaller(d.rows(0).count, y0 + rows)};
  }
};

}  // namespace pydenoise::cpu
