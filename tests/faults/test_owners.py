"""Two who want the same predictions, one of them dead, stopped or just as alive; and what the dead leave behind."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from emolib import archive
from emolib.archive.verification import verify
from tests.conftest import wait_for
from tests.faults.world import Cluster, assert_whole, job, started
from tests.jobs.conftest import Ended, run_emolib, striking

RECORDINGS = 26


class Scoring:
    """The command that all of these run."""

    def __init__(self, calls: Path, model: Path, out: Path, processes: Cluster) -> None:
        self.out = out
        common = ("score", calls, "--model", model, "--block-s", "1", "--failure-budget", "1")
        self.command = (*common, "--out", out, "--cluster", processes.mend())

    def again(self) -> Ended:
        return run_emolib(*self.command)


@pytest.fixture
def scoring(calls: Path, model: Path, processes: Cluster, tmp_path: Path) -> Scoring:
    return Scoring(calls, model, tmp_path / "P", processes)


@pytest.fixture
def open_run(scoring: Scoring, undisturbed: Path) -> archive.ledger.Run:
    """Predictions of a run of which every second block was done when its driver died."""
    shutil.copytree(undisturbed, scoring.out)
    (run,) = archive.ledger.runs(scoring.out)
    (Path(run.folder) / "summary.json").unlink()
    for part in archive.predictions.committed(scoring.out)[::2]:
        for table in archive.schemas.BLOCK_TABLES:
            part.path(scoring.out, table).unlink()
    return run


@pytest.mark.fault
@pytest.mark.parametrize(
    "continued", [pytest.param("while the other is at work", marks=pytest.mark.sample), "when the other is done"]
)
def test_an_owner_stopped_overtaken_and_continued(
    continued: str, scoring: Scoring, undisturbed: Path, calls: Path
) -> None:
    """The lock of who is silent for 15 s is taken; when he goes on he finds it gone, and stops."""
    stops = striking(*scoring.command, after="jobs.fanout._outcome", by=signal.SIGSTOP)
    with started(stops) as owner:
        wait_for(owner.has_stopped, "an owner who stopped")
        with job(*scoring.command) as taker:
            if continued == "while the other is at work":
                mine = json.loads((scoring.out / "_lock.json").read_text())["token"]
                wait_for(lambda: _token(scoring.out) not in (mine, None), "a taken lock")
            else:
                code, said = taker.end()
                assert code == 0, said
            owner.process.send_signal(signal.SIGCONT)
            code, said = owner.end()
            assert code == 3, said
            assert "this run took too long to renew its lock and stops" in said
            if continued == "while the other is at work":
                code, said = taker.end()
                assert code == 0, said
    assert_whole(scoring.out, undisturbed, recordings=RECORDINGS)
    assert scoring.again().summary["recordings"] == 0


def _token(pred: Path) -> str | None:
    try:
        return str(json.loads((pred / "_lock.json").read_text())["token"])
    except (FileNotFoundError, ValueError):
        return None


@pytest.mark.fault
@pytest.mark.sample
def test_two_runs_at_once(scoring: Scoring, undisturbed: Path) -> None:
    with job(*scoring.command) as one, job(*scoring.command) as other:
        ended = sorted([one.end(), other.end()])
    (first, _), (second, said) = ended
    assert first == 0
    if second:  # unless one was done before the other began
        assert second == 3, said
        assert "is locked by process" in said
        assert "wait until it ends" in said
    assert_whole(scoring.out, undisturbed, recordings=RECORDINGS)
    assert scoring.again().summary["recordings"] == 0


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("this machine", marks=pytest.mark.slow),
        pytest.param("another machine", marks=pytest.mark.fault),
    ],
)
def test_a_lock_left_by_a_dead_process(
    host: str, scoring: Scoring, open_run: archive.ledger.Run, undisturbed: Path
) -> None:
    """It is taken at once where nobody of that number lives here, and after 15 s where nobody can know."""
    with job("--version") as gone:
        gone.end()
    with archive.lock.Lock(scoring.out):
        token = json.loads((scoring.out / "_lock.json").read_text())
    token |= {"token": "another", "pid": gone.process.pid}
    if host == "another machine":
        token |= {"machine": "another", "host": "night-2"}
    (scoring.out / "_lock.json").write_text(json.dumps(token))
    began = time.monotonic()
    ended = scoring.again()
    assert ended.exit_code == 0
    assert time.monotonic() - began > (15 if host == "another machine" else 0)
    assert ended.summary["runs"] == [open_run.run_id]
    assert not (scoring.out / "_lock.json").exists()
    assert_whole(scoring.out, undisturbed, recordings=RECORDINGS)


@pytest.mark.slow
def test_parts_half_written(scoring: Scoring, open_run: archive.ledger.Run, undisturbed: Path) -> None:
    """What a dead worker had under its dot-name, or in other tables than `recordings`, does not count."""
    done = archive.predictions.committed(scoring.out)
    left = [part for part in archive.predictions.committed(undisturbed) if part not in done]
    for number, part in enumerate(left):
        for table in archive.schemas.BLOCK_TABLES[: number % 3]:
            data = part.path(undisturbed, table).read_bytes()
            place = Path(part.path(scoring.out, table))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data[: len(data) // (1 + number % 2)])
        place = Path(part.path(scoring.out, "recordings"))
        place.with_name(f".{place.name}.0123abcd.partial").write_bytes(b"PAR1")
    assert len(archive.read(scoring.out, table="recordings")) == len(done)
    ended = scoring.again()
    assert (ended.exit_code, ended.summary["recordings"]) == (0, RECORDINGS)
    assert_whole(scoring.out, undisturbed, recordings=RECORDINGS)


@pytest.mark.fault
@pytest.mark.parametrize("table", ["windows", "recordings"])
def test_a_committed_part_cut_in_half_is_found_and_can_be_mended(
    table: str, scoring: Scoring, undisturbed: Path
) -> None:
    """No crash of ours leaves that, but a disk may: nothing is made of it, and somebody is told what to do."""
    shutil.copytree(undisturbed, scoring.out)
    part = archive.predictions.committed(scoring.out)[5]
    place = Path(part.path(scoring.out, table))
    place.write_bytes(place.read_bytes()[:-40])
    (problem,) = [each for each in verify(scoring.out).problems if "cannot be read" in each]
    assert place.name in problem
    assert run_emolib("verify", scoring.out).exit_code == 6
    ended = scoring.again()
    if table == "recordings":  # what is scored can't be known
        assert ended.exit_code == 70
        assert place.name in ended.summary["error"]
        assert "remove all parts of their block and run the job again" in ended.summary["error"]
    for each in archive.schemas.BLOCK_TABLES:
        part.path(scoring.out, each).unlink()
    ended = scoring.again()
    assert ended.exit_code == 0
    assert ended.summary["recordings"] == 1
    assert_whole(scoring.out, undisturbed, recordings=RECORDINGS)
