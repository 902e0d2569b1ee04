"""Rows that are replaced: nothing lost, nothing doubled, whatever it is interrupted by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emolib.archive import blocks, forgetting, promotion, read, rewriting
from emolib.archive.joining import refresh_calls
from emolib.archive.ledger import Run, open_runs
from emolib.archive.lock import LOCK_NAME, Lock
from emolib.archive.verification import verify
from emolib.errors import AudioError, Code, LockedError
from tests.archive.conftest import holding, killed_before_write, voice, write_call
from tests.conftest import sampled


def _change(archive: Path) -> None:
    """One call is another one now, one that could be read is broken, a broken one can be read."""
    write_call(archive / "2024-05-01/0.wav", voice(15, seed=70), voice(15, seed=71))
    write_call(archive / "2024-05-01/1.wav", b"no sound any more " * 100)
    write_call(archive / "2024-05-03/empty.wav", voice(9, seed=72))


def _is_of_now(problem: str) -> bool:
    """Return whether a problem is what an interrupted run leaves for the next."""
    return any(word in problem for word in ("is open", "/date=", "not up to date"))


def _same_tables(one: Path, other: Path) -> None:
    for table in ("recordings", "channels", "windows", "calls"):
        left_out = ["run_id", "attempts", "version", "message"]
        found, expected = (read(pred, table=table).drop(columns=left_out, errors="ignore") for pred in (one, other))
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=table)


def _replace(run: Run, finish: Any) -> None:
    holding(run.pred, rewriting.make_room, run)
    finish(run)


def test_what_changed_is_scored_again_and_has_one_row(start: Any, finish: Any, archive: Path, pred: Path) -> None:
    _change(archive)
    run = start(pred)
    planned = run.plan()
    assert sorted(planned["uri"]) == ["2024-05-01/0.wav", "2024-05-01/1.wav", "2024-05-03/empty.wav"]
    assert (planned["replaces"].all(), planned["attempts"].tolist()) == (True, [1, 1, 1])
    assert holding(run.pred, rewriting.make_room, run) == 3
    assert holding(run.pred, rewriting.make_room, run) == 0, "it was done"
    finish(run)
    assert verify(pred).problems == []
    codes = read(pred, table="recordings").set_index("uri")["code"]
    assert codes[["2024-05-01/0.wav", "2024-05-01/1.wav", "2024-05-03/empty.wav"]].tolist() == [
        "ok",
        "unsupported",
        "ok",
    ]
    fresh = pred.parent / "fresh"
    finish(start(fresh))
    _same_tables(pred, fresh)
    assert start(pred).plan().empty


@pytest.mark.parametrize("written", sampled(range(7), keep=3))
def test_a_replacement_that_is_killed_is_finished_by_the_next_run(
    start: Any, finish: Any, archive: Path, pred: Path, written: int
) -> None:
    """A note, and two parts of three tables are written anew; it dies before the first, the second, … of them."""
    _change(archive)
    run = start(pred)
    with killed_before_write(written):
        holding(run.pred, rewriting.make_room, run)
    assert [problem for problem in verify(pred).problems if not _is_of_now(problem)] == []
    (again,) = open_runs(pred)
    _replace(again, finish)
    assert verify(pred).problems == []
    fresh = pred.parent / "fresh"
    finish(start(fresh))
    _same_tables(pred, fresh)


def test_a_failure_that_may_pass_is_tried_three_times(
    start: Any, finish: Any, archive: Path, pred: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(archive / "2024-05-02/mono.wav", ns=(0, 1))  # it changed
    monkeypatch.setattr("emolib.sound.audio.stream", _unreadable)
    for attempt in (1, 2, 3):
        run = start(pred)
        planned = run.plan()
        assert (planned["uri"].tolist(), planned["attempts"].tolist()) == (["2024-05-02/mono.wav"], [attempt])
        _replace(run, finish)
        row = read(pred, table="recordings").set_index("uri").loc["2024-05-02/mono.wav"]
        assert (row["code"], row["attempts"]) == ("unreadable", attempt)
    assert verify(pred).problems == []
    assert start(pred).plan().empty


def _unreadable(place: Any, **named: Any) -> Any:
    raise AudioError(Code.UNREADABLE, "the disk said no, expected bytes")


def test_a_file_that_cannot_be_looked_at_tonight_keeps_its_rows(
    start: Any, archive: Path, pred: Path, tmp_path: Path
) -> None:
    place = archive / "2024-05-01/0.wav"
    place.unlink()
    place.symlink_to(tmp_path / "not mounted")
    assert start(pred).plan().empty


def test_an_overtaken_run_takes_out_no_row_of_a_newer_one(start: Any, finish: Any, archive: Path, pred: Path) -> None:
    _change(archive)
    first = start(pred)
    second = start(pred)
    _replace(second, finish)
    assert holding(first.pred, rewriting.make_room, first) == 0
    holding(first.pred, first.close, {}, abandoned=True)
    assert verify(pred).problems == []


def test_two_rows_of_a_recording_are_mended_by_the_next_run(start: Any, finish: Any, archive: Path, pred: Path) -> None:
    write_call(archive / "2024-05-04/late.wav", voice(9, seed=80))
    first, second = start(pred), start(pred)
    finish(first)
    finish(second)
    assert any("has 2 rows" in problem for problem in verify(pred).problems)
    run = start(pred)
    assert run.plan()["uri"].tolist() == ["2024-05-04/late.wav"]
    _replace(run, finish)
    assert verify(pred).problems == []


@pytest.mark.parametrize(
    "change",
    [
        lambda run, gone, lock: rewriting.make_room(run, lock=lock),
        lambda run, gone, lock: run.close({}, lock=lock, abandoned=True),
        lambda run, gone, lock: run.commits.unseal(lock=lock),
        lambda run, gone, lock: forgetting.forget(run.pred, gone, lock=lock),
        lambda run, gone, lock: forgetting.forget_before(run.pred, "2024-05-02", lock=lock),
        lambda run, gone, lock: forgetting.bury(run.pred, gone, lock=lock),
        lambda run, gone, lock: refresh_calls(run.pred, ["2024-05-01"], lock=lock),
        lambda run, gone, lock: promotion.record(
            run.pred, replaced="fake", model="new", model_id="new", agreement=None, lock=lock
        ),
    ],
    ids=["replacement", "closing", "going on", "erasure", "retention", "tombstones", "calls", "promotion"],
)
def test_whoever_lost_the_lock_writes_nothing_more(change: Any, start: Any, archive: Path, pred: Path) -> None:
    _change(archive)
    run = start(pred)
    blocks.score_block(str(pred), run.run_id, 0)
    gone = {each.recording_id for each in run.planned(0)}
    with Lock(pred, interval_s=60) as lock:
        token = (pred / LOCK_NAME).read_text().replace('"token": "', '"token": "not ')
        (pred / LOCK_NAME).write_text(token)
        before = {path: path.read_bytes() for path in pred.rglob("*") if path.is_file()}
        with pytest.raises(LockedError, match="took too long to renew its lock"):
            change(run, gone, lock)
        assert {path: path.read_bytes() for path in pred.rglob("*") if path.is_file()} == before
