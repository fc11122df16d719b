"""PSNR against its definition and scikit-image, SSIM against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from pydenoise.metrics import Scene, compare, psnr, psnr_global, psnr_per_image, ssim


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Five clean pictures of whole levels, and noisy ones of growing noise."""
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(0, 256, (5, 3, 16, 20), generator=generator) / 255
    sigma = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.4]).view(5, 1, 1, 1)
    return clean + sigma * torch.randn(clean.shape, generator=generator), clean


def as_file(picture: torch.Tensor) -> np.ndarray:
    return np.round(np.clip(picture.numpy().astype(np.float64), 0, 1) * 255).astype(np.uint8)


def test_psnr_is_scikit_images(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    noisy, clean = pictures
    expected = peak_signal_noise_ratio(
        clean.numpy().astype(np.float64), noisy.numpy().astype(np.float64), data_range=1
    )
    assert psnr(noisy, clean, data_range=1) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_levels_takes_their_range(pictures: tuple[torch.Tensor, torch.Tensor]) -> None:
    noisy, clean = (torch.from_numpy(as_file(picture)) for picture in pictures)
    expected = peak_signal_noise_ratio(clean.numpy(), noisy.numpy(), data_range=255)
    assert psnr(noisy, clean, data_range=255) == pytest.approx(expected, abs=1e-9)


def test_psnr_of_equal_pictures_is_infinite() -> None:
    assert psnr(torch.ones(3), torch.ones(3), data_range=1) == math.inf


def test_the_courses_two_figures_follow_their_definitions(
    pictures: tuple[torch.Tensor, torch.Tensor],
) -> None:
    output, target = (as_file(picture).astype(np.float64) / 255 for picture in pictures)
    errors = ((output - target) ** 2).mean(axis=(1, 2, 3))
    per_image = np.mean(-10 * np.log10(errors + 1e-8))
    assert psnr_per_image(*pictures) == pytest.approx(per_image, abs=1e-9)
    assert psnr_global(*pictures) == pytest.approx(-10 * np.log10(errors.mean() + 1e-8), abs=1e-9)
    assert psnr_per_image(*pictures) > psnr_global(*pictures)  # Jensen


def test_both_figures_are_scikit_images_up_to_the_constant(
    pictures: tuple[torch.Tensor, torch.Tensor],
) -> None:
    noisy, clean = (as_file(picture) for picture in pictures)
    each = [
        peak_signal_noise_ratio(c, n, data_range=255) for c, n in zip(clean, noisy, strict=True)
    ]
    assert psnr_per_image(*pictures) == pytest.approx(np.mean(each), abs=1e-3)
    whole = peak_signal_noise_ratio(clean, noisy, data_range=255)
    assert psnr_global(*pictures) == pytest.approx(whole, abs=1e-3)


def test_equal_pictures_have_eighty_decibels() -> None:
    picture = torch.rand(2, 3, 8, 8)
    assert psnr_per_image(picture, picture) == pytest.approx(80)
    assert psnr_global(picture, picture) == pytest.approx(80)


def test_figures_see_what_a_file_would_hold() -> None:
    target = torch.tensor([0.0, 1.0, 10 / 255, 20 / 255]).view(1, 1, 2, 2)
    output = torch.tensor([-3.0, 1.5, 10.4 / 255, 19.6 / 255]).view(1, 1, 2, 2)
    assert psnr_per_image(output, target) == pytest.approx(80)
    assert ssim(torch.full((1, 1, 11, 11), -1.0), torch.zeros(1, 1, 11, 11)) == pytest.approx(1)


def test_a_nan_is_seen() -> None:
    picture = torch.zeros(2, 1, 4, 4)
    broken = picture.clone()
    broken[0, 0, 0, 0] = math.nan
    assert math.isnan(psnr_per_image(broken, picture))
    assert math.isnan(psnr_global(broken, picture))


def test_float64_and_other_layouts_give_the_same(
    pictures: tuple[torch.Tensor, torch.Tensor],
) -> None:
    noisy, clean = pictures
    expected = psnr_per_image(noisy, clean)
    assert psnr_per_image(noisy.double(), clean) == pytest.approx(expected, abs=1e-3)
    striped = noisy.to(memory_format=torch.channels_last)
    assert psnr_per_image(striped, clean) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("contrast", [1, 0.049])  # low contrast: where each constant counts
def test_ssim_is_scikit_images_mean(
    pictures: tuple[torch.Tensor, torch.Tensor], contrast: float
) -> None:
    pictures = pictures[0] * contrast, pictures[1] * contrast
    each = [
        structural_similarity(
            noisy.transpose(1, 2, 0),
            clean.transpose(1, 2, 0),
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for noisy, clean in zip(*(as_file(picture) for picture in pictures), strict=True)
    ]
    assert ssim(*pictures) == pytest.approx(np.mean(each), abs=1e-9)
    assert ssim(pictures[1], pictures[1]) == pytest.approx(1)


@pytest.mark.parametrize("measure", [psnr_per_image, psnr_global, ssim])
class TestBadInput:
    def test_levels(self, measure) -> None:
        levels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        with pytest.raises(TypeError, match=r"output has dtype torch.uint8; expected floating"):
            measure(levels, levels.float())

    def test_shapes_that_differ(self, measure) -> None:
        with pytest.raises(ValueError, match=r"\(1, 3, 16, 16\), target \(1, 1, 16, 16\)"):
            measure(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))

    def test_no_batch(self, measure) -> None:
        with pytest.raises(ValueError, match=r"shape is \(3, 16, 16\); expected \(N, C, H, W\)"):
            measure(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))

    def test_an_empty_batch(self, measure) -> None:
        with pytest.raises(ValueError, match="at least one value"):
            measure(torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16))


def test_ssim_refuses_pictures_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="height and width of at least 11"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))


@pytest.mark.parametrize("data_range", [0, -1, math.nan])
def test_psnr_refuses_a_range_that_is_none(data_range: float) -> None:
    with pytest.raises(ValueError, match="data_range is"):
        psnr(torch.zeros(1), torch.ones(1), data_range=data_range)


def test_compare_counts_every_picture_alike() -> None:
    """Errors of 0.2 on a small picture and 0.4 on a large one, halved by the denoising."""
    scenes = [
        Scene(error, error / 2, torch.zeros_like(error))
        for error in (torch.full((1, 3, 12, 12), 0.2), torch.full((1, 3, 30, 40), 0.4))
    ]
    measures = compare(scenes)
    per_image = -10 * (math.log10(0.2**2) + math.log10(0.4**2)) / 2
    overall = -10 * math.log10((0.2**2 + 0.4**2) / 2)
    assert measures["psnr_noisy"] == pytest.approx(per_image, abs=1e-4)
    assert measures["psnr_noisy_global"] == pytest.approx(overall, abs=1e-4)
    assert measures["psnr_denoised"] == pytest.approx(per_image + 20 * math.log10(2), abs=0.1)
    assert measures["ssim_denoised"] > measures["ssim_noisy"]
    assert measures["pictures"] == 2
    with pytest.raises(ValueError, match="no pictures"):
        compare([])


def test_compare_leaves_ssim_out_where_its_window_does_not_fit() -> None:
    small = torch.rand(1, 3, 8, 30)
    measures = compare([Scene(small, small, small)])
    assert measures["ssim_noisy"] is measures["ssim_denoised"] is None
    assert measures["psnr_noisy"] == pytest.approx(80)
