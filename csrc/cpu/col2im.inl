// col2im of channels, the second half of im2col.inl: every pixel is a sum of columns, added in the
// order of the taps in a register and written once; every column is read once.

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
      const Wide left = Wide::load(even + x), right = Wide::load(odd + x);
      Wide::interleave_low(left, right).store(to + 2 * x);
      Wide::interleave_high(left, right).store(to + 2 * x + Wide::kLanes);
    }
    for (int64_t i = wide ? odd_count : 0; i < even_count; ++i) {
      to[2 * i] = even[i];
      if (i < odd_count) to[2 * i + 1] = odd[i];
    }
  }
}

// What the positions [x0, x1) of one phase add up, worked out once for all channels: where each tap
// reads, and which lanes of each block of sums it reaches. A block is one register of a row; of
// small planes whose rows are as long as those of the patch matrix it is one of all rows in a line.
template <class T>
struct PhaseTaps {
  using Wide = Block<T>;
  static constexpr int64_t kLanes = Wide::kLanes, kMost = 128, kMasks = 4096, kFlatBlocks = 64;
  int64_t shifts[kMost];
  uint16_t masks[kMasks];  // block by block
  bool whole[kMasks];      // no tap of the block leaves a lane out
  int64_t taps, width, blocks;

  // Taps [first, end) of the phase, from row 0.
  void collect(int64_t first, int64_t end, int64_t x0, int64_t x1, bool flat,
               const GatherAxis& rows, const GatherAxis& cols, const ConvShape& s) {
    width = x1 - x0;
    taps = end - first;
    blocks = ((flat ? rows.count * width : width) + kLanes - 1) / kLanes;
    InsideRun ys[kMost], xs[kMost];
    for (int64_t k = 0; k < taps; ++k) {
      const int64_t i = (first + k) / cols.taps, j = (first + k) % cols.taps;
      const int64_t row = rows.source(0, i), col = cols.source(x0, j);
      ys[k] = flat ? inside_run(row, 1, s.out_h, rows.count) : InsideRun{0, 1};
      xs[k] = inside_run(col, 1, s.out_w, width);
      const int64_t tap = rows.kernel_index(i) * s.kernel_w + cols.kernel_index(j);
      shifts[k] = tap * s.out_pixels() + row * s.out_w + col;
    }
    uint16_t* mask = masks;
    for (int64_t block = 0, y = 0, x = 0; block < blocks; ++block) {
      whole[block] = true;
      for (int64_t k = 0; k < taps; ++k) {
        uint32_t lanes = 0;
        int64_t row = y;
        for (int64_t start = -x; start < kLanes && row < ys[k].end; start += width, ++row) {
          if (row >= ys[k].begin) lanes |= Wide::lanes(start + xs[k].begin, start + xs[k].end);
        }
        whole[block] = whole[block] && lanes == Wide::kAll;
        *mask++ = static_cast<uint16_t>(lanes);
      }
      for (x += kLanes; flat && x >= width; ++y) x -= width;
    }
  }
};

// The taps [first, first + count) of a phase on their way through the rows; `number` is their
// number where it is known in advance, so that all addresses stay in registers.
template <class T, int64_t number>
struct TapWalk {
  using Wide = Block<T>;
  const PhaseTaps<T>& phase;
  const int64_t first, count;
  const T* from[number == 0 ? PhaseTaps<T>::kMost : number];

  TapWalk(const PhaseTaps<T>& taps, const T* columns, int64_t begin, int64_t end)
      : phase(taps), first(begin), count(number == 0 ? end - begin : number) {
    for (int64_t k = 0; k < count; ++k) from[k] = columns + taps.shifts[first + k];
  }
  void next_row(int64_t columns_w) {
    for (int64_t k = 0; k < count; ++k) from[k] += columns_w;
  }
  Wide add(Wide sum, int64_t block) const {
    const int64_t x = block * Wide::kLanes;
    if (phase.whole[block]) {
      for (int64_t k = 0; k < count; ++k) sum.value += Wide::load(from[k] + x).value;
    } else {
      const uint16_t* mask = phase.masks + block * phase.taps + first;
      for (int64_t k = 0; k < count; ++k) sum.value += Wide::load_some(from[k] + x, mask[k]).value;
    }
    return sum;
  }
};

// The runs of small planes are over before the processor foresees the next: it is told, line by
// line, of the channel after this one.
template <class T>
struct Foresight {
  const T* next;
  bool wanted;

  void lines(int64_t count) {
    if (!wanted) return;
    for (int64_t k = 0; k < count; ++k, next += Block<T>::kLanes) __builtin_prefetch(next);
  }
};

template <int64_t number>
using Number = std::integral_constant<int64_t, number>;

