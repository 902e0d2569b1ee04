"""What is known of calls: patterns on paths, tables of calls, and which of them counts."""

from __future__ import annotations

import contextlib
import io
import math
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st
from upath import UPath

from emolib.archive.calls import call_of
from emolib.archive.metadata import NAMES, CallsTable, Sources, calls_table, day_of, pattern_of
from emolib.errors import SettingsError

PATTERN = r"(?P<site>[a-z]+)/(?P<date>\d{8})_(?P<call_id>\w+?)_(?P<direction>\w+)_(?P<leg>\d)?\.wav"
URI = "bonn/20240501_c17_in_2.wav"


def test_a_path_says_what_its_pattern_names() -> None:
    call = call_of("id", URI, 0.0, Sources(pattern_of(PATTERN)))
    assert (call.call_id, call.date, call.date_source, call.direction) == ("c17", "2024-05-01", "path", "inbound")
    assert (call.site, call.agent, call.extra) == ("bonn", None, (("leg", "2"),))
    assert call_of("id", "bonn/20240501_c17_in_.wav", 0.0, Sources(pattern_of(PATTERN))).extra is None


@pytest.mark.parametrize("uri", ["a.wav", "bonn/20240230_c17_in_2.wav", "bonn/20240501_c17_sideways_2.wav"])
def test_a_path_that_does_not_fit_is_as_without_a_pattern(uri: str) -> None:
    sources = Sources(pattern_of(PATTERN))
    assert call_of("id", uri, 86_400.0, sources) == call_of("id", uri, 86_400.0)
    assert sources.gaps([uri, URI]) == {"pattern_unmatched": 1}


def test_the_path_goes_before_the_table_and_both_before_what_is_guessed(tmp_path: Path) -> None:
    place = tmp_path / "calls.csv"
    place.write_text(
        "call_id,date,direction,agent,queue,crm\n"
        "c17,2024-04-01,outbound,NA,sales,007\n"
        "20240601_x,2024-05-31,IN,,,\n"
        "other,,,,,\n",
        encoding="utf-8-sig",
    )
    both = Sources(pattern_of(PATTERN), calls_table(place))
    call = call_of("id", URI, 0.0, both)
    assert (call.date, call.date_source, call.direction) == ("2024-05-01", "path", "inbound")
    assert (call.agent, call.queue, call.extra) == ("NA", "sales", (("crm", "007"), ("leg", "2")))
    call = call_of("id", "20240601_x.wav", 0.0, both)  # no match: the name of the file is what the table is asked for
    assert (call.call_id, call.date, call.date_source, call.direction) == (
        *("20240601_x", "2024-05-31", "sidecar"),
        "inbound",
    )
    assert call_of("id", "other.wav", 86_400.0, both).date_source == "modified"
    assert call_of("id", "20240701_y.wav", 0.0, both) == call_of("id", "20240701_y.wav", 0.0)
    assert both.gaps([URI, "20240601_x.wav", "new.wav"]) == {"pattern_unmatched": 2, "table_unknown": 1}


