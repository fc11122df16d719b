"""safetensors files whose header holds a SHA-256 of the whole file, itself included as 64 zeros.

Nothing in a file is trusted: it may be damaged, made up, or of a later version.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NO_DIGEST = "0" * 64
DIGEST_KEY = b'"sha256":"'  # in a string value its quotes would be escaped, so it occurs once
_LENGTH_SIZE = 8
_LARGEST_HEADER = 2**20


class Damaged(ValueError):
    """What a file has that no whole one would, in words that follow "it has"."""


def sealed(state: dict[str, Tensor], words: dict[str, str]) -> bytes:
    """A file of tensors and words, `sha256` among them; the same ones give the same bytes."""
    content = _serialized(state, {**words, "sha256": NO_DIGEST})
    place = place_of_digest(content)
    return content[:place] + digest(content, place).encode() + content[place + len(NO_DIGEST) :]


def place_of_digest(content: bytes) -> int:
    """Where the 64 characters of the SHA-256 begin."""
    return content.index(DIGEST_KEY) + len(DIGEST_KEY)


def digest(content: bytes, place: int, *behind: bytes) -> str:
    """SHA-256 of a file, the 64 bytes from `place` on counted as the character 0, and of what
    belongs to it."""
    sha = hashlib.sha256(content[:place])
    sha.update(NO_DIGEST.encode())
    sha.update(memoryview(content)[place + len(NO_DIGEST) :])
    for each in behind:
        sha.update(each)
    return sha.hexdigest()


def is_whole(content: bytes, words: dict[str, str]) -> bool:
    """Whether a file's SHA-256 is the one that its words give."""
    return digest(content, place_of_digest(content)) == words["sha256"]


def read(path: Path) -> bytes:
    """A file, read once, so that what is checked is what is used; its header's length checked.

    Raises
    ------
    Damaged, OSError
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_LENGTH_SIZE)
        length = int.from_bytes(start, "little")
        if len(start) < _LENGTH_SIZE or not 2 <= length <= min(
            size - _LENGTH_SIZE, _LARGEST_HEADER
        ):
            raise Damaged(f"a header of {length} bytes in {size}")
        return start + file.read()


def words_of(content: bytes, fields: Sequence[str]) -> dict[str, str]:
    """The header's own words, all there and all text.

    Raises
    ------
    Damaged
    """
    text = content[_LENGTH_SIZE : start_of_values(content)]
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged("a header that is not JSON") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise Damaged("a header without metadata")
    for field in fields:
        if not isinstance(metadata.get(field), str):
            raise Damaged(f"a header without {field}")
    if text.count(DIGEST_KEY) != 1:
        raise Damaged("a header that does not hold its sha256 once")
    return metadata


def start_of_values(content: bytes) -> int:
    """Where the tensors' values begin."""
    return _LENGTH_SIZE + int.from_bytes(content[:_LENGTH_SIZE], "little")


def _serialized(state: dict[str, Tensor], words: dict[str, str]) -> bytes:
    """A safetensors file; its header sorted, since the library's own order varies."""
    from safetensors.torch import save

    saved = save({name: values.cpu().contiguous().clone() for name, values in state.items()}, words)
    start = start_of_values(saved)
    header = json.loads(saved[_LENGTH_SIZE:start])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH_SIZE)
    return len(text).to_bytes(_LENGTH_SIZE, "little") + text + saved[start:]
