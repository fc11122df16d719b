"""Kernels and training on a GPU against torch: what bench/gpu.sh runs, part by part.

    python bench/gpu.py PART [--rehearse]

PART is `limits`, `step`, `epochs`, `convolutions` or `columns`. Each checks its results first, then
times by CUDA events, all ways in turns, and writes bench/results/gpu_PART.json after every figure.
float32 with TF32 off on both sides. `--rehearse` runs small shapes on the processor, to see the
script itself right; what it prints are no figures and it writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tables
import torch
import torch_twin
from torch import Tensor
from torch.nn import functional as F

import pydenoise
from pydenoise import models, ops, optim
from pydenoise.data import TensorPairs
from pydenoise.objectives import Noise2Noise
from pydenoise.training import train

Call = Callable[[], Any]
LEARNING_RATE, MOMENTUM = 0.5, 0.9
IN_GRAPH = 8
"""Calls of an operation in one graph: kernels are timed, not how Python starts them."""

UNET = [  # (channels in, out, side) of 3x3 convolutions in the paper's U-Net, batch 4
    (3, 48, 256), (48, 48, 256), (48, 48, 128), (48, 48, 64), (48, 48, 32), (48, 48, 16),
    (48, 48, 8), (96, 96, 16), (144, 96, 32), (96, 96, 32), (144, 96, 64), (144, 96, 128),
    (99, 64, 256), (64, 32, 256), (32, 3, 256),
]  # fmt: skip


class Place:
    """Where the ways run, and how long a call takes there."""

    def __init__(self, rehearse: bool) -> None:
        self.rehearse = rehearse
        self.device = torch.device("cpu" if rehearse else "cuda")
        self.rounds, self.least = (3, 1) if rehearse else (11, 20)

    def random(self, *size: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(size, generator=generator).to(self.device)

    def microseconds(self, call: Call, calls: int) -> float:
        if self.rehearse:
            start = time.perf_counter()
            for _ in range(calls):
                call()
            return 1e6 * (time.perf_counter() - start) / calls
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return 1e3 * begin.elapsed_time(end) / calls

    def measure(self, ways: dict[str, Call], calls: int | None = None) -> dict[str, Any]:
        """Median and quartiles of a call of each way, in turns, after a warm-up."""
        calls = calls or self.least
        for call in ways.values():
            for _ in range(3):
                self.microseconds(call, calls)
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(self.rounds):
            for name, call in ways.items():
                samples[name].append(self.microseconds(call, calls))
        found = {}
        for name, taken in samples.items():
            q1, median, q3 = statistics.quantiles(taken, n=4, method="inclusive")
            found[name] = {"median_us": median, "q1_us": q1, "q3_us": q3}
        return found

    def graph(self, call: Call, times: int = 1) -> Call:
        """So many calls as one CUDA graph."""
        if self.rehearse:
            return call
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(times):
                call()
        return graph.replay

    def measure_kernels(self, ways: dict[str, Call]) -> dict[str, Any]:
        """Like `measure`, of `IN_GRAPH` calls in a graph."""
        graphs = {name: self.graph(call, IN_GRAPH) for name, call in ways.items()}
        return {
            name: {quantity: value / IN_GRAPH for quantity, value in taken.items()}
            for name, taken in self.measure(graphs, 3).items()
        }


class Report:
    """What a part has found so far, on disk after every entry."""

    def __init__(self, part: str, place: Place) -> None:
        self.figures: dict[str, Any] = {}
        self.wrong: list[str] = []
        self._part = part
        self._begin = time.perf_counter()
        self._environment: dict[str, Any] = {}
        if not place.rehearse:
            self._environment = {
                "device": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
                "commit": tables.commit(),
            }

    def keep(self, key: str, found: dict[str, Any]) -> None:
        self.figures[key] = found
        self._write()

    def same(self, what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
        """Whether two results agree; if not, that is kept, and they are not to be timed."""
        error = float((ours - theirs).abs().max() / theirs.abs().max())
        if not error <= tolerance:
            self.wrong.append(f"{what}: relative difference {error:.3g}, allowed {tolerance:g}")
            self._write()
        return error <= tolerance

    def _write(self) -> None:
        if not self._environment:
            return
        text = {
            "part": self._part,
            "environment": self._environment,
            "seconds": time.perf_counter() - self._begin,
            "wrong": self.wrong,
            "figures": self.figures,
        }
        tables.RESULTS.mkdir(parents=True, exist_ok=True)
        target = tables.RESULTS / f"gpu_{self._part}.json"
        target.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


# --- the training step ----------------------------------------------------------------------------


def torch_step(place: Place, state: Any, batch: list[Tensor], compiled: bool) -> tuple[Any, Call]:
    """torch's step of Table I: the network, and the call."""
    network = torch_twin.table_one().to(place.device)
    network.load_state_dict(state)
    if not batch[0].is_contiguous():
        network = network.to(memory_format=torch.channels_last)
    rule = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, foreach=True)
    source, target = batch
    loss_of: Any = lambda: F.mse_loss(network(source), target)  # noqa: E731
    if compiled:
        loss_of = torch.compile(loss_of, mode="max-autotune-no-cudagraphs", dynamic=False)

    def step() -> Tensor:
        rule.zero_grad(set_to_none=False)
        loss = loss_of()
        loss.backward()
        rule.step()
        return loss

    return network, step


