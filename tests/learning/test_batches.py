from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.learning.batches import Batches, in_order, usable_rows


class Rows:
    """Stands for a store: the feature of a row is its number. Remembers what was read."""

    def __init__(self, rows: int, shard: int) -> None:
        self.shards = [(start, min(start + shard, rows)) for start in range(0, rows, shard)]
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        self.reads.append((start, stop))
        numbers = np.arange(start, stop)
        return numbers.astype(np.float32).reshape(-1, 1, 1), numbers.astype(np.int32)


def _epoch(store: Any, rows: NDArray[np.int64], number: int, *, seed: int = 0, batch_size: int = 8) -> list[list[int]]:
    labels = 2 * np.arange(store.shards[-1][1])
    batches = Batches(store, rows, labels, batch_size=batch_size, seed=seed)
    found = []
    for features, valid_frames, label in batches.epoch(number):
        np.testing.assert_array_equal(features.ravel(), valid_frames)
        np.testing.assert_array_equal(2 * valid_frames, label)
        found.append(valid_frames.tolist())
    assert len(found) == len(batches)
    return found


@settings(deadline=None, max_examples=60)
@given(
    shard=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    mask=st.lists(st.booleans(), min_size=1, max_size=150),
    epoch=st.integers(0, 5),
)
def test_every_row_once_in_full_batches(shard: int, batch_size: int, mask: list[bool], epoch: int) -> None:
    rows = np.flatnonzero(mask)
    found = _epoch(Rows(len(mask), shard), rows, epoch, batch_size=batch_size)
    assert sorted(row for batch in found for row in batch) == rows.tolist()
    assert all(len(batch) == batch_size for batch in found[:-1])


def test_order_is_decided_by_seed_and_epoch() -> None:
    store, rows = Rows(300, 20), np.arange(300)
    first = _epoch(store, rows, 1)
    assert first == _epoch(store, rows, 1)
    assert first != _epoch(store, rows, 2)
    assert first != _epoch(store, rows, 1, seed=1)
    assert first[0] != sorted(first[0])


def test_reads_a_few_shards_ahead_only() -> None:
    store = Rows(1000, 10)
    stream = Batches(store, np.arange(1000), np.arange(1000), batch_size=8, seed=0).epoch(0)  # type: ignore[arg-type]
    read = [sum(stop - start for start, stop in store.reads) for _ in stream]
    assert read[0] <= 50
    assert max(after - before for before, after in pairwise(read)) <= 50


def test_in_order_keeps_the_order_and_passes_over_what_is_not_asked_for() -> None:
    store, rows = Rows(100, 30), np.array([3, 4, 29, 30, 95])
    parts = [valid_frames.tolist() for _, valid_frames in in_order(store, rows)]  # type: ignore[arg-type]
    assert parts == [[3, 4, 29], [30], [95]]
    with pytest.raises(ValueError, match="ascending"):
        list(in_order(store, rows[::-1]))  # type: ignore[arg-type]


def test_incomplete_store_is_refused_and_bad_rows_are_not_usable(make_store: Any) -> None:
    with pytest.raises(SettingsError, match="--resume"):
        usable_rows(make_store(speakers=2, utterances=2, finish=False))
    store = make_store(speakers=2, utterances=2, bad=3)
    assert np.flatnonzero(~usable_rows(store)).tolist() == [0, 1, 2]


def test_everything_but_training_does_without_tensorflow() -> None:
    code = (
        "import sys\n"
        "for name in ('keras', 'tensorflow', 'onnx', 'tf2onnx'): sys.modules[name] = None\n"
        "import emolib.learning.batches, emolib.learning.bundle, emolib.learning.evaluation\n"
        "from emolib.errors import SettingsError\n"
        "try:\n"
        "    import emolib.learning.training\n"
        "except SettingsError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'emolib[train]'" in done.stdout
