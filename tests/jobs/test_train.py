"""Judging and training: the figures say how they came about, the card tells them on, a killed training goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emolib.learning.bundle import CHECKPOINT, ModelBundle
from tests.jobs.conftest import command, run_emolib, struck

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("training")]


@pytest.fixture(scope="module")
def varied(corpus: Path, cluster: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with copies to learn from and copies to judge by."""
    place = tmp_path_factory.mktemp("varied") / "S.zarr"
    ended = run_emolib("extract", corpus, "--store", place, "--variants", "telephone1,noise10", *cluster)
    assert ended.exit_code == 0
    return place


@pytest.fixture(scope="module")
def evaluation(varied: Path) -> Path:
    place = varied.parent / "evaluation"
    asked = ("--task", "emotion3", "--protocol", "grouped", "--architecture", "article", "--epochs", "2")
    assert run_emolib("evaluate", varied, *asked, "--out", place).exit_code == 0
    return place


def test_every_figure_can_be_computed_from_what_is_saved(evaluation: Path, varied: Path) -> None:
    report = json.loads((evaluation / "evaluation.json").read_text())
    rows = pd.read_parquet(evaluation / "predictions.parquet")
    assert set(rows["variant"]) == {"clean", "noise10"}
    assert not rows.duplicated(["utterance_id", "variant"]).any()
    clean = rows[rows["variant"] == "clean"]
    assert report["pooled"]["accuracy"] == pytest.approx((clean["true"] == clean["predicted"]).mean())
    assert report["baseline"]["accuracy"] == pytest.approx((clean["true"] == clean["baseline"]).mean())
    assert set(report["variants"]) == {"clean", "noise10"}
    assert (report["corpora"], report["copies"]) == (["corpus"], ["telephone1"])
    low, high = report["pooled"]["intervals"]["uar"]
    assert low <= report["pooled"]["uar"] <= high
    tested = {fold["name"]: set() for fold in report["folds"]}
    for fold, part in clean.groupby("fold"):
        tested[str(fold)] = set(part["corpus"] + "/" + part["speaker"])
    for fold in report["folds"]:
        assert not tested[fold["name"]] & set(fold["validation_speakers"])
    shares = clean[[f"p_{name}" for name in report["classes"]]].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    assert {file.name for file in evaluation.iterdir()} == {
        "evaluation.json",
        "predictions.parquet",
        "confusion.svg",
        "reliability.svg",
    }


def test_the_card_tells_what_was_found(varied: Path, evaluation: Path, tmp_path: Path) -> None:
    asked = ("--task", "emotion3", "--architecture", "article", "--epochs", "2", "--precision", "0.05")
    ended = run_emolib("train", varied, *asked, "--model", tmp_path / "M", "--evaluations", evaluation)
    assert ended.exit_code == 0
    card = json.loads((tmp_path / "M" / "card.json").read_text())
    bundle = ModelBundle.load(tmp_path / "M")
    assert card["model_id"] == bundle.model_id == ended.summary["model_id"]
    assert card["abstention_threshold"] == bundle.abstention_threshold == ended.summary["abstention_threshold"]
    assert [entry["epoch"] for entry in card["history"]] == [1, 2]
    assert card["evaluations"][0]["protocol"] == "grouped"
    page = (tmp_path / "M" / "card.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"<script|<link|src=|@import", page)
    for part in ("Article 5(1)(f)", bundle.model_id, "noise10", *bundle.training["validation_speakers"]):
        assert part in page


def test_a_card_with_the_figures_of_something_else_is_refused(varied: Path, evaluation: Path, tmp_path: Path) -> None:
    asked = ("--task", "emotion3", "--model", tmp_path / "M")
    ended = run_emolib("train", varied, *asked, "--evaluations", evaluation)
    assert ended.exit_code == 2
    assert "architecture is article, expected default" in ended.summary["error"]
    ended = run_emolib("train", varied, *asked, "--architecture", "article", "--evaluations", evaluation)
    assert ended.exit_code == 2
    assert "epochs is 2, expected None" in ended.summary["error"]
    report = json.loads((evaluation / "evaluation.json").read_text())
    (tmp_path / "evaluation.json").write_text(json.dumps({**report, "recipe": "0123456789abcdef"}))
    same = ("--architecture", "article", "--epochs", "2")
    ended = run_emolib("train", varied, *asked, *same, "--evaluations", tmp_path)
    assert ended.exit_code == 2
    assert "recipe is 0123456789abcdef, expected" in ended.summary["error"]
    (tmp_path / "evaluation.json").unlink()
    ended = run_emolib("train", varied, *asked, "--evaluations", tmp_path)
    assert ended.exit_code == 2
    assert "evaluation.json not found" in ended.summary["error"]
    assert not (tmp_path / "M").exists()


def test_a_killed_training_goes_on_with_the_same_command(varied: Path, tmp_path: Path) -> None:
    asked = ("train", varied, "--task", "emotion3", "--epochs", "12", "--model")
    ended = struck(*asked, tmp_path / "M", after="emolib.learning.checkpoint:Checkpoint.keep", times=2)
    assert ended == -signal.SIGKILL
    assert not (tmp_path / "M" / "bundle.json").exists()
    again = subprocess.run(command(*asked, tmp_path / "M"), capture_output=True, text=True, check=True)
    assert "goes on after epoch 2, where it was interrupted" in again.stderr
    whole = subprocess.run(command(*asked, tmp_path / "N"), capture_output=True, text=True, check=True)
    first, second = (json.loads(each.stdout.splitlines()[-1]) for each in (again, whole))
    assert first["model_id"] == second["model_id"]
    assert not (tmp_path / "M" / CHECKPOINT).exists()
