"""The kernels under the compiler's sanitizers; each finds a fault that is put in on purpose.

    python tests/sanitize.py [native] [threads] [fuzz] [python] [--cases COUNT]

native: tests/native/harness.cpp with ASan and UBSan, every instruction set of the machine.
threads: the same with TSan, several threads below several callers.
fuzz: the same with ASan, on ten times as many inputs that libFuzzer makes of those which took new
ways through the code; they are kept in build/corpus. Wants a clang and a libFuzzer, those of the
packages ziglang and atheris (the extra `fuzz`).
python: the extension with ASan and UBSan, under the tests of the kernels.

Works in a copy of the tree in a temporary folder; wants g++ with its sanitizers.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from conftest import GUARD
from kept import ROOT
from mutants import available_isas, copied, environment_of
from slips import CONVOLUTIONS, LAYERS, POINTWISE

HARNESS = ROOT / "tests" / "native" / "harness.cpp"
SOURCES = [
    path
    for pattern in ("*.cpp", "cpu/*.cpp")
    for path in sorted((ROOT / "csrc").glob(pattern))
    if not path.name.startswith("bindings")
]
FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fno-omit-frame-pointer", "-pthread"]
MEMORY = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
RACES = ["-fsanitize=thread"]
WAYS = ["-fno-sanitize=all", "-Xclang", "-fsanitize=address"]
WAYS += ["-fsanitize-coverage=inline-8bit-counters,pc-table,trace-cmp"]
CORPUS = ROOT / "build" / "corpus"
LONGEST_INPUT = 200  # bytes, as many as the harness makes by itself
FEWEST_WAYS = 2000
SURROUNDINGS = {
    "ASAN_OPTIONS": "detect_leaks=0:alloc_dealloc_mismatch=0:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
LONGEST_S = 3600


class Failed(Exception):
    """A part that found a fault, or found none where there is one."""


def run(command: Sequence[str | Path], **surroundings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env=os.environ | SURROUNDINGS | surroundings,
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )


def compiled(
    folder: Path,
    flags: list[str],
    control: str,
    *,
    compiler: Sequence[str] = ("g++",),
    libraries: Sequence[str | Path] = (),
) -> tuple[Path, Path]:
    """The harness, and the harness with a fault."""

    def compile_one(source: Path, name: str, *more: str) -> Path:
        target = folder / f"{name}.o"
        options = [*FLAGS, *flags, *more, f"-I{ROOT / 'csrc'}"]
        done = run([*compiler, *options, "-c", source, "-o", target])
        if done.returncode != 0:
            raise Failed(f"{source.name} does not compile:\n{done.stderr[-3000:]}")
        return target

    def link(harness: Path, kernels: list[Path]) -> Path:
        program = harness.with_suffix("")
        done = run([*compiler, *FLAGS, *flags, harness, *kernels, *libraries, "-o", program])
        if done.returncode != 0:
            raise Failed(f"the harness does not link:\n{done.stderr[-3000:]}")
        return program

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        right = pool.submit(compile_one, HARNESS, "right")
        wrong = pool.submit(compile_one, HARNESS, "wrong", f"-D{control}")
        kernels = list(pool.map(lambda source: compile_one(source, source.name), SOURCES))
    return link(right.result(), kernels), link(wrong.result(), kernels)


def expect(done: subprocess.CompletedProcess[str], report: str | None) -> str:
    """That a run ended well, or by a sanitizer's report of this kind."""
    said = done.stdout + done.stderr
    if report is None and done.returncode != 0:
        raise Failed(said[-5000:])
    if report is not None and (done.returncode == 0 or report not in said):
        raise Failed(f"the fault put in was not reported:\n{said[-3000:]}")
    if report is not None:
        return f"control: {report}"
    return (done.stdout.strip().splitlines() or [""])[-1]


