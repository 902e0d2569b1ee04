"""What training does to a minibatch so that a network learns emotions and not clips. PURE: arrays and a generator.

Copies of whole utterances through other channels are rows of the store instead, see `emolib.sound.variants`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of the beta distribution that mixes two styles: most mixtures are nearly the one or nearly the other.
_STYLES = 0.3


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much of each.

    Attributes
    ----------
    label_smoothing
        Share of a target that goes to all words alike (Szegedy et al. 2016).
    time_masks
        Number of stretches of frames that are hidden (Park et al. 2019).
    longest_mask
        Frames of a stretch, at most.
    tempo
        Natural logarithm of how many times as fast or as slowly a row is said, at most; its pitch stays.
    style
        Share of the rows that are given something of another row's style, see `styled`.
    """

    label_smoothing: float = 0.0
    time_masks: int = 0
    longest_mask: int = 0
    tempo: float = 0.0
    style: float = 0.0


class Examples(NamedTuple):
    """A minibatch as a network trains on it.

    Attributes
    ----------
    features
        float32 ``(row, frame, coefficient)``.
    valid_frames
        int32 ``(row,)``.
    targets
        float32 ``(row, word)``; each row sums to 1.
    weights
        float32 ``(row,)``, of the rows in the loss.
    """

    features: NDArray[np.float32]
    valid_frames: NDArray[np.int32]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]


