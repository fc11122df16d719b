"""Record what ptxas gives every CUDA kernel: registers, stack and spills, for each architecture.

    python bench/registers.py

Compiles what has changed and writes bench/results/registers.json; the exit status is 1 when a
kernel keeps registers in memory.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "csrc" / "cuda"))
import nvcc  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "registers.json"


def readable(names: list[str]) -> dict[str, str]:
    """Kernels by the names that the source gives them, where c++filt is there to tell."""
    if shutil.which("c++filt") is None:
        return {name: name for name in names}
    done = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True)
    plain = (
        re.sub(r"^void |pydenoise::cuda::|\(anonymous namespace\)::", "", line)
        for line in done.stdout.splitlines()
    )
    plain = (re.sub(r"(^\w+|>)\(.*", r"\1", line) for line in plain)
    return dict(zip(names, plain, strict=True))


def main() -> int:
    compiler = nvcc.find()
    if compiler is None:
        sys.exit("nvcc was not found; set CUDA_HOME or PATH")
    with tempfile.TemporaryDirectory() as folder:
        nvcc.build(compiler, Path(folder) / "_cuda.so")
    found = nvcc.usages()
    names = readable(sorted({usage.kernel for usage in found}))
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    kernels: dict[str, dict[str, dict[str, int]]] = {}
    for usage in sorted(found, key=lambda usage: (names[usage.kernel], int(usage.architecture))):
        kernels.setdefault(names[usage.kernel], {})[f"sm_{usage.architecture}"] = {
            "registers": usage.registers,
            "stack_bytes": usage.stack_bytes,
            "spill_bytes": usage.spill_bytes,
        }
    table = {"nvcc": version.stdout.splitlines()[-2], "kernels": kernels}
    RESULTS.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for name, by_architecture in kernels.items():
        registers = [f"{use['registers']:>4}" for use in by_architecture.values()]
        print(f"{name:<70} {''.join(registers)}")
    spilling = [usage for usage in found if usage.spill_bytes > 0]
    for usage in spilling:
        print(f"{names[usage.kernel]} spills {usage.spill_bytes} bytes on sm_{usage.architecture}")
    return 1 if spilling else 0


if __name__ == "__main__":
    sys.exit(main())
