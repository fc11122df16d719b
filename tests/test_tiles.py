"""Pictures in tiles: the bits of the whole picture, whatever the size, the network, the tile."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pydenoise import memory, models, nn, ops, tiles
from pydenoise.data import Picture
from pydenoise.inference import check_pages, denoise, denoise_pages
from pydenoise.nn.window import EVERYTHING, Window
from pydenoise.tiles import Side, tiling

Make = Callable[[], nn.Module]


def plain() -> nn.Module:
    """3 x 3 without strides, Winograd between the layers of many channels."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(32, 33, 3, padding=1),
        nn.LeakyReLU(0.1), nn.Conv2d(33, 3, 1),
    )  # fmt: skip


def unet() -> nn.Module:
    """Skips, pooling of both kinds, nearest upsampling; Winograd at two resolutions."""
    inner = nn.Sequential(
        nn.AvgPool2d(2), nn.Conv2d(33, 32, 3, padding=1), nn.ReLU(), nn.Upsample(2)
    )
    outer = nn.Sequential(
        nn.MaxPool2d(2), nn.Conv2d(6, 33, 3, padding=1), nn.ReLU(), nn.Skip(inner),
        nn.Conv2d(65, 32, 3, padding=1), nn.LeakyReLU(0.1), nn.Upsample(2),
    )  # fmt: skip
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Skip(outer), nn.Conv2d(38, 3, 3, padding=1)
    )
    model.size_multiple = 4
    return model


def uneven() -> nn.Module:
    """Unlike in height and width, off centre, with gaps, and each layer of another size."""
    model = nn.Sequential(
        nn.Conv2d(3, 5, (5, 2), (1, 3), (4, 1), (2, 2)),
        nn.ReLU(),
        nn.ConvTranspose2d(5, 8, (1, 4), (1, 3), (0, 1), (0, 1)),
        nn.Sigmoid(),
        nn.MaxPool2d((1, 3), 1, (0, 1)),
        nn.ConvTranspose2d(8, 8, (2, 1), (2, 1), (0, 0), groups=4),
        nn.Conv2d(8, 3, (4, 1), (2, 1), (1, 0)),
    )
    model.size_multiple = 6
    return model


