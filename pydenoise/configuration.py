"""What a training run is about: which decides whether two runs are the same."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pydenoise import ops
from pydenoise.checkpoint import Checkpoint
from pydenoise.data.pairs import sha256_of
from pydenoise.distributed import Ranks, RanksDiffer
from pydenoise.nn import Module
from pydenoise.objectives import Objective
from pydenoise.optim import Optimizer, Schedule

if TYPE_CHECKING:
    from pydenoise.data import PairSource

_SCHEDULE_LOOKED_AT = 16


@dataclass(frozen=True)
class Terms:
    """What a run is about; `pydenoise.training.train` tells of each."""

    model: Module
    pairs: PairSource
    epochs: int
    batch_size: int
    optimizer: Optimizer
    schedule: Schedule
    objective: Objective
    validation: tuple[Tensor, Tensor] | None
    average: float
    seed: int
    time_limit: float | None
    rollbacks: int
    ranks: Ranks
    shards: int

    @property
    def steps_of_epoch(self) -> int:
        """The last one may see fewer pairs."""
        return math.ceil(len(self.pairs) / self.batch_size)


def configuration(terms: Terms) -> dict[str, Any]:
    """All that decides over a run's numbers, as JSON gives it back."""
    (group,) = terms.optimizer.state_dict()["param_groups"]
    looked_at = [i / _SCHEDULE_LOOKED_AT for i in range(_SCHEDULE_LOOKED_AT)]
    told = {
        "architecture": terms.model.architecture or repr(terms.model),
        "dtype": str(next(terms.model.parameters()).data.dtype),
        "value_range": terms.model.value_range,
        "pairs": terms.pairs.describe(),
        "data": terms.pairs.fingerprint(),
        "validation": terms.validation and sha256_of(x.cpu().numpy() for x in terms.validation),
        "objective": terms.objective.describe(),
        "optimizer": {"kind": type(terms.optimizer).__name__, **group},
        "schedule": [terms.schedule(progress) for progress in looked_at],
        "epochs": terms.epochs,
        "batch_size": terms.batch_size,
        "average": terms.average,
        "seed": terms.seed,
        "time_limit": terms.time_limit,
        **({"shards": terms.shards} if terms.shards else {}),
        **({"origin": terms.model.origin} if terms.model.origin else {}),
    }
    found: dict[str, Any] = {}
    for name, value in told.items():
        try:
            found[name] = json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"train: checkpoints keep the run's {name} as JSON, which cannot hold it: {error}"
            ) from error
    return found


def _plain(value: Any) -> Any:
    """A number of NumPy's or torch's as Python's."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no number and no text")


def check_state(checkpoint: Checkpoint, model: Module, terms: Terms) -> None:
    """Refuse a state that no run was ever in, whoever wrote it.

    Raises
    ------
    LookupError, TypeError, ValueError
    """
    state, step = checkpoint.state, checkpoint.step
    steps, wanted = state["plan"]["steps"], terms.epochs * terms.steps_of_epoch
    order = 0, state["epoch_start"], step, steps, wanted
    if list(order) != sorted(order) or not 0 < state["factor"] <= 1:
        raise ValueError("its numbers contradict each other")
    if not 0 <= state["epoch"] <= terms.epochs or state["rollbacks"] < 0:
        raise ValueError("its epoch or its rollbacks are out of range")
    if bool(terms.average) != bool(checkpoint.part("average.")):
        raise ValueError("its averaged weights are missing, or too many")
    for kind in ("weights.", "average."):
        dtypes = {tensor.dtype for tensor in checkpoint.part(kind).values()}
        if dtypes - {next(model.parameters()).data.dtype}:
            raise ValueError(f"its {kind[:-1]} are of another dtype")
    for record in state["diary"]["history"]:
        if not (isinstance(record, dict) and {"epoch", "step", "lr", "loss"} <= record.keys()):
            raise ValueError("its history is none")


def versions(terms: Terms) -> dict[str, str]:
    """What a run is computed with."""
    from pydenoise import __version__

    weights = next(terms.model.parameters()).data
    is_many = terms.ranks.size > 1 and not terms.shards
    return {
        "pydenoise": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": weights.device.type,
        **{name: str(value) for name, value in ops.running().items()},
        **({"ranks": str(terms.ranks.size)} if is_many else {}),
    }


def check_alike(terms: Terms) -> None:
    """See that all ranks have the same run before them, and the same code to run it with.

    Raises
    ------
    RanksDiffer
        On all of them, and in words.
    """
    own = {
        "code": _code(),
        "rollbacks": terms.rollbacks,
        "torch's kernels": torch.backends.cpu.get_cpu_capability(),
        **versions(terms),
        **configuration(terms),
    }
    terms.ranks.assemble()  # data may have taken its time
    first, *others = terms.ranks.gathered(own)
    for rank, told in enumerate(others, 1):
        differing = differences(first, told)
        if differing:
            raise RanksDiffer(
                f"rank {rank} was not started as rank 0 was ({'; '.join(differing)}); give all "
                "processes the same code, data and options, and instruction set (PYDENOISE_ISA, "
                "ATEN_CPU_CAPABILITY)"
            )


def _code() -> str:
    """SHA-256 of the package's source."""
    package = Path(__file__).parent
    files = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    sha = hashlib.sha256("\n".join(files).encode())
    for file in files:
        sha.update((package / file).read_bytes())
    return sha.hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words; of two structures of which one may be made up."""
    words = []
    for name in dict.fromkeys([*now, *before]):
        was, is_now = before.get(name), now.get(name)
        if was == is_now:
            continue
        if isinstance(was, dict) and isinstance(is_now, dict):
            words += [f"{name} {each}" for each in differences(was, is_now)]
        else:
            words.append(f"{name} was {_short(was)}, is {_short(is_now)}")
    return words


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
