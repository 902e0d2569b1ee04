"""Recordings and channels -> calls: a table that can be made again at any time, and how it is kept up to date.

A call may have several recordings: parts, or legs in files of their own, in different blocks, nights and dates. So no
task writes it. Whoever holds the lock derives the rows of a date from the tables `recordings` and `channels`, at the
end of each run and after every change of rows, and replaces the one file of that date.

What holds, whatever is interrupted:

- The file of a date is replaced whole: a reader sees the old rows or the new ones.
- Until a run is closed, its recordings are in no call yet; what it replaces is in the call as it was, unless something
  of the same date is erased meanwhile.
- A call whose date changes (an earlier recording of it arrived, or was removed) is written under its new date before it
  is removed from the old one. So at no moment it is missing, and for a moment it has two rows, of which
  `emolib.archive.read` shows one. A reader of plain files that takes its time may see either.
- Dates whose calls may not agree with the recordings are noted in ``PRED/_stale.json`` before these change, and
  until the calls are written. A run that is open has its plan to tell them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from upath import UPath

from emolib.archive.aggregates import POLARITIES, call_columns
from emolib.archive.calls import UNKNOWN_DATE
from emolib.archive.lock import Lock
from emolib.archive.predictions import (
    Part,
    calls_in,
    committed,
    files,
    files_of_calls,
    is_litter,
    part_of,
    place_of_calls,
    scan,
    write_rows,
)
from emolib.archive.schemas import PROVENANCE, schema
from emolib.archive.talk import joined_talk, talk, talk_columns
from emolib.storage import AnyPath, read_json, resolve, write_json

_METADATA = ("direction", "agent", "queue", "site")
_RECORDINGS = (
    *("recording_id", "uri", "call_id", "decoded_s", *_METADATA, "extra"),
    *talk_columns(talk([], [])),
    *PROVENANCE,
)
_CHANNELS = (
    *("recording_id", "channel", "call_id", "role", "outcome", "windows_scored"),
    *("worst_start_s", "worst_end_s", "worst_negative"),
    *(f"{prefix}_{polarity}" for prefix in ("polarity", "trend") for polarity in POLARITIES),
)
_CALLS_AT_ONCE = 10_000  # as Python's dictionaries; the rest stays in Arrow's columns


def calls_of(recordings: pa.Table, channels: pa.Table) -> pa.Table:
    """Return the calls that some recordings make, with all their channels: a pure function of the two tables.

    Parameters
    ----------
    recordings, channels
        Rows of the tables `recordings` and `channels` in any order. Recordings have one column more: date (ISO).

    Returns
    -------
    pyarrow.Table
        The rows of the table `calls`, sorted by call_id, with one column more: date, the earliest that is known of any
        of its recordings. What only one value can be told of (direction, agent, queue, site, each key of extra) is that
        of the first recording that has one, by date and URI. Model, run and fingerprint are those of the newest run.

    Examples
    --------
    >>> from emolib.archive.schemas import schema
    >>> rows = [{"recording_id": name, "call_id": "c", "uri": name, "decoded_s": 60.0, "run_id": "r"} for name in "ab"]
    >>> recordings = pa.Table.from_pylist(rows, schema=schema("recordings", ()))
    >>> recordings = recordings.append_column("date", pa.array(["2024-05-02", "2024-05-01"]))
    >>> calls_of(recordings, schema("channels", ()).empty_table()).select(
    ...     ["call_id", "date", "recordings", "duration_s"]
    ... ).to_pylist()
    [{'call_id': 'c', 'date': '2024-05-01', 'recordings': 2, 'duration_s': 120.0}]
    """
    whole = schema("calls", ()).append(pa.field("date", pa.string()))
    order = [(name, "ascending") for name in ("call_id", "date", "uri", "recording_id")]
    recordings = recordings.select([*_RECORDINGS, "date"]).sort_by(order)
    channels = channels.select(_CHANNELS)
    names = pc.unique(recordings["call_id"])
    made = [whole.empty_table()]
    for start in range(0, len(names), _CALLS_AT_ONCE):
        some = names[start : start + _CALLS_AT_ONCE]
        rows = recordings.filter(pc.is_in(recordings["call_id"], some)).to_pylist()
        heard = channels.filter(pc.is_in(channels["call_id"], some)).to_pylist()
        by_recording: dict[str, list[dict[str, Any]]] = {}
        for channel in sorted(heard, key=lambda row: row["channel"]):
            by_recording.setdefault(channel["recording_id"], []).append(channel)
        calls = [
            _call(group, [channel for row in group for channel in by_recording.get(row["recording_id"], ())])
            for group in (list(members) for _, members in groupby(rows, key=lambda row: row["call_id"]))
        ]
        made.append(pa.Table.from_pylist(calls, schema=whole))
    return pa.concat_tables(made)


def _call(recordings: Sequence[dict[str, Any]], channels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    newest = max(recordings, key=lambda row: row["run_id"])
    extra = {name: value for row in reversed(recordings) for name, value in row["extra"] or ()}
    return {
        **call_columns(recordings, channels),
        **joined_talk(recordings),
        **{name: next((row[name] for row in recordings if row[name] is not None), None) for name in _METADATA},
        "extra": sorted(extra.items()) or None,
        **{name: newest[name] for name in PROVENANCE},
        "date": min((row["date"] for row in recordings if row["date"] != UNKNOWN_DATE), default=UNKNOWN_DATE),
    }


def stale(pred: AnyPath) -> set[str]:
    """Return the dates whose calls may not agree with the recordings, as noted by those who changed these."""
    try:
        return set(read_json(_note(pred))["dates"])
    except FileNotFoundError:
        return set()


def mark_stale(pred: AnyPath, parts: Sequence[Part], recording_ids: pa.Array, *, lock: Lock) -> None:
    """Note, before rows of some recordings in some parts change, the dates whose calls will have to be made anew.

    These are all dates that have a recording of the same calls.
    """
    rows = _rows(pred, "recordings", parts, ("recording_id", "call_id"))
    shared = _shared(rows.filter(pc.is_in(rows["recording_id"], recording_ids)))
    noted = stale(pred)
    dates = noted | {part.date for part in parts} | {date for date, _ in _named(pred, committed(pred), shared)}
    if dates > noted:
        lock.check()
        write_json(_note(pred), {"dates": sorted(dates)})


def refresh_calls(pred: AnyPath, dates: Collection[str] = (), *, lock: Lock) -> int:
    """Make the calls of some dates, and of those that are noted as stale, anew; return the number of dates written.

    Only when no task is at work. May be done again after a crash, as often as it takes, and writes the same. Memory
    holds the recordings of one date.

    Parameters
    ----------
    dates
        Dates (ISO) whose recordings changed.
    """
    noted = stale(pred)
    changed = noted | {*dates}
    if not changed:
        return 0
    calls = _Calls(pred, changed, lock)
    moving = calls.on_the_move()
    still_there = [date for date in calls.dates if calls.write(date, keep=moving)]
    for date in still_there:
        calls.write(date)
    if noted:
        lock.check()
        _note(pred).unlink(missing_ok=True)
    return len(calls.dates)


class _Calls:
    """The calls of dates that changed, and of those that share a call with them; `dates` are all of these."""

    def __init__(self, pred: AnyPath, changed: set[str], lock: Lock) -> None:
        self._pred, self._changed, self._lock = pred, changed, lock
        self._files = files_of_calls(pred)
        self._litter = [path for path in files(pred, "calls") if is_litter(path)]
        self._committed = committed(pred)
        self._parts: dict[str, list[Part]] = {}
        for part in self._committed:
            self._parts.setdefault(part.date, []).append(part)
        of_call: dict[str, set[str]] = {}
        for date, name in _named(pred, self._committed, pa.concat_arrays([*self._suspects()])):
            of_call.setdefault(name, set()).add(date)
        # Calls that a changed date alone does not tell.
        wider = {name: found for name, found in of_call.items() if len(found) > 1 or not found <= changed}
        elsewhere = set().union(*wider.values())
        self.dates = sorted(changed | elsewhere)
        self._wider = pa.array(sorted(wider), pa.string())
        self._joined = self._make([part for part in self._committed if part.date in elsewhere], _of(self._wider))

    def _suspects(self) -> Iterator[pa.Array]:
        """Yield the ids of the calls of the changed dates that may have recordings of other dates."""
        yield pa.array([], pa.string())
        for date in self._changed:
            rows = self._recordings_of(date)
            yield _shared(rows)
            old = self._old(date)["call_id"]
            yield old.filter(pc.invert(pc.is_in(old, rows["call_id"]))).combine_chunks()

    def on_the_move(self) -> set[str]:
        """Return the calls that have a row under a date and will have it under another."""
        leaving: set[str] = set()
        for date in self.dates:
            old = self._old(date)["call_id"]
            stays = pc.invert(self._is_wider(old))
            if date in self._changed:
                stays = pc.and_(stays, pc.is_in(old, self._recordings_of(date)["call_id"]))
            leaving |= set(old.filter(pc.invert(pc.or_(stays, pc.is_in(old, self._here(date)["call_id"])))).to_pylist())
        return {name for _, name in _named(self._pred, self._committed, pa.array(sorted(leaving), pa.string()))}

    def write(self, date: str, *, keep: Collection[str] = ()) -> bool:
        """Replace the file of a date, and return whether it keeps old rows of calls that are to go elsewhere."""
        rows, old = self._new(date), self._old(date)
        kept = old.filter(pc.is_in(old["call_id"], pa.array(sorted(keep), pa.string())))
        kept = kept.filter(pc.invert(pc.is_in(kept["call_id"], rows["call_id"])))
        rows, place = pa.concat_tables([rows, kept]).sort_by("call_id"), place_of_calls(self._pred, date)
        self._lock.check()
        if len(rows):
            write_rows(place, rows, schema("calls", ()))
        replaced = [path for path in self._files.get(date, ()) if not len(rows) or path.name != place.name]
        for path in (*replaced, *(path for path in self._litter if path.parent.name == place.parent.name)):
            self._lock.check()
            path.unlink(missing_ok=True)
        self._files[date] = [place] if len(rows) else []
        return len(kept) > 0

    def _new(self, date: str) -> pa.Table:
        """Return the calls of a date: of one that changed all anew, of another those that it shares."""
        whole = schema("calls", ())
        if date in self._changed:
            alone = self._make(self._parts.get(date, ()), ~_of(self._wider)).drop_columns("date")
        else:
            old = self._old(date)
            alone = old.filter(pc.invert(self._is_wider(old["call_id"])))
        return pa.concat_tables([alone.cast(whole), self._here(date).drop_columns("date").cast(whole)])

    def _make(self, parts: Sequence[Part], chosen: pc.Expression) -> pa.Table:
        return calls_of(
            _rows(self._pred, "recordings", parts, (*_RECORDINGS, "date"), chosen),
            _rows(self._pred, "channels", parts, _CHANNELS, chosen),
        )

    def _recordings_of(self, date: str) -> pa.Table:
        return _rows(self._pred, "recordings", self._parts.get(date, ()), ("recording_id", "call_id"))

    def _old(self, date: str) -> pa.Table:
        return calls_in(self._files.get(date, ()))

    def _here(self, date: str) -> pa.Table:
        return self._joined.filter(pc.equal(self._joined["date"], date))

    def _is_wider(self, names: Any) -> Any:
        return pc.is_in(names, self._wider)


def _shared(rows: pa.Table) -> pa.Array:
    """Return the ids of calls that are not a recording's own: only those may have several."""
    return pc.unique(rows.filter(pc.not_equal(rows["call_id"], rows["recording_id"]))["call_id"])


