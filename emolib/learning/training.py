"""Fit a network to the rows of a feature store, streaming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.config import CLEAN, Profile
from emolib.corpora import labels as schemes
from emolib.errors import EmolibError, SettingsError
from emolib.learning import evaluation
from emolib.learning.augmentation import Examples
from emolib.learning.batches import Shards, ahead, in_order, usable_rows
from emolib.learning.calibration import fit_temperature, soften
from emolib.learning.recipes import RECIPES, Recipe
from emolib.learning.validation import Validation
from emolib.sound.variants import used_for
from emolib.storage import AnyPath

try:
    import keras

    from emolib.learning import model as networks
    from emolib.learning.checkpoint import Checkpoint
    from emolib.learning.lesson import Lesson
except ModuleNotFoundError as error:  # whoever imports this module wants to train; nothing else needs TensorFlow
    if error.name not in ("keras", "onnx", "tensorflow", "tf2onnx"):
        raise
    raise SettingsError(
        f"{error.name} is not installed, expected for training: pip install 'emolib[train]' (scoring does without)"
    ) from error

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore


_EXAMPLES_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted network and what it was fitted to.

    Attributes
    ----------
    model
        With the weights of its last epoch.
    scheme, profile
        What its outputs and its inputs are.
    training
        The facts of the training: architecture, seed, recipe, epochs, the store's fingerprint and the hash of its rows,
        corpora, variants, counts, speakers to learn from and to validate with.
    temperature
        By which its probabilities must be softened: found on the validation windows.
    priors
        Share of each class that it takes for granted, ``(class,)``: what its rows weigh in the loss.
    windows
        What it says of the validation windows.
    validation
        The same of utterances (see `emolib.learning.evaluation.utterance_predictions`).
    metrics
        Of the validation utterances (see `emolib.learning.evaluation.metrics`). They chose nothing but the temperature.
    history
        For each epoch ``epoch``, ``epochs``, ``loss`` (of words, smoothed), ``val_loss`` (of classes), ``val_uar`` and
        ``seconds``.
    """

    model: keras.Model
    scheme: schemes.LabelScheme
    profile: Profile
    training: dict[str, Any]
    temperature: float
    priors: NDArray[np.float64]
    windows: Validation
    validation: pd.DataFrame
    metrics: dict[str, Any]
    history: list[dict[str, float]]


