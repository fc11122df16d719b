// The loops of PointwiseKernels, included inside the target region of each instruction set, which
// defines kFused before. Branch-free, so that compilers turn them into vectors;
// the same sum and product for every element, so that its place in the piece changes no bit.

template <class T>
void relu_piece(T* out, const T* input, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = input[i] < 0 ? T(0) : input[i];
}

template <class T>
void relu_backward_piece(T* out, const T* grad_output, const T* output, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T gradient = grad_output[i];  // loaded always: a branch would keep out vectors
    out[i] = output[i] <= 0 ? T(0) : gradient;
  }
}

template <class T>
void leaky_relu_piece(T* out, const T* input, T negative_slope, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T x = input[i], scaled = x * negative_slope;
    out[i] = x > 0 ? x : scaled;
  }
}

template <class T>
void leaky_relu_backward_piece(T* out, const T* grad_output, const T* input, T negative_slope,
                               int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T gradient = grad_output[i], scaled = gradient * negative_slope;
    out[i] = input[i] > 0 ? gradient : scaled;
  }
}

inline float magnitude(float x) {
  return __builtin_fabsf(x);
}
inline double magnitude(double x) {
  return __builtin_fabs(x);
}
inline float square_root(float x) {
  return __builtin_sqrtf(x);
}
inline double square_root(double x) {
  return __builtin_sqrt(x);
}

// a b + c, rounded once where the instruction set has that
inline float multiply_add(float a, float b, float c) {
  if constexpr (kFused) return __builtin_fmaf(a, b, c);
  return a * b + c;
}

inline float float_of_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// e^x for x <= 0. x = n ln 2 + r with |r| <= ln 2 / 2; the polynomial is the Taylor series of e^r
// to r^7, whose error is below the rounding. Adding kWhole rounds to a whole number and leaves
// n + 254 in the low bits, the sum of two exponents: 2^n in two factors reaches the subnormal
// numbers. NaN stays in r.
inline float exp_of_negative(float x) {
  constexpr float kWhole = 12582912.0f + 254.0f;  // the first number is 1.5 * 2^23
  x = x < -104.0f ? -104.0f : x;
  const float shifted = multiply_add(x, 1.44269504f, kWhole);
  const float n = shifted - kWhole;
  const float r = multiply_add(n, 2.12194440e-4f, multiply_add(n, -0.693359375f, x));
  float p = 1.0f / 5040;
  p = multiply_add(p, r, 1.0f / 720);
  p = multiply_add(p, r, 1.0f / 120);
  p = multiply_add(p, r, 1.0f / 24);
  p = multiply_add(p, r, 1.0f / 6);
  p = multiply_add(p, r, 0.5f);
  p = multiply_add(p, r, 1.0f);
  p = multiply_add(p, r, 1.0f);
  uint32_t exponents;
  __builtin_memcpy(&exponents, &shifted, sizeof exponents);
  const uint32_t half = exponents >> 1;
  return p * float_of_bits(half << 23) * float_of_bits((exponents - half) << 23);
}

inline double exp_of_negative(double x) {
  return __builtin_exp(x);
}

template <class T>
void sigmoid_piece(T* __restrict out, const T* __restrict input, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T x = input[i];
    const T decay = exp_of_negative(-magnitude(x));
    out[i] = (x < 0 ? decay : T(1)) / (T(1) + decay);
  }
}

template <class T>
void sigmoid_backward_piece(T* __restrict out, const T* __restrict grad_output,
                            const T* __restrict output, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = grad_output[i] * (output[i] * (T(1) - output[i]));
  }
}

template <class T>
void add_value_piece(T* to, T value, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += value;
}

// A short row is repeated first, so that the loop that adds takes whole vectors.
template <class T>
void add_row_piece(T* __restrict to, const T* __restrict row, int64_t width, int64_t count) {
  constexpr int64_t kShort = 16, kTimes = 16;
  T repeated[kShort * kTimes];
  if (width <= kShort) {
    for (int64_t i = 0; i < kTimes; ++i) {
      for (int64_t c = 0; c < width; ++c) repeated[i * width + c] = row[c];
    }
    row = repeated;
    width *= kTimes;
  }
  for (; count > 0; to += width, count -= width) {
    const int64_t here = count < width ? count : width;
    for (int64_t i = 0; i < here; ++i) to[i] += row[i];
  }
}

// Element i of the piece goes to lane i % kLanes; the lanes are added in order.
constexpr int64_t kLanes = 16;

template <class T, bool squared>
double sum_of_errors(const T* input, const T* target, int64_t count) {
  double lanes[kLanes] = {};
  const auto add = [&](int64_t i, int64_t lane) {
    const double difference = static_cast<double>(input[i]) - static_cast<double>(target[i]);
    lanes[lane] += squared ? difference * difference : magnitude(difference);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) add(i + lane, lane);
  }
  for (int64_t lane = 0; i < count; ++i, ++lane) add(i, lane);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

template <class T>
void squared_error_backward_piece(T* __restrict out, const T* __restrict input,
                                  const T* __restrict target, T scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = (input[i] - target[i]) * scale;
}

template <class T>
void absolute_error_backward_piece(T* __restrict out, const T* __restrict input,
                                   const T* __restrict target, T scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T difference = input[i] - target[i];
    const T negative = difference < 0 ? -scale : T(0);
    out[i] = difference > 0 ? scale : negative;
  }
}

template <class T>
void sgd_piece(T* __restrict param, const T* __restrict grad, SgdFactors<T> f, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    param[i] -= f.lr * (grad[i] + f.weight_decay * param[i]);
  }
}

template <class T>
void sgd_with_momentum_piece(T* __restrict param, const T* __restrict grad,
                             T* __restrict momentum_buffer, SgdFactors<T> f, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T d = grad[i] + f.weight_decay * param[i];
    const T v = f.first ? d : f.momentum * momentum_buffer[i] + f.fresh * d;
    momentum_buffer[i] = v;
    param[i] -= f.lr * (f.nesterov ? d + f.momentum * v : v);
  }
}

template <class T>
void adam_piece(T* __restrict param, const T* __restrict grad, T* __restrict exp_avg,
                T* __restrict exp_avg_sq, AdamFactors<T> f, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const T g = grad[i] + f.weight_decay * param[i];
    const T m = f.beta1 * exp_avg[i] + f.fresh1 * g;
    const T v = f.beta2 * exp_avg_sq[i] + f.fresh2 * (g * g);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    param[i] = f.kept * param[i] - f.step_size * m / (square_root(v) * f.root_scale + f.eps);
  }
}

template <class T>
constexpr PointwiseKernels<T> kPointwise = {
    relu_piece<T>,
    relu_backward_piece<T>,
    leaky_relu_piece<T>,
    leaky_relu_backward_piece<T>,
    sigmoid_piece<T>,
    sigmoid_backward_piece<T>,
    add_value_piece<T>,
    add_row_piece<T>,
    sum_of_errors<T, true>,
    sum_of_errors<T, false>,
    squared_error_backward_piece<T>,
    absolute_error_backward_piece<T>,
    sgd_piece<T>,
    sgd_with_momentum_piece<T>,
    adam_piece<T>,
};
