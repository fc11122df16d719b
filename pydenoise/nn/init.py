"""First values of weights and biases, by name.

Drawn with a generator of their own: torch's global random state is neither read nor changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

INITS: dict[str, tuple[str, Callable[[int, int], float]]] = {
    "default": ("uniform", lambda fan_in, fan_out: math.sqrt(1 / fan_in)),
    "kaiming_uniform": ("uniform", lambda fan_in, fan_out: math.sqrt(6 / fan_in)),
    "kaiming_normal": ("normal", lambda fan_in, fan_out: math.sqrt(2 / fan_in)),
    "xavier_uniform": ("uniform", lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out))),
    "xavier_normal": ("normal", lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
}
"""Name -> distribution, and its bound or standard deviation from fan_in and fan_out."""


def seeded(seed: int | None) -> torch.Generator:
    """Generator for `fill`; seeded by the system where `seed` is None."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    return generator


def fill(
    weight: Tensor,
    bias: Tensor | None,
    init: str = "default",
    generator: torch.Generator | None = None,
) -> None:
    """Overwrite the weight and the bias of a convolution with their first values.

    Parameters
    ----------
    weight : Tensor (A, B, kh, kw)
        ``fan_in = B * kh * kw`` and ``fan_out = A * kh * kw``, which for a transposed convolution
        are torch's numbers rather than those of the formula.
    bias : Tensor, optional
        Uniform on ``+-1/sqrt(fan_in)`` with `default`, zeros otherwise.
    init : str
        ``default``: U(+-1/sqrt(fan_in)), torch's own; ``kaiming_normal``: N(0, 2/fan_in);
        ``kaiming_uniform``: U(+-sqrt(6/fan_in)) [1]_; ``xavier_normal``: N(0, 2/(fan_in+fan_out));
        ``xavier_uniform``: U(+-sqrt(6/(fan_in+fan_out))) [2]_.
    generator : torch.Generator, optional
        On the CPU, whatever the device of the weight, so that the numbers do not depend on it.
        Seeded by the system if omitted: `torch.manual_seed` has no effect.

    Raises
    ------
    ValueError
        For a name that is none of these.

    Notes
    -----
    With the generator seeded like torch's own, `default` draws the numbers of `torch.nn` layers,
    up to a rounding of the bound. N(0, 1) is left out: it is known to collapse these networks.

    .. [1] K. He et al., "Delving deep into rectifiers", ICCV 2015.
    .. [2] X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
       networks", AISTATS 2010.
    """
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}; got {init!r}")
    distribution, spread = INITS[init]
    generator = generator or seeded(None)
    taps = weight.shape[2] * weight.shape[3]
    fan_in, fan_out = weight.shape[1] * taps, weight.shape[0] * taps
    _draw(weight, distribution, spread(fan_in, fan_out), generator)
    if bias is not None:
        if init == "default":
            _draw(bias, distribution, spread(fan_in, fan_out), generator)
        else:
            bias.zero_()


def _draw(tensor: Tensor, distribution: str, spread: float, generator: torch.Generator) -> None:
    drawn = torch.empty(tensor.shape, dtype=tensor.dtype)
    if distribution == "uniform":
        drawn.uniform_(-spread, spread, generator=generator)
    else:
        drawn.normal_(0, spread, generator=generator)
    tensor.copy_(drawn)
