"""The slips that mutants.py makes in the kernels, one at a time, and the tests that meet each."""

from __future__ import annotations

from typing import NamedTuple

import slips_files
from slips_cuda import SLIPS

ISAS = ("scalar", "avx2", "avx512")
VECTORS = ("avx2", "avx512")
CUDA = ("cuda",)
"""Not an instruction set: the CUDA kernels, built for the host."""
ANY = ("any",)
"""Not one either: what is Python under all of them."""

CONVOLUTIONS = tuple(
    f"tests/test_{name}.py"
    for name in ("ops_finish", "winograd", "ops_order", "ops_conv", "ops_laws", "ops_hard")
)
POINTWISE = ("tests/test_ops_pointwise.py", "tests/test_ops_optimizers.py")
LAYERS = ("tests/test_fusion.py", "tests/test_ops_finish.py")
ON_HOST = tuple(
    f"tests/test_cuda_{name}.py" for name in ("pointwise", "kernels", "index_maps", "fenced")
)


class Mutant(NamedTuple):
    """One slip: in `file`, `right` (found once) becomes `wrong`."""

    name: str
    file: str
    right: str
    wrong: str
    isas: tuple[str, ...] = ISAS

    @property
    def tests(self) -> tuple[str, ...]:
        if self.isas == ANY:
            return slips_files.TESTS
        if self.file.endswith(".py"):
            return LAYERS
        if self.isas == CUDA:
            return ON_HOST
        return (*POINTWISE, *CONVOLUTIONS) if self.file in (POINT, LOOPS) else CONVOLUTIONS


SHAPE, DIRECTION = "csrc/conv_shape.h", "csrc/cpu/direction.h"
CONV, FEW = "csrc/cpu/conv2d.cpp", "csrc/cpu/few_channels.cpp"
SOURCE, DEST, BANDS = "csrc/cpu/source.cpp", "csrc/cpu/dest.h", "csrc/cpu/bands.h"
TRANSPOSE, GEMM = "csrc/cpu/transpose.h", "csrc/cpu/gemm.cpp"
WINOGRAD, TRANSFORMS = "csrc/cpu/winograd.cpp", "csrc/cpu/winograd.inl"
TILES, BACK = "csrc/cpu/winograd_tiles.h", "csrc/cpu/winograd_grad_weight.cpp"
WEIGHT, BIAS = "csrc/cpu/conv2d_grad_weight.cpp", "csrc/cpu/conv2d_grad_bias.cpp"
ENDS = "csrc/cpu/grad_weight.h"
UKERNEL, SCALAR = "csrc/cpu/ukernel.inl", "csrc/cpu/kernels_scalar.cpp"
AVX2, AVX512 = "csrc/cpu/kernels_avx2.cpp", "csrc/cpu/kernels_avx512.cpp"
IM2COL, COL2IM = "csrc/cpu/im2col.inl", "csrc/cpu/col2im.inl"
POINT, LOOPS = "csrc/cpu/pointwise.cpp", "csrc/cpu/pointwise.inl"
FUSION, CONTAINERS = "pydenoise/nn/fusion.py", "pydenoise/nn/containers.py"
ACTIVATION = "pydenoise/nn/activation.py"
OPS, COMPILED = "pydenoise/ops/_conv.py", "pydenoise/ops/_compiled.py"

