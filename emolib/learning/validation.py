"""Held-out predictions of a model's validation speakers, for its temperature, its threshold and its confusion counts.

They are those of a network that had not heard these speakers. Where another then learnt anew from all, that other one
is shipped (see `emolib.learning.training.fit`); how far the figures hold for it, `emolib.learning.promise` finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emolib.corpora.labels import merged
from emolib.learning.intervals import confusions


class Validation(NamedTuple):
    """Windows of speakers, and what a network says of them that has not heard these speakers.

    Attributes
    ----------
    probabilities
        Softened by the temperature of the model, float32 ``(window, class)``.
    truth
        Number of each window's true class, int64 ``(window,)``.
    speakers
        Who is heard, as ``corpus/speaker``; ``(window,)``.
    """

    probabilities: NDArray[np.float32]
    truth: NDArray[np.int64]
    speakers: NDArray[np.str_]

    def merged(self, members: Sequence[Sequence[int]]) -> Validation:
        """Return the same with classes joined.

        Parameters
        ----------
        members
            For each class of the result, the numbers of the classes that it is the sum of; each is in one of them.

        Examples
        --------
        >>> found = Validation(np.array([[0.25, 0.25, 0.5]], np.float32), np.array([1]), np.array(["tess/OAF"]))
        >>> found.merged([[2], [0, 1]]).truth
        array([1])
        """
        number = np.zeros(self.probabilities.shape[1], np.int64)
        for joined, group in enumerate(members):
            number[list(group)] = joined
        return Validation(merged(self.probabilities, members), number[self.truth], self.speakers)

    def confidence(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the highest probability of each window, and whether it is that of the true class."""
        return self.probabilities.max(axis=1), self.probabilities.argmax(axis=1) == self.truth

    def mistakes(self, abstention_threshold: float | None) -> NDArray[np.int64]:
        """Return how often windows of a class get a label, ``(speaker, class, label)``; the last label: none.

        Examples
        --------
        >>> found = Validation(np.array([[0.6, 0.4], [0.1, 0.9]], np.float32), np.array([0, 0]), np.array(["a", "a"]))
        >>> found.mistakes(0.7).tolist()
        [[[0, 1, 1], [0, 0, 0]]]
        """
        classes = self.probabilities.shape[1]
        labels = self.probabilities.argmax(axis=1)
        if abstention_threshold is not None:
            labels = np.where(self.probabilities.max(axis=1) < abstention_threshold, classes, labels)
        return confusions(self.truth, labels, self.speakers.tolist(), classes=classes + 1)[:, :classes]
