"""The course's interface: names, arguments in torch's order, shapes, ranges, and that it learns."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pydenoise import ee559, metrics, nn
from pydenoise.checkpoint import save_weights
from pydenoise.data import point_sampled_pairs, point_sampled_validation, sample_photographs

TWINS = [
    (ee559.Conv2d, torch.nn.Conv2d, 8),
    (ee559.TransposeConv2d, torch.nn.ConvTranspose2d, 9),
]


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy, noisy for training; noisy, clean of another photograph to measure on."""
    photographs = sample_photographs()
    held_back = photographs.pop("astronaut")
    train = point_sampled_pairs(list(photographs.values()), block=8, count=10000, seed=1)
    return *train, *point_sampled_validation([held_back], block=8, count=50, seed=1)


@pytest.fixture
def without_gradients() -> Iterator[None]:
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(before)


def test_names() -> None:
    assert set(ee559.__all__) == {
        "Conv2d",
        "TransposeConv2d",
        "NearestUpsampling",
        "ReLU",
        "Sigmoid",
        "MSE",
        "SGD",
        "Sequential",
        "Model",
    }
    model = ee559.Model()
    assert list(inspect.signature(ee559.Model).parameters) == []
    assert list(inspect.signature(model.load_pretrained_model).parameters) == []
    assert list(inspect.signature(model.train).parameters) == [
        "train_input",
        "train_target",
        "num_epochs",
    ]
    assert len(inspect.signature(model.predict).parameters) == 1


@pytest.mark.parametrize(("ours", "theirs", "count"), TWINS, ids=["conv", "transposed"])
def test_arguments_stand_in_torchs_order(ours: type, theirs: type, count: int) -> None:
    mine, torchs = (list(inspect.signature(cls).parameters.values()) for cls in (ours, theirs))
    assert [p.name for p in mine[:count]] == [p.name for p in torchs[:count]]
    assert [p.default for p in mine[:count]] == [p.default for p in torchs[:count]]


def test_sgd_takes_torchs_arguments_over_what_param_returns() -> None:
    names = list(inspect.signature(torch.optim.SGD).parameters)[:6]
    assert list(inspect.signature(ee559.SGD).parameters) == names
    layer = ee559.Conv2d(2, 3, 3)
    (weight, gradient), _ = layer.param()
    before = weight.clone()
    gradient.fill_(2)
    optimizer = ee559.SGD(layer.param(), 0.25)
    optimizer.step()
    torch.testing.assert_close(weight, before - 0.5)
    optimizer.zero_grad()
    assert not gradient.any()


