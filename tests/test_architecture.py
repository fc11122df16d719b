"""The rules of the house that a compiler does not keep.

Who may import whom, what never occurs as code, what an import may do to the process, and that the
kernels build without torch and without Python. Python is read as a syntax tree, so a docstring may
name what the code may not.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slips import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pydenoise"
CSRC = ROOT / "csrc"

# Room -> the rooms it may import. A room not listed has no place in the house yet.
KERNELS = {"memory", "ops"}
NETWORK = KERNELS | {"nn", "models", "optim", "playback", "objectives"}
LEAVES = {"atomic", "data", "metrics", "checkpoint", "report", "diagnosis"}
OF_A_RUN = {"configuration", "diary", "divergence", "run"}
METHODS = {"inference", "builtin", "zero_shot", "classic"}
PUBLIC = NETWORK | LEAVES | METHODS | {"training", "denoiser", "distributed", "comparison"}
MAY_IMPORT = {
    "memory": set(),
    "ops": {"memory"},
    "nn": KERNELS,
    "models": KERNELS | {"nn"},
    "optim": KERNELS | {"nn"},
    "playback": KERNELS | {"nn"},
    "objectives": KERNELS | {"nn", "models", "optim", "playback", "data"},  # data's random streams
    "atomic": set(),
    "data": {"atomic"},
    "metrics": set(),
    "report": {"atomic"},
    "diagnosis": set(),
    "checkpoint": {"atomic", "nn", "models"},  # a weights file holds the network's description
    "launch": set(),
    "distributed": NETWORK | LEAVES | {"launch", "steps"},
    "meter": set(),
    "diary": {"atomic"},
    "divergence": {"nn"},
    "batches": {"data"},
    "steps": NETWORK | LEAVES | {"batches", "divergence", "launch"},
    "device_steps": NETWORK | LEAVES | {"divergence", "steps"},
    "configuration": NETWORK | LEAVES | {"distributed"},
    "run": NETWORK
    | LEAVES
    | {"distributed", "configuration", "diary", "divergence", "inference", "steps"},
    "training": NETWORK | LEAVES | {"batches", "distributed", "steps", "device_steps", *OF_A_RUN},
    "tiles": {"memory", "meter", "nn"},
    "inference": NETWORK | LEAVES | {"meter", "tiles"},
    "scale": {"data", "inference"},
    "builtin": {"nn", "models", "data", "checkpoint", "inference", "meter", "scale"},
    "zero_shot": NETWORK | LEAVES | {"divergence", "inference", "meter", "scale"},
    "classic": set(),
    "comparison": LEAVES | METHODS,
    "denoiser": NETWORK | LEAVES | {"training", "inference", "builtin", "zero_shot"},
    "ee559": PUBLIC,
    "benchmark": PUBLIC,
    "demo": PUBLIC,
    "cli": PUBLIC | {"ee559", "batches", "benchmark", "demo", "launch", "tiles"},
    "__main__": {"cli"},
}
MAY_PRINT = {"cli"}
MEASURES_TORCH = {"benchmark"}

# Attributes of the torch module that differentiate or convolve for us.
FORBIDDEN_TORCH = {"nn", "autograd", "func", "enable_grad", "set_grad_enabled"}
TORCH_LAYERS = {"conv2d", "conv_transpose2d", "convolution", "max_pool2d", "avg_pool2d", "ops"}

MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "bench").glob("*.py"))
HEADERS = sorted(CSRC.rglob("*.h"))
SOURCES = sorted(CSRC.rglob("*.cpp"))
PIECES = sorted(CSRC.rglob("*.inl"))  # included into a source, incomplete alone
CUDA = sorted(CSRC.rglob("*.cu*"))
COMPILE_ALONE = [path for path in HEADERS + SOURCES + CUDA if not path.name.startswith("bindings")]
HOST_CUDA = sorted((ROOT / "tests" / "cuda_on_host").iterdir())  # stands in for CUDA's headers
CODE = [*MODULES, *SCRIPTS, *HEADERS, *SOURCES, *PIECES, *CUDA, *HOST_CUDA, *CSRC.rglob("*.py")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    """`pydenoise/ops/_chain.py` -> `ops`, `pydenoise/optim.py` -> `optim`, the top -> ``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every (line, dotted name) that a file imports, relative ones resolved, at any depth."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                source = ".".join((*package, source)).rstrip(".")
            for alias in node.names:
                yield node.lineno, f"{source}.{alias.name}"


