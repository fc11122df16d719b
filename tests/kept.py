"""What long runs found, so that one that was stopped goes on; it counts for these sources alone."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent


class Kept:
    """What was found so far, by name, in a file under build/.

    Parameters
    ----------
    file : path
        Under build/, if it does not say otherwise.
    again : bool
        Forget what was found before.
    """

    def __init__(self, file: str | Path, again: bool = False) -> None:
        with_what = torch.__version__, torch.backends.cpu.get_cpu_capability(), sys.version
        sha = hashlib.sha256("\n".join(with_what).encode())
        for name in ("setup.py", "pyproject.toml"):
            sha.update((ROOT / name).read_bytes())
        for folder in ("csrc", "pydenoise", "tests"):
            for path in sorted((ROOT / folder).rglob("*.*")):
                if path.is_file() and path.suffix not in (".so", ".pyc"):
                    sha.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
        self._sources = sha.hexdigest()
        self._path = ROOT / "build" / file
        kept = json.loads(self._path.read_text()) if self._path.is_file() and not again else {}
        self.found: dict[str, Any] = kept.get(self._sources, {})

    def keep(self, name: str, finding: Any) -> None:
        """Remember one."""
        self.found[name] = finding
        self._path.parent.mkdir(exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({self._sources: self.found}))
        part.replace(self._path)
