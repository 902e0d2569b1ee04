"""Clips cut to their speech, and laid on a telephone line, through `emolib.sound.conversation`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.sound.conversation import RATE, Clip, Laid, beep, clip, line, ring_back
from emolib.sound.speech import FRAME_S, SpeechStream
from emolib.sound.synthetic import utterance, voice

Signal = NDArray[np.float32]


def said(emotion: str = "anger", *, before_s: float = 0.0, after_s: float = 0.0, gain: float = 1.0) -> Signal:
    speech = utterance(voice(1), emotion, seed=1, sampling_rate=RATE, duration_s=2.0)
    return np.pad(gain * speech, (round(before_s * RATE), round(after_s * RATE))).astype(np.float32)


def cut(signal: Signal) -> Clip:
    found = clip(signal)
    assert found is not None
    return found


@given(st.integers(1, 100), st.integers(1, 100), st.floats(0.02, 1.0))
def test_silence_and_level_change_nothing_about_where_speech_is(before: int, after: int, gain: float) -> None:
    expected = cut(said(before_s=1.0, after_s=1.0))
    found = cut(said(before_s=1 + before / 100, after_s=1 + after / 100, gain=gain))
    assert found.stretches == expected.stretches
    # The active level is measured in packets of 20 ms, which lie elsewhere.
    assert found.level_db - expected.level_db == pytest.approx(20 * np.log10(gain), abs=0.3)
    np.testing.assert_allclose(found.signal, gain * expected.signal, atol=1e-6)


@given(st.lists(st.tuples(st.integers(5, 150), st.integers(1, 80)), min_size=1, max_size=5))
def test_stretches_are_parts_of_the_clip_apart_by_pauses(parts: list[tuple[int, int]]) -> None:
    """Bursts of a tone with pauses, in hundredths of a second."""
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    signal = np.concatenate([np.pad(tone[: burst * 80], (0, pause * 80)) for burst, pause in parts])
    found = cut(signal)
    ends = np.array(found.stretches)
    assert (np.diff(ends.ravel()) > 0).all()
    assert ends[0, 0] >= 0
    assert ends[-1, 1] <= len(found.signal) / RATE
    assert (ends[1:, 0] - ends[:-1, 1] >= 0.3 - 1e-9).all()
    # Pauses are pauses only beyond 0.3 s, give or take the two frames into which a burst's edges are smeared.
    long = sum(pause > 34 for _, pause in parts[:-1])
    assert len(ends) - 1 >= long
    assert len(ends) - 1 <= sum(pause >= 28 for _, pause in parts[:-1])


def test_nothing_to_be_heard_is_no_clip() -> None:
    assert clip(np.zeros(0, np.float32)) is None
    assert clip(np.zeros(RATE, np.float32)) is None
    rumble = np.sin(2 * np.pi * 40 * np.arange(RATE) / RATE).astype(np.float32)
    assert clip(1e-4 * rumble) is None


def test_a_line_keeps_time_and_is_the_same_for_a_seed() -> None:
    talk = cut(said(before_s=0.5, after_s=0.5))
    laid = [Laid(1.0, talk.signal, talk.level_db), Laid(6.0, talk.signal, talk.level_db)]
    first = line(laid, samples=10 * RATE, seed=3)
    assert first.shape == (10 * RATE,)
    assert np.abs(first).max() <= 1
    np.testing.assert_array_equal(first, line(laid, samples=10 * RATE, seed=3))
    assert not np.array_equal(first, line(laid, samples=10 * RATE, seed=4))
    for start_s in (1.0, 6.0):
        inside = first[round((start_s + talk.start_s) * RATE) : round((start_s + talk.end_s) * RATE)]
        assert np.std(inside) > 2 * np.std(first[round(4.0 * RATE) : round(5.5 * RATE)])


def test_half_of_the_difference_in_level_is_levelled() -> None:
    loud, quiet = cut(said(before_s=0.5, after_s=0.5)), cut(said(before_s=0.5, after_s=0.5, gain=0.1))
    differences = []
    for seed in range(8):
        laid = [Laid(0.5, loud.signal, loud.level_db), Laid(5.0, quiet.signal, quiet.level_db)]
        heard = line(laid, samples=9 * RATE, seed=seed)
        spans = [heard[round((start_s + loud.start_s) * RATE) :][: round(1.5 * RATE)] for start_s in (0.5, 5.0)]
        differences.append(20 * np.log10(np.std(spans[0]) / np.std(spans[1])))
    assert np.median(differences) == pytest.approx(10, abs=3)


@pytest.mark.parametrize("tone", [ring_back("europe"), ring_back("america"), beep()])
def test_tones_are_no_speech(tone: Signal) -> None:
    stream = SpeechStream(RATE, min_level_dbfs=-60.0)
    stream.push(np.pad(tone, (RATE, RATE)))
    found = stream.finish()
    assert found.speech_s == 0
    assert found.tone_s == pytest.approx(len(tone) / RATE, abs=3 * FRAME_S)
