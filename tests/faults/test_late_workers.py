"""A worker that is held for dead in the middle of a commit, and wakes up when all has gone on without it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from emolib import archive
from emolib.archive.verification import verify
from tests.archive.conftest import voice, write_call
from tests.conftest import wait_for
from tests.faults.world import Cluster, job
from tests.jobs.conftest import run_emolib

# What Python runs first in every process whose path has it: the first scorer that gets so far in the commit of the
# block stops its worker and itself.
_STOPPED = """
import os, signal
from pathlib import Path
from emolib.archive import commits

create_bytes, commit = commits.create_bytes, commits.Commits.commit
folder = Path(os.environ["LATE_FOLDER"])

def creates(path, data):
    if os.environ["LATE_AT"] in str(path) and "000000" in path.name:
        try:
            (folder / "began").touch(exist_ok=False)
        except FileExistsError:
            return create_bytes(path, data)
        (folder / "stopped").write_text(f"{os.getppid()} {os.getpid()}")
        os.kill(os.getppid(), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    return create_bytes(path, data)

def commits_(*arguments, **named):
    commit(*arguments, **named)
    if (folder / "stopped").exists() and str(os.getpid()) in (folder / "stopped").read_text().split():
        (folder / "done").touch()

commits.create_bytes, commits.Commits.commit = creates, commits_
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two workers; who is silent for some seconds is given up."""
    (tmp_path / "injected").mkdir()
    (tmp_path / "injected/sitecustomize.py").write_text(_STOPPED)
    (tmp_path / "late").mkdir()
    (tmp_path / "cluster").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "injected"), prepend=os.pathsep)
    monkeypatch.setenv("LATE_FOLDER", str(tmp_path / "late"))
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL", "5s")
    cluster = Cluster(tmp_path / "cluster")
    yield cluster
    if (stopped := tmp_path / "late/stopped").exists():
        for pid in stopped.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    cluster.close()


@pytest.mark.fault
@pytest.mark.parametrize(
    ("moment", "decided"),
    [
        pytest.param("commits/", "missing", marks=pytest.mark.sample, id="before it decides"),
        pytest.param("recordings/", "ok", id="before the last part"),
    ],
)
def test_a_worker_that_wakes_up_late(
    moment: str, decided: str, cluster: Cluster, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the recording was gone, then there again and another one: each time, the rows are of one attempt."""
    calls, out, late = tmp_path / "calls", tmp_path / "P", tmp_path / "late"
    for number in range(6):
        write_call(calls / f"2024-05-{1 + number:02d}/call.wav", voice(4, seed=number), voice(4, seed=10 + number))
    first, aside = calls / "2024-05-01/call.wav", tmp_path / "aside.wav"
    monkeypatch.setenv("LATE_AT", moment)
    common = ("score", calls, "--model", model, "--out", out, "--block-s", "1", "--failure-budget", "1")
    with job(*common, "--cluster", cluster.mend()) as driver:
        wait_for((late / "stopped").exists, "a worker that stops in a commit")
        shutil.move(first, aside)
        code, said = driver.end()
    assert code == 0, said
    assert verify(out).problems == []
    assert _codes(out) == [decided, *["ok"] * 5]

    write_call(first, voice(5, seed=20), voice(5, seed=21))
    ended = run_emolib(*common, "--cluster", cluster.address)
    assert (ended.exit_code, ended.summary["recordings"]) == (0, 1)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    for pid in (late / "stopped").read_text().split():
        os.kill(int(pid), signal.SIGCONT)
    wait_for((late / "done").exists, "the end of the late attempt")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert verify(out).problems == []
    assert run_emolib(*common, "--cluster", cluster.address).summary["recordings"] == 0


def _codes(pred: Path) -> list[str]:
    rows: pd.DataFrame = archive.read(pred, table="recordings")
    return list(rows.sort_values("uri")["code"])
