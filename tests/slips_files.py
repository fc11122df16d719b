"""Slips in what saves, reads, resumes and shares; see slips.py for the form."""

from __future__ import annotations

ATOMIC, SEALED = "pydenoise/atomic.py", "pydenoise/checkpoint/_sealed.py"
FOLDER, ONE = "pydenoise/checkpoint/_folder.py", "pydenoise/checkpoint/_one.py"
RUN, DIARY, STEPS = "pydenoise/run.py", "pydenoise/diary.py", "pydenoise/steps.py"
PAIRS, NEIGHBORS = "pydenoise/data/pairs.py", "pydenoise/objectives/neighbor2neighbor.py"
PNG, PICTURE = "pydenoise/data/pictures/_png.py", "pydenoise/data/pictures/_picture.py"
SIGNALS = "pydenoise/cli/signals.py"
SHARED, RANKS = "pydenoise/distributed/_steps.py", "pydenoise/distributed/_ranks.py"
WAITING = "pydenoise/distributed/_waiting.py"

TESTS = tuple(
    f"tests/test_{name}.py"
    for name in (
        *("atomic", "checkpoints", "checkpoint", "resume", "divergence", "cli_resume", "pairs"),
        *("pictures_damage", "payloads", "gaps", "neighbor2neighbor", "distributed", "waiting"),
    )
)

# fmt: off
SLIPS = [
    ("file not flushed to the disk", ATOMIC,
     "            os.fsync(file.fileno())\n", "            pass\n"),
    ("file replaced without leave", ATOMIC,
     "if target.is_dir() or (target.exists() and not overwrite):", "if target.is_dir():"),
    ("unfinished file left behind", ATOMIC,
     "            part.unlink()\n    _sync", "            pass\n    _sync"),
    ("SHA-256 of weights not compared", SEALED,
     'return digest(content, place_of_digest(content)) == words["sha256"]', "return True"),
    ("SHA-256 without what stands before it", SEALED,
     "sha = hashlib.sha256(content[:place])", "sha = hashlib.sha256()"),
    ("header of any length", SEALED, "_LARGEST_HEADER = 2**20", "_LARGEST_HEADER = 2**63"),
    ("SHA-256 of checkpoints not compared", ONE,
     'if _sealed.digest(content, place, tensors) != record["sha256"]:', "if not place:"),
    ("SHA-256 of checkpoints without their tensors", SEALED,
     "        sha.update(each)\n", "        pass\n"),
    ("one checkpoint kept", FOLDER, "_KEPT = 2", "_KEPT = 1"),
    ("the best checkpoint dropped", FOLDER, "        if best is not None:\n",
     "        if best is None:\n"),
    ("checkpoints ahead of the newest left", FOLDER,
     "[step for step in known if step > newest]", "[]"),
    ("the oldest checkpoint for the newest", FOLDER, "sorted(steps, reverse=True)",
     "sorted(steps)"),
    ("a new run over another's checkpoints", FOLDER, "        if self._entries():\n",
     "        if False:\n"),
    ("average not restored", RUN, "            self._averaged.restart()\n",
     "            pass\n"),
    ("rate after a rollback forgotten", RUN,
     'self._factor, self._rollbacks = float(state["factor"])',
     "self._factor, self._rollbacks = 1.0"),
    ("epoch begun anew", RUN, 'int(state["epoch"]), int(state["epoch_start"])',
     'int(state["epoch"]), checkpoint.step'),
    ("steps of the optimizer forgotten", RUN, 'state.setdefault(index, {})["step"] = steps',
     'state.setdefault(index, {})["step"] = 1'),
    ("another run gone on with", RUN, "        if differing:\n", "        if False:\n"),
    ("data not looked at", "pydenoise/configuration.py",
     '"data": terms.pairs.fingerprint(),', '"data": "",'),
    ("loss of half an epoch forgotten", DIARY,
     'self._epoch_loss = float(state["epoch_loss"])', "self._epoch_loss = 0.0"),
    ("log not cut", DIARY, "        with new_file(self._log, overwrite=True) as file:\n",
     "        with open(self._log, 'ab') as file:\n"),
    ("batches of a resumed epoch from its first", STEPS,
     "range(taken * size, len(order), size)", "range(0, len(order), size)"),
    ("cells drawn by place in the batch", NEIGHBORS,
     "self._numbers = iter(numbers)", "self._numbers = count()"),
    ("ranks weighed alike", SHARED,
     "self._share = len(own) / pictures", "self._share = 1 / self._ranks.size"),
    ("a bucket summed too early", SHARED, "ends[started] <= self._heard", "ends[started] <= 99"),
    ("a shard left out", SHARED, "-(-shards // ranks.size)", "shards // ranks.size"),
    ("shards added up as they were computed", SHARED,
     "self._gradient.zero_()\n        self._own", "pass\n        self._own"),
    ("a wish of others not heard", SHARED, "wish.hear(count > 0)",
     "wish.hear(wish.own())"),
    ("other data on a rank not seen", "pydenoise/configuration.py",
     "        if differing:\n            raise", "        if False:\n            raise"),
    ("ranks that work long not waited for", RANKS, "            meeting.wait()\n",
     "            pass\n"),
    ("no sign of life given", WAITING, 'self._board.add(f"beat/{self._rank}", 1)', "pass"),
    ("nothing kept when a rank is lost", RUN, "and self._step > self._saved_step:", "and False:"),
    ("hot pixels taken for the picture", "pydenoise/data/gaps.py",
     "valid = ~far if valid is None else valid & ~far", "pass"),
    ("code in a course file run", PAIRS, "weights_only=True", "weights_only=False"),
    ("PNG's checks not compared", PNG,
     'if zlib.crc32(kind + body) != struct.unpack_from(">I", content, end)[0]:', "if False:"),
    ("exit code of another signal", SIGNALS,
     "return 128 + (self.number or signal.SIGTERM)", "return 130"),
]
# fmt: on
