"""What only a GPU shows: graphs, streams, devices, and what happens when it is asked for too much.

The case tables of the operations and layers run there as `cuda` in every other file; without a GPU
they run on the same kernels built for the host (`cuda-on-host`), and this file is skipped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import test_resume as resuming
import torch
from cases import operands
from convolutions import BY_OP, cases_of
from scenes import Scenes
from torch import Tensor

import pydenoise
from pydenoise import builtin, device_steps, models, nn, objectives, ops, optim, tiles, zero_shot
from pydenoise.data import Augmented, Picture, TensorPairs
from pydenoise.objectives import Noise2Noise
from pydenoise.training import train

_REASON = ops.backends()["cuda"]
pytestmark = pytest.mark.skipif(_REASON is not None, reason=f"cuda: {_REASON}")


def batches(count: int, device: str = "cuda") -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.rand(count, 2, 4, 3, 16, 16, generator=generator).to(device)


def go(model: nn.Module, pictures: Tensor, rule: Callable[..., optim.Optimizer]) -> Tensor:
    objective, optimizer = Noise2Noise(), rule(model, lr=0.01)
    for source, target in pictures:
        objective.step(model, source, target)
        optimizer.step()
        optimizer.zero_grad()
    return model.flatten().data.cpu()


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam])
def test_twenty_steps_go_where_the_processor_goes(rule: type[optim.Optimizer]) -> None:
    model = models.autoencoder((8, 12), seed=0)
    twin = copy.deepcopy(model).to("cuda")
    here = go(model, batches(20, "cpu"), rule)
    assert (go(twin, batches(20), rule) - here).abs().max() <= 1e-4 * here.abs().max()


def test_a_graph_has_the_bits_of_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.autoencoder((8, 12), seed=0).to("cuda")
    twin = copy.deepcopy(model)
    from_graphs = go(model, batches(6), optim.SGD)
    monkeypatch.setattr(objectives.noise2noise, "play", lambda *given: given[-1](*given[2]))
    assert torch.equal(from_graphs, go(twin, batches(6), optim.SGD))


def test_five_runs_give_the_same_bits() -> None:
    start = models.autoencoder((8, 12), seed=0).to("cuda")
    ends = [go(copy.deepcopy(start), batches(5), optim.Adam) for _ in range(5)]
    assert all(torch.equal(end, ends[0]) for end in ends)


def levels(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(8)
    return torch.randint(0, 256, (2, length, 3, 16, 16), generator=generator, dtype=torch.uint8)


def run(device: str, rule: type[optim.Optimizer]) -> tuple[list[dict[str, object]], Tensor]:
    """History and weights; an epoch's last batch has 6 pairs."""
    model = models.autoencoder((8,), seed=0).to(device)
    result = train(
        model,
        Augmented(TensorPairs(*levels(150)), seed=1),
        epochs=3,
        optimizer=rule(model, lr=0.01),
        schedule=optim.cosine(),
        average=0.9,
    )
    return result.history, model.flatten().data.cpu()


@pytest.mark.parametrize("rule", [optim.SGD, optim.AdamW])
def test_a_run_of_whole_steps_follows_the_processor(rule: type[optim.Optimizer]) -> None:
    history, weights = run("cpu", rule)
    cuda_history, cuda_weights = run("cuda", rule)
    assert (weights - cuda_weights).abs().max() <= 1e-3 * weights.abs().max()
    for here, there in zip(history, cuda_history, strict=True):
        assert here.keys() == there.keys()
        assert [here[name] for name in ("epoch", "step", "lr")] == [
            there[name] for name in ("epoch", "step", "lr")
        ]
        assert there["loss"] == pytest.approx(here["loss"], rel=1e-4)


