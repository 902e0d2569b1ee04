"""Where a job runs: what a spec may say, who is let in, and which workers are taken."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import psutil
import pytest
from distributed import Client
from distributed.security import Security

from emolib.errors import SettingsError
from jobs.cluster import connect
from jobs.console import StalledError
from jobs.security import CA, CERTIFICATE, KEY
from jobs.specs import cluster_spec
from jobs.workers import memory_limit, same_versions, versions
from tests.jobs.conftest import assert_same_rows, dask_process, run_emolib

_ROOT = Path(__file__).parents[2]
_CLUSTERS = _ROOT / "cluster"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret") / "tls"
    assert run_emolib("certs", "--out", folder).exit_code == 0
    return folder


def _spec(tmp_path: Path, text: str) -> Path:
    place = tmp_path / "cluster.toml"
    place.write_text(f"[cluster]\n{text}\n")
    return place


@pytest.fixture(scope="module")
def encrypted(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers, each a process of its own, that only speak to who has the certificates."""
    folder = tmp_path_factory.mktemp("encrypted")
    tls = [
        argument
        for name, file in (("--tls-ca-file", CA), ("--tls-cert", CERTIFICATE), ("--tls-key", KEY))
        for argument in (name, str(certificates / file))
    ]
    own = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    up = r"Scheduler at: +(tls://127.0.0.1:\d+)"
    with dask_process("scheduler", "--protocol", "tls", "--port", "0", *own, *tls, until=up, folder=folder) as address:
        worker = ("worker", address, "--nthreads", "1", "--nworkers", "2", "--memory-limit", "2GiB", *own, *tls)
        with dask_process(*worker, until=r"(Registered to)", folder=folder):
            yield address