def fit(
    store: FeatureStore,
    *,
    scheme: schemes.LabelScheme,
    labels: NDArray[np.int64],
    train: NDArray[np.bool_],
    validation: NDArray[np.bool_],
    architecture: str,
    seed: int,
    speaker_dependent: bool = False,
    epochs: int | None = None,
    checkpoint: AnyPath | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Trained:
    """Train a network for a fixed number of epochs, and find its temperature on the validation rows.

    It learns from clean rows and from copies that are made for it, and is validated on clean ones; copies to judge by
    are passed over (see `emolib.sound.variants`). Classes, or words, weigh the same in the loss however often they
    occur (see `emolib.learning.recipes.Recipe.weights`); a class without training rows is not learnt. The same seed
    gives the same weights on the same machine, interrupted or not.

    Parameters
    ----------
    store
        Complete (see `FeatureStore.finish`).
    scheme
        The classes.
    labels
        Class of each row, ``(window,)``; -1 for none.
    train, validation
        Which rows to learn from and which to watch, bool ``(window,)``. Rows without a class or without numbers are
        passed over.
    architecture
        One of `emolib.learning.model.ARCHITECTURES`.
    seed
        Decides initial weights, dropout, augmentation and the order of batches.
    speaker_dependent
        Learn for the speakers that are learnt from, not for others: their voices stay their own.
    epochs
        So many, over which the learning rate falls; None: as many as the recipe of the architecture says.
    checkpoint
        File that keeps the state after each epoch. What an interrupted training of the same kind left there is
        continued.
    on_epoch
        Called after each epoch with its entry of the history.

    Raises
    ------
    SettingsError
        If the store is not complete, fewer than two classes occur in training, no row is left to validate with, or the
        checkpoint is of another training.
    EmolibError
        If the loss is no longer a number.
    """
    rows = _rows(store, scheme, labels, train=train, validation=validation)
    recipe = RECIPES[architecture].adapted(speaker_dependent=speaker_dependent, tells_gender=scheme.tells_gender)
    lesson = Lesson(store, recipe, labels, rows.learnt_from, classes=len(scheme.classes), seed=seed)
    model, learner, mean = _networks(store, scheme, architecture, lesson, rows, filters=recipe.filters, seed=seed)
    epochs = epochs or recipe.passes(lesson.steps)
    _compile(learner, recipe, epochs * lesson.steps)
    facts = {
        "architecture": architecture,
        "seed": seed,
        "epochs": epochs,
        "task": scheme.name,
        "recipe": asdict(recipe),
        **_facts(store, scheme, labels, rows),
    }
    state = None if checkpoint is None else Checkpoint(checkpoint, facts)
    history = [] if state is None else state.restore(learner)
    for epoch in range(len(history) + 1, epochs + 1):
        began = time.monotonic()
        training_loss = _learn(learner, lesson.examples(learner, epoch, hidden=mean))
        model.set_weights(learner.get_weights())
        probabilities, _ = predict(model, lesson.source, rows.validation)
        loss, uar = _judge(probabilities, labels[rows.validation])
        entry = {
            "epoch": epoch,
            "epochs": epochs,
            "loss": training_loss,
            "val_loss": loss,
            "val_uar": uar,
            "seconds": round(time.monotonic() - began, 3),
        }
        if not np.isfinite([entry["loss"], loss]).all():
            raise EmolibError(f"the loss is {entry['loss']} after epoch {epoch}, expected a number: check the features")
        history.append(entry)
        if state is not None:
            state.keep(learner, history)
        if on_epoch is not None:
            on_epoch(entry)

    model.set_weights(learner.get_weights())
    probabilities, valid_frames = predict(model, lesson.source, rows.validation)
    windows, truth = store.windows.iloc[rows.validation], labels[rows.validation]
    temperature = fit_temperature(probabilities, truth)
    softened = soften(probabilities, temperature)
    table = evaluation.utterance_predictions(windows, truth, softened, valid_frames, classes=scheme.classes)
    return Trained(
        model=model,
        scheme=scheme,
        profile=store.profile,
        training=facts,
        temperature=temperature,
        priors=lesson.priors,
        windows=Validation(softened, truth, _voices(windows).to_numpy(str)),
        validation=table,
        metrics=evaluation.metrics(table, scheme.classes),
        history=history,
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Numbers of rows: to learn from, and to watch."""

    learnt_from: NDArray[np.int64]
    validation: NDArray[np.int64]


def _rows(
    store: FeatureStore,
    scheme: schemes.LabelScheme,
    labels: NDArray[np.int64],
    *,
    train: NDArray[np.bool_],
    validation: NDArray[np.bool_],
) -> _Rows:
    variants, taken = store.windows["variant"], usable_rows(store) & (labels >= 0)
    learnt = np.array([used_for(variant, "training") for variant in variants])
    rows = _Rows(np.flatnonzero(train & taken & learnt), np.flatnonzero(validation & taken & (variants == CLEAN)))
    present = np.unique(labels[rows.learnt_from])
    if len(present) < 2:
        found = ", ".join(scheme.classes[number] for number in present) or "none"
        raise SettingsError(f"classes found to learn from: {found}; expected at least two of {scheme.name}")
    if not len(rows.validation):
        raise SettingsError("no labelled row found to validate with, expected some: set speakers aside for it")
    return rows


def _networks(
    store: FeatureStore,
    scheme: schemes.LabelScheme,
    architecture: str,
    lesson: Lesson,
    rows: _Rows,
    *,
    filters: int,
    seed: int,
) -> tuple[keras.Model, keras.Model, NDArray[np.float32]]:
    """Return a network for whole windows, its twin that learns from pieces of them, and the mean that both take off."""
    build = partial(
        networks.build,
        architecture,
        profile=store.profile,
        words=lesson.class_of,
        classes=len(scheme.classes),
        filters=filters,
        seed=seed,
    )
    coefficients = lesson.source.shape[2]
    blank = build(mean=np.zeros(coefficients, np.float32), scale=np.ones(coefficients, np.float32))
    mean, scale = _standardisation(blank, lesson.source, rows.learnt_from)
    model, shorter = (build(mean=mean, scale=scale, frames=length) for length in (None, lesson.frames))
    return model, networks.learner(shorter), mean


def _facts(store: FeatureStore, scheme: schemes.LabelScheme, labels: NDArray[np.int64], rows: _Rows) -> dict[str, Any]:
    """Return what a bundle says of the rows that it was made from, and what a checkpoint must agree in."""
    train, validation = store.windows.iloc[rows.learnt_from], store.windows.iloc[rows.validation]
    counts = np.bincount(labels[rows.learnt_from], minlength=len(scheme.classes))
    return {
        "store_fingerprint": store.fingerprint,
        "store_windows": store.windows_hash,
        "corpora": sorted(train["corpus"].unique()),
        "variants": sorted(train["variant"].unique()),
        "class_windows": {name: int(count) for name, count in zip(scheme.classes, counts, strict=True)},
        "train": evaluation.counts(train),
        "validation": evaluation.counts(validation),
        "train_speakers": _speakers(train),
        "validation_speakers": _speakers(validation),
    }


def predict(
    model: keras.Model, store: Shards, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return what a network says of some rows, streaming.

    Parameters
    ----------
    rows
        Numbers of the rows, ascending.

    Returns
    -------
    probabilities
        float32 ``(row, class)``.
    valid_frames
        int32 ``(row,)``: by these an utterance's windows are weighted.
    """
    probabilities, frames = [np.zeros((0, model.output_shape[-1]), np.float32)], [np.zeros(0, np.int32)]
    for features, valid_frames in in_order(store, rows):
        # `model.predict` in a loop costs 80 ms a call and leaks.
        probabilities.append(model.predict_on_batch({"features": features, "valid_frames": valid_frames}))
        frames.append(valid_frames)
    return np.concatenate(probabilities), np.concatenate(frames)


def _compile(model: keras.Model, recipe: Recipe, steps: int) -> None:
    rise = steps // 20
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - rise, warmup_target=recipe.learning_rate, warmup_steps=rise
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay), loss="categorical_crossentropy"
    )
    model.optimizer.build(model.trainable_variables)


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


def _judge(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return cross-entropy and recall of windows, each the mean over the classes that occur."""
    rows = np.arange(len(labels))
    table = pd.DataFrame(
        {
            "label": labels,
            "loss": -np.log(np.maximum(probabilities[rows, labels], 1e-7)),
            "hit": probabilities.argmax(axis=1) == labels,
        }
    )
    loss, recall = table.groupby("label").mean().mean()
    return float(loss), float(recall)


def _speakers(windows: pd.DataFrame) -> list[str]:
    return sorted(_voices(windows).unique())


def _voices(windows: pd.DataFrame) -> pd.Series:
    return windows["corpus"] + "/" + windows["speaker"]
