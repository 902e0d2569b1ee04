"""Speech, tones and quality of a channel, through `emolib.sound.speech`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.sound import audio
from emolib.sound.speech import FRAME_S, ChannelSpeech, SpeechStream
from emolib.sound.speech_codecs import alaw, ulaw
from emolib.sound.synthetic import utterance, voice
from emolib.sound.telephone import through

Signal = NDArray[np.float32]
RATES = (8000, 16_000, 44_100)


def heard(signal: Signal, sampling_rate: int = 8000, *, cuts: list[int] | None = None) -> ChannelSpeech:
    stream = SpeechStream(sampling_rate, min_level_dbfs=-60.0)
    for part in np.split(signal, sorted(cuts or [])):
        stream.push(part)
    return stream.finish()


def spoken(sampling_rate: int = 8000, *, noise: float = 3e-4, seed: int = 1) -> Signal:
    """Return two seconds of near silence, two of a voice, and two of near silence."""
    said = utterance(voice(seed), "anger", seed=seed, sampling_rate=sampling_rate, duration_s=2.0)
    rest = np.zeros(2 * sampling_rate, np.float32)
    signal = np.concatenate([rest, said, rest])
    return signal + noise * np.random.default_rng(seed).standard_normal(len(signal)).astype(np.float32)


def tones(*hz: float, duration_s: float = 1.0, sampling_rate: int = 8000) -> Signal:
    time = np.arange(int(duration_s * sampling_rate)) / sampling_rate
    return np.sum([0.1 * np.sin(2 * np.pi * each * time) for each in hz], axis=0).astype(np.float32)


@pytest.mark.parametrize("sampling_rate", RATES)
def test_finds_who_speaks_and_when(sampling_rate: int) -> None:
    found = heard(spoken(sampling_rate), sampling_rate)
    times = (np.arange(len(found.speech)) + 0.5) * FRAME_S
    inside = (times > 2.1) & (times < 3.9)
    assert found.speech[inside].mean() > 0.7  # words have pauses
    assert not found.speech[(times < 1.9) | (times > 4.3)].any()
    assert not (found.speech & found.tone).any()
    assert 1.4 < found.speech_s < 2.4


@given(cuts=st.lists(st.integers(0, 100_000), max_size=8))
def test_the_same_however_it_is_cut(cuts: list[int]) -> None:
    signal = np.concatenate([tones(440, 480), spoken(), line(425, on_s=0.25, off_s=0.25)])
    whole, parts = heard(signal), heard(signal, cuts=cuts)
    np.testing.assert_array_equal(whole.speech, parts.speech)
    np.testing.assert_array_equal(whole.tone, parts.tone)
    assert (whole.level_dbfs, whole.snr_db, whole.bandwidth_hz) == (parts.level_dbfs, parts.snr_db, parts.bandwidth_hz)


def line(
    *hz: float,
    on_s: float,
    off_s: float,
    level_dbfs: float = -20.0,
    codec: Callable[[Signal], Signal] = ulaw,
    sampling_rate: int = 8000,
    modulated_hz: float = 0.0,
) -> Signal:
    """Return half a second of a line, and on it six of a tone that comes and goes; there is noise 25 dB below it."""
    time = np.arange(6 * sampling_rate) / sampling_rate
    tone = np.sum([np.sin(2 * np.pi * each * time) for each in hz], axis=0) / np.sqrt(len(hz) / 2)
    tone *= 1 + 0.85 * np.sin(2 * np.pi * modulated_hz * time)
    heard = np.concatenate([np.zeros(sampling_rate // 2 + 77), tone * (time % (on_s + off_s) < on_s)])
    noise = 10 ** (-25 / 20) * np.random.default_rng(0).standard_normal(len(heard))
    return codec((10 ** (level_dbfs / 20) * (heard + noise)).clip(-1, 1).astype(np.float32))


CADENCES = {
    "Europe, dial": ((425,), 6, 0),
    "Europe, ring-back": ((425,), 1, 4),
    "Europe, busy": ((425,), 0.5, 0.5),
    "Europe, congestion": ((425,), 0.25, 0.25),
    "short": ((425,), 0.1, 0.1),
    "short and rare": ((440,), 0.12, 0.9),
    "Britain, dial": ((350, 440), 6, 0),
    "Britain, ring-back": ((400, 450), 0.4, 0.2),
    "Britain, busy": ((400,), 0.375, 0.375),
    "Britain, number unobtainable": ((400,), 6, 0),
    "America, recall dial": ((350, 440), 0.1, 0.1),
    "America, ring-back": ((440, 480), 2, 4),
    "America, busy": ((480, 620), 0.5, 0.5),
    "America, reorder": ((480, 620), 0.25, 0.25),
    "information 1": ((950,), 0.33, 1),
    "information 2": ((1400,), 0.33, 0.03),
    "information 3": ((1800,), 0.33, 1),
    "fax calls": ((1100,), 0.5, 3),
    "fax answers": ((2100,), 3, 1),
    "digit 1": ((697, 1209), 0.1, 0.1),
    "digit #": ((941, 1477), 1, 1),
}


@pytest.mark.parametrize("sampling_rate", [8000, 16_000])
@pytest.mark.parametrize(("hz", "on_s", "off_s"), CADENCES.values(), ids=CADENCES)
def test_tones_are_no_speech(hz: tuple[float, ...], on_s: float, off_s: float, sampling_rate: int) -> None:
    for level_dbfs, codec in [(-40, alaw), (-20, ulaw), (-10, alaw), (-5, ulaw)]:
        signal = line(*hz, on_s=on_s, off_s=off_s, level_dbfs=level_dbfs, codec=codec, sampling_rate=sampling_rate)
        found = heard(signal, sampling_rate)
        # Before the first tone, the detector has yet to learn what the noise of the line is.
        assert found.speech[17:].sum() * FRAME_S <= 0.06, level_dbfs


@pytest.mark.parametrize(("hz", "modulated_hz"), [(400, 16), (400, 25), (425, 25)])
def test_tones_whose_level_moves_are_no_speech(hz: float, modulated_hz: float) -> None:
    found = heard(line(hz, on_s=1, off_s=2, modulated_hz=modulated_hz))
    assert found.speech[17:].sum() * FRAME_S <= 0.06
    assert found.tone_s == pytest.approx(2.0, abs=0.2)


def test_who_speaks_after_a_tone_is_heard() -> None:
    answered = np.concatenate([line(425, on_s=1, off_s=4)[: 8000 * 6], spoken()[8000 * 2 :]])
    assert heard(answered).speech_s >= 0.95 * heard(spoken()).speech_s


def test_a_voice_that_sings_or_holds_a_vowel_is_no_tone() -> None:
    """Vowels of five harmonics, and one of a single harmonic whose pitch moves as a voice's does."""
    time = np.arange(4 * 8000) / 8000
    vibrato = 2 * np.pi * np.cumsum(1 + 0.02 * np.sin(2 * np.pi * 5.5 * time)) / 8000
    for f0 in (110, 220, 440):
        harmonics = [np.sin(2 * np.pi * f0 * number * time) / number for number in range(1, 6)]
        assert not heard(ulaw((0.1 * np.sum(harmonics, axis=0)).astype(np.float32))).tone.any()
    for f0 in (350, 500, 700):
        assert heard(ulaw((0.2 * np.sin(f0 * vibrato)).astype(np.float32))).tone_s <= 0.2