@pytest.mark.slow
def test_only_who_has_certificates_is_let_in(
    encrypted: str, certificates: Path, tmp_path: Path, calls: Path, model: Path, undisturbed: Path
) -> None:
    spec = _spec(tmp_path, f'kind = "address"\naddress = "{encrypted}"\ntls = "{certificates}"')
    asked = ("score", calls, "--model", model, "--failure-budget", "1", "--cluster")
    assert run_emolib(*asked, spec, "--out", tmp_path / "P").exit_code == 0
    assert_same_rows(tmp_path / "P", undisturbed)
    other = tmp_path / "other"
    assert run_emolib("certs", "--out", other).exit_code == 0
    stranger = _spec(tmp_path, f'kind = "address"\naddress = "{encrypted}"\ntls = "{other}"')
    for strangers in (stranger, encrypted.replace("tls:", "tcp:")):
        refused = run_emolib(*asked, strangers, "--out", tmp_path / "Q")
        assert (refused.exit_code, "answered" in refused.summary["error"]) == (2, True)
    with pytest.raises((OSError, TypeError, ssl.SSLError)), Client(encrypted, security=Security(), timeout=2):
        pass
    assert not (tmp_path / "Q/recordings").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "cloudy"', "kind"),
        ('kind = "address"', "address"),
        ('kind = "address"\naddress = "tcp://10.0.0.9:8786"', "not encrypted"),
        ('kind = "address"\naddress = "tls://10.0.0.9:8786"\nworkers = 3', "workers"),
        ('kind = "address"\naddress = "tls://10.0.0.9"', "such as tls://host:8786"),
        ('kind = "address"\naddress = "tls://10.0.0.9:port"', "address"),
        ('kind = "address"\naddress = "http://127.0.0.1:8786"', "such as tls://host:8786"),
        ('kind = "address"\naddress = "tls://10.0.0.9:8786"\ntls = false', "or certificates"),
        ('kind = "address"\naddress = "tcp://127.0.0.1:8786/foo"', "such as tls://host:8786"),
        ('kind = "address"\naddress = "TCP://127.0.0.1:8786"', "such as tls://host:8786"),
        ('kind = "ssh"\nhosts = []', "hosts"),
        ('kind = "slurm"\nworkers = 3\nmaximum = 4', "either workers"),
        ('kind = "slurm"', "either workers"),
        ('kind = "slurm"\nminimum = 5\nmaximum = 4', "above maximum"),
        ('kind = "local"\nmemory = "much"', "memory"),
        ('kind = "local"\nmemory = "2"', "'2' is 2 bytes"),
        ('kind = "local"\nmemory = "1e999"', "no size"),
        ('kind = "cloud"\nworkers = 3\nprovider = "mine"', "provider"),
        ("kind = 3\n[other]", "one table"),
        ("= 3", "TOML"),
    ],
)
def test_what_a_spec_may_not_say(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=said):
        cluster_spec(str(_spec(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ('kind = "slurm"\nminimum = 2\nmaximum = 40', 40),
        ('kind = "slurm"\nworkers = 3\nworkers_per_job = 7', 7),
        ('kind = "ssh"\nhosts = ["a", "b"]\nworkers_per_host = 3', 6),
        ('kind = "local"\nworkers = 3', 3),
        ('kind = "kubernetes"\nmanifest = "m.yaml"\nworkers = 5', 5),
    ],
)
def test_how_many_workers_there_will_be(text: str, workers: int, tmp_path: Path) -> None:
    spec = str(_spec(tmp_path, text))
    assert cluster_spec(spec).most_workers == workers
    if "ssh" not in text:  # --workers says it in the place of the file
        assert cluster_spec(spec, workers=7).most_workers == 7


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        ("invalid partition specified: none", SettingsError, "takes no such job: sbatch: error: invalid partition"),
        ("Unable to contact slurm controller (connect failure)", StalledError, "can't be reached: .* run the same"),
    ],
)
def test_a_queue_that_takes_no_job_is_asked_once(
    error: str, kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\necho 'sbatch: error: {error}' >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    spec = cluster_spec(str(_spec(tmp_path, 'kind = "slurm"\nworkers = 2\ninterface = "lo"\ntls = false')))
    with pytest.raises(kind, match=said), connect(spec):
        pass


@pytest.mark.parametrize("path", sorted(_CLUSTERS.rglob("*.toml")), ids=lambda path: path.name)
def test_the_files_of_the_project_are_specs(path: Path) -> None:
    if "[cluster]" in path.read_text():
        cluster_spec(str(path))


def test_without_certificates_nothing_leaves_this_machine(tmp_path: Path) -> None:
    spec = cluster_spec(
        str(_spec(tmp_path, f'kind = "address"\naddress = "tls://127.0.0.1:1"\ntls = "{tmp_path / "none"}"'))
    )
    with pytest.raises(SettingsError, match="emolib certs"), connect(spec):
        pass


def test_certificates_are_for_their_owner_alone(certificates: Path) -> None:
    assert (certificates / KEY).stat().st_mode & 0o777 == 0o600
    assert certificates.stat().st_mode & 0o777 == 0o700
    refused = run_emolib("certs", "--out", certificates)
    assert (refused.exit_code, "exists" in refused.summary["error"]) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("import sys; sys.modules.update(jobs=None, emolib=None)", "expected emolib in its environment"),
        ("import jobs.workers as w\nw._code = lambda: open('/no/such.py')", "No such file.*/no/such.py"),
    ],
    ids=["without emolib", "with a damaged one"],
)
def test_a_worker_that_cannot_say_its_versions_is_refused(first: str, said: str, tmp_path: Path) -> None:
    code = f"{first}\nfrom distributed.cli.dask_{{0}} import main; main()"
    own = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    up = r"Scheduler at: +(tcp://127.0.0.1:\d+)"
    with dask_process("scheduler", "--port", "0", *own, until=up, folder=tmp_path) as address:
        worker = ("worker", address, "--nthreads", "1", "--no-nanny", *own)
        with (
            dask_process(*worker, until=r"(Registered to)", folder=tmp_path, code=code),
            pytest.raises(SettingsError, match=said),
            connect(cluster_spec(address)),
        ):
            pass


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before it is asked", "later"])
def test_a_scheduler_that_is_gone_is_no_setting(when: str, tmp_path: Path) -> None:
    """The job can go on another time, whenever it was; at its end there is nobody to take leave of."""
    up = r"Scheduler at: +(tcp://127.0.0.1:\d+)"
    own = ("--port", "0", "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    asked = nullcontext() if when == "later" else pytest.raises(StalledError, match="scheduler is gone: start it")
    with ExitStack() as scheduler, dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        address = scheduler.enter_context(dask_process("scheduler", *own, until=up, folder=tmp_path))
        with Client(address, timeout=3) as client:
            if when != "later":
                scheduler.close()
            with asked, same_versions(client):
                scheduler.close()
                while client.status != "closed":
                    time.sleep(0.1)
            with pytest.raises(StalledError, match="scheduler is gone"):
                memory_limit(client)


def test_a_worker_with_other_versions_is_refused(cluster: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    address: Any = cluster_spec(cluster[1])
    with connect(address), monkeypatch.context() as patched:  # a job of another version, beside this one
        patched.setattr("jobs.workers.versions", lambda: {**versions(), "numpy": "1.0"})
        with (
            pytest.raises(SettingsError, match=r"numpy .*, expected 1\.0; install the driver's versions there"),
            connect(address),
        ):
            pass
    with Client(cluster[1]) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.worker_plugins)) == ["shuffle"]


