"""What is known of calls beside their sound: from the paths of recordings, by a pattern, and from a table of calls."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath
from posixpath import commonprefix

import pyarrow as pa

from emolib.archive.tabular import Row, Rows, read_rows
from emolib.errors import SettingsError
from emolib.storage import AnyPath

NAMES = ("call_id", "date", "direction", "agent", "queue", "site")
"""The named groups of a pattern, and the columns of a table, that say what they are; all others are `extra`."""

EXTRA = "extra."
"""Begins the name of a column of a table that goes to `extra` whatever it is called."""

# Of a day, whatever time follows.
_TIME = r"(?:[T ].*|[-_](?:[01]\d|2[0-3])[-:._]?[0-5]\d.*)?"
_DAYS = (
    re.compile(rf"(\d{{4}})([-/._])(\d\d?)\2(\d\d?){_TIME}"),
    re.compile(rf"(\d{{4}})()(\d\d)(\d\d){_TIME}"),
    re.compile(r"(\d{4})()(\d\d)(\d\d)(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?:[.,]?\d+)?(?:Z|[+-]\d\d:?\d\d)?"),
)
_DIRECTIONS = {"inbound": "inbound", "in": "inbound", "outbound": "outbound", "out": "outbound"}


@dataclass(frozen=True, slots=True)
class Faults:
    """Rows of a table of calls that can't be read: how many, of how many, and the first with the reason."""

    rows: int = 0
    of: int = 0
    first: str = ""


@dataclass(frozen=True)
class Sources:
    r"""Where the metadata of calls comes from; by default from nowhere.

    Attributes
    ----------
    pattern
        A regular expression with named groups, searched for in the path of a recording.
    calls
        Columns of a table of calls, one value (or None) a call; ``call_id`` is one of them.
    faults
        The rows of that table that are not among them.

    Examples
    --------
    >>> sources = Sources(pattern_of(r"(?P<site>[^/]+)/(?P<date>\d{8})_(?P<call_id>\w+)_(?P<direction>in|out)"))
    >>> sources.of("bonn/20240501_c17_in.wav")
    ({'site': 'bonn', 'date': '2024-05-01', 'call_id': 'c17', 'direction': 'inbound'}, {})
    """

    pattern: re.Pattern[str] | None = None
    calls: Mapping[str, Sequence[str | None]] | None = None
    faults: Faults = Faults()

    def of(self, uri: str) -> tuple[dict[str, str], dict[str, str]]:
        """Return what the path of a recording says of its call, and what the table says: names and values.

        A call is looked for in the table by the call_id that the pattern finds, or else by the name of the file without
        its suffix. A match whose date is no day, or whose direction is none, is none.
        """
        found, _ = self._in_path(uri)
        return found or {}, self._in_table(self._key(uri, found))

    def gaps(self, uris: Sequence[str]) -> dict[str, int]:
        """Return of how many recordings the pattern, and the table, know nothing; empty where there are neither."""
        paths = [self._in_path(uri)[0] for uri in uris]
        gaps: dict[str, int] = {}
        if self.pattern is not None:
            gaps["pattern_unmatched"] = sum(found is None for found in paths)
        if self.calls is not None:
            keys = [self._key(uri, found) for uri, found in zip(uris, paths, strict=True)]
            gaps["table_unknown"] = sum(key not in self._rows for key in keys)
        return gaps

    @cached_property
    def _rows(self) -> dict[str | None, int]:
        return {name: row for row, name in enumerate((self.calls or {}).get("call_id", ()))}

    def unread(self, uri: str) -> str:
        """Return what the pattern finds in a path and can't be read, and what was expected; empty if there is none."""
        return self._in_path(uri)[1]

    def forms(self, uri: str) -> tuple[str, str] | None:
        """Return the form of what a call is looked for by, and of the first call_id of the table; None without one.

        Examples
        --------
        >>> Sources(calls={"call_id": ["123.0"]}).forms("bonn/call-00123.wav")
        ('aaaa-99999', '999.9')
        """
        first = next(iter(self._rows), None)
        return first if first is None else (_form(self._key(uri, self._in_path(uri)[0])), _form(first))

    def _in_path(self, uri: str) -> tuple[dict[str, str] | None, str]:
        """Return what a path says; None where the pattern is not found, or finds what is no day or no direction."""
        match = self.pattern and self.pattern.search(unicodedata.normalize("NFC", uri))
        if not match:
            return None, ""
        found = {name: value for name, value in match.groupdict().items() if value}
        for name in _READ.keys() & found.keys():
            read, expected = _READ[name]
            value = read(found[name])
            if value is None:
                return None, f"{name} {found[name]!r} found, expected {expected}"
            found[name] = value
        return found, ""

    def _in_table(self, key: str) -> dict[str, str]:
        row = self._rows.get(key)
        if row is None or self.calls is None:
            return {}
        return {name: value for name, values in self.calls.items() if (value := values[row]) is not None}

    @staticmethod
    def _key(uri: str, found: Mapping[str, str] | None) -> str:
        return (found or {}).get("call_id") or unicodedata.normalize("NFC", PurePosixPath(uri).stem)


