// Forward and grad_input: one product, "every destination pixel gathers its taps", run once for
// the forward direction and once for each output phase of the mirrored one (conv_shape.h).
#include "cpu/conv2d.h"

#include "cpu/gemm.h"
#include "cpu/patches.h"
#include "parallel.h"

namespace pydenoise::cpu {
namespace {

// One direction of a convolution, seen from the pictures it writes.
struct Direction {
  const ConvShape& shape;
  bool mirrored;
  int64_t source_channels, dest_channels;            // of one group
  int64_t weight_dest_stride, weight_source_stride;  // element (dest, source, tap) of the weights
  int64_t phases_h, phases_w;

  Direction(const ConvShape& s, bool is_mirrored)
      : shape(s),
        mirrored(is_mirrored),
        source_channels(is_mirrored ? s.group_out_channels() : s.group_in_channels()),
        dest_channels(is_mirrored ? s.group_in_channels() : s.group_out_channels()),
        weight_dest_stride(is_mirrored ? s.taps() : s.group_in_channels() * s.taps()),
        weight_source_stride(is_mirrored ? s.group_in_channels() * s.taps() : s.taps()),
        phases_h(is_mirrored ? smaller(s.stride_h, s.in_h) : 1),
        phases_w(is_mirrored ? smaller(s.stride_w, s.in_w) : 1) {}

  int64_t phases() const { return phases_h * phases_w; }
  GatherAxis rows(int64_t phase) const {
    return mirrored ? mirrored_rows(shape, phase / phases_w) : forward_rows(shape);
  }
  GatherAxis cols(int64_t phase) const {
    return mirrored ? mirrored_cols(shape, phase % phases_w) : forward_cols(shape);
  }
  int64_t terms(int64_t phase) const {
    return rows(phase).taps * cols(phase).taps * source_channels;
  }
  // Terms of all phases before this one: rows of phases first, then the phases of the same row.
  int64_t terms_before(int64_t phase) const {
    const int64_t row = phase / phases_w, col = phase % phases_w;
    int64_t row_taps = 0, col_taps = 0, col_taps_of_all = 0;
    for (int64_t i = 0; i < row; ++i) row_taps += rows(i * phases_w).taps;
    for (int64_t j = 0; j < phases_w; ++j) {
      const int64_t taps = cols(j).taps;
      col_taps += j < col ? taps : 0;
      col_taps_of_all += taps;
    }
    return (row_taps * col_taps_of_all + rows(phase).taps * col_taps) * source_channels;
  }
  // Destination pixels of the largest phase, which is the first.
  int64_t most_pixels() const { return rows(0).count * cols(0).count; }
  int64_t all_terms() const { return source_channels * shape.taps(); }
};

// Weights of one group and phase as panels of `width` destination channels:
// packed[panel][term][width], terms in the order of patches.h.
template <class T>
void pack_weights(T* packed, const T* weight, int64_t width, int64_t panel, int64_t phase,
                  const Direction& d) {
  const GatherAxis rows = d.rows(phase), cols = d.cols(phase);
  const int64_t first = panel * width, valid = smaller(width, d.dest_channels - first);
  T* to = packed + panel * d.terms(phase) * width;
  for (int64_t ti = 0; ti < rows.taps; ++ti) {
    for (int64_t tj = 0; tj < cols.taps; ++tj) {
      const T* from = weight + first * d.weight_dest_stride +
                      rows.kernel_index(ti) * d.shape.kernel_w + cols.kernel_index(tj);
      for (int64_t c = 0; c < d.source_channels; ++c, to += width) {
        for (int64_t i = 0; i < valid; ++i) {
          to[i] = from[i * d.weight_dest_stride + c * d.weight_source_stride];
        }
        for (int64_t i = valid; i < width; ++i) to[i] = T(0);
      }
    }
  }
}

// Where the pixels of one phase lie in the destination.
struct PixelMap {
  GatherAxis rows, cols;
  int64_t stride_h, stride_w;

