"""Tables that other systems deliver, CSV or Parquet -> rows of text; a row that can't be read says why.

Deliveries are damaged by the row: an upload that was cut, a name in another encoding, a quote that nobody closes. So a
row has a fault where others would refuse the table.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from emolib.corpora.table import expect_commas
from emolib.errors import SettingsError
from emolib.storage import AnyPath, resolve, text_of

_MANTISSA_BITS = {16: 11, 32: 24, 64: 53}
_BINARIES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
_WHOLE = re.compile(r"\.0+$")  # after the digits of a whole number
# How files begin that are no text, what they are, and what to do.
_OTHERS = (
    (b"\x1f\x8b", "gzip", "unpack it"),
    (b"PK\x03\x04", "a spreadsheet or a ZIP archive", "export it as CSV, or unpack it"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet", "export it as CSV"),
    (b"PAR1\x15", "Parquet", "give it a name that ends in .parquet"),
)
_QUOTES = "\"'`“”„"


class Row(NamedTuple):
    """A row of a table.

    Attributes
    ----------
    number
        Of its line in a CSV file, counted from 1 with the header; of the row in Parquet.
    cells
        One for each column of the header, stripped; empty where there is nothing.
    fault
        Why it can't be read; empty if it can.
    """

    number: int
    cells: Sequence[str]
    fault: str = ""


class Rows(NamedTuple):
    """A table.

    Attributes
    ----------
    names
        Of its columns, as `name_of` reads them; empty where a column has none.
    unit
        What the numbers of the rows count: ``line`` or ``row``.
    rows
        All that are not empty.
    """

    names: Sequence[str]
    unit: str
    rows: Iterator[Row]


def read_rows(place: AnyPath, key: Callable[[str], bool]) -> Rows:
    """Read a table: CSV (commas, UTF-8), or Parquet if its name ends so.

    Parameters
    ----------
    key
        Says of a name whether its column tells what a row is of, so that a number there has to be exact.

    Raises
    ------
    SettingsError
        If it is of another kind, has no header in UTF-8 with commas, or a column of lists or the like.
    OSError, ValueError, pyarrow.ArrowException
        If it can't be read at all.
    """
    data = resolve(place).read_bytes()
    is_parquet = resolve(place).suffix.lower() == ".parquet"
    for begin, kind, remedy in _OTHERS:
        if data.startswith(begin) and not (is_parquet and kind == "Parquet"):
            raise SettingsError(f"{place}: {kind} found, expected CSV, or Parquet if its name ends so; {remedy}")
    return _parquet(place, data, key) if is_parquet else _csv(place, data)


def name_of(text: str) -> str:
    r"""Return the name of a column without what people do not see: marks, spaces and quotes around it.

    Examples
    --------
    >>> name_of("\ufeff'Call\xa0ID' ")
    'Call ID'
    """
    visible = "".join(" " if sign.isspace() else sign for sign in unicodedata.normalize("NFC", text) if _is_seen(sign))
    return re.sub(" +", " ", visible).strip(f" {_QUOTES}")


def _is_seen(sign: str) -> bool:
    return sign.isspace() or unicodedata.category(sign) not in ("Cf", "Cc")


def _stripped(text: str) -> str:
    text = text.strip()
    if not text.isascii():  # a byte order mark, a space without width
        while text and not (_is_seen(text[0]) and _is_seen(text[-1])):
            text = text[not _is_seen(text[0]) : len(text) - (not _is_seen(text[-1]))].strip()
    return text


def _csv(place: AnyPath, data: bytes) -> Rows:
    text = data.decode("utf-8-sig", "surrogateescape")  # bytes of another encoding spoil their row alone
    lines = list(io.StringIO(text, newline=""))
    records = _records(lines)
    number, header, fault = next((each for each in records if each[2] or any(map(name_of, each[1]))), (0, [], ""))
    if fault or not header:
        raise ValueError(f"line {number}: {fault}" if fault else "no header")
    line = lines[number - 1]
    text_of(line.encode("utf-8", "surrogateescape"), place)
    expect_commas(place, line)
    names = [name_of(name) for name in header]
    width = max((at for at, name in enumerate(names, 1) if name), default=0)  # lines may end with a comma
    return Rows(names[:width], "line", _rows(records, width))


def _rows(records: Iterator[tuple[int, list[str], str]], width: int) -> Iterator[Row]:
    for number, fields, fault in records:
        cells = [_stripped(field) for field in fields]
        if not fault:
            if not any(cells):
                continue
            if len(cells) < width or any(cells[width:]):
                fault = f"{len(cells)} fields found, expected {width}"
        yield Row(number, cells[:width], fault or _spoilt(cells))


def _records(lines: Sequence[str]) -> Iterator[tuple[int, list[str], str]]:
    """Yield the records of a CSV file: the number of the first line, the fields, what is wrong.

    A quote that nobody closes would swallow all rows up to the next one. It spoils its own line.
    """
    at, width = 0, 0
    while at < len(lines):
        reader = csv.reader((lines[each] for each in range(at, len(lines))), strict=True, skipinitialspace=True)
        begin, first = at, at
        try:
            for fields in reader:
                after = begin + reader.line_num
                if any(len(_alone(line)[0]) == width for line in lines[first + 1 : after - 1]):
                    break  # a cell of several lines, one of which is a row by itself
                yield first + 1, fields, ""
                first, width = after, width or len(fields)
        except csv.Error:
            pass
        if first < len(lines):
            fields, fault = _alone(lines[first])
            yield first + 1, fields, fault
            width = width or len(fields)
        at = first + 1


def _alone(line: str) -> tuple[list[str], str]:
    """Read a line that is a record by itself."""
    reader = csv.reader([line, "\n"], skipinitialspace=True)
    try:
        fields = next(reader)
    except csv.Error as error:
        return [], str(error)
    return fields, "" if reader.line_num == 1 else "a quote found that is not closed in its line"


def _spoilt(cells: Sequence[str]) -> str:
    whole = "".join(cells)
    if "\0" in whole:
        return "a NUL found, expected text"
    if not whole.isascii():
        try:
            whole.encode()
        except UnicodeEncodeError:
            return "bytes found that are no UTF-8"
    return ""


def _parquet(place: AnyPath, data: bytes, key: Callable[[str], bool]) -> Rows:
    table = pq.ParquetFile(io.BytesIO(data)).read()  # read_table refuses two columns of one name in words of its own
    names, columns, faults = [name_of(name) for name in table.column_names], [], dict[int, str]()
    for name, column in zip(names, table.columns, strict=True):
        texts, inexact = _texts(place, name, column)
        columns.append(texts)
        if key(name):
            fault = f"a {column.type} too large to be exact found in {name!r}, expected text or whole numbers"
            faults |= dict.fromkeys(inexact, fault)
    return Rows(names, "row", _parquet_rows(columns, faults))


def _texts(place: AnyPath, name: str, column: pa.ChunkedArray) -> tuple[list[str | None], list[int]]:
    """Return a column as text, and the rows of whole numbers that its type does not tell from their neighbours.

    Whole numbers are written as such, whatever their type: pandas makes floats of integers with gaps, databases
    decimals.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if isinstance(kind, pa.BaseExtensionType):  # such as a UUID
        return [None if value is None else str(value) for value in column.to_pylist()], []
    if any(is_kind(kind) for is_kind in _BINARIES):
        values = column.to_pylist()
        return [value and value.decode("utf-8", "surrogateescape") for value in values], []
    try:
        texts: list[str | None] = column.cast(pa.string()).to_pylist()
    except pa.ArrowNotImplementedError as error:
        raise SettingsError(
            f"{place}: column {name!r} of {kind} found, expected text, numbers or days; leave it out"
        ) from error
    if pa.types.is_decimal(kind):
        return [text and _WHOLE.sub("", text) for text in texts], []
    if not pa.types.is_floating(kind):
        return texts, []
    most, inexact = 2 ** _MANTISSA_BITS[kind.bit_width], []
    for row, value in enumerate(column.to_pylist()):
        if value is None or math.isnan(value):
            texts[row] = None
        elif value.is_integer():
            texts[row] = str(int(value))
            if abs(value) >= most:
                inexact.append(row)
    return texts, inexact


def _parquet_rows(columns: Sequence[Sequence[str | None]], faults: dict[int, str]) -> Iterator[Row]:
    for row, values in enumerate(zip(*columns, strict=True)):
        cells = [_stripped(value or "") for value in values]
        if any(cells):
            yield Row(row + 1, cells, faults.get(row, "") or _spoilt(cells))
