"""How the rows of a shard come into a store: decided once, then written.

    attempt ──create──▶ S.zarr/commits/000007.npz ──write──▶ features, valid frames, status ──▶ the record is removed

Several attempts at one shard may be at work at the same time, with different outcomes: a worker was held for dead, or
the whole job was. Whoever creates the record decides; every other attempt writes the same. One that comes when the
shard was written meanwhile drops what it has. (The blocks of predictions are committed alike, see
`emolib.archive.commits`; but arrays of Zarr can't be created, only written, so an attempt looks before each write
whether its record is still there: whoever is held up between that look and the write, until the store was finished
and continued, may write over a row that was tried again, and `emolib verify` says so.)
"""

from __future__ import annotations

import io
import zipfile
import zlib
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from emolib.features.store import FeatureStore
from emolib.storage import create_bytes, exists, read_bytes

# What reading a damaged record raises.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, ValueError)


def commit_shard(
    store: FeatureStore,
    shard: int,
    features: NDArray[np.float32],
    valid_frames: NDArray[np.int32],
    status: NDArray[np.uint8],
    *,
    begun: NDArray[np.uint8],
) -> None:
    """Write what an attempt made of a shard, or what the attempt made that was quicker.

    Parameters
    ----------
    features, valid_frames, status
        Of all of its rows, as `FeatureStore.write_shard` takes them.
    begun
        Their status when the attempt began, uint8 ``(window,)``.
    """
    if np.array_equal(status, begun):  # what failed has failed again
        return
    record = store.path / "commits" / f"{shard:06d}.npz"
    packed = io.BytesIO()
    np.savez(packed, features=features, valid_frames=valid_frames, status=status)
    is_mine = False
    with suppress(FileExistsError):
        is_mine = create_bytes(record, packed.getvalue())
    if not is_mine:
        try:
            decided = read_bytes(record)
        except FileNotFoundError:  # another attempt has just written it
            return
        try:
            with np.load(io.BytesIO(decided), allow_pickle=False) as rows:
                features, valid_frames, status = (rows[name] for name in ("features", "valid_frames", "status"))
        except _DAMAGED:  # by a disk: it decides nothing, and whoever tries again does
            if read_bytes(record) == decided:
                record.unlink(missing_ok=True)
            raise
    # Looked at when there is a record: who has written the shard did so before, or sees it.
    if np.array_equal(store.status(shard), begun):
        store.write_shard(shard, features, valid_frames, status, goes_on=lambda: exists(record))
    record.unlink(missing_ok=True)