def _named(pred: AnyPath, parts: Sequence[Part], call_ids: pa.Array) -> set[tuple[str, str]]:
    """Return date and call_id of the recordings in some parts that belong to some calls."""
    if not len(call_ids) or not parts:
        return set()
    columns = pa.schema([schema("recordings", ()).field("call_id")])
    found = scan(pred, "recordings", parts, columns).to_table(columns=["call_id", "__filename"], filter=_of(call_ids))
    pairs = zip(found["__filename"].to_pylist(), found["call_id"].to_pylist(), strict=True)
    return {(part.date, name) for place, name in pairs if (part := part_of(resolve(place)))}


def _of(call_ids: pa.Array) -> pc.Expression:
    return pc.field("call_id").isin(call_ids)


def _rows(
    pred: AnyPath, table: str, parts: Sequence[Part], names: Sequence[str], chosen: pc.Expression | None = None
) -> pa.Table:
    """Read columns of some parts of a table, all rows or those chosen; the column date is that of the part."""
    dated = "date" in names
    columns = pa.schema([schema(table, ()).field(name) for name in names if name != "date"])
    found = [columns.append(pa.field("date", pa.string())).empty_table() if dated else columns.empty_table()]
    by_date: dict[str, list[Part]] = {}
    for part in parts:
        by_date.setdefault(part.date, []).append(part)
    for date, group in by_date.items():
        rows = scan(pred, table, group, columns).to_table(filter=chosen)
        found.append(rows.append_column("date", pa.repeat(pa.scalar(date), len(rows))) if dated else rows)
    return pa.concat_tables(found)


def _note(pred: AnyPath) -> UPath:
    return resolve(pred) / "_stale.json"
