#define PREF(p) __builtin_prefetch(p, 0, PFH)
// im2col and col2im of channels, included inside the target region of each instruction set,
// which defines kVectorBytes before. Copies and sums in one fixed order: the same bits everywhere.

#if defined(__has_builtin)
#define PYDENOISE_HAS_SHUFFLEVECTOR __has_builtin(__builtin_shufflevector)
#else
#define PYDENOISE_HAS_SHUFFLEVECTOR 0
#endif

template <class T, int bytes = kVectorBytes>
struct Block {  // kLanes neighbouring elements in one register
  static constexpr int64_t kLanes = bytes / static_cast<int>(sizeof(T));
  static constexpr uint32_t kAll = (1U << kLanes) - 1;
  typedef T Value __attribute__((vector_size(bytes)));
  Value value;

  // Lanes [begin, end), as far as there are such: lane l is bit l.
  static uint32_t lanes(int64_t begin, int64_t end) {
    const auto below = [](int64_t n) { return n <= 0 ? 0 : n < kLanes ? (1U << n) - 1 : kAll; };
    return below(end) & ~below(begin);
  }

  static Block load(const T* from) {
    Block block;
    __builtin_memcpy(&block.value, from, sizeof block.value);
    return block;
  }
  // These lanes of from[], zero in the others; other elements are not touched.
  static Block load_some(const T* from, uint32_t some) {
    if constexpr (bytes == 64 && sizeof(T) == 4) {
      return {_mm512_maskz_loadu_ps(static_cast<uint16_t>(some), from)};
    } else if constexpr (bytes == 64) {
      return {_mm512_maskz_loadu_pd(static_cast<uint8_t>(some), from)};
    } else {
      if (some == kAll) return load(from);
      if constexpr (bytes == 32) {
        const Value wanted = ones_in(some, Lanes());
        if constexpr (sizeof(T) == 4) {
          return {_mm256_maskload_ps(from, _mm256_castps_si256(wanted))};
        } else {
          return {_mm256_maskload_pd(from, _mm256_castpd_si256(wanted))};
        }
      }
      Block block{};
      for (int64_t i = 0; i < kLanes; ++i) {
        if ((some >> i & 1) != 0) block.value[i] = from[i];
      }
      return block;
    }
  }
  void store(T* to) const { __builtin_memcpy(to, &value, sizeof value); }
  // To memory past the caches, which needs no line of it before; `to` is aligned to the register.
  void stream(T* to) const {
#if defined(__clang__)
    __builtin_nontemporal_store(value, reinterpret_cast<Value*>(to));
#else
    if constexpr (bytes == 64 && sizeof(T) == 4) {
      _mm512_stream_ps(to, value);
    } else if constexpr (bytes == 64) {
      _mm512_stream_pd(to, value);
    } else if constexpr (bytes == 32 && sizeof(T) == 4) {
      _mm256_stream_ps(to, value);
    } else if constexpr (bytes == 32) {
      _mm256_stream_pd(to, value);
    } else {
      store(to);
    }
#endif
  }