def test_a_dialled_digit_is_known_at_once() -> None:
    digit = np.concatenate([np.zeros(8000, np.float32), tones(770, 1336, duration_s=0.1), np.zeros(8000, np.float32)])
    found = heard(digit + 1e-4 * np.random.default_rng(0).standard_normal(len(digit)).astype(np.float32))
    assert found.tone.sum() >= 2
    assert found.speech_s <= 0.06


@pytest.mark.parametrize("noise", [1e-3, 1e-2])
def test_signal_to_noise_ratio(noise: float) -> None:
    found = heard(spoken(noise=noise))
    times = (np.arange(len(found.speech)) + 0.5) * FRAME_S
    assert found.level_dbfs is not None
    assert found.snr_db == pytest.approx(found.level_dbfs - 20 * np.log10(noise), abs=1.5)
    assert found.speech[times < 1.9].mean() < 0.05


def test_zeros_of_a_recorder_are_no_noise() -> None:
    signal = spoken(noise=1e-2)
    signal[:8000] = signal[-12_000:] = 0.0
    found = heard(signal)
    assert found.snr_db is not None
    assert found.snr_db < 30


def test_a_rate_without_whole_frames_is_refused() -> None:
    with pytest.raises(SettingsError, match="sampling rate of 22050"):
        SpeechStream(22_050, min_level_dbfs=-60.0)


