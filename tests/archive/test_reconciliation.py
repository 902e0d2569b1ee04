"""What the database finds is what the words say, whatever was planned and written."""

from __future__ import annotations

import errno
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from emolib.archive.calls import UNKNOWN_DATE
from emolib.archive.predictions import Part
from emolib.archive.reconciliation import PLANNED, Reconciliation

RUNS, DATES = ("20240501T000000-aaaa", "20240502T000000-bbbb", "20240503T000000-cccc"), ("2024-05-01", "2024-05-02")
_NAMES = st.sampled_from("abcd")
_PLANS = st.lists(
    st.tuples(st.sampled_from(RUNS), _NAMES, st.integers(0, 1), st.booleans()),
    max_size=8,
    unique_by=lambda row: row[:2],
)
_ROWS = st.lists(st.tuples(st.sampled_from(RUNS), _NAMES, st.integers(0, 1), st.sampled_from(DATES)), max_size=8)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    nothing = dict.fromkeys(PLANNED)
    names = ("recording_id", "block", "replaces", "decoded_s", *PLANNED)
    return pa.table({name: [(nothing | row).get(name) for row in rows] for name in names})


def _found(plans: list[Any], rows: list[Any], whole: set[str]) -> list[str]:
    with TemporaryDirectory() as folder:
        found = Reconciliation(Path(folder), RUNS)
        for run_id in RUNS:
            own = [
                dict(zip(("recording_id", "block", "replaces"), row[1:], strict=True))
                for row in plans
                if row[0] == run_id
            ]
            named = [{**row, "uri": row["recording_id"], "date": DATES[0]} for row in own]
            found.take_plan(run_id, _table(named))
            found.has_whole_plan(run_id)
        for run_id, name, block, date in rows:
            part = Part(date, run_id, block)
            found.take_block(part)
            found.take_recordings(part, _table([{"recording_id": name, "uri": name, "decoded_s": 1.0}]))
        return [
            line for line in found.problems(whole=whole, waiting=()) if not line.startswith(("recordings:", "calls:"))
        ]


def _expected(plans: list[Any], rows: list[Any], whole: set[str]) -> list[str]:
    lines = []
    for run_id in reversed(RUNS):
        missing, dates, short = [], [], []
        mine = [row for row in rows if row[0] == run_id]
        planned = sorted((block, name) for plan_of, name, block, _ in plans if plan_of == run_id)
        for block, name in planned:
            is_replaced = any(other > run_id and named == name for other, named, _, _ in rows) or any(
                other > run_id and named == name and replaces for other, named, _, replaces in plans
            )
            there = [row for row in mine if row[1:3] == (name, block)]
            dates += [name for row in there if row[3] != DATES[0]]
            if not is_replaced and run_id in whole and not any(row[1] == name for row in rows):
                missing.append(name)
            if not is_replaced and not there and any(row[2] == block for row in mine):
                short.append(name)
        unplanned = sorted(name for _, name, block, _ in mine if (block, name) not in planned)
        for names, what in (
            (missing, "{} planned recordings have no row"),
            (dates, "date is not what was planned in {} rows"),
            (unplanned, "{} rows are not planned"),
            (short, "{} recordings are missing in committed blocks"),
        ):
            if names:
                lines.append(f"run {run_id}: {what.format(len(names))}, first {names[0]}")
    return lines


@given(plans=_PLANS, rows=_ROWS, whole=st.sets(st.sampled_from(RUNS)))
def test_rows_against_what_was_planned(plans: list[Any], rows: list[Any], whole: set[str]) -> None:
    assert _found(plans, rows, whole) == _expected(plans, rows, whole)


@pytest.mark.parametrize(("filed", "problems"), [(DATES[1], 0), (UNKNOWN_DATE, 1)])
def test_a_call_is_filed_under_the_earliest_date_that_is_known(tmp_path: Path, filed: str, problems: int) -> None:
    found = Reconciliation(tmp_path, RUNS)
    for name, date in (("a", UNKNOWN_DATE), ("b", DATES[1])):
        found.take_recordings(Part(date, RUNS[0], 0), _table([{"recording_id": name, "call_id": "c"}]))
    found.take_calls(filed, pa.table({"call_id": ["c"], "recordings": [2], "duration_s": [None]}))
    assert len(list(found.problems(whole=(), waiting=()))) == problems


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "plans.parquet").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"no room to keep rows in.*TMPDIR") as raised:
        Reconciliation(tmp_path, RUNS)
    assert raised.value.errno == errno.ENOSPC


def test_a_plan_that_could_not_be_read_is_compared_with_nothing(tmp_path: Path) -> None:
    found = Reconciliation(tmp_path, RUNS)
    part = Part(DATES[0], RUNS[0], 0)
    found.take_recordings(part, _table([{"recording_id": "a", "call_id": "c"}]))
    found.take_calls(DATES[0], pa.table({"call_id": ["c"], "recordings": [1], "duration_s": [None]}))
    assert list(found.problems(whole=[RUNS[0]], waiting=())) == []
