"""The CUDA kernels, run on the host, on memory whose neighbours nobody may touch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from on_host import Kernels

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.skipif(os.name != "posix", reason="pages are fenced with mprotect")
def test_nothing_beyond_a_tensor_is_touched(kernels: Kernels) -> None:
    command = [sys.executable, "-m", "tests.fenced", "cuda", str(kernels.module.__file__)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    last = done.stdout.splitlines()[-1:]
    assert (done.returncode, last) == (0, ["everything stayed inside"]), done.stderr[-2000:]
