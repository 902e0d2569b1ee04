"""Cross-talk is told from noise, silence and another's voice, whatever blocks the sound comes in."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from emolib.archive.leaks import Leaks
from tests.archive.conftest import RATE, voice

Sound = NDArray[np.float32]


@cache
def parties() -> tuple[Sound, Sound]:
    """Return two who take turns of 3 s, for 36 s."""
    rest = np.zeros(3 * RATE, np.float32)
    agent, customer = (np.concatenate([voice(3, seed=seed), rest] * 6) for seed in (20, 21))
    return agent, np.roll(customer, 3 * RATE)


def found(*, leak_db: float | None, noise_db: float = -55.0, delay_s: float = 0.0, blocks: int = RATE) -> list[int]:
    agent, customer = parties()
    noise = np.random.default_rng(1).standard_normal((2, len(agent))).astype(np.float32)
    sound = np.stack([agent, customer]) + 10 ** (noise_db / 20) * noise
    if leak_db is not None:
        sound[1] += 10 ** (leak_db / 20) * np.roll(agent, round(delay_s * RATE))
    leaks = Leaks(2, sampling_rate=RATE, min_level_dbfs=-60.0)
    for start in range(0, sound.shape[1], blocks):
        leaks.hear(sound[:, start : start + blocks])
    return leaks.found()


@pytest.mark.parametrize(("leak_db", "delay_s"), [(-20.0, 0.0), (-20.0, 0.02), (-12.0, 0.1)])
def test_a_leak_is_told_of_the_channel_that_it_is_heard_in(leak_db: float, delay_s: float) -> None:
    assert found(leak_db=leak_db, delay_s=delay_s) == [1]


@pytest.mark.parametrize(("leak_db", "noise_db"), [(None, -55.0), (None, -75.0), (-45.0, -50.0), (-50.0, -75.0)])
def test_noise_and_what_nobody_hears_are_no_leak(leak_db: float | None, noise_db: float) -> None:
    assert found(leak_db=leak_db, noise_db=noise_db) == []


@settings(max_examples=8)
@given(st.integers(1000, 40_000))
def test_blocks_change_nothing(blocks: int) -> None:
    assert found(leak_db=-20.0, blocks=blocks) == [1]
    assert found(leak_db=None, blocks=blocks) == []


def test_both_at_once_hum_and_other_numbers_of_channels_are_no_leak() -> None:
    agent, customer = parties()
    hum = 0.01 * np.sin(2 * np.pi * 50 * np.arange(len(agent)) / RATE).astype(np.float32)
    both = np.stack([agent + hum, 0.3 * np.roll(customer, 2 * RATE) + hum])
    for sound in (both, both[:1], np.concatenate([both] * 5), np.zeros((2, 10 * RATE), np.float32)):
        leaks = Leaks(len(sound), sampling_rate=RATE, min_level_dbfs=-60.0)
        leaks.hear(sound)
        assert leaks.found() == []