  int64_t offset(int64_t pixel) const {
    return rows.dest(pixel / cols.count) * stride_h + cols.dest(pixel % cols.count) * stride_w;
  }
  void offsets(int64_t* to, int64_t first, int64_t count) const {
    for (int64_t i = 0; i < count; ++i) to[i] = offset(first + i);
  }
};

constexpr int64_t kWidestPanel = 64;

// tile[channel][pixel] + bias into the destination.
template <class T>
void store_channel_rows(T* dest, int64_t stride_c, const T* bias, const T* tile, int64_t nr,
                        int64_t channels, int64_t first_pixel, int64_t pixels,
                        const PixelMap& map) {
  int64_t offsets[kWidestPanel];
  map.offsets(offsets, first_pixel, pixels);
  const bool contiguous = offsets[pixels - 1] - offsets[0] == pixels - 1;
  for (int64_t i = 0; i < channels; ++i) {
    T* to = dest + i * stride_c;
    const T* from = tile + i * nr;
    const T add = bias == nullptr ? T(0) : bias[i];
    if (contiguous) {
      to += offsets[0];
      for (int64_t j = 0; j < pixels; ++j) to[j] = from[j] + add;
    } else {
      for (int64_t j = 0; j < pixels; ++j) to[offsets[j]] = from[j] + add;
    }
  }
}

// tile[pixel][channel] + bias into the destination, whose channels are neighbours.
template <class T>
void store_pixel_rows(T* dest, const T* bias, const T* tile, int64_t nr, int64_t channels,
                      int64_t first_pixel, int64_t pixels, const PixelMap& map) {
  for (int64_t i = 0; i < pixels; ++i) {
    T* to = dest + map.offset(first_pixel + i);
    const T* from = tile + i * nr;
    for (int64_t j = 0; j < channels; ++j) to[j] = from[j] + (bias == nullptr ? T(0) : bias[j]);
  }
}

// The side of the product that channels take: rows of C when pixels are neighbours in memory
// (contiguous format), columns when channels are.
template <class T>
struct Plan {
  bool channel_rows;
  const Ukernel<T>& kernel;
  int64_t channel_width, channel_panels;  // panels of packed weights
  int64_t group_size;                     // packed elements of one group
  int64_t slot_size;