  // from[0], from[2], ... in these lanes, zero in the others
  static Block load_every_second(const T* from, uint32_t low, uint32_t high) {
    return every_second(load_some(from, low), load_some(from + kLanes, high), Lanes());
  }
  // to[0] = even[0], to[1] = odd[0], to[2] = even[1], ...
  static Block interleave_low(Block even, Block odd) {
    return interleaved(even, odd, Int<0>(), Lanes());
  }
  static Block interleave_high(Block even, Block odd) {
    return interleaved(even, odd, Int<kLanes / 2>(), Lanes());
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
  // all bits in these lanes
  template <int... lane>
  static Value ones_in(uint32_t some, std::integer_sequence<int, lane...>) {
    using Mask = decltype(Value{} == Value{});
    const Mask bits{(1 << lane)...};
    return reinterpret_cast<Value>(((Mask{} + static_cast<int>(some)) & bits) == bits);
  }
  template <int... lane>
  static Block every_second(Block low, Block high, std::integer_sequence<int, lane...>) {
    return shuffle<(2 * lane)...>(low, high);
  }
  template <int first, int... lane>
  static Block interleaved(Block even, Block odd, Int<first>, std::integer_sequence<int, lane...>) {
    constexpr int n = kLanes;
    return shuffle<(first + lane / 2 + (lane % 2 == 0 ? 0 : n))...>(even, odd);
  }
};

// After it every thread sees what was streamed before.
inline void stream_fence() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

template <class T>
void fill_zero(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = T(0);
}

// Rows [y0, y1) and positions [x0, x1) of the output, or of one phase of a picture.
struct Tile {
  int64_t y0, y1, x0, x1;
};

// A picture's channels: element (c, y, x) at c * stride_c + y * stride_h + x * stride_w.
template <class T>
struct Planes {
  T* data;
  int64_t stride_c, stride_h, stride_w;
};

// Copies of a tile's taps, worked out once for all channels: a row is `parts` registers, of which
// the last two may overlap; what lies outside the picture is masked off.
template <class T, int bytes>
struct TapCopies {
  using Wide = Block<T, bytes>;
  static constexpr int64_t kLanes = Wide::kLanes, kMostTaps = 64, kMostParts = 256;
  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T)), kForeseen = 128 * kLine;
  struct Part {
    int32_t to, from;
    uint32_t low, high;
  };
  struct Tap {
    int64_t to, from;
    InsideRun ys;
    const Part* parts;
  };
  Tap taps[kMostTaps];
  Part parts[kMostParts];
  int64_t count, parts_each, high, width, to_stride, from_stride, next_each;

  // Taps from `first` on, as many as there is room for; returns the next one.
  int64_t collect(int64_t first, const Tile& tile, const GatherAxis& rows, const GatherAxis& cols,
                  const Planes<const T>& planes, const ConvShape& s) {
    high = tile.y1 - tile.y0;
    width = tile.x1 - tile.x0;
    to_stride = s.out_w;
    from_stride = rows.step * planes.stride_h;
    parts_each = (width + kLanes - 1) / kLanes;
    Part* part = parts;
    int64_t tap = first;
    for (count = 0; tap < s.taps() && count < kMostTaps; ++tap, ++count) {
      if (part + parts_each > parts + kMostParts) break;
      const int64_t i = tap / s.kernel_w, j = tap % s.kernel_w, left = cols.source(tile.x0, j);
      const InsideRun ys = inside_run(rows.source(tile.y0, i), rows.step, rows.source_size, high);
      const InsideRun xs =  // of the row: the last register may begin before the tile
          inside_run(cols.source(0, j), cols.step, cols.source_size, cols.count);
      taps[count] = {tap * s.out_pixels() + tile.y0 * s.out_w + tile.x0,
                     rows.source(tile.y0 + ys.begin, i) * planes.stride_h + left, ys, part};
      for (int64_t k = 0; k < parts_each; ++k) {
        const int64_t x = (k + 1) * kLanes <= width ? k * kLanes : width - kLanes;
        const int64_t before = tile.x0 + x;
        const int64_t begin = cols.step * (xs.begin - before);
        const int64_t end = cols.step * (xs.end - before - 1) + 1;
        *part++ = {static_cast<int32_t>(x), static_cast<int32_t>(x * cols.step),
                   Wide::lanes(begin, end), Wide::lanes(begin - kLanes, end - kLanes)};
      }
    }
    next_each = (high * from_stride + count - 1) / count;
    if (next_each > 128 * kLine) next_each = 0;
    return tap;
  }

  template <bool every_second, bool streams>
  static void copy(T* to, const T* from, const Part& part) {
    const Wide block = every_second ? Wide::load_every_second(from + part.from, part.low, part.high)
                                    : Wide::load_some(from + part.from, part.low);
    streams ? block.stream(to + part.to) : block.store(to + part.to);
  }

  // `next` is what the channel after this one will read, asked for tap by tap in passing.
  void run_all(T* columns, const T* plane, const T* next, bool every_second, bool streams) const {
    if (every_second) {
      streams ? run<true, true>(columns, plane, next) : run<true, false>(columns, plane, next);
    } else {
      streams ? run<false, true>(columns, plane, next) : run<false, false>(columns, plane, next);
    }
  }
  template <bool every_second, bool streams>
  void run(T* columns, const T* plane, const T* next) const {
    for (const Tap* tap = taps; tap < taps + count; ++tap) {
      T* to = columns + tap->to;
      const T* from = plane + tap->from;
      const auto each_row = [&](const auto& body) {
        for (int64_t y = tap->ys.begin; y < tap->ys.end; ++y) {
          body();
          to += to_stride;
          from += from_stride;
        }
      };
      for (int64_t x = 0; x < next_each; x += kLine) __builtin_prefetch(next + x);
      next += next_each;
      for (int64_t y = 0; y < tap->ys.begin; ++y, to += to_stride) fill_zero(to, width);
      if (parts_each == 1) {
        const Part part = *tap->parts;
        each_row([&] { copy<every_second, streams>(to, from, part); });
      } else {
        each_row([&] {
          const Part* end = tap->parts + parts_each;
          for (const Part* part = tap->parts; part < end; ++part) {
            copy<every_second, streams>(to, from, *part);
          }
        });
      }
      for (int64_t y = tap->ys.end; y < high; ++y, to += to_stride) fill_zero(to, width);
    }
  }
};

