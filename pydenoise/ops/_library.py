"""The compiled library: loaded once, joined with torch's threads; what it is and why it is not.

This file alone imports the extension modules, `_C` for main memory and `_cuda` for GPUs.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

_import_errors: dict[str, str] = {}


def _loaded(name: str) -> Any:
    """An extension module, or None where it cannot be loaded."""
    try:
        return import_module(f"pydenoise.{name}")
    except ImportError as error:
        _import_errors[name] = str(error)
        return None


_C, _cuda = _loaded("_C"), _loaded("_cuda")


def _build_record() -> dict[str, Any]:
    """What setup.py noted about the build; empty where it left nothing."""
    path = Path(__file__).parent.parent / "_build.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record


def why_not_cpu() -> str | None:
    """None when the CPU kernels can run, otherwise the reason."""
    return None if _C is not None else _why_not_loaded("_C", "cpu")


def why_not_cuda() -> str | None:
    """None when the CUDA kernels can run, otherwise the reason."""
    if _cuda is None:
        return _why_not_loaded("_cuda", "cuda")
    if torch.version.cuda is None:
        return "this torch was built without CUDA; install one with it"
    return _cuda.why_unavailable() or None


def _why_not_loaded(name: str, kernels: str) -> str:
    built = _build_record().get(kernels, "built")
    if built != "built":
        return str(built)
    return f"the kernels cannot be loaded ({_import_errors[name]})"


def _join_thread_pool() -> None:
    """Hand torch's own parallel_for to the kernels; without it they run serial."""
    if _C is None:
        return
    suffix = {"nt": "torch_cpu.dll", "posix": "libtorch_cpu.so"}.get(os.name, "")
    library = Path(torch.__file__).parent / "lib" / suffix
    if not library.is_file():
        library = library.with_suffix(".dylib")
    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype = ctypes.py_object
    capsule.argtypes = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
    try:
        torch_c = ctypes.CDLL(str(library))
        entries = [
            capsule(ctypes.cast(getattr(torch_c, name.decode()), ctypes.c_void_p), name, None)
            for name in _POOL
        ]
    except (OSError, AttributeError):
        return
    _C.set_thread_pool(*entries)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_C.leave_thread_pool)


def _name_tensors() -> None:
    """Tell the kernels whose word they take on memory."""
    if _C is not None:
        _C.set_tensors(Tensor, "is_cpu")
    if _cuda is not None:
        _cuda.set_tensors(Tensor, "")


_POOL = b"torch_parallel_for", b"torch_get_num_threads"  # for as long as the capsules live
_join_thread_pool()
_name_tensors()


def kernels() -> Any:
    """The extension of the CPU kernels; None where there is none."""
    return _C


def cuda_kernels() -> Any:
    """The extension of the CUDA kernels; None where there is none."""
    return _cuda


def new_tape(pictures: Iterable[Tensor], watched: Iterable[Tensor]) -> Any:
    """The extension's tape, see `_tape`."""
    return _C.Tape(*pictures, watched=watched)


def available_isas() -> tuple[str, ...]:
    """Instruction sets of this machine that the kernels were built for, the slowest first."""
    return () if _C is None else tuple(_C.available_isas())


class UseIsa:
    """Lower the instruction set, from now on or for a ``with`` block; for tests and benchmarks.

    One setting for the whole process, unlike the other switches.
    """

    def __init__(self, name: str) -> None:
        if name not in available_isas():
            raise ValueError(f"instruction set {name!r} is not one of {available_isas()}")
        self._before = _C.isa()
        _C.set_isa(name)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _C.set_isa(self._before)


def config_lines() -> list[str]:
    """The kernels' part of `show_config`."""
    if _C is None:
        return [f"| {line}" for line in _build_record().get("error_tail", [])]
    return [
        f"isa          {_C.isa()} (of {', '.join(available_isas())})",
        f"threads      {_C.thread_count()}",
    ]


def isa() -> str | None:
    """The instruction set in use, None without compiled kernels."""
    return None if _C is None else str(_C.isa())


def multiply_adds(iterations: int, dtype: torch.dtype = torch.float32) -> int:
    """Run the register loop on every thread; returns the operations done. It only takes time."""
    return int(_C.multiply_adds(dtype is torch.float64, iterations))


def dense(tensor: Tensor) -> tuple[Tensor, bool]:
    """The tensor itself when a kernel can read it, else a contiguous copy; is it channels_last?"""
    if tensor.is_contiguous():
        return tensor, False
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor, True
    return tensor.contiguous(), False
