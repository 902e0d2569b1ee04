"""A small synthetic world for the jobs: corpus, store, model and calls, each made once by the jobs themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emolib import archive
from emolib.learning.bundle import _Manifest
from emolib.sound.synthetic import write_calls, write_corpus
from jobs.__main__ import run
from jobs.cluster import connect
from jobs.specs import cluster_spec

# What "the same rows" does not mean (design): how often and by which run they were made, and words about it.
_NOT_COMPARED = ["run_id", "attempts", "message", "version"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit_code: int
    summary: dict[str, Any]


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of a job in a process of its own, for what happens to processes."""
    return [sys.executable, "-m", "jobs", *map(str, arguments)]


def run_emolib(*arguments: str | Path) -> Ended:
    """Run a job in this process (its workers have their own): the command line without the imports each time."""
    result = run([str(argument) for argument in arguments])
    assert result is not None
    return Ended(result.exit_code, json.loads(json.dumps(result.summary, default=str)))


def in_process(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[Ended, str]:
    """Run a job in a process of its own; return how it ended and what it said on stderr."""
    whole = {**os.environ, **(environment or {})}
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=280, env=whole, check=False)
    lines = done.stdout.strip().splitlines()
    return Ended(done.returncode, json.loads(lines[-1]) if lines else {}), done.stderr


def tables(predictions: Path) -> dict[str, pd.DataFrame]:
    """Return all rows of all tables, without what may differ between runs."""
    return {
        name: archive.read(predictions, table=name).drop(columns=_NOT_COMPARED, errors="ignore")
        for name in ("recordings", "channels", "windows", "calls")
    }


def assert_same_rows(found: Path, expected: Path) -> None:
    """Bit for bit, whatever run made them."""
    there = tables(found)
    for name, rows in tables(expected).items():
        pd.testing.assert_frame_equal(there[name], rows, check_exact=True, obj=name)


@pytest.fixture(scope="session")
def cluster() -> Iterator[tuple[str, str]]:
    """One cluster for all jobs that do not care: its workers need their imports only once."""
    with connect(cluster_spec(None, workers=2)) as client:
        yield "--cluster", client.scheduler.address


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "corpus"
    write_corpus(folder, speakers=6, utterances=2, seed=1)
    return folder


@pytest.fixture(scope="session")
def store(corpus: Path, cluster: tuple[str, str]) -> Path:
    place = corpus.parent / "features.zarr"
    ended = run_emolib("extract", corpus, "--store", place, *cluster)
    assert ended.exit_code == 0
    return place


@pytest.fixture(scope="session")
def model(store: Path) -> Path:
    place = store.parent / "model"
    ended = run_emolib("train", store, "--task", "emotion3", "--model", place, "--epochs", "2")
    assert ended.exit_code == 0
    return place


@pytest.fixture
def candidate(model: Path, tmp_path: Path) -> Path:
    """The model, but surer of itself, and silent where it is not sure."""
    place = shutil.copytree(model, tmp_path / "candidate")
    stored = json.loads((place / "bundle.json").read_text()) | {"temperature": 0.5, "abstention_threshold": 0.6}
    stored["model_id"] = _Manifest(**stored).identity()
    (place / "bundle.json").write_text(json.dumps(stored))
    return place


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "calls"
    write_calls(folder, calls=8, broken=5, seed=2)
    return folder


@pytest.fixture(scope="session")
def undisturbed(calls: Path, model: Path) -> Path:
    """The predictions that every other way of making them is compared with."""
    place = calls.parent / "undisturbed"
    ended = run_emolib("score", calls, "--model", model, "--out", place, "--workers", "1", "--failure-budget", "1")
    assert ended.exit_code == 0
    return place
