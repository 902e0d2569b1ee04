# Everything a newcomer types. Each target sets up what it needs in .venv, with nothing but Python and a package index.
# PYTHON=... names the Python of a new .venv; unset, it is the first on the PATH that can train. VENV=... keeps a second
# environment beside .venv: make test PYTHON=python3.13 VENV=.venv-3.13
VENV := .venv
BIN := $(VENV)/bin
# The stamp is newer than the lock file when the environment is what the lock file says.
READY := $(VENV)/.ready
# A file of tests stays on one core, for what its tests share; each process may come to hold TensorFlow, 2 GB.
SIDE_BY_SIDE := --numprocesses auto --maxprocesses 4 --dist loadfile
LOCK := --universal --generate-hashes --no-emit-index-url --python-version 3.11 --extra train --group dev

.PHONY: help setup demo test test-all test-faults test-faults-sample test-clusters check bench lock clean

help:
	@echo "make demo       the whole way on synthetic voices, into ./demo (1 to 2 minutes)"
	@echo "make test       a fair sample of the tests (3 minutes on two cores)"
	@echo "make test-all   all of them that run anywhere (12 minutes)"
	@echo "make test-faults  kills, full disks, broken stores, 10,000 files (an hour); test-faults-sample: 10 minutes of it"
	@echo "make test-clusters  real sshd, Slurm, network namespaces, stores, where they are installed (10 minutes)"
	@echo "make check      linter, types, import rules"
	@echo "make bench      speed and memory against other libraries, into bench.json (10 minutes)"
	@echo "make lock       resolve requirements.lock anew from pyproject.toml"
	@echo "make setup      only make .venv"

setup: $(READY)
ifeq ($(origin PYTHON),command line)
	@asked=$$("$(PYTHON)" $(VERSION) 2>/dev/null) || \
	{ echo "$(or $(PYTHON),PYTHON=) does not run, expected $(EXPECTED): make PYTHON=/path/to/python3.13" >&2; exit 1; }; \
	there=$$($(BIN)/python $(VERSION)); test "$$asked" = "$$there" || \
	{ echo "$(VENV) is Python $$there, $(PYTHON) is $$asked: add VENV=.venv-$$asked, or make clean first" >&2; exit 1; }
endif

# TensorFlow has no wheels for 3.14: it is taken only if PYTHON names it. A link to a Python that is gone is made anew.
USABLE := 3.11 | 3.12 | 3.13 $(if $(PYTHON),| 3.14)
EXPECTED := Python 3.11 to 3.13; to score, not to train, 3.14 will do
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
$(BIN)/python:
	@found=; for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11); do \
	  version=$$("$$python" $(VERSION) 2>/dev/null) || continue; \
	  found="$${found:+$$found, }$$python is Python $$version"; \
	  case $$version in $(USABLE)) \
	    echo "$$found; $(VENV) takes $$python (expected $(EXPECTED))" >&2; \
	    rm -f $(BIN)/python*; \
	    "$$python" -m venv $(VENV) && exit; \
	    rm -f $(BIN)/python*; exit 1 ;; \
	  esac; \
	done; \
	echo "$${found:-$(or $(PYTHON),python3) does not run}, expected $(EXPECTED): make PYTHON=/path/to/python3.13" >&2; exit 1

$(READY): requirements.lock pyproject.toml $(BIN)/python
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
