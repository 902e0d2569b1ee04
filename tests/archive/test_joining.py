"""Calls of several recordings: one row each, whatever blocks, nights and dates these come from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from emolib.archive import forgetting, read, rewriting
from emolib.archive.blocks import score_block
from emolib.archive.drift import drift
from emolib.archive.joining import calls_of, refresh_calls, stale
from emolib.archive.ledger import open_runs, runs
from emolib.archive.metadata import Sources, pattern_of
from emolib.archive.predictions import Part, parts, place_of_calls
from emolib.archive.schemas import schema
from emolib.archive.verification import verify
from tests.archive.conftest import (
    RATE,
    FakeBundle,
    finish_run,
    holding,
    killed_before_write,
    start_run,
    voice,
    write_call,
)
from tests.conftest import sampled

SOURCES = Sources(
    pattern_of(r"(?P<site>[a-z]+)/(?P<date>[\d-]+)/(?P<call_id>\w)-(?P<queue>\w+)(?:-(?P<part>\d))?\.wav"),
    {"call_id": ["a", "b"], "direction": ["inbound", None], "agent": ["Ada", None], "crm": [None, "8"]},
)


@pytest.fixture(scope="session")
def stored_joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Call a in three parts of two dates, b in two of one date, c in one; and one that is its own. Scored once."""
    root = tmp_path_factory.mktemp("joined")
    places = ("bonn/2024-05-01/a-sales-1", "bonn/2024-05-01/a-sales-2", "bonn/2024-05-02/a-help-3")
    places += ("bonn/2024-05-02/b-help-1", "rome/2024-05-02/b-help-2", "rome/2024-05-03/c-help", "rome/2024-05-03")
    for number, place in enumerate(places):
        said = voice(5, seed=20)[: (30 + number) * RATE // 10]
        write_call(root / "archive" / f"{place}.wav", said, said[::-1])
    with pytest.MonkeyPatch.context() as patch:
        model = FakeBundle()
        patch.setattr("emolib.archive.blocks.load_bundle", lambda path, model_id: model)
        finish_run(start_run(root / "pred", model, root / "archive", block_s=3.0, sources=SOURCES))
    return root


@pytest.fixture
def archive(stored_joined: Path, tmp_path: Path) -> Path:
    """A copy of the archive that a test may change."""
    return shutil.copytree(stored_joined / "archive", tmp_path / "archive")


@pytest.fixture
def pred(stored_joined: Path, tmp_path: Path) -> Path:
    """A copy of its predictions."""
    return shutil.copytree(stored_joined / "pred", tmp_path / "pred")


@pytest.fixture
def score(bundle: Any, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("emolib.archive.blocks.load_bundle", lambda path, model_id: bundle)

    def score(pred: Path, *, sources: Sources = SOURCES) -> None:
        run = start_run(pred, bundle, archive, block_s=1e6, sources=sources)
        holding(run.pred, rewriting.make_room, run)
        finish_run(run)

    return score


def _calls(pred: Path) -> pd.DataFrame:
    return read(pred, table="calls").drop(columns="run_id")


def test_a_call_has_one_row_of_all_its_recordings(pred: Path) -> None:
    assert verify(pred).problems == []
    calls, recordings = read(pred, table="calls").set_index("call_id"), read(pred, table="recordings")
    assert calls.loc[["a", "b", "c"], "recordings"].tolist() == [3, 2, 1]
    assert len(calls) == 4
    assert calls.loc["a", "date"] == pd.Timestamp("2024-05-01")
    parts = recordings[recordings["call_id"] == "a"]
    assert calls.loc["a", "duration_s"] == pytest.approx(parts["decoded_s"].sum())
    assert calls.loc["a", "non_talk_s"] == pytest.approx(parts["non_talk_s"].sum())
    assert calls.loc["a", ["direction", "agent", "queue", "site"]].tolist() == ["inbound", "Ada", "sales", "bonn"]
    assert dict(calls.loc["a", "extra"]) == {"part": "1"}
    assert dict(calls.loc["b", "extra"]) == {"part": "1", "crm": "8"}
    assert set(parts["queue"]) == {"sales", "help"}
    channels = read(pred, table="channels").query("call_id == 'a' and outcome == 'scored'")
    assert calls.loc["a", "worst_negative"] == channels["worst_negative"].max()


@pytest.mark.slow
def test_nights_and_blocks_change_no_call(score: Any, archive: Path, pred: Path, tmp_path: Path) -> None:
    """The earliest part of each call arrives last: rows move to other dates, and other blocks are cut."""
    files = sorted(archive.rglob("*.wav"), key=lambda path: path.name)
    late = {path: path.read_bytes() for path in files if path.stem[-1] in "12"}
    for path in late:
        path.unlink()
    for path in (None, *reversed(late)):
        if path is not None:
            path.write_bytes(late[path])
        score(tmp_path / "by nights")
        assert verify(tmp_path / "by nights").problems == []
    pd.testing.assert_frame_equal(_calls(tmp_path / "by nights"), _calls(pred), check_exact=True)


@pytest.mark.parametrize("written", sampled(range(5), keep=3))
def test_a_run_killed_while_it_closes_is_closed_by_the_next(
    score: Any, bundle: Any, archive: Path, pred: Path, tmp_path: Path, written: int
) -> None:
    """The first parts of call a are late, so its row moves.

    The run is sealed, the row written there, kept here, taken out; then comes the summary.
    """
    late = {path: path.read_bytes() for path in archive.glob("bonn/2024-05-01/*")}
    for path in late:
        path.unlink()
    expected, pred = _calls(pred), tmp_path / "late"
    score(pred)
    for path, data in late.items():
        path.write_bytes(data)
    run = start_run(pred, bundle, archive, block_s=8.0, sources=SOURCES)
    for block in run.todo()["block"]:
        score_block(str(pred), run.run_id, block)
    with killed_before_write(written):
        holding(run.pred, run.close, {})
    calls = read(pred, table="calls")["call_id"]
    assert (calls == "a").sum() == 1, "the old row or the new one"
    assert [problem for problem in verify(pred).problems if not is_of_moving(problem)] == []
    (again,) = open_runs(pred)
    holding(again.pred, again.close, {})
    assert verify(pred).problems == []
    pd.testing.assert_frame_equal(_calls(pred), expected, check_exact=True)


def is_of_moving(problem: str) -> bool:
    return "is open" in problem or "call a has 2 rows" in problem


@pytest.mark.parametrize("written", sampled([0, 1, 3, 9, 10, 11, 12], keep=3))
def test_an_erasure_of_a_call_of_several_dates_is_finished_after_a_kill(pred: Path, written: int) -> None:
    """It writes a note, three parts for each of its three recordings, the calls of a day, the plan in two files."""
    expected = read(pred, table="calls").query("call_id != 'a'").reset_index(drop=True)
    names = forgetting.recordings_of(pred, "a")
    assert len(names) == 3
    holding(pred, forgetting.bury, pred, names)
    with killed_before_write(written):
        holding(pred, forgetting.forget, pred, names)
    assert stale(pred) == ({"2024-05-01", "2024-05-02"} if written in range(1, 11) else set())
    holding(pred, forgetting.forget, pred, forgetting.recordings_of(pred, "a"))
    assert verify(pred).problems == []
    pd.testing.assert_frame_equal(read(pred, table="calls"), expected)


def test_retention_leaves_a_call_what_is_left_of_it(pred: Path) -> None:
    holding(pred, forgetting.forget_before, pred, "2024-05-02")
    assert verify(pred).problems == []
    call = read(pred, table="calls").set_index("call_id").loc["a"]
    assert (call["date"], call["recordings"], call["queue"]) == (pd.Timestamp("2024-05-02"), 1, "help")
    assert not place_of_calls(pred, "2024-05-01").exists()


def test_a_recording_that_joins_another_call_leaves_its_own(score: Any, archive: Path, pred: Path) -> None:
    """Its file changed, and so did the pattern: the call that it left is known by its rows alone."""
    write_call(archive / "bonn/2024-05-02/a-help-3.wav", voice(5, seed=20), voice(5, seed=20))
    by_suffix = Sources(pattern_of(r"(?P<date>[\d-]+)/\w-help-(?P<call_id>\d)"))
    score(pred, sources=by_suffix)
    assert verify(pred).problems == []
    calls = read(pred, table="calls").set_index("call_id")
    assert calls.loc[["a", "3"], "recordings"].tolist() == [2, 1]


def test_predictions_of_version_1_are_read_verified_and_continued(score: Any, archive: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    late = archive / "rome/2024-05-02/b-help-2.wav"
    data = late.read_bytes()
    late.unlink()
    score(pred)
    before = read(pred, table="calls")
    for table in ("recordings", "channels", "windows"):
        for part in parts(pred, table):
            place = Path(part.path(pred, table))
            pq.write_table(_as_version_1(pq.read_table(place), table), place)
    for place in sorted((pred / "calls").rglob("*.parquet")):  # of each row, as if it were of a block
        rows = _as_version_1(pq.read_table(place), "calls")
        for number in range(len(rows)):
            part = Part(place.parent.name[5:], rows["run_id"][number].as_py(), number)
            pq.write_table(rows.slice(number, 1), Path(part.path(pred, "calls")))
        place.unlink()
    pd.testing.assert_frame_equal(read(pred, table="calls"), before)
    assert verify(pred).problems == []
    late.write_bytes(data)
    score(pred)
    assert verify(pred).problems == []
    calls = read(pred, table="calls").set_index("call_id")
    assert calls.loc["b", "recordings"] == 2
    assert [path.name for path in (pred / "calls/date=2024-05-02").iterdir()] == ["calls.parquet"]


def _as_version_1(rows: pa.Table, table: str) -> pa.Table:
    classes = [name.removeprefix("p_") for name in rows.column_names if name.startswith("p_")]
    classes = classes or [name.removeprefix("mean_") for name in rows.column_names if name.startswith("mean_")]
    old = schema(table, classes, version=1)
    return rows.select(old.names).cast(old)


def test_refreshing_does_nothing_twice_and_nothing_without_reason(pred: Path) -> None:
    files = {path: path.read_bytes() for path in (pred / "calls").rglob("*.parquet")}
    (next(iter(files)).parent / ".calls.parquet.12345678.partial").write_bytes(b"half")
    assert holding(pred, refresh_calls, pred) == 0
    assert holding(pred, refresh_calls, pred, ["2024-05-01", "2024-05-02", "2024-05-03", "1999-01-01"]) == 4
    assert {path: path.read_bytes() for path in (pred / "calls").rglob("*.*")} == files


DATES = st.sampled_from(["1970-01-01", "2024-05-01", "2024-05-02"])


@given(st.lists(st.tuples(st.sampled_from("abc"), DATES, st.none() | st.floats(0, 1e4)), max_size=8), st.data())
def test_calls_are_the_same_in_whatever_order_their_recordings_come(
    listed: list[tuple[str, str, float | None]], data: st.DataObject
) -> None:
    rows = [
        {"recording_id": str(number), "call_id": call, "uri": f"{number}.wav", "decoded_s": seconds, "run_id": "r"}
        for number, (call, _, seconds) in enumerate(listed)
    ]
    recordings = pa.Table.from_pylist(rows, schema=schema("recordings", ()))
    recordings = recordings.append_column("date", pa.array([date for _, date, _ in listed], pa.string()))
    nothing = schema("channels", ()).empty_table()
    calls = calls_of(recordings, nothing)
    assert calls.schema.names == [*schema("calls", ()).names, "date"]
    found = {row["call_id"]: row for row in calls.to_pylist()}
    assert list(found) == sorted({call for call, _, _ in listed})
    for call, row in found.items():
        mine = [(date, seconds) for name, date, seconds in listed if name == call]
        assert row["recordings"] == len(mine)
        known = [date for date, _ in mine if date != "1970-01-01"]
        assert row["date"] == min(known, default="1970-01-01")
        assert (row["duration_s"] is None) == all(seconds is None for _, seconds in mine)
    order = data.draw(st.permutations(range(len(rows))))
    assert calls_of(recordings.take(pa.array(order, pa.int64())), nothing).equals(calls)


def test_drift_is_told_by_site_and_queue(score: Any, archive: Path, pred: Path) -> None:
    for number in range(50):
        write_call(archive / f"rome/2024-05-04/{'xyz'[number % 3]}-help-{number % 10}{number}.wav", b"RIFF")
    pattern = pattern_of(r"(?P<site>[a-z]+)/(?P<date>[\d-]+)/\w-(?P<queue>\w+)")
    score(pred, sources=Sources(pattern))
    first, second = (run.run_id for run in runs(pred))
    found = {(each.site, each.queue): (each.recordings, each.reference) for each in drift(pred, {first, second})}
    assert found == {
        ("rome", "help"): (52, 0),
        ("bonn", "sales"): (2, 0),
        ("bonn", "help"): (2, 0),
        (None, None): (1, 0),
    }
    assert [(each.site, each.queue, each.reference) for each in drift(pred, {second})] == [("rome", "help", 2)]
