from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from emolib.corpora import splits
from emolib.errors import SettingsError

ACTORS = {"ravdess": [f"{n:02d}" for n in range(1, 25)], "savee": ["DC", "JE", "JK", "KL"], "tess": ["OAF", "YAF"]}


def table(speakers: dict[str, list[str]], *, utterances: int = 4, windows: int = 1) -> tuple[pd.DataFrame, np.ndarray]:
    """Return rows and labels: every speaker says each of two classes in turn, each recording has its own content."""
    rows = pd.DataFrame(
        [
            (corpus, speaker, f"{corpus}/{speaker}-{number}", f"hash {corpus}{speaker}{number}", number % 2)
            for corpus, names in speakers.items()
            for speaker in names
            for number in range(utterances)
            for _ in range(windows)
        ],
        columns=["corpus", "speaker", "utterance_id", "content_hash", "label"],
    )
    return rows, rows.pop("label").to_numpy(np.int64)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pd.DataFrame, np.ndarray]:
    """Draw rows of the three corpora and one more, with windows, rows without a class, and shared contents."""
    count = draw(st.integers(20, 60))
    corpora = {**ACTORS, "mine": ["a", "b", "c", "01"]}
    whom = st.sampled_from([(corpus, speaker) for corpus, names in corpora.items() for speaker in names])
    rows = pd.DataFrame(draw(st.lists(whom, min_size=count, max_size=count)), columns=["corpus", "speaker"])
    hashes = st.one_of(st.just(""), st.integers(0, 40).map(str), st.uuids().map(str))
    rows["utterance_id"] = [f"u{number:03d}" for number in range(count)]
    rows["content_hash"] = draw(st.lists(hashes, min_size=count, max_size=count))
    labels = np.array(draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count)), dtype=np.int64)
    repeats = np.array(draw(st.lists(st.integers(1, 3), min_size=count, max_size=count)))
    order = np.random.default_rng(draw(st.integers(0, 9))).permutation(repeats.sum())
    return rows.loc[rows.index.repeat(repeats)].iloc[order], labels.repeat(repeats)[order]


def values(rows: pd.DataFrame, mask: np.ndarray, *columns: str) -> set[tuple[str, ...]]:
    return set(rows.loc[mask, list(columns)].itertuples(index=False, name=None))


def assert_apart(rows: pd.DataFrame, one: np.ndarray, other: np.ndarray, *, by_speaker: bool) -> None:
    assert not (one & other).any()
    assert not values(rows, one, "utterance_id") & values(rows, other, "utterance_id")
    shared = values(rows, one, "content_hash") & values(rows, other, "content_hash")
    assert shared <= {("",)}
    if by_speaker:
        assert not values(rows, one, "corpus", "speaker") & values(rows, other, "corpus", "speaker")


@given(data=tables(), protocol=st.sampled_from(list(splits.PROTOCOLS)))
def test_the_laws_of_a_split(data: tuple[pd.DataFrame, np.ndarray], protocol: str) -> None:
    rows, labels = data
    try:
        folds = splits.folds(protocol, rows, labels)
    except SettingsError:
        return
    assert len(folds) >= 2
    tested = np.sum([fold.test for fold in folds], axis=0)
    if protocol in ("random5", "corpus", "grouped"):
        np.testing.assert_array_equal(tested, labels >= 0)
    else:
        taken = {"speaker6": list(ACTORS), "ravdess6": ["ravdess"], "savee4": ["savee"]}[protocol]
        np.testing.assert_array_equal(tested, (labels >= 0) & rows["corpus"].isin(taken))
    for fold in folds:
        assert fold.train.any()
        assert fold.test.any()
        assert (labels[fold.train] >= 0).all()
        assert_apart(rows, fold.train, fold.test, by_speaker=protocol != "random5")
        # Nothing more is lost for training than the copies of what is tested.
        unused = (tested > 0) & ~fold.train & ~fold.test
        assert values(rows, unused, "content_hash") <= values(rows, fold.test, "content_hash")

    order = np.random.default_rng(1).permutation(len(rows))
    for fold, again in zip(folds, splits.folds(protocol, rows.iloc[order], labels[order]), strict=True):
        assert fold.name == again.name
        np.testing.assert_array_equal(fold.train[order], again.train)
        np.testing.assert_array_equal(fold.test[order], again.test)


