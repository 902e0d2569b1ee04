"""Spectra of sounds whose spectra are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
from numpy.typing import NDArray

from emolib.sound import vocal_tract
from emolib.sound.spectra import envelope, spectrogram, spectrum

RATE = vocal_tract.RATE
VOWELS = {"bat": (660, 1720, 2410), "father": (730, 1090, 2440), "bit": (390, 1990, 2550), "bet": (530, 1840, 2480)}


def vowel(formants: tuple[float, ...], *, pitch_hz: float, duration_s: float = 0.3) -> NDArray[np.float32]:
    """A steady vowel: glottal pulses through resonators at the formants, over noise at -70 dB."""
    samples = round(duration_s * RATE)
    phase = np.cumsum(np.full(samples, pitch_hz / RATE)) % 1
    signal = np.diff(vocal_tract.glottal_flow(phase, open_share=0.6, closing_share=0.35), prepend=0)
    for frequency, bandwidth in zip((*formants, 3500.0, 4500.0), (60, 90, 150, 250, 300), strict=True):
        poles = vocal_tract.resonator(np.array(frequency), np.array(float(bandwidth)))
        signal = scipy.signal.lfilter([poles.sum()], poles, signal)
    noise = np.random.default_rng(0).normal(scale=3e-4, size=samples)
    return (0.5 * signal / np.abs(signal).max() + noise).astype(np.float32)


@pytest.mark.parametrize("pitch_hz", [110.0, 200.0])
@pytest.mark.parametrize("formants", VOWELS.values(), ids=VOWELS)
def test_formants_of_a_known_vowel(formants: tuple[float, ...], pitch_hz: float) -> None:
    found = envelope(vowel(formants, pitch_hz=pitch_hz), sampling_rate=RATE)
    assert found.pitch_hz == pytest.approx(pitch_hz, rel=0.02)
    # A harmonic is as near to a formant as half the pitch: what lies between is guessed.
    tolerance = [max(0.05 * known, 0.35 * pitch_hz) for known in formants]
    frequencies = [formant.frequency_hz for formant in found.formants if formant.frequency_hz < 3200]
    assert len(frequencies) == 3
    assert np.all(np.abs(np.subtract(frequencies, formants)) < tolerance), frequencies


@pytest.mark.parametrize("pitch_hz", [110.0, 220.0, 330.0])
def test_of_ripples_no_formants_are_made(pitch_hz: float) -> None:
    signal = vowel(VOWELS["bat"], pitch_hz=pitch_hz) + np.random.default_rng(0).normal(scale=0.02, size=4800)
    assert len(envelope(signal.astype(np.float32), sampling_rate=RATE).formants) <= 5
    telephone = scipy.signal.resample_poly(signal, 1, 2).astype(np.float32)
    assert len(envelope(telephone, sampling_rate=RATE // 2).formants) <= 4


@pytest.mark.parametrize("rate", [8000, 44_100])
def test_formants_do_not_depend_on_the_sampling_rate(rate: int) -> None:
    signal = vowel(VOWELS["bat"], pitch_hz=120.0)
    resampled = scipy.signal.resample(signal, round(len(signal) * rate / RATE)).astype(np.float32)
    at_16, other = (envelope(s, sampling_rate=r).formants for s, r in ((signal, RATE), (resampled, rate)))
    for first, second in zip(at_16[:3], other[:3], strict=True):
        assert second.frequency_hz == pytest.approx(first.frequency_hz, abs=40)


def test_the_moment_is_the_loudest_voiced_one() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(scale=0.3, size=RATE // 2).astype(np.float32)
    quiet, loud = (vowel(VOWELS[name], pitch_hz=130.0) for name in ("bit", "bat"))
    signal = np.concatenate([noise, 0.1 * quiet, 0.5 * loud, np.zeros(RATE // 2, np.float32)])
    found = envelope(signal, sampling_rate=RATE)
    assert 0.8 < found.time_s < 1.1


@pytest.mark.parametrize("pitches_hz", [(283.0, 327.0), (210.0, 290.0), (300.0, 210.0)])
def test_where_the_pitch_jumps_is_no_moment_of_low_pitch(pitches_hz: tuple[float, float]) -> None:
    """Across a jump only a multiple of both periods fits: half the pitch, or a third."""
    signal = np.concatenate([vowel(VOWELS["bat"], pitch_hz=pitch_hz) for pitch_hz in pitches_hz])
    assert envelope(signal, sampling_rate=RATE).pitch_hz == pytest.approx(min(pitches_hz), rel=0.02)


@pytest.mark.parametrize("scale", [0.0, 0.1], ids=["silence", "noise"])
def test_without_a_voice_there_are_no_formants(scale: float) -> None:
    signal = np.random.default_rng(0).normal(scale=scale, size=RATE).astype(np.float32)
    found = envelope(signal, sampling_rate=RATE)
    assert (found.pitch_hz, found.formants) == (None, ())
    assert np.isfinite(found.envelope_db).all()


def test_a_long_sound_has_no_more_frames_than_a_picture() -> None:
    signal = np.zeros(60 * 8000, np.float32)
    found = spectrogram(signal, sampling_rate=8000)
    assert found.amplitude.shape == (len(found.frequencies_hz), len(found.times_s))
    assert len(found.times_s) <= 1600
    assert found.times_s[-1] == pytest.approx(60, abs=0.1)


def test_level_of_a_tone_in_every_spectrum() -> None:
    tone = 0.25 * np.sin(2 * np.pi * 1500 * np.arange(RATE) / RATE).astype(np.float32)
    frequencies, levels = spectrum(tone, sampling_rate=RATE)
    assert (frequencies[levels.argmax()], levels.max()) == (1500, pytest.approx(-12.04, abs=0.1))
    assert spectrogram(tone, sampling_rate=RATE).amplitude[:, 60].max() == pytest.approx(0.25, abs=0.002)


@pytest.mark.parametrize("function", [spectrogram, spectrum, envelope])
def test_only_one_channel(function: type) -> None:
    with pytest.raises(ValueError, match="shape"):
        function(np.zeros((2, 8000), np.float32), sampling_rate=8000)
