from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from emolib.errors import SettingsError
from emolib.learning import intervals
from emolib.learning.evaluation import metrics
from emolib.learning.intervals import (
    confusions,
    correlation_intervals,
    correlations,
    share_interval,
    speaker_intervals,
)

CLASSES = ("anger", "calm", "joy", "sadness")
UTTERANCES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([("tess", "1"), ("tess", "2"), ("savee", "1")])),
    min_size=1,
    max_size=40,
)


def _columns(rows: list[tuple[int, int, Any]]) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    true, predicted, speakers = zip(*rows, strict=True)
    return np.array(true), np.array(predicted), list(speakers)


@given(UTTERANCES)
def test_the_figures_are_those_of_the_evaluation(rows: list[tuple[int, int, Any]]) -> None:
    true, predicted, speakers = _columns(rows)
    each = confusions(true, predicted, speakers, classes=4)
    names = np.array(CLASSES, dtype=object)
    expected = metrics(pd.DataFrame({"true": names[true], "predicted": names[predicted]}), CLASSES)
    assert each.sum(axis=0).tolist() == expected["confusion"]
    found = intervals._headline(each.sum(axis=0, keepdims=True))
    assert {name: values.item() for name, values in found.items()} == pytest.approx(
        {name: expected[name] for name in found}
    )


@given(UTTERANCES, st.randoms(use_true_random=False))
def test_order_and_names_change_nothing(rows: list[tuple[int, int, Any]], random: Any) -> None:
    true, predicted, speakers = _columns(rows)
    found = speaker_intervals(true, predicted, speakers, classes=4, draws=20)
    random.shuffle(rows)
    true, predicted, speakers = _columns(rows)
    assert speaker_intervals(true, predicted, [hash(name) for name in speakers], classes=4, draws=20) == found
    assert (found is None) == (len(set(speakers)) == 1)
    for low, high in (found or {}).values():
        assert 0 <= low <= high <= 1


def test_speakers_who_are_all_alike_leave_no_doubt() -> None:
    true, predicted = np.tile([0, 1, 2], 5), np.tile([0, 1, 1], 5)
    found = speaker_intervals(true, predicted, np.repeat(np.arange(5), 3), classes=3)
    assert found is not None
    assert found["accuracy"] == pytest.approx((2 / 3, 2 / 3))
    assert found["uar"] == pytest.approx((2 / 3, 2 / 3))
    assert found["macro_f1"] == pytest.approx((5 / 9, 5 / 9))


def test_perfect_predictions_are_perfect_whoever_is_drawn() -> None:
    true = np.repeat(np.arange(4), 3)  # each speaker has one class: most draws lack some
    found = speaker_intervals(true, true, true, classes=4)
    assert found == {"accuracy": (1.0, 1.0), "uar": (1.0, 1.0), "macro_f1": (1.0, 1.0)}


def test_intervals_cover_the_figure_of_all_speakers() -> None:
    generator = np.random.default_rng(0)
    covered = []
    for seed in range(100):
        skill = np.repeat(generator.beta(6, 3, size=30), 10)  # accuracy 2/3, with speakers who are easy or hard
        true = np.tile([0, 1], 150)
        predicted = np.where(generator.random(300) < skill, true, 1 - true)
        found = speaker_intervals(true, predicted, np.repeat(np.arange(30), 10), classes=2, draws=200, seed=seed)
        assert found is not None
        covered.append([low <= 2 / 3 <= high for low, high in (found["accuracy"], found["uar"])])
    assert np.min(np.mean(covered, axis=0)) >= 0.88


def test_the_same_seed_gives_the_same_interval_and_a_lower_level_a_narrower_one() -> None:
    generator = np.random.default_rng(1)
    true, predicted, speakers = generator.integers(0, 3, 200), generator.integers(0, 3, 200), np.arange(200) % 20
    wide = speaker_intervals(true, predicted, speakers, classes=3)
    narrow = speaker_intervals(true, predicted, speakers, classes=3, level=0.5)
    assert wide == speaker_intervals(true, predicted, speakers, classes=3)
    assert wide != speaker_intervals(true, predicted, speakers, classes=3, seed=1)
    assert wide is not None
    assert narrow is not None
    assert all(wide[name][0] < narrow[name][0] < narrow[name][1] < wide[name][1] for name in wide)


@pytest.mark.parametrize(
    ("true", "predicted", "speakers", "level", "message"),
    [
        ([], [], [], 0.95, "0 true classes"),
        ([0], [0, 1], ["a", "b"], 0.95, "1 true classes, 2 predicted ones and 2 speakers"),
        ([0, 2], [0, 1], ["a", "b"], 0.95, "true classes from 0 to 2 found, expected 0 to 1"),
        ([0, 1], [-1, 1], ["a", "b"], 0.95, "predicted classes from -1 to 1"),
        ([0, 1], [0, 1], ["a", "b"], 95, "level of 95"),
    ],
)
def test_what_is_wrong_is_refused(true: Any, predicted: Any, speakers: Any, level: float, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        speaker_intervals(np.array(true), np.array(predicted), speakers, classes=2, level=level)


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9), st.sampled_from("abc")), min_size=2, max_size=30))
def test_correlations_lie_within_one_and_a_measure_agrees_with_itself(rows: list[tuple[int, int, str]]) -> None:
    first, second, speakers = (np.array(column) for column in zip(*rows, strict=True))
    found = correlations(first, second)
    assert (found["pearson"] is None) == (len(set(first)) == 1 or len(set(second)) == 1)
    if found["pearson"] is not None:
        assert found["pearson"] == pytest.approx(correlations(second, 3.0 * first + 1)["pearson"])
        assert -1 <= found["spearman"] <= 1
        assert correlations(first, first) == pytest.approx({"pearson": 1.0, "spearman": 1.0})
    bounds = correlation_intervals(first, second, speakers, draws=20)
    if len(set(speakers)) == 1:
        assert bounds is None
    elif bounds is not None:
        assert all(-1 <= low <= high <= 1 for low, high in bounds.values())


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=1), st.randoms(use_true_random=False))
def test_the_interval_of_a_share_holds_it_whatever_the_order(items: list[tuple[bool, str]], random: Any) -> None:
    def found() -> tuple[float, float] | None:
        hits, speakers = zip(*items, strict=True)
        return share_interval(np.array(hits), speakers)

    interval = found()
    assert (interval is None) == (len({speaker for _, speaker in items}) < 2)
    random.shuffle(items)
    assert found() == (None if interval is None else pytest.approx(interval))
    if interval is not None:
        assert 0 <= interval[0] <= np.mean([hit for hit, _ in items]) + 1e-12
        assert np.mean([hit for hit, _ in items]) - 1e-12 <= interval[1] <= 1


def test_the_interval_of_a_share_is_as_wide_as_it_says() -> None:
    """Of few speakers who differ: 95 of 100 intervals hold what all speakers together have."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(400):
        chances = np.repeat(generator.uniform(0.5, 0.9, 4), 50)
        low, high = share_interval(generator.random(200) < chances, np.repeat(np.arange(4), 50).tolist()) or (1.0, 0.0)
        held += low <= 0.7 <= high
    assert 0.92 < held / 400 < 0.99
