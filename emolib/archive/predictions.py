"""The Parquet tables of the predictions: where their parts lie, how they are written and read.

A part is ``PRED/<table>/date=YYYY-MM-DD/part-<run_id>-<block>.parquet``: the rows of one block in one table. The date
of the call stands in the path and not in the file, as Hive lays tables out: pandas, DuckDB, Spark and Athena all read
it from there, and would otherwise see the column twice, with types that clash.

A block has a part in each of `BLOCK_TABLES`, empty where there is nothing to say. Its `recordings` part is written last
and is its commit: what lies in the other tables without it does not count. The table `calls` has one file a date,
``PRED/calls/date=YYYY-MM-DD/calls.parquet``, which is derived from them (see `emolib.archive.joining`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs
from upath import UPath

from emolib.archive.schemas import KEYS, TABLES, classes_in, schema
from emolib.archive.segments import segments
from emolib.errors import SettingsError
from emolib.storage import AnyPath, bucket_expected, is_local, resolve, write_bytes

_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_PART = re.compile(r"part-(\d{8}T\d{6}-[0-9a-f]{4})-(\d{6,})\.parquet")
DATE_TYPE = "datetime64[s]"
# pandas' own types: NumPy's know no missing number, and what a column is would depend on the rows that are read.
_WHOLE_NUMBERS = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype()}


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """What one block of one run writes to each table."""

    date: str
    run_id: str
    block: int

    def path(self, pred: AnyPath, table: str) -> UPath:
        """Return where the part lies in a table."""
        return resolve(pred) / self.name(table)

    def name(self, table: str) -> str:
        """Return where the part lies, as a path below the predictions."""
        return f"{_folder(table, self.date)}/part-{self.run_id}-{self.block:06d}.parquet"


def is_predictions(pred: AnyPath) -> bool:
    """Return whether a folder holds predictions: whether runs have been planned there."""
    return (resolve(pred) / "_runs").exists()


def require_predictions(pred: AnyPath) -> None:
    """Raise `SettingsError` unless a folder holds predictions."""
    if not is_predictions(pred):
        raise SettingsError(f"{pred} holds no predictions, expected a folder that `emolib score` wrote; check the path")


def dates(pred: AnyPath) -> list[str]:
    """Return the dates of which there are rows, sorted."""
    return sorted({part.date for part in committed(pred)})


def parts(pred: AnyPath, table: str) -> list[Part]:
    """List the parts of a table, committed or not, sorted by date, run and block."""
    return sorted(part for path in files(pred, table) if (part := part_of(path)))


def committed(pred: AnyPath) -> list[Part]:
    """List the parts that count, sorted: those whose rows stand in `recordings`."""
    return parts(pred, "recordings")


def files(pred: AnyPath, table: str) -> list[UPath]:
    """List all files of a table, whatever they are."""
    folder = resolve(pred) / table
    if is_local(folder):
        return [path for path in folder.rglob("*") if path.is_file()]
    folder.fs.invalidate_cache()  # fsspec would remember a listing from before the workers wrote
    with bucket_expected(folder):
        found = folder.fs.find(folder.path)
    names = (name.removeprefix(folder.path).lstrip("/") for name in found)
    return [folder / name for name in names if name and name[-1] != "/"]


def part_of(path: UPath) -> Part | None:
    """Return what part a file of a table is, or None if it is none."""
    date, name = _DATE.fullmatch(path.parent.name), _PART.fullmatch(path.name)
    return Part(date[1], name[1], int(name[2])) if date and name else None


def is_litter(path: UPath) -> bool:
    """Return whether a file is what a write that died left behind (see `emolib.storage.write_bytes`)."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def files_of_calls(pred: AnyPath) -> dict[str, list[UPath]]:
    """List the files of the table `calls` by date, sorted; predictions of schema version 1 have one for each block."""
    by_date: dict[str, list[UPath]] = {}
    for path in files(pred, "calls"):
        date = _DATE.fullmatch(path.parent.name)
        if date and path.suffix == ".parquet" and not path.name.startswith("."):
            by_date.setdefault(date[1], []).append(path)
    return {date: sorted(by_date[date], key=str) for date in sorted(by_date)}


def place_of_calls(pred: AnyPath, date: str) -> UPath:
    """Return where the calls of a date lie."""
    return resolve(pred) / _folder("calls", date) / "calls.parquet"


def _folder(table: str, date: str) -> str:
    """Return where the rows of a date lie in a table: below it, whatever a plan says."""
    name = f"date={date}"
    if not _DATE.fullmatch(name):
        raise SettingsError(
            f"date {date!r} found for rows of {table}, expected one such as 2026-11-25: the plan that says it was "
            "changed; put it back from a copy"
        )
    return f"{table}/{name}"


def write_part(pred: AnyPath, table: str, part: Part, rows: pa.Table, *, classes: Sequence[str]) -> None:
    """Write the rows of a block to a table, in place of those that are there; the same rows give the same bytes.

    Raises
    ------
    ValueError
        If the rows have not the table's schema.
    """
    write_rows(part.path(pred, table), rows, schema(table, classes))


def write_rows(place: UPath, rows: pa.Table, expected: pa.Schema) -> None:
    """Write a file of a table whole, in place of the one that is there; `ValueError` where the schema is not its."""
    write_bytes(place, parquet(rows, expected))


