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
from emolib.features.cepstra import frequency_warps
from emolib.learning import evaluation
from emolib.learning.augmentation import Examples, augmented, styled, voiced
from emolib.learning.batches import Batches, InMemory, Shards, ahead, in_order, usable_rows
from emolib.learning.calibration import fit_temperature, soften
from emolib.learning.recipes import RECIPES, Recipe
from emolib.learning.validation import Validation
from emolib.sound.variants import used_for
from emolib.storage import AnyPath

try:
    import keras

    from emolib.learning import model as networks
    from emolib.learning.checkpoint import Checkpoint
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
    windows = store.windows
    taken = usable_rows(store) & (labels >= 0)
    learnt = np.array([used_for(variant, "training") for variant in windows["variant"]])
    learning = train & taken & learnt
    train_rows = np.flatnonzero(learning)
    validation_rows = np.flatnonzero(validation & taken & (windows["variant"] == CLEAN).to_numpy())
    counts = np.bincount(labels[train_rows], minlength=len(scheme.classes))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        found = ", ".join(scheme.classes[number] for number in present) or "none"
        raise SettingsError(f"classes found to learn from: {found}; expected at least two of {scheme.name}")
    if not len(validation_rows):
        raise SettingsError("no labelled row found to validate with, expected some: set speakers aside for it")

    source = InMemory(store)
    recipe = RECIPES[architecture].adapted(speaker_dependent=speaker_dependent, tells_gender=scheme.tells_gender)
    words, class_of = labels, tuple(range(len(scheme.classes)))
    if recipe.words:
        words, class_of = schemes.words(windows, np.where(learning, labels, -1))
    build = partial(
        networks.build,
        architecture,
        profile=store.profile,
        words=class_of,
        classes=len(scheme.classes),
        seed=seed,
    )
    frames, coefficients = recipe.frames(store.profile), source.shape[2]
    blank = build(mean=np.zeros(coefficients, np.float32), scale=np.ones(coefficients, np.float32))
    mean, scale = _standardisation(blank, source, train_rows)
    model, shorter = (build(mean=mean, scale=scale, frames=length) for length in (None, frames))
    learner = networks.learner(shorter)
    times = recipe.times(windows["corpus"].iloc[train_rows], np.random.default_rng(seed))
    shown = np.repeat(train_rows, times)
    shown_counts = np.bincount(words[shown], minlength=len(class_of))
    weights = recipe.weights(shown_counts, class_of)
    priors = np.bincount(class_of, weights * shown_counts, minlength=len(scheme.classes))
    batches = Batches(source, shown, words, batch_size=recipe.batch_size, seed=seed)
    epochs = epochs or recipe.passes(len(batches))
    _compile(learner, recipe, epochs * len(batches))
    warps = frequency_warps(recipe.voices(), config=store.profile.features)
    facts = {
        "architecture": architecture,
        "seed": seed,
        "epochs": epochs,
        "task": scheme.name,
        "store_fingerprint": store.fingerprint,
        "store_windows": store.windows_hash,
        "recipe": asdict(recipe),
        "corpora": sorted(windows["corpus"].iloc[train_rows].unique()),
        "variants": sorted(windows["variant"].iloc[train_rows].unique()),
        "class_windows": {name: int(count) for name, count in zip(scheme.classes, counts, strict=True)},
        "train": evaluation.counts(windows.iloc[train_rows]),
        "validation": evaluation.counts(windows.iloc[validation_rows]),
        "train_speakers": _speakers(windows.iloc[train_rows]),
        "validation_speakers": _speakers(windows.iloc[validation_rows]),
    }

    state = None if checkpoint is None else Checkpoint(checkpoint, facts)
    history = [] if state is None else state.restore(learner)
    for epoch in range(len(history) + 1, epochs + 1):
        began = time.monotonic()
        examples = _examples(learner, batches, epoch, weights, mean, recipe, frames, warps, seed)
        training_loss = _learn(learner, examples)
        model.set_weights(learner.get_weights())
        probabilities, _ = predict(model, source, validation_rows)
        loss, uar = _judge(probabilities, labels[validation_rows])
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
    probabilities, valid_frames = predict(model, source, validation_rows)
    truth = labels[validation_rows]
    temperature = fit_temperature(probabilities, truth)
    softened = soften(probabilities, temperature)
    table = evaluation.utterance_predictions(
        windows.iloc[validation_rows], truth, softened, valid_frames, classes=scheme.classes
    )
    return Trained(
        model=model,
        scheme=scheme,
        profile=store.profile,
        training=facts,
        temperature=temperature,
        priors=priors / priors.sum(),
        windows=Validation(softened, truth, _voices(windows.iloc[validation_rows]).to_numpy(str)),
        validation=table,
        metrics=evaluation.metrics(table, scheme.classes),
        history=history,
    )


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


def _examples(
    model: keras.Model,
    batches: Batches,
    epoch: int,
    weights: NDArray[np.float32],
    mean: NDArray[np.float32],
    recipe: Recipe,
    frames: int,
    warps: NDArray[np.float32],
    seed: int,
) -> Iterator[Examples]:
    generator, how = np.random.default_rng([seed, epoch]), recipe.augmentation
    for batch in batches.epoch(epoch):
        features, valid_frames = networks.aligned(model, batch.features, batch.valid_frames)
        features, valid_frames = voiced(features, valid_frames, frames, warps=warps, how=how, generator=generator)
        features = styled(features, valid_frames, how=how, generator=generator)
        yield augmented(
            features, valid_frames, batch.labels, word_weights=weights, hidden=mean, how=how, generator=generator
        )


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
