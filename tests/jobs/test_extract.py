"""Extraction: every utterance has an outcome, a killed run is continued, and other engines read the store."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray

from emolib.features import store as stores
from emolib.features.store import FeatureStore
from tests.faults.broken import BYTES, second, write_broken
from tests.jobs.conftest import run_emolib, struck

# The codes that are right for clips that are broken in some ways; no speech is asked of them.
_CODES = {way: code for way, (_, code) in BYTES.items()} | {"silent": "ok"}


@dataclass(frozen=True)
class World:
    """Corpora with good and bad clips, the code of each utterance, and a store that was filled from them at once."""

    corpora: tuple[Path, Path]
    codes: dict[str, str]
    store: Path
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def world(cluster: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("law 4")
    mine, savee = root / "mine", root / "savee"
    mine.mkdir()
    codes = {f"good-{number}.wav": "ok" for number in range(280)}  # more than a shard, and than a block of probes
    for number in range(280):
        (mine / f"good-{number}.wav").write_bytes(second(number))
    for way, code in _CODES.items():
        write_broken(mine, way, 0)
        codes[f"{way}-0.wav"] = code
    codes["gone.wav"] = "missing"
    lines = [f"{name},{number % 5},{('anger', 'joy')[number % 2]}" for number, name in enumerate(codes)]
    (mine / "corpus.csv").write_text("\n".join(["path,speaker,emotion", *lines]))
    whole = {f"mine/{name}": code for name, code in codes.items()}
    # A name twice: a copy, and a file that is broken; and one content under two names.
    for name, number in {"a/DC_a01": 1, "b/DC_a01": 1, "a/DC_a02": 2, "a/DC_a03": 2, "a/JE_h01": 3}.items():
        (savee / name).parent.mkdir(parents=True, exist_ok=True)
        (savee / f"{name}.wav").write_bytes(second(number))
    (savee / "b/JE_h01.wav").write_bytes(b"")
    whole |= {f"savee/{name}": "ok" for name in ("DC_a01", "DC_a02", "DC_a03", "JE_h01")}
    whole |= {f"savee/{name}#2": "duplicate" for name in ("DC_a01", "JE_h01")}
    corpora = (mine, savee)
    ended = run_emolib("extract", *corpora, "--store", root / "S.zarr", *cluster)
    assert ended.exit_code == 0  # less than a twentieth failed
    return World(corpora, whole, root / "S.zarr", ended.summary)


def _assert_outcomes(store: Path, codes: dict[str, str]) -> None:
    """Every utterance is there once, with its windows in their order and its code; no row is pending."""
    opened = FeatureStore.open(store)
    assert opened.complete
    assert stores.verify(opened) == []
    found = opened.utterance_codes()
    assert found.index.is_unique
    assert found.to_dict() == codes
    for name, rows in opened.windows.groupby("utterance_id"):
        assert rows["window"].tolist() == list(range(len(rows))), name


def test_every_utterance_has_exactly_one_outcome(world: World) -> None:
    _assert_outcomes(world.store, world.codes)
    assert world.summary["utterances"] == len(world.codes)
    assert world.summary["codes"] == dict(sorted(Counter(world.codes.values()).items()))
    verified = run_emolib("verify", world.store)
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
def test_a_killed_run_is_continued(world: World, cluster: tuple[str, str], tmp_path: Path, moment: str) -> None:
    """Whatever the run was doing when it died, --resume gives the store of a run that nobody disturbed."""
    arguments = ("extract", *world.corpora, "--store", tmp_path / "S.zarr", "--resume", "--failure-budget", "1")
    assert struck(*arguments, *cluster, after=moment) == -signal.SIGKILL
    assert run_emolib(*arguments, *cluster).exit_code == 0
    _assert_outcomes(tmp_path / "S.zarr", world.codes)
    found, whole = FeatureStore.open(tmp_path / "S.zarr"), FeatureStore.open(world.store)
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