def test_a_table_may_be_parquet_anywhere() -> None:
    place = UPath("memory://test-metadata/calls.parquet")
    rows = {"call_id": [7, 8], "date": [pd.Timestamp("2024-05-01 08:00"), None], "queue": ["a", None], "n": [1, 2]}
    place.write_bytes(pd.DataFrame(rows).to_parquet())
    assert calls_table(place) == {
        "call_id": ["7", "8"],
        "date": ["2024-05-01", None],
        "queue": ["a", None],
        "n": ["1", "2"],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(?P<call_id", "regular expression"),
        (r"(\d+)", "named groups: none found, expected one or more of call_id"),
        (r"(?P<leg>\d+)", "named groups: leg found"),
        (r"(?P<call_id>\d+)_(?P<direciton>in|out)", "group direciton found, perhaps direction is meant"),
        (r"(?P<CallId>\d+)", "group CallId found, perhaps call_id is meant: .* or extra_CallId"),
    ],
)
def test_a_pattern_that_says_nothing_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        pattern_of(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("call_id;queue\n1;a, or b\n", "semicolons between its columns, expected commas"),
        ("id,queue\n1,a\n", "columns id, queue found, expected one with the name call_id"),
        ("call_id\0\n1\n", "is no text in UTF-8, but perhaps in UTF-16"),
        ("call_id\n", None),
        ("call_id,queue\n1,a\n1,b\n", "none of its 2 rows can, the first is line 3: the call_id of line 2 found again"),
        ("call_id,queue\n,b\n", "line 2: no call_id found"),
        ("call_id,direction\n\n2,sideways\n", "line 3: direction 'sideways' found, expected inbound or outbound"),
        ("call_id,date\n1,yesterday\n", "line 2: date 'yesterday' found, expected a day"),
        ("call_id,agent\n1,smith,x\n", "line 2: 3 fields found, expected 2"),
        ('call_id\n"1', "line 2: a quote found that is not closed"),
        ('call_id,"queue\n1,a\n', "line 1: a quote found that is not closed"),
        ("call_id,queue, Queue\n1,a,b\n", r"columns 2 \('queue'\) and 3 \('Queue'\) are both queue"),
        ("call_id,crm,extra.crm\n1,a,b\n", r"columns 2 \('crm'\) and 3 \('extra.crm'\) are both crm"),
        ("call_id,direciton\n1,in\n", "'direciton' found, perhaps 'direction' is meant: .* or 'extra.direciton'"),
        ("", "can't be read as a table"),
        (None, "can't be read as a table"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str | None, said: str | None) -> None:
    place = tmp_path / "calls.csv"
    if text is not None:
        place.write_text(text)
    if said is None:  # nothing happened that night
        assert calls_table(place) == {"call_id": []}
        return
    with pytest.raises(SettingsError, match=said):
        calls_table(place)
    (tmp_path / "calls.parquet").write_bytes(b"call_id")
    with pytest.raises(SettingsError, match="can't be read as a table"):
        calls_table(tmp_path / "calls.parquet")


@pytest.mark.parametrize(
    ("name", "begin", "said"),
    [
        ("calls.csv.gz", b"\x1f\x8b\x08\0", "gzip found, expected CSV, or Parquet .*; unpack it"),
        ("calls.parquet", b"\x1f\x8b\x08\0", "gzip found, expected CSV, or Parquet .*; unpack it"),
        ("calls.xlsx", b"PK\x03\x04\x14\0", "a spreadsheet or a ZIP archive found, .*; export it as CSV, or unpack it"),
        ("calls.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", "a spreadsheet found, .*; export it as CSV"),
        ("calls.pq", b"PAR1\x15\0", r"Parquet found, .*; give it a name that ends in \.parquet"),
    ],
)
def test_a_table_of_another_kind_is_called_what_it_is(tmp_path: Path, name: str, begin: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(begin)
    with pytest.raises(SettingsError, match=said):
        calls_table(tmp_path / name)


def test_two_columns_of_one_name_in_parquet_are_refused_as_in_csv(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["1"])] * 3, names=["call_id", "agent", "agent"])
    pq.write_table(table, tmp_path / "calls.parquet")
    with pytest.raises(SettingsError, match=r"columns 2 \('agent'\) and 3 \('agent'\) are both agent, expected one"):
        calls_table(tmp_path / "calls.parquet")


def _table(text: str | bytes) -> CallsTable:
    place = UPath("memory://test-metadata/calls.csv")
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return calls_table(place)


def _parquet(**columns: Any) -> CallsTable:
    place = UPath("memory://test-metadata/calls.parquet")
    pq.write_table(pa.table(columns), held := io.BytesIO())
    place.write_bytes(held.getvalue())
    return calls_table(place)


CLEAN = "call_id,date,direction,agent,queue,site,crm"
PADS = st.sampled_from(["", " ", "\t", "\xa0", "\ufeff", "\u200b", " \u202f"])


