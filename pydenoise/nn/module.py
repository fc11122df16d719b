"""Module: the base of all layers, and the stack between its forward and its backward.

A layer keeps what its backward needs on its own stack; there is no graph. Modules are read and
changed as torch users know it, but nothing here is torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from pydenoise import memory

from .parameter import FlatParameters, Parameter, copy_into
from .window import EVERYTHING, Window

OPEN_ENTRIES = 64
"""Forward passes that a layer keeps before it takes the missing backward for a mistake."""

_nothing_is_kept: ContextVar[bool] = ContextVar("pydenoise_no_backward", default=False)


@contextmanager
def no_backward() -> Iterator[None]:
    """Scope in which layers keep nothing for a backward pass; a context variable.

    Examples
    --------
    >>> import torch, pydenoise
    >>> model = pydenoise.models.autoencoder(seed=0)
    >>> with pydenoise.no_backward():
    ...     output = model(torch.rand(1, 3, 32, 32))
    """
    token = _nothing_is_kept.set(True)
    try:
        yield
    finally:
        _nothing_is_kept.reset(token)


def keeps_entries() -> bool:
    """False inside `no_backward`."""
    return not _nothing_is_kept.get()


class LoadedKeys(NamedTuple):
    """Names that `load_state_dict(strict=False)` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


_NEW = object()
_Self = TypeVar("_Self", bound="Module")


