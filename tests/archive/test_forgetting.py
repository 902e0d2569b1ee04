"""Erasure and retention: no trace is left, nothing comes back, and everything else stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from emolib.archive import blocks, forgetting, read, rewriting
from emolib.archive.ledger import known, runs
from emolib.archive.plan import Choice
from emolib.archive.planning import plan
from emolib.archive.predictions import files
from emolib.archive.verification import verify
from emolib.errors import Code, SettingsError
from emolib.isolation import Verdict
from emolib.sound.manifest import list_recordings
from tests.archive.conftest import holding, killed_before_write, voice
from tests.conftest import sampled

URI = "2024-05-01/1.wav"


def _everything(pred: Path) -> str:
    """Return all that stands in any file of a folder."""
    said = []
    for place in sorted(pred.rglob("*")):
        if place.suffix == ".parquet":
            said.append(str(pq.ParquetFile(place).read().to_pylist()))
        elif place.is_file():
            said.append(place.read_text())
    return "\n".join(said)


def _due(pred: Path, archive: Path, choice: Choice | None = None) -> list[str]:
    listing = forgetting.without_buried(pred, pd.DataFrame(list(list_recordings(archive))))
    return plan(listing.itertuples(index=False), known(pred), block_s=1e6, choice=choice)["uri"].tolist()


def _erase(pred: Path, call_id: str) -> int:
    names = forgetting.recordings_of(pred, call_id)
    holding(pred, forgetting.bury, pred, names)
    return holding(pred, forgetting.forget, pred, names)


def test_an_erased_call_leaves_no_trace_and_does_not_come_back(archive: Path, pred: Path) -> None:
    before = {table: read(pred, table=table) for table in ("recordings", "channels", "windows", "calls")}
    (row,) = before["recordings"].query("uri == @URI").itertuples()
    (run,) = runs(pred)
    another = next(each.recording_id for each in run.planned(0) if each.uri != URI)
    slow = {row.recording_id: Verdict(Code.TIMEOUT, "slow")}
    run.judge(0, slow | {another: Verdict(Code.KILLED, "broken")})
    for said in (row.recording_id, URI):
        assert said in _everything(pred)
    assert _erase(pred, row.call_id) == 1
    run.judge(0, slow)  # whoever judges late
    for said in (row.recording_id, row.call_id, URI):
        assert said not in _everything(pred)
    assert list(run.verdicts(0)) == [another]
    assert verify(pred).problems == []
    for table, rows in before.items():
        key = "call_id" if table == "calls" else "recording_id"
        expected = rows[rows[key] != row.recording_id].reset_index(drop=True)
        pd.testing.assert_frame_equal(read(pred, table=table), expected)
    assert _due(pred, archive) == []
    assert forgetting.recordings_of(pred, row.call_id) == set()


@pytest.mark.parametrize("written", sampled(range(8), keep=4))
def test_an_erasure_that_is_killed_is_finished_by_the_next(archive: Path, pred: Path, written: int) -> None:
    """It writes a tombstone, a note, three parts, the calls of the day, what is left of the plan in two files."""
    call_id = read(pred, table="recordings").query("uri == @URI")["call_id"].iloc[0]
    with killed_before_write(written):
        _erase(pred, call_id)
    assert _due(pred, archive) == [], "it has its row still, or is buried already"
    assert _erase(pred, call_id) == (written < 5)
    assert URI not in _everything(pred)
    assert verify(pred).problems == []


def test_days_beyond_retention_go_and_are_not_scored_again(archive: Path, pred: Path) -> None:
    before = read(pred, table="windows")
    assert holding(pred, forgetting.forget_before, pred, "2024-05-02") == 3
    assert holding(pred, forgetting.forget_before, pred, "2024-05-02") == 0
    assert verify(pred).problems == []
    expected = before[before["date"] >= "2024-05-02"].reset_index(drop=True)
    pd.testing.assert_frame_equal(read(pred, table="windows"), expected)
    assert not [path for table in ("recordings", "windows") for path in files(pred, table) if "05-01" in str(path)]
    assert "2024-05-01" not in _everything(pred)
    assert _due(pred, archive, Choice(keep_since="2024-05-02")) == []
    assert len(_due(pred, archive)) == 3


def test_a_night_after_both(archive: Path, pred: Path, write: Any) -> None:
    late = read(pred, table="recordings").query("uri == '2024-05-02/mono.wav'")["call_id"].iloc[0]
    _erase(pred, late)
    holding(pred, forgetting.forget_before, pred, "2024-05-02")
    write(archive / "2024-05-03/new.wav", b"RIFF")
    assert _due(pred, archive, Choice(keep_since="2024-05-02")) == ["2024-05-03/new.wav"]


def test_a_recording_that_was_dated_otherwise_once_keeps_its_rows_of_today(
    start: Any, finish: Any, archive: Path, pred: Path, write: Any
) -> None:
    """Dated by its modification, planned under an old date, changed since."""
    place = write(archive / "undated.wav", voice(9, seed=90))
    os.utime(place, (1_500_000_000,) * 2)
    finish(start(pred))
    os.utime(place, (1_750_000_000,) * 2)
    run = start(pred)
    holding(run.pred, rewriting.make_room, run)
    finish(run)
    expected = read(pred, table="windows").query("date >= '2025-01-01'")
    holding(pred, forgetting.forget_before, pred, "2025-01-01")
    assert verify(pred).problems == []
    assert len(read(pred, table="windows")) == len(expected) > 0


def test_all_calls_may_be_erased(archive: Path, pred: Path) -> None:
    for call_id in read(pred, table="recordings")["call_id"]:
        _erase(pred, call_id)
    assert verify(pred).problems == []
    assert read(pred, table="windows").empty


def test_what_a_late_worker_brings_back_is_forgotten_again(start: Any, archive: Path, pred: Path, write: Any) -> None:
    write(archive / "2024-05-04/late.wav", voice(9, seed=91))
    run = start(pred)
    (row,) = run.plan().itertuples()
    holding(pred, forgetting.bury, pred, [row.recording_id])
    blocks.score_block(str(pred), run.run_id, 0)
    assert holding(pred, forgetting.forget_buried, pred) == 1
    assert "late.wav" not in _everything(pred)


def test_retention_keeps_what_was_undated_once(start: Any, finish: Any, archive: Path, pred: Path, write: Any) -> None:
    """Planned without a date at first, dated by its modification since: it goes by the date of each row."""
    place = write(archive / "undated.wav", voice(9, seed=92))
    os.utime(place, (0, 0))  # as 1970-01-01, the date of those that nobody knows
    finish(start(pred))
    os.utime(place, (1_500_000_000,) * 2)
    run = start(pred)
    holding(run.pred, rewriting.make_room, run)
    finish(run)
    holding(pred, forgetting.forget_before, pred, "2024-05-01")
    assert verify(pred).problems == []
    assert "undated.wav" not in read(pred, table="recordings")["uri"].tolist()


def _refused(pred: Path, keep_days: int, clock: str, newest: str = "2024-05-03") -> str:
    try:
        forgetting.check_retention(pred, keep_days, clock=date.fromisoformat(clock), newest=newest)
    except SettingsError as error:
        return str(error)
    return ""


def test_a_clock_far_after_the_newest_recording_removes_nothing(pred: Path) -> None:
    """Eight recordings, of 1 (three), 2 (two) and 3 May (three)."""
    assert not _refused(pred, 9, "2024-05-10"), "nothing is to go"
    assert not _refused(pred, 8, "2024-05-10")
    assert "2024-05-11, 8 days after the newest recording (2024-05-03)" in _refused(pred, 9, "2024-05-11")
    assert "would remove 3 of 8 recordings" in _refused(pred, 9, "2024-05-11")
    assert not _refused(pred, 9, "2024-05-11", newest="2024-05-04"), "one that has no row yet"
    assert not _refused(pred, 20, "2024-05-21"), "quiet, and nothing to go"
    said = _refused(pred, 365, "2036-01-01")
    assert "would remove 8 of 8 recordings" in said
    assert "set the clock, or say --really if it is right" in said


def test_a_clock_that_is_behind_removes_nothing(pred: Path) -> None:
    for clock in ("1970-01-01", "2000-01-01", "2024-04-30"):
        for newest in ("", "2024-05-03"):
            assert not _refused(pred, 1, clock, newest)
        assert holding(pred, forgetting.forget_before, pred, forgetting.kept_since(date.fromisoformat(clock), 1)) == 0


def test_more_than_half_of_the_rows_go_only_if_an_earlier_run_kept_so_few(
    archive: Path, pred: Path, start: Callable[..., Any], finish: Callable[..., Any], write: Any
) -> None:
    said = _refused(pred, 1, "2024-05-04")
    assert "--keep-days 1 would remove 5 of 8 recordings" in said
    assert "no earlier run had this setting; keep more days, or say --really" in said
    assert not _refused(pred, 2, "2024-05-04"), "three of eight"
    write(archive / "2024-05-04/new.wav", b"RIFF")
    run = start(pred)
    config = run.config.model_copy(update={"keep_days": 1})
    (pred / "_runs" / run.run_id / "config.json").write_text(config.model_dump_json())
    finish(type(run).open(pred, run.run_id))
    assert not _refused(pred, 1, "2024-05-04")
    assert "more than half" in _refused(pred, 2, "2024-05-05"), "five of nine, by another setting"
    assert "days after the newest" in _refused(pred, 1, "2024-06-04"), "whatever was kept before"