@st.composite
def spelt(draw: st.DrawFn, name: str) -> str:
    """Draw the name of a column as people and spreadsheets write it."""
    if name != "crm":  # of `extra` the case counts
        sign = draw(st.sampled_from(["_", " ", "-", "", "\xa0", " _ "]))
        name = "".join(letter.upper() if draw(st.booleans()) else letter for letter in name).replace("_", sign)
    name = draw(PADS) + name + draw(PADS)
    return draw(st.sampled_from(["{}", '"{}"', '"{}" ', "'{}'", ' "{}"'])).format(name)


@given(st.tuples(*map(spelt, CLEAN.split(","))), st.sampled_from(["", "\ufeff", "\ufeff\ufeff", "\n", "\r\n"]), PADS)
def test_a_header_reads_as_the_clean_one_however_it_is_spelt(names: tuple[str, ...], begin: str, pad: str) -> None:
    row = ",".join(pad + value for value in ("c17", "2024-05-01", "in", "Smith", "sales", "bonn", "7"))
    expected = [["c17"], ["2024-05-01"], ["inbound"], ["Smith"], ["sales"], ["bonn"], ["7"]]
    assert _table(f"{begin}{','.join(names)},,\n{row},,\n") == dict(zip(CLEAN.split(","), expected, strict=True))


def test_the_header_of_a_spreadsheet_with_spaces(shared: Path) -> None:
    found = calls_table(shared / "cases/calls_spaced_header.csv")
    assert list(found) == ["call_id", "date", "direction", "agent", "queue"]
    assert found["direction"] == ["inbound", "outbound"]


