"""Fit a network to the rows of a feature store, streaming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.config import Profile
from emolib.errors import EmolibError, SettingsError
from emolib.learning import evaluation
from emolib.learning.batches import Batches, InMemory, Shards, in_order, usable_rows

try:
    import keras

    from emolib.learning import model as networks
except ModuleNotFoundError as error:  # whoever imports this module wants to train; nothing else needs TensorFlow
    if error.name not in ("keras", "onnx", "tensorflow", "tf2onnx"):
        raise
    raise SettingsError(
        f"{error.name} is not installed, expected for training: pip install 'emolib[train]' (scoring does without)"
    ) from error

if TYPE_CHECKING:
    from emolib.corpora.labels import LabelScheme
    from emolib.features.store import FeatureStore

# Passes over the training rows, or more where those are so few that they would make too few steps (SAVEE, emotion8,
# fold 1 of savee4: accuracy 0.20 when given 30 epochs, 0.66 when given 2000 steps).
_EPOCHS, _STEPS = 30, 2000
_BATCH_SIZE = 32
# At the start; it falls to zero along a cosine over the epochs. A constant one costs the article's network 2 points of
# accuracy (profile article, emotion2, fold 1 of random5: 0.873, falling 0.896).
_LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted network and what it was fitted to.

    Attributes
    ----------
    model
        With the weights of its best epoch.
    scheme, profile
        What its outputs and its inputs are.
    training
        The facts of the training: architecture, seed, store fingerprint, corpora, counts, validation speakers, epochs.
    metrics
        Of the validation utterances (see `emolib.learning.evaluation.metrics`), which chose the best epoch: they
        flatter the model a little.
    history
        For each epoch ``epoch``, ``loss``, ``val_loss``, ``val_uar`` and ``seconds``.
    """

    model: keras.Model
    scheme: LabelScheme
    profile: Profile
    training: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, float]]


def fit(
    store: FeatureStore,
    *,
    scheme: LabelScheme,
    labels: NDArray[np.int64],
    train: NDArray[np.bool_],
    validation: NDArray[np.bool_],
    architecture: str,
    seed: int,
    epochs: int | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Trained:
    """Train a network until the validation rows no longer gain from it.

    Classes weigh the same in the loss however often they occur: a row weighs ``n / (k * n_c)``, with ``n_c`` of ``n``
    training rows in its class and ``k`` classes present. A class without training rows is not learnt. The same seed
    gives the same weights on the same machine.

    Parameters
    ----------
    store
        Complete (see `FeatureStore.finish`).
    scheme
        The classes.
    labels
        Class of each row, ``(window,)``; -1 for none.
    train, validation
        Which rows to learn from and which to stop by, bool ``(window,)``. Rows without a class or without numbers are
        passed over.
    architecture
        One of `emolib.learning.model.ARCHITECTURES`.
    seed
        Decides initial weights, dropout and the order of batches.
    epochs
        At most so many, over which the learning rate falls; training stops when a third of them brought nothing. None:
        30, or what 2000 steps take.
    on_epoch
        Called after each epoch with its entry of the history.

    Raises
    ------
    SettingsError
        If the store is not complete, fewer than two classes occur in training, or no row is left to validate with.
    EmolibError
        If the loss is no longer a number.
    """
    taken = usable_rows(store) & (labels >= 0)
    train_rows, validation_rows = np.flatnonzero(train & taken), np.flatnonzero(validation & taken)
    counts = np.bincount(labels[train_rows], minlength=len(scheme.classes))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        found = ", ".join(scheme.classes[number] for number in present) or "none"
        raise SettingsError(f"classes found to learn from: {found}; expected at least two of {scheme.name}")
    if not len(validation_rows):
        raise SettingsError("no labelled row found to validate with, expected some: set speakers aside for it")

    source = InMemory(store)
    mean, scale = _standardisation(source, train_rows)
    _, frames, coefficients = store.shape
    model = networks.build(
        architecture,
        frames=frames,
        coefficients=coefficients,
        classes=len(scheme.classes),
        mean=mean,
        scale=scale,
        seed=seed,
    )
    weights = np.zeros(len(counts), np.float32)
    weights[present] = len(train_rows) / (len(present) * counts[present])
    batches = Batches(source, train_rows, labels, batch_size=_BATCH_SIZE, seed=seed)
    epochs = epochs or max(_EPOCHS, -(-_STEPS // len(batches)))
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, epochs * len(batches))
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy")

    history: list[dict[str, float]] = []
    best, best_weights = 0, model.get_weights()
    for epoch in range(1, epochs + 1):
        began = time.monotonic()
        fitted = model.fit(
            _weighted(batches, epoch, weights), steps_per_epoch=len(batches), epochs=1, shuffle=False, verbose=0
        )
        probabilities, _ = predict(model, source, validation_rows)
        loss, uar = _judge(probabilities, labels[validation_rows])
        entry = {
            "epoch": epoch,
            "loss": float(fitted.history["loss"][0]),
            "val_loss": loss,
            "val_uar": uar,
            "seconds": round(time.monotonic() - began, 3),
        }
        if not np.isfinite([entry["loss"], loss]).all():
            raise EmolibError(f"the loss is {entry['loss']} after epoch {epoch}, expected a number: check the features")
        history.append(entry)
        if on_epoch is not None:
            on_epoch(entry)
        if not best or _score(entry) > _score(history[best - 1]):
            best, best_weights = epoch, model.get_weights()
        elif epoch - best >= max(epochs // 3, 1):
            break
    model.set_weights(best_weights)

    windows = store.windows
    facts = {
        "architecture": architecture,
        "seed": seed,
        "store_fingerprint": store.fingerprint,
        "corpora": sorted(windows["corpus"].iloc[train_rows].unique()),
        "class_windows": {name: int(count) for name, count in zip(scheme.classes, counts, strict=True)},
        "train": evaluation.counts(windows.iloc[train_rows]),
        "validation": evaluation.counts(windows.iloc[validation_rows]),
        "validation_speakers": _speakers(windows.iloc[validation_rows]),
        "epochs": len(history),
        "best_epoch": best,
    }
    table = evaluation.utterance_predictions(
        windows.iloc[validation_rows],
        labels[validation_rows],
        *predict(model, source, validation_rows),
        classes=scheme.classes,
    )
    return Trained(model, scheme, store.profile, facts, evaluation.metrics(table, scheme.classes), history)


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


def _weighted(batches: Batches, epoch: int, weights: NDArray[np.float32]) -> Iterator[tuple[dict[str, Any], Any, Any]]:
    for batch in batches.epoch(epoch):
        yield {"features": batch.features, "valid_frames": batch.valid_frames}, batch.labels, weights[batch.labels]


def _standardisation(store: Shards, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each coefficient over the real frames of some rows, ``(coefficient,)``."""
    count, total, squares = 0, np.zeros(store.shape[2]), np.zeros(store.shape[2])
    for features, valid_frames in in_order(store, rows):
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


def _score(entry: dict[str, float]) -> tuple[float, float]:
    """By what epochs are compared: recall first, because a loss suffers from confidence before the labels do."""
    return entry["val_uar"], -entry["val_loss"]


def _speakers(windows: pd.DataFrame) -> list[str]:
    return sorted((windows["corpus"] + "/" + windows["speaker"]).unique())
