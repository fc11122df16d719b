"""Tables of README.md, each written by the script that measured it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"


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
