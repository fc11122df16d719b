"""The benchmark: wrong results stop it, and its figures follow from its times and limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pydenoise import benchmark, models, ops
from pydenoise.benchmark import Case, Way, WrongResult, _networks, _ruler, _timing

ROOT = Path(__file__).resolve().parent.parent
OPERATIONS = [
    f"{layer} {quantity}"
    for layer in ("conv1", "conv2", "deconv1", "deconv2")
    for quantity in ("forward", "grad_input", "grad_weight")
]
SMALL = [*OPERATIONS, "conv1 im2col", "conv1 col2im", "conv2 im2col", "step 16x3x32x32"]


def case(*ways: str) -> Case:
    return Case(
        name="nothing",
        group="convolution",
        reason="to test",
        expected=torch.zeros(2, dtype=torch.float64),
        tolerance=torch.full((2,), 1e-6),
        ways={name: Way(lambda: torch.zeros(2)) for name in ways},
    )


def report(*cases: tuple[str, dict[str, float]], **about: Any) -> dict[str, Any]:
    """What `run` returns, for cases given as their name and the microseconds of each way."""
    kept = {
        "environment": {"threads": 2, "cpu": "one", "cores": 2, "isa": "avx2"},
        "peak_gflop_per_s": 100.0,
        "copy_gb_per_s": 10.0,
        "faults": [],
        "cases": [
            {
                "name": name,
                "group": "convolution",
                "flop": 10**9,
                "moved_bytes": 10**6,
                "pictures": 16,
                "saves_multiplications": False,
                "ways": {way: {"median_us": us} for way, us in times.items()},
                **about,
            }
            for name, times in cases
        ],
    }
    _timing.add_rates(kept)
    return kept


# --- checking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_every_way_is_right(name: str) -> None:
    (made,) = benchmark.cases(only=[name])
    made.check()
    assert any(name.startswith("torch") for name in made.ways) or made.group == "network"
    assert made.reason and made.flop + made.moved_bytes > 0


def test_a_wrong_way_stops_it() -> None:
    wrong = Way(lambda: torch.tensor([0.0, 1e-3]))
    broken = case("torch")
    with pytest.raises(WrongResult, match=r"nothing, ours: .* outside the tolerance"):
        replace(broken, ways={**broken.ways, "ours": wrong}).check()
    nan = Way(lambda: torch.full((2,), torch.nan))
    with pytest.raises(WrongResult):
        replace(broken, ways={"ours": nan}).check()


@pytest.mark.parametrize("kind", ["training", "gradients", "inference", "run"])
def test_networks_are_checked(kind: str) -> None:
    """A competitor that is a little wrong is found out, whatever it was asked to do."""

    def competitor(task: benchmark.Task) -> Way:
        right = _networks._expected(task)
        return Way(lambda: right + 0.01 * right.abs().max())

    task = _networks._task(kind, "table_one", (16, 3, 16, 16))
    about = {"full": True, "work": 1, "warmup": 1}
    _networks._case("n", "to test", task, {}, **about).check()
    with pytest.raises(WrongResult, match="n, torch"):
        _networks._case("n", "to test", task, {"torch": competitor}, **about).check()


def test_only_some_cases() -> None:
    names = [made.name for made in benchmark.cases(only=["conv1", "conv2 im2col"])]
    assert names == [f"conv1 {q}" for q in ("forward", "grad_input", "grad_weight")] + [
        "conv1 im2col",
        "conv1 col2im",
        "conv2 im2col",
    ]
    with pytest.raises(ValueError, match=r"'conv9'; there are conv1 forward, "):
        next(benchmark.cases(only=["conv9"]))


def test_arithmetic_of_the_networks() -> None:
    assert _networks.flop("table_one", 32 * 32) == pytest.approx(35.2e6, rel=2e-3)
    layers = {
        name: sum(weights for weights, _ in layers) for name, layers in _networks._LAYERS.items()
    }
    for name, network in _networks.NETWORKS.items():
        weights = [p.data.numel() for p in network().parameters() if p.data.dim() == 4]
        assert layers[name] == sum(weights)
    assert sum(p.data.numel() for p in _networks.zero_shot().parameters()) == 22_275


# --- measuring ----------------------------------------------------------------------------------


def test_ways_take_turns() -> None:
    order: list[str] = []

    def way(name: str) -> Way:
        def call() -> Tensor:
            order.append(name)
            return torch.zeros(2)

        return Way(call, note="a note" if name == "b" else "")

    ways = {name: way(name) for name in "abc"}
    times = benchmark.measure(replace(case(), ways=ways, warmup=2), rounds=2, sample_seconds=0.0)
    assert "".join(order) == "aaabbbccc" + "abc" + "bca"
    assert all(t["q1_us"] <= t["median_us"] <= t["q3_us"] for t in times.values())
    assert [t.get("note") for t in times.values()] == [None, "a note", None]


def test_rates_and_shares() -> None:
    (convolution,) = report(("conv1 forward", {"auto": 20_000.0, "torch": 1e5}))["cases"]
    assert convolution["ways"]["auto"]["gflop_per_s"] == pytest.approx(50)
    assert convolution["ways"]["auto"]["share_of_peak"] == pytest.approx(0.5)
    (columns,) = report(("conv1 im2col", {"auto": 200.0}), flop=0)["cases"]
    assert columns["ways"]["auto"]["gb_per_s"] == pytest.approx(5)
    assert columns["ways"]["auto"]["share_of_copy"] == pytest.approx(0.5)


def test_faster_than_the_limit_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYDENOISE_ISA", raising=False)
    at_the_limit = 1e9 / 100e9 * 1e6
    times = {"auto": at_the_limit / 1.04, "torch": at_the_limit / 1.06}
    (fault,) = _timing.faults(report(("conv1 forward", times)))
    assert fault.startswith("conv1 forward, torch: 106 GFLOP/s where")
    saving = report(("conv2 forward", {**times, "implicit": 9e3}), saves_multiplications=True)
    (fault,) = _timing.faults(saving)
    assert fault.startswith("conv2 forward, implicit")
    monkeypatch.setenv("PYDENOISE_ISA", "scalar")
    assert not _timing.faults(report(("conv1 forward", times)))


def test_tables_count_formats_as_one_way() -> None:
    times = {"auto": 20.0, "auto channels_last": 10.0, "reference": 90.0, "torch": 40.0}
    made = report(("conv1 forward", {**times, "torch channels_last": 15.0}))
    titles, (row,) = benchmark.rows(made, "convolution")
    assert titles == ["", "ours", "reference", "torch", "of the peak", "ours / torch"]
    assert row[0] == "conv1 forward"
    assert row[1:4] == ["1e+05", "1.11e+04", "6.67e+04"]
    assert row[-1] == "1.50x"
    assert benchmark.torchs(made["cases"][0]["ways"], ["torch"]) == "torch"
    (table,) = benchmark.tables(made)
    assert table.row_count == 1


# --- the limits ---------------------------------------------------------------------------------


def test_register_loop_counts_its_operations(place: Any) -> None:
    if place.backend != "cpu":
        pytest.skip("only the compiled kernels have a register loop")
    lanes = {"scalar": 4, "avx2": 8, "avx512": 16}[place.isa]
    accumulators = {"scalar": 12, "avx2": 12, "avx512": 24}[place.isa]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        expected = 2 * lanes * accumulators * threads * 10
        assert ops.multiply_adds(10) == expected
        assert ops.multiply_adds(10, torch.float64) == expected // 2


def test_ruler_measures_often_enough() -> None:
    ruler = benchmark.Ruler()
    ruler.finish()
    assert ruler.measured == _ruler.MEASURED >= 10
    assert ruler.copy_gb_per_s > 0
    assert (ruler.peak_gflop_per_s is None) == (ops.backends()["cpu"] is not None)
    ruler.finish()
    assert ruler.measured == _ruler.MEASURED


# --- the scripts --------------------------------------------------------------------------------


def script(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / name), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )


def test_run_measures_what_is_named(tmp_path: Path) -> None:
    words = ["--quick", "--threads", "1", "--results", tmp_path]
    ended = script("run.py", *words, "--only", "step", "conv1 forward")
    assert ended.returncode == 0, ended.stderr
    assert "training step, batch 16, 3x32x32, 1 thread | " in ended.stdout
    assert "channels_last" in ended.stdout or "contiguous" in ended.stdout
    assert not list(tmp_path.iterdir())


def test_scaling_goes_on_where_it_stopped(tmp_path: Path) -> None:
    words = ["--panels", "batch", "--results", tmp_path, "--most-pixels"]
    first = script("scaling.py", *words, 1024)
    assert first.returncode == 0, first.stderr
    second = script("scaling.py", *words, 2048)
    assert [first.stderr.split(), second.stderr.split()] == [["batch", "1"], ["batch", "2"]]
    kept = json.loads((tmp_path / "scaling.json").read_text())["points"]
    assert [(point["batch"], point["side"]) for point in kept] == [(1, 32), (2, 32)]
    assert (tmp_path / "scaling.png").stat().st_size > 1000


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


@pytest.mark.usefixtures("scripts")
def test_requirements_line_by_line(tmp_path: Path) -> None:
    import requirements
    import roofline
    import run

    times = {"auto": 1000.0, "implicit": 1500.0, "torch": 2600.0, "torch.compile": 1600.0}
    names = ["conv1 forward", "conv2 forward", "picture forward"]
    made = report(*[(name, {**times, "torch channels_last": 2000.0}) for name in names])
    steps = report(("step 16x3x32x32", times), ("training run", times), group="network")
    made["cases"] += steps["cases"]
    memory = {"128, 3x32x32": {"ours": 10.0, "torch": 20.0, "torch channels_last": 9.0}}
    lines = {line.what: line for line in requirements.lines([made], memory)}
    assert len(lines) == 9
    assert lines["3x3, 64->64, 256x256, forward, torch's fastest"].faster == "1.60x"
    step = lines["training step, batch 16, 3x32x32, 2 threads"]
    assert step.torch == "1.6 ms (compile)" and step.faster == "1.60x" and step.met is False
    assert lines["the same, torch eager alone"].faster == "2.60x"
    assert lines["median of the 12 operations of its layers"].faster == "2.00x"
    assert lines["3x3, 64->64, 256x256, forward"].met
    run_of_all = lines["10 epochs of 50,000 pairs, extrapolated from runs of 16"]
    assert run_of_all.ours == "31 s" and run_of_all.met
    assert lines["peak memory of training, batch 128, 3x32x32"].met is False

    about = {"torch": "2", "python": "3", "pydenoise": "0", "date": "2026-01-01T00"}
    made["environment"].update(about)
    results = {"commit": "abc", "reports": [made], "memory": memory}
    required, cases = run.required(results), run.cases(results)
    assert required.count("| --- |") == 1 and "100 GFLOP/s, 10 GB/s" in required
    assert cases.count("| --- |") == 2  # the operations, the networks
    roofline.draw(tmp_path / "roofline.png", made)
    assert (tmp_path / "roofline.png").stat().st_size > 1000


@pytest.mark.usefixtures("scripts")
def test_torch_does_the_same_work() -> None:
    """Every competitor of `make bench` passes the check of the benchmark, but for the compiler."""
    import torch_ways

    for kind, network in (
        ("training", "table_one"),
        ("gradients", "zero_shot"),
        ("inference", "table_one"),
        ("run", "table_one"),
    ):
        task = _networks._task(kind, network, (32, 3, 16, 16))
        made = _networks._case(
            kind, "to test", task, torch_ways.competitors(False), full=False, work=1, warmup=1
        )
        assert {"torch", "torch channels_last"} <= set(made.ways)
        made.check()


@pytest.mark.usefixtures("scripts")
def test_twins_have_our_names() -> None:
    import torch_twin

    for name, make in _networks.NETWORKS.items():
        torch_twin.NETWORKS[name]().load_state_dict(make().state_dict())
    assert set(models.autoencoder().state_dict()) == set(torch_twin.table_one().state_dict())