@pytest.mark.parametrize("rule", [optim.SGD, optim.AdamW])
def test_whole_steps_have_the_same_bits_without_a_graph_and_on_another_stream(
    rule: type[optim.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = run("cuda", rule)
    with torch.cuda.stream(torch.cuda.Stream()):
        assert torch.equal(weights, run("cuda", rule)[1])
    monkeypatch.setattr(ops, "captured", lambda whole_step, device: None)
    assert torch.equal(weights, run("cuda", rule)[1])


def test_steps_that_leave_their_numbers_on_the_device_come_from_no_tape() -> None:
    model = models.autoencoder((8,), seed=0).to("cuda")
    source, target = batches(1)[0]
    loss = Noise2Noise().step(model, source, target)
    with ops.Deferred() as deferred:
        for _ in range(4):
            Noise2Noise().step(model, source, target)
    assert [number.item() for number in deferred.numbers] == [loss] * 4


def test_a_capture_that_breaks_off_leaves_the_process_usable() -> None:
    x, counter = torch.rand(9, device="cuda"), torch.zeros(1, device="cuda")
    stream = torch.cuda.current_stream()
    ops.mse_loss(x, x)
    with pytest.warns(RuntimeWarning, match="no CUDA graph was made"):
        assert ops.captured(lambda: ops.mse_loss(x, x), x.device) is None, "a number was read"
    assert torch.cuda.current_stream() == stream
    counter.add_(1)
    replay = ops.captured(lambda: counter.add_(1), x.device)
    assert replay is not None
    replay()
    replay()
    assert counter.item() == 3


def test_resident_levels_have_the_bits_of_main_memory() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    pairs, rows = TensorPairs(every, every), torch.zeros(1, dtype=torch.int64)
    resident = pairs.resident(torch.device("cuda"))
    assert resident is not None
    assert torch.equal(resident.batch(rows.cuda())[0].cpu(), pairs.batch(rows.numpy(), 0)[0])


def test_pairs_that_find_no_room_come_from_main_memory() -> None:
    class Enough(Exception):
        pass

    def stop(record: dict[str, object]) -> None:
        raise Enough

    model = models.autoencoder((8,), seed=0).to("cuda")
    pairs = TensorPairs(
        *torch.zeros(2, 1, 3, 32, 32, dtype=torch.uint8).expand(2, 2**16, 3, 32, 32)
    )
    rule = optim.SGD(model, lr=0.01)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 2**27
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.mem_get_info()[1])
    try:
        with pytest.warns(RuntimeWarning, match="the pairs do not fit"), pytest.raises(Enough):
            train(model, pairs, epochs=1, optimizer=rule, progress=stop)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.flatten().data.isfinite().all()


def test_tf32_keeps_three_digits() -> None:
    for case in cases_of(BY_OP["conv2d"]):
        o = operands(case, torch.float32)
        values, _ = oracle.conv2d(case, o)
        bias = None if o.bias is None else o.bias.cuda()
        with pydenoise.allow_tf32():
            z = ops.conv2d(o.input.cuda(), o.weight.cuda(), bias, *case.arguments)
        if z.numel():
            assert (z.cpu().double() - values).abs().max() <= 1e-3 * values.abs().max(), case


@pytest.mark.parametrize("is_resident", [True, False])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, is_resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_steps, "READ_EVERY", 2)  # there a run can stop within an epoch
    levels = torch.randint(256, (2, 36, 3, 8, 8), dtype=torch.uint8)
    pairs = TensorPairs(*levels) if is_resident else Scenes(36)
    terms: dict[str, Any] = {"pairs": pairs, "device": "cuda"}
    whole, _ = resuming.run(tmp_path / "whole", resume=False, **terms)
    again, _, stops = resuming.in_pieces(tmp_path / "pieces", stop_at=3, **terms)
    assert stops >= 2
    assert torch.equal(whole.flatten().data, again.flatten().data)


@pytest.mark.parametrize("max_bytes", [None, 12_000_000])
def test_pictures_come_out_as_from_the_processor(max_bytes: int | None) -> None:
    picture = torch.linspace(0, 1, 3 * 90 * 111).view(3, 90, 111)
    picture += 0.1 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))
    picture[0, 3, 4] = torch.nan
    recipe = zero_shot.RECIPES["fast"]._replace(steps=20)
    ways: list[dict[str, Any]] = [{"value_range": (0, 1)}, {"recipe": recipe}]
    for way in ways:
        here, there = (
            pydenoise.denoise(picture, device=device, max_bytes=max_bytes, **way)
            for device in ("cpu", "cuda")
        )
        assert there.device == picture.device
        torch.testing.assert_close(there, here, rtol=0, atol=1e-3, equal_nan=True)
    assert tiles.device(builtin.network_for(Picture.of(np.zeros((4, 4))))).type == "cpu"
    model = models.small_unet(seed=0).eval()
    terms: dict[str, Any] = {"strength": 0.7, "value_range": (0, 1)}
    here = pydenoise.denoise(picture, model, **terms)
    there = pydenoise.denoise(picture, model.to("cuda"), **terms)
    torch.testing.assert_close(there, here, rtol=0, atol=1e-4, equal_nan=True)


def test_a_stream_of_ones_own() -> None:
    x, w = torch.rand(4, 8, 33, 35, device="cuda"), torch.rand(8, 8, 3, 3, device="cuda")
    wanted = ops.conv2d(x, w, None, 1, 1)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = ops.conv2d(x * 2, w, None, 1, 1) / 2
    stream.synchronize()
    assert torch.equal(found, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU alone")
def test_the_tensors_device_decides() -> None:
    x, w = torch.rand(2, 3, 9, 9), torch.rand(4, 3, 3, 3)
    results = [ops.conv2d(x.to(f"cuda:{i}"), w.to(f"cuda:{i}")) for i in range(2)]
    assert [result.device.index for result in results] == [0, 1]
    assert torch.equal(results[0].cpu(), results[1].cpu())


def test_what_is_refused_leaves_the_process_usable() -> None:
    x, w = torch.rand(1, 3, 9, 9, device="cuda"), torch.rand(4, 3, 3, 3, device="cuda")
    before = ops.conv2d(x, w)
    with pytest.raises(ValueError, match="must be on one device"):
        ops.conv2d(x, w.cpu())
    refused = pytest.raises(ValueError, match="backend 'cpu' cannot work on a tensor on cuda")
    with refused, pydenoise.use_backend("cpu"):
        ops.conv2d(x, w)
    with pytest.raises(TypeError, match="must be float32 or float64"):
        ops.conv2d(x.half(), w.half())
    free = torch.cuda.mem_get_info()[0]
    side = int((free / 4 / 64) ** 0.5)
    large = torch.ones(1, 1, 1, 1, device="cuda").expand(1, 1, side, side)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        ops.conv2d(large, torch.ones(128, 1, 1, 1, device="cuda"))
    assert torch.equal(ops.conv2d(x, w), before)
