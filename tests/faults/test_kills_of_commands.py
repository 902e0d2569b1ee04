"""SIGKILL of a whole command, driver and workers, at random moments of its work: run again, it comes to the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emolib import archive
from emolib.archive.promotion import in_force
from emolib.archive.verification import verify
from emolib.features.store import FeatureStore, verify as problems_of
from emolib.learning.bundle import ModelBundle
from emolib.sound.synthetic import write_corpus
from tests.conftest import wait_for
from tests.faults.world import files_of, untrained_model, write_archive
from tests.jobs.conftest import assert_same_rows, command, run_emolib

REPETITIONS = 20


@dataclass
class World:
    """What all commands begin with; nothing of it is changed."""

    calls: Path
    corpus: Path
    model: Path
    candidate: Path
    scored: Path
    """Predictions of some of the calls, by the model."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("commands")
    calls = write_archive(folder / "calls", recordings=12)
    write_corpus(folder / "corpus", speakers=6, utterances=2, seed=1)
    model = untrained_model(folder / "model")
    candidate = untrained_model(folder / "candidate", seed=1)
    asked = ("score", calls, "--model", model, "--out", folder / "P", *_COMMON)
    assert run_emolib(*asked, *_SOME).exit_code == 0
    return World(calls, folder / "corpus", model, candidate, folder / "P")


_SOME = ("--exclude", "*/call-01*")
_COMMON = ("--workers", "2", "--block-s", "1", "--failure-budget", "1")


class Case:
    """A command on some outputs of its own.

    Attributes
    ----------
    place
        A folder for them.
    """

    def __init__(self, world: World, place: Path) -> None:
        self.world, self.place, self.out = world, place, place / "P"
        place.mkdir()
        self.prepare()

    def prepare(self) -> None:
        """Lay out what the command finds."""
        shutil.copytree(self.world.scored, self.out)

    def line(self) -> tuple[str | Path, ...]:
        """Return the command."""
        raise NotImplementedError

    def again(self) -> tuple[str | Path, ...]:
        """Return the command that mends it."""
        return self.line()

    def is_at_work(self) -> bool:
        """Return whether there is something that a kill can break."""
        return (self.out / "_lock.json").exists()

    def assert_same(self, other: Case) -> None:
        """Check that the outputs hold the same as those of an undisturbed command."""
        assert verify(self.out).problems == []
        assert_same_rows(self.out, other.out)
        assert not (self.out / "_lock.json").exists()


class Score(Case):
    def prepare(self) -> None:
        pass

    def line(self) -> tuple[str | Path, ...]:
        return ("score", self.world.calls, "--model", self.world.model, "--out", self.out, *_COMMON)


class Rescore(Case):
    def line(self) -> tuple[str | Path, ...]:
        asked = ("score", self.world.calls, "--model", self.world.model, "--out", self.out, *_COMMON)
        return (*asked, "--hop-s", "4", "--rescore")


class Nightly(Case):
    """The first day goes beyond retention, and what is not scored yet is."""

    def line(self) -> tuple[str | Path, ...]:
        asked = ("nightly", self.world.calls, "--model", self.world.model, "--out", self.out, *_COMMON)
        days = str((datetime.now(UTC).date() - date(2024, 5, 2)).days)
        return (*asked, "--settle-s", "0", "--keep-days", days, "--really", "--report", self.place / "pages")


class Erase(Case):
    def line(self) -> tuple[str | Path, ...]:
        rows = archive.read(self.world.scored, table="recordings")
        names = rows.loc[rows["uri"].str.contains("call-00[0-5]"), "call_id"]
        return ("erase", self.out, *(part for name in sorted(names) for part in ("--call-id", name)))

    def assert_same(self, other: Case) -> None:
        super().assert_same(other)
        assert len(archive.read(self.out, table="recordings")) == files_of(self.world.calls) - 2 - 6
        asked = ("score", self.world.calls, "--model", self.world.model, "--out", self.out, *_COMMON, *_SOME)
        ended = run_emolib(*asked)
        assert (ended.exit_code, ended.summary["recordings"]) == (0, 0), "nothing erased is scored again"


class Promote(Case):
    def line(self) -> tuple[str | Path, ...]:
        return ("promote", self.out, "--model", self.world.candidate)

    def assert_same(self, other: Case) -> None:
        super().assert_same(other)
        promoted = in_force(self.out)
        assert promoted is not None
        assert promoted.model_id == ModelBundle.load(self.world.candidate).model_id


class Extract(Case):
    def prepare(self) -> None:
        self.out = self.place / "S.zarr"

    def line(self) -> tuple[str | Path, ...]:
        return ("extract", self.world.corpus, "--store", self.out, "--variants", "telephones,noise", "--workers", "2")

    def again(self) -> tuple[str | Path, ...]:
        return (*self.line(), "--resume")

    def is_at_work(self) -> bool:
        return self.out.exists()

    def assert_same(self, other: Case) -> None:
        one, two = FeatureStore.open(self.out), FeatureStore.open(other.out)
        assert one.complete
        assert problems_of(one) == []
        pd.testing.assert_frame_equal(one.windows, two.windows)
        np.testing.assert_array_equal(one.status(), two.status())
        for found, expected in zip(one.read(0, one.shape[0]), two.read(0, two.shape[0]), strict=True):
            np.testing.assert_array_equal(found, expected)


COMMANDS = {"score": Score, "extract": Extract, "erase": Erase, "promote": Promote, "nightly": Nightly}
COMMANDS["rescoring"] = Rescore
# How long each is at work undisturbed, and what it comes to.
_undisturbed: dict[str, tuple[float, Case]] = {}
_hit: dict[str, int] = {}


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(REPETITIONS))
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_any_moment(
    name: str, seed: int, world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind: Callable[[World, Path], Case] = COMMANDS[name]
    if name not in _undisturbed:
        quiet = kind(world, tmp_path_factory.mktemp("undisturbed") / name)
        _undisturbed[name] = _at_work_s(quiet), quiet
    work_s, expected = _undisturbed[name]
    case = kind(world, tmp_path / "case")
    running = _started(case)
    wait_for(lambda: case.is_at_work() or running.poll() is not None, f"{name} at work", poll_s=0.0005)
    time.sleep(random.Random(f"{name} {seed}").uniform(0, work_s))
    was_at_work = running.poll() is None
    with suppress(ProcessLookupError):  # it had ended, and was waited for
        os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    _hit[name] = _hit.get(name, 0) + was_at_work
    ended = run_emolib(*case.again())
    done = name in ("erase", "promote") and ended.exit_code == 2  # it was done when it was killed, and says so
    assert ended.exit_code == 0 or done, ended
    case.assert_same(expected)
    print(f"{name} {seed}: killed at work {_hit[name]} times of {seed + 1}, within {work_s:.2f} s")


@pytest.mark.fault
def test_the_kills_hit_commands_that_were_at_work() -> None:
    """Kills of what had ended already would show nothing."""
    assert set(_hit) == set(COMMANDS)
    assert min(_hit.values()) >= REPETITIONS // 4, _hit


def _at_work_s(case: Case) -> float:
    running = _started(case)
    wait_for(lambda: case.is_at_work() or running.poll() is not None, "work", poll_s=0.0005)
    began = time.monotonic()
    assert running.wait(600) == 0
    return time.monotonic() - began


def _started(case: Case) -> subprocess.Popen[bytes]:
    """Start a command as the leader of a group of its own."""
    return subprocess.Popen(
        command(*case.line()), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
