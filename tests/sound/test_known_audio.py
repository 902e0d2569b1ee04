"""Hold music and announcements: what repeats is found, found again, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from emolib.config import parse_headerless
from emolib.errors import Code, SettingsError
from emolib.sound.audio import read
from emolib.sound.fingerprints import ChannelFingerprints, Fingerprints
from emolib.sound.known_audio import WINDOW, KnownAudio, Stretch, load_known_audio
from emolib.sound.repeats import find_repeats
from emolib.sound.sketches import Sketch, sketch_recordings
from emolib.sound.speech import FRAME_S, ChannelSpeech, SpeechStream
from emolib.sound.synthetic import utterance, voice
from emolib.sound.telephone import through
from tests.sound.hold_music import hold_music

Signal = NDArray[np.float32]
RATE = 8000
MUSIC_S = 20.0


@cache
def music(seed: int) -> Signal:
    return hold_music(seed, duration_s=MUSIC_S)


@cache
def said(who: int, what: int, seconds: float = 6.0) -> Signal:
    """Return somebody who says something, with a pause in it."""
    parts = [
        utterance(voice(who), emotion, seed=2 * what + number, sampling_rate=RATE, duration_s=seconds / 2)
        for number, emotion in enumerate(("neutral", "anger"))
    ]
    return np.concatenate([parts[0], np.zeros(RATE // 2, np.float32), parts[1]])


def call(number: int, *, condition: str = "ulaw", waits_s: float = 15.0, greeting: bool = False) -> Signal:
    """Return one side of a call: somebody speaks, waits with music from some moment on, which loops, and speaks."""
    start = int(np.random.default_rng(number).integers(music(0).size))
    waits = np.tile(music(0), 3)[start : start + round(waits_s * RATE)]
    parts = [*([said(999, 0)] if greeting else []), said(number, 1), waits, said(number, 3)]
    return through(condition, np.concatenate(parts), sampling_rate=RATE, seed=number)


def fingerprints(signal: Signal) -> Fingerprints:
    stream = ChannelFingerprints(RATE, min_level_dbfs=-60.0)
    stream.push(signal)
    return stream.finish()


def repeats(*signals: Signal, least_recordings: int = 3) -> KnownAudio:
    """Return what repeats in recordings of one channel each."""
    sketches = [Sketch(f"{number}.wav", 0, fingerprints(each)) for number, each in enumerate(signals)]
    return find_repeats(sketches, least_recordings=least_recordings)


def known(*signals: Signal) -> KnownAudio:
    """Return each of some signals as a stretch of known audio."""
    return KnownAudio(tuple(Stretch(fingerprints(each), 3, "a.wav", 0, 0.0) for each in signals))


def heard(signal: Signal, audio: KnownAudio | None, *, cuts: list[int] | None = None) -> ChannelSpeech:
    stream = SpeechStream(RATE, min_level_dbfs=-60.0, known_audio=audio)
    for part in np.split(signal, sorted(cuts or [])):
        stream.push(part)
    return stream.finish()


@pytest.mark.parametrize("condition", ["ulaw", "gsm", "opus", "loss", "noise20"])
def test_music_that_repeats_is_found_and_found_again(condition: str) -> None:
    found = repeats(*(call(number, condition=condition) for number in range(8)))
    assert sum(each.recordings for each in found.stretches) >= 8
    # It loops: more than one loop of it, and what was cut off at the ends of a call, need not be known.
    assert MUSIC_S - 8 < sum(each.duration_s for each in found.stretches) < MUSIC_S + 10
    other = heard(call(100, condition=condition), found)
    at = (np.arange(len(other.speech)) + 0.5) * FRAME_S
    waits = (at > 6.5) & (at < 21.5)
    assert other.known_audio[waits].mean() > 0.8
    assert other.known_audio[~waits].mean() < 0.15  # up to a second at its ends
    assert other.speech[~waits].mean() > 0.5
    assert other.known_audio_s == pytest.approx(15, abs=2.5)


def test_an_announcement_is_known_audio_and_who_says_the_same_is_not() -> None:
    found = repeats(*(call(number, waits_s=0, greeting=True) for number in range(4)))
    (greeting,) = found.stretches
    assert greeting.recordings == 4
    assert greeting.duration_s == pytest.approx(6.5, abs=1.5)
    assert (greeting.channel, greeting.start_s) == (0, pytest.approx(0, abs=1))
    whole = heard(call(100, waits_s=0, greeting=True), found)
    assert whole.known_audio[: round(6 / FRAME_S)].mean() > 0.9
    # The same emotions at the same length, by other voices, and by the same voice at another time.
    for who, what in ((998, 0), (997, 0), (999, 10)):
        assert not heard(through("ulaw", said(who, what), sampling_rate=RATE, seed=1), found).known_audio.any()


def test_voices_silence_noise_and_tones_do_not_repeat(tmp_path: Path) -> None:
    rng, time = np.random.default_rng(0), np.arange(12 * RATE) / RATE
    ring = 0.1 * (np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 480 * time)) * (time % 3 < 1)
    for number in range(6):
        noise = 10 ** (-45 / 20) * rng.standard_normal(12 * RATE)
        parts = [ring, np.zeros(12 * RATE), noise, said(number, number), said(7, number)]
        soundfile.write(tmp_path / f"{number}.wav", np.concatenate(parts), RATE, subtype="ULAW")
    sketched = sketch_recordings(str(tmp_path), {f"{number}.wav": 40.0 for number in range(6)}, {})
    found = find_repeats([channel for each in sketched for channel in each.channels], least_recordings=2)
    assert found.stretches == ()


def test_channels_of_one_recording_do_not_repeat_each_other() -> None:
    twins = [Sketch(name, channel, fingerprints(music(3))) for name in ("a.wav", "b.wav") for channel in (0, 1)]
    assert find_repeats(twins[:2], least_recordings=2).stretches == ()
    assert {each.recordings for each in find_repeats(twins, least_recordings=2).stretches} == {2}


def test_what_is_rare_is_found_among_many() -> None:
    """A round takes two hours: what three recordings hold in different rounds is found in a later one."""
    rng, common = np.random.default_rng(0), np.random.default_rng(1).integers(1, 2**32, 400, np.uint32)
    sketches = []
    for number in range(30):
        bits = rng.integers(1, 2**32, 30_000, np.uint32)
        if number in (1, 14, 28):
            bits[5000:5400] = common
        sketches.append(Sketch(f"{number}.wav", 0, Fingerprints(bits, np.zeros(30_000, np.uint32))))
    (found,) = find_repeats(sketches, least_recordings=3).stretches
    assert (found.recordings, found.start_s) == (3, pytest.approx(150, abs=0.6))


@settings(max_examples=12)
@given(cuts=st.lists(st.integers(0, 45 * RATE), max_size=10))
def test_the_same_however_it_is_cut(cuts: list[int]) -> None:
    signal, audio = np.concatenate([call(5), call(6)]), known(music(0), said(999, 0))
    whole, parts = heard(signal, audio), heard(signal, audio, cuts=cuts)
    assert whole.known_audio.any()
    for name in ("speech", "tone", "known_audio"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    assert (whole.level_dbfs, whole.snr_db, whole.bandwidth_hz) == (parts.level_dbfs, parts.snr_db, parts.bandwidth_hz)
    assert not (whole.known_audio & (whole.speech | whole.tone)).any()


@given(data=st.data(), seed=st.integers(0, 99), at=st.integers(0, 250), length=st.integers(0, 250))
def test_a_place_is_known_by_its_own_bits(data: Any, seed: int, at: int, length: int) -> None:
    """Whatever stands beside it, and however many of its bits are others, up to a quarter."""
    rng = np.random.default_rng(seed)
    stored = rng.integers(1, 2**32, 500, np.uint32)
    flips = rng.random((length, 32)) < data.draw(st.sampled_from([0.0, 0.1]))
    flips[:: WINDOW // 2] = False  # where it is looked up
    mine = stored[at : at + length] ^ np.packbits(flips, axis=1).view(">u4")[:, 0].astype(np.uint32)
    before, after = (rng.integers(1, 2**32, data.draw(st.integers(0, 150)), np.uint32) for _ in range(2))
    audio = KnownAudio((Stretch(Fingerprints(stored, np.zeros(500, np.uint32)), 2, "a.wav", 0, 0.0),))
    whole = np.concatenate([before, mine, after])
    found = audio.index.find(whole).covered(len(whole))
    if length >= WINDOW:
        assert found[len(before) : len(before) + length].all()
    if length < WINDOW // 3:
        assert not found.any()
    near = 20  # frames: where a window may end beside it
    assert not found[: max(0, len(before) - near)].any()
    assert not found[len(before) + length + near :].any()


def test_a_file_holds_it(tmp_path: Path) -> None:
    audio = KnownAudio((*known(music(0)).stretches, Stretch(fingerprints(said(1, 1)), 7, "b ü.wav", 1, 2.5)))
    audio.save(tmp_path / "known.npz")
    loaded = KnownAudio.load(tmp_path / "known.npz")
    assert loaded.known_audio_id == audio.known_audio_id
    for found, stored in zip(loaded.stretches, audio.stretches, strict=True):
        assert replace(found, fingerprints=stored.fingerprints) == stored
        for part, of in zip(found.fingerprints, stored.fingerprints, strict=True):
            np.testing.assert_array_equal(part, of)
    assert load_known_audio(str(tmp_path / "known.npz"), audio.known_audio_id).stretches[1].uri == "b ü.wav"
    assert audio.without([1]).stretches == audio.stretches[1:]
    assert audio.without([1]).known_audio_id != audio.known_audio_id
    KnownAudio(()).save(tmp_path / "nothing.npz")
    assert KnownAudio.load(tmp_path / "nothing.npz").stretches == ()


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "known.npz"
    audio = known(music(0))
    audio.save(place)
    whole = dict(np.load(place))
    with pytest.raises(SettingsError, match=r"expected aaaa, which the run was planned with"):
        load_known_audio(str(place), "aaaa")
    with pytest.raises(SettingsError, match=r"stretch 2 to leave out found, expected 1 to 1"):
        audio.without([2])
    others = {"format": np.array("weights"), "version": np.array(0), "lengths": np.array([3]), "channel": np.zeros(0)}
    for name, value in others.items():
        np.savez(place, **{**whole, name: value})
        with pytest.raises(SettingsError, match=r"known\.npz .*expected"):
            KnownAudio.load(place)
    np.savez(place, weights=np.zeros(3))
    with pytest.raises(SettingsError, match=r"expected a file that `emolib known-audio` wrote"):
        KnownAudio.load(place)
    np.savez(place, **{**whole, "bits": np.array([{}])})  # a pickle
    with pytest.raises(SettingsError, match="expected a file"):
        KnownAudio.load(place)
    for content in (b"", b"no file of arrays", place.read_bytes()[:100]):
        place.write_bytes(content)
        with pytest.raises(SettingsError, match="expected a file"):
            KnownAudio.load(place)
    with pytest.raises(SettingsError, match="expected a file"):
        KnownAudio.load(tmp_path / "nowhere.npz")


def test_what_cannot_be_heard_is_a_code(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "good.wav", np.stack([music(0), music(1)], axis=1), RATE)
    found = sketch_recordings(str(tmp_path), dict.fromkeys(["empty.wav", "nowhere.wav", "good.wav"], MUSIC_S), {})
    assert [each.code for each in found] == [Code.EMPTY, Code.MISSING, Code.OK]
    assert [len(each.channels) for each in found] == [0, 0, 2]
    assert found[2].decoded_s == MUSIC_S
    same = found[2].channels[0].fingerprints.bits == fingerprints(music(0)).bits
    assert same.mean() > 0.9  # 16 bits a sample


@pytest.mark.slow
def test_real_speech_is_not_known_audio_and_does_not_repeat(shared: Path) -> None:
    """Two actors, who say the same two sentences over and over with silence between them; and calls."""
    audio = known(music(0), music(1), said(999, 0))
    sketches = []
    for actor in ("Actor_01", "Actor_02"):
        clips = [
            read(place, sampling_rate=RATE).signal[0]
            for place in sorted((shared / "corpora/ravdess" / actor).iterdir())
        ]
        for number, start in enumerate(range(0, len(clips), 15)):
            part = through("ulaw", np.concatenate(clips[start : start + 15]), sampling_rate=RATE, seed=0)
            sketches.append(Sketch(f"{actor} {number}", 0, fingerprints(part)))
    assert find_repeats(sketches, least_recordings=2).stretches == ()
    uris = dict.fromkeys(sorted(place.name for place in (shared / "calls").iterdir()), 60.0)
    for each in sketch_recordings(str(shared / "calls"), uris, parse_headerless(".gsm=gsm,.g722=g722,.ulaw=ulaw")):
        sketches += each.channels
    assert sum(len(each.fingerprints.bits) for each in sketches) * FRAME_S > 600
    for each in sketches:
        assert not len(audio.index.find(each.fingerprints.bits).first), each.uri
