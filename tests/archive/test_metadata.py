"""What is known of calls: patterns on paths, tables of calls, and which of them counts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, strategies as st
from upath import UPath

from emolib.archive.calls import call_of
from emolib.archive.metadata import Sources, calls_table, pattern_of
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
        ("call_id\n1\n2\n1\n", "rows 1 and 3 have one call_id"),
        ("call_id,queue\n1,a\n,b\n", "no call_id in row 2"),
        ("call_id,direction\n1,inbound\n2,sideways\n", "direction 'sideways' found in row 2, expected inbound or"),
        ("call_id,date\n1,yesterday\n", "date 'yesterday' found in row 1, expected a day"),
        ("call_id,agent\n1,smith,x\n", "can't be read as a table"),
        ('call_id\n"1', "can't be read as a table"),
        ("", "can't be read as a table"),
        (None, "can't be read as a table"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    place = tmp_path / "calls.csv"
    if text is not None:
        place.write_text(text)
    with pytest.raises(SettingsError, match=said):
        calls_table(place)
    (tmp_path / "calls.parquet").write_bytes(b"call_id")
    with pytest.raises(SettingsError, match="can't be read as a table"):
        calls_table(tmp_path / "calls.parquet")


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
