#include "cuda/gather.h"

namespace pydenoise::cuda {
namespace {

Place place(int64_t source, int64_t row, int64_t col, int64_t other) {
  return {static_cast<uint32_t>(source), static_cast<int32_t>(row), static_cast<int32_t>(col),
          static_cast<uint32_t>(other)};
}

// How far one position, one tap moves along an axis.
int64_t position_step(const GatherAxis& a) {
  return a.source(1, 0) - a.source(0, 0);
}
int64_t tap_step(const GatherAxis& a) {
  return a.source(0, 1) - a.source(0, 0);
}
int64_t dest_step(const GatherAxis& a) {
  return a.dest(1) - a.dest(0);
}
int64_t kernel_step(const GatherAxis& a) {
  return a.kernel_index(1) - a.kernel_index(0);
}

Line line(int64_t first, int64_t middle, int64_t last) {
  return {static_cast<int32_t>(first * middle * last),
          divisor(static_cast<uint32_t>(middle)),
          divisor(static_cast<uint32_t>(last)),
          {},
          {}};
}

int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

}  // namespace

int64_t Direction::phases_h() const {
  return mirrored ? smaller(shape.stride_h, shape.in_h) : 1;
}
int64_t Direction::phases_w() const {
  return mirrored ? smaller(shape.stride_w, shape.in_w) : 1;
}
GatherAxis Direction::rows(int64_t phase) const {
  return mirrored ? in_source_order(mirrored_rows(shape, phase / phases_w())) : forward_rows(shape);
}
GatherAxis Direction::cols(int64_t phase) const {
  return mirrored ? in_source_order(mirrored_cols(shape, phase % phases_w())) : forward_cols(shape);
}

Line positions_of(const GatherAxis& rows, const GatherAxis& cols, int64_t batch,
                  const Strides& source, const Strides& dest) {
  Line found = line(batch, rows.count, cols.count);
  const int64_t row = rows.source(0, 0), col = cols.source(0, 0);
  found.start = place(row * source.h + col * source.w, row, col,
                      rows.dest(0) * dest.h + cols.dest(0) * dest.w);
  found.step[0] = place(source.n, 0, 0, dest.n);
  found.step[1] =
      place(position_step(rows) * source.h, position_step(rows), 0, dest_step(rows) * dest.h);
  found.step[2] =
      place(position_step(cols) * source.w, 0, position_step(cols), dest_step(cols) * dest.w);
  return found;
}

Line terms_of(const GatherAxis& rows, const GatherAxis& cols, int64_t channels,
              const Strides& source, const Strides& weight) {
  Line found = line(rows.taps, cols.taps, channels);
  found.start = place(0, 0, 0, rows.kernel_index(0) * weight.h + cols.kernel_index(0) * weight.w);
  found.step[0] = place(tap_step(rows) * source.h, tap_step(rows), 0, kernel_step(rows) * weight.h);
  found.step[1] = place(tap_step(cols) * source.w, 0, tap_step(cols), kernel_step(cols) * weight.w);
  found.step[2] = place(source.c, 0, 0, weight.c);
  return found;
}

Phase phase_of(const Direction& d, int64_t phase) {
  const GatherAxis rows = d.rows(phase), cols = d.cols(phase);
  const int64_t tap = d.weight_tap_stride();
  const Strides weight{0, d.weight_source_stride(), d.shape.kernel_w * tap, tap};
  return {positions_of(rows, cols, d.shape.batch, d.source, d.dest),
          terms_of(rows, cols, d.source_channels(), d.source, weight)};
}

Unpacked unpacked(const Direction& d) {
  const auto narrow = [](int64_t number) { return static_cast<uint32_t>(number); };
  const Direction plain{d.shape, d.mirrored, d.source, d.dest};
  const int64_t taps = d.shape.taps();
  return {divisor(narrow(d.dest_channels())),
          divisor(narrow(d.source_channels())),
          divisor(narrow(taps)),
          narrow(taps * d.source_channels() * d.dest_channels()),
          narrow(plain.weight_source_stride()),
          narrow(plain.weight_dest_stride())};
}

Phase im2col_phase(const ConvShape& s, const Strides& input) {
  const GatherAxis rows = forward_rows(s), cols = forward_cols(s);
  const int64_t pixels = s.out_pixels(), taps = s.taps();
  const Strides columns{s.in_channels * taps * pixels, taps * pixels, s.out_w, 1};
  Line steps = line(s.in_channels, s.kernel_h, s.kernel_w);
  steps.step[0] = place(input.c, 0, 0, columns.c);
  steps.step[1] = place(tap_step(rows) * input.h, tap_step(rows), 0, s.kernel_w * pixels);
  steps.step[2] = place(tap_step(cols) * input.w, 0, tap_step(cols), pixels);
  return {positions_of(rows, cols, s.batch, input, columns), steps};
}

Phase col2im_phase(const ConvShape& s, const Strides& output, int64_t phase) {
  const int64_t phases_w = smaller(s.stride_w, s.in_w), pixels = s.out_pixels();
  const GatherAxis rows = mirrored_rows(s, phase / phases_w);
  const GatherAxis cols = mirrored_cols(s, phase % phases_w);
  const Strides columns{s.in_channels * s.taps() * pixels, s.taps() * pixels, s.out_w, 1};
  Line steps = line(1, rows.taps, cols.taps);
  const int64_t row_taps = s.kernel_w * pixels;  // elements of the columns of one kernel row
  steps.start = place(rows.kernel_index(0) * row_taps + cols.kernel_index(0) * pixels, 0, 0, 0);
  steps.step[1] =
      place(tap_step(rows) * columns.h + kernel_step(rows) * row_taps, tap_step(rows), 0, 0);
  steps.step[2] =
      place(tap_step(cols) * columns.w + kernel_step(cols) * pixels, 0, tap_step(cols), 0);
  return {positions_of(rows, cols, s.batch, columns, output), steps};
}

Phase matrix_phase(int64_t rows, int64_t left_row, int64_t out_row, int64_t steps,
                   int64_t left_step, int64_t right_step) {
  Phase phase{line(1, 1, rows), line(1, 1, steps)};
  phase.rows.step[2] = place(left_row, 0, 0, out_row);
  phase.steps.step[2] = place(left_step, 0, 0, right_step);
  return phase;
}

const char* why_too_large(const ConvShape& s, bool columns) {
  const int64_t padded_h = s.in_h + 2 * s.padding_h, padded_w = s.in_w + 2 * s.padding_w;
  for (const int64_t reach : {padded_h, padded_w, s.stride_h, s.stride_w, s.dilation_h,
                              s.dilation_w, s.out_h * s.stride_h, s.out_w * s.stride_w}) {
    if (reach >= kMostReach) return "a padded side or a step is 2^29 or more, too large for a GPU";
  }
  const int64_t input = s.batch * s.in_channels * s.in_h * s.in_w;
  const int64_t output = s.batch * s.out_channels * s.out_pixels();
  const int64_t weight = s.out_channels * s.group_in_channels() * s.taps();
  const int64_t patches = columns ? s.batch * s.in_channels * s.taps() * s.out_pixels() : 0;
  for (const int64_t count : {input, output, weight, patches}) {
    if (count > kMostElements) {
      return "a tensor has more elements than a kernel's 32 bits can count; take fewer pictures at "
             "a time";
    }
  }
  return nullptr;
}

}  // namespace pydenoise::cuda
