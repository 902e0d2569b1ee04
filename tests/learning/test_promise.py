"""A promised precision: speakers who chose nothing say whether it holds; where there are too few, that is said."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from emolib.corpora import splits
from emolib.errors import SettingsError
from emolib.learning.promise import further_speakers, validate_promise
from emolib.learning.validation import Validation

WANTED = 0.8


def _heard(generator: np.random.Generator, speakers: int, *, skill: float, spread: float = 0.0) -> Validation:
    """Windows of speakers of whom a network of two classes is right as often as it says, times their skill."""
    said, truth, names = [], [], []
    for speaker in range(speakers):
        confidence = generator.uniform(0.5, 1.0, 50)
        chance = np.clip(confidence * skill + generator.normal(0, spread), 0, 1)
        said.append(np.stack([confidence, 1 - confidence], axis=1))
        truth.append((generator.random(50) > chance).astype(np.int64))
        names += [f"mine/{speaker}"] * 50
    return Validation(np.concatenate(said).astype(np.float32), np.concatenate(truth), np.array(names))


def test_a_threshold_of_easy_speakers_does_not_hold_for_hard_ones() -> None:
    generator = np.random.default_rng(0)
    found = validate_promise(_heard(generator, 4, skill=1.0), _heard(generator, 6, skill=0.7), WANTED)
    assert found.chosen.precision >= WANTED
    assert found.checked is not None
    assert found.checked.interval is not None
    assert found.checked.precision < found.checked.interval[1] < WANTED
    assert found.verdict == "not kept"
    report = json.loads(json.dumps(found.report()))
    assert report["verdict"] == "not kept"
    assert report["checked"]["speakers"] == [f"mine/{speaker}" for speaker in range(6)]


def test_the_figures_are_those_of_the_further_speakers_at_the_threshold_that_was_chosen() -> None:
    generator = np.random.default_rng(1)
    further = _heard(generator, 6, skill=1.1)
    found = validate_promise(_heard(generator, 4, skill=1.0), further, WANTED)
    confidence, correct = further.confidence()
    labelled = confidence >= found.threshold
    assert found.checked is not None
    assert found.checked.precision == correct[labelled].mean() > WANTED
    assert found.checked.coverage == labelled.mean()
    assert found.checked.accuracy == correct.mean()
    assert found.verdict == "kept"


def test_what_exchangeable_speakers_reach_is_seldom_called_not_kept() -> None:
    """Speakers of one kind differ: their chance must not be taken for a promise that is not kept."""
    generator = np.random.default_rng(2)
    verdicts = []
    for _ in range(300):
        known = _heard(generator, 40, skill=1.0, spread=0.1)  # so many that the threshold is right
        verdicts.append(validate_promise(known, _heard(generator, 4, skill=1.0, spread=0.1), WANTED).verdict)
    assert verdicts.count("not kept") < 0.06 * len(verdicts)
    assert verdicts.count("kept") > 0.3 * len(verdicts)


def test_nothing_is_validated_by_nobody_by_one_or_by_windows_without_labels() -> None:
    generator = np.random.default_rng(3)
    known = _heard(generator, 4, skill=1.0)
    assert validate_promise(known, None, WANTED).verdict == "not validated"
    one = validate_promise(known, _heard(generator, 1, skill=0.1), WANTED)
    assert one.verdict == "not validated"
    assert one.checked is not None
    assert (one.checked.interval, one.checked.precision is None) == (None, False)
    further = _heard(generator, 4, skill=1.0)
    unsure = further._replace(probabilities=np.full_like(further.probabilities, 0.5))
    none = validate_promise(known, unsure, WANTED)
    assert none.verdict == "not validated"
    assert none.checked is not None
    assert (none.checked.precision, none.checked.coverage) == (None, 0.0)


def test_a_precision_that_nobody_reaches_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"0\.99 is not reached by any threshold"):
        validate_promise(_heard(np.random.default_rng(4), 4, skill=0.8), None, 0.99)


# ---- Who checks


def _corpus(speakers: int) -> tuple[pd.DataFrame, np.ndarray]:
    rows = pd.DataFrame(list(itertools.product(range(speakers), range(2), range(5))), columns=["s", "label", "n"])
    names = rows.astype(str).agg("-".join, axis=1)
    speaker = rows["s"].astype(str)
    table = pd.DataFrame({"corpus": "mine", "speaker": speaker, "utterance_id": names, "content_hash": names})
    return table, rows["label"].to_numpy(np.int64)


@pytest.mark.parametrize(("speakers", "expected"), [(2, None), (4, None), (5, 2), (12, 2), (40, 7)])
def test_further_speakers_are_a_fifth_and_two_at_least(speakers: int, expected: int | None) -> None:
    windows, labels = _corpus(speakers)
    everybody = np.ones(len(windows), bool)
    for seed in range(5):
        aside = splits.validation(windows, labels, everybody, seed=seed)
        chosen = further_speakers(windows, labels, everybody & ~aside, seed=seed)
        if expected is None:
            assert chosen is None
            continue
        assert chosen is not None
        names = windows["corpus"] + "/" + windows["speaker"]
        assert names[chosen].nunique() == expected
        assert not set(names[chosen]) & (set(names[aside]) | set(names[~chosen & ~aside]))
        order = np.random.default_rng(seed).permutation(len(windows))
        again = further_speakers(windows.iloc[order], labels[order], (everybody & ~aside)[order], seed=seed)
        np.testing.assert_array_equal(again, chosen[order])
