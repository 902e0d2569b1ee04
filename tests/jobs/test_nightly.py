"""Nights: what is new is scored once, in the order that was asked for, and a page tells of it."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from emolib import archive
from emolib.archive.lock import Lock
from emolib.errors import EmolibError, LockedError, SettingsError
from jobs.nightly import nightly
from jobs.options import Options
from jobs.runs import carry_out
from jobs.tasks import prepared
from tests.jobs.conftest import assert_same_rows, run_emolib


@pytest.fixture
def growing(calls: Path, tmp_path: Path) -> Path:
    """A copy of the calls that a test may add to; all of it lies there since yesterday."""
    place = shutil.copytree(calls, tmp_path / "archive")
    for path in place.rglob("*.*"):
        os.utime(path, (time.time() - 86_400,) * 2)
    return place


def test_a_night_scores_what_is_new_and_the_same_night_again_nothing(
    growing: Path, model: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    late = next(growing.rglob("*.wav"))
    shutil.move(late, tmp_path / "late.wav")
    asked = ("nightly", growing, "--model", model, "--out", tmp_path / "P", "--report", tmp_path / "nights", *cluster)
    measures = tmp_path / "metrics/emolib.prom"
    asked = (*asked, "--failure-budget", "1", "--metrics", measures)
    first = run_emolib(*asked)
    assert (first.exit_code, first.summary["problems"]) == (0, 0)
    found = {sample.name: sample.value for sample in _samples(measures)}
    assert found["emolib_night_recordings_listed"] == first.summary["listed"]
    assert "emolib_night_calls_table_rows_unread" not in found
    assert (found["emolib_night_exit_code"], found["emolib_night_verify_problems"]) == (0, 0)
    by_code = {each.labels["code"]: each.value for each in _samples(measures) if each.name == "emolib_night_recordings"}
    assert {code: count for code, count in by_code.items() if count} == first.summary["codes"]
    shutil.move(tmp_path / "late.wav", late)
    os.utime(late)
    unsettled = run_emolib(*asked, "--since", "2024-01-01").summary
    assert (unsettled["recordings"], unsettled["left_for_later"]) == (0, 1)  # it may still be written to
    third = run_emolib(*asked, "--settle-s", "0")
    assert (third.exit_code, third.summary["recordings"]) == (0, 1)
    assert_same_rows(tmp_path / "P", undisturbed)
    assert run_emolib(*asked, "--settle-s", "0").summary["recordings"] == 0
    pages = sorted((tmp_path / "nights").iterdir())
    assert len(pages) == 4
    stored = [json.loads((page / "summary.json").read_text()) for page in pages]
    assert [each["recordings"] for each in stored] == [first.summary["recordings"], 0, 1, 0]
    for name in ("index.html", "drift.json"):
        assert [(page / name).exists() for page in pages] == [True, False, True, False]
    assert [each["drift"] for each in stored] == [[]] * 4  # too few for that
    assert late.name in (pages[2] / "index.html").read_text()
    assert late.name not in (pages[0] / "index.html").read_text()


def _samples(path: Path) -> list[Any]:
    return [sample for family in text_string_to_metric_families(path.read_text()) for sample in family.samples]


@pytest.mark.slow
def test_a_night_has_an_order_and_an_end(growing: Path, model: Path, tmp_path: Path) -> None:
    days = {f"2024-05-{number:02d}": growing / f"2024-05-{number:02d}" for number in range(10, 14)}
    shutil.rmtree(growing / "2024-05-01", ignore_errors=True)
    source = next(path for path in growing.rglob("*.wav") if path.stat().st_size > 100_000)
    data = source.read_bytes()
    shutil.rmtree(growing)
    for folder in days.values():
        folder.mkdir(parents=True)
        (folder / "a.wav").write_bytes(data)
    hour = len(data) / 16_000 / 3600

    def planned(*asked: str) -> dict[str, int]:
        common = ("nightly", growing, "--model", model, "--out", tmp_path / "P", "--settle-s", "0", "--plan")
        found = run_emolib(*common, *asked).summary
        return {name: found[name] for name in ("to_score", "left_for_later")}

    assert planned() == {"to_score": 4, "left_for_later": 0}
    assert planned("--date", "2024-05-11") == {"to_score": 1, "left_for_later": 3}
    assert planned("--since", "2024-05-12") == {"to_score": 2, "left_for_later": 2}
    assert planned("--since", "2024-05-13", "--backfill-hours", str(1.5 * hour)) == {"to_score": 2, "left_for_later": 2}
    assert planned("--limit-hours", str(3.5 * hour)) == {"to_score": 3, "left_for_later": 1}
    os.utime(days["2024-05-10"] / "a.wav", (time.time() + 1e8,) * 2)
    common = ("nightly", growing, "--model", model, "--out", tmp_path / "P", "--settle-s", "300", "--plan")
    assert run_emolib(*common).summary["to_score"] == 1  # the others were just written; that clock is wrong
    assert not (tmp_path / "P").exists()


def test_options_of_a_night_come_from_a_file(growing: Path, model: Path, tmp_path: Path) -> None:
    settings = tmp_path / "nightly.toml"
    options = {"archive": str(growing), "model": str(model), "out": str(tmp_path / "P"), "limit_hours": 0.001}
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    settings.write_text("\n".join(["[nightly]", *lines, "workers = 1"]))
    ended = run_emolib("nightly", "--config", settings, "--plan")
    assert ended.exit_code == 0
    assert ended.summary["to_score"] == 1


def test_backfill_that_leaves_nothing_for_the_new_is_refused(growing: Path, model: Path, tmp_path: Path) -> None:
    asked = ("--limit-hours", "1", "--backfill-hours", "1")
    ended = run_emolib("nightly", growing, "--model", model, "--out", tmp_path / "P", *asked)
    assert ended.exit_code == 2
    assert "would never be scored" in ended.summary["error"]


def test_a_day_that_is_none_is_refused(growing: Path, model: Path, tmp_path: Path) -> None:
    ended = run_emolib("nightly", growing, "--model", model, "--out", tmp_path / "P", "--since", "yesterday")
    assert ended.exit_code == 2
    assert "since 'yesterday' found, expected a day" in ended.summary["error"]


@pytest.mark.slow
def test_predictions_that_are_damaged_end_a_night_with_its_code(
    growing: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "P")
    next((out / "windows").rglob("*.parquet")).unlink()
    for run in archive.ledger.runs(out):  # the archive of the copy
        config = json.loads((Path(run.folder.path) / "config.json").read_text())
        (Path(run.folder.path) / "config.json").write_text(json.dumps({**config, "archive": str(growing)}))
    ended = run_emolib("nightly", growing, "--model", model, "--out", out, "--failure-budget", "1")
    assert ended.exit_code == 6
    assert ended.summary["problems"] >= 1


def test_rows_that_cannot_be_read_are_no_riddle(
    calls: Path, model: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "P")
    next((out / "recordings").rglob("*.parquet")).write_bytes(b"PAR1 junk")
    assert run_emolib("nightly", calls, "--model", model, "--out", out, "--plan").exit_code == 70
    assert "`emolib verify` names such parts" in capsys.readouterr().err


def test_an_archive_of_which_all_was_erased_has_quiet_nights(
    calls: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(undisturbed, tmp_path / "P")
    names = set(archive.read(out, table="recordings")["call_id"])
    assert run_emolib("erase", out, *(word for name in names for word in ("--call-id", name))).exit_code == 0
    ended = run_emolib("nightly", calls, "--model", model, "--out", out, "--plan")
    assert (ended.exit_code, ended.summary["to_score"]) == (0, 0)
    assert ended.summary["skipped"] == {"erased": len(names)}


@pytest.mark.slow
def test_who_loses_the_lock_while_planning_leaves_no_plan(calls: Path, model: Path, tmp_path: Path) -> None:
    class Lost:
        """A lock that is taken after a while."""

        def __init__(self) -> None:
            self.asked = 0

        def check(self) -> None:
            self.asked += 1
            if self.asked > 1:
                raise LockedError("taken by another one, found while the plan was written")

    options = Options(model=str(model))
    with prepared(str(calls), str(tmp_path / "P"), options) as task, pytest.raises(LockedError):
        carry_out(task, cast(Lock, Lost()))
    assert archive.ledger.started(tmp_path / "P") == []


def test_a_night_that_fails_leaves_a_summary_that_says_why(
    calls: Path, model: Path, cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise EmolibError("1 of 4 blocks could not be scored")

    monkeypatch.setattr("jobs.nightly.carry_out", fails)
    asked = ("nightly", calls, "--model", model, "--out", tmp_path / "P", "--report", tmp_path / "nights", *cluster)
    asked = (*asked, "--metrics", tmp_path / "emolib.prom")
    assert run_emolib(*asked).exit_code == 70
    assert [each.value for each in _samples(tmp_path / "emolib.prom") if each.name == "emolib_night_exit_code"] == [70]
    (night,) = (tmp_path / "nights").iterdir()
    assert json.loads((night / "summary.json").read_text())["error"] == "1 of 4 blocks could not be scored"


def test_what_a_night_could_not_write_is_refused_before_it_begins(calls: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    asked = ("nightly", calls, "--model", model, "--out", tmp_path / "P")
    for option, place in (("--report", tmp_path / "file/pages"), ("--metrics", tmp_path / "file/night.prom")):
        refused = run_emolib(*asked, option, place)
        assert (refused.exit_code, f"{option} can't be written" in refused.summary["error"]) == (2, True)
    contradiction = run_emolib(*asked, "--date", "2024-05-01", "--since", "2024-05-02")
    assert (contradiction.exit_code, "there are none" in contradiction.summary["error"]) == (2, True)
    assert not (tmp_path / "P").exists()


def test_a_file_of_options_has_none_of_the_command_line_itself(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text('[nightly]\nlog_format = "json"\n')
    refused = run_emolib("nightly", "--config", tmp_path / "night.toml")
    assert (refused.exit_code, "--log-format on the command line" in refused.summary["error"]) == (2, True)


@pytest.mark.slow
def test_a_plan_after_an_erasure_and_damage_to_what_says_so(
    pred_of_calls: Path, calls: Path, model: Path, tmp_path: Path
) -> None:
    asked = ("nightly", calls, "--model", model, "--out", pred_of_calls, "--settle-s", "0")
    call_id = archive.read(pred_of_calls, table="calls")["call_id"][0]
    assert run_emolib("erase", pred_of_calls, "--call-id", call_id, "--call-id", "unknown").exit_code == 0
    planned = run_emolib(*asked, "--plan")
    assert (planned.exit_code, planned.summary["to_score"], planned.summary["skipped"]) == (0, 0, {"erased": 1})
    hashes = json.loads((pred_of_calls / "_tombstones.json").read_text())["hashes"]
    assert len(hashes) == 1, "of the recording, whose id its call has; nothing of what nobody knows"
    for name in ("_tombstones.json", "_stale.json"):
        kept = (pred_of_calls / name).read_text() if (pred_of_calls / name).exists() else None
        (pred_of_calls / name).write_text("")
        found = run_emolib("verify", pred_of_calls)
        assert (found.exit_code, found.summary["problems"]) == (6, 1)
        assert name in run_emolib(*asked).summary["error"]
        (pred_of_calls / name).write_text(kept) if kept else (pred_of_calls / name).unlink()
    assert run_emolib("verify", pred_of_calls).exit_code == 0


def test_a_plan_says_what_is_left_and_why(growing: Path, model: Path, undisturbed: Path, tmp_path: Path) -> None:
    common = ("nightly", growing, "--model", model, "--plan", "--out")
    assert run_emolib(*common, tmp_path / "P").summary["skipped"] == {}
    dates = archive.read(undisturbed, table="recordings")["date"].dt.strftime("%Y-%m-%d")
    found = run_emolib(*common, tmp_path / "P", "--date", dates.min()).summary
    assert found["skipped"] == {"other_days": found["left_for_later"]}
    found = run_emolib(*common, tmp_path / "P", "--keep-days", "1").summary
    assert (found["skipped"], found["left_for_later"]) == ({"beyond_retention": found["listed"]}, 0)
    os.utime(next(growing.rglob("*.wav")))
    found = run_emolib(*common, tmp_path / "P", "--limit-hours", "0.0001").summary
    assert found["skipped"] == {"settling": 1, "beyond_limit": found["left_for_later"] - 1}
    assert found["to_score"] == 1
    assert found["memory"]["worker_bytes"] > 0


def test_a_retention_that_a_wrong_clock_makes_removes_nothing(
    growing: Path, model: Path, pred_of_calls: Path, tmp_path: Path
) -> None:
    """The archive is of May 2024, and the clock of years later."""
    for run in archive.ledger.runs(pred_of_calls):  # the archive of the copy
        place = pred_of_calls / "_runs" / run.run_id / "config.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "archive": str(growing)}))
    before = archive.read(pred_of_calls, table="recordings")
    asked = ("nightly", growing, "--model", model, "--out", pred_of_calls, "--settle-s", "0", "--keep-days", "30")
    (growing / "undated.wav").write_bytes(b"")  # its time of modification, which is of the same clock, says nothing
    for more in ((), ("--plan",), ("--report", tmp_path / "nights")):
        refused = run_emolib(*asked, *more)
        assert refused.exit_code == 2
        assert "days after the newest recording (2024-05-" in refused.summary["error"]
        assert f"would remove {len(before)} of {len(before)} recordings" in refused.summary["error"]
    (told,) = (tmp_path / "nights").rglob("summary.json")
    assert json.loads(told.read_text())["exit_code"] == 2
    pd.testing.assert_frame_equal(archive.read(pred_of_calls, table="recordings"), before)

    days = sorted(before["date"].dt.date)
    many = days[-1] - days[len(days) // 2 + 1]  # so that the first half goes, and more
    common: Any = {"out": str(pred_of_calls), "options": Options(model=str(model)), "keep_days": max(1, many.days)}
    night = datetime.combine(days[-1] + timedelta(days=1), datetime.min.time(), UTC)
    with pytest.raises(SettingsError, match="more than half, and no earlier run had this setting"):
        nightly(str(growing), **common, night=night)
    (growing / "undated.wav").unlink()
    ended = run_emolib(*asked, "--really")
    assert (ended.exit_code, ended.summary["forgotten"]) == (0, len(before))
    again = run_emolib(*asked)
    assert (again.exit_code, again.summary["recordings"], again.summary["forgotten"]) == (0, 0, 0)


def test_a_row_that_is_not_read_is_counted_in_the_summary_of_its_night(
    model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "archive").mkdir()
    for name in ("240503_5.wav", "6.wav"):
        (tmp_path / f"archive/{name}").write_bytes(b"")
    (tmp_path / "calls.csv").write_text("call_id,direction\n6,in\n7\n")
    asked = ("nightly", tmp_path / "archive", "--model", model, "--out", tmp_path / "P", *cluster, "--settle-s", "0")
    gaps = {"dated_by_modification": 2, "table_unknown": 1}
    asked = (*asked, "--calls-table", tmp_path / "calls.csv", "--metrics", tmp_path / "night.prom")
    found = run_emolib(*asked).summary
    assert found["recordings"] == 2
    assert {**gaps, "table_rows_unread": 1}.items() <= found.items()
    (run,) = archive.ledger.runs(tmp_path / "P")
    assert run.summary()["gaps"] == gaps
    (told,) = (each for each in _samples(tmp_path / "night.prom") if "table" in each.name)
    assert (told.name, told.value) == ("emolib_night_calls_table_rows_unread", 1)
    found = run_emolib(*asked).summary
    assert {**dict.fromkeys(gaps, 0), "table_rows_unread": 1}.items() <= found.items()


@pytest.fixture
def pred_of_calls(undisturbed: Path, tmp_path: Path) -> Path:
    """Predictions that a test may change."""
    return shutil.copytree(undisturbed, tmp_path / "P")


def test_a_few_failures_on_a_quiet_night_are_no_failure(
    growing: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    shutil.rmtree(growing)
    growing.mkdir()
    (growing / "2024-05-01.wav").write_bytes(b"")
    os.utime(growing / "2024-05-01.wav", (time.time() - 86_400,) * 2)
    asked = ("nightly", growing, "--model", model, *cluster)
    assert run_emolib(*asked, "--out", tmp_path / "P").exit_code == 1
    assert run_emolib(*asked, "--out", tmp_path / "Q", "--failure-count", "3").exit_code == 0
