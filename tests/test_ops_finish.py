"""A convolution that finishes its sums gives the bits of the convolution and the activation."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from cases import BY_NAME, LAYOUTS, ConvCase, Operands, draw_operands, operands
from conftest import FORMATS, Place, Setting
from convolutions import BY_OP, Op
from oracle import assert_identical
from torch import Tensor

from pydenoise import ops
from pydenoise.ops import Finish

# fmt: off
CASES = [
    BY_NAME["table1-outer"], BY_NAME["asymmetric"], BY_NAME["stride-1x1"], BY_NAME["single-pixel"],
    BY_NAME["stride-over-kernel"], BY_NAME["dilated-strided"], BY_NAME["depthwise"],
    BY_NAME["padding-over-kernel"], BY_NAME["empty-batch"], BY_NAME["output-padding"],
    ConvCase("finish-many", "Winograd's by itself", 2, (33, 40), (6, 9), (3, 3), padding=(1, 1)),
    ConvCase("finish-one", "a channel of its own", 2, (9, 1), (5, 17), (3, 3), padding=(1, 1)),
    ConvCase("finish-three", "vectors of pixels", 1, (4, 3), (7, 33), (3, 2), padding=(1, 1)),
    ConvCase("finish-panels", "more than one panel", 1, (70, 66), (3, 4), (3, 3), stride=(1, 2)),
    ConvCase("finish-groups", "vectors of pixels in groups", 1, (6, 9), (5, 6), (3, 3), groups=3),
]
# fmt: on
EVERY_ALGORITHM = ("im2col", "implicit", "auto", "winograd2", "winograd4")
SLOPES = (0.0, 0.2, 1.5, torch.inf)
FINISHES = [Finish("relu"), *(Finish("leaky_relu", slope) for slope in SLOPES)]
ROTATED = [FINISHES[-1], *FINISHES[:-1]]
SPECIALS = torch.tensor([0.0, -0.0, torch.nan, torch.inf, -torch.inf, -1e-45, 1e-45])
each_gathering = pytest.mark.parametrize("op", ["conv2d", "grad_input", "transpose"])


def afterwards(finish: Finish, image: Tensor) -> Tensor:
    """The activation, or its gradient, as an operation of its own."""
    slope = () if finish.activation == "relu" else (finish.negative_slope,)
    if finish.output is None:
        return getattr(ops, finish.activation)(image, *slope)
    return getattr(ops, f"{finish.activation}_backward")(image, finish.output, *slope)


def with_specials(x: Tensor, every: int) -> Tensor:
    """Zeros of both signs, NaN and infinities among the numbers."""
    x = x.clone()
    spots = x.view(-1)[::every]
    spots.copy_(SPECIALS.to(x.dtype).repeat(len(spots) // len(SPECIALS) + 1)[: len(spots)])
    return x


def special(case: ConvCase, dtype: torch.dtype) -> Operands:
    o = operands(case, dtype)
    weight = o.weight.clone()
    weight[0] = 0  # sums of zero
    return o._replace(
        input=with_specials(o.input, 97),
        weight=weight,
        grad_output=with_specials(o.grad_output, 97),
    )


@each_gathering
def test_forward(op: str, place: Place, dtype: torch.dtype) -> None:
    call = BY_OP[op]
    for case, memory_format in product(CASES, FORMATS.values()):
        if case.missing != (0, 0) and op == "conv2d":
            continue
        for algorithm, *finishes in zip(EVERY_ALGORITHM, FINISHES, ROTATED, strict=True):
            setting = Setting(place, algorithm, dtype, memory_format)
            o, room = setting.put_all(special(case, dtype)), call.room(case, setting)
            with ops.use_algorithm(algorithm):
                sums = call.run(case, o, out=room.tensor).clone()
                for finish in finishes:
                    assert call.run(case, o, out=room.tensor, finish=finish) is room.tensor
                    what = f"{op} {case}, {algorithm}, {finish}"
                    assert_identical(room.tensor, afterwards(finish, sums), what)
            room.assert_untouched_around()


@each_gathering
def test_the_memory_format_of_a_new_result(op: str, setting: Setting) -> None:
    call, case, finish = BY_OP[op], BY_NAME["asymmetric"], Finish("relu")
    o = setting.put_all(special(case, setting.dtype))
    wanted = call.run(case, o, finish=finish)
    for memory_format in FORMATS.values():
        new = call.run(case, o, finish=finish, memory_format=memory_format)
        assert new.is_contiguous(memory_format=memory_format)
        if setting.place.backend == "cpu":  # torch's product may look at strides
            assert_identical(new, wanted, memory_format)


def outputs(op: Op, case: ConvCase, setting: Setting) -> list[Tensor]:
    """An activation's output in both formats and as a part of something larger."""
    generator = torch.Generator().manual_seed(9)
    size = op.size(case)
    x = torch.randn(size, dtype=torch.float64, generator=generator).to(setting.dtype)
    x = setting.place.put(with_specials(x, 5))
    if x.numel() == 0:
        return [x]
    ways = [setting.put(x, format) for format in FORMATS.values()]
    return [*ways, *(LAYOUTS[name](x) for name in ("window", "expanded-pixels", "negative-bit"))]