@given(data=tables(), by=st.sampled_from(["speaker", "utterance"]), seed=st.integers(0, 5), part=st.floats(0.3, 1))
def test_the_laws_of_validation(data: tuple[pd.DataFrame, np.ndarray], by: splits.Unit, seed: int, part: float) -> None:
    rows, labels = data
    train = np.random.default_rng(seed).random(len(rows)) < part
    try:
        chosen = splits.validation(rows, labels, train, seed=seed, by=by)
    except SettingsError:
        return
    rest = train & (labels >= 0) & ~chosen
    assert chosen.any()
    assert rest.any()
    assert not (chosen & ~(train & (labels >= 0))).any()
    assert_apart(rows, chosen, rest, by_speaker=by == "speaker")
    order = np.random.default_rng(1).permutation(len(rows))
    again = splits.validation(rows.iloc[order], labels[order], train[order], seed=seed, by=by)
    np.testing.assert_array_equal(chosen[order], again)


# ---- protocols


def test_random5_is_stratified_by_class_and_corpus() -> None:
    rows, labels = table(ACTORS, utterances=10, windows=2)
    folds = splits.folds("random5", rows, labels)
    assert [fold.name for fold in folds] == ["1", "2", "3", "4", "5"]
    for fold in folds:
        tested = rows[fold.test].assign(label=labels[fold.test]).drop_duplicates("utterance_id")
        for (corpus, _), part in tested.groupby(["corpus", "label"]):
            assert abs(len(part) - len(ACTORS[corpus])) <= 1  # 10 utterances x speakers / 2 classes / 5 folds


def test_a_recording_under_two_names_stays_on_one_side() -> None:
    rows, labels = table(ACTORS)
    rows.loc[rows["utterance_id"].isin(["ravdess/07-0", "savee/DC-1", "tess/OAF-1"]), "content_hash"] = "the same"
    same = (rows["content_hash"] == "the same").to_numpy()
    for fold in splits.folds("random5", rows, labels):
        assert same[fold.test].sum() in (0, 3)
    for fold in splits.folds("corpus", rows, labels):
        assert same[fold.test].sum() == 1
        assert same[fold.train].sum() == 0


def test_the_published_folds_are_those_of_their_source(shared: Path) -> None:
    published = json.loads((shared / "folds.json").read_text())
    rows, labels = table(ACTORS)
    for protocol, fold_list in published.items():
        folds = splits.folds(protocol, rows, labels)
        corpus = fold_list.get("corpus")
        expected = [fold if corpus is None else {corpus: fold} for fold in fold_list["test_folds"]]
        assert [values(rows, fold.test, "corpus", "speaker") for fold in folds] == [
            {(c, s if isinstance(s, str) else f"{s:02d}") for c, speakers in fold.items() for s in speakers}
            for fold in expected
        ]


def test_speakers_of_one_name_in_two_corpora_are_two() -> None:
    rows, labels = table({"a": ["1", "2"], "b": ["1"]})
    tested = [values(rows, fold.test, "corpus", "speaker") for fold in splits.folds("grouped", rows, labels)]
    assert sorted(map(sorted, tested)) == [[("a", "1")], [("a", "2")], [("b", "1")]]


def test_grouped_folds_are_of_like_size() -> None:
    rows, labels = table({"mine": [f"{n}" for n in range(23)]})
    sizes = [fold.test.sum() for fold in splits.folds("grouped", rows, labels)]
    assert len(sizes) == 5
    assert max(sizes) - min(sizes) <= 4  # one speaker


def test_folds_of_which_nobody_is_there_are_left_out() -> None:
    rows, labels = table({"ravdess": ["01", "06"], "mine": ["x"]})
    folds = splits.folds("speaker6", rows, labels)
    assert [fold.name for fold in folds] == ["1", "6"]
    mine = (rows["corpus"] == "mine").to_numpy()
    assert not any((fold.train[mine] | fold.test[mine]).any() for fold in folds)


def test_other_corpora_may_be_learnt_from_but_are_not_tested() -> None:
    rows, labels = table(ACTORS)
    savee = (rows["corpus"] == "savee").to_numpy()
    folds = splits.folds("savee4", rows, labels, learn_from_others=True)
    alone = splits.folds("savee4", rows, labels)
    assert len(folds) == len(alone) == 4
    for fold, own in zip(folds, alone, strict=True):
        np.testing.assert_array_equal(fold.test, own.test)
        np.testing.assert_array_equal(fold.train, own.train | ~savee)