def our_step(place: Place, state: Any, batch: list[Tensor]) -> tuple[Any, Call]:
    """Our step with all its kernels on the device's queue and nothing read back."""
    model = models.autoencoder(seed=0).to(place.device)
    model.load_state_dict(state)
    objective = Noise2Noise()
    optimizer = optim.SGD(model, LEARNING_RATE, MOMENTUM)
    numbers = ops.rule_row(optimizer.rule(LEARNING_RATE, 1))
    rule = torch.tensor(numbers, dtype=torch.float64).to(place.device)

    def step() -> None:
        with ops.Deferred(rule):
            objective.step(model, *batch)
            optimizer.step()
        optimizer.zero_grad()

    return model, step


def step(place: Place, report: Report) -> None:
    """A training step of Table I, batch 16 and 1024; torch.compile last, for it takes its time."""
    sizes = (2,) if place.rehearse else (16, 1024)
    state = models.autoencoder(seed=0).state_dict()
    batches: dict[tuple[int, str], list[Tensor]] = {}
    ways: dict[int, dict[str, Call]] = {size: {} for size in sizes}
    ends: dict[int, Tensor] = {}
    for size in sizes:
        plain = [place.random(size, 3, 32, 32, seed=seed) for seed in (1, 2)]
        last = [picture.contiguous(memory_format=torch.channels_last) for picture in plain]
        for name, batch in (("", plain), (" channels_last", last)):
            batches[size, name] = batch
            network, call = torch_step(place, state, batch, compiled=False)
            end = _weights_after(call, network)
            ends.setdefault(size, end)
            if report.same(f"batch {size}, torch{name}", end, ends[size], 1e-3):
                ways[size] |= {f"torch{name}": call, f"torch graph{name}": place.graph(call)}
            model, call = our_step(place, state, batch)
            for _ in range(3):
                call()
            end = model.flatten().data.clone()
            if report.same(f"batch {size}, ours{name}", end, ends[size], 1e-3):
                ours = None if place.rehearse else ops.captured(call, place.device)
                ways[size][f"ours{name}"] = ours or call
        report.keep(f"batch {size}", place.measure(ways[size]))
    if place.rehearse:
        return
    for (size, name), batch in batches.items():
        network, call = torch_step(place, state, batch, compiled=True)
        end = _weights_after(call, network)
        if report.same(f"batch {size}, torch.compile{name}", end, ends[size], 1e-3):
            ways[size][f"torch.compile graph{name}"] = place.graph(call)
            report.keep(f"batch {size}", place.measure(ways[size]))


def _weights_after(call: Call, network: Any) -> Tensor:
    for _ in range(3):
        call()
    return torch.cat([p.detach().flatten() for p in reversed(list(network.parameters()))])


def epochs(place: Place, report: Report) -> None:
    """10 epochs over 50,000 pairs in host memory, weights back in host memory."""
    if not place.rehearse:
        ops.conv2d(place.random(1, 3, 9, 9), place.random(4, 3, 3, 3))
        torch.cuda.synchronize()
        report.keep("process start to first kernel", {"seconds": _since_start()})
    count, rounds = (64, 1) if place.rehearse else (50_000, 10)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(
        0, 256, (2, count, 3, 32, 32), dtype=torch.uint8, generator=generator
    )
    for run in ("first", "second"):
        begin = time.perf_counter()
        model = models.autoencoder(seed=0).to(place.device)
        result = train(
            model,
            TensorPairs(first, second),
            epochs=rounds,
            batch_size=16,
            optimizer=optim.SGD(model, LEARNING_RATE, MOMENTUM),
        )
        model.to("cpu")
        seconds = time.perf_counter() - begin
        losses = [record["loss"] for record in result.history]
        report.keep(f"{run} run", {"pairs": count, "seconds": seconds, "losses": losses})
    if not place.rehearse:
        batch = [place.random(16, 3, 32, 32, seed=seed) for seed in (1, 2)]
        _, call = our_step(place, models.autoencoder(seed=0).state_dict(), batch)
        call()
        torch.cuda.synchronize()
        begin = time.perf_counter()
        ops.captured(call, place.device)
        report.keep("capture of a step", {"seconds": time.perf_counter() - begin})


