from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from emolib.errors import SettingsError
from emolib.learning.priors import correct_priors, estimate_priors, prevalence

BALANCED = np.full(3, 1 / 3)
CALLS = np.array([0.85, 0.1, 0.05])
CENTRES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
LOGITS = arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(-200, 200, width=32))
SHARES = arrays(np.float64, 3, elements=st.floats(0.01, 1)).map(lambda values: values / values.sum())


def _posteriors(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return what a perfect model says that takes three classes for equally frequent; each has a Gaussian."""
    points = CENTRES[labels] + generator.normal(size=(*labels.shape, 2))
    return softmax(-np.square(points[..., np.newaxis, :] - CENTRES).sum(axis=-1) / 2, axis=-1)


@given(LOGITS, SHARES, SHARES)
def test_a_correction_has_an_inverse_and_takes_rows_one_by_one(logits: Any, trained: Any, wanted: Any) -> None:
    probabilities = softmax(logits.clip(-5, 5), axis=1)
    there = correct_priors(probabilities, trained, wanted)
    np.testing.assert_allclose(correct_priors(there, wanted, trained), probabilities, atol=1e-5)
    np.testing.assert_allclose(correct_priors(probabilities, trained, trained), probabilities, atol=1e-6)
    for row, expected in zip(probabilities, there, strict=True):
        np.testing.assert_array_equal(correct_priors(row[np.newaxis], trained, wanted)[0], expected)


@given(LOGITS, SHARES)
def test_probabilities_stay_some_where_a_class_is_impossible(logits: Any, trained: Any) -> None:
    found = correct_priors(softmax(logits, axis=1), trained, [0.0, 0.5, 0.5])
    assert (found[:, 0] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@given(LOGITS, SHARES)
def test_estimated_priors_are_shares_whatever_the_probabilities(logits: Any, trained: Any) -> None:
    found = estimate_priors(softmax(logits, axis=1), trained)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)


def test_the_mixture_of_an_archive_is_estimated_and_the_correction_helps() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 20_000, p=CALLS)
    probabilities = _posteriors(labels, generator)
    naive = np.bincount(probabilities.argmax(axis=1)) / len(labels)
    assert np.abs(naive - CALLS).max() > 0.05
    found = estimate_priors(probabilities, BALANCED)
    np.testing.assert_allclose(found, CALLS, atol=0.015)
    corrected = correct_priors(probabilities, BALANCED, found)
    right = [np.mean(each.argmax(axis=1) == labels) for each in (probabilities, corrected)]
    assert right[1] > right[0] + 0.05
    np.testing.assert_allclose(corrected.mean(axis=0), found, atol=1e-4)  # the mark of a maximum


def test_weights_count_as_repetitions() -> None:
    generator = np.random.default_rng(1)
    probabilities = _posteriors(generator.choice(3, 500, p=CALLS), generator)
    times = generator.integers(0, 4, 500)
    repeated = estimate_priors(np.repeat(probabilities, times, axis=0), BALANCED)
    np.testing.assert_allclose(estimate_priors(probabilities, BALANCED, times), repeated, atol=1e-5)


def test_certain_probabilities_are_counted() -> None:
    np.testing.assert_allclose(estimate_priors(np.eye(3)[[0, 0, 1]], BALANCED), [2 / 3, 1 / 3, 0], atol=1e-6)


def _counts(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels by call, where calls differ in their mixture, and mistakes by validation speaker, balanced."""
    generator = np.random.default_rng(seed)
    mixtures = generator.dirichlet(6 * CALLS, size=120)
    in_calls = np.stack([generator.choice(3, 30, p=mixture) for mixture in mixtures])
    labels = _posteriors(in_calls, generator).argmax(axis=-1)
    counts = (labels[..., np.newaxis] == np.arange(3)).sum(axis=1)
    in_corpus = np.tile(np.repeat(np.arange(3), 5), (25, 1))
    taken_for = _posteriors(in_corpus, generator).argmax(axis=-1).reshape(25, 3, 5)
    return counts, (taken_for[..., np.newaxis] == np.arange(3)).sum(axis=2)


@pytest.mark.slow
def test_prevalence_covers_the_mixture_that_raw_counts_miss() -> None:
    covered, raw = [], []
    for seed in range(60):
        counts, mistakes = _counts(seed)
        found = prevalence(counts, mistakes, draws=200, seed=seed)
        assert found.interval is not None
        covered.append((found.interval[:, 0] <= CALLS) & (found.interval[:, 1] >= CALLS))
        raw.append(counts.sum(axis=0) / counts.sum())
        assert found.estimate.sum() == pytest.approx(1)
    assert np.min(np.mean(covered, axis=0)) >= 0.88
    assert np.abs(np.mean(raw, axis=0) - CALLS).max() > 0.1


def test_more_validation_speakers_narrow_the_interval() -> None:
    counts, mistakes = _counts(0)
    few, many = prevalence(counts, mistakes).interval, prevalence(counts, np.tile(mistakes, (16, 1, 1))).interval
    assert few is not None
    assert many is not None
    assert (np.diff(many) < 0.6 * np.diff(few)).all()


def test_perfect_labels_are_counted_and_abstained_ones_are_a_label_more() -> None:
    mistakes = np.zeros((20, 2, 3))
    mistakes[:, 0, 0] = mistakes[:, 1, 1] = 500
    found = prevalence(np.array([[75, 25, 0]] * 5), mistakes)
    np.testing.assert_allclose(found.estimate, [0.75, 0.25], atol=1e-3)
    mistakes[:, 1] = [0, 250, 250]  # of the second class, every other window gets no label
    found = prevalence(np.array([[50, 25, 25]] * 5), mistakes)
    np.testing.assert_allclose(found.estimate, [0.5, 0.5], atol=1e-3)


def test_labels_that_validation_never_saw_and_classes_that_are_never_predicted() -> None:
    mistakes = np.array([[[10, 0, 0], [10, 0, 0]]] * 3)
    found = prevalence(np.array([[5, 1, 0], [5, 0, 1]]), mistakes)
    np.testing.assert_allclose(found.estimate, [0.5, 0.5])  # the labels say nothing
    assert found.interval is not None
    assert (np.diff(found.interval) > 0.8).all()


@pytest.mark.parametrize(("calls", "speakers"), [(1, 5), (5, 1)])
def test_one_call_or_one_speaker_says_nothing_about_others(calls: int, speakers: int) -> None:
    found = prevalence(np.full((calls, 2), 3), np.array([[[4, 1], [1, 4]]] * speakers))
    np.testing.assert_allclose(found.estimate, [0.5, 0.5])
    assert found.interval is None


def test_the_same_seed_gives_the_same_interval() -> None:
    counts, mistakes = _counts(0)
    first, second, other = (prevalence(counts, mistakes, draws=50, seed=seed).interval for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


HALF = np.array([[0.5, 0.5]])
MISTAKES = np.array([[[4, 1], [1, 4]]] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correct_priors(HALF, [0.5, 0.5], [0.5, 0.6]), "wanted shares with the sum 1.1 found, expected 1"),
        (lambda: correct_priors(HALF, [0.5, 0.5], [1.5, -0.5]), "wanted shares down to -0.5 found"),
        (lambda: correct_priors(HALF, [0.5, 0.5], [np.nan, 1.0]), "wanted shares down to nan found"),
        (lambda: correct_priors(HALF, [0.5, 0.5], [1.0]), "1 wanted shares found, expected 2"),
        (lambda: correct_priors(HALF, [1.0, 0.0], [0.5, 0.5]), "a wanted share of 0.5 found for class 1"),
        (lambda: correct_priors(2 * HALF, [0.5, 0.5], [0.5, 0.5]), "no distribution"),
        (lambda: estimate_priors(HALF, [0.2, 0.2, 0.6]), "3 trained shares found, expected 2"),
        (lambda: estimate_priors(HALF, [0.5, 0.5], np.array([-1.0])), "weights of shape"),
        (lambda: prevalence(np.ones(2), MISTAKES), "counts of shape"),
        (lambda: prevalence(np.ones((2, 3)), MISTAKES), "counts of shape"),
        (lambda: prevalence(np.zeros((2, 2)), MISTAKES), "counts without a window"),
        (lambda: prevalence(np.ones((2, 2)), -MISTAKES), "confusions without a window or below 0"),
        (lambda: prevalence(np.ones((2, 2)), MISTAKES * [[1], [0]]), "class 1 without a validation window"),
        (lambda: prevalence(np.ones((2, 2)), MISTAKES, level=1.0), "level of 1 found"),
    ],
)
def test_what_is_wrong_is_refused(call: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        call()
