"""The one door to the compiled kernels: tensors become memory of a dtype and an order here.

Function names and argument order are those of `_reference`. The binding asks each tensor for its
address and byte count and checks them against the shape again; what it cannot know (dtype, layout,
device) is settled here. Pooling and
upsampling have no kernel of their own yet and are the reference's.
"""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import astuple
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ._reference import (
    avg_pool2d as avg_pool2d,
    avg_pool2d_backward as avg_pool2d_backward,
    max_pool2d as max_pool2d,
    max_pool2d_backward as max_pool2d_backward,
    upsample_nearest2d as upsample_nearest2d,
    upsample_nearest2d_backward as upsample_nearest2d_backward,
)
from ._shape import ConvShape

_C: Any  # the module, or None where it cannot be loaded
try:
    _C = import_module("pydenoise._C")
except ImportError as error:
    _C = None
    _import_error = str(error)


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
    if _C is not None:
        return None
    built = _build_record().get("cpu", "built")
    return f"the kernels cannot be loaded ({_import_error})" if built == "built" else str(built)


def why_not_cuda() -> str | None:
    """The reason why there are no CUDA kernels."""
    return "this release has none"


def _join_thread_pool() -> None:
    """Hand torch's own parallel_for to the kernels; without it they run serial."""
    if _C is None:
        return
    suffix = {"nt": "torch_cpu.dll", "posix": "libtorch_cpu.so"}.get(os.name, "")
    library = Path(torch.__file__).parent / "lib" / suffix
    if not library.is_file():
        library = library.with_suffix(".dylib")
    try:
        torch_c = ctypes.CDLL(str(library))
        entries = [
            ctypes.cast(getattr(torch_c, name), ctypes.c_void_p).value
            for name in ("torch_parallel_for", "torch_get_num_threads")
        ]
    except (OSError, AttributeError):
        return
    _C.set_thread_pool(*entries)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _C.set_thread_pool(0, 0))


_join_thread_pool()


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


_DOUBLE = torch.float64


def multiply_adds(iterations: int, dtype: torch.dtype = torch.float32) -> int:
    """Run the register loop on every thread; returns the operations done. It only takes time."""
    return int(_C.multiply_adds(dtype is _DOUBLE, iterations))


def _dense(tensor: Tensor) -> tuple[Tensor, bool]:
    """The tensor itself when a kernel can read it, else a contiguous copy; is it channels_last?"""
    if tensor.is_contiguous():
        return tensor, False
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor, True
    return tensor.contiguous(), False


@lru_cache(maxsize=4096)
def _checked(shape: ConvShape) -> Any:
    """The shape as the kernels take it, found valid once."""
    return _C.Shape(astuple(shape))


WINO = 0


def is_faster_with_columns(product: str, shape: ConvShape) -> bool:
    """True where `auto` takes the im2col chain: gradients of large strides over few channels.

    Each of many phases is then too small a product, where one over all taps fills its tiles.
    """
    phases = shape.stride_h * shape.stride_w
    return (
        product == "conv2d_grad_input"
        and shape.groups == 1
        and phases > 16
        and shape.in_channels < 64
    )


def im2col(columns: Tensor, input: Tensor, shape: ConvShape) -> None:
    input, last = _dense(input)
    _C.im2col(input.dtype is _DOUBLE, columns, input, last, _checked(shape))


def col2im(output: Tensor, columns: Tensor, shape: ConvShape) -> None:
    columns = columns.contiguous()
    _, last = _dense(output)
    _C.col2im(columns.dtype is _DOUBLE, output, last, columns, _checked(shape))


def matmul(out: Tensor, a: Tensor, b: Tensor, accumulate: bool) -> None:
    _C.matmul(
        out.dtype is _DOUBLE,
        out.data_ptr(),
        out.stride(),
        a.data_ptr(),
        a.stride(),
        b.data_ptr(),
        b.stride(),
        (out.shape[0], out.shape[1], out.shape[2], a.shape[2]),
        accumulate,
    )


def conv2d(
    output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None, shape: ConvShape
) -> None:
    input, input_last = _dense(input)
    weight = weight.contiguous()
    _, output_last = _dense(output)
    if bias is not None:
        bias = bias.contiguous()
    _C.conv2d(
        input.dtype is _DOUBLE,
        output,
        output_last,
        input,
        input_last,
        weight,
        bias,
        _checked(shape),
        WINO,
    )


