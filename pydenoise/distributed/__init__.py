"""Training on several processes, of one machine or many, as torchrun starts them.

torch.distributed is the engine; what is the package's own is the reduction that a backward written
by hand has to do for itself, and what a run of many has to agree on.
"""

from pydenoise.distributed._checkpoints import SharedCheckpoints
from pydenoise.distributed._ranks import (
    RankFailed,
    Ranks,
    RanksDiffer,
    RanksLost,
    connected,
)
from pydenoise.distributed._steps import BucketSteps, ShardSteps, shared_steps
from pydenoise.distributed._wish import Wish

__all__ = [
    "BucketSteps",
    "RankFailed",
    "Ranks",
    "RanksDiffer",
    "RanksLost",
    "ShardSteps",
    "SharedCheckpoints",
    "Wish",
    "connected",
    "shared_steps",
]
