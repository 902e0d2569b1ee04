"""Workers that are started by SSH, through a real sshd on a high port of loopback."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emolib.archive.verification import verify
from tests.clusters.conftest import RECORDINGS
from tests.conftest import wait_for
from tests.jobs.conftest import assert_same_rows, run_emolib

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def login(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str | int]]:
    """How this machine is reached by SSH, as a cluster file says it."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if sshd is None:
        pytest.skip("no sshd found; install openssh-server")
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": folder / "pid",
        "StrictModes": "no",  # the folder of a test may be anywhere
        "UsePAM": "no",
        "PasswordAuthentication": "no",
    }
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if getpass.getuser() == "root":
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd gives up its rights; Debian's service makes it
    host = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host[0]} {host[1]}\n")
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "config"], stderr=log, stdout=log)
    try:
        wait_for(lambda: "Server listening" in (folder / "log").read_text() or server.poll() is not None, "sshd")
        assert server.poll() is None, (folder / "log").read_text()
        yield {"port": port, "key": str(folder / "user"), "known_hosts": str(folder / "known_hosts")}
    finally:
        server.terminate()
        server.wait()


def test_calls_and_corpora_by_ssh(
    login: dict[str, str | int],
    certificates: Path,
    spec: Callable[..., Path],
    calls: Path,
    corpus: Path,
    model: Path,
    undisturbed: Path,
    tmp_path: Path,
) -> None:
    where = spec(kind="ssh", hosts=["127.0.0.1"], workers_per_host=2, tls=str(certificates), memory="1GiB", **login)
    common = ("--model", model, "--block-s", "1", "--failure-budget", "1", "--cluster", where)
    ended = run_emolib("score", calls, "--out", tmp_path / "P", *common)
    assert (ended.exit_code, ended.summary["recordings"]) == (0, RECORDINGS)
    assert_same_rows(tmp_path / "P", undisturbed)
    assert verify(tmp_path / "P").problems == []
    assert run_emolib("extract", corpus, "--store", tmp_path / "S.zarr", "--cluster", where).exit_code == 0
    assert run_emolib("verify", tmp_path / "S.zarr").exit_code == 0


def test_a_host_that_nobody_knows_is_not_trusted(
    login: dict[str, str | int],
    certificates: Path,
    spec: Callable[..., Path],
    calls: Path,
    model: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "nobody").write_text("")
    known = login | {"known_hosts": str(tmp_path / "nobody")}
    where = spec(kind="ssh", hosts=["127.0.0.1"], tls=str(certificates), **known)
    ended = run_emolib("score", calls, "--out", tmp_path / "P", "--model", model, "--cluster", where)
    assert (ended.exit_code, "Host key is not trusted" in ended.summary["error"]) == (2, True), ended
