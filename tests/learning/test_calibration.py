from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from emolib.errors import SettingsError
from emolib.learning.calibration import (
    Threshold,
    abstention_threshold,
    coverage,
    expected_calibration_error,
    fit_temperature,
    reliability,
    soften,
)

LOGITS = arrays(np.float32, st.tuples(st.integers(1, 30), st.just(9)), elements=st.floats(-200, 200, width=32))
CONFIDENCES = st.lists(st.tuples(st.integers(0, 20).map(lambda step: step / 20), st.booleans()), min_size=1)


def _world(n: int, *, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are too sure by a temperature, and labels drawn from the right ones."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (n, 4))
    right = softmax(logits, axis=1).cumsum(axis=1)
    labels = (generator.random((n, 1)) > right[:, :-1]).sum(axis=1)
    return softmax(logits * temperature, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_and_mends_the_error(temperature: float) -> None:
    probabilities, labels = _world(5000, temperature=temperature)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    fresh, truth = _world(5000, temperature=temperature, seed=1)
    after = expected_calibration_error(soften(fresh, found), truth)
    assert after < 0.03
    if temperature != 1.0:
        assert after < 0.5 * expected_calibration_error(fresh, truth)


def test_weights_count_as_repetitions() -> None:
    probabilities, labels = _world(300, temperature=2.0)
    times = np.random.default_rng(2).integers(0, 4, 300)
    repeated = fit_temperature(np.repeat(probabilities, times, axis=0), np.repeat(labels, times))
    assert fit_temperature(probabilities, labels, times) == pytest.approx(repeated, rel=1e-4)


def test_the_temperature_stays_within_its_bounds_where_none_is_best() -> None:
    right, wrong = np.array([[0.6, 0.4]]), np.array([[1.0, 0.0]], np.float32)
    assert 0.05 <= fit_temperature(right, np.array([0])) < 0.051
    assert 19.9 < fit_temperature(wrong, np.array([1])) <= 20  # the likelihood of a probability of 0 is finite


@given(LOGITS, st.floats(0.05, 20))
def test_each_row_is_softened_by_itself_to_the_bit(logits: np.ndarray, temperature: float) -> None:
    probabilities = softmax(logits, axis=1)
    whole = soften(probabilities, temperature)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, soften(np.asfortranarray(probabilities), temperature))
    np.testing.assert_array_equal(whole, soften(np.repeat(probabilities, 2, axis=0)[::2], temperature))
    for row, expected in zip(probabilities, whole, strict=True):
        np.testing.assert_array_equal(soften(row[np.newaxis], temperature)[0], expected)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    top = probabilities.argmax(axis=1)
    np.testing.assert_array_equal(whole[np.arange(len(top)), top], whole.max(axis=1))


def test_no_window_and_a_temperature_of_1_change_nothing() -> None:
    assert soften(np.zeros((0, 3), np.float32), 2.0).shape == (0, 3)
    probabilities = softmax(np.arange(6, dtype=np.float32).reshape(2, 3), axis=1)
    assert soften(probabilities, 1.0).tobytes() == probabilities.tobytes()


def test_reliability_by_hand() -> None:
    confidence = np.array([0.5, 0.75, 0.76, 0.95, 1.0])
    labels = np.array([0, 0, 1, 0, 0])
    found = reliability(np.stack([confidence, 1 - confidence], axis=1), labels, bins=4)
    np.testing.assert_array_equal(found.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_array_equal(found.count, [0, 1, 1, 3])
    np.testing.assert_allclose(found.confidence, [np.nan, 0.5, 0.75, 2.71 / 3])
    np.testing.assert_allclose(found.accuracy, [np.nan, 1, 1, 2 / 3])
    error = expected_calibration_error(np.stack([confidence, 1 - confidence], axis=1), labels, bins=4)
    assert error == pytest.approx((0.5 + 0.25 + 3 * (2.71 / 3 - 2 / 3)) / 5)


@given(LOGITS, st.integers(0, 8), st.integers(1, 30))
def test_reliability_counts_everything_once(logits: np.ndarray, label: int, bins: int) -> None:
    probabilities, labels = softmax(logits, axis=1), np.full(len(logits), label)
    found = reliability(probabilities, labels, bins)
    some = found.count > 0
    assert found.count.sum() == len(logits)
    assert np.array_equal(some, np.isfinite(found.accuracy))
    slack = 1e-6
    assert ((found.confidence >= found.edges[:-1] - slack) & (found.confidence <= found.edges[1:] + slack))[some].all()
    right = np.mean(probabilities.argmax(axis=1) == labels)
    assert np.sum((found.accuracy * found.count)[some]) / len(logits) == pytest.approx(right)
    error = expected_calibration_error(probabilities, labels, bins)
    assert abs(right - probabilities.max(axis=1).mean()) - slack <= error <= 1 + slack


def test_sure_and_right_is_no_error_and_sure_and_wrong_the_largest() -> None:
    sure = np.eye(3, dtype=np.float32)
    assert expected_calibration_error(sure, np.arange(3)) == 0
    assert expected_calibration_error(sure, np.array([1, 2, 0])) == 1


@given(CONFIDENCES, st.floats(0.01, 1))
def test_no_other_threshold_covers_more_at_the_wanted_precision(pairs: list[tuple[float, bool]], wanted: float) -> None:
    confidence, correct = (np.array(values) for values in zip(*pairs, strict=True))
    found = abstention_threshold(confidence, correct, wanted)
    covers = 0.0
    for threshold in np.unique(confidence):
        kept = confidence >= threshold
        if kept.sum() >= 10 and correct[kept].mean() >= wanted:
            covers = max(covers, kept.mean())
    if found is None:
        assert covers == 0
    else:
        kept = confidence >= found.threshold
        assert found.coverage == pytest.approx(kept.mean()) == pytest.approx(covers)
        assert found.precision == pytest.approx(correct[kept].mean())
        assert found.precision >= wanted


def test_a_threshold_is_found_behind_a_dip_and_keeps_what_lies_on_it() -> None:
    confidence = np.repeat(np.float32([0.9, 0.8, 0.7, 0.6]), 10)
    correct = np.concatenate([np.ones(10), np.zeros(2), np.ones(8), np.ones(10), np.zeros(10)]).astype(bool)
    found = abstention_threshold(confidence, correct, 0.93)
    assert found == Threshold(float(np.float32(0.7)), 0.75, 28 / 30)
    assert np.count_nonzero(confidence >= found.threshold) == 30  # a float32 compared to the number that it became
    assert abstention_threshold(confidence, correct, 0.7) == Threshold(float(np.float32(0.6)), 1.0, 0.7)


def test_no_threshold_rests_on_a_handful() -> None:
    correct = np.array([True] * 9 + [False] * 20)
    assert abstention_threshold(np.linspace(1, 0.2, 29), correct, 0.95) is None
    assert abstention_threshold(np.array([0.5]), np.array([True]), 0.5) is None


def test_coverage_falls_from_everything() -> None:
    found = coverage(np.array([0.3, 0.9, 0.9, 0.5]), np.array([False, True, False, True]))
    assert found.coverage.tolist() == [0.5, 0.75, 1.0]
    np.testing.assert_allclose(found.precision, [1 / 2, 2 / 3, 1 / 2])


HALF = np.array([[0.5, 0.5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_temperature(np.zeros((0, 2)), np.zeros(0, int)), "shape .0, 2. found"),
        (lambda: fit_temperature(np.array([0.5, 0.5]), np.array([0])), "shape .2,. found"),
        (lambda: fit_temperature(2 * HALF, np.array([0])), "no distribution"),
        (lambda: fit_temperature(np.array([[1.5, -0.5]]), np.array([0])), "no distribution"),
        (lambda: fit_temperature(np.nan * HALF, np.array([0])), "no distribution"),
        (lambda: fit_temperature(HALF, np.array([0, 1])), "labels of shape .2,. found"),
        (lambda: fit_temperature(HALF, np.array([-1])), "class -1 found"),
        (lambda: fit_temperature(HALF, np.array([2])), "class 2 found among the labels, expected 0 to 1"),
        (lambda: fit_temperature(HALF, np.array([0]), np.array([0.0])), "weights of shape"),
        (lambda: fit_temperature(HALF, np.array([0]), np.array([1.0, 1.0])), "weights of shape"),
        (lambda: soften(HALF, 0.0), "temperature of 0 found"),
        (lambda: reliability(HALF, np.array([0]), bins=0), "0 bins found"),
        (lambda: coverage(np.array([]), np.array([], bool)), "at least one prediction"),
        (lambda: coverage(np.array([np.nan]), np.array([True])), "finite"),
        (lambda: coverage(np.array([0.5]), np.array([True, False])), "one mark"),
        (lambda: abstention_threshold(np.array([0.5]), np.array([True]), 80), "precision of 80 found"),
    ],
)
def test_what_is_wrong_is_refused(call: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        call()
