"""Whether another run scored what an open run has planned: one that lost its lock, and was gone on with later."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from emolib.archive.database import connected, room
from emolib.archive.ledger import Run
from emolib.archive.plan import PLAN_SCHEMA
from emolib.archive.predictions import committed, scan
from emolib.archive.schemas import schema
from emolib.archive.spool import Spool

_ROWS = pa.schema([schema("recordings", ()).field(name) for name in ("recording_id", "run_id")])
_PLANNED = pa.schema([PLAN_SCHEMA.field(name) for name in ("recording_id", "block", "replaces")])


def taken_by_others(run: Run, *, folder: Path) -> int:
    """Count the recordings of a run's open blocks that have their row from another run.

    A row of an older run does not count where the run is to replace it.

    Parameters
    ----------
    folder
        On this machine, for what does not fit into memory.
    """
    with TemporaryDirectory(dir=folder) as own, room(folder, "look for rows in"):
        rows, planned = Spool(Path(own, "rows.parquet"), _ROWS), Spool(Path(own, "planned.parquet"), _PLANNED)
        if done := committed(run.pred):
            for batch in scan(run.pred, "recordings", done, _ROWS).to_batches():
                rows.add(pa.table(batch))
        for part in run.plan_parts(*_PLANNED.names):
            planned.add(part)
        database = connected(folder, {"stored": rows.close(), "planned": planned.close()})
        ((count,),) = database.execute(
            """
            with others as (
                select recording_id, bool_or(run_id > $run) as is_newer from stored where run_id <> $run
                group by recording_id
            )
            select count(*) from planned join others using (recording_id)
            where block in $open and (is_newer or not coalesce(replaces, false))
            """,
            {"run": run.run_id, "open": run.todo()["block"].tolist()},
        ).fetchall()
        database.close()
        return int(count)
