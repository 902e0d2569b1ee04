"""The fan-out: bounded, in the order of the ends, and without an endless wait."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from distributed import Client

from emolib.corpora import splits
from emolib.errors import SettingsError
from jobs.cluster import connect
from jobs.console import StalledError
from jobs.fanout import Block, Done, Lost, fan_out
from jobs.specs import cluster_spec


@pytest.fixture
def client(cluster: tuple[str, str]) -> Iterator[Client]:
    with Client(cluster[1]) as connected:
        yield connected


def test_every_block_ends_once_and_few_are_under_way(client: Client) -> None:
    taken: list[int] = []

    def blocks() -> Iterator[Block]:
        for number in range(40):
            taken.append(number)
            yield Block((number, 2), audio_s=1.0)

    ended = []
    for each in fan_out(client, pow, blocks()):
        assert isinstance(each, Done)
        ended.append(each)
        assert len(taken) - len(ended) <= 3 * 2  # three for each of two workers
    assert sorted(each.value for each in ended) == [number**2 for number in range(40)]


def test_equal_blocks_are_both_done(client: Client) -> None:
    ended = list(fan_out(client, pow, [Block((3, 2)), Block((3, 2)), Block((2, 2))]))
    assert sorted(each.value for each in ended if isinstance(each, Done)) == [4, 9, 9]


def test_wrong_settings_stop_all_and_the_unforeseen_stops_one(client: Client) -> None:
    with pytest.raises(SettingsError):
        list(fan_out(client, splits.validation_by, [Block(("no such protocol",))]))
    ended = list(fan_out(client, divmod, [Block((1, number)) for number in range(3)]))
    assert sorted(each.value for each in ended if isinstance(each, Done)) == [(0, 1), (1, 0)]
    (lost,) = [each for each in ended if isinstance(each, Lost)]
    assert lost.message.startswith("ZeroDivisionError")


@pytest.mark.slow
def test_a_block_that_kills_its_workers_is_lost_and_the_others_are_not(client: Client) -> None:
    # The last one: Dask blames a death on whatever waits behind it, too.
    ended = list(fan_out(client, _die_on_three, [Block((number,)) for number in (0, 1, 2, 4, 3)]))
    assert sorted(each.value for each in ended if isinstance(each, Done)) == [0, 1, 2, 4]
    (lost,) = [each for each in ended if isinstance(each, Lost)]
    assert lost.block.arguments == (3,)
    assert "died" in lost.message


@pytest.fixture
def never(tmp_path: Path) -> Iterator[Path]:
    """A file that is not there until the test is over, however it ends: the worker that waits for it serves others."""
    path = tmp_path / "never"
    yield path
    path.touch()


def test_a_run_that_does_not_move_stops(client: Client, never: Path) -> None:
    with pytest.raises(StalledError, match="no block ended"):
        list(fan_out(client, _until, [Block((never,))], stall_s=0.5))


def test_told_to_stop_it_ends_what_workers_have_and_begins_nothing(client: Client) -> None:
    asked, ended = [], []

    def blocks() -> Iterator[Block]:
        for number in range(60):
            asked.append(number)
            yield Block((0.2 + number / 1000,))

    def run() -> int:
        told = 0
        with suppress(KeyboardInterrupt):
            for each in fan_out(client, time.sleep, blocks()):
                ended.append(each)
                if len(ended) == 3:
                    signal.raise_signal(signal.SIGTERM)
                    told = len(asked)
            pytest.fail("it went on")
        return told

    told = run()
    assert all(isinstance(each, Done) for each in ended)
    assert len(asked) <= told + 1  # one more was looked at, whether there is any
    assert 3 < len(ended) <= told
    before = signal.getsignal(signal.SIGTERM)
    assert len(list(fan_out(client, pow, [Block((2, number)) for number in range(4)]))) == 4
    assert signal.getsignal(signal.SIGTERM) is before


def test_told_to_stop_at_the_last_block_it_is_done(client: Client) -> None:
    for each in fan_out(client, pow, [Block((2, 3))]):
        signal.raise_signal(signal.SIGTERM)
        assert isinstance(each, Done)


def test_told_twice_it_stops_at_once(client: Client, tmp_path: Path, never: Path) -> None:
    """Whatever is under way: that ends later than this test."""

    def run() -> None:
        for _ in fan_out(client, _until, [Block((tmp_path,)), Block((never,))]):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run()


def test_a_client_that_gave_up_says_that_the_scheduler_is_gone(cluster: tuple[str, str]) -> None:
    def blocks() -> Iterator[Block]:
        client.close()
        yield Block((3, 2))

    with Client(cluster[1]) as client, pytest.raises(StalledError, match="scheduler is gone"):
        list(fan_out(client, pow, blocks()))


def test_what_goes_wrong_on_a_cluster_is_not_taken_for_a_missing_one(cluster: tuple[str, str]) -> None:
    with pytest.raises(OSError, match="no room"), connect(cluster_spec(cluster[1])):
        raise OSError(errno.ENOSPC, "no room")


_SLOW_TO_START = """
import os, sys, time
from pathlib import Path

if "spawn_main" in " ".join(sys.orig_argv) and Path(os.environ["SEEN"]).exists():
    time.sleep(18)
"""


@pytest.mark.slow
def test_a_worker_that_takes_long_to_come_back_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask closes the nanny of a worker that is away for 15 s: on a busy machine, for good."""
    (tmp_path / "sitecustomize.py").write_text(_SLOW_TO_START)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    with connect(cluster_spec(None, workers=1)) as client:
        ended = list(
            fan_out(client, _die_once, [Block((tmp_path / "seen", number)) for number in range(4)], stall_s=90)
        )
    assert sorted(each.value for each in ended if isinstance(each, Done)) == [0, 1, 2, 3]


def _die_once(seen: Path, number: int) -> int:
    if not seen.exists():
        seen.touch()
        os._exit(1)
    return number


def _die_on_three(number: int) -> int:
    if number == 3:
        os._exit(1)
    return number


def _until(path: Path) -> None:
    """Stand for work that takes until somebody makes a file."""
    while not path.exists():
        time.sleep(0.01)
