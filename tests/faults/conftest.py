"""The small world that faults happen to, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Cluster, files_of, untrained_model, write_archive
from tests.jobs.conftest import run_emolib


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("faults") / "model")


@pytest.fixture(scope="session")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """26 recordings, 4 of them bad, of three days."""
    folder = write_archive(tmp_path_factory.mktemp("archive") / "calls", recordings=22)
    assert files_of(folder) == 26
    return folder


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers that may be killed; `mend` starts them."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def undisturbed(calls: Path, model: Path, processes: Cluster) -> Path:
    """What every other way of making them is compared with."""
    place = calls.parent / "undisturbed"
    common = ("--model", model, "--block-s", "1", "--failure-budget", "1", "--cluster", processes.mend())
    assert run_emolib("score", calls, "--out", place, *common).exit_code == 0
    return place