// One row of phases of a picture; for stride 2 the two phases of a row together, so that whole
// registers of neighbours are written.
template <class T>
struct PhaseRow {
  using Wide = Block<T>;
  using Taps = PhaseTaps<T>;
  static constexpr int64_t kLanes = Wide::kLanes, kSums = 16384 / static_cast<int64_t>(sizeof(T));
  static constexpr int64_t kAtOnce = 32;  // taps read side by side: the processor follows so many
  using Sums = T[2][kSums + kLanes];      // dense rows, where they can't be written as they come
  // `high` rows that the rows [i0, i1) of the kernel reach; their first pixel and column
  struct Band {
    int64_t high, i0, i1;
    T* to;
    const T* columns;
  };
  const ConvShape& s;
  const GatherAxis rows, cols[2];
  const int64_t together, to_stride, step;
  int64_t most, width, planned_x0 = -1, planned_tap = -1;
  bool flat, streams;
  Taps phases[2];

  PhaseRow(const ConvShape& shape, int64_t phase, const Planes<T>& planes, bool may_stream)
      : s(shape),
        rows(mirrored_rows(s, phase / s.stride_w)),
        cols{mirrored_cols(s, phase % s.stride_w), mirrored_cols(s, 1)},
        together(s.stride_w == 2 && planes.stride_w == 1 ? 2 : 1),
        to_stride(rows.dest_step * planes.stride_h),
        step(cols[0].dest_step * planes.stride_w),
        streams(may_stream) {
    const int64_t count = cols[0].count;
    most = together == 2 && taps(1) > taps(0) ? taps(1) : taps(0);
    flat = rows.count * count <= Taps::kFlatBlocks * kLanes && count == s.out_w &&
           most <= Taps::kMost && (together == 1 || cols[1].count == count);
    const int64_t held = most < 1 ? 1 : (most < Taps::kMost ? most : Taps::kMost);
    const int64_t room = Taps::kMasks / held * kLanes;
    width = room < kSums ? room : kSums;
    width = count < width ? count : width;
  }

  int64_t taps(int64_t k) const { return rows.taps * cols[k].taps; }

  void run(T* plane, const T* columns, Sums& sums, Foresight<T>& foresight) {
    const int64_t height = width > 0 ? kSums / width : 1;
    for (int64_t x0 = 0; x0 < cols[0].count; x0 += width) {
      for (int64_t y0 = 0; y0 < rows.count;) {
        Band band = alike(y0);
        for (const int64_t end = y0 + band.high; y0 < end; y0 += band.high) {
          band.high = y0 + height < end ? height : end - y0;
          band.to = plane + y0 * to_stride + x0 * step;
          band.columns = columns + y0 * s.out_w;
          add_up(band, x0, sums, foresight);
        }
      }
    }
  }

  // The rows from y0 on that the same rows of the kernel reach.
  Band alike(int64_t y0) const {
    if (flat) return {rows.count, 0, rows.taps, nullptr, nullptr};
    int64_t end = rows.count, i0 = 0, i1 = 0;
    for (int64_t i = 0; i < rows.taps; ++i) {
      const InsideRun ys = inside_run(rows.source(0, i), 1, s.out_h, rows.count);
      if (ys.begin > y0 && ys.begin < end) end = ys.begin;
      if (ys.end > y0 && ys.end < end) end = ys.end;
      if (y0 < ys.begin || y0 >= ys.end) continue;
      if (i1 == 0) i0 = i;
      i1 = i + 1;
    }
    return {end - y0, i0, i1, nullptr, nullptr};
  }

  void plan(int64_t x0, int64_t tap) {
    if (planned_x0 == x0 && planned_tap == tap) return;
    for (int64_t k = 0; k < together; ++k) {
      const int64_t x1 = x0 + width < cols[k].count ? x0 + width : cols[k].count;
      const int64_t end = tap + Taps::kMost < taps(k) ? tap + Taps::kMost : taps(k);
      phases[k].collect(tap < end ? tap : end, end, x0, x1, flat, rows, cols[k], s);
    }
    planned_x0 = x0;
    planned_tap = tap;
  }

  void add_up(const Band& band, int64_t x0, Sums& sums, Foresight<T>& foresight) {
    plan(x0, 0);
    const int64_t wide = phases[0].width, run = flat ? band.high * wide : wide;
    const bool full = run % kLanes == 0 && most <= Taps::kMost;
    if (full && together == 2 && most <= kAtOnce && phases[1].width == wide &&
        wide % (kLanes / 2) == 0) {
      return add_both(band, foresight);
    }
    if (full && together == 1 && step == 1 && (!flat || to_stride == wide)) {
      return add_taps(0, band, band.to, to_stride, false, foresight);
    }
    for (int64_t tap = 0; tap < most || tap == 0; tap += Taps::kMost) {
      plan(x0, tap);
      for (int64_t k = 0; k < together; ++k) {
        add_taps(k, band, sums[k], phases[k].width, tap > 0, foresight);
      }
    }
    if (together == 2) {
      return interleave_rows(band.to, to_stride, sums[0], sums[1], band.high, wide,
                             phases[1].width);
    }
    for (int64_t y = 0; y < band.high; ++y) {
      const T* from = sums[0] + y * wide;
      for (int64_t x = 0; x < wide; ++x) band.to[y * to_stride + x * step] = from[x];
    }
  }

