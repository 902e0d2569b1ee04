"""The cluster that a job runs on. A job does not know where it runs; the spec says it."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import dask
from cyclopts import Parameter
from distributed import Client, LocalCluster
from pydantic import Field, model_validator

from emolib.config import Settings, parse
from emolib.errors import SettingsError
from jobs.console import say

# What `--cluster` means on every command that fans work out.
ClusterOption = Annotated[
    str | None,
    Parameter(help="Where to run: a TOML file from cluster/, or a scheduler's address (tcp://host:8786)."),
]
WorkersOption = Annotated[int | None, Parameter(help="Worker processes of a local cluster; one per core if not given.")]

# One task per process and one thread per task: more threads in BLAS or OpenMP only get into each other's way.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
_CONNECT_TIMEOUT_S = 30
# Workers are spawned, never forked: threads of the parent do not survive a fork. Nobody looks at the profiler, which
# stops every worker a hundred times a second. And Dask lets workers give back every 64 KiB that they free, so that a
# task asks the kernel for the same memory again and again: that took a sixth of a worker's time.
_LOCAL = {
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 128 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
}


class ClusterConfig(Settings):
    """The table ``[cluster]`` of a spec.

    Parameters
    ----------
    kind
        ``local``: worker processes on this machine; ``address``: a scheduler that runs already.
    workers
        Worker processes of a local cluster; None: one per core.
    memory
        Memory limit of each local worker, such as ``"4GiB"``; None: an equal share.
    address
        The scheduler's address, for ``kind = "address"``.
    """

    kind: Literal["local", "address"] = "local"
    workers: int | None = Field(default=None, ge=1)
    memory: str | None = None
    address: str | None = None

    @model_validator(mode="after")
    def _addressed(self) -> ClusterConfig:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError('an address goes with kind = "address", and only with it')
        if self.kind == "address" and (self.workers or self.memory):
            raise ValueError("workers and memory are the running cluster's own, expected only for a local one")
        return self


def cluster_config(spec: str | None, *, workers: int | None = None) -> ClusterConfig:
    """Return what a spec says: nothing, a scheduler's address, or the path of a TOML file.

    Raises
    ------
    SettingsError
        If the file is missing, no TOML, or says what no cluster has.

    Examples
    --------
    >>> cluster_config("tcp://127.0.0.1:8786").address
    'tcp://127.0.0.1:8786'
    """
    if spec is None:
        values: dict[str, Any] = {}
    elif "://" in spec:
        values = {"kind": "address", "address": spec}
    else:
        values = _read_spec(Path(spec))
    if workers is not None:
        values["workers"] = workers
    return parse(ClusterConfig, values)


@contextmanager
def connect(config: ClusterConfig) -> Iterator[Client]:
    """Open a client of the cluster; a local one is started, and stopped at the end.

    Raises
    ------
    SettingsError
        If no scheduler answers at the address, or it has no workers.
    """
    if config.kind == "address":
        client = _reach(str(config.address))
        try:
            yield client
        finally:
            with suppress(OSError):  # its scheduler may be gone
                client.close()
        return
    workers = config.workers or os.cpu_count() or 1
    # Nothing listens beyond this machine, the dashboard included.
    with (
        dask.config.set(_LOCAL),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=config.memory or "auto",
            silence_logs=logging.CRITICAL,
            env=_ONE_THREAD,
        ) as cluster,
        Client(cluster, timeout=_CONNECT_TIMEOUT_S) as client,
    ):
        say(f"local cluster: {workers} worker processes, one thread each")
        yield client


def _reach(address: str) -> Client:
    """Return a client of a scheduler that has a worker."""
    client = None
    try:
        client = Client(address, timeout=_CONNECT_TIMEOUT_S)
        client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        if client is not None:
            client.close()
        raise SettingsError(
            f"no Dask scheduler with a worker answered at {address} within {_CONNECT_TIMEOUT_S} s: {error}"
        ) from error
    return client


def _read_spec(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(f"no cluster file found at {path}, expected a TOML file or a tcp:// address") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path} can't be read as TOML: {error}") from error
    if set(document) != {"cluster"} or not isinstance(document["cluster"], dict):
        raise SettingsError(f"{path} has {sorted(document)}, expected one table [cluster]")
    return dict(document["cluster"])
