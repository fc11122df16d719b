"""One checkpoint of a training run: tensors, and JSON with all else, whose SHA-256 is over both."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydenoise.checkpoint import _sealed

if TYPE_CHECKING:
    from torch import Tensor

_FORMAT_VERSION = 1
_LARGEST_JSON = 2**28


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or gone on from; one line, with the cure."""


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two of its steps.

    Attributes
    ----------
    step : int
        Steps taken.
    score : float or None
        How good the network was found to be, the more the better; None where nobody measured.
    configuration : dict
        What decides over the run's numbers, as JSON can hold it.
    state : dict
        Where the run is, as JSON can hold it.
    versions : dict of str to str
        Of what the run has been computed with.
    tensors : dict of str to Tensor
        `weights.*`, `average.*` where weights are averaged, and the optimizer's `optimizer.*`.
    ends_epoch : bool
        Whether no epoch is half done.
    sha256 : str
        Of the files that it came from, as they say.
    """

    step: int
    score: float | None
    configuration: dict[str, Any]
    state: dict[str, Any]
    versions: dict[str, str]
    tensors: dict[str, Tensor] = field(repr=False)
    ends_epoch: bool = False
    sha256: str = ""

    @property
    def weights(self) -> dict[str, Tensor]:
        """Those to denoise with: averaged where there is an average."""
        return self.part("average.") or self.part("weights.")

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of a kind, by their names behind its prefix."""
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def to_bytes(self) -> bytes:
        """All of it, as it can be sent: the contents of its two files."""
        return b"\n".join(serialized(self))

    @classmethod
    def from_bytes(cls, content: bytes) -> Checkpoint:
        """The checkpoint that `to_bytes` was called of.

        Raises
        ------
        CheckpointError
            When it came damaged.
        """
        content, _, tensors = content.partition(b"\n")
        try:
            return _checkpoint(record_of(content), content, tensors)
        except _sealed.Damaged as error:
            raise CheckpointError(f"a checkpoint came damaged (it has {error})") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint by its JSON.

    Raises
    ------
    CheckpointError
        When a file is missing, not of a checkpoint, of a later version, or damaged in any bit.
    OSError
        When one cannot be read.
    """
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise _sealed.Damaged("more bytes than a checkpoint's JSON")
        content = path.read_bytes()
        tensors = _sealed.read(path.with_suffix(".safetensors"))
        return _checkpoint(record_of(content), content, tensors)
    except _sealed.Damaged as error:
        raise CheckpointError(
            f"{path}: is no checkpoint or is damaged (it has {error}); take another"
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"{error.filename}: no such file; check the name") from error


def serialized(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """The contents of its two files, the JSON first."""
    record = {
        "format_version": _FORMAT_VERSION,
        "step": checkpoint.step,
        "score": checkpoint.score,
        "ends_epoch": checkpoint.ends_epoch,
        "configuration": checkpoint.configuration,
        "state": checkpoint.state,
        "versions": checkpoint.versions,
    }
    tensors = _sealed.sealed(checkpoint.tensors, {})
    return _with_digest(record, tensors), tensors


def record_of(content: bytes) -> dict[str, Any]:
    """What a JSON says, not yet held against its SHA-256.

    Raises
    ------
    pydenoise.checkpoint._sealed.Damaged
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _sealed.Damaged("text that is not JSON") from error
    if not isinstance(record, dict) or not isinstance(record.get("sha256"), str):
        raise _sealed.Damaged("no sha256")
    if not content.startswith(b"{" + _sealed.DIGEST_KEY):
        raise _sealed.Damaged("a sha256 that does not come first")
    return record


def _checkpoint(record: dict[str, Any], content: bytes, tensors: bytes) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if record.get("format_version") != _FORMAT_VERSION:
        raise _sealed.Damaged(f"format version {str(record.get('format_version'))[:20]}")
    place = _sealed.place_of_digest(content)
    if _sealed.digest(content, place, tensors) != record["sha256"]:
        raise _sealed.Damaged("another SHA-256 than it says")
    kinds = {"configuration": dict, "state": dict, "versions": dict, "step": int}
    kinds["ends_epoch"] = bool
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise _sealed.Damaged(f"no {name}")
    score = record.get("score")
    if not (score is None or isinstance(score, float)):
        raise _sealed.Damaged("a score that is no number")
    try:
        state = load(tensors)
    except SafetensorError as error:
        raise _sealed.Damaged("tensors that are none") from error
    return Checkpoint(
        record["step"],
        score,
        record["configuration"],
        record["state"],
        record["versions"],
        state,
        record["ends_epoch"],
        record["sha256"],
    )


def _with_digest(record: dict[str, Any], tensors: bytes) -> bytes:
    content = json.dumps({"sha256": _sealed.NO_DIGEST, **record}, separators=(",", ":")).encode()
    place = _sealed.place_of_digest(content)
    digest = _sealed.digest(content, place, tensors)
    return content[:place] + digest.encode() + content[place + len(digest) :]
