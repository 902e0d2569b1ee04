"""Other mixtures of classes than the one that was learnt: corrected probabilities, and how frequent classes are. Pure.

Corpora are balanced and calls mostly neutral. A model that has learnt from the one finds too much of everything rare in
the other, and to count its labels is to count its mistakes. All of this supposes that only the mixture differs: that
anger, where it occurs, sounds and is mistaken as it was among the validation speakers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.learning.calibration import LEAST, checked, normalised

_TOLERANCE, _STEPS = 1e-7, 5000
_GROUPS = 1024  # that are drawn at a time: memory does not grow with the archive


@dataclass(frozen=True, slots=True)
class Prevalence:
    """How frequent classes are.

    Attributes
    ----------
    estimate
        Share of each class, ``(class,)`` with the sum 1.
    interval
        The lower and the upper bound of each, ``(class, 2)``; None where nothing says how far to trust the estimate,
        because there is one call or one validation speaker.
    """

    estimate: NDArray[np.float64]
    interval: NDArray[np.float64] | None


def correct_priors(
    probabilities: NDArray[np.floating],
    trained: Sequence[float] | NDArray[np.floating],
    wanted: Sequence[float] | NDArray[np.floating],
) -> NDArray[np.float32]:
    """Return the probabilities that a model would give had it learnt from another mixture of classes.

    Each is multiplied by ``wanted / trained``, and each row normalised (Saerens, Latinne, Decaestecker 2002: Adjusting
    the outputs of a classifier to new a priori probabilities). A row's result depends on the row alone, to the bit.

    Parameters
    ----------
    probabilities
        Calibrated, ``(window, class)``. 0 counts as 1e-38, so that a class that is wanted never can be the only one.
    trained
        The shares of the classes that the model takes for granted: those of its training windows, as they weighed in
        its loss; 0 for a class that it has never heard.
    wanted
        The shares of the classes where it is used; 0 for a class that it has never heard.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(window, class)``.

    Raises
    ------
    SettingsError
        If an argument is not as said, or shares are not one per class, not negative, with the sum 1.

    Examples
    --------
    >>> correct_priors(np.array([[0.4, 0.6]]), trained=[0.5, 0.5], wanted=[0.9, 0.1]).round(3)
    array([[0.857, 0.143]], dtype=float32)
    """
    values = np.maximum(checked(probabilities), LEAST)
    before, after = _priors("trained", trained, values.shape[1]), _priors("wanted", wanted, values.shape[1])
    if (unheard := np.flatnonzero((before == 0) & (after > 0))).size:
        raise SettingsError(
            f"a wanted share of {after[unheard[0]]:g} found for class {unheard[0]}, which the model has never heard, "
            "expected 0"
        )
    values *= np.divide(after, before, out=np.zeros_like(before), where=before > 0)
    values /= values.sum(axis=1, keepdims=True)
    return values.astype(np.float32)


def estimate_priors(
    probabilities: NDArray[np.floating],
    trained: Sequence[float] | NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> NDArray[np.float64]:
    """Return the shares of the classes that explain a model's probabilities best, by expectation maximisation.

    The maximum of the likelihood (Saerens, Latinne, Decaestecker 2002), of which there is one. The same numbers give
    the same shares on any number of threads. Some million windows say as much as all: it holds 8 bytes for each window
    and class.

    Parameters
    ----------
    probabilities
        Calibrated, before any correction, of windows where the model is used; ``(window, class)``.
    trained
        The shares of the classes that the model takes for granted (see `correct_priors`).
    weights
        How much each window counts, ``(window,)``; None: all the same.

    Returns
    -------
    NDArray[np.float64]
        Shape ``(class,)``, the sum is 1.

    Raises
    ------
    SettingsError
        If an argument is not as said, or shares are not one per class, not negative, with the sum 1.

    Examples
    --------
    >>> estimate_priors(np.array([[0.8, 0.2]] * 7 + [[0.2, 0.8]] * 3), trained=[0.5, 0.5]).round(3)
    array([0.833, 0.167])
    """
    values = np.maximum(checked(probabilities), LEAST)
    before = _priors("trained", trained, values.shape[1])
    shares = np.zeros_like(before)
    heard = before > 0
    likelihood = values[:, heard] / before[heard]
    shares[heard] = _most_likely(likelihood[np.newaxis], normalised(weights, len(values))[np.newaxis])[0]
    return shares


def prevalence(
    counts: NDArray[np.number], confusions: NDArray[np.number], *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> Prevalence:
    """Return how frequent classes are, from the labels that a model gave and the mistakes that it is known to make.

    The estimate is the mixture of classes under which the counted labels are most likely, given how often each class
    was taken for each other among the validation speakers: the adjusted count (Gart, Buck 1966; Forman 2008), kept
    between 0 and 1. It needs no calibrated probabilities and no knowledge of the training's mixture. To each class's
    row of mistakes one window is added, spread over all labels, so that what was never seen in validation is taken for
    rare, not for impossible.

    The interval is that of a Bayesian bootstrap (Rubin 1981) over calls and over validation speakers at once. It
    accounts for the choice of calls, windows of a call being alike, and for how little the validation speakers say of
    the mistakes. It does not account for mistakes that are others in calls than they were in validation (acted speech,
    other microphones, other languages), nor for emotions that are none of the classes; and it is too narrow for fewer
    than about 20 calls or speakers.

    Parameters
    ----------
    counts
        Windows, or their weights, by label: ``(call, label)``. The labels are the classes, then perhaps others, such as
        that none was given.
    confusions
        Numbers of windows of the validation speakers, by true class: ``(speaker, class, label)``; cut and judged as
        in the calls. `emolib.learning.intervals.confusions` makes them
        (with one class more for windows without a label, whose row is left out).
    draws
        Number of draws.
    seed
        Of the draws.
    level
        Share of the draws that lie inside the interval.

    Raises
    ------
    SettingsError
        If shapes do not go together, a number is negative, nothing was counted, a class has no validation window, or
        the level is not between 0 and 1.

    Examples
    --------
    >>> mistakes = np.array([[[80, 20], [30, 70]]] * 20)
    >>> found = prevalence(np.array([[75, 25], [80, 20], [70, 30]] * 20), mistakes)
    >>> found.estimate.round(2), found.interval.round(2)
    (array([0.9, 0.1]), array([[0.88, 0.92],
           [0.08, 0.12]]))
    """
    labels, mistakes = np.asarray(counts, np.float64), np.asarray(confusions, np.float64)
    _check_counts(labels, mistakes)
    if not 0 < level < 1:
        raise SettingsError(f"a level of {level:g} found, expected one between 0 and 1, such as 0.95")
    spread = 1 / labels.shape[1]
    estimate = _mixtures(labels.sum(axis=0)[np.newaxis], mistakes.sum(axis=0)[np.newaxis] + spread)[0]
    if len(labels) == 1 or len(mistakes) == 1:
        return Prevalence(estimate, None)
    generator = np.random.default_rng(seed)
    drawn_mistakes = _drawn(mistakes, draws, generator)
    drawn_mistakes += generator.gamma(spread, size=drawn_mistakes.shape)
    mixtures = _mixtures(_drawn(labels, draws, generator), drawn_mistakes)
    return Prevalence(estimate, np.quantile(mixtures, [(1 - level) / 2, (1 + level) / 2], axis=0).T)


def _drawn(each: NDArray[np.float64], draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return sums of what each call or speaker counted, ``(draw, …)``, each draw with other random weights."""
    flat = each.reshape(len(each), -1)
    sums = np.zeros((draws, flat.shape[1]))
    for start in range(0, len(flat), _GROUPS):
        part = flat[start : start + _GROUPS]
        sums += np.einsum("dg,gn->dn", generator.exponential(size=(draws, len(part))), part)
    return sums.reshape(draws, *each.shape[1:])


