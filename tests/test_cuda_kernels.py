"""The CUDA kernels themselves, run on the host thread by thread, against the oracle.

Results go into guarded rooms full of NaN, workspaces and shared memory are full of NaN too. The
threads of a block take turns in several orders: a missing barrier shows as other bits.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import oracle
import pytest
import torch
from cases import BY_NAME, CASES, TILE_CASES, ConvCase, Operands, draw_operands, operands
from conftest import DTYPES, FORMATS, Place, Setting
from on_host import Kernels
from oracle import assert_identical, assert_same_bits, assert_within
from test_cuda_index_maps import random_case
from torch import Tensor

from pydenoise.ops import _reference as reference

HOST = Place("cpu")
SETTINGS = [Setting(HOST, "implicit", *pair) for pair in product(DTYPES, FORMATS.values())]
each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)
ACTIVATIONS = {1: ("relu", ()), 2: ("leaky_relu", (0.3,))}


# What each operation needs: its result's size, and how it is run and what is right.
def conv2d(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.conv2d(out, o.input, o.weight, o.bias, case)


def grad_input(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.conv2d_grad_input(out, o.grad_output, o.weight, None, case)


def transpose(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.conv2d_grad_input(out, o.grad_output, o.weight, o.mirror_bias, case)


def grad_weight(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.conv2d_grad_weight(out, o.grad_output, o.input, case)


def grad_weight_added(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.conv2d_grad_weight(out.copy_(o.weight), o.grad_output, o.input, case, accumulate=True)


def grad_bias(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.conv2d_grad_bias(out, o.grad_output)


def im2col(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.im2col(out, o.input, case)


def col2im(kernels: Kernels, out: Tensor, o: Operands, case: ConvCase) -> None:
    kernels.col2im(out, o.columns, case)


Run = Callable[[Kernels, Tensor, Operands, ConvCase], None]
OPERATIONS: dict[str, tuple[Run, Callable[[ConvCase], tuple[int, ...]], Callable[..., object]]] = {
    "conv2d": (conv2d, lambda case: case.output_size, oracle.conv2d),
    "grad_input": (grad_input, lambda case: case.input_size, oracle.conv2d_grad_input),
    "transpose": (transpose, lambda case: case.input_size, oracle.conv_transpose2d),
    "grad_weight": (grad_weight, lambda case: case.weight_size, oracle.conv2d_grad_weight),
    "grad_weight_added": (
        grad_weight_added,
        lambda case: case.weight_size,
        oracle.conv2d_grad_weight_added,
    ),
    "grad_bias": (
        grad_bias,
        lambda case: case.channels[1:],
        lambda case, o: oracle.conv2d_grad_bias(o.grad_output),
    ),
    "im2col": (im2col, lambda case: case.columns_size, oracle.im2col),
    "col2im": (col2im, lambda case: case.input_size, oracle.col2im),
}


def has_oracle(name: str, case: ConvCase) -> bool:
    """Torch leaves out no part of the output, nor an output_padding beyond stride and dilation."""
    if name == "transpose":
        sides = zip(case.output_padding, case.stride, case.dilation, strict=True)
        return all(left < max(steps) for left, *steps in sides)
    return case.missing == (0, 0) or name not in ("conv2d", "im2col", "col2im")


def result(kernels: Kernels, name: str, o: Operands, case: ConvCase, setting: Setting) -> Tensor:
    """Run an operation on operands that are where the setting puts them."""
    run, size, _ = OPERATIONS[name]
    memory_format = torch.contiguous_format if name.startswith("grad_weight") else None
    room = setting.room(size(case), memory_format)
    run(kernels, room.tensor, o, case)
    room.assert_untouched_around()
    return room.tensor


def check_all(kernels: Kernels, case: ConvCase, o: Operands, setting: Setting) -> None:
    here = setting.put_all(o)
    for name, (_, _, right) in OPERATIONS.items():
        if not has_oracle(name, case):
            continue
        found = result(kernels, name, here, case, setting)
        assert_within(found, right(case, o), f"{name} {case}")
        if name in ("im2col", "col2im"):
            wanted = torch.empty_like(found)
            source = here.input if name == "im2col" else here.columns
            getattr(reference, name)(wanted, source, shape(case))
            assert_identical(found, wanted, f"{name} {case}: the bits of the reference")


def shape(case: ConvCase) -> object:
    from on_host import numbers

    from pydenoise.ops._shape import ConvShape

    return ConvShape(*numbers(case))


@each_setting
@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(kernels: Kernels, case: ConvCase, setting: Setting) -> None:
    check_all(kernels, case, operands(case, setting.dtype), setting)


@each_setting
def test_tiles(kernels: Kernels, setting: Setting) -> None:
    for case in TILE_CASES:
        check_all(kernels, case, operands(case, setting.dtype), setting)


@each_setting
def test_random_shapes(kernels: Kernels, setting: Setting) -> None:
    generator = random.Random(len(str(setting)))
    for number in range(250):
        case = random_case(generator, number)
        check_all(kernels, case, draw_operands(case, setting.dtype), setting)


LONG = [
    ConvCase("many-terms", "a sum of more than one piece", 1, (300, 5), (4, 3), (3, 3)),
    ConvCase("many-terms-3", "into few columns", 1, (260, 3), (5, 4), (3, 3), padding=(1, 1)),
    ConvCase("many-terms-back", "of the mirror", 1, (4, 280), (4, 5), (3, 3), padding=(1, 1)),
]


@each_setting
@pytest.mark.parametrize("case", LONG, ids=str)
def test_long_sums(kernels: Kernels, case: ConvCase, setting: Setting) -> None:
    check_all(kernels, case, operands(case, setting.dtype), setting)


WIDE = [
    ConvCase("runs-of-4", "16 bytes at once", 2, (8, 12), (6, 5), (3, 3), padding=(1, 1)),
    ConvCase("runs-in-groups", "the same", 2, (16, 8), (6, 5), (3, 2), padding=(1, 1), groups=2),
    ConvCase("runs-of-2", "of doubles alone", 2, (6, 10), (6, 5), (3, 3), (2, 1), (1, 1)),
    ConvCase("pixelwise-runs", "weights too", 2, (32, 64), (5, 4), (1, 1)),
    ConvCase("phases", "more than one launch holds", 1, (4, 4), (11, 12), (5, 6), (5, 4), (2, 2)),
]


def aligned(o: Operands, setting: Setting) -> Operands:
    """Operands without guards, at addresses from which 16 bytes can be read at once."""
    put = [None if x is None else x.contiguous() for x in o]
    for i in (0, 3):
        put[i] = put[i].contiguous(memory_format=setting.memory_format)
        assert put[i].data_ptr() % 16 == 0
    return Operands(*put)


@each_setting
@pytest.mark.parametrize("case", WIDE, ids=str)
def test_vectors(kernels: Kernels, case: ConvCase, setting: Setting) -> None:
    """Where 16 bytes are read or written at once the result is that of odd addresses."""
    o = draw_operands(case, setting.dtype)
    check_all(kernels, case, o, setting)
    here = aligned(o, setting)
    for name in ("conv2d", "grad_input", "grad_weight"):
        size = OPERATIONS[name][1](case)
        out = torch.full(size, torch.nan, dtype=setting.dtype)
        if name != "grad_weight":
            out = out.contiguous(memory_format=setting.memory_format)
        OPERATIONS[name][0](kernels, out, here, case)
        odd = result(kernels, name, setting.put_all(o), case, setting)
        assert_identical(out, odd, f"{name} {case}")


@each_setting
@pytest.mark.parametrize("name", ["conv2d", "conv2d_grad_input"])
def test_finish(kernels: Kernels, name: str, setting: Setting) -> None:
    """Bias, activation or its gradient while writing: the bits of a step of its own."""
    specials = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf])
    for case in [*WIDE, BY_NAME["table1-outer"], BY_NAME["stride-over-kernel"]]:
        o = draw_operands(case, setting.dtype)
        o.input.view(-1)[: len(specials)] = specials
        o.weight[0] = 0
        here = setting.put_all(o)
        forward = name == "conv2d"
        source, bias = (o.input, o.bias) if forward else (o.grad_output, o.mirror_bias)
        size = case.output_size if forward else case.input_size
        source = here.input if forward else here.grad_output
        sums, finished = setting.room(size).tensor, setting.room(size).tensor
        run = getattr(kernels, name)
        run(sums, source, here.weight, bias, case)
        activated = setting.put(torch.randn(size).relu())
        activated.flatten()[0] = torch.nan
        for number, (activation, slope) in ACTIVATIONS.items():
            for output in (None, activated):
                wanted = torch.empty_like(sums)
                backward = () if output is None else (output,)
                step = activation + ("" if output is None else "_backward")
                getattr(reference, step)(wanted, sums, *backward, *slope)
                run(finished, source, here.weight, bias, case, False, number, *slope or (0.0,),
                    output)  # fmt: skip
                assert_same_bits(finished, wanted, f"{case}: {step}")


@pytest.mark.parametrize("tf32", [False, True])
def test_order_of_threads(kernels: Kernels, tf32: bool) -> None:
    """A block's threads in any order, five times: the same bits."""
    for case in [BY_NAME["table1-inner"], BY_NAME["asymmetric"], BY_NAME["deep-pixels"], *WIDE]:
        setting = Setting(HOST, "implicit", torch.float32, torch.channels_last)
        o = setting.put_all(draw_operands(case, setting.dtype))
        found: list[list[Tensor]] = []
        for order in (0, 1, 2, 3, 0):
            with kernels.order(order):
                found.append([result(kernels, name, o, case, setting) for name in OPERATIONS])
                out = setting.room(case.output_size).tensor
                kernels.conv2d(out, o.input, o.weight, o.bias, case, tf32)
                found[-1].append(out)
        for other in found[1:]:
            for name, a, b in zip([*OPERATIONS, "conv2d"], other, found[0], strict=True):
                assert_identical(a, b, f"{name} {case}")


