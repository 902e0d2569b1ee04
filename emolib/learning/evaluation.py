"""How good a model is: metrics, and what a cross-validation found.

Everything is judged by utterance: its prediction is the mean of its windows' probabilities, weighted by their real
frames. The headline is pooled over the folds' clean test utterances, with intervals over speakers; mean and deviation
of the folds stand beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.config import CLEAN
from emolib.corpora import splits
from emolib.learning import calibration
from emolib.learning.intervals import speaker_intervals
from emolib.sound.variants import VARIANTS

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


def numbers(table: pd.DataFrame, classes: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the probabilities ``(utterance, class)`` and the true classes ``(utterance,)`` of a table as numbers."""
    number = {name: index for index, name in enumerate(classes)}
    return table[[f"p_{name}" for name in classes]].to_numpy(np.float64), table["true"].map(number).to_numpy(np.int64)


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
        Numbers of utterances, windows and speakers; copies of an utterance count as windows.
    validation_speakers
        Who was set aside, as ``corpus/speaker``.
    metrics
        Of its clean test utterances (see `metrics`).
    epochs
        How long it was trained.
    temperature
        Found on the validation utterances; the predictions are softened by it.
    thresholds
        For each precision of `PRECISIONS`, the confidence that gives it on the validation utterances; None: none does.
    seconds
        Time that it took.
    """

    name: str
    train: dict[str, int]
    validation: dict[str, int]
    validation_speakers: list[str]
    test: dict[str, int]
    metrics: dict[str, Any]
    epochs: int
    temperature: float
    thresholds: list[float | None]
    seconds: float


PRECISIONS = (0.7, 0.8, 0.9)
"""What may be wanted of the labels that are given, in the table of abstention."""


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
    corpora
        Those that were learnt from.
    copies
        The variants that were learnt from beside the clean recordings.
    folds
        One result each.
    predictions
        One row per test utterance and variant: ``utterance_id``, ``variant``, ``corpus``, ``speaker``, ``gender``,
        ``true``, ``predicted``, ``p_<class>`` for each class, softened; ``baseline``, what the support vector machine
        says; ``fold``.
    uncalibrated_error
        Expected calibration error of the clean test utterances before they were softened.
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
    corpora: tuple[str, ...]
    copies: tuple[str, ...]
    folds: list[FoldResult]
    predictions: pd.DataFrame
    uncalibrated_error: float
    left_out: dict[str, int]

    @property
    def clean(self) -> pd.DataFrame:
        """The rows of `predictions` that are no copies: all figures are of these, unless they name a variant."""
        return self.predictions[self.predictions["variant"] == CLEAN]

    def report(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; figures of parts stand beside the pooled headline."""
        table = self.clean
        by_fold = pd.DataFrame([fold.metrics for fold in self.folds])[list(_HEADLINE)]
        report = {
            "task": self.task,
            "protocol": self.protocol,
            "about": splits.PROTOCOLS[self.protocol],
            "speaker_independent": self.speaker_independent,
            "architecture": self.architecture,
            "profile": self.profile,
            "corpora": list(self.corpora),
            "copies": list(self.copies),
            "seed": self.seed,
            "classes": list(self.classes),
            "pooled": {**metrics(table, self.classes), "intervals": self._intervals(table, "predicted")},
            "baseline": self._headline(table, "baseline"),
            "fold_mean": by_fold.mean().to_dict(),
            "fold_std": by_fold.std(ddof=0).to_dict(),
            "per_corpus": self._by("corpus"),
            "per_gender": self._by("gender"),
            "variants": self._variants(),
            "calibration": self._calibration(),
            "abstention": self._abstention(),
            "folds": [asdict(fold) for fold in self.folds],
            "left_out": self.left_out,
        }
        # Of TESS's two speakers each says the same 200 words in every emotion: it flatters every model.
        tess = table["corpus"] == "tess"
        if tess.any() and not tess.all():
            report["without_tess"] = self._beside(table[~tess])
        return report

    def _by(self, column: str) -> dict[str, dict[str, Any]]:
        values = self.clean[column].fillna("unknown")
        return {str(value): self._beside(part) for value, part in self.clean.groupby(values)}

    def _beside(self, table: pd.DataFrame) -> dict[str, Any]:
        """Return the headline of some utterances, with the baseline's beside it."""
        return {**self._headline(table, "predicted"), "baseline": self._headline(table, "baseline")}

    def _headline(self, table: pd.DataFrame, column: str) -> dict[str, Any]:
        found = metrics(table.assign(predicted=table[column]), self.classes)
        return {name: found[name] for name in ("n", *_HEADLINE)} | {"intervals": self._intervals(table, column)}

    def _intervals(self, table: pd.DataFrame, column: str) -> dict[str, tuple[float, float]] | None:
        number = {name: index for index, name in enumerate(self.classes)}
        return speaker_intervals(
            table["true"].map(number).to_numpy(),
            table[column].map(number).to_numpy(),
            table["corpus"] + "/" + table["speaker"],
            classes=len(self.classes),
        )

    def _variants(self) -> dict[str, dict[str, float]]:
        """Return accuracy and recall of each variant, and how many points less that is than of the same clean ones."""
        found: dict[str, dict[str, float]] = {}
        there = dict(iter(self.predictions.groupby("variant")))
        for variant in sorted(there, key=[CLEAN, *VARIANTS].index):
            part = there[variant]
            same = self.clean[self.clean["utterance_id"].isin(part["utterance_id"])]
            whole, clean = metrics(part, self.classes), metrics(same, self.classes)
            found[variant] = {name: whole[name] for name in ("n", "accuracy", "uar")} | {
                "drop": 100 * (clean["uar"] - whole["uar"])
            }
        return found

    def _calibration(self) -> dict[str, Any]:
        probabilities, labels = numbers(self.clean, self.classes)
        return {
            "error": calibration.expected_calibration_error(probabilities, labels),
            "uncalibrated_error": self.uncalibrated_error,
            "temperatures": [fold.temperature for fold in self.folds],
            "reliability": _plain(calibration.reliability(probabilities, labels)),
        }

    def _abstention(self) -> list[dict[str, float | None]]:
        """Return what the thresholds of the validation utterances came to on the test utterances."""
        confidence = numbers(self.clean, self.classes)[0].max(axis=1)
        right = (self.clean["predicted"] == self.clean["true"]).to_numpy()
        rows: list[dict[str, float | None]] = []
        for place, wanted in enumerate(PRECISIONS):
            threshold = {fold.name: fold.thresholds[place] for fold in self.folds}
            least = self.clean["fold"].map(threshold).to_numpy(np.float64)  # not a number, where none was found
            kept = confidence >= least
            found = float(right[kept].mean()) if kept.any() else None
            rows.append({"wanted": wanted, "precision": found, "coverage": float(kept.mean())})
        return rows


def _plain(found: calibration.Reliability) -> dict[str, list[float | None]]:
    """Return a reliability as plain values; JSON has no word for what is not a number."""
    return {
        name: [None if np.isnan(value) else float(value) for value in values] for name, values in asdict(found).items()
    }
