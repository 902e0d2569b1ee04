"""Train and test an architecture under a protocol, fold by fold, with the classical baseline beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.config import CLEAN
from emolib.corpora import labels as schemes, splits
from emolib.errors import Code, Outcome
from emolib.learning.baseline import Baseline
from emolib.learning.batches import InMemory, usable_rows
from emolib.learning.calibration import abstention_threshold, expected_calibration_error, soften
from emolib.learning.evaluation import (
    PRECISIONS,
    Evaluation,
    FoldResult,
    counts,
    metrics,
    numbers,
    utterance_predictions,
)
from emolib.learning.progress import Fold
from emolib.sound.variants import learnt_copies, used_for

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore
    from emolib.learning.progress import Progress
    from emolib.learning.training import Trained


def cross_validate(
    store: FeatureStore,
    *,
    task: str,
    protocol: str,
    architecture: str,
    seed: int,
    epochs: int | None = None,
    learn_from_others: bool = False,
    progress: Progress | None = None,
    on_fold: Callable[[FoldResult], None] | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> Evaluation:
    """Train and test an architecture, fold by fold.

    Of each fold's training part some speakers are set aside, by which its temperature and its thresholds are found
    (under `random5`: some utterances), before the network learns from the whole part; nothing is chosen by what it is
    tested on. Where the speakers of a test are learnt from, the network learns for them (see
    `emolib.learning.training.fit`). Copies to learn from are only learnt from, copies to judge by are only judged, each
    with its original; see `emolib.sound.variants`. The baseline learns from all clean recordings of the training part.

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
    learn_from_others
        As for `emolib.corpora.splits.folds`.
    progress
        Keeps each fold that is done and the state of the one that is not; what an interrupted cross-validation of the
        same kind left there is continued.
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
    clean = (windows["variant"] == CLEAN).to_numpy()
    judged = np.array([used_for(variant, "judging") for variant in windows["variant"]])
    folds = splits.folds(protocol, windows, labels, learn_from_others=learn_from_others)
    by = splits.validation_by(protocol)
    speakers = windows["corpus"] + "/" + windows["speaker"]
    speaker_dependent = any(set(speakers[fold.train]) & set(speakers[fold.test]) for fold in folds)
    # All checks that need no training come first: TensorFlow takes long to start.
    asides = [splits.validation(windows, labels, fold.train, seed=seed, by=by) for fold in folds]
    from emolib.learning import training

    source = InMemory(store)
    found = []
    for number, (fold, aside) in enumerate(zip(folds, asides, strict=True)):
        done = None if progress is None else progress.load(number)
        if done is None:
            began = time.monotonic()
            trained = training.fit(
                store,
                scheme=scheme,
                labels=labels,
                train=fold.train & ~aside,
                validation=aside,
                architecture=architecture,
                seed=seed,
                speaker_dependent=speaker_dependent,
                epochs=epochs,
                checkpoint=None if progress is None else progress.checkpoint(number),
                on_epoch=on_epoch,
            )
            test = np.flatnonzero(fold.test & judged)
            baseline = Baseline(source, np.flatnonzero(fold.train & clean), labels, seed=seed).predict(test)
            told = training.predict(trained.model, source, test)
            done = _tested(fold.name, trained, windows.iloc[test], labels[test], *told, baseline, began)
            if progress is not None:
                progress.keep(number, done)
        found.append(done)
        if on_fold is not None:
            on_fold(done.result)
    predictions = pd.concat([fold.predictions for fold in found], ignore_index=True)
    uncalibrated = pd.concat([fold.uncalibrated for fold in found])
    learnt_from = np.logical_or.reduce([fold.train for fold in folds])
    return Evaluation(
        task=task,
        protocol=protocol,
        architecture=architecture,
        profile=store.profile.name,
        seed=seed,
        classes=scheme.classes,
        speaker_independent=not speaker_dependent,
        corpora=tuple(sorted(windows["corpus"][learnt_from].unique())),
        copies=learnt_copies(windows["variant"]),
        folds=[fold.result for fold in found],
        predictions=predictions,
        uncalibrated_error=expected_calibration_error(*numbers(uncalibrated, scheme.classes)),
        left_out=_left_out(store, windows[of_task >= 0], predictions),
    )


def _tested(
    name: str,
    trained: Trained,
    rows: pd.DataFrame,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    baseline: NDArray[np.int64],
    began: float,
) -> Fold:
    """Return what a network, and the baseline, say of the rows of a test."""
    classes = trained.scheme.classes
    given = (
        probabilities,
        soften(probabilities, trained.temperature),
        np.eye(len(classes), dtype=np.float32)[baseline],
    )
    raw, found, of_baseline = (
        utterance_predictions(rows, labels, each, valid_frames, classes=classes) for each in given
    )
    result = FoldResult(
        name=name,
        train=trained.training["train"],
        validation=trained.training["validation"],
        validation_speakers=trained.training["validation_speakers"],
        test=counts(rows),
        metrics=metrics(found[found["variant"] == CLEAN], classes),
        epochs=trained.training["epochs"],
        temperature=trained.temperature,
        thresholds=_thresholds(trained),
        seconds=round(time.monotonic() - began, 1),
    )
    return Fold(result, found.assign(baseline=of_baseline["predicted"], fold=name), raw[raw["variant"] == CLEAN])


def _thresholds(trained: Trained) -> list[float | None]:
    """Return, for each of `PRECISIONS`, the confidence that gives it on the utterances that were set aside."""
    table = trained.validation
    confidence = numbers(table, trained.scheme.classes)[0].max(axis=1)
    right = (table["true"] == table["predicted"]).to_numpy()
    found = [abstention_threshold(confidence, right, precision) for precision in PRECISIONS]
    return [None if each is None else each.threshold for each in found]


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