def _since_start() -> float:
    """Seconds since this process began."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


# --- operations -----------------------------------------------------------------------------------


def limits(place: Place, report: Report) -> None:
    """What the device gives: bytes copied, and torch's product of large matrices."""
    side = 64 if place.rehearse else 8192
    x, y, z = (place.random(side, side, seed=seed) for seed in range(3))
    taken = place.measure({"copy": partial(z.copy_, x), "mm": partial(torch.mm, x, y, out=z)}, 5)
    report.keep("copy", {"gigabytes_a_second": 2e-3 * x.nbytes / taken["copy"]["median_us"]})
    report.keep("mm", {"tflops": 2e-6 * side**3 / taken["mm"]["median_us"]})


def convolutions(place: Place, report: Report) -> None:
    """Each 3x3 convolution of the paper's U-Net, batch 4, forward and both gradients."""
    for before, after, side in UNET[-1:] if place.rehearse else UNET:
        side = 16 if place.rehearse else side
        weight = place.random(after, before, 3, 3, seed=3)
        bias = place.random(after, seed=4)
        for form in (torch.contiguous_format, torch.channels_last):
            x = place.random(4, before, side, side).contiguous(memory_format=form)
            gz = place.random(4, after, side, side, seed=5).contiguous(memory_format=form)
            w = weight.contiguous(memory_format=form)
            backward = partial(
                torch.ops.aten.convolution_backward, gz, x, w, None,
                (1, 1), (1, 1), (1, 1), False, (0, 0), 1,
            )  # fmt: skip
            ways = {
                "forward": (
                    partial(ops.conv2d, x, weight, bias, 1, 1),
                    partial(F.conv2d, x, w, bias, 1, 1),
                ),
                "grad_input": (
                    partial(ops.conv2d_grad_input, x.shape, weight, gz, 1, 1),
                    lambda: backward((True, False, False))[0],  # noqa: B023
                ),
                "grad_weight": (
                    partial(ops.conv2d_grad_weight, x, weight.shape, gz, 1, 1),
                    lambda: backward((False, True, False))[1],  # noqa: B023
                ),
            }
            name = "channels_last" if form is torch.channels_last else "contiguous"
            for quantity, (mine, theirs) in ways.items():
                key = f"{before}->{after} {side}x{side} {quantity} {name}"
                if not report.same(key, mine(), theirs(), 1e-4):
                    continue
                calls = {"ours": mine, "torch": theirs}
                if quantity != "grad_weight":
                    calls["ours tf32"] = partial(_with_tf32, mine)
                flop = 2 * 9 * before * after * 4 * side**2
                report.keep(key, {"flop": flop, **place.measure_kernels(calls)})


def _with_tf32(call: Call) -> None:
    with pydenoise.allow_tf32():
        call()


def columns(place: Place, report: Report) -> None:
    """im2col and col2im into reused buffers, and a copy that moves as many bytes."""
    for batch, channels, side, stride in (
        (1024, 3, 32, 2), (1024, 48, 16, 2), (1, 64, 256, 1), (8, 64, 256, 1),
    ):  # fmt: skip
        batch = min(batch, 2) if place.rehearse else batch
        x = place.random(batch, channels, side, side)
        c = ops.im2col(x, 3, 1, 1, stride)
        fold = partial(F.fold, c, (side, side), 3, 1, 1, stride)
        unfold = partial(F.unfold, x, 3, 1, 1, stride)
        out, picture = torch.empty_like(c), torch.empty_like(x)
        mine = partial(ops.im2col, x, 3, 1, 1, stride, out=out)
        back = partial(ops.col2im, c, (side, side), 3, 1, 1, stride, out=picture)
        key = f"{batch}x{channels}x{side}x{side} stride {stride}"
        if report.same(f"im2col {key}", mine(), unfold(), 0.0) and report.same(
            f"col2im {key}", back(), fold(), 1e-6
        ):
            moved = c.nbytes + x.nbytes
            halves = torch.empty(2, moved // 8, device=place.device)
            ways = {"im2col": mine, "unfold": unfold, "col2im": back, "fold": fold}
            ways["copy"] = partial(halves[0].copy_, halves[1])
            report.keep(key, {"bytes": moved, **place.measure_kernels(ways)})


PARTS = {part.__name__: part for part in (limits, step, epochs, convolutions, columns)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    place = Place(options.rehearse)
    if not options.rehearse:
        reason = ops.backends()["cuda"]
        if reason is not None:
            raise SystemExit(f"no GPU to measure on: {reason}")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    report = Report(options.part, place)
    PARTS[options.part](place, report)
    for wrong in report.wrong:
        print(f"wrong: {wrong}")
    print(
        f"{options.part}: {len(report.figures)} figures{', rehearsed' if options.rehearse else ''}"
    )
    if report.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
