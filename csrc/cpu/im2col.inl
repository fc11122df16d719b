// im2col and col2im of one channel, included inside the target region of each instruction set,
// which defines kVectorBytes before. Copies and sums in one fixed order: the same bits everywhere.

template <class T, int bytes>
struct Block {  // kLanes neighbouring elements in one register
  static constexpr int64_t kLanes = bytes / static_cast<int>(sizeof(T));
  typedef T Value __attribute__((vector_size(bytes)));
  Value value;

  static Block load(const T* from) {
    Block block;
    __builtin_memcpy(&block.value, from, sizeof block.value);
    return block;
  }
  void store(T* to) const { __builtin_memcpy(to, &value, sizeof value); }

  // from[0], from[2], ..., and nothing beyond from[2 kLanes - 2] is read
  static Block load_every_second(const T* from) {
    return every_second(load(from), load(from + kLanes - 1), Lanes());
  }
  // to[0] = even[0], to[1] = odd[0], to[2] = even[1], ...
  static void store_interleaved(T* to, Block even, Block odd) {
    interleaved(even, odd, Int<0>(), Lanes()).store(to);
    interleaved(even, odd, Int<kLanes / 2>(), Lanes()).store(to + kLanes);
  }

 private:
  using Lanes = std::make_integer_sequence<int, kLanes>;
  template <int value>
  using Int = std::integral_constant<int, value>;

  template <int... lane>
  static Block every_second(Block low, Block high, std::integer_sequence<int, lane...>) {
    constexpr int n = kLanes;  // `high` begins one element before the end of `low`
    return {__builtin_shufflevector(low.value, high.value,
                                    (2 * lane < n ? 2 * lane : 2 * lane + 1)...)};
  }
  template <int first, int... lane>
  static Block interleaved(Block even, Block odd, Int<first>, std::integer_sequence<int, lane...>) {
    constexpr int n = kLanes;
    return {__builtin_shufflevector(even.value, odd.value,
                                    (first + lane / 2 + (lane % 2 == 0 ? 0 : n))...)};
  }
};

// Calls body(Block, x) so that the blocks from x on cover [run.begin, run.end), with the widest
// registers that fit; the last two may overlap, for work that may be done twice. False when the
// run is shorter than the shortest register.
template <class T, int bytes = kVectorBytes, class Body>
bool cover(InsideRun run, const Body& body) {
  using Wide = Block<T, bytes>;
  if (run.end - run.begin < Wide::kLanes) {
    if constexpr (bytes > 16) return cover<T, bytes / 2>(run, body);
    return false;
  }
  for (int64_t x = run.begin; x < run.end; x += Wide::kLanes) {
    body(Wide(), x + Wide::kLanes <= run.end ? x : run.end - Wide::kLanes);
  }
  return true;
}

// to[i] = from[i * step]
template <class T>
void copy_run(T* to, const T* from, int64_t step, int64_t count) {
  const bool copied =
      step == 1
          ? cover<T>({0, count},
                     [&](auto block, int64_t i) { decltype(block)::load(from + i).store(to + i); })
          : step == 2 && cover<T>({0, count}, [&](auto block, int64_t i) {
              decltype(block)::load_every_second(from + 2 * i).store(to + i);
            });
  if (copied) return;
  for (int64_t i = 0; i < count; ++i) to[i] = from[i * step];
}

template <class T>
void im2col_channel(T* columns, const T* plane, int64_t stride_h, int64_t stride_w,
                    const ConvShape& s) {
  const GatherAxis rows = forward_rows(s), cols = forward_cols(s);
  T* row = columns;
  for (int64_t i = 0; i < rows.taps; ++i) {
    for (int64_t j = 0; j < cols.taps; ++j) {
      const int64_t first = cols.source(0, j);
      const InsideRun in = inside_run(first, cols.step, cols.source_size, cols.count);
      for (int64_t y = 0; y < rows.count; ++y, row += cols.count) {
        const int64_t source_y = rows.source(y, i);
        const bool inside = rows.inside(source_y);
        const int64_t begin = inside ? in.begin : cols.count, end = inside ? in.end : cols.count;
        for (int64_t x = 0; x < begin; ++x) row[x] = T(0);
        copy_run(row + begin, plane + source_y * stride_h + (first + begin * cols.step) * stride_w,
                 cols.step * stride_w, end - begin);
        for (int64_t x = end; x < cols.count; ++x) row[x] = T(0);
      }
    }
  }
}

// The taps that reach one row of one phase of the picture (conv_shape.h). Tap t adds element
// taps[t].offset + x of the columns to position x, for x in taps[t].in.
struct RowTaps {
  struct Tap {
    int64_t offset;
    InsideRun in;
  };
  static constexpr int64_t kMost = 64;
  Tap taps[kMost];
  int64_t count = 0;
  InsideRun all{0, 0};  // positions that every tap reaches

  // At most kMost taps from tap `begin` on; returns the one to go on with, or -1 after the last.
  int64_t collect(const GatherAxis& rows, const GatherAxis& cols, int64_t y, int64_t begin,
                  const ConvShape& s) {
    count = 0;
    all = {0, cols.count};
    for (int64_t t = begin; t < rows.taps * cols.taps; ++t) {
      const int64_t i = t / cols.taps, j = t % cols.taps, source_y = rows.source(y, i);
      if (!rows.inside(source_y)) continue;
      if (count == kMost) return t;
      const int64_t tap = rows.kernel_index(i) * s.kernel_w + cols.kernel_index(j);
      const int64_t first = cols.source(0, j);
      const InsideRun in = inside_run(first, 1, cols.source_size, cols.count);
      taps[count++] = {(tap * s.out_h + source_y) * s.out_w + first, in};
      if (in.begin > all.begin) all.begin = in.begin;
      if (in.end < all.end) all.end = in.end;
    }
    return -1;
  }

