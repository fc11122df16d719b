// The bodies of the micro-kernels (ukernel.h), included inside the target region of an instruction
// set. Vec gives the vector type and its operations; MR rows by NV vectors of accumulators stay in
// registers for the whole loop, which takes every inner loop unrolled.

template <class V, int kRows, int kCols>
inline void clear(V (&sums)[kRows][kCols]) {
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) sums[i][j] = V{};
  }
}

template <class Vec, int kRows, int kCols>
inline void add(typename Vec::V (&to)[kRows][kCols], const typename Vec::V (&sums)[kRows][kCols]) {
#pragma GCC unroll 32
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kCols; ++j) to[i][j] = Vec::add(to[i][j], sums[i][j]);
  }
}

template <class Vec, int MR, int NV>
void outer_kernel(typename Vec::T* c, const typename Vec::T* a, const typename Vec::T* b,
                  const OuterWalk& walk, bool accumulate) {
  using T = typename Vec::T;
  constexpr int kLanes = Vec::kLanes;
  typename Vec::V sum[MR][NV];
  clear(sum);
  for (int64_t x = 0; x < walk.count[0]; ++x) {
    for (int64_t y = 0; y < walk.count[1]; ++y) {
      const T* left = a + x * walk.a_step[0] + y * walk.a_step[1];
      const T* right = b + x * walk.b_step[0] + y * walk.b_step[1];
      for (int64_t z = walk.count[2]; z > 0; --z, left += walk.a_step[2], right += walk.b_step[2]) {
        typename Vec::V row[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) row[v] = Vec::load(right + v * kLanes);
#pragma GCC unroll 32
        for (int i = 0; i < MR; ++i) {
          const typename Vec::V factor = Vec::broadcast(left + i);
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) sum[i][v] = Vec::multiply_add(factor, row[v], sum[i][v]);
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      T* to = c + (i * NV + v) * kLanes;
      Vec::store(to, accumulate ? Vec::add(Vec::load(to), sum[i][v]) : sum[i][v]);
    }
  }
}

template <class Vec>
typename Vec::V finished(typename Vec::V sum, const typename Vec::T* output, int lanes,
                         const Finish<typename Vec::T>& finish) {
  if (finish.activation == Activation::kNone) return sum;
  const bool is_relu = finish.activation == Activation::kRelu;
  if (finish.output.data == nullptr) {
    return is_relu ? Vec::relu(sum) : Vec::leaky_relu(sum, sum, finish.slope);
  }
  const typename Vec::V z = Vec::load_some(output, lanes);
  return is_relu ? Vec::relu_backward(sum, z) : Vec::leaky_relu(sum, z, finish.slope);
}

// Bias, activation and store of one finished tile.
template <class Vec, int MR, int NV>
void finish_tile(const typename Vec::V (&sum)[MR][NV], const GatherTile<typename Vec::T>& tile,
                 const typename Vec::T* bias, const Finish<typename Vec::T>& finish) {
  constexpr int kLanes = Vec::kLanes;
#pragma GCC unroll 4
  for (int v = 0; v < NV; ++v) {
    const int64_t left = tile.channels - v * kLanes;
    const int lanes = static_cast<int>(left < kLanes ? left : kLanes);
    if (lanes <= 0) break;
    const typename Vec::V add =
        bias == nullptr ? Vec::zero() : Vec::load_some(bias + v * kLanes, lanes);
#pragma GCC unroll 32
    for (int i = 0; i < MR; ++i) {
      const typename Vec::V with_bias = bias == nullptr ? sum[i][v] : Vec::add(sum[i][v], add);
      const auto* output = finish.output.data == nullptr ? nullptr : tile.output[i] + v * kLanes;
      Vec::store_some(tile.dest[i] + v * kLanes, finished<Vec>(with_bias, output, lanes, finish),
                      lanes);
    }
  }
}

template <class Vec, int MR, int NV>
void gather_kernel(const GatherTile<typename Vec::T>& tile, const typename Vec::T* bias,
                   const Finish<typename Vec::T>& finish) {
  using T = typename Vec::T;
  constexpr int kLanes = Vec::kLanes;
  typename Vec::V sum[MR][NV], total[MR][NV];
  clear(sum);
  const T* weights = tile.weights;
  int64_t room = kTermBlock;  // terms left in this block
  bool has_total = false;
  for (int64_t tap_row = 0; tap_row < tile.tap_rows; ++tap_row) {
    for (int64_t tap_col = 0; tap_col < tile.tap_cols; ++tap_col) {
      int64_t first = tap_row * tile.tap_row_step + tap_col * tile.tap_col_step;
      const int64_t end = first + tile.run;
      while (first < end) {
        const T* source[MR];
#pragma GCC unroll 32
        for (int i = 0; i < MR; ++i) source[i] = tile.source[i] + first;
        const int64_t count = end - first < room ? end - first : room;
        for (int64_t k = 0; k < count; ++k, weights += NV * kLanes) {
          typename Vec::V row[NV];
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) row[v] = Vec::load(weights + v * kLanes);
#pragma GCC unroll 32
          for (int i = 0; i < MR; ++i) {
            const typename Vec::V factor = Vec::broadcast(source[i] + k);
#pragma GCC unroll 4
            for (int v = 0; v < NV; ++v) sum[i][v] = Vec::multiply_add(factor, row[v], sum[i][v]);
          }
        }
        first += count;
        room -= count;
        if (room == 0) {
          if (!has_total) clear(total);
          add<Vec>(total, sum);
          clear(sum);
          has_total = true;
          room = kTermBlock;
        }
      }
    }
  }
  if (has_total) add<Vec>(sum, total);
  finish_tile<Vec, MR, NV>(sum, tile, bias, finish);
}