def parquet(rows: pa.Table, expected: pa.Schema) -> bytes:
    """Return the bytes of a file of a table.

    Raises
    ------
    ValueError
        If the rows have not this schema.
    """
    if not rows.schema.equals(expected, check_metadata=True):
        raise ValueError(f"rows with the schema\n{rows.schema}\nfound, expected\n{expected}")
    sink = pa.BufferOutputStream()
    pq.write_table(rows.combine_chunks(), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def read(pred: AnyPath, *, table: str, date: str | None = None, runs: Collection[str] | None = None) -> pd.DataFrame:
    """Read a table of predictions, committed rows only.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    table
        ``recordings``, ``channels``, ``windows`` or ``calls``; or ``segments``, which are made from the windows (see
        `emolib.archive.segments`).
    date
        ISO date; None reads all.
    runs
        Ids of the runs whose rows are read; None reads all. A call is of the newest run that wrote a recording of it.

    Returns
    -------
    pandas.DataFrame
        The columns of `emolib.archive.schemas.COLUMNS`, or of `emolib.archive.segments.COLUMNS`, and, last, ``date`` as
        datetime64[s] (midnight). Rows are sorted by date and the table's keys, so they do not depend on how the work
        was cut into blocks. The columns and their types do not depend on which rows are read: whole numbers that may be
        missing are Int32 or Int64, with ``pandas.NA`` for those that are, and a channel that is a key is int32.

    Raises
    ------
    SettingsError
        If there are no predictions, or no such table.
    """
    if table == "segments":
        return segments(read(pred, table="windows", date=date, runs=runs))
    if table not in TABLES:
        raise SettingsError(f"table {table!r} found, expected one of {', '.join(TABLES)} or segments")
    require_predictions(pred)
    if table == "calls":
        return _read_calls(pred, date, runs)
    done = committed(pred)
    columns = _columns(pred, table, done)
    by_date: dict[str, list[Part]] = {}
    for part in done:
        if (date is None or part.date == date) and (runs is None or part.run_id in runs):
            by_date.setdefault(part.date, []).append(part)
    frames = [
        _frame(scan(pred, table, group, columns).to_table(), table).assign(date=pd.Timestamp(day))
        for day, group in by_date.items()
    ] or [_no_rows(table, columns)]
    return pd.concat(frames, ignore_index=True).astype({"date": DATE_TYPE})


def _columns(pred: AnyPath, table: str, done: Sequence[Part]) -> pa.Schema:
    """Return the columns of a table: those of its newest part, and what that lacks if an older version wrote it."""
    if not done:
        return schema(table, ())
    place = max(done, key=lambda part: (part.run_id, part.block)).path(pred, table)
    return schema(table, classes_in(table, pq.read_schema(place.path, filesystem=filesystem(place)).names))


def _frame(rows: pa.Table, table: str) -> pd.DataFrame:
    """Return rows as pandas has them, sorted by their keys."""
    ordered = rows.sort_by([(key, "ascending") for key in KEYS[table]])
    types = {key: ordered.schema.field(key).type for key in KEYS[table]}
    numbers = {key: kind.to_pandas_dtype() for key, kind in types.items() if kind in _WHOLE_NUMBERS}
    return ordered.to_pandas(types_mapper=_WHOLE_NUMBERS.get).astype(numbers)


def _read_calls(pred: AnyPath, date: str | None, runs: Collection[str] | None) -> pd.DataFrame:
    frames = []
    for day, places in files_of_calls(pred).items():
        if date is None or day == date:
            rows = _frame(calls_in(places), "calls").assign(date=pd.Timestamp(day))
            frames.append(rows if runs is None else rows[rows["run_id"].isin(set(runs))])
    if not frames:
        return _no_rows("calls", schema("calls", ()))
    # A call that is on its way from one date to another stands under both for a moment.
    rows = pd.concat(frames).drop_duplicates("call_id")
    return rows.reset_index(drop=True).astype({"date": DATE_TYPE})


def calls_in(places: Sequence[UPath]) -> pa.Table:
    """Read some files of the table `calls`; what they lack of its columns is null."""
    whole = schema("calls", ())
    if not places:
        return whole.empty_table()
    found = ds.dataset(
        [place.path for place in places], schema=whole, format="parquet", filesystem=filesystem(places[0])
    )
    return found.to_table().cast(whole)


def _no_rows(table: str, columns: pa.Schema) -> pd.DataFrame:
    return _frame(columns.empty_table(), table).assign(date=pd.Series(dtype=DATE_TYPE))


def scan(pred: AnyPath, table: str, group: Sequence[Part], columns: pa.Schema) -> ds.Dataset:
    """Return some parts of a table as a pyarrow dataset of these columns."""
    paths = [part.path(pred, table) for part in group]
    return ds.dataset(
        [path.path for path in paths], schema=columns, format="parquet", filesystem=filesystem(resolve(pred))
    )


def filesystem(path: UPath) -> fs.FileSystem:
    """Return the file system of a path as pyarrow wants it."""
    return fs.LocalFileSystem() if is_local(path) else fs.PyFileSystem(fs.FSSpecHandler(path.fs))
