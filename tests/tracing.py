"""What processes do beyond their outputs: what they write, whom they reach, whether they look a name up (strace)."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

_CHANGES = ("creat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "rmdir", "truncate")
_CHANGES += ("unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat")
_REACHES = ("connect", "bind", "sendto", "sendmsg", "sendmmsg")
# Files that are memory; and the clock of the system's UUIDs, which lies where the system keeps one.
_NO_FILES = ("/dev/", "/proc/", "/var/lib/libuuid/")
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_ADDRESS = re.compile(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"')


@cache
def _strace() -> tuple[str, ...]:
    """Return the command that traces another one; nothing where there is none, or it may not."""
    command = ("strace", "-f", "--seccomp-bpf", "-qq", "-y", "-e", f"trace=open,openat,{','.join(_CHANGES + _REACHES)}")
    if shutil.which("strace") is None or subprocess.run([*command, "-o", os.devnull, "true"], check=False).returncode:
        return ()
    return command


def require_strace() -> None:
    """Skip the rest of a test where nothing can be traced; in CI, fail."""
    if not _strace():
        reason = "strace is not installed, or may not trace: only the home folder was looked at, no address and no name"
        if os.environ.get("EMOLIB_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)


def trespasses(command: Sequence[str], place: Path, *, asked: str = "", home: Path | None = None) -> str:
    """Run a command and return what it and its children wrote or reached that was not theirs, a line each.

    Theirs is what lies in `place` / out and `place` / tmp, and addresses of this machine. Without strace only files in
    the home and working folders are found.

    Parameters
    ----------
    asked
        What it gets on stdin.
    home
        The home folder; an empty one, if not given.
    """
    folders = {name: place / name for name in ("home", "cwd", "tmp", "out")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    home, work = home or folders["home"], folders["cwd"]
    before = _files(home)
    trace = place / "trace"
    tracing = (*_strace(), "-o", str(trace)) if _strace() else ()
    # Not the surroundings of the tests: they turn off themselves what is to be seen here.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(folders["tmp"]), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [*tracing, *command],
        input=asked,
        capture_output=True,
        text=True,
        cwd=work,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = {f"{path} in the home or working folder" for path in (_files(home) | _files(work)) - before}
    if tracing:
        theirs = (*_NO_FILES, *(f"{folders[name]}/" for name in ("tmp", "out")))
        for call in _calls(trace):
            found.update(_of_call(call, work, theirs))
    return "\n".join(sorted(found))


def _files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def _calls(trace: Path) -> Iterator[str]:
    """Yield system calls, each in one piece: strace cuts those during which another thread made one."""
    begun: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        thread, _, call = line.partition(" ")
        if call.endswith(" <unfinished ...>"):
            begun[thread] = call.removesuffix(" <unfinished ...>")
        elif call.lstrip().startswith("<... "):
            yield (begun.pop(thread, "") + call.partition(" resumed>")[2]).lstrip()
        else:
            yield call.lstrip()


def _of_call(call: str, work: Path, theirs: tuple[str, ...]) -> Iterator[str]:
    name = call.partition("(")[0]
    if name in _REACHES:
        for address in _ADDRESS.findall(call):
            if not ipaddress.ip_address(address).is_loopback:
                yield f"{name} {address}"
        return
    paths = [os.path.join(folder or work, path) for folder, path in _PATH.findall(call)]  # noqa: PTH118
    if "/etc/resolv.conf" in paths:
        yield "a name looked up"
    is_change = name in _CHANGES or (name in ("open", "openat") and re.search("O_(WRONLY|RDWR|CREAT|TRUNC)", call))
    if not is_change or re.search(r"\) += -1 E", call):
        return
    if "link" in name and "unlink" not in name:  # the first is what it leads to
        paths = paths[1:]
    # A file without a name is made by opening its folder (O_TMPFILE).
    yield from (f"{name} {path}" for path in paths if not f"{path}/".startswith(theirs))
