"""Listing minus what has its rows, for more recordings than memory holds: stored tables in, sorted batches out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import duckdb
import pandas as pd
import pyarrow as pa

from emolib.archive.calls import UNKNOWN_DATE
from emolib.archive.database import connected, room
from emolib.archive.duplicates import orphans
from emolib.archive.listing import SCHEMA as LISTING, described
from emolib.archive.metadata import Sources
from emolib.archive.plan import KNOWN, MOST_ATTEMPTS, PLAN_SCHEMA, Choice
from emolib.errors import TRANSIENT, Code
from emolib.sound.manifest import NO_VERSIONS

if TYPE_CHECKING:
    from emolib.sound.manifest import Recording

_BATCH = 50_000
AMBIGUOUS = "ambiguous"
"""In place of the version of a recording that is several files."""


class Waiting(NamedTuple):
    """How many recordings are due, or taken, and for how many seconds of sound (estimated)."""

    recordings: int
    estimated_s: float


class Ambiguous(NamedTuple):
    """Recordings that are several files, whose names differ only in their Unicode form.

    Attributes
    ----------
    recordings, files
        How many of either.
    first
        The names of the files of one of them.
    """

    recordings: int
    files: int
    first: tuple[str, ...]


class Planner:
    """What is to be done of a listing.

    Parameters
    ----------
    listing
        A Parquet file, or a table, with the columns of `emolib.archive.listing.SCHEMA`.
    known
        The same with the columns of `KNOWN`, of what has its row.
    folder
        Where what does not fit into memory goes for a while.

    Raises
    ------
    OSError
        Like every method: with `errno.ENOSPC`, if the folder is full.
    """

    def __init__(self, listing: Path | pa.Table, known: Path | pa.Table, *, folder: Path) -> None:
        self._folder = folder
        with self._room():
            self._database = connected(folder, {"listing": listing, "every_known": known})
            self._look_for_twins()
            self._look_at_known()

    def _room(self) -> AbstractContextManager[None]:
        return room(self._folder, "plan in")

    def _look_at_known(self) -> None:
        # Two rows of one recording are damage, which scoring it once more mends.
        self._database.execute(
            "create table twice as select recording_id from every_known group by recording_id having count(*) > 1"
        )
        self._database.execute(
            "create view known as select * from every_known where recording_id not in (from twice) union all "
            "(select distinct on (recording_id) * from every_known where recording_id in (from twice) "
            "order by recording_id, attempts desc, version, code)"
        )
        related = self._database.execute(
            "select recording_id, code, content_hash, duplicate_of from known where code = $duplicate or recording_id "
            "in (select duplicate_of from known where code = $duplicate)",
            {"duplicate": Code.DUPLICATE.value},
        ).df()
        lost = pa.table({"recording_id": sorted(orphans(related))}, schema=pa.schema([("recording_id", pa.string())]))
        self._database.register("orphans", lost)

    def _look_for_twins(self) -> None:
        """Make one recording of the files that have one recording_id: their names differ only in their Unicode form.

        It is named like the first of them, and due where no row of before tells of one of them as it is now.
        """
        self._database.execute(
            """
            create table twins as
            select recording_id, list(uri order by uri) as uris, list(version) as versions,
                max(modified_s) as modified_s
            from listing where recording_id in
                (select recording_id from listing group by recording_id having count(*) > 1)
            group by recording_id
            """
        )
        nobody = "cast(null as varchar[])"
        self._database.execute(
            f"""
            create view recordings as
            select *, {nobody} as uris, {nobody} as versions from listing
                where recording_id not in (select recording_id from twins)
            union all
            select first.* replace ('{AMBIGUOUS}' as version, twins.modified_s as modified_s, 0.0 as estimated_s),
                uris, versions
            from (
                select distinct on (recording_id) * from listing
                where recording_id in (select recording_id from twins) order by recording_id, uri
            ) first join twins using (recording_id)
            """
        )

    def ambiguous(self) -> Ambiguous:
        """Return how many recordings of the listing are several files, and which are the first of them."""
        ((recordings, files, first),) = self._database.execute(
            "select count(*), coalesce(sum(len(uris)), 0), min(uris) from twins"
        ).fetchall()
        return Ambiguous(int(recordings), int(files), tuple(first or ()))

    def waiting(self, choice: Choice) -> Waiting:
        """Return how much is due, whether a run takes it or not."""
        with self._room():
            return self._count(self._due(choice))

    def taken(self, choice: Choice) -> Waiting:
        """Return how much a run takes."""
        with self._room():
            return self._count(self._taken(choice))

    def scored_otherwise(self, fingerprint: str) -> int:
        """Return how many rows there are that have another scoring fingerprint."""
        query = "select count(*) from every_known where scoring_fingerprint is distinct from $fingerprint"
        with self._room():
            ((found,),) = self._database.execute(query, {"fingerprint": fingerprint}).fetchall()
        return int(found)

    def left(self, choice: Choice) -> dict[str, int]:
        """Return how many recordings are due and not taken, by the reason.

        ``settling``: their files may still be written to. ``beyond_retention``. ``other_days``: than those that were
        asked for. ``beyond_limit``: of hours.
        """
        with self._room():
            found = dict(self._due(choice).aggregate("left_because, count(*)").fetchall())
        left = {reason: found.get(reason, 0) for reason in ("settling", "beyond_retention", "other_days")}
        return {**left, "beyond_limit": found.get(None, 0) - self.taken(choice).recordings}

    def _count(self, rows: duckdb.DuckDBPyRelation) -> Waiting:
        (found,) = rows.aggregate("count(*), coalesce(sum(estimated_s), 0.0)").fetchall()
        return Waiting(int(found[0]), float(found[1]))

    def plan(self, choice: Choice, *, block_s: float, max_recordings: int = 1000) -> Iterator[pa.Table]:
        """Yield the plan of what a run takes, some rows at a time, in blocks of about equal work.

        Its rows are sorted by date and URI, whatever the order of the listing; a block is a run of them within one
        date.

        Parameters
        ----------
        block_s
            Estimated seconds of sound in a block; only a single recording that is longer makes a longer block.
        max_recordings
            Most recordings in a block.

        Yields
        ------
        pyarrow.Table
            With `PLAN_SCHEMA`; block counts from 0, date is an ISO date.
        """
        blocks = _Blocks(block_s, max_recordings)
        with self._room():
            reader = self._taken(choice).order("date, uri").to_arrow_reader(_BATCH)
        while True:
            with self._room():
                batch = next(reader, None)
            if batch is None:
                return
            rows = pa.Table.from_batches([batch])
            columns = dict(zip(rows.column_names, rows.columns, strict=True))
            columns["block"] = pa.array(
                blocks.of(rows["date"].to_pylist(), rows["estimated_s"].to_numpy().tolist()), pa.int32()
            )
            nothing = pa.nulls(len(rows), pa.string())
            columns |= dict.fromkeys(("content_hash", "duplicate_of", "path", "ambiguous"), nothing)
            if rows["uris"].null_count < len(rows):
                columns["ambiguous"] = pa.array(map(_named, rows["uris"].to_pylist()), pa.string())
            yield pa.table({name: columns[name] for name in PLAN_SCHEMA.names}).cast(PLAN_SCHEMA)

    def _due(self, choice: Choice) -> duckdb.DuckDBPyRelation:
        """Return the listed recordings that are to be scored: new or changed ones, failures that may pass, orphans.

        And why a run must leave them, of whatever length it is; null where it need not.
        """
        return self._database.sql(
            """
            with facts as (
                select recordings.*, known.recording_id is null as is_new, known.attempts as before, known.code,
                    known.scoring_fingerprint, uris is not null as is_ambiguous,
                    case when is_ambiguous then not list_has_any(versions, $no_versions)
                        else recordings.version not in $no_versions end as is_readable,
                    -- A file that can't be looked at tonight, or another one of nearly its name, is no reason to give
                    -- up what is known of it.
                    is_new or (is_readable and known.version <> recordings.version
                        and not (is_ambiguous and list_contains(versions, known.version))) as changed
                from recordings left join known using (recording_id)
            )
            select * exclude (is_new, before, code, scoring_fingerprint, is_ambiguous, is_readable, changed, versions),
                cast(case when changed then 1 else before + 1 end as integer) as attempts, not is_new as replaces,
                case
                    -- Not a number where nobody knows it, the highest of all to DuckDB.
                    when abs(modified_s - $now_s) < $settle_s then 'settling'
                    when date < $keep_since and date <> $unknown then 'beyond_retention'
                    when date <> $date then 'other_days'
                end as left_because
            from facts
            where changed or code in $retry or (code in $passing and before < $most)
                or ($rescore is not null and is_readable and scoring_fingerprint is distinct from $rescore
                    and (not is_ambiguous or code = $ambiguous))
                or recording_id in (from twice) or recording_id in (from orphans)
            """,
            params={
                "no_versions": list(NO_VERSIONS),
                "retry": [code.value for code in choice.retry],
                "ambiguous": Code.AMBIGUOUS.value,
                "passing": [code.value for code in TRANSIENT],
                "most": MOST_ATTEMPTS,
                "rescore": choice.rescore,
                "now_s": choice.now_s,
                "settle_s": choice.settle_s,
                "keep_since": choice.keep_since,
                "unknown": UNKNOWN_DATE,
                "date": choice.date,
            },
        )

    def _taken(self, choice: Choice) -> duckdb.DuckDBPyRelation:
        """Return those of them that a run takes."""
        rows = self._due(choice).filter("left_because is null").project("* exclude (left_because)")
        if choice.since is None and math.isinf(choice.limit_s):
            return rows
        backfill_s = min(choice.backfill_s, choice.limit_s)
        newest_s = choice.limit_s if math.isinf(choice.limit_s) else choice.limit_s - backfill_s
        since = duckdb.ConstantExpression(choice.since or "")
        newest = _up_to(rows.filter(duckdb.ColumnExpression("date") >= since), newest_s, "date desc, uri")
        if not backfill_s:
            return newest
        left = rows.set_alias("due").join(newest.project("recording_id"), "recording_id", how="anti")
        return newest.union(_up_to(left, backfill_s, "date, uri"))


def _named(uris: list[str] | None) -> str | None:
    return None if uris is None else " and ".join(map(ascii, uris))


def _up_to(rows: duckdb.DuckDBPyRelation, seconds: float, order: str) -> duckdb.DuckDBPyRelation:
    """Return the first rows that last so long together; the first one even if it lasts longer by itself."""
    if math.isinf(seconds):
        return rows
    if not seconds:
        return rows.limit(0)
    window = f"over (order by {order} rows unbounded preceding)"
    counted = rows.project(f"*, sum(estimated_s) {window} as until_s, row_number() {window} as place")
    return counted.filter(f"until_s <= {float(seconds)!r} or place = 1").project("* exclude (until_s, place)")


class _Blocks:
    """Numbers of blocks for rows that come sorted, in parts."""

    def __init__(self, block_s: float, max_recordings: int) -> None:
        self._block_s, self._most = block_s, max_recordings
        # The last block: its number, date, seconds and recordings.
        self._state = (-1, "", 0.0, 0)

    def of(self, dates: list[str], seconds: list[float]) -> list[int]:
        numbers = []
        number, date, filled_s, count = self._state
        for next_date, estimated_s in zip(dates, seconds, strict=True):
            filled_s, count = filled_s + estimated_s, count + 1
            if next_date != date or filled_s > self._block_s or count > self._most:
                number, date, filled_s, count = number + 1, next_date, estimated_s, 1
            numbers.append(number)
        self._state = number, date, filled_s, count
        return numbers


def plan(
    recordings: Iterable[Recording],
    known: pd.DataFrame,
    *,
    block_s: float,
    max_recordings: int = 1000,
    byte_rates: Mapping[str, float] | None = None,
    choice: Choice | None = None,
    sources: Sources | None = None,
) -> pd.DataFrame:
    """Plan recordings that fit into memory: the same as `Planner.plan` does for those that do not.

    Parameters
    ----------
    recordings
        As `emolib.sound.manifest.list_recordings` lists them.
    known
        What has its row already: some columns of `KNOWN`, the first four at least.
    block_s, max_recordings, choice
        See `Planner.plan`; by default all that is due is taken.
    byte_rates, sources
        See `emolib.archive.listing.described`.

    Returns
    -------
    pandas.DataFrame
        The columns of `PLAN_SCHEMA`.

    Examples
    --------
    >>> from emolib.sound.manifest import Recording
    >>> recordings = [Recording(name, f"2024-05-0{name}/a.wav", "2", 960_000, 0.0) for name in "1234"]
    >>> rows = [("1", "2", "ok", 1), ("2", "1", "ok", 1), ("3", "2", "unreadable", 2)]
    >>> known = pd.DataFrame(rows, columns=["recording_id", "version", "code", "attempts"])
    >>> plan(recordings, known, block_s=600)[["block", "uri", "attempts", "replaces"]].values.tolist()
    [[0, '2024-05-02/a.wav', 1, True], [1, '2024-05-03/a.wav', 3, True], [2, '2024-05-04/a.wav', 1, False]]
    >>> nothing = known[:0]
    >>> plan(recordings, nothing, block_s=600, choice=Choice(limit_s=120.0, backfill_s=60.0))["date"].tolist()
    ['2024-05-01', '2024-05-04']
    """
    listing = pa.concat_tables([LISTING.empty_table(), *described(recordings, sources=sources, byte_rates=byte_rates)])
    columns = pd.DataFrame({name: known.get(name) for name in KNOWN.names}, index=known.index)
    with TemporaryDirectory() as folder:
        planner = Planner(listing, pa.Table.from_pandas(columns, KNOWN, preserve_index=False), folder=Path(folder))
        parts = planner.plan(choice or Choice(), block_s=block_s, max_recordings=max_recordings)
        return pa.concat_tables([PLAN_SCHEMA.empty_table(), *parts]).to_pandas()
