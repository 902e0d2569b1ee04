"""Fit a network to the rows of a feature store, streaming."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.config import CLEAN, Profile
from emolib.corpora import labels as schemes
from emolib.errors import SettingsError
from emolib.learning import evaluation
from emolib.learning.backend import require_backend
from emolib.learning.batches import InMemory, Shards, in_order, usable_rows
from emolib.learning.calibration import fit_temperature, soften
from emolib.learning.recipes import RECIPES
from emolib.learning.validation import Validation
from emolib.sound.variants import used_for
from emolib.storage import AnyPath, resolve

try:
    import keras

    from emolib.learning.checkpoint import Checkpoint
    from emolib.learning.course import Course
except ModuleNotFoundError:  # whoever imports this module wants to train; nothing else needs TensorFlow
    require_backend()
    raise

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore


@dataclass(frozen=True, slots=True)
class Trained:
    """A fitted network and what it was fitted to.

    Attributes
    ----------
    model
        With the weights of its last epoch. If its recipe says so, it has learnt from the validation rows as well.
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
        Held-out predictions of the validation windows, softened: by a network that had not learnt from them.
    further
        Predictions of further speakers by a network that learnt in the same way from all others, softened by the same
        temperature: what a promise is checked on (see `emolib.learning.promise`). None: nobody asked for it.
    validation
        As `windows`, of utterances (see `emolib.learning.evaluation.utterance_predictions`).
    metrics
        Of the same (see `emolib.learning.evaluation.metrics`). They chose nothing but the temperature.
    history
        For each epoch ``epoch``, ``epochs``, ``loss`` (of words, smoothed) and ``seconds``, and, unless the validation
        rows are learnt from, ``val_loss`` (of classes) and ``val_uar``. Those of the network that judges further
        speakers are left out.
    """

    model: keras.Model
    scheme: schemes.LabelScheme
    profile: Profile
    training: dict[str, Any]
    temperature: float
    priors: NDArray[np.float64]
    windows: Validation
    further: Validation | None
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
    further: NDArray[np.bool_] | None = None,
    architecture: str,
    seed: int,
    speaker_dependent: bool = False,
    epochs: int | None = None,
    checkpoint: AnyPath | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Trained:
    """Train a network for a fixed number of epochs, and find its temperature on the validation rows.

    If the recipe says so, another network then learns from all rows, those of validation included, in the same way, and
    takes the temperature over (see `emolib.learning.recipes.Recipe.learn_again`). Where there are further speakers, one
    more learns from all others, in the same way, and judges them; it changes nothing of the first two.

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
        Which rows to learn from and which to set aside, bool ``(window,)``. Rows without a class or without numbers are
        passed over, and for validation those of a class that nobody says who is learnt from.
    further
        Which of the training rows are of further speakers, bool ``(window,)``: chosen as the validation speakers are,
        but others.
    architecture
        One of `emolib.learning.model.ARCHITECTURES`.
    seed
        Decides initial weights, dropout, augmentation and the order of batches.
    speaker_dependent
        Learn for the speakers that are learnt from, not for others: their voices stay their own.
    epochs
        So many, over which the learning rate falls; None: as many as the recipe of the architecture says.
    checkpoint
        Folder that keeps the state after each epoch. What an interrupted training of the same kind left there is
        continued.
    on_epoch
        Called after each epoch with its entry of the history.

    Raises
    ------
    SettingsError
        If the store is not complete, fewer than two classes occur in training, no row is left to judge, or the
        checkpoint is of another training.
    EmolibError
        If the loss is no longer a number.
    """
    rows = _rows(store, scheme, labels, train=train, validation=validation)
    # As if the further speakers were those set aside.
    checked = (
        None
        if further is None
        else _rows(store, scheme, labels, train=(train | validation) & ~further, validation=further)
    )
    recipe = RECIPES[architecture].adapted(speaker_dependent=speaker_dependent, tells_gender=scheme.tells_gender)
    source = InMemory(store)
    course = partial(
        Course,
        store,
        source,
        scheme=scheme,
        labels=labels,
        architecture=architecture,
        recipe=recipe,
        seed=seed,
        epochs=epochs,
    )
    apart = course(rows=rows.learnt_from)
    whole = course(rows=rows.together) if recipe.learn_again else None
    check = None if checked is None else course(rows=checked.learnt_from)
    last = whole or apart
    facts = {
        "architecture": architecture,
        "seed": seed,
        "epochs": last.epochs,
        "task": scheme.name,
        "speaker_dependent": speaker_dependent,
        "recipe": asdict(recipe),
        **_facts(store, scheme, labels, rows, made_from=rows.together if recipe.learn_again else rows.learnt_from),
    }
    history: list[dict[str, float]] = []
    epochs_of_all = sum(each.epochs for each in (apart, whole, check) if each is not None)

    def run(
        part: Course, name: str, watch: Callable[[keras.Model], dict[str, float]], **more: list[str]
    ) -> keras.Model:
        before = len(history)

        def numbered(entry: dict[str, float]) -> dict[str, float]:
            return {**entry, "epoch": before + entry["epoch"], "epochs": epochs_of_all}

        model, entries = part.run(
            state=None if checkpoint is None else Checkpoint(resolve(checkpoint) / f"{name}.npz", {**facts, **more}),
            watch=watch,
            on_epoch=lambda entry: None if on_epoch is None else on_epoch(numbered(entry)),
        )
        history.extend(map(numbered, entries))
        return model

    truth = labels[rows.validation]
    model = run(apart, "apart", lambda model: _judge(predict(model, source, rows.validation)[0], truth))
    probabilities, valid_frames = predict(model, source, rows.validation)
    if whole is not None:
        model = run(whole, "whole", lambda _: {})
    of_model = list(history)

    windows = store.windows.iloc[rows.validation]
    temperature = fit_temperature(probabilities, truth)
    softened = soften(probabilities, temperature)
    table = evaluation.utterance_predictions(windows, truth, softened, valid_frames, classes=scheme.classes)
    heard_further = None
    if check is not None and checked is not None:
        others = store.windows.iloc[checked.validation]
        judge = run(check, "check", lambda _: {}, further_speakers=_speakers(others))
        said, _ = predict(judge, source, checked.validation)
        heard_further = Validation(soften(said, temperature), labels[checked.validation], _voices(others).to_numpy(str))
    return Trained(
        model=model,
        scheme=scheme,
        profile=store.profile,
        training=facts,
        temperature=temperature,
        priors=last.priors,
        windows=Validation(softened, truth, _voices(windows).to_numpy(str)),
        further=heard_further,
        validation=table,
        metrics=evaluation.metrics(table, scheme.classes),
        history=of_model,
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """Numbers of rows: to learn from at first, those set aside, both together, and what is judged of the second."""

    learnt_from: NDArray[np.int64]
    set_aside: NDArray[np.int64]
    together: NDArray[np.int64]
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
    learnt_from = np.flatnonzero(train & taken & learnt)
    present = np.unique(labels[learnt_from])
    # A class that nobody says who is learnt from can't be told, and says nothing of how sure to be of the others.
    known = np.isin(labels, present)
    rows = _Rows(
        learnt_from=learnt_from,
        set_aside=np.flatnonzero(validation & taken & learnt),
        together=np.flatnonzero((train | validation) & taken & learnt),
        validation=np.flatnonzero(validation & taken & known & (variants == CLEAN)),
    )
    if len(present) < 2:
        found = ", ".join(scheme.classes[number] for number in present) or "none"
        raise SettingsError(f"classes found to learn from: {found}; expected at least two of {scheme.name}")
    if not len(rows.validation):
        raise SettingsError(
            "no row found to validate with, expected some of a class that others say, too: set speakers aside for it"
        )
    return rows


def _facts(
    store: FeatureStore,
    scheme: schemes.LabelScheme,
    labels: NDArray[np.int64],
    rows: _Rows,
    *,
    made_from: NDArray[np.int64],
) -> dict[str, Any]:
    """Return what a bundle says of the rows that it was made from, and what a checkpoint must agree in."""
    train, validation = store.windows.iloc[rows.learnt_from], store.windows.iloc[rows.validation]
    whole = store.windows.iloc[made_from]
    counts = np.bincount(labels[made_from], minlength=len(scheme.classes))
    return {
        "store_fingerprint": store.fingerprint,
        "store_windows": store.windows_hash,
        "corpora": sorted(whole["corpus"].unique()),
        "variants": sorted(whole["variant"].unique()),
        "class_windows": {name: int(count) for name, count in zip(scheme.classes, counts, strict=True)},
        "train": evaluation.counts(train),
        "validation": evaluation.counts(validation),
        "train_speakers": _speakers(train),
        "validation_speakers": _speakers(store.windows.iloc[rows.set_aside]),
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


def _judge(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
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
    return {"val_loss": float(loss), "val_uar": float(recall)}


def _speakers(windows: pd.DataFrame) -> list[str]:
    return sorted(_voices(windows).unique())


def _voices(windows: pd.DataFrame) -> pd.Series:
    return windows["corpus"] + "/" + windows["speaker"]
