"""Peak memory of a training run, ours and torch's, each in a process of its own.

    python bench/memory.py WAY BATCH SIDE

Trains Table I for some steps on one batch and prints by how many megabytes the process grew at
most. What counts begins after the imports and a step on the smallest picture, so that code being
loaded does not.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from pydenoise import models, objectives, optim

STEPS = 20
WAYS = ("ours", "torch", "torch channels_last")
BATCHES = ((128, 32), (16, 128))
SMALLEST = 4


def peak_kib() -> int:
    """The most memory this process has held, since the last `forget_peak`.

    Not getrusage's figure: that one begins with what the parent held.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"^VmHWM:\s*(\d+) kB", status, flags=re.M)[0])


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def train_ours(steps: int, batch: int, side: int) -> None:
    model = models.autoencoder(seed=0)
    optimizer = optim.SGD(model, lr=0.1, momentum=0.9)
    objective = objectives.Noise2Noise()
    source, target = torch.rand(2, batch, 3, side, side)
    for _ in range(steps):
        optimizer.zero_grad()
        objective.step(model, source, target)
        optimizer.step()


def train_torch(memory_format: torch.memory_format, steps: int, batch: int, side: int) -> None:
    import torch_twin

    model = torch_twin.table_one().to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)
    pictures = torch.rand(2, batch, 3, side, side)
    source, target = (picture.contiguous(memory_format=memory_format) for picture in pictures)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(source), target).backward()
        optimizer.step()


TRAINERS = {
    "ours": train_ours,
    "torch": partial(train_torch, torch.contiguous_format),
    "torch channels_last": partial(train_torch, torch.channels_last),
}


def measure() -> dict[str, dict[str, float]]:
    """For each batch, written as a size, the megabytes of each way."""
    result: dict[str, dict[str, float]] = {}
    for batch, side in BATCHES:
        peaks = result[f"{batch}, 3x{side}x{side}"] = {}
        for way in WAYS:
            words = [sys.executable, __file__, way, str(batch), str(side)]
            said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            peaks[way] = float(said.stdout)
    return result


def main() -> None:
    way, batch, side = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    TRAINERS[way](1, 1, SMALLEST)
    forget_peak()
    before = peak_kib()
    TRAINERS[way](STEPS, batch, side)
    print((peak_kib() - before) * 1024 / 1e6)


if __name__ == "__main__":
    main()
