"""A training from its first epoch to its last: one network and the rows that it learns from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import NDArray

from emolib.corpora.labels import LabelScheme
from emolib.errors import EmolibError
from emolib.learning import model as networks
from emolib.learning.augmentation import Examples
from emolib.learning.batches import Shards, ahead, in_order
from emolib.learning.checkpoint import Checkpoint
from emolib.learning.lesson import Lesson
from emolib.learning.recipes import Recipe

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore

_EXAMPLES_AHEAD = 4


class Course:
    """A training that is to be run.

    Parameters
    ----------
    store
        Complete.
    source
        Where its features are read.
    scheme
        The classes.
    labels
        Class of each row, ``(window,)``; -1 for none.
    rows
        Numbers of those to learn from, ascending.
    architecture
        One of `emolib.learning.model.ARCHITECTURES`.
    recipe
        How it is trained.
    seed
        Decides initial weights, dropout, augmentation and the order of batches.
    epochs
        None: as many as the recipe says.

    Attributes
    ----------
    epochs
        How many there are.
    priors
        Share of each class that the network learns to take for granted, ``(class,)``.
    """

    def __init__(
        self,
        store: FeatureStore,
        source: Shards,
        *,
        scheme: LabelScheme,
        labels: NDArray[np.int64],
        rows: NDArray[np.int64],
        architecture: str,
        recipe: Recipe,
        seed: int,
        epochs: int | None,
    ) -> None:
        self._lesson = Lesson(store, source, recipe, labels, rows, classes=len(scheme.classes), seed=seed)
        self.epochs, self.priors = epochs or recipe.passes(self._lesson.steps), self._lesson.priors
        self._rows, self._recipe = rows, recipe
        self._build = partial(
            networks.build,
            architecture,
            profile=store.profile,
            words=self._lesson.class_of,
            classes=len(scheme.classes),
            filters=recipe.filters,
            seed=seed,
        )

    def run(
        self,
        *,
        state: Checkpoint | None,
        watch: Callable[[keras.Model], dict[str, float]],
        on_epoch: Callable[[dict[str, float]], None],
    ) -> tuple[keras.Model, list[dict[str, float]]]:
        """Train the network.

        Parameters
        ----------
        state
            Keeps the state after each epoch; what is there is continued.
        watch
            Says something of the network after an epoch.
        on_epoch
            Called after each epoch that was not there already, with its entry of the history.

        Returns
        -------
        model
            With the weights of the last epoch.
        history
            For each epoch ``epoch``, ``loss`` (of words, smoothed), ``seconds`` and what `watch` said.

        Raises
        ------
        EmolibError
            If a number of the history is none.
        """
        model, learner, mean = self._networks()
        self._compile(learner)
        history = [] if state is None else state.restore(learner)
        for epoch in range(len(history) + 1, self.epochs + 1):
            began = time.monotonic()
            loss = _learn(learner, self._lesson.examples(learner, epoch, hidden=mean))
            model.set_weights(learner.get_weights())
            entry = {"epoch": epoch, "loss": loss, **watch(model), "seconds": round(time.monotonic() - began, 3)}
            if not np.isfinite(list(entry.values())).all():
                raise EmolibError(f"the loss is {loss} after epoch {epoch}, expected a number: check the features")
            history.append(entry)
            if state is not None:
                state.keep(learner, history)
            on_epoch(entry)
        model.set_weights(learner.get_weights())
        return model, history

    def _networks(self) -> tuple[keras.Model, keras.Model, NDArray[np.float32]]:
        """Return a network for whole windows, its twin that learns from pieces of them, and the mean they take off."""
        source = self._lesson.source
        coefficients = source.shape[2]
        blank = self._build(mean=np.zeros(coefficients, np.float32), scale=np.ones(coefficients, np.float32))
        mean, scale = _standardisation(blank, source, self._rows)
        model, shorter = (self._build(mean=mean, scale=scale, frames=length) for length in (None, self._lesson.frames))
        return model, networks.learner(shorter), mean

    def _compile(self, learner: keras.Model) -> None:
        steps, recipe = self.epochs * self._lesson.steps, self._recipe
        rise = steps // 20
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, steps - rise, warmup_target=recipe.learning_rate, warmup_steps=rise
        )
        learner.compile(
            optimizer=keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay), loss="categorical_crossentropy"
        )
        learner.optimizer.build(learner.trainable_variables)


def _learn(model: keras.Model, examples: Iterator[Examples]) -> float:
    """Let a network learn from an epoch's minibatches, and return their mean loss."""
    losses, rows = [], []
    # `model.fit` takes 2.7 times as long: what TensorFlow reads from a generator makes it give memory back to the
    # system and ask for it anew with every step (M_TRIM_THRESHOLD).
    for made in ahead(examples, _EXAMPLES_AHEAD):
        inputs = {"features": made.features, "valid_frames": made.valid_frames}
        losses.append(float(model.train_on_batch(inputs, made.targets, sample_weight=made.weights)))
        rows.append(len(made.weights))
    return float(np.average(losses, weights=rows))


def _standardisation(
    model: keras.Model, store: Shards, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and deviation of each coefficient over what a network sees of some rows, ``(coefficient,)``."""
    count, total, squares = 0, np.zeros(store.shape[2]), np.zeros(store.shape[2])
    for found in in_order(store, rows):
        features, valid_frames = networks.aligned(model, *found)
        real = np.arange(features.shape[1]) < valid_frames[:, np.newaxis]
        frames = features[real].astype(np.float64)
        count += len(frames)
        total += frames.sum(axis=0)
        squares += np.square(frames).sum(axis=0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    # A coefficient that never varies says nothing, at any scale.
    return mean.astype(np.float32), np.where(deviation > 1e-6, deviation, 1.0).astype(np.float32)
