"""Layers against torch's on every backend, and the stack between forward and backward."""

from __future__ import annotations

import threading

import pytest
import torch
from conftest import Setting
from layers import BY_NAME, CASES, CONVOLUTIONS, WITH_PARAMETERS, LayerCase, assert_near
from torch import Tensor

import pydenoise
from pydenoise import nn

each_layer = pytest.mark.parametrize("case", CASES, ids=str)
each_learning = pytest.mark.parametrize("case", WITH_PARAMETERS, ids=str)


def put(x: Tensor, setting: Setting) -> Tensor:
    x = setting.place.put(x.to(setting.dtype))
    return x.contiguous(memory_format=setting.memory_format) if x.dim() == 4 else x


def noise(like: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(like)


# --- the same numbers as torch ------------------------------------------------------------------


@each_layer
def test_forward_and_backward_equal_autograd(case: LayerCase, setting: Setting) -> None:
    ours, theirs = case.twins(setting.dtype)
    ours.to(setting.place.device)
    input = put(case.draw(), setting)
    wanted_input = input.cpu().clone().requires_grad_()
    wanted = theirs(wanted_input)
    grad_output = noise(wanted)
    wanted.backward(grad_output)

    output = ours(input)
    grad_input = ours.backward(put(grad_output, setting))

    assert_near(output, wanted.detach(), "output")
    assert_near(grad_input, wanted_input.grad, "grad_input", 4)
    for (name, ours_), theirs_ in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_near(ours_.grad, theirs_.grad, f"gradient of {name}", 8)
    if output.dim() == 4 and input.dim() == 4:
        assert output.is_contiguous(memory_format=setting.memory_format)
        assert grad_input.is_contiguous(memory_format=setting.memory_format)


@pytest.mark.parametrize("loss", ["MSELoss", "L1Loss"])
def test_losses_equal_autograd(loss: str, setting: Setting) -> None:
    case = BY_NAME["relu"]
    input, target = put(case.draw(), setting), put(case.draw(seed=1), setting)
    wanted_input = input.cpu().clone().requires_grad_()
    wanted = getattr(torch.nn, loss)()(wanted_input, target.cpu())
    wanted.backward()

    ours = getattr(nn, loss)()
    value = ours(input, target)
    assert isinstance(value, float)
    assert value == pytest.approx(wanted.item(), rel=1e-6)
    assert_near(ours.backward(), wanted_input.grad, "gradient")
    ours(input, target)
    assert_near(ours.backward(-3.0), -3 * wanted_input.grad, "scaled gradient")


def test_relu_selects_rather_than_multiplies() -> None:
    layer = nn.ReLU()
    assert layer(torch.tensor([-1.0, 0.0, 2.0])).tolist() == [0, 0, 2]
    assert layer.backward(torch.full((3,), torch.inf)).tolist() == [0, 0, torch.inf]
    assert layer(torch.tensor([torch.nan])).isnan().all()


def test_sigmoid_does_not_overflow() -> None:
    layer = nn.Sigmoid()
    assert layer(torch.tensor([-1e4, 1e4])).tolist() == [0, 1]
    assert layer.backward(torch.ones(2)).tolist() == [0, 0]


@each_layer
def test_torch_records_nothing(case: LayerCase) -> None:
    ours, _ = case.twins(torch.float64)
    output = ours(case.draw().requires_grad_())
    assert not output.requires_grad
    assert not ours.backward(torch.ones_like(output).requires_grad_()).requires_grad


# --- the stack ----------------------------------------------------------------------------------


@each_learning
def test_a_gradient_that_arrives_twice_adds_up(case: LayerCase) -> None:
    ours, _ = case.twins(torch.float64)
    grads = []
    for _ in range(2):
        output = ours(case.draw())
        ours.backward(noise(output))
        grads.append([parameter.grad.clone() for parameter in ours.parameters()])
    for once, twice in zip(*grads, strict=True):
        assert_near(twice, 2 * once, "two equal gradients")


@each_layer
def test_two_forward_passes_before_two_backward_passes(case: LayerCase) -> None:
    ours, _ = case.twins(torch.float64)
    inputs = case.draw(seed=1), case.draw(seed=2)
    alone = []
    for input in inputs:
        output = ours(input)
        alone.append((output, ours.backward(noise(output))))
    wanted = [parameter.grad.clone() for parameter in ours.parameters()]
    ours.zero_grad()

    together = [ours(input) for input in inputs]
    second = ours.backward(noise(together[1]))
    first = ours.backward(noise(together[0]))
    assert torch.equal(first, alone[0][1])
    assert torch.equal(second, alone[1][1])
    for output, (wanted_output, _) in zip(together, alone, strict=True):
        assert torch.equal(output, wanted_output)
    for parameter, grad in zip(ours.parameters(), wanted, strict=True):
        assert_near(parameter.grad, grad, "sum of both gradients", 4)


def test_one_layer_twice_in_a_network() -> None:
    """As torch, whose graph knows both uses."""
    ours, theirs = BY_NAME["conv-depthwise"].twins(torch.float64)
    input = BY_NAME["conv-depthwise"].draw()
    wanted_input = input.clone().requires_grad_()
    wanted = torch.sigmoid(theirs(torch.relu(theirs(wanted_input))))
    wanted.backward(noise(wanted))
    model = nn.Sequential(ours, nn.ReLU(), ours, nn.Sigmoid())
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    output = model(input)
    assert_near(output, wanted.detach(), "output")
    assert_near(model.backward(noise(output)), wanted_input.grad, "grad_input", 4)
    for parameter, other in zip(model.parameters(), theirs.parameters(), strict=True):
        assert_near(parameter.grad, other.grad, "gradient", 8)


@each_layer
def test_backward_without_forward_names_the_layer(case: LayerCase) -> None:
    ours, _ = case.twins(torch.float64)
    output = ours(case.draw())
    ours.backward(noise(output))
    with pytest.raises(RuntimeError, match=r"(?s)^\w+\(.*\): backward without a forward pass"):
        ours.backward(noise(output))


def test_backward_says_why_nothing_was_kept() -> None:
    layer = nn.Conv2d(1, 1, 1).eval()
    output = layer(torch.ones(1, 1, 2, 2))
    with pytest.raises(RuntimeError, match=r"Conv2d\(1, 1.*eval mode.*train\(\)"):
        layer.backward(output)
    layer.train()
    with pydenoise.no_backward():
        layer(torch.ones(1, 1, 2, 2))
        with pytest.raises(RuntimeError, match=r"no_backward\(\) is active"):
            layer.backward(output)
    with pytest.raises(RuntimeError, match="call forward"):
        layer.backward(output)


def test_no_backward_is_a_matter_of_its_own_thread() -> None:
    layer = nn.ReLU()
    with pydenoise.no_backward():
        thread = threading.Thread(target=layer, args=(torch.ones(3),))
        thread.start()
        thread.join()
        layer(torch.ones(3))
    assert layer.backward(torch.ones(3)).tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError):
        layer.backward(torch.ones(3))


