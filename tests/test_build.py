"""What the build leaves behind: an extension that needs no torch, a package that installs anywhere.

The tests marked `install` make fresh environments and take minutes: `make test-install`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path

import pytest

import pydenoise

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """The command's whole output; a failure shows it."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}\n{result.stdout}"
    return result.stdout


@pytest.fixture(scope="module")
def extension() -> Path:
    spec = importlib.util.find_spec("pydenoise._C")
    if spec is None or spec.origin is None:
        pytest.skip("the extension is not built")
    return Path(spec.origin)


# --- the extension ------------------------------------------------------------------------------


def test_extension_imports_without_torch(extension: Path) -> None:
    run(
        sys.executable,
        "-c",
        "import sys, pydenoise._C\n"
        "loaded = {'torch', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded",
        cwd=extension.parent.parent,
    )


def test_extension_depends_on_no_torch_library(extension: Path) -> None:
    """Nor on an OpenMP of its own: the threads are torch's, asked for at run time."""
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not there to read the library's dependencies")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-d", extension))
    assert needed, "a C++ library needs at least the C library"
    foreign = [
        name for name in needed if re.match(r"lib(torch|c10|caffe2|gomp|i?omp|python)", name)
    ]
    assert not foreign


def test_build_record_tells_what_happened() -> None:
    """A kernel that does not compile must not hide behind the Python backend."""
    record = Path(pydenoise.__path__[0]) / "_build.json"
    if not record.exists():
        pytest.skip("the package was not built by setup.py")
    said = json.loads(record.read_text())
    for kernels, module in (("cpu", "pydenoise._C"), ("cuda", "pydenoise._cuda")):
        assert "compile failed" not in said[kernels], "\n".join(said["error_tail"])
        if said[kernels] == "built":
            assert importlib.util.find_spec(module) is not None


# --- the project's own files --------------------------------------------------------------------


def test_tools_are_pinned() -> None:
    loose = [
        requirement
        for requirement in PYPROJECT["project"]["optional-dependencies"]["dev"]
        if "==" not in requirement
    ]
    assert not loose, "a new release of a tool must not turn a finished change red"
    assert re.fullmatch(r"torch==[\d.]+\n", (ROOT / "constraints.txt").read_text())


def test_one_list_of_lint_commands() -> None:
    pieces = re.search(r"^lint: (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert pieces
    hooks = re.findall(r"entry: make (\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert hooks == pieces[1].split()
    ci = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"^make lint$", ci, flags=re.M)
    assert re.search(r"^make test$", ci, flags=re.M)


# --- installing ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as a fresh clone has it, nothing built."""
    built = shutil.ignore_patterns(
        ".git",
        ".venv",
        "build",
        "dist",
        "*.egg-info",
        "*.so",
        "_build.json",
        "__pycache__",
        ".*_cache",
    )
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("clone") / "pydenoise", ignore=built))


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a fresh environment."""
    venv.create(tmp_path / "venv", with_pip=True)
    return tmp_path / "venv" / "bin" / "python"


def pip(python: Path, *words: str | Path, **environment: str) -> str:
    constraints = (ROOT / "constraints.txt").as_uri()
    environment = {
        "PIP_CONSTRAINT": constraints,
        "PIP_BUILD_CONSTRAINT": constraints,
        **environment,
    }
    return run(python, "-m", "pip", "install", *words, **environment)


@pytest.mark.install
@pytest.mark.parametrize("isolated", [True, False], ids=["isolated", "no-build-isolation"])
def test_pip_install(tree: Path, python: Path, tmp_path: Path, isolated: bool) -> None:
    if isolated:
        pip(python, tree)
    else:
        pip(python, *PYPROJECT["build-system"]["requires"])
        pip(python, "--no-build-isolation", tree)
    backends = run(
        python,
        "-c",
        "import pydenoise; print(pydenoise.__file__, pydenoise.backends())",
        cwd=tmp_path,
    )
    assert str(tmp_path) in backends
    assert "'cpu': None" in backends, backends
    assert "demo" in run(python.parent / "pydenoise", "--help", cwd=tmp_path)
    assert "cpu" in run(python.parent / "pydenoise", "info", cwd=tmp_path)
    (installed,) = tmp_path.glob("venv/lib/python*/site-packages/pydenoise/_build.json")
    assert json.loads(installed.read_text())["cpu"] == "built"
    said = run(python.parent / "pydenoise", "bench", "--quick", "--json", cwd=tmp_path)
    report = json.loads(said.splitlines()[-1])
    assert report["peak_gflop_per_s"] > 0 and len(report["cases"]) > 20


@pytest.mark.install
def test_installs_and_passes_without_a_compiler(tree: Path, python: Path, tmp_path: Path) -> None:
    pip(python, *PYPROJECT["build-system"]["requires"])
    said = pip(python, "-v", "--no-build-isolation", tree, CXX="/nonexistent")
    assert said.count("/nonexistent") == 1, said
    reason = run(python, "-c", "import pydenoise; print(pydenoise.backends()['cpu'])", cwd=tmp_path)
    assert reason.strip() != "None"
    pip(python, *(tool for tool in PYPROJECT["project"]["optional-dependencies"]["dev"]))
    run(python.parent / "pytest", "-q", "--hypothesis-profile=ci", "tests", cwd=tree)


@pytest.mark.install
def test_source_archive_holds_the_kernels(tree: Path, tmp_path: Path) -> None:
    run(
        sys.executable,
        "-c",
        f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})",
        cwd=tree,
    )
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as members:
        names = {name.partition("/")[2] for name in members.getnames()}
    missing = {
        path.relative_to(tree).as_posix()
        for path in (tree / "csrc").rglob("*")
        if path.suffix not in ("", ".pyc")
    } - names
    assert not missing
    assert not [name for name in names if name.endswith((".so", ".o"))]
