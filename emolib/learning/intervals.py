"""How sure a figure is: confidence intervals over speakers; correlations. Pure.

Utterances of one speaker resemble each other, so they are no independent evidence: whole speakers are drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, t as student

from emolib.errors import SettingsError


def confusions(
    true: NDArray[np.integer], predicted: NDArray[np.integer], speakers: Iterable[Hashable], *, classes: int
) -> NDArray[np.int64]:
    """Return one confusion matrix per speaker.

    Parameters
    ----------
    true, predicted
        Numbers of classes, ``(utterance,)``.
    speakers
        Who said it, one for each utterance; a name that two corpora use must come with its corpus.
    classes
        Number of classes.

    Returns
    -------
    NDArray[np.int64]
        Shape ``(speaker, true class, predicted class)``, speakers in the order of their first utterance.

    Raises
    ------
    SettingsError
        If there is no utterance, the lengths differ, or a number is no class.

    Examples
    --------
    >>> confusions(np.array([0, 1, 1]), np.array([0, 1, 0]), ["anna", "ben", "ben"], classes=2).tolist()
    [[[1, 0], [0, 0]], [[0, 0], [1, 1]]]
    """
    speakers = list(speakers)
    if not len(true) == len(predicted) == len(speakers) > 0:
        raise SettingsError(
            f"{len(true)} true classes, {len(predicted)} predicted ones and {len(speakers)} speakers found, expected "
            "one of each for every utterance, and at least one utterance"
        )
    for name, values in (("true", true), ("predicted", predicted)):
        if np.min(values) < 0 or np.max(values) >= classes:
            raise SettingsError(
                f"{name} classes from {np.min(values)} to {np.max(values)} found, expected 0 to {classes - 1}"
            )
    number = {speaker: index for index, speaker in enumerate(dict.fromkeys(speakers))}
    counts = np.zeros((len(number), classes, classes), np.int64)
    np.add.at(counts, (np.array([number[speaker] for speaker in speakers]), true, predicted), 1)
    return counts


def speaker_intervals(
    true: NDArray[np.integer],
    predicted: NDArray[np.integer],
    speakers: Iterable[Hashable],
    *,
    classes: int,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]] | None:
    """Return confidence intervals of accuracy, UAR and macro-F1 (percentile bootstrap over speakers, Efron 1979).

    An interval says how much the figure would move with other speakers of the same kind, judged by the same models.
    It leaves out what another training would change, and is too narrow for fewer than about 20 speakers.

    Parameters
    ----------
    true, predicted
        Numbers of classes, ``(utterance,)``.
    speakers
        Who said it, one for each utterance; a name that two corpora use must come with its corpus.
    classes
        Number of classes.
    draws
        How many times as many speakers are drawn, with replacement, as there are.
    seed
        Of the draws. Neither the order of the utterances nor the speakers' names change a result.
    level
        Share of the draws that lie inside.

    Returns
    -------
    dict or None
        ``accuracy``, ``uar`` and ``macro_f1``, each as ``(low, high)``, defined as in
        `emolib.learning.evaluation.metrics`; the UAR of a draw is that of the classes that occur in it. None where
        there is one speaker: one says nothing about others.

    Raises
    ------
    SettingsError
        If there is no utterance, the lengths differ, a number is no class, or the level is not between 0 and 1.

    Examples
    --------
    >>> true, predicted = np.array([0, 1, 0, 1]), np.array([0, 1, 0, 0])
    >>> speaker_intervals(true, predicted, ["anna", "anna", "ben", "ben"], classes=2)["accuracy"]
    (0.5, 1.0)
    >>> speaker_intervals(true, predicted, ["anna"] * 4, classes=2) is None
    True
    """
    if not 0 < level < 1:
        raise SettingsError(f"a level of {level:g} found, expected one between 0 and 1, such as 0.95")
    each = confusions(true, predicted, speakers, classes=classes)
    if len(each) == 1:
        return None
    flat = each.reshape(len(each), -1)
    flat = flat[np.lexsort(flat.T)]  # so that a result depends on what the speakers did, not on their order
    weights = np.random.default_rng(seed).multinomial(len(flat), np.full(len(flat), 1 / len(flat)), size=draws)
    figures = _headline((weights @ flat).reshape(-1, classes, classes))
    edges = [(1 - level) / 2, (1 + level) / 2]
    found = {name: np.quantile(values, edges) for name, values in figures.items()}
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def share_interval(
    hits: NDArray[np.bool_], speakers: Iterable[Hashable], *, level: float = 0.95
) -> tuple[float, float] | None:
    """Return a confidence interval of a share over few speakers (Student's t of a ratio, Cochran 1977).

    A bootstrap over three speakers knows three speakers; Student's t allows for how little they say of others. It is at
    least as wide as if every item were a speaker of its own.

    Parameters
    ----------
    hits
        The items, and which of them count, ``(item,)``: the share is their mean.
    speakers
        Whose items they are, one for each.
    level
        How often such an interval holds the share of all speakers.

    Returns
    -------
    tuple or None
        ``(low, high)``, within 0 and 1. None where there are fewer than two speakers: one says nothing about others.

    Examples
    --------
    >>> hits = np.array([True, True, True, False] * 6)
    >>> share_interval(hits, ["anna", "ben"] * 12)
    (0.0, 1.0)
    >>> np.round(share_interval(hits, [f"speaker {number // 4}" for number in range(24)]), 2).tolist()
    [0.52, 0.98]
    """
    names = list(speakers)
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    if len(number) < 2:
        return None
    whose = np.array([number[name] for name in names])
    share, items, count = float(hits.mean()), len(hits), len(number)
    residuals = np.bincount(whose, hits) - share * np.bincount(whose)
    variance = count / (count - 1) * np.sum(residuals**2) / items**2
    deviation = np.sqrt(max(variance, share * (1 - share) / items))
    reach = float(student.ppf((1 + level) / 2, count - 1) * deviation)
    return max(share - reach, 0.0), min(share + reach, 1.0)


def correlations(first: NDArray[np.floating], second: NDArray[np.floating]) -> dict[str, float | None]:
    """Return Pearson's and Spearman's correlation of two measures; None where one of them never varies.

    Examples
    --------
    >>> correlations(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 9.0]))["spearman"]
    1.0
    >>> correlations(np.ones(3), np.arange(3.0))
    {'pearson': None, 'spearman': None}
    """
    if len(first) < 2 or not np.ptp(first) or not np.ptp(second):
        return {"pearson": None, "spearman": None}
    ranked = rankdata(first), rankdata(second)
    pairs = {"pearson": (first, second), "spearman": ranked}
    return {name: float(np.clip(np.corrcoef(*pair)[0, 1], -1, 1)) for name, pair in pairs.items()}


def correlation_intervals(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    speakers: Iterable[Hashable],
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]] | None:
    """Return confidence intervals of `correlations` (percentile bootstrap over speakers, see `speaker_intervals`).

    Parameters
    ----------
    first, second
        Two measures, ``(item,)``.
    speakers
        Whose items they are, one for each.

    Returns
    -------
    dict or None
        ``pearson`` and ``spearman``, each as ``(low, high)``; draws in which a measure does not vary are passed over.
        None where there is one speaker, or where no draw is left.

    Examples
    --------
    >>> first = np.array([0.0, 1.0, 0.0, 1.0])
    >>> correlation_intervals(first, first + 1, ["anna", "anna", "ben", "ben"])["pearson"]
    (1.0, 1.0)
    """
    names = list(speakers)
    number = {name: index for index, name in enumerate(dict.fromkeys(names))}
    if len(number) < 2:
        return None
    whose = np.array([number[name] for name in names])
    items = [np.flatnonzero(whose == index) for index in range(len(number))]
    drawn = np.random.default_rng(seed).integers(len(items), size=(draws, len(items)))
    found = []
    for row in drawn:
        places = np.concatenate([items[index] for index in row])
        each = correlations(first[places], second[places])
        if each["pearson"] is not None:
            found.append((each["pearson"], each["spearman"]))
    if not found:
        return None
    edges = np.quantile(np.array(found, np.float64), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {
        name: (float(edges[0, place]), float(edges[1, place])) for place, name in enumerate(("pearson", "spearman"))
    }


def _headline(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Return the headline of many confusion matrices ``(draw, true class, predicted class)``, each ``(draw,)``."""
    hits, support, predicted = np.einsum("dcc->dc", counts), counts.sum(axis=2), counts.sum(axis=1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return {
        "accuracy": hits.sum(axis=1) / support.sum(axis=1),
        "uar": recall.sum(axis=1) / np.count_nonzero(support, axis=1),
        "macro_f1": f1.sum(axis=1) / np.count_nonzero(support + predicted, axis=1),
    }
