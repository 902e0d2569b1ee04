"""How good a model is: metrics, and cross-validation under a protocol.

Everything is judged by utterance: its prediction is the mean of its windows' probabilities, weighted by their real
frames. The headline is pooled over the folds' test utterances; mean and deviation of the folds stand beside it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.corpora import labels as schemes, splits
from emolib.errors import Code, Outcome
from emolib.learning.batches import usable_rows

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore

_HEADLINE = ("accuracy", "uar", "macro_f1")


def utterance_predictions(
    windows: pd.DataFrame,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    *,
    classes: Sequence[str],
) -> pd.DataFrame:
    """Return what a model says of whole utterances.

    Parameters
    ----------
    windows
        One row per window with the columns ``utterance_id``, ``variant``, ``corpus``, ``speaker`` and ``gender``.
    labels
        True class of each window, ``(window,)``.
    probabilities
        Of each window, ``(window, class)``.
    valid_frames
        By which windows are weighted, ``(window,)``.
    classes
        Names of the classes.

    Returns
    -------
    pandas.DataFrame
        One row per utterance and variant, sorted: the columns named above, ``true``, ``predicted`` and one
        ``p_<class>`` for each class.

    Examples
    --------
    >>> windows = pd.DataFrame({"utterance_id": ["a", "a"], "variant": "clean", "corpus": "mine", "speaker": "s",
    ...                         "gender": None})
    >>> table = utterance_predictions(windows, np.array([0, 0]), np.array([[0.9, 0.1], [0.0, 1.0]]),
    ...                               np.array([30, 10]), classes=["calm", "angry"])
    >>> table[["true", "predicted", "p_calm"]].round(3).to_dict("records")
    [{'true': 'calm', 'predicted': 'calm', 'p_calm': 0.675}]
    """
    names, key = list(classes), ["utterance_id", "variant"]
    columns = [f"p_{name}" for name in names]
    weight = valid_frames.astype(np.float64)
    weighted = pd.DataFrame(probabilities * weight[:, np.newaxis], columns=columns)
    whole = windows[[*key, "corpus", "speaker", "gender"]].reset_index(drop=True)
    whole = whole.assign(true=np.array(names, dtype=object)[labels], weight=weight).join(weighted)
    grouped = whole.groupby(key, sort=True)
    table = grouped[["corpus", "speaker", "gender", "true"]].first()
    sums = grouped[["weight", *columns]].sum()
    shares = sums[columns].div(sums["weight"], axis=0)
    table["predicted"] = np.array(names, dtype=object)[shares.to_numpy().argmax(axis=1)]
    return table.join(shares).reset_index()


def metrics(table: pd.DataFrame, classes: Sequence[str]) -> dict[str, Any]:
    """Return how well predictions agree with the truth.

    Parameters
    ----------
    table
        With the columns ``true`` and ``predicted``, names of classes; not empty.
    classes
        In the order of the confusion matrix.

    Returns
    -------
    dict
        ``n``; ``accuracy``; ``uar``, the mean recall of the classes that occur; ``macro_f1``, the mean of the classes
        that occur or were predicted; ``per_class`` with ``precision``, ``recall``, ``f1`` and ``support`` (0 where
        nothing was predicted or occurs); ``confusion``, a list of rows, one per true class.

    Examples
    --------
    >>> table = pd.DataFrame({"true": ["calm", "calm", "calm", "angry"], "predicted": ["calm"] * 3 + ["calm"]})
    >>> found = metrics(table, ["calm", "angry"])
    >>> found["accuracy"], found["uar"], found["confusion"]
    (0.75, 0.5, [[3, 0], [1, 0]])
    """
    number = {name: index for index, name in enumerate(classes)}
    confusion = np.zeros((len(number), len(number)), np.int64)
    np.add.at(confusion, (table["true"].map(number).to_numpy(), table["predicted"].map(number).to_numpy()), 1)
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    recall = hits / np.maximum(support, 1)
    precision = hits / np.maximum(predicted, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    per_class = {
        name: {
            "precision": float(precision[index]),
            "recall": float(recall[index]),
            "f1": float(f1[index]),
            "support": int(support[index]),
        }
        for name, index in number.items()
    }
    return {
        "n": len(table),
        "accuracy": float(hits.sum() / len(table)),
        "uar": float(recall[support > 0].mean()),
        "macro_f1": float(f1[support + predicted > 0].mean()),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def counts(windows: pd.DataFrame) -> dict[str, int]:
    """Return how many utterances, windows and speakers some rows of a store hold."""
    return {
        "utterances": int(windows["utterance_id"].nunique()),
        "windows": len(windows),
        "speakers": len(windows[["corpus", "speaker"]].drop_duplicates()),
    }


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold of a cross-validation.

    Attributes
    ----------
    name
        As the protocol calls it.
    train, validation, test
        Numbers of utterances, windows and speakers.
    metrics
        Of its test utterances (see `metrics`).
    epochs, best_epoch
        How long it was trained, and the epoch whose weights were taken.
    seconds
        Time that it took.
    """

    name: str
    train: dict[str, int]
    validation: dict[str, int]
    test: dict[str, int]
    metrics: dict[str, Any]
    epochs: int
    best_epoch: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a cross-validation found.

    Attributes
    ----------
    task, protocol, architecture, profile, seed
        What was judged, and how.
    classes
        Of the task, in the order of the confusion matrices.
    speaker_independent
        Whether no fold tested a speaker whom it had learnt from: found in the folds, not taken from their name.
    folds
        One result each.
    predictions
        One row per test utterance: ``utterance_id``, ``variant``, ``corpus``, ``speaker``, ``gender``, ``true``,
        ``predicted``, ``p_<class>`` for each class, ``fold``.
    left_out
        Numbers of utterances that no fold tested, by reason: a code, ``no_label`` or ``not_in_protocol``.
    """

    task: str
    protocol: str
    architecture: str
    profile: str
    seed: int
    classes: tuple[str, ...]
    speaker_independent: bool
    folds: list[FoldResult]
    predictions: pd.DataFrame
    left_out: dict[str, int]

    def report(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; figures of parts stand beside the pooled headline."""
        table = self.predictions
        by_fold = pd.DataFrame([fold.metrics for fold in self.folds])[list(_HEADLINE)]
        report = {
            "task": self.task,
            "protocol": self.protocol,
            "about": splits.PROTOCOLS[self.protocol],
            "speaker_independent": self.speaker_independent,
            "architecture": self.architecture,
            "profile": self.profile,
            "seed": self.seed,
            "classes": list(self.classes),
            "pooled": metrics(table, self.classes),
            "fold_mean": by_fold.mean().to_dict(),
            "fold_std": by_fold.std(ddof=0).to_dict(),
            "per_corpus": self._by("corpus"),
            "per_gender": self._by("gender"),
            "folds": [asdict(fold) for fold in self.folds],
            "left_out": self.left_out,
        }
        # Of TESS's two speakers each says the same 200 words in every emotion: it flatters every model.
        tess = table["corpus"] == "tess"
        if tess.any() and not tess.all():
            report["without_tess"] = self._headline(table[~tess])
        return report

    def _by(self, column: str) -> dict[str, dict[str, float]]:
        values = self.predictions[column].fillna("unknown")
        return {str(value): self._headline(part) for value, part in self.predictions.groupby(values)}

    def _headline(self, table: pd.DataFrame) -> dict[str, float]:
        found = metrics(table, self.classes)
        return {name: found[name] for name in ("n", *_HEADLINE)}


