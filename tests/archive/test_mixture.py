"""How frequent emotions are: priors that are given, and a mixture that is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from emolib.archive.aggregates import judge, labels_of, mistakes
from emolib.archive.mixture import mixture
from emolib.archive.run_settings import run_config, scoring_fingerprint
from emolib.config import ScoringConfig
from emolib.errors import SettingsError
from emolib.learning.priors import correct_priors
from emolib.learning.validation import Validation
from tests.archive.conftest import FakeBundle

CALLS = {"negative": 0.1, "neutral": 0.85, "positive": 0.05}
# How often each of the three classes is taken for each.
TAKEN_FOR = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])


def test_given_priors_correct_the_published_probabilities_before_anything_is_judged(bundle: FakeBundle) -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(6), 50).astype(np.float32)
    where: dict[str, Any] = {"weight": np.ones(50, np.int32), "start_s": np.arange(50.0), "end_s": np.arange(50.0) + 4}

    def judged(config: ScoringConfig) -> Any:
        return judge(probabilities, labels_of(bundle, config), abstention_threshold=0.5, **where)

    plain, corrected = judged(ScoringConfig()), judged(ScoringConfig(priors=CALLS))
    expected = correct_priors(plain.probabilities, np.full(3, 1 / 3), list(CALLS.values()))
    np.testing.assert_array_equal(corrected.probabilities, expected)
    np.testing.assert_array_equal(corrected.confidence, expected.max(axis=1))
    np.testing.assert_array_equal(corrected.emotion, np.where(expected.max(axis=1) < 0.5, -1, expected.argmax(axis=1)))
    np.testing.assert_allclose(corrected.polarity, expected, atol=1e-6)
    np.testing.assert_array_equal(judged(ScoringConfig(priors=dict.fromkeys(CALLS, 1 / 3))).emotion, plain.emotion)


def test_given_priors_change_the_scoring_fingerprint_and_their_order_does_not(bundle: FakeBundle) -> None:
    wanted = {"negative": 0.1, "neutral": 0.2, "positive": 0.7}
    turned = dict(reversed(wanted.items()))
    found = [scoring_fingerprint(bundle, ScoringConfig(priors=priors)) for priors in ({}, wanted, turned)]
    assert found[0] != found[1] == found[2]


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ({"negative": 0.5, "neutral": 0.5}, "expected one of each: negative, neutral, positive"),
        ({**CALLS, "rage": 0.0}, "priors of negative, neutral, positive, rage found"),
        ({**CALLS, "neutral": 0.8}, "the sum 0.95 found, expected 1"),
        (dict.fromkeys(CALLS, 0.0), "the sum 0 found, expected 1"),
    ],
)
def test_priors_that_are_no_mixture_are_refused(bundle: FakeBundle, priors: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        run_config(bundle, model="m", archive="a", scoring=ScoringConfig(priors=priors))


def test_a_class_that_was_never_heard_cant_be_asked_for(bundle: FakeBundle) -> None:
    bundle.priors = {name: 0.0 if name.endswith("positive") else 0.25 for name in bundle.classes}
    with pytest.raises(SettingsError, match="a prior above 0 of positive found"):
        labels_of(bundle, ScoringConfig(priors=CALLS))
    assert labels_of(bundle, ScoringConfig(priors={"negative": 0.1, "neutral": 0.9, "positive": 0.0})).trained[2] == 0


def test_mistakes_are_those_of_the_labels_that_calls_get(bundle: FakeBundle) -> None:
    plain = mistakes(bundle, ScoringConfig())
    # Of each gender a window of each class is right and one is taken for `female_negative`.
    assert plain.tolist() == [[[4, 0, 0, 0], [2, 2, 0, 0], [2, 0, 2, 0]]] * 2
    neutral = mistakes(bundle, ScoringConfig(priors={"negative": 0.0, "neutral": 1.0, "positive": 0.0}))
    assert neutral[:, :, 1].sum() == neutral.sum()
    bundle.abstention_threshold = 0.9
    assert mistakes(bundle, ScoringConfig())[:, :, 3].all()


def test_the_mixture_of_an_archive_is_found_where_counting_labels_misses_it(bundle: FakeBundle) -> None:
    generator = np.random.default_rng(1)
    windows, recordings = _archive(generator, calls=60)
    config = run_config(bundle, model="m", archive="a", scoring=ScoringConfig()).model_copy(
        update={"mistakes": _validated().mistakes(None).tolist()}
    )
    found = mixture(windows, recordings, config)
    assert found is not None
    truth = np.array(list(CALLS.values()))
    assert found.classes == tuple(CALLS)
    assert np.abs(found.counted - truth).max() > 0.12
    assert np.abs(found.prevalence.estimate - truth).max() < 0.05
    assert found.prevalence.interval is not None
    assert ((found.prevalence.interval[:, 0] < truth) & (truth < found.prevalence.interval[:, 1])).all()
    assert np.abs(found.likely - truth).max() < 0.05


def test_a_class_without_validation_windows_is_not_known(bundle: FakeBundle) -> None:
    generator = np.random.default_rng(2)
    heard = _validated()
    some = heard.truth != 2
    config = run_config(bundle, model="m", archive="a", scoring=ScoringConfig()).model_copy(
        update={"mistakes": Validation(*(each[some] for each in heard)).mistakes(None).tolist()}
    )
    found = mixture(*_archive(generator, calls=3), config)
    assert found is not None
    assert np.isnan(found.prevalence.estimate).tolist() == [False, False, True]
    assert np.nansum(found.prevalence.estimate) == pytest.approx(1)


def test_nothing_scored_has_no_mixture(bundle: FakeBundle) -> None:
    config = run_config(bundle, model="m", archive="a", scoring=ScoringConfig())
    windows, recordings = _archive(np.random.default_rng(0), calls=1)
    assert mixture(windows.iloc[:0], recordings, config) is None
    silent = mixture(windows.assign(emotion=None), recordings, config)
    assert silent is not None
    assert np.isnan(silent.counted).all()


def _archive(generator: np.random.Generator, *, calls: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return 100 windows a call, of a model whose probabilities say how often it is mistaken."""
    names = list(CALLS)
    truth = generator.choice(3, calls * 100, p=list(CALLS.values()))
    said = np.array([generator.choice(3, p=TAKEN_FOR[each]) for each in truth])
    posterior = (TAKEN_FOR / TAKEN_FOR.sum(axis=0)).T
    columns = {f"p_{name}": posterior[said, number] for number, name in enumerate(names)}
    ids = np.repeat([f"r{call}" for call in range(calls)], 100)
    windows = pd.DataFrame({"recording_id": ids, "emotion": np.array(names)[said], **columns})
    recordings = pd.DataFrame({"recording_id": [f"r{call}" for call in range(calls)]})
    return windows, recordings.assign(call_id=recordings["recording_id"])


def _validated() -> Validation:
    """Return ten speakers, each with ten windows of every class, mistaken as often as is said above."""
    taken = (TAKEN_FOR * 10).round().astype(int)
    said = np.concatenate([np.repeat(np.arange(3), row) for row in taken])
    probabilities = np.tile(np.eye(3, dtype=np.float32)[said], (10, 1))
    return Validation(probabilities, np.tile(np.arange(3).repeat(10), 10), np.repeat([f"v/{n}" for n in range(10)], 30))
