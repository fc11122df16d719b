"""Update rules against torch's over 20 steps, and schedules against their formulas."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from conftest import Place
from layers import assert_near
from torch import Tensor

from pydenoise import memory, models, nn, optim

STEPS = 20
SIZES = [(4, 3, 3, 3), (4,), (2, 4, 1, 1)]

RULES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "betas": (0.5, 0.9), "weight_decay": 0.3}),
]
each_rule = pytest.mark.parametrize(
    ("rule", "arguments"), RULES, ids=["-".join([rule, *rest]) for rule, rest in RULES]
)


def draw(dtype: torch.dtype, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, dtype=torch.float64, generator=generator).to(dtype) for s in SIZES]


def walk(optimizer: optim.Optimizer, grads: list[Tensor], steps: range) -> None:
    for step in steps:
        for grad, value in zip(grads, draw(grads[0].dtype, 100 + step), strict=True):
            grad.copy_(value)
        optimizer.step()


@each_rule
@pytest.mark.parametrize("form", ["pairs", "parameters", "apart"])
def test_twenty_steps_equal_torch(
    rule: str, arguments: dict[str, object], form: str, dtype: torch.dtype, place: Place
) -> None:
    theirs = [value.requires_grad_() for value in draw(dtype, 0)]
    theirs_optimizer = getattr(torch.optim, rule)(theirs, **arguments)
    for step in range(STEPS):
        for tensor, value in zip(theirs, draw(dtype, 100 + step), strict=True):
            tensor.grad = value
        theirs_optimizer.step()

    pairs = [(value, torch.zeros_like(value)) for value in map(place.put, draw(dtype, 0))]
    parameters = [nn.Parameter(*pair) for pair in pairs]
    if form == "apart":
        memory.join([each.data for each in parameters])  # in an order that is not the optimizer's
    optimizer = getattr(optim, rule)(pairs if form == "pairs" else parameters, **arguments)
    walk(optimizer, [grad for _, grad in pairs], range(STEPS))
    for (data, _), wanted in zip(pairs, theirs, strict=True):
        assert_near(data, wanted.detach(), "weights", 1 if dtype == torch.float32 else 200)
    assert optimizer.steps == STEPS
    assert len(optimizer._together()) == (1 if form == "parameters" else len(pairs))


@each_rule
def test_a_saved_state_goes_on_where_it_stopped(rule: str, arguments: dict[str, object]) -> None:
    def fresh() -> tuple[optim.Optimizer, list[tuple[Tensor, Tensor]]]:
        pairs = [(value, torch.zeros_like(value)) for value in draw(torch.float64, 0)]
        return getattr(optim, rule)(pairs, **arguments), pairs

    straight, wanted = fresh()
    walk(straight, [grad for _, grad in wanted], range(STEPS))
    first, pairs = fresh()
    walk(first, [grad for _, grad in pairs], range(8))
    state = copy.deepcopy(first.state_dict())
    second = getattr(optim, rule)([nn.Parameter(*pair) for pair in pairs])
    second.load_state_dict(state)
    walk(second, [grad for _, grad in pairs], range(8, STEPS))
    for (data, _), (wanted_data, _) in zip(pairs, wanted, strict=True):
        assert torch.equal(data, wanted_data)
    assert second.state_dict()["param_groups"] == straight.state_dict()["param_groups"]


def test_states_are_laid_out_as_torchs() -> None:
    values = draw(torch.float32, 0)
    theirs = torch.optim.Adam(values)
    for value in values:
        value.grad = torch.ones_like(value)
    theirs.step()
    wanted = theirs.state_dict()
    ours = optim.Adam([(value, torch.ones_like(value)) for value in draw(torch.float32, 0)])
    ours.step()
    state = ours.state_dict()
    assert state["state"].keys() == wanted["state"].keys()
    assert state["state"][0].keys() == wanted["state"][0].keys()
    assert state["param_groups"][0].keys() <= wanted["param_groups"][0].keys()
    assert_near(state["state"][2]["exp_avg"], wanted["state"][2]["exp_avg"], "exp_avg")


def test_a_state_that_does_not_fit_is_refused() -> None:
    layer = nn.Conv2d(1, 2, 1)
    optimizer = optim.SGD(layer, momentum=0.9)
    optimizer.step()
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="of another optimizer"):
        optim.Adam(layer).load_state_dict(state)
    with pytest.raises(ValueError, match="of 2 parameters, the optimizer has 1"):
        optim.SGD(nn.Conv2d(1, 2, 1, bias=False)).load_state_dict(state)
    with pytest.raises(
        ValueError, match=r"momentum_buffer of parameter 0 has shape \(2, 1, 1, 1\)"
    ):
        optim.SGD(nn.Conv2d(1, 3, 1)).load_state_dict(state)


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_a_module_is_updated_as_one_buffer_even_after_it_moved(rule: str) -> None:
    arguments = {"momentum": 0.9} if rule == "SGD" else {}
    model, twin = models.autoencoder((4,), seed=0), models.autoencoder((4,), seed=0)
    ours = getattr(optim, rule)(model, lr=0.1, **arguments)
    pairs = getattr(optim, rule)(twin.param(), lr=0.1, **arguments)
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        twin.to(dtype)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            for (_, grad), (_, other) in zip(model.param(), twin.param(), strict=True):
                grad.normal_(generator=generator)
                other.copy_(grad)
            ours.step()
            pairs.step()
    for (data, _), (other, _) in zip(model.param(), twin.param(), strict=True):
        assert torch.equal(data, other)
    assert len(ours._together()) == 1


def test_a_weight_that_was_given_other_memory_is_still_updated() -> None:
    layer = nn.Conv2d(1, 2, 1)
    optimizer = optim.SGD(layer, lr=1.0)
    layer.flatten().grad.fill_(1)
    layer.weight.data = torch.zeros(2, 1, 1, 1)
    layer.bias = torch.zeros(2)
    optimizer.step()
    assert (layer.weight == -1).all()
    assert (layer.bias == -1).all()


def test_zero_grad_clears_gradients_and_open_passes() -> None:
    layer = nn.Conv2d(1, 2, 1)
    optimizer = optim.SGD(layer)
    output = layer(torch.ones(1, 1, 2, 2))
    layer.backward(output)
    layer(torch.ones(1, 1, 2, 2))
    optimizer.zero_grad()
    assert not any(grad.any() for _, grad in layer.param())
    with pytest.raises(RuntimeError, match="without a forward pass"):
        layer.backward(output)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda p: optim.SGD([]), ValueError, "SGD: there are no parameters"),
        (lambda p: optim.SGD(nn.ReLU()), ValueError, "no parameters"),
        (lambda p: optim.Adam([p, p]), ValueError, "Adam: a parameter is given more than once"),
        (lambda p: optim.SGD(p), TypeError, "must be iterable, got one Parameter"),
        (lambda p: optim.SGD([p.data]), TypeError, "entry 0 is a Tensor"),
        (lambda p: optim.SGD([p], lr=-1), ValueError, "lr must be at least 0, got -1"),
        (lambda p: optim.SGD([p], momentum=-1), ValueError, "momentum must be at least 0"),
        (lambda p: optim.SGD([p], weight_decay=-1), ValueError, "weight_decay"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov needs momentum"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, r"betas\[1\] .* got 1.0"),
        (lambda p: optim.AdamW([p], eps=-1), ValueError, "AdamW: eps"),
    ],
)
def test_wrong_arguments_are_refused(make: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make(nn.Parameter(torch.zeros(2)))


# --- schedules ----------------------------------------------------------------------------------


def test_schedules_follow_their_formulas() -> None:
    parts = [i / 20 for i in range(20)]
    assert [optim.constant()(p) for p in parts] == [1] * 20
    assert [optim.step(every=0.1, gamma=0.5)(p) for p in parts] == [
        0.5 ** (i // 2) for i in range(20)
    ]
    cosine = optim.cosine()
    assert [cosine(p) for p in parts] == [
        pytest.approx((1 + math.cos(math.pi * p)) / 2) for p in parts
    ]
    warm = optim.cosine(warmup=0.2)
    assert [warm(0), warm(0.1), warm(0.2), warm(0.6), warm(1)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    ramp = optim.ramp_down(0.3)
    assert [ramp(0), ramp(0.7), ramp(0.85), ramp(1)] == pytest.approx([1, 1, 0.25, 0])
    for schedule, (a, b) in itertools.product((cosine, ramp), itertools.pairwise(parts)):
        assert 0 <= schedule(b) <= schedule(a) <= 1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optim.step(every=0, gamma=0.5), "every"),
        (lambda: optim.step(every=0.5, gamma=0), "gamma"),
        (lambda: optim.cosine(1.0), "warmup"),
        (lambda: optim.ramp_down(0.0), "fraction"),
    ],
)
def test_wrong_schedules_are_refused(make: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_the_order_of_names_in_a_state_means_nothing() -> None:
    weight, gradient = torch.ones(3), torch.full((3,), 0.5)
    first = optim.Adam([(weight, gradient)], lr=0.1)
    first.step()
    saved = first.state_dict()
    saved["state"][0] = dict(reversed(saved["state"][0].items()))
    copies = weight.clone(), gradient.clone()
    second = optim.Adam([copies], lr=0.1)
    second.load_state_dict(saved)
    first.step()
    second.step()
    assert torch.equal(copies[0], weight)


def test_a_state_with_other_names_is_refused() -> None:
    optimizer = optim.Adam([(torch.ones(3), torch.ones(3))])
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["velocity"] = torch.ones(3)
    with pytest.raises(ValueError, match="velocity"):
        optimizer.load_state_dict(saved)
