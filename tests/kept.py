"""What long runs found, so that one that was stopped goes on; it counts for these sources alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class Kept:
    """What was found so far, by name, in a file under build/.

    Parameters
    ----------
    file : str
        Its name.
    again : bool
        Take none of what was found before.
    """

    def __init__(self, file: str, again: bool) -> None:
        sha = hashlib.sha256()
        for folder in ("csrc", "pydenoise", "tests"):
            for path in sorted((ROOT / folder).rglob("*.*")):
                if path.is_file() and path.suffix not in (".so", ".pyc"):
                    sha.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
        self._sources = sha.hexdigest()
        self._path = ROOT / "build" / file
        kept = json.loads(self._path.read_text()) if self._path.is_file() else {}
        self._before = kept.get(self._sources, {})
        self.found: dict[str, Any] = {} if again else dict(self._before)

    def keep(self, name: str, finding: Any) -> None:
        """Remember one."""
        self.found[name] = finding
        self._path.parent.mkdir(exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({self._sources: self._before | self.found}))
        part.replace(self._path)
