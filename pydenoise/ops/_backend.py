"""Which code runs: the backends that exist here, why another does not, and the switches.

Backends have the same function names: the module `_reference`, and `_compiled` around a library of
kernels. The choice of backend and algorithm are context variables, so threads and tasks do not
disturb each other.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from pydenoise import memory

from . import _library, _reference
from ._chain import Chain
from ._compiled import OnProcessor
from ._cuda import OnDevice, tf32
from ._shape import ConvShape

BACKENDS = ("auto", "reference", "cpu", "cuda")
ISAS = ("auto", "scalar", "avx2", "avx512")
ALGORITHMS = ("auto", "im2col", "implicit", "winograd2", "winograd4")


def backends() -> dict[str, str | None]:
    """Every backend's name with None when it runs here, or the reason why it does not."""
    return {
        "reference": None,
        "cpu": _library.why_not_cpu(),
        "cuda": _library.why_not_cuda(),
    }


def _known(kind: str, name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise ValueError(f"unknown {kind} {name!r}; expected one of {', '.join(names)}")
    return name


def _checked_backend(name: str) -> str:
    _known("backend", name, BACKENDS)
    reason = backends().get(name)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} is not available: {reason}")
    return name


def _from_environment() -> str:
    _known("instruction set PYDENOISE_ISA =", os.environ.get("PYDENOISE_ISA", "auto"), ISAS)
    name = os.environ.get("PYDENOISE_BACKEND", "auto")
    try:
        return _checked_backend(name)
    except (ValueError, RuntimeError) as error:
        raise type(error)(f"PYDENOISE_BACKEND: {error}") from None


_backend: ContextVar[str | None] = ContextVar("pydenoise_backend", default=None)
_algorithm: ContextVar[str] = ContextVar("pydenoise_algorithm", default="auto")


class _Switch:
    """Set when called; when used as a context manager, set back at its end."""

    def __init__(self, variable: ContextVar[Any], value: Any) -> None:
        self._variable = variable
        self._token: Token[Any] = variable.set(value)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._variable.reset(self._token)


def use_backend(name: str) -> _Switch:
    """Choose the code that runs, from now on or for a ``with`` block.

    Parameters
    ----------
    name : 'auto', 'reference', 'cpu' or 'cuda'
        'auto' takes the compiled backend of the tensor's device where it was built, else the
        reference.

    Raises
    ------
    ValueError
        For a name that is none of these.
    RuntimeError
        For a backend that is not available here, with the reason.

    Examples
    --------
    >>> with use_backend("reference"):
    ...     pass
    """
    return _Switch(_backend, _checked_backend(name))


def use_algorithm(name: str) -> _Switch:
    """Choose how convolutions are computed, from now on or for a ``with`` block.

    Parameters
    ----------
    name : 'auto', 'im2col', 'implicit', 'winograd2' or 'winograd4'
        'im2col' is the report's chain: patches stored as a matrix, matrix products, columns
        summed back. 'implicit' never stores the patch matrix. 'winograd2' and 'winograd4' are
        Winograd's F(2 x 2, 3 x 3) and F(4 x 4, 3 x 3): 2.25 and 4 times fewer products, for 3 x 3
        kernels without dilation on the compiled backend; the larger tile for 8 channels and more,
        but not for gradients of weights. With stride 2 and odd padding both are F(2 x 2, 2 x 2) of
        the outer taps, 1.44 times fewer products. Everything else is computed as by 'implicit'.
        'auto' takes the fastest of 'im2col', 'implicit' and 'winograd2', by channels, kernel,
        stride and padding alone, for gradients of weights by the picture's size, too.

    Notes
    -----
    Winograd's error follows the largest values in the input of a pixel's tile (4 x 4 or 6 x 6
    pixels; with stride 2 5 x 5 or, mirrored, 3 x 3), not the pixel's own terms: a pixel whose terms
    are zero may come out as a rounding error of its neighbours'. Relative to those 'winograd2'
    rounds like a plain sum; 'winograd4' about 25 times worse, which is why it has to be asked for.
    A gradient of a weight rounds with those of its other taps. An infinity may come out as NaN,
    with 'winograd4' up to two pixels further than the kernel reaches, and numbers of a tile whose
    sum is no number that the dtype has as infinities.
    """
    return _Switch(_algorithm, _known("algorithm", name, ALGORITHMS))


