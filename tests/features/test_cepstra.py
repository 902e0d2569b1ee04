"""MFCCs: librosa's numbers, and a frame's numbers independent of its company."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.config import PROFILES, MfccConfig
from emolib.errors import SettingsError
from emolib.features import mfcc
from emolib.features.cepstra import MfccStream, can_stream, frame_count, frequency_warps


@st.composite
def front_ends(draw: st.DrawFn) -> MfccConfig:
    rate = draw(st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100]))
    n_fft = draw(st.sampled_from([256, 400, 512, 1024, 2048]))
    n_mels = draw(st.integers(10, 128))
    fmin = draw(st.floats(0, 300))
    return MfccConfig(
        sampling_rate=rate,
        n_fft=n_fft,
        hop_length=draw(st.integers(n_fft // 8, n_fft)),
        n_mels=n_mels,
        n_mfcc=draw(st.integers(1, min(n_mels, 40))),
        fmin=fmin,
        fmax=draw(st.none() | st.floats(fmin + 500, rate / 2)),
        center=draw(st.booleans()),
        amin=draw(st.sampled_from([1e-10, 1e-8, 1e-5])),
        top_db=draw(st.none() | st.floats(20, 120)),
    )


def speech_like(seed: int, samples: int, rate: int, noise_dbfs: float) -> NDArray[np.float32]:
    """Harmonics that swell and fade over a floor of noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    pitch = rng.uniform(80, 300)
    voice = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 12)) * np.sin(2 * np.pi * 2 * time) ** 2
    noise = rng.standard_normal(samples) * 10 ** (noise_dbfs / 20)
    return np.clip(0.2 * voice + noise, -1, 1).astype(np.float32)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Empty filters:UserWarning")  # librosa's word on more bands than bins
@given(config=front_ends(), seed=st.integers(0, 2**32 - 1), noise_dbfs=st.floats(-80, -10), seconds=st.floats(0.3, 2))
def test_librosa_computes_the_same(config: MfccConfig, seed: int, noise_dbfs: float, seconds: float) -> None:
    signal = speech_like(seed, round(seconds * config.sampling_rate), config.sampling_rate, noise_dbfs)
    ours, librosas = mfcc(signal, config=config), mfcc(signal, config=config, backend="librosa")
    assert ours.dtype == np.float32
    assert ours.shape == librosas.shape == (frame_count(signal.size, config=config), config.n_mfcc)
    np.testing.assert_allclose(ours, librosas, rtol=0, atol=1e-3)


@given(
    profile=st.sampled_from(["telephone", "wideband"]),
    seed=st.integers(0, 2**32 - 1),
    first=st.integers(0, 200),
    count=st.integers(1, 150),
)
def test_a_frame_does_not_depend_on_its_company(profile: str, seed: int, first: int, count: int) -> None:
    config = PROFILES[profile].features
    signal = speech_like(seed, config.n_fft + 400 * config.hop_length, config.sampling_rate, -40)
    start, frames = first * config.hop_length, mfcc(signal, config=config)
    part = signal[start : start + config.n_fft + (count - 1) * config.hop_length]
    np.testing.assert_array_equal(mfcc(part, config=config), frames[first : first + count])


@given(config=front_ends(), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_stream_gives_the_frames_of_the_whole_however_it_is_cut(
    config: MfccConfig, seed: int, data: st.DataObject
) -> None:
    hop_length = data.draw(st.sampled_from([config.hop_length, 2 * config.n_fft]))  # frames may lie apart
    config = config.model_copy(update={"center": False, "top_db": None, "hop_length": hop_length})
    samples = data.draw(st.integers(0, 20 * config.n_fft))
    signal = speech_like(seed, samples, config.sampling_rate, -60)
    cuts = data.draw(st.lists(st.integers(0, samples), max_size=9).map(sorted))
    stream = MfccStream(config=config)
    found = [stream.push(piece) for piece in np.split(signal, cuts)]
    np.testing.assert_array_equal(np.concatenate(found), mfcc(signal, config=config))


@pytest.mark.parametrize("change", [{"center": True}, {"top_db": 80.0}])
def test_what_needs_the_whole_signal_is_not_streamed(change: dict[str, object]) -> None:
    config = PROFILES["telephone"].features.model_copy(update=change)
    assert not can_stream(config)
    with pytest.raises(SettingsError, match="expected frames that are not centred"):
        MfccStream(config=config)


@pytest.mark.slow
@pytest.mark.parametrize("frequency", [250.0, 1000.0, 3500.0])
@pytest.mark.parametrize("name", PROFILES)
def test_faint_bands_under_a_loud_tone_are_librosas_too(name: str, frequency: float) -> None:
    """A full-scale tone over noise at -80 dBFS: here a float32 FFT alone misses the promise."""
    config = PROFILES[name].features
    time = np.arange(2 * config.sampling_rate) / config.sampling_rate
    noise = 1e-4 * np.random.default_rng(3).standard_normal(time.size)
    signal = np.clip(np.sin(2 * np.pi * frequency * time) + noise, -1, 1).astype(np.float32)
    ours, librosas = mfcc(signal, config=config), mfcc(signal, config=config, backend="librosa")
    np.testing.assert_allclose(ours, librosas, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", PROFILES)
def test_silence_and_full_scale_are_finite(name: str) -> None:
    config = PROFILES[name].features
    for level in (0.0, 1.0, -1.0):
        assert np.isfinite(mfcc(np.full(config.sampling_rate, level, np.float32), config=config)).all()


def test_wrong_signals_are_refused() -> None:
    config = PROFILES["telephone"].features
    with pytest.raises(ValueError, match="one channel"):
        mfcc(np.zeros((2, 8000), np.float32), config=config)
    with pytest.raises(ValueError, match="finite"):
        mfcc(np.full(8000, np.nan, np.float32), config=config)


def test_a_signal_shorter_than_a_frame_has_no_frames() -> None:
    config = PROFILES["telephone"].features
    assert mfcc(np.zeros(config.n_fft - 1, np.float32), config=config).shape == (0, config.n_mfcc)


@pytest.mark.parametrize("name", ["telephone", "wideband"])
@pytest.mark.parametrize("factor", [0.87, 1.0, 1.12])
def test_a_warp_moves_frequencies_as_if_they_had_been_other(name: str, factor: float) -> None:
    """Three broad resonances, where they are and where a shorter or longer vocal tract would have them."""
    config = PROFILES[name].features

    def vowel(stretch: float) -> NDArray[np.float32]:
        frequencies = np.fft.rfftfreq(config.sampling_rate, d=1 / config.sampling_rate)
        spectrum = sum(np.exp(-(((frequencies - f * stretch) / (150 * stretch)) ** 2)) for f in (700, 1400, 2500))
        phases = np.random.default_rng(0).uniform(0, 2 * np.pi, frequencies.size)
        signal = np.fft.irfft((spectrum + 1e-2) * np.exp(1j * phases), config.sampling_rate)
        cepstra = mfcc((0.3 * signal / np.abs(signal).max()).astype(np.float32), config=config)
        return cepstra.mean(axis=0, keepdims=True)

    plain, moved = vowel(1.0), vowel(factor)
    (warp,) = frequency_warps(np.array([factor]), config=config)
    # The first two coefficients are level and tilt, which a resonance that is wider in Hz changes too.
    off_before, off_after = (np.linalg.norm((each - moved)[:, 2:12]) for each in (plain, plain @ warp))
    assert off_after < 0.35 * off_before or factor == 1.0
    if factor == 1.0:
        np.testing.assert_allclose(plain @ warp, plain, atol=1e-3)
