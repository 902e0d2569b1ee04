"""What `--cluster` may say: the kinds of cluster, and what each has to be told."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from dask.utils import parse_bytes
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from emolib.config import Settings, parse
from emolib.errors import SettingsError
from emolib.storage import resolve
from jobs.toml import read_toml

TLS_FOLDER = "~/.config/emolib/tls"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LEAST_MEMORY = 100 * 2**20  # a process that has imported Dask and NumPy
# Of a cluster that somebody else sizes: with more workers, the last blocks of a night keep some of them waiting.
_SOME_WORKERS = 64


def _memory(text: str) -> str:
    """Check a size such as ``2GiB``."""
    try:
        found = parse_bytes(text)
    except OverflowError as error:
        raise ValueError(f"{text!r} is no size, expected one such as '2GiB'") from error
    if found < _LEAST_MEMORY:
        raise ValueError(f"{text!r} is {found} bytes, expected room for a process, such as '2GiB'")
    return text


MOST_WORKERS = 10_000
"""More would take a scheduler longer than the work."""
Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=MOST_WORKERS)]  # strict: true is no number
Memory: TypeAlias = Annotated[str, AfterValidator(_memory)]


class _Spec(Settings):
    """No text is empty."""

    model_config = ConfigDict(str_min_length=1)


class Local(_Spec):
    """Worker processes on this machine; nothing listens beyond loopback.

    Parameters
    ----------
    workers
        Worker processes; None: one per core.
    memory
        Limit of each, such as ``"4GiB"``; None: an equal share.
    """

    kind: Literal["local"] = "local"
    workers: Count | None = None
    memory: Memory | None = None

    @property
    def most_workers(self) -> int:
        """How many workers there will be at most."""
        return self.workers or os.cpu_count() or 1


class _Secured(_Spec):
    """A cluster whose traffic leaves this machine.

    Parameters
    ----------
    tls
        Folder of certificates that `emolib certs` made, under the same path on every machine; None: the usual one.
        False: everybody on the network may read what is sent, and run what they like on the workers.
    """

    tls: str | Literal[False] | None = None

    @property
    def most_workers(self) -> int:
        """How many workers there will be at most; where that is not known here, many."""
        return _SOME_WORKERS


class Address(_Secured):
    """A scheduler that runs already.

    Parameters
    ----------
    address
        Such as ``tls://host:8786``; ``tcp://`` is for this machine, or where `tls` is False.
    """

    kind: Literal["address"]
    address: str

    @model_validator(mode="after")
    def _encrypted(self) -> Address:
        found = urlsplit(self.address)  # whose port may raise, too
        scheme, host = found.scheme, found.hostname
        is_plain = self.address.startswith(("tls://", "tcp://")) and not (found.path or found.query or found.fragment)
        if not is_plain or host is None or found.port is None:
            raise ValueError(f"{self.address} is no scheduler's address, expected one such as tls://host:8786")
        if scheme == "tls" and self.tls is False:
            raise ValueError(f"tls = false found with {self.address}, expected tcp://, or certificates")
        if scheme != "tls" and self.tls is not False and host not in _LOOPBACK:
            raise ValueError(
                f"{self.address} is not encrypted, expected tls://, with certificates that `emolib certs` makes, or a "
                "cluster file with tls = false where nobody else is on the network"
            )
        return self


class _Started(_Secured):
    """A cluster that a job starts, and stops when it has ended.

    Parameters
    ----------
    memory
        Limit of each worker.
    python
        The interpreter on the workers' machines; None: the path of this one.
    wait_s
        Seconds to wait for the first worker.
    """

    memory: Memory = "2GiB"
    python: str | None = None
    wait_s: float = Field(default=600.0, gt=0, le=7 * 86_400, strict=True)


class _Scaled(_Started):
    """A cluster that may grow and shrink.

    Parameters
    ----------
    workers
        So many; None: as `minimum` and `maximum` say.
    minimum, maximum
        As many as there is work for, between these.
    """

    workers: Count | None = None
    minimum: Count | None = None
    maximum: Count | None = None

    @model_validator(mode="after")
    def _sized(self) -> _Scaled:
        if (self.workers is None) == (self.maximum is None) or (self.minimum is not None and self.maximum is None):
            raise ValueError("expected either workers, or maximum and perhaps minimum")
        if self.maximum is not None and (self.minimum or 0) > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self

    @property
    def most_workers(self) -> int:
        """How many workers there will be at most."""
        return self.workers or self.maximum or 1


class Ssh(_Started):
    """Machines that are reached by SSH: the first one has the scheduler, all have workers.

    Parameters
    ----------
    hosts
        Their names; each must be known to this account's ``known_hosts``.
    workers_per_host
        Worker processes on each.
    user, port, key, known_hosts
        Where they differ from what SSH does by itself.
    """

    kind: Literal["ssh"]
    hosts: tuple[str, ...] = Field(min_length=1)
    workers_per_host: Count = 1
    user: str | None = None
    port: Annotated[int, Field(strict=True, ge=1, le=65_535)] | None = None
    key: str | None = None
    known_hosts: str | None = None

    @property
    def most_workers(self) -> int:
        """How many workers there will be."""
        return len(self.hosts) * self.workers_per_host


class Slurm(_Scaled):
    """Workers as jobs of Slurm; the job itself runs where jobs may be submitted.

    Parameters
    ----------
    partition, account, walltime
        Of each job.
    workers_per_job
        Worker processes in a job, a core each.
    interface
        Network interface of the scheduler and the workers, such as ``ib0``.
    log_directory
        Where the jobs' logs go.
    directives
        More lines for ``#SBATCH``, such as ``"--constraint=avx2"``.
    prologue
        Lines of shell before a worker starts, such as ``"module load ffmpeg"``.
    """

    kind: Literal["slurm"]
    partition: str | None = None
    account: str | None = None
    walltime: str = "08:00:00"
    workers_per_job: Count = 1
    interface: str | None = None
    log_directory: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[Annotated[str, Field(min_length=0)], ...] = ()

    @property
    def most_workers(self) -> int:
        """How many workers there will be at most: those of whole jobs."""
        return -(-super().most_workers // self.workers_per_job) * self.workers_per_job


class Srun(_Started):
    """The whole batch inside one allocation of Slurm: the job runs in a script of `sbatch`, its workers by `srun`.

    Parameters
    ----------
    workers
        Worker processes; None: the allocation's tasks.
    interface
        Network interface of the scheduler and the workers.
    """

    kind: Literal["srun"]
    workers: Count | None = None
    interface: str | None = None

    @property
    def most_workers(self) -> int:
        """How many workers there will be."""
        return self.workers or int(os.environ.get("SLURM_NTASKS", "1"))


class Kubernetes(_Started):
    """A DaskCluster of the Dask operator, made of a manifest.

    Parameters
    ----------
    manifest
        A YAML file, such as ``cluster/kubernetes/daskcluster.yaml``.
    workers
        So many, whatever the manifest says.
    replace
        Delete a DaskCluster of that name that is there already, such as a killed job leaves; for where no other job
        uses the manifest at the same time.
    """

    kind: Literal["kubernetes"]
    manifest: str
    workers: Count | None = None
    replace: bool = False

    @property
    def most_workers(self) -> int:
        """How many workers there will be; the manifest may say another number."""
        return self.workers or super().most_workers


class Cloud(_Scaled):
    """Virtual machines of a cloud, by dask-cloudprovider; it makes its own certificates.

    Parameters
    ----------
    provider
        ``aws``, ``gcp`` or ``azure``.
    options
        What the provider's cluster class takes, such as ``region`` and ``docker_image``.
    """

    kind: Literal["cloud"]
    provider: Literal["aws", "gcp", "azure"]
    options: dict[str, Any] = Field(default_factory=dict)


ClusterSpec: TypeAlias = Local | Address | Ssh | Slurm | Srun | Kubernetes | Cloud


class _Document(Settings):
    """What a cluster file holds."""

    cluster: Annotated[ClusterSpec, Field(discriminator="kind")]


def cluster_spec(spec: str | None, *, workers: int | None = None) -> ClusterSpec:
    """Return what a spec says: nothing, a scheduler's address, or the path of a TOML file.

    Parameters
    ----------
    workers
        So many, whatever the spec says.

    Raises
    ------
    SettingsError
        If the file is missing, no TOML, or says what no cluster has.

    Examples
    --------
    >>> cluster_spec("tcp://127.0.0.1:8786").address
    'tcp://127.0.0.1:8786'
    >>> cluster_spec(None, workers=2)
    Local(kind='local', workers=2, memory=None)
    """
    if spec is None:
        values: dict[str, Any] = {}
    elif "://" in spec and not spec.endswith(".toml"):
        values = {"kind": "address", "address": spec}
    else:
        values = _read(spec)
    if workers is not None:
        if values.get("kind") in ("slurm", "cloud"):  # in the place of all that the file says of their number
            values = {name: value for name, value in values.items() if name not in ("minimum", "maximum")}
        values["workers"] = workers
    return parse(_Document, {"cluster": {"kind": "local"} | values}).cluster


def _read(path: str) -> dict[str, Any]:
    if not resolve(path).exists():
        raise SettingsError(f"no cluster file found at {path}, expected a TOML file or a scheduler's address")
    document = read_toml(path, of="a cluster")
    if set(document) != {"cluster"} or not isinstance(document["cluster"], dict):
        raise SettingsError(f"{path} has {sorted(document)}, expected one table [cluster]")
    return dict(document["cluster"])
