"""A training run whose numbers are no numbers any more: seen at once, and told where it began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from pydenoise.nn import Module, no_backward
from pydenoise.nn.hooks import outputs_seen

_NAMED = 4


class TrainingDiverged(RuntimeError):
    """The loss or the weights stopped being finite numbers.

    Attributes
    ----------
    what : str
        What was seen.
    step : int
        The step, counted from 1, after which it was seen.
    lr : float
        The learning rate of that step.
    where : str
        Where it began, and in which batch, as far as that is known.
    """

    def __init__(self, what: str, step: int, lr: float, where: str = "") -> None:
        place = f" ({where})" if where else ""
        super().__init__(
            f"training diverged: {what} at step {step} with lr {lr:g}{place}; "
            f"start again with a smaller rate, {lr / 4:.2g} say, and look for NaN in the data"
        )
        self.what, self.step, self.lr, self.where = what, step, lr, where

    def __reduce__(self) -> tuple[type[TrainingDiverged], tuple[str, int, float, str]]:
        """Made again from what it was made of, so that it travels between processes."""
        return type(self), (self.what, self.step, self.lr, self.where)


def beginning(
    model: Module, source: Tensor, target: Tensor, pairs: Sequence[int], epoch: int
) -> str:
    """Where a step's numbers stop being finite: in the data, a weight, a layer, or behind them.

    Parameters
    ----------
    model : Module
        Its weights are those before the step.
    source, target : Tensor (N, C, H, W)
        The batch of the step.
    pairs : sequence of int
        Its numbers in the source of pairs.
    epoch : int
        From 0.
    """
    batch = batch_of(pairs, epoch)
    broken = [
        pair
        for pair, a, b in zip(pairs, source, target, strict=True)
        if not (a.isfinite().all() and b.isfinite().all())
    ]
    if broken:
        return f"{batch}, the data of pairs {_listed(broken)} is not finite"
    weight = first_unfinite_weight(model)
    if weight:
        return f"{batch}, {weight}"
    found: list[str] = []

    def look(name: str, layer: Module, output: Tensor) -> None:
        if not found and not output.isfinite().all():
            found.append(f"first in layer {name} ({type(layer).__name__})")

    try:
        with no_backward(), outputs_seen(model, look):
            model.forward(source)
    except Exception:  # a step may run the network on something else, which is not known here
        return batch
    return f"{batch}, {found[0] if found else 'behind the last layer, in the loss'}"


def batch_of(pairs: Sequence[int], epoch: int) -> str:
    """A batch in words; the epoch counts from 0."""
    return f"in the batch of pairs {_listed(pairs)} of epoch {epoch + 1}"


def first_unfinite_weight(model: Module) -> str:
    """The first of the weights that is not finite; empty where all are."""
    for name, parameter in model.named_parameters():
        if not parameter.data.isfinite().all():
            return f"first in the weight {name}"
    return ""


def _listed(pairs: Iterable[int]) -> str:
    numbers = [str(pair) for pair in pairs]
    more = len(numbers) - _NAMED
    return ", ".join(numbers[:_NAMED]) + (f" and {more} more" if more > 0 else "")
