"""`make bench-distributed`: training on several processes, measured, and reckoned for elsewhere.

Measured, in one run on one machine: a step of one process and of two with a thread each, in turns;
the time to sum gradients of many sizes between 2 and 4 processes; when sums begin within a step;
and a step of one process over the pictures in it. A cost model is fitted to that, and says what
8, 64 and 512 processes would do on networks that are named as assumptions. First the weights of
two processes are held against those of one. README.md and RESULTS.md get the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tables
import torch
from torch import Tensor

from pydenoise import benchmark, models, nn, objectives, optim
from pydenoise.data import TensorPairs
from pydenoise.distributed import BucketSteps, Ranks, Wish, connected
from pydenoise.steps import Average, Steps

RESULTS = tables.RESULTS / "distributed.json"
ROUNDS, STEPS = 15, 6
SIZES = [2**power for power in range(8, 25, 2)]
BATCHES = [1, 2, 4, 8, 16, 32]


@dataclass(frozen=True)
class Case:
    """A network, and batches for it."""

    words: str
    build: Callable[[], nn.Module]
    batch: int
    side: int


CASES = {
    "small": Case("autoencoder of Table I, 32x32", lambda: models.autoencoder(seed=0), 128, 32),
    "unet-small": Case("small U-Net, 64x64", lambda: models.small_unet(seed=0), 16, 64),
    "unet": Case("U-Net of the paper, 64x64", lambda: models.unet(seed=0), 8, 64),
}

NETWORKS = {
    "10 Gb/s Ethernet": (30e-6, 1.1e9),
    "100 Gb/s RDMA": (5e-6, 11e9),
}
"""Assumed: seconds to reach another host, and bytes a second that get there."""

WORKERS = [8, 64, 512]


def pairs_of(case: Case, batch: int) -> TensorPairs:
    """Noise in memory: what a batch costs to cut is nearly nothing."""
    numbers = torch.Generator().manual_seed(1)
    size = 2, STEPS * batch, 3, case.side, case.side
    levels = torch.randint(0, 256, size, dtype=torch.uint8, generator=numbers)
    return TensorPairs(levels[0], levels[1])


def steps_of(case: Case, batch: int, ranks: Ranks | None) -> Steps:
    """Steps of a new network on such batches; alone where there are no ranks."""
    model = case.build()
    given = model, pairs_of(case, batch), objectives.Noise2Noise(), optim.SGD(model, 1e-3), batch, 0
    average = Average(model.flatten().data, 0.0)
    if ranks is None:
        return Steps(*given, average)
    return BucketSteps(*given, average, ranks=ranks, wishes=[Wish(None)])


def seconds(steps: Steps) -> float:
    """Of one step, over an epoch of them."""
    began = time.perf_counter()
    for _ in steps.epoch(0, 0, 0, STEPS, lambda step: 1e-3):
        pass
    return (time.perf_counter() - began) / STEPS


# --- in the processes ---------------------------------------------------------------------------


def compared(ranks: Ranks) -> dict[str, Any]:
    """One process, all together, and all at once each with its own part, in turns."""
    found = {}
    for name, case in CASES.items():
        shared, alone = steps_of(case, case.batch, ranks), steps_of(case, case.batch, None)
        apart = steps_of(case, case.batch // ranks.size, None)
        rows = []
        for _ in range(ROUNDS + 2):
            ranks.summed([0.0])
            together = seconds(shared)
            ranks.summed([0.0])
            side_by_side = max(map(float, ranks.gathered(seconds(apart))))
            ranks.summed([0.0])
            one = seconds(alone) if ranks.is_first else 0.0
            rows.append((one, together, side_by_side))
        distance = (shared._weights - alone._weights).abs().max() / alone._weights.abs().max()
        found[name] = {"rows": rows[2:], "distance": float(distance)}
    return found


def sums(ranks: Ranks) -> list[tuple[int, float]]:
    """Bytes and seconds of sums between all."""
    found = []
    for size in SIZES:
        tensor = torch.zeros(size // 4)
        times = []
        for _ in range(30):
            ranks.summed([0.0])
            began = time.perf_counter()
            ranks.start_sum(tensor).wait()
            times.append(time.perf_counter() - began)
        found.append((size, statistics.median(times[5:])))
    return found


def traced(ranks: Ranks) -> list[dict[str, float]]:
    """Of the last step: milliseconds after its begin at which each sum began and was there, and at
    which backward had ended."""
    marks: list[tuple[str, float]] = []
    steps = steps_of(CASES["unet"], CASES["unet"].batch, ranks)
    start, objective = ranks.start_sum, steps._objective.step

    def started(tensor: Tensor) -> Any:
        marks.append((f"sum of {tensor.nbytes:,} bytes begins", time.perf_counter()))
        return start(tensor)

    def stepped(*given: Any) -> float:
        marks.clear()
        marks.append(("forward begins", time.perf_counter()))
        loss = objective(*given)
        marks.append(("backward has ended", time.perf_counter()))
        return loss

    ranks.start_sum = started  # type: ignore[method-assign]
    steps._objective.step = stepped  # type: ignore[method-assign]
    for _ in steps.epoch(0, 0, 0, STEPS, lambda step: 1e-3):
        marks.append(("weights updated", time.perf_counter()))
        last = list(marks)
    del ranks.start_sum
    return [{"what": what, "ms": 1e3 * (at - last[0][1])} for what, at in last]


def work() -> None:
    """What each process does; the first says it."""
    torch.set_num_threads(1)
    with connected(torch.device("cpu")) as ranks:
        ranks.assemble()
        found: dict[str, Any] = {"sums": sums(ranks)}
        if ranks.size == 2:
            found |= {"cases": compared(ranks), "trace": traced(ranks)}
        if ranks.is_first:
            print(json.dumps(found))


# --- in the first process -----------------------------------------------------------------------


def launched(size: int) -> dict[str, Any]:
    """What so many processes measure."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={size}", __file__, "--work"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def over_batches() -> dict[str, list[tuple[int, float]]]:
    """Pictures of a step, and its seconds, on one thread."""
    torch.set_num_threads(1)
    found = {}
    for name, case in CASES.items():
        runs = {batch: steps_of(case, batch, None) for batch in BATCHES}
        times = {batch: [seconds(steps) for _ in range(6)][1:] for batch, steps in runs.items()}
        found[name] = [(batch, statistics.median(each)) for batch, each in times.items()]
    return found


