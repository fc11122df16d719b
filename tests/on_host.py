"""The CUDA kernels as plain C++ on this machine: built by g++, called on tensors in main memory.

tests/cuda_on_host/cuda_runtime.h stands in for CUDA's header; the sources are the very same.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import ConvCase
from torch import Tensor

from pydenoise import objectives, ops
from pydenoise.ops import _backend, _check, _cuda

ROOT = Path(__file__).resolve().parent.parent
STAND_IN = ROOT / "tests" / "cuda_on_host"
SOURCES = [
    ROOT / "csrc" / "bindings_cuda.cpp",
    ROOT / "csrc" / "conv_shape.cpp",
    STAND_IN / "index_maps.cpp",
    *sorted((ROOT / "csrc" / "cuda").glob("*.c*")),
]
FLAGS = ["-std=c++17", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
# a device traps where 16 bytes are read from an odd address, this processor only if told to
FLAGS += ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
FLAGS += ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-U_FORTIFY_SOURCE"]
FLAGS += ["-DPYDENOISE_CUDA_MODULE=_cuda_host", '-DPYDENOISE_CUDA_ARCHITECTURES="host"']


def why_not_on_host() -> str | None:
    """None where the kernels can be built for this machine's processor."""
    return None if shutil.which("g++") else "no g++ to build the CUDA kernels for the host"


def _has_fma() -> bool:
    try:
        return " fma " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def build(folder: Path) -> Path:
    """Compile the kernels into a Python module; PYDENOISE_HOST_FLAGS adds to the command line."""
    import pybind11

    includes = [STAND_IN, ROOT / "csrc", sysconfig.get_paths()["include"], pybind11.get_include()]
    flags = [*FLAGS, *(["-mfma"] if _has_fma() else []), *(f"-I{path}" for path in includes)]
    flags += shlex.split(os.environ.get("PYDENOISE_HOST_FLAGS", ""))
    sources = [source for source in SOURCES if source.suffix in (".cpp", ".cu")]

    def run(*command: str | Path) -> None:
        done = subprocess.run([str(w) for w in command], capture_output=True, text=True)
        if done.returncode != 0 or done.stderr:
            raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")

    def compile_one(source: Path) -> Path:
        run("g++", *flags, "-x", "c++", "-c", source, "-o", folder / f"{source.name}.o")
        return folder / f"{source.name}.o"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / f"_cuda_host{sysconfig.get_config_var('EXT_SUFFIX')}"
    run("g++", "-shared", *flags, *objects, "-o", library)
    return library


def load(library: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_cuda_host", library)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.set_tensors(Tensor, "is_cpu")
    return module


def numbers(case: ConvCase) -> tuple[int, ...]:
    """The fields of ConvShape."""
    n, channels, *size = case.input_size
    return (
        n, case.groups, channels, *size, *case.output_size[1:],
        *case.kernel, *case.stride, *case.padding, *case.dilation,
    )  # fmt: skip


def last(x: Tensor) -> bool:
    """Whether the kernels have to be told that x is channels_last."""
    return not x.is_contiguous()


class Kernels:
    """The entries of the module on tensors. Workspaces are full of NaN, and of the exact size."""

    def __init__(self, library: Path) -> None:
        self.module = load(library)
        self.index = ctypes.CDLL(str(library))

    def shape(self, case: ConvCase) -> Any:
        return self.module.Shape(numbers(case))

    @contextmanager
    def order(self, order: int) -> Iterator[None]:
        """Let a block's threads take turns forward (0), backward (1) or shuffled by this seed."""
        self.index.order_of_threads(order)
        try:
            yield
        finally:
            self.index.order_of_threads(0)

    @contextmanager
    def prescribed(self, tile: int, parts: int = 0) -> Iterator[None]:
        """Let products use this tile, and sum over pixels in so many parts."""
        self.module.prescribe(tile, parts)
        try:
            yield
        finally:
            self.module.prescribe(-1, 0)

    def call(self, name: str, like: Tensor, *arguments: object) -> None:
        getattr(self.module, name)(like.dtype is torch.float64, *arguments, 0, 0)

    def workspace(self, name: str, like: Tensor, *arguments: object) -> Tensor:
        size = getattr(self.module, f"{name}_workspace")(like.dtype is torch.float64, *arguments)
        return torch.full((size,), 255, dtype=torch.uint8)

    def conv2d(
        self, out: Tensor, x: Tensor, w: Tensor, b: Tensor | None, case: ConvCase,
        tf32: bool = False, activation: int = 0, slope: float = 0.0, output: Tensor | None = None,
        name: str = "conv2d",
    ) -> None:  # fmt: skip
        finish = activation, slope, output
        sides = out, last(out), x, last(x), w, b
        scratch = self.workspace(name, x, self.shape(case))
        self.call(name, x, *sides, self.shape(case), tf32, *finish, scratch)

    def conv2d_grad_input(self, *arguments: Any, **rest: Any) -> None:
        self.conv2d(*arguments, **rest, name="conv2d_grad_input")

    def conv2d_grad_weight(
        self, gw: Tensor, gz: Tensor, x: Tensor, case: ConvCase, accumulate: bool = False
    ) -> None:
        shape = self.shape(case)
        scratch = self.workspace("conv2d_grad_weight", x, shape)
        sides = gw, gz, last(gz), x, last(x)
        self.call("conv2d_grad_weight", x, *sides, shape, accumulate, scratch)

    def conv2d_grad_bias(self, gb: Tensor, gz: Tensor, accumulate: bool = False) -> None:
        scratch = self.workspace("conv2d_grad_bias", gz, gz.shape)
        self.call("conv2d_grad_bias", gz, gb, gz, last(gz), gz.shape, accumulate, scratch)

    def im2col(self, columns: Tensor, x: Tensor, case: ConvCase) -> None:
        self.call("im2col", x, columns, x, last(x), self.shape(case))

    def col2im(self, out: Tensor, columns: Tensor, case: ConvCase) -> None:
        self.call("col2im", out, out, last(out), columns, self.shape(case))

    def matmul(self, out: Tensor, a: Tensor, b: Tensor, accumulate: bool = False) -> None:
        views = [part for x in (out, a, b) for part in (x, x.stride())]
        self.call("matmul", out, *views, (*out.shape, a.shape[2]), accumulate)


class _Never:
    """The type of nothing."""


@cache
def host_kernels() -> Kernels:
    """The kernels, built once for all tests of this process."""
    folder = tempfile.mkdtemp(prefix="pydenoise-cuda-on-host-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Kernels(build(Path(folder)))


@contextmanager
def in_place_of_the_processor(kernels: Kernels | None = None) -> Iterator[None]:
    """Scope in which tensors in main memory belong to the CUDA backend, as on a GPU with one
    stream; steps are taken without a tape. By `host_kernels`, if no others are given."""
    with pytest.MonkeyPatch.context() as patch:
        backend = _cuda.OnDevice((kernels or host_kernels()).module)
        patch.setattr(_backend, "_IN_MAIN_MEMORY", backend)
        patch.setattr(_cuda, "queue_of", lambda device: (0, 0))
        patch.setattr(_check, "_FLOATS", _Never)  # a GPU's tensors are no instances of these
        patch.setattr(_check, "_DOUBLES", _Never)
        patch.setattr(torch.cuda, "device", nullcontext)
        patch.setattr(torch.cuda, "current_device", lambda: 0)
        patch.setattr(objectives.noise2noise, "play", lambda *given: given[-1](*given[2]))
        with ops.use_backend("auto"):
            yield
