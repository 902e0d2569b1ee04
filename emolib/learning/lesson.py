"""What a network learns from: which rows, how often, with what weight, and how they sound in each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from emolib.corpora import labels as schemes
from emolib.features.cepstra import frequency_warps
from emolib.learning import model as networks
from emolib.learning.augmentation import Examples, augmented, styled, voiced
from emolib.learning.batches import Batches, Shards
from emolib.learning.recipes import Recipe

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore


class Lesson:
    """The rows that are learnt from, as a recipe has them learnt.

    Parameters
    ----------
    store
        Complete.
    source
        Where its features are read.
    recipe
        How it is learnt.
    labels
        Class of each row of the store, ``(window,)``; -1 for none.
    rows
        Numbers of those to learn from, ascending.
    classes
        How many there are.
    seed
        Decides what is shown, in which order, and how it is changed.

    Attributes
    ----------
    source
        As given.
    frames
        So many of a window are shown at a time.
    class_of
        Class of each word: a network tells the emotions of a class apart, if the recipe has it so.
    priors
        Share of each class that a network learns to take for granted, ``(class,)``: what its rows weigh in the loss.
    steps
        Minibatches in an epoch.
    """

    def __init__(
        self,
        store: FeatureStore,
        source: Shards,
        recipe: Recipe,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        *,
        classes: int,
        seed: int,
    ) -> None:
        self.source, self.frames = source, recipe.frames(store.profile)
        words, self.class_of = labels, tuple(range(classes))
        if recipe.words:
            learnt_from = np.isin(np.arange(len(labels)), rows)
            words, self.class_of = schemes.words(store.windows, np.where(learnt_from, labels, -1))
        times = recipe.times(store.windows["corpus"].iloc[rows], np.random.default_rng(seed))
        shown = np.repeat(rows, times)
        counts = np.bincount(words[shown], minlength=len(self.class_of))
        self._weights = recipe.weights(counts, self.class_of)
        weighed = np.bincount(self.class_of, self._weights * counts, minlength=classes)
        self.priors = weighed / weighed.sum()
        self._batches = Batches(self.source, shown, words, batch_size=recipe.batch_size, seed=seed)
        self.steps = len(self._batches)
        self._how, self._seed = recipe.augmentation, seed
        self._warps = frequency_warps(recipe.voices(), config=store.profile.features)

    def examples(self, learner: keras.Model, epoch: int, *, hidden: NDArray[np.float32]) -> Iterator[Examples]:
        """Yield the minibatches of an epoch, each in other voices and styles than the last time.

        Parameters
        ----------
        learner
            Who they are for: they begin and end where it begins and ends to look.
        hidden
            What stands where something is masked, ``(coefficient,)``.
        """
        generator, how = np.random.default_rng([self._seed, epoch]), self._how
        for batch in self._batches.epoch(epoch):
            features, lengths = networks.aligned(learner, batch.features, batch.valid_frames)
            features, lengths = voiced(features, lengths, self.frames, warps=self._warps, how=how, generator=generator)
            features = styled(features, lengths, how=how, generator=generator)
            yield augmented(
                features,
                lengths,
                batch.labels,
                word_weights=self._weights,
                hidden=hidden,
                how=how,
                generator=generator,
            )
