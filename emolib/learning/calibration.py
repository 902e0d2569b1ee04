"""Probabilities that mean something: temperature, calibration error, abstention. Pure.

A network's probabilities are too sure of themselves. One number, fitted on speakers whom the network has not learnt
from, mends it: after that, of the windows with a confidence of 0.8 about 80 % are right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from emolib.errors import SettingsError

# A softmax in float32 gives 0 where it means "less than this"; its logarithm must be finite.
LEAST = float(np.finfo(np.float32).tiny)

_TEMPERATURES = (0.05, 20.0)
# A precision over fewer predictions than this is chance.
_LEAST_KEPT = 10


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a model is right, by how sure it is.

    Attributes
    ----------
    edges
        Of the bins of confidence, the upper one belongs to the bin; shape ``(bin + 1,)``, from 0 to 1.
    count
        Predictions in each bin, ``(bin,)``.
    confidence, accuracy
        Their mean confidence and the share that is right, ``(bin,)``; not a number where the bin is empty.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What each threshold keeps, from the highest confidence that occurs to the lowest.

    Attributes
    ----------
    threshold
        The confidences that occur, falling; shape ``(threshold,)``.
    kept
        Predictions with at least this confidence, ``(threshold,)``.
    precision
        The share of them that is right, ``(threshold,)``.
    """

    threshold: NDArray[np.float64]
    kept: NDArray[np.int64]
    precision: NDArray[np.float64]

    @property
    def coverage(self) -> NDArray[np.float64]:
        """The share of the predictions that is kept, ``(threshold,)``; the last one is 1."""
        shares: NDArray[np.float64] = self.kept / self.kept[-1]
        return shares


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where a model abstains: a label is given where the confidence is at least the threshold.

    Attributes
    ----------
    threshold
        Of the confidence.
    coverage
        Share of the predictions that get a label.
    precision
        Share of those that is right.
    """

    threshold: float
    coverage: float
    precision: float


def fit_temperature(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], weights: NDArray[np.floating] | None = None
) -> float:
    """Return the temperature that makes probabilities fit what is true best.

    It minimises the negative log-likelihood of the softened probabilities (Guo, Pleiss, Sun, Weinberger 2017: On
    calibration of modern neural networks), which is convex in 1 / T: there is one minimum.

    Parameters
    ----------
    probabilities
        As the network gives them, of speakers whom it has not learnt from; ``(window, class)``. 0 counts as 1e-38.
    labels
        The true classes, ``(window,)``.
    weights
        How much each counts, ``(window,)``; None: all the same.

    Returns
    -------
    float
        Between 0.05 and 20: above 1 where the network is too sure. Close to a bound where no temperature is best, as
        when everything is right.

    Raises
    ------
    SettingsError
        If an argument is not as said.

    Examples
    --------
    >>> sure = np.array([[0.99, 0.01]] * 10)
    >>> round(fit_temperature(sure, np.array([0] * 8 + [1] * 2)), 2)
    3.31
    >>> soften(sure, 3.31)[0].round(2)
    array([0.8, 0.2], dtype=float32)
    """
    values = checked(probabilities, labels)
    logarithms = np.log(np.maximum(values, LEAST))
    shares = normalised(weights, len(values))

    def loss(log_temperature: float) -> float:
        scaled = logarithms / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        of_truth = scaled[np.arange(len(scaled)), labels]
        return float(np.sum(shares * (np.log(np.exp(scaled).sum(axis=1)) - of_truth)))

    return float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))


def soften(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return ``p ** (1 / temperature)``, each row normalised; it changes no order within a row.

    A row's result depends on the row alone, to the bit.

    Parameters
    ----------
    probabilities
        Shape ``(window, class)``.
    temperature
        Above 0; 1 returns the probabilities as they are.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(window, class)``.

    Raises
    ------
    SettingsError
        If the temperature is not above 0.

    Examples
    --------
    >>> soften(np.array([[0.8, 0.2]], np.float32), 2.0).round(3)
    array([[0.667, 0.333]], dtype=float32)
    """
    if not temperature > 0:
        raise SettingsError(f"a temperature of {temperature:g} found, expected one above 0")
    if temperature == 1.0:
        return probabilities
    # In C order: numpy adds up a row of another order, and raises it, by other instructions.
    softened = np.ascontiguousarray(probabilities, np.float64) ** (1.0 / temperature)
    softened /= softened.sum(axis=1, keepdims=True)
    return softened.astype(np.float32)


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15) -> Reliability:
    """Return how often the most probable class is the true one, by its probability, in bins of equal width.

    Parameters
    ----------
    probabilities
        Shape ``(window, class)``.
    labels
        The true classes, ``(window,)``.
    bins
        Number of bins.

    Raises
    ------
    SettingsError
        If an argument is not as said.

    Examples
    --------
    >>> found = reliability(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), np.array([0, 1, 1]), bins=4)
    >>> found.count.tolist(), found.accuracy.round(2).tolist()
    ([0, 0, 1, 2], [nan, nan, 1.0, 0.5])
    """
    values = checked(probabilities, labels)
    if bins < 1:
        raise SettingsError(f"{bins} bins found, expected at least 1")
    confidence, correct = values.max(axis=1), values.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
    count = np.bincount(number, minlength=bins)
    some = np.where(count > 0, count, np.nan)
    return Reliability(
        edges=edges,
        count=count,
        confidence=np.bincount(number, weights=confidence, minlength=bins) / some,
        accuracy=np.bincount(number, weights=correct, minlength=bins) / some,
    )


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15
) -> float:
    """Return the mean distance between confidence and accuracy, in [0, 1].

    Bins of equal width, weighted by their predictions (Naeini, Cooper, Hauskrecht 2015; Guo et al. 2017). It is above 0
    even for a calibrated model where bins hold few predictions.

    Parameters
    ----------
    probabilities
        Shape ``(window, class)``.
    labels
        The true classes, ``(window,)``.
    bins
        Number of bins.

    Raises
    ------
    SettingsError
        If an argument is not as said.

    Examples
    --------
    >>> round(expected_calibration_error(np.array([[0.9, 0.1]] * 10), np.array([0] * 7 + [1] * 3)), 3)
    0.2
    """
    found = reliability(probabilities, labels, bins)
    distance = np.abs(found.accuracy - found.confidence)
    return float(np.nansum(distance * found.count) / found.count.sum())


