"""SIGKILL of the driver, of a worker, of the scheduler: the next run completes the rows, and nothing stands twice."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import wait_for
from tests.faults.world import Cluster, assert_whole, job, parts
from tests.jobs.conftest import run_emolib

RECORDINGS, REPETITIONS = 26, 20
# How long a run is at work from its stored plan to its end, as far as anybody knows: kills fall within it.
_at_work_s: list[float] = []
_struck: dict[str, int] = {}


def _killed_and_run_again(
    victim: str, seed: int, processes: Cluster, calls: Path, model: Path, undisturbed: Path, place: Path
) -> None:
    chance = random.Random(f"{victim} {seed}")
    common = ("score", calls, "--model", model, "--block-s", "1", "--failure-budget", "1")
    if not _at_work_s:  # twice without a kill: the first time the workers start their scorers
        for number in range(2):
            quiet = run_emolib(*common, "--out", place / f"quiet-{number}", "--cluster", processes.mend())
            assert quiet.exit_code == 0
        _at_work_s.append(quiet.summary["seconds"])
        assert_whole(place / "quiet-1", undisturbed, recordings=RECORDINGS)
    out = place / "P"
    with job(*common, "--out", out, "--cluster", processes.mend()) as driver:
        wait_for(lambda: list(out.glob("_runs/*/plan.json")) or driver.process.poll() is not None, "a plan")
        time.sleep(chance.uniform(0, _at_work_s[0]))
        killed = {"driver": driver.process, "worker": chance.choice(processes.workers)}.get(victim, processes.scheduler)
        was_at_work = driver.process.poll() is None
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        done = parts(out)
        code, said = driver.end()
    if victim == "driver":
        assert code == (-signal.SIGKILL if was_at_work else 0), said
    elif victim == "worker":
        assert code == 0, said
    else:
        assert code in ((0, 5) if was_at_work else (0,)), said
        assert code == 0 or "run the same command again" in said
    ended = run_emolib(*common, "--out", out, "--cluster", processes.mend())
    assert ended.exit_code == 0
    assert_whole(out, undisturbed, recordings=RECORDINGS)
    again = run_emolib(*common, "--out", out, "--cluster", processes.address)
    assert (again.exit_code, again.summary["recordings"]) == (0, 0)
    _struck[victim] = _struck.get(victim, 0) + (was_at_work and done < RECORDINGS)
    print(f"{victim} {seed}: {done} of {RECORDINGS} committed at the kill, exit code {code}; {_struck}")


@pytest.mark.fault
@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.sample] if seed < 9 else []) for seed in range(REPETITIONS)]
)
def test_a_kill_at_any_moment(
    seed: int, processes: Cluster, calls: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    victim = ("driver", "worker", "scheduler")[seed % 3]
    _killed_and_run_again(victim, seed, processes, calls, model, undisturbed, tmp_path)


@pytest.mark.fault
def test_the_kills_hit_runs_that_were_at_work() -> None:
    """Kills of what had ended already would show nothing."""
    assert set(_struck) == {"driver", "worker", "scheduler"}
    assert sum(_struck.values()) >= REPETITIONS // 2, _struck


@pytest.mark.slow
def test_a_worker_and_then_the_scheduler_killed(
    processes: Cluster, calls: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """The run goes on without the worker, and ends without the scheduler: the short form of all the others."""
    out = tmp_path / "P"
    common = ("score", calls, "--model", model, "--out", out, "--block-s", "1", "--failure-budget", "1")
    with job(*common, "--cluster", processes.mend()) as driver:
        for victim, blocks in ((processes.workers[0], 1), (processes.scheduler, 4)):
            wait_for(lambda blocks=blocks: parts(out) >= blocks, f"{blocks} blocks")
            victim.kill()
            victim.wait()
        code, said = driver.end()
    assert code in (0, 5), said  # 0: done before anybody could miss it
    assert code == 0 or "run the same command again" in said
    assert run_emolib(*common, "--cluster", processes.mend()).exit_code == 0
    assert_whole(out, undisturbed, recordings=RECORDINGS)
