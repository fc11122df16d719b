"""Bad input to the operations: the right error, what came, what was expected, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pydenoise import ops

X = torch.ones(2, 4, 7, 8)
W = torch.ones(6, 4, 3, 3)  # conv2d: 4 to 6 channels, a picture of 5 x 6
B = torch.ones(6)
G = torch.ones(2, 6, 5, 6)
C = torch.ones(2, 36, 30)  # the columns of X under a 3 x 3 kernel
SIZE = (2, 6, 5, 6)
FINISH = ops.Finish("relu", 0.0, G)


class Bad(NamedTuple):
    """A call that must fail, with what its message must contain."""

    name: str
    call: Callable[..., object]
    error: type[Exception]
    says: tuple[str, ...]
    out: tuple[int, ...] | None = SIZE

    def __str__(self) -> str:
        return self.name


def conv(x: object = X, w: object = W, b: object = None, *rest: object) -> Callable[..., object]:
    return lambda **out: ops.conv2d(x, w, b, *rest, **out)


def finished(*finish: object) -> Callable[..., object]:
    return lambda **out: ops.conv2d(X, W, finish=ops.Finish(*finish), **out)


def mirror(x: object = G, w: object = W, b: object = None, *rest: object) -> Callable[..., object]:
    return lambda **out: ops.conv_transpose2d(x, w, b, *rest, **out)


def to_input(size: object = X.shape, w: object = W, g: object = G, *rest: object):
    return lambda **out: ops.conv2d_grad_input(size, w, g, *rest, **out)


def to_weight(x: object = X, size: object = W.shape, g: object = G, *rest: object):
    return lambda **out: ops.conv2d_grad_weight(x, size, g, *rest, **out)


SHAPES = [
    Bad("input-channels", conv(X[:, :3]), ValueError,
        ("conv2d", "4 input channels", "has 3", "(2, 3, 7, 8)", "(6, 4, 3, 3)")),
    Bad("group-channels", conv(X, W, None, 1, 0, 1, 2), ValueError,
        ("8 input channels", "has 4", "2 groups")),
    Bad("groups-of-outputs", conv(X, W[:5, :2], None, 1, 0, 1, 2), ValueError,
        ("5 output channels", "2 groups")),
    Bad("no-groups", conv(X, W, None, 1, 0, 1, 0), ValueError, ("groups", "0")),
    Bad("kernel-over-height", conv(X[:, :, :2]), ValueError,
        ("3 pixels in height", "2", "(2, 4, 2, 8)")),
    Bad("kernel-over-width", conv(X[..., :2]), ValueError, ("3 pixels in width", "(2, 4, 7, 2)")),
    Bad("dilated-over-picture", conv(X, W, None, 1, 1, 5), ValueError,
        ("11 pixels", "9", "padding (1, 1)", "dilation (5, 5)")),
    Bad("picture-3d", conv(X[0]), ValueError, ("input", "4 dimensions", "(4, 7, 8)")),
    Bad("picture-5d", conv(X[None]), ValueError, ("input", "4 dimensions", "(1, 2, 4, 7, 8)")),
    Bad("weight-3d", conv(X, W[0]), ValueError, ("weight", "4 dimensions", "(4, 3, 3)")),
    Bad("no-channels", conv(X[:, :0], W[:, :0]), ValueError, ("(2, 0, 7, 8)",)),
    Bad("no-rows", conv(X[:, :, :0]), ValueError, ("(2, 4, 0, 8)",)),
    Bad("bias-long", conv(X, W, torch.ones(7)), ValueError, ("bias", "6", "7")),
    Bad("bias-short", conv(X, W, B[:1]), ValueError, ("bias", "6", "1")),
    Bad("bias-2d", conv(X, W, B[None]), ValueError, ("bias", "1 dimension", "(1, 6)")),
    Bad("mirror-channels", mirror(G[:, :5]), ValueError,
        ("conv_transpose2d", "6 input channels", "has 5", "(2, 5, 5, 6)"), X.shape),
    Bad("mirror-groups", mirror(G, W, None, 1, 0, 0, 4), ValueError, ("6", "4 groups"), X.shape),
    Bad("mirror-bias", mirror(G, W, B), ValueError, ("bias", "4", "6"), X.shape),
    Bad("mirror-vanishes", mirror(G, W, None, 1, 4), ValueError, ("-1", "padding"), X.shape),
    Bad("mirror-output-padding", mirror(G, W, None, 2, 0, 2), ValueError,
        ("output_padding (2, 2)", "stride (2, 2)"), X.shape),
    Bad("grad-output-large", to_input((2, 4, 6, 8)), ValueError,
        ("conv2d_grad_input", "5 x 6", "4 x 6"), (2, 4, 6, 8)),
    Bad("grad-output-channels", to_input(X.shape, W, G[:, :5]), ValueError,
        ("grad_output", "(2, 6, 5, 6)", "(2, 5, 5, 6)"), X.shape),
    Bad("grad-output-batch", to_weight(X[:1]), ValueError,
        ("grad_output", "(1, 6, 5, 6)", "(2, 6, 5, 6)"), W.shape),
    Bad("input-size-3", to_input((4, 7, 8)), ValueError, ("input_size", "(4, 7, 8)"), X.shape),
    Bad("input-size-number", to_input(7), ValueError, ("input_size", "7"), X.shape),
    Bad("weight-size-2", to_weight(X, (6, 4)), ValueError, ("weight_size", "(6, 4)"), W.shape),
    Bad("weight-size-groups", to_weight(X, (6, 3, 3, 3)), ValueError,
        ("3 input channels", "has 4"), W.shape),
    Bad("fold-rows", lambda **out: ops.col2im(C[:, :35], (7, 8), 3, **out), ValueError,
        ("col2im", "3 * 3", "(2, 35, 30)"), X.shape),
    Bad("fold-columns", lambda **out: ops.col2im(C[..., :29], (7, 8), 3, **out), ValueError,
        ("30", "29"), X.shape),
    Bad("fold-2d", lambda **out: ops.col2im(C[0], (7, 8), 3, **out), ValueError,
        ("3 dimensions", "(36, 30)"), X.shape),
    Bad("unfold-3d", lambda **out: ops.im2col(X[0], 3, **out), ValueError,
        ("im2col", "4 dimensions", "(4, 7, 8)"), C.shape),
    Bad("unfold-kernel", lambda **out: ops.im2col(X, 9, **out), ValueError,
        ("9 pixels", "7"), C.shape),
]  # fmt: skip

NUMBERS = [
    Bad("padding-negative", conv(X, W, None, 1, -1), ValueError, ("padding", "-1")),
    Bad("padding-half-negative", conv(X, W, None, 1, (0, -2)), ValueError, ("padding", "-2")),
    Bad("stride-zero", conv(X, W, None, 0), ValueError, ("stride", "0")),
    Bad("stride-negative", conv(X, W, None, (1, -1)), ValueError, ("stride", "-1")),
    Bad("dilation-zero", conv(X, W, None, 1, 0, 0), ValueError, ("dilation", "0")),
    Bad("stride-fraction", conv(X, W, None, 1.5), TypeError, ("stride", "1.5")),
    Bad("stride-text", conv(X, W, None, "2"), TypeError, ("stride", "'2'")),
    Bad("padding-text", conv(X, W, None, 1, "same"), TypeError, ("padding", "'same'")),
    Bad("stride-three", conv(X, W, None, (1, 1, 1)), ValueError, ("stride", "(1, 1, 1)")),
    Bad("stride-one-of-two", conv(X, W, None, (1,)), ValueError, ("stride", "(1,)")),
    Bad("padding-huge", conv(X, W, None, 1, 2**31), ValueError, ("padding", str(2**31))),
    Bad("padding-beyond-int64", conv(X, W, None, 1, 2**63), ValueError, ("padding", str(2**63))),
    Bad("groups-pair", conv(X, W, None, 1, 0, 1, (1, 1)), TypeError, ("groups", "(1, 1)")),
    Bad("output-padding-negative", mirror(G, W, None, 1, 0, -1), ValueError,
        ("output_padding", "-1"), X.shape),
    Bad("kernel-zero", lambda **out: ops.im2col(X, 0, **out), ValueError,
        ("kernel_size", "0"), C.shape),
    Bad("pool-kernel-zero", lambda **out: ops.avg_pool2d(X, 0, **out), ValueError,
        ("avg_pool2d", "kernel_size", "0"), (2, 4, 3, 4)),
    Bad("pool-padding", lambda **out: ops.max_pool2d(X, 2, 2, 2, **out), ValueError,
        ("max_pool2d", "padding (2, 2)", "(2, 2)"), (2, 4, 3, 4)),
    Bad("pool-over-picture", lambda **out: ops.max_pool2d(X, 9, **out), ValueError,
        ("9 x 9", "(2, 4, 7, 8)"), (2, 4, 3, 4)),
    Bad("upsample-zero", lambda **out: ops.upsample_nearest2d(X, 0, **out), ValueError,
        ("scale_factor", "0"), X.shape),
    Bad("upsample-fraction", lambda **out: ops.upsample_nearest2d(X, 1.5, **out), TypeError,
        ("scale_factor", "1.5"), X.shape),
    Bad("downsample-rest", lambda **out: ops.upsample_nearest2d_backward(X, 2, **out), ValueError,
        ("7 x 8", "2 x 2"), (2, 4, 3, 4)),
]  # fmt: skip

OTHERS = [
    Bad("accumulate-into-nothing", lambda: ops.conv2d_grad_weight(X, W.shape, G, accumulate=True),
        ValueError, ("accumulate", "out"), None),
    Bad("accumulate-bias-into-nothing", lambda: ops.conv2d_grad_bias(G, accumulate=True),
        ValueError, ("accumulate", "out"), None),
    Bad("relu-shapes", lambda **out: ops.relu_backward(G, G[:, :5], **out), ValueError,
        ("relu_backward", "(2, 6, 5, 6)", "(2, 5, 5, 6)")),
    Bad("sigmoid-broadcast", lambda **out: ops.sigmoid_backward(G, G[:1], **out), ValueError,
        ("(2, 6, 5, 6)", "(1, 6, 5, 6)")),
    Bad("loss-broadcast", lambda **out: ops.mse_loss_backward(G, G[:1], **out), ValueError,
        ("target", "(2, 6, 5, 6)", "(1, 6, 5, 6)")),
    Bad("loss-of-nothing", lambda: ops.mse_loss(G[:0], G[:0]), ValueError, ("(0, 6, 5, 6)",), None),
    Bad("l1-shapes", lambda: ops.l1_loss(G, G[0]), ValueError, ("target", "(6, 5, 6)"), None),
    Bad("pool-indices-type", lambda **out: ops.max_pool2d_backward(G, G, X.shape, **out),
        TypeError, ("indices", "int64", "float32"), X.shape),
    Bad("pool-indices-outside",
        lambda **out: ops.max_pool2d_backward(G, G.long() * 99, (2, 6, 7, 8), **out),
        ValueError, ("indices", "7 x 8"), (2, 6, 7, 8)),
    Bad("pool-input-size", lambda **out: ops.avg_pool2d_backward(G, (2, 6, 9, 12), 3, **out),
        ValueError, ("grad_output", "(2, 6, 3, 4)", "(2, 6, 5, 6)"), (2, 6, 9, 12)),
    Bad("sgd-shapes", lambda: ops.sgd_step(B.clone(), B[:5], None, lr=0.1), ValueError,
        ("grad", "(6,)", "(5,)"), None),
    Bad("sgd-no-buffer", lambda: ops.sgd_step(B.clone(), B, None, lr=0.1, momentum=0.9),
        ValueError, ("momentum_buffer",), None),
    Bad("sgd-strided", lambda: ops.sgd_step(torch.ones(12)[::2], B, None, lr=0.1), ValueError,
        ("param", "contiguous"), None),
    Bad("adam-step-zero", lambda: ops.adam_step(B, B, B, B, lr=0.1, step=0), ValueError,
        ("step", "0"), None),
]  # fmt: skip

FINISHES = [
    Bad("finish-unknown", finished("tanh"), ValueError, ("conv2d", "finish", "relu")),
    Bad("finish-negative", finished("leaky_relu", -0.1), ValueError, ("slope of 0 or more",)),
    Bad("finish-nan", finished("leaky_relu", float("nan")), ValueError, ("slope of 0 or more",)),
    Bad("finish-slope-text", finished("leaky_relu", "2"), TypeError, ("number as slope", "'2'")),
    Bad("finish-shape", finished("relu", 0.0, G[..., :5]), ValueError,
        ("finish.output", "(2, 6, 5, 6)", "(2, 6, 5, 5)")),
    Bad("finish-3d", finished("relu", 0.0, G[0]), ValueError, ("finish.output", "(6, 5, 6)")),
    Bad("finish-double", finished("relu", 0.0, G.double()), TypeError,
        ("finish.output", "float64")),
    Bad("finish-number", finished("relu", 0.0, 1), TypeError, ("finish.output", "int")),
    Bad("finish-text", lambda **out: ops.conv_transpose2d(G, W, finish="relu", **out), TypeError,
        ("conv_transpose2d", "Finish", "'relu'"), X.shape),
    Bad("finish-mirror", lambda **out: ops.conv_transpose2d(G, W, finish=FINISH, **out), ValueError,
        ("conv_transpose2d", "finish.output", "(2, 4, 7, 8)"), X.shape),
    Bad("finish-back", lambda **o: ops.conv2d_grad_input(X.shape, W, G, finish=FINISH, **o),
        ValueError, ("conv2d_grad_input", "finish.output", "(2, 4, 7, 8)"), X.shape),
]  # fmt: skip

WRONG_KINDS: dict[str, Callable[[Tensor], object]] = {
    "int64": lambda x: x.long(),
    "uint8": lambda x: x.to(torch.uint8),
    "bool": lambda x: x.bool(),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "complex": lambda x: x.to(torch.complex64),
    "sparse": lambda x: x.to_sparse(),
    "meta": lambda x: x.to("meta"),
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "numpy": lambda x: x.numpy(),
    "list": lambda x: x.tolist(),
    "none": lambda x: None,
}
READERS: dict[str, tuple[Callable[[object], object], Tensor]] = {
    "conv2d-input": (lambda x: ops.conv2d(x, W), X),
    "conv2d-weight": (lambda w: ops.conv2d(X, w), W),
    "grad_input-weight": (lambda w: ops.conv2d_grad_input(X.shape, w, G), W),
    "grad_input-grad_output": (lambda g: ops.conv2d_grad_input(X.shape, W, g), G),
    "grad_weight-input": (lambda x: ops.conv2d_grad_weight(x, W.shape, G), X),
    "grad_weight-grad_output": (lambda g: ops.conv2d_grad_weight(X, W.shape, g), G),
    "grad_bias-grad_output": (lambda g: ops.conv2d_grad_bias(g), G),
    "conv_transpose2d-input": (lambda x: ops.conv_transpose2d(x, W), G),
    "im2col-input": (lambda x: ops.im2col(x, 3), X),
    "col2im-input": (lambda c: ops.col2im(c, (7, 8), 3), C),
    "relu-input": (lambda x: ops.relu(x), X),
    "relu_backward-output": (lambda z: ops.relu_backward(X, z), X),
    "leaky_relu-input": (lambda x: ops.leaky_relu(x), X),
    "leaky_relu_backward-grad_output": (lambda g: ops.leaky_relu_backward(g, X), X),
    "sigmoid-input": (lambda x: ops.sigmoid(x), X),
    "sigmoid_backward-output": (lambda z: ops.sigmoid_backward(X, z), X),
    "mse_loss-input": (lambda x: ops.mse_loss(x, X), X),
    "mse_loss_backward-target": (lambda t: ops.mse_loss_backward(X, t), X),
    "l0_loss-target": (lambda t: ops.l0_loss(X, t, 0.5), X),
    "l1_loss-target": (lambda t: ops.l1_loss(X, t), X),
    "max_pool2d-input": (lambda x: ops.max_pool2d(x, 2), X),
    "avg_pool2d-input": (lambda x: ops.avg_pool2d(x, 2), X),
    "avg_pool2d_backward-grad_output": (
        lambda g: ops.avg_pool2d_backward(g, (2, 4, 14, 16), 2),
        X,
    ),
    "upsample_nearest2d-input": (lambda x: ops.upsample_nearest2d(x, 2), X),
    "sgd_step-param": (lambda w: ops.sgd_step(w, B, None, lr=0.1), B),
    "adam_step-grad": (lambda g: ops.adam_step(B, g, B, B, lr=0.1, step=1), B),
}


@pytest.mark.parametrize("bad", SHAPES + NUMBERS + OTHERS + FINISHES, ids=str)
def test_bad_call(bad: Bad) -> None:
    room = {} if bad.out is None else {"out": torch.full(tuple(bad.out), torch.nan)}
    with pytest.raises(bad.error) as raised:
        bad.call(**room)
    for words in bad.says:
        assert words in str(raised.value), f"{words!r} is not in {raised.value}"
    assert all(out.isnan().all() for out in room.values()), "out was written to"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", WRONG_KINDS)
@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_wrong_kind_of_tensor(reader: str, kind: str) -> None:
    call, right = READERS[reader]
    with pytest.raises(TypeError) as raised:
        call(WRONG_KINDS[kind](right))
    op, argument = reader.split("-")
    assert argument in str(raised.value)
    assert op in str(raised.value)


@pytest.mark.parametrize("wrong", [1.0, (1.0, 1), (1, torch.ones(()))], ids=str)
def test_what_only_equals_a_whole_number_is_refused_after_it(wrong: object) -> None:
    ops.conv2d(X, W, None, 1, (1, 1))
    for geometry in ((wrong, 1), (1, wrong)):
        with pytest.raises(TypeError, match="whole number"):
            ops.conv2d(X, W, None, *geometry)
    ops.conv2d_grad_input(X.shape, W, G)
    with pytest.raises(TypeError, match="input_size"):
        ops.conv2d_grad_input((2.0, 4, 7, 8), W, G)


def test_sizes_of_torchs_own_type_are_looked_at() -> None:
    for size in ((-2, 4, 7, 8), (2, 4, 7)):
        with pytest.raises(ValueError, match="conv2d_grad_input: input_size"):
            ops.conv2d_grad_input(torch.Size(size), W, G)


def test_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = mode.from_tensor(X)
    with pytest.raises(TypeError, match="conv2d: input"):
        ops.conv2d(fake, W)


def test_mixed_dtypes() -> None:
    for call in (
        lambda: ops.conv2d(X.double(), W),
        lambda: ops.conv2d(X, W, B.double()),
        lambda: ops.conv2d_grad_input(X.shape, W.double(), G),
        lambda: ops.conv2d_grad_weight(X, W.shape, G.double()),
        lambda: ops.conv_transpose2d(G, W.double()),
        lambda: ops.relu_backward(X, X.double()),
        lambda: ops.mse_loss(X, X.double()),
        lambda: ops.sgd_step(B.clone(), B.double(), None, lr=0.1),
    ):
        with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
            call()


# out=

# Each operation on one tensor that it reads, the size of its result, and that tensor
OUTS: dict[str, tuple[Callable[..., object], tuple[int, ...], Tensor]] = {
    "conv2d": (lambda x, **out: ops.conv2d(x, W, **out), SIZE, X),
    "conv2d_grad_input": (lambda w, **o: ops.conv2d_grad_input(X.shape, w, G, **o), X.shape, W),
    "conv2d_grad_weight": (lambda g, **o: ops.conv2d_grad_weight(X, W.shape, g, **o), W.shape, G),
    "conv2d_grad_bias": (lambda g, **out: ops.conv2d_grad_bias(g, **out), (6,), G),
    "conv_transpose2d": (lambda x, **out: ops.conv_transpose2d(x, W, **out), X.shape, G),
    "im2col": (lambda x, **out: ops.im2col(x, 3, **out), C.shape, X),
    "col2im": (lambda c, **out: ops.col2im(c, (7, 8), 3, **out), X.shape, C),
    "relu": (lambda x, **out: ops.relu(x, **out), X.shape, X),
    "relu_backward": (lambda z, **out: ops.relu_backward(X, z, **out), X.shape, X),
    "leaky_relu": (lambda x, **out: ops.leaky_relu(x, 0.1, **out), X.shape, X),
    "leaky_relu_backward": (lambda g, **o: ops.leaky_relu_backward(g, X, **o), X.shape, X),
    "sigmoid": (lambda x, **out: ops.sigmoid(x, **out), X.shape, X),
    "sigmoid_backward": (lambda z, **out: ops.sigmoid_backward(X, z, **out), X.shape, X),
    "mse_loss_backward": (lambda t, **out: ops.mse_loss_backward(X, t, **out), X.shape, X),
    "l0_loss_backward": (lambda x, **out: ops.l0_loss_backward(x, X, 0.5, **out), X.shape, X),
    "l1_loss_backward": (lambda x, **out: ops.l1_loss_backward(x, X, **out), X.shape, X),
    "max_pool2d": (lambda x, **out: ops.max_pool2d(x, 2, **out), (2, 4, 3, 4), X),
    "avg_pool2d": (lambda x, **out: ops.avg_pool2d(x, 2, **out), (2, 4, 3, 4), X),
    "upsample_nearest2d": (lambda x, **o: ops.upsample_nearest2d(x, 2, **o), (2, 4, 14, 16), X),
}
each_out = pytest.mark.parametrize("name", OUTS)


@each_out
def test_out_of_the_wrong_shape(name: str) -> None:
    call, size, read = OUTS[name]
    wrong = (*size[:-1], size[-1] + 1)
    out = torch.full(wrong, torch.nan)
    with pytest.raises(ValueError, match="out") as raised:
        call(read, out=out)
    assert name in str(raised.value)
    assert str(tuple(size)) in str(raised.value)
    assert str(wrong) in str(raised.value)
    assert out.isnan().all()


@each_out
def test_out_of_the_wrong_kind(name: str) -> None:
    call, size, read = OUTS[name]
    out = torch.full(size, torch.nan, dtype=torch.float64)
    with pytest.raises(TypeError, match=r"float32.*float64"):
        call(read, out=out)
    assert out.isnan().all()
    for wrong in (torch.ones(size, device="meta"), torch.ones(size).numpy(), "out"):
        with pytest.raises((TypeError, ValueError), match="out"):
            call(read, out=wrong)


@each_out
def test_out_that_is_not_dense(name: str) -> None:
    call, size, read = OUTS[name]
    wide = torch.full((*size, 2), torch.nan)
    for out in (wide[..., 0], wide[..., 0, None].expand(*size, 2)[..., 0]):
        with pytest.raises(ValueError, match=r"dense|contiguous"):
            call(read, out=out)
    with pytest.raises(ValueError, match=r"dense|contiguous"):
        call(read, out=torch.full((1,), torch.nan).expand(size))
    assert wide.isnan().all()


@each_out
def test_out_that_negates(name: str) -> None:
    call, size, read = OUTS[name]
    out = torch.ones(size, dtype=torch.complex64).conj().imag
    with pytest.raises(ValueError, match=f"{name}: out must hold"):
        call(read, out=out)
    assert not out.any()
    with pytest.raises(ValueError, match=f"{name}: out must be dense"):
        call(read, out=torch.ones(size).to_sparse())


@each_out
@pytest.mark.parametrize("first", ["input", "out"])
def test_out_over_an_input(name: str, first: str) -> None:
    """One element shared is refused, either way around; the next address is not."""
    call, size, read = OUTS[name]
    count, shared = torch.Size(size).numel(), read.numel()
    for gap, fits in ((-1, False), (0, True)):
        memory = torch.ones(count + shared + gap)
        if first == "input":
            x, out = memory[:shared], memory[shared + gap :]
        else:
            out, x = memory[:count], memory[count + gap :]
        x, out = x.view(read.shape).copy_(read), out.view(size)
        if fits:
            call(x, out=out)
        else:
            before = memory.clone()
            with pytest.raises(ValueError, match="memory"):
                call(x, out=out)
            assert torch.equal(memory, before)
