"""What training does to a minibatch: its size, its chance, and that nothing comes from beyond a row's frames."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.learning.augmentation import Augmentation, retimed, voiced

FRAMES, COEFFICIENTS = 30, 4
SEEDS = st.integers(0, 2**32 - 1)
HOW = Augmentation(tempo=0.2)


def rows(seed: int, count: int = 5) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return rows of ones to twos, with what no network may see behind their frames."""
    generator = np.random.default_rng(seed)
    features = generator.uniform(1, 2, (count, FRAMES, COEFFICIENTS)).astype(np.float32)
    valid_frames = generator.integers(1, FRAMES + 1, count).astype(np.int32)
    features[np.arange(FRAMES) >= valid_frames[:, np.newaxis]] = 1e6
    return features, valid_frames


@given(seed=SEEDS, factor=st.floats(0.5, 2), frames=st.integers(1, 70))
def test_another_tempo_has_as_many_frames_as_it_says(seed: int, factor: float, frames: int) -> None:
    features, valid_frames = rows(seed)
    found, lengths = retimed(features, valid_frames, np.full(len(features), factor), frames)
    assert found.shape == (len(features), frames, COEFFICIENTS)
    np.testing.assert_array_equal(lengths, np.clip(np.floor(valid_frames / factor), 1, frames))
    real = np.arange(frames) < lengths[:, np.newaxis]
    assert (found[real] >= 0.999).all()
    assert (found[real] <= 2.001).all()
    assert not found[~real].any()


@given(seed=SEEDS)
def test_the_same_tempo_is_the_same_row(seed: int) -> None:
    features, valid_frames = rows(seed)
    found, lengths = retimed(features, valid_frames, np.ones(len(features)), FRAMES)
    np.testing.assert_array_equal(lengths, valid_frames)
    real = np.arange(FRAMES) < valid_frames[:, np.newaxis]
    np.testing.assert_array_equal(found[real], features[real])


@given(seed=SEEDS, frames=st.integers(1, FRAMES))
def test_voices_are_decided_by_the_seed(seed: int, frames: int) -> None:
    features, valid_frames = rows(seed)
    features[features > 2] = 0.0
    warps = np.stack([np.eye(COEFFICIENTS, dtype=np.float32) * scale for scale in (1.0, 2.0)])
    first, again = (
        voiced(features, valid_frames, frames, warps=warps, how=HOW, generator=np.random.default_rng(seed))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[0].shape == (len(features), frames, COEFFICIENTS)
    assert (first[1] >= 1).all()
    assert (first[1] <= frames).all()


def test_without_voices_and_tempo_a_row_is_what_it_was() -> None:
    features, valid_frames = rows(0)
    none = np.zeros((0, COEFFICIENTS, COEFFICIENTS), np.float32)
    found, lengths = voiced(
        features, valid_frames, FRAMES, warps=none, how=Augmentation(), generator=np.random.default_rng(0)
    )
    np.testing.assert_array_equal(found, features)
    np.testing.assert_array_equal(lengths, valid_frames)
