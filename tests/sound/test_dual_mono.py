"""One sound on two channels is found, whatever became of either; crossed lines, echo and leaks are not taken for it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from emolib.sound.dual_mono import DualMonoStream
from tests.sound import channel_pairs

RATE = 8000
SEED = 9000  # of the pairs: others than those that the measure was made with
Sound = NDArray[np.float32]


def found(blocks: Sound | Iterable[Sound], *, sampling_rate: int = RATE) -> list[tuple[int, ...]]:
    blocks = [blocks] if isinstance(blocks, np.ndarray) else list(blocks)
    stream = DualMonoStream(len(blocks[0]), sampling_rate=sampling_rate, min_level_dbfs=-60.0)
    for block in blocks:
        stream.push(block)
    return stream.finish()


def count(make: Callable[[int], Sound], seeds: Iterable[int]) -> int:
    return sum(found(make(seed)) == [(0, 1)] for seed in seeds)


def both(seed: int) -> Sound:
    """Return both parties on one channel, ``(sample,)``."""
    return channel_pairs.parties(seed).sum(axis=0)


@pytest.mark.parametrize(
    ("make", "expected"), [(channel_pairs.dual_mono, 2), (channel_pairs.crossed, 0), (channel_pairs.echoing, 0)]
)
def test_a_sample_of_pairs(make: Callable[[int], Sound], expected: int) -> None:
    assert count(make, range(2)) == expected


@pytest.mark.slow
def test_of_200_pairs_of_one_sound_99_percent_are_found() -> None:
    assert count(channel_pairs.dual_mono, range(SEED, SEED + 200)) >= 198


@pytest.mark.slow
@pytest.mark.parametrize("make", [channel_pairs.crossed, channel_pairs.echoing])
def test_of_200_pairs_of_two_parties_at_most_one_is_taken_for_one_sound(make: Callable[[int], Sound]) -> None:
    assert count(make, range(SEED, SEED + 200)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("first", channel_pairs.CODECS)
@pytest.mark.parametrize("second", channel_pairs.CODECS)
def test_a_codec_on_either_channel_hides_nothing(first: str, second: str) -> None:
    assert found(channel_pairs.dual_mono(11, codecs=(first, second))) == [(0, 1)]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (lambda sound: -sound, True),
        (lambda sound: np.roll(sound, 8), True),
        (lambda sound: np.roll(sound, -320), True),
        (lambda sound: 0.5 * sound + 0.2, True),
        (lambda sound: 0.25 * sound, True),
        (lambda sound: 0.1 * sound, False),  # a leak: the headset of the one who is loud on the other channel
        (lambda sound: np.roll(sound, 1000), False),
        (lambda sound: np.zeros_like(sound), False),
        (lambda sound: np.full_like(sound, 0.1), False),
        (lambda sound: 1e-4 * sound, False),
        (lambda sound: sound[::-1], False),
    ],
)
def test_what_is_one_sound(other: Callable[[Sound], Sound], expected: bool) -> None:
    sound = both(0)
    pair = np.stack([sound, other(sound)]).astype(np.float32)
    assert found(pair) == found(pair[::-1]) == ([(0, 1)] if expected else [])


def test_a_party_who_says_a_word_in_half_a_minute_is_a_party() -> None:
    """Loud, and heard on either channel, while the other party talks all the time."""
    talks, says = channel_pairs.parties(1)[0] + np.roll(channel_pairs.parties(1)[0], 9 * RATE), channel_pairs.parties(0)
    says = np.where(np.arange(says.shape[1]) // RATE % 30 < 3, says[0] + says[1], 0)
    crossed = np.stack([talks + 0.3 * says, says + 0.3 * talks]).astype(np.float32)
    assert found(crossed) == []
    assert found(np.stack([talks + says, 0.3 * (talks + says)])) == [(0, 1)]


def test_groups_among_several_channels() -> None:
    first, second = (both(seed) for seed in (0, 1))
    sound = np.stack([first, second, 0.4 * np.roll(first, 100), np.zeros_like(first), -second, first])
    assert found(sound) == [(0, 2, 5), (1, 4)]
    assert found(np.stack([first] * 9)) == []  # more than are compared
    assert found(first[None]) == found(np.zeros((2, 0), np.float32)) == []


@pytest.mark.parametrize("sampling_rate", [8000, 16_000, 44_100])
def test_any_rate_and_as_short_as_what_is_scored(sampling_rate: int) -> None:
    sound = both(0)[4 * RATE : 8 * RATE]
    sound = np.interp(np.arange(0, len(sound), RATE / sampling_rate), np.arange(len(sound)), sound).astype(np.float32)
    pair = np.stack([sound, 0.3 - 0.5 * np.roll(sound, sampling_rate // 100)])
    assert found(pair, sampling_rate=sampling_rate) == [(0, 1)]
    assert found(pair[:, : round(0.4 * sampling_rate)], sampling_rate=sampling_rate) == [(0, 1)]


def test_some_samples_are_too_few() -> None:
    """Of so few a filter makes the same of any two."""
    noise = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)
    assert found(0.1 * noise) == found(0.1 * noise[:, :2]) == []


@cache
def long_pair(make: Callable[[int], Sound]) -> tuple[Sound, list[tuple[int, ...]]]:
    """Return a minute and a half, of which not all is kept, and what is found in it as a whole."""
    sound = np.tile(make(0), 3)
    return sound, found(sound)


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(0, 90 * RATE), max_size=8), size=st.integers(1000, 100_000))
def test_blocks_change_nothing(cuts: list[int], size: int) -> None:
    for make in (channel_pairs.dual_mono, channel_pairs.crossed):
        sound, whole = long_pair(make)
        assert found(np.split(sound, sorted(cuts), axis=1)) == whole
        assert found(sound[:, start : start + size] for start in range(0, sound.shape[1], size)) == whole


def test_hours_take_a_minute_of_memory() -> None:
    block = channel_pairs.dual_mono(0)
    stream = DualMonoStream(2, sampling_rate=RATE, min_level_dbfs=-60.0)
    tracemalloc.start()
    for _ in range(360):
        stream.push(block)
    assert stream.finish() == [(0, 1)]
    assert tracemalloc.get_traced_memory()[1] < 20e6  # three hours are 691 MB
    tracemalloc.stop()
