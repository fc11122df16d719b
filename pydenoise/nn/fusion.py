"""Steps of a `Sequential`: a module, or a convolution with the rectifier behind it as one.

A fused step computes what its two modules compute one after the other, bit for bit, and leaves on
the stack of each what it would have left itself.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from .activation import Rectifier
from .conv import Convolution
from .module import Module


class Step(NamedTuple):
    """A module and, where it is a convolution, the rectifier that it applies itself.

    Attributes
    ----------
    is_first_convolution, is_last_convolution : bool
        Nothing before it, or behind it, changes the memory format any more.
    """

    module: Module
    rectifier: Rectifier | None = None
    is_first_convolution: bool = False
    is_last_convolution: bool = False

    def forward(self, input: Tensor, memory_format: torch.memory_format | None) -> Tensor:
        """Output; a convolution's in the given memory format."""
        if not _is_convolution(self.module):
            return self.module.forward(input)
        finish = None if self.rectifier is None else self.rectifier.finish()
        output = self.module.forward_finished(input, finish, memory_format)
        if self.rectifier is None:
            return output
        if finish is None:
            return self.rectifier.forward(output)
        self.rectifier.keep(output)
        return output

    def back_through_rectifier(self, grad_output: Tensor) -> Tensor:
        """Gradient of the module's own output."""
        return grad_output if self.rectifier is None else self.rectifier.backward(grad_output)

    def backward(self, grad_output: Tensor, memory_format: torch.memory_format | None) -> Tensor:
        """Gradient of the input; a convolution's in the given memory format."""
        if _is_convolution(self.module):
            return self.module.backward_finished(grad_output, None, memory_format)
        return self.module.backward(grad_output)

    def backward_before(
        self, before: Step, grad_output: Tensor, memory_format: torch.memory_format | None
    ) -> Tensor:
        """Gradient of the output of the module of the step before, through its rectifier.

        A convolution takes it through itself if its input is what that rectifier left.
        """
        rectifier = before.rectifier
        if rectifier is None:
            return self.backward(grad_output, memory_format)
        output = rectifier.newest()
        finish = rectifier.finish()
        if (
            finish is None
            or output is None
            or not _is_convolution(self.module)
            or self.module.newest_input() is not output
        ):
            return rectifier.backward(self.backward(grad_output, memory_format))
        through = finish._replace(output=output)
        grad_output = self.module.backward_finished(grad_output, through, memory_format)
        rectifier.drop_newest()
        return grad_output


def _is_convolution(module: Module) -> TypeGuard[Convolution]:
    """Whether it is one of the package; a user's may have a forward or backward of its own."""
    return isinstance(module, Convolution) and module.stays_inside()


def steps_of(modules: list[Module], fused: bool) -> list[Step]:
    """Modules as steps; each on its own unless `fused`.

    The last module's output belongs to the caller, who may write into it: a rectifier that would
    not keep it on its own is not fused there.
    """
    steps: list[Step] = []
    for i, module in enumerate(modules):
        before = steps[-1] if steps else None
        if (
            fused
            and before is not None
            and before.rectifier is None
            and _is_convolution(before.module)
            and isinstance(module, Rectifier)
            and (module.keeps_output or i + 1 < len(modules))
        ):
            steps[-1] = before._replace(rectifier=module)
        else:
            steps.append(Step(module))
    convolutions = [i for i, step in enumerate(steps) if _is_convolution(step.module)]
    if convolutions:
        first, last = convolutions[0], convolutions[-1]
        steps[first] = steps[first]._replace(is_first_convolution=True)
        steps[last] = steps[last]._replace(is_last_convolution=True)
    return steps