class Module:
    """Base of all layers and networks.

    A subclass defines `forward`, which returns only its output, and `backward`, which takes dL/d of
    the newest output not yet gone back through, adds to the gradients of the parameters and returns
    dL/dinput. Modules assigned to attributes become children, as in torch.

    Attributes
    ----------
    training : bool
        Whether forward keeps what backward needs; changed by `train` and `eval`.
    architecture : dict or None
        What `pydenoise.models.build` makes the same network from.
    predicts_noise : bool
        Whether what comes out is the noise of what went in, not the picture.
    size_multiple : int
        Heights and widths that the network takes are multiples of it.
    value_range : (float, float) or None
        Numbers of a file that are 0 and 1 to the network; None: the range of their dtype.
    origin : str or None
        SHA-256 of the weights that it was told to learn on with, which a resumed run must have in
        common; None: nothing is said.
    """

    training: bool = True
    architecture: dict[str, Any] | None = None
    predicts_noise: bool = False
    size_multiple: int = 1
    value_range: tuple[float, float] | None = None
    origin: str | None = None
    changes: ClassVar[int] = 0  # of any module's children, methods or settings, so far
    _is_ours: bool = True
    _children: dict[str, Module]
    _parameters: dict[str, Parameter | None]
    _entries: list[tuple[torch.Size, torch.dtype, tuple[Any, ...]]]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls._is_ours = cls.__module__.partition(".")[0] == __name__.partition(".")[0]

    def __init__(self) -> None:
        self._children = {}
        self._parameters = {}
        self._entries = []

    def forward(self, *args: Any, **keywords: Any) -> Any:
        """Output of the module; what backward needs is kept, in training mode."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def backward(self, *args: Any, **keywords: Any) -> Any:
        """dL/dinput from dL/doutput of the newest open forward pass; gradients are added."""
        raise TypeError(f"{type(self).__name__} defines no backward")

    def backward_parameters(self, grad_output: Tensor) -> None:
        """`backward` where nobody wants dL/dinput, which layers that can then skip."""
        self.backward(grad_output)

    def __call__(self, *input: Tensor) -> Any:
        return self.forward(*input)

    def _keep(self, output: Tensor, *saved: Any) -> None:
        """Open an entry on the stack, unless nothing is kept now."""
        if not self.training or _nothing_is_kept.get():
            return
        entries = self._entries
        if len(entries) >= OPEN_ENTRIES:
            raise RuntimeError(
                f"{self}: {OPEN_ENTRIES} forward passes are waiting for their backward; "
                "use eval() or pydenoise.no_backward() where none follows, zero_grad() to drop them"
            )
        entries.append((output.shape, output.dtype, saved))

    def _recall(self, grad_output: Tensor | None) -> tuple[Any, ...]:
        """Take the newest entry off the stack; a gradient that does not fit leaves it there."""
        entries = self._entries
        if not entries:
            hint = "call forward before each backward"
            if not self.training:
                hint = "the layer is in eval mode, which keeps nothing; call train() before forward"
            elif _nothing_is_kept.get():
                hint = "pydenoise.no_backward() is active, in which layers keep nothing"
            raise RuntimeError(
                f"{self}: backward without a forward pass to go back through; {hint}"
            )
        output_size, dtype, saved = entries[-1]
        if grad_output is not None:
            if grad_output.dtype != dtype:
                raise TypeError(f"{self}: grad_output must be {dtype}, got {grad_output.dtype}")
            if grad_output.shape != output_size:
                raise ValueError(
                    f"{self}: grad_output must have the shape of the output, {tuple(output_size)}; "
                    f"got {tuple(grad_output.shape)}"
                )
        entries.pop()
        return saved

    def forget(self) -> None:
        """Drop what forward passes have kept, in this module and all below."""
        self._entries.clear()
        for child in self._children.values():
            child.forget()

    def stays_inside(self) -> bool:
        """Whether the package alone sees the tensors between the layers, so that they may recycle.

        A class or function of the user's, anywhere in the tree, may keep a pointer to its input.
        """
        return self._is_ours and all(map(Module.stays_inside, self._children.values()))

    def reads(self, window: Window, axis: int) -> Window:
        """Window of the input's rows (axis 0) or columns (1) that one of the output depends on."""
        return EVERYTHING

    def register_parameter(self, name: str, data: Tensor | None) -> None:
        """Make `self.<name>` a learnt tensor with a gradient; None says that there is none."""
        self._parameters[name] = None if data is None else Parameter(data, name=name)
        self.__dict__[name] = data
        Module.changes += 1

    def add_module(self, name: str, module: Module) -> None:
        """Make a module a child under a name of its own."""
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: child {name!r} must be a pydenoise.nn.Module, "
                f"got {type(module).__module__}.{type(module).__name__}"
            )
        if "_children" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__}: call super().__init__() before {name!r}")
        self._children[name] = module
        Module.changes += 1
        if not name.isdecimal():
            self.__dict__[name] = module

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Module):
            self.add_module(name, value)
        elif name in self.__dict__.get("_parameters", ()):
            self._assign(name, value)
        else:
            if name in self.__dict__.get("_children", ()):
                del self._children[name]
            if name in ("forward", "backward"):
                self.__dict__["_is_ours"] = False
            before = getattr(self, name, _NEW)
            if before is not value:
                object.__setattr__(self, name, value)
                Module.changes += before is not _NEW

    def _assign(self, name: str, value: Any) -> None:
        parameter = self._parameters[name]
        where = f"{type(self).__name__}.{name}"
        if parameter is None:
            raise TypeError(f"{where}: the layer was made without it, so it cannot be assigned")
        copy_into(parameter.data, value, where)

    def children(self) -> Iterator[Module]:
        """Modules directly below."""
        yield from self._children.values()

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) for this module and all below, each module once."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self._children.items():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below, each once."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter) as in the keys of `state_dict`, each parameter once."""
        for prefix, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield f"{prefix}.{name}" if prefix else name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """All parameters, first layer first."""
        for _, parameter in self.named_parameters():
            yield parameter

    def param(self) -> list[tuple[Tensor, Tensor]]:
        """(values, gradient) of each parameter; empty for a layer without any."""
        return [(parameter.data, parameter.grad) for parameter in self.parameters()]

    def zero_grad(self) -> None:
        """Set all gradients to zero and drop what forward passes have kept."""
        self.forget()
        for parameter in self.parameters():
            parameter.grad.zero_()

    def train(self: _Self, mode: bool = True) -> _Self:
        """Keep what backward needs from now on; returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: _Self) -> _Self:
        """Keep nothing from now on; returns the module."""
        return self.train(False)

    def flatten(self) -> FlatParameters:
        """Move all parameters into two flat buffers, unless they lie there already.

        Returns
        -------
        FlatParameters
            `data` and `grad`, 1-d, sharing memory with every parameter: last layer first, so that
            a backward pass fills `grad` from its start.

        Raises
        ------
        ValueError
            For a module without parameters, or with several dtypes or devices.
        """
        parameters = list(self.parameters())[::-1]
        if not parameters:
            raise ValueError(f"{type(self).__name__} has no parameters to flatten")
        data = [parameter.data for parameter in parameters]
        grad = [parameter.grad for parameter in parameters]
        flat_data, flat_grad = memory.joined(data), memory.joined(grad)
        if flat_data is None or flat_grad is None:
            flat_data, flat_grad = memory.join(data), memory.join(grad)
        return FlatParameters(flat_data, flat_grad)

    def to(self: _Self, *where: Any, device: Any = None, dtype: torch.dtype | None = None) -> _Self:
        """Move parameters and gradients to a device, a dtype or both; returns the module.

        Parameters
        ----------
        *where : torch.dtype, torch.device, str or Tensor
            As in torch; a tensor stands for its dtype and device.

        Raises
        ------
        TypeError
            For a dtype other than float32 and float64, or an argument of another kind.
        """
        for argument in where:
            if isinstance(argument, torch.dtype):
                dtype = argument
            elif isinstance(argument, Tensor):
                dtype, device = argument.dtype, argument.device
            elif isinstance(argument, (str, int, torch.device)):
                device = argument
            else:
                raise TypeError(f"to: expected a dtype, a device or a tensor, got {argument!r}")
        if dtype not in (None, torch.float32, torch.float64):
            raise TypeError(f"to: parameters are float32 or float64, got {dtype}")
        moved = False
        for pair in self.param():
            for tensor in pair:
                target = tensor.to(device=device, dtype=dtype)
                if target is not tensor:
                    tensor.data = target  # same object, other memory
                    moved = True
        if moved:
            self.forget()
            self.flatten()
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Dotted name -> values, sharing memory with the parameters, as in torch."""
        return {name: parameter.data.detach() for name, parameter in self.named_parameters()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True) -> LoadedKeys:
        """Copy values into the parameters; nothing is changed where anything does not fit.

        Parameters
        ----------
        state_dict : mapping of str to Tensor
            As `state_dict` of the same network, or of the same `torch.nn.Sequential`, gives it.
        strict : bool
            Whether missing and unexpected names are errors.

        Returns
        -------
        LoadedKeys
            The names passed over; both lists empty if strict.

        Raises
        ------
        RuntimeError
            Listing every missing name, unexpected name and wrong shape.
        """
        own = dict(self.named_parameters())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        faults = []
        for kind, names in (("Unexpected", unexpected), ("Missing", missing)):
            if strict and names:
                quoted = ", ".join(f'"{name}"' for name in names)
                faults.append(f"{kind} key(s) in state_dict: {quoted}.")
        for name in (name for name in own if name in state_dict):
            value, parameter = state_dict[name], own[name]
            if not isinstance(value, Tensor):
                faults.append(f"{name} is a {type(value).__name__}, expected a tensor.")
            elif value.shape != parameter.data.shape:
                faults.append(
                    f"size mismatch for {name}: shape {tuple(value.shape)} in the state_dict, "
                    f"{tuple(parameter.data.shape)} in the model."
                )
        if faults:
            lines = "\n\t".join(faults)
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{lines}"
            )
        for name in own.keys() - set(missing):
            own[name].data = state_dict[name]
        return LoadedKeys(missing, unexpected)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_entries": []}

    def apply(self: _Self, function: Callable[[Module], object]) -> _Self:
        """Call a function with every module below, children first, then this; returns it."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def extra_repr(self) -> str:
        """What stands between the brackets of the layer's name."""
        return ""

    def __repr__(self) -> str:
        if not self._children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"({name}): {child!r}" for name, child in self._children.items()]
        body = "\n".join(lines).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"
