"""What was begun by an emolib that decodes otherwise: one rule for predictions, open runs and feature stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import jobs.extract
from emolib.archive import run_settings
from emolib.features import store as feature_store
from tests.jobs.conftest import assert_same_rows, run_emolib


@pytest.mark.slow
def test_rows_of_another_decoding_are_made_anew_or_refused(
    calls: Path,
    model: Path,
    undisturbed: Path,
    cluster: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pred = tmp_path / "P"
    asked = ("score", calls, "--model", model, "--out", pred, "--failure-budget", "1", *cluster)
    with monkeypatch.context() as before:
        before.setattr(run_settings, "DECODING_VERSION", 1)
        first = run_emolib(*asked)
        assert first.exit_code == 0
        assert run_emolib(*asked).summary["recordings"] == 0
    refused = run_emolib(*asked)
    assert refused.exit_code == 2
    assert "decoding_version is 1, expected 2" in refused.summary["error"]
    assert "--rescore" in refused.summary["error"]
    # The same of a run that was interrupted: its plan is not gone on with either.
    (run,) = (pred / "_runs").iterdir()
    (run / "summary.json").unlink()
    for part in pred.rglob(f"part-{run.name}-*0.parquet"):
        part.unlink()
    assert run_emolib(*asked).exit_code == 2
    again = run_emolib(*asked, "--rescore")
    assert (again.exit_code, again.summary["recordings"]) == (0, first.summary["recordings"])
    assert json.loads((run / "summary.json").read_text())["abandoned"]
    assert run_emolib("verify", pred).exit_code == 0
    assert_same_rows(pred, undisturbed)


def test_an_unfinished_store_of_another_decoding_is_extracted_anew(
    corpus: Path, store: Path, cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("extract", corpus, "--store", tmp_path / "S.zarr", "--resume", *cluster)
    assert feature_store.FeatureStore.open(store).decoding_version == 2
    with monkeypatch.context() as before:
        before.setattr(feature_store, "DECODING_VERSION", 1)
        before.setattr(jobs.extract, "DECODING_VERSION", 1)
        assert run_emolib(*asked).exit_code == 0
    assert run_emolib(*asked).exit_code == 0  # a finished one stays good
    attributes = tmp_path / "S.zarr/zarr.json"
    reopened = attributes.read_text().replace('"complete": true', '"complete": false')
    attributes.write_text(reopened)
    assert run_emolib(*asked).exit_code == 0  # nor is one that was killed when it tried rows again
    assert feature_store.FeatureStore.open(tmp_path / "S.zarr").complete
    attributes.write_text(reopened)
    (tmp_path / "S.zarr/status/c/0").unlink()
    refused = run_emolib(*asked)
    assert refused.exit_code == 2
    assert "begun with decoding version 1, expected 2" in refused.summary["error"]
