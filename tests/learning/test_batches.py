from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.learning.batches import Batches, InMemory, in_order, usable_rows
from tests.conftest import wait_for


class Rows:
    """Stands for a store: the feature of a row is its number. Remembers what was read."""

    def __init__(self, rows: int, shard: int, *, broken: int | None = None) -> None:
        self.shape = (rows, 1, 1)
        self.shards = [(start, min(start + shard, rows)) for start in range(0, rows, shard)]
        self.reads: list[tuple[int, int]] = []
        self._broken = broken

    def read(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        self.reads.append((start, stop))
        if self._broken is not None and start <= self._broken < stop:
            raise OSError("the disk is gone")
        numbers = np.arange(start, stop)
        return numbers.astype(np.float32).reshape(-1, 1, 1), numbers.astype(np.int32)


def _batches(store: Any, rows: NDArray[np.int64] | None = None, *, batch_size: int = 8, seed: int = 0) -> Batches:
    rows = np.arange(store.shape[0]) if rows is None else rows
    return Batches(store, rows, 2 * np.arange(store.shape[0]), batch_size=batch_size, seed=seed)


def _epoch(store: Any, rows: NDArray[np.int64], number: int, **options: int) -> list[list[int]]:
    batches = _batches(store, rows, **options)
    found = []
    for features, valid_frames, label in batches.epoch(number):
        np.testing.assert_array_equal(features.ravel(), valid_frames)
        np.testing.assert_array_equal(2 * valid_frames, label)
        found.append(valid_frames.tolist())
    assert len(found) == len(batches)
    return found


def _plain(store: Any, rows: NDArray[np.int64], number: int, *, batch_size: int, seed: int = 0) -> list[list[int]]:
    """The order as it is defined: 32 shards at a time, what is left of them is shuffled with the next 32."""
    generator = np.random.default_rng([seed, number])
    shards = [part for start, stop in store.shards if len(part := rows[(rows >= start) & (rows < stop)])]
    order, left, found = generator.permutation(len(shards)), np.zeros(0, np.int64), []
    for first in range(0, len(order), 32):
        pool = np.concatenate([left, *(shards[place] for place in order[first : first + 32])])
        pool = pool[generator.permutation(len(pool))]
        whole = len(pool) // batch_size * batch_size
        found += pool[:whole].reshape(-1, batch_size).tolist()
        left = pool[whole:]
    return found + ([left.tolist()] if len(left) else [])


def _no_thread() -> bool:
    return not any(thread.name == "emolib-batches" for thread in threading.enumerate())


@given(
    shard=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    mask=st.lists(st.booleans(), min_size=1, max_size=150),
    epoch=st.integers(0, 5),
)
def test_every_row_once_in_full_batches(shard: int, batch_size: int, mask: list[bool], epoch: int) -> None:
    store, rows = Rows(len(mask), shard), np.flatnonzero(mask)
    found = _epoch(store, rows, epoch, batch_size=batch_size)
    assert found == _plain(store, rows, epoch, batch_size=batch_size)
    assert found == _epoch(InMemory(store), rows, epoch, batch_size=batch_size)
    assert sorted(row for batch in found for row in batch) == rows.tolist()
    assert all(len(batch) == batch_size for batch in found[:-1])


def test_order_is_decided_by_seed_and_epoch() -> None:
    store, rows = Rows(300, 20), np.arange(300)
    first = _epoch(store, rows, 1)
    assert first == _epoch(store, rows, 1)
    assert first != _epoch(store, rows, 2)
    assert first != _epoch(store, rows, 1, seed=1)
    assert first[0] != sorted(first[0])


def test_order_is_the_same_in_every_run() -> None:
    assert _epoch(Rows(10, 2), np.arange(10), 1, batch_size=4, seed=7) == [[3, 8, 7, 0], [5, 6, 2, 9], [4, 1]]


def test_a_row_may_be_taken_twice() -> None:
    found = _epoch(Rows(20, 5), np.repeat(np.arange(20), 2), 0)
    assert sorted(row for batch in found for row in batch) == np.repeat(np.arange(20), 2).tolist()


def test_memory_holds_a_pool_and_a_few_batches() -> None:
    store, taken = Rows(5000, 10), 0
    for batch in _batches(store).epoch(0):
        # 32 shards, what was left of the pool before them, eight batches ahead and the one that is being made.
        assert sum(stop - start for start, stop in store.reads) - taken <= 320 + 8 + 9 * 8
        taken += len(batch.labels)


def test_batches_are_made_ahead_of_time() -> None:
    store = Rows(326, 10)
    stream = _batches(store).epoch(0)
    for _ in range(35):
        next(stream)
    wait_for(lambda: len(store.reads) > 32, "what is read ahead")  # these batches came out of the first 32 shards


@pytest.fixture(params=["batches", "in_order"])
def stream(request: pytest.FixtureRequest) -> Callable[[Any], Iterator[Any]]:
    """What reads a store ahead."""
    if request.param == "batches":
        return lambda store: _batches(store).epoch(0)
    return lambda store: in_order(store, np.arange(store.shape[0]))


def test_an_error_of_the_reader_is_the_consumers(stream: Callable[[Any], Iterator[Any]]) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        list(stream(Rows(1000, 10, broken=777)))
    wait_for(_no_thread, "the end of the reader's thread")


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_no_thread_outlives_its_stream(stream: Callable[[Any], Iterator[Any]], taken: int) -> None:
    store = Rows(1000, 10)
    list(stream(store))
    wait_for(_no_thread, "the end of the reader's thread")
    closed = stream(store)
    for _ in range(taken):
        next(closed)
    closed.close()  # type: ignore[attr-defined]
    wait_for(_no_thread, "the end of the reader's thread")
    forgotten = stream(store)
    for _ in range(taken):
        next(forgotten)
    del forgotten
    wait_for(_no_thread, "the end of the reader's thread")


def test_a_store_that_fits_into_memory_is_read_once() -> None:
    store = Rows(100, 30)
    memory, rows = InMemory(store, memory_bytes=400), np.flatnonzero(np.arange(100) % 7)  # type: ignore[arg-type]
    epochs = [_epoch(memory, rows, number) for number in range(3)]
    assert [part[1].tolist() for part in in_order(memory, np.array([1, 70]))] == [[1], [70]]
    assert sorted(store.reads) == store.shards
    assert epochs == [_epoch(store, rows, number) for number in range(3)]
    with pytest.raises(ValueError, match="one shard, at most to 59"):
        memory.read(50, 61)


def test_a_store_that_does_not_fit_is_read_anew() -> None:
    store = Rows(100, 30)
    memory = InMemory(store, memory_bytes=399)  # type: ignore[arg-type]
    epochs = [_epoch(memory, np.arange(100), number) for number in range(3)]
    assert sorted(store.reads) == sorted(3 * store.shards)
    assert epochs == [_epoch(store, np.arange(100), number) for number in range(3)]


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


@pytest.mark.slow
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
    assert "pip install 'emolib[train]' with Python 3.11 to 3.13" in done.stdout