def test_a_gradient_of_the_wrong_shape_leaves_the_pass_open() -> None:
    layer = nn.Conv2d(3, 4, 3)
    output = layer(torch.rand(2, 3, 5, 6))
    with pytest.raises(ValueError, match=r"\(2, 4, 3, 4\); got \(2, 4, 3, 3\)"):
        layer.backward(output[..., :3])
    layer.backward(output)


def test_forward_passes_without_end_are_refused_with_the_cure() -> None:
    layer = nn.ReLU()
    for _ in range(64):
        layer(torch.ones(2))
    with pytest.raises(RuntimeError, match=r"ReLU\(\): 64 .*no_backward\(\).*zero_grad\(\)"):
        layer(torch.ones(2))
    layer.zero_grad()
    layer(torch.ones(2))
    with pydenoise.no_backward():
        for _ in range(100):
            layer(torch.ones(2))


def test_zero_grad_drops_open_passes_and_gradients() -> None:
    model = pydenoise.models.autoencoder((4,), seed=0)
    output = model(torch.rand(1, 3, 4, 4))
    model.backward(output)
    model(torch.rand(1, 3, 4, 4))
    model.zero_grad()
    assert not any(parameter.grad.any() for parameter in model.parameters())
    with pytest.raises(RuntimeError):
        model.backward(output)