  // The taps are many short streams, each too short for the processor to foresee: the same place
  // of the next channel is asked for while this one is summed.
  template <class Wide, class T>
  Wide block(const T* columns, int64_t x, int64_t channel_size) const {
    Wide sum{};
    for (int64_t t = 0; t < count; ++t) {
      __builtin_prefetch(columns + taps[t].offset + x + channel_size);
      sum.value += Wide::load(columns + taps[t].offset + x).value;
    }
    return sum;
  }

  template <class T>
  T element(T start, const T* columns, int64_t x) const {
    for (int64_t t = 0; t < count; ++t) {
      if (taps[t].in.begin <= x && x < taps[t].in.end) start += columns[taps[t].offset + x];
    }
    return start;
  }

  // to[x * step] = (fresh ? 0 : old) + the taps in order, for x in [0, width).
  template <class T>
  void sum(T* to, int64_t step, int64_t width, const T* columns, int64_t channel_size,
           bool fresh) const {
    const bool blocked = fresh && cover<T>(all, [&](auto wide, int64_t x) {
                           const auto sums = block<decltype(wide)>(columns, x, channel_size);
                           if (step == 1) {
                             sums.store(to + x);
                           } else {
                             for (int64_t lane = 0; lane < sums.kLanes; ++lane)
                               to[(x + lane) * step] = sums.value[lane];
                           }
                         });
    for (int64_t x = 0; x < width; ++x) {
      if (blocked && x == all.begin) x = all.end;
      if (x < width) to[x * step] = element(fresh ? T(0) : to[x * step], columns, x);
    }
  }
};

// The taps of row after row. Away from the border they are those of the row above, one row of
// columns further on.
struct RowWalk {
  const GatherAxis &rows, &cols;
  const ConvShape& shape;
  RowTaps row;
  int64_t collected_at = -1;  // the row all of whose taps `row` holds, if every tap reaches it

  bool reached_by_all(int64_t y) const {
    return rows.taps > 0 && rows.inside(rows.source(y, 0)) &&
           rows.inside(rows.source(y, rows.taps - 1));
  }

  // Makes `row` hold taps of row y from tap `begin` on and `columns` point to where its offsets
  // count from; returns the tap to go on with, or -1.
  template <class T>
  int64_t go_to(int64_t y, int64_t begin, const T*& columns) {
    const bool full = reached_by_all(y);
    if (full && begin == 0 && collected_at >= 0) {
      columns += (y - collected_at) * shape.out_w;
      return -1;
    }
    const int64_t next = row.collect(rows, cols, y, begin, shape);
    collected_at = full && begin == 0 && next < 0 ? y : -1;
    return next;
  }
};

// One phase of the channel, all its rows.
template <class T>
void sum_phase(T* plane, int64_t stride_h, int64_t stride_w, const T* columns,
               const GatherAxis& rows, const GatherAxis& cols, const ConvShape& s) {
  RowWalk walk{rows, cols, s, {}};
  for (int64_t y = 0; y < rows.count; ++y) {
    T* to = plane + rows.dest(y) * stride_h + cols.dest_first * stride_w;
    int64_t next = 0;
    for (bool fresh = true; next >= 0; fresh = false) {
      const T* from = columns;
      next = walk.go_to(y, next, from);
      walk.row.sum(to, cols.dest_step * stride_w, cols.count, from, s.taps() * s.out_pixels(),
                   fresh);
    }
  }
}

// The two column phases of stride 2 together, when pixels are neighbours: whole registers are
// written. At most RowTaps::kMost taps.
template <class T>
void sum_phase_pair(T* plane, int64_t stride_h, const T* columns, const GatherAxis& rows,
                    const GatherAxis& even_cols, const GatherAxis& odd_cols, const ConvShape& s) {
  const int64_t channel_size = s.taps() * s.out_pixels();
  RowWalk even{rows, even_cols, s, {}}, odd{rows, odd_cols, s, {}};
  for (int64_t y = 0; y < rows.count; ++y) {
    T* to = plane + rows.dest(y) * stride_h;
    const T *even_from = columns, *odd_from = columns;
    even.go_to(y, 0, even_from);
    odd.go_to(y, 0, odd_from);
    const InsideRun a = even.row.all, b = odd.row.all;
    const InsideRun both{a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    const bool blocked = cover<T>(both, [&](auto wide, int64_t x) {
      using Wide = decltype(wide);
      Wide::store_interleaved(to + 2 * x, even.row.block<Wide>(even_from, x, channel_size),
                              odd.row.block<Wide>(odd_from, x, channel_size));
    });
    for (int64_t x = 0; x < even_cols.count; ++x) {
      if (blocked && x == both.begin) x = both.end;
      if (x < even_cols.count) to[2 * x] = even.row.element(T(0), even_from, x);
      if (x < odd_cols.count) to[2 * x + 1] = odd.row.element(T(0), odd_from, x);
    }
  }
}

template <class T>
void col2im_channel(T* plane, int64_t stride_h, int64_t stride_w, const T* columns,
                    const ConvShape& s) {
  const bool pairs = s.stride_w == 2 && stride_w == 1 && s.taps() <= RowTaps::kMost;
  for (int64_t phase = 0; phase < s.stride_h; ++phase) {
    const GatherAxis rows = mirrored_rows(s, phase);
    if (pairs) {
      sum_phase_pair(plane, stride_h, columns, rows, mirrored_cols(s, 0), mirrored_cols(s, 1), s);
      continue;
    }
    for (int64_t phase_w = 0; phase_w < s.stride_w; ++phase_w) {
      sum_phase(plane, stride_h, stride_w, columns, rows, mirrored_cols(s, phase_w), s);
    }
  }
}
