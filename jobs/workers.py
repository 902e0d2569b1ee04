"""What every worker is told when a job reaches it, and what the job asks of it first."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distributed import Client, Worker
from distributed.diagnostics.plugin import WorkerPlugin

from emolib.errors import SettingsError

# One task per process and one thread per task: more threads in BLAS or OpenMP only get into each other's way.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")

# Those that decide numbers, or what is sent between processes: they must be the same everywhere.
_COMPARED = ("emolib", "dask", "distributed", "cloudpickle", "numpy", "scipy", "onnxruntime", "soxr", "pyarrow")


def versions() -> dict[str, str]:
    """Return the versions that a job and its workers must share; of Python the first two numbers."""
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in _COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


class Prepared(WorkerPlugin):
    """A worker with the driver's versions and one thread; another one ends with a line that says what differs.

    Parameters
    ----------
    expected
        What `versions` returned in the driver.
    """

    name = "emolib-prepared"
    idempotent = True

    def __init__(self, expected: dict[str, str]) -> None:
        self._expected = expected

    def setup(self, worker: Worker) -> None:
        """Check a worker, and pin its threads for the processes that it starts."""
        if differs := differing(versions(), self._expected):
            raise SettingsError(f"worker {worker.address} has {differs}; install the driver's versions there")
        os.environ.update(ONE_THREAD)


def differing(found: dict[str, str], expected: dict[str, str]) -> str:
    """Say what differs.

    Examples
    --------
    >>> differing({"numpy": "2.0"}, {"numpy": "2.1"})
    'numpy 2.0, expected 2.1'
    """
    return ", ".join(
        f"{name} {found.get(name, 'none')}, expected {wanted}"
        for name, wanted in expected.items()
        if found.get(name, "none") != wanted
    )


def prepare(client: Client) -> None:
    """See that all workers, and those that come later, are fit for work.

    Raises
    ------
    SettingsError
        If one that is there is not.
    """
    client.register_plugin(Prepared(versions()))


def memory_limit(client: Client) -> int | None:
    """Return the memory limit of the smallest worker in bytes; None where none has one."""
    workers: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    limits = [each["memory_limit"] for each in workers.values() if each["memory_limit"]]
    return min(limits) if limits else None


def require_memory(client: Client, needed: int, what: str) -> None:
    """Refuse work that no worker has room for.

    Parameters
    ----------
    needed
        Bytes that a task may take, its process included.
    what
        What takes it.

    Raises
    ------
    SettingsError
        If the smallest worker has less.
    """
    limit = memory_limit(client)
    if limit is not None and limit < needed:
        raise SettingsError(
            f"workers with {limit / 2**30:.2f} GiB found, expected at least {needed / 2**30:.2f} GiB {what}: give them "
            "more memory in the cluster file, or take fewer (--workers)"
        )