# fmt: off
MUTANTS = [
    # Index formulas
    Mutant("padding off by one", SHAPE,
           "return {out_size, kernel, stride, dilation, -padding, in_size, 0, 1, 0, 1};",
           "return {out_size, kernel, stride, dilation, 1 - padding, in_size, 0, 1, 0, 1};"),
    Mutant("strides of rows and columns swapped", SHAPE,
           "return forward_axis(s.in_w, s.out_w, s.kernel_w, s.stride_w,",
           "return forward_axis(s.in_w, s.out_w, s.kernel_w, s.stride_h,"),
    Mutant("dilation forgotten on the way back", SHAPE,
           "-(tap_stride * dilation) / stride", "-tap_stride / stride"),
    Mutant("common factor of stride and dilation forgotten", SHAPE,
           "stride / greatest_common_divisor(stride, dilation);", "stride;"),
    Mutant("rows of padding_w in the mirror", SHAPE,
           "mirrored_axis(s.in_h, s.out_h, s.kernel_h, s.stride_h, s.padding_h,",
           "mirrored_axis(s.in_h, s.out_h, s.kernel_h, s.stride_h, s.padding_w,"),
    Mutant("one pixel read past the right edge", SHAPE,
           "positions(size - first);", "positions(size - first + 1);"),
    # Convolution: weights and where a pixel's sums go
    Mutant("first group's weights for all", CONV,
           "weight + group * group_weights,", "weight,"),
    Mutant("bias of the first group for all", CONV,
           "of_group.bias += group * d.dest_channels;", "of_group.bias += 0;"),
    Mutant("bias of the first panel for all", CONV,
           "finish.bias == nullptr ? nullptr : finish.bias + first,", "finish.bias,"),
    Mutant("activation's output of the first panel for all", CONV,
           "dest.output + offsets[i] + first;", "dest.output + offsets[i];"),
    Mutant("a surplus row reads the first pixel", CONV,
           "tile.source[i] = tile.source[i - 1];", "tile.source[i] = tile.source[0];"),
    Mutant("a surplus row is written over the first pixel", CONV,
           "offsets[i] = offsets[i - 1];", "offsets[i] = offsets[0];"),
    Mutant("taps that lie apart read as one run", CONV,
           "if (tile.tap_col_step == tile.run) {", "if (true) {"),
    Mutant("rows of taps that lie apart read as one run", CONV,
           "if (tile.tap_cols == 1 && tile.tap_row_step == tile.run) {",
           "if (tile.tap_cols == 1) {"),
    Mutant("a panel's weights over the first one's", CONV,
           "taps[tap].begin + panel * taps[tap].panel_step + c * width);",
           "taps[tap].begin + c * width);"),
    Mutant("kernel taps transposed", CONV,
           "taps[rows.kernel_index(i) * d.shape.kernel_w + cols.kernel_index(j)] = {",
           "taps[cols.kernel_index(j) * d.shape.kernel_h + rows.kernel_index(i)] = {"),
    Mutant("weights of a phase packed over the last one's", DIRECTION,
           "terms_before += of_rows.taps * of_cols.taps * source_channels;", ""),
    Mutant("bands of the first group alone", BANDS,
           "index / per_picture % d.shape.groups, y0,", "0, y0,"),
    # What a convolution reads
    Mutant("rows above the picture read", SOURCE,
           "if (row < 0 || row >= rows_.size || in.begin == in.end) {",
           "if (row >= rows_.size || in.begin == in.end) {"),
    Mutant("left border left as it was", SOURCE,
           "std::fill(to, to + in.begin * channels_, T(0));", ""),
    Mutant("right border left as it was", SOURCE,
           "std::fill(to + in.end * channels_, end, T(0));", ""),
    Mutant("a picture with borders read in place", SOURCE,
           "rows_.inside(direction.rows(0).count) && cols_.inside(direction.cols(0).count);",
           "rows_.inside(direction.rows(0).count);"),
    Mutant("first group's input for all", SOURCE,
           "from = image_.at(picture, group * channels_);\n  for (int64_t i = 0; i < rows_",
           "from = image_.at(picture, 0);\n  for (int64_t i = 0; i < rows_"),
    Mutant("patches of a later band from the first one's rows", SOURCE,
           "const int64_t row = rows.source(y, i),", "const int64_t row = rows.source(y - y0, i),"),
    Mutant("border of a patch left as it was", SOURCE,
           "std::fill(to, to + channels_, T(0));", ""),
    Mutant("every phase reads the first one's rows", SOURCE,
           "buffer + (rows.offset - rows_.first) * row_pitch", "buffer + 0 * row_pitch"),
    Mutant("every phase reads the first one's rows of planes", SOURCE,
           "(rows.offset - rows_.first) * width +", "0 * width +"),
    Mutant("left border of a plane left as it was", SOURCE,
           "std::fill(to + c * plane, to + c * plane + begin, T(0));", ""),
    Mutant("rows copied however far the taps are apart", SOURCE,
           "first <= kMostWaste * patches && rows_size(d, 2) - first <= patches;",
           "rows_size(d, 2) > 0;"),
    Mutant("planes copied however far the taps are apart", FEW,
           "Source<T>::planes_size(d, 1) <= kMostWaste * Source<T>::buffer_size(d, 1);",
           "kMostWaste > 0;"),
    # Where a convolution writes
    Mutant("rows below the picture written", DEST,
           "smaller(direction_.dest_h - y0 * step_, (y1 - y0) * step_);", "(y1 - y0) * step_;"),
    Mutant("activation's output of the first rows for all", DEST,
           "output_.data + (data - image_.data);", "output_.data;"),
    Mutant("last block of a transposition beyond the matrix", TRANSPOSE,
           "block(smaller(i, rows - kSide), smaller(j, cols - kSide));", "block(i, j);"),
    Mutant("blocks that overlap added twice", TRANSPOSE,
           "kAdd ? rows - rows % kSide : rows;", "rows;"),
    Mutant("a zero loses its sign", TRANSPOSE,
           "element = kAdd ? element + value : value;",
           "element = (kAdd ? element : T(0)) + value;"),
    # Few channels
    Mutant("a surplus vector is written over the first", FEW,
           "tile.dest[v] = tile.dest[v - 1];", "tile.dest[v] = tile.dest[0];"),
    Mutant("bias of the first group of planes for all", FEW,
           "finish.bias + band.group * d.dest_channels;", "finish.bias;"),
    Mutant("columns of every phase written over the first one's", FEW,
           "cols.dest_first * dest.stride_w;", "0 * dest.stride_w;"),
    Mutant("bands of planes too near each other", FEW,
           "band.y0 * d.rows(0).dest_step * dest.stride_h;", "band.y0 * dest.stride_h;"),
    # Winograd
    Mutant("bands that begin inside a tile", WINOGRAD,
           "bands.align(side, rounded);", ""),
    Mutant("kernel of the mirror not turned", WINOGRAD,
           "d.mirrored ? scratch + (kWinogradTaps - 1) * nr : scratch, tap_step, nr);",
           "((void)tap_step, scratch), nr, nr);"),
    Mutant("a tile's lower edge taken from the first band", WINOGRAD,
           "d.dest_h - y0 * step - y, d.dest_w - x,", "d.dest_h - y, d.dest_w - x,"),
    Mutant("bias of the first group of tiles for all", WINOGRAD,
           "of_group.bias += group * d.dest_channels;", "of_group.bias += 0;"),
    Mutant("a tile reads what no pixel of it does", TILES,
           "source_h = smaller(source_h, end_h);", ""),
    Mutant("a tile reads what its first phase does", TILES,
           "j < d.phases_w; ++j", "j < 1; ++j"),
    Mutant("the next row of source pixels two further", WINOGRAD,
           "d.mirrored ? reading.y_step : reading.tap_row_step;", "reading.y_step;"),
    Mutant("a panel's transformed weights over the first one's", WINOGRAD,
           "packed + panel * plan.panel_size + c * nr,", "packed + c * nr,"),
    Mutant("sign of a term of B^T d B", TRANSFORMS,
           "to[1] = d[1] + d[2];", "to[1] = d[1] - d[2];"),
    Mutant("the last plane of stride 2 not a difference", TRANSFORMS,
           "to[4] = d[4] - d[2];", "to[4] = d[4];"),
    Mutant("the third pixel of the mirror the first", TRANSFORMS,
           "to[2] = m[4];", "to[2] = m[3];"),
    Mutant("a gradient's last pixel with the wrong sign", TRANSFORMS,
           "to[3] = -y[1];", "to[3] = y[1];"),
    Mutant("the middle tap's second product left out", TRANSFORMS,
           "return sum == 1 ? 2 : 1;", "return 1;"),
    Mutant("gradients beside the picture read", TRANSFORMS,
           "const bool exists = i < rows && j < cols;", "const bool exists = i < rows;"),
    Mutant("a later block written over the sums before it", BACK,
           "walk, accumulate);", "walk, false);"),
    Mutant("every picture's gradient the first one's", BACK,
           "gradient.at(picture, group * plan.rows);", "gradient.at(0, group * plan.rows);"),
    Mutant("bands of gradients too near each other", BACK,
           "pixels + (y0 + y) * gradient.stride_h", "pixels + y * gradient.stride_h"),
    Mutant("the last tiles of a piece left out", BACK,
           "  flush();\n}", "}"),
    Mutant("sums of the first share alone", BACK,
           "(share + 1) * sums / shares, plan);", "sums / shares, plan);"),
    Mutant("terms of a result apart from each other", TRANSFORMS,
           "of[i][j] = place++;", "of[j][i] = place++;"),
    Mutant("a weight of F(4 x 4) twice as large", TRANSFORMS,
           "g[0] * T(1.0 / 24)", "g[0] * T(1.0 / 12)"),
    Mutant("right edge of a tile ignored", TRANSFORMS,
           "if (i >= tile.rows || j >= tile.cols) continue;", "if (i >= tile.rows) continue;"),
    Mutant("bias of a tile lost", TRANSFORMS,
           "bias == nullptr ? y[i] : Vec::add(y[i], add);", "y[i];"),
    Mutant("activation's output of a tile's first pixel for all", TRANSFORMS,
           "tile.output == nullptr ? nullptr : tile.output + offset;",
           "tile.output == nullptr ? nullptr : tile.output + c;"),
    # Micro-kernels
    Mutant("old tile ignored", UKERNEL,
           "accumulate ? Vec::add(Vec::load(to), sum[i][v]) : sum[i][v]", "sum[i][v]"),
    Mutant("only the last block of terms kept", UKERNEL,
           "if (has_total) add<Vec>(sum, total);\n  finish_tile", "finish_tile"),
    Mutant("only the last block of terms kept in planes", UKERNEL,
           "if (has_total) add<Vec>(sum, total);\n#pragma", "#pragma"),
    Mutant("blocks of terms never end", UKERNEL,
           "room -= count;", ""),
    Mutant("blocks of terms never end in planes", UKERNEL,
           "if (--room == 0) {", "if (room == 0) {"),
    Mutant("gradient masked by itself", UKERNEL,
           "const typename Vec::V z = Vec::load_some(output, lanes);",
           "const typename Vec::V z = sum;"),
    Mutant("activation's output of the first vector for all", UKERNEL,
           "tile.output[i] + v * kLanes;", "tile.output[i];"),
    Mutant("bias of the first vector for all", UKERNEL,
           "Vec::load_some(bias + v * kLanes, lanes);", "Vec::load_some(bias, lanes);"),
    Mutant("channels behind the last written", UKERNEL,
           "finished<Vec>(with_bias, output, lanes, finish),\n                      lanes);",
           "finished<Vec>(with_bias, output, lanes, finish),\n                      kLanes);"),
    Mutant("bias read behind its last value", UKERNEL,
           "Vec::load_some(bias + v * kLanes, lanes);", "Vec::load(bias + v * kLanes);"),
    Mutant("pixels of a block added twice", UKERNEL,
           "pixel + (step << (level - 1)),", "pixel + step,"),
    Mutant("last pixel behind the blocks lost", UKERNEL,
           "for (; left > 0; --left, pixel += step) add_block",
           "for (; left > 1; --left, pixel += step) add_block"),
    Mutant("scalar leaky ReLU passes at zero", SCALAR,
           "sign > zero() ? value : value * slope;",
           "sign >= zero() ? value : value * slope;", ("scalar",)),
    Mutant("scalar planes compute two of three vectors", SCALAR,
           "plane_kernel<Floats, 3, 3>", "plane_kernel<Floats, 3, 2>", ("scalar",)),
    Mutant("AVX2 ReLU takes NaN for zero", AVX2,
           "_mm256_max_ps(zero(), x);", "_mm256_max_ps(x, zero());", ("avx2",)),
    Mutant("narrow AVX2 tile computes half its rows", AVX2,
           "{12, 8, 13, outer_kernel<Floats, 12, 1>}",
           "{12, 8, 13, outer_kernel<Floats, 6, 1>}", ("avx2",)),
    Mutant("AVX2 gathers four of six pixels", AVX2,
           "{6, 16, 21, gather_kernel<Floats, 6, 2>}",
           "{6, 16, 21, gather_kernel<Floats, 4, 2>}", ("avx2",)),
    Mutant("AVX-512 tile computes 12 of 16 rows", AVX512,
           "{16, 8, 20, outer_kernel<Doubles, 16, 1>}",
           "{16, 8, 20, outer_kernel<Doubles, 12, 1>}", ("avx512",)),
    Mutant("AVX-512 gradient passes at zero", AVX512,
           "_mm512_cmp_ps_mask(output, zero(), _CMP_LE_OQ)",
           "_mm512_cmp_ps_mask(output, zero(), _CMP_LT_OQ)", ("avx512",)),
    # Matrix products
    Mutant("only the last K-block kept", GEMM,
           "walk, k0 > 0);", "walk, false);"),
    Mutant("first K-block of the left side used again", GEMM,
           "block.m0 + i * mr, block.m1,\n           k0, kc);",
           "block.m0 + i * mr, block.m1,\n           0, kc);"),
    Mutant("product does not accumulate", GEMM,
           "element = accumulate ? element + from[j] : from[j];", "element = from[j];"),
    # Gradients of the parameters
    Mutant("weight gradient does not accumulate", ENDS,
           "transpose<true>(to, step, taps, nr, count, valid);",
           "transpose(to, step, taps, nr, count, valid);"),
    Mutant("first group's input read in place", WEIGHT,
           "input_.at(chunk.n0, group * plan_.channels)", "input_.at(chunk.n0, 0)"),
    Mutant("first group's gradient copied", WEIGHT,
           "gradient_.at(n, group * plan_.rows)", "gradient_.at(n, 0)"),
    Mutant("only the last chunk of pixels counted", WEIGHT,
           "o.walk, i > begin);", "o.walk, false);"),
    Mutant("second piece of pixels lost", ENDS,
           "for (int64_t piece = 1; piece < pieces; ++piece) {",
           "for (int64_t piece = 2; piece < pieces; ++piece) {"),
    Mutant("order of sums left to the number of threads", WEIGHT,
           "smaller(smaller(chunks, Bands::kTasksWanted), worthwhile)",
           "smaller(chunks, thread_count())"),
    Mutant("all but the first block of a share lost", WEIGHT,
           "(share + 1) * shared,", "share * shared + 1,"),
    Mutant("pixels cut off on the left not skipped in the gradient", WEIGHT,
           "y.begin * o.walk.b_step[1] + x.begin * o.walk.b_step[2];",
           "y.begin * o.walk.b_step[1];"),
    Mutant("part of a row copied from its beginning", WEIGHT,
           "copied.first + chunk.x0 * copied.x_step +", "copied.first +"),
    Mutant("part of a row of the gradient read from its beginning", WEIGHT,
           "chunk.y0 * gradient_.stride_h + chunk.x0 * gradient_.stride_w;",
           "chunk.y0 * gradient_.stride_h;"),
    Mutant("every tap of a row given the first one's sums", WEIGHT,
           "plan.by_tap ? channel : j * plan.channels + channel;", "channel;"),
    Mutant("second picture copied over the first", WEIGHT,
           "copy + (task / steps * pixels + first) * channels,", "copy + first * channels,"),
    Mutant("bias gradient does not accumulate", BIAS,
           "(accumulate ? grad_bias[c] + sum : sum)", "(sum)"),
    Mutant("second piece of the bias gradient lost", BIAS,
           "for (int64_t piece = 1; piece < pieces;", "for (int64_t piece = 2; piece < pieces;"),
    Mutant("bias gradient's order left to the number of threads", BIAS,
           "smaller(smaller(pixels, kMostPieces), pixels * channels / kPieceElements)",
           "smaller(pixels, thread_count())"),
    Mutant("pixels of the first picture counted again", BIAS,
           "image.at(begin / pixels, 0) + pixel,", "image.at(0, 0) + pixel,"),
    Mutant("bias gradient's first pixels again and again", BIAS,
           "const T* from = grad_output.data + first * channels;  // all pixels are evenly spaced",
           "const T* from = grad_output.data + begin * channels;"),
    # Fused layers
    Mutant("an entry stays on the rectifier's stack", FUSION,
           "        rectifier.drop_newest()\n", ""),
    Mutant("a second rectifier in place of the first", FUSION,
           "            and before.rectifier is None\n", ""),
    Mutant("a rectifier fused whose output is the caller's", FUSION,
           "(module.keeps_output or i + 1 < len(modules))", "module.finish is not None"),
    Mutant("the last convolution's format left to the layers", CONTAINERS,
           "outside if step.is_last_convolution else inside", "inside"),
    Mutant("the first convolution's format left to the layers", CONTAINERS,
           "outside if step.is_first_convolution else inside", "inside"),
    Mutant("steps never planned again", CONTAINERS,
           "if planned[0] != changes:", "if planned[0] == -1:"),
    Mutant("a slope that is no number fused", ACTIVATION,
           "if not self.negative_slope >= 0:", "if self.negative_slope < 0:"),
    Mutant("an activation's output that negates read as it lies", OPS,
           "finish._replace(output=output), output", "finish, output"),
    Mutant("an activation's output in another format read while writing", COMPILED,
           "not (last and output.stride() == image.stride())", "not last"),
    # im2col and col2im
    Mutant("overlapping columns overwrite", COL2IM,
           "sum.value += Wide::load(from[k] + x).value;", "sum = Wide::load(from[k] + x);"),
    Mutant("overlapping columns overwrite at the border", COL2IM,
           "sum.value += Wide::load_some(from[k] + x, mask[k]).value;",
           "sum = Wide::load_some(from[k] + x, mask[k]);"),
    Mutant("what the border cuts off is added", COL2IM,
           "whole[block] && lanes == Wide::kAll;", "whole[block];"),
    Mutant("rows of the kernel that miss the picture are added", COL2IM,
           "if (y0 < ys.begin || y0 >= ys.end) continue;", ""),
    Mutant("taps beyond the 32nd alone", COL2IM,
           "range.begin += kAtOnce, more = true", "range.begin += kAtOnce"),
    Mutant("taps beyond the 128th lost", COL2IM,
           "tap < most || tap == 0;", "tap == 0;"),
    Mutant("rows of a later tile read from the first", COL2IM,
           "band.columns = columns + y0 * s.out_w;", "band.columns = columns;"),
    Mutant("second tile of a long row summed into the first", COL2IM,
           "plane + y0 * to_stride + x0 * step;", "plane + y0 * to_stride;"),
    Mutant("every second phase of rows left as it was", COL2IM,
           "if (phase + step < end) run(next);", ""),
    Mutant("left padding read", IM2COL,
           "return below(end) & ~below(begin);", "return below(end);"),
    Mutant("lower padding left as it was", IM2COL,
           "for (int64_t y = tap->ys.end; y < high; ++y, to += to_stride) fill_zero(to, width);",
           ""),
    Mutant("last register of a row not copied", IM2COL,
           "parts_each = (width + kLanes - 1) / kLanes;", "parts_each = width / kLanes;"),
    Mutant("second tile of a long row taken from the first", IM2COL,
           "const int64_t before = tile.x0 + x;", "const int64_t before = x;"),
    Mutant("streamed registers all in one place", IM2COL,
           "block.stream(to + part.to)", "block.stream(to)", VECTORS),
    Mutant("upper half of every second pixel one late", IM2COL,
           "load_some(from + kLanes, high)", "load_some(from + kLanes + 1, high)"),
    Mutant("even and odd columns exchanged", IM2COL,
           "(lane % 2 == 0 ? 0 : n)", "(lane % 2 == 0 ? n : 0)"),
    # Pointwise
    Mutant("gradient passes at zero", LOOPS,
           "output[i] <= 0 ? T(0) : gradient;", "output[i] < 0 ? T(0) : gradient;"),
    Mutant("large negative numbers not cut off in the sigmoid", LOOPS,
           "x = x < -104.0f ? -104.0f : x;", ""),
    Mutant("sigmoid's gradient as the report prints it", LOOPS,
           "grad_output[i] * (output[i] * (T(1) - output[i]));",
           "grad_output[i] * (output[i] * -output[i]);"),
    Mutant("bias of the chain lost in channels_last", LOOPS,
           "to[i] += row[i];", "to[i] += 0 * row[i];"),
    Mutant("bias of a channel for the next plane, too", POINT,
           "smaller(end, (plane + 1) * pixels) - first;", "end - first;"),
    Mutant("sign of the squared error's gradient", LOOPS,
           "out[i] = (input[i] - target[i]) * scale;", "out[i] = (target[i] - input[i]) * scale;"),
    Mutant("rest of a loss not summed", LOOPS,
           "i < count; ++i, ++lane) add", "i + 1 < count; ++i, ++lane) add"),
    Mutant("dampening in the first step", LOOPS,
           "f.first ? d : f.momentum", "f.first ? f.fresh * d : f.momentum"),
    Mutant("Adam without correction of the start", POINT,
           "std::sqrt(1 - std::pow(rule.beta2, step))", "std::sqrt(1 - 0 * step)"),
]
# fmt: on
MUTANTS += [Mutant(*slip, CUDA) for slip in SLIPS]
MUTANTS += [Mutant(*slip, ANY) for slip in slips_files.SLIPS]