def scattered() -> nn.Module:
    """A transposed convolution alone says where its tiles begin."""
    return nn.Sequential(
        nn.Conv2d(3, 33, 5, padding=2), nn.ConvTranspose2d(33, 32, 3, 2, 1, 1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Conv2d(32, 3, 1),
    )  # fmt: skip


def autoencoder() -> nn.Module:
    return models.autoencoder((6, 8), seed=3)


def small_unet() -> nn.Module:
    """What people train: shifted, with a skip at every level, and added to the picture."""
    return models.small_unet(width=12, depth=2, seed=3)


def halved() -> nn.Module:
    """Strides, and layers and whole scales that are added to their input."""
    model = models.halved(widths=(12, 8), seed=3)
    torch.nn.init.normal_(model[-1].weight, generator=torch.Generator().manual_seed(3))
    return model


MAKERS = [autoencoder, plain, unet, small_unet, halved, uneven, scattered]
SIZES = [(31, 31), (32, 33), (31, 257), (8, 700), (255, 9), (65, 130), (1, 90)]
each_model = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiles as small as these are over before a second thread has begun."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def picture_of(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(size, dtype=dtype, generator=torch.Generator().manual_seed(sum(size)))


def whole(model: nn.Module, picture: Tensor) -> Tensor:
    """The picture by the model in one go."""
    height, width = picture.shape[2:]
    missing = [-side % model.size_multiple for side in (height, width)]
    padded = np.pad(
        picture.cpu().numpy(), [(0, 0), (0, 0), *((0, m) for m in missing)], mode="reflect"
    )
    with nn.no_backward():
        output: Tensor = model(torch.from_numpy(padded).to(picture.device))
    output = output[:, :, :height, :width]
    return picture - output if model.predicts_noise else output


def smallest(model: nn.Module, picture: Tensor) -> int:
    """The bytes below which the picture does not go through."""
    with pytest.raises(ValueError, match="smallest tile") as refusal:
        denoise(model, picture, max_bytes=1)
    return int(str(refusal.value).rsplit(" ", 1)[1])


def assert_tiled(model: nn.Module, picture: Tensor, share: float = 1) -> None:
    """The whole picture's bits out of tiles of the smallest size, times a share."""
    output = denoise(model, picture, max_bytes=int(share * smallest(model, picture)))
    expected = whole(model, picture)
    if ops.is_compiled(picture):
        assert torch.equal(output, expected)
    else:
        torch.testing.assert_close(output, expected)


@each_model
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_are_the_whole(make: Make, size: tuple[int, int]) -> None:
    assert_tiled(make(), picture_of(1, 3, *size))


@each_model
def test_of_several_pictures(make: Make) -> None:
    assert_tiled(make(), picture_of(2, 3, 63, 58))


@each_model
@pytest.mark.parametrize("share", [1.3, 2, 5])
def test_of_every_size(make: Make, share: float) -> None:
    assert_tiled(make(), picture_of(1, 3, 131, 166), share)


@each_model
def test_in_double_precision(make: Make) -> None:
    assert_tiled(make().to(torch.float64), picture_of(1, 3, 61, 90, dtype=torch.float64))


@each_model
@pytest.mark.parametrize("algorithm", ["im2col", "implicit", "winograd2", "winograd4"])
def test_by_every_algorithm(make: Make, algorithm: str) -> None:
    with ops.use_algorithm(algorithm):
        assert_tiled(make(), picture_of(1, 3, 55, 70))


@each_model
def test_on_every_place(make: Make, place: Any) -> None:
    assert_tiled(make().to(place.device), place.put(picture_of(1, 3, 45, 58)))


compiled_alone = pytest.mark.skipif(
    not ops.is_compiled(torch.empty(0)), reason="the bytes are those of the compiled kernels"
)


@compiled_alone
@pytest.mark.parametrize(
    ("make", "size"), [(autoencoder, (1025, 1023)), (plain, (1025, 64)), (unet, (700, 129))]
)
def test_large_pictures_are_cut_by_themselves(
    make: Make, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into tiles that stay in the cache, here a small one."""
    monkeypatch.setattr(tiles, "_PIXELS_UNCOUNTED", 1)
    monkeypatch.setattr(tiles, "_BYTES_IN_CACHE", 1 << 23)
    monkeypatch.setattr(tiles, "_WORK_OUTSIDE", 2)
    model, picture = make(), picture_of(1, 3, *size)
    plan = tiles.plan(model, picture.shape, picture, None)
    assert len(plan.rows) * len(plan.columns) > 1
    assert torch.equal(denoise(model, picture), whole(model, picture))


@pytest.mark.skipif(not ops.is_compiled(torch.empty(0)), reason="the reference promises no bits")
@each_model
@pytest.mark.parametrize("end", ["before", "behind"])
def test_a_halo_too_small_is_seen(make: Make, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By as little as a tile can be shifted."""
    sides = Side.of

    def short(model: nn.Module, size: int, axis: int) -> Side:
        side = sides(model, size, axis)
        return side._replace(**{end: getattr(side, end) - side.multiple})

    model, picture = make(), picture_of(1, 3, 120, 126)
    monkeypatch.setattr(Side, "of", short)
    with pytest.raises(AssertionError):
        assert_tiled(model, picture)


@pytest.mark.skipif(not ops.is_compiled(torch.empty(0)), reason="the reference promises no bits")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(71, 90), (70, 90, 3), (70, 90, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_pages_go_band_by_band(
    channels: int, shape: tuple[int, ...], dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels that are no numbers lie in two bands."""
    model = models.autoencoder((6, 8), channels, seed=3)
    noisy = np.random.default_rng(0).integers(0, 65536, shape).astype(dtype)
    if dtype == np.float32:
        noisy /= 65535
        noisy[8:24, 5, ...] = np.nan
    pages = Picture.of(noisy.copy())
    expected = denoise_pages(model, pages, strength=0.75).array
    monkeypatch.setattr(tiles, "_BAND_PIXELS", 2000)
    assert len([*tiles.bands(model, (70, 90))]) > 4
    banded = denoise_pages(model, pages, strength=0.75).array
    np.testing.assert_array_equal(banded, expected)
    np.testing.assert_array_equal(pages.array, noisy)


def lopsided(which: str) -> nn.Module:
    """A network that reads further along one axis than the other, or to one end."""
    seed = nn.init.seeded(0)
    if which == "wide":
        return nn.Sequential(nn.Conv2d(1, 1, (1, 15), padding=(0, 7), generator=seed))
    if which == "thirds":  # of no `size_multiple`: from the far end their strides begin elsewhere
        return nn.Sequential(
            nn.Conv2d(1, 4, 8, stride=3, padding=2, generator=seed),
            nn.ConvTranspose2d(4, 1, 3, stride=3, output_padding=1, generator=seed),
        )
    halves = nn.Sequential(
        nn.Conv2d(1, 4, 2, stride=2, generator=seed),
        nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1, generator=seed),
    )
    halves.size_multiple = 2
    return halves


@pytest.mark.parametrize(
    ("which", "size"),
    [
        *product(("wide", "halves"), [(70, 30), (71, 31)]),
        ("thirds", (70, 31)),
    ],
)
def test_bands_are_those_of_all_turns(
    which: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, picture = lopsided(which), picture_of(1, 1, *size)
    pages = Picture(picture.movedim(1, 3).numpy().copy())
    monkeypatch.setattr(tiles, "_BAND_PIXELS", 1000)
    for turns in range(1, 9):
        assert len([*tiles.bands(model, size, turns)]) > 1
        expected = denoise(model, picture, turns=turns).movedim(1, 3).numpy()
        found = denoise_pages(model, pages, turns=turns).samples
        np.testing.assert_array_equal(found, expected, err_msg=f"{turns} turns")


def test_memory_for_all_turns_is_looked_at_before_any_work() -> None:
    model, pages = lopsided("wide"), Picture(np.zeros((1, 400, 8, 1), np.float32))
    least = []
    for turns in (1, 2, 3, 8):
        with pytest.raises(tiles.TooFewBytes) as refusal:
            check_pages(model, pages, max_bytes=1, turns=turns)
        least.append(refusal.value.least)
        again = pickle.loads(pickle.dumps(refusal.value))
        assert (again.least, str(again)) == (least[-1], str(refusal.value))
        denoise_pages(model, pages, max_bytes=least[-1], turns=turns)
        with pytest.raises(tiles.TooFewBytes, match=f"allow at least {least[-1]}"):
            denoise(model, torch.zeros(1, 1, 400, 8), max_bytes=1, turns=turns)
    assert least[0] == least[1] < least[2] == least[3]


def test_tiles_take_their_memory_once() -> None:
    model, picture = autoencoder(), picture_of(1, 3, 64, 300)
    created = []
    for share in (1, 1.5):
        least = smallest(model, picture)
        memory.clear()
        before = memory.allocations()
        denoise(model, picture, max_bytes=int(share * least))
        created.append(memory.allocations() - before)
    assert created[0] == created[1] < 20


@compiled_alone
@pytest.mark.parametrize("max_bytes", [1_000_000, 4_000_000])
def test_memory_stays_in_its_bounds(max_bytes: int) -> None:
    model, picture = unet(), picture_of(2, 3, 130, 300)
    with memory.private():
        denoise(model, picture, max_bytes=max_bytes)
        assert max_bytes / 8 < memory.pooled_bytes() <= max_bytes


class Own(nn.Module):
    """A user's module, which says nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, input: Tensor) -> Tensor:
        self.sizes.append(tuple(input.shape))
        return input


def test_a_module_of_the_users_takes_pictures_whole() -> None:
    own = Own()
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), own)
    picture = picture_of(1, 3, 300, 400)
    assert torch.equal(denoise(model, picture), whole(model, picture))
    assert own.sizes[0] == (1, 3, 300, 400)
    with pytest.raises(ValueError, match=r"max_bytes=99 cannot be kept.*not pydenoise's own"):
        denoise(model, picture, max_bytes=99)


def test_a_layer_that_may_look_anywhere_takes_pictures_whole() -> None:
    assert nn.Fold((8, 8), 3).reads(Window(3, 4), 0) == EVERYTHING
    side = Side.of(nn.Sequential(nn.Upsample(2), nn.Fold((8, 8), 3), nn.MaxPool2d(2)), 9000, 0)
    assert not side.can_be_cut
    assert [*side.cuts(*side.lengths())] == [(0, 9000, 0, 9000)]


def test_what_layers_read() -> None:
    """By hand: rows of the input under rows of the output, and where both may be cut."""
    conv = nn.Conv2d(1, 1, (3, 5), (2, 1), (1, 0), (1, 3))
    assert conv.reads(Window(4, 6), 0) == Window(7, 13, 2)
    assert conv.reads(Window(4, 6, 2), 1) == Window(4, 18, 2)
    up = nn.ConvTranspose2d(1, 1, 3, 2, 1, 1)
    assert up.reads(Window(3, 8, 4), 0) == Window(1, 4, 2)
    assert nn.Upsample(3).reads(Window(2, 3, 2), 0) == Window(0, 1, 2)
    wide = nn.Conv2d(32, 32, 3, padding=1)
    with ops.use_algorithm("implicit"):
        assert wide.reads(Window(5, 5), 0) == Window(4, 6)
    if ops.is_compiled(wide.weight):
        assert wide.reads(Window(5, 5), 0) == Window(3, 6, 2)
        with ops.use_algorithm("winograd4"):
            assert wide.reads(Window(5, 5), 0) == Window(3, 8, 4)


@pytest.mark.parametrize("side", [
    Side(1000, 1000, 1, 0, 0), Side(999, 1000, 4, 8, 4), Side(1001, 1001, 2, 2, 6),
    Side(37, 64, 32, 96, 128),
], ids=str)  # fmt: skip
def test_tiles_cover_a_side(side: Side) -> None:
    for length in side.lengths():
        cuts = [*side.cuts(length)]
        assert [cut.first for cut in cuts] == [0, *(cut.end for cut in cuts[:-1])]
        assert cuts[-1].end == side.size
        assert side.work(length) == length * len(cuts)
        for cut in cuts:
            assert cut.start % side.multiple == 0
            assert cut.start == 0 or cut.first - cut.start >= side.before
            assert cut.stop == side.size or cut.stop - cut.end >= side.behind
            assert min(cut.start + length, side.size) == cut.stop


def test_the_tiling_of_the_least_work() -> None:
    rows, columns = Side(96, 96, 4, 4, 4), Side(400, 400, 4, 4, 4)
    every = [(h, w) for h in rows.lengths() for w in columns.lengths() if h * w <= 4000]
    chosen = tiling(rows, columns, 4000)
    assert chosen.pixels <= 4000
    assert chosen.work == min(rows.work(h) * columns.work(w) for h, w in every)
