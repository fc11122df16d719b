"""Winograd's convolutions: how near to the right values, and what a tile may know of the others.

A tile's error is bounded by the sizes that meet in it, not by those that meet in one of its pixels:
an output pixel of a tile of `side` x `side` may miss the float64 value by

    4 min(K, 4 sqrt(K)) u  max over the input tile of (|A||B|)

where |A||B| is the convolution of absolute values, and its maximum is taken over all kernel
positions whose middle lies on the tile's (side + 2) x (side + 2) input pixels, of which the outer
ring are positions before the first or behind the last row or column of the tile. Positions outside
the picture count as well: the convolution is taken with one more pixel of padding, and then pooled.
The rounding of the transforms does not shrink with K: of fewer than 8 channels F(4 x 4) would miss
by up to 4 times as much, so these are computed by F(2 x 2).

With stride 2 a tile has no ring: whatever meets in it does so in one of its 2 x 2 pixels, mirrored
4 x 4, of which those beyond the picture count as well. In the gradient of a weight the sums of all
nine taps meet, which are added up in place of the maximum, and 8 takes the place of 4: of a single
product the transforms alone round more than 4 times.

With many channels on both sides, where `auto` takes it, and dense random numbers F(2 x 2) keeps the
bound of a plain sum, too; not where a pixel's own terms are zero and its neighbours' are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import ConvCase, Operands, Pair, draw_operands, operands
from conftest import DTYPES, FORMATS, Place, Setting
from convolutions import BY_OP, CONVOLUTIONS, Op, each_convolution
from oracle import Expected, assert_same_bits, assert_within, expected
from torch import Tensor

from pydenoise import ops
from pydenoise.ops import _backend

SIDES = {"winograd2": 2, "winograd4": 4}


def _case(name: str, batch: int, channels: tuple[int, int], size: tuple[int, int], padding: int = 1,
          **rest: object) -> ConvCase:  # fmt: skip
    pad = (padding, padding)
    return ConvCase(name, "", batch, channels, size, (3, 3), padding=pad, **rest)  # type: ignore[arg-type]


def _strided(*args: object, **rest: object) -> ConvCase:
    return _case(*args, stride=(2, 2), **rest)  # type: ignore[arg-type]


# fmt: off
MANY_CHANNELS = [
    _case("many-square", 2, (32, 40), (9, 11)),
    _case("many-no-padding", 1, (48, 33), (13, 6), 0),
    _case("many-wide-padding", 1, (33, 32), (5, 4), 2, bias=False),
    _case("many-more-padding", 1, (40, 32), (3, 5), 3),
    _case("many-groups", 1, (64, 96), (6, 7), groups=2),
    _case("many-panels", 1, (70, 66), (5, 3)),
    _case("many-bands", 1, (33, 48), (37, 70)),
    _case("more-than-a-term-block", 1, (530, 35), (4, 3)),
    _strided("strided", 2, (32, 40), (9, 12)),
    _strided("strided-wide-padding", 1, (33, 32), (6, 7), 3, bias=False),
    replace(_strided("strided-two-paddings", 1, (32, 33), (9, 10)), padding=(3, 1)),
    _strided("strided-groups", 1, (64, 96), (7, 9), groups=2),
    _strided("strided-panels", 1, (70, 66), (5, 3)),
    _strided("strided-bands", 1, (33, 48), (74, 141)),
    _strided("strided-term-block", 1, (530, 35), (8, 5)),
    _strided("strided-rows-unread", 1, (35, 33), (12, 15), missing=(1, 2)),
]
FEW_CHANNELS = [
    _case("one-of-all", 1, (1, 1), (1, 1)),
    _case("few", 2, (3, 5), (7, 6), 0),
    _case("few-to-many", 1, (5, 64), (2, 3)),
    _case("many-to-few", 1, (50, 3), (8, 9), 2),
    _case("groups", 1, (8, 6), (4, 17), 3, groups=2),
    _case("depthwise", 1, (9, 9), (5, 5), groups=9),
    _case("enough-for-wide-tiles", 2, (8, 8), (9, 10)),
    _case("row", 3, (7, 20), (1, 33)),
    _case("column", 3, (20, 7), (33, 1)),
    _case("smaller-than-a-tile", 1, (8, 9), (3, 3), 0),
    _case("no-pictures", 0, (4, 4), (5, 5)),
    _strided("strided-one-of-all", 1, (1, 1), (1, 1)),
    _strided("strided-few", 3, (3, 5), (8, 11)),
    _strided("strided-few-to-many", 1, (5, 64), (2, 3), 3),
    _strided("strided-many-to-few", 1, (50, 3), (9, 8), 5),
    _strided("strided-depthwise", 1, (9, 9), (6, 5), groups=9),
    _strided("strided-row", 3, (7, 20), (1, 33)),
    _strided("strided-column", 3, (20, 7), (34, 1)),
    _strided("strided-no-pictures", 0, (4, 4), (5, 5)),
]
# fmt: on


@pytest.fixture(params=list(SIDES))
def winograd(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with either tile."""
    with ops.use_algorithm(request.param):
        yield request.param


