"""Calls made of utterances, through `emolib.corpora.composed`."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from emolib.corpora.composed import Call, compose, pairs
from emolib.errors import SettingsError
from emolib.sound.conversation import RATE, Clip, clip

WORDS = ("anger", "sadness", "fear", "neutral", "happiness")


def utterances(*speakers: str, words: tuple[str, ...] = WORDS, takes: int = 3) -> pd.DataFrame:
    rows = [
        {"utterance_id": f"mine/{speaker}-{word}-{take}", "speaker": speaker, "emotion": word}
        for speaker in speakers
        for word in words
        for take in range(takes)
    ]
    found = pd.DataFrame(rows).sort_values("utterance_id", ignore_index=True)
    return found.assign(corpus="mine", gender=None, uri=found["utterance_id"])


def hear(uri: str) -> Clip | None:
    """A buzz whose length depends on the utterance, with a pause in some of them."""
    rng = np.random.default_rng(list(uri.encode()))
    time_s = np.arange(round(rng.uniform(0.8, 2.5) * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 150 * harmonic * time_s) / harmonic for harmonic in range(1, 20))
    buzz = np.asarray(0.1 * buzz * (1 + 0.3 * np.sin(2 * np.pi * 5 * time_s)), np.float32)
    if rng.random() < 0.3:
        buzz[len(buzz) // 3 : len(buzz) // 3 + 3200] = 0
    return clip(np.pad(buzz, (4000, 4000)))


def call(number: int = 0, *, seed: int = 0, duration_s: float = 20.0, rows: pd.DataFrame | None = None) -> Call:
    rows = utterances("a", "b") if rows is None else rows
    return compose(rows, agent="mine/a", customer="mine/b", hear=hear, duration_s=duration_s, seed=seed, number=number)


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.floats(10, 30))
def test_nobody_speaks_over_themselves_and_all_speech_is_known(number: int, duration_s: float) -> None:
    found = call(number, duration_s=duration_s)
    assert found.signal.shape[0] == 2
    assert np.abs(found.signal).max() <= 1
    length_s = found.signal.shape[1] / RATE
    table = pd.DataFrame(found.spoken)
    assert table["start_s"].is_monotonic_increasing
    assert set(zip(table["channel"], table["role"], table["speaker"], strict=True)) == {
        (0, "agent", "a"),
        (1, "customer", "b"),
    }
    known = utterances("a", "b").set_index("utterance_id")
    assert (known.loc[table["utterance_id"], "emotion"].to_numpy() == table["emotion"].to_numpy()).all()
    for _, part in table.groupby("channel"):
        ends = part[["start_s", "end_s"]].to_numpy().ravel()
        assert (np.diff(ends) > 0).all()
        assert ends[0] >= 0
        assert ends[-1] < length_s
    # A last turn may be long, and waiting takes its time before it.
    assert 0.75 * duration_s < length_s < 1.25 * duration_s + 40


def test_speech_is_where_the_truth_says() -> None:
    for number in range(4):
        found = call(number, duration_s=25)
        for channel, signal in enumerate(found.signal):
            spoken = np.zeros(len(signal), bool)
            for each in found.spoken:
                if each.channel == channel:
                    spoken[round(each.start_s * RATE) : round(each.end_s * RATE)] = True
            # Before the first word there may be tones.
            after = np.arange(len(signal)) > spoken.argmax()
            ratio = np.std(signal[spoken]) / np.std(signal[~spoken & after])
            assert ratio > 2, (number, channel)


def test_a_call_depends_on_its_seed_its_number_and_its_two_speakers() -> None:
    first, again = call(3), call(3, rows=utterances("a", "b", "c"))
    np.testing.assert_array_equal(first.signal, again.signal)
    assert first.spoken == again.spoken
    assert call(4).spoken != first.spoken
    assert call(3, seed=1).spoken != first.spoken


@pytest.mark.slow
def test_calls_differ_in_mood_and_hold_overlaps_and_waiting() -> None:
    moods, overlaps, waits = [], 0, 0
    for number in range(10):
        spoken = call(number, duration_s=40).spoken
        customer = [each for each in spoken if each.role == "customer"]
        seconds = Counter[bool]()
        for each in customer:
            seconds[each.emotion in ("anger", "sadness", "fear")] += each.end_s - each.start_s
        moods.append(seconds[True] / seconds.total())
        for each in customer:
            overlaps += any(
                other.role == "agent" and other.start_s < each.end_s and each.start_s < other.end_s for other in spoken
            )
        ended = 0.0
        for each in spoken:
            waits += each.start_s > ended + 3.0 > 3.0
            ended = max(ended, each.end_s)
    assert np.std(moods) > 0.15
    assert overlaps
    assert waits


def test_a_speaker_who_lacks_a_polarity_and_clips_that_cannot_be_heard() -> None:
    found = call(rows=pd.concat([utterances("a", words=("anger",)), utterances("b", words=("happiness",))]))
    assert {each.emotion for each in found.spoken} == {"anger", "happiness"}
    rows = utterances("a", "b")

    def some(uri: str) -> Clip | None:
        return None if uri.endswith("-0") else hear(uri)

    asked = {"agent": "mine/a", "customer": "mine/b", "duration_s": 20.0, "seed": 0, "number": 0}
    quieter = compose(rows, hear=some, **asked)
    assert not any(each.utterance_id.endswith("-0") for each in quieter.spoken)
    with pytest.raises(SettingsError, match=r"nothing is to be heard in the 3 utterances of mine/a"):
        compose(rows, hear=lambda _: None, **asked)
    with pytest.raises(SettingsError, match="no utterance of mine/c"):
        compose(rows, hear=hear, **{**asked, "agent": "mine/c"})
    with pytest.raises(SettingsError, match="at least 10"):
        compose(rows, hear=hear, **{**asked, "duration_s": 5.0})


@pytest.mark.slow
@given(st.lists(st.text(min_size=1), min_size=2, max_size=9, unique=True), st.integers(1, 40), st.integers(0, 9))
def test_everybody_is_a_customer_as_often_as_anybody(speakers: list[str], calls: int, seed: int) -> None:
    found = pairs(speakers, calls=calls, seed=seed)
    assert len(found) == calls
    assert all(agent != customer for agent, customer in found)
    counts = Counter(dict.fromkeys(speakers, 0)) + Counter(customer for _, customer in found)
    assert max(counts.values()) - min(counts.get(name, 0) for name in speakers) <= 1


def test_one_speaker_makes_no_call() -> None:
    with pytest.raises(SettingsError, match="expected at least two"):
        pairs(["mine/a"], calls=1, seed=0)