@pytest.mark.parametrize("setting", SETTINGS[:2], ids=str)
@pytest.mark.parametrize("tile", range(8))
def test_each_tile(kernels: Kernels, tile: int, setting: Setting) -> None:
    """Whatever the sizes; sums over pixels come in parts, some of which have nothing to do."""
    assert len(kernels.module.FLOAT_TILES) == 8
    several = ConvCase("several", "tiles either way", 2, (5, 101), (12, 13), (3, 3), padding=(1, 1))
    for case in [*TILE_CASES, BY_NAME["table1-inner"], BY_NAME["asymmetric"], several]:
        with kernels.prescribed(tile, parts=3):
            check_all(kernels, case, operands(case, setting.dtype), setting)


@pytest.mark.parametrize("tile", range(8))
def test_order_of_threads_in_each_tile(kernels: Kernels, tile: int) -> None:
    """Copies into shared memory are of 4 bytes or 16, and come late, or at once (order 1)."""
    even = ConvCase("even", "channels by fours", 2, (8, 100), (12, 13), (3, 3), padding=(1, 1))
    for case, form in product((even, LONG[0]), FORMATS.values()):
        setting = Setting(HOST, "implicit", torch.float32, form)
        o = draw_operands(case, setting.dtype)
        found: list[list[Tensor]] = []
        for here, order in product((setting.put_all(o), aligned(o, setting)), (0, 1, 2)):
            with kernels.order(order), kernels.prescribed(tile, parts=2):
                names = ("conv2d", "grad_input", "grad_weight")
                found.append([result(kernels, name, here, case, setting) for name in names])
        for other in found[1:]:
            for a, b in zip(other, found[0], strict=True):
                assert_identical(a, b, f"{case}, tile {tile}")


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("tf32", [False, True])
def test_tile_changes_no_bit(
    kernels: Kernels, tf32: bool, memory_format: torch.memory_format
) -> None:
    """Nor does the packing of weights, which so many pictures are worth."""
    case = ConvCase("many", "", 6, (36, 36), (18, 17), (3, 3), padding=(1, 1))
    single, setting = (
        replace(case, batch=1),
        Setting(HOST, "implicit", torch.float32, memory_format),
    )
    o = draw_operands(case, setting.dtype)
    many, one = (setting.put(torch.empty(c.output_size)) for c in (case, single))
    back = [setting.put(torch.empty(c.input_size)) for c in (case, single)]
    kernels.conv2d(many, setting.put(o.input), o.weight, o.bias, case, tf32)
    kernels.conv2d_grad_input(back[0], setting.put(o.grad_output), o.weight, None, case, tf32)
    tiles = kernels.module.TF32_TILES if tf32 else kernels.module.FLOAT_TILES
    for tile in range(len(tiles)):
        with kernels.prescribed(tile):
            kernels.conv2d(one, setting.put(o.input[3:4]), o.weight, o.bias, single, tf32)
            gradient = setting.put(o.grad_output[3:4])
            kernels.conv2d_grad_input(back[1], gradient, o.weight, None, single, tf32)
        assert_identical(many[3:4], one, f"tile {tile}")
        assert_identical(back[0][3:4], back[1], f"tile {tile}, back")


