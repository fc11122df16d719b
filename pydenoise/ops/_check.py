"""Arguments of the public functions: refused with a clear sentence, or made ready for a kernel.

Every message says which function and argument was wrong, what came and what was expected, and
comes before any memory is written.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from pydenoise import memory

Pair = int | Sequence[int]

# An instance of torch's tensor types is dense, in main memory, of that dtype, and no view that
# negates: one question for all that a call has to know of a tensor that is right.
_FLOATS = torch.FloatTensor
_DOUBLES = torch.DoubleTensor
_LARGEST = 2**31 - 1


def describe(tensor: Tensor) -> str:
    """``(2, 3, 8, 8) float32 on cpu``, for messages."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')} on {tensor.device}"


def tensor(op: str, name: str, value: Any, ndim: int | None = None) -> Tensor:
    """A plain dense float tensor, its negative bit resolved, its values untouched."""
    if (
        type(value) is Tensor
        and isinstance(value, (_FLOATS, _DOUBLES))
        and (ndim is None or value.dim() == ndim)
    ):
        return value
    if not isinstance(value, Tensor):
        raise TypeError(f"{op}: {name} must be a torch tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        raise TypeError(f"{op}: {name} must be dense, got layout {value.layout}")
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{op}: {name} must be float32 or float64, got {describe(value)}")
    plain = value.detach()
    if type(plain) is not Tensor or plain.device.type == "meta":
        raise TypeError(f"{op}: {name} holds no data ({type(value).__name__} on {value.device})")
    if plain.is_neg():
        plain = plain.resolve_neg()
    if ndim is not None and plain.dim() != ndim:
        raise ValueError(f"{op}: {name} must have {ndim} dimensions, got {describe(plain)}")
    return plain


def tensors(
    op: str, names: tuple[str, ...], values: tuple[Any, ...], ndim: int | None = None
) -> tuple[Tensor, ...]:
    """Each as `tensor` makes it ready; all of one dtype and on one device."""
    kind = _FLOATS if isinstance(values[0], _FLOATS) else _DOUBLES
    for value in values:
        if (
            type(value) is not Tensor
            or not isinstance(value, kind)
            or (ndim is not None and value.dim() != ndim)
        ):
            break
    else:
        return values
    plain = tuple(tensor(op, *given, ndim) for given in zip(names, values, strict=True))
    for name, other in zip(names, plain, strict=True):
        _expect_alike(op, names[0], plain[0], name, other)
    return plain


def _expect_alike(op: str, first_name: str, first: Tensor, name: str, other: Tensor) -> None:
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


def of_one_shape(op: str, names: tuple[str, ...], values: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """`tensors`, all of one shape."""
    plain = tensors(op, names, values)
    shape = plain[0].shape
    for i in range(1, len(plain)):
        if plain[i].shape != shape:
            raise ValueError(
                f"{op}: {names[i]} must have the shape of {names[0]}, {tuple(shape)}, "
                f"got {tuple(plain[i].shape)}"
            )
    return plain


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


def _end(tensor: Tensor) -> int:
    """Address behind the last byte that a tensor touches."""
    nbytes = tensor.nbytes
    if nbytes and not tensor.is_contiguous():
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        nbytes = (1 + reach) * tensor.element_size()
    return tensor.data_ptr() + nbytes


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
    memory_format: torch.memory_format | None = None,
) -> Tensor:
    """`out` once it is known to fit, or a new tensor with the dtype and device of `like`.

    A `picture` takes the memory format of `like` too, unless it is given; anything else is
    contiguous. `inputs` are what `out` must not overlap.
    """
    if memory_format not in (None, torch.contiguous_format, torch.channels_last):
        raise ValueError(
            f"{op}: memory_format must be torch.contiguous_format or torch.channels_last, "
            f"got {memory_format!r}"
        )
    if out is None:
        if not (picture and len(shape) == 4):
            memory_format = torch.contiguous_format
        return memory.empty(
            shape,
            dtype=like.dtype,
            device=None if like.is_cpu else like.device,
            memory_format=memory_format or memory.format_of(like),
        )
    kind = _FLOATS if isinstance(like, _FLOATS) else _DOUBLES
    if type(out) is not Tensor or not isinstance(out, kind):
        _expect_kind(op, out, like)
    if out.shape != shape:
        raise ValueError(f"{op}: out must have shape {tuple(shape)}, got {tuple(out.shape)}")
    if not (out.is_contiguous() or (picture and is_channels_last(out))) or out.is_neg():
        raise ValueError(
            f"{op}: out must be contiguous{' or channels_last' if picture else ''}, "
            f"got strides {out.stride()} for shape {tuple(out.shape)}"
        )
    _expect_apart(op, "out", out, inputs)
    return out


def _expect_apart(op: str, name: str, out: Tensor, inputs: Iterable[Tensor | None]) -> None:
    start = out.data_ptr()
    stop = start + out.nbytes
    for other in inputs:
        if other is not None and other.data_ptr() < stop and _end(other) > start:
            raise ValueError(f"{op}: {name} shares memory with an input; pass another tensor")


def added_to(
    op: str,
    name: str,
    value: Any,
    shape: tuple[int, ...],
    like: Tensor,
    read: tuple[Tensor, ...],
) -> Tensor:
    """A gradient to add to: a dense tensor of that shape, of the dtype and device of `like`, that
    shares no memory with what is read."""
    kind = _FLOATS if isinstance(like, _FLOATS) else _DOUBLES
    if type(value) is not Tensor or not isinstance(value, kind):
        _expect_kind(op, value, like, name)
    if value.shape != shape:
        raise ValueError(f"{op}: {name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    if not value.is_contiguous():
        raise ValueError(f"{op}: {name} must be contiguous, got strides {value.stride()}")
    _expect_apart(op, name, value, read)
    return cast(Tensor, value)


def _expect_kind(op: str, out: Any, like: Tensor, name: str = "out") -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"{op}: {name} must be a torch tensor, got {type(out).__name__}")
    if out.dtype != like.dtype:
        raise TypeError(f"{op}: {name} must be {like.dtype}, got {out.dtype}")
    if out.device != like.device:
        raise ValueError(f"{op}: {name} must be on {like.device}, got {out.device}")
    if type(out) is not Tensor:
        raise TypeError(f"{op}: {name} must be a plain tensor, got {type(out).__name__}")
    if out.layout is not torch.strided:
        raise ValueError(f"{op}: {name} must be dense, got layout {out.layout}")
    if out.is_neg():
        raise ValueError(f"{op}: {name} must hold its values themselves, got a view that negates")
