"""What nvcc makes of the CUDA kernels: no warning, no spill, a library that loads with no driver.

The objects are those of build/cuda, where an install leaves them; what is missing is compiled.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pydenoise.ops import _library

ROOT = Path(__file__).resolve().parent.parent


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nvcc = _load("nvcc", ROOT / "csrc" / "cuda" / "nvcc.py")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library for all architectures."""
    compiler = nvcc.find()
    if compiler is None:
        pytest.skip("no CUDA compiler: nvcc was not found")
    path = tmp_path_factory.mktemp("cuda") / "_cuda.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYDENOISE_CUDA_ARCHITECTURES", raising=False)
        nvcc.build(compiler, path)
    return path


@pytest.fixture(scope="module")
def module(library: Path) -> ModuleType:
    loaded = _load("_cuda", library)
    loaded.set_tensors(torch.Tensor, "")
    return loaded


def test_every_architecture_compiles_without_warnings(library: Path) -> None:
    assert nvcc.warnings() == []
    compiled = {usage.architecture for usage in nvcc.usages()}
    assert compiled == set(nvcc.architectures(nvcc.find()))


def test_no_kernel_spills(library: Path) -> None:
    assert [usage for usage in nvcc.usages() if usage.spill_bytes] == []


def test_nothing_is_undefined(library: Path) -> None:
    """But for Python, which loads it; and no CUDA library is needed, whose version could differ."""
    for tool in ("ldd", "readelf"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not there to read the library's dependencies")
    said = subprocess.run(["ldd", "-r", library], capture_output=True, text=True)
    undefined = re.findall(r"undefined symbol: (\w+)", said.stdout + said.stderr)
    assert [name for name in undefined if not re.match(r"_?Py", name)] == []
    said = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", said.stdout)
    assert needed
    assert [name for name in needed if re.match(r"lib(cu|nv|torch|c10|python|gomp)", name)] == []


def test_loads_alone(library: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        f"s = u.spec_from_file_location('_cuda', {str(library)!r})\n"
        "m = u.module_from_spec(s); s.loader.exec_module(m)\n"
        "assert 'torch' not in sys.modules\n"
        "print(m.device_count(), m.built_architectures())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'120'" in said.stdout


def test_lives_beside_the_cpu_kernels(module: ModuleType) -> None:
    """Both have a Shape."""
    if _library._C is None:
        pytest.skip("the CPU kernels are not built")
    assert _library._C.Shape is not module.Shape
    numbers = (1, 1, 1, 4, 4, 1, 4, 4, 1, 1, 1, 1, 0, 0, 1, 1)
    x, y = torch.randn(16), torch.empty(16)
    _library._C.im2col(False, y, x, False, _library._C.Shape(numbers))
    assert torch.equal(x, y)
    assert module.conv2d_grad_weight_workspace(False, module.Shape(numbers)) == 4


def calls(module: ModuleType) -> dict[str, tuple[object, ...]]:
    """Every entry that needs a device, with arguments that are right but for their memory."""
    shape = module.Shape((1, 1, 1, 4, 4, 1, 4, 4, 1, 1, 1, 1, 0, 0, 1, 1))
    x, weight, bias, sizes = torch.zeros(16), torch.zeros(1), torch.zeros(1), (1, 1, 4, 4)
    scratch, double = torch.zeros(1024), torch.zeros(1, dtype=torch.float64)
    rule, strides = torch.zeros(8, dtype=torch.float64), (1, 1, 1)
    finish = shape, False, 0, 0.0, None, scratch
    entries: dict[str, tuple[object, ...]] = {
        "im2col": (x, x, False, shape),
        "col2im": (x, False, x, shape),
        "matmul": (*[x, strides] * 3, (1, 1, 1, 1), False),
        "conv2d": (x, False, x, False, weight, bias, *finish),
        "conv2d_grad_input": (x, False, x, False, weight, bias, *finish),
        "conv2d_grad_weight": (weight, x, False, x, False, shape, False, scratch),
        "conv2d_grad_bias": (bias, x, False, sizes, False, scratch),
        "add_bias": (x, False, bias, sizes),
        "relu": (x, x),
        "relu_backward": (x, x, x),
        "leaky_relu": (x, x, 0.1),
        "leaky_relu_backward": (x, x, x, 0.1),
        "sigmoid": (x, x),
        "sigmoid_backward": (x, x, x),
        "mse_loss": (double, x, x, scratch),
        "l1_loss": (double, x, x, scratch),
        "mse_loss_backward": (x, x, x, 1.0),
        "l1_loss_backward": (x, x, x, 1.0),
        "sgd_step": (x, x, None, rule, False, False),
        "adam_step": (x, x, x, x, rule, False),
    }
    needs_none = {"Shape", "set_tensors", "device_count", "driver_version", "why_unavailable"}
    needs_none |= {"built_architectures", "prescribe", "FLOAT_TILES", "TF32_TILES"}
    needs_none |= {n for n in dir(module) if n.endswith("_workspace")}
    assert {name for name in dir(module) if name[0] != "_"} - needs_none == entries.keys()
    return entries


def test_without_a_driver_every_entry_says_so(module: ModuleType) -> None:
    why = module.why_unavailable()
    if not why:
        pytest.skip("this machine has a GPU")
    assert module.device_count() == 0
    for name, arguments in calls(module).items():
        with pytest.raises(RuntimeError, match=re.escape(why)):
            getattr(module, name)(False, *arguments, 0, 0)


def test_with_a_driver_main_memory_is_refused(module: ModuleType) -> None:
    """A kernel that touched it would take down the process's device."""
    if module.why_unavailable():
        pytest.skip(module.why_unavailable())
    for name, arguments in calls(module).items():
        with pytest.raises(ValueError, match="not memory of CUDA device 0"):
            getattr(module, name)(False, *arguments, 0, 0)


@pytest.mark.parametrize("names", ["9x", "90 sm_80", "native 90"])
def test_architectures_are_checked(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDENOISE_CUDA_ARCHITECTURES", names)
    with pytest.raises(RuntimeError, match="PYDENOISE_CUDA_ARCHITECTURES"):
        nvcc.architectures("nvcc")


def test_a_failing_compiler_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "nvcc"
    fake.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PYDENOISE_CUDA_ARCHITECTURES", "90")
    monkeypatch.setenv("MAX_JOBS", "1")
    with pytest.raises(RuntimeError, match="no such luck"):
        nvcc.build(str(fake), tmp_path / "_cuda.so", folder=tmp_path / "objects")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    assert nvcc.find() is None
    shutil.move(fake, tmp_path / "bin" / "nvcc")
    assert nvcc.find() == os.fspath(tmp_path / "bin" / "nvcc")
