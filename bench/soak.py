"""The long tests of what the package promises, one after the other; RESULTS.md gets their figures.

    python bench/soak.py [NAME ...] [--again]

Each result is kept in bench/results/soak.json when it is there; a soak that was stopped goes on
with what is missing or was measured on other code. --again measures all anew.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any, NamedTuple

import tables

from pydenoise import benchmark

RESULTS = tables.RESULTS / "soak.json"


class Promise(NamedTuple):
    """What is promised, and the command that tries it; it says its figures on its last lines."""

    name: str
    words: str
    command: tuple[str, ...]
    keeps: bool = False
    """Whether it goes on where it was stopped; `--again` has it begin anew."""
    lines: int = 2
    """How many of the last ones hold the figures."""


PROMISES = (
    Promise(
        "kernels",
        "kernels against float64, im2col exact, adjoints to 1e-12",
        ("tests/random_kernels.py", "20000", "--adjoints", "2000"),
    ),
    Promise("kills", "kill -9 in training and in saves, resumed", ("tests/kills.py", "200")),
    Promise(
        "ranks",
        "kill -9 of one of the processes that train together",
        ("tests/rank_kills.py", "100"),
        keeps=True,
    ),
    Promise("damage", "damaged files of every kind", ("tests/damage.py", "5000")),
    Promise("hostile", "strange arguments to the binding", ("tests/hostile.py", "100000")),
    Promise("sanitizers", "ASan, UBSan, TSan; libFuzzer on the kernels", ("tests/sanitize.py",)),
    Promise(
        "mutants",
        "slips put in on purpose, and noticed",
        ("tests/mutants.py", "--jobs", "2"),
        keeps=True,
        lines=1,
    ),
)


def commit() -> str | None:
    """The commit measured; None, which is like no other, with changes beside it."""
    asked = ["git", "status", "--porcelain", "--", *tables.MEASURED, "tests"]
    changed = subprocess.run(asked, cwd=tables.ROOT, capture_output=True, text=True, check=False)
    return None if changed.stdout.strip() else tables.commit()


def tried(promise: Promise, again: bool) -> dict[str, Any]:
    """Run a command; its verdict, what it said last, and how long it took."""
    began = time.monotonic()
    anew = ["--again"] if again and promise.keeps else []
    done = subprocess.run(
        [sys.executable, *promise.command, *anew],
        cwd=tables.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    return {
        "words": promise.words,
        "is_kept": done.returncode == 0,
        "said": done.stdout.strip().splitlines()[-promise.lines :],
        "minutes": (time.monotonic() - began) / 60,
        "commit": commit(),
    }


def told(results: dict[str, dict[str, Any]]) -> str:
    """A row for each promise."""
    where = benchmark.environment()
    rows = []
    for promise in PROMISES:
        found = results.get(promise.name)
        command = f"`python {' '.join(promise.command)}`"
        if found is None or found["words"] != promise.words:
            rows.append([promise.words, command, "not run", "", ""])
            continue
        verdict = ("" if found["is_kept"] else "FAILED: ") + "; ".join(found["said"])
        rows.append(
            [
                promise.words,
                command,
                verdict,
                f"{found['minutes']:.0f}",
                found["commit"] or "changed",
            ]
        )
    titles = ["promise", "command", "figures", "minutes", "commit"]
    return f"{where['cpu']}; torch {where['torch']}.\n\n{tables.table(titles, rows)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [promise.name for promise in PROMISES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no such promise: {', '.join(sorted(unknown))}")
    results: dict[str, dict[str, Any]] = {}
    if RESULTS.is_file():
        results = json.loads(RESULTS.read_text())
    for promise in PROMISES:
        if promise.name not in (options.names or names):
            continue
        kept = results.get(promise.name, {})
        if not options.again and kept.get("is_kept") and kept["commit"] == commit():
            continue
        print(f"--- {promise.words}", flush=True)
        results[promise.name] = tried(promise, options.again)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    tables.fill("soak", told(results))
    failed = [name for name, found in results.items() if not found["is_kept"]]
    print("all kept" if not failed else f"not kept: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
