"""Minibatches out of a feature store: streamed shard by shard, read ahead, in an order that a seed decides.

Memory holds some shards, however large the store is; a store that fits is read from disk once (see `InMemory`).
Neither reading ahead nor memory changes what comes or when.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from emolib.errors import Code, SettingsError

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore

_T = TypeVar("_T")

# Rows are shuffled within this many shards at a time. The store's own order is a random one already, but the same in
# every epoch; with four shards a network learnt more slowly (tests/benchmarks/experiments.md).
_POOL_SHARDS = 32
# Batches made before they are asked for: the time that they take to train is there to read the next pool.
_BATCHES_AHEAD = 8
# Of features in memory: 50,000 windows of the profile telephone, a day of sound.
_MEMORY_BYTES = 2**31


class Shards(Protocol):
    """Where features are read from: a `FeatureStore`, or one `InMemory`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Its ``(window, frame, coefficient)``."""

    @property
    def shards(self) -> list[tuple[int, int]]:
        """First row, and row after the last, of each shard."""

    def read(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return features ``(window, frame, coefficient)`` and valid frames ``(window,)`` of a range of rows."""


class InMemory:
    """A store whose shards stay in memory once they are read, if all of them fit; otherwise it is read anew each time.

    Parameters
    ----------
    store
        Complete: what is in memory does not see later changes.
    memory_bytes
        What its features may take, 2 GiB unless told.

    Examples
    --------
    >>> from emolib.config import TELEPHONE
    >>> import pandas as pd
    >>> from emolib.features.store import FeatureStore
    >>> rows = pd.DataFrame([dict(
    ...     utterance_id="a", window=0, corpus="c", speaker="s", gender=None, emotion="sad", uri="a.wav", channel=None,
    ...     start_s=0.0, end_s=4.0, variant="clean", content_hash="0", code="ok", message=None)])
    >>> store = FeatureStore.create("memory://in_memory/S.zarr", profile=TELEPHONE, windows=rows)
    >>> features, valid_frames = InMemory(store).read(0, 1)
    >>> features.shape, valid_frames.shape
    ((1, 249, 40), (1,))
    """

    def __init__(self, store: Shards, *, memory_bytes: int = _MEMORY_BYTES) -> None:
        self._store = store
        self._fits = np.dtype(np.float32).itemsize * int(np.prod(store.shape)) <= memory_bytes
        self._kept: dict[int, tuple[NDArray[np.float32], NDArray[np.int32]]] = {}
        self.shape = store.shape
        self.shards = store.shards
        self._firsts = [first for first, _ in self.shards]

    def read(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return features and valid frames of rows that lie in one shard; not to be written to.

        Raises
        ------
        ValueError
            If the rows reach beyond a shard.
        """
        if not self._fits:
            return self._store.read(start, stop)
        number = int(np.searchsorted(self._firsts, start, side="right")) - 1
        first, last = self.shards[number]
        if stop > last:
            raise ValueError(f"rows {start} to {stop - 1} found, expected rows of one shard, at most to {last - 1}")
        if number not in self._kept:
            self._kept[number] = self._store.read(first, last)
        features, valid_frames = self._kept[number]
        return features[start - first : stop - first], valid_frames[start - first : stop - first]


class Batch(NamedTuple):
    """Some rows of a store.

    Attributes
    ----------
    features
        float32 ``(row, frame, coefficient)``.
    valid_frames
        int32 ``(row,)``.
    labels
        int64 ``(row,)``, of each row.
    """

    features: NDArray[np.float32]
    valid_frames: NDArray[np.int32]
    labels: NDArray[np.int64]


class Batches:
    """The minibatches of an epoch, in an order that the seed and the epoch decide.

    A thread makes them ahead of time. Memory holds the pool that is shuffled (32 shards, 0.3 GB in the
    profile telephone, more where rows are taken more than once), one shard that is read, and the batches made ahead.

    Parameters
    ----------
    store
        Where features are read from.
    rows
        Numbers of the rows to take, ``(row,)``; one that stands there twice is taken twice.
    labels
        A number for every row of the store, ``(window,)``: its class, or its word.
    batch_size
        Rows of a batch; the last one of an epoch may have fewer.
    seed
        Decides the order together with the epoch.
    """

    def __init__(
        self, store: Shards, rows: NDArray[np.int64], labels: NDArray[np.int64], *, batch_size: int, seed: int
    ) -> None:
        self._store = store
        self._labels = labels
        self._batch_size = batch_size
        self._seed = seed
        self._rows = len(rows)
        self._shards = _by_shard(store, rows)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-self._rows // self._batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield all rows, shards in random order and rows shuffled within a pool of them."""
        return ahead(self._epoch(number), _BATCHES_AHEAD)

    def _epoch(self, number: int) -> Iterator[Batch]:
        generator = np.random.default_rng([self._seed, number])
        order = generator.permutation(len(self._shards))
        pool = _Pool(self._store, _POOL_SHARDS * max(map(len, self._shards), default=0) + self._batch_size)
        rows, places = np.zeros(0, np.int64), np.zeros(0, np.int64)  # of the pool, what is not in a batch yet
        for first in range(0, len(order), _POOL_SHARDS):
            shards = [self._shards[place] for place in order[first : first + _POOL_SHARDS]]
            rows = np.concatenate([rows, *shards])
            places = np.concatenate([places, *map(pool.add, shards)])
            shuffled = generator.permutation(len(rows))
            rows, places = rows[shuffled], places[shuffled]
            last = first + _POOL_SHARDS >= len(order)
            taken = len(rows) if last else len(rows) // self._batch_size * self._batch_size
            for start in range(0, taken, self._batch_size):
                part = slice(start, min(start + self._batch_size, taken))
                yield Batch(*pool.take(places[part]), self._labels[rows[part]])
            rows, places = rows[taken:], places[taken:]


class _Pool:
    """Room for some rows of a store, used again and again: an epoch allocates nothing else but its batches."""

    def __init__(self, store: Shards, room: int) -> None:
        self._store = store
        self._features = np.empty((room, *store.shape[1:]), np.float32)
        self._valid_frames = np.empty(room, np.int32)
        self._free = np.arange(room)

    def add(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Read ascending rows of one shard, and return the place of each."""
        places, self._free = np.split(self._free, [len(rows)])
        self._features[places], self._valid_frames[places] = _read(self._store, rows)
        return places

    def take(self, places: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Return a copy of what lies at some places, and make room there."""
        self._free = np.concatenate([self._free, places])
        return self._features[places], self._valid_frames[places]


def in_order(store: Shards, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Yield features ``(row, frame, coefficient)`` and valid frames ``(row,)`` of ascending rows, one shard at a time.

    A thread reads one shard ahead.

    Raises
    ------
    ValueError
        If the rows are not in ascending order.
    """
    if np.any(np.diff(rows) <= 0):
        raise ValueError("rows out of order found, expected ascending numbers")
    return ahead((_read(store, part) for part in _by_shard(store, rows)), 1)


def usable_rows(store: FeatureStore) -> NDArray[np.bool_]:
    """Return which rows of a store hold numbers, bool ``(window,)``.

    Raises
    ------
    SettingsError
        If the store is not complete: what is learnt would depend on when its extraction was interrupted.
    """
    if not store.complete:
        raise SettingsError(f"{store.path} is not complete: finish it with `emolib extract --resume`")
    return np.isin(store.status(), [Code.OK.status, Code.TRUNCATED.status])


def _by_shard(store: Shards, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide row numbers by the shard that they lie in; shards without any are left out."""
    ascending = np.sort(rows)
    edges = np.searchsorted(ascending, [start for start, _ in store.shards[1:]])
    return [part for part in np.split(ascending, edges) if len(part)]


def _read(store: Shards, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Read ascending rows of one shard."""
    start, stop = int(rows[0]), int(rows[-1]) + 1
    features, valid_frames = store.read(start, stop)
    return features[rows - start], valid_frames[rows - start]


def ahead(items: Iterator[_T], count: int) -> Iterator[_T]:
    """Yield what an iterator yields, made up to so many items ahead by a thread.

    What the iterator raises is raised here, in its turn. The thread starts with the first item that is asked for, and
    ends with the last one, or with the item it is at when this generator is closed or no longer referred to.
    """
    made: SimpleQueue[tuple[_T] | BaseException | None] = SimpleQueue()
    room, closed = Semaphore(count), Event()

    def work() -> None:
        try:
            while room.acquire() and not closed.is_set():
                made.put((next(items),))
        except StopIteration:
            made.put(None)
        except BaseException as error:
            made.put(error)

    Thread(target=work, name="emolib-batches", daemon=True).start()
    try:
        while (found := made.get()) is not None:
            if isinstance(found, BaseException):
                raise found
            room.release()
            yield found[0]
    finally:
        # Without waiting for the thread: this may run wherever a forgotten generator is collected.
        closed.set()
        room.release()
