"""What is known of calls beside their sound: from the paths of recordings, by a pattern, and from a table of calls."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from emolib.corpora.table import open_csv
from emolib.errors import SettingsError
from emolib.storage import AnyPath, resolve

NAMES = ("call_id", "date", "direction", "agent", "queue", "site")
"""The named groups of a pattern, and the columns of a table, that say what they are; all others are `extra`."""

_DAY = re.compile(r"(\d{4})([-/._]?)(\d\d)\2(\d\d)(?:[T ].*)?")
_DIRECTIONS = {"inbound": "inbound", "in": "inbound", "outbound": "outbound", "out": "outbound"}


@dataclass(frozen=True)
class Sources:
    r"""Where the metadata of calls comes from; by default from nowhere.

    Attributes
    ----------
    pattern
        A regular expression with named groups, searched for in the path of a recording.
    calls
        Columns of a table of calls, one value (or None) a call; ``call_id`` is one of them.

    Examples
    --------
    >>> sources = Sources(pattern_of(r"(?P<site>[^/]+)/(?P<date>\d{8})_(?P<call_id>\w+)_(?P<direction>in|out)"))
    >>> sources.of("bonn/20240501_c17_in.wav")
    ({'site': 'bonn', 'date': '2024-05-01', 'call_id': 'c17', 'direction': 'inbound'}, {})
    """

    pattern: re.Pattern[str] | None = None
    calls: Mapping[str, Sequence[str | None]] | None = None

    def of(self, uri: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return what the path of a recording says of its call, and what the table says: names and values.

        A call is looked for in the table by the call_id that the pattern finds, or else by the name of the file without
        its suffix. A match whose date is no day, or whose direction is none, is none.
        """
        found = self._in_path(uri) or {}
        return found, self._in_table(self._key(uri, found))

    def gaps(self, uris: Sequence[str]) -> dict[str, int]:
        """Return of how many recordings the pattern, and the table, know nothing; empty where there are neither."""
        paths = [self._in_path(uri) for uri in uris]
        gaps: dict[str, int] = {}
        if self.pattern is not None:
            gaps["pattern_unmatched"] = sum(found is None for found in paths)
        if self.calls is not None:
            keys = [self._key(uri, found or {}) for uri, found in zip(uris, paths, strict=True)]
            gaps["table_unknown"] = sum(key not in self._rows for key in keys)
        return gaps

    @cached_property
    def _rows(self) -> dict[str | None, int]:
        return {name: row for row, name in enumerate((self.calls or {}).get("call_id", ()))}

    def _in_path(self, uri: str) -> dict[str, str] | None:
        """Return what a path says; None where the pattern is not found, or finds what is no day or no direction."""
        match = self.pattern and self.pattern.search(unicodedata.normalize("NFC", uri))
        if not match:
            return None
        found = {name: value for name, value in match.groupdict().items() if value}
        for name, read in (("date", day_of), ("direction", _direction_of)):
            if name in found:
                value = read(found[name])
                if value is None:
                    return None
                found[name] = value
        return found

    def _in_table(self, key: str) -> dict[str, str]:
        row = self._rows.get(key)
        if row is None or self.calls is None:
            return {}
        return {name: value for name, values in self.calls.items() if (value := values[row]) is not None}

    @staticmethod
    def _key(uri: str, found: Mapping[str, str]) -> str:
        return found.get("call_id") or unicodedata.normalize("NFC", PurePosixPath(uri).stem)


def pattern_of(text: str) -> re.Pattern[str]:
    """Return a pattern that says something of calls.

    Raises
    ------
    SettingsError
        If it is no regular expression, or has no group of a name that is known.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SettingsError(
            f"pattern {text!r} found, expected a regular expression with named groups such as (?P<call_id>\\d+): "
            f"{error}"
        ) from error
    if not {*pattern.groupindex} & {*NAMES}:
        named = ", ".join(pattern.groupindex) or "none"
        raise SettingsError(
            f"pattern {text!r} with the named groups: {named} found, expected one or more of {', '.join(NAMES)}; "
            "write (?P<call_id>...) around what is the id of the call"
        )
    return pattern


def calls_table(place: AnyPath) -> dict[str, list[str | None]]:
    """Read a table of calls: CSV (commas, UTF-8), or Parquet if its name ends so; what is empty is None.

    Raises
    ------
    SettingsError
        If it can't be read, has no column call_id, a call without one or one twice, or a value that is no direction or
        no day.
    """
    try:
        if resolve(place).suffix.lower() == ".parquet":
            table = pq.read_table(io.BytesIO(resolve(place).read_bytes()))
            columns = {name: table[name].cast(pa.string()).to_pylist() for name in table.column_names}
        else:
            with warnings.catch_warnings(
                action="error", category=pd.errors.ParserWarning
            ):  # rows longer than the header
                # Else the first column would be taken for an index, where every row ends with a comma.
                how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False}
                read = pd.read_csv(open_csv(place), **how)
            columns = {str(name): [v if isinstance(v, str) else None for v in read[name]] for name in read.columns}
    except (OSError, ValueError, NotImplementedError, pa.ArrowException, pd.errors.ParserWarning) as error:
        said = " ".join(str(error).split())
        raise SettingsError(f"{place} can't be read as a table of calls, expected CSV or Parquet: {said}") from error
    if "call_id" not in columns:
        raise SettingsError(
            f"{place} with the columns {', '.join(columns)} found, expected one with the name call_id; rename it"
        )
    ids = [unicodedata.normalize("NFC", name or "").strip() for name in columns["call_id"]]
    if "" in ids:
        raise SettingsError(f"{place}: no call_id in row {ids.index('') + 1}, expected one in each; leave the row out")
    seen: dict[str, int] = {}
    for row, name in enumerate(ids, 1):  # by their rows: what is said is kept, and a call_id may be anybody's secret
        if name in seen:
            raise SettingsError(
                f"{place}: rows {seen[name]} and {row} have one call_id, expected a row a call; leave one of them out"
            )
        seen[name] = row
    known = {name: [(value or "").strip() or None for value in values] for name, values in columns.items()}
    for name, read_value, expected in (
        ("direction", _direction_of, "inbound or outbound"),
        ("date", day_of, "a day such as 2026-11-25"),
    ):
        for row, value in enumerate(known.get(name, ())):
            if value is not None and read_value(value) is None:
                raise SettingsError(
                    f"{place}: {name} {value!r} found in row {row + 1}, expected {expected}, or nothing; mend it"
                )
        known |= {name: [value and read_value(value) for value in known[name]]} if name in known else {}
    return {**known, "call_id": [*ids]}


def day_of(text: str) -> str | None:
    """Return the day (ISO) of a date in the order year, month, day, whatever time follows it; None where it is none.

    Examples
    --------
    >>> day_of("20240501"), day_of("2024/05/01"), day_of("2024-05-01 08:00:00"), day_of("2024-02-30")
    ('2024-05-01', '2024-05-01', '2024-05-01', None)
    """
    match = _DAY.fullmatch(text.strip())
    try:
        return match and date(int(match[1]), int(match[3]), int(match[4])).isoformat()
    except ValueError:  # no such day
        return None


def _direction_of(text: str) -> str | None:
    return _DIRECTIONS.get(text.strip().lower())
