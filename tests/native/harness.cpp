// The kernels on memory of the exact size, with shapes and choices taken from bytes: for ASan,
// UBSan and TSan, and as a target of libFuzzer.
//
//   harness COUNT SEED THREADS CALLERS    random bytes; so many threads below each call, and so
//   many
//                                         callers at once
//   -DPYDENOISE_LIBFUZZER                 bytes from libFuzzer, and its options
//   -DPYDENOISE_SHORT, -DPYDENOISE_RACE   controls: a destination that is too short, tasks run
//   twice
//
// Every result has to be written whole, finite, and near what plain loops come to.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "conv_shape.h"
#include "cpu/conv2d.h"
#include "cpu/im2col.h"
#include "cpu/isa.h"
#include "cpu/pooling.h"
#include "cpu/ukernel.h"
#include "cpu/winograd.h"
#include "parallel.h"

namespace {

using namespace pydenoise;

// Numbers from bytes; zeros behind their end.
class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  uint64_t word() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return value;
  }
  int64_t pick(int64_t low, int64_t high) {
    return low + static_cast<int64_t>((byte() << 8 | byte()) % (high - low + 1));
  }
  bool flip() { return byte() & 1; }

 private:
  uint32_t byte() { return place_ < size_ ? data_[place_++] : 0; }
  const uint8_t* data_;
  size_t size_, place_ = 0;
};

[[noreturn]] void fail(const std::string& what, const ConvShape& shape) {
  std::fprintf(stderr, "harness: %s: %s\n", to_string(shape).c_str(), what.c_str());
  std::abort();
}

// Elements at the very end of what is allocated, so that the next one is out of bounds.
template <class T>
class Elements {
 public:
  explicit Elements(int64_t count, T value = std::numeric_limits<T>::quiet_NaN())
      : count_(count), memory_(new T[static_cast<size_t>(count)]) {
    std::fill_n(memory_.get(), count, value);
  }
  Elements(int64_t count, std::mt19937_64& random) : Elements(count, T(0)) {
    std::uniform_real_distribution<T> unit(-1, 1);
    for (int64_t i = 0; i < count; ++i) memory_[static_cast<size_t>(i)] = unit(random);
  }
  T* data() const { return memory_.get(); }
  T operator[](int64_t i) const { return memory_[static_cast<size_t>(i)]; }
  int64_t count() const { return count_; }

 private:
  int64_t count_;
  std::unique_ptr<T[]> memory_;
};

template <class T>
struct Aligned {
  explicit Aligned(int64_t count)
      : data(static_cast<T*>(std::aligned_alloc(
            cpu::kAlignment, (static_cast<size_t>(count) * sizeof(T) + cpu::kAlignment - 1) /
                                 cpu::kAlignment * cpu::kAlignment))) {
    std::fill_n(data, count, std::numeric_limits<T>::quiet_NaN());
  }
  ~Aligned() { std::free(data); }
  Aligned(const Aligned&) = delete;
  T* data;
};

ConvShape small_shape(Bytes& bytes) {
  ConvShape s{};
  s.batch = bytes.pick(1, 2);
  s.groups = bytes.pick(0, 3) == 0 ? bytes.pick(2, 4) : 1;
  s.in_channels = s.groups * bytes.pick(1, 20);
  s.out_channels = s.groups * bytes.pick(1, 20);
  const bool is_winograds = bytes.pick(0, 3) == 0;
  s.kernel_h = is_winograds ? 3 : bytes.pick(1, 4);
  s.kernel_w = is_winograds ? 3 : bytes.pick(1, 4);
  s.stride_h = is_winograds ? bytes.pick(1, 2) : bytes.pick(1, 4);
  s.stride_w = is_winograds ? s.stride_h : bytes.pick(1, 4);
  s.padding_h = is_winograds ? bytes.pick(0, 3) : bytes.pick(0, 5);
  s.padding_w = is_winograds ? bytes.pick(0, 3) : bytes.pick(0, 5);
  s.dilation_h = is_winograds ? 1 : bytes.pick(1, 3);
  s.dilation_w = is_winograds ? 1 : bytes.pick(1, 3);
  s.in_h = bytes.pick(1, 24);
  s.in_w = bytes.pick(1, 40);
  const auto reach = [&](int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                         int64_t dilation) {
    const int64_t most = extent(size, kernel, stride, padding, dilation);
    return most > 1 && bytes.pick(0, 7) == 0 ? most - 1 : most;
  };
  s.out_h = reach(s.in_h, s.kernel_h, s.stride_h, s.padding_h, s.dilation_h);
  s.out_w = reach(s.in_w, s.kernel_w, s.stride_w, s.padding_w, s.dilation_w);
  return s;
}

