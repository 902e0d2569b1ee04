"""How the benchmarks measure: ways in turn, in warm processes of one thread each."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# One thread in every process, ours and theirs: what is compared is work per core.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
    ),
    "1",
)
# Set by the runner for the processes of `--quick`: small inputs and few rounds, to see that everything works.
QUICK = "EMOLIB_BENCH_QUICK"


def is_quick() -> bool:
    return QUICK in os.environ


def in_turn(ways: Mapping[str, Callable[[], float]], *, rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Run every way once per round (A B A B …), so that a machine that slows down slows all of them.

    Parameters
    ----------
    ways
        Functions that do the work and return the seconds it took.
    warm_up
        Run each way once before, uncounted.

    Returns
    -------
    dict
        For each way its seconds, one number per round.
    """
    if warm_up:
        for way in ways.values():
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    return seconds


def repeated(call: Callable[[], object], *, least_s: float = 0.1) -> Callable[[], float]:
    """Return a way that repeats a call for at least `least_s` and returns the seconds of one call."""
    repeats = 1

    def way() -> float:
        nonlocal repeats
        began = time.perf_counter()
        for _ in range(repeats):
            call()
        seconds = (time.perf_counter() - began) / repeats
        repeats = max(repeats, round(least_s / seconds + 0.5))
        return seconds

    return way


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def peak_mb() -> float:
    """Return the most memory that this process ever held, in MB.

    From /proc where there is one: a new process inherits `ru_maxrss` from the one that started it, and would claim the
    memory of its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def has_tensorflow() -> bool:
    """Return whether this process has imported TensorFlow."""
    return "tensorflow" in sys.modules
