// grad_bias: the sum of grad_output over all pixels of all pictures, in double and in one order,
// whatever the memory format: pieces, whose number depends on the size alone, pixel after pixel.
#include <algorithm>

#include "cpu/conv2d.h"
#include "cpu/integers.h"
#include "cpu/isa.h"
#include "cpu/transpose.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 16;  // of one task: worth a thread
constexpr int64_t kMostPieces = 64;

// Pieces that the pictures are cut into; a function of their size alone.
int64_t pieces_of(int64_t pixels, int64_t channels) {
  return larger(1, smaller(smaller(pixels, kMostPieces), pixels * channels / kPieceElements));
}

// Pixels that add_pixels takes at once, in either format: whole blocks of what it adds up in pairs.
int64_t together(int64_t channels) {
  return channels < 16 ? 1024 : 256;
}

// The pixels [begin, begin + count) of all pictures in a row, channels together in the buffer.
template <class T>
void gather_pixels(T* buffer, ImageView<const T> image, int64_t begin, int64_t count,
                   int64_t channels, int64_t pixels) {
  while (count > 0) {
    const int64_t pixel = begin % pixels, here = smaller(count, pixels - pixel);
    transpose(buffer, channels, image.at(begin / pixels, 0) + pixel, image.stride_c, channels,
              here);
    buffer += here * channels;
    begin += here;
    count -= here;
  }
}

}  // namespace

template <class T>
int64_t conv2d_grad_bias_workspace(ImageView<const T> grad_output, int64_t batch, int64_t channels,
                                   int64_t pixels, int64_t threads) {
  const int64_t buffers = grad_output.stride_c == 1 ? 0 : threads * together(channels) * channels;
  return pieces_of(batch * pixels, channels) * channels + buffers;
}

template <class T>
void conv2d_grad_bias(T* grad_bias, ImageView<const T> grad_output, double* workspace,
                      int64_t batch, int64_t channels, int64_t height, int64_t width,
                      bool accumulate) {
  const int64_t pixels = height * width, all = batch * pixels;
  const int64_t pieces = pieces_of(all, channels), step = together(channels);
  double* const buffers = workspace + pieces * channels;
  const auto add_pixels = kernels_in_use<T>().add_pixels;
  parallel_tasks(pieces, thread_count(), [&](int64_t piece, int64_t slot) {
    const int64_t begin = piece * all / pieces, end = (piece + 1) * all / pieces;
    double* const sums = workspace + piece * channels;
    std::fill(sums, sums + channels, 0.0);
    T* const buffer = reinterpret_cast<T*>(buffers + slot * step * channels);
    for (int64_t first = begin; first < end; first += step) {
      const int64_t count = smaller(step, end - first);
      const T* from = grad_output.data + first * channels;  // all pixels are evenly spaced
      if (grad_output.stride_c != 1) {
        gather_pixels(buffer, grad_output, first, count, channels, pixels);
        from = buffer;
      }
      add_pixels(sums, from, channels, count, channels);
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    double sum = workspace[c];
    for (int64_t piece = 1; piece < pieces; ++piece) sum += workspace[piece * channels + c];
    grad_bias[c] = static_cast<T>(accumulate ? grad_bias[c] + sum : sum);
  }
}

template int64_t conv2d_grad_bias_workspace(ImageView<const float>, int64_t, int64_t, int64_t,
                                            int64_t);
template int64_t conv2d_grad_bias_workspace(ImageView<const double>, int64_t, int64_t, int64_t,
                                            int64_t);
template void conv2d_grad_bias(float*, ImageView<const float>, double*, int64_t, int64_t, int64_t,
                               int64_t, bool);
template void conv2d_grad_bias(double*, ImageView<const double>, double*, int64_t, int64_t, int64_t,
                               int64_t, bool);

}  // namespace pydenoise::cpu