def allow_tf32(allowed: bool = True) -> _Switch:
    """Let float32 convolutions on a GPU round their factors to TF32, from now on or for a ``with``
    block.

    Parameters
    ----------
    allowed : bool
        True takes the tensor cores where the GPU has them (compute capability 8.0): factors of 10
        bits, sums in float32, a relative error of about 1e-3. Off at first: exact float32.
        Gradients of weights stay exact.
    """
    if not isinstance(allowed, bool):
        raise TypeError(f"allow_tf32: expected True or False, got {allowed!r}")
    return _Switch(tf32, allowed)


def current_backend() -> str:
    """The backend's name as chosen by `use_backend` or PYDENOISE_BACKEND."""
    name = _backend.get()
    if name is None:
        name = _from_environment()
        _backend.set(name)
    return name


def current_algorithm() -> str:
    """The algorithm's name as chosen by `use_algorithm`."""
    return _algorithm.get()


def select(tensor: Tensor) -> Any:
    """The backend module for a tensor, by the switch and the tensor's device."""
    name = _backend.get() or current_backend()
    if name == "auto":
        return _IN_MAIN_MEMORY if tensor.is_cpu else _beside(tensor)
    if name == "reference":
        return _reference
    if name != tensor.device.type:
        raise ValueError(
            f"backend {name!r} cannot work on a tensor on {tensor.device}; move the tensor or "
            f"call pydenoise.use_backend('auto')"
        )
    return _ON_PROCESSOR if tensor.is_cpu else _on_device()


def _beside(tensor: Tensor) -> Any:
    """What `auto` takes for a tensor that is not in main memory."""
    return _on_device() or _reference if tensor.is_cuda else _reference


@cache
def _on_device() -> OnDevice | None:
    """The CUDA backend, None where it cannot run; asked for when the first such tensor comes."""
    return OnDevice(_library.cuda_kernels()) if _library.why_not_cuda() is None else None


_ON_PROCESSOR = OnProcessor(_library.kernels())
_IN_MAIN_MEMORY: Any = _ON_PROCESSOR if _library.why_not_cpu() is None else _reference
_chain_of = cache(Chain)


def convolver(product: str, tensor: Tensor, shape: ConvShape) -> Any:
    """What offers `product` (conv2d or one of its gradients) by the algorithm chosen, or where the
    shape has none such, the backend itself."""
    backend = select(tensor)
    algorithm = _algorithm.get()
    if algorithm == "auto":
        algorithm = backend.fastest(product, shape)
    if algorithm == "implicit":
        return backend
    if algorithm == "im2col":
        return _chain_of(backend)
    return backend.by_winograd(algorithm, product, shape) if shape.has_winograd else backend


def is_compiled(tensor: Tensor) -> bool:
    """Whether compiled kernels work on the tensor."""
    return select(tensor) is not _reference


def fastest_format(tensor: Tensor) -> torch.memory_format:
    """The memory format in which pictures between layers need no copy; the tensor's own where it
    makes no difference."""
    if is_compiled(tensor) and _algorithm.get() != "im2col":
        return torch.channels_last
    return memory.format_of(tensor)


use_isa: Callable[[str], _library.UseIsa] = _library.UseIsa
available_isas = _library.available_isas
multiply_adds = _library.multiply_adds


def running() -> dict[str, str | None]:
    """What works on tensors in main memory now: `backend` by name, and its instruction set `isa`.

    `isa` is None for the reference, which leaves it to torch.
    """
    backend = current_backend()
    if backend == "auto":
        backend = "reference" if _library.why_not_cpu() else "cpu"
    return {"backend": backend, "isa": _library.isa() if backend == "cpu" else None}


def show_config() -> str:
    """What is built, what runs and why the rest does not, in a few lines of text."""
    lines = [f"backend      {current_backend()}", f"algorithm    {current_algorithm()}"]
    for name, reason in backends().items():
        lines.append(f"{name:<12} {'available' if reason is None else 'not available: ' + reason}")
    return "\n".join(lines + _library.config_lines())
