"""Weights in a file that says what they are, and that is refused when any bit of it is wrong.

The header carries the network's architecture beside the SHA-256.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydenoise.atomic import new_file
from pydenoise.checkpoint import _sealed
from pydenoise.checkpoint._one import CheckpointError, load_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from pydenoise.nn import Module

PathLike: TypeAlias = str | os.PathLike[str]

FORMAT_VERSION = 1
_DTYPES_RANGE = 0.0, 1.0

_FIELDS = ("architecture", "format_version", "sha256", "trained_on", "value_range")


class WeightsError(ValueError):
    """A weights file that cannot be read or written; one line: the file, what came, the cure."""


def save_weights(
    path: PathLike,
    model: Module,
    *,
    value_range: tuple[float, float] | None = None,
    trained_on: str = "",
    half: bool = False,
    overwrite: bool = False,
) -> None:
    """Save a network's weights with what is needed to build it again.

    Parameters
    ----------
    path : path
        `.safetensors` by custom. The file appears whole or not at all.
    model : Module
        From `pydenoise.models`, which gives it its `architecture`.
    value_range : (float, float), optional
        Numbers of a file that are 0 and 1 to the network; the model's own if omitted. 0 and 1
        where they are those of the dtype's range.
    trained_on : str
        The data in words.
    half : bool
        Whether to round the weights to float16, for half the bytes; they come back as float32.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    WeightsError
        When the model names no architecture, the range is not one, a weight lies beyond float16
        that is to be rounded to it, the file exists and may not be replaced, or the folder cannot
        be written to.

    Notes
    -----
    The same weights and words give the same bytes.
    """
    path = Path(path)
    architecture = getattr(model, "architecture", None)
    if not isinstance(architecture, dict):
        raise WeightsError(
            f"{path}: the model names no architecture; build it with pydenoise.models to save it"
        )
    value_range = value_range or model.value_range or _DTYPES_RANGE
    if not _is_range(value_range):
        raise WeightsError(
            f"{path}: value_range is {value_range}; expected two numbers, low < high"
        )
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "architecture": json.dumps(architecture, sort_keys=True),
        "value_range": json.dumps([float(bound) for bound in value_range]),
        "trained_on": trained_on,
    }
    state = model.state_dict()
    if half:
        for name, values in state.items():
            if values.isfinite().all() and not values.half().isfinite().all():
                raise WeightsError(
                    f"{path}: {name} holds {values.abs().max():g}, float16 ends at 65504; "
                    "save with half=False"
                )
        state = {name: values.half() for name, values in state.items()}
    try:
        with new_file(path, overwrite=overwrite) as file:
            file.write(_sealed.sealed(state, metadata))
    except FileExistsError as error:
        raise WeightsError(
            f"{path}: exists already; choose another name, or allow overwriting"
        ) from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror or error})") from error


def load_weights(path: PathLike) -> tuple[Module, dict[str, Any]]:
    """Build the network that a weights file describes, and load its weights.

    Nothing in the file is trusted: it may be damaged, made up, or from a later version.

    Parameters
    ----------
    path : path
        Written by `save_weights`; or the JSON of a training run's checkpoint, whose averaged
        weights are taken.

    Returns
    -------
    model : Module
        New, on the CPU, in training mode as every newly built one; call `eval()` to denoise. Its
        `value_range` is that of the header, None for 0 and 1.
    header : dict
        `format_version` (int), `architecture` (dict), `value_range` (tuple of two floats),
        `trained_on` (str), `sha256` (str).

    Raises
    ------
    WeightsError
        When the file is missing, no weights file, of an unknown version, damaged in any bit, or
        describes a network that pydenoise does not know or that its weights do not fit.
    """
    path = Path(path)
    if path.suffix == ".json":
        return _of_checkpoint(path)
    content = _read(path)
    try:
        metadata = _sealed.words_of(content, _FIELDS)
    except _sealed.Damaged as error:
        raise _no_weights(path, str(error)) from error
    if metadata["format_version"] != str(FORMAT_VERSION):
        raise WeightsError(
            f"{path}: has format version {metadata['format_version'][:20]!r}; this pydenoise "
            f"reads {FORMAT_VERSION}: upgrade it, or get the file again"
        )
    if not _sealed.is_whole(content, metadata):
        raise WeightsError(f"{path}: is damaged, its SHA-256 is another; get the file again")
    header = _header(path, metadata)
    values = (len(content) - _sealed.start_of_values(content)) // 2  # that the file can hold
    model = _built(path, header, lambda: _tensors(content), values)
    return model, header


def _of_checkpoint(path: Path) -> tuple[Module, dict[str, Any]]:
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        raise WeightsError(str(error)) from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    told = checkpoint.configuration
    words = {
        "architecture": json.dumps(told.get("architecture")),
        "value_range": json.dumps(told.get("value_range") or _DTYPES_RANGE),
        "trained_on": json.dumps(told.get("pairs")),
        "sha256": checkpoint.sha256,
    }
    header = _header(path, words)
    values = sum(each.numel() for each in checkpoint.weights.values())
    return _built(path, header, lambda: checkpoint.weights, values), header


def _tensors(content: bytes) -> dict[str, Tensor]:
    from safetensors.torch import load

    return load(content)


def _read(path: Path) -> bytes:
    try:
        return _sealed.read(path)
    except _sealed.Damaged as error:
        raise _no_weights(path, str(error)) from None
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise WeightsError(f"{path}: is a folder; expected a weights file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        architecture = json.loads(metadata["architecture"])
        value_range = json.loads(metadata["value_range"])
    except (ValueError, RecursionError) as error:
        raise _no_weights(path, "an architecture or a value range that is not JSON") from error
    if not isinstance(architecture, dict):
        raise _no_weights(path, "an architecture that is no JSON object")
    if not _is_range(value_range):
        raise _no_weights(path, f"the value range {metadata['value_range'][:40]}")
    return {
        "format_version": FORMAT_VERSION,
        "architecture": architecture,
        "value_range": (float(value_range[0]), float(value_range[1])),
        "trained_on": metadata["trained_on"],
        "sha256": metadata["sha256"],
    }


def _built(
    path: Path, header: dict[str, Any], tensors: Callable[[], dict[str, Tensor]], values: int
) -> Module:
    """The network of a header, with the tensors of a file that can hold so many values."""
    import torch
    from safetensors import SafetensorError

    from pydenoise import models

    architecture = header["architecture"]
    try:
        state = tensors()
        if _fewest_weights(architecture) > values:
            raise ValueError(f"{architecture} needs more than the {values} values in the file")
        model = models.build(architecture)
        if {tensor.dtype for tensor in state.values()} == {torch.float64}:
            model.to(dtype=torch.float64)
        model.load_state_dict(state)
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{path}: describes no network that fits its weights ({reason}); "
            "upgrade pydenoise, or save the weights anew"
        ) from error
    if header["value_range"] != _DTYPES_RANGE:
        model.value_range = header["value_range"]
    return model


def _fewest_weights(architecture: dict[str, Any]) -> int:
    """A lower bound that costs no memory: channels next to each other share a weight matrix."""
    fewest = 0
    for value in architecture.values():
        counts = value if isinstance(value, list) else [value]
        if all(isinstance(count, int) for count in counts):
            neighbours = pairwise(counts)
            fewest = max([fewest, *counts, *(a * b for a, b in neighbours)])
    return fewest


def _is_range(bounds: Any) -> bool:
    return (
        isinstance(bounds, tuple | list)
        and len(bounds) == 2
        and all(isinstance(bound, int | float) and math.isfinite(bound) for bound in bounds)
        and bounds[0] < bounds[1]
    )


def _no_weights(path: Path, found: str) -> WeightsError:
    return WeightsError(
        f"{path}: is no weights file of pydenoise or is damaged (it has {found}); "
        "get the file again, or save the weights with pydenoise.checkpoint.save_weights"
    )