@each_gathering
def test_backward(op: str, place: Place, dtype: torch.dtype) -> None:
    call = BY_OP[op]
    for case, memory_format in product(CASES, FORMATS.values()):
        if case.missing != (0, 0) and op == "conv2d":
            continue
        for algorithm, plain in [
            *zip(EVERY_ALGORITHM, ROTATED, strict=True),
            ("auto", FINISHES[0]),
        ]:
            setting = Setting(place, algorithm, dtype, memory_format)
            o, room = setting.put_all(special(case, dtype)), call.room(case, setting)
            with ops.use_algorithm(algorithm):
                sums = call.run(case, o, out=room.tensor).clone()
                for output in outputs(call, case, setting):
                    finish = plain._replace(output=output)
                    call.run(case, o, out=room.tensor, finish=finish)
                    what = f"{op} {case}, {algorithm}, {plain}, {output.stride()}"
                    assert_identical(room.tensor, afterwards(finish, sums), what)
                    room.assert_untouched_around()


def test_an_output_of_one_element_that_negates(place: Place, algorithm: str) -> None:
    """Its strides say nothing, its sign does."""
    output = LAYOUTS["negative-bit"](torch.full((1, 1, 1, 1), -2.0, device=place.device))
    assert output.is_neg() and output.is_contiguous()
    finish = Finish("relu", 0.0, output)
    ones = torch.ones(1, 4, 1, 1, device=place.device)
    assert ops.conv2d(ones, ones.clone(), finish=finish).item() == 0


@each_gathering
@pytest.mark.parametrize("format", FORMATS)
def test_out_over_the_activations_output(op: str, format: str) -> None:
    """One element shared is refused before anything is written."""
    case, call = BY_NAME["asymmetric"], BY_OP[op]
    o = draw_operands(case, torch.float32)
    size = torch.Size(call.size(case))
    like = torch.empty(size).to(memory_format=FORMATS[format])
    for gap in (-size.numel(), -1, 0):
        memory = torch.ones(2 * size.numel() + gap)
        output = memory.as_strided(size, like.stride(), 0)
        out = memory.as_strided(size, like.stride(), size.numel() + gap)
        if gap == 0:
            call.run(case, o, out=out, finish=Finish("relu", 0.0, output))
            continue
        with pytest.raises(ValueError, match="out shares memory with an input"):
            call.run(case, o, out=out, finish=Finish("relu", 0.0, output))
        assert (memory == 1).all()


@pytest.mark.parametrize("taps", [(2, 2), (2, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_taps_far_apart_take_no_memory_for_what_lies_between(
    channels: int, taps: tuple[int, int], place: Place
) -> None:
    """A copy of all that a row spans would be terabytes."""
    padding, dilation = (10**6 * (taps[0] - 1), 10**6 * (taps[1] - 1)), (2 * 10**6, 2 * 10**6)
    x, weight = place.put(torch.randn(1, 2, 3, 4)), place.put(torch.randn(channels, 2, *taps))
    z = ops.conv2d(x, weight, None, 1, padding, dilation)
    assert z.shape == (1, channels, 3, 4) and not z.any()


def test_all_gradients_are_refused_before_any_is_touched(place: Place) -> None:
    x, w, gz = (
        torch.randn(size, device=place.device)
        for size in ((1, 3, 6, 6), (4, 3, 3, 3), (1, 4, 4, 4))
    )
    gw, gb = torch.zeros_like(w), w.new_zeros(4)
    arguments = {"grad_weight": gw, "grad_bias": gb}
    wrong = ops.Finish("relu", 0.0, w.new_ones(1, 3, 5, 6))
    for changed, sentence in (
        ({"finish": wrong}, "finish.output must have the shape"),
        ({"memory_format": torch.preserve_format}, "memory_format must be"),
        ({"grad_bias": w.new_zeros(3)}, "grad_bias must have shape"),
        ({"grad_weight": w}, "grad_weight shares memory"),
        ({"grad_bias": gw.view(-1)[:4]}, "grad_bias shares memory"),
        ({"grad_weight": gw.mT}, "grad_weight must be contiguous"),
    ):
        with pytest.raises(ValueError, match=sentence):
            ops.conv2d_backward(gz, x, w, **{**arguments, **changed})
        assert not gw.any() and not gb.any()
    with pytest.raises(TypeError, match="grad_weight must be a plain tensor"):
        ops.conv2d_backward(gz, x, w, grad_weight=torch.nn.Parameter(gw))
