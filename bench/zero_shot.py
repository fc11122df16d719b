"""Zero-shot Noise2Noise: ours against torch autograd, step by step, and against torch's clock.

    python bench/zero_shot.py [PICTURE ...] [--steps 2000]

First proved: from the same weights and the same noise, on centre crops of 128 x 128 pixels, the
paper's recipe in ours and in torch gives the same losses over 200 steps, and the same PSNR at the
end. The steps are compared in float64: Adam's first steps blow rounding up, so that in float32
either strays from its own float64 losses, by a hundredth and more; how far is printed. Then timed,
in the same process, on one picture of 256 x 256: the paper's recipe in torch, in the faster of its
two memory formats, and ours, paper's and fast, with the PSNR of each.

Without pictures the photographs of scikit-image. Writes bench/results/zero_shot.json, and a
sentence of it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
import torch_twin
from torch import Tensor
from torch.nn import functional

from pydenoise import benchmark, data, metrics, models, optim, zero_shot
from pydenoise.atomic import new_file
from pydenoise.objectives import ZeroShot

RESULT = Path(__file__).resolve().parent / "results" / "zero_shot.json"
SIGMA_255 = 25
CROP, TIMED = 128, 256
COMPARED = 200
LARGEST_DIFFERENCE, LARGEST_DB = 1e-3, 0.15
TRIED = 10
PAPER = zero_shot.RECIPES["paper"]


class InTorch:
    """The paper's recipe as a torch user writes it."""

    def __init__(self, noisy: Tensor, memory_format: torch.memory_format, seed: int = 0) -> None:
        channels, dtype = noisy.shape[1], noisy.dtype
        self.model = torch_twin.zero_shot(channels)
        self.model.load_state_dict(models.zero_shot(channels, seed=seed).state_dict())
        self.model.to(dtype=dtype, memory_format=memory_format)
        self.noisy = noisy.contiguous(memory_format=memory_format)
        self.optimizer = torch.optim.Adam(self.model.parameters(), PAPER.lr, fused=True)
        kernels = torch.tensor([[[[0, 0.5], [0.5, 0]]], [[[0.5, 0], [0, 0.5]]]], dtype=dtype)
        self.kernels = [
            kernel.expand(channels, 1, 2, 2).contiguous() for kernel in kernels[:, None]
        ]

    def halves(self, picture: Tensor) -> list[Tensor]:
        groups = picture.shape[1]
        return [functional.conv2d(picture, k, stride=2, groups=groups) for k in self.kernels]

    def step(self, factor: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = PAPER.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        y1, y2 = self.halves(self.noisy)
        g1, g2 = y1 - self.model(y1), y2 - self.model(y2)
        h1, h2 = self.halves(self.noisy - self.model(self.noisy))
        mse = functional.mse_loss
        loss = (mse(g1, y2) + mse(g2, y1) + mse(g1, h1) + mse(g2, h2)) / 2
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def denoised(self) -> Tensor:
        with torch.no_grad():
            return self.noisy - self.model(self.noisy)


class Ours:
    """The same with the package's objective, a step at a time."""

    def __init__(self, noisy: Tensor, seed: int = 0) -> None:
        self.model = models.zero_shot(noisy.shape[1], seed=seed).to(noisy.dtype)
        self.noisy, self.objective = noisy, ZeroShot()
        self.optimizer = optim.Adam(self.model.parameters(), PAPER.lr)

    def step(self, factor: float) -> float:
        self.optimizer.lr = PAPER.lr * factor
        loss = self.objective.step(self.model, self.noisy)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def denoised(self) -> Tensor:
        self.model.eval()
        return self.noisy - self.model(self.noisy)


def centre(picture: Tensor, side: int) -> Tensor:
    top, left = ((size - side) // 2 for size in picture.shape[2:])
    return picture[:, :, top : top + side, left : left + side].contiguous()


def with_noise(clean: Tensor) -> Tensor:
    noise = np.random.default_rng(0).standard_normal(tuple(clean.shape)) * (SIGMA_255 / 255)
    return clean + torch.from_numpy(noise.astype(np.float32))


def psnr(picture: Tensor, clean: Tensor) -> float:
    return metrics.psnr_per_image(picture.clamp(0, 1).contiguous(), clean)


def strayed(losses: list[float], exact: list[float]) -> float:
    """The largest relative difference at any step."""
    return max(abs(a - b) / b for a, b in zip(losses, exact, strict=True))


def equality(name: str, clean: Tensor, steps: int) -> dict[str, Any]:
    noisy = with_noise(clean)
    factors = [PAPER.schedule(step / steps) for step in range(steps)]
    wide = Ours(noisy.double()), InTorch(noisy.double(), torch.contiguous_format)
    mine, exact = ([way.step(factor) for factor in factors[:COMPARED]] for way in wide)
    ways = Ours(noisy), InTorch(noisy, torch.contiguous_format)
    rounded = [[way.step(factor) for factor in factors] for way in ways]
    found = [psnr(way.denoised(), clean) for way in ways]
    worst = strayed(mine, exact)
    row = {
        "picture": name,
        "loss_difference": worst,
        "float32_strays": [strayed(losses[: len(exact)], exact) for losses in rounded],
        "psnr_noisy": psnr(noisy, clean),
        "psnr_ours": found[0],
        "psnr_torch": found[1],
        "holds": worst < LARGEST_DIFFERENCE and abs(found[0] - found[1]) < LARGEST_DB,
    }
    strays = " and ".join(f"{each:.0e}" for each in row["float32_strays"])
    print(
        f"{name}: largest relative loss difference over {len(exact)} steps {worst:.1e} (float32 "
        f"strays by {strays}), after {steps} steps {found[0]:.2f} dB, torch {found[1]:.2f} dB",
        flush=True,
    )
    return row


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def clocks(name: str, clean: Tensor, steps: int) -> dict[str, Any]:
    noisy = with_noise(clean)
    picture = data.Picture.of(noisy[0].permute(1, 2, 0).contiguous().numpy())

    def torchs(memory_format: torch.memory_format, steps: int) -> Tensor:
        way = InTorch(noisy, memory_format)
        for step in range(steps):
            way.step(PAPER.schedule(step / steps))
        return way.denoised()

    def ours(recipe: zero_shot.Recipe) -> Tensor:
        array = zero_shot.denoise_pages(picture, recipe=recipe).samples[0]
        return torch.from_numpy(array.transpose(2, 0, 1)[None].copy())

    formats = torch.contiguous_format, torch.channels_last
    for memory_format in formats:  # warm
        torchs(memory_format, TRIED)
    faster = min(formats, key=lambda each: timed(lambda: torchs(each, TRIED))[0])
    ways: dict[str, Callable[[], Tensor]] = {
        "fast": lambda: ours(zero_shot.RECIPES["fast"]),
        "paper": lambda: ours(PAPER._replace(steps=steps)),
        "torch, paper": lambda: torchs(faster, steps),
        "fast, again": lambda: ours(zero_shot.RECIPES["fast"]),
    }
    rows = {}
    for way, call in ways.items():
        seconds, result = timed(call)
        rows[way] = {"seconds": seconds, "psnr": psnr(result, clean)}
        print(
            f"{name} {TIMED}x{TIMED}, {way}: {seconds:.1f} s, {rows[way]['psnr']:.2f} dB",
            flush=True,
        )
    share = rows["fast"]["seconds"] / rows["torch, paper"]["seconds"]
    print(f"fast takes {share:.1%} of torch's time for the paper's recipe ({faster})")
    return {"picture": name, "format": str(faster), "ways": rows, "share_of_torch": share}


def sentence(report: dict[str, Any]) -> str:
    """The clocks in a sentence."""
    clocks = report["clocks"]
    names = {"fast": "`fast`", "paper": "`paper`", "torch, paper": "torch's autograd, `paper`,"}
    said = [
        f"{name} {clocks['ways'][way]['seconds']:.0f} s for {clocks['ways'][way]['psnr']:.2f} dB"
        for way, name in names.items()
    ]
    return (
        f"{TIMED}x{TIMED} pixels of {clocks['picture']} at sigma {report['sigma_255']}, 2 threads: "
        f"{'; '.join(said)} (`bench/zero_shot.py`)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--steps", type=int, default=PAPER.steps)
    options = parser.parse_args()
    if options.pictures:
        arrays = {f"{path.parent.name}/{path.stem}": data.read(path) for path in options.pictures}
    else:
        photographs = data.sample_photographs()
        arrays = {name: photographs[name] for name in ("astronaut", "coffee", "chelsea")}
    tensors = {name: data.to_tensor(array) for name, array in arrays.items()}
    large = [name for name, tensor in tensors.items() if min(tensor.shape[2:]) >= TIMED]
    if not large:
        raise SystemExit(f"no picture has {TIMED}x{TIMED} pixels to be timed on; name one that has")
    report = {
        "environment": benchmark.environment(),
        "sigma_255": SIGMA_255,
        "steps": options.steps,
        "equality": [equality(n, centre(t, CROP), options.steps) for n, t in tensors.items()],
    }
    if not all(row["holds"] for row in report["equality"]):
        raise SystemExit("ours and torch differ: nothing is timed")
    report["clocks"] = clocks(large[-1], centre(tensors[large[-1]], TIMED), options.steps)
    with new_file(RESULT, overwrite=True) as file:
        file.write(f"{json.dumps(report, indent=1)}\n".encode())
    tables.fill("zero-shot", sentence(report))


if __name__ == "__main__":
    main()