def native(folder: Path, cases: int) -> list[str]:
    right, wrong = compiled(folder, MEMORY, "PYDENOISE_SHORT")
    return [
        expect(run([wrong, "1000", "0"]), "heap-buffer-overflow"),
        expect(run([right, str(cases), "1"]), None),
        expect(run([right, str(cases // 10), "2", "3"]), None),
    ]


def threads(folder: Path, cases: int) -> list[str]:
    right, wrong = compiled(folder, RACES, "PYDENOISE_RACE")
    found = [expect(run([wrong, "100", "0", "3"]), "data race")]
    for isa in available_isas(ROOT):
        done = run([right, str(max(1, cases // 100)), "1", "3", "2"], PYDENOISE_ISA=isa)
        found.append(f"{isa}: {expect(done, None)}")
    return found


def fuzz(folder: Path, cases: int) -> list[str]:
    engine = importlib.util.find_spec("asan_with_fuzzer")  # lies beside atheris
    if importlib.util.find_spec("ziglang") is None or engine is None or engine.origin is None:
        raise Failed("there is no libFuzzer: pip install the extra fuzz")
    library = Path(engine.origin)
    right, wrong = compiled(
        folder,
        [*WAYS, "-DPYDENOISE_LIBFUZZER"],
        "PYDENOISE_SHORT",
        compiler=(sys.executable, "-m", "ziglang", "c++"),
        libraries=[library, f"-Wl,-rpath,{library.parent}"],
    )
    CORPUS.mkdir(parents=True, exist_ok=True)
    seeds, numbers = folder / "seeds", random.Random(0)
    seeds.mkdir()
    for index in range(100):
        (seeds / str(index)).write_bytes(numbers.randbytes(LONGEST_INPUT))
    known = len(list(CORPUS.iterdir())) + len(list(seeds.iterdir()))
    limits = [f"-runs={known + 10 * cases}", f"-max_len={LONGEST_INPUT}", "-len_control=0"]
    done = run([wrong, *limits, f"-artifact_prefix={folder}/", seeds])
    found = [expect(done, "heap-buffer-overflow")]
    done = run([right, *limits, f"-artifact_prefix={CORPUS}/", CORPUS, seeds])  # crashes are kept
    expect(done, None)
    ran, ways = (re.findall(word, done.stderr) for word in (r"Done (\d+) runs", r"cov: (\d+)"))
    if not ran or int(ran[-1]) < known + 10 * cases or not ways or int(ways[-1]) < FEWEST_WAYS:
        raise Failed(f"libFuzzer did not do its work:\n{done.stderr[-3000:]}")
    return [*found, f"{int(ran[-1]) - known} new inputs of libFuzzer, which took {ways[-1]} ways"]


def python(folder: Path, cases: int) -> list[str]:
    tree = copied(folder / "tree")
    flags = " ".join(["-O1 -g", *MEMORY])
    libraries = [  # the second, since the first wants to know it when it is loaded
        run(["g++", f"-print-file-name={name}"]).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    surroundings = environment_of(tree) | {"PYDENOISE_BUILD": "cpu"}

    def built() -> None:
        done = subprocess.run(
            build,
            cwd=tree,
            env=surroundings | {"CFLAGS": flags, "LDFLAGS": MEMORY[0]},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"the extension does not build:\n{done.stderr[-3000:]}")

    def tested(tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-qx",
            "--capture=sys",
            "-p",
            "no:cacheprovider",
            *tests,
        ]
        return subprocess.run(
            command,
            cwd=tree,
            env=surroundings
            | SURROUNDINGS
            | {"LD_PRELOAD": ":".join(libraries), "OMP_NUM_THREADS": "2"},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )

    built()
    every = dict.fromkeys((*CONVOLUTIONS, *LAYERS, *POINTWISE))
    found = [expect(tested([*every, "-k", "cpu"]), None)]
    kernel = tree / "csrc" / "cpu" / "conv2d_grad_bias.cpp"
    text = kernel.read_text()
    slip = f"grad_bias[channels + {GUARD}] = T(0);  // the first behind what tests allocate\n"
    body = text.index("{", text.index("void conv2d_grad_bias(")) + 1
    kernel.write_text(text[:body] + "\n  " + slip + text[body:])
    built()
    done = tested(["tests/test_ops_conv.py", "-k", "bias"])
    return [expect(done, "heap-buffer-overflow"), *found]


PARTS = {"native": native, "threads": threads, "fuzz": fuzz, "python": python}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART")
    parser.add_argument("--cases", type=int, default=20_000)
    options = parser.parse_args()
    faults, every = 0, []
    for name in options.parts or PARTS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                said = PARTS[name](Path(folder), options.cases)
            except Failed as failed:
                said = [f"FAILED\n{failed}"]
                faults += 1
        for line in said:
            print(f"{name}: {line}", flush=True)
        every += said
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    print("; ".join(every))
    print(f"{faults} reports")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
