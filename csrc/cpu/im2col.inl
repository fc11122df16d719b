// im2col and col2im of channels, included inside the target region of each instruction set,
// which defines kVectorBytes before. Copies and sums in one fixed order: the same bits everywhere.

#if defined(__has_builtin)
#define PYDENOISE_HAS_SHUFFLEVECTOR __has_builtin(__builtin_shufflevector)
#else
#define PYDENOISE_HAS_SHUFFLEVECTOR 0
#endif

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

  // {both[index]...} of the two blocks' elements in a row
  template <int... index>
  static Block shuffle(Block low, Block high) {
#if PYDENOISE_HAS_SHUFFLEVECTOR
    return {__builtin_shufflevector(low.value, high.value, index...)};
#else
    const auto element = [&](int i) { return i < kLanes ? low.value[i] : high.value[i - kLanes]; };
    return {Value{element(index)...}};
#endif
  }
  template <int... lane>
  static Block every_second(Block low, Block high, std::integer_sequence<int, lane...>) {
    constexpr int n = kLanes;  // `high` begins one element before the end of `low`
    return shuffle<(2 * lane < n ? 2 * lane : 2 * lane + 1)...>(low, high);
  }
  template <int first, int... lane>
  static Block interleaved(Block even, Block odd, Int<first>, std::integer_sequence<int, lane...>) {
    constexpr int n = kLanes;
    return shuffle<(first + lane / 2 + (lane % 2 == 0 ? 0 : n))...>(even, odd);
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
void fill_zero(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = T(0);
}

// One row of the patch matrix: tap (i, j) of one channel.
template <class T>
void im2col_row(T* row, const T* plane, int64_t stride_h, int64_t stride_w, const GatherAxis& rows,
                const GatherAxis& cols, int64_t i, int64_t j) {
  const InsideRun ys = inside_run(rows.source(0, i), rows.step, rows.source_size, rows.count);
  const InsideRun xs = inside_run(cols.source(0, j), cols.step, cols.source_size, cols.count);
  const T* from = plane + rows.source(ys.begin, i) * stride_h + cols.source(xs.begin, j) * stride_w;
  fill_zero(row, ys.begin * cols.count);
  fill_zero(row + ys.end * cols.count, (rows.count - ys.end) * cols.count);
  row += ys.begin * cols.count;
  for (int64_t y = ys.begin; y < ys.end; ++y, row += cols.count, from += rows.step * stride_h) {
    for (int64_t x = 0; x < xs.begin; ++x) row[x] = T(0);
    copy_run(row + xs.begin, from, cols.step * stride_w, xs.end - xs.begin);
    for (int64_t x = xs.end; x < cols.count; ++x) row[x] = T(0);
  }
}

template <class T>
void im2col_channels(T* columns, const T* plane, int64_t stride_c, int64_t stride_h,
                     int64_t stride_w, int64_t channels, const ConvShape& s) {
  const GatherAxis rows = forward_rows(s), cols = forward_cols(s);
  for (int64_t c = 0; c < channels; ++c, plane += stride_c) {
    for (int64_t tap = 0; tap < s.taps(); ++tap, columns += s.out_pixels()) {
      im2col_row(columns, plane, stride_h, stride_w, rows, cols, tap / s.kernel_w,
                 tap % s.kernel_w);
    }
  }
}

// to[i] += from[i]. The runs are many and short, too short for the processor to foresee the next:
// what lies `ahead` elements on is asked for in passing.
template <class T, int bytes = kVectorBytes>
void add_run(T* to, const T* from, int64_t count, int64_t ahead) {
  using Wide = Block<T, bytes>;
  int64_t i = 0;
  for (; i + Wide::kLanes <= count; i += Wide::kLanes) {
    __builtin_prefetch(from + i + ahead);
    Wide sum = Wide::load(to + i);
    sum.value += Wide::load(from + i).value;
    sum.store(to + i);
  }
  if constexpr (bytes > 16) {
    add_run<T, bytes / 2>(to + i, from + i, count - i, ahead);
  } else {
    for (; i < count; ++i) to[i] += from[i];
  }
}

// Rows [y0, y1) and positions [x0, x1) of one phase of the picture (conv_shape.h).
struct Tile {
  int64_t y0, y1, x0, x1;
};

// One tap into the sums of a tile. Where rows are short, and equally long in the tile and in the
// patch matrix, all of them are one run; it also adds what the picture's border cuts off at the
// rows' ends, and those few sums are set back to what they were.
template <class T>
void add_tap(T* sums, const T* row, const Tile& tile, const GatherAxis& rows,
             const GatherAxis& cols, int64_t i, int64_t j, int64_t ahead) {
  const int64_t width = tile.x1 - tile.x0, shift = cols.source(tile.x0, j);
  const InsideRun xs = inside_run(shift, 1, cols.source_size, width);
  const InsideRun ys = inside_run(rows.source(tile.y0, i), 1, rows.source_size, tile.y1 - tile.y0);
  if (xs.begin == xs.end) return;  // nothing of this tap lies inside: `row` may lie anywhere
  sums += ys.begin * width;
  row += rows.source(tile.y0 + ys.begin, i) * cols.source_size + shift;
  const int64_t high = ys.end - ys.begin, cut = width - (xs.end - xs.begin);
  constexpr int64_t kShort = 16, kMostSaved = 256;
  if (width > kShort || width != cols.source_size || cut * high > kMostSaved) {
    for (int64_t y = 0; y < high; ++y, sums += width, row += cols.source_size) {
      add_run(sums + xs.begin, row + xs.begin, xs.end - xs.begin, ahead);
    }
    return;
  }
  T saved[kMostSaved];
  int64_t count = 0;
  const auto for_each_cut = [&](const auto& body) {
    for (int64_t y = 0; y < high && cut > 0; ++y) {
      for (int64_t x = 0; x < xs.begin; ++x) body(sums[y * width + x]);
      for (int64_t x = xs.end; x < width; ++x) body(sums[y * width + x]);
    }
  };
  for_each_cut([&](const T& sum) { saved[count++] = sum; });
  add_run(sums + xs.begin, row + xs.begin, high * width - cut, ahead);
  count = 0;
  for_each_cut([&](T& sum) { sum = saved[count++]; });
}

// sums[y - y0][x - x0] = all taps, in order.
template <class T>
void sum_tile(T* sums, const T* columns, const Tile& tile, const GatherAxis& rows,
              const GatherAxis& cols, const ConvShape& s) {
  // The next channel follows where one fits the nearest caches; in a larger one the runs are long,
  // and a page further on in the same run is what comes next.
  const int64_t channel = s.taps() * s.out_pixels(), ahead = channel <= 32768 ? channel : 1024;
  fill_zero(sums, (tile.y1 - tile.y0) * (tile.x1 - tile.x0));
  for (int64_t i = 0; i < rows.taps; ++i) {
    for (int64_t j = 0; j < cols.taps; ++j) {
      const int64_t tap = rows.kernel_index(i) * s.kernel_w + cols.kernel_index(j);
      add_tap(sums, columns + tap * s.out_pixels(), tile, rows, cols, i, j, ahead);
    }
  }
}

// to[i * step] = from[i]
template <class T>
void spread_run(T* to, const T* from, int64_t step, int64_t count) {
  if (step == 1) return copy_run(to, from, 1, count);
  for (int64_t i = 0; i < count; ++i) to[i * step] = from[i];
}

// to[2 i] = even[i], to[2 i + 1] = odd[i]; there may be one even element more.
template <class T>
void interleave_runs(T* to, const T* even, const T* odd, int64_t even_count, int64_t odd_count) {
  const bool covered = cover<T>({0, odd_count}, [&](auto block, int64_t i) {
    using Wide = decltype(block);
    Wide::store_interleaved(to + 2 * i, Wide::load(even + i), Wide::load(odd + i));
  });
  for (int64_t i = covered ? odd_count : 0; i < even_count; ++i) {
    to[2 * i] = even[i];
    if (i < odd_count) to[2 * i + 1] = odd[i];
  }
}

// One phase of one channel, or for stride 2 the two phases of a row together, so that whole
// registers of neighbours are written. Sums are gathered tile by tile in memory that stays in the
// first-level cache: a column is read once, in long runs, and a pixel written once.
template <class T>
void col2im_phase(T* plane, int64_t stride_h, int64_t stride_w, const T* columns,
                  const GatherAxis& rows, const GatherAxis* cols, int64_t together,
                  const ConvShape& s) {
  constexpr int64_t kSums = 16384 / static_cast<int64_t>(sizeof(T));
  T sums[2][kSums];
  const int64_t width = cols[0].count < kSums ? cols[0].count : kSums;
  const int64_t height = width > 0 ? kSums / width : 0;
  for (int64_t y0 = 0; y0 < rows.count && width > 0; y0 += height) {
    const int64_t y1 = y0 + height < rows.count ? y0 + height : rows.count;
    for (int64_t x0 = 0; x0 < cols[0].count; x0 += width) {
      int64_t counts[2];
      for (int64_t k = 0; k < together; ++k) {
        const int64_t x1 = x0 + width < cols[k].count ? x0 + width : cols[k].count;
        counts[k] = x1 - x0;
        sum_tile(sums[k], columns, {y0, y1, x0, x1}, rows, cols[k], s);
      }
      for (int64_t y = 0; y < y1 - y0; ++y) {
        T* to = plane + rows.dest(y0 + y) * stride_h + cols[0].dest(x0) * stride_w;
        if (together == 2) {
          interleave_runs(to, sums[0] + y * counts[0], sums[1] + y * counts[1], counts[0],
                          counts[1]);
        } else {
          spread_run(to, sums[0] + y * counts[0], cols[0].dest_step * stride_w, counts[0]);
        }
      }
    }
  }
}

template <class T>
void col2im_channels(T* plane, int64_t stride_c, int64_t stride_h, int64_t stride_w,
                     const T* columns, int64_t channels, const ConvShape& s) {
  const int64_t together = s.stride_w == 2 && stride_w == 1 ? 2 : 1;
  for (int64_t phase = 0; phase < s.stride_h * s.stride_w; phase += together) {
    const GatherAxis rows = mirrored_rows(s, phase / s.stride_w);
    const GatherAxis cols[] = {mirrored_cols(s, phase % s.stride_w), mirrored_cols(s, 1)};
    for (int64_t c = 0; c < channels; ++c) {
      col2im_phase(plane + c * stride_c, stride_h, stride_w,
                   columns + c * s.taps() * s.out_pixels(), rows, cols, together, s);
    }
  }
}
