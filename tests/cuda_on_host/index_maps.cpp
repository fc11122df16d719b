// What tests ask of the kernels' host build beside its Python module: the index maps as tables, and
// the order in which the threads of a block take turns.
#include "cuda/gather.h"
#include "cuda_runtime.h"

using namespace pydenoise;
using namespace pydenoise::cuda;

namespace {

enum class Kind { kForward, kMirrored, kIm2col, kCol2im };

ConvShape shape_of(const int64_t* n) {
  return {n[0], n[1], n[2],  n[3],  n[4],  n[5],  n[6],  n[7],
          n[8], n[9], n[10], n[11], n[12], n[13], n[14], n[15]};
}

Phase phase_of_kind(const ConvShape& s, Kind kind, const Strides& input, const Strides& output,
                    int64_t phase) {
  if (kind == Kind::kForward) return phase_of({s, false, input, output}, phase);
  if (kind == Kind::kMirrored) return phase_of({s, true, output, input}, phase);
  return kind == Kind::kIm2col ? im2col_phase(s, input) : col2im_phase(s, input, phase);
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void order_of_threads(int order) {
  cuda_on_host::machine.order = order;
}

// Fills counts with the rows and steps of the phase and, where there is room, source (rows x steps,
// -1 outside), of_row and of_step (`other`). One row and one step past the end must be outside:
// the answer is how many products with those are not.
__attribute__((visibility("default"))) int index_map(const int64_t* numbers, int kind,
                                                     int input_last, int output_last, int64_t index,
                                                     int32_t* counts, int64_t* source,
                                                     uint32_t* of_row, uint32_t* of_step) {
  const ConvShape s = shape_of(numbers);
  const auto which = static_cast<Kind>(kind);
  const Phase phase =
      phase_of_kind(s, which, dense_strides(s.in_channels, s.in_h, s.in_w, input_last != 0),
                    dense_strides(s.out_channels, s.out_h, s.out_w, output_last != 0), index);
  const bool reads_input = which == Kind::kForward || which == Kind::kIm2col;
  const auto height = static_cast<int32_t>(reads_input ? s.in_h : s.out_h);
  const auto width = static_cast<int32_t>(reads_input ? s.in_w : s.out_w);
  counts[0] = phase.rows.count;
  counts[1] = phase.steps.count;
  if (source == nullptr) return 0;
  int astray = 0;
  for (int32_t m = 0; m <= counts[0]; ++m) {
    const Place row = place_of(phase.rows, m, counts[0]);
    for (int32_t k = 0; k <= counts[1]; ++k) {
      const Place step = place_of(phase.steps, k, counts[1]), at = row + step;
      const bool is_inside = inside(at, height, width);
      if (m == counts[0] || k == counts[1]) {
        astray += is_inside;
        continue;
      }
      of_row[m] = row.other;
      of_step[k] = step.other;
      source[static_cast<int64_t>(m) * counts[1] + k] =
          is_inside ? static_cast<int64_t>(at.source) : -1;
    }
  }
  return astray;
}
}
