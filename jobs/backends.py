"""Clusters that a job starts on other machines. Each needs a library of its own, imported when it is asked for."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.security import Security
from distributed.utils import get_ip_interface

from emolib.errors import EmolibError, SettingsError
from jobs.console import StalledError, say
from jobs.security import security, security_settings, worker_arguments
from jobs.specs import Cloud, Kubernetes, Slurm, Srun, Ssh
from jobs.workers import ENVIRONMENT

# Workers are spawned, never forked: threads of the parent do not survive a fork. Nobody looks at the profiler, which
# stops every worker a hundred times a second. And Dask lets workers give back every 64 KiB that they free, so that a
# task asks the kernel for the same memory again and again: that took a sixth of a worker's time. A worker that died is
# waited for, however busy the machine: after 15 s Dask would end its nanny, which is about to start it again.
PROCESSES: dict[str, Any] = {
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.worker.profile.enabled": False,
    "distributed.deploy.lost-worker-timeout": "15 minutes",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 128 * 2**20,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 * 2**20,
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in ENVIRONMENT.items()},
}
# Beyond this machine a scheduler answers health and measures by HTTP, and shows no pages: whoever reaches it would read
# them, certificates or not.
_ELSEWHERE = {
    **PROCESSES,
    "distributed.scheduler.http.routes": ["distributed.http.health", "distributed.http.scheduler.prometheus"],
    "distributed.worker.http.routes": ["distributed.http.health", "distributed.http.worker.prometheus"],
}
_NO_DASHBOARD = {"dashboard": False}
_AGAIN_S = 2.0  # between attempts to make what is being deleted
_SLURM_ANSWERS_S = 120.0
_SLURM_IS_AWAY = "Unable to contact|timed out|[Tt]emporar|Zero Bytes"
_AGAIN = "run the same command again: what is done stays done"


def ssh(spec: Ssh) -> AbstractContextManager[Client]:
    """Start a scheduler on the first host and workers on all of them."""
    _library("asyncssh", extra="ssh")
    from distributed import SSHCluster

    login = {"username": spec.user, "port": spec.port, "known_hosts": spec.known_hosts}
    how: dict[str, Any] = {name: value for name, value in login.items() if value is not None}
    if spec.key is not None:
        how["client_keys"] = [str(Path(spec.key).expanduser())]
    scheme = "tcp" if spec.tls is False else "tls"
    with dask.config.set({**_ELSEWHERE, **security_settings(spec.tls)}):  # the other machines inherit it
        cluster = _started(
            "ssh",
            lambda: SSHCluster(
                [spec.hosts[0], *spec.hosts],
                connect_options=how,
                scheduler_options={"port": 0, "protocol": scheme, **_NO_DASHBOARD},
                worker_options={
                    "n_workers": spec.workers_per_host,
                    "nthreads": 1,
                    "memory_limit": spec.memory,
                    "protocol": scheme,
                    **_NO_DASHBOARD,
                },
                remote_python=spec.python,
                security=security(spec.tls),
            ),
        )
    return _client(cluster, wait_s=spec.wait_s, workers=spec.most_workers)


def slurm(spec: Slurm) -> AbstractContextManager[Client]:
    """Start a scheduler here, and workers as jobs of Slurm."""
    jobqueue = _library("dask_jobqueue", extra="slurm")
    per_job = spec.workers_per_job
    with dask.config.set(_ELSEWHERE):
        cluster = _started(
            "slurm",
            lambda: jobqueue.SLURMCluster(
                queue=spec.partition,
                account=spec.account,
                walltime=spec.walltime,
                cores=per_job,
                processes=per_job,
                memory=f"{per_job * dask.utils.parse_bytes(spec.memory)} B",
                python=spec.python or sys.executable,
                interface=spec.interface,
                log_directory=spec.log_directory,
                job_extra_directives=list(spec.directives),
                job_script_prologue=[
                    *(f"export {name}={value}" for name, value in ENVIRONMENT.items()),
                    *spec.prologue,
                ],
                worker_extra_args=["--no-dashboard"],
                scheduler_options=_NO_DASHBOARD,
                security=security(spec.tls),
                protocol="tcp://" if spec.tls is False else "tls://",
            ),
        )
        try:
            _try_submitting(cluster.job_script())
        except EmolibError:
            cluster.close()
            raise
    if spec.workers is not None:
        cluster.scale(jobs=-(-spec.workers // per_job))
    else:
        cluster.adapt(minimum=spec.minimum or 1, maximum=spec.maximum)
    return _client(cluster, wait_s=spec.wait_s)


def _try_submitting(script: str) -> None:
    """Ask Slurm whether it would take a job: where it takes none, dask-jobqueue logs that, and waits for workers."""
    command = ["sbatch", "--test-only"]
    try:
        asked = subprocess.run(
            command,
            input=script,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SLURM_ANSWERS_S,
            check=False,
        )
    except OSError as error:
        raise SettingsError(f"sbatch can't be run ({error}), expected a machine that may submit jobs") from error
    except subprocess.TimeoutExpired as error:
        raise StalledError(
            f"Slurm did not answer within {error.timeout:.0f} s: see that it works, then {_AGAIN}"
        ) from error
    if asked.returncode:
        said = " ".join(asked.stderr.split())
        if re.search(_SLURM_IS_AWAY, said):
            raise StalledError(f"Slurm can't be reached: {said}; see that it works, then {_AGAIN}")
        raise SettingsError(
            f"Slurm takes no such job: {said}; change partition, account, walltime, … in the cluster file"
        )


@contextmanager
def srun(spec: Srun) -> Iterator[Client]:
    """Start a scheduler here, and workers as a step of the allocation that this process runs in."""
    if "SLURM_JOB_ID" not in os.environ:
        raise SettingsError('no allocation of Slurm found, expected one around a cluster of kind = "srun": use sbatch')
    workers = spec.most_workers
    host = get_ip_interface(spec.interface) if spec.interface else socket.getfqdn()
    scheme = "tcp" if spec.tls is False else "tls"
    with (
        dask.config.set(_ELSEWHERE),
        LocalCluster(
            n_workers=0,
            host=f"{scheme}://{host}",
            protocol=f"{scheme}://",
            security=security(spec.tls),
            dashboard_address=None,
        ) as cluster,
    ):
        step = subprocess.Popen(
            [
                *("srun", "--overlap", f"--ntasks={workers}", "--cpus-per-task=1", "--kill-on-bad-exit=0"),
                *(spec.python or sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address),
                *("--nthreads", "1", "--memory-limit", spec.memory, "--no-dashboard"),
                *(("--interface", spec.interface) if spec.interface else ()),
                *worker_arguments(spec.tls),
            ],
            stdin=subprocess.DEVNULL,
            stdout=2,
            env={**os.environ, **ENVIRONMENT},
        )
        try:
            with _client(cluster, wait_s=spec.wait_s, workers=workers) as client:
                yield client
        finally:
            step.terminate()
            step.wait()


@contextmanager
def kubernetes(spec: Kubernetes) -> Iterator[Client]:
    """Make the DaskCluster of a manifest, reach its scheduler from inside Kubernetes, and delete it at the end."""
    kr8s, yaml = _library("kr8s", extra="kubernetes"), _library("yaml", extra="kubernetes")
    try:
        manifest = yaml.safe_load(Path(spec.manifest).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{spec.manifest} can't be read as a manifest: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != "DaskCluster":
        raise SettingsError(f"{spec.manifest} is no manifest of a DaskCluster, expected one as in cluster/kubernetes")
    if spec.workers is not None:
        manifest["spec"]["worker"]["replicas"] = spec.workers
    scheme = "tcp" if spec.tls is False else "tls"
    tls = security(spec.tls)
    made = _dask_cluster(kr8s, manifest, spec)
    name, namespace = made.name, made.namespace
    try:
        address = f"{scheme}://{name}-scheduler.{namespace}.svc.cluster.local:8786"
        with _client(address, wait_s=spec.wait_s, tls=tls) as client:
            yield client
    finally:
        try:
            _remove(kr8s, made)
        except kr8s.ServerError as error:  # what the job came to stays true
            say(f"DaskCluster {name} could not be deleted, delete it by hand: {error}")


def _dask_cluster(kr8s: Any, manifest: dict[str, Any], spec: Kubernetes) -> Any:
    """Make a DaskCluster; wait for another one of its name to be gone, and for a server that is busy."""
    kind = kr8s.objects.new_class("DaskCluster", version="kubernetes.dask.org/v1", namespaced=True)
    made = _started("kubernetes", lambda: kind(deepcopy(manifest)))
    give_up, left_over = time.monotonic() + spec.wait_s, spec.replace
    while True:
        try:
            made.create()
        except (kr8s.ServerError, kr8s.APITimeoutError) as error:
            code = getattr(getattr(error, "response", None), "status_code", 504)
            if code == 409 and left_over:
                say(f"DaskCluster {made.name} is there already: it is replaced")
                _remove(kr8s, made)
                left_over = False
            elif (code < 500 and code not in (409, 429)) or time.monotonic() > give_up:
                what_to_do = "; delete it if no job uses it, or set replace = true in the cluster file"
                raise SettingsError(
                    f"DaskCluster {made.name} can't be made in {made.namespace}: {error}{what_to_do * (code == 409)}"
                ) from error
        else:
            return made
        time.sleep(_AGAIN_S)


def _remove(kr8s: Any, cluster: Any) -> None:
    """Delete a DaskCluster, once all that belongs to it is gone: the operator takes what is left for a new one's."""
    with suppress(kr8s.NotFoundError):
        cluster.delete(propagation_policy="Foreground")


