"""Speech, tones and quality of a channel, through `emolib.sound.speech`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.sound import audio
from emolib.sound.speech import FRAME_S, ChannelSpeech, SpeechStream
from emolib.sound.synthetic import utterance, voice

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


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, 48_000), max_size=8))
def test_the_same_however_it_is_cut(cuts: list[int]) -> None:
    signal = np.concatenate([spoken(), tones(440, 480)])[:48_000]
    whole, parts = heard(signal), heard(signal, cuts=cuts)
    np.testing.assert_array_equal(whole.speech, parts.speech)
    np.testing.assert_array_equal(whole.tone, parts.tone)
    assert (whole.level_dbfs, whole.snr_db, whole.bandwidth_hz) == (parts.level_dbfs, parts.snr_db, parts.bandwidth_hz)


@pytest.mark.parametrize(
    "hz",
    [(425.0,), (440.0, 480.0), (480.0, 620.0), (350.0, 440.0), (1100.0,), (2100.0,), (697.0, 1209.0), (941.0, 1477.0)],
    ids=["Europe", "ring-back", "busy", "dial", "fax calls", "fax answers", "DTMF 1", "DTMF #"],
)
def test_tones_are_no_speech(hz: tuple[float, ...]) -> None:
    noise = 1e-4 * np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    found = heard(noise + np.concatenate([np.zeros(8000, np.float32), tones(*hz), np.zeros(8000, np.float32)]))
    assert found.speech_s <= 0.24  # it takes three pairs of frames to know a steady tone, and the first may be cut


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


def test_stretches_count_whole_pairs_of_frames_only() -> None:
    stream = SpeechStream(8000, min_level_dbfs=-60.0)
    stream.push(spoken())
    speech = stream.finish().speech
    assert stream.speech_s(2.4, 3.0) == pytest.approx(speech[80:100].sum() * FRAME_S)
    assert stream.speech_s(2.41, 2.99) == pytest.approx(speech[82:98].sum() * FRAME_S)


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
