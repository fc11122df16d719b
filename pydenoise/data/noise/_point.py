"""Noise of renders: few samples of a fine picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydenoise.data.noise._model import Array, NoiseModel, unit


@dataclass(frozen=True)
class PointSample(NoiseModel):
    """One random pixel of each block for the block's mean: noise of a render with few samples.

    The clean picture is cut into blocks of `block` x `block` pixels. The clean value of a block is
    its mean, the noisy one a uniformly drawn pixel of it, the same position in all channels. So
    the noise is zero in flat areas, strongest at texture, uncorrelated in space and strongly
    correlated between channels. A draw is `block` times smaller than the picture it reads.

    Parameters
    ----------
    block : int
        Pixels on a side of a block, 2 .. 64.
    """

    block: int

    def __post_init__(self) -> None:
        if not 2 <= self.block <= 64:
            raise ValueError(f"point: block {self.block}; expected 2 .. 64")

    def source_size(self, size: int) -> int:
        return self.block * size

    def expectation(self, clean: Array) -> Array:
        height, width = self._blocks(clean)
        shape = (height, self.block, width, self.block, *clean.shape[2:])
        return unit(clean).reshape(shape).mean(axis=(1, 3), dtype=np.float32)

    def _drawn(self, clean: Array, rng: np.random.Generator) -> Array:
        return unit(self.pick(clean, rng))

    def pick(self, clean: Array, rng: np.random.Generator) -> Array:
        """One random pixel of each block, in the picture's own dtype."""
        height, width = self._blocks(clean)
        row, column = np.divmod(rng.integers(0, self.block**2, (height, width)), self.block)
        row += np.arange(0, clean.shape[0], self.block)[:, None]
        column += np.arange(0, clean.shape[1], self.block)
        picked: Array = clean[row, column]
        return picked

    def _blocks(self, clean: Array) -> tuple[int, int]:
        height, width = clean.shape[:2]
        if height % self.block or width % self.block or not clean.size:
            raise ValueError(
                f"point: picture is {height}x{width}; expected multiples of the block {self.block}"
            )
        return height // self.block, width // self.block

    def __str__(self) -> str:
        return f"point:{self.block}"