def aligned(
    features: NDArray[np.float32], first: NDArray[np.int32], last: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Move a stretch of each window to its beginning; what lies outside the stretch is left out.

    Parameters
    ----------
    features
        Shape ``(row, frame, coefficient)``.
    first, last
        The first and the last frame of the stretch, ``(row,)``.

    Returns
    -------
    features
        As large as before, zeros behind each stretch.
    valid_frames
        Length of each stretch.

    Examples
    --------
    >>> moved, valid_frames = aligned(np.arange(5, dtype=np.float32).reshape(1, 5, 1), np.array([2]), np.array([3]))
    >>> moved[0, :, 0].tolist(), valid_frames.tolist()
    ([2.0, 3.0, 0.0, 0.0, 0.0], [2])
    """
    frames = np.arange(features.shape[1])
    valid_frames = last - first + 1
    places = np.minimum(first[:, np.newaxis] + frames, features.shape[1] - 1)
    moved = np.take_along_axis(features, places[:, :, np.newaxis], axis=1)
    moved[frames >= valid_frames[:, np.newaxis]] = 0.0
    return moved, valid_frames.astype(np.int32)


def retimed(
    features: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    *,
    first: NDArray[np.int64],
    factors: NDArray[np.floating],
    frames: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return a stretch of each row said so many times as fast: its frames are drawn from between those that there are.

    Parameters
    ----------
    features, valid_frames
        Of a minibatch, ``(row, frame, coefficient)`` and ``(row,)``.
    first
        The frame that the stretch begins with, ``(row,)``.
    factors
        Above 1 for faster, ``(row,)``.
    frames
        Length of the result; what does not go into it is left out.

    Returns
    -------
    features
        Shape ``(row, frames, coefficient)``, zeros behind each row's frames.
    valid_frames
        Int32 ``(row,)``, at least 1.

    Examples
    --------
    >>> row = np.arange(4, dtype=np.float32).reshape(1, 4, 1)
    >>> slower, valid_frames = retimed(
    ...     row, np.array([4]), first=np.array([1]), factors=np.array([0.5]), frames=7)
    >>> slower[0, :, 0].tolist(), valid_frames.tolist()
    ([1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 0.0], [6])
    """
    lengths = np.clip(np.floor((valid_frames - first) / factors), 1, frames).astype(np.int32)
    last = valid_frames[:, np.newaxis] - 1
    places = np.minimum(first[:, np.newaxis] + np.arange(frames) * factors[:, np.newaxis], last)
    before = places.astype(np.int64)
    share = (places - before).astype(np.float32)[:, :, np.newaxis]
    found = np.take_along_axis(features, before[:, :, np.newaxis], axis=1) * (1 - share)
    found += np.take_along_axis(features, np.minimum(before + 1, last)[:, :, np.newaxis], axis=1) * share
    found[np.arange(frames) >= lengths[:, np.newaxis]] = 0.0
    return found, lengths


def voiced(
    features: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    frames: int,
    *,
    warps: NDArray[np.float32],
    how: Augmentation,
    generator: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return a random stretch of each row, all of it where it is no longer, as somebody else would have said it.

    Parameters
    ----------
    features, valid_frames
        Of a minibatch, ``(row, frame, coefficient)`` and ``(row,)``.
    frames
        Length of the stretch, at most.
    warps
        Voices to choose from, ``(voice, coefficient, coefficient)`` (see `emolib.features.cepstra.frequency_warps`);
        without any each row keeps its own.
    generator
        Decides stretch, tempo and voice.

    Returns
    -------
    features
        Shape ``(row, frames, coefficient)``.
    valid_frames
        Int32 ``(row,)``.
    """
    if how.tempo or frames < features.shape[1]:  # else a row stays as it is, with what pads it
        factors = np.exp(generator.uniform(-how.tempo, how.tempo, len(features)))
        spare = valid_frames - np.ceil(frames * factors).astype(np.int64)
        first = generator.integers(0, np.maximum(spare, 0) + 1)
        features, valid_frames = retimed(features, valid_frames, first=first, factors=factors, frames=frames)
    if len(warps):
        features = np.matmul(features, warps[generator.integers(len(warps), size=len(features))])
    return features, valid_frames


def styled(
    features: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    *,
    how: Augmentation,
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Return rows as if somebody else had said some of them elsewhere.

    Mean and deviation of each coefficient over a row say most of who speaks and through which channel. They become a
    random mixture of the row's own and those of another row of the minibatch (Zhou, Yang, Qiao and Xiang 2021, "Domain
    generalization with MixStyle", on the input). Those of the first coefficient, the level, stay.

    Parameters
    ----------
    features
        Shape ``(row, frame, coefficient)``, zeros behind each row's frames.
    valid_frames
        Shape ``(row,)``.
    generator
        Decides which rows, the other row of each and the mixture.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(row, frame, coefficient)``, zeros behind each row's frames.
    """
    if not how.style:
        return features
    rows, frames = len(features), valid_frames[:, np.newaxis, np.newaxis]
    real = np.arange(features.shape[1])[:, np.newaxis] < frames
    mean = features.sum(axis=1, keepdims=True) / frames.astype(np.float32)
    centred = np.where(real, features - mean, np.float32(0.0))
    deviation = np.sqrt(np.square(centred).sum(axis=1, keepdims=True) / frames.astype(np.float32) + np.float32(1e-3))
    other = generator.permutation(rows)
    own = np.where(generator.random(rows) < how.style, generator.beta(_STYLES, _STYLES, rows), 1.0)
    own = np.repeat(own.astype(np.float32)[:, np.newaxis, np.newaxis], features.shape[2], axis=2)
    own[:, :, 0] = 1.0
    mean = own * mean + (1 - own) * mean[other]
    centred *= own + (1 - own) * deviation[other] / deviation
    return np.where(real, centred + mean, np.float32(0.0))


def augmented(
    features: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    labels: NDArray[np.int64],
    *,
    word_weights: NDArray[np.float32],
    hidden: NDArray[np.float32],
    how: Augmentation,
    generator: np.random.Generator,
) -> Examples:
    """Return a minibatch with other frames hidden and softer targets than it came with.

    Parameters
    ----------
    features, valid_frames, labels
        Of a minibatch (see `emolib.learning.batches.Batch`).
    word_weights
        Weight of each word in the loss, ``(word,)``.
    hidden
        What a hidden frame holds, ``(coefficient,)``: the mean of all frames says nothing.
    generator
        Decides what is hidden.

    Examples
    --------
    >>> found = augmented(
    ...     np.ones((2, 4, 1), np.float32), np.array([4, 3], np.int32), np.array([1, 0]),
    ...     word_weights=np.array([1.0, 3.0], np.float32), hidden=np.zeros(1, np.float32),
    ...     how=Augmentation(label_smoothing=0.2), generator=np.random.default_rng(0))
    >>> np.round(found.targets.astype(float), 3).tolist(), found.weights.tolist()
    ([[0.1, 0.9], [0.9, 0.1]], [3.0, 1.0])
    """
    rows, frames = len(features), np.arange(features.shape[1])
    features = features.copy()
    for _ in range(how.time_masks):
        length = generator.integers(0, how.longest_mask + 1, rows)
        first = (generator.random(rows) * np.maximum(valid_frames - length, 0)).astype(np.int64)
        # At least half of what is there stays.
        length = np.where(2 * length > valid_frames, 0, length)
        masked = (frames >= first[:, np.newaxis]) & (frames < (first + length)[:, np.newaxis])
        features[masked] = hidden
    words = len(word_weights)
    targets = np.full((rows, words), how.label_smoothing / words, np.float32)
    targets[np.arange(rows), labels] += 1.0 - how.label_smoothing
    return Examples(features, valid_frames, targets, word_weights[labels])
