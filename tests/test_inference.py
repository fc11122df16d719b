"""Whole pictures through a network: any size, any channels, nothing kept, nothing shifted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pydenoise import builtin, metrics, models, nn, zero_shot
from pydenoise.data import Picture
from pydenoise.inference import denoise, denoise_pages, denoise_picture, evaluate

SIZES = [(1, 1), (1, 7), (2, 3), (3, 2), (4, 4), (5, 9), (8, 6), (33, 31), (64, 64)]


class Seen(nn.Module):
    """Hands its input on and keeps a copy."""

    def __init__(self, multiple: int, channels: int | None = None) -> None:
        super().__init__()
        self.size_multiple = multiple
        if channels is not None:
            self.architecture = {"name": "seen", "in_channels": channels}
        self.inputs: list[Tensor] = []

    def forward(self, input: Tensor) -> Tensor:
        self.inputs.append(input.clone())
        self._keep(input.shape)
        return input


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that is its own `progress`, told of everything at once."""
    monkeypatch.setattr("pydenoise.meter._SECONDS_BETWEEN", 0.0)
    return []


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_progress_is_told_of_every_tile_but_the_last(
    told: list[Any], autoencoder: nn.Sequential, layers: int
) -> None:
    pages = np.random.default_rng(0).random((2, 90, 80, layers), np.float32)
    has_alpha = layers == 4
    picture = Picture(pages, 3 if has_alpha else None)
    samples = 2 * 90 * 80 * (3 if has_alpha else layers)
    for times, run in (
        (1, lambda **terms: denoise_pages(autoencoder, picture, **terms)),
        (8, lambda **terms: builtin.denoise_pages(picture, **terms)),
    ):
        told.clear()
        quiet = run()
        watched = run(progress=told.append)
        np.testing.assert_array_equal(watched.samples, quiet.samples)
        assert {record["steps"] for record in told} == {times * samples}
        steps = [record["step"] for record in told]
        assert steps == sorted(set(steps))
        assert len(steps) == 2 * times - 1, "pages, turned each way, but for the end"
        assert 0 < steps[0] <= steps[-1] < times * samples
        assert min(record["seconds_left"] for record in told) > 0


@pytest.fixture(scope="module")
def autoencoder() -> nn.Sequential:
    return models.autoencoder((6, 8), seed=3)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_pictures_continue_by_reflection(height: int, width: int, multiple: int) -> None:
    picture = torch.rand(2, 3, height, width)
    model = Seen(multiple)
    assert torch.equal(denoise(model, picture), picture)
    (seen,) = model.inputs
    missing = [-side % multiple for side in (height, width)]
    padded = np.pad(picture.numpy(), [(0, 0), (0, 0), *((0, m) for m in missing)], mode="reflect")
    np.testing.assert_array_equal(seen.numpy(), padded)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_batch_is_its_pictures(autoencoder: nn.Sequential, height: int, width: int) -> None:
    pictures = torch.rand(3, 3, height, width)
    together = denoise(autoencoder, pictures)
    assert together.shape == pictures.shape
    single = torch.cat([denoise(autoencoder, picture[None]) for picture in pictures])
    torch.testing.assert_close(together, single, rtol=1e-5, atol=1e-6)


def test_many_pictures_go_in_parts() -> None:
    model = Seen(1)
    pictures = torch.rand(40, 1, 128, 128)
    assert torch.equal(denoise(model, pictures), pictures)
    assert len(model.inputs) > 1
    assert torch.equal(torch.cat(model.inputs), pictures)
    assert denoise(model, pictures[:0]).shape == (0, 1, 128, 128)


def test_nothing_is_kept_and_the_input_stays(autoencoder: nn.Sequential) -> None:
    picture = torch.rand(1, 3, 10, 10)
    before = picture.clone()
    denoise(autoencoder.train(), picture)
    assert torch.equal(picture, before)
    with pytest.raises(RuntimeError, match="without a forward pass"):
        autoencoder.backward(torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize(
    ("input", "error", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "floating point.*uint8"),
        (torch.zeros(3, 8, 8), ValueError, r"\(N, C, H, W\).*\(3, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), ValueError, r"hold pixels.*\(1, 3, 0, 8\)"),
        (torch.zeros(1, 4, 8, 8), ValueError, r"3 channels.*\(1, 4, 8, 8\)"),
    ],
)
def test_bad_input_is_named(
    autoencoder: nn.Sequential, input: Tensor, error: type[Exception], message: str
) -> None:
    for turns in (1, 8):
        with pytest.raises(error, match=message):
            denoise(autoencoder, input, turns=turns)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_keep_their_shape_and_levels(
    shape: tuple[int, ...], channels: int, dtype: type[np.generic]
) -> None:
    rng = np.random.default_rng(0)
    if dtype == np.float32:
        picture = rng.normal(size=shape).astype(dtype)
    else:
        picture = rng.integers(np.iinfo(dtype).max + 1, size=shape, dtype=dtype)
    model = Seen(4, channels)
    denoised = denoise_picture(model, picture)
    assert denoised.dtype == dtype
    if channels == 1 or dtype != np.float32:
        np.testing.assert_array_equal(denoised, picture)
    else:  # gray three times over, averaged
        np.testing.assert_allclose(denoised, picture, rtol=1e-6)
    assert all(input.shape[1] == channels for input in model.inputs)


def test_pages_go_through_one_by_one(autoencoder: nn.Sequential) -> None:
    samples = np.random.default_rng(0).integers(0, 65536, (3, 9, 6, 4), dtype=np.uint16)
    stack = Picture(samples, alpha=3)
    denoised = denoise_pages(autoencoder, stack)
    assert denoised.layout == stack.layout
    for page, before in zip(denoised.samples, samples, strict=True):
        np.testing.assert_array_equal(page, denoise_picture(autoencoder, before))
    np.testing.assert_array_equal(stack.samples, samples)


def test_alpha_is_handed_through(autoencoder: nn.Sequential) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 6, 4), dtype=np.uint8)
    denoised = denoise_picture(autoencoder, picture)
    np.testing.assert_array_equal(denoised[:, :, 3], picture[:, :, 3])
    np.testing.assert_array_equal(
        denoised[:, :, :3], denoise_picture(autoencoder, picture[:, :, :3])
    )


