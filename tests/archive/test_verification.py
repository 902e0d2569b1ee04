from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from emolib.archive.ledger import store_known
from emolib.archive.predictions import Part, parts, place_of_calls
from emolib.archive.verification import verify
from emolib.errors import SettingsError


def _part(pred: Path, table: str) -> tuple[Part, Path]:
    part = parts(pred, "recordings")[0]
    return part, Path(place_of_calls(pred, part.date) if table == "calls" else part.path(pred, table))


def _change(place: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(place)), place)


def _with(rows: pa.Table, name: str, values: Any) -> pa.Table:
    number = rows.schema.get_field_index(name)
    return rows.set_column(number, rows.schema.field(name), values)


def _set_all(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    return lambda rows: _with(rows, name, pa.array([value] * len(rows), rows.schema.field(name).type))


@pytest.mark.parametrize(
    ("table", "change", "problem"),
    [
        ("recordings", lambda rows: pa.concat_tables([rows, rows]), "has 2 rows, expected one"),
        ("recordings", lambda rows: rows.slice(1), "recordings are missing in committed blocks"),
        ("recordings", _set_all("recording_id", "0" * 32), "rows are not planned"),
        ("recordings", _set_all("outcome", "failed"), "outcome and code do not fit"),
        ("recordings", _set_all("code", "weather"), "outcome and code do not fit"),
        ("recordings", _set_all("model_id", "another"), "model_id is another"),
        ("recordings", lambda rows: rows.drop_columns(["uri"]), "column uri is missing"),
        ("recordings", lambda rows: rows.replace_schema_metadata(None), "emolib_table is absent, expected recordings"),
        ("channels", lambda rows: pa.concat_tables([rows, rows]), "recording_id, channel occurs twice"),
        ("channels", _set_all("windows_scored", 1), "windows_scored is not the number"),
        ("channels", lambda rows: rows.slice(0, 0), "the channel has no row in channels"),
        ("windows", lambda rows: rows.slice(1), "windows_scored is not the number"),
        ("windows", lambda rows: pa.concat_tables([rows, rows]), "recording_id, channel, start_s occurs twice"),
        ("windows", _set_all("p_negative", float("nan")), "probabilities do not sum to 1"),
        ("windows", _set_all("polarity_negative", 3.0), "polarities do not sum to 1"),
        ("windows", lambda rows: _with(rows, "end_s", rows["start_s"]), "does not end after its start"),
        ("windows", lambda rows: rows.append_column("extra", rows["start_s"]), "column extra is unknown"),
        ("windows", lambda rows: _with_type(rows, "confidence", pa.float64()), "confidence is double, expected float"),
        ("calls", lambda rows: rows.slice(1), "the call has no row in calls"),
        ("calls", lambda rows: pa.concat_tables([rows, rows]), "has 2 rows, expected one: 2024-05-01"),
        ("calls", _set_all("call_id", "another"), "the call has no row in recordings"),
        ("calls", _set_all("recordings", 7), "recordings is not the number"),
        ("calls", _set_all("duration_s", 7.0), "duration_s is not that"),
        ("calls", _set_all("run_id", "another"), "run another is not among the runs"),
        ("calls", _set_all("model_id", "another"), "model_id is another"),
    ],
)
def test_a_part_that_was_tampered_with_is_found(pred: Path, table: str, change: Any, problem: str) -> None:
    _change(_part(pred, table)[1], change)
    assert any(problem in found for found in verify(pred).problems), verify(pred).problems


def _with_type(rows: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    number = rows.schema.get_field_index(name)
    return rows.set_column(number, pa.field(name, kind), pc.cast(rows[name], kind))


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("channels", "missing, although the block is committed"),
        ("windows", "missing, although the block is committed"),
        ("calls", "the call has no row in calls"),
    ],
)
def test_a_part_that_is_gone_or_damaged_is_found(pred: Path, table: str, problem: str) -> None:
    _, place = _part(pred, table)
    place.write_bytes(place.read_bytes()[:-20])
    assert any("cannot be read" in found for found in verify(pred).problems)
    place.unlink()
    assert any(problem in found for found in verify(pred).problems)


