"""Kill one of the processes that train together, at random moments, and go on with others.

    python tests/rank_kills.py [COUNT] [--seed SEED] [--sabotage fast]

Two to four processes train; one is killed. The others have to end within a minute, each saying why,
and the newest checkpoint has to be readable. The run is resumed by one to four processes until it
gets to its end: then weights and log, but for the times, have to be those of one process that
nobody killed. A sabotaged run adds gradients up in no fixed order, and has to be found out: then
the exit status is 1, as for any fault.
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
from typing import Any

import ranks
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
        if rank == dead or is_over:
            continue
        code, _, heard = outcome.result or (None, "", "")
        if outcome.code == -9:
            found.append(f"rank {rank} was still there after {outcome.seconds:.0f} s")
        elif code != 0 and not any(words in heard for words in SAID):
            found.append(f"rank {rank} ended with {code} when {dead} was killed: {heard}")
    try:
        Checkpoints(out / "checkpoints").newest()
    except CheckpointError as error:
        found.append(f"unreadable: {error}")
    return found


def kill_and_resume(count: int, seed: int, options: list[str], folder: Path) -> tuple[int, ...]:
    """Kill so often; how often it was done, runs that came to their end, and faults."""
    numbers = random.Random(seed)
    words = ["train", str(pictures(folder / "pictures")), *options, "--resume"]
    began = time.monotonic()
    code, _, heard = ranks.alone(ranks.commanded, [*words, "-o", str(folder / "whole")])
    if code:
        sys.exit(heard)
    whole = result(folder / "whole")
    lasts = time.monotonic() - began
    killed = runs = faults = 0
    slowest = 0.0
    while killed < count:
        out = folder / f"run{runs}"
        while True:
            size = numbers.choice([1, *TOGETHER]) if out.exists() else numbers.choice(TOGETHER)
            team = ranks.Team(size, ranks.commanded, [*words, "-o", str(out)], PATIENCE)
            dead = numbers.randrange(size)
            time.sleep(numbers.random() * 2 * lasts)
            was_alive = team.processes[dead].is_alive()
            ranks.kill(team.processes[dead])
            at = time.monotonic()
            outcomes = team.outcomes(QUICKLY)
            slowest = max(slowest, time.monotonic() - at)
            if was_alive and outcomes[dead].code == -9:
                killed += 1
                found = faults_of_kill(out, dead, outcomes)
            else:
                ends = {each.result and each.result[0] for each in outcomes}
                found = [] if ends == {0} else [f"nobody was killed, it ended with {outcomes}"]
            is_whole = (out / "model.safetensors").exists()
            if is_whole and result(out) != whole:
                found.append(f"{out.name}: not the weights or the log of a run that nobody killed")
            for fault in found:
                print(f"kill {killed}: {fault}", flush=True)
            faults += len(found)
            if found or is_whole:
                break
        runs += 1
    print(f"the last of the others was gone {slowest:.1f} s behind a kill, at the most")
    return killed, runs, faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sabotage", choices=["fast"])
    given = parser.parse_args()
    options = OPTIONS if given.sabotage else [*OPTIONS, "--deterministic"]
    with tempfile.TemporaryDirectory() as folder:
        killed, runs, faults = kill_and_resume(given.count, given.seed, options, Path(folder))
    print(f"{killed} kills of one rank, {runs} runs to the end, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