def line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Offset and slope with the least squares of relative errors."""
    x = torch.tensor([[1.0, a] for a, _ in points], dtype=torch.float64)
    y = torch.tensor([b for _, b in points], dtype=torch.float64)
    found = torch.linalg.lstsq(x / y[:, None], torch.ones_like(y)[:, None]).solution
    return float(found[0]), float(found[1])


@dataclass(frozen=True)
class Model:
    """A step of W processes, n pictures in each, gradients of G bytes in b buckets, as a ring sums
    them::

        compute   a + c n
        sum       b 2 (W - 1) latency + 2 (W - 1) / W G / bandwidth
        step      compute + what of the sum backward, two thirds of the compute, does not hide

    The last bucket, which backward ends with, is never hidden.
    """

    offset: float
    slope: float
    gradient: int
    buckets: int

    def compute(self, pictures: float) -> float:
        return self.offset + self.slope * pictures

    def sum(self, workers: int, network: tuple[float, float]) -> float:
        latency, bandwidth = network
        hops = 2 * (workers - 1)
        return self.buckets * hops * latency + hops / workers * self.gradient / bandwidth

    def step(self, workers: int, pictures: float, network: tuple[float, float]) -> float:
        whole = self.sum(workers, network)
        hidden = min(whole * (1 - 1 / self.buckets), 2 / 3 * self.compute(pictures))
        return self.compute(pictures) + whole - hidden

    def efficiency(self, workers: int, pictures: float, network: tuple[float, float]) -> float:
        """Of so many processes, against one that has as many pictures."""
        return self.compute(pictures) / self.step(workers, pictures, network)

    def hides_from(self, workers: int, network: tuple[float, float]) -> str:
        """Pictures in each process from which on all but the last bucket's sum is hidden."""
        if self.buckets == 1:
            return "-"
        whole = self.sum(workers, network) * (1 - 1 / self.buckets)
        return str(max(1, -int(-(1.5 * whole - self.offset) // self.slope)))

    def pays_from(self, workers: int, network: tuple[float, float]) -> str:
        """Pictures in each process from which on it does nine tenths of what it would alone."""
        found = (n for n in range(1, 4097) if self.efficiency(workers, n, network) >= 0.9)
        return str(next(found, "more"))


def fitted(found: dict[str, Any], name: str) -> Model:
    """The model of a network."""
    gradient = CASES[name].build().flatten().grad.nbytes
    offset, slope = line(found["batches"][name])
    return Model(max(0.0, offset), slope, gradient, max(1, -(-gradient // 2**20)))


def gains(found: dict[str, Any]) -> str:
    """A step of each network on one process and on two."""
    where, rows = found["where"], []
    for name, case in CASES.items():
        kept = found["cases"][name]
        one, two, apart = (statistics.median(times) for times in zip(*kept["rows"], strict=True))
        gain = statistics.median(row[0] / row[1] for row in kept["rows"])
        most = statistics.median(row[0] / row[2] for row in kept["rows"])
        rows.append(
            [
                f"{case.words}, batch {case.batch}",
                *(f"{1e3 * value:.1f} ms" for value in (one, two, apart)),
                f"{gain:.2f}x",
                f"{most:.2f}x",
                f"{kept['distance']:.0e}",
            ]
        )
    titles = [
        "step",
        "one process",
        "two",
        "two, nothing summed",
        "gain",
        "machine's most",
        "error",
    ]
    return (
        f"Measured: {where['cpu']}, {where['cores']} cores, one thread a process, gloo over "
        f"loopback; torch {where['torch']}, commit {found['commit']}. Medians of {ROUNDS} "
        "rounds in turns; gains are medians of ratios; the error is that of the weights of two "
        f"against one, relative to the largest.\n\n{tables.table(titles, rows)}"
    )


def beneath(found: dict[str, Any]) -> str:
    """Where the time of a step goes, and what is reckoned for more processes."""
    lines = [[f"{size:,}", *(f"{1e6 * each:,.0f} µs" for each in times)]
             for size, *times in zip(SIZES, *([t for _, t in found["sums"][n]] for n in ("2", "4")),
                                     strict=True)]  # fmt: skip
    summed = tables.table(["bytes summed", "2 processes", "4 processes"], lines)
    trace = tables.table(
        ["a step of the U-Net, rank 0 of 2", "ms"],
        [[each["what"], f"{each['ms']:.1f}"] for each in found["trace"]],
    )
    reckoned = []
    for name, case in CASES.items():
        model = fitted(found, name)
        for network, numbers in NETWORKS.items():
            shares = [model.efficiency(workers, case.batch, numbers) for workers in WORKERS]
            reckoned.append(
                [
                    f"{case.words}, {case.batch} a process; {network}",
                    *(
                        f"{w * share:,.1f} ({share:.0%})"
                        for w, share in zip(WORKERS, shares, strict=True)
                    ),
                    " / ".join(model.hides_from(workers, numbers) for workers in WORKERS),
                    " / ".join(model.pays_from(workers, numbers) for workers in WORKERS),
                ]
            )
    titles = ["speed-up of W processes", *(f"W = {each}" for each in WORKERS)]
    titles += ["hidden from n", "90 % from n"]
    fits = "; ".join(
        f"{case.words}: {1e3 * model.offset:.2f} ms + {1e3 * model.slope:.3f} ms a picture, "
        f"{model.gradient / 1e6:.2f} MB of gradient in {model.buckets} "
        f"{'bucket' if model.buckets == 1 else 'buckets'}"
        for name, case in CASES.items()
        for model in [fitted(found, name)]
    )
    assumed = ", ".join(
        f"{name} {1e6 * latency:.0f} µs and {bandwidth / 1e9:.1f} GB/s"
        for name, (latency, bandwidth) in NETWORKS.items()
    )
    return "\n\n".join(
        [
            trace,
            summed,
            f"Fitted, one thread: {fits}.",
            "Reckoned from that, not measured, on networks of which latency and bandwidth are "
            f"assumed ({assumed}); n are the pictures in each process from which on all but the "
            "last bucket's sum hides behind backward, and from which on nine tenths of W are "
            "reached, for the three W:",
            tables.table(titles, reckoned),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--tables", action="store_true", help="write those of what is kept")
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    if options.tables:
        found = json.loads(RESULTS.read_text())
    else:
        two, four = launched(2), launched(4)
        wrong = [name for name, each in two["cases"].items() if each["distance"] > 1e-4]
        if wrong:
            sys.exit(f"two processes come to other weights than one: {', '.join(wrong)}")
        found = {
            "where": benchmark.environment(),
            "commit": tables.commit(),
            **two,
            "sums": {"2": two["sums"], "4": four["sums"]},
            "batches": over_batches(),
        }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for name, text in {"distributed": gains(found), "distributed-sums": beneath(found)}.items():
        print(text)
        tables.fill(name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