@given(st.sampled_from([name for name in NAMES if name != "call_id"]), st.data())
def test_a_column_one_edit_from_a_known_one_is_refused_unless_a_prefix_says_that_it_is_wanted(
    name: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    sign = data.draw(st.sampled_from("bx9."))
    edits = [name[:at] + name[at + 1 :], name[:at] + sign + name[at:], name[:at] + sign + name[at + 1 :]]
    edits += (
        [name[:at] + name[at : at + 2][::-1] + name[at + 2 :]] if name[at : at + 2][::-1] != name[at : at + 2] else []
    )
    for edited in set(edits) - {name}:
        with pytest.raises(SettingsError, match=f"perhaps '{name}' is meant: .*'extra.{re.escape(edited)}'"):
            _table(f"call_id,{edited}\n1,a\n")
        found = _table(f"call_id, Extra.{edited},{name}\n1,a,\n")
        call = call_of("id", "1.wav", 0.0, Sources(calls=found))
        assert call.extra == ((edited, "a"),)


@pytest.mark.parametrize(
    "name", ["crm", "id", "duration", "caller_id", "update", "agent_name", "queue_wait_s", "state"]
)
def test_names_that_are_far_from_known_ones_go_to_extra(name: str) -> None:
    call = call_of("id", "1.wav", 0.0, Sources(calls=_table(f"call_id,{name}\n1,a\n")))
    assert call.extra == ((name, "a"),)


def test_what_is_called_as_a_known_column_may_be_wanted_in_extra() -> None:
    table = _table("call_id,date,extra.date\n1,2024-05-01,31.12.\n")
    call = call_of("id", "1.wav", 0.0, Sources(calls=table))
    assert (call.date, call.date_source, call.extra) == ("2024-05-01", "sidecar", (("date", "31.12."),))


GOOD = "call_id,date,direction,agent\n1,2024-05-01,in,a\n{}\n3,2024-05-03,out,c\n4,,,\n"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("2,2024-05-02,in", "3 fields found, expected 4"),
        ("2,2024-05-02,in,b,c", "5 fields found, expected 4"),
        ("2,02.05.2024,in,b", "date '02.05.2024' found, expected a day such as 2026-11-25, or nothing"),
        ("2,240502,in,b", "date '240502' found"),
        ("2,2024-05-02,sideways,b", "direction 'sideways' found, expected inbound or outbound, or nothing"),
        (",2024-05-02,in,b", "no call_id found"),
        ("2,2024-05-02,in,M\udcfcller", "bytes found that are no UTF-8"),
        ("2,2024-05-02,in,\0\0", "a NUL found"),
        ('2,2024-05-02,in,"b', "a quote found that is not closed"),
        ('2,2024-05-02,"in,b', "a quote found that is not closed"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_one_bad_row_is_a_gap_that_says_where_and_why(row: str, said: str, end: str) -> None:
    found = _table(GOOD.format(row).replace("\n", end).encode("utf-8", "surrogateescape"))
    assert found["call_id"] == ["1", "3", "4"]
    assert found["direction"] == ["inbound", "outbound", None]
    assert (found.faults.rows, found.faults.of) == (1, 4)
    assert found.faults.first.startswith(f"line 3: {said}")


@pytest.mark.slow
@pytest.mark.parametrize("close", ["", '{},2024-05-01,in,"b', '{},2024-05-01,in,b"', '{},2024-05-01,"in,b"'])
def test_a_lone_quote_does_not_swallow_the_rows_behind_it(close: str) -> None:
    rows = [f"{number},2024-05-01,in,a" for number in range(20_000)]
    rows[7] = '7,2024-05-01,in,"a'
    if close:
        rows[700] = close.format(700)
    found = _table("\n".join(["call_id,date,direction,agent", *rows]))
    assert found.faults.rows <= 2
    assert len(found["call_id"]) == 20_000 - found.faults.rows
    assert found.faults.first.startswith("line 9: a quote")


def test_cells_of_several_lines_and_quotes_within_cells_stay_what_they_are() -> None:
    found = _table('call_id,notes,queue\n1,"She said: ""no"",\nand left\r\n",a\n2,5" disk, "b, c" \n,,\n 3 ,,\n')
    assert found == {
        "call_id": ["1", "2", "3"],
        "notes": ['She said: "no",\nand left', '5" disk', None],
        "queue": ["a", "b, c", None],
    }
    assert found.faults.rows == 0


@given(st.permutations(["1,a", "2,b", "2,b", "3,c", "3,d", "3,c", "4,"]))
def test_rows_of_one_call_id_count_if_they_say_the_same_whatever_their_order(rows: list[str]) -> None:
    found = _table("\n".join(["call_id,queue", *rows]))
    assert dict(zip(found["call_id"], found["queue"], strict=True)) == {"1": "a", "2": "b", "4": None}
    assert (found.faults.rows, found.faults.of) == (3, 7)


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([7, None, 12345678901], pa.int64()),
        pa.array([7.0, None, 12345678901.0]),
        pa.array([7.0, math.nan, 12345678901.0]),
        pa.array([Decimal("7.00"), None, Decimal("12345678901.00")]),
        pa.array([Decimal("7"), None, Decimal("12345678901")], pa.decimal128(38, 0)),
        pa.array(["7", "", "12345678901"]),
        pa.array(["7", None, "12345678901"]).dictionary_encode(),
        pa.array([7, None, 12345678901]).dictionary_encode(),
        pa.array([b"7", None, b"12345678901"]),
        pa.array([b"7", b"\xff", b"12345678901"], pa.large_binary()),
        pa.array(["7", None, "12345678901"], pa.large_string()),
    ],
    ids=lambda ids: str(ids.type),
)
def test_a_call_id_of_parquet_is_text_whatever_its_type(ids: pa.Array) -> None:
    found = _parquet(call_id=ids, queue=["a", "b", "c"])
    assert (found["call_id"], found["queue"]) == (["7", "12345678901"], ["a", "c"])
    assert (found.faults.rows, found.faults.of, found.faults.first[:6]) == (1, 3, "row 2:")


