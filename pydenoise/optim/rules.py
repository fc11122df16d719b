"""Update rules, with torch's numbers.

Parameters that lie back to back, as `Module.flatten` leaves them, are updated by one call over the
whole buffer; others one by one, with the same result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from pydenoise import memory, ops
from pydenoise.nn import Module, Parameter

Params = Module | Iterable[Parameter] | Iterable[tuple[Tensor, Tensor]]


class Optimizer:
    """What all update rules share: the parameters, the state of each, saving and loading.

    Parameters
    ----------
    params : Module, or iterable of Parameter or of (values, gradient) pairs
        What `parameters()` or `param()` of a module gives, or the module itself.
    lr : float
        Learning rate, at least 0; may be set anew before each step.

    Raises
    ------
    ValueError
        For no parameters, one given twice, or a number out of its range.
    TypeError
        For anything else in `params`.
    """

    _settings: tuple[str, ...] = ("lr", "weight_decay")
    _state_names: tuple[str, ...] = ()

    def __init__(self, params: Params, lr: float, weight_decay: float) -> None:
        self._module = params if isinstance(params, Module) else None
        self._parameters = _gather(type(self).__name__, params)
        self._state: dict[str, list[Tensor]] = {}
        self._units: list[tuple[Tensor, ...]] = []
        self._tensors = [t for each in self._parameters for t in (each.data, each.grad)]
        self._addresses: list[int] = []
        self.steps = 0
        self.lr = lr
        self.weight_decay = weight_decay
        self._check("lr", lr, lr >= 0, "at least 0")
        self._check("weight_decay", weight_decay, weight_decay >= 0, "at least 0")

    def step(self) -> None:
        """Update all parameters from their gradients, in place."""
        raise TypeError(f"{type(self).__name__} defines no step")

    def rule(self, lr: float, step: int) -> tuple[float, ...]:
        """The numbers of a step counted from 1, in the order in which CUDA kernels read them."""
        raise TypeError(f"{type(self).__name__} defines no rule")

    def zero_grad(self) -> None:
        """Set all gradients to zero; a module given to the optimizer also drops its stacks."""
        if self._module is not None:
            self._module.forget()
        for _, grad, *_ in self._together():
            grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Settings and a copy of each parameter's state, laid out as torch's optimizers do.

        Returns
        -------
        dict
            `state`: index of the parameter -> its tensors and the steps taken; `param_groups`: one
            dict of settings.
        """
        state = {
            index: {name: tensors[index].clone() for name, tensors in self._state.items()}
            | {"step": self.steps}
            for index in range(len(self._parameters))
            if self.steps
        }
        group = {name: getattr(self, name) for name in self._settings}
        return {
            "state": state,
            "param_groups": [{**group, "params": list(range(len(self._parameters)))}],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; nothing is changed where anything does not fit.

        Raises
        ------
        ValueError
            For other settings, another number of parameters or other shapes.
        """
        rule = type(self).__name__
        (group,) = state_dict["param_groups"]
        count = len(self._parameters)
        unknown = sorted(set(self._settings) ^ (set(group) - {"params"}))
        if unknown:
            raise ValueError(f"{rule}: the state is of another optimizer; differing: {unknown}")
        state = state_dict["state"]
        if len(group["params"]) != count or (state and sorted(state) != list(range(count))):
            raise ValueError(
                f"{rule}: the state is of {len(group['params'])} parameters, the optimizer has "
                f"{count}"
            )
        names = [name for name in self._state_names if state and name in state[0]]
        if state and {*state[0]} - {"step"} not in (set(), set(self._state_names)):
            raise ValueError(
                f"{rule}: the state holds {sorted(state[0])}, expected step and "
                f"{', '.join(self._state_names)}"
            )
        for name in names:
            for index, parameter in enumerate(self._parameters):
                if state[index][name].shape != parameter.data.shape:
                    raise ValueError(
                        f"{rule}: {name} of parameter {index} has shape "
                        f"{tuple(state[index][name].shape)}, expected {tuple(parameter.data.shape)}"
                    )
        for name in self._settings:
            setattr(self, name, group[name])
        self.steps = int(state[0]["step"]) if state else 0
        self._state.clear()
        for name in names:
            for index, tensor in enumerate(self._state_of(name)):
                tensor.copy_(state[index][name])

    def _check(self, name: str, value: float, is_right: bool, expected: str) -> None:
        if not is_right:
            raise ValueError(f"{type(self).__name__}: {name} must be {expected}, got {value}")

    def _state_of(self, name: str) -> list[Tensor]:
        """A state tensor for each parameter, zeros at first."""
        if name not in self._state:
            zeros = [
                memory.empty(each.data.shape, dtype=each.data.dtype, device=each.data.device)
                for each in self._parameters
            ]
            for tensor in zeros:
                tensor.zero_()
            _join_if_alike(zeros)
            self._state[name] = zeros
            self._addresses = []
        return self._state[name]

    def _together(self) -> list[tuple[Tensor, ...]]:
        """(values, gradient, states...) to update at once: one tuple of flat views if they lie
        so, else one per parameter. Looked up again when a parameter has moved."""
        addresses = [tensor.data_ptr() for tensor in self._tensors]
        if addresses != self._addresses:
            columns = [
                [each.data for each in self._parameters],
                [each.grad for each in self._parameters],
                *(self._follow(name) for name in self._state_names if name in self._state),
            ]
            flat = [memory.joined(column[::-1]) for column in columns]
            whole = tuple(column for column in flat if column is not None)
            self._units = (
                [whole] if len(whole) == len(columns) else list(zip(*columns, strict=True))
            )
            self._addresses = addresses
        return self._units

    def _follow(self, name: str) -> list[Tensor]:
        """The state on the device and in the dtype that its parameters have now."""
        before = self._state[name]
        after = [
            tensor.to(device=each.data.device, dtype=each.data.dtype)
            for tensor, each in zip(before, self._parameters, strict=True)
        ]
        if any(new is not old for new, old in zip(after, before, strict=True)):
            _join_if_alike(after)
            self._state[name] = after
        return self._state[name]


def _gather(rule: str, params: Params) -> list[Parameter]:
    """Parameters of any of the three forms, laid back to back where nothing stands against it."""
    if isinstance(params, (Tensor, Parameter)):
        raise TypeError(f"{rule}: params must be iterable, got one {type(params).__name__}")
    entries = list(params.parameters() if isinstance(params, Module) else params)
    found = [_as_parameter(rule, index, entry) for index, entry in enumerate(entries)]
    if not found:
        raise ValueError(f"{rule}: there are no parameters to update")
    if len({id(each.data) for each in found}) != len(found):
        raise ValueError(f"{rule}: a parameter is given more than once")
    data, grad = [each.data for each in found], [each.grad for each in found]
    is_ours_to_move = all(isinstance(entry, Parameter) for entry in entries)
    if isinstance(params, Module) or (is_ours_to_move and _stand_alone(data + grad)):
        _join_if_alike(data)
        _join_if_alike(grad)
    return found


def _stand_alone(tensors: list[Tensor]) -> bool:
    """No tensor is part of a larger buffer, which others may count on."""
    return all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)


def _as_parameter(rule: str, index: int, entry: Any) -> Parameter:
    if isinstance(entry, Parameter):
        return entry
    if isinstance(entry, tuple) and len(entry) == 2 and all(isinstance(t, Tensor) for t in entry):
        return Parameter(*entry, name=str(index))
    raise TypeError(
        f"{rule}: params must be a Module, or hold Parameters or (values, gradient) pairs; "
        f"entry {index} is a {type(entry).__name__}"
    )


def _join_if_alike(tensors: list[Tensor]) -> None:
    """Make them neighbours in memory, last first, where one buffer can hold them all."""
    backwards = tensors[::-1]
    if len({(t.dtype, t.device) for t in tensors}) == 1 and memory.joined(backwards) is None:
        memory.join(backwards)


class SGD(Optimizer):
    """Gradient descent, with momentum where asked for.

    ::

        d  = g + weight_decay w
        v  = d at the first step, then momentum v + (1 - dampening) d
        w -= lr v,  or with Nesterov  lr (d + momentum v);  without momentum  lr d

    Parameters
    ----------
    params : Module, or iterable of Parameter or of (values, gradient) pairs
    lr : float
    momentum : float
        At least 0.
    dampening : float
    weight_decay : float
        At least 0.
    nesterov : bool
        Needs momentum, and dampening 0.

    Notes
    -----
    The rule of ``torch.optim.SGD``; I. Sutskever et al., "On the importance of initialization and
    momentum in deep learning", ICML 2013, with lr outside the velocity.

    Examples
    --------
    >>> import torch
    >>> weight, gradient = torch.ones(1), torch.ones(1)
    >>> SGD([(weight, gradient)], lr=0.5).step()
    >>> weight
    tensor([0.5000])
    """

    _settings = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
    _state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self._check("momentum", momentum, momentum >= 0, "at least 0")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum above 0 and dampening 0, got {momentum} and "
                f"{dampening}"
            )
        self.momentum = momentum
        self.dampening = dampening
        self.nesterov = nesterov

    def rule(self, lr: float, step: int) -> tuple[float, ...]:
        return lr, self.momentum, self.dampening, self.weight_decay

    def step(self) -> None:
        is_first = self.momentum != 0 and "momentum_buffer" not in self._state
        if is_first:
            self._state_of("momentum_buffer")
        self.steps += 1
        for data, grad, *state in self._together():
            ops.sgd_step(
                data,
                grad,
                state[0] if self.momentum else None,
                lr=self.lr,
                momentum=self.momentum,
                dampening=self.dampening,
                weight_decay=self.weight_decay,
                nesterov=self.nesterov,
                first=is_first,
            )


class Adam(Optimizer):
    """Steps scaled by running means of the gradient and of its square.

    ::

        g  = g + weight_decay w
        m  = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
        w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Parameters
    ----------
    params : Module, or iterable of Parameter or of (values, gradient) pairs
    lr : float
    betas : (float, float)
        Each in [0, 1).
    eps : float
        At least 0.
    weight_decay : float
        At least 0; added to the gradient, so it is scaled as well. `AdamW` decouples it.

    Notes
    -----
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    _settings = ("lr", "betas", "eps", "weight_decay")
    _state_names = ("exp_avg", "exp_avg_sq")
    _is_decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        for index, beta in enumerate(betas):
            self._check(f"betas[{index}]", beta, 0 <= beta < 1, "in [0, 1)")
        self._check("eps", eps, eps >= 0, "at least 0")
        self.betas = betas
        self.eps = eps

    def rule(self, lr: float, step: int) -> tuple[float, ...]:
        return lr, *self.betas, self.eps, self.weight_decay, step

    def step(self) -> None:
        self._state_of("exp_avg")
        self._state_of("exp_avg_sq")
        self.steps += 1
        beta1, beta2 = self.betas
        for data, grad, exp_avg, exp_avg_sq in self._together():
            ops.adam_step(
                data,
                grad,
                exp_avg,
                exp_avg_sq,
                lr=self.lr,
                beta1=beta1,
                beta2=beta2,
                eps=self.eps,
                weight_decay=self.weight_decay,
                decoupled=self._is_decoupled,
                step=self.steps,
            )


class AdamW(Adam):
    """`Adam` with the weight decay beside the step: ``w -= lr weight_decay w`` first.

    Notes
    -----
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019. Default decay
    as in torch.
    """

    _is_decoupled = True

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
