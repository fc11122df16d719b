// Winograd's transforms for kernels of 3 x 3, one vector of channels at a time; included inside the
// target region of an instruction set. A. Lavin, S. Gray, "Fast algorithms for convolutional neural
// networks", CVPR 2016: y = A^T [(G g G^T) * (B^T d B)] A.

// The one-dimensional transforms of F(kOut, 3), between arrays whose elements are vectors.
template <int kOut>
struct WinogradMatrices;

template <>
struct WinogradMatrices<2> {
  template <class V, class T>
  static void input(V (&d)[4], T) {
    const V b1 = d[1] + d[2], b2 = d[2] - d[1];
    d[0] = d[0] - d[2];
    d[3] = d[1] - d[3];
    d[1] = b1;
    d[2] = b2;
  }
  template <class V, class T>
  static void weights(V (&to)[4], const V (&g)[3], T) {
    const V outer = g[0] + g[2];
    to[0] = g[0];
    to[1] = (outer + g[1]) * T(0.5);
    to[2] = (outer - g[1]) * T(0.5);
    to[3] = g[2];
  }
  template <class V, class T>
  static void output(V (&to)[2], const V (&m)[4], T) {
    to[0] = (m[0] + m[1]) + m[2];
    to[1] = (m[1] - m[2]) - m[3];
  }
};

template <>
struct WinogradMatrices<4> {
  template <class V, class T>
  static void input(V (&d)[6], T) {
    const V even = d[4] - d[2] * T(4), odd = d[3] - d[1] * T(4);
    const V far = d[4] - d[2], near = (d[3] - d[1]) * T(2);
    const V b0 = d[0] * T(4) - d[2] * T(5) + d[4], b5 = d[1] * T(4) - d[3] * T(5) + d[5];
    d[0] = b0;
    d[1] = even + odd;
    d[2] = even - odd;
    d[3] = far + near;
    d[4] = far - near;
    d[5] = b5;
  }
  template <class V, class T>
  static void weights(V (&to)[6], const V (&g)[3], T) {
    const V outer = g[0] + g[2], wide = g[0] * T(1.0 / 24) + g[2] * T(1.0 / 6);
    to[0] = g[0] * T(0.25);
    to[1] = (outer + g[1]) * T(-1.0 / 6);
    to[2] = (outer - g[1]) * T(-1.0 / 6);
    to[3] = wide + g[1] * T(1.0 / 12);
    to[4] = wide - g[1] * T(1.0 / 12);
    to[5] = g[2];
  }
  template <class V, class T>
  static void output(V (&to)[4], const V (&m)[6], T) {
    const V sum1 = m[1] + m[2], difference1 = m[1] - m[2];
    const V sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    to[0] = m[0] + sum1 + sum2;
    to[1] = difference1 + difference2 * T(2);
    to[2] = sum1 + sum2 * T(4);
    to[3] = difference1 + difference2 * T(8) + m[5];
  }
};

// B^T d B of one tile: to[(i, j) * to_step + c].
template <class Vec, int kOut>
void winograd_input(typename Vec::T* to, int64_t to_step, const typename Vec::T* from,
                    int64_t row_pitch, int64_t pixel_pitch, int64_t channels) {
  constexpr int kSide = kOut + 2;
  using T = typename Vec::T;
  using V = typename Vec::V;
  for (int64_t c = 0; c < channels; c += Vec::kLanes) {
    const int lanes = static_cast<int>(smaller(Vec::kLanes, channels - c));
    V rows[kSide][kSide];
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) {
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j) {
        rows[i][j] = Vec::load_some(from + i * row_pitch + j * pixel_pitch + c, lanes);
      }
      WinogradMatrices<kOut>::input(rows[i], T());
    }
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      V column[kSide];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) column[i] = rows[i][j];
      WinogradMatrices<kOut>::input(column, T());
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) {
        Vec::store_some(to + (i * kSide + j) * to_step + c, column[i], lanes);
      }
    }
  }
}

// G g G^T for `width` kernels side by side, taps[tap][width], a whole number of vectors.
template <class Vec, int kOut>
void winograd_weights(typename Vec::T* to, int64_t to_step, const typename Vec::T* taps,
                      int64_t width) {
  constexpr int kSide = kOut + 2;
  using T = typename Vec::T;
  using V = typename Vec::V;
  for (int64_t c = 0; c < width; c += Vec::kLanes) {
    V rows[3][kSide];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      V g[3];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) g[j] = Vec::load(taps + (i * 3 + j) * width + c);
      WinogradMatrices<kOut>::weights(rows[i], g, T());
    }
#pragma GCC unroll 6
    for (int j = 0; j < kSide; ++j) {
      const V g[3] = {rows[0][j], rows[1][j], rows[2][j]};
      V column[kSide];
      WinogradMatrices<kOut>::weights(column, g, T());
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) {
        Vec::store(to + (i * kSide + j) * to_step + c, column[i]);
      }
    }
  }
}

// A^T m A of one tile, finished: the pixels of `tile` that exist are written.
template <class Vec, int kOut>
void winograd_output(const WinogradTile<typename Vec::T>& tile, const typename Vec::T* bias,
                     const Finish<typename Vec::T>& finish) {
  constexpr int kSide = kOut + 2;
  using T = typename Vec::T;
  using V = typename Vec::V;
  for (int64_t c = 0; c < tile.channels; c += Vec::kLanes) {
    const int lanes = static_cast<int>(smaller(Vec::kLanes, tile.channels - c));
    const V add = bias == nullptr ? Vec::zero() : Vec::load_some(bias + c, lanes);
    V rows[kSide][kOut];
#pragma GCC unroll 6
    for (int i = 0; i < kSide; ++i) {
      V m[kSide];
#pragma GCC unroll 6
      for (int j = 0; j < kSide; ++j) m[j] = Vec::load(tile.from + (i * kSide + j) * tile.step + c);
      WinogradMatrices<kOut>::output(rows[i], m, T());
    }
#pragma GCC unroll 4
    for (int j = 0; j < kOut; ++j) {
      V m[kSide], y[kOut];
#pragma GCC unroll 6
      for (int i = 0; i < kSide; ++i) m[i] = rows[i][j];
      WinogradMatrices<kOut>::output(y, m, T());
#pragma GCC unroll 4
      for (int i = 0; i < kOut; ++i) {
        if (i >= tile.rows || j >= tile.cols) continue;
        const int64_t offset = i * tile.row_pitch + j * tile.pixel_pitch + c;
        const T* output = tile.output == nullptr ? nullptr : tile.output + offset;
        const V sum = bias == nullptr ? y[i] : Vec::add(y[i], add);
        Vec::store_some(tile.dest + offset, finished<Vec>(sum, output, lanes, finish), lanes);
      }
    }
  }
}

template <class Vec>
constexpr WinogradKernel<typename Vec::T> kWinograd[] = {
    {2, winograd_input<Vec, 2>, winograd_weights<Vec, 2>, winograd_output<Vec, 2>},
    {4, winograd_input<Vec, 4>, winograd_weights<Vec, 4>, winograd_output<Vec, 4>}};
