"""Tables of README.md, each written by the script that measured it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
MEASURED = ("csrc", "pydenoise", "setup.py")


def fill(name: str, text: str) -> bool:
    """Put the text between README.md's markers of that name; False where it has none."""
    path = ROOT / "README.md"
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        return False
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return True


def table(titles: list[str], rows: list[list[str]]) -> str:
    """As markdown, all columns but the first to the right."""
    lines = [f"| {' | '.join(row)} |" for row in (titles, *rows)]
    lines.insert(1, "| --- |" + " ---: |" * (len(titles) - 1))
    return "\n".join(lines)


def commit() -> str:
    """The commit measured, marked where the package has changes beside it; COMMIT where there is
    no .git to ask."""

    def git(*words: str) -> str:
        asked = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return asked.stdout.strip()

    changed = git("status", "--porcelain", "--", *MEASURED)
    known = git("rev-parse", "--short", "HEAD") or os.environ.get("COMMIT", "unknown")
    return known + ("-dirty" if changed else "")
