"""Real Slurm on this machine: munge, a controller, two nodes, all of them on loopback, as root (as Slurm has it)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emolib.archive.verification import verify
from jobs.cluster import connect
from jobs.fanout import Block, Done, fan_out
from jobs.specs import cluster_spec
from tests.clusters.conftest import RECORDINGS
from tests.conftest import wait_for
from tests.faults.world import parts, paused, run_apart
from tests.jobs.conftest import assert_same_rows, striking

pytestmark = pytest.mark.cluster

_CONFIGURATION = """\
ClusterName=emolib
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPort={controller}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=batch Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of two nodes; the environment in which its commands reach it."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    tools = {name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd", "sbatch")}
    if missing := [name for name, found in tools.items() if found is None]:
        pytest.skip(f"no {missing[0]} found; install slurm-wlm and munge")
    if os.geteuid():
        pytest.skip("not root: slurmd starts jobs for other accounts")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    configuration = folder / "slurm.conf"
    host, (controller, first, second) = socket.gethostname(), _free_ports(3)
    configuration.write_text(
        _CONFIGURATION.format(host=host, folder=folder, controller=controller, first=first, second=second)
    )
    environment = {"SLURM_CONF": str(configuration)}
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = [
        *(f"--{name}={folder / f'munge.{name}'}" for name in ("socket", "pid-file", "log-file", "seed-file")),
        f"--key-file={key}",
    ]
    with ExitStack() as stack:
        for name, *arguments in (
            ("munged", "--foreground", "--force", *munge),
            ("slurmctld", "-D", "-f", str(configuration)),
            ("slurmd", "-D", "-N", "n1", "-f", str(configuration)),
            ("slurmd", "-D", "-N", "n2", "-f", str(configuration)),
        ):
            log = stack.enter_context((folder / f"{name}-{arguments[-3]}.log".replace("/", "_")).open("w"))
            process = subprocess.Popen(
                [str(tools[name]), *arguments], stdout=log, stderr=log, env={**os.environ, **environment}
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            if name == "munged":
                wait_for(lambda: (folder / "munge.socket").exists(), "munge")
        wait_for(lambda: _says(environment, "sinfo", "-h", "-N", "-o", "%T") == "idle\nidle", "two idle nodes")
        yield environment


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def _says(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.strip()


def _running(environment: dict[str, str]) -> list[str]:
    return _says(environment, "squeue", "-h", "-t", "running", "-o", "%i").split()


def test_workers_as_jobs_and_one_of_them_cancelled(
    slurm: dict[str, str],
    certificates: Path,
    spec: Callable[..., Path],
    calls: Path,
    corpus: Path,
    model: Path,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    where = spec(
        kind="slurm",
        workers=3,
        memory="1GiB",
        walltime="00:30:00",
        interface="lo",
        tls=str(certificates),
        log_directory=str(tmp_path),
    )
    out = tmp_path / "P"
    asked = ("score", calls, "--model", model, "--out", out, "--block-s", "1", "--failure-budget", "1")
    with paused(*asked, "--cluster", where, blocks=2, environment=slurm) as (driver, go_on):
        wait_for(lambda: len(_running(slurm)) == 3, "three jobs at work")
        cancelled, done = _running(slurm)[0], parts(out)
        subprocess.run(["scancel", cancelled], env={**os.environ, **slurm}, check=True)
        go_on()
        code, said = driver.end()
    print(f"job {cancelled} cancelled with {done} of {RECORDINGS} blocks done")
    assert code == 0, said
    assert "scheduler tls://" in said
    assert_same_rows(out, undisturbed)
    assert verify(out).problems == []
    wait_for(lambda: not _says(slurm, "squeue", "-h"), "an empty queue")
    code, _, said = run_apart("extract", corpus, "--store", tmp_path / "S.zarr", "--cluster", where, environment=slurm)
    assert code == 0, said
    code, summary, said = run_apart("verify", tmp_path / "S.zarr")
    assert (code, summary["whole"]) == (0, True), said


def test_a_cluster_grows_with_its_work(
    slurm: dict[str, str],
    certificates: Path,
    spec: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {"memory": "1GiB", "walltime": "00:30:00", "interface": "lo", "tls": str(certificates)}
    where = spec(kind="slurm", minimum=1, maximum=3, log_directory=str(tmp_path), **own)
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    with connect(cluster_spec(str(where))) as client:
        wait_for(lambda: len(_running(slurm)) == 1, "one job, as long as there is no work")

        def blocks() -> Iterator[Block]:
            while len(_running(slurm)) < 3:  # there is work until it has grown
                yield Block((1.0,), 60.0)

        assert all(isinstance(ended, Done) for ended in fan_out(client, time.sleep, blocks()))
        assert len(_running(slurm)) <= 3
        wait_for(lambda: len(_running(slurm)) == 1, "one job again")
    wait_for(lambda: not _says(slurm, "squeue", "-h"), "an empty queue")


def test_the_whole_batch_inside_one_allocation(
    slurm: dict[str, str],
    certificates: Path,
    spec: Callable[..., Path],
    calls: Path,
    model: Path,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    where = spec(kind="srun", memory="1GiB", interface="lo", tls=str(certificates))
    out, log = tmp_path / "P", tmp_path / "log"
    asked = ["score", calls, "--model", model, "--out", out, "--failure-budget", "1", "--cluster", where]
    script = tmp_path / "batch.sh"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -m jobs {' '.join(map(str, asked))}\n")
    submit = ["sbatch", "--parsable", "--ntasks=3", "--mem-per-cpu=1G", f"--output={log}", str(script)]
    number = _says(slurm, *submit)
    wait_for(lambda: number not in _says(slurm, "squeue", "-h", "-o", "%i").split(), "the end of the batch")
    assert out.exists(), log.read_text()
    assert "3 workers wanted" in log.read_text()
    assert_same_rows(out, undisturbed)
    assert verify(out).problems == []


def test_a_night_by_the_script_of_cluster_told_to_stop_goes_on_the_next_time(
    slurm: dict[str, str],
    certificates: Path,
    spec: Callable[..., Path],
    calls: Path,
    model: Path,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    where = spec(kind="srun", memory="1GiB", interface="lo", tls=str(certificates))
    out, options = tmp_path / "P", tmp_path / "nightly.toml"
    asked = {"archive": str(calls), "model": str(model), "out": str(out), "block_s": 1.0, "failure_budget": 1.0}
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**asked, "settle_s": 0.0}.items()]
    options.write_text("\n".join(["[nightly]", *lines, ""]))
    text, end = (Path(__file__).parents[2] / "cluster/nightly/emolib.sbatch").read_text(), tmp_path / "end"
    for old, new in (
        ("/shared/emolib/bin/emolib", shlex.join(striking(after="jobs.fanout._outcome", times=2, by=end))),
        ("/shared/emolib/nightly.toml", str(options)),
        ("/shared/emolib/srun.toml", str(where)),
        ("--ntasks=32", "--ntasks=3"),
        ("--mem-per-cpu=4G", "--mem-per-cpu=1G"),
        ("--output=", f"--output={tmp_path}/"),
    ):
        assert old in text
        text = text.replace(old, new)
    script = tmp_path / "emolib.sbatch"
    script.write_text(text)

    def ends(number: str) -> str:
        wait_for(lambda: number not in _says(slurm, "squeue", "-h", "-o", "%i").split(), "the end of the night")
        return _says(slurm, "scontrol", "show", "job", number)

    first = _says(slurm, "sbatch", "--parsable", str(script))
    log = tmp_path / f"emolib-{first}.log"
    waits = tmp_path / "end.waits"
    wait_for(lambda: waits.exists() or (log.exists() and "exit_code" in log.read_text()), "two blocks")
    done = parts(out)
    subprocess.run(["scancel", "--batch", "--signal=TERM", first], env={**os.environ, **slurm}, check=True)
    end.touch()
    print(f"told to stop with {done} of {RECORDINGS} blocks done")
    assert "ExitCode=5:0" in ends(first), log.read_text()
    assert done <= parts(out) < RECORDINGS
    second = _says(slurm, "sbatch", "--parsable", str(script))
    assert "ExitCode=0:0" in ends(second), (tmp_path / f"emolib-{second}.log").read_text()
    assert_same_rows(out, undisturbed)
    assert verify(out).problems == []


def test_outside_an_allocation_that_is_refused(
    spec: Callable[..., Path], calls: Path, model: Path, tmp_path: Path
) -> None:
    where = spec(kind="srun", tls=False)
    code, summary, _ = run_apart("score", calls, "--model", model, "--out", tmp_path / "P", "--cluster", where)
    assert (code, "use sbatch" in summary["error"]) == (2, True)
