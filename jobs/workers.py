"""What every worker is told when a job reaches it, and what the job asks of it first."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distributed import Client, Worker
from distributed.diagnostics.plugin import WorkerPlugin

from emolib import __version__
from emolib.errors import EmolibError, SettingsError
from jobs import process
from jobs.console import StalledError

# One task per process and one thread per task: more threads in BLAS or OpenMP only get into each other's way.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
ENVIRONMENT = {**ONE_THREAD, **process.ENVIRONMENT}

GONE = "the cluster's scheduler is gone: start it, and run the same command again; what is done stays done"

_PLUGIN = "emolib-versions-"
# Those that decide numbers, or what is sent between processes: they must be the same everywhere.
_COMPARED = (
    *("dask", "distributed", "cloudpickle", "numpy", "scipy", "pyarrow"),
    *("onnxruntime", "soxr", "soundfile", "av", "webrtcvad-wheels"),
)


def versions() -> dict[str, str]:
    """Return the versions that a job and its workers must share: of Python two numbers, of emolib its code."""
    found = {"python": ".".join(map(str, sys.version_info[:2])), "emolib": _code()}
    for name in _COMPARED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


@cache
def _code() -> str:
    """Return a hash of emolib's code: a version's number stays while that is worked on."""
    found = hashlib.blake2b(digest_size=8)
    root = Path(__file__).parents[1]
    files = (path for package in ("emolib", "jobs") for path in (root / package).rglob("*.py") if path.is_file())
    for path in sorted(files):
        found.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return f"{__version__} ({found.hexdigest()})"


class SameVersions(WorkerPlugin):
    """A worker with the driver's versions and one thread; another one ends with a line that says what differs.

    Parameters
    ----------
    expected
        What `versions` returned in the driver.
    """

    idempotent = True  # by its name: jobs of the same versions may share it

    def __init__(self, expected: dict[str, str]) -> None:
        self._expected = expected
        self.name = _PLUGIN + hashlib.blake2b(repr(sorted(expected.items())).encode(), digest_size=8).hexdigest()

    def setup(self, worker: Worker) -> None:
        """Check a worker, and pin its threads for the processes that it starts."""
        if differs := differing(versions(), self._expected):
            raise SettingsError(f"worker {worker.address} has {differs}; install the driver's versions there")
        if (found := sys.getfilesystemencoding()) != "utf-8":
            raise SettingsError(
                f"worker {worker.address} takes file names for {found}, expected utf-8: start it with "
                "PYTHONUTF8=1 in its environment"
            )
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


@contextmanager
def same_versions(client: Client) -> Iterator[None]:
    """See that all workers, and those that come while the block lasts, are fit for work.

    Raises
    ------
    SettingsError
        If one that is there is not.
    StalledError
        If the scheduler is gone before they are asked.
    """
    plugin = SameVersions(versions())
    try:
        _register(client, plugin)
        yield
    finally:
        _forget(client, plugin.name)


def _register(client: Client, plugin: SameVersions) -> None:
    try:
        for other in client.run_on_scheduler(_plugins):
            if other != plugin.name:  # of a job that was killed: it would turn away all of today's workers
                _forget(client, other)
        client.register_plugin(plugin)
    except EmolibError:
        raise
    except Exception as error:  # Dask passes on whatever it is that a worker said
        if _is_gone(client):
            raise StalledError(GONE) from error
        raise SettingsError(
            f"a worker, or the scheduler, can't be asked for its versions ({error}), expected emolib in its "
            "environment: install the driver's versions there"
        ) from error


def _is_gone(client: Client) -> bool:
    """Return whether the scheduler answers no more."""
    if client.status != "running":
        return True
    try:
        return bool(client.run_on_scheduler(int) != 0)  # which a scheduler without emolib can do, too
    except (OSError, RuntimeError):  # the latter where the client gives up just now
        return True


def _plugins(dask_scheduler: Any) -> list[str]:
    return [name for name in dask_scheduler.worker_plugins if name.startswith(_PLUGIN)]


def _forget(client: Client, plugin: str) -> None:
    if client.status != "running":  # the scheduler is gone, and the plugin with it
        return
    with suppress(ValueError, KeyError, OSError, TimeoutError):  # another job was first, or a worker never had it
        client.unregister_worker_plugin(plugin)


def workers_of(client: Client) -> dict[str, Any]:
    """Return what the scheduler knows of each worker, by address.

    Raises
    ------
    StalledError
        If the client has given up reaching the scheduler.
    """
    seen: dict[str, Any] = client.scheduler_info(n_workers=-1)
    if "workers" not in seen:
        raise StalledError(GONE)
    return dict(seen["workers"])


def memory_limit(client: Client) -> int | None:
    """Return the memory limit of the smallest worker in bytes; None where none has one."""
    limits = [each["memory_limit"] for each in workers_of(client).values() if each["memory_limit"]]
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
