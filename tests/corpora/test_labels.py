from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from emolib.archive.schemas import TABLES, schema
from emolib.corpora import labels, ravdess, savee, tess
from emolib.errors import SettingsError

CORPORA = {"ravdess": ravdess.EMOTIONS, "savee": savee.EMOTIONS, "tess": tess.EMOTIONS}


def utterances(**words: str | tuple[str, ...]) -> pd.DataFrame:
    rows = [
        (corpus, word)
        for corpus, found in words.items()
        for word in (found.split() if isinstance(found, str) else found)
    ]
    return pd.DataFrame(rows, columns=["corpus", "emotion"]).assign(gender="female")


def classes(task: str, rows: pd.DataFrame) -> list[str | None]:
    scheme = labels.scheme(task, rows)
    return [scheme.classes[number] if number >= 0 else None for number in labels.label(rows, scheme)]


def test_the_article_s_emotion3() -> None:
    assert dict(zip(savee.EMOTIONS, classes("emotion3", utterances(savee=savee.EMOTIONS)), strict=True)) == {
        "anger": "negative",
        "disgust": "negative",
        "fear": "fear",
        "happiness": "positive",
        "neutral": "neutral",
        "sadness": "sadness",
        "surprise": "surprise",
    }
    assert classes("emotion3", utterances(ravdess="calm fearful", tess="ps")) == ["neutral", "fear", "surprise"]
    assert dict(labels.scheme("emotion3", utterances(savee="fear")).polarity) == {
        "fear": "negative",
        "surprise": "positive",
        "sadness": "negative",
        "negative": "negative",
        "positive": "positive",
        "neutral": "neutral",
    }


def test_the_article_s_emotion2() -> None:
    rows = utterances(ravdess=ravdess.EMOTIONS)
    assert classes("emotion2", rows) == [
        f"female_{polarity}"
        for polarity in ["neutral", "neutral", "positive", "negative", "negative", "negative", "negative", "positive"]
    ]
    scheme = labels.scheme("emotion2", rows)
    assert scheme.classes == tuple(f"{g}_{p}" for g in ("female", "male") for p in ("negative", "neutral", "positive"))
    assert scheme.public_classes == ("negative", "neutral", "positive")
    assert scheme.public_polarity == {name: name for name in scheme.public_classes}
    assert all(scheme.polarity[name] == scheme.public[name] == name.partition("_")[2] for name in scheme.classes)


@pytest.mark.parametrize("gender", [None, np.nan, ""])
def test_emotion2_has_no_class_without_a_gender(gender: object) -> None:
    rows = utterances(mine="joy joy").assign(gender=pd.Series(["male", gender], dtype=object))
    assert classes("emotion2", rows) == ["male_positive", None]
    assert classes("emotion3", rows) == ["positive", "positive"]


def test_emotion8_is_ravdess_s_words_for_all() -> None:
    assert classes("emotion8", utterances(ravdess=ravdess.EMOTIONS)) == list(ravdess.EMOTIONS)
    words = classes("emotion8", utterances(tess=tess.EMOTIONS))
    assert words == ["angry", "disgust", "fearful", "happy", "neutral", "surprised", "sad"]
    assert classes("emotion8", utterances(mine="Joy boredom")) == ["happy", None]


@pytest.mark.parametrize("task", ["emotion2", "emotion3", "emotion8"])
def test_the_classes_of_a_task_do_not_depend_on_what_is_there(task: str) -> None:
    everything = labels.scheme(task, utterances(**CORPORA))
    assert labels.scheme(task, utterances(savee="anger")) == everything


@pytest.mark.parametrize("corpus", CORPORA)
def test_native_is_the_words_that_are_there(corpus: str) -> None:
    rows = utterances(**{corpus: CORPORA[corpus]})
    scheme = labels.scheme("native", rows)
    assert scheme.classes == tuple(sorted(CORPORA[corpus]))
    assert classes("native", rows) == list(CORPORA[corpus])
    assert labels.label(utterances(mine="joy"), scheme).tolist() == [-1]


