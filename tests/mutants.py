"""Break the kernels on purpose, one slip at a time, and see the tests notice.

    python tests/mutants.py [name ...]

Works in a copy of the tree in a temporary folder. The unbroken copy has to pass first; then each
mutant is built there and the tests run once under every instruction set of the machine, until one
fails. Printed is the test that caught it. A mutant that survives under any instruction set, or
whose text is no longer found in the source, makes the exit status 1.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
NOT_COPIED = (".*", "build", "*.egg-info", "__pycache__", "*.so", "results", "weights")
LONGEST_RUN_S = 600
ISAS = ("scalar", "avx2", "avx512")
VECTORS = ("avx2", "avx512")

CONVOLUTIONS = ("tests/test_ops_conv.py", "tests/test_ops_laws.py")
POINTWISE = ("tests/test_ops_pointwise.py", "tests/test_ops_optimizers.py")


class Mutant(NamedTuple):
    """One slip: in `file`, `right` (found once) becomes `wrong`."""

    name: str
    file: str
    right: str
    wrong: str
    isas: tuple[str, ...] = ISAS

    @property
    def tests(self) -> tuple[str, ...]:
        return (*POINTWISE, *CONVOLUTIONS) if self.file in (POINT, LOOPS) else CONVOLUTIONS


SHAPE = "csrc/conv_shape.h"
CONV = "csrc/cpu/conv2d.cpp"
WEIGHT = "csrc/cpu/conv2d_grad_weight.cpp"
GEMM_H, GEMM = "csrc/cpu/gemm.h", "csrc/cpu/gemm.cpp"
PATCHES, IM2COL = "csrc/cpu/patches.h", "csrc/cpu/im2col.inl"
UKERNEL, SCALAR = "csrc/cpu/ukernel.inl", "csrc/cpu/kernels_scalar.cpp"
POINT, LOOPS = "csrc/cpu/pointwise.cpp", "csrc/cpu/pointwise.inl"

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
    # Convolution
    Mutant("bias lost where pixels are not neighbours", CONV,
           "to[offsets[j]] = from[j] + add;", "to[offsets[j]] = from[j];"),
    Mutant("first channel's bias for all", CONV,
           "(bias == nullptr ? T(0) : bias[j])", "(bias == nullptr ? T(0) : bias[0])"),
    Mutant("first group's weights for all", CONV,
           "weight + group * group_weights,", "weight,"),
    Mutant("first group's input for all", CONV,
           "source.at(picture, group * d.source_channels)", "source.at(picture, 0)"),
    Mutant("bias of the first group for all", CONV,
           "bias + group * d.dest_channels;", "bias;"),
    Mutant("weights of a phase packed over the last one's", CONV,
           "rows(phase).taps * col_taps)", "0 * col_taps)"),
    Mutant("weights of a phase row packed over the last one's", CONV,
           "row_taps += rows(i * phases_w).taps;", ""),
    # Patches
    Mutant("every second pixel taken as the next", PATCHES,
           "to[i + lane] = from[2 * (i + lane)];", "to[i + lane] = from[2 * i + lane];"),
    Mutant("rest of a run not copied", PATCHES,
           "for (; i < count; ++i) to[i] = from[i * step];", ""),
    Mutant("kernel taps transposed", PATCHES,
           "body(tap / p.cols.taps, tap % p.cols.taps,",
           "body(tap % p.rows.taps, tap / p.rows.taps,"),
    # Matrix products
    Mutant("only the last K-block kept", GEMM_H,
           "kernel.run(tile, left_panel, right_panels[j], kc, k0 > 0);",
           "kernel.run(tile, left_panel, right_panels[j], kc, false);"),
    Mutant("first K-block of packed weights used again", GEMM_H,
           "return data + (index * k + k0) * width;", "return data + index * k * width;"),
    Mutant("product does not accumulate", GEMM,
           "element = accumulate ? element + from[j] : from[j];", "element = from[j];"),
    Mutant("old tile ignored by the vector kernels", UKERNEL,
           "accumulate ? Vec::add(Vec::load(to), sum[i][v]) : sum[i][v]", "sum[i][v]", VECTORS),
    Mutant("old tile ignored by the scalar kernels", SCALAR,
           "element = accumulate ? element + sum[i][j] : sum[i][j];",
           "element = sum[i][j];", ("scalar",)),
    Mutant("narrow AVX2 tile computes half its rows", "csrc/cpu/kernels_avx2.cpp",
           "{12, 8, 25, ukernel<Floats, 12, 1>}", "{12, 8, 25, ukernel<Floats, 6, 1>}", ("avx2",)),
    Mutant("AVX-512 tile computes 12 of 14 rows", "csrc/cpu/kernels_avx512.cpp",
           "{14, 16, 44, ukernel<Doubles, 14, 2>}", "{14, 16, 44, ukernel<Doubles, 12, 2>}",
           ("avx512",)),
    # Gradients of the parameters
    Mutant("weight gradient does not accumulate", WEIGHT,
           "element = accumulate ? element + sum : sum;", "element = sum;"),
    Mutant("first group's input in the weight gradient", WEIGHT,
           "input.at(n, group * s.group_in_channels())", "input.at(n, 0)"),
    Mutant("only the last chunk of pixels counted", WEIGHT, "count, chunk > begin);",
           "count, false);"),
    Mutant("second piece of pixels lost", WEIGHT,
           "for (int64_t piece = 1; piece < plan.pieces; ++piece) {",
           "for (int64_t piece = 2; piece < plan.pieces; ++piece) {"),
    Mutant("order of sums left to the number of threads", WEIGHT,
           "smaller(chunks, ceil_div(kTasksWanted, blocks * s.groups))",
           "smaller(chunks, thread_count())"),
    Mutant("bias gradient does not accumulate", WEIGHT,
           "(accumulate ? element + sums[c] : sums[c])", "(sums[c])"),
    # im2col and col2im
    Mutant("overlapping columns overwrite", IM2COL,
           "sum.value += Wide::load(from + i).value;", "sum.value = Wide::load(from + i).value;"),
    Mutant("overlapping columns overwrite at the end of a run", IM2COL,
           "for (; i < count; ++i) to[i] += from[i];", "for (; i < count; ++i) to[i] = from[i];"),
    Mutant("sums of the tile before stay", IM2COL,
           "fill_zero(sums[k], high", "if (first.y0 == 0) fill_zero(sums[k], high"),
    Mutant("what the border cuts off is not set back", IM2COL,
           "sums[tap->cut[k]] = saved[k];", "(void)saved;"),
    Mutant("taps beyond the 64th lost", IM2COL,
           "while (taps[k].next >= 0) {", "while (false) {"),
    Mutant("rows of a later tile read from the first", IM2COL,
           "rows.source(tile.y0 + ys.begin, i) *", "rows.source(ys.begin, i) *"),
    Mutant("left padding left as it was", IM2COL,
           "for (int64_t x = 0; x < xs.begin; ++x) row[x] = T(0);", ""),
    Mutant("lower padding left as it was", IM2COL,
           "fill_zero(row + ys.end * cols.count, (rows.count - ys.end) * cols.count);", ""),
    Mutant("last block of a run not copied", IM2COL,
           "i < count; i += Wide::kLanes", "i + Wide::kLanes <= count; i += Wide::kLanes"),
    Mutant("upper half of every second pixel one late", IM2COL,
           "load(from + kLanes - 1)", "load(from + kLanes)"),
    Mutant("even and odd columns exchanged", IM2COL,
           "(lane % 2 == 0 ? 0 : n)", "(lane % 2 == 0 ? n : 0)"),
    Mutant("last even column of an odd width lost", IM2COL,
           "i < even_count; ++i) {", "i < odd_count; ++i) {"),
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


def build(tree: Path) -> None:
    """Build the kernels of a tree in place; ninja compiles what has changed."""
    environment = os.environ | {"PYDENOISE_BUILD": "cpu"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"the build failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def available_isas(tree: Path) -> tuple[str, ...]:
    """Ask the copy, and make sure that it is the copy that answers."""
    code = (
        "from pydenoise.ops import _backend; import pydenoise._C as c; "
        "print(c.__file__); print(*_backend.available_isas())"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(
        command, cwd=tree, env=environment_of(tree), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if not Path(answer[0]).is_relative_to(tree):
        sys.exit(f"the copy in {tree} is not what Python imports, but {answer[0]}")
    return tuple(answer[1].split())


def environment_of(tree: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(tree), str(tree / "tests")])
    return os.environ | {"PYTHONPATH": paths, "PYDENOISE_BACKEND": "auto"}


def caught_by(tree: Path, tests: tuple[str, ...], isas: tuple[str, ...]) -> dict[str, str]:
    """Name the first test that fails under each instruction set; one under which all pass is
    not in the answer."""
    found: dict[str, str] = {}
    while left := [isa for isa in isas if isa not in found]:
        command = [sys.executable, "-m", "pytest", "-v", "--no-header", "--tb=no", "-p", "mutants"]
        command += ["-p", "no:cacheprovider", "-k", " or ".join(f"cpu-{isa}" for isa in left)]
        try:
            run = subprocess.run(
                [*command, *tests],
                cwd=tree,
                env=environment_of(tree),
                capture_output=True,
                text=True,
                timeout=LONGEST_RUN_S,
            )
        except subprocess.TimeoutExpired:
            return found | dict.fromkeys(left, f"no answer in {LONGEST_RUN_S} s")
        failed = re.findall(r"^FAILED tests/(\S+)", run.stdout, re.MULTILINE)
        found |= {isa_of(test): test for test in failed}
        if run.returncode in (0, 1):
            break
        started = re.findall(r"^tests/(\S+::\S+)", run.stdout, re.MULTILINE)
        if run.returncode > 0 or not started:
            sys.exit(f"pytest did not run the tests:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
        found[isa_of(started[-1])] = f"{started[-1]} (crashed)"
    return found


def isa_of(test: str) -> str:
    """Find the instruction set in a test's name."""
    return next((isa for isa in ISAS if f"cpu-{isa}" in test), "any")


