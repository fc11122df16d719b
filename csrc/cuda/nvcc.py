"""Compiles the CUDA kernels: nvcc, driven by ninja, for setup.py and for whoever measures them.

The library is linked with the static CUDA runtime and with nothing of torch, so it loads where no
driver is. What ptxas says of each kernel is kept beside its object: registers and spills.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).resolve().parent.parent
FOLDER = CSRC.parent / "build" / "cuda"
KERNELS = sorted((CSRC / "cuda").glob("*.cu"))
HOST = [CSRC / "bindings_cuda.cpp", CSRC / "conv_shape.cpp", *sorted((CSRC / "cuda").glob("*.cpp"))]
ARCHITECTURES = ("75", "80", "86", "90", "100", "120")
# No product is fused with a sum unless the code says so: the CPU's roundings.
FLAGS = ["-std=c++17", "-O3", "-fmad=false", "-Xptxas", "-v", f"-I{CSRC}"]
HOST_FLAGS = ["-fPIC", "-g0", "-Wall", "-Wextra", "-fvisibility=hidden", "-ffp-contract=off"]

RULES = """\
rule compile
  command = {nvcc} -MD -MF $out.d $flags -c $in -o $out > $out.log 2>&1 || (cat $out.log; false)
  depfile = $out.d
  deps = gcc
  description = nvcc $in
rule link
  command = {nvcc} -shared -cudart static -Xlinker --exclude-libs=ALL $in -o $out
  description = link $out
"""


def find() -> str | None:
    """The CUDA compiler: of CUDA_HOME or CUDA_PATH where that is set, else on the PATH."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            return shutil.which("nvcc", path=Path(os.environ[variable], "bin"))
    return shutil.which("nvcc")


def architectures(nvcc: str) -> tuple[str, ...]:
    """What PYDENOISE_CUDA_ARCHITECTURES names, or of ours those that this compiler knows."""
    named = os.environ.get("PYDENOISE_CUDA_ARCHITECTURES", "").replace(",", " ").split()
    if named:
        wrong = [name for name in named if not re.fullmatch(r"\d{2,3}[af]?", name)]
        if wrong and named != ["native"]:
            raise RuntimeError(
                f"PYDENOISE_CUDA_ARCHITECTURES names {' '.join(wrong)}; expected numbers such as "
                f"{' '.join(ARCHITECTURES)}, or native"
            )
        return tuple(named)
    asked = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=False)
    known = re.findall(r"compute_(\d+)\b", asked.stdout)
    return tuple(name for name in ARCHITECTURES if name in known)


def _code(names: tuple[str, ...]) -> list[str]:
    """Machine code for each architecture, and the last one's PTX for devices to come."""
    if names == ("native",):
        return ["-arch=native"]
    code = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    return [*code, f"-gencode=arch=compute_{names[-1]},code=compute_{names[-1]}"]


def build(nvcc: str, library: Path, folder: Path = FOLDER, strict: bool = False) -> None:
    """Make the library; ninja compiles what has changed.

    Parameters
    ----------
    nvcc : str
        The compiler.
    library : Path
        What is written.
    folder : Path
        Keeps the objects, and beside each what the compiler said.
    strict : bool
        Whether warnings are errors.

    Raises
    ------
    RuntimeError
        With the compiler's words, where it fails.
    """
    import pybind11

    names = architectures(nvcc)
    if not names:
        raise RuntimeError(f"{nvcc} knows none of the architectures {' '.join(ARCHITECTURES)}")
    command = [
        nvcc,
        *(["-ccbin", shlex.split(os.environ["CXX"])[0]] if "CXX" in os.environ else []),
    ]
    flags = [*FLAGS, *(flag for name in HOST_FLAGS for flag in ("-Xcompiler", name)), *_code(names)]
    flags += ["-Werror", "all-warnings"] if strict else []
    listed = f"-DPYDENOISE_CUDA_ARCHITECTURES='\"{';'.join(names)}\"'"
    python = [sysconfig.get_paths()["include"], pybind11.get_include()]
    host = [listed, *(f"-I{include}" for include in python)]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [RULES.format(nvcc=shlex.join(command))]
    objects = []
    for source in [*KERNELS, *HOST]:
        objects.append(folder / f"{source.name}.o")
        extra = host if source.suffix == ".cpp" else []
        lines += [f"build {_escaped(objects[-1])}: compile {_escaped(source)}"]
        lines += [f"  flags = {' '.join([*map(shlex.quote, flags), *extra])}"]
    lines += [f"build {_escaped(library)}: link {' '.join(map(_escaped, objects))}", ""]
    file = folder / "build.ninja"
    file.write_text("\n".join(lines), encoding="utf-8")
    library.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*_ninja(), "-f", str(file), "-j", os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"nvcc failed\n{done.stdout}")


def _ninja() -> list[str]:
    if importlib.util.find_spec("ninja") is not None:
        return [sys.executable, "-m", "ninja"]
    return ["ninja"]


def _escaped(path: Path) -> str:
    return re.sub(r"([$ :])", r"$\1", str(path))


class Usage(NamedTuple):
    """What ptxas gave one kernel on one architecture."""

    kernel: str
    architecture: str
    registers: int
    stack_bytes: int
    spill_bytes: int


def usages(folder: Path = FOLDER) -> list[Usage]:
    """Read what ptxas said of every kernel when it was compiled."""
    found = []
    for source in KERNELS:
        log = (folder / f"{source.name}.o.log").read_text(encoding="utf-8")
        for name, architecture, said in re.findall(
            r"Compiling entry function '(\w+)' for 'sm_(\w+)'(.*?)(?=Compiling entry|\Z)", log, re.S
        ):
            stack, stores, loads, registers = (
                re.search(pattern, said)
                for pattern in (
                    r"(\d+) bytes stack frame",
                    r"(\d+) bytes spill stores",
                    r"(\d+) bytes spill loads",
                    r"Used (\d+) registers",
                )
            )
            assert stack and stores and loads and registers, said
            found.append(
                Usage(
                    name,
                    architecture,
                    int(registers[1]),
                    int(stack[1]),
                    int(stores[1]) + int(loads[1]),
                )
            )
    return found


def warnings(folder: Path = FOLDER) -> list[str]:
    """The lines in which the compiler warned."""
    return [
        line
        for source in [*KERNELS, *HOST]
        for line in (folder / f"{source.name}.o.log").read_text(encoding="utf-8").splitlines()
        if re.search(r"\bwarning\b", line, re.I)
    ]
