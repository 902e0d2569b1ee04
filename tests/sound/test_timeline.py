"""Time stamps: what they say of gaps, late starts and new beginnings, and what they may get wrong."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, strategies as st

from emolib.errors import Code
from emolib.sound import audio
from emolib.sound.ffmpeg import _joined
from emolib.sound.timeline import Timeline
from tests.sound.containers import Track, mux, noise, tone

RATE = 8000
JITTER = 159  # samples; just under 20 ms


def frames(stamps: list[int | None], length: int = 400) -> list[tuple[int | None, np.ndarray]]:
    """Return a frame for each stamp, filled with its number, from 1."""
    return [(stamp, np.full((length, 1), number, np.float32)) for number, stamp in enumerate(stamps, 1)]


def laid(stamps: list[int | None], **settings: float) -> tuple[list[tuple[int, int]], Timeline]:
    """Return the number of each frame (0: silence) and where it came to lie."""
    line = Timeline(RATE, 1, **settings)
    whole = np.concatenate(list(line.pieces(frames(stamps))))[:, 0]
    edges = np.flatnonzero(np.diff(whole, prepend=-1, append=-1))
    return [(int(whole[start]), int(start)) for start, _ in pairwise(edges)], line


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 200, 5000]), st.integers(-60, 60)), min_size=1, max_size=30),
    st.integers(0, 400),
)
def test_gaps_are_filled_and_jitter_moves_nothing(steps: list[tuple[int, int]], late: int) -> None:
    true = late
    stamps: list[int | None] = []
    for gap, jitter in steps:
        true += gap
        stamps.append(max(0, true + jitter))
        true += 400
    places, line = laid(stamps)
    assert [number for number, _ in places if number] == list(range(1, len(steps) + 1))
    assert line.moved == line.unfilled == 0
    for number, place in places:
        if number:
            assert abs(place - stamps[number - 1]) <= 2 * JITTER


@given(
    st.lists(st.tuples(st.sampled_from([0] * 9 + [4000, 40_000]), st.integers(-1200, 1200)), min_size=1, max_size=60)
)
def test_jitter_makes_nothing_later_than_the_largest_of_it(steps: list[tuple[int, int]]) -> None:
    largest = max(abs(jitter) for _, jitter in steps)
    true: list[int] = []
    for gap, _ in steps:
        true.append((true[-1] + 400 if true else 1200) + gap)
    sound = frames([place + jitter for place, (_, jitter) in zip(true, steps, strict=True)])
    line = Timeline(RATE, 1)
    whole = np.concatenate(list(line.pieces(sound)))[:, 0]
    assert len(whole) <= true[-1] + 400 + largest
    np.testing.assert_array_equal(whole[whole > 0], np.repeat(np.arange(1, len(steps) + 1), 400))
    for number, place in enumerate(true, 1):
        assert abs(np.argmax(whole == number) - place) <= largest + JITTER


def test_random_jitter_does_not_stretch_a_track() -> None:
    drawn = np.random.default_rng(5)
    for largest in (200, 320, 480, 800):  # samples; 25 to 100 ms
        _, line = laid([1200 + 400 * number + int(drawn.integers(-largest, largest)) for number in range(2400)])
        assert line.gap_s <= (1200 + largest) / RATE
        assert line.moved <= 10  # what is no later than before is not said again
        assert line.moved_s <= 10 * largest / RATE


def test_sound_that_is_late_stays_so_where_one_stamp_is_wrong() -> None:
    for wrong in (1000, 90_000):
        places, line = laid([0, 400, 300, 700, wrong, 1500, 1900])
        assert places == [(number, 400 * (number - 1)) for number in range(1, 8)]
        assert (line.gaps, line.moved, line.moved_s) == (0, 1, 500 / RATE)


def test_clocks_that_drift_are_no_new_start() -> None:
    """Sound may get later by more than a second, little by little: its stamps still say where a gap ends."""
    stamps = [350 * number for number in range(200)]
    places, line = laid([*stamps, 100_000, 100_400])
    assert places[-3:] == [(0, 80_000), (201, 100_000), (202, 100_400)]
    assert (line.gaps, line.moved_s) == (1, pytest.approx(199 * 50 / RATE, abs=0.02))


def test_a_stamp_that_is_wrong_alone_moves_nothing() -> None:
    for wrong in (0, 90_000):
        places, line = laid([0, 400, 800, wrong, 1600, 2000])
        assert places == [(number, 400 * (number - 1)) for number in range(1, 7)]
        assert (line.gaps, line.moved) == (0, 0)


def test_stamps_that_go_back_lose_nothing_and_gaps_behind_them_count() -> None:
    stamps = [*range(0, 8800, 400), 0, 400, 4800, 5200]
    places, line = laid(stamps)
    assert places[:-3] == [(number, 400 * (number - 1)) for number in range(1, 25)]
    assert places[-3:] == [(0, 9600), (25, 13_600), (26, 14_000)]
    assert (line.moved, line.moved_s, line.gaps, line.gap_s, line.first_s) == (1, 1.1, 1, 0.5, 1.1)


def test_clocks_that_differ_do_not_move_what_follows_a_gap() -> None:
    places, _ = laid([0, 300, 600, 900, 9000, 9400])
    assert places[-3:] == [(0, 1600), (5, 9000), (6, 9400)]


def test_stamps_that_go_back_for_a_while_and_are_right_again() -> None:
    places, line = laid([0, 400, 100, 500, 1600, 2000])
    assert places == [(number, 400 * (number - 1)) for number in range(1, 7)]
    assert (line.gaps, line.moved) == (0, 1)


def test_frames_without_a_stamp_belong_before_the_next_that_has_one() -> None:
    places, line = laid([0, 400, None, None, 2000])
    assert places == [(1, 0), (2, 400), (0, 800), (3, 1200), (4, 1600), (5, 2000)]
    assert (line.gaps, line.first_s) == (1, 0.1)
    assert laid([None, None, None])[0] == [(1, 0), (2, 400), (3, 800)]


def test_a_gap_that_is_too_long_is_not_filled() -> None:
    places, line = laid([0, 400, 80_000 + 800, 80_000 + 1200, 80_000 + 2400, 80_000 + 2800], max_gap_s=9.9)
    assert places == [(1, 0), (2, 400), (3, 800), (4, 1200), (0, 1600), (5, 2400), (6, 2800)]
    assert (line.unfilled, line.unfilled_s, line.gaps) == (1, 10.0, 1)


def test_a_long_gap_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        line = Timeline(RATE, 1, max_gap_s=1e6)
        length = sum(map(len, line.pieces(frames([0, 400, 80_000_000, 80_000_400]))))
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()
    assert length == 80_000_800


def decoded(folder: Path, data: bytes, **settings: float) -> audio.Audio:
    path = folder / "x"
    path.write_bytes(data)
    with audio.stream(path, **settings) as sound:
        signal = np.concatenate(list(sound), axis=1)
    return audio.Audio(sound.info, signal, sound.sampling_rate, sound.code, sound.message)


def spans(signal: np.ndarray, rate: int) -> list[tuple[float, float]]:
    """Return where a channel is not silent, in seconds, to a tenth."""
    step = rate // 20
    loud = np.abs(signal[: len(signal) // step * step]).reshape(-1, step).max(axis=1) > 0.01
    edges = np.flatnonzero(np.diff(loud.astype(int), prepend=0, append=0)) / 20
    return [(round(float(start), 1), round(float(end), 1)) for start, end in edges.reshape(-1, 2)]


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("matroska", "pcm_s16le", 8000),
        ("webm", "libopus", 48_000),
        ("matroska", "libmp3lame", 16_000),
        ("mp4", "aac", 16_000),
        ("mpegts", "aac", 16_000),
    ],
)
def test_silence_goes_where_a_container_has_no_packets(tmp_path: Path, container: str, codec: str, rate: int) -> None:
    data = mux(container, Track(codec, rate, [(0.0, tone(2, rate)), (7.0, tone(1, rate))]))
    found = decoded(tmp_path, data)
    assert found.code is Code.OK
    assert "s have no sound in 1 place(s), the first at 2." in found.message
    assert found.decoded_s == pytest.approx(8, abs=0.2)
    first, *_, last = spans(found.signal[0], rate)
    assert first[1] == pytest.approx(2, abs=0.15)
    assert last[0] == pytest.approx(7, abs=0.15)


@pytest.mark.parametrize(("container", "codec"), [("matroska", "pcm_s16le"), ("mp4", "aac")])
def test_a_late_start_is_silent_until_then(tmp_path: Path, container: str, codec: str) -> None:
    found = decoded(tmp_path, mux(container, Track(codec, 16_000, [(5.0, tone(2, 16_000))])))
    assert spans(found.signal[0], 16_000)[0][0] == pytest.approx(5, abs=0.1)
    assert found.code is Code.OK


def test_tracks_are_aligned_by_their_stamps(tmp_path: Path) -> None:
    agent, customer = tone(2, 8000), tone(3, 16_000, 700, channels=2, level=0.1)
    late = Track("pcm_s16le", 16_000, [(1.0, customer)])
    found = decoded(tmp_path, mux("matroska", Track("pcm_s16le", 8000, [(0.0, agent)]), late))
    assert (found.info.channels, found.info.sampling_rate, found.decoded_s) == (3, 16_000, 4.0)
    assert found.message.startswith("2 sound tracks; track 1: 1.00 s have no sound in 1 place(s), the first at 0.00 s")
    assert [spans(channel, 16_000) for channel in found.signal] == [[(0.0, 2.0)], [(1.0, 4.0)], [(1.0, 4.0)]]
    np.testing.assert_allclose(found.signal[1:, 16_000:], customer.T, atol=1e-4)
    assert np.argmax(np.abs(np.fft.rfft(found.signal[0, :16_000]))) == 440


@pytest.mark.parametrize("late_s", [0.08, 2.0])
@pytest.mark.parametrize("is_first", [False, True])
def test_tracks_in_ogg_are_aligned_by_their_stamps(tmp_path: Path, late_s: float, is_first: bool) -> None:
    rate = 48_000
    tracks = [Track("libopus", rate, [(0.0, tone(5, rate))]), Track("libopus", rate, [(late_s, tone(4, rate, 700))])]
    found = decoded(tmp_path, mux("ogg", *(tracks[::-1] if is_first else tracks)))
    starts = [float(np.argmax(np.abs(channel) > 0.05)) / rate for channel in found.signal]
    assert starts == pytest.approx([late_s, 0.0] if is_first else [0.0, late_s], abs=0.02)
    assert found.decoded_s == pytest.approx(max(5, 4 + late_s), abs=0.02)
    assert (found.code, "s have no sound in 1 place(s), the first at 0.00 s" in found.message) == (Code.OK, True)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [("matroska", "libopus", 48_000), ("mp4", "aac", 16_000), ("mpegts", "aac", 16_000), ("avi", "pcm_s16le", 8000)],
)
def test_all_tracks_become_channels_in_the_order_of_the_container(
    tmp_path: Path, container: str, codec: str, rate: int
) -> None:
    tracks = [Track(codec, rate, [(0.0, tone(2, rate, frequency))]) for frequency in (300, 500, 700)]
    found = decoded(tmp_path, mux(container, *tracks))
    assert (found.code, found.info.channels) == (Code.OK, 3)
    assert audio.probe(tmp_path / "x") == found.info
    middle = found.signal[:, rate // 2 : 3 * rate // 2]
    assert np.argmax(np.abs(np.fft.rfft(middle)), axis=1).tolist() == [300, 500, 700]


def test_memory_does_not_grow_with_tracks_that_run_apart(tmp_path: Path) -> None:
    """While one track is silent, what the other says must not wait for it."""
    talk = noise(40, 48_000)
    early, late = Track("pcm_s16le", 48_000, [(0.0, talk)]), Track("pcm_s16le", 48_000, [(60.0, talk[:48_000])])
    path = tmp_path / "x"
    path.write_bytes(mux("matroska", early, late))
    tracemalloc.start()
    try:
        with audio.stream(path, sampling_rate=8000) as sound:
            assert sum(block.shape[1] for block in sound) == 61 * 8000
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()


def test_a_wrong_stamp_far_away_fills_no_disk(tmp_path: Path) -> None:
    track = Track("pcm_s16le", 8000, [(0.0, tone(2, 8000)), (5000.0, tone(1, 8000))])
    found = decoded(tmp_path, mux("matroska", track))
    assert (found.code, found.decoded_s) == (Code.OK, 3.0)
    assert found.message.startswith("gap(s) of 1.4 h in the time stamps, the first at 2.00 s, not filled")
    assert decoded(tmp_path, mux("matroska", track), max_gap_s=1e4).decoded_s == 5001.0


@pytest.mark.parametrize(("container", "codec"), [("mpegts", "aac"), ("matroska", "aac"), ("matroska", "pcm_s16le")])
def test_a_track_without_a_packet_is_a_silent_channel(tmp_path: Path, container: str, codec: str) -> None:
    """The second party never came on the line."""
    silent = Track(codec, 16_000, [(0.0, np.empty((0, 1), np.float32))])
    found = decoded(tmp_path, mux(container, Track(codec, 16_000, [(0.0, tone(2, 16_000))]), silent))
    assert (found.code, found.info.channels) == (Code.OK, 2)
    assert "2 sound tracks; track 1: no sound" in found.message
    assert np.abs(found.signal[0]).max() > 0.2
    assert not found.signal[1].any()


def test_gaps_are_not_filled_beyond_a_day_in_all() -> None:
    """Each of them is short enough; together they would be a recording of years."""
    starts = [number * 8000 * 3000 for number in range(40)]
    line = Timeline(8000, 1)
    frame = np.ones((800, 1), np.float32)
    length = sum(len(piece) for piece in line.pieces([(start, frame) for start in starts]))
    assert (line.gaps, line.unfilled) == (28, 11)
    assert length <= 24 * 3600 * 8000 + 40 * 800


_STEPS = st.one_of(st.just(0), st.integers(-3, 3), st.sampled_from([None, 8000, -8000, -1000, 50_000]))


@given(st.lists(st.tuples(_STEPS, st.sampled_from([1, 160, 400])), min_size=1, max_size=40))
def test_frames_that_are_handled_as_one_lie_where_each_would(steps: list[tuple[int | None, int]]) -> None:
    def stamped() -> Iterator[tuple[int | None, av.AudioFrame]]:
        place, number = 0, 0
        for step, length in steps:
            frame = av.AudioFrame.from_ndarray(
                np.arange(number, number + length, dtype=np.float32)[None], "flt", "mono"
            )
            frame.sample_rate = 8000
            place, number = place + (step or 0), number + length
            yield None if step is None else place, frame
            place += length

    def result(frames: Iterable[tuple[int | None, av.AudioFrame]]) -> tuple[Any, ...]:
        line = Timeline(8000, 1)
        samples = ((stamp, frame.to_ndarray().reshape(-1, 1)) for stamp, frame in frames)
        pieces = list(line.pieces(samples))
        facts = (line.gaps, line.gap_s, line.moved, line.moved_s, line.first_s)
        return np.concatenate(pieces).tolist(), *facts

    assert result(_joined(stamped())) == result(stamped())
