"""Ten thousand recordings, a tenth of them broken in twenty ways: ten thousand outcomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from emolib import archive
from emolib.archive.blocks import score_block
from emolib.archive.ledger import Run, known
from emolib.archive.lock import Lock
from emolib.archive.planning import plan
from emolib.archive.run_settings import run_config
from emolib.archive.verification import verify
from emolib.config import ScoringConfig
from emolib.learning.bundle import ModelBundle
from emolib.sound.manifest import list_recordings
from tests.faults.broken import WAYS, second, write_broken
from tests.jobs.conftest import run_emolib


def _write(folder: Path, good: int, broken_of_each: int) -> None:
    for number in range(good):
        place = folder / f"2024-05-{1 + number % 10:02d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"good-{number}.wav").write_bytes(second(number))
    for number in range(broken_of_each):
        for way in WAYS:
            write_broken(folder / f"2024-05-{1 + number % 10:02d}", way, number)


def _assert_outcomes(pred: Path, good: int, broken_of_each: int) -> None:
    rows = archive.read(pred, table="recordings")
    assert len(rows) == good + broken_of_each * len(WAYS)
    assert rows["recording_id"].is_unique
    assert rows["uri"].is_unique
    rows["way"] = rows["uri"].str.extract(r"/(.+?)-\d")[0]
    assert rows["way"].value_counts().to_dict() == {"good": good, **dict.fromkeys(WAYS, broken_of_each)}
    codes = rows.groupby("way")["code"].agg(lambda found: sorted(set(found)))
    assert codes.to_dict() == {way: [code] for way, code in {"good": "ok", **WAYS}.items()}
    bad = rows[rows["outcome"] != "scored"]
    assert bad["message"].str.fullmatch(r".{10,300}").all()
    assert not verify(pred).problems
    print(f"{len(rows)} recordings: {rows['code'].value_counts().to_dict()}")


def test_twenty_ways_to_be_broken(model: Path, tmp_path: Path) -> None:
    _write(tmp_path / "calls", 20, 1)
    bundle = ModelBundle.load(model)
    config = run_config(bundle, model=model, archive=tmp_path / "calls", scoring=ScoringConfig())
    planned = plan(list_recordings(tmp_path / "calls"), known(tmp_path / "P"), block_s=3600)
    run = Run.create(tmp_path / "P", config=config, plan=[planned])
    for block in run.todo()["block"]:
        score_block(str(run.pred), run.run_id, block)
    with Lock(run.pred) as lock:
        run.close({}, lock=lock)
    _assert_outcomes(tmp_path / "P", 20, 1)


@pytest.mark.fault
@pytest.mark.timeout(3600)
def test_ten_thousand_recordings(model: Path, tmp_path: Path) -> None:
    assert len(WAYS) == 20
    _write(tmp_path / "calls", 9000, 50)
    common = ("score", tmp_path / "calls", "--model", model, "--out", tmp_path / "P", "--workers", "2")
    ended = run_emolib(*common, "--failure-budget", "0.1")
    assert (ended.exit_code, ended.summary["recordings"]) == (0, 10_000)
    assert sum(ended.summary["codes"].values()) == 10_000
    _assert_outcomes(tmp_path / "P", 9000, 50)
