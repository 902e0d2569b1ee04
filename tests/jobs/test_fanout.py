"""The fan-out: bounded, in the order of the ends, and without an endless wait."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator

import pytest
from distributed import Client

from emolib.corpora import splits
from emolib.errors import SettingsError
from jobs.cluster import cluster_config, connect
from jobs.console import StalledError
from jobs.fanout import Block, Done, Lost, fan_out


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
    ended = list(fan_out(client, _die_on_three, [Block((number,)) for number in range(5)]))
    assert sorted(each.value for each in ended if isinstance(each, Done)) == [0, 1, 2, 4]
    (lost,) = [each for each in ended if isinstance(each, Lost)]
    assert lost.block.arguments == (3,)
    assert "died" in lost.message


def test_a_run_that_does_not_move_stops(client: Client) -> None:
    with pytest.raises(StalledError, match="no block ended"):
        list(fan_out(client, time.sleep, [Block((5,))], stall_s=0.5))


def test_a_client_that_gave_up_says_that_the_scheduler_is_gone(cluster: tuple[str, str]) -> None:
    def blocks() -> Iterator[Block]:
        client.close()
        yield Block((3, 2))

    with Client(cluster[1]) as client, pytest.raises(StalledError, match="scheduler is gone"):
        list(fan_out(client, pow, blocks()))


def test_what_goes_wrong_on_a_cluster_is_not_taken_for_a_missing_one(cluster: tuple[str, str]) -> None:
    with pytest.raises(OSError, match="no room"), connect(cluster_config(cluster[1])):
        raise OSError(errno.ENOSPC, "no room")


def _die_on_three(number: int) -> int:
    if number == 3:
        time.sleep(2)  # until it is alone, on a slow machine too: whoever shares the worker is blamed with it
        os._exit(1)
    return number
