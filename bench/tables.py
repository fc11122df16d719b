"""Tables of README.md and RESULTS.md, each written by the script that measured it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "bench" / "RESULTS.md")
MEASURED = ("csrc", "pydenoise", "setup.py")


def fill(name: str, text: str) -> None:
    """Put the text between the markers of that name, in the document that has them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    for path in DOCUMENTS:
        before, found, rest = path.read_text(encoding="utf-8").partition(begin)
        _, closed, after = rest.partition(end)
        if found and closed:
            path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {name} filled")
            return
    raise SystemExit(f"no markers of {name} in {' or '.join(path.name for path in DOCUMENTS)}")


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
