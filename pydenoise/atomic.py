"""Files that are there whole or not at all.

Pictures, weights and plots are written through here: beside their place first, then moved in one
step, so that neither a crash nor a full disk leaves half a file or harms the one before.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_PART = re.compile(r"\.[0-9a-f]{16}\.part")


@contextmanager
def new_folder(path: Path, *unfinished: str) -> Iterator[None]:
    """A folder made at once, so that a place one may not write to shows before the work.

    Where the work fails, the files named `unfinished` are removed, and with them a folder that
    was made here, unless it holds anything else.
    """
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for name in unfinished:
                (path / name).unlink(missing_ok=True)
            if is_new:
                path.rmdir()
        raise


@contextmanager
def new_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A new binary file, which appears under `path` when the block ends without error.

    Parameters
    ----------
    path : path
        Where the file shall be; its folder exists. A symbolic link is followed.
    overwrite : bool
        Whether an existing file may be replaced; it keeps its permissions.

    Yields
    ------
    binary file
        Open for writing and reading. After the block it is flushed to the disk and moved to
        `path`; if the block raises, it is removed and `path` is as it was.

    Raises
    ------
    FileExistsError
        When `path` exists and may not be replaced, found before the block or at its end.
    OSError
        When the folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir() or (target.exists() and not overwrite):
        raise FileExistsError(str(path))
    part = target.parent / f".{secrets.token_hex(8)}.part"
    try:
        with open(part, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _permit(part, target)
        if overwrite:
            os.replace(part, target)
        else:
            _move_to_free_name(part, target)
    except OSError as error:
        if error.errno is not None:  # from the system, which knows the other name or none
            error.filename = str(path)
        raise
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
    _sync_folder(target.parent)


def part_files(folder: Path) -> list[Path]:
    """What unfinished files a process left in a folder that was killed while it wrote them."""
    if not folder.is_dir():
        return []
    return [entry for entry in folder.iterdir() if _PART.fullmatch(entry.name)]


def _permit(part: Path, target: Path) -> None:
    """The permissions of the file that is replaced, or those of any new file."""
    if target.exists():
        part.chmod(target.stat().st_mode & 0o777)


def _move_to_free_name(part: Path, target: Path) -> None:
    """Move without replacing what another process may have put there meanwhile."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise FileExistsError(str(target)) from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(str(target)) from None
        os.replace(part, target)


def _sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
