"""A small synthetic world for the jobs: corpus, store, model and calls, each made once by the jobs themselves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emolib import archive
from emolib.learning.bundle import _Manifest
from emolib.sound.synthetic import write_calls, write_corpus
from jobs.cluster import connect
from jobs.command import run
from jobs.specs import cluster_spec
from tests.conftest import TRAINS, MadeOnce

# What "the same rows" does not mean (design): how often and by which run they were made, and words about it.
_NOT_COMPARED = ["run_id", "attempts", "message", "version"]


# A command in which a signal strikes its own process as a function of it returns for the nth time, or in which it waits
# there until a file appears: the moment is always the same, and nobody has to catch it.
_STRUCK = """
import inspect, os, pkgutil, sys, time
from itertools import count

place, number, by, *arguments = sys.argv[1:]
owner, _, name = place.rpartition(".")
sys.argv = ["emolib", *arguments]

def begins(arguments):  # before it has its streams in hand, nothing of it may be imported
    begin(arguments)
    within, returned = pkgutil.resolve_name(owner), count(1)
    original = getattr(within, name)

    def struck(*arguments, **named):
        value = original(*arguments, **named)
        if next(returned) == int(number):
            strike()
        return value

    setattr(within, name, staticmethod(struck) if inspect.ismethod(original) else struck)

def strike():
    if by.isdecimal():
        os.kill(os.getpid(), int(by))
        return
    open(by + ".waits", "w").close()
    while not os.path.exists(by):
        time.sleep(0.01)

from jobs import process
from jobs.__main__ import main

begin, process.begin = process.begin, begins
main()
"""


@contextmanager
def dask_process(
    *arguments: str,
    until: str,
    folder: Path,
    code: str | None = None,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[str]:
    """Run a command of Dask until the end of the block; give what it said when it was up."""
    how = ["-m", f"distributed.cli.dask_{arguments[0]}"] if code is None else ["-c", code.format(arguments[0])]
    log = folder / f"{arguments[0]}-{os.urandom(4).hex()}.log"
    command = [sys.executable, *how, *arguments[1:]]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stderr=file, stdout=file, cwd=cwd, env={**os.environ, **(environment or {})}
        )
    try:
        while not (found := re.search(until, log.read_text())):
            assert process.poll() is None, log.read_text()
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


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


def striking(
    *arguments: str | Path, after: str, times: int = 1, by: signal.Signals | Path = signal.SIGKILL
) -> list[str]:
    """Return the command line of a job that strikes its own process.

    Parameters
    ----------
    after
        The function after which it is struck, such as ``jobs.fanout._outcome``, or of a class after a colon, such as
        ``emolib.features.store:FeatureStore.create``.
    times
        So often it returns first.
    by
        A signal; or a file to wait for, while threads go on: ``<file>.waits`` appears when it begins to.
    """
    how = str(by) if isinstance(by, Path) else str(int(by))
    return [sys.executable, "-c", _STRUCK, after, str(times), how, *map(str, arguments)]


def struck(*arguments: str | Path, after: str, times: int = 1, by: signal.Signals = signal.SIGKILL) -> int:
    """Run a job that strikes its own process; return its exit code, or the negative number of the signal."""
    command = striking(*arguments, after=after, times=times, by=by)
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode


def in_process(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[Ended, str]:
    """Run a job in a process of its own; return how it ended and what it said on stderr."""
    whole = {**os.environ, **(environment or {})}
    done = subprocess.run(command(*arguments), capture_output=True, text=True, env=whole, check=False)
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
def corpus(made_once: MadeOnce) -> Path:
    return made_once("corpus", lambda place: write_corpus(place, speakers=6, utterances=2, seed=1))


@pytest.fixture(scope="session")
def store(corpus: Path, cluster: tuple[str, str], made_once: MadeOnce) -> Path:
    return made_once("features.zarr", lambda place: _succeeds("extract", corpus, "--store", place, *cluster))


@pytest.fixture(scope="session")
def model(request: pytest.FixtureRequest, made_once: MadeOnce) -> Path:
    if not TRAINS:
        from tests.faults.world import untrained_model

        return made_once("model", untrained_model)
    asked = ("train", request.getfixturevalue("store"), "--task", "emotion3", "--epochs", "2")
    return made_once("model", lambda place: _succeeds(*asked, "--model", place))


@pytest.fixture
def candidate(model: Path, tmp_path: Path) -> Path:
    """The model, but surer of itself, and silent where it is not sure."""
    place = shutil.copytree(model, tmp_path / "candidate")
    stored = json.loads((place / "bundle.json").read_text()) | {"temperature": 0.5, "abstention_threshold": 0.6}
    stored["model_id"] = _Manifest(**stored).identity()
    (place / "bundle.json").write_text(json.dumps(stored))
    return place


@pytest.fixture(scope="session")
def calls(made_once: MadeOnce) -> Path:
    return made_once("calls", lambda place: write_calls(place, calls=8, broken=5, seed=2))


@pytest.fixture(scope="session")
def undisturbed(calls: Path, model: Path, cluster: tuple[str, str], made_once: MadeOnce) -> Path:
    """The predictions that every other way of making them is compared with."""
    asked = ("score", calls, "--model", model, *cluster, "--failure-budget", "1")
    return made_once("undisturbed", lambda place: _succeeds(*asked, "--out", place))


def _succeeds(*arguments: str | Path) -> None:
    assert run_emolib(*arguments).exit_code == 0