def _form(text: str) -> str:
    """Return the form of an id: it may be anybody's secret."""
    return re.sub("[^\\W\\d_]", "a", re.sub(r"\d", "9", text))


def pattern_of(text: str) -> re.Pattern[str]:
    """Return a pattern that says something of calls.

    Raises
    ------
    SettingsError
        If it is no regular expression, or has no group of a name that is known, or one that is nearly called so.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise SettingsError(
            f"pattern {text!r} found, expected a regular expression with named groups such as (?P<call_id>\\d+): "
            f"{error}"
        ) from error
    for name in {*pattern.groupindex} - {*NAMES}:
        if meant := _NAMED.get(_key_of(name)) or _nearly(name):
            raise SettingsError(
                f"pattern {text!r} with the named group {name} found, perhaps {meant} is meant: call it that, or "
                f"extra_{name} if it is something else, for the column extra"
            )
    if not {*pattern.groupindex} & {*NAMES}:
        named = ", ".join(pattern.groupindex) or "none"
        raise SettingsError(
            f"pattern {text!r} with the named groups: {named} found, expected one or more of {', '.join(NAMES)}; "
            "write (?P<call_id>...) around what is the id of the call"
        )
    return pattern


class CallsTable(dict[str, list[str | None]]):
    """The columns of a table of calls, one value (or None) a call, and its `faults`."""

    def __init__(self, columns: Mapping[str, list[str | None]], faults: Faults) -> None:
        super().__init__(columns)
        self.faults = faults


def calls_table(place: AnyPath) -> CallsTable:
    """Read a table of calls: CSV (commas, UTF-8), or Parquet if its name ends so; what is empty is None.

    Case, spaces, hyphens and underscores do not matter in `NAMES`. Columns without a name are left out, and rows that
    can't be read: those of another number of fields than the header, without call_id, with a value that is no direction
    or no day, or with other values than another row of their call_id. Equal rows are one.

    Raises
    ------
    SettingsError
        If it can't be read, has no column call_id, one that is nearly called as one of `NAMES`, two of one name, or
        rows of which none can be read.
    """
    try:
        table = read_rows(place, lambda name: _NAMED.get(_key_of(name)) == "call_id")
        columns = _columns(place, table.names)
        known, faults = _readable(table, columns)
    except (OSError, ValueError, NotImplementedError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise SettingsError(f"{place} can't be read as a table of calls, expected CSV or Parquet: {said}") from error
    if faults.rows and not known:
        raise SettingsError(
            f"{place} can't be read as a table of calls: none of its {faults.of} rows can, the first is {faults.first}"
        )
    named = {name: [values[at] for values in known] for at, name in enumerate(columns) if name is not None}
    return CallsTable(named, faults)


def _columns(place: AnyPath, names: Sequence[str]) -> list[str | None]:
    """Return what the columns of a table are: one of `NAMES`, a name for `extra`, or None without a name."""
    columns: list[str | None] = []
    taken: dict[str, int] = {}
    for at, name in enumerate(names):
        prefixed = _PREFIXED.fullmatch(name)
        own = name if prefixed is None else f"{EXTRA}{prefixed[1]}"
        if prefixed is None and (meant := _NAMED.get(_key_of(name))):
            own = meant
        elif prefixed is None and (meant := _nearly(name)):
            raise SettingsError(
                f"{place}: column {name!r} found, perhaps {meant!r} is meant: call it that, or {EXTRA + name!r} if it "
                "is something else, for the column extra"
            )
        columns.append(own or None)
        # A column for `extra` has one name there, with the prefix or without it.
        if own and (before := taken.setdefault(own if own in NAMES else f"{EXTRA}{own.removeprefix(EXTRA)}", at)) != at:
            raise SettingsError(
                f"{place}: columns {before + 1} ({names[before]!r}) and {at + 1} ({name!r}) are both "
                f"{own.removeprefix(EXTRA)}, expected one; rename one of them, or leave it out"
            )
    if "call_id" not in columns:
        raise SettingsError(
            f"{place} with the columns {', '.join(names)} found, expected one with the name call_id; rename it"
        )
    return columns


def _readable(table: Rows, columns: Sequence[str | None]) -> tuple[list[Sequence[str | None]], Faults]:
    """Return the rows of a table of calls that can be read."""
    calls: dict[str, tuple[int, Sequence[str | None]]] = {}
    times, contradicted, first, rows = Counter[str](), set[str](), "", 0
    for row in table.rows:
        rows += 1
        name, values, fault = _read(row, columns)
        if not fault:
            times[name] += 1
            number, before = calls.setdefault(name, (row.number, values))
            if values != before:
                contradicted.add(name)  # all its rows: nobody knows which of them is true
                # By their rows: what is said is kept, and a call_id may be anybody's secret.
                fault = f"the call_id of {table.unit} {number} found again, with other values"
        if fault:
            first = first or f"{table.unit} {row.number}: {fault}"
    known = {name: values for name, (_, values) in calls.items() if name not in contradicted}
    return [*known.values()], Faults(rows - sum(times[name] for name in known), rows, first)


def _read(row: Row, columns: Sequence[str | None]) -> tuple[str, Sequence[str | None], str]:
    """Return the call_id of a row, its values, and why it can't be read; empty if it can."""
    if row.fault:
        return "", [], row.fault
    values = [cell or None for cell in row.cells]
    for name, (read, expected) in _READ.items():
        at = columns.index(name) if name in columns else None
        if at is not None and (cell := values[at]) is not None:
            values[at] = read(cell)
            if values[at] is None:
                return "", [], f"{name} {cell!r} found, expected {expected}, or nothing"
    at = columns.index("call_id")
    call_id = values[at] = unicodedata.normalize("NFC", row.cells[at])
    return call_id, values, "" if call_id else "no call_id found, expected one in each row"


