"""Two hosts, each a network namespace with a worker, and the link to one of them cut in the middle of a run."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Client

from emolib.archive.verification import verify
from jobs.security import CA, CERTIFICATE, KEY, security
from tests.clusters.conftest import RECORDINGS
from tests.conftest import wait_for
from tests.faults.world import parts, paused
from tests.jobs.conftest import assert_same_rows

pytestmark = pytest.mark.cluster

_NETWORK = "10.199.77"
_TTL_S = 20  # after which a scheduler gives up a worker that it does not hear


@dataclass
class Hosts:
    """A scheduler on this host, a worker on each of two others."""

    address: str
    certificates: Path
    bridge_ports: dict[str, str]

    def cut(self, host: str) -> None:
        _ip("link", "set", self.bridge_ports[host], "down")

    def mend(self, host: str) -> None:
        _ip("link", "set", self.bridge_ports[host], "up")

    def workers(self) -> int:
        with Client(self.address, security=security(str(self.certificates))) as client:
            return len(client.scheduler_info(n_workers=-1)["workers"])


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts(certificates: Path, tmp_path: Path) -> Iterator[Hosts]:
    if shutil.which("ip") is None or os.geteuid():
        pytest.skip("no iproute2, or not root: no network can be made")
    tag = secrets.token_hex(2)
    bridge = f"em{tag}"
    tls = [
        argument
        for name, file in (("--tls-ca-file", CA), ("--tls-cert", CERTIFICATE), ("--tls-key", KEY))
        for argument in (name, str(certificates / file))
    ]
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{_NETWORK}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        ports = {}
        for number, host in enumerate("ab", start=2):
            name, outside, inside = f"{bridge}{host}", f"{bridge}{host}o", f"{bridge}{host}i"
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
            _ip("link", "set", outside, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{_NETWORK}.{number}/24", "dev", inside)
            _ip("-n", name, "link", "set", inside, "up")
            _ip("-n", name, "link", "set", "lo", "up")
            ports[host] = outside
        place = tmp_path / "scheduler.json"
        scheduler = ("scheduler", "--host", f"tls://{_NETWORK}.1", "--port", "0", "--scheduler-file", str(place))
        stack.enter_context(_process(tmp_path, "scheduler", [], *scheduler, *tls))
        wait_for(lambda: place.exists() and place.read_text().strip().endswith("}"), "the scheduler")
        for number, host in enumerate("ab", start=2):
            own = ("--host", f"{_NETWORK}.{number}", "--nthreads", "1", "--memory-limit", "2GiB")
            there = ["ip", "netns", "exec", f"{bridge}{host}"]
            worker = ("worker", "--scheduler-file", str(place), *own, "--local-directory", str(tmp_path / host))
            stack.enter_context(_process(tmp_path, f"worker-{host}", there, *worker, *tls))
        with Client(scheduler_file=str(place), security=security(str(certificates)), timeout=60) as client:
            client.wait_for_workers(2, timeout=120)
            address = client.scheduler.address
        yield Hosts(address, certificates, ports)


@contextmanager
def _process(folder: Path, name: str, there: list[str], kind: str, *arguments: str) -> Iterator[None]:
    """Run a process of Dask until the end of the block."""
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [*there, sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *arguments],
            stdout=log,
            stderr=log,
            env={**os.environ, "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{_TTL_S}s"},
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.mark.parametrize("cut_s", [60.0, None], ids=["for a minute", "for good"])
def test_a_link_that_is_cut(
    cut_s: float | None,
    hosts: Hosts,
    spec: Callable[..., Path],
    calls: Path,
    model: Path,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    where = spec(kind="address", address=hosts.address, tls=str(hosts.certificates))
    out = tmp_path / "P"
    asked = ("score", calls, "--model", model, "--out", out, "--block-s", "1", "--failure-budget", "1")
    with paused(*asked, "--cluster", where, blocks=4) as (driver, go_on):
        hosts.cut("b")
        cut, done = time.monotonic(), parts(out)
        go_on()
        if cut_s is not None:
            wait_for(lambda: hosts.workers() == 1, "the scheduler to miss a worker", poll_s=1.0)
            time.sleep(max(0.0, cut + cut_s - time.monotonic()))
            hosts.mend("b")
        code, said = driver.end()
        took_s = time.monotonic() - cut
    print(f"cut with {done} of {RECORDINGS} blocks done, ended {took_s:.0f} s later")
    assert code == 0, said
    assert took_s > 0.5 * _TTL_S, "nothing was under way beyond the cut"
    if cut_s is None:
        assert hosts.workers() == 1
    assert_same_rows(out, undisturbed)
    assert verify(out).problems == []