template <class T>
void im2col_by_element(T* columns, const Planes<const T>& planes, int64_t channels,
                       const ConvShape& s) {
  const GatherAxis rows = forward_rows(s), cols = forward_cols(s);
  const int64_t step = cols.step * planes.stride_w, row_step = rows.step * planes.stride_h;
  for (int64_t k = 0; k < channels * s.taps(); ++k, columns += s.out_pixels()) {
    const int64_t i = k % s.taps() / s.kernel_w, j = k % s.kernel_w;
    const int64_t top = rows.source(0, i), left = cols.source(0, j);
    const InsideRun ys = inside_run(top, rows.step, rows.source_size, rows.count);
    const InsideRun xs = inside_run(left, cols.step, cols.source_size, cols.count);
    const T* from = planes.data + k / s.taps() * planes.stride_c +
                    (top + ys.begin * rows.step) * planes.stride_h + left * planes.stride_w;
    T* row = columns + ys.begin * s.out_w;
    fill_zero(columns, ys.begin * s.out_w);
    for (int64_t y = ys.begin; y < ys.end; ++y, row += s.out_w, from += row_step) {
      fill_zero(row, xs.begin);
      for (int64_t x = xs.begin; x < xs.end; ++x) row[x] = from[x * step];
      fill_zero(row + xs.end, s.out_w - xs.end);
    }
    fill_zero(row, (s.out_h - ys.end) * s.out_w);
  }
}

template <class T, int bytes = kVectorBytes>
void im2col_channels(T* columns, const T* plane, int64_t stride_c, int64_t stride_h,
                     int64_t stride_w, int64_t channels, const ConvShape& s, bool streams) {
  using Copies = TapCopies<T, bytes>;
  constexpr int64_t kLanes = Copies::kLanes, kWidth = 64 * kLanes, kBand = 65536;
  const Planes<const T> planes{plane, stride_c, stride_h, stride_w};
  if (s.stride_w > 2 || stride_w != 1 || (bytes == 16 && s.out_w < kLanes)) {
    return im2col_by_element(columns, planes, channels, s);
  }
  if constexpr (bytes > 16) {
    if (s.out_w < kLanes) {
      return im2col_channels<T, bytes / 2>(columns, plane, stride_c, stride_h, stride_w, channels,
                                           s, false);
    }
  }
  streams = streams && s.out_w % kLanes == 0 && reinterpret_cast<intptr_t>(columns) % bytes == 0;
  const GatherAxis rows = forward_rows(s), cols = forward_cols(s);
  const int64_t width = s.out_w < kWidth ? s.out_w : kWidth;
  const int64_t rows_held = kBand / (width * s.stride_h * s.stride_w);
  const int64_t height = rows_held > 0 ? rows_held : 1;
  const int64_t channel = s.taps() * s.out_pixels();
  Copies copies;
  for (int64_t y0 = 0; y0 < s.out_h; y0 += height) {
    const int64_t y1 = y0 + height < s.out_h ? y0 + height : s.out_h;
    for (int64_t x0 = 0; x0 < s.out_w; x0 += width) {
      const int64_t x1 = x0 + width < s.out_w ? x0 + width : s.out_w;
      for (int64_t tap = 0; tap < s.taps();) {
        tap = copies.collect(tap, {y0, y1, x0, x1}, rows, cols, planes, s);
        for (int64_t c = 0; c < channels; ++c) {
          const T* from = plane + c * stride_c;
          copies.run_all(columns + c * channel, from, from + stride_c + y0 * s.stride_h * stride_h,
                         s.stride_w == 2, streams);
        }
      }
    }
  }
  if (streams) stream_fence();
}

#include "cpu/col2im.inl"
