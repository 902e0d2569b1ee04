"""What lies in an archive, with what is known of its calls, as a table on a disk: more rows than memory holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from emolib.archive.calls import Call, call_of
from emolib.archive.metadata import Sources
from emolib.archive.plan import estimate_s

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
_BATCH = 50_000


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
    while batch := list(islice(listed, _BATCH)):
        ids = [each.recording_id if pseudonyms is None else pseudonyms.of(each.uri, "recording") for each in batch]
        calls = [call_of(name, each.uri, each.modified_s, sources) for name, each in zip(ids, batch, strict=True)]
        of_calls = dict(zip(Call._fields, zip(*calls, strict=True), strict=True))
        columns = {
            "recording_id": ids,
            "uri": [each.uri for each in batch],
            "version": [each.version for each in batch],
            "size": [each.size for each in batch],
            "modified_s": [each.modified_s for each in batch],
            **of_calls,
            "estimated_s": [estimate_s(each.uri, each.size, byte_rates) for each in batch],
        }
        yield pa.table(columns, schema=SCHEMA)


def store(tables: Iterable[pa.Table], place: Path) -> StoredListing:
    """Write what `described` yields to a file."""
    recordings = 0
    with pq.ParquetWriter(place, SCHEMA, compression="zstd", compression_level=1) as writer:
        for table in tables:
            writer.write_table(table)
            recordings += len(table)
    return StoredListing(place, recordings)
