"""The one place where random streams are made."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

Purpose: TypeAlias = Literal[
    "order", "crop", "noise", "augment", "init", "validation", "picture", "neighbors"
]

PURPOSES: tuple[str, ...] = get_args(Purpose)
_WORD = 2**64


def generator(seed: int, epoch: int, index: int, purpose: Purpose) -> np.random.Generator:
    """A random stream that depends on these four values and on nothing else.

    Parameters
    ----------
    seed, epoch, index : int
        Each in 0 .. 2**64 - 1. `index` is the sample; 0 for what is drawn once per epoch.
    purpose : {"order", "crop", "noise", "augment", "init", "validation", "picture", "neighbors"}
        Streams of different purposes never meet.

    Returns
    -------
    numpy.random.Generator
        New; over Philox with key (seed, epoch) and counter (0, 0, index, purpose). The two low
        words count 2**128 blocks before one sample's stream reaches the next one's.

    Raises
    ------
    ValueError
        For a value outside its range or an unknown purpose.

    Examples
    --------
    >>> a = generator(seed=1, epoch=0, index=7, purpose="noise")
    >>> b = generator(seed=1, epoch=0, index=7, purpose="noise")
    >>> bool(a.random() == b.random())
    True
    """
    if purpose not in PURPOSES:
        raise ValueError(
            f"generator: unknown purpose {purpose!r}; expected one of {', '.join(PURPOSES)}"
        )
    for name, value in (("seed", seed), ("epoch", epoch), ("index", index)):
        if not 0 <= value < _WORD:
            raise ValueError(f"generator: {name} is {value}; expected 0 .. 2**64 - 1")
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, index, PURPOSES.index(purpose)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