def _mixtures(labels: NDArray[np.float64], mistakes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the most likely mixtures, ``(draw, class)``.

    Parameters
    ----------
    labels
        What was counted, ``(draw, label)``.
    mistakes
        How often each class was given each label, above 0; ``(draw, class, label)``.
    """
    taken_for = mistakes / mistakes.sum(axis=2, keepdims=True)
    return _most_likely(taken_for.transpose(0, 2, 1), labels / labels.sum(axis=1, keepdims=True))


def _most_likely(likelihood: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares of classes that maximise the likelihood, ``(draw, class)``, by expectation maximisation.

    Parameters
    ----------
    likelihood
        Of each row under each class, but for a factor for the row; above 0, ``(draw, row, class)``.
    weights
        Of the rows, each draw's sum is 1; ``(draw, row)``.
    """
    draws, _, classes = likelihood.shape
    shares = np.full((draws, classes), 1 / classes)
    for _ in range(_STEPS):
        # Not as a matrix product: that would add up in another order on another number of threads.
        together = np.einsum("drc,dc->dr", likelihood, shares)
        before, shares = shares, shares * np.einsum("drc,dr->dc", likelihood, weights / together)
        if np.abs(shares - before).max() < _TOLERANCE:
            break
    return shares


def _priors(name: str, shares: Sequence[float] | NDArray[np.floating], classes: int) -> NDArray[np.float64]:
    values = np.asarray(shares, np.float64)
    if values.shape != (classes,):
        raise SettingsError(f"{values.size} {name} shares found, expected {classes}, one for each class")
    if not (values >= 0).all():
        raise SettingsError(f"{name} shares down to {values.min():g} found, expected each of at least 0")
    if not abs(values.sum() - 1) < 1e-6:
        raise SettingsError(f"{name} shares with the sum {values.sum():g} found, expected 1: divide them by their sum")
    return values


def _check_counts(labels: NDArray[np.float64], mistakes: NDArray[np.float64]) -> None:
    if labels.ndim != 2 or mistakes.ndim != 3 or labels.shape[1] != mistakes.shape[2]:
        raise SettingsError(
            f"counts of shape {labels.shape} and confusions of shape {mistakes.shape} found, expected (call, label) "
            "and (speaker, class, label)"
        )
    for name, values in (("counts", labels), ("confusions", mistakes)):
        if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
            raise SettingsError(f"{name} without a window or below 0 found, expected at least one window")
    missing = np.flatnonzero(mistakes.sum(axis=(0, 2)) == 0)
    if missing.size:
        raise SettingsError(
            f"class {missing[0]} without a validation window found, expected some of every class: leave it out"
        )
