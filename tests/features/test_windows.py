"""Windows: which there are, and that sharing frames changes no number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from emolib.config import ARTICLE, PROFILES, TELEPHONE, MfccConfig, WindowConfig
from emolib.errors import SettingsError
from emolib.features import mfcc
from emolib.features.windows import WindowStream, window_shape, window_spans, windowed_features


@given(
    samples=st.integers(0, 3000),
    length=st.integers(40, 500),
    hop=st.none() | st.integers(1, 600),
)
def test_spans_follow_the_rule(samples: int, length: int, hop: int | None) -> None:
    rate = 100
    windows = WindowConfig(duration_s=length / rate, hop_s=None if hop is None else hop / rate)
    spans = window_spans(samples, sampling_rate=rate, windows=windows)
    expected, heard, start = [], 0, 0
    while samples >= 40:
        end = min(start + length, samples)
        if expected and end - max(heard, start) < min(40, hop or 40):
            break
        expected.append([start, end])
        if hop is None:
            break
        heard, start = end, start + hop
    assert spans.tolist() == expected


def test_shared_frames_are_those_of_a_window_alone() -> None:
    rng = np.random.default_rng(5)
    signal = (0.1 * rng.standard_normal(8000 * 13)).astype(np.float32)
    found = windowed_features(signal, features=TELEPHONE.features, windows=TELEPHONE.windows)
    for row, start_s in enumerate(found.start_s):
        start = round(start_s * 8000)
        clip = signal[start : start + 32_000]
        clip = np.pad(clip, (0, 32_000 - clip.size))
        np.testing.assert_array_equal(found.features[row], mfcc(clip, config=TELEPHONE.features))
    assert found.end_s[-1] == 13.0
    assert found.valid_frames.tolist() == [249, 249, 249, 249, 249, 188]


def test_the_article_cuts_at_its_length_and_pads_with_the_median() -> None:
    rng = np.random.default_rng(6)
    long = (0.1 * rng.standard_normal(200_000) + 0.05).astype(np.float32)
    settings = {"features": ARTICLE.features, "windows": ARTICLE.windows}
    cut = windowed_features(long, **settings)
    np.testing.assert_array_equal(cut.features[0], mfcc(long[:120_772], config=ARTICLE.features))
    short = long[:100_000]
    padded = np.concatenate([short, np.full(20_772, np.median(short), np.float32)])
    filled = windowed_features(short, **settings)
    np.testing.assert_array_equal(filled.features[0], mfcc(padded, config=ARTICLE.features))
    assert filled.valid_frames.tolist() == [196]


@pytest.mark.parametrize("name", PROFILES)
def test_shapes_are_those_of_the_profile(name: str) -> None:
    profile = PROFILES[name]
    signal = np.zeros(3 * profile.features.sampling_rate, np.float32)
    found = windowed_features(signal, features=profile.features, windows=profile.windows)
    assert found.features.shape[1:] == window_shape(profile.features, profile.windows)
    assert found.features.dtype == np.float32


def test_too_short_has_no_window_and_a_window_of_it_is_padded_from_there_on() -> None:
    settings = {"features": TELEPHONE.features, "windows": TELEPHONE.windows}
    assert len(windowed_features(np.zeros(3199, np.float32), **settings).features) == 0
    assert len(windowed_features(np.zeros(3200, np.float32), **settings).features) == 1


def test_settings_that_do_not_fit_the_frames_are_refused() -> None:
    for windows in (
        WindowConfig(duration_s=4.0, hop_s=2.01),
        WindowConfig(duration_s=4.00001, hop_s=2.0),
        WindowConfig(duration_s=4.0, hop_s=0.01),
        WindowConfig(duration_s=4.0, hop_s=1e-9),
    ):
        with pytest.raises(SettingsError, match="expected"):
            window_shape(TELEPHONE.features, windows)
    for hop_s in (1e-9, 1 / 44_100, 511 / 44_100):  # windows without number: an hour would have 10^8 of the second
        with pytest.raises(SettingsError, match="at least the frame hop"):
            window_shape(ARTICLE.features, WindowConfig(duration_s=1.0, hop_s=hop_s, pad="median"))


@given(
    samples=st.integers(0, 5000),
    hop=st.none() | st.sampled_from([0.256, 0.512, 1.024, 2.048]),
    pad=st.sampled_from(["zero", "median"]),
    center=st.booleans(),
    cuts=st.lists(st.integers(0, 5000), max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_stream_gives_the_windows_of_the_whole_however_it_is_cut(
    samples: int, hop: float | None, pad: str, center: bool, cuts: list[int], seed: int
) -> None:
    """Windows that share frames, that are clips of their own, that leave gaps, and a single one."""
    features = MfccConfig(sampling_rate=1000, n_fft=64, hop_length=32, n_mels=12, n_mfcc=6, center=center)
    windows = WindowConfig(duration_s=1.024, hop_s=hop, pad=pad)
    signal = np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)
    whole = windowed_features(signal, features=features, windows=windows)
    stream = WindowStream(features=features, windows=windows)
    pieces = np.split(signal, sorted(min(cut, samples) for cut in cuts))
    parts = [*(stream.push(piece) for piece in pieces[:-1]), stream.push(pieces[-1], last=True)]
    for name in ("features", "valid_frames", "start_s", "end_s"):
        found = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(found, getattr(whole, name))
    spans = window_spans(samples, sampling_rate=1000, windows=windows)
    np.testing.assert_array_equal(np.stack([whole.start_s, whole.end_s], axis=1), spans / 1000)
    for (start, end), found in zip(spans, whole.features, strict=True):
        clip = signal[start:end]
        value = np.median(clip) if pad == "median" else 0
        clip = np.concatenate([clip, np.full(1024 - clip.size, value, np.float32)])
        np.testing.assert_array_equal(found, mfcc(clip, config=features))
