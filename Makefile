# Everything a newcomer types. Each target sets up what it needs in .venv, with nothing but python3 and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The stamp is newer than the lock file when the environment is what the lock file says.
READY := $(VENV)/.ready
# A file of tests stays on one core, for what its tests share; each process may come to hold TensorFlow, 2 GB.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile
LOCK := --universal --generate-hashes --no-emit-index-url --python-version 3.11 --extra train --group dev

.PHONY: help setup demo test test-all test-faults test-faults-sample test-clusters check bench lock clean

help:
	@echo "make demo       the whole way on synthetic voices, into ./demo (1 to 3 minutes)"
	@echo "make test       a fair sample of the tests (3 minutes on two cores)"
	@echo "make test-all   all of them that run anywhere (15 minutes)"
	@echo "make test-faults  kills, full disks, broken stores, 10,000 files (an hour); test-faults-sample: 10 minutes of it"
	@echo "make test-clusters  real sshd, Slurm, network namespaces, stores, where they are installed (10 minutes)"
	@echo "make check      linter, types, import rules"
	@echo "make bench      speed and memory against other libraries, into bench.json (10 minutes)"
	@echo "make lock       resolve requirements.lock anew from pyproject.toml"
	@echo "make setup      only make .venv"

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and \
	"$(PYTHON) is Python %d.%d, expected 3.11 to 3.13: make PYTHON=/path/to/python3.12 ..." % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(READY)

demo: setup
	rm -rf demo
	$(BIN)/emolib demo --out demo

test: setup
	$(BIN)/pytest $(SIDE_BY_SIDE)

test-all: setup
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not fault and not cluster" --hypothesis-profile thorough

test-faults: setup
	$(BIN)/pytest -s -m fault tests/faults

test-faults-sample: setup
	$(BIN)/pytest -m "fault and sample" tests/faults

test-clusters: setup
	$(BIN)/pytest -s -m cluster tests/clusters

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A library that can't be installed must not keep the others away: then each is tried alone. The table names what is
# missing, and the rest is measured all the same.
PEERS := kaldi-native-fbank opensmile python-speech-features
ADD := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock
bench: setup
	$(ADD) --editable '.[bench]' || for peer in $(PEERS); do $(ADD) $$peer; done; true
	$(BIN)/python -m tests.benchmarks

lock: setup
	$(BIN)/uv pip compile $(LOCK) --upgrade --quiet --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