@pytest.mark.slow
def test_code_that_differs_is_another_version(tmp_path: Path) -> None:
    for package in ("emolib", "jobs"):
        shutil.copytree(_ROOT / package, tmp_path / package)
    (tmp_path / "emolib/errors.py").write_text((_ROOT / "emolib/errors.py").read_text() + "\n")
    asked = [sys.executable, "-P", "-c", "from jobs.workers import versions; print(versions()['emolib'])"]
    there, here = (
        subprocess.run(
            asked, env={**os.environ, "PYTHONPATH": str(place)}, capture_output=True, text=True, check=True
        ).stdout
        for place in (tmp_path, _ROOT)
    )
    assert there.split()[0] == here.split()[0]
    assert there != here


@pytest.mark.slow
def test_workers_without_room_are_refused(
    calls: Path, model: Path, corpus: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    spec = _spec(tmp_path, 'workers = 1\nmemory = "250MiB"')
    for command in (
        ("score", calls, "--model", model, "--out", tmp_path / "P"),
        ("extract", corpus, "--store", tmp_path / "S.zarr"),
    ):
        refused = run_emolib(*command, "--cluster", spec)
        assert (refused.exit_code, "expected at least" in refused.summary["error"]) == (2, True), refused
    with Client(cluster[1]) as client:
        assert memory_limit(client) > 2**29


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, module, more in (
        ("ssh", "asyncssh", 'hosts = ["a"]'),
        ("slurm", "dask_jobqueue", "workers = 1"),
        ("kubernetes", "kr8s", 'manifest = "m.yaml"'),
        ("cloud", "dask_cloudprovider.aws", 'workers = 1\nprovider = "aws"'),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        spec: Any = cluster_spec(str(_spec(tmp_path, f'kind = "{kind}"\n{more}')))
        with pytest.raises(SettingsError, match=r"pip install 'emolib\["), connect(spec):
            pass


def test_on_this_machine_nothing_listens_beyond_loopback(cluster: tuple[str, str]) -> None:
    """Scheduler and dashboard (this process), workers and their nannies (its children)."""
    with Client(cluster[1]) as client:
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        heard = [
            connection.laddr
            for process in processes
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        dashboard = urlsplit(client.dashboard_link)
        workers = {urlsplit(address).port for address in client.scheduler_info(n_workers=-1)["workers"]}
    assert {address.ip for address in heard} <= {"127.0.0.1", "::1"}
    assert {dashboard.port, *workers} <= {address.port for address in heard}