@pytest.mark.parametrize(("kind", "most"), [(pa.float64(), 2.0**53), (pa.float32(), 2.0**24)])
def test_fractional_numbers_beyond_what_they_count_exactly_are_no_call_id(kind: pa.DataType, most: float) -> None:
    found = _parquet(call_id=pa.array([most, most - 1], kind), n=pa.array([most, 0.5], kind))
    assert (found["call_id"], found["n"]) == ([str(int(most) - 1)], ["0.5"])
    assert "too large to be exact found in 'call_id', expected text or whole numbers" in found.faults.first


def test_a_uuid_of_parquet_is_a_call_id_as_people_write_it() -> None:
    name = UUID("0189a7f0-1234-7abc-8def-0123456789ab")
    assert _parquet(call_id=pa.array([name.bytes], pa.uuid()))["call_id"] == [str(name)]


@given(
    st.binary(max_size=60)
    | st.text('",\n\r\0 \ufeff\udc80aä', max_size=60).map(lambda text: text.encode("utf-8", "surrogateescape"))
)
def test_whatever_stands_in_a_table_its_good_rows_are_read(junk: bytes) -> None:
    text = b"call_id,queue\n1,a\n" + junk + b"\n2,b\n"
    found = _table(text)
    assert (found["call_id"][0], found["queue"][0]) == ("1", "a")
    if junk.count(b'"') < 2:  # several of them may enclose what is behind
        assert (found["call_id"][-1], found["queue"][-1]) == ("2", "b")
    with contextlib.suppress(SettingsError):
        _table(junk)


def test_days_of_parquet_may_be_numbers_times_or_text() -> None:
    times = pa.array([1714521600, None], pa.timestamp("s", "UTC"))
    for dates in (pa.array([20240501.0, None]), pa.array([20240501, None]), times, times.cast(pa.date32())):
        assert _parquet(call_id=["1", "2"], date=dates)["date"] == ["2024-05-01", None]
    with pytest.raises(SettingsError, match=r"column 'legs' of list.* found, expected text"):
        _parquet(call_id=["1"], legs=[[1]])


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31)),
    st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y_%m_%d", "%Y%m%d", "%Y-%m-%dT%H:%M:%SZ", "%Y.%m.%d %H:%M"])
    | st.sampled_from(["%Y%m%d%H%M%S", "%Y%m%dT%H%M%S", "%Y%m%d_%H%M", "%Y_%m_%d_%H_%M_%S", "%Y%m%d%H%M%S.%f"]),
)
def test_days_in_the_order_year_month_day_are_read_whatever_time_follows(moment: datetime, form: str) -> None:
    assert day_of(moment.strftime(form)) == moment.date().isoformat()


@pytest.mark.parametrize(
    "text", ["240501", "01.05.2024", "05/01/2024", "240501080000", "202405010800", "20240501250000"]
)
def test_days_of_several_readings_are_none(text: str) -> None:
    assert day_of(text) is None
    sources = Sources(pattern_of(r"(?P<date>[^a-z]+)a\.wav"))
    assert sources.unread(f"{text}a.wav") == f"date {text!r} found, expected a day such as 2026-11-25"
    assert sources.gaps([f"{text}a.wav"]) == {"pattern_unmatched": 1}


WORDS = st.text("abcäé7", min_size=1, max_size=4)


@given(st.lists(WORDS, unique=True, max_size=6), WORDS, st.sampled_from(["wav", "gsm"]))
def test_a_call_is_what_the_table_says_or_its_own(names: list[str], name: str, suffix: str) -> None:
    sources = Sources(calls={"call_id": names, "queue": [f"queue of {each}" for each in names]})
    call = call_of("id", f"2024-05-01/{name}.{suffix}", 0.0, sources)
    if name in names:
        assert (call.call_id, call.queue) == (name, f"queue of {name}")
    else:
        assert call == call_of("id", f"2024-05-01/{name}.{suffix}", 0.0)
    assert (call.date, call.date_source) == ("2024-05-01", "path")
    assert call.extra is None