@pytest.fixture
def compiled(place: Place) -> Place:
    """Every instruction set."""
    if place.backend != "cpu":
        pytest.skip("the reference has no Winograd products")
    return place


def over_tiles(x: Tensor, side: int, ring: int) -> Tensor:
    """The maximum over each tile and `ring` pixels around it, at every pixel of the tile; x has
    that ring as its border."""
    height, width = (n - 2 * ring for n in x.shape[2:])
    if x.numel() == 0:
        return x[..., ring : ring + height, ring : ring + width]
    x = F.pad(x, (0, -width % side, 0, -height % side))
    most = F.max_pool2d(x, side + 2 * ring, side)
    most = most.repeat_interleave(side, 2).repeat_interleave(side, 3)
    return most[..., :height, :width]


def within_strided_tiles(op: Op, case: ConvCase, o: Operands) -> Expected:
    """The right values of stride 2, bounded by what meets in a tile."""
    (rows, cols), groups, (height, width) = case.padding, case.groups, op.size(case)[2:]

    def forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.conv2d(F.pad(x, (0, 4, 0, 4)), w, b, 2, (rows, cols), 1, groups)

    def mirrored(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        z = F.conv_transpose2d(x, w, None, 2, 0, 0, groups)
        z = F.pad(z, (-cols, cols + 8, -rows, rows + 8))
        return z if b is None else z + b[:, None, None]

    if op.name == "conv2d":
        values, bound = expected(forward, o.input, o.weight, o.bias)
    else:
        bias = o.mirror_bias if op.name == "transpose" else None
        values, bound = expected(mirrored, o.grad_output, o.weight, bias)
    side = 2 if op.name == "conv2d" else 4
    bound = over_tiles(bound[..., : height + -height % side, : width + -width % side], side, 0)
    return Expected(values[..., :height, :width], 4 * bound[..., :height, :width])


def within_tiles(op: Op, case: ConvCase, o: Operands, side: int) -> Expected:
    """The right values, bounded by what meets in a tile."""
    if op.is_weight:
        values, bound = op.right(case, o)
        return Expected(values, 8 * bound.sum((2, 3), keepdim=True).expand_as(bound))
    if case.stride == (2, 2):
        return within_strided_tiles(op, case, o)
    padding, groups = case.padding[0], case.groups

    def forward(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.conv2d(x, w, b, 1, padding + 1, 1, groups)

    def mirrored(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        z = F.pad(F.conv_transpose2d(x, w, None, 1, 0, 0, groups), (1, 1, 1, 1))
        z = z[..., padding : z.shape[2] - padding, padding : z.shape[3] - padding]
        return z if b is None else z + b[:, None, None]

    if op.name == "conv2d":
        values, bound = expected(forward, o.input, o.weight, o.bias)
        summed = o.weight.shape[1]
    else:
        bias = o.mirror_bias if op.name == "transpose" else None
        values, bound = expected(mirrored, o.grad_output, o.weight, bias)
        summed = o.weight.shape[0] // groups
    side = side if summed >= 8 else 2
    return Expected(values[..., 1:-1, 1:-1], 4 * over_tiles(bound, side, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@each_convolution
def test_within_the_bound(op: Op, winograd: str, compiled: Place, dtype: torch.dtype) -> None:
    for case in MANY_CHANNELS + FEW_CHANNELS:
        if case.missing != (0, 0) and op.name in ("conv2d", "transpose"):
            continue
        o = operands(case, dtype)
        plain = winograd == "winograd2" and case in MANY_CHANNELS and not op.is_weight
        right = op.right(case, o) if plain else within_tiles(op, case, o, SIDES[winograd])
        for memory_format in FORMATS.values():
            setting = Setting(compiled, winograd, dtype, memory_format)
            room = op.room(case, setting)
            op.run(case, setting.put_all(o), out=room.tensor)
            assert_within(room.tensor, right, f"{op} {case}, {memory_format}")
            room.assert_untouched_around()


@each_convolution
def test_formats_and_threads_change_no_bit(op: Op, winograd: str, compiled: Place) -> None:
    names = {"many-square", "many-bands", "groups", "strided", "strided-bands", "strided-few"}
    for case in (case for case in MANY_CHANNELS + FEW_CHANNELS if case.name in names):
        results = []
        for threads, memory_format in (
            (1, "nchw"),
            (1, "nhwc"),
            (2, "nchw"),
            (3, "nhwc"),
            (9, "nhwc"),
        ):
            torch.set_num_threads(threads)
            setting = Setting(compiled, winograd, torch.float32, FORMATS[memory_format])
            results.append(op.run(case, setting.put_all(operands(case, torch.float32))))
        for result in results:
            assert_same_bits(result, results[0], f"{op} {case}")


def part(op: Op, o: Operands, rows: slice, cols: slice) -> Tensor:
    """The operation on a cut-out of all pictures, padding 1."""
    if op.name == "conv2d":
        return ops.conv2d(o.input[..., rows, cols], o.weight, o.bias, 1, 1)
    return ops.conv_transpose2d(o.grad_output[..., rows, cols], o.weight, o.mirror_bias, 1, 1)


@pytest.mark.parametrize("channels", [(33, 40), (9, 8), (5, 3)], ids=str)
@pytest.mark.parametrize("op", ["conv2d", "transpose"])
def test_cut_at_multiples_of_the_tile(
    op: str, channels: tuple[int, int], winograd: str, compiled: Place
) -> None:
    """With a tile of overlap a cut-out gives the bits of the whole; a side that is the picture's
    own needs none, wherever the cut-out ends."""
    case = _case("cut", 2, channels, (21, 30))
    o, call, side = operands(case, torch.float32), BY_OP[op], SIDES[winograd]
    whole = part(call, o, slice(None), slice(None))
    for top, left, bottom, right in ((8, 4, 20, 28), (0, 12, 13, 30), (4, 0, 21, 17)):
        cut = part(call, o, slice(top, bottom), slice(left, right))
        inner = [
            slice(side * (first > 0), last - first - (side + 1) * (last < end))
            for first, last, end in ((top, bottom, 21), (left, right, 30))
        ]
        there = whole[..., top:bottom, left:right]
        assert_same_bits(cut[..., *inner], there[..., *inner], f"from {top}, {left}")


@pytest.mark.parametrize("channels", [(33, 40), (5, 3)], ids=str)
def test_strided_cuts_at_multiples_of_the_tile(
    channels: tuple[int, int], winograd: str, compiled: Place
) -> None:
    """Of four pixels, which are two on the other side: forward the first tile of a cut-out reads
    what was before it, mirrored the last one what was behind."""
    o = operands(_strided("cut", 2, channels, (34, 51)), torch.float32)
    x, w, z = o.input, o.weight, o.grad_output
    forward = ops.conv2d(x, w, o.bias, 2, 1)
    mirrored = ops.conv_transpose2d(z, w, o.mirror_bias, 2, 1, (1, 0))
    for top, left, bottom, right in ((8, 4, 20, 28), (0, 12, 16, 51), (4, 0, 34, 16)):
        cut = ops.conv2d(x[..., top:bottom, left:right], w, o.bias, 2, 1)
        there = forward[..., top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)]
        inner = slice(2 * (top > 0), None), slice(2 * (left > 0), None)
        assert_same_bits(cut[..., *inner], there[..., *inner], f"from {top}, {left}")
        part = z[..., top // 2 : -(-bottom // 2), left // 2 : -(-right // 2)]
        cut = ops.conv_transpose2d(part, w, o.mirror_bias, 2, 1, (1, right % 4 == 0))
        there = mirrored[..., top:bottom, left:right]
        inner = slice(bottom - top - 4 * (bottom < 34)), slice(right - left - 4 * (right < 51))
        assert_same_bits(cut[..., *inner], there[..., *inner], f"mirrored, from {top}, {left}")


def test_a_picture_alone_is_a_picture_in_a_batch(winograd: str, compiled: Place) -> None:
    for stride, channels in ((1, (35, 33)), (1, (4, 3)), (2, (35, 33)), (2, (4, 3))):
        o = operands(_case("five", 5, channels, (9, 10), stride=(stride, stride)), torch.float32)
        z = ops.conv2d(o.input, o.weight, o.bias, stride, 1)
        for n in range(5):
            one = ops.conv2d(o.input[n : n + 1], o.weight, o.bias, stride, 1)
            assert_same_bits(one, z[n : n + 1], f"picture {n}")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (1, 3), (2, 1), (2, 3)])
@pytest.mark.parametrize("op", ["conv2d", "grad_input"])
def test_what_is_no_number_stays_in_its_tiles(
    op: str, stride: int, padding: int, value: float, winograd: str, compiled: Place
) -> None:
    """It reaches its receptive field, at most the tiles that this touches, and changes no bit of
    any other."""
    case = _case("no-number", 2, (8, 9), (14, 13), padding, stride=(stride, stride))
    side = SIDES[winograd] if stride == 1 else 2 if op == "conv2d" else 4
    o, call = operands(case, torch.float32), BY_OP[op]
    read = call.read[0]
    before = call.run(case, o)
    for at in ((0, 0, 0, 0), (1, 3, 4, 5), (0, 2, 5, 3), (1, 1, -1, -1)):
        source = getattr(o, read).clone()
        source[at] = value
        z = call.run(case, o._replace(**{read: source}))
        spot = torch.zeros(source.shape, dtype=torch.double)
        spot[at] = 1
        alone = Operands(*(None if x is None else torch.ones_like(x).double() for x in o))
        field = call.run(case, alone._replace(**{read: spot}, bias=None, mirror_bias=None)).round()
        reached = ~z.isfinite()
        tiles = over_tiles(field, side, 0)
        assert (reached | (field == 0)).all(), f"{at}: part of the receptive field is finite"
        assert not (reached & (tiles == 0)).any(), f"{at}: beyond the tiles of the receptive field"
        assert torch.equal(z[tiles == 0], before[tiles == 0]), f"{at}: other tiles have changed"


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"),
    [((3, 3), (2, 2), (1, 1)), ((3, 3), (1, 2), (1, 1)), ((5, 5), (1, 1), (1, 1)),
     ((3, 1), (1, 1), (1, 1)), ((3, 3), (1, 1), (1, 2))],
)  # fmt: skip
def test_other_shapes_are_implicit(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    winograd: str,
    place: Place,
) -> None:
    case = ConvCase(
        "other", "", 2, (35, 34), (8, 9), kernel, stride, padding=(2, 2), dilation=dilation
    )
    o = place.put_all(draw_operands(case, torch.float32))
    for op in CONVOLUTIONS:
        with ops.use_algorithm("implicit"):
            wanted = op.run(case, o)
        assert_same_bits(op.run(case, o), wanted, op)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_is_no_number_stays_in_its_channels(
    stride: int, winograd: str, compiled: Place
) -> None:
    """Of weights' gradients; there it may reach more taps than it should."""
    case = _case("no-number", 2, (8, 9), (14, 15), stride=(stride, stride))
    o = operands(case, torch.float32)
    before = ops.conv2d_grad_weight(o.input, case.weight_size, o.grad_output, stride, 1)
    x, gz = o.input.clone(), o.grad_output.clone()
    x[1, 3, 4, 5], gz[0, 2, 1, 1] = torch.nan, torch.inf
    after = ops.conv2d_grad_weight(x, case.weight_size, gz, stride, 1)
    reached = torch.zeros(9, 8, dtype=torch.bool)
    reached[2], reached[:, 3] = True, True
    with ops.use_algorithm("implicit"):
        plain = ops.conv2d_grad_weight(x, case.weight_size, gz, stride, 1)
    assert (~after.isfinite() | plain.isfinite()).all()
    assert_same_bits(after[~reached], before[~reached])


@pytest.mark.parametrize(("stride", "missing"), [(1, (3, 4)), (2, (1, 2))])
def test_gradients_of_weights_ignore_what_no_pixel_reads(
    stride: int, missing: Pair, winograd: str, compiled: Place
) -> None:
    """The last tile would: the output is odd, and the input goes on behind it."""
    case = _case("unread", 1, (9, 8), (12, 15), stride=(stride, stride), missing=missing)
    o = operands(case, torch.float32)
    x = o.input.clone()
    x[..., 10:, :] = x[..., 12:] = torch.nan
    grad_weight = ops.conv2d_grad_weight(x, case.weight_size, o.grad_output, stride, 1)
    assert grad_weight.isfinite().all()


@pytest.mark.parametrize("op", CONVOLUTIONS, ids=str)
def test_the_reference_answers_too(op: Op, winograd: str) -> None:
    case = MANY_CHANNELS[0]
    o = operands(case, torch.float32)
    with ops.use_backend("reference"):
        assert_within(op.run(case, o), op.right(case, o), op)


@pytest.mark.parametrize(
    ("side", "stride", "padding"),
    [(1, 1, 1), (3, 1, 1), (8, 1, 1), (-2, 1, 1), (4, 2, 1), (2, 2, 2), (2, (2, 2), (1, 2)),
     (2, (1, 2), 1)],
)  # fmt: skip
def test_the_binding_knows_no_other_tile(
    side: int, stride: int | Pair, padding: int | Pair
) -> None:
    if ops.backends()["cpu"] is not None:
        pytest.skip("only the compiled kernels have tiles")
    shape = ops._geometry.forward_shape("test", ((1, 4, 5, 5), (4, 4, 3, 3)), stride, padding, 1, 1)
    out = torch.full(shape.output_size, torch.nan)
    with pytest.raises(ValueError, match="no Winograd products of this size"):
        _backend._ON_PROCESSOR.conv2d(
            out, torch.ones(1, 4, 5, 5), torch.ones(4, 4, 3, 3), None, shape, None, side
        )
    assert out.isnan().all()
    gradients = torch.full((4, 4, 3, 3), torch.nan)
    with pytest.raises(ValueError, match="no Winograd products of this size"):
        _backend._ON_PROCESSOR.conv2d_grad_weight(
            gradients, out, torch.ones(1, 4, 5, 5), shape, False, max(side, 4)
        )
    assert gradients.isnan().all()


def test_a_pixel_of_zeros_beside_a_large_one(winograd: str, compiled: Place) -> None:
    """One tap that reads zeros: right is 0, wrong by no more than a rounding of the neighbours."""
    channels = 32
    x, w = torch.zeros(1, channels, 12, 12), torch.zeros(channels, channels, 3, 3)
    x[0, :, 5, 5] = 1e4
    w[:, :, 1, 1] = torch.eye(channels)
    error = (ops.conv2d(x, w, None, 1, 1) - x).abs()
    assert error.max() <= 4 * 4 * (9 * channels) ** 0.5 * 2.0**-24 * 1e4
    far = torch.ones(12, 12, dtype=torch.bool)
    far[2:9, 2:9] = False
    assert not error[..., far].any()
