"""A candidate listens in for a night, and takes over."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from emolib import archive
from emolib.learning.bundle import ModelBundle, _Manifest
from tests.jobs.conftest import assert_same_rows, run_emolib


@pytest.mark.slow
@pytest.mark.usefixtures("training")  # one that nobody trained is as sure as its candidate
def test_a_candidate_listens_in_and_takes_over(
    calls: Path, model: Path, candidate: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    growing = shutil.copytree(calls, tmp_path / "archive")
    late = sorted(growing.rglob("*.wav"))[:2]
    for path in late:
        path.rename(tmp_path / path.name)
    pred, old, new = tmp_path / "P", ModelBundle.load(model).model_id, ModelBundle.load(candidate).model_id
    asked = ("nightly", growing, "--model", model, "--out", pred, "--settle-s", "0", "--failure-budget", "1", *cluster)
    shadowed = (*asked, "--shadow", candidate, "--shadow-share", "1")
    metrics = tmp_path / "measures.prom"
    first = run_emolib(*shadowed, "--report", tmp_path / "nights", "--metrics", metrics)
    assert first.exit_code == 0
    heard = first.summary["shadow"]
    windows = archive.read(pred, table="windows")
    assert (heard["model_id"], heard["other"], heard["windows"]) == (new, old, len(windows))
    assert 0 < heard["agreement"] < 1  # it abstains where the other does not
    assert f'emolib_night_shadow_agreement{{model_id="{new}"}}' in metrics.read_text()
    assert f"Model {new} heard" in next((tmp_path / "nights").rglob("index.html")).read_text()

    looked = run_emolib("promote", pred, "--model", candidate, "--plan")
    assert looked.summary["agreement"] == heard
    assert not (pred / "_promotions.json").exists()
    assert run_emolib("promote", pred, "--model", model).exit_code == 2, "it is in force"
    assert run_emolib("promote", pred, "--model", candidate).summary["replaced"] == old
    (trace,) = json.loads((pred / "_promotions.json").read_text())["promotions"]
    assert (trace["replaced"], trace["model_id"], trace["agreement"]) == (old, new, heard)
    moved = candidate.rename(tmp_path / "moved")
    lost = run_emolib(*asked)
    assert (lost.exit_code, "which was promoted in" in lost.summary["error"]) == (2, True)
    assert run_emolib("promote", pred, "--model", moved).exit_code == 0, "from where it lies"
    moved.rename(candidate)
    assert run_emolib("promote", pred, "--model", candidate).exit_code == 0

    for path in late:
        (tmp_path / path.name).rename(path)
        os.utime(path, (time.time() - 86_400,) * 2)
    second = run_emolib(*shadowed)
    assert (second.exit_code, second.summary["recordings"], second.summary["shadow"]) == (0, 2, None)
    assert second.summary["scored_otherwise"] == first.summary["recordings"]
    rows = archive.read(pred, table="recordings").set_index("uri")["model_id"]
    names = {path.relative_to(growing).as_posix() for path in late}
    assert {name for name in rows.index if rows[name] == new} == names
    assert run_emolib("verify", pred).exit_code == 0
    assert run_emolib("report", pred, "--out", tmp_path / "page").exit_code == 0

    back = run_emolib("promote", pred, "--model", model)
    assert (back.exit_code, back.summary["replaced"]) == (0, new)
    assert run_emolib(*asked).summary["recordings"] == 0
    assert len(json.loads((pred / "_promotions.json").read_text())["promotions"]) == 4
    (pred / "_promotions.json").write_text("{")
    assert (run_emolib(*asked).exit_code, run_emolib("verify", pred).exit_code) == (2, 6)
    shutil.rmtree(pred / "_shadow")
    (pred / "_promotions.json").unlink()
    assert run_emolib("verify", pred).exit_code == 0  # nothing that counts depends on them


def test_rows_without_a_candidate_are_those_with_one(
    calls: Path, model: Path, candidate: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    asked = ("score", calls, "--model", model, "--out", tmp_path / "P", "--failure-budget", "1", *cluster)
    assert run_emolib(*asked, "--shadow", candidate, "--shadow-share", "0.5").exit_code == 0
    assert_same_rows(tmp_path / "P", undisturbed)


def test_what_cannot_take_over_is_refused(
    undisturbed: Path, calls: Path, model: Path, store: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    stored = json.loads((shutil.copytree(model, other) / "bundle.json").read_text())
    stored["labels"]["name"] = "ours"
    stored["model_id"] = _Manifest(**stored).identity()
    (other / "bundle.json").write_text(json.dumps(stored))
    refused = run_emolib("promote", undisturbed, "--model", other)
    assert refused.exit_code == 2
    assert "labels" in refused.summary["error"]
    assert "can't take over" in refused.summary["error"]
    score = ("score", calls, "--model", model, "--out", tmp_path / "P", "--shadow", other)
    assert "can't listen in" in run_emolib(*score).summary["error"]
    assert run_emolib("promote", tmp_path, "--model", model).exit_code == 2


@pytest.mark.slow
def test_rows_of_before_are_made_anew_where_that_is_asked_for(
    calls: Path, model: Path, candidate: Path, undisturbed: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    pred = shutil.copytree(undisturbed, tmp_path / "P")
    new, listed = ModelBundle.load(candidate).model_id, len(archive.read(pred, table="recordings"))
    asked = ("score", calls, "--model", model, "--out", pred, "--failure-budget", "1", *cluster)
    other = run_emolib(*asked, "--min-speech-s", "0.9")
    assert (other.exit_code, "--rescore" in other.summary["error"]) == (2, True)
    unpromoted = run_emolib(*asked[:2], "--model", candidate, *asked[4:], "--rescore")
    assert (unpromoted.exit_code, "emolib promote" in unpromoted.summary["error"]) == (2, True)
    assert run_emolib("promote", pred, "--model", candidate).summary["agreement"] is None
    assert run_emolib(*asked).summary["recordings"] == 0
    assert run_emolib(*asked, "--rescore", "--plan").summary["scored_again"] == listed
    assert run_emolib(*asked, "--rescore").summary["recordings"] == listed
    for table in ("recordings", "windows", "calls"):
        assert set(archive.read(pred, table=table)["model_id"]) == {new}
    assert run_emolib("verify", pred).exit_code == 0
    again = (*asked, "--min-speech-s", "0.9", "--rescore")
    assert [run_emolib(*again).summary["recordings"] for _ in range(2)] == [listed, 0]
    assert run_emolib("verify", pred).exit_code == 0
