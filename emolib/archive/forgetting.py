"""Recordings whose traces are removed: a call that somebody wants erased, days beyond retention.

What is erased has tombstones, keyed hashes of its `recording_id` and of its call's, so that no later run plans it again
while its file still lies in the archive, or another recording of the call comes. Days beyond retention need none: a
night that keeps so many days leaves them out.

Everything here may be done again after a crash: tombstones come first, the plans, which tell what is to go, last.
"""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from emolib.archive.calls import is_before
from emolib.archive.joining import refresh_calls
from emolib.archive.ledger import ids_with_rows, open_runs, runs
from emolib.archive.lock import Lock
from emolib.archive.predictions import Part, committed, scan
from emolib.archive.rewriting import take_out
from emolib.archive.schemas import schema
from emolib.archive.shadow import tables_of_blocks
from emolib.errors import EmolibError, SettingsError
from emolib.storage import AnyPath, read_json, resolve, write_json

_QUIET_DAYS = 7  # of an archive that grows: beyond them the clock may be wrong


def recordings_of(pred: AnyPath, call_id: str) -> set[str]:
    """Return the `recording_id` of every recording of a call that a table or a plan names."""
    return {name for rows in _named(pred) for name in rows.loc[rows["call_id"] == call_id, "recording_id"]}


def forget(pred: AnyPath, recording_ids: Collection[str], *, lock: Lock, before: str | None = None) -> int:
    """Remove every row of some recordings, those of days before a date if one is given, from the tables and the runs.

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
    for run in open_runs(pred):
        run.commits.settle(lock=lock)
    taken = take_out(pred, recording_ids, _parts(pred, before), lock=lock)
    refresh_calls(pred, lock=lock)
    wanted = {*recording_ids}
    kept = {name for name in ids_with_rows(pred) if name in wanted}  # of other days, by a later run
    for run in runs(pred):
        run.forget(wanted - kept, lock=lock)
        if kept:
            run.forget(kept, lock=lock, before=before)
    for rows in _named(pred, before=before):
        if left := rows.loc[rows["recording_id"].isin(wanted), "recording_id"].tolist():
            raise EmolibError(f"recording {left[0]} still named in {pred}, expected no trace; run the same again")
    return taken


def forget_before(pred: AnyPath, date: str, *, lock: Lock) -> int:
    """Remove what the tables and the runs hold of the days before a date (ISO); return how many recordings had rows.

    Those whose date nobody knows are kept.
    """
    named = {name for rows in _named(pred, before=date) for name in rows["recording_id"]}
    taken = forget(pred, named, lock=lock, before=date)
    tables = tables_of_blocks(pred)
    for part in committed(pred):
        if is_before(part.date, date):  # nothing is left of it
            for root, table in tables:
                lock.check()
                part.path(root, table).unlink(missing_ok=True)
    return taken


def kept_since(clock: dt.date, keep_days: int) -> str:
    """Return the first day (ISO) of a retention of so many days."""
    return (clock - dt.timedelta(days=keep_days)).isoformat()


def check_retention(pred: AnyPath, keep_days: int, *, clock: dt.date, newest: str) -> None:
    """See that a retention removes what is old, and not what a wrong clock, or a slip of the pen, takes for old.

    Parameters
    ----------
    clock
        Today, as this machine has it.
    newest
        The newest date (ISO) of a recording in the archive that is not after the clock; empty if there is none.

    Raises
    ------
    SettingsError
        If rows would be removed although the clock is more than 7 days after the newest recording; or more than half of
        the rows, and no earlier run had this retention.
    """
    parts, before = committed(pred), kept_since(clock, keep_days)
    going = _rows_in(pred, [part for part in parts if is_before(part.date, before)])
    if not going:
        return
    today = clock.isoformat()
    newest = max(newest, *(part.date for part in parts if part.date <= today), "")
    quiet = (clock - dt.date.fromisoformat(newest)).days
    is_usual = any(run.config.keep_days == keep_days for run in runs(pred))
    if quiet <= _QUIET_DAYS and is_usual:
        return  # as on most nights: the other parts are not looked at
    total = _rows_in(pred, parts)
    would = f"--keep-days {keep_days} would remove {going} of {total} recordings, those before {before}"
    if quiet > _QUIET_DAYS:
        raise SettingsError(
            f"the clock says {today}, {quiet} days after the newest recording ({newest}), expected at most "
            f"{_QUIET_DAYS}: {would}; set the clock, or say --really if it is right"
        )
    if 2 * going > total:
        raise SettingsError(
            f"{would}, more than half, and no earlier run had this setting; keep more days, or say --really to remove "
            "them"
        )


def _rows_in(pred: AnyPath, parts: Sequence[Part]) -> int:
    return scan(pred, "recordings", parts, pa.schema([])).count_rows() if parts else 0


def forget_buried(pred: AnyPath, *, lock: Lock) -> int:
    """Remove the rows of what has a tombstone: its erasure was interrupted, or a late worker brought them back."""
    key, hashes = _tombstones(pred)
    if not hashes:
        return 0
    for run in open_runs(pred):  # what is decided and not published names them, too
        run.commits.settle(lock=lock)
    return forget(pred, {name for name in ids_with_rows(pred) if _hash(key, name) in hashes}, lock=lock)


def bury(pred: AnyPath, ids: Iterable[str], *, lock: Lock) -> None:
    """Leave a tombstone for each of some recordings and calls, by their ids: they are not planned any more."""
    key, hashes = _tombstones(pred)
    hashes |= {_hash(key, name) for name in ids}
    lock.check()
    write_json(_place(pred), {"key": key, "hashes": sorted(hashes)})


def without_buried(pred: AnyPath, rows: pd.DataFrame, by: str = "recording_id") -> pd.DataFrame:
    """Return a listing without the recordings that have a tombstone; or, by ``call_id``, a plan without such calls."""
    key, hashes = _tombstones(pred)
    if not hashes:
        return rows
    return rows[np.array([_hash(key, name) not in hashes for name in rows[by]], bool)]  # of no rows too


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
    """Yield what the tables and the plans name, of days before a date if one is given: recording_id, call_id, date."""
    columns = pa.schema([schema("recordings", ()).field(name) for name in ("recording_id", "call_id")])
    by_date: dict[str, list[Part]] = {}
    for part in _parts(pred, before):
        by_date.setdefault(part.date, []).append(part)
    for date, group in by_date.items():
        yield scan(pred, "recordings", group, columns).to_table().to_pandas().assign(date=date)
    for run in runs(pred):
        plan = run.plan("recording_id", "call_id", "date")
        yield plan if before is None else plan[is_before(plan["date"], before)]


def _parts(pred: AnyPath, before: str | None) -> list[Part]:
    return [part for part in committed(pred) if before is None or is_before(part.date, before)]
