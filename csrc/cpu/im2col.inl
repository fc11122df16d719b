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

// to[y * to_stride + i] = from[y * from_stride + i * step], for rows of `count` elements.
template <class T, int bytes = kVectorBytes>
void copy_rows(T* to, int64_t to_stride, const T* from, int64_t from_stride, int64_t step,
               int64_t rows, int64_t count) {
  using Wide = Block<T, bytes>;
  if (step > 2 || count < Wide::kLanes) {
    if constexpr (bytes > 16) {
      return copy_rows<T, bytes / 2>(to, to_stride, from, from_stride, step, rows, count);
    }
    for (int64_t y = 0; y < rows; ++y, to += to_stride, from += from_stride) {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i * step];
    }
    return;
  }
  for (int64_t y = 0; y < rows; ++y, to += to_stride, from += from_stride) {
    for (int64_t i = 0; i < count; i += Wide::kLanes) {  // the last two blocks may overlap
      const int64_t x = i + Wide::kLanes <= count ? i : count - Wide::kLanes;
      const Wide block = step == 1 ? Wide::load(from + x) : Wide::load_every_second(from + 2 * x);
      block.store(to + x);
    }
  }
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
  fill_zero(row, ys.begin * cols.count);
  fill_zero(row + ys.end * cols.count, (rows.count - ys.end) * cols.count);
  row += ys.begin * cols.count;
  copy_rows(row + xs.begin, cols.count,
            plane + rows.source(ys.begin, i) * stride_h + cols.source(xs.begin, j) * stride_w,
            rows.step * stride_h, cols.step * stride_w, ys.end - ys.begin, xs.end - xs.begin);
  for (int64_t y = ys.begin; y < ys.end && xs.end - xs.begin < cols.count; ++y, row += cols.count) {
    for (int64_t x = 0; x < xs.begin; ++x) row[x] = T(0);
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

// The taps of a tile as runs to add, worked out once for all channels. Where rows are short, and
// equally long in the tile and in the patch matrix, all rows of a tap are one run; it also adds
// what the picture's border cuts off at the rows' ends, and those few sums are set back.
struct TileTaps {
  static constexpr int64_t kMost = 64, kShort = 16, kMostCut = 128;
  struct Tap {
    int64_t to, from;      // first sum, first column element
    int64_t runs, length;  // run r begins r * width sums and r * source_w elements on
    int64_t cuts;          // sums to set back: cut[0, cuts)
    int16_t cut[kMostCut];
  };
  Tap taps[kMost];
  int64_t count = 0, next = 0;  // taps held; the first one that is not, or -1 after the last

  void collect(int64_t begin, const Tile& tile, const GatherAxis& rows, const GatherAxis& cols,
               const ConvShape& s) {
    count = 0;
    for (next = begin; next < rows.taps * cols.taps; ++next) {
      if (count == kMost) return;
      const int64_t i = next / cols.taps, j = next % cols.taps;
      const int64_t tap = rows.kernel_index(i) * s.kernel_w + cols.kernel_index(j);
      add(tap * s.out_pixels(), tile, rows, cols, i, j);
    }
    next = -1;
  }

  void add(int64_t columns_row, const Tile& tile, const GatherAxis& rows, const GatherAxis& cols,
           int64_t i, int64_t j) {
    const int64_t width = tile.x1 - tile.x0, first = cols.source(tile.x0, j);
    const InsideRun xs = inside_run(first, 1, cols.source_size, width);
    const InsideRun ys =
        inside_run(rows.source(tile.y0, i), 1, rows.source_size, tile.y1 - tile.y0);
    const int64_t high = ys.end - ys.begin, cut = width - (xs.end - xs.begin);
    if (high == 0 || cut == width) return;  // nothing of this tap lies inside
    Tap& tap = taps[count++];
    tap.to = ys.begin * width + xs.begin;
    tap.from =
        columns_row + rows.source(tile.y0 + ys.begin, i) * cols.source_size + first + xs.begin;
    tap.runs = high;
    tap.length = width - cut;
    tap.cuts = 0;
    if (width > kShort || width != cols.source_size || cut * high > kMostCut) return;
    tap.runs = 1;
    tap.length = high * width - cut;
    for (int64_t y = ys.begin; y < ys.end && cut > 0; ++y) {
      const int64_t row = y * width;
      for (int64_t x = 0; x < xs.begin; ++x) tap.cut[tap.cuts++] = static_cast<int16_t>(row + x);
      for (int64_t x = xs.end; x < width; ++x) tap.cut[tap.cuts++] = static_cast<int16_t>(row + x);
    }
  }

  // sums += the taps in order; rows of `width` sums, of source_w column elements
  template <class T>
  void add_to(T* sums, const T* columns, int64_t width, int64_t source_w, int64_t ahead) const {
    for (const Tap* tap = taps; tap < taps + count; ++tap) {
      T saved[kMostCut];
      for (int64_t k = 0; k < tap->cuts; ++k) saved[k] = sums[tap->cut[k]];
      for (int64_t run = 0; run < tap->runs; ++run) {
        add_run(sums + tap->to + run * width, columns + tap->from + run * source_w, tap->length,
                ahead);
      }
      for (int64_t k = 0; k < tap->cuts; ++k) sums[tap->cut[k]] = saved[k];
    }
  }
};

// to[y * to_stride + 2 i] = even[y][i], to[y * to_stride + 2 i + 1] = odd[y][i], for dense rows of
// even_count and odd_count sums; there may be one even element more.
template <class T, int bytes = kVectorBytes>
void interleave_rows(T* to, int64_t to_stride, const T* even, const T* odd, int64_t rows,
                     int64_t even_count, int64_t odd_count) {
  using Wide = Block<T, bytes>;
  if constexpr (bytes > 16) {
    if (odd_count < Wide::kLanes) {
      return interleave_rows<T, bytes / 2>(to, to_stride, even, odd, rows, even_count, odd_count);
    }
  }
  const bool wide = odd_count >= Wide::kLanes;
  for (int64_t y = 0; y < rows; ++y, to += to_stride, even += even_count, odd += odd_count) {
    for (int64_t i = 0; wide && i < odd_count; i += Wide::kLanes) {
      const int64_t x = i + Wide::kLanes <= odd_count ? i : odd_count - Wide::kLanes;
      Wide::store_interleaved(to + 2 * x, Wide::load(even + x), Wide::load(odd + x));
    }
    for (int64_t i = wide ? odd_count : 0; i < even_count; ++i) {
      to[2 * i] = even[i];
      if (i < odd_count) to[2 * i + 1] = odd[i];
    }
  }
}

// One tile of one phase, or for stride 2 of the two phases of a row together, so that whole
// registers of neighbours are written; all channels. Sums are gathered in memory that stays in the
// first-level cache: a column is read once, in long runs, and a pixel written once.
template <class T>
struct TileSums {
  static constexpr int64_t kSums = 16384 / static_cast<int64_t>(sizeof(T));
  const ConvShape& s;
  const GatherAxis& rows;
  const GatherAxis* cols;
  int64_t together;
  TileTaps taps[2];
  T sums[2][kSums];

  TileSums(const ConvShape& shape, const GatherAxis& row_axis, const GatherAxis* col_axes,
           int64_t phases)  // the memory stays as it is
      : s(shape), rows(row_axis), cols(col_axes), together(phases) {}

  void run(T* plane, int64_t stride_c, int64_t stride_h, int64_t stride_w, const T* columns,
           int64_t channels, const Tile& first) {
    // The next channel follows where one fits the nearest caches; in a larger one the runs are
    // long, and a page further on in the same run is what comes next.
    const int64_t channel = s.taps() * s.out_pixels(), ahead = channel <= 32768 ? channel : 1024;
    Tile tiles[2] = {first, first};
    for (int64_t k = 0; k < together; ++k) {
      if (tiles[k].x1 > cols[k].count) tiles[k].x1 = cols[k].count;
      taps[k].collect(0, tiles[k], rows, cols[k], s);
    }
    const int64_t high = first.y1 - first.y0, even = tiles[0].x1 - first.x0;
    for (int64_t c = 0; c < channels; ++c, plane += stride_c, columns += channel) {
      for (int64_t k = 0; k < together; ++k) {
        const int64_t width = tiles[k].x1 - first.x0;
        fill_zero(sums[k], high * width);
        taps[k].add_to(sums[k], columns, width, s.out_w, ahead);
        if (taps[k].next < 0) continue;
        while (taps[k].next >= 0) {
          taps[k].collect(taps[k].next, tiles[k], rows, cols[k], s);
          taps[k].add_to(sums[k], columns, width, s.out_w, ahead);
        }
        taps[k].collect(0, tiles[k], rows, cols[k], s);
      }
      T* to = plane + rows.dest(first.y0) * stride_h + cols[0].dest(first.x0) * stride_w;
      const int64_t to_stride = rows.dest_step * stride_h, step = cols[0].dest_step * stride_w;
      if (together == 2) {
        interleave_rows(to, to_stride, sums[0], sums[1], high, even, tiles[1].x1 - first.x0);
      } else if (step == 1) {
        copy_rows(to, to_stride, sums[0], even, 1, high, even);
      } else {
        for (int64_t y = 0; y < high; ++y) {
          for (int64_t x = 0; x < even; ++x) to[y * to_stride + x * step] = sums[0][y * even + x];
        }
      }
    }
  }
};

template <class T>
void col2im_channels(T* plane, int64_t stride_c, int64_t stride_h, int64_t stride_w,
                     const T* columns, int64_t channels, const ConvShape& s) {
  constexpr int64_t kSums = TileSums<T>::kSums;
  const int64_t together = s.stride_w == 2 && stride_w == 1 ? 2 : 1;
  for (int64_t phase = 0; phase < s.stride_h * s.stride_w; phase += together) {
    const GatherAxis rows = mirrored_rows(s, phase / s.stride_w);
    const GatherAxis cols[] = {mirrored_cols(s, phase % s.stride_w), mirrored_cols(s, 1)};
    const int64_t width = cols[0].count < kSums ? cols[0].count : kSums;
    const int64_t height = width > 0 ? kSums / width : 1;
    TileSums<T> tile(s, rows, cols, together);
    // A phase of one tile is planned once for all channels; a larger one reads channel by channel.
    const int64_t group = rows.count <= height && cols[0].count <= width ? channels : 1;
    for (int64_t c = 0; c < channels; c += group) {
      for (int64_t y0 = 0; y0 < rows.count; y0 += height) {
        const int64_t y1 = y0 + height < rows.count ? y0 + height : rows.count;
        for (int64_t x0 = 0; x0 < cols[0].count; x0 += width) {
          tile.run(plane + c * stride_c, stride_c, stride_h, stride_w,
                   columns + c * s.taps() * s.out_pixels(), group, {y0, y1, x0, x0 + width});
        }
      }
    }
  }
}
