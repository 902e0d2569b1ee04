"""DuckDB as it is used here: joins and sorts of more rows than memory holds.

On one core and in some hundred megabytes; the rest goes to a disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from emolib.archive.spool import no_room

_SETTINGS: dict[str, Any] = {
    "threads": 1,
    "memory_limit": "400MB",
    # All that is asked of it comes with its wheel: nothing is to be fetched.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


def connected(folder: Path, tables: Mapping[str, Path | pa.Table]) -> duckdb.DuckDBPyConnection:
    """Return a database with some tables, each in memory or a Parquet file.

    Parameters
    ----------
    folder
        On this machine, for what does not fit into memory for a while.
    """
    database = duckdb.connect(config={**_SETTINGS, "temp_directory": str(folder)})
    for name, rows in tables.items():
        database.register(name, database.read_parquet(str(rows)) if isinstance(rows, Path) else rows)
    return database


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
        raise no_room(folder, purpose, said) from error
