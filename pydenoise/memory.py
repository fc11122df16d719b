"""Where tensors come from: fresh ones, recycled ones, and the flat buffers of parameters.

`empty` is the one place in the package that creates tensors for results, and it counts them. Inside
`recycling()` it hands out tensors again that nobody holds any more; outside, every one is fresh.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from sys import getrefcount
from types import TracebackType

import torch
from torch import Tensor

__all__ = [
    "allocations",
    "clear",
    "copy",
    "empty",
    "format_of",
    "is_pooled",
    "is_recycling",
    "join",
    "joined",
    "pooled_bytes",
    "private",
    "recycling",
]

IDLE_BYTES = 256 * 2**20
"""What a thread's pool may keep of tensors that its latest two scopes had no use for."""

# How many tensors look into a storage. torch has no public name for it; without it, `_Slot` goes by
# the references alone, which miss a view.
_owners: Callable[[int], int] = getattr(torch._C, "_storage_Use_Count", lambda storage: 0)

_lock = threading.Lock()
_created = 0


def allocations() -> int:
    """Count of tensors created by `empty` in this process, all threads together.

    Returns
    -------
    int
        A recycled tensor does not count; the difference of two readings is what was created.
    """
    return _created


class _Slot:
    """A pooled tensor, and how one sees that nobody uses it."""

    __slots__ = ("address", "owners_at_rest", "storage", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.storage = tensor.untyped_storage()
        self.address = self.storage._cdata
        self.owners_at_rest = _owners(self.address)

    def references(self) -> int:
        return getrefcount(self.tensor)


_REFERENCES_AT_REST = _Slot(torch.empty(0)).references()


class _Shelf:
    """All pooled tensors of one kind, in use or not, and the scope that last asked for one."""

    __slots__ = ("slots", "turn")

    def __init__(self) -> None:
        self.slots: list[_Slot] = []
        self.turn = 0

    def nbytes(self) -> int:
        return sum(slot.tensor.nbytes for slot in self.slots)


class _Pool:
    """A thread's pooled tensors, and how deep in `recycling` scopes the thread is."""

    __slots__ = ("depth", "has_grown", "shelves", "turn")

    def __init__(self) -> None:
        self.depth = 0
        self.turn = 0
        self.has_grown = False
        self.shelves: dict[tuple[object, ...], _Shelf] = {}

    def take(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        memory_format: torch.memory_format,
    ) -> Tensor:
        key: tuple[object, ...] = (shape, dtype, memory_format)
        if device is not _CPU and device != _CPU:
            key += (device, _stream(device))
        shelf = self.shelves.get(key)
        if shelf is None:
            shelf = self.shelves[key] = _Shelf()
        shelf.turn = self.turn
        for slot in shelf.slots:
            # Free is one to which its slot holds the only reference, and into which no view looks.
            if (
                getrefcount(slot.tensor) == _REFERENCES_AT_REST
                and _owners(slot.address) == slot.owners_at_rest
            ):
                return slot.tensor
        slot = _Slot(_create(shape, dtype, device, memory_format))
        shelf.slots.append(slot)
        self.has_grown = True
        return slot.tensor

    def end_turn(self) -> None:
        """Drop what lies idle, the longest unused first, down to `IDLE_BYTES`."""
        if self.has_grown:
            self.has_grown = False
            idle = [
                (shelf.turn, key, shelf.nbytes())
                for key, shelf in self.shelves.items()
                if shelf.turn < self.turn - 1
            ]
            excess = sum(nbytes for _, _, nbytes in idle) - IDLE_BYTES
            for _, key, nbytes in sorted(idle, key=lambda entry: entry[0]):
                if excess <= 0:
                    break
                del self.shelves[key]
                excess -= nbytes
        self.turn += 1


def _stream(device: torch.device) -> int:
    """The next user of a tensor must wait for the last one: work on one stream does."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


class _Pools(threading.local):
    """One for each thread; a plain object, because every look into this one takes its time."""

    def __init__(self) -> None:
        self.own = _Pool()


_pools = _Pools()
_CPU = torch.device("cpu")


def empty(
    shape: Iterable[int],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Create a tensor with undefined contents, or hand out a recycled one.

    Parameters
    ----------
    shape : iterable of int
        Sizes, none negative.
    dtype : torch.dtype, optional
        torch's default dtype if omitted.
    device : torch.device or str, optional
        The CPU if omitted.
    memory_format : torch.memory_format
        `torch.contiguous_format` or, for four dimensions, `torch.channels_last`.

    Returns
    -------
    Tensor
        Dense, never requiring a gradient. Fresh outside `recycling()`; inside, possibly one that
        was in use before and that nobody else holds.
    """
    if not isinstance(shape, tuple):
        shape = tuple(shape)
    if dtype is None:
        dtype = torch.get_default_dtype()
    if device is None:
        device = _CPU
    elif not isinstance(device, torch.device):
        device = torch.device(device)
    pool = _pools.own
    create = pool.take if pool.depth else _create
    return create(shape, dtype, device, memory_format)


def _create(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    memory_format: torch.memory_format,
) -> Tensor:
    global _created
    with _lock:
        _created += 1
    if torch.is_inference_mode_enabled():
        # Its tensors cannot be written once the mode has ended, and ours may live longer.
        with torch.inference_mode(False):
            return torch.empty(shape, dtype=dtype, device=device, memory_format=memory_format)
    return torch.empty(shape, dtype=dtype, device=device, memory_format=memory_format)


def format_of(tensor: Tensor) -> torch.memory_format:
    """The memory format that a result takes over; a tensor that fits both counts as contiguous."""
    if tensor.is_contiguous() or not tensor.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def copy(tensor: Tensor, memory_format: torch.memory_format) -> Tensor:
    """Dense copy in a memory format, in a tensor from `empty`."""
    result = empty(
        tensor.shape, dtype=tensor.dtype, device=tensor.device, memory_format=memory_format
    )
    return result.copy_(tensor.detach())


class recycling:
    """Scope in which `empty` hands out again what nobody holds any more.

    Notes
    -----
    A pooled tensor is free when its pool holds the only reference to it and no view looks into its
    memory: the interpreter's and torch's own counts say so. Nothing has to be given back, so
    nothing can be given back too early: what a layer keeps for its backward pass is held by the
    layer's stack until that pass has taken it off.

    A bare pointer counts for nothing. So a scope is opened only around code of this package, and
    only for tensors that stay inside: what a public call returns is made outside any scope.

    Scopes nest; pools are per thread. A pool keeps what its thread's latest two outermost scopes
    used (a forward and a backward pass), and at most `IDLE_BYTES` beside it.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        _pools.own.depth += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pool = _pools.own
        pool.depth -= 1
        if not pool.depth:
            pool.end_turn()


def is_recycling() -> bool:
    """True inside a scope of `recycling` that the calling thread has opened."""
    return _pools.own.depth > 0


def is_pooled(tensor: Tensor) -> bool:
    """True for the very object that the calling thread's pool has handed out."""
    shelves = _pools.own.shelves.values()
    return any(slot.tensor is tensor for shelf in shelves for slot in shelf.slots)


def pooled_bytes() -> int:
    """Bytes of all that the calling thread's pool has handed out and not let go of."""
    return sum(shelf.nbytes() for shelf in _pools.own.shelves.values())


@contextmanager
def private() -> Iterator[object]:
    """Scope in which the calling thread recycles out of a pool that no other scope shares.

    Whoever holds what the ``with`` statement gives keeps all tensors that were handed out inside.
    """
    shared, _pools.own = _pools.own, _Pool()
    try:
        yield _pools.own
    finally:
        _pools.own = shared


def clear() -> None:
    """Let go of all pooled tensors of the calling thread; those in use stay valid."""
    _pools.own.shelves.clear()


def join(tensors: Sequence[Tensor]) -> Tensor:
    """Move tensors into one flat buffer, in the order given; each becomes a view into it.

    Parameters
    ----------
    tensors : sequence of Tensor
        At least one, of one dtype and device. The same objects afterwards look into the new
        buffer, contiguous and with their values kept, so whoever holds one goes on using it.
        Views of them made before keep looking at the old memory.

    Returns
    -------
    Tensor
        1-d, the values of all tensors one after the other.

    Raises
    ------
    ValueError
        For no tensors, or mixed dtypes or devices.
    """
    kinds = {(tensor.dtype, tensor.device) for tensor in tensors}
    if len(kinds) != 1:
        names = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds)) or "no tensors"
        raise ValueError(f"join: expected tensors of one dtype and device, got {names}")
    ((dtype, device),) = kinds
    flat = empty((sum(tensor.numel() for tensor in tensors),), dtype=dtype, device=device)
    start = 0
    for tensor in tensors:
        view = flat[start : start + tensor.numel()].view(tensor.shape)
        view.copy_(tensor)
        tensor.data = view  # same object, other memory
        start += tensor.numel()
    return flat


def joined(tensors: Sequence[Tensor]) -> Tensor | None:
    """View of all tensors as one, where they lie back to back in one buffer.

    Parameters
    ----------
    tensors : sequence of Tensor
        In the order in which they are expected to lie, as `join` leaves them.

    Returns
    -------
    Tensor or None
        1-d, sharing their memory; None where they are not neighbours, not contiguous, or empty.
    """
    tensors = [tensor for tensor in tensors if tensor.numel()]
    if not tensors:
        return None
    first = tensors[0]
    storage = first.untyped_storage().data_ptr()
    expected = first.data_ptr()
    for tensor in tensors:
        if (
            tensor.dtype != first.dtype
            or tensor.device != first.device
            or not tensor.is_contiguous()
            or tensor.data_ptr() != expected
            or tensor.untyped_storage().data_ptr() != storage
        ):
            return None
        expected += tensor.nbytes
    count = sum(tensor.numel() for tensor in tensors)
    return first.as_strided((count,), (1,), first.storage_offset())
