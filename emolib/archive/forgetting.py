"""Recordings whose traces are removed: a call that somebody wants erased, days beyond retention.

What is erased has a tombstone, a keyed hash of its `recording_id`, so that no later run plans it again while its file
still lies in the archive. Days beyond retention need none: a night that keeps so many days leaves them out.

Everything here is for the holder of the lock, and may be done again after a crash: tombstones come first, the plans,
which tell what is to go, last.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Iterable

import pandas as pd
import pyarrow as pa

from emolib.archive.calls import UNKNOWN_DATE
from emolib.archive.ledger import runs
from emolib.archive.predictions import committed, scan
from emolib.archive.rewriting import take_out
from emolib.archive.schemas import TABLES, schema
from emolib.errors import EmolibError
from emolib.storage import AnyPath, read_json, resolve, write_json


def recordings_of(pred: AnyPath, call_id: str) -> set[str]:
    """Return the `recording_id` of every recording of a call that a table or a plan names."""
    return {name for rows in _named(pred) for name in rows.loc[rows["call_id"] == call_id, "recording_id"]}


def forget(pred: AnyPath, recording_ids: Collection[str]) -> int:
    """Remove every row of some recordings from the tables, and what the runs hold of them.

    Returns
    -------
    int
        How many of them had rows in the tables.

    Raises
    ------
    EmolibError
        If something still names one of them afterwards.
    """
    if not recording_ids:
        return 0
    taken = take_out(pred, recording_ids)
    for run in runs(pred):
        run.forget(recording_ids)
    if left := [name for rows in _named(pred) for name in rows["recording_id"] if name in recording_ids]:
        raise EmolibError(
            f"recording {left[0]} is still named in {pred}, expected no trace; run the same command again"
        )
    return taken


def forget_before(pred: AnyPath, date: str) -> int:
    """Remove what the tables and the runs hold of the days before a date (ISO); return how many recordings had rows.

    Those whose date nobody knows are kept.
    """
    old = {
        name
        for rows in _named(pred, before=date)
        for name in rows.loc[(rows["date"] < date) & (rows["date"] != UNKNOWN_DATE), "recording_id"]
    }
    taken = forget(pred, old)
    for part in committed(pred):
        if part.date < date and part.date != UNKNOWN_DATE:  # nothing is left of it; the commit goes last
            for table in [*(name for name in TABLES if name != "recordings"), "recordings"]:
                part.path(pred, table).unlink(missing_ok=True)
    return taken


def bury(pred: AnyPath, recording_ids: Iterable[str]) -> None:
    """Leave a tombstone for each of some recordings: they are not planned any more."""
    key, hashes = _tombstones(pred)
    hashes |= {_hash(key, name) for name in recording_ids}
    write_json(_place(pred), {"key": key, "hashes": sorted(hashes)})


def without_buried(pred: AnyPath, listing: pd.DataFrame) -> pd.DataFrame:
    """Return a listing without the recordings that have a tombstone."""
    key, hashes = _tombstones(pred)
    if not hashes:
        return listing
    return listing[[_hash(key, name) not in hashes for name in listing["recording_id"]]]


def _place(pred: AnyPath) -> AnyPath:
    return resolve(pred) / "_tombstones.json"


def _tombstones(pred: AnyPath) -> tuple[str, set[str]]:
    """Return the key of the hashes, a new one where nothing was forgotten yet, and the hashes."""
    try:
        stored = read_json(_place(pred))
    except FileNotFoundError:
        return secrets.token_hex(32), set()
    return stored["key"], set(stored["hashes"])


def _hash(key: str, recording_id: str) -> str:
    return hmac.digest(bytes.fromhex(key), recording_id.encode(), "sha256").hex()


def _named(pred: AnyPath, *, before: str | None = None) -> Iterable[pd.DataFrame]:
    """Yield what the tables, those of the days before a date, and the plans name: recording_id, call_id and date."""
    columns = pa.schema([schema("recordings", ()).field(name) for name in ("recording_id", "call_id")])
    for part in committed(pred):
        if before is None or part.date < before:
            yield scan(pred, "recordings", [part], columns).to_table().to_pandas().assign(date=part.date)
    for run in runs(pred):
        yield run.plan()[["recording_id", "call_id", "date"]]
