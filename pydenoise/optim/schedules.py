"""Schedules: factor on the learning rate as a function of the run's progress, 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant() -> Schedule:
    """The factor 1 throughout."""
    return lambda progress: 1.0


def step(*, every: float, gamma: float) -> Schedule:
    """``gamma ** floor(progress / every)``.

    Parameters
    ----------
    every : float
        Part of the run between two drops, in (0, 1].
    gamma : float
        Factor of each drop, above 0.
    """
    if not 0 < every <= 1:
        raise ValueError(f"step: every must lie in (0, 1], got {every}")
    if gamma <= 0:
        raise ValueError(f"step: gamma must be above 0, got {gamma}")
    # The small addend keeps 0.3 / 0.1 from falling short of 3.
    return lambda progress: gamma ** math.floor(progress / every + 1e-9)


def cosine(warmup: float = 0.0) -> Schedule:
    """Half a cosine from 1 to 0, after a linear rise from 0.

    Parameters
    ----------
    warmup : float
        Part of the run that the rise takes, in [0, 1).

    Notes
    -----
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
    without restarts.
    """
    if not 0 <= warmup < 1:
        raise ValueError(f"cosine: warmup must lie in [0, 1), got {warmup}")

    def factor(progress: float) -> float:
        if progress < warmup:
            return progress / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (progress - warmup) / (1 - warmup))

    return factor


def ramp_down(fraction: float = 0.3) -> Schedule:
    """1, then ``(1/2 + 1/2 cos(pi t))^2`` with t from 0 to 1 over the last part of the run.

    Parameters
    ----------
    fraction : float
        That part, in (0, 1].

    Notes
    -----
    J. Lehtinen et al., "Noise2Noise", ICML 2018.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"ramp_down: fraction must lie in (0, 1], got {fraction}")

    def factor(progress: float) -> float:
        t = max(0.0, (progress - (1 - fraction)) / fraction)
        return float((0.5 + 0.5 * math.cos(math.pi * t)) ** 2)

    return factor
