"""Break the kernels on purpose, one slip at a time, and see the tests notice.

    python tests/mutants.py [--again] [--jobs N] [--minutes M] [name ...]

The slips are in slips.py; `cuda` beside the instruction sets are the CUDA kernels, which their
tests build for the host. Works in a copy of the tree in a temporary folder. The unbroken copy has
to pass first; then each mutant is built there and the tests run once under every instruction set
of the machine, until one fails. Printed is the test that caught it. A mutant that survives under
any instruction set, or whose text is no longer found in the source, makes the exit status 1.
Verdicts are kept in build/mutants.json while the sources stay as they are, so that a run that was
stopped goes on; --again tries all anew.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import slips_files
from kept import ROOT, Kept
from slips import ANY, CONVOLUTIONS, CUDA, ISAS, LAYERS, MUTANTS, ON_HOST, POINTWISE, Mutant

NOT_COPIED = (".*", "build", "*.egg-info", "__pycache__", "*.so", "results")
LONGEST_RUN_S = 600


def copied(tree: Path) -> Path:
    """A copy of the sources to work in."""
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED))
    return tree


class NotBuilt(Exception):
    """The kernels of a tree do not compile."""


def build(tree: Path) -> None:
    """Build the kernels of a tree in place; ninja compiles what has changed."""
    environment = os.environ | {"PYDENOISE_BUILD": "cpu"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise NotBuilt(f"the build failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def available_isas(tree: Path) -> tuple[str, ...]:
    """Ask the copy, and make sure that it is the copy that answers."""
    code = (
        "from pydenoise.ops import _backend; import pydenoise._C as c; "
        "print(c.__file__); print(*_backend.available_isas())"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(
        command, cwd=tree, env=environment_of(tree), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if not Path(answer[0]).is_relative_to(tree):
        sys.exit(f"the copy in {tree} is not what Python imports, but {answer[0]}")
    return tuple(answer[1].split())


def environment_of(tree: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(tree), str(tree / "tests")])
    return os.environ | {"PYTHONPATH": paths, "PYDENOISE_BACKEND": "auto", "COLUMNS": "200"}


def caught_by(tree: Path, tests: tuple[str, ...], isas: tuple[str, ...]) -> dict[str, str]:
    """Name the first test that fails under each instruction set, and why; one under which all pass
    is not in the answer."""
    found: dict[str, str] = {}
    while left := [isa for isa in isas if isa not in found]:
        command = [sys.executable, "-m", "pytest", "-v", "--no-header", "--tb=no", "-p", "mutants"]
        command += ["-p", "no:cacheprovider", "-k", " or ".join(map(_mark, left))]
        try:
            run = subprocess.run(
                [*command, *tests],
                cwd=tree,
                env=environment_of(tree),
                capture_output=True,
                text=True,
                timeout=LONGEST_RUN_S,
            )
        except subprocess.TimeoutExpired:
            return found | dict.fromkeys(left, f"no answer in {LONGEST_RUN_S} s")
        failed = re.findall(r"^FAILED tests/(\S+)(.*)", run.stdout, re.MULTILINE)
        found |= {isa_of(test): test + reason for test, reason in failed}
        if run.returncode in (0, 1):
            break
        started = re.findall(r"^tests/(\S+::\S+)", run.stdout, re.MULTILINE)
        if run.returncode > 0 or not started:
            sys.exit(f"pytest did not run the tests:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
        found[isa_of(started[-1])] = f"{started[-1]} (crashed)"
    return found


def _mark(isa: str) -> str:
    """What the names of an instruction set's tests have in common."""
    return "" if isa in ANY else "test_cuda_" if isa in CUDA else f"cpu-{isa}"


def isa_of(test: str) -> str:
    """Find the instruction set in a test's name."""
    return next((isa for isa in (*CUDA, *ISAS) if _mark(isa) in test), *ANY)