  Plan(const Direction& d, bool are_channel_rows)
      : channel_rows(are_channel_rows),
        kernel(are_channel_rows ? ukernel_for<T>(d.dest_channels, d.most_pixels())
                                : ukernel_for<T>(d.most_pixels(), d.dest_channels)),
        channel_width(are_channel_rows ? kernel.mr : kernel.nr),
        channel_panels(ceil_div(d.dest_channels, channel_width)),
        group_size(round_up(channel_panels * channel_width * d.all_terms(), kAlignment)),
        slot_size(round_up(block_workspace(kernel), kAlignment)) {}
};

template <class T>
int64_t gather_workspace(const Direction& d, int64_t threads) {
  const Plan<T> by_rows(d, true), by_cols(d, false);
  const auto size = [&](const Plan<T>& plan) {
    return d.shape.groups * plan.group_size + threads * plan.slot_size;
  };
  return larger(size(by_rows), size(by_cols));
}

// Where the packed weights of a phase begin: every tap belongs to one phase only.
template <class T>
T* packed_phase(T* workspace, int64_t group, int64_t phase, const Direction& d,
                const Plan<T>& plan) {
  return workspace + group * plan.group_size +
         d.terms_before(phase) * plan.channel_panels * plan.channel_width;
}

template <class T>
void pack_all_weights(T* workspace, const T* weight, const Direction& d, const Plan<T>& plan) {
  const int64_t group_weights = d.source_channels * d.dest_channels * d.shape.taps();
  const int64_t tasks = d.shape.groups * d.phases() * plan.channel_panels;
  parallel_tasks(tasks, thread_count(), [&](int64_t task, int64_t) {
    const int64_t panel = task % plan.channel_panels, rest = task / plan.channel_panels;
    const int64_t phase = rest % d.phases(), group = rest / d.phases();
    pack_weights(packed_phase(workspace, group, phase, d, plan), weight + group * group_weights,
                 plan.channel_width, panel, phase, d);
  });
}

template <class T>
void gather_convolution(ImageView<T> dest, ImageView<const T> source, const T* weight,
                        const T* bias, T* workspace, const Direction& d) {
  const ConvShape& s = d.shape;
  const Plan<T> plan(d, dest.stride_c != 1 || d.dest_channels * s.groups == 1);
  const Ukernel<T>& kernel = plan.kernel;
  const int64_t threads = thread_count();
  T* const slots = workspace + s.groups * plan.group_size;

  pack_all_weights(workspace, weight, d, plan);

  const int64_t m = plan.channel_rows ? d.dest_channels : d.most_pixels();
  const int64_t n = plan.channel_rows ? d.most_pixels() : d.dest_channels;
  const int64_t m_step = round_up(kMBlock, kernel.mr), n_step = round_up(kNBlock, kernel.nr);
  const int64_t m_blocks = ceil_div(m, m_step), n_blocks = ceil_div(n, n_step);
  const int64_t blocks = m_blocks * n_blocks;
  parallel_tasks(
      s.batch * s.groups * d.phases() * blocks, threads, [&](int64_t task, int64_t slot) {
        const int64_t phase = task / blocks % d.phases();
        const int64_t group = task / (blocks * d.phases()) % s.groups;
        const int64_t picture = task / (blocks * d.phases() * s.groups);
        const PixelMap map{d.rows(phase), d.cols(phase), dest.stride_h, dest.stride_w};
        const Patches<T> patches{source.at(picture, group * d.source_channels),
                                 source.stride_c,
                                 source.stride_h,
                                 source.stride_w,
                                 d.source_channels,
                                 map.rows,
                                 map.cols};
        const int64_t pixels = patches.pixels(), terms = patches.terms();
        const int64_t m0 = task / n_blocks % m_blocks * m_step, n0 = task % n_blocks * n_step;
        const Block block{m0, smaller(plan.channel_rows ? m : pixels, m0 + m_step), n0,
                          smaller(plan.channel_rows ? pixels : n, n0 + n_step)};
        if (block.m1 <= block.m0 || block.n1 <= block.n0) return;  // a phase with fewer pixels

        T* const to = dest.at(picture, group * d.dest_channels);
        const T* const add = bias == nullptr ? nullptr : bias + group * d.dest_channels;
        const PackedOperand<T> channels{packed_phase(workspace, group, phase, d, plan), terms,
                                        plan.channel_width};
        T* const scratch = slots + slot * plan.slot_size;
        if (plan.channel_rows) {
          const PixelOperand<T> gathered{patches, kernel.nr};
          const auto store = [&](int64_t i0, int64_t j0, const T* tile) {
            store_channel_rows(
                to + i0 * dest.stride_c, dest.stride_c, add == nullptr ? nullptr : add + i0, tile,
                kernel.nr, smaller(kernel.mr, m - i0), j0, smaller(kernel.nr, pixels - j0), map);
          };
          multiply_block(kernel, block, terms, channels, gathered, store, scratch);
        } else {
          const PixelOperand<T> gathered{patches, kernel.mr};
          const auto store = [&](int64_t i0, int64_t j0, const T* tile) {
            store_pixel_rows(to + j0, add == nullptr ? nullptr : add + j0, tile, kernel.nr,
                             smaller(kernel.nr, n - j0), i0, smaller(kernel.mr, pixels - i0), map);
          };
          multiply_block(kernel, block, terms, gathered, channels, store, scratch);
        }
      });
}

}  // namespace

template <class T>
int64_t conv2d_workspace(const ConvShape& shape, int64_t threads) {
  return gather_workspace<T>(Direction(shape, false), threads);
}

template <class T>
void conv2d(ImageView<T> output, ImageView<const T> input, const T* weight, const T* bias,
            T* workspace, const ConvShape& shape) {
  gather_convolution(output, input, weight, bias, workspace, Direction(shape, false));
}

template <class T>
int64_t conv2d_grad_input_workspace(const ConvShape& shape, int64_t threads) {
  return gather_workspace<T>(Direction(shape, true), threads);
}

template <class T>
void conv2d_grad_input(ImageView<T> grad_input, ImageView<const T> grad_output, const T* weight,
                       const T* bias, T* workspace, const ConvShape& shape) {
  gather_convolution(grad_input, grad_output, weight, bias, workspace, Direction(shape, true));
}

template int64_t conv2d_workspace<float>(const ConvShape&, int64_t);
template int64_t conv2d_workspace<double>(const ConvShape&, int64_t);
template void conv2d(ImageView<float>, ImageView<const float>, const float*, const float*, float*,
                     const ConvShape&);
template void conv2d(ImageView<double>, ImageView<const double>, const double*, const double*,
                     double*, const ConvShape&);
template int64_t conv2d_grad_input_workspace<float>(const ConvShape&, int64_t);
template int64_t conv2d_grad_input_workspace<double>(const ConvShape&, int64_t);
template void conv2d_grad_input(ImageView<float>, ImageView<const float>, const float*,
                                const float*, float*, const ConvShape&);
template void conv2d_grad_input(ImageView<double>, ImageView<const double>, const double*,
                                const double*, double*, const ConvShape&);

}  // namespace pydenoise::cpu