def _key_of(name: str) -> str:
    """Return what of a name matters."""
    return re.sub(r"[\s_\-\u2010-\u2015]+", "", unicodedata.normalize("NFKC", name).casefold())


def _nearly(name: str) -> str | None:
    """Return which of `NAMES` a name is one edit away from: a sign more or less, another one, two swapped."""
    return next((known for key, known in _NAMED.items() if _is_one_edit(_key_of(name), key)), None)


def _is_one_edit(one: str, other: str) -> bool:
    at = len(commonprefix([one, other]))
    one, other = one[at:], other[at:]
    swapped = one[:2] == other[1::-1] and one[2:] == other[2:]
    return one != other and (swapped or one[1:] == other[1:] or one[1:] == other or one == other[1:])


def day_of(text: str) -> str | None:
    """Return the day (ISO) of a date in the order year, month, day, whatever time follows it; None where it is none.

    Examples
    --------
    >>> day_of("20240501"), day_of("2024/5/1"), day_of("2024.05.01 08:00:00"), day_of("20240501080000")
    ('2024-05-01', '2024-05-01', '2024-05-01', '2024-05-01')
    >>> day_of("2024-02-30"), day_of("240501"), day_of("01.05.2024")  # no day; and what may be read in two ways
    (None, None, None)
    """
    match = next((found for form in _DAYS if (found := form.fullmatch(text.strip()))), None)
    try:
        return match and date(int(match[1]), int(match[3]), int(match[4])).isoformat()
    except ValueError:  # no such day
        return None


def _direction_of(text: str) -> str | None:
    return _DIRECTIONS.get(text.strip().lower())


_READ = {"date": (day_of, "a day such as 2026-11-25"), "direction": (_direction_of, "inbound or outbound")}
_NAMED = {_key_of(name): name for name in NAMES}
_PREFIXED = re.compile(r"extra *\. *(.+)", re.IGNORECASE)
