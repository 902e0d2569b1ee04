"""What lies in an archive, with what is known of its calls, as a table on a disk: more rows than memory holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from emolib.archive.calls import Call, call_date, call_of
from emolib.archive.metadata import Sources
from emolib.archive.plan import estimate_s
from emolib.archive.spool import Spool

if TYPE_CHECKING:
    from emolib.archive.pseudonyms import Pseudonyms
    from emolib.sound.manifest import Recording

SCHEMA = pa.schema(
    [
        ("recording_id", pa.string()),
        ("uri", pa.string()),
        ("version", pa.string()),
        ("size", pa.int64()),
        ("modified_s", pa.float64()),
        ("call_id", pa.string()),
        ("date", pa.string()),
        ("date_source", pa.string()),
        ("direction", pa.string()),
        ("agent", pa.string()),
        ("queue", pa.string()),
        ("site", pa.string()),
        ("extra", pa.map_(pa.string(), pa.string())),
        ("estimated_s", pa.float64()),
    ]
)
# Recordings that are there as Python's objects together, for more of which it would look again and again whether they
# hold each other; and such lots in a table.
_LOT, _LOTS = 500, 100


@dataclass(frozen=True, slots=True)
class StoredListing:
    """A listing on this machine's disk.

    Attributes
    ----------
    place
        A Parquet file with the columns of `SCHEMA`.
    recordings
        How many rows it has.
    """

    place: Path
    recordings: int


def described(
    recordings: Iterable[Recording],
    *,
    sources: Sources | None = None,
    byte_rates: Mapping[str, float] | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> Iterator[pa.Table]:
    """Yield recordings with what is known of their calls, some at a time; each has the columns of `SCHEMA`.

    Parameters
    ----------
    sources
        Where the metadata of calls comes from.
    byte_rates
        Bytes per second of sound by suffix, as earlier runs found them (see `emolib.archive.ledger.byte_rates`).
    pseudonyms
        Whose `recording_id` stand in the place of those of the paths.
    """
    listed = iter(recordings)
    lots = iter(lambda: list(islice(listed, _LOT)), [])
    tables = (_described(lot, sources, byte_rates, pseudonyms) for lot in lots)
    while some := list(islice(tables, _LOTS)):
        yield pa.concat_tables(some).combine_chunks()


def _described(
    lot: list[Recording],
    sources: Sources | None,
    byte_rates: Mapping[str, float] | None,
    pseudonyms: Pseudonyms | None,
) -> pa.Table:
    listed_ids, uris, versions, sizes, modified_s = zip(*lot, strict=True)
    ids = listed_ids if pseudonyms is None else [pseudonyms.of(uri, "recording") for uri in uris]
    columns = {
        "recording_id": ids,
        "uri": uris,
        "version": versions,
        "size": sizes,
        "modified_s": modified_s,
        **_of_calls(ids, uris, modified_s, sources),
        "estimated_s": [estimate_s(uri, size, byte_rates) for uri, size in zip(uris, sizes, strict=True)],
    }
    nothing = pa.nulls(len(lot))
    return pa.table({name: columns.get(name, nothing) for name in SCHEMA.names}, schema=SCHEMA)


def _of_calls(
    ids: Sequence[str], uris: Sequence[str], modified_s: Sequence[float], sources: Sources | None
) -> dict[str, Sequence[Any]]:
    """Return what is known of the calls, by column."""
    if sources is None:  # as `call_of` has it, for millions
        dates = zip(*map(call_date, uris, modified_s), strict=True)
        return {"call_id": ids, **dict(zip(("date", "date_source"), dates, strict=True))}
    calls = [call_of(*each, sources) for each in zip(ids, uris, modified_s, strict=True)]
    return dict(zip(Call._fields, zip(*calls, strict=True), strict=True))


def store(tables: Iterable[pa.Table], place: Path) -> StoredListing:
    """Write what `described` yields to a file."""
    spool = Spool(place, SCHEMA)
    for table in tables:
        spool.add(table)
    return StoredListing(spool.close(), spool.rows)
