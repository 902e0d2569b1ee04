"""Extraction: every utterance has an outcome, a killed run is continued, and other engines read the store."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray

from emolib.features.store import FeatureStore
from tests.jobs.conftest import run_emolib, struck


def test_every_utterance_has_an_outcome(corpus: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    clips = pd.read_csv(folder / "corpus.csv")["path"]
    (folder / clips[0]).write_bytes(b"")
    (folder / clips[1]).write_text("<html>not found</html>")
    (folder / clips[2]).unlink()
    ended = run_emolib("extract", folder, "--store", tmp_path / "S.zarr", *cluster)
    assert ended.exit_code == 0
    assert ended.summary["utterances"] == len(clips)
    assert ended.summary["codes"] == {"ok": len(clips) - 3, "empty": 1, "unsupported": 1, "missing": 1}
    verified = run_emolib("verify", tmp_path / "S.zarr")
    assert (verified.exit_code, verified.summary["whole"]) == (0, True)


def test_too_many_failures_end_with_1(corpus: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    for clip in pd.read_csv(folder / "corpus.csv")["path"][:10]:
        (folder / clip).write_bytes(b"")
    ended = run_emolib("extract", folder, "--store", tmp_path / "S.zarr", *cluster)
    assert (ended.exit_code, ended.summary["outcomes"]["failed"]) == (1, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    ["jobs.extract._probe", "emolib.features.store:FeatureStore.create", "jobs.console:AudioProgress.advance"],
    ids=["probed", "laid out", "filling"],
)
def test_a_killed_run_is_continued(
    corpus: Path, store: Path, cluster: tuple[str, str], tmp_path: Path, moment: str
) -> None:
    """Whatever the run was doing when it died, --resume gives the store of a run that nobody disturbed."""
    arguments = ("extract", corpus, "--store", tmp_path / "S.zarr", "--resume")
    assert struck(*arguments, *cluster, after=moment) == -signal.SIGKILL
    assert run_emolib(*arguments, *cluster).exit_code == 0
    found, whole = FeatureStore.open(tmp_path / "S.zarr"), FeatureStore.open(store)
    assert found.complete
    pd.testing.assert_frame_equal(found.windows, whole.windows)
    np.testing.assert_array_equal(found.status(), whole.status())
    for ours, theirs in zip(found.read(0, whole.shape[0]), whole.read(0, whole.shape[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_xarray_opens_the_store(store: Path) -> None:
    opened = xarray.open_zarr(store, consolidated=False)
    assert opened["features"].dims == ("window", "frame", "coefficient")
    assert (opened["status"] == 1).all()
    assert opened.attrs["complete"]


@pytest.mark.slow
def test_the_real_corpora(shared: Path, tmp_path: Path) -> None:
    corpora = [shared / "corpora" / name for name in ("ravdess", "savee", "tess")]
    ended = run_emolib("extract", *corpora, "--store", tmp_path / "S.zarr")
    assert ended.exit_code == 0
    assert (ended.summary["utterances"], ended.summary["codes"]) == (4720, {"ok": 4720})


def test_the_corpora_as_published(shared: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    """Stereo, AIFF and 96 kHz under a .wav name, a byte-identical pair, an odd name: all are read."""
    ended = run_emolib("extract", shared / "corpora" / "original", "--store", tmp_path / "S.zarr", *cluster)
    assert ended.exit_code == 0
    assert ended.summary["codes"] == {"ok": 11}
    windows = FeatureStore.open(tmp_path / "S.zarr").windows.drop_duplicates("utterance_id")
    pair = windows[windows["content_hash"].duplicated(keep=False)]["utterance_id"]
    assert sorted(pair) == ["ravdess/03-01-03-01-02-01-07", "ravdess/03-01-03-01-02-02-07"]
    assert "tess/OA_bite_neutral" in set(windows["utterance_id"])
