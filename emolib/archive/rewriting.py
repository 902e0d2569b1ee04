"""Rows taken out of the tables: of recordings that a run scores anew, because they changed or failed.

The tables hold the current rows of each recording alone. What is to go is not written down anywhere: the plan says what
a run replaces, and what other runs have of that lies in the tables. So whoever holds the lock does it again after a
crash, as often as it takes, before the run scores anything: readers may miss a recording for some hours, and never see
it twice. Its call stays as it was until the run is closed, or what is erased is gone (see `emolib.archive.joining`).
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from emolib.archive.joining import mark_stale
from emolib.archive.ledger import Run
from emolib.archive.lock import Lock
from emolib.archive.predictions import Part, committed, part_of, scan, write_part
from emolib.archive.schemas import schema
from emolib.archive.shadow import tables_of_blocks
from emolib.storage import AnyPath, resolve


def make_room(run: Run, *, lock: Lock) -> int:
    """Take out what older runs have of the recordings that a run is still to replace; return their number."""
    plan = run.plan("recording_id", "block", where=pc.field("replaces"))
    replaced = plan.loc[plan["block"].isin(run.todo()["block"]), "recording_id"]
    if replaced.empty:
        return 0
    older = [part for part in committed(run.pred) if part.run_id < run.run_id]
    return take_out(run.pred, set(replaced), older, lock=lock)


def take_out(pred: AnyPath, recording_ids: Collection[str], parts: list[Part], *, lock: Lock) -> int:
    """Take the rows of some recordings out of some parts of every table, and return the number of recordings.

    Each part is written anew without them, its `recordings` last: as long as that names one of them, there is something
    left to do. A part of which nothing is left stays, empty: its block is done. The calls are not made anew yet, but
    noted to be stale.
    """
    gone = pa.array(sorted(recording_ids), pa.string())
    taken, holding = 0, _holding(pred, parts, gone)
    if holding:
        mark_stale(pred, holding, gone, lock=lock)
    tables = tables_of_blocks(pred)
    for part in holding:
        classes = Run.open(pred, part.run_id).config.classes
        for root, table in tables:
            if not part.path(root, table).exists():
                continue  # no candidate has listened in; or damage, which is for `verify` to say
            rows = _rows(root, table, part, classes)
            named = pc.is_in(rows["recording_id"], gone)
            left = rows.filter(pc.invert(named))
            if table == "recordings":
                left = _alone(left, gone)
            lock.check()
            write_part(root, table, part, left, classes=classes)
            if table == "recordings":
                taken += pc.sum(named).as_py()
    return taken


def _holding(pred: AnyPath, parts: list[Part], recording_ids: pa.Array) -> list[Part]:
    """Return those of some parts that have a row of one of the recordings, or of a duplicate of one."""
    if not parts:
        return []
    names = ("recording_id", "duplicate_of")
    columns = pa.schema([schema("recordings", ()).field(name) for name in names])
    holds = pc.field("recording_id").isin(recording_ids) | pc.field("duplicate_of").isin(recording_ids)
    found = scan(pred, "recordings", parts, columns).to_table(columns=["__filename"], filter=holds)
    return sorted(part for name in pc.unique(found["__filename"]).to_pylist() if (part := part_of(resolve(name))))


def _alone(rows: pa.Table, gone: pa.Array) -> pa.Table:
    """Return rows of `recordings` in which duplicates no longer name the originals that go; such are due again."""
    orphaned = pc.is_in(rows["duplicate_of"], gone)
    for name in ("duplicate_of", "content_hash", "message"):
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(
            at, rows.schema.field(at), pc.if_else(orphaned, pa.scalar(None, pa.string()), rows[name])
        )
    return rows


def _rows(pred: AnyPath, table: str, part: Part, classes: tuple[str, ...]) -> pa.Table:
    """Read a part as it would be written today: columns that it lacks are null."""
    whole = schema(table, classes)
    return scan(pred, table, [part], whole).to_table().cast(whole)
