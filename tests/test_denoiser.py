"""One call for arrays, tensors and pictures of Pillow's: the same kind comes back."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pydenoise
from pydenoise import Denoiser, builtin, data, denoise, models, nn, zero_shot
from pydenoise.checkpoint import save_weights
from pydenoise.data.captures import Scene
from pydenoise.inference import denoise_picture

SHORT = zero_shot.RECIPES["fast"]._replace(steps=3, turns=1)


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return models.autoencoder((4,), seed=0)


def numbers(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i2", "u4", "f2", "f4", "f8", ">f8"])
@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 1), (9, 8, 2), (9, 8, 3), (9, 8, 4)])
def test_arrays(model: nn.Module, shape: tuple[int, ...], dtype: str) -> None:
    array = numbers(shape, dtype)
    before = array.copy()
    denoised = denoise(array, model, value_range=(0, 255))
    assert (denoised.shape, denoised.dtype) == (shape, array.dtype)
    np.testing.assert_array_equal(array, before)
    assert not np.shares_memory(denoised, array)
    alone = denoise(array, recipe=SHORT)
    assert (alone.shape, alone.dtype) == (shape, array.dtype)
    if shape[2:] in ((2,), (4,)):
        np.testing.assert_array_equal(denoised[..., -1], array[..., -1])
        np.testing.assert_array_equal(alone[..., -1], array[..., -1])


@pytest.mark.parametrize("network", [models.autoencoder, models.small_unet])
@pytest.mark.parametrize(("taken", "given"), [(3, 1), (1, 3)])
def test_gray_and_colour_for_each_other(network: Any, taken: int, given: int) -> None:
    built = network((4,), taken) if network is models.autoencoder else network(taken)
    array = numbers((16, 24, given), np.uint8)
    assert denoise(array, built).shape == array.shape


def test_what_a_model_makes_of_an_array(model: nn.Module) -> None:
    array = numbers((12, 10, 3), np.uint8)
    np.testing.assert_array_equal(denoise(array, model), denoise_picture(model, array))


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", "f2", "f8"])
def test_floating_point_of_any_kind_is_on_the_models_scale(model: nn.Module, dtype: str) -> None:
    array = (numbers((12, 10, 3), "f4") / 255).astype(dtype)
    denoised = denoise(array, model)
    assert denoised.dtype == array.dtype
    expected = denoise(array.astype(np.float32), model)
    np.testing.assert_allclose(denoised, expected.astype(dtype), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["i8", "u4", "f4", "f8"])
def test_numbers_on_no_known_scale_are_refused(model: nn.Module, dtype: str) -> None:
    array = numbers((9, 8), dtype)
    with pytest.raises(ValueError, match="say which of them are black and white"):
        denoise(array, model)
    assert denoise(array, model, value_range=(0, 255)).dtype == array.dtype


def test_turns_of_a_model(model: nn.Module) -> None:
    array = numbers((20, 24, 3), np.uint8)
    found = denoise(array, model, turns=8)
    np.testing.assert_array_equal(found, denoise_picture(model, array, turns=8))
    np.testing.assert_array_equal(Denoiser(model).denoise(array, turns=8), found)


def test_memory_may_be_bounded(model: nn.Module) -> None:
    array = numbers((100, 90, 3), np.uint8)
    np.testing.assert_array_equal(denoise(array, model, max_bytes=10**6), denoise(array, model))
    with pytest.raises(ValueError, match="max_bytes=10 does not hold"):
        denoise(array, model, max_bytes=10)


def test_axes_of_an_array(model: nn.Module) -> None:
    array = numbers((2, 3, 8, 9), np.uint16)
    denoised = denoise(array, model, axes="TZYX")
    assert denoised.shape == array.shape
    np.testing.assert_array_equal(denoised[1, 2], denoise(array[1, 2], model))
    planes = denoise(array[0], model, axes="SYX")
    np.testing.assert_array_equal(
        planes, denoise(array[0].transpose(1, 2, 0), model).transpose(2, 0, 1)
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 9), (1, 8, 9), (3, 8, 9), (2, 1, 8, 9), (2, 3, 8, 9)])
def test_tensors(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(numbers(shape, np.uint8)).to(dtype)
    denoised = denoise(tensor, model, value_range=(0, 255))
    assert (denoised.shape, denoised.dtype) == (tensor.shape, dtype)
    assert denoised.is_contiguous() and denoised.data_ptr() != tensor.data_ptr()
    picture = tensor if tensor.dim() < 4 else tensor[1]
    array = picture.numpy() if picture.dim() < 3 else picture.permute(1, 2, 0).numpy()
    expected = denoise(array, model, value_range=(0, 255))
    found = denoised if tensor.dim() < 4 else denoised[1]
    found = found if found.dim() < 3 else found.permute(1, 2, 0)
    np.testing.assert_array_equal(found.numpy(), expected)
    alone = denoise(tensor, recipe=SHORT)
    assert (alone.shape, alone.dtype) == (tensor.shape, dtype)


def test_tensors_of_odd_kinds(model: nn.Module) -> None:
    tensor = torch.rand(8, 8)
    strange = tensor.requires_grad_().t()
    np.testing.assert_array_equal(
        denoise(strange, model).numpy(), denoise(tensor.detach().t().contiguous(), model).numpy()
    )
    assert denoise(torch.rand(8, 8, dtype=torch.bfloat16), model).dtype is torch.bfloat16


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16", "I", "F"])
def test_pictures_of_pillow(model: nn.Module, mode: str) -> None:
    image = Image.fromarray(numbers((8, 10, 3), np.uint8)).convert("L" if mode == "I;16" else mode)
    image = image.convert("I").convert("I;16") if mode == "I;16" else image
    image.info["dpi"] = (300, 300)
    denoised = denoise(image, model, value_range=(0, 255))
    assert (denoised.mode, denoised.size, denoised.info) == (mode, image.size, image.info)
    expected = denoise(np.asarray(image), model, value_range=(0, 255))
    np.testing.assert_array_equal(np.asarray(denoised), expected)
    assert denoise(image, recipe=SHORT).mode == mode


def test_pictures_of_files(model: nn.Module) -> None:
    picture = data.Picture.of(numbers((8, 10, 3), np.uint16))
    denoised = denoise(picture, model)
    assert isinstance(denoised, data.Picture)
    np.testing.assert_array_equal(denoised.array, denoise(picture.array, model))


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((4, 4), bool), "got bool"),
        (np.zeros((4, 4), complex), "got complex"),
        ([[1, 2]], "got list"),
        (torch.zeros(4, 4, dtype=torch.bool), "got torch.bool"),
        (np.zeros((2, 4, 4, 3)), r"axes that say.*'TYX'"),
        (np.zeros((4, 4, 7)), "from 1 to 4"),
        (torch.zeros(2, 4, 4), "C = 1 or 3"),
        (torch.zeros(0, 3, 4, 4), "C = 1 or 3"),
        (Image.new("P", (4, 4)), r"mode P; .*convert\('RGB'\)"),
        (Image.new("CMYK", (4, 4)), "mode CMYK"),
    ],
)
def test_what_is_no_picture(picture: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        denoise(picture, recipe=SHORT)


def test_without_a_model_the_method_follows_from_the_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(zero_shot.RECIPES, "fast", SHORT)
    for shape in ((20, 24), (20, 24, 3), (20, 24, 4)):
        array = numbers(shape, np.uint8)
        ships = builtin.denoise_pages(data.Picture.of(array)).array
        learned = zero_shot.denoise_pages(data.Picture.of(array)).array
        assert (ships != learned).any()
        for terms in ({}, {"method": "builtin"}):
            np.testing.assert_array_equal(denoise(array, **terms), ships)
        for terms in ({"method": "zero-shot"}, {"recipe": "fast"}, {"seed": 0}):
            np.testing.assert_array_equal(denoise(array, **terms), learned)
        for method, own, other, found in (("builtin", 8, 1, ships), ("zero-shot", 1, 8, learned)):
            np.testing.assert_array_equal(denoise(array, method=method, turns=own), found)
            assert (denoise(array, method=method, turns=other) != found).any()
    picture = data.Picture(numbers((1, 20, 24, 5), np.uint8))
    learned = denoise(picture, method="zero-shot").samples
    np.testing.assert_array_equal(denoise(picture).samples, learned)
    with pytest.raises(ValueError, match="the picture has 5 channels"):
        denoise(picture, method="builtin")


def test_a_denoiser_keeps_the_range_of_its_pairs() -> None:
    captures = [numbers((16, 16, 1), np.uint16) * 10] * 2
    noise = np.random.default_rng(1).integers(0, 200, (2, 16, 16, 1)).astype(np.uint16)
    scenes = [Scene([c + n for c, n in zip(captures, noise, strict=True)], ["a", "b"])]
    pairs = data.ScenePairs(scenes, 8, length=4, value_range=(0, 2000))
    for source in (pairs, data.Augmented(pairs)):
        denoiser = Denoiser(models.autoencoder((4,), 1, seed=0)).fit(source, epochs=1)
        assert denoiser.model.value_range == (0, 2000)
    assert Denoiser(denoiser.model).fit((torch.zeros(2, 1, 8, 8, dtype=torch.uint8),) * 2, epochs=1)
    assert denoiser.model.value_range is None


def test_terms_that_do_not_go_together(model: nn.Module) -> None:
    with pytest.raises(TypeError, match="recipe is for zero-shot"):
        denoise(np.zeros((4, 4)), model, recipe="fast")
    with pytest.raises(TypeError, match="seed is for zero-shot"):
        denoise(np.zeros((4, 4)), method="builtin", seed=1)
    with pytest.raises(TypeError, match="either a model or the method 'zero-shot'"):
        denoise(np.zeros((4, 4)), model, method="zero-shot")
    with pytest.raises(ValueError, match="unknown method 'fast'; known are auto, builtin, zero-"):
        denoise(np.zeros((4, 4)), method="fast")
    with pytest.raises(TypeError, match=r"move it there: model.to\('cuda:1'\)"):
        denoise(np.zeros((4, 4)), model, device="cuda:1")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device cuda: "):
            denoise(np.zeros((4, 4)), device="cuda")
    with pytest.raises(TypeError, match="axes are for arrays"):
        denoise(torch.zeros(4, 4), model, axes="YX")
    with pytest.raises(ValueError, match="name 3 dimensions"):
        denoise(np.zeros((4, 4)), model, axes="TYX")


def test_a_denoiser_learns_from_pairs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    scene = torch.full((64, 3, 16, 16), 100)
    first, second = (
        (scene + torch.randint(-40, 41, scene.shape, generator=generator)).to(torch.uint8)
        for _ in range(2)
    )
    denoiser = Denoiser(models.autoencoder((8,), seed=0))
    assert denoiser.fit((first, second), epochs=30, lr=5e-3, average=0.9) is denoiser
    noisy = first[0].permute(1, 2, 0).numpy()
    denoised = denoiser.denoise(noisy)
    assert np.abs(denoised.astype(float) - 100).mean() < 10
    assert (denoiser.denoise(noisy, strength=0) == noisy).all()
    save_weights(tmp_path / "w.safetensors", denoiser.model)
    np.testing.assert_array_equal(denoise(noisy, tmp_path / "w.safetensors"), denoised)
    np.testing.assert_array_equal(Denoiser(tmp_path / "w.safetensors").denoise(noisy), denoised)
    again = Denoiser(models.autoencoder((8,), seed=0))
    again.fit(data.TensorPairs(first, second), epochs=30, lr=5e-3, average=0.9)
    np.testing.assert_array_equal(again.denoise(noisy), denoised)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3), (6, 7, 4)])
def test_a_picture_shows_itself(shape: tuple[int, ...], dtype: Any) -> None:
    array = numbers(shape, dtype)
    shown = Image.open(io.BytesIO(data.Picture.of(array)._repr_png_()))
    assert shown.size == (7, 6)
    if dtype is np.uint8:
        np.testing.assert_array_equal(np.asarray(shown), array)
    else:
        assert np.asarray(shown).min() == 0 and np.asarray(shown).max() == 255


def test_a_picture_of_nothing_shows_itself() -> None:
    assert data.Picture.of(np.full((4, 4), np.nan))._repr_png_().startswith(b"\x89PNG")


def test_names_of_the_package() -> None:
    assert pydenoise.denoise is denoise and pydenoise.Denoiser is Denoiser