ConvShape wild_shape(Bytes& bytes) {
  int64_t n[16];
  for (int64_t& each : n) {
    const auto word = static_cast<int64_t>(bytes.word());
    each = word >> bytes.pick(0, 63);
  }
  return {n[0], n[1], n[2],  n[3],  n[4],  n[5],  n[6],  n[7],
          n[8], n[9], n[10], n[11], n[12], n[13], n[14], n[15]};
}

// The convolution in plain loops, and the sum of absolute terms, for each output element.
template <class T>
void plain(const ConvShape& s, const Elements<T>& input, bool last, const Elements<T>& weight,
           std::vector<double>& sums, std::vector<double>& sizes) {
  const auto x = cpu::dense_image(input.data(), s.in_channels, s.in_h, s.in_w, last);
  const int64_t in = s.group_in_channels(), out = s.group_out_channels();
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t m = 0; m < s.out_channels; ++m)
      for (int64_t y = 0; y < s.out_h; ++y)
        for (int64_t z = 0; z < s.out_w; ++z) {
          double sum = 0, size = 0;
          for (int64_t c = 0; c < in; ++c)
            for (int64_t i = 0; i < s.kernel_h; ++i)
              for (int64_t j = 0; j < s.kernel_w; ++j) {
                const int64_t row = y * s.stride_h - s.padding_h + i * s.dilation_h;
                const int64_t col = z * s.stride_w - s.padding_w + j * s.dilation_w;
                if (row < 0 || row >= s.in_h || col < 0 || col >= s.in_w) continue;
                const double term =
                    double(x.at(n, m / out * in + c)[row * x.stride_h + col * x.stride_w]) *
                    double(weight[((m * in + c) * s.kernel_h + i) * s.kernel_w + j]);
                sum += term;
                size += std::abs(term);
              }
          sums.push_back(sum);
          sizes.push_back(size);
        }
}

// sum(a * b) of an image in either format and numbers in the plain one.
template <class T>
double dot(const Elements<T>& image, int64_t batch, int64_t channels, int64_t height, int64_t width,
           bool last, const std::vector<double>& other) {
  const auto view = cpu::dense_image(image.data(), channels, height, width, last);
  double sum = 0;
  size_t place = 0;
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x)
          sum += view.at(n, c)[y * view.stride_h + x * view.stride_w] * other[place++];
  return sum;
}

template <class T>
std::vector<double> in_plain_order(const Elements<T>& image, int64_t batch, int64_t channels,
                                   int64_t height, int64_t width, bool last) {
  const auto view = cpu::dense_image(image.data(), channels, height, width, last);
  std::vector<double> found;
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = 0; y < height; ++y)
        for (int64_t x = 0; x < width; ++x)
          found.push_back(view.at(n, c)[y * view.stride_h + x * view.stride_w]);
  return found;
}

