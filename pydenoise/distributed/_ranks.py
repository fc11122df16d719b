"""The processes of a run, as each of them sees the others.

torch.distributed carries what they say, torchrun starts them. What is told is JSON, checkpoints and
gradients; nothing is pickled.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from pydenoise.distributed._waiting import LOST, Meeting, until, within
from pydenoise.launch import Launched, launched

PATIENCE = 25.0
"""Seconds after which a rank that does not answer within a step, or gives no sign of life while all
work apart, is taken for lost."""

ASSEMBLY = 1800.0
"""Seconds that ranks wait for each other before the first step, while pictures are read."""

_ROLL_CALL, _FAREWELL = 3.0, 6.0  # who hears of a loss from the first alone still calls the roll


class RanksLost(RuntimeError):
    """Other processes of the run have ended, or cannot be reached any more."""


class RankFailed(RuntimeError):
    """The first process of the run could not do what all wait for."""


class RanksDiffer(ValueError):
    """The processes of the run were not started alike."""


class Pending(Protocol):
    """A sum under way."""

    def wait(self) -> Any:
        """Return when it is there."""


class _Done:
    def wait(self) -> None:
        """Nothing was to be waited for."""


class Ranks:
    """The processes that train together; of this class where there is only one.

    Attributes
    ----------
    rank, size : int
        Number of this process, from 0, and of all.
    is_connected : bool
        Whether torch.distributed is between them.
    has_begun : bool
        Whether torchrun has started them again, and their run was begun before.
    """

    rank = 0
    size = 1
    is_connected = False
    has_begun = False

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def begin(self) -> None:
        """Remember, for when torchrun starts all again, that the run is begun."""

    def assemble(self) -> None:
        """Wait for all, long."""

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Scope of work that may take one rank longer than the others; they wait behind it, as
        long as it gives signs of life."""
        yield

    def told_bytes(self, find: Callable[[], bytes]) -> bytes:
        """What the first rank finds, on all.

        Raises
        ------
        Exception
            What `find` raises; on the other ranks a `RankFailed` with its words.
        """
        return find()

    def told(self, find: Callable[[], Any]) -> Any:
        """`told_bytes` of what JSON can hold."""
        return json.loads(self.told_bytes(lambda: json.dumps(find()).encode()))

    def gathered(self, value: Any) -> list[Any]:
        """What every rank says, by rank; JSON can hold it."""
        return [value]

    def start_sum(self, tensor: Tensor) -> Pending:
        """Begin to put the sum over the ranks in the place of a gradient, contiguous, where the
        model lies; all ranks begin theirs in one order."""
        return _Done()

    def summed(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the ranks, in float64."""
        return list(numbers)

    def stacked(self, own: Tensor) -> Tensor:
        """The tensors of all ranks, of one shape, by rank: (size, ...)."""
        return own[None]


class Group(Ranks):
    """Several processes, or one that was started as if it were several; see `connected`."""

    is_connected = True

    def __init__(self, store: Store, told: Launched) -> None:
        self.rank, self.size = told.rank, told.size
        # torchrun's store outlives its workers
        self._store = PrefixStore(f"pydenoise/{told.restarts}", store)
        self._of_launch = PrefixStore("pydenoise", store)
        self.has_begun = told.restarts > 0 and self._of_launch.check(["begun"])
        self._under_way: WeakSet[_Watched] = WeakSet()
        self._gone: list[int] = []
        self._meetings = 0
        self._store_answers = True

    def meet(self, device: torch.device, patience: timedelta) -> None:
        """Connect with the others, for a model on a device."""
        dist.init_process_group(
            "gloo", store=self._store, rank=self.rank, world_size=self.size, timeout=patience
        )
        within_steps = timedelta(seconds=PATIENCE)
        self._words = self._gradients = dist.new_group(backend="gloo", timeout=within_steps)
        if device.type == "cuda":
            if device.index is not None:
                torch.cuda.set_device(device)
            self._gradients = dist.new_group(backend="nccl", timeout=within_steps)

    def begin(self) -> None:
        self._of_launch.set("begun", "")

    def assemble(self) -> None:
        with self._talking():
            dist.monitored_barrier(self._words, timedelta(seconds=ASSEMBLY))

    @contextmanager
    def apart(self) -> Iterator[None]:
        self._meetings += 1
        name = f"meeting/{self._meetings}"
        meeting = Meeting(self._store, self.rank, self.size, name, PATIENCE)
        with meeting.beating():
            yield
        with self._talking():
            meeting.wait()
        self.summed([0.0])  # nobody looks at the store any more, which the first may take with it
        with self._talking():
            meeting.clear()

    def told_bytes(self, find: Callable[[], bytes]) -> bytes:
        error: Exception | None = None
        answer = b""
        with self.apart():
            if self.is_first:
                try:
                    answer = b"+" + find()
                except Exception as raised:
                    error, answer = raised, b"-" + str(raised).encode()
        with self._talking():
            length = torch.tensor([len(answer)])
            dist.broadcast(length, 0, group=self._words)
            content = torch.empty(int(length), dtype=torch.uint8)
            if self.is_first:
                content = torch.frombuffer(bytearray(answer), dtype=torch.uint8)
            dist.broadcast(content, 0, group=self._words)
        if error is not None:
            raise error
        told = content.numpy().tobytes()
        if told.startswith(b"-"):
            raise RankFailed(f"rank 0: {told[1:].decode()}")
        return told[1:]

    def gathered(self, value: Any) -> list[Any]:
        own = json.dumps(value).encode()
        with self._talking():
            lengths = self._all(torch.tensor([len(own)]))
            padded = torch.zeros(max(map(int, lengths)), dtype=torch.uint8)
            padded[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8)
            contents = self._all(padded)
        return [
            json.loads(content[: int(length)].numpy().tobytes())
            for content, length in zip(contents, lengths, strict=True)
        ]

    def start_sum(self, tensor: Tensor) -> Pending:
        with self._talking():
            work = dist.all_reduce(tensor, group=self._gradients, async_op=True)
        watched = _Watched(work, self._talking)
        self._under_way.add(watched)
        return watched

    def summed(self, numbers: Sequence[float]) -> list[float]:
        sums = torch.tensor(numbers, dtype=torch.float64)
        with self._talking():
            dist.all_reduce(sums, group=self._words)
        return sums.tolist()

    def stacked(self, own: Tensor) -> Tensor:
        rows = own.new_empty((self.size, *own.shape))
        group = self._gradients if own.is_cuda else self._words
        with self._talking():
            dist.all_gather(list(rows), own.contiguous(), group=group)
        return rows

    def leave(self, error: BaseException) -> None:
        """Leave, with word for the others why; the first stays a moment, so that they hear it."""
        reason = " ".join(str(error).split())[:300]

        def say_why() -> None:
            self._store.set(f"left/{self.rank}", reason)
            self._store.set(LOST, "")

        self._ask(_FAREWELL, say_why)
        within(_FAREWELL, self._hang_up)
        if self.is_first:
            others = [rank for rank in range(1, self.size) if rank not in self._gone]

            def have_heard() -> bool:
                return all(self._is_told(rank, "heard", "left") for rank in others)

            self._ask(2 * _FAREWELL, lambda: until(have_heard, _FAREWELL))

    def _ask(self, seconds: float, act: Callable[[], object]) -> None:
        """Do something with the store, unless it has let a question wait before."""
        self._store_answers = self._store_answers and within(seconds, act)

    def _is_told(self, rank: int, *words: str) -> bool:
        """Whether a rank has left one of these words in the store."""
        return any(self._store.check([f"{word}/{rank}"]) for word in words)

    def _hang_up(self) -> None:
        """Close the lines, which whatever is under way keeps open, so that who waits hears it."""
        for each in self._under_way:
            each.drop()
        self.__dict__.pop("_words", None)
        self.__dict__.pop("_gradients", None)
        if dist.is_initialized():
            dist.destroy_process_group()

    def _all(self, own: Tensor) -> list[Tensor]:
        every = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(every, own, group=self._words)
        return every

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Scope in which what torch.distributed raises means that somebody is lost."""
        try:
            yield
        except RuntimeError as error:
            self._lost(error)

    def _lost(self, error: RuntimeError) -> NoReturn:
        traceback.clear_frames(error.__traceback__)  # they hold what was under way
        self.is_connected = False
        self._ask(_ROLL_CALL, lambda: self._store.set(LOST, ""))
        within(_FAREWELL, self._hang_up)  # at once, so that the others call the roll with us
        raise RanksLost(self._missing(" ".join(str(error).split())[:200])) from error

    def _missing(self, reason: str) -> str:
        """Who does not answer any more, in words; the reason given where all do."""
        answers: list[str] = []
        self._ask(4 * _ROLL_CALL, lambda: self._call_the_roll(answers, reason))
        # what all are asked through lies with the first rank, or on its host
        return answers[0] if answers else "rank 0 was killed or cannot be reached"

    def _call_the_roll(self, answers: list[str], reason: str) -> None:
        others = [rank for rank in range(self.size) if rank != self.rank]

        def are_known() -> bool:
            return all(self._is_told(rank, "here", "left") for rank in others)

        self._store.set(f"here/{self.rank}", "")
        beats = [self._store.add(f"beat/{rank}", 0) for rank in range(self.size)]
        until(are_known, _ROLL_CALL)
        self._gone = [
            rank
            for rank in others  # who works apart does not hear, but shows signs of life
            if not self._is_told(rank, "here") and self._store.add(f"beat/{rank}", 0) == beats[rank]
        ]
        said = [
            f"rank {rank} ended: {self._store.get(f'left/{rank}').decode()}"
            if self._is_told(rank, "left")
            else f"rank {rank} was killed or cannot be reached"
            for rank in self._gone
        ]
        answers.append(", ".join(said) or f"the connection between the ranks broke ({reason})")
        self._store.set(f"heard/{self.rank}", "")


class _Watched:
    """A sum under way whose failure means that somebody is lost."""

    def __init__(self, work: dist.Work, talking: Callable[[], Any]) -> None:
        self._work: dist.Work | None = work
        self._talking = talking

    def wait(self) -> None:
        """Return when it is there."""
        with self._talking():
            if self._work is not None:
                self._work.wait()

    def drop(self) -> None:
        """Wait for it no more."""
        self._work = None


@contextmanager
def connected(device: torch.device) -> Iterator[Ranks]:
    """Scope in which the processes that torchrun started know each other.

    Parameters
    ----------
    device : torch.device
        Where the model lies: gradients go through gloo in main memory and through nccl on GPUs.

    Yields
    ------
    Ranks
        One alone where torchrun started none.

    Raises
    ------
    RanksLost
        When some do not come.
    """
    told = launched()
    if told is None:
        yield Ranks()
        return
    # torchrun itself ends all when one dies; other launchers may leave the rest waiting for it
    patience = timedelta(seconds=ASSEMBLY if dist.is_torchelastic_launched() else PATIENCE)
    try:
        store, rank, size = next(iter(rendezvous("env://", timeout=patience)))
    except (RuntimeError, ValueError) as error:
        raise _never_met(error) from error
    group = Group(store, told._replace(rank=rank, size=size))
    try:
        try:
            group.meet(device, patience)
        except RuntimeError as error:
            raise _never_met(error) from error
        yield group
    except BaseException as error:
        group.leave(error)
        raise
    dist.destroy_process_group()


def _never_met(error: Exception) -> RanksLost:
    said = " ".join(str(error).split())[:200]
    return RanksLost(
        f"the processes did not find each other: {said}; look at the address and port of the "
        "first, and at GLOO_SOCKET_IFNAME where a host has several networks"
    )