@pytest.mark.parametrize("table", ["recordings", "calls"])
def test_bytes_that_are_no_text_are_a_problem(pred: Path, table: str) -> None:
    _, place = _part(pred, table)
    name = "uri" if table == "recordings" else "call_id"

    def spoilt(rows: pa.Table) -> pa.Table:
        bad = pa.array([b"\xff.wav"] * len(rows), pa.binary())
        return _with(rows, name, pa.Array.from_buffers(pa.string(), len(rows), bad.buffers()))

    _change(place, spoilt)
    assert any(f"{place.name}: cannot be read" in found for found in verify(pred).problems), verify(pred).problems


@pytest.mark.parametrize("notes", ["[]", '{"parts": null}', '{"parts": ["a"]}'])
def test_a_plan_of_another_shape_is_a_problem(pred: Path, notes: str) -> None:
    (place,) = (pred / "_runs").glob("*/plan.json")
    place.write_text(notes)
    assert any("its plan cannot be read" in found for found in verify(pred).problems)


def test_a_deleted_commit_leaves_orphans_and_missing_rows(pred: Path) -> None:
    _, place = _part(pred, "recordings")
    place.unlink()
    problems = verify(pred).problems
    assert sum("not committed" in found for found in problems) == 2
    assert any("planned recordings have no row" in found for found in problems)


def test_a_recording_on_two_dates_is_found(pred: Path) -> None:
    part, place = _part(pred, "recordings")
    copy = Part("1999-01-01", part.run_id, part.block).path(pred, "recordings")
    copy.parent.mkdir()
    copy.write_bytes(place.read_bytes())
    assert any("has 2 rows" in found for found in verify(pred).problems)


def test_strangers_are_found_and_litter_is_counted(pred: Path) -> None:
    part, place = _part(pred, "windows")
    (place.parent / "notes.txt").write_text("hello")
    (place.parent / f".{place.name}.12345678.partial").write_bytes(b"half")
    found = verify(pred)
    assert len(found.problems) == 1
    assert "notes.txt: no part of the table" in found.problems[0]
    assert found.counts["litter"] == 1
    stranger = Part(part.date, "19990101T000000-0000", 0).path(pred, "recordings")
    stranger.write_bytes(place.read_bytes())
    assert any("is not among the runs" in problem for problem in verify(pred).problems)


def test_damaged_notes_of_a_run_are_problems(pred: Path, start: Any) -> None:
    run = start(pred)
    assert verify(pred).problems == [f"run {run.run_id} is open; run the job again, and it will be finished first"]
    (run.folder / "plan.json").write_text("{")
    assert any("its plan cannot be read" in problem for problem in verify(pred).problems)
    (run.folder / "config.json").write_text("{")
    assert any("no readable" in problem for problem in verify(pred).problems)


@pytest.mark.parametrize("name", ["_tombstones.json", "_promotions.json", "_stale.json", "summary.json"])
def test_a_damaged_note_is_the_one_problem(pred: Path, name: str) -> None:
    (summary,) = (pred / "_runs").glob("*/summary.json")
    (summary if name == "summary.json" else pred / name).write_text("")
    (problem,) = verify(pred).problems
    assert name in problem


def test_what_holds_no_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no predictions"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "error",
    [ConnectionResetError("away"), TimeoutError("away"), OSError("Forbidden: away")],
    ids=lambda error: error.args[0],
)
def test_a_store_that_is_away_is_no_damage(error: OSError, pred: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **named: Any) -> None:
        raise error

    def known() -> None:
        store_known(pred, pred.parent / "known.parquet")

    doors: dict[str, Callable[[], object]] = {
        "emolib.archive.verification.pq.read_table": lambda: verify(pred),
        "emolib.archive.ledger.Run._part_of_plan": lambda: verify(pred),
        "emolib.archive.ledger.scan": known,
    }
    for reads, asks in doors.items():
        with monkeypatch.context() as patched:
            patched.setattr(reads, fails)
            with pytest.raises(OSError, match="away"):
                asks()
