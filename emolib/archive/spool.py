"""Rows on their way to a Parquet file of this machine: more of them than memory holds."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_GROUP, _TABLES = 50_000, 1000  # rows, and tables, that are written together


class Spool:
    """A file that tables of any size come together in.

    Parameters
    ----------
    place
        The file on this machine.

    Raises
    ------
    OSError
        Like every method: with `errno.ENOSPC`, if there is no room.

    Attributes
    ----------
    rows
        How many it has taken.
    """

    def __init__(self, place: Path, schema: pa.Schema) -> None:
        self.place, self._schema = place, schema
        with self._room():
            self._writer = pq.ParquetWriter(place, schema, compression="zstd", compression_level=1)
        self._waiting: list[pa.Table] = []
        self.rows, self._written = 0, 0

    def add(self, rows: pa.Table) -> None:
        """Take rows that have the columns of the schema, and perhaps more."""
        self._waiting.append(rows.select(self._schema.names).cast(self._schema))
        self.rows += len(rows)
        if self.rows - self._written >= _GROUP or len(self._waiting) >= _TABLES:
            self._flush()

    def close(self) -> Path:
        """Return the finished file."""
        self._flush()
        with self._room():
            self._writer.close()
        return self.place

    def _flush(self) -> None:
        if self._waiting:
            with self._room():
                self._writer.write_table(pa.concat_tables(self._waiting))
        self._waiting, self._written = [], self.rows

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise no_room(self.place.parent, "keep rows in", error.strerror) from error


def no_room(folder: Path, purpose: str, said: object) -> OSError:
    """Return what says that a folder for what does not fit into memory is full."""
    what = f"no room to {purpose}, expected half a gigabyte for a million recordings; TMPDIR says where ({said})"
    return OSError(errno.ENOSPC, what, str(folder))
