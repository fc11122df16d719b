"""Kill one of the processes that train together, at random moments, and go on with others.

    python tests/rank_kills.py [COUNT] [--seed SEED] [--sabotage fast] [--again] [--kept FILE]

Two to four processes train; one is killed. The others have to end within a minute, each saying why,
and the newest checkpoint has to be readable. The run is resumed by one to four processes until it
gets to its end: then weights and log, but for the times, have to be those of one process that
nobody killed. A sabotaged run adds gradients up in no fixed order, and has to be found out: then
the exit status is 1, as for any fault. What was found is kept, in build/rank_kills.json or FILE,
while the sources stay as they are, so that runs that were stopped go on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import ranks
from kept import Kept
from kills import OPTIONS, TIMES, pictures

from pydenoise.checkpoint import CheckpointError, Checkpoints

TOGETHER = [2, 3, 4]
QUICKLY = 60.0
PATIENCE = 8.0  # less than usual, for whoever connects with one that is dead already
SAID = ("was killed or cannot be reached", " ended: ", "did not find each other")


def result(out: Path) -> tuple[str, list[dict[str, Any]]]:
    """What a finished run left, times left out."""
    weights = sha256((out / "model.safetensors").read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return weights, [{key: line[key] for key in line.keys() - TIMES} for line in lines]


def faults_of_kill(out: Path, dead: int, outcomes: list[ranks.Outcome]) -> list[str]:
    """What is wrong behind a kill."""
    found = []
    is_over = dead != 0 and outcomes[0].result and outcomes[0].result[0] == 0
    for rank, outcome in enumerate(outcomes):
        if rank == dead:
            continue
        code, _, heard = outcome.result or (None, "", "")
        if outcome.code == -9:
            found.append(f"rank {rank} was still there after {outcome.seconds:.0f} s")
        elif is_over:
            continue
        elif code != 0 and not any(words in heard for words in SAID):
            found.append(f"rank {rank} ended with {code} when {dead} was killed: {heard}")
    try:
        Checkpoints(out / "checkpoints").newest()
    except CheckpointError as error:
        found.append(f"unreadable: {error}")
    return found


class Found(NamedTuple):
    """Of one run that was killed and resumed until its end: how often it was killed, the seconds
    until the last of the others was gone, at the most, and what was wrong."""

    kills: int
    slowest: float
    faults: list[str]


def killed_and_resumed(
    out: Path, words: list[str], whole: Any, lasts: float, numbers: random.Random
) -> Found:
    """One run; the first fault ends it.

    Parameters
    ----------
    out : Path
        Its folder, not there yet.
    words : list of str
        The command.
    whole : tuple
        The result of a run that nobody killed.
    lasts : float
        How long that took, in seconds.
    numbers : random.Random
        Say when who is killed.
    """
    kills = 0
    slowest = 0.0
    found: list[str] = []
    is_whole = False
    while not found and not is_whole:
        size = numbers.choice([1, *TOGETHER]) if out.exists() else numbers.choice(TOGETHER)
        team = ranks.Team(size, ranks.commanded, [*words, "-o", str(out)], PATIENCE)
        dead = numbers.randrange(size)
        time.sleep(numbers.uniform(0, 1.1) * lasts)
        was_alive = team.processes[dead].is_alive()
        ranks.kill(team.processes[dead])
        at = time.monotonic()
        outcomes = team.outcomes(at - team.began + QUICKLY)
        if was_alive and outcomes[dead].code == -9:
            kills += 1
            slowest = max(slowest, time.monotonic() - at)
            found = faults_of_kill(out, dead, outcomes)
        elif {each.result and each.result[0] for each in outcomes} != {0}:
            found = [f"nobody was killed, it ended with {outcomes}"]
        is_whole = (out / "model.safetensors").exists()
        if is_whole and result(out) != whole:
            found.append("not the weights or the log of a run that nobody killed")
    return Found(kills, slowest, found)


def kill_and_resume(count: int, seed: int, options: list[str], kept: Kept) -> list[Found]:
    """Kill so often; what was found of each run."""
    runs: list[Found] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["train", str(pictures(folder / "pictures")), *options, "--resume"]
        for each in ("first", "whole"):  # the first also starts what the processes fork from
            began = time.monotonic()
            code, _, heard = ranks.alone(ranks.commanded, [*words, "-o", str(folder / each)])
            if code:
                sys.exit(heard)
            lasts = time.monotonic() - began
        whole = result(folder / "whole")
        while sum(run.kills for run in runs) < count:
            key = f"{' '.join(options)}, seed {seed}, run {len(runs)}"
            if key not in kept.found:
                out, numbers = folder / f"run{len(runs)}", random.Random(key)
                kept.keep(key, killed_and_resumed(out, words, whole, lasts, numbers))
            runs.append(Found(*kept.found[key]))
            said = [f"run {len(runs)}: {runs[-1].kills} kills", *runs[-1].faults]
            print(*said, sep="\n  ", file=sys.stderr, flush=True)
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", choices=["fast"])
    parser.add_argument("--again", action="store_true", help="forget what was kept")
    parser.add_argument("--kept", type=Path, default=Path("rank_kills.json"))
    given = parser.parse_args()
    options = OPTIONS if given.sabotage else [*OPTIONS, "--deterministic"]
    runs = kill_and_resume(given.count, given.seed, options, Kept(given.kept, given.again))
    faults = [f"run {index}: {fault}" for index, run in enumerate(runs, 1) for fault in run.faults]
    slowest = max(run.slowest for run in runs)
    for fault in faults:
        print(fault)
    print(f"the last of the others was gone {slowest:.1f} s behind a kill, at the most")
    kills = sum(run.kills for run in runs)
    print(f"{kills} kills of one rank, {len(runs)} runs to the end, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