def torch_attributes(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every (line, `x`) for `torch.x` in code, whatever name the file gave to torch."""
    aliases = {"torch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname for alias in node.names if alias.name == "torch"} - {None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in aliases:
                yield node.lineno, node.attr
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("torch."):
                    yield node.lineno, alias.name.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "torch":
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif node.module.startswith("torch."):
                yield node.lineno, node.module.split(".")[1]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )


# --- who may import whom ------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_rooms_import_only_what_lies_below(path: Path) -> None:
    room = room_of(path)
    if not room:
        pytest.skip("the top level names every room, for type checkers alone")
    assert room in MAY_IMPORT, f"{name_of(path)}: room {room!r} has no place in MAY_IMPORT"
    wrong = [
        f"line {line}: {name}"
        for line, name in imports(path)
        if name.startswith("pydenoise.")
        and name.split(".")[1] in {room_of(module) for module in MODULES}
        and name.split(".")[1] not in MAY_IMPORT[room] | {room}
    ]
    assert not wrong, f"{name_of(path)} ({room}) may import {sorted(MAY_IMPORT[room])}, has {wrong}"


@pytest.mark.parametrize("path", MODULES + SCRIPTS, ids=name_of)
def test_private_modules_stay_in_their_room(path: Path) -> None:
    room = room_of(path) if path.is_relative_to(PACKAGE) else None
    private = [
        f"line {line}: {name}"
        for line, name in imports(path)
        if name.startswith("pydenoise.")
        and name.split(".")[1] != room
        and any(re.match(r"_[^_]", part) for part in name.split("."))
        and name not in ("pydenoise._C", "pydenoise._cuda")
    ]
    assert not private


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_one_door_to_the_extension(path: Path) -> None:
    if name_of(path) == "pydenoise/ops/_library.py":
        return
    touched = [
        f"line {line}: {name}"
        for line, name in imports(path)
        if re.match(r"pydenoise\._(C|cuda)\b", name)
    ]
    assert not touched, "only ops/_library.py imports the extension modules"


def test_nobody_imports_tests_or_bench() -> None:
    wrong = [
        f"{name_of(path)}:{line} {name}"
        for path in MODULES
        for line, name in imports(path)
        if name.split(".")[0] in {"tests", "bench"}
    ]
    assert not wrong


def test_the_top_level_imports_nothing_when_run() -> None:
    tree = parse(PACKAGE / "__init__.py")
    names = [
        getattr(node, "module", None) or node.names[0].name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


# --- what never occurs as code ------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_backpropagation_is_our_own(path: Path) -> None:
    """Without these names torch records nothing, so its `.backward()` has nothing to run on."""
    tree = parse(path)
    forbidden = set(FORBIDDEN_TORCH)
    if room_of(path) not in MEASURES_TORCH:
        forbidden |= TORCH_LAYERS
    found = [f"line {line}: torch.{name}" for line, name in torch_attributes(tree)]
    found = [entry for entry in found if entry.rsplit(".", 1)[1] in forbidden]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"requires_grad", "requires_grad_"}:
            found.append(f"line {node.lineno}: .{node.attr}")
        elif isinstance(node, ast.keyword) and node.arg == "requires_grad":
            found.append(f"line {node.value.lineno}: requires_grad=")
    assert not found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_command_line_prints(path: Path) -> None:
    if room_of(path) in MAY_PRINT:
        return
    found = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Name) and node.id in {"print", "pprint"}:
            found.append(f"line {node.lineno}: {node.id}")
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.stdout", "sys.stderr"}:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert not found


@pytest.mark.parametrize("path", CODE + sorted(ROOT.glob("tests/*.py")), ids=name_of)
def test_files_are_short_and_finished(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= 400, f"{name_of(path)} has {lines} lines: what second thing does it do?"
    unfinished = r"\b(TO[D]O|FIX[M]E|XX[X]|NotImplemented[E]rror)\b"
    assert not re.findall(unfinished, text)


def test_names_say_what_a_file_is_for() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "core", "base", "misc"}
    wrong = [
        name_of(path)
        for folder in (PACKAGE, CSRC, ROOT / "tests", ROOT / "bench")
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts and path.stem in vague
    ]
    assert not wrong


def test_no_flag_makes_results_differ_by_machine() -> None:
    flags = r"march\W*native|-O[f]ast|fast[_-]math"
    files = CODE + [ROOT / name for name in ("setup.py", "pyproject.toml", "Makefile")]
    wrong = [
        name_of(path) for path in files if path.exists() and re.search(flags, path.read_text())
    ]
    assert not wrong


# --- what an import does to the process ---------------------------------------------------------

STATE = """
import os, random, numpy, torch
def state():
    return dict(
        threads=(torch.get_num_threads(), torch.get_num_interop_threads()),
        dtype=torch.get_default_dtype(),
        device=str(torch.get_default_device()),
        gradients=(torch.is_grad_enabled(), torch.is_anomaly_enabled()),
        torch_random=torch.get_rng_state().tolist(),
        numpy_random=str(numpy.random.get_state()),
        python_random=random.getstate(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        precision=torch.get_float32_matmul_precision(),
        denormals=float(torch.tensor(1e-310, dtype=torch.float64) * 1),
        onednn=torch.backends.mkldnn.enabled,
        float_errors=numpy.geterr(),
        environment=dict(os.environ),
    )
"""

IMPORT_ALL = """
import importlib, pkgutil, pydenoise
for module in pkgutil.walk_packages(pydenoise.__path__, "pydenoise."):
    leaf = module.name.rsplit(".", 1)[1]
    if leaf not in {"__main__", "_C", "_cuda"}:
        importlib.import_module(module.name)
pydenoise.show_config()
"""


def test_import_prints_nothing_and_changes_nothing() -> None:
    check = "changed = [k for k in before if before[k] != after[k]]\nassert not changed, changed"
    result = run_python(f"{STATE}\nbefore = state()\n{IMPORT_ALL}\nafter = state()\n{check}")
    assert result.returncode == 0, result.stderr
    assert (result.stdout, result.stderr) == ("", "")


def test_the_network_needs_torch_and_numpy_alone() -> None:
    rooms = ["ops", "nn", "optim", "models", "objectives", "training"]
    result = run_python(f"""
import importlib, sys, torch, numpy

class OnlyTorchAndNumpy:
    allowed = sys.stdlib_module_names | {{"torch", "numpy", "pydenoise"}} | set(
        name.partition(".")[0] for name in sys.modules
    )
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"{{name}} is not to be had here", name=name)

sys.meta_path.insert(0, OnlyTorchAndNumpy())
for room in {rooms!r}:
    importlib.import_module("pydenoise." + room)
""")
    assert result.returncode == 0, result.stderr


def test_help_does_not_import_torch() -> None:
    result = run_python("""
import sys
sys.argv = ["pydenoise", "--help"]
from pydenoise.cli import main
try:
    status = main()
except SystemExit as stop:
    status = stop.code
assert not status, status
heavy = {"torch", "numpy", "matplotlib", "skimage", "PIL"} & set(sys.modules)
assert not heavy, heavy
""")
    assert result.returncode == 0, result.stderr
    assert "demo" in result.stdout


# --- C++ ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", HEADERS + SOURCES + PIECES + CUDA, ids=name_of)
def test_kernels_include_only_what_lies_below(path: Path) -> None:
    included = re.findall(r'^\s*#\s*include\s*([<"][^>"]+)', path.read_text(), flags=re.M)
    foreign = [name[1:] for name in included if re.match(r"<(torch|ATen|c10|caffe2)/", name)]
    assert not foreign, "no torch header anywhere"
    if path.name.startswith("bindings"):
        return
    assert not [name for name in included if re.search(r"Python\.h|pybind11", name)]
    assert "cuda" in path.parts or not [name for name in included if "cuda" in name]
    room = path.relative_to(CSRC).parts[0] if path.parent != CSRC else ""
    ours = [name[1:] for name in included if name.startswith('"')]
    resolved = [
        (path.parent / name if (path.parent / name).exists() else CSRC / name).resolve()
        for name in ours
    ]
    below = {"cpu": {"conv_shape.h", "parallel.h"}, "cuda": {"conv_shape.h"}, "": set()}[room]
    wrong = [
        name_of(file)
        for file in resolved
        if not (file.parent == path.parent or (file.parent == CSRC and file.name in below))
    ]
    assert not wrong


@pytest.mark.parametrize("path", sorted((CSRC / "cpu").iterdir()), ids=name_of)
def test_kernels_decide_no_thread_count(path: Path) -> None:
    assert not re.findall(r"#\s*pragma\s+omp|\bomp_\w+|std::thread\b|pthread_", path.read_text())


@pytest.mark.parametrize("path", COMPILE_ALONE, ids=name_of)
def test_kernels_compile_alone(path: Path) -> None:
    """Without torch's and without Python's headers; a header is complete by itself."""
    compiler = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
    if compiler is None:
        pytest.skip("no C++ compiler: looked for g++, c++, clang++")
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Icsrc", "-x", "c++", str(path)]
    if "cuda" in path.parts:
        command.append(f"-I{HOST_CUDA[0].parent}")
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutants_are_of_todays_source(mutant: Mutant) -> None:
    """Each text that mutants.py replaces is there, once."""
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.right) == 1
    assert mutant.right != mutant.wrong
