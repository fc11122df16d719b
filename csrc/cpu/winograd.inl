// Winograd's transforms for kernels of 3 x 3, one vector of channels at a time; included inside the
// target region of an instruction set. A. Lavin, S. Gray, "Fast algorithms for convolutional neural
// networks", CVPR 2016: y = A^T [(G g G^T) * (B^T d B)] A.

// The transforms of one side of a tile, between arrays whose elements are vectors. kIn source
// pixels become kPlanes planes (B^T d), the taps kTerms terms (G g). Result i sums the products of
// count(i) planes, from first(i) on, with the next count(i) terms; of the results come kOut
// destination pixels (A^T m). Backwards, gradients of these become kResults (A y), sum i adds up
// products(i) of them with planes, both two apart, and of the sums come gradients of taps (G^T s).

// F(2, 3).
struct Winograd2 {
  static constexpr int kIn = 4, kPlanes = 4, kTerms = 4, kResults = 4, kOut = 2;
  static constexpr int first(int result) { return result; }
  static constexpr int count(int) { return 1; }
  template <class V, class T>
  static void input(V (&to)[4], const V (&d)[4], T) {
    to[0] = d[0] - d[2];
    to[1] = d[1] + d[2];
    to[2] = d[2] - d[1];
    to[3] = d[1] - d[3];
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

  static constexpr int kSums = 4;
  static constexpr int plane(int sum) { return sum; }
  static constexpr int result(int sum) { return sum; }
  static constexpr int products(int) { return 1; }
  template <class V>
  static void gradient(V (&to)[4], const V (&y)[2]) {
    to[0] = y[0];
    to[1] = y[0] + y[1];
    to[2] = y[0] - y[1];
    to[3] = -y[1];
  }
  template <class V, class T>
  static void taps(V (&to)[3], const V (&s)[4], T) {
    const V outer = (s[1] + s[2]) * T(0.5);
    to[0] = s[0] + outer;
    to[1] = (s[1] - s[2]) * T(0.5);
    to[2] = outer + s[3];
  }
};

// F(4, 3).
struct Winograd4 {
  static constexpr int kIn = 6, kPlanes = 6, kTerms = 6, kResults = 6, kOut = 4;
  static constexpr int first(int result) { return result; }
  static constexpr int count(int) { return 1; }
  template <class V, class T>
  static void input(V (&to)[6], const V (&d)[6], T) {
    const V even = d[4] - d[2] * T(4), odd = d[3] - d[1] * T(4);
    const V far = d[4] - d[2], near = (d[3] - d[1]) * T(2);
    to[0] = d[0] * T(4) - d[2] * T(5) + d[4];
    to[1] = even + odd;
    to[2] = even - odd;
    to[3] = far + near;
    to[4] = far - near;
    to[5] = d[1] * T(4) - d[3] * T(5) + d[5];
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

// Stride 2 is the outer taps on every other pixel, which are F(2, 2), and the middle one on those
// between: 5 products for 2 pixels where there were 6. What goes into one pixel alone is added up
// before it is a result.
struct WinogradStrided {
  static constexpr int kIn = 5, kPlanes = 5, kTerms = 5, kResults = 3, kOut = 2;
  static constexpr int first(int result) { return result == 0 ? 0 : result + 1; }
  static constexpr int count(int result) { return result == 1 ? 1 : 2; }
  template <class V, class T>
  static void input(V (&to)[5], const V (&d)[5], T) {
    to[0] = d[0] - d[2];
    to[1] = d[1];
    to[2] = d[2];
    to[3] = d[3];
    to[4] = d[4] - d[2];
  }
  template <class V, class T>
  static void weights(V (&to)[5], const V (&g)[3], T) {
    to[0] = g[0];
    to[1] = g[1];
    to[2] = g[0] + g[2];
    to[3] = g[1];
    to[4] = g[2];
  }
  template <class V, class T>
  static void output(V (&to)[2], const V (&m)[3], T) {
    to[0] = m[0] + m[1];
    to[1] = m[1] + m[2];
  }

  static constexpr int kSums = 4;
  static constexpr int plane(int sum) { return sum < 3 ? sum : 4; }
  static constexpr int result(int sum) { return sum < 2 ? 0 : sum - 1; }
  static constexpr int products(int sum) { return sum == 1 ? 2 : 1; }
  template <class V>
  static void gradient(V (&to)[3], const V (&y)[2]) {
    to[0] = y[0];
    to[1] = y[0] + y[1];
    to[2] = y[1];
  }
  template <class V, class T>
  static void taps(V (&to)[3], const V (&s)[4], T) {
    to[0] = s[0] + s[2];
    to[1] = s[1];
    to[2] = s[2] + s[3];
  }
};

// Its mirror: 5 products for 4 pixels, of which the first and third have the middle tap alone, and
// the others F(2, 2) of the outer ones.
struct WinogradMirrored {
  static constexpr int kIn = 3, kPlanes = 4, kTerms = 5, kResults = 5, kOut = 4;
  static constexpr int first(int result) { return result == 4 ? 1 : result; }
  static constexpr int count(int) { return 1; }
  template <class V, class T>
  static void input(V (&to)[4], const V (&d)[3], T) {
    to[0] = d[0] - d[1];
    to[1] = d[1];
    to[2] = d[2] - d[1];
    to[3] = d[0];
  }
  template <class V, class T>
  static void weights(V (&to)[5], const V (&g)[3], T) {
    to[0] = g[0];
    to[1] = g[0] + g[2];
    to[2] = g[2];
    to[3] = g[1];
    to[4] = g[1];
  }
  template <class V, class T>
  static void output(V (&to)[4], const V (&m)[5], T) {
    to[0] = m[3];
    to[1] = m[0] + m[1];
    to[2] = m[4];
    to[3] = m[1] + m[2];
  }
};

// B^T d B of one tile: to[(i, j) * to_step + c].
template <class Vec, class Form>
void winograd_input(typename Vec::T* to, int64_t to_step, const typename Vec::T* from,
                    int64_t row_pitch, int64_t pixel_pitch, int64_t channels) {
  constexpr int kIn = Form::kIn, kPlanes = Form::kPlanes;
  using T = typename Vec::T;
  using V = typename Vec::V;
  for (int64_t c = 0; c < channels; c += Vec::kLanes) {
    const int lanes = static_cast<int>(smaller(Vec::kLanes, channels - c));
    V rows[kIn][kPlanes];
#pragma GCC unroll 6
    for (int i = 0; i < kIn; ++i) {
      V pixels[kIn];
#pragma GCC unroll 6
      for (int j = 0; j < kIn; ++j) {
        pixels[j] = Vec::load_some(from + i * row_pitch + j * pixel_pitch + c, lanes);
      }
      Form::input(rows[i], pixels, T());
    }
#pragma GCC unroll 6
    for (int j = 0; j < kPlanes; ++j) {
      V pixels[kIn], column[kPlanes];
#pragma GCC unroll 6
      for (int i = 0; i < kIn; ++i) pixels[i] = rows[i][j];
      Form::input(column, pixels, T());
#pragma GCC unroll 6
      for (int i = 0; i < kPlanes; ++i) {
        Vec::store_some(to + (i * kPlanes + j) * to_step + c, column[i], lanes);
      }
    }
  }
}

// Where the term (i, j) of both sides stands among all of a kernel: those of one result together.
template <class Form>
struct WinogradPlaces {
  int of[Form::kTerms][Form::kTerms];
  constexpr WinogradPlaces() : of{} {
    int place = 0;
    for (int row = 0, i0 = 0; row < Form::kResults; i0 += Form::count(row++)) {
      for (int col = 0, j0 = 0; col < Form::kResults; j0 += Form::count(col++)) {
        for (int i = i0; i < i0 + Form::count(row); ++i) {
          for (int j = j0; j < j0 + Form::count(col); ++j) of[i][j] = place++;
        }
      }
    }
  }
};

// G g G^T for `width` kernels side by side, a whole number of vectors: tap t at taps + t *
// tap_step.
template <class Vec, class Form>
void winograd_weights(typename Vec::T* to, int64_t to_step, const typename Vec::T* taps,
                      int64_t tap_step, int64_t width) {
  constexpr int kTerms = Form::kTerms;
  constexpr WinogradPlaces<Form> places;
  using T = typename Vec::T;
  using V = typename Vec::V;
  for (int64_t c = 0; c < width; c += Vec::kLanes) {
    V rows[3][kTerms];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      V g[3];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) g[j] = Vec::load(taps + (i * 3 + j) * tap_step + c);
      Form::weights(rows[i], g, T());
    }
#pragma GCC unroll 6
    for (int j = 0; j < kTerms; ++j) {
      const V g[3] = {rows[0][j], rows[1][j], rows[2][j]};
      V column[kTerms];
      Form::weights(column, g, T());
#pragma GCC unroll 6
      for (int i = 0; i < kTerms; ++i) {
        Vec::store(to + places.of[i][j] * to_step + c, column[i]);
      }
    }
  }
}

// A^T m A of one tile, finished: the pixels of `tile` that exist are written.
template <class Vec, class Form>
void winograd_output(const WinogradTile<typename Vec::T>& tile, const typename Vec::T* bias,
                     const Finish<typename Vec::T>& finish) {
  constexpr int kResults = Form::kResults, kOut = Form::kOut;
  using T = typename Vec::T;
  using V = typename Vec::V;
  for (int64_t c = 0; c < tile.channels; c += Vec::kLanes) {
    const int lanes = static_cast<int>(smaller(Vec::kLanes, tile.channels - c));
    const V add = bias == nullptr ? Vec::zero() : Vec::load_some(bias + c, lanes);
    V rows[kResults][kOut];
#pragma GCC unroll 6
    for (int i = 0; i < kResults; ++i) {
      V m[kResults];
#pragma GCC unroll 6
      for (int j = 0; j < kResults; ++j) {
        m[j] = Vec::load(tile.from + (i * kResults + j) * tile.step + c);
      }
      Form::output(rows[i], m, T());
    }
#pragma GCC unroll 4
    for (int j = 0; j < kOut; ++j) {
      V m[kResults], y[kOut];
#pragma GCC unroll 6
      for (int i = 0; i < kResults; ++i) m[i] = rows[i][j];
      Form::output(y, m, T());
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

// A y A^T of one tile of grad_output: to[(i, j) * to_step + c].
template <class Vec, class Form>
void winograd_gradient(typename Vec::T* to, int64_t to_step, const typename Vec::T* from,
                       int64_t row_pitch, int64_t pixel_pitch, int64_t rows, int64_t cols,
                       int64_t channels) {
  constexpr int kOut = Form::kOut, kResults = Form::kResults;
  using V = typename Vec::V;
  for (int64_t c = 0; c < channels; c += Vec::kLanes) {
    const int lanes = static_cast<int>(smaller(Vec::kLanes, channels - c));
    V transformed[kOut][kResults];
#pragma GCC unroll 4
    for (int i = 0; i < kOut; ++i) {
      V pixels[kOut];
#pragma GCC unroll 4
      for (int j = 0; j < kOut; ++j) {
        const bool exists = i < rows && j < cols;
        pixels[j] = exists ? Vec::load_some(from + i * row_pitch + j * pixel_pitch + c, lanes)
                           : Vec::zero();
      }
      Form::gradient(transformed[i], pixels);
    }
#pragma GCC unroll 6
    for (int j = 0; j < kResults; ++j) {
      V pixels[kOut], column[kResults];
#pragma GCC unroll 4
      for (int i = 0; i < kOut; ++i) pixels[i] = transformed[i][j];
      Form::gradient(column, pixels);
#pragma GCC unroll 6
      for (int i = 0; i < kResults; ++i) {
        Vec::store_some(to + (i * kResults + j) * to_step + c, column[i], lanes);
      }
    }
  }
}

// G^T s G of `width` kernels side by side, a whole number of vectors: sums[(i, j)][width] become
// taps[tap][width].
template <class Vec, class Form>
void winograd_taps(typename Vec::T* taps, const typename Vec::T* sums, int64_t width) {
  constexpr int kSums = Form::kSums;
  using T = typename Vec::T;
  using V = typename Vec::V;
  for (int64_t c = 0; c < width; c += Vec::kLanes) {
    V rows[kSums][3];
#pragma GCC unroll 4
    for (int i = 0; i < kSums; ++i) {
      V s[kSums];
#pragma GCC unroll 4
      for (int j = 0; j < kSums; ++j) s[j] = Vec::load(sums + (i * kSums + j) * width + c);
      Form::taps(rows[i], s, T());
    }
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      V s[kSums], column[3];
#pragma GCC unroll 4
      for (int i = 0; i < kSums; ++i) s[i] = rows[i][j];
      Form::taps(column, s, T());
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) Vec::store(taps + (i * 3 + j) * width + c, column[i]);
    }
  }
}

template <class Vec, class Form>
constexpr WinogradKernel<typename Vec::T> winograd_kernel_of(int64_t positions) {
  WinogradKernel<typename Vec::T> kernel{positions,
                                         Form::kPlanes,
                                         Form::kTerms,
                                         Form::kResults,
                                         {},
                                         {},
                                         winograd_input<Vec, Form>,
                                         winograd_weights<Vec, Form>,
                                         winograd_output<Vec, Form>};
  for (int result = 0; result < Form::kResults; ++result) {
    kernel.first[result] = Form::first(result);
    kernel.count[result] = Form::count(result);
  }
  return kernel;
}

// In the order of WinogradForm.
template <class Vec>
constexpr WinogradKernel<typename Vec::T> kWinograd[] = {
    winograd_kernel_of<Vec, Winograd2>(2), winograd_kernel_of<Vec, Winograd4>(4),
    winograd_kernel_of<Vec, WinogradStrided>(2), winograd_kernel_of<Vec, WinogradMirrored>(2)};

template <class Vec, class Form>
constexpr WinogradGradient<typename Vec::T> winograd_gradient_of() {
  WinogradGradient<typename Vec::T> kernel{Form::kPlanes,
                                           Form::kResults,
                                           Form::kSums,
                                           {},
                                           winograd_input<Vec, Form>,
                                           winograd_gradient<Vec, Form>,
                                           winograd_taps<Vec, Form>};
  for (int sum = 0; sum < Form::kSums; ++sum) {
    kernel.sum[sum] = {Form::plane(sum), Form::result(sum), Form::products(sum)};
  }
  return kernel;
}

// In the order of the strides.
template <class Vec>
constexpr WinogradGradient<typename Vec::T> kWinogradGradients[] = {
    winograd_gradient_of<Vec, Winograd2>(), winograd_gradient_of<Vec, WinogradStrided>()};