  // Which of the planned taps reach the band.
  struct Range {
    int64_t begin, end;
  };
  Range reaching(int64_t k, const Band& band) const {
    const int64_t begin = band.i0 * cols[k].taps - planned_tap;
    const int64_t end = band.i1 * cols[k].taps - planned_tap, count = phases[k].taps;
    const Range range{begin > 0 ? begin : 0, end < count ? end : count};
    return range.begin < range.end ? range : Range{0, 0};
  }

  template <int64_t number>
  void add_one(TapWalk<T, number> taps, const Band& band, T* to, int64_t stride, bool more,
               Foresight<T>& foresight) const {
    const bool past = streams && to == band.to && taps.phase.taps <= kAtOnce;
    for (int64_t y = 0; y < (flat ? 1 : band.high); ++y, to += stride) {
      for (int64_t block = 0; block < taps.phase.blocks; ++block) {
        Wide sum{};
        if (more) sum = Wide::load(to + block * kLanes);
        foresight.lines(taps.count);
        put(taps.add(sum, block), to + block * kLanes, past);
      }
      taps.next_row(s.out_w);
    }
  }
  void add_taps(int64_t k, const Band& band, T* to, int64_t stride, bool more,
                Foresight<T>& foresight) const {
    Range range = reaching(k, band);
    for (; range.end - range.begin > kAtOnce; range.begin += kAtOnce, more = true) {
      const int64_t end = range.begin + kAtOnce;
      add_one<0>({phases[k], band.columns, range.begin, end}, band, to, stride, more, foresight);
    }
    const auto add = [&](auto number) {
      add_one<number()>({phases[k], band.columns, range.begin, range.end}, band, to, stride, more,
                        foresight);
    };
    switch (range.end - range.begin) {  // what kernels of 3 x 3 have
      case 1:
        return add(Number<1>());
      case 2:
        return add(Number<2>());
      case 4:
        return add(Number<4>());
      case 9:
        return add(Number<9>());
      default:
        return add(Number<0>());
    }
  }

  template <int64_t evens, int64_t odds>
  void add_two(TapWalk<T, evens> even, TapWalk<T, odds> odd, const Band& band,
               Foresight<T>& foresight) const {
    const int64_t dense = 2 * even.phase.width;
    T* to = band.to;
    int64_t x = 0;
    const auto place = [&] {
      T* here = to + x;
      x += kLanes;
      if (x == dense) {
        x = 0;
        to += to_stride;
      }
      return here;
    };
    for (int64_t y = 0; y < (flat ? 1 : band.high); ++y) {
      for (int64_t block = 0; block < even.phase.blocks; ++block) {
        foresight.lines(even.count + odd.count);
        const Wide left = even.add(Wide{}, block), right = odd.add(Wide{}, block);
        put(Wide::interleave_low(left, right), place(), streams);
        put(Wide::interleave_high(left, right), place(), streams);
      }
      even.next_row(s.out_w);
      odd.next_row(s.out_w);
    }
  }
  void add_both(const Band& band, Foresight<T>& foresight) const {
    const Range even = reaching(0, band), odd = reaching(1, band);
    const auto add = [&](auto evens, auto odds) {
      add_two<evens(), odds()>({phases[0], band.columns, even.begin, even.end},
                               {phases[1], band.columns, odd.begin, odd.end}, band, foresight);
    };
    const int64_t evens = even.end - even.begin, odds = odd.end - odd.begin;
    if (evens == 1 && odds == 2) return add(Number<1>(), Number<2>());
    if (evens == 2 && odds == 4) return add(Number<2>(), Number<4>());
    add(Number<0>(), Number<0>());
  }

  static void put(Wide sum, T* to, bool past) { past ? sum.stream(to) : sum.store(to); }
};

// Two rows of phases at a time, all that strides up to 2 have: a picture is written in one go.
template <class T>
void col2im_channels(T* plane, int64_t stride_c, int64_t stride_h, int64_t stride_w,
                     const T* columns, int64_t channels, const ConvShape& s, bool streams) {
  using Row = PhaseRow<T>;
  const Planes<T> planes{plane, stride_c, stride_h, stride_w};
  const int64_t channel = s.taps() * s.out_pixels();
  const int64_t step = s.stride_w == 2 && stride_w == 1 ? 2 : 1, end = s.stride_h * s.stride_w;
  const auto aligned = [](int64_t bytes) { return bytes % kVectorBytes == 0; };
  const int64_t size = sizeof(T);
  streams = streams && stride_w == 1 && aligned(stride_c * size) && aligned(stride_h * size) &&
            aligned(reinterpret_cast<intptr_t>(plane));
  constexpr int64_t kForeseen = 192 << 10;
  typename Row::Sums sums;
  for (int64_t phase = 0; phase < end; phase += 2 * step) {
    Row row(s, phase, planes, streams), next(s, phase + step, planes, streams);
    for (int64_t c = 0; c < channels; ++c) {
      const T* from = columns + c * channel;
      Foresight<T> foresight{from + channel, channel * size <= kForeseen};
      const auto run = [&](Row& phases) {
        phases.run(plane + c * stride_c + phases.rows.dest_first * stride_h +
                       phases.cols[0].dest_first * stride_w,
                   from, sums, foresight);
      };
      run(row);
      if (phase + step < end) run(next);
    }
  }
  if (streams) stream_fence();
}
