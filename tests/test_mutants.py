"""The tool that puts slips in: each is tried alone."""

from __future__ import annotations

from pathlib import Path

import mutants
import pytest
from slips import ANY, Mutant


def test_a_slip_in_python_meets_kernels_without_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel, layer = tmp_path / "kernel.cpp", tmp_path / "layer.py"
    kernel.write_text("right")
    layer.write_text("right")
    built: list[str] = []
    met: list[tuple[str, str]] = []

    def tests(tree: Path, *_: object) -> dict[str, str]:
        met.append((built[-1], layer.read_text()))
        return {"any": "a test"}

    monkeypatch.setattr(mutants, "build", lambda tree: built.append(kernel.read_text()))
    monkeypatch.setattr(mutants, "caught_by", tests)
    for file in ("kernel.cpp", "layer.py"):
        slip = Mutant(file, file, right="right", wrong="wrong", isas=ANY)
        assert mutants.try_mutant(tmp_path, slip, ANY)
    assert met == [("wrong", "right"), ("right", "wrong")]
    assert kernel.read_text() == layer.read_text() == "right"