template <class Vec, int kChannels, int kVectors>
void plane_kernel(const PlaneTile<typename Vec::T>& tile, const typename Vec::T* bias,
                  const Finish<typename Vec::T>& finish) {
  using T = typename Vec::T;
  using V = typename Vec::V;
  V sum[kChannels][kVectors], total[kChannels][kVectors];
  clear(sum);
  const T* weights = tile.weights;
  int64_t room = kTermBlock;
  bool has_total = false;
  for (int64_t tap_row = 0; tap_row < tile.tap_rows; ++tap_row) {
    for (int64_t tap_col = 0; tap_col < tile.tap_cols; ++tap_col) {
      int64_t offset = tap_row * tile.tap_row_step + tap_col * tile.tap_col_step;
      for (int64_t c = 0; c < tile.channels; ++c, offset += tile.plane, weights += kChannels) {
        V factor[kChannels];
#pragma GCC unroll 4
        for (int i = 0; i < kChannels; ++i) factor[i] = Vec::broadcast(weights + i);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          const V pixels = Vec::load_once(tile.source[v] + offset);
#pragma GCC unroll 4
          for (int i = 0; i < kChannels; ++i) {
            sum[i][v] = Vec::multiply_add(pixels, factor[i], sum[i][v]);
          }
        }
        if (--room == 0) {
          if (!has_total) clear(total);
          add<Vec>(total, sum);
          clear(sum);
          has_total = true;
          room = kTermBlock;
        }
      }
    }
  }
  if (has_total) add<Vec>(sum, total);
#pragma GCC unroll 4
  for (int i = 0; i < kChannels; ++i) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const V with_bias =
          bias == nullptr ? sum[i][v] : Vec::add(sum[i][v], Vec::broadcast(bias + i));
      Vec::store(tile.dest[v] + i * tile.dest_plane,
                 finished<Vec>(with_bias, nullptr, Vec::kLanes, finish));
    }
  }
}

// Sum of 2^level neighbouring pixels, pair by pair.
template <class Vec, int level>
typename Vec::V pixel_sum(const typename Vec::T* pixel, int64_t step, int lanes) {
  if constexpr (level == 0) {
    return Vec::load_some(pixel, lanes);
  } else {
    return Vec::add(pixel_sum<Vec, level - 1>(pixel, step, lanes),
                    pixel_sum<Vec, level - 1>(pixel + (step << (level - 1)), step, lanes));
  }
}

template <class Vec>
void add_wide_pixels(double* sums, const typename Vec::T* pixels, int64_t step, int64_t count,
                     int64_t channels) {
  constexpr int kLevel = 5;  // pairs of pairs: 32 pixels lose no more than 5 roundings
  constexpr int64_t kBlock = int64_t{1} << kLevel;
  for (int64_t c = 0; c < channels; c += Vec::kLanes) {
    const int lanes = static_cast<int>(smaller(Vec::kLanes, channels - c));
    double lane_sums[Vec::kLanes] = {};
    for (int lane = 0; lane < lanes; ++lane) lane_sums[lane] = sums[c + lane];
    typename Vec::T block[Vec::kLanes];
    const auto add_block = [&](typename Vec::V sum) {
      Vec::store(block, sum);
      for (int lane = 0; lane < Vec::kLanes; ++lane) lane_sums[lane] += block[lane];
    };
    const typename Vec::T* pixel = pixels + c;
    int64_t left = count;
    for (; left >= kBlock; left -= kBlock, pixel += kBlock * step) {
      add_block(pixel_sum<Vec, kLevel>(pixel, step, lanes));
    }
    for (; left > 0; --left, pixel += step) add_block(Vec::load_some(pixel, lanes));
    for (int lane = 0; lane < lanes; ++lane) sums[c + lane] = lane_sums[lane];
  }
}

// Dense pixels of few channels are taken several at a time, as many as fill whole vectors: lane l
// of such a group belongs to channel l mod channels.
template <class Vec>
void add_pixels(double* sums, const typename Vec::T* pixels, int64_t step, int64_t count,
                int64_t channels) {
  if (channels >= Vec::kLanes || step != channels) {
    add_wide_pixels<Vec>(sums, pixels, step, count, channels);
    return;
  }
  const int64_t group = Vec::kLanes / greatest_common_divisor(channels, Vec::kLanes);
  const int64_t width = group * channels, groups = count / group;
  double lanes[Vec::kLanes * Vec::kLanes] = {};
  add_wide_pixels<Vec>(lanes, pixels, width, groups, width);
  for (int64_t lane = 0; lane < width; ++lane) sums[lane % channels] += lanes[lane];
  add_wide_pixels<Vec>(sums, pixels + groups * width, step, count - groups * group, channels);
}