def conv2d_grad_input(
    grad_input: Tensor,
    grad_output: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    shape: ConvShape,
) -> None:
    grad_output, grad_output_last = _dense(grad_output)
    weight = weight.contiguous()
    _, grad_input_last = _dense(grad_input)
    if bias is not None:
        bias = bias.contiguous()
    _C.conv2d_grad_input(
        weight.dtype is _DOUBLE,
        grad_input,
        grad_input_last,
        grad_output,
        grad_output_last,
        weight,
        bias,
        _checked(shape),
        WINO,
    )


def conv2d_grad_weight(
    grad_weight: Tensor, grad_output: Tensor, input: Tensor, shape: ConvShape, accumulate: bool
) -> None:
    grad_output, grad_output_last = _dense(grad_output)
    input, input_last = _dense(input)
    _C.conv2d_grad_weight(
        input.dtype is _DOUBLE,
        grad_weight,
        grad_output,
        grad_output_last,
        input,
        input_last,
        _checked(shape),
        accumulate,
    )


def conv2d_grad_bias(grad_bias: Tensor, grad_output: Tensor, accumulate: bool) -> None:
    grad_output, last = _dense(grad_output)
    _C.conv2d_grad_bias(
        grad_output.dtype is _DOUBLE,
        grad_bias,
        grad_output,
        last,
        grad_output.shape,
        accumulate,
    )


def add_bias(image: Tensor, bias: Tensor) -> None:
    _, last = _dense(image)
    bias = bias.contiguous()
    _C.add_bias(image.dtype is _DOUBLE, image, last, bias, image.shape)


def _like(tensor: Tensor, out: Tensor) -> Tensor:
    """The tensor, of the shape of `out`, with its elements in memory in the order of `out`."""
    if tensor.is_contiguous() and out.is_contiguous():
        return tensor
    if tensor.stride() == out.stride():
        return tensor
    return torch.empty_like(out).copy_(tensor)


def relu(out: Tensor, input: Tensor) -> None:
    input = _like(input, out)
    _C.relu(out.dtype is _DOUBLE, out, input)


def relu_backward(out: Tensor, grad_output: Tensor, output: Tensor) -> None:
    grad_output = _like(grad_output, out)
    output = _like(output, out)
    _C.relu_backward(
        out.dtype is _DOUBLE,
        out,
        grad_output,
        output,
    )


def leaky_relu(out: Tensor, input: Tensor, negative_slope: float) -> None:
    input = _like(input, out)
    _C.leaky_relu(out.dtype is _DOUBLE, out, input, negative_slope)


def leaky_relu_backward(
    out: Tensor, grad_output: Tensor, input: Tensor, negative_slope: float
) -> None:
    grad_output = _like(grad_output, out)
    input = _like(input, out)
    _C.leaky_relu_backward(
        out.dtype is _DOUBLE,
        out,
        grad_output,
        input,
        negative_slope,
    )


def sigmoid(out: Tensor, input: Tensor) -> None:
    input = _like(input, out)
    _C.sigmoid(out.dtype is _DOUBLE, out, input)


def sigmoid_backward(out: Tensor, grad_output: Tensor, output: Tensor) -> None:
    grad_output = _like(grad_output, out)
    output = _like(output, out)
    _C.sigmoid_backward(out.dtype is _DOUBLE, out, grad_output, output)


def mse_loss(input: Tensor, target: Tensor) -> float:
    input = _dense(input)[0]
    target = _like(target, input)
    loss: float = _C.mse_loss(input.dtype is _DOUBLE, input, target)
    return loss


def mse_loss_backward(out: Tensor, input: Tensor, target: Tensor) -> None:
    input = _like(input, out)
    target = _like(target, out)
    _C.mse_loss_backward(out.dtype is _DOUBLE, out, input, target)


def l1_loss(input: Tensor, target: Tensor) -> float:
    input = _dense(input)[0]
    target = _like(target, input)
    loss: float = _C.l1_loss(input.dtype is _DOUBLE, input, target)
    return loss


def l1_loss_backward(out: Tensor, input: Tensor, target: Tensor) -> None:
    input = _like(input, out)
    target = _like(target, out)
    _C.l1_loss_backward(out.dtype is _DOUBLE, out, input, target)


def sgd_step(
    param: Tensor,
    grad: Tensor,
    momentum_buffer: Tensor | None,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    first: bool,
) -> None:
    _C.sgd_step(
        param.dtype is _DOUBLE,
        param,
        grad,
        momentum_buffer,
        (lr, momentum, dampening, weight_decay),
        nesterov,
        first,
    )


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    _C.adam_step(
        param.dtype is _DOUBLE,
        param,
        grad,
        exp_avg,
        exp_avg_sq,
        (lr, beta1, beta2, eps, weight_decay),
        decoupled,
        step,
    )