@each_learning
def test_backward_parameters_is_backward_without_grad_input(case: LayerCase) -> None:
    ours, _ = case.twins(torch.float64)
    output = ours(case.draw())
    ours.backward(noise(output))
    wanted = [parameter.grad.clone() for parameter in ours.parameters()]
    ours.zero_grad()
    ours(case.draw())
    assert ours.backward_parameters(noise(output)) is None
    for parameter, grad in zip(ours.parameters(), wanted, strict=True):
        assert torch.equal(parameter.grad, grad)
    with pytest.raises(RuntimeError):
        ours.backward(noise(output))


def test_container_and_layer_by_layer_give_the_same_bits(setting: Setting) -> None:
    model = pydenoise.models.autoencoder((5, 7), seed=1)
    model.to(setting.place.device, setting.dtype)
    input = put(torch.rand(2, 3, 12, 8), setting)
    output = model(input)
    grad_input = model.backward(noise(output))
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()

    x = input
    for layer in model:
        x = layer(x)
    assert torch.equal(x, output)
    grad = noise(model(input))
    for layer in reversed(list(model)):
        grad = layer.backward(grad)
    assert torch.equal(grad, grad_input)
    for parameter, grad in zip(model.parameters(), wanted, strict=True):
        assert torch.equal(parameter.grad, grad)


# --- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolutions_print_like_torch(case: LayerCase) -> None:
    assert repr(case.make()) == repr(case.make_torch())


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: nn.Conv2d(0, 4, 3), ValueError, "Conv2d: in_channels must be at least 1, got 0"),
        (lambda: nn.Conv2d(3, 4.5, 3), TypeError, "out_channels must be a whole number, got 4.5"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), ValueError, r"kernel_size .* \(3, 3, 3\)"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), ValueError, "padding must be at least 0, got -1"),
        (lambda: nn.Conv2d(3, 4, 3, padding="same"), TypeError, "padding .* 'same'"),
        (lambda: nn.Conv2d(3, 4, 3, stride=0), ValueError, "stride must be at least 1"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels must be divisible .* 3"),
        (lambda: nn.Conv2d(3, 4, 3, dtype=torch.float16), TypeError, "float16"),
        (lambda: nn.Conv2d(3, 4, 3, init="N(0,1)"), ValueError, "kaiming_normal.*'N"),
        (
            lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=2),
            ValueError,
            r"ConvTranspose2d: output_padding .* \(2, 2\), stride \(2, 2\)",
        ),
        (lambda: nn.MaxPool2d(3, padding=2), ValueError, "half the kernel"),
        (lambda: nn.Upsample(2, mode="bilinear"), ValueError, "'nearest', got 'bilinear'"),
        (lambda: nn.Upsample(1.5), TypeError, "whole number"),
        (lambda: nn.Sequential(torch.nn.ReLU()), TypeError, r"child '0' .* got torch\.nn"),
    ],
)
def test_wrong_arguments_are_refused(make: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_wrong_inputs_are_refused_and_leave_nothing_open() -> None:
    layer = nn.Conv2d(3, 4, 3)
    with pytest.raises(ValueError, match="weight expects 3 input channels, input has 4"):
        layer(torch.rand(1, 4, 5, 5))
    with pytest.raises(TypeError, match="float32 or float64"):
        layer(torch.ones(1, 3, 5, 5, dtype=torch.int64))
    with pytest.raises(TypeError, match="one dtype"):
        layer(torch.rand(1, 3, 5, 5).double())
    with pytest.raises(RuntimeError, match="without a forward pass"):
        layer.backward(torch.rand(1, 4, 3, 3))
    with pytest.raises(ValueError, match=r"keep batch, height and width.*\(1, 3, 4, 4\)"):
        nn.Skip(nn.AvgPool2d(2))(torch.rand(1, 3, 4, 4))