def test_large_tiles_of_weights(kernels: Kernels) -> None:
    """So many pixels that large tiles share them in parts."""
    case = ConvCase("pixels", "", 9, (8, 36), (124, 122), (3, 3), padding=(1, 1))
    setting = Setting(HOST, "implicit", torch.float32, torch.channels_last)
    o = draw_operands(case, setting.dtype)
    found = result(kernels, "grad_weight", setting.put_all(o), case, setting)
    assert_within(found, oracle.conv2d_grad_weight(case, o), case)


@pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS.keys())
def test_tf32(kernels: Kernels, memory_format: torch.memory_format) -> None:
    """Factors of 10 bits after the point, sums in float: within 1e-3 of the sum of sizes."""
    setting = Setting(HOST, "implicit", torch.float32, memory_format)
    for case in [case for case in CASES + WIDE if case.missing == (0, 0)]:
        o = draw_operands(case, setting.dtype)
        here = setting.put_all(o)
        for name in ("conv2d", "grad_input"):
            values, bound = OPERATIONS[name][2](case, o)
            coarse = OPERATIONS[name][2](case, Operands(*(x if x is None else x.abs() for x in o)))
            out = setting.room(values.shape)
            sides = (here.input, o.bias) if name == "conv2d" else (here.grad_output, None)
            run = kernels.conv2d if name == "conv2d" else kernels.conv2d_grad_input
            run(out.tensor, sides[0], here.weight, sides[1], case, True)
            out.assert_untouched_around()
            assert_within(out.tensor, oracle.Expected(values, bound + 1e-3 * coarse.values), case)
    case = BY_NAME["same-3x3"]
    here = setting.put_all(operands(case, setting.dtype))
    exact, rounded = setting.room(case.output_size).tensor, setting.room(case.output_size).tensor
    kernels.conv2d(exact, here.input, here.weight, None, case)
    kernels.conv2d(rounded, here.input, here.weight, None, case, True)
    assert not torch.equal(exact, rounded), "TF32 was asked for and did not run"


