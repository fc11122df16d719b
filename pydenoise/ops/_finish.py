"""What a convolution does to its sums before it writes them: an activation, or its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Finish(NamedTuple):
    """An activation that a convolution applies itself, so that its result is written once.

    Attributes
    ----------
    activation : 'relu' or 'leaky_relu'
    negative_slope : float
        Of leaky ReLU, at least 0.
    output : Tensor, optional
        Given, the gradient through the activation is taken instead: the activation's output, of the
        result's shape.
    """

    activation: str
    negative_slope: float = 0.0
    output: Tensor | None = None


def apply(backend: Any, finish: Finish, image: Tensor) -> None:
    """The same as a step of its own, in place, for what cannot do it while it writes."""
    slope = () if finish.activation == "relu" else (finish.negative_slope,)
    if finish.output is None:
        getattr(backend, finish.activation)(image, image, *slope)
    else:
        getattr(backend, f"{finish.activation}_backward")(image, image, finish.output, *slope)