def cross_validate(
    store: FeatureStore,
    *,
    task: str,
    protocol: str,
    architecture: str,
    seed: int,
    epochs: int | None = None,
    on_fold: Callable[[FoldResult], None] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Evaluation:
    """Train and test an architecture, fold by fold.

    Of each fold's training part some speakers are set aside to stop by (under `random5`: some utterances), so nothing
    is chosen by what it is tested on.

    Parameters
    ----------
    store
        Complete (see `FeatureStore.finish`).
    task
        One of `emolib.corpora.labels.TASKS`.
    protocol
        One of `emolib.corpora.splits.PROTOCOLS`.
    architecture, seed, epochs
        As for `emolib.learning.training.fit`.
    on_fold, on_epoch
        Called with the result of each fold and the history's entry of each epoch.

    Raises
    ------
    SettingsError
        If the task, protocol or architecture is unknown or does not suit what the store holds, or TensorFlow is not
        installed.
    """
    windows = store.windows
    scheme = schemes.scheme(task, windows)
    of_task = schemes.label(windows, scheme)
    labels = np.where(usable_rows(store), of_task, -1)
    folds = splits.folds(protocol, windows, labels)
    by = splits.validation_by(protocol)
    # All checks that need no training come first: TensorFlow takes long to start.
    asides = [splits.validation(windows, labels, fold.train, seed=seed, by=by) for fold in folds]
    from emolib.learning import training

    speakers = windows["corpus"] + "/" + windows["speaker"]
    results, tables = [], []
    for fold, aside in zip(folds, asides, strict=True):
        began = time.monotonic()
        train, test = fold.train & ~aside, np.flatnonzero(fold.test)
        trained = training.fit(
            store,
            scheme=scheme,
            labels=labels,
            train=train,
            validation=aside,
            architecture=architecture,
            seed=seed,
            epochs=epochs,
            on_epoch=on_epoch,
        )
        found = utterance_predictions(
            windows.iloc[test], labels[test], *training.predict(trained.model, store, test), classes=scheme.classes
        )
        result = FoldResult(
            name=fold.name,
            train=counts(windows[train]),
            validation=counts(windows[aside]),
            test=counts(windows.iloc[test]),
            metrics=metrics(found, scheme.classes),
            epochs=trained.training["epochs"],
            best_epoch=trained.training["best_epoch"],
            seconds=round(time.monotonic() - began, 1),
        )
        results.append(result)
        tables.append(found.assign(fold=fold.name))
        if on_fold is not None:
            on_fold(result)
    predictions = pd.concat(tables, ignore_index=True)
    return Evaluation(
        task=task,
        protocol=protocol,
        architecture=architecture,
        profile=store.profile.name,
        seed=seed,
        classes=scheme.classes,
        speaker_independent=not any(set(speakers[fold.train]) & set(speakers[fold.test]) for fold in folds),
        folds=results,
        predictions=predictions,
        left_out=_left_out(store, windows[of_task >= 0], predictions),
    )


def _left_out(store: FeatureStore, labelled: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, int]:
    """Count the utterances that were not tested, by reason."""
    codes = store.utterance_codes()
    codes = codes[~codes.index.duplicated() & ~codes.index.isin(predictions["utterance_id"])]
    has_class = codes.index.isin(labelled["utterance_id"])
    reasons = Counter(
        code if Code(code).outcome is not Outcome.SCORED else "not_in_protocol" if known else "no_label"
        for code, known in zip(codes, has_class, strict=True)
    )
    return dict(sorted(reasons.items()))
