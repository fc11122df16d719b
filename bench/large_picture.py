"""Peak memory of a large picture through the shipped weights, in a process of its own.

    python bench/large_picture.py [SIDE]

Makes a gray picture of 16 bits, 12,000 x 12,000 if SIDE is omitted, and prints by how much more
than picture and result the process grew at most. A smaller picture first shows that tiles give the
bits of the whole one.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np
import numpy.typing as npt
import torch

from pydenoise import ee559, nn
from pydenoise.data import Picture
from pydenoise.inference import denoise, denoise_pages

SIDE = 12_000
CHECKED = 1021
ROWS = 500


def peak_bytes() -> int:
    """The most memory that this process has held; it counts from its start."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def network() -> nn.Module:
    model = ee559.Model()
    model.load_pretrained_model()
    return model.network


def noisy_picture(side: int) -> npt.NDArray[np.uint16]:
    """Waves of all directions under Gaussian noise, made a few rows at a time."""
    rng = np.random.default_rng(0)
    picture = np.empty((side, side), np.uint16)
    x = np.arange(side, dtype=np.float32)
    for first in range(0, side, ROWS):
        rows = picture[first : first + ROWS]
        y = np.arange(first, first + len(rows), dtype=np.float32)[:, None]
        wave = np.sin(x * y / 5e4) * 12_000 + 32_768
        rows[:] = (wave + rng.standard_normal(rows.shape, np.float32) * 5_000).clip(0, 65_535)
    return picture


def check_tiles(model: nn.Module) -> None:
    """Tiles of every kind against one pass over the whole."""
    multiple = model.size_multiple
    side = CHECKED // multiple * multiple
    picture = torch.from_numpy(noisy_picture(side).astype(np.float32) / 65_535)[None, None]
    colours = picture.repeat(1, 3, 1, 1)
    with nn.no_backward():
        whole = model(colours)
    for megabytes in (2, 8, 64):
        if not torch.equal(denoise(model, colours, max_bytes=megabytes << 20), whole):
            raise SystemExit(f"large_picture: tiles of {megabytes} MiB differ from the whole")


def measure(side: int) -> None:
    model = network()
    check_tiles(model)
    picture = noisy_picture(side)
    began = time.perf_counter()
    result = denoise_pages(model, Picture.of(picture)).array
    seconds = time.perf_counter() - began
    above = peak_bytes() - picture.nbytes - result.nbytes
    print(
        f"{side}x{side}, 16 bits gray: {above / 1e9:.2f} GB above input and output, "
        f"{seconds:.0f} s, {side**2 / seconds / 1e6:.1f} megapixels/s"
    )


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--here":
        measure(int(sys.argv[2]))
        return
    side = sys.argv[1] if len(sys.argv) > 1 else str(SIDE)
    sys.exit(subprocess.run([sys.executable, __file__, "--here", side], check=False).returncode)


if __name__ == "__main__":
    main()