template <class T>
void convolutions(Bytes& bytes, std::mt19937_64& random, const ConvShape& s) {
  const int64_t inputs = s.batch * s.in_channels * s.in_h * s.in_w;
  const int64_t outputs = s.batch * s.out_channels * s.out_pixels();
  const int64_t weights = s.out_channels * s.group_in_channels() * s.taps();
  if (std::max({inputs, outputs, weights}) > 60'000 || outputs * weights > 20'000'000) return;
  const bool in_last = bytes.flip(), out_last = bytes.flip();
  const int64_t side = 2 * bytes.pick(0, 2), winograd = cpu::has_winograd(s, side) ? side : 0;
  const Elements<T> x(inputs, random), w(weights, random), gz(outputs, random);
  const auto input = cpu::dense_image<const T>(x.data(), s.in_channels, s.in_h, s.in_w, in_last);
  const auto gradient =
      cpu::dense_image<const T>(gz.data(), s.out_channels, s.out_h, s.out_w, out_last);
#ifdef PYDENOISE_SHORT
  const Elements<T> z(outputs - 1), gx(inputs);
#else
  const Elements<T> z(outputs), gx(inputs);
#endif
  std::vector<double> sums, sizes;
  plain(s, x, in_last, w, sums, sizes);
  const double unit = std::numeric_limits<T>::epsilon() * (winograd == 4 ? 2000 : 200);
  // what the sums of all elements below round by themselves
  const double summing = std::numeric_limits<double>::epsilon() * 4;
  {
    const Aligned<T> scratch(cpu::conv2d_workspace<T>(s, thread_count(), winograd));
    cpu::conv2d<T>(cpu::dense_image(z.data(), s.out_channels, s.out_h, s.out_w, out_last), input,
                   w.data(), {}, scratch.data, s, winograd);
    const auto found = in_plain_order(z, s.batch, s.out_channels, s.out_h, s.out_w, out_last);
    const double largest = *std::max_element(sizes.begin(), sizes.end());
    for (size_t i = 0; i < found.size(); ++i) {
      const double bound = unit * (winograd ? largest : sizes[i]);
      if (!(std::abs(found[i] - sums[i]) <= bound)) fail("conv2d", s);
    }
  }
  const double forward = dot(gz, s.batch, s.out_channels, s.out_h, s.out_w, out_last, sums);
  double size = 0;
  for (const double each : sizes) size += each;
  const double bound = (unit + summing * std::sqrt(double(outputs + inputs))) * (size + 1);
  {
    const Aligned<T> scratch(cpu::conv2d_grad_input_workspace<T>(s, thread_count(), winograd));
    cpu::conv2d_grad_input<T>(cpu::dense_image(gx.data(), s.in_channels, s.in_h, s.in_w, in_last),
                              gradient, w.data(), {}, scratch.data, s, winograd);
    const auto plain_x = in_plain_order(x, s.batch, s.in_channels, s.in_h, s.in_w, in_last);
    const double back = dot(gx, s.batch, s.in_channels, s.in_h, s.in_w, in_last, plain_x);
    if (!(std::abs(back - forward) <= bound)) fail("conv2d_grad_input", s);
  }
  {
    const Elements<T> gw(weights);
    const Aligned<T> scratch(
        cpu::conv2d_grad_weight_workspace(gradient, input, s, thread_count(), winograd));
    cpu::conv2d_grad_weight(gw.data(), gradient, input, scratch.data, s, false, winograd);
    double back = 0;
    for (int64_t i = 0; i < weights; ++i) back += double(gw[i]) * double(w[i]);
    if (!(std::abs(back - forward) <= bound)) fail("conv2d_grad_weight", s);
  }
  {
    const Elements<T> gb(s.out_channels);
    const Aligned<double> scratch(cpu::conv2d_grad_bias_workspace(gradient, s.batch, s.out_channels,
                                                                  s.out_pixels(), thread_count()));
    cpu::conv2d_grad_bias(gb.data(), gradient, scratch.data, s.batch, s.out_channels, s.out_h,
                          s.out_w, false);
    for (int64_t m = 0; m < s.out_channels; ++m)
      if (!std::isfinite(gb[m])) fail("conv2d_grad_bias", s);
  }
  {
    const Elements<T> columns(s.batch * s.in_channels * s.taps() * s.out_pixels()), back(inputs);
    cpu::im2col(columns.data(), input, s);
    cpu::col2im(cpu::dense_image(back.data(), s.in_channels, s.in_h, s.in_w, in_last),
                static_cast<const T*>(columns.data()), s);
    double once = 0;
    for (int64_t i = 0; i < columns.count(); ++i) once += double(columns[i]) * double(columns[i]);
    const auto plain_x = in_plain_order(x, s.batch, s.in_channels, s.in_h, s.in_w, in_last);
    const double twice = dot(back, s.batch, s.in_channels, s.in_h, s.in_w, in_last, plain_x);
    const double rounded =
        200 * std::numeric_limits<T>::epsilon() + summing * std::sqrt(double(columns.count()));
    if (!(std::abs(once - twice) <= rounded * (once + 1))) fail("im2col and col2im", s);
  }
}

template <class T>
void pooling(Bytes& bytes, std::mt19937_64& random, const ConvShape& s) {
  const cpu::Planes planes{s.batch, s.in_channels, bytes.flip()};
  const cpu::Size in{s.in_h, s.in_w}, window{s.kernel_h, s.kernel_w};
  const cpu::Size stride{s.stride_h, s.stride_w}, padding{s.kernel_h / 2, s.kernel_w / 2};
  const cpu::Size out{extent(in.height, window.height, stride.height, padding.height, 1),
                      extent(in.width, window.width, stride.width, padding.width, 1)};
  if (out.height < 1 || out.width < 1) return;
  const int64_t count = s.batch * s.in_channels;
  const Elements<T> x(count * in.height * in.width, random), z(count * out.height * out.width);
  const Elements<T> gx(x.count()), large(x.count() * window.height * window.width);
  const Elements<int64_t> where(z.count(), -1);
  cpu::max_pool2d(z.data(), where.data(), static_cast<const T*>(x.data()), planes, out, in,
                  {window, stride, padding});
  if (!cpu::max_pool2d_backward(gx.data(), static_cast<const T*>(z.data()),
                                static_cast<const int64_t*>(where.data()), planes, out, in))
    fail("max_pool2d", s);
  cpu::upsample_nearest2d(large.data(), static_cast<const T*>(x.data()), planes, in, window);
  cpu::upsample_nearest2d_backward(gx.data(), static_cast<const T*>(large.data()), planes, in,
                                   window);
  const auto times = static_cast<T>(window.height * window.width);
  for (int64_t i = 0; i < x.count(); ++i)
    if (!(std::abs(gx[i] - times * x[i]) <= 40 * std::numeric_limits<T>::epsilon() * times))
      fail("upsample_nearest2d", s);
}

void run_one(const uint8_t* data, size_t size, bool chooses_isa) {
  Bytes bytes(data, size);
  if (chooses_isa) {
    const auto isas = cpu::available_isas();
    cpu::set_isa(isas[static_cast<size_t>(bytes.pick(0, static_cast<int64_t>(isas.size()) - 1))]);
  }
  if (bytes.pick(0, 7) == 0) {
    const ConvShape wild = wild_shape(bytes);
    (void)why_invalid(wild);
    return;
  }
  const bool is_double = bytes.pick(0, 3) == 0;
  std::mt19937_64 random(bytes.word());
  const ConvShape shape = small_shape(bytes);
  if (bytes.pick(0, 7) == 0) {
    is_double ? pooling<double>(bytes, random, shape) : pooling<float>(bytes, random, shape);
  } else if (why_invalid(shape).empty()) {
    is_double ? convolutions<double>(bytes, random, shape)
              : convolutions<float>(bytes, random, shape);
  }
}

uint32_t threads_below = 1;

int32_t count_threads(uint32_t* count) {
  *count = threads_below;
  return 0;
}

// A pool that makes its threads anew for every call.
int32_t in_parallel(int64_t begin, int64_t end, int64_t, void (*body)(int64_t, int64_t, void*),
                    void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = begin; i < end; ++i) {
    threads.emplace_back(body, i, i + 1, context);
#ifdef PYDENOISE_RACE
    threads.emplace_back(body, begin, end, context);
#endif
  }
  for (std::thread& thread : threads) thread.join();
  return 0;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run_one(data, size, true);
  return 0;
}

