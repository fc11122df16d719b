"""Parameter: a learnt tensor and the sum of its gradients, the same two objects for life."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pydenoise import memory


class Parameter:
    """A tensor that is learnt and the sum of its gradients.

    Parameters
    ----------
    data : Tensor
        float32 or float64; kept, not copied.
    grad : Tensor, optional
        Same shape, dtype and device; zeros if omitted.
    name : str
        Of the parameter in its layer, `weight` say.

    Notes
    -----
    `data` and `grad` are the same two tensor objects for as long as the parameter lives; they look
    into other memory after `Module.flatten` and `Module.to`. Assigning to either copies the values
    into it, after a check of the shape.
    """

    __slots__ = ("_data", "_grad", "name")

    def __init__(self, data: Tensor, grad: Tensor | None = None, name: str = "") -> None:
        if data.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"parameter {name!r}: expected float32 or float64, got {data.dtype}")
        if grad is None:
            grad = memory.empty(data.shape, dtype=data.dtype, device=data.device).zero_()
        elif (grad.shape, grad.dtype, grad.device) != (data.shape, data.dtype, data.device):
            raise ValueError(
                f"parameter {name!r}: grad must match data, {tuple(data.shape)} {data.dtype} on "
                f"{data.device}; got {tuple(grad.shape)} {grad.dtype} on {grad.device}"
            )
        self._data = data
        self._grad = grad
        self.name = name

    @property
    def data(self) -> Tensor:
        """The values."""
        return self._data

    @data.setter
    def data(self, values: Tensor) -> None:
        copy_into(self._data, values, self.name)

    @property
    def grad(self) -> Tensor:
        """The sum of the gradients since the last `zero_grad`."""
        return self._grad

    @grad.setter
    def grad(self, values: Tensor) -> None:
        copy_into(self._grad, values, f"gradient of {self.name}")

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, {tuple(self._data.shape)}, {self._data.dtype})"


class FlatParameters(NamedTuple):
    """All parameters of a module as two 1-d tensors, the last layer first."""

    data: Tensor
    grad: Tensor


def copy_into(destination: Tensor, values: Tensor, name: str) -> None:
    """Copy values of the same shape; a wrong type or shape is refused under the name given."""
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(values).__name__}")
    if values.shape != destination.shape:
        raise ValueError(
            f"{name}: expected shape {tuple(destination.shape)}, got {tuple(values.shape)}"
        )
    destination.copy_(values.detach())
