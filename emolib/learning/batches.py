"""Minibatches out of a feature store, streamed shard by shard: memory holds a few shards, however large the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emolib.errors import Code, SettingsError

if TYPE_CHECKING:
    from emolib.features.store import FeatureStore

# Rows are shuffled within this many shards at a time. The store's own order is a random one already, so a few are
# enough to give every epoch other batches.
_POOL_SHARDS = 4


class Batch(NamedTuple):
    """Some rows of a store.

    Attributes
    ----------
    features
        float32 ``(row, frame, coefficient)``.
    valid_frames
        int32 ``(row,)``.
    labels
        int64 ``(row,)``, index of each row's class.
    """

    features: NDArray[np.float32]
    valid_frames: NDArray[np.int32]
    labels: NDArray[np.int64]


class Batches:
    """The minibatches of an epoch, in an order that the seed and the epoch decide.

    Parameters
    ----------
    store
        Where features are read from.
    rows
        Numbers of the rows to take, ``(row,)``.
    labels
        Class of every row of the store, ``(window,)``.
    batch_size
        Rows of a batch; the last one of an epoch may have fewer.
    seed
        Decides the order together with the epoch.
    """

    def __init__(
        self, store: FeatureStore, rows: NDArray[np.int64], labels: NDArray[np.int64], *, batch_size: int, seed: int
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
        """Yield every row once, shards in random order and rows shuffled within a few shards at a time."""
        generator = np.random.default_rng([self._seed, number])
        order = generator.permutation(len(self._shards))
        left = _read(self._store, np.zeros(0, np.int64), self._labels)
        for first in range(0, len(order), _POOL_SHARDS):
            shards = [self._shards[place] for place in order[first : first + _POOL_SHARDS]]
            pool = _concatenate([left, *(_read(self._store, rows, self._labels) for rows in shards)])
            pool = _take(pool, generator.permutation(len(pool.labels)))
            whole = len(pool.labels) // self._batch_size * self._batch_size
            for start in range(0, whole, self._batch_size):
                yield _take(pool, slice(start, start + self._batch_size))
            left = _take(pool, slice(whole, None))
        if len(left.labels):
            yield left


def in_order(store: FeatureStore, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
    """Yield features ``(row, frame, coefficient)`` and valid frames ``(row,)`` of ascending rows, one shard at a time.

    Raises
    ------
    ValueError
        If the rows are not in ascending order.
    """
    if np.any(np.diff(rows) <= 0):
        raise ValueError("rows out of order found, expected ascending numbers")
    for part in _by_shard(store, rows):
        start, stop = int(part[0]), int(part[-1]) + 1
        features, valid_frames = store.read(start, stop)
        yield features[part - start], valid_frames[part - start]


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


def _by_shard(store: FeatureStore, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide row numbers by the shard that they lie in; shards without any are left out."""
    ascending = np.sort(rows)
    edges = np.searchsorted(ascending, [start for start, _ in store.shards[1:]])
    return [part for part in np.split(ascending, edges) if len(part)]


def _read(store: FeatureStore, rows: NDArray[np.int64], labels: NDArray[np.int64]) -> Batch:
    """Read ascending rows of one shard."""
    start, stop = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
    features, valid_frames = store.read(start, stop)
    return Batch(features[rows - start], valid_frames[rows - start], labels[rows])


def _concatenate(parts: list[Batch]) -> Batch:
    features, valid_frames, labels = zip(*parts, strict=True)
    return Batch(np.concatenate(features), np.concatenate(valid_frames), np.concatenate(labels))


def _take(batch: Batch, rows: slice | NDArray[np.int64]) -> Batch:
    return Batch(batch.features[rows], batch.valid_frames[rows], batch.labels[rows])
