"""Sound that aborts, hangs or surprises whoever reads it, or is read at the third try: it costs no other its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolib.archive.duplicates import hash_files
from emolib.features.store import FeatureStore
from emolib.isolation import isolated
from emolib.sound.manifest import version_of
from tests.jobs.conftest import Ended, run_emolib

# What Python runs first in every process whose path has it: some files do to their reader what their name says, those
# of `probed` when they are looked at, those of `read` when they are decoded, those of `hashed` when they are hashed.
_INJECTED = """
import errno, os, time
from pathlib import Path
from emolib.sound import audio, source

stream, opened = audio.stream, source.opened

def injected(place, **named):
    path = Path(str(place))
    when, _, what = path.stem.partition("-")
    if when == ("read" if named.get("sampling_rate") else "probed"):
        strike(path, what)
    return stream(place, **named)

def injected_opened(place):
    when, _, what = place.stem.partition("-")
    if when == "hashed":
        strike(Path(place), what)
    return opened(place)

def strike(path, what):
    seen = path.with_suffix(".seen")
    with seen.open("a") as file:
        file.write(".")
    if what == "abort":
        os.abort()
    if what == "sleep":
        time.sleep(10_000)
    if what == "surprise":
        raise KeyError("nobody thought of this")
    if what == "flaky" and len(seen.read_text()) <= 2 or what == "later" and path.with_suffix(".broken").exists():
        error = OSError(errno.EIO, "the disk said no")
        raise source.unreadable("flaky", error) from error

audio.stream, source.opened = injected, injected_opened
"""
_POISONS = ["abort", "flaky", "sleep", "surprise"]
_CODES = {"abort": "killed", "flaky": "ok", "sleep": "timeout", "surprise": "internal"}


@pytest.fixture
def injected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "injected").mkdir()
    (tmp_path / "injected/sitecustomize.py").write_text(_INJECTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "injected"), prepend=":")


def _corpus(folder: Path, *names: str) -> Path:
    """A second of noise for each name, and for eight others."""
    folder.mkdir()
    rng, names = np.random.default_rng(5), (*(f"good-{number}" for number in range(8)), *names)
    for name in names:
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(16_000), 16_000)
    clips = pd.DataFrame({"path": [f"{name}.wav" for name in names], "speaker": "s", "emotion": "sad"})
    clips.assign(utterance_id=names).to_csv(folder / "corpus.csv", index=False)
    return folder


def _extract(corpus: Path, store: Path, *more: str) -> Ended:
    asked = ("extract", corpus, "--store", store, "--workers", "1", "--failure-budget", "1", *more)
    return run_emolib(*asked)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["probed", "read"])
def test_a_clip_costs_no_other_its_features(
    when: str, cluster: tuple[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    corpus = _corpus(tmp_path / "corpus", *(f"{when}-{name}" for name in _POISONS))
    copies = ("--variants", "ulaw") if when == "read" else ()  # which only clips have that can be looked at
    assert run_emolib("extract", corpus, "--store", tmp_path / "T.zarr", *cluster, *copies).exit_code == 0
    request.getfixturevalue("injected")
    ended = _extract(corpus, tmp_path / "S.zarr", "--recording-s", "15", *copies)
    assert (ended.exit_code, ended.summary["utterances"]) == (0, 12)
    found, expected = FeatureStore.open(tmp_path / "S.zarr"), FeatureStore.open(tmp_path / "T.zarr")
    codes = found.utterance_codes()
    assert {name: codes[f"corpus/{when}-{name}"] for name in _POISONS} == _CODES
    rows = found.windows["utterance_id"]
    assert rows.equals(expected.windows["utterance_id"])
    good = ~rows.isin([f"corpus/{when}-{name}" for name in ("abort", "sleep", "surprise")]).to_numpy()
    assert (found.status()[good] == 1).all()
    for ours, theirs in zip(found.read(0, len(rows)), expected.read(0, len(rows)), strict=True):
        np.testing.assert_array_equal(ours[good], theirs[good])
        assert not ours[~good].any()
    assert run_emolib("verify", tmp_path / "S.zarr").exit_code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("injected")
def test_what_may_pass_is_read_again_when_a_store_is_continued(tmp_path: Path) -> None:
    """Also if it is complete; and what has its features keeps them, whether its clip is still there or not."""
    corpus = _corpus(tmp_path / "corpus", "read-later")
    (corpus / "read-later.broken").touch()
    assert _extract(corpus, tmp_path / "S.zarr").summary["codes"] == {"ok": 8, "unreadable": 1}
    before = FeatureStore.open(tmp_path / "S.zarr").read(0, 9)[0]
    (corpus / "read-later.broken").unlink()
    (corpus / "good-3.wav").unlink()
    assert _extract(corpus, tmp_path / "S.zarr", "--resume").summary["codes"] == {"ok": 9}
    store = FeatureStore.open(tmp_path / "S.zarr")
    later = (store.windows["utterance_id"] == "corpus/read-later").to_numpy()
    after = store.read(0, 9)[0]
    np.testing.assert_array_equal(after[~later], before[~later])
    assert after[later].any()
    assert store.complete
    assert run_emolib("verify", tmp_path / "S.zarr").exit_code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("injected")
def test_a_recording_costs_no_other_its_sketch(tmp_path: Path) -> None:
    folder = _corpus(tmp_path / "calls", *(f"read-{name}" for name in ("abort", "flaky", "surprise")))
    (folder / "corpus.csv").unlink()
    ended = run_emolib("known-audio", folder, "--out", tmp_path / "known.npz", "--workers", "1")
    assert ended.summary["codes"] == {"internal": 1, "killed": 1, "ok": 9}


@pytest.mark.slow
@pytest.mark.usefixtures("injected")
def test_a_recording_costs_no_other_its_hash(tmp_path: Path) -> None:
    folder = _corpus(tmp_path / "calls", *(f"hashed-{name}" for name in ("abort", "flaky", "surprise")))
    files = [(place.stem, place.name, version_of(place)[0]) for place in folder.glob("*.wav")]
    found = isolated(hash_files)(str(folder), files)
    assert {name for name, _, _ in files} - set(found) == {"hashed-abort", "hashed-surprise"}
