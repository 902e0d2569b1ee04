"""What every test may ask for."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import emolib  # noqa: F401  # before a test imports onnxruntime: that reads then whether it may talk
from jobs.environment import set_switches

set_switches()

# TensorFlow has no wheels for newer ones ("train" in pyproject.toml).
TRAINS = sys.version_info < (3, 14)
_SHARED = Path(os.environ.get("EMOLIB_SHARED", Path(__file__).parents[2] / "shared"))

# A busy machine must fail no test: no deadline, and the same examples every time. `make test` tries few of them,
# `make test-all` many (`--hypothesis-profile thorough`), and `--hypothesis-profile explore` others each time.
_PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=15, derandomize=True, **_PATIENT)
settings.register_profile("thorough", max_examples=100, derandomize=True, **_PATIENT)
settings.register_profile("explore", max_examples=1000, **_PATIENT)
settings.load_profile("quick")

# Far beyond what anything takes on a busy machine.
PATIENCE_S = 900.0

MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def sampled(cases: Iterable[Any], *, keep: Any) -> list[Any]:
    """Return cases for `parametrize`: `make test` runs one of them, `make test-all` all."""
    return [case if case == keep else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def damages(data: bytes) -> list[bytes]:
    """Return what a failing disk may make of a file: cut, emptied, or with a bit turned over, at places from a seed."""
    places = random.Random(1).sample(range(len(data)), 30)
    cut = [data[: len(data) * part // 4] for part in range(4)]
    return cut + [data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :] for place in [*places, -22]]


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = PATIENCE_S, poll_s: float = 0.005) -> None:
    """Wait until something is so that does not pass again: what may pass could be missed on a busy machine."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(poll_s)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once why tests were skipped, however many."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason, count in Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped).items():
        terminalreporter.write_line(f"{count} skipped: {reason}")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """A function that makes a folder once for all processes of a test run: one makes it, the others wait for it."""
    own = tmp_path_factory.getbasetemp()
    shared_by_all = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def made(name: str, make: Callable[[Path], object]) -> Path:
        place, mark = shared_by_all / name, shared_by_all / f"{name}.made"
        with (shared_by_all / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not mark.exists():
                shutil.rmtree(place, ignore_errors=True)  # of one who failed at it
                make(place)
                mark.touch()
        return place

    return made


@pytest.fixture(scope="session")
def training() -> None:
    """Tests that train ask for it: they are skipped on a Python that only scores."""
    if not TRAINS:
        pytest.skip("training needs Python 3.11 to 3.13: TensorFlow has no wheels for newer ones")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings; where it is not, tests that ask for it are skipped, or fail if it is required."""
    if not (_SHARED / "calls").is_dir():
        reason = (
            "no real recordings here: their licences forbid handing them on. The other tests make their own sound. "
            "To run these, too, set EMOLIB_SHARED to a folder with corpora/, calls/ and broken/"
        )
        if os.environ.get("EMOLIB_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return _SHARED
