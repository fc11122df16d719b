"""Noise: streams that meet nowhere, statistics of every model, the text forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from pydenoise.data.noise import (
    PURPOSES,
    Bernoulli,
    Gaussian,
    Impulse,
    NoiseModel,
    PointSample,
    Poisson,
    PoissonGaussian,
    Speckle,
    Text,
    generator,
    parse,
)

OF_MEAN_ZERO = ["gauss:25", "gauss:0-50", "poisson:30", "poisson:5-50", "point:4"]
OF_MEAN_ZERO += ["poisson-gauss:5-50,0-20", "speckle:40"]
MODELS = [*OF_MEAN_ZERO, "bernoulli:0.5", "bernoulli:0-0.9", "impulse:0.3", "text:0.2"]
FLAT = np.full((128, 128, 3), 102, dtype=np.uint8)  # 0.4 on the scale 0..1


def rng(index: int = 0) -> np.random.Generator:
    return generator(3, 0, index, "noise")


def textured(size: int = 256) -> np.ndarray:
    return rng().integers(0, 256, (size, size, 3), dtype=np.uint8)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# --- streams ------------------------------------------------------------------------------------


def test_a_stream_is_a_function_of_its_four_values() -> None:
    a, b = (generator(1, 2, 3, "crop").integers(2**60, size=100) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_streams_differ_in_every_one_of_the_four_values() -> None:
    keys = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1), (1, 3, 2)]
    first = {generator(*key, purpose).integers(2**63) for key in keys for purpose in PURPOSES}  # type: ignore[arg-type]
    assert len(first) == len(keys) * len(PURPOSES)


def test_streams_of_neighbouring_samples_do_not_correlate() -> None:
    streams = np.stack([generator(0, 0, i, "noise").standard_normal(4096) for i in range(32)])
    others = np.corrcoef(streams)[~np.eye(32, dtype=bool)]
    assert np.abs(others).max() < 6 / np.sqrt(4096)


def test_numpy_philox_is_keyed_as_documented() -> None:
    philox = np.random.Philox(
        key=np.array([7, 5], dtype=np.uint64), counter=np.array([0, 0, 9, 2], dtype=np.uint64)
    )
    assert PURPOSES[2] == "noise"
    assert np.random.Generator(philox).integers(2**63) == generator(7, 5, 9, "noise").integers(
        2**63
    )


@pytest.mark.parametrize("value", [-1, 2**64])
@pytest.mark.parametrize("name", ["seed", "epoch", "index"])
def test_values_outside_a_word_are_refused(name: str, value: int) -> None:
    values = {"seed": 0, "epoch": 0, "index": 0} | {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}; expected 0"):
        generator(**values, purpose="noise")


def test_an_unknown_purpose_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown purpose 'lunch'; expected one of order"):
        generator(0, 0, 0, "lunch")  # type: ignore[arg-type]


# --- every model --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", MODELS)
def test_draws_are_float32_and_repeat_with_the_generator(text: str) -> None:
    model = parse(text)
    once, again, other = (model.draw(textured(64), rng(i)) for i in (1, 1, 2))
    assert once.dtype == np.float32
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("text", MODELS)
def test_uint8_and_its_float_picture_give_the_same_draw(text: str) -> None:
    clean = textured(64)
    model = parse(text)
    scaled = clean.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(model.draw(clean, rng()), model.draw(scaled, rng()))
    np.testing.assert_allclose(model.expectation(clean), model.expectation(scaled), atol=1e-6)


@pytest.mark.parametrize("text", OF_MEAN_ZERO)
def test_the_two_draws_of_a_pair_average_to_the_expectation_and_are_independent(text: str) -> None:
    model = parse(text)
    clean = textured()
    if text != "point:4":
        clean = clean // 4 + 64
    first, second = (draw - model.expectation(clean) for draw in model.pair(clean, rng()))
    tolerance = 6 * first.std() / np.sqrt(first.size / 3)
    assert abs(first.mean()) < tolerance
    assert abs(second.mean()) < tolerance
    assert abs(correlation(first, second)) < 6 / np.sqrt(first.size / 3)


@pytest.mark.parametrize("text", MODELS)
def test_gray_pictures_are_taken_too(text: str) -> None:
    model = parse(text)
    size = model.source_size(16)
    assert model.draw(textured(size)[:, :, 0], rng()).shape == (16, 16)


def test_pictures_of_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="dtype uint16; expected uint8, float32 or float64"):
        Gaussian(25, 25).draw(FLAT.astype(np.uint16), rng())


# --- Gaussian and Poisson -----------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [5.0, 25.0, 50.0])
def test_gaussian_noise_has_its_sigma_and_is_not_clipped(sigma: float) -> None:
    black = np.zeros_like(FLAT)
    noise = Gaussian(sigma, sigma).draw(black, rng())
    assert noise.std() * 255 == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean() * 255) < 6 * sigma / np.sqrt(noise.size)
    assert (noise < 0).mean() == pytest.approx(0.5, abs=0.02)
    assert abs(correlation(noise[:, 1:], noise[:, :-1])) < 0.03
    assert abs(correlation(noise[..., 0], noise[..., 1])) < 0.05


def test_gaussian_noise_is_sigma_over_255_times_a_normal_number() -> None:
    normal = rng().standard_normal(FLAT.shape, dtype=np.float32)
    expected = FLAT / 255 + 25 / 255 * normal.astype(np.float64)
    np.testing.assert_allclose(Gaussian(25, 25).draw(FLAT, rng()), expected, atol=1e-6)


def test_no_noise_is_the_picture_itself() -> None:
    np.testing.assert_array_equal(
        Gaussian(0, 0).draw(textured(8), rng()), textured(8) / np.float32(255)
    )


@pytest.mark.parametrize("lam", [2.0, 30.0])
def test_poisson_noise_counts_photons(lam: float) -> None:
    noisy = Poisson(lam, lam).draw(FLAT, rng())
    assert noisy.mean() == pytest.approx(0.4, abs=0.01)
    assert noisy.var() == pytest.approx(0.4 / lam, rel=0.05)
    np.testing.assert_allclose(noisy * lam, np.round(noisy * lam), atol=1e-4)


def test_poisson_counts_nothing_below_zero() -> None:
    assert not Poisson(30, 30).draw(np.full((4, 4, 3), -0.5, np.float32), rng()).any()


@pytest.mark.parametrize("model", [Gaussian(0, 50), Poisson(5, 50)], ids=str)
def test_a_range_gives_one_level_per_sample_shared_by_the_pair(model: NoiseModel) -> None:
    levels = [model.fixed(rng(i)).low for i in range(200)]  # type: ignore[attr-defined]
    assert len(set(levels)) == 200
    assert model.low <= min(levels) < model.low + 5  # type: ignore[attr-defined]
    assert model.high - 5 < max(levels) <= model.high  # type: ignore[attr-defined]
    for index in range(5):
        first, second = model.pair(FLAT, rng(index))
        assert first.std() == pytest.approx(second.std(), rel=0.05)


@pytest.mark.parametrize(("lam", "sigma"), [(30.0, 10.0), (5.0, 25.0)])
def test_photons_and_reading_add_their_variances(lam: float, sigma: float) -> None:
    noise = PoissonGaussian(lam, lam, sigma, sigma).draw(FLAT, rng()) - np.float32(0.4)
    assert noise.var() == pytest.approx(0.4 / lam + (sigma / 255) ** 2, rel=0.05)
    assert abs(noise.mean()) < 6 * noise.std() / np.sqrt(noise.size)


def test_photons_and_reading_have_levels_of_their_own() -> None:
    model = PoissonGaussian(5, 50, 0, 20)
    fixed = [model.fixed(rng(i)) for i in range(200)]
    assert all(each.low == each.high and each.read_low == each.read_high for each in fixed)
    lam, sigma = np.array([(each.low, each.read_low) for each in fixed]).T
    assert (lam.min(), lam.max()) == pytest.approx((5, 50), abs=1)
    assert (sigma.min(), sigma.max()) == pytest.approx((0, 20), abs=0.5)
    assert abs(correlation(lam, sigma)) < 0.3


def test_speckle_grows_with_the_light() -> None:
    bright, dark = (Speckle(40, 40).draw(FLAT // part, rng()) for part in (1, 2))
    assert bright.std() * 255 == pytest.approx(0.4 * 40, rel=0.03)
    np.testing.assert_allclose(dark, bright / 2, rtol=1e-5)
    assert bright.mean() == pytest.approx(0.4, abs=0.002)


# --- pixels replaced ----------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_lost_pixels_are_zero_in_all_channels_and_the_others_clean(share: float) -> None:
    clean = textured()
    noisy = Bernoulli(share, share).draw(clean, rng())
    is_lost = (noisy == 0).any(axis=2)
    assert is_lost.mean() == pytest.approx(share, abs=0.01)
    assert not noisy[is_lost].any()
    assert abs(correlation(is_lost[1:], is_lost[:-1])) < 0.03
    np.testing.assert_allclose(noisy[~is_lost], clean[~is_lost] / 255, atol=1 / 1000)


def test_black_pixels_that_are_left_do_not_look_lost() -> None:
    noisy = Bernoulli(0.5, 0.5).draw(np.zeros_like(FLAT), rng())
    assert set(np.unique(noisy)) == {0, np.float32(2**-10)}


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_impulses_are_uniform_colours(share: float) -> None:
    noisy = Impulse(share, share).draw(FLAT, rng())
    hit = (noisy != np.float32(0.4)).any(axis=2)
    assert hit.mean() == pytest.approx(share, abs=0.02)
    colours = noisy[hit]
    assert colours.mean() == pytest.approx(0.5, abs=0.03)
    assert colours.var() == pytest.approx(1 / 12, rel=0.05)
    assert abs(correlation(colours[:, 0], colours[:, 1])) < 0.1


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_words_cover_their_share_and_leave_the_rest(share: float) -> None:
    noisy = Text(share, share).draw(FLAT, rng())
    written = (noisy != np.float32(0.4)).any(axis=2)
    assert share <= written.mean() < share + 0.08
    assert len(np.unique(noisy[written], axis=0)) > 3  # a colour for each word
    assert correlation(written[:, 1:], written[:, :-1]) > 0.4  # strokes, no dust


def test_words_need_no_room() -> None:
    assert (Text(0.5, 0.5).draw(FLAT[:2, :3], rng()) != np.float32(0.4)).any(axis=2).sum() >= 3


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("gauss:25", "mse"),
        ("speckle:9", "mse"),
        ("bernoulli:0.5", "masked"),
        ("impulse:0.5", "l0"),
        ("text:0.2", "l1"),
    ],
)
def test_every_model_names_the_loss_that_finds_the_clean_picture(text: str, loss: str) -> None:
    assert parse(text).loss == loss


# --- point samples ------------------------------------------------------------------------------


def test_a_point_sample_is_a_pixel_of_its_block_in_all_channels() -> None:
    clean = np.arange(64 * 64, dtype=np.int64).reshape(64, 64, 1)
    clean = np.concatenate([clean % 251, clean // 251, clean % 7], axis=2).astype(np.uint8)
    picked = PointSample(8).pick(clean, rng())
    assert picked.shape == (8, 8, 3)
    for row in range(8):
        for column in range(8):
            block = clean[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].reshape(-1, 3)
            assert (block == picked[row, column]).all(axis=1).any()


def test_every_pixel_of_a_block_is_as_likely() -> None:
    position = np.tile(np.arange(16, dtype=np.uint8).reshape(4, 4), (200, 200))
    counts = np.bincount(PointSample(4).pick(position, rng()).ravel(), minlength=16)
    expected = 200 * 200 / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-squared, 15 degrees of freedom


def test_the_clean_picture_of_point_samples_is_the_block_mean() -> None:
    clean = textured(64)
    mean = PointSample(8).expectation(clean)
    assert mean.shape == (8, 8, 3)
    np.testing.assert_allclose(mean[2, 3], clean[16:24, 24:32].mean(axis=(0, 1)) / 255, rtol=1e-5)


def test_point_samples_have_no_noise_in_flat_areas() -> None:
    noisy, again = PointSample(8).pair(FLAT, rng())
    np.testing.assert_array_equal(noisy, again)
    np.testing.assert_allclose(noisy, PointSample(8).expectation(FLAT), rtol=1e-6)


def test_a_picture_that_is_no_multiple_of_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="30x32; expected multiples of the block 8"):
        PointSample(8).draw(textured(32)[:30], rng())


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("gauss:25", Gaussian(25, 25)),
        ("gauss:0-50", Gaussian(0, 50)),
        ("gauss:12.5", Gaussian(12.5, 12.5)),
        ("poisson:30", Poisson(30, 30)),
        ("poisson:0.001-50", Poisson(0.001, 50)),
        ("poisson-gauss:30,10", PoissonGaussian(30, 30, 10, 10)),
        ("poisson-gauss:5-50,0-20", PoissonGaussian(5, 50, 0, 20)),
        ("speckle:40", Speckle(40, 40)),
        ("bernoulli:0-0.95", Bernoulli(0, 0.95)),
        ("impulse:0.5", Impulse(0.5, 0.5)),
        ("text:0-0.5", Text(0, 0.5)),
        ("point:8", PointSample(8)),
    ],
)
def test_texts_name_models(text: str, model: NoiseModel) -> None:
    assert parse(text) == model
    assert str(model) == text


@given(
    kind=st.sampled_from([Gaussian, Poisson]),
    low=st.floats(1e-6, 1e3),
    width=st.floats(0, 1e3),
)
def test_every_model_parses_back_from_its_text(kind: type, low: float, width: float) -> None:
    model = kind(low, low + width)
    assert parse(str(model)) == model


@pytest.mark.parametrize(
    "text",
    [
        "",
        "25",
        "salt:3",
        "gauss",
        "gauss:",
        "gauss:-5",
        "gauss:a",
        "gauss:5-",
        "gauss:1-2-3",
        "gauss:1e3",
        "gauss:nan",
        "gauss:٣",
        "point:8-9",
        "point:2.5",
        "point:8,2",
        "gauss:25,3",
        "poisson-gauss:30",
        "poisson-gauss:30,",
    ],
)
def test_texts_without_meaning_are_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .*:BLOCK") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gauss:50-25", "expected 0 <= low <= high"),
        ("gauss:1" + 39 * "0", r"sigma 1e\+39-1e\+39; expected 0 <= low <= high <= 1e4"),
        ("poisson:0", "expected 0 < low"),
        ("poisson:99999999999", "<= 1e9"),
        ("poisson-gauss:0,1", "expected 0 < low"),
        ("poisson-gauss:9,20000", "sigma 20000-20000"),
        ("speckle:9-8", "speckle: sigma 9-8; expected"),
        ("bernoulli:1", "bernoulli: share of pixels 1-1; expected 0 <= low <= high <= 0.99"),
        ("impulse:1.5", "<= 0.99"),
        ("text:0.6", "<= 0.5"),
        ("point:1", "expected 2 .. 64"),
        ("point:65", "expected 2 .. 64"),
    ],
)
def test_levels_out_of_range_are_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse(text)