def test_gray_is_the_mean_of_three(autoencoder: nn.Sequential) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    noisy = torch.from_numpy(gray).float().div(255).expand(1, 3, 8, 8)
    expected = denoise(autoencoder, noisy).mean(1)[0].mul(255).round().to(torch.uint8)
    np.testing.assert_array_equal(denoise_picture(autoencoder, gray), expected.numpy())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_a_range_of_the_callers(autoencoder: nn.Sequential, dtype: Any) -> None:
    picture = np.random.default_rng(0).integers(20, 60, (8, 8, 3)).astype(dtype)
    expected = denoise_picture(autoencoder, (picture / 40 - 0.5).astype(np.float64)) * 40 + 20
    found = denoise_pages(autoencoder, Picture.of(picture), value_range=(20, 60)).array
    assert found.dtype == dtype
    rounding = 0.5 if np.dtype(dtype).kind in "ui" else 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding + 1e-4)


def test_strength_is_the_way_from_noisy_to_denoised(autoencoder: nn.Sequential) -> None:
    picture = Picture.of(np.random.default_rng(0).random((8, 8, 4)))
    none, some, full = (
        denoise_pages(autoencoder, picture, strength=strength).array for strength in (0, 0.25, 1)
    )
    np.testing.assert_array_equal(none, picture.array)
    np.testing.assert_allclose(some, picture.array * 0.75 + full * 0.25, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(some[..., 3], picture.array[..., 3])


def test_what_is_no_number_stays_so(autoencoder: nn.Sequential) -> None:
    picture = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    filled = picture.copy()
    filled[3, 3] = picture[3, 2] = picture[3, 4] = picture[2, 3] = picture[4, 3]  # all its nearest
    picture[3, 3, 1] = np.inf
    denoised = denoise_picture(autoencoder, picture)
    np.testing.assert_array_equal(denoised[3, 3], picture[3, 3])
    filled[[3, 3, 2], [2, 4, 3]] = picture[4, 3]
    expected = denoise_picture(autoencoder, filled)
    expected[3, 3] = picture[3, 3]
    np.testing.assert_array_equal(denoised, expected)


def test_a_model_that_gives_no_numbers_is_blamed() -> None:
    autoencoder = models.autoencoder((6, 8), seed=3)
    for parameter in autoencoder.parameters():
        parameter.data.mul_(1e30)
    for dtype in (np.uint8, np.float32):
        picture = Picture.of(np.ones((8, 8, 3), dtype))
        with pytest.raises(ValueError, match=r"the model gives .* not finite .* smaller --lr"):
            denoise_pages(autoencoder, picture)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"value_range": (1, 1)}, "two rising numbers"),
        ({"value_range": (0, float("inf"))}, "two rising numbers"),
        ({"value_range": (float("nan"), 1)}, "two rising numbers"),
        ({"strength": 1.5}, "from 0 to 1, got 1.5"),
        ({"strength": float("nan")}, "from 0 to 1, got nan"),
        ({"turns": 0}, "turns must be from 1 to 8, got 0"),
        ({"turns": 9}, "turns must be from 1 to 8, got 9"),
    ],
)
def test_bad_terms_are_refused(autoencoder: nn.Sequential, terms: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        denoise_pages(autoencoder, Picture.of(np.zeros((4, 4, 3))), **terms)
    if "turns" in terms:
        for run in (builtin.denoise_pages, zero_shot.denoise_pages):
            with pytest.raises(ValueError, match=message):
                run(Picture.of(np.zeros((4, 4, 3))), **terms)


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (np.zeros((4, 4), bool), TypeError),
        (np.zeros((4, 4, 5), np.uint8), ValueError),
        (np.zeros((4,), np.uint8), ValueError),
        (np.zeros((0, 4, 3), np.uint8), ValueError),
    ],
)
def test_bad_pictures_are_refused(
    autoencoder: nn.Sequential, picture: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        denoise_picture(autoencoder, picture)


def turned(picture: Tensor, turn: int) -> Tensor:
    """One of the eight versions: a quarter turn more with every second, mirrored every second."""
    turns = picture.rot90(turn // 2, (2, 3))
    return (turns.flip(3) if turn % 2 else turns).contiguous()


def turned_back(picture: Tensor, turn: int) -> Tensor:
    return (picture.flip(3) if turn % 2 else picture).rot90(-(turn // 2), (2, 3))


@pytest.mark.parametrize("turns", [1, 2, 5, 8])
@pytest.mark.parametrize("size", [(2, 3, 12, 20), (1, 1, 16, 8)])
@pytest.mark.parametrize("predicts_noise", [False, True])
def test_the_result_is_the_mean_over_turns(
    turns: int, size: tuple[int, ...], predicts_noise: bool
) -> None:
    model, picture = models.autoencoder((6, 8), seed=3), torch.rand(size)
    model.predicts_noise = predicts_noise
    each = [turned_back(denoise(model, turned(picture, turn)), turn) for turn in range(turns)]
    torch.testing.assert_close(
        denoise(model, picture, turns=turns), torch.stack(each).mean(0), rtol=0, atol=1e-6
    )
    assert not torch.equal(each[0], each[-1]) or turns == 1


def test_a_picture_is_continued_before_it_is_turned() -> None:
    """Always beyond its last row and column, so that the network's strides begin at its first."""
    model, picture = Seen(4), torch.rand(1, 1, 6, 9)
    torch.testing.assert_close(denoise(model, picture, turns=8), picture, rtol=0, atol=1e-6)
    even = np.pad(picture.numpy(), [(0, 0), (0, 0), (0, 2), (0, 3)], mode="reflect")
    for turn, seen in enumerate(model.inputs):
        np.testing.assert_array_equal(turned_back(seen, turn).numpy(), even)
    assert len(model.inputs) == 8


def test_turns_of_a_picture_in_tiles_are_those_of_the_whole(autoencoder: nn.Sequential) -> None:
    picture = torch.rand(1, 3, 120, 100)
    whole = denoise(autoencoder, picture, turns=8)
    assert torch.equal(denoise(autoencoder, picture, turns=8, max_bytes=2**21), whole)


@pytest.mark.parametrize("turns", [np.uint8(2), True])
def test_turns_are_any_whole_number(turns: Any) -> None:
    model = models.autoencoder((6,), seed=0)
    picture = np.random.default_rng(0).integers(0, 256, (100, 20, 3)).astype(np.uint8)
    expected = denoise_picture(model, picture, turns=int(turns))
    np.testing.assert_array_equal(denoise_picture(model, picture, turns=turns), expected)


@pytest.mark.parametrize("turns", [2.0, "2", None, np.array([2, 3])])
def test_turns_that_are_no_number_are_refused(autoencoder: nn.Sequential, turns: Any) -> None:
    picture = Picture.of(np.zeros((4, 4, 3)))
    for run in (
        lambda: denoise(autoencoder, torch.zeros(1, 3, 4, 4), turns=turns),
        lambda: denoise_pages(autoencoder, picture, turns=turns),
        lambda: builtin.denoise_pages(picture, turns=turns),
    ):
        with pytest.raises(TypeError, match="turns must be a whole number from 1 to 8, got "):
            run()


@pytest.mark.parametrize("predicts_noise", [False, True])
@pytest.mark.parametrize("turns", [1, 8])
def test_memory_format_stays_and_nothing_is_differentiated(
    turns: int, predicts_noise: bool
) -> None:
    model, picture = models.autoencoder((6,), seed=0), torch.rand(1, 3, 12, 20)
    model.predicts_noise = predicts_noise
    expected = denoise(model, picture, turns=turns)
    last = picture.to(memory_format=torch.channels_last).requires_grad_()
    found = denoise(model, last, turns=turns)
    assert found.is_contiguous(memory_format=torch.channels_last) and not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_pages_are_turned(autoencoder: nn.Sequential) -> None:
    pages = Picture(np.random.default_rng(0).random((2, 9, 14, 3), np.float32))
    found = denoise_pages(autoencoder, pages, turns=8).samples
    input = torch.from_numpy(pages.samples).movedim(3, 1)
    expected = denoise(autoencoder, input, turns=8).movedim(1, 3)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)
    first = denoise_picture(autoencoder, pages.samples[0], turns=8)
    np.testing.assert_array_equal(first, found[0])


def test_evaluate_measures_the_output() -> None:
    clean = torch.rand(3, 3, 16, 16)
    noisy = clean + 0.1
    assert evaluate(Seen(1), noisy, clean) == {
        "psnr_per_image": metrics.psnr_per_image(noisy, clean),
        "psnr_global": metrics.psnr_global(noisy, clean),
    }