def views(x: Tensor) -> tuple[Tensor, ...]:
    """The matrices as they are, transposed in memory, and in rows of a multiple of 4 with NaN."""
    padded = x.new_full((*x.shape[:2], x.shape[2] // 4 * 4 + 4), torch.nan)
    return x, x.mT.contiguous().mT, padded[..., : x.shape[2]].copy_(x)


@each_setting
def test_matmul(kernels: Kernels, setting: Setting) -> None:
    def draw(*size: int) -> Tensor:
        return torch.randn(size, dtype=setting.dtype)

    for batch, m, n, k in [
        (1, 1, 1, 1),
        (3, 5, 7, 9),
        (2, 40, 33, 70),
        (1, 4, 64, 16),
        (2, 3, 4, 0),
    ]:
        left, right, start = draw(batch, m, k), draw(batch, k, n), draw(batch, m, n)
        for a, b in product(views(left), views(right)):
            for accumulate in (False, True):
                out = setting.room(start.shape)
                out.tensor.copy_(start if accumulate else torch.nan)
                kernels.matmul(out.tensor, a, b, accumulate)
                operands_ = (a, b, start) if accumulate else (a, b)
                right_answer = oracle.expected(
                    lambda a, b, c=None: a @ b if c is None else a @ b + c, *operands_
                )
                assert_within(out.tensor, right_answer, (batch, m, n, k))
                out.assert_untouched_around()


@each_setting
def test_bias(kernels: Kernels, setting: Setting) -> None:
    for size in [(3, 5, 6, 7), (1, 70, 2, 3), (2, 33, 40, 41), (2, 3, 1, 1), (0, 3, 4, 4)]:
        gz, start = torch.randn(size, dtype=setting.dtype), torch.randn(size[1]).to(setting.dtype)
        image, room = setting.room(size), setting.room(start.shape)
        kernels.call("add_bias", gz, image.tensor.copy_(gz), not image.tensor.is_contiguous(),
                     start, size)  # fmt: skip
        assert_identical(image.tensor, gz + start[:, None, None])
        kernels.conv2d_grad_bias(room.tensor.copy_(start), setting.put(gz), accumulate=True)
        assert_within(room.tensor, oracle.conv2d_grad_bias(gz, start), size)


def test_what_is_too_large_is_told(kernels: Kernels) -> None:
    """32 bits count the elements: more are refused in words, before memory is touched."""
    case = ConvCase("huge", "", 2000, (48, 48), (256, 256), (3, 3), padding=(1, 1))
    nothing = torch.empty(0)
    with pytest.raises(ValueError, match="more elements than a kernel's 32 bits can count"):
        kernels.conv2d(nothing, nothing, nothing, None, case)
    far = ConvCase("far", "", 1, (1, 1), (1, 1), (1, 1), stride=(1 << 30, 1))
    with pytest.raises(ValueError, match=r"2\^29"):
        kernels.conv2d(nothing, nothing, nothing, None, far)


def test_wrong_memory_is_told(kernels: Kernels) -> None:
    case = BY_NAME["same-3x3"]
    o = operands(case, torch.float32)
    with pytest.raises(ValueError, match="output: "):
        kernels.conv2d(torch.empty(3), o.input, o.weight, None, case)
    with pytest.raises(ValueError, match="workspace: 4 bytes came"):
        kernels.call("conv2d_grad_weight", o.input, o.weight.clone(), o.grad_output, False, o.input,
                     False, kernels.shape(case), False, torch.empty(1))  # fmt: skip