def test_conv2d_is_torchs_with_the_same_weights() -> None:
    ours, theirs = ee559.Conv2d(3, 4, 3, 2, 1), torch.nn.Conv2d(3, 4, 3, 2, 1)
    ours.weight = theirs.weight
    ours.bias = theirs.bias
    x = torch.rand(2, 3, 9, 8)
    torch.testing.assert_close(ours.forward(x), theirs(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("module", "pairs", "size"),
    [
        (ee559.Conv2d(3, 5, (3, 2), stride=2, padding=1), 2, (5, 3, 4)),
        (ee559.Conv2d(3, 5, 1, bias=False), 1, (5, 6, 6)),
        (ee559.TransposeConv2d(3, 5, 3, 2, 1, 1), 2, (5, 12, 12)),
        (ee559.NearestUpsampling(2), 0, (3, 12, 12)),
        (ee559.NearestUpsampling((1, 3)), 0, (3, 6, 18)),
        (ee559.ReLU(), 0, (3, 6, 6)),
        (ee559.Sigmoid(), 0, (3, 6, 6)),
        (
            ee559.Sequential(ee559.Conv2d(3, 4, 3), ee559.ReLU(), ee559.Conv2d(4, 5, 3)),
            4,
            (5, 2, 2),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_modules_go_forward_and_back(
    module: nn.Module, pairs: int, size: tuple[int, int, int]
) -> None:
    x = torch.rand(2, 3, 6, 6)
    output = module.forward(x)
    assert isinstance(output, Tensor)
    assert output.shape == (2, *size)
    for _, gradient in module.param():
        gradient.zero_()
    assert module.backward(torch.ones_like(output)).shape == x.shape
    assert len(module.param()) == pairs
    for value, gradient in module.param():
        assert value.shape == gradient.shape
        assert gradient.any()


def test_mse_is_a_tensor_without_dimensions() -> None:
    prediction, target = torch.rand(4, 3), torch.rand(4, 3)
    loss = ee559.MSE()
    value = loss.forward(prediction, target)
    assert value.shape == ()
    torch.testing.assert_close(value, ((prediction - target) ** 2).mean())
    expected = 2 * (prediction - target) / 12
    torch.testing.assert_close(loss.backward(), expected)
    for upstream in (3, 3.0, torch.tensor(3.0)):
        loss.forward(prediction, target)
        torch.testing.assert_close(loss.backward(upstream), 3 * expected)
    assert loss.param() == []


@pytest.mark.usefixtures("without_gradients")
def test_a_network_of_the_courses_modules_learns() -> None:
    seeded = torch.Generator().manual_seed(0)
    network = ee559.Sequential(
        ee559.Conv2d(1, 8, 3, padding=1, generator=seeded),
        ee559.ReLU(),
        ee559.NearestUpsampling(2),
        ee559.Conv2d(8, 1, 2, stride=2, generator=seeded),
        ee559.Sigmoid(),
    )
    loss, optimizer = ee559.MSE(), ee559.SGD(network.param(), 2.0, momentum=0.9)
    x = torch.rand(8, 1, 6, 6, generator=seeded)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(loss.forward(network.forward(x), x).item())
        network.backward(loss.backward())
        optimizer.step()
    assert losses[-1] < losses[0] / 3


@pytest.mark.usefixtures("without_gradients")
def test_one_epoch_beats_the_input(pictures: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    first, second, noisy, clean = pictures
    model = ee559.Model()
    model.train(first, second, 1)
    output = model.predict(noisy)
    before = metrics.psnr_per_image(noisy / 255, clean / 255)
    assert metrics.psnr_per_image(output / 255, clean / 255) > before + 0.5


def test_floating_point_pictures_train_alike() -> None:
    first, second = torch.randint(256, (2, 40, 3, 8, 8), dtype=torch.uint8)
    models = ee559.Model(), ee559.Model()
    models[1].network.load_state_dict(models[0].network.state_dict())
    models[0].train(first, second, 2)
    models[1].train(first.double(), second.double(), 2)
    assert torch.equal(models[0].predict(first), models[1].predict(first.float()))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (32, 32), (37, 90), (512, 512)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32, torch.float64])
def test_predict_takes_any_size(size: tuple[int, int], kind: torch.dtype) -> None:
    noisy = torch.randint(256, (2, 3, *size)).to(kind)
    before = noisy.clone()
    output = ee559.Model().predict(noisy)
    assert output.shape == noisy.shape
    assert output.dtype == torch.float32
    assert output.min() >= 0
    assert 1 < output.max() <= 255
    assert torch.equal(noisy, before)


def test_predict_takes_any_number() -> None:
    model = ee559.Model()
    noisy = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    together = model.predict(noisy)
    torch.testing.assert_close(together[3:4], model.predict(noisy[3:4]), rtol=1e-5, atol=1e-3)
    assert model.predict(noisy[:0]).shape == (0, 3, 16, 16)


def test_pretrained_weights_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, fresh = ee559.Model(), ee559.Model()
    save_weights(tmp_path / "w.safetensors", trained.network)
    monkeypatch.setattr(ee559, "WEIGHTS", tmp_path / "w.safetensors")
    fresh.load_pretrained_model()
    noisy = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(fresh.predict(noisy), trained.predict(noisy))
    monkeypatch.setattr(ee559, "WEIGHTS", tmp_path / "gone.safetensors")
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors is missing"):
        fresh.load_pretrained_model()


@pytest.mark.skipif(not ee559.WEIGHTS.is_file(), reason="no trained weights in this tree")
def test_weights_in_the_package_take_noise_out(
    pictures: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    noisy, clean = point_sampled_validation([sample_photographs()["chelsea"]], 8, 50, seed=2)
    model = ee559.Model()
    model.load_pretrained_model()
    before = metrics.psnr_per_image(noisy / 255, clean / 255)
    assert metrics.psnr_per_image(model.predict(noisy) / 255, clean / 255) > before + 1


PAIR = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("first", "second", "error", "message"),
    [
        (PAIR, PAIR[:2], ValueError, r"one shape, got \(4, 3, 8, 8\) and \(2, 3, 8, 8\)"),
        (PAIR[:, :1], PAIR[:, :1], ValueError, r"\(N, 3, H, W\), got \(4, 1, 8, 8\)"),
        (PAIR[..., :6], PAIR[..., :6], ValueError, r"multiples of 4, got \(4, 3, 8, 6\)"),
        (PAIR.long(), PAIR, TypeError, "train_input must be uint8 or floating.*int64"),
        (PAIR, np.zeros((4, 3, 8, 8)), TypeError, "train_target must be a tensor, got ndarray"),
        (PAIR[:0], PAIR[:0], ValueError, "empty"),
    ],
)
def test_bad_pairs_are_named(
    first: Tensor, second: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ee559.Model().train(first, second, 1)


def test_a_number_of_epochs_is_whole() -> None:
    with pytest.raises(TypeError, match=r"epochs must be a whole number, got 1\.5"):
        ee559.Model().train(PAIR, PAIR, 1.5)  # type: ignore[arg-type]
