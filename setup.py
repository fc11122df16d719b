"""Builds the kernels and keeps a record of how that went.

PYDENOISE_BUILD=auto (default) | python | cpu | cuda. `auto` builds what the compilers at hand can
build and never makes an install fail; every other value does what it says or fails loudly.
The rest of the package's description is in pyproject.toml.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext as PlainBuildExt
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc" / "cuda"))
# a source archive holds no __pycache__
sys.dont_write_bytecode, writes_none = True, sys.dont_write_bytecode
import nvcc  # noqa: E402

sys.dont_write_bytecode = writes_none

RECORD = ROOT / "pydenoise" / "_build.json"
SOURCES = [
    str(path.relative_to(ROOT))
    for pattern in ("*.cpp", "cpu/*.cpp")
    for path in sorted((ROOT / "csrc").glob(pattern))
    if path.name != "bindings_cuda.cpp"
]
HEADERS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "csrc").rglob("*.*[hi]*"))]
# No errno and no trap is looked at, and no product is fused with a sum unless the code says so:
# none of that changes a number. Loops stay loops: most runs are too short for a call of memset.
FLAGS = ["-std=c++17", "-O3", "-g0", "-Wall", "-Wextra", "-fvisibility=hidden"]
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
FLAGS += ["-fno-tree-loop-distribute-patterns"]
WANTED = ("auto", "python", "cpu", "cuda")
CUDA = "pydenoise._cuda"


def why_no_compiler() -> str | None:
    """None when a C++ compiler answers, else the sentence that says which one did not."""
    command = shlex.split(os.environ.get("CXX", "c++"))
    if not command or shutil.which(command[0]) is None:
        return f"no C++ compiler: {' '.join(command) or 'CXX is empty'} was not found"
    asked = subprocess.run([*command, "--version"], capture_output=True, check=False)
    return None if asked.returncode == 0 else f"{command[0]} --version failed"


class Record:
    """What was wanted, what came of it; printed as a block and kept for `pydenoise info`."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        self.cpu = f"not wanted (PYDENOISE_BUILD={wanted})"
        self.cuda = self.cpu
        self.error_tail: list[str] = []

    def write(self) -> None:
        RECORD.write_text(json.dumps(vars(self), indent=2) + "\n", encoding="utf-8")
        print(f"pydenoise: PYDENOISE_BUILD={self.wanted}", file=sys.stderr)
        print(f"pydenoise:   cpu kernels:  {self.cpu}", file=sys.stderr)
        print(f"pydenoise:   cuda kernels: {self.cuda}", file=sys.stderr)
        if self.cpu != "built":
            print("pydenoise:   the Python backend works without them", file=sys.stderr)


def cpu_extension() -> Extension:
    """The CPU kernels. Their sources hold no torch header, so no torch library is linked."""
    from torch.utils.cpp_extension import CppExtension

    built = CppExtension(
        "pydenoise._C",
        SOURCES,
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args=FLAGS,
        depends=HEADERS,
    )
    built.libraries = []
    built.library_dirs = []
    built.runtime_library_dirs = []
    return built


def cuda_extension() -> Extension:
    """The CUDA kernels, which csrc/cuda/nvcc.py compiles and links: torch's BuildExtension asks
    for a torch built with CUDA as soon as it sees a .cu file."""
    sources, kernels = (
        [str(path.relative_to(ROOT)) for path in paths] for paths in (nvcc.HOST, nvcc.KERNELS)
    )
    return Extension(CUDA, sources, depends=[*kernels, *HEADERS])


@contextmanager
def heard() -> Iterator[list[str]]:
    """What compilers print inside the block, line by line; shown too, on stderr."""
    lines: list[str] = []
    sys.stdout.flush()
    stdout = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            yield lines
        finally:
            sys.stdout.flush()
            os.dup2(stdout, 1)
            os.close(stdout)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
            print(*lines, sep="\n", file=sys.stderr)


def build_command(record: Record) -> type[PlainBuildExt]:
    """torch's BuildExtension with ninja for _C, nvcc.py for _cuda; under `auto` a failing compile
    is noted, not raised, and the other library is built all the same."""
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if record.wanted != "auto":
                    raise
                record.cpu = f"the compile failed ({str(error).splitlines()[0]})"
                self.extensions = []
            record.write()
            if not self.inplace:
                shutil.copy(RECORD, Path(self.build_lib) / "pydenoise")

        def build_extension(self, ext: Extension) -> None:
            kind = "cuda" if ext.name == CUDA else "cpu"
            outcome = "built"
            with heard() as printed:
                try:
                    if kind == "cuda":
                        nvcc.build(nvcc.find(), Path(self.get_ext_fullpath(ext.name)).resolve())
                    else:
                        super().build_extension(ext)
                except Exception as error:
                    if record.wanted != "auto":
                        raise
                    first, *rest = str(error).splitlines() or [type(error).__name__]
                    outcome = f"the compile failed ({first})"
                    self.extensions = [other for other in self.extensions if other is not ext]
            setattr(record, kind, outcome)
            if outcome != "built":
                record.error_tail += [line[:200] for line in [*printed, *rest][-20:]]

    return Build


def record_command(record: Record) -> type[build_py]:
    """Writes the record where there is nothing to compile: when building, not when asked for
    metadata, so that it is said once."""

    class BuildRecord(build_py):
        def run(self) -> None:
            record.write()
            super().run()

    return BuildRecord


def main() -> None:
    wanted = os.environ.get("PYDENOISE_BUILD", "auto")
    if wanted not in WANTED:
        sys.exit(f"PYDENOISE_BUILD must be one of {', '.join(WANTED)}, got {wanted!r}")
    record = Record(wanted)
    extensions = []
    if wanted != "python":
        reason = why_no_compiler()
        if reason is not None:
            if wanted != "auto":
                sys.exit(f"PYDENOISE_BUILD={wanted}: {reason}; install one or point CXX at it")
            record.cpu, record.cuda = reason, "no C++ compiler"
        else:
            extensions.append(cpu_extension())
    if extensions and wanted != "cpu":
        if nvcc.find() is not None:
            extensions.append(cuda_extension())
        elif wanted == "cuda":
            sys.exit("PYDENOISE_BUILD=cuda: nvcc was not found; set CUDA_HOME or PATH")
        else:
            record.cuda = "no CUDA compiler: nvcc was not found"
    if extensions:
        setup(ext_modules=extensions, cmdclass={"build_ext": build_command(record)})
        return
    setup(cmdclass={"build_py": record_command(record)})


main()
