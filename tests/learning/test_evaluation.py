from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from emolib.errors import SettingsError
from emolib.learning.crossvalidation import cross_validate
from emolib.learning.evaluation import Evaluation, FoldResult, metrics, utterance_predictions

CLASSES = ("anger", "calm", "joy", "sadness")


@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=60))
def test_metrics_agree_with_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support, recall_score

    true, predicted = (list(words) for words in zip(*pairs, strict=True))
    found = metrics(pd.DataFrame({"true": true, "predicted": predicted}), CLASSES)
    assert found["accuracy"] == pytest.approx(np.mean([a == b for a, b in pairs]))
    recall = recall_score(true, predicted, labels=sorted(set(true)), average="macro", zero_division=0)
    assert found["uar"] == pytest.approx(recall)
    assert found["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro", zero_division=0))
    assert found["confusion"] == confusion_matrix(true, predicted, labels=list(CLASSES)).tolist()
    expected = precision_recall_fscore_support(true, predicted, labels=list(CLASSES), zero_division=0)
    per_class = [list(found["per_class"][name].values()) for name in CLASSES]
    np.testing.assert_allclose(per_class, np.transpose(expected))


def test_an_utterance_is_the_mean_of_its_windows_weighted_by_real_frames() -> None:
    windows = pd.DataFrame(
        {
            "utterance_id": ["b", "a", "b", "b"],
            "variant": ["clean", "clean", "clean", "noise"],
            "corpus": "mine",
            "speaker": "s",
            "gender": [None, "female", None, None],
        },
        index=[7, 3, 9, 4],
    )
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.3, 0.7]], np.float32)
    table = utterance_predictions(
        windows, np.array([0, 1, 0, 0]), probabilities, np.array([10, 5, 30, 1], np.int32), classes=("calm", "joy")
    )
    assert table[["utterance_id", "variant", "true", "predicted"]].to_numpy().tolist() == [
        ["a", "clean", "joy", "joy"],
        ["b", "clean", "calm", "joy"],
        ["b", "noise", "calm", "joy"],
    ]
    np.testing.assert_allclose(table["p_calm"], [0.4, (8 + 3) / 40, 0.3], rtol=1e-6)


def _evaluation(corpora: list[str]) -> Evaluation:
    count = len(corpora)
    true = [CLASSES[number % 4] for number in range(count)]
    clean = pd.DataFrame(
        {
            "utterance_id": [f"u{number}" for number in range(count)],
            "variant": "clean",
            "corpus": corpora,
            "speaker": [f"s{number % 4}" for number in range(count)],
            "gender": [None, *["female"] * (count - 1)],
            "true": true,
            "predicted": [*true[:-2], "calm", "calm"],
            "baseline": "calm",
            "fold": ["1", "2"] * (count // 2),
        }
    )
    noisy = clean.assign(variant="noise10", predicted="calm")
    predictions = pd.concat([clean, noisy], ignore_index=True)
    for name in CLASSES:
        predictions[f"p_{name}"] = np.where(predictions["predicted"] == name, 0.7, 0.1)
    many = {"utterances": 1, "windows": 1, "speakers": 1}
    folds = [
        FoldResult(
            name=str(name),
            train=many,
            validation=many,
            validation_speakers=["mine/s9"],
            test=many,
            metrics=metrics(part, CLASSES),
            epochs=3,
            temperature=1.5,
            thresholds=[0.6, 0.7, None],
            seconds=1.5,
        )
        for name, part in clean.groupby("fold")
    ]
    return Evaluation(
        task="native",
        protocol="random5",
        architecture="article",
        profile="small",
        seed=0,
        classes=CLASSES,
        speaker_independent=False,
        corpora=("mine",),
        copies=("telephone",),
        folds=folds,
        predictions=predictions,
        uncalibrated_error=0.3,
        left_out={"corrupt": 1},
    )


def test_report_is_plain_and_says_every_part() -> None:
    report = json.loads(json.dumps(_evaluation(["ravdess"] * 4 + ["tess"] * 4).report()))
    assert report["pooled"]["n"] == 8
    assert report["pooled"]["accuracy"] == 0.75
    assert report["fold_mean"]["accuracy"] == 0.75
    assert report["fold_std"]["accuracy"] == 0.0
    assert {name: part["accuracy"] for name, part in report["per_corpus"].items()} == {"ravdess": 1.0, "tess": 0.5}
    assert report["without_tess"] == report["per_corpus"]["ravdess"]
    low, high = report["pooled"]["intervals"]["accuracy"]
    assert low <= 0.75 <= high
    assert report["baseline"]["accuracy"] == report["per_corpus"]["ravdess"]["baseline"]["accuracy"] == 0.25
    assert report["variants"]["clean"]["drop"] == 0.0
    assert report["variants"]["noise10"]["uar"] == 0.25
    assert report["variants"]["noise10"]["drop"] == pytest.approx(50.0)
    assert report["calibration"]["error"] == pytest.approx(0.05)
    assert report["calibration"]["temperatures"] == [1.5, 1.5]
    assert report["abstention"] == [
        {"wanted": 0.7, "precision": 0.75, "coverage": 1.0},
        {"wanted": 0.8, "precision": 0.75, "coverage": 1.0},
        {"wanted": 0.9, "precision": None, "coverage": 0.0},
    ]
    assert report["per_gender"]["female"]["n"] == 7
    assert report["per_gender"]["unknown"]["n"] == 1
    assert report["left_out"] == {"corrupt": 1}
    assert report["speaker_independent"] is False
    assert [fold["name"] for fold in report["folds"]] == ["1", "2"]


@pytest.mark.parametrize("corpora", [["tess"] * 4, ["ravdess"] * 4])
def test_without_tess_stands_only_where_it_says_something(corpora: list[str]) -> None:
    assert "without_tess" not in _evaluation(corpora).report()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"task": "emotion9"}, "emotion9"), ({"protocol": "random7"}, "random7"), ({"protocol": "savee4"}, "savee")],
)
def test_what_does_not_suit_the_store_is_refused_before_training(
    make_store: Any, wrong: dict[str, str], message: str
) -> None:
    asked = {"task": "emotion3", "protocol": "grouped", "architecture": "article", **wrong}
    with pytest.raises(SettingsError, match=message):
        cross_validate(make_store(speakers=2, utterances=2), seed=0, **asked)
