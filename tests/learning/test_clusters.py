from __future__ import annotations

import numpy as np
import pytest

from emolib.errors import SettingsError
from emolib.learning.batches import usable_rows
from emolib.learning.clusters import cluster, functionals
from tests.learning.conftest import WORDS, MakeStore


def test_functionals_are_those_of_the_valid_frames(make_store: MakeStore) -> None:
    store = make_store(speakers=2, utterances=4, bad=3)
    rows = np.flatnonzero(usable_rows(store))
    windows = store.windows
    utterances, numbers = functionals(store, windows, rows)
    features, valid_frames = store.read(0, store.shape[0])
    assert set(utterances["utterance_id"]) == set(windows["utterance_id"].iloc[rows])
    for utterance_id, found in zip(utterances["utterance_id"], numbers, strict=True):
        own = [row for row in rows if windows["utterance_id"].iloc[row] == utterance_id]
        frames = np.concatenate([features[row, : valid_frames[row]] for row in own]).astype(np.float64)
        np.testing.assert_allclose(found, [*frames.mean(axis=0), *frames.std(axis=0)], rtol=1e-9)


def test_classes_that_lie_apart_are_found(make_store: MakeStore) -> None:
    store = make_store()
    utterances, numbers = functionals(store, store.windows, np.arange(store.shape[0]))
    labels = np.array([WORDS.index(word) for word in utterances["emotion"]])
    found = cluster(numbers, labels, classes=WORDS, seed=0)
    assert found.rand_index == 1
    assert found.table.sum() == np.trace(found.table[:, [row.argmax() for row in found.table]]) == len(labels)
    assert found.components.shape == (len(labels), 2)
    assert 0 < found.explained[1] <= found.explained[0] <= found.explained.sum() <= 1


def test_labels_that_say_nothing_have_an_index_near_zero() -> None:
    generator = np.random.default_rng(0)
    numbers, labels = generator.normal(size=(600, 4)), generator.integers(0, 3, 600)
    found = cluster(numbers, labels, classes=WORDS, seed=0)
    assert abs(found.rand_index) < 0.02
    assert np.all(np.diff(found.table.sum(axis=1)) <= 0)
    again = cluster(numbers, labels, classes=WORDS, seed=0)
    np.testing.assert_array_equal(found.cluster, again.cluster)


@pytest.mark.parametrize(("utterances", "classes"), [(5, 1), (2, 3)])
def test_too_little_to_cluster(utterances: int, classes: int) -> None:
    with pytest.raises(SettingsError, match="expected at least two classes"):
        cluster(np.eye(utterances), np.zeros(utterances, np.int64), classes=WORDS[:classes], seed=0)
