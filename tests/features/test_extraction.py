"""Extraction at library level: the plan is fixed by headers, and what decodes otherwise is marked."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from botocore.exceptions import NoCredentialsError

from emolib.config import ARTICLE, TELEPHONE
from emolib.errors import Code, OutputError
from emolib.features.extraction import extract_shard, plan_windows, probe_clips
from emolib.features.store import FeatureStore
from emolib.isolation import Attempt, Verdict
from emolib.storage import resolve


def utterances(folder: Path, seconds: dict[str, float]) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    for name, duration_s in seconds.items():
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(round(16_000 * duration_s)), 16_000)
    return pd.DataFrame(
        {
            "utterance_id": [f"c/{name}" for name in seconds],
            "corpus": "c",
            "speaker": "s",
            "gender": None,
            "emotion": "sad",
            "uri": [str(folder / f"{name}.wav") for name in seconds],
            "code": "ok",
        }
    )


def test_rows_are_a_seeded_shuffle_with_windows_together(tmp_path: Path) -> None:
    listed = utterances(tmp_path, {f"{number:02d}": 1 + number % 7 for number in range(30)})
    probes = probe_clips(list(listed["uri"]))
    planned = plan_windows(listed, probes, profile=TELEPHONE, seed=1)
    pd.testing.assert_frame_equal(planned, plan_windows(listed, probes, profile=TELEPHONE, seed=1))
    order = planned["utterance_id"].drop_duplicates().tolist()
    assert order != sorted(order)
    assert sorted(order) == listed["utterance_id"].tolist()
    for _, rows in planned.groupby("utterance_id"):
        assert (np.diff(rows.index) == 1).all()
        assert rows["window"].tolist() == list(range(len(rows)))


def test_clips_that_are_too_short_or_outliers_have_one_row_that_says_so(tmp_path: Path) -> None:
    listed = utterances(tmp_path, {"short": 0.3, "good": 2.0, "long": 7.5})
    probes = probe_clips(list(listed["uri"]))
    codes = plan_windows(listed, probes, profile=ARTICLE).set_index("utterance_id")["code"].to_dict()
    assert codes == {"c/short": "too_short", "c/good": "ok", "c/long": "length_outlier"}
    assert plan_windows(listed, probes, profile=TELEPHONE)["code"].tolist().count("ok") == 1 + 3


def test_what_decodes_shorter_than_planned_is_marked(tmp_path: Path) -> None:
    listed = utterances(tmp_path, {"cut": 9.0, "gone": 2.0, "good": 2.0})
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE)
    store = FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=planned)
    utterances(tmp_path, {"cut": 5.0})
    (tmp_path / "gone.wav").unlink()
    result = extract_shard(str(store.path), 0)
    assert result.rows == {"ok": 3, "too_short": 2, "missing": 1}
    assert len(result.notes) == 2
    codes = store.utterance_codes().to_dict()
    assert codes == {"c/cut": "ok", "c/gone": "missing", "c/good": "ok"}
    features, valid_frames = store.read(0, len(planned))
    without = planned["utterance_id"].eq("c/gone") | (planned["utterance_id"].eq("c/cut") & planned["window"].ge(2))
    assert not features[without.to_numpy()].any()
    assert ((valid_frames == 0) == without).all()


def test_filling_a_shard_twice_changes_nothing(tmp_path: Path) -> None:
    listed = utterances(tmp_path, {"a": 5.0, "b": 3.0})
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE)
    store = FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=planned)
    extract_shard(str(store.path), 0)
    once = store.read(0, len(planned))[0]
    extract_shard(str(store.path), 0)
    np.testing.assert_array_equal(once, store.read(0, len(planned))[0])


def test_every_copy_has_its_rows_together_and_is_what_its_name_says(tmp_path: Path) -> None:
    listed = utterances(tmp_path, {"a": 3.0, "b": 5.0, "short": 0.42}).assign(gender="female")
    variants = ("ulaw", "telephone1", "telephone2")
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE, variants=variants, seed=1)
    for _, rows in planned.groupby(["utterance_id", "variant"]):
        assert (np.diff(rows.index) == 1).all()
    assert (planned.groupby("utterance_id")["variant"].unique().map(set) == {"clean", *variants}).all()
    assert planned["variant"].iloc[:4].nunique() < 4, "copies lie beside one another"
    seconds = planned[planned["utterance_id"] == "c/a"].set_index("variant")["end_s"]
    np.testing.assert_allclose(seconds, 3.0, atol=1e-3)

    store = FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=planned, shard_windows=32)
    result = extract_shard(str(store.path), 0)
    assert (result.rows, result.notes) == ({"ok": len(planned)}, ())
    features, valid_frames = store.read(0, len(planned))
    of_a = (planned["utterance_id"] == "c/a").to_numpy()
    frames = dict(zip(planned["variant"][of_a], valid_frames[of_a], strict=False))
    assert len(set(frames.values())) == 1
    copies = dict(zip(planned["variant"][of_a], features[of_a], strict=False))
    for one, other in itertools.combinations(copies, 2):
        assert np.abs(copies[one] - copies[other]).max() > 1.0, f"{one} and {other} are the same"
    alone = FeatureStore.create(
        tmp_path / "T.zarr",
        profile=TELEPHONE,
        windows=planned[planned["variant"].isin(["telephone1", "clean"])],
        shard_windows=32,
    )
    extract_shard(str(alone.path), 0)
    both = planned["variant"].isin(["telephone1", "clean"]).to_numpy()
    np.testing.assert_array_equal(alone.read(0, int(both.sum()))[0], features[both])


def test_the_content_hash_is_of_the_bytes(tmp_path: Path) -> None:
    utterances(tmp_path, {"a": 1.0})
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    first, second = probe_clips([str(tmp_path / "a.wav"), str(tmp_path / "b.wav")])
    assert first.content_hash == second.content_hash
    (missing,) = probe_clips([str(tmp_path / "none.wav")])
    assert (missing.code, missing.content_hash) == (Code.MISSING, None)


def test_what_may_pass_is_filled_again_and_nothing_else_is(tmp_path: Path) -> None:
    """What is filled is kept, and what the plan says of a clip stays."""
    listed = utterances(tmp_path, {"early": 2.0, "gone": 2.0, "good": 2.0})
    (tmp_path / "early.wav").rename(tmp_path / "kept")
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE)
    store = FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=planned)
    (tmp_path / "gone.wav").rename(tmp_path / "late")
    assert extract_shard(store.path, 0).rows == {"missing": 2, "ok": 1}
    before = store.read(0, 3)[0]
    (tmp_path / "kept").rename(tmp_path / "early.wav")
    (tmp_path / "late").rename(tmp_path / "gone.wav")
    (tmp_path / "good.wav").unlink()
    again = extract_shard(store.path, 0)
    assert (again.rows, again.audio_s) == ({"missing": 1, "ok": 2}, 2.0)
    assert store.utterance_codes().to_dict() == {"c/early": "missing", "c/gone": "ok", "c/good": "ok"}
    after, valid_frames = store.read(0, 3)
    good = (planned["utterance_id"] == "c/good").to_numpy()
    np.testing.assert_array_equal(after[good], before[good])
    np.testing.assert_array_equal(valid_frames > 0, after.any(axis=(1, 2)))


def test_a_verdict_is_for_all_copies_and_who_is_tried_alone_has_no_rows(tmp_path: Path) -> None:
    listed = utterances(tmp_path, {"a": 2.0, "b": 2.0})
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE, variants=("ulaw",))
    store = FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=planned)
    assert extract_shard(store.path, 0, attempt=Attempt({}, alone="c/a")).audio_s == 4.0
    assert not store.status().any()
    result = extract_shard(store.path, 0, attempt=Attempt({"c/a": Verdict(Code.KILLED, "its process died")}))
    assert (result.rows, result.notes) == ({"killed": 2, "ok": 2}, ("c/a: killed: its process died",))
    killed = (planned["utterance_id"] == "c/a").to_numpy()
    np.testing.assert_array_equal(store.status() == Code.KILLED.status, killed)
    np.testing.assert_array_equal(store.read(0, 4)[0].any(axis=(1, 2)), ~killed)


def test_clips_are_not_to_blame_where_nobody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: Any, **named: Any) -> Any:
        raise NoCredentialsError

    place = "memory://corpus/a.wav"
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.setattr(type(resolve(place)), "open", refuses)
    with pytest.raises(OutputError, match="credentials"):
        probe_clips([place])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), NoCredentialsError()])
def test_a_shard_that_nothing_more_can_be_written_to_stops_the_run(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*arguments: Any, **named: Any) -> None:
        raise error

    listed = utterances(tmp_path, {"a": 2.0})
    planned = plan_windows(listed, probe_clips(list(listed["uri"])), profile=TELEPHONE)
    store = FeatureStore.create(tmp_path / "S.zarr", profile=TELEPHONE, windows=planned)
    monkeypatch.setattr(FeatureStore, "write_shard", refuses)
    with pytest.raises(OutputError, match="then run the same command again"):
        extract_shard(store.path, 0)