def coverage(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> Coverage:
    """Return what every threshold would keep, and how much of it is right.

    Parameters
    ----------
    confidence
        Of each prediction, ``(window,)``.
    correct
        Whether it is right, ``(window,)``.

    Raises
    ------
    SettingsError
        If there is no prediction, the lengths differ, or a confidence is not a number.

    Examples
    --------
    >>> found = coverage(np.array([0.9, 0.5, 0.5, 0.7]), np.array([True, False, True, True]))
    >>> found.threshold.tolist(), found.kept.tolist(), found.precision.tolist()
    ([0.9, 0.7, 0.5], [1, 2, 4], [1.0, 1.0, 0.75])
    """
    values, right = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    if values.ndim != 1 or values.shape != right.shape or not values.size or not np.isfinite(values).all():
        raise SettingsError(
            f"confidences {values.shape} and marks {right.shape} found, expected one finite confidence and one mark "
            "for each of at least one prediction"
        )
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(right[order])
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # equal confidences are kept together
    return Coverage(threshold=values[last], kept=last + 1, precision=hits[last] / (last + 1))


def abstention_threshold(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], precision: float
) -> Threshold | None:
    """Return the lowest threshold that gives the wanted precision, and what it costs.

    A label is given where the confidence is at least the threshold. Precision may rise and fall along the thresholds:
    of all that reach the wanted one, that of the largest coverage is taken. The precision is that of the predictions it
    was chosen by, with their mixture of classes: in an archive with another mixture it is another.

    Parameters
    ----------
    confidence
        Of each prediction, calibrated as in scoring; ``(window,)``.
    correct
        Whether it is right, ``(window,)``.
    precision
        Share of the labels that shall be right, above 0 and at most 1.

    Returns
    -------
    Threshold or None
        None where no threshold that keeps at least 10 predictions gives this precision.

    Raises
    ------
    SettingsError
        If an argument is not as said.

    Examples
    --------
    >>> confidence = np.linspace(0.5, 1.0, 21)
    >>> abstention_threshold(confidence, confidence >= 0.7, precision=0.9)
    Threshold(threshold=0.675, coverage=0.6666666666666666, precision=0.9285714285714286)
    """
    if not 0 < precision <= 1:
        raise SettingsError(f"a precision of {precision:g} found, expected one above 0 and at most 1, such as 0.8")
    found = coverage(confidence, correct)
    reached = np.flatnonzero((found.precision >= precision) & (found.kept >= _LEAST_KEPT))
    if not reached.size:
        return None
    best = reached[-1]
    return Threshold(float(found.threshold[best]), float(found.coverage[best]), float(found.precision[best]))


def checked(probabilities: NDArray[np.floating], labels: NDArray[np.integer] | None = None) -> NDArray[np.float64]:
    """Return probabilities as float64 in C order, checked to be some, one row each, with a class where there is one.

    Raises
    ------
    SettingsError
        If they are not.
    """
    values = np.ascontiguousarray(probabilities, np.float64)
    if values.ndim != 2 or not values.size:
        raise SettingsError(f"probabilities of shape {values.shape} found, expected (window, class), not empty")
    if not ((values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-3)):
        raise SettingsError("a row that is no distribution found, expected probabilities from 0 to 1 with the sum 1")
    if labels is None:
        return values
    if np.shape(labels) != values.shape[:1]:
        raise SettingsError(f"labels of shape {np.shape(labels)} found, expected ({len(values)},), one for each row")
    for label in (np.min(labels), np.max(labels)):
        if not 0 <= label < values.shape[1]:
            raise SettingsError(f"class {label} found among the labels, expected 0 to {values.shape[1] - 1}")
    return values


def normalised(weights: NDArray[np.floating] | None, rows: int) -> NDArray[np.float64]:
    """Return the share of each row, ``(row,)`` with the sum 1.

    Raises
    ------
    SettingsError
        If there is not one weight for each row, one is negative, or all are 0.
    """
    values = np.ones(rows) if weights is None else np.asarray(weights, np.float64)
    if values.shape != (rows,) or not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise SettingsError(f"weights of shape {values.shape} found, expected {rows} of at least 0, not all 0")
    shares: NDArray[np.float64] = values / values.sum()
    return shares
