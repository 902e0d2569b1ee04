"""What was planned against what is there, for more recordings than memory holds: plans, recordings and calls.

Whoever reads the tables hands over what each says; a database that lies on a disk compares them at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from emolib.archive.calls import UNKNOWN_DATE
from emolib.archive.database import connected, room
from emolib.archive.predictions import Part
from emolib.archive.spool import Spool

TOLERANCE = 1e-3  # of sums of float32
PLANNED = ("uri", "version", "call_id", "date", "direction", "agent", "queue", "site")
"""What a row must have as it was planned."""

# A run is its place among all of them, for DuckDB keeps groups on a disk only where all that they gather has one size.
_OF_ITS_OWN = [("run", pa.int32()), ("block", pa.int32()), ("recording_id", pa.string())]
_AS_PLANNED = [(name, pa.string()) for name in PLANNED]
_SCHEMAS = {
    "recordings": pa.schema([*_OF_ITS_OWN, *_AS_PLANNED, ("decoded_s", pa.float64())]),
    "plans": pa.schema([*_OF_ITS_OWN, *_AS_PLANNED, ("replaces", pa.bool_())]),
    "calls": pa.schema(
        [("call_id", pa.string()), ("date", pa.string()), ("recordings", pa.int64()), ("duration_s", pa.float64())]
    ),
    "blocks": pa.schema([("run", pa.int32()), ("block", pa.int32())]),
}

# Every planned recording beside its row, in the block that it was planned for; and whether a later run was to replace
# it, or did.
_PAIRS = """
with done as (select distinct run, block from blocks),
newest as (select recording_id, max(run) as run from recordings group by recording_id),
replacing as (select recording_id, max(run) as run from plans where replaces group by recording_id),
pairs as (
    select run, block, recording_id, plans.uri as uri, {differing},
        plans.run is not null as is_planned, recordings.run is not null as is_there,
        done.run is not null as is_done, newest.run is not null as is_anywhere,
        coalesce(newest.run > run, false) or coalesce(replacing.run > run, false) as is_replaced
    from plans full join recordings using (run, block, recording_id)
    left join done using (run, block)
    left join newest using (recording_id)
    left join replacing using (recording_id)
)
select run, {counted} from pairs where run in $planned group by run order by run desc
"""
_NOT_AS_PLANNED = "is not what was planned in {count} rows, first {uri}"
# What is wrong with a pair, and what a problem says of so many of them and of the first.
_WRONG = {
    "is_planned and not is_replaced and not is_anywhere and run in $whole": (
        "{count} planned recordings have no row, first {uri}"
    ),
    **{f"is_planned and is_there and differs_{name}": f"{name} {_NOT_AS_PLANNED}" for name in PLANNED},
    "not is_planned": "{count} rows are not planned, first {recording_id}",
    "is_planned and not is_there and is_done and not is_replaced": (
        "{count} recordings are missing in committed blocks, first {uri}"
    ),
}

_CALLS = """
with made as (
    select call_id, min(try_cast(replace(nullif(date, $unknown), '-', '') as integer)) as day, count(*) as recordings,
        sum(decoded_s) as duration_s, coalesce(bool_or(date in $waiting), false) as waits
    from recordings where call_id is not null group by call_id
),
said as (
    from calls where call_id is null or call_id not in (from twice)
    union all
    (select distinct on (call_id) * from calls where call_id in (from twice) order by call_id, date)
),
pairs as (
    select call_id, said.call_id is not null as is_said, made.call_id is not null as is_made,
        made.day is distinct from try_cast(replace(nullif(said.date, $unknown), '-', '') as integer) as differs_date,
        made.recordings is distinct from said.recordings as differs_recordings,
        coalesce(abs(made.duration_s - said.duration_s) > $tolerance,
            (made.duration_s is null) <> (said.duration_s is null)) as differs_duration_s
    from made full join said using (call_id)
    where not coalesce(made.waits, false) and not coalesce(said.date in $waiting, false)
)
select {counted} from pairs
"""
_WRONG_CALLS = {
    "not is_said": "recordings: the call has no row in calls",
    "not is_made": "calls: the call has no row in recordings",
    "is_said and is_made and differs_date": "calls: date is not the earliest of its recordings",
    "is_said and is_made and differs_recordings": "calls: recordings is not the number of them",
    "is_said and is_made and differs_duration_s": "calls: duration_s is not that of its recordings",
}


class Reconciliation:
    """Take what the plans, the recordings and the calls say, then compare it.

    Parameters
    ----------
    folder
        On this machine, empty: half a gigabyte for a million recordings may come to lie there.
    runs
        The ids of all that are told of, oldest first.
    """

    def __init__(self, folder: Path, runs: Iterable[str]) -> None:
        self._folder, self._runs = folder, list(runs)
        self._number = {run_id: number for number, run_id in enumerate(self._runs)}
        self._spools = {name: Spool(folder / f"{name}.parquet", each) for name, each in _SCHEMAS.items()}
        self._planned: list[int] = []

    def take_plan(self, run_id: str, rows: pa.Table) -> None:
        """Take some rows of the stored plan of a run."""
        self._spools["plans"].add(_with(rows, run=self._number[run_id]))

    def has_whole_plan(self, run_id: str) -> None:
        """Take note that the plan of a run was taken to its end; the rows of others are compared with nothing."""
        self._planned.append(self._number[run_id])

    def take_recordings(self, part: Part, rows: pa.Table) -> None:
        """Take the rows of `recordings` in a committed part."""
        self._spools["recordings"].add(_with(rows, run=self._number[part.run_id], block=part.block, date=part.date))

    def take_block(self, part: Part) -> None:
        """Take note that a block was committed."""
        self._spools["blocks"].add(pa.table({"run": [self._number[part.run_id]], "block": [part.block]}))

    def take_calls(self, date: str, rows: pa.Table) -> None:
        """Take the rows of `calls` of a date."""
        self._spools["calls"].add(_with(rows, date=date))

    def problems(self, *, whole: Collection[str], waiting: Collection[str]) -> Iterator[str]:
        """Yield what does not fit, a line each; nothing can be taken after that.

        Parameters
        ----------
        whole
            Runs of which every planned recording must have its row.
        waiting
            Dates whose calls are not up to date, which is known.
        """
        with room(self._folder, "verify in"):
            self._database = connected(self._folder, {name: spool.close() for name, spool in self._spools.items()})
            yield from self._twins()
            yield from self._against_plans([self._number[run_id] for run_id in whole])
            yield from self._calls(list(waiting))
            self._database.close()

    def _twins(self) -> Iterator[str]:
        found = self._database.execute(
            "select recording_id, list((run, block) order by run, block) from recordings where recording_id in (select "
            "recording_id from recordings group by recording_id having count(*) > 1) "
            "group by recording_id order by recording_id"
        )
        for recording_id, blocks in found.fetchall():
            places = ", ".join(f"block {block} of run {self._runs[run]}" for run, block in blocks)
            yield f"recordings: recording {recording_id} has {len(blocks)} rows, expected one: {places}"

    def _against_plans(self, whole: list[int]) -> Iterator[str]:
        differing = ", ".join(
            f"coalesce(plans.{name}, '') <> coalesce(recordings.{name}, '') as differs_{name}" for name in PLANNED
        )
        counted = ", ".join(
            f"count(*) filter ({wrong}), min_by(coalesce(uri, ''), (block, uri)) filter ({wrong}), "
            f"min(recording_id) filter ({wrong})"
            for wrong in _WRONG
        )
        query = _PAIRS.format(differing=differing, counted=counted)
        found = self._database.execute(query, {"planned": self._planned, "whole": whole})
        for run, *counts in found.fetchall():
            for text, (count, uri, recording_id) in zip(_WRONG.values(), _by_three(counts), strict=True):
                if count:
                    yield f"run {self._runs[run]}: {text.format(count=count, uri=uri, recording_id=recording_id)}"

    def _calls(self, waiting: list[str]) -> Iterator[str]:
        self._database.execute(
            "create table twice as select call_id from calls where call_id is not null group by call_id "
            "having count(*) > 1"
        )
        twice = self._database.execute(
            "select call_id, count(*), string_agg(distinct date, ', ' order by date) from calls "
            "where call_id in (from twice) group by call_id order by call_id"
        )
        for call_id, count, dates in twice.fetchall():
            yield f"calls: call {call_id} has {count} rows, expected one: {dates}"
        counted = ", ".join(f"count(*) filter ({wrong}), min(call_id) filter ({wrong})" for wrong in _WRONG_CALLS)
        values = {"unknown": UNKNOWN_DATE, "waiting": waiting, "tolerance": TOLERANCE}
        (counts,) = self._database.execute(_CALLS.format(counted=counted), values).fetchall()
        for text, count, first in zip(_WRONG_CALLS.values(), counts[::2], counts[1::2], strict=True):
            if count:
                yield f"{text}, of {count} calls, first call_id {first}"


def _by_three(values: list[object]) -> Iterable[tuple[object, ...]]:
    return zip(*[iter(values)] * 3, strict=True)


def _with(rows: pa.Table, **same: str | int) -> pa.Table:
    """Return rows with some columns that have one value in all of them, in the place of those of that name."""
    others = rows.drop_columns([name for name in same if name in rows.column_names])
    for name, value in same.items():
        others = others.append_column(name, pa.repeat(value, len(rows)))
    return others
