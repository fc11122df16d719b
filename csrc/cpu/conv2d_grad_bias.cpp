// grad_bias: the sum of grad_output over all pixels of all pictures, in double.
#include "cpu/conv2d.h"
#include "cpu/integers.h"
#include "cpu/isa.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

constexpr int64_t kPieceElements = int64_t{1} << 16;  // of one task: worth a thread
constexpr int64_t kMostPieces = 64;

// Pieces that the pictures are cut into; a function of their size alone.
int64_t pieces_of(int64_t pixels, int64_t channels) {
  return larger(1, smaller(smaller(pixels, kMostPieces), pixels * channels / kPieceElements));
}

// One plane whose pixels are neighbours: lane l takes pixels l, l + kLanes, ...
template <class T>
double sum_plane(const T* plane, int64_t pixels) {
  constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= pixels; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += plane[i + lane];
  }
  for (int64_t lane = 0; i < pixels; ++i, ++lane) lanes[lane] += plane[i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace

int64_t conv2d_grad_bias_workspace(int64_t batch, int64_t channels, int64_t pixels) {
  return pieces_of(batch * pixels, channels) * channels;
}

template <class T>
void conv2d_grad_bias(T* grad_bias, ImageView<const T> grad_output, double* workspace,
                      int64_t batch, int64_t channels, int64_t height, int64_t width,
                      bool accumulate) {
  const int64_t pixels = height * width, threads = thread_count();
  int64_t pieces = 1;
  if (grad_output.stride_c == 1) {  // all pixels of the batch are evenly spaced
    const int64_t all = batch * pixels;
    pieces = pieces_of(all, channels);
    const auto add_pixels = kernels_in_use<T>().add_pixels;
    parallel_tasks(pieces, threads, [&](int64_t piece, int64_t) {
      const int64_t begin = piece * all / pieces, end = (piece + 1) * all / pieces;
      double* const sums = workspace + piece * channels;
      for (int64_t c = 0; c < channels; ++c) sums[c] = 0;
      add_pixels(sums, grad_output.data + begin * channels, channels, end - begin, channels);
    });
  } else {
    parallel_tasks(channels, batch * pixels * channels < kPieceElements ? 1 : threads,
                   [&](int64_t c, int64_t) {
                     workspace[c] = 0;
                     for (int64_t n = 0; n < batch; ++n) {
                       workspace[c] += sum_plane(grad_output.at(n, c), pixels);
                     }
                   });
  }
  for (int64_t c = 0; c < channels; ++c) {
    double sum = workspace[c];
    for (int64_t piece = 1; piece < pieces; ++piece) sum += workspace[piece * channels + c];
    grad_bias[c] = static_cast<T>(accumulate ? grad_bias[c] + sum : sum);
  }
}

template void conv2d_grad_bias(float*, ImageView<const float>, double*, int64_t, int64_t, int64_t,
                               int64_t, bool);
template void conv2d_grad_bias(double*, ImageView<const double>, double*, int64_t, int64_t, int64_t,
                               int64_t, bool);

}  // namespace pydenoise::cpu