def test_bandwidth_is_that_of_the_telephone_in_a_file_of_more() -> None:
    import scipy.signal

    wide = spoken(16_000, noise=0.0) + spoken(16_000, noise=1e-2, seed=2) * 0.1
    narrow = scipy.signal.sosfilt(scipy.signal.butter(12, 3400, fs=16_000, output="sos"), wide).astype(np.float32)
    found = heard(narrow, 16_000).bandwidth_hz
    assert found == pytest.approx(3600, abs=600)
    assert heard(wide, 16_000).bandwidth_hz > 6000


def test_of_silence_nothing_is_said() -> None:
    found = heard(np.zeros(16_000, np.float32))
    assert (found.speech_s, found.level_dbfs, found.snr_db, found.bandwidth_hz) == (0.0, None, None, None)
    assert heard(np.zeros(10, np.float32)).speech.shape == (0,)


def test_stretches_count_whole_frames_only() -> None:
    stream = SpeechStream(8000, min_level_dbfs=-60.0)
    stream.push(spoken())
    speech = stream.finish().speech
    assert stream.speech_s(2.4, 3.0) == pytest.approx(speech[80:100].sum() * FRAME_S)
    assert stream.speech_s(2.41, 2.99) == pytest.approx(speech[81:99].sum() * FRAME_S)


def test_what_is_known_stays() -> None:
    """A stretch may be asked for as soon as it is known, and then what it holds does not change."""
    stream, signal = SpeechStream(8000, min_level_dbfs=-60.0), np.tile(spoken(), 12)
    said = []
    for part in np.array_split(signal, 50):
        stream.push(part)
        said.append((stream.known_s, stream.speech_s(0.0, stream.known_s)))
    speech = stream.finish().speech
    assert stream.known_s == pytest.approx(len(signal) / 8000, abs=FRAME_S)
    assert 30 < said[-1][0] < 72
    assert [each for _, each in said] == pytest.approx([speech[: round(s / FRAME_S)].sum() * FRAME_S for s, _ in said])


def test_real_calls_hold_speech_and_few_tones(shared: Path) -> None:
    with audio.stream(shared / "calls" / "call40_agentL_callerR_ulaw.wav", sampling_rate=8000) as sound:
        channels = np.concatenate(list(sound), axis=1)
    agent, caller = (heard(channel) for channel in channels)
    for each in (agent, caller):
        assert 80 < each.speech_s < 120
        assert each.tone.sum() < 0.01 * each.speech.sum()
        assert each.snr_db is not None
        assert each.snr_db > 30
    both = (agent.speech & caller.speech).sum() / (agent.speech | caller.speech).sum()
    assert both < 0.1  # they take turns


@pytest.mark.parametrize("corpus", ["ravdess", "savee", "tess"])
def test_real_speech_over_the_telephone_is_no_tone(shared: Path, corpus: str) -> None:
    clips = [path for path in sorted((shared / "corpora" / corpus).rglob("*")) if path.suffix in (".flac", ".opus")]
    found = []
    for path in clips[:: len(clips) // 20]:
        clip = audio.read(path, sampling_rate=8000).signal.mean(axis=0)
        found.append(heard(through("ulaw", clip, sampling_rate=8000, seed=0)))
    speech_s, tone_s = sum(each.speech_s for each in found), sum(each.tone_s for each in found)
    assert speech_s > 25
    assert tone_s < 0.01 * speech_s