class FirstFailures:
    """A pytest plugin: under an instruction set that has failed no more tests are run."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def pytest_runtest_protocol(self, item: Any) -> bool | None:
        return True if isa_of(item.nodeid) in self._failed else None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._failed.add(isa_of(report.nodeid))


def pytest_configure(config: Any) -> None:
    """Register the plugin where pytest was started with `-p mutants`."""
    config.pluginmanager.register(FirstFailures())


def try_mutant(tree: Path, mutant: Mutant, isas: tuple[str, ...]) -> bool:
    """Build one mutant, run the tests, put the file back; True when it was caught everywhere."""
    path = tree / mutant.file
    right = path.read_text(encoding="utf-8") if path.is_file() else ""
    if right.count(mutant.right) != 1:
        print(f"NOT FOUND  {mutant.name}: {right.count(mutant.right)} times in {mutant.file}")
        return False
    here = tuple(isa for isa in isas if isa in mutant.isas)
    path.write_text(right.replace(mutant.right, mutant.wrong), encoding="utf-8")
    started = time.perf_counter()
    try:
        build(tree)  # a slip in Python too: what is there may have the slip before it
        found = caught_by(tree, mutant.tests, here)
    except NotBuilt as error:  # which no test is asked about
        print(f"NOT BUILT  {mutant.name}: {error}")
        return False
    finally:
        path.write_text(right, encoding="utf-8")
    seconds = time.perf_counter() - started
    survived = [isa for isa in here if isa not in found]
    verdict = f"SURVIVED under {', '.join(survived)}" if survived else "caught"
    lines = [f"{verdict:<10} {mutant.name}  [{mutant.file}, {seconds:.0f} s]"]
    lines += [f"             {isa:<7} {found.get(isa, 'nothing noticed')}" for isa in here]
    print("\n".join(lines), flush=True)
    return not survived


def try_all(
    trees: list[Path], todo: list[Mutant], isas: tuple[str, ...], minutes: float, verdicts: Kept
) -> None:
    """Try mutants side by side, one in each tree, and keep the verdicts; none is begun later."""
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)
    until = time.monotonic() + 60 * minutes

    def tried(mutant: Mutant) -> bool | None:
        tree = free.get()
        try:
            return try_mutant(tree, mutant, isas) if time.monotonic() < until else None
        finally:
            free.put(tree)

    with ThreadPoolExecutor(len(trees)) as pool:
        for mutant, is_caught in zip(todo, pool.map(tried, todo), strict=True):
            if is_caught is not None:
                verdicts.keep(mutant.name, is_caught)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of mutants; all if omitted")
    parser.add_argument("--again", action="store_true", help="forget what was found before")
    parser.add_argument("--jobs", type=int, default=1, help="mutants side by side")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin none later")
    given = parser.parse_args()
    unknown = set(given.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not given.names or mutant.name in given.names]
    verdicts = Kept("mutants.json", given.again)
    with tempfile.TemporaryDirectory(prefix="pydenoise-mutants-") as folder:
        trees = [copied(Path(folder).resolve() / f"tree{job}") for job in range(given.jobs)]
        for tree in trees:
            build(tree)
        isas = (*available_isas(trees[0]), *(CUDA if shutil.which("g++") else ()), *ANY)
        whole = (*{*CONVOLUTIONS, *POINTWISE, *LAYERS, *ON_HOST},)
        failed = caught_by(trees[0], whole, isas[:-1]) | caught_by(trees[0], slips_files.TESTS, ANY)
        if failed:
            sys.exit(f"the unbroken kernels fail {', '.join(failed.values())}: nothing to show")
        print(f"unbroken   passes under {', '.join(isas[:-1])}", flush=True)
        for mutant in [mutant for mutant in chosen if not {*mutant.isas} & {*isas}]:
            print(f"skipped    {mutant.name}: here is none of {', '.join(mutant.isas)}")
            chosen.remove(mutant)
        todo = [mutant for mutant in chosen if mutant.name not in verdicts.found]
        try_all(trees, todo, isas, given.minutes, verdicts)
    tried = [mutant.name for mutant in chosen if mutant.name in verdicts.found]
    missed = [name for name in tried if not verdicts.found[name]]
    left = f", {len(chosen) - len(tried)} not tried" if len(tried) < len(chosen) else ""
    names = f"; missed: {', '.join(missed)}" if missed else ""
    print(f"{len(tried) - len(missed)} of {len(tried)} mutants caught{left}{names}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