def test_native_takes_corpora_that_share_their_words() -> None:
    assert labels.scheme("native", utterances(a="joy fear", b="joy fear sad")).classes == ("fear", "joy", "sad")


def test_native_joins_the_spellings_of_a_word() -> None:
    """As all other tasks do; what has one spelling keeps it."""
    rows = utterances(a=("Sad", "sad", "Joy", "pleasant surprise"), b=("SAD", "Joy", "pleasant_surprise"))
    assert labels.scheme("native", rows).classes == ("Joy", "pleasant_surprise", "sad")
    assert classes("native", rows) == [
        "Joy" if word == "Joy" else word.lower().replace(" ", "_") for word in rows["emotion"]
    ]
    assert labels.label(utterances(mine="joy"), labels.scheme("native", rows)).tolist() == [0]


@given(
    st.lists(st.sampled_from(["sad", "Sad", "SAD", "joy", "Joy", "pleasant surprise", "Pleasant_Surprise"]), min_size=1)
)
def test_no_two_columns_differ_only_in_case(words: list[str]) -> None:
    """DuckDB, Athena and Spark would refuse the table."""
    native = labels.scheme("native", utterances(mine=tuple(words)))
    for table in TABLES:
        names = [name.lower() for name in schema(table, native.public_classes).names]
        assert len(names) == len(set(names))


def test_native_refuses_several_vocabularies() -> None:
    with pytest.raises(SettingsError, match=r"savee has anger, fear, .*expected one vocabulary.*emotion8"):
        labels.scheme("native", utterances(ravdess=ravdess.EMOTIONS, savee=savee.EMOTIONS))


@pytest.mark.parametrize("task", labels.TASKS)
def test_unknown_words_are_refused_with_their_corpus(task: str) -> None:
    rows = utterances(mine="joy zeal")
    with pytest.raises(SettingsError, match="emotion 'zeal' found in corpus mine, expected one of neutral"):
        labels.scheme(task, rows)
    with pytest.raises(SettingsError, match="'zeal'"):
        labels.label(rows, labels.scheme(task, utterances(mine="joy")))


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(SettingsError, match="task 'emotion4' found, expected one of emotion2, emotion3, "):
        labels.scheme("emotion4", utterances(mine="joy"))
    with pytest.raises(SettingsError, match="no utterances"):
        labels.scheme("native", utterances())


def test_labels_of_nothing_are_nothing() -> None:
    numbers = labels.label(utterances(), labels.scheme("emotion3", utterances(mine="joy")))
    assert (numbers.shape, numbers.dtype) == ((0,), np.int64)


@pytest.mark.parametrize("task", ["emotion2", "emotion3", "emotion8"])
def test_words_tell_the_emotions_of_a_class_apart(task: str) -> None:
    rows = utterances(ravdess=ravdess.EMOTIONS, savee=savee.EMOTIONS, tess=tess.EMOTIONS)
    rows["gender"] = ["female", "male"] * (len(rows) // 2)
    scheme = labels.scheme(task, rows)
    of_task = labels.label(rows, scheme)
    of_task[3] = -1
    numbers, class_of = labels.words(rows, of_task)
    assert numbers[3] == -1
    assert sorted(set(numbers) - {-1}) == list(range(len(class_of)))
    assert [class_of[number] for number in np.delete(numbers, 3)] == np.delete(of_task, 3).tolist()


def test_the_same_emotion_is_the_same_word_whatever_a_corpus_calls_it() -> None:
    rows = utterances(ravdess="happy surprised disgust", savee="happiness surprise", tess="ps sad")
    numbers, class_of = labels.words(rows, labels.label(rows, labels.scheme("emotion2", rows)))
    assert numbers.tolist() == [2, 3, 0, 2, 3, 3, 1]
    assert class_of == (0, 0, 2, 2)
