"""What training does to a minibatch: its size, its chance, and that nothing comes from beyond a row's frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.learning.augmentation import Augmentation, retimed, styled, voiced

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
    first = np.random.default_rng(seed).integers(0, valid_frames)
    found, lengths = retimed(features, valid_frames, first=first, factors=np.full(len(features), factor), frames=frames)
    assert found.shape == (len(features), frames, COEFFICIENTS)
    np.testing.assert_array_equal(lengths, np.clip(np.floor((valid_frames - first) / factor), 1, frames))
    real = np.arange(frames) < lengths[:, np.newaxis]
    assert (found[real] >= 0.999).all()
    assert (found[real] <= 2.001).all()
    assert not found[~real].any()


@given(seed=SEEDS)
def test_the_same_tempo_is_the_same_row(seed: int) -> None:
    features, valid_frames = rows(seed)
    found, lengths = retimed(features, valid_frames, first=np.zeros(5, int), factors=np.ones(5), frames=FRAMES)
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


def test_the_end_of_a_row_is_learnt_from_as_often_as_its_beginning() -> None:
    count = 4000
    features = np.tile(np.arange(FRAMES, dtype=np.float32)[:, np.newaxis], (count, 1, 1))
    none = np.zeros((0, 1, 1), np.float32)
    found, lengths = voiced(
        features, np.full(count, FRAMES, np.int32), 20, warps=none, how=HOW, generator=np.random.default_rng(0)
    )
    ends = found[np.arange(count), lengths - 1, 0]
    assert (lengths == 20).all()
    early, late = (found[:, 0, 0] < 2).mean(), (ends > FRAMES - 3).mean()
    assert early == pytest.approx(late, abs=0.05)
    assert early > 0.1


@given(seed=SEEDS)
def test_a_style_lies_between_those_of_two_rows_and_the_level_stays(seed: int) -> None:
    features, valid_frames = rows(seed)
    real = np.arange(FRAMES) < valid_frames[:, np.newaxis]
    features[~real] = 0.0
    found = styled(features, valid_frames, how=Augmentation(style=1.0), generator=np.random.default_rng(seed))
    assert not found[~real].any()
    np.testing.assert_allclose(found[:, :, 0], features[:, :, 0], atol=1e-5)
    means, before = (each.sum(axis=1) / valid_frames[:, np.newaxis] for each in (found, features))
    assert (means >= before.min(axis=0) - 1e-4).all()
    assert (means <= before.max(axis=0) + 1e-4).all()


def test_some_rows_keep_their_style() -> None:
    features = np.random.default_rng(0).standard_normal((1000, FRAMES, COEFFICIENTS), np.float32)
    frames = np.full(1000, FRAMES, np.int32)
    found = styled(features, frames, how=Augmentation(style=0.5), generator=np.random.default_rng(0))
    kept = np.isclose(found, features, atol=1e-5).all(axis=(1, 2)).mean()
    assert 0.4 < kept < 0.65
    assert styled(features, frames, how=Augmentation(), generator=np.random.default_rng(0)) is features
