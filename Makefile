# Every target works in a fresh clone on a machine with Python 3.11 or newer, a C++ compiler and
# make: it makes .venv, installs what it needs into it, and runs. ARGS adds to the command line:
#   make demo ARGS="--noise point:8"      make test ARGS="-k conv2d"
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# pip splits these two variables at blanks, so the path travels as a URL.
empty :=
CONSTRAINTS := file://$(subst $(empty) ,%20,$(CURDIR))/constraints.txt
export PIP_CONSTRAINT := $(CONSTRAINTS)
export PIP_BUILD_CONSTRAINT := $(CONSTRAINTS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SOURCES := $(wildcard csrc/*.* csrc/*/*.*)
CPP := $(filter-out %.py,$(SOURCES)) $(wildcard tests/cuda_on_host/*.*)

.PHONY: help install demo test test-install bench bench-scaling bench-distributed mutants sanitize
.PHONY: soak clean
.PHONY: lint lint-ruff lint-format lint-types lint-cpp format

help:
	@echo "make demo          train on photographs from noisy pairs alone, write before/after pictures"
	@echo "make test          run the tests"
	@echo "make test-install  install into fresh environments, with and without a compiler (minutes)"
	@echo "make bench         measure against torch, refresh the tables"
	@echo "make bench-scaling measure over batch, picture side and threads; goes on where it stopped"
	@echo "make bench-distributed  measure and reckon training on several processes"
	@echo "make mutants       break the kernels on purpose and see the tests notice"
	@echo "make sanitize      the kernels under the compiler's sanitizers, and fed by libFuzzer"
	@echo "make soak          all long tests (hours); goes on where it stopped"
	@echo "make lint          all checks of form; make format mends what it can"
	@echo "make clean         remove .venv and everything built"

demo: $(VENV)/.installed
	$(BIN)/pydenoise demo $(ARGS)

test: $(VENV)/.installed $(VENV)/.tools
	$(BIN)/python -m pytest -q --hypothesis-profile=ci $(ARGS)

test-install: $(VENV)/.installed $(VENV)/.tools
	$(BIN)/python -m pytest -q -m install tests/test_build.py $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/python bench/run.py $(ARGS)

bench-scaling: $(VENV)/.installed
	$(BIN)/python bench/scaling.py $(ARGS)

bench-distributed: $(VENV)/.installed
	$(BIN)/python bench/distributed.py $(ARGS)

mutants: $(VENV)/.installed $(VENV)/.tools
	$(BIN)/python tests/mutants.py $(ARGS)

sanitize: $(VENV)/.installed $(VENV)/.tools $(VENV)/.fuzzer
	$(BIN)/python tests/sanitize.py $(ARGS)

soak: $(VENV)/.installed $(VENV)/.tools $(VENV)/.fuzzer
	$(BIN)/python bench/soak.py $(ARGS)

# The one list of lint commands: pre-commit and .ci/run call these targets.
lint: lint-ruff lint-format lint-types lint-cpp

lint-ruff: $(VENV)/.tools
	$(BIN)/ruff check .

lint-format: $(VENV)/.tools
	$(BIN)/ruff format --check .

lint-types: $(VENV)/.installed $(VENV)/.tools
	$(BIN)/mypy pydenoise

lint-cpp: $(VENV)/.tools
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

install: $(VENV)/.installed

# What pyproject.toml lists under the given keys, as words of a pip command line.
required = $$($(BIN)/python -c "import tomllib; \
	print(*tomllib.load(open('pyproject.toml', 'rb'))$(1))")

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "make: pydenoise needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo \
	  "make: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv," \
	  "or name another Python: make PYTHON=/path/to/python3" >&2; exit 1; }
	@touch $@

# Build requirements first and no isolation after: torch is fetched once.
$(VENV)/.installed: $(VENV)/.python setup.py pyproject.toml constraints.txt $(SOURCES)
	$(BIN)/python -m pip install -q $(call required,['build-system']['requires'])
	$(BIN)/python -m pip install -q --no-build-isolation -e .
	@$(BIN)/python -c "import json; \
	  print('make: kernels:', json.load(open('pydenoise/_build.json'))['cpu'])"
	@touch $@

$(VENV)/.tools: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install -q $(call required,['project']['optional-dependencies']['dev'])
	@touch $@

$(VENV)/.fuzzer: $(VENV)/.python pyproject.toml
	$(BIN)/python -m pip install -q $(call required,['project']['optional-dependencies']['fuzz'])
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info pydenoise/_build.json pydenoise/*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
