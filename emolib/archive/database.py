"""DuckDB as it is used here: joins and sorts of more rows than memory holds.

On one core and in some hundred megabytes; the rest goes to a disk.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

_SETTINGS: dict[str, Any] = {
    "threads": 1,
    "memory_limit": "400MB",
    # All that is asked of it comes with its wheel: nothing is to be fetched.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_GROUP, _TABLES = 50_000, 1000  # rows, and tables, that are written together


def connected(folder: Path) -> duckdb.DuckDBPyConnection:
    """Return an empty database; what does not fit into memory goes to a folder of this machine for a while."""
    return duckdb.connect(config={**_SETTINGS, "temp_directory": str(folder)})


@contextmanager
def room(folder: Path, purpose: str) -> Iterator[None]:
    """See that a full disk is said as one, and an interrupt as an interrupt.

    Parameters
    ----------
    purpose
        What the room is needed for, such as ``plan in``.

    Raises
    ------
    OSError
        With `errno.ENOSPC`, if the folder is full.
    """
    try:
        yield
    except (duckdb.Error, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        if re.search("interrupted|KeyboardInterrupt", said):  # which DuckDB took for its own
            raise KeyboardInterrupt from error
        if not isinstance(error, duckdb.OutOfMemoryException | duckdb.IOException):
            raise
        raise _no_room(folder, purpose, said) from error


def _no_room(folder: Path, purpose: str, said: object) -> OSError:
    what = f"no room to {purpose}, expected half a gigabyte for a million recordings; TMPDIR says where ({said})"
    return OSError(errno.ENOSPC, what, str(folder))


class Spool:
    """Rows on their way to a Parquet file, which many small tables come together in.

    Parameters
    ----------
    place
        The file on this machine.

    Raises
    ------
    OSError
        Like every method: with `errno.ENOSPC`, if there is no room.
    """

    def __init__(self, place: Path, schema: pa.Schema) -> None:
        self.place, self._schema = place, schema
        with self._room():
            self._writer = pq.ParquetWriter(place, schema, compression="zstd", compression_level=1)
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        """Take rows that have the columns of the schema, and perhaps more."""
        self._waiting.append(rows.select(self._schema.names).cast(self._schema))
        self._rows += len(rows)
        if self._rows >= _GROUP or len(self._waiting) >= _TABLES:
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
        self._waiting, self._rows = [], 0

    @contextmanager
    def _room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _no_room(self.place.parent, "keep rows in", error.strerror) from error
