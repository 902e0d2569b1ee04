import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emolib.archive import blocks, commits, read
from emolib.archive.ledger import Run, byte_rates, check_out, known, open_runs, remove_unstarted, runs, strays
from emolib.archive.planning import plan
from emolib.archive.predictions import Part, committed
from emolib.archive.run_settings import run_config, scoring_fingerprint
from emolib.archive.schemas import BLOCK_TABLES, TABLES
from emolib.archive.verification import verify
from emolib.config import ScoringConfig
from emolib.errors import EmolibError, OutputError, SettingsError
from emolib.sound.manifest import list_recordings
from tests.archive.conftest import holding

VOLATILE = ["run_id", "attempts", "message", "version"]


def _same_rows(one: Path, other: Path) -> None:
    for table in TABLES:
        rows = [read(pred, table=table) for pred in (one, other)]
        pd.testing.assert_frame_equal(
            *(each.drop(columns=VOLATILE, errors="ignore") for each in rows), check_exact=True
        )


def test_a_run_from_plan_to_summary(start: Any, finish: Any, archive: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    run = start(pred)
    blocks = run.blocks()
    assert blocks["recordings"].sum() == 8
    assert list(blocks["block"]) == list(range(len(blocks)))
    assert [each.run_id for each in open_runs(pred)] == [run.run_id]

    results = finish(run)
    assert open_runs(pred) == []
    assert sum(result.recordings for result in results) == 8
    rows = read(pred, table="recordings").set_index("uri")
    assert rows["code"].to_dict() == {
        "2024-05-01/0.wav": "ok",
        "2024-05-01/1.wav": "ok",
        "2024-05-01/2.wav": "ok",
        "2024-05-02/mono.wav": "ok",
        "2024-05-02/silent-agent.wav": "ok",
        "2024-05-03/empty.wav": "empty",
        "2024-05-03/short.wav": "too_short",
        "2024-05-03/text.wav": "unsupported",
    }
    found = verify(pred)
    assert found.problems == []
    assert found.counts["recordings"] == found.counts["calls"] == 8
    assert found.counts["windows"] == sum(result.windows for result in results)
    assert start(pred).blocks().empty, "everything is known"


def test_a_run_that_was_interrupted_gives_the_same_rows_as_one_that_was_not(
    start: Any, finish: Any, stored_predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pred = tmp_path / "pred"
    run = start(pred)
    first, second, *_ = run.blocks()["block"]
    blocks.score_block(str(pred), run.run_id, first)
    create_bytes = commits.create_bytes

    def dies_before_the_commit(path: Any, data: bytes) -> bool:
        if "recordings" in path.parts:
            raise KeyboardInterrupt
        return create_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(commits, "create_bytes", dies_before_the_commit)
        with pytest.raises(KeyboardInterrupt):
            blocks.score_block(str(pred), run.run_id, second)

    assert first not in set(run.todo()["block"])
    assert second in set(run.todo()["block"])
    again = open_runs(pred)[0]
    finish(again)
    assert verify(pred).problems == []
    _same_rows(pred, stored_predictions)


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, OutputError), (errno.EIO, OSError)])
def test_a_full_disk_ends_a_run_and_what_may_pass_does_not(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: type[Exception]
) -> None:
    """Every other block would meet a full disk as well; what is tried again is an `OSError`."""
    run = start(tmp_path / "pred")

    def fails(*rest: Any, **named: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(commits, "create_bytes", fails)
    with pytest.raises(raised, match=os.strerror(number)):
        blocks.score_block(str(tmp_path / "pred"), run.run_id, 0)
    assert len(run.todo()) == len(run.blocks())


def test_a_block_may_run_twice(start: Any, bundle: Any, tmp_path: Path) -> None:
    run = start(tmp_path)
    one = blocks.score_block(str(tmp_path), run.run_id, 0)
    part = Part("2024-05-01", run.run_id, 0)
    content = [part.path(tmp_path, table).read_bytes() for table in BLOCK_TABLES]
    asked = len(bundle.asked)
    two = blocks.score_block(str(tmp_path), run.run_id, 0)
    assert len(bundle.asked) == asked, "it is left as it is"
    assert (one.by_code, one.windows) == (two.by_code, two.windows)
    assert one.audio_s > two.audio_s == 0, "its sound is counted where its seconds are, or the speed would be too high"
    part.path(tmp_path, "recordings").unlink()
    blocks.score_block(str(tmp_path), run.run_id, 0)
    assert [part.path(tmp_path, table).read_bytes() for table in BLOCK_TABLES] == content


def test_what_is_known_is_not_planned_again(start: Any, finish: Any, archive: Path, write: Any, pred: Path) -> None:
    write(archive / "2024-05-03/new.wav", b"RIFF")
    run = start(pred)
    assert list(run.plan()["uri"]) == ["2024-05-03/new.wav"]
    finish(run)
    assert verify(pred).problems == []
    assert len(known(pred)) == 9
    assert len(runs(pred)) == 2


def test_the_longest_blocks_are_done_first_within_each_part_of_the_plan(
    start: Any, finish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start(tmp_path / "one", block_s=1.0)
    assert whole.todo()["estimated_s"].is_monotonic_decreasing
    assert sorted(whole.todo()["block"]) == list(whole.blocks()["block"])
    monkeypatch.setattr("emolib.archive.ledger._PLAN_ROWS", 3)
    run = start(tmp_path / "other", block_s=1.0)
    assert set(run.todo()["block"][:3]) == {0, 1, 2}, "a part of the plan is done before the next"
    finish(run)
    assert verify(tmp_path / "other").problems == []


def test_a_plan_learns_how_much_sound_a_file_holds(
    start: Any, finish: Any, archive: Path, write: Any, pred: Path
) -> None:
    """The µ-law calls of two channels have 16,000 bytes a second, and the ones of one channel half as many."""
    measured = byte_rates(pred)
    assert 8000 < measured[".wav"] < 16_000
    for number in range(30):
        write(archive / f"2024-05-04/{number}.wav", 0.1 * np.ones(24_000))
    finish(start(pred))
    write(archive / "2024-05-05/late.wav", 0.1 * np.ones(80_000))
    rates = byte_rates(pred)
    assert rates[".wav"] < measured[".wav"]
    planned = plan(list_recordings(archive), known(pred), block_s=60, byte_rates=rates)
    assert planned["uri"].tolist() == ["2024-05-05/late.wav"]
    assert planned["estimated_s"].tolist() == [(archive / "2024-05-05/late.wav").stat().st_size / rates[".wav"]]


def test_a_run_sweeps_what_it_left_before_it_is_closed(start: Any, finish: Any, tmp_path: Path) -> None:
    run = start(tmp_path)
    with pytest.raises(ValueError, match="blocks left"):
        holding(run.pred, run.close, {})
    folder = tmp_path / "windows" / "date=2024-05-01"
    folder.mkdir(parents=True)
    litter = folder / f".part-{run.run_id}-000000.parquet.12345678.partial"
    litter.write_bytes(b"half")
    finish(run)
    assert not litter.exists()
    assert json.loads((run.folder / "summary.json").read_text())["abandoned"] is False


def test_an_abandoned_run_keeps_what_it_committed(start: Any, finish: Any, tmp_path: Path) -> None:
    run = start(tmp_path)
    blocks.score_block(str(tmp_path), run.run_id, 0)
    holding(run.pred, run.close, {}, abandoned=True)
    assert verify(tmp_path).problems == []
    finish(start(tmp_path))
    assert verify(tmp_path).problems == []
    assert len(read(tmp_path, table="recordings")) == 8


def test_a_run_that_died_before_its_plan_was_stored_is_removed(start: Any, pred: Path) -> None:
    dead = start(pred)
    (dead.folder / "plan.json").unlink()
    assert open_runs(pred) == []
    assert [problem for problem in verify(pred).problems if "died before" in problem]
    assert holding(pred, remove_unstarted, pred) == [dead.run_id]
    assert verify(pred).problems == []


def test_what_is_no_run_is_left_and_named(start: Any, finish: Any, pred: Path) -> None:
    no_days = ["20269999T000000-abcd", "99991231T235959-abcd"]
    for name in ("backup", "20260101T000000-0000.old", "20260101T000000-000g", *no_days):
        (pred / "_runs" / name).mkdir(parents=True)
        (pred / "_runs" / name / "kept.txt").write_text("mine")
    (pred / "_runs" / "20260101T000000-0001").write_text("a file")
    (pred / "_runs" / "notes.txt").write_text("mine")
    before = len(runs(pred))
    finish(start(pred))
    assert holding(pred, remove_unstarted, pred) == []
    assert strays(pred) == ["20260101T000000-0000.old", "20260101T000000-000g", *no_days, "backup", "notes.txt"]
    assert len(list((pred / "_runs").glob("*/kept.txt"))) == 5
    assert len(runs(pred)) == before + 1
    assert verify(pred).problems == []


def _config(bundle: Any, *, archive: Any = "archive", **settings: Any) -> Any:
    return run_config(bundle, model="model", archive=archive, scoring=ScoringConfig(**settings))


def test_predictions_of_another_kind_are_refused(start: Any, bundle: Any, archive: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    check_out(pred, _config(bundle, archive=archive))
    start(pred)
    check_out(pred, _config(bundle, archive=archive, hop_s=2.0))  # what the model does anyway
    with pytest.raises(SettingsError, match=r"windows.hop_s is 2.0, expected 4.0; give another --out"):
        check_out(pred, _config(bundle, archive=archive, hop_s=4.0))
    with pytest.raises(SettingsError, match="model_id is fake, expected other"):
        check_out(pred, _config(type(bundle)(model_id="other"), archive=archive))
    with pytest.raises(SettingsError, match="labels is emotion2, expected emotion3"):
        check_out(pred, _config(type(bundle)("emotion3"), archive=archive))
    with pytest.raises(SettingsError, match="predictions of the archive"):
        check_out(pred, _config(bundle, archive=tmp_path / "elsewhere"))


def test_a_folder_of_something_else_is_refused(bundle: Any, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_out(tmp_path / "empty", _config(bundle))
    with pytest.raises(SettingsError, match=r"2024-05-01 found.*another --out"):
        check_out(archive, _config(bundle))
    with pytest.raises(SettingsError, match="is no folder"):
        check_out(archive / "2024-05-03/text.wav", _config(bundle))


def test_settings_that_contradict_themselves_stop_before_any_work(bundle: Any) -> None:
    with pytest.raises(SettingsError, match="0=agent,1=customer"):
        _config(bundle, roles=("customer",))
    with pytest.raises(SettingsError, match="hop"):
        _config(bundle, hop_s=1.0)


def test_the_fingerprint_is_of_what_changes_numbers(bundle: Any) -> None:
    stereo = {0: "agent", 1: "customer"}
    plain = scoring_fingerprint(bundle, ScoringConfig(channels=stereo))
    same = ScoringConfig(channels={1: "customer", 0: "agent"}, roles=("customer",), hop_s=2.0)
    assert scoring_fingerprint(bundle, same) == plain
    others = [{}, {"channels": stereo, "roles": ("agent",)}, {"channels": stereo, "hop_s": 1.6}]
    others.append({"channels": stereo, "headerless": {".ul": {"encoding": "ulaw"}}})
    assert len({plain, *(scoring_fingerprint(bundle, ScoringConfig(**other)) for other in others)}) == 5


def test_an_unknown_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected the settings of run"):
        Run.open(tmp_path, "20240501T230000-3f2a")


def test_a_part_that_is_damaged_is_named_with_what_to_do(pred: Path) -> None:
    part = committed(pred)[0]
    place = Path(part.path(pred, "recordings"))
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(EmolibError, match=f"{place.name}.*emolib verify.*remove all parts of their block"):
        known(pred)
