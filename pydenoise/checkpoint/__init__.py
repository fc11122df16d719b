"""Safe files: weights, and training runs to go on with.

safetensors for numbers and JSON for words, so that loading runs no code; sealed with SHA-256, so
that a file damaged in any bit is refused; written whole or not at all.
"""

from pydenoise.checkpoint._folder import Checkpoints, CheckpointWarning
from pydenoise.checkpoint._one import Checkpoint, CheckpointError
from pydenoise.checkpoint._weights import FORMAT_VERSION, WeightsError, load_weights, save_weights

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "CheckpointError",
    "CheckpointWarning",
    "Checkpoints",
    "WeightsError",
    "load_weights",
    "save_weights",
]
