"""The cluster that a job runs on. A job does not know where it runs; the spec says it (see `jobs.specs`)."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.util import find_spec
from typing import Annotated

import dask
from cyclopts import Parameter
from distributed import Client, LocalCluster

from emolib.errors import SettingsError
from jobs import backends, process
from jobs.bounds import between
from jobs.console import say
from jobs.security import security
from jobs.specs import MOST_WORKERS, Address, Cloud, ClusterSpec, Kubernetes, Local, Slurm, Srun, Ssh
from jobs.workers import ENVIRONMENT, same_versions

# What `--cluster` means on every command that fans work out.
ClusterOption = Annotated[
    str | None,
    Parameter(help="Where to run: a TOML file from cluster/, or a scheduler's address (tls://host:8786)."),
]
WorkersOption = Annotated[
    int | None,
    between(1, MOST_WORKERS),
    Parameter(help="Worker processes; one per core of this machine if not given."),
]

_CONNECT_TIMEOUT_S = 30.0


@contextmanager
def connect(spec: ClusterSpec) -> Iterator[Client]:
    """Open a client of the cluster; one that a job starts is stopped at the end.

    Raises
    ------
    SettingsError
        If no scheduler answers, it gets no worker in time, a worker has other versions than this process, or what a
        kind of cluster needs is not installed.
    """
    opened: AbstractContextManager[Client]
    match spec:
        case Local():
            opened = _local(spec)
        case Address():
            opened = _running(spec)
        case Ssh():
            opened = backends.ssh(spec)
        case Slurm():
            opened = backends.slurm(spec)
        case Srun():
            opened = backends.srun(spec)
        case Kubernetes():
            opened = backends.kubernetes(spec)
        case Cloud():
            opened = backends.cloud(spec)
    with opened as client, same_versions(client):
        # Those that a job starts elsewhere have no pages: nobody would ask who reads them.
        if client.dashboard_link and isinstance(spec, Local | Address) and find_spec("bokeh"):
            say(f"dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def _local(spec: Local) -> Iterator[Client]:
    workers = spec.workers or os.cpu_count() or 1
    # Nothing listens beyond this machine, the dashboard included.
    with (
        dask.config.set(backends.PROCESSES),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=spec.memory or "auto",
            silence_logs=False if process.debug else logging.CRITICAL,
            env=ENVIRONMENT,
        ) as cluster,
        Client(cluster, timeout=_CONNECT_TIMEOUT_S) as client,
    ):
        say(f"local cluster: {workers} worker processes, one thread each")
        yield client


@contextmanager
def _running(spec: Address) -> Iterator[Client]:
    tls = security(spec.tls) if spec.address.startswith("tls:") else None
    client = None
    try:
        client = Client(spec.address, timeout=_CONNECT_TIMEOUT_S, security=tls)
        client.wait_for_workers(1, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError) as error:
        if client is not None:
            client.close()
        raise SettingsError(
            f"no Dask scheduler with a worker answered at {spec.address} within {_CONNECT_TIMEOUT_S:.0f} s: {error}"
        ) from error
    try:
        yield client
    finally:
        with suppress(OSError):  # its scheduler may be gone
            client.close()