def cloud(spec: Cloud) -> AbstractContextManager[Client]:
    """Start virtual machines."""
    module, name = {
        "aws": ("dask_cloudprovider.aws", "EC2Cluster"),
        "gcp": ("dask_cloudprovider.gcp", "GCPCluster"),
        "azure": ("dask_cloudprovider.azure", "AzureVMCluster"),
    }[spec.provider]
    library = _library(module, extra=spec.provider)
    options = {
        **spec.options,
        "n_workers": spec.workers or spec.minimum or 1,
        "security": spec.tls is not False,
        "env_vars": {**ENVIRONMENT, **spec.options.get("env_vars", {})},
        "worker_options": {"nthreads": 1, "memory_limit": spec.memory, **spec.options.get("worker_options", {})},
    }
    cluster = _started(spec.provider, lambda: getattr(library, name)(**options))
    if spec.workers is None:
        cluster.adapt(minimum=spec.minimum or 1, maximum=spec.maximum)
    return _client(cluster, wait_s=spec.wait_s)


def _library(name: str, *, extra: str) -> Any:
    """Import what a kind of cluster needs."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error.name} is not installed, expected for this cluster: pip install 'emolib[{extra}]'"
        ) from error


def _started(kind: str, start: Callable[[], Any]) -> Any:
    """Start a cluster; what its library can't do is a line for people, whatever it raises."""
    try:
        return start()
    except EmolibError:  # says by itself what to do
        raise
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise SettingsError(
            f"no {kind} cluster could be started: {text}; try what the cluster file names by hand"
        ) from error


@contextmanager
def _client(
    cluster: Any, *, wait_s: float, workers: int | None = None, tls: Security | None = None
) -> Iterator[Client]:
    """Open a client of a cluster, or of a scheduler's address, that has a worker; what was started ends with it."""
    with ExitStack() as stack:
        if not isinstance(cluster, str):
            stack.callback(cluster.close)
        try:
            client = stack.enter_context(Client(cluster, timeout=wait_s, security=tls))
            client.wait_for_workers(1, timeout=wait_s)
        except (OSError, TimeoutError) as error:
            raise SettingsError(
                f"no worker came within {wait_s:.0f} s: {error}; look at the queue and at the workers' logs, or give "
                "them longer by wait_s in the cluster file"
            ) from error
        say(
            f"cluster: scheduler {client.scheduler.address}"
            + ("" if workers is None else f", {workers} workers wanted")
        )
        yield client