@pytest.mark.parametrize(
    ("protocol", "speakers", "message"),
    [
        ("random6", {"mine": ["a", "b"]}, "protocol 'random6' found, expected one of random5, speaker6"),
        ("random5", {"mine": ["a"]}, "4 utterances found, expected at least 5"),
        ("grouped", {"mine": ["a"]}, "number of speakers is 1, .* expected at least 2"),
        ("corpus", {"mine": ["a", "b"]}, r"one corpus found \(mine\), expected at least 2"),
        ("savee4", {"mine": ["a", "b"]}, "corpora mine found, expected savee for protocol savee4"),
        ("savee4", {"savee": ["DC"], "tess": ["OAF"]}, "number of speakers is 1, .* expected at least 2"),
        ("ravdess6", {"ravdess": ["01", "11"]}, "number of speakers is 2, in 1 folds"),
        ("speaker6", {"mine": ["a", "b"]}, "corpora mine found, expected ravdess, savee, tess"),
    ],
)
def test_rows_that_a_protocol_cannot_divide_are_refused(
    protocol: str, speakers: dict[str, list[str]], message: str
) -> None:
    rows, labels = table(speakers)
    with pytest.raises(SettingsError, match=message):
        splits.folds(protocol, rows, labels)


def test_rows_without_any_class_are_refused() -> None:
    rows, labels = table(ACTORS)
    with pytest.raises(SettingsError, match="no row has a class"):
        splits.folds("random5", rows, np.full_like(labels, -1))
    with pytest.raises(SettingsError, match="no training rows"):
        splits.validation(rows, labels, np.zeros(len(rows), dtype=bool), seed=0)


def test_corpora_that_are_copies_of_one_another_cannot_test_each_other() -> None:
    rows, labels = table({"a": ["1"], "b": ["1"]})
    rows["content_hash"] = rows["utterance_id"].str[-1]
    with pytest.raises(SettingsError, match="no training rows found for fold a"):
        splits.folds("corpus", rows, labels)


# ---- validation


def test_validation_goes_by_speaker_unless_the_test_does_not() -> None:
    assert {protocol: splits.validation_by(protocol) for protocol in splits.PROTOCOLS} == {
        protocol: "utterance" if protocol == "random5" else "speaker" for protocol in splits.PROTOCOLS
    }
    with pytest.raises(SettingsError, match="protocol 'x' found"):
        splits.validation_by("x")


def test_validation_takes_its_share_of_each_corpus_that_can_do_without() -> None:
    rows, labels = table(ACTORS)
    chosen = splits.validation(rows, labels, np.ones(len(rows), dtype=bool), seed=0)
    assert rows[chosen].groupby("corpus")["speaker"].nunique().to_dict() == {"ravdess": 2}
    seeds = [splits.validation(rows, labels, np.ones(len(rows), dtype=bool), seed=seed) for seed in range(4)]
    assert any((one != other).any() for one, other in itertools.combinations(seeds, 2))


def test_validation_of_two_speakers_takes_one() -> None:
    rows, labels = table({"tess": ["OAF", "YAF"]})
    chosen = splits.validation(rows, labels, np.ones(len(rows), dtype=bool), seed=0)
    assert chosen.sum() == 4
    with pytest.raises(SettingsError, match="1 training speaker found"):
        splits.validation(rows, labels, chosen, seed=0)


def test_validation_by_utterance_is_a_stratified_share() -> None:
    rows, labels = table(ACTORS, utterances=20)
    chosen = splits.validation(rows, labels, np.ones(len(rows), dtype=bool), seed=0, share=0.2, by="utterance")
    assert chosen.mean() == pytest.approx(0.2)
    for corpus, label in itertools.product(ACTORS, (0, 1)):
        stratum = (rows["corpus"] == corpus).to_numpy() & (labels == label)
        assert chosen[stratum].mean() == pytest.approx(0.2, abs=0.06)


@given(tables(), st.data())
def test_who_is_left_out_has_no_recording_left(tabled: tuple[pd.DataFrame, np.ndarray], data: st.DataObject) -> None:
    rows, _ = tabled
    names = rows["corpus"] + "/" + rows["speaker"]
    everybody = sorted(set(names))
    out = data.draw(st.lists(st.sampled_from(everybody), unique=True, max_size=len(everybody) - 1))
    try:
        left = splits.without(rows, out)
    except SettingsError:  # everybody's recordings are copies of theirs
        return
    assert left.any()
    assert not set(names[left]) & set(out)
    assert_apart(rows, left, names.isin(out).to_numpy(), by_speaker=True)
    others = rows[left | names.isin(out).to_numpy()]
    kept = splits.without(others, out)
    assert kept.sum() == left.sum()


def test_only_speakers_who_are_there_can_be_left_out() -> None:
    rows, _ = table({"mine": ["a", "b"]})
    with pytest.raises(SettingsError, match=r"mine/c.*expected some of mine/a, mine/b"):
        splits.without(rows, ["mine/c"])
    with pytest.raises(SettingsError, match="nobody left"):
        splits.without(rows, ["mine/a", "mine/b"])