class FirstFailures:
    """A pytest plugin: under an instruction set that has failed no more tests are run."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def pytest_runtest_protocol(self, item: Any) -> bool | None:
        return True if isa_of(item.nodeid) in self._failed else None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._failed.add(isa_of(report.nodeid))


def pytest_configure(config: Any) -> None:
    """Register the plugin where pytest was started with `-p mutants`."""
    config.pluginmanager.register(FirstFailures())


def try_mutant(tree: Path, mutant: Mutant, isas: tuple[str, ...]) -> bool:
    """Build one mutant, run the tests, put the file back; True when it was caught everywhere."""
    path = tree / mutant.file
    right = path.read_text(encoding="utf-8") if path.is_file() else ""
    if right.count(mutant.right) != 1:
        print(f"NOT FOUND  {mutant.name}: {right.count(mutant.right)} times in {mutant.file}")
        return False
    here = tuple(isa for isa in isas if isa in mutant.isas)
    if not here:
        print(f"skipped    {mutant.name}: this processor has none of {', '.join(mutant.isas)}")
        return True
    path.write_text(right.replace(mutant.right, mutant.wrong), encoding="utf-8")
    started = time.perf_counter()
    try:
        build(tree)
        found = caught_by(tree, mutant.tests, here)
    finally:
        path.write_text(right, encoding="utf-8")
    seconds = time.perf_counter() - started
    survived = [isa for isa in here if isa not in found]
    verdict = f"SURVIVED under {', '.join(survived)}" if survived else "caught"
    print(f"{verdict:<10} {mutant.name}  [{mutant.file}, {seconds:.0f} s]")
    for isa in here:
        print(f"             {isa:<7} {found.get(isa, 'nothing noticed')}", flush=True)
    return not survived


def main(names: list[str]) -> int:
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        sys.exit(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    with tempfile.TemporaryDirectory(prefix="pydenoise-mutants-") as folder:
        tree = Path(folder).resolve() / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
        build(tree)
        isas = available_isas(tree)
        failed = caught_by(tree, (*CONVOLUTIONS, *POINTWISE), isas)
        if failed:
            sys.exit(f"the unbroken kernels fail {', '.join(failed.values())}: nothing to show")
        print(f"unbroken   passes under {', '.join(isas)}", flush=True)
        missed = [mutant.name for mutant in chosen if not try_mutant(tree, mutant, isas)]
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mutants caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