#ifdef PYDENOISE_LIBFUZZER
extern "C" int LLVMFuzzerRunDriver(int*, char***, int (*)(const uint8_t*, size_t));

int main(int count_of_words, char** words) {
  return LLVMFuzzerRunDriver(&count_of_words, &words, LLVMFuzzerTestOneInput);
}
#else
int main(int count_of_words, char** words) {
  const auto number = [&](int place, int64_t otherwise) {
    return place < count_of_words ? std::atoll(words[place]) : otherwise;
  };
  const int64_t count = number(1, 1000), callers = number(4, 1);
  threads_below = static_cast<uint32_t>(number(3, 1));
  if (threads_below > 1) set_thread_pool(in_parallel, count_threads);
  const auto work = [&](int64_t caller) {
    std::mt19937_64 random(static_cast<uint64_t>(number(2, 0) * 1000 + caller));
    for (int64_t i = 0; i < count; ++i) {
      std::vector<uint8_t> bytes(200);
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
      run_one(bytes.data(), bytes.size(), callers == 1);
    }
  };
  std::vector<std::thread> all;
  for (int64_t caller = 1; caller < callers; ++caller) all.emplace_back(work, caller);
  work(0);
  for (std::thread& thread : all) thread.join();
  std::printf("%lld cases, 0 faults\n", static_cast<long long>(count * callers));
}
#endif
