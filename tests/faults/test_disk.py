"""A disk that is full, and one that may only be read: nothing is lost, and somebody is told what to do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emolib import archive
from tests.conftest import wait_for
from tests.faults.world import Cluster, assert_whole, parts, paused, run_apart

pytestmark = [pytest.mark.fault, pytest.mark.sample]
RECORDINGS = 26


class Disk:
    """A small file system of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def mount(self, options: str) -> None:
        """Mount it, or change how it is mounted."""
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise OSError(done.stderr.strip())

    def fill(self, *, leave: int) -> None:
        """Fill it up to so many bytes."""
        with (self.place / "others").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                file.truncate(file.tell() - leave)

    def free(self) -> None:
        """Remove what filled it."""
        (self.place / "others").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    disk.place.mkdir()
    try:
        disk.mount("size=4m")
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "-l", str(disk.place)], check=True)


@pytest.fixture
def command(calls: Path, model: Path, processes: Cluster, disk: Disk) -> tuple[str | Path, ...]:
    common = ("score", calls, "--model", model, "--block-s", "1", "--failure-budget", "1")
    return (*common, "--out", disk.place / "P", "--cluster", processes.mend())


@pytest.mark.parametrize("room", [0, 20_000, 60_000, 200_000], ids=str)
def test_disk_full(room: int, command: tuple[str | Path, ...], disk: Disk, undisturbed: Path) -> None:
    """Full before the lock, before the plan, and with some blocks done."""
    out = disk.place / "P"
    disk.fill(leave=room)
    code, _, said = run_apart(*command)
    assert code == 5, said
    assert "No space left on device" in said
    assert "run the same command again" in said
    done = parts(out)
    assert (done > 0) == (room > 100_000)
    assert done < RECORDINGS
    disk.free()
    code, _, said = run_apart(*command)
    assert code == 0, said
    assert_whole(out, undisturbed, recordings=RECORDINGS)


def test_output_that_may_only_be_read(command: tuple[str | Path, ...], disk: Disk, undisturbed: Path) -> None:
    """From the start, where nothing can be written; later, with some blocks done; and for who only looks."""
    out = disk.place / "P"
    disk.mount("remount,ro")
    code, _, said = run_apart(*command)
    assert code == 2, said
    assert "Read-only file system" in said
    assert str(out) in said
    disk.mount("remount,rw")
    with paused(*command, blocks=2) as (running, go_on):
        wait_for(lambda: _made_read_only(disk), "a moment in which nothing is open for writing")
        go_on()
        code, said = running.end()
    assert code in (2, 5), said
    assert "Read-only file system" in said
    done = parts(out)
    assert 2 <= done < RECORDINGS
    code, ended, said = run_apart("verify", out)
    assert (code, ended["counts"]["open_runs"]) == (6, 1), said  # it reads, and says that the run is open
    disk.mount("remount,rw")
    code, _, said = run_apart(*command)
    assert code == 0, said
    assert_whole(out, undisturbed, recordings=RECORDINGS)
    assert len(archive.ledger.runs(out)) == 1


def _made_read_only(disk: Disk) -> bool:
    try:
        disk.mount("remount,ro")
    except OSError:  # busy: something is being written
        return False
    return True
