"""Arguments of the public functions: refused with a clear sentence, or made ready for a kernel.

Every message says which function and argument was wrong, what came and what was expected, and
comes before any memory is written.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pydenoise import memory

Pair = int | Sequence[int]

_DTYPES = (torch.float32, torch.float64)
_STRIDED = torch.strided
_LARGEST = 2**31 - 1


def describe(tensor: Tensor) -> str:
    """``(2, 3, 8, 8) float32 on cpu``, for messages."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def _are_plain(values: Iterable[Any], ndim: int | None) -> bool:
    """True for dense tensors in main memory, of one dtype, that are nothing but what they hold.

    The one test of every call that is right; what it turns down is looked at more closely.
    """
    dtypes: tuple[torch.dtype, ...] = _DTYPES
    for value in values:
        if (
            type(value) is not Tensor
            or (dtype := value.dtype) not in dtypes
            or not value.is_cpu
            or value.layout is not _STRIDED
            or value.is_neg()
            or (ndim is not None and value.dim() != ndim)
        ):
            return False
        dtypes = (dtype,)
    return True


def tensor(op: str, name: str, value: Any, ndim: int | None = None) -> Tensor:
    """A plain dense float tensor, its negative bit resolved, its values untouched."""
    if _are_plain((value,), ndim):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch tensor, got {type(value).__name__}")
    if value.layout is not _STRIDED:
        raise TypeError(f"{op}: {name} must be dense, got layout {value.layout}")
    if value.dtype not in _DTYPES:
        raise TypeError(f"{op}: {name} must be float32 or float64, got {describe(value)}")
    plain = value.detach()
    if type(plain) is not Tensor or plain.device.type == "meta":
        raise TypeError(f"{op}: {name} holds no data ({type(value).__name__} on {value.device})")
    if plain.is_neg():
        plain = plain.resolve_neg()
    if ndim is not None and plain.dim() != ndim:
        raise ValueError(f"{op}: {name} must have {ndim} dimensions, got {describe(plain)}")
    return plain


def tensors(op: str, ndim: int | None = None, **given: Any) -> Collection[Tensor]:
    """Each as `tensor` makes it ready; all of one dtype and on one device."""
    if _are_plain(given.values(), ndim):
        return given.values()
    ready = {name: tensor(op, name, value, ndim) for name, value in given.items()}
    (first_name, first), *rest = ready.items()
    for name, other in rest:
        alike(op, first_name, first, name, other)
    return ready.values()


def alike(op: str, first_name: str, first: Tensor, name: str, other: Tensor) -> None:
    """Both of one dtype and on one device."""
    if other.dtype != first.dtype:
        raise TypeError(
            f"{op}: {first_name} and {name} must have one dtype, "
            f"got {describe(first)} and {describe(other)}"
        )
    if other.device != first.device:
        raise ValueError(
            f"{op}: {first_name} and {name} must be on one device, "
            f"got {describe(first)} and {describe(other)}"
        )


def of_one_shape(op: str, **given: Any) -> Collection[Tensor]:
    """`tensors`, all of one shape."""
    ready = tensors(op, **given)
    shape = None
    for name, each in zip(given, ready, strict=True):
        if shape is None:
            shape = each.shape
        elif each.shape != shape:
            raise ValueError(
                f"{op}: {name} must have the shape of {next(iter(given))}, {tuple(shape)}, "
                f"got {tuple(each.shape)}"
            )
    return ready


def integer(op: str, name: str, value: Any, least: int) -> int:
    """A whole number in [least, 2^31)."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} must be a whole number, got {value!r}") from None
    if not least <= number <= _LARGEST:
        raise ValueError(f"{op}: {name} must be between {least} and 2^31 - 1, got {value!r}")
    return number


def pair(op: str, name: str, value: Any, least: int) -> tuple[int, int]:
    """One number for both sides, or a pair (height, width)."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        numbers = tuple(value)
        if len(numbers) != 2:
            raise ValueError(f"{op}: {name} must be a number or a pair of numbers, got {value!r}")
        return integer(op, name, numbers[0], least), integer(op, name, numbers[1], least)
    number = integer(op, name, value, least)
    return number, number


def _span(tensor: Tensor) -> tuple[int, int]:
    """First and one-past-last byte that a tensor touches."""
    start = tensor.data_ptr()
    nbytes = tensor.nbytes
    if nbytes and not tensor.is_contiguous():
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        nbytes = (1 + reach) * tensor.element_size()
    return start, start + nbytes


def is_channels_last(tensor: Tensor) -> bool:
    """True for a 4-d tensor in channels_last order; one that fits both counts as contiguous."""
    return memory.format_of(tensor) is torch.channels_last


def output(
    op: str,
    out: Tensor | None,
    shape: tuple[int, ...],
    like: Tensor,
    inputs: Iterable[Tensor | None] = (),
    picture: bool = True,
) -> Tensor:
    """`out` once it is known to fit, or a new tensor with the dtype and device of `like`.

    A `picture` takes the memory format of `like` too; anything else is contiguous. `inputs` are
    what `out` must not overlap.
    """
    if out is None:
        memory_format = torch.contiguous_format
        if picture and len(shape) == 4:
            memory_format = memory.format_of(like)
        return memory.empty(
            shape, dtype=like.dtype, device=like.device, memory_format=memory_format
        )
    if not isinstance(out, Tensor):
        raise TypeError(f"{op}: out must be a torch tensor, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"{op}: out must have shape {tuple(shape)}, got {tuple(out.shape)}")
    if out.dtype != like.dtype:
        raise TypeError(f"{op}: out must be {like.dtype}, got {out.dtype}")
    if out.device != like.device or type(out) is not Tensor:
        raise ValueError(f"{op}: out must be on {like.device}, got {out.device}")
    if not (out.is_contiguous() or (picture and is_channels_last(out))) or out.is_neg():
        raise ValueError(
            f"{op}: out must be contiguous{' or channels_last' if picture else ''}, "
            f"got strides {out.stride()} for shape {tuple(out.shape)}"
        )
    start, stop = _span(out)
    for other in inputs:
        if other is not None:
            other_start, other_stop = _span(other)
            if start < other_stop and other_start < stop:
                raise ValueError(f"{op}: out shares memory with an input; pass another tensor")
    return out
