"""Modules made of modules: one after the other, and a branch beside its input or added to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, overload

import torch
from torch import Tensor

from pydenoise import memory, ops

from .fusion import Step, steps_of
from .module import Module
from .window import Window


def interior(*modules: Module) -> AbstractContextManager[None]:
    """Scope for the tensors between modules: recycled where the package alone sees them.

    Inside another such scope there is nothing left to ask: it was opened for all that is below.
    """
    if memory.is_recycling() or not all(module.stays_inside() for module in modules):
        return _NO_SCOPE
    return memory.recycling()


_NO_SCOPE = nullcontext()


_NOTHING_PLANNED: tuple[int, list[Step], bool] = -1, [], False


class Sequential(Module):
    """Modules one after the other.

    ::

        forward    z  = m_k(... m_2(m_1(x)))
        backward   gx = m_1'(... m_k'(gz)), the backward of each in reverse order

    Parameters
    ----------
    *modules : Module
        Named `0`, `1`, ... in `state_dict`, as in torch.

    Notes
    -----
    What passes between the layers is recycled memory, with the channels of a pixel together where
    the kernels like that best; output and grad_input are fresh, in the memory format of what
    came. A convolution applies the rectifier behind it itself, and its gradient when it goes back.
    Each layer keeps on its own stack what it alone needs, so going back through the container or
    layer by layer gives the same bits.

    Without modules it is the identity, and returns its input itself.

    Examples
    --------
    >>> import torch
    >>> from pydenoise import nn
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    >>> model(torch.rand(1, 3, 16, 16)).shape
    torch.Size([1, 8, 16, 16])
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        self._planned: tuple[int, list[Step], bool] = _NOTHING_PLANNED
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> Sequential:
        """Put a module behind the last; returns the container."""
        self.add_module(str(len(self)), module)
        return self

    def forward(self, input: Tensor) -> Tensor:
        steps, fused = self._plan()
        outside, inside = _formats(input, fused)
        with interior(self):
            for step in steps[:-1]:
                input = step.forward(input, outside if step.is_last_convolution else inside)
        for step in steps[-1:]:
            input = step.forward(input, outside)
        return input

    def backward(self, grad_output: Tensor) -> Tensor:
        steps, fused = self._plan()
        outside, _ = _formats(grad_output, fused)
        grad_output = self._back_to_first(grad_output)
        for step in steps[:1]:
            grad_output = step.backward(grad_output, outside)
        return grad_output

    def backward_parameters(self, grad_output: Tensor) -> None:
        grad_output = self._back_to_first(grad_output)
        for step in self._plan()[0][:1]:
            step.module.backward_parameters(grad_output)

    def reads(self, window: Window, axis: int) -> Window:
        for module in reversed(self._children.values()):
            window = module.reads(window, axis)
        return window

    def _back_to_first(self, grad_output: Tensor) -> Tensor:
        """Gradient of the output of the first step's module."""
        steps, fused = self._plan()
        outside, inside = _formats(grad_output, fused)
        with interior(self):
            for step in steps[-1:]:
                grad_output = step.back_through_rectifier(grad_output)
            for step, before in zip(steps[:0:-1], steps[-2::-1], strict=True):
                memory_format = outside if step.is_first_convolution else inside
                grad_output = step.backward_before(before, grad_output, memory_format)
        return grad_output

    def _plan(self) -> tuple[list[Step], bool]:
        """The steps, and whether neighbours may be fused; made anew when any module changed."""
        changes, planned = Module.changes, self._planned
        if planned[0] != changes:
            fused = self.stays_inside()
            planned = changes, steps_of([*self._children.values()], fused), fused
            self.__dict__["_planned"] = planned  # at once: other threads may look
        return planned[1], planned[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_planned": _NOTHING_PLANNED}

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Module:
        modules = list(self)
        return Sequential(*modules[index]) if isinstance(index, slice) else modules[index]


def _formats(
    image: Tensor, fused: bool
) -> tuple[torch.memory_format | None, torch.memory_format | None]:
    """The formats of what comes and goes, and of what passes between fused layers; None for that
    of each layer's own input, also where the first layer will refuse what came."""
    if not fused or not isinstance(image, Tensor):
        return None, None
    return memory.format_of(image), ops.fastest_format(image)


class Skip(Module):
    """A branch's output with the branch's input behind it, as channels: a skip connection.

    ::

        forward    z  = cat([branch(x), x], dim=1)
        backward   gx = branch'(gz[:, :C]) + gz[:, C:]

    with C the channels that the branch gives: x is used twice, so its gradients add up.

    Parameters
    ----------
    branch : Module
        Keeps batch, height and width: ``(N, C_in, H, W) -> (N, C, H, W)``.

    Raises
    ------
    ValueError
        In forward, where the branch changes anything but the channels.

    Notes
    -----
    O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image
    segmentation", MICCAI 2015.
    """

    branch: Module

    def __init__(self, branch: Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, input: Tensor) -> Tensor:
        with interior(self):
            beside: Tensor = self.branch.forward(input)
        self._check(beside, input)
        channels = beside.shape[1]
        size = (input.shape[0], channels + input.shape[1], *input.shape[2:])
        output = memory.empty(
            size, dtype=input.dtype, device=input.device, memory_format=memory.format_of(input)
        )
        output[:, :channels].copy_(beside.detach())
        output[:, channels:].copy_(input.detach())
        self._keep(output, channels)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        (channels,) = self._recall(grad_output)
        with interior(self):
            grad_branch = memory.copy(grad_output[:, :channels], memory.format_of(grad_output))
            through: Tensor = self.branch.backward(grad_branch)
        past = grad_output[:, channels:]
        grad_input = memory.copy(past, memory.format_of(grad_output))
        return grad_input.add_(through.detach())

    def reads(self, window: Window, axis: int) -> Window:
        return self.branch.reads(window, axis).joined(window)

    def _check(self, beside: Tensor, input: Tensor) -> None:
        if input.dim() != 4 or beside.dim() != 4:
            raise ValueError(
                "Skip: input and branch output must be (N, C, H, W), "
                f"got {tuple(input.shape)} and {tuple(beside.shape)}"
            )
        if (beside.shape[0], *beside.shape[2:]) != (input.shape[0], *input.shape[2:]):
            raise ValueError(
                "Skip: the branch must keep batch, height and width of its input; "
                f"input {tuple(input.shape)}, branch output {tuple(beside.shape)}"
            )


class Residual(Module):
    """A branch's output and the branch's input, added up.

    ::

        forward    z  = x + branch(x)
        backward   gx = gz + branch'(gz)

    Parameters
    ----------
    branch : Module
        Keeps the shape: ``(N, C, H, W) -> (N, C, H, W)``.

    Raises
    ------
    ValueError
        In forward, where the branch changes the shape.

    Notes
    -----
    K. He et al., "Deep residual learning for image recognition", CVPR 2016.
    """

    branch: Module

    def __init__(self, branch: Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, input: Tensor) -> Tensor:
        with interior(self):
            change: Tensor = self.branch.forward(input)
        if change.shape != input.shape:
            raise ValueError(
                "Residual: the branch must keep the shape of its input; "
                f"input {tuple(input.shape)}, branch output {tuple(change.shape)}"
            )
        output = memory.copy(input, memory.format_of(input)).add_(change.detach())
        self._keep(output)
        return output

    def backward(self, grad_output: Tensor) -> Tensor:
        self._recall(grad_output)
        with interior(self):
            through: Tensor = self.branch.backward(grad_output)
        grad_input = memory.copy(grad_output, memory.format_of(grad_output))
        return grad_input.add_(through.detach())

    def backward_parameters(self, grad_output: Tensor) -> None:
        self._recall(grad_output)
        with interior(self):
            self.branch.backward_parameters(grad_output)

    def reads(self, window: Window, axis: int) -> Window:
        return self.branch.reads(window, axis).joined(window)
