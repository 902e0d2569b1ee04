"""A candidate listens in: its rows lie beside the tables, come and go with them, and change none of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from emolib.archive import blocks, read, read_shadow
from emolib.archive.agreement import ABSTAINED, agreement
from emolib.archive.forgetting import bury, forget, forget_before, recordings_of
from emolib.archive.ledger import Run, known, open_runs
from emolib.archive.planning import plan
from emolib.archive.predictions import Part, parts
from emolib.archive.rewriting import make_room
from emolib.archive.run_settings import run_config, shadow_of
from emolib.archive.schemas import TABLES
from emolib.archive.shadow import candidates, place_of
from emolib.archive.verification import verify
from emolib.config import WIDEBAND, ScoringConfig
from emolib.errors import SettingsError
from emolib.sound.manifest import list_recordings
from tests.archive.conftest import FakeBundle, finish_run, holding, killed_before_write
from tests.conftest import sampled

_KEYS = ["recording_id", "channel", "start_s"]


class Candidate(FakeBundle):
    """Another opinion: the fake model's probabilities, in another order."""

    abstention_threshold = None

    def __init__(self, task: str = "emotion2") -> None:
        super().__init__(task, model_id="candidate")

    def predict(self, features: Any, valid_frames: Any, *, batch: int = 64) -> Any:
        return super().predict(features, valid_frames, batch=batch)[:, ::-1]


@pytest.fixture
def begin(bundle: FakeBundle, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Plan a run in which the candidate listens in on a share of the calls."""
    models = {"fake": bundle, "candidate": Candidate()}
    monkeypatch.setattr(blocks, "load_bundle", lambda path, model_id: models[model_id])

    def begins(pred: Path, share: float = 1.0) -> Run:
        shadow = shadow_of(models["candidate"], model="candidate", share=share, bundle=bundle, config=ScoringConfig())
        config = run_config(bundle, model="model", archive=archive, scoring=ScoringConfig(), shadow=shadow)
        listing = list_recordings(archive)
        return Run.create(pred, config=config, plan=[plan(listing, known(pred), block_s=30.0)])

    return begins


def _same_tables(one: Path, other: Path) -> None:
    for table in TABLES:
        rows = [read(pred, table=table).drop(columns=["run_id", "version"], errors="ignore") for pred in (one, other)]
        pd.testing.assert_frame_equal(*rows, check_exact=True)


def _rows(pred: Path) -> pd.DataFrame:
    """Return every row of the candidate, committed or not."""
    files = sorted((place_of(pred, "candidate") / "windows").rglob("*.parquet"))
    return pd.concat([pq.ParquetFile(path).read().to_pandas() for path in files] or [pd.DataFrame(columns=_KEYS)])


def test_a_candidate_hears_what_the_model_hears_and_changes_none_of_its_rows(
    begin: Any, stored_predictions: Path, tmp_path: Path
) -> None:
    pred = tmp_path / "pred"
    finish_run(begin(pred))
    assert verify(pred).problems == []
    _same_tables(pred, stored_predictions)
    ours, theirs = read(pred, table="windows"), _rows(pred).sort_values(_KEYS, ignore_index=True)
    pd.testing.assert_frame_equal(ours[_KEYS].sort_values(_KEYS, ignore_index=True), theirs[_KEYS])
    assert set(theirs["model_id"]) == {"candidate"}
    assert set(theirs["scoring_fingerprint"]).isdisjoint(ours["scoring_fingerprint"])
    beside = read_shadow(pred, "candidate")
    assert len(beside) == len(ours)
    assert {"2024-05-01"} == {*read_shadow(pred, "candidate", date="2024-05-01")["date"]} < {*beside["date"]}
    both = ours.merge(beside, on=_KEYS)
    np.testing.assert_array_equal(both["polarity_negative_y"], both["polarity_negative_x"])
    assert beside["emotion_shadow"].notna().all()  # the candidate never abstains


def test_calls_are_chosen_by_their_ids(begin: Any, tmp_path: Path) -> None:
    run = begin(tmp_path / "pred", share=0.5)
    finish_run(run)
    chosen = {call for call in run.plan()["call_id"] if run.config.shadow.hears(call)}
    windows = read(tmp_path / "pred", table="windows")
    calls = windows["recording_id"].map(
        read(tmp_path / "pred", table="recordings").set_index("recording_id")["call_id"]
    )
    assert 0 < len(chosen & {*calls}) < calls.nunique()
    assert {*_rows(tmp_path / "pred")["recording_id"]} == {*windows.loc[calls.isin(chosen), "recording_id"]}
    assert verify(tmp_path / "pred").problems == []


@pytest.mark.parametrize("error", [SettingsError("no model found"), OSError("a disk that fails")], ids=repr)
def test_a_candidate_that_cannot_be_loaded_keeps_no_recording_from_its_row(
    begin: Any,
    bundle: FakeBundle,
    stored_predictions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    run = begin(tmp_path / "pred")

    def load(path: str, model_id: str) -> FakeBundle:
        if model_id == "candidate":
            raise error
        return bundle

    monkeypatch.setattr(blocks, "load_bundle", load)
    finish_run(run)
    assert verify(tmp_path / "pred").problems == []
    _same_tables(tmp_path / "pred", stored_predictions)
    assert candidates(tmp_path / "pred") == []
    assert agreement(tmp_path / "pred", "candidate", other="fake") is None


@pytest.mark.parametrize("number", sampled(range(5), keep=2))
def test_what_a_dead_attempt_left_of_it_is_not_committed(
    begin: Any, archive: Path, tmp_path: Path, number: int
) -> None:
    """Killed in its first block, and the recordings of that block are gone before it goes on."""
    run = begin(tmp_path / "pred")
    with killed_before_write(number):
        finish_run(run)
    for path in (archive / "2024-05-01").iterdir():
        path.write_bytes(b"")
    finish_run(run)
    assert verify(tmp_path / "pred").problems == []


@pytest.mark.parametrize("number", sampled(range(12), keep=3))
def test_killed_at_any_write_it_goes_on(begin: Any, tmp_path: Path, number: int) -> None:
    pred, undisturbed = tmp_path / "pred", tmp_path / "undisturbed"
    run = begin(pred)
    with killed_before_write(number):
        finish_run(run)
    (left,) = open_runs(pred)
    finish_run(left)
    finish_run(begin(undisturbed))
    assert verify(pred).problems == []
    _same_tables(pred, undisturbed)
    pd.testing.assert_frame_equal(
        *(_rows(each).drop(columns="run_id").sort_values(_KEYS, ignore_index=True) for each in (pred, undisturbed))
    )


def test_what_is_erased_rescored_or_out_of_date_is_so_here_too(begin: Any, archive: Path, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    finish_run(begin(pred))
    everything = _rows(pred)
    gone = recordings_of(pred, read(pred, table="calls")["call_id"][0])
    holding(pred, bury, pred, gone)
    holding(pred, forget, pred, gone)
    assert {*everything["recording_id"]} - {*_rows(pred)["recording_id"]} == gone
    assert verify(pred).problems == []
    changed = archive / "2024-05-02/mono.wav"
    shutil.copy(archive / "2024-05-01/1.wav", changed)
    run = begin(pred)
    (changed_id,) = set(run.plan().loc[run.plan()["replaces"].eq(True), "recording_id"])
    holding(run.pred, make_room, run)
    assert changed_id not in {*_rows(pred)["recording_id"]}
    finish_run(run)
    assert len(_rows(pred).query("recording_id == @changed_id")) > 0
    holding(pred, forget_before, pred, "2024-05-02")
    assert {part.date for part in parts(place_of(pred, "candidate"), "windows")} == {"2024-05-02"}
    assert verify(pred).problems == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path, part: path.rename(path.with_name(path.name.replace("000000", "000077"))), "not committed"),
        (lambda path, part: path.write_bytes(path.read_bytes()[:-9]), "cannot be read"),
        (lambda path, part: shutil.copy(part, path), "model_id is fake"),
        (lambda path, part: path.rename(path.with_name("notes.txt")), "no part of the table"),
        (lambda path, part: shutil.copytree(path.parents[2], path.parents[3] / "another"), "no such candidate"),
    ],
)
def test_verify_looks_at_its_rows(begin: Any, tmp_path: Path, damage: Any, said: str) -> None:
    pred = tmp_path / "pred"
    run = begin(pred)
    finish_run(run)
    part = Part("2024-05-01", run.run_id, 0)
    damage(Path(part.path(place_of(pred, "candidate"), "windows")), Path(part.path(pred, "windows")))
    (problem, *_) = verify(pred).problems
    assert problem.startswith(("_shadow/candidate/windows/date=2024-05-01/", "_shadow/another/windows/date="))
    assert said in problem


def test_a_candidate_that_cannot_be_compared_is_refused(bundle: FakeBundle) -> None:
    for other, found in ((Candidate("emotion3"), "labels"), (Candidate(), "features")):
        if found == "features":
            other.profile = WIDEBAND
        with pytest.raises(SettingsError, match=found):
            shadow_of(other, model="candidate", share=0.1, bundle=bundle, config=ScoringConfig())
    with pytest.raises(SettingsError, match="share"):
        shadow_of(Candidate(), model="candidate", share=0.0, bundle=bundle, config=ScoringConfig())


def test_agreement_counts_windows(begin: Any, tmp_path: Path) -> None:
    finish_run(begin(tmp_path / "pred"))
    found = agreement(tmp_path / "pred", "candidate", other="fake")
    beside = read_shadow(tmp_path / "pred", "candidate").fillna(ABSTAINED)
    assert found is not None
    assert found.windows == len(beside) == found.counts.sum()
    assert found.labels[-1] == ABSTAINED
    for ours, theirs in ((0, 1), (2, 2), (3, 0)):
        both = (beside["emotion"] == found.labels[ours]) & (beside["emotion_shadow"] == found.labels[theirs])
        assert found.counts[ours, theirs] == both.sum()
    assert found.share == pytest.approx((beside["emotion"] == beside["emotion_shadow"]).mean())
    low, high = found.interval
    assert low <= found.share <= high
    assert found.calls == beside["call_id"].nunique()
    assert agreement(tmp_path / "pred", "candidate", other="fake", runs=[]) is None
    assert agreement(tmp_path / "pred", "candidate", other="another") is None
    negative = beside[["polarity_negative", "polarity_negative_shadow"]].mean()
    assert found.negative == pytest.approx(tuple(negative))
    assert found.brief()["agreement"] == round(found.share, 4)


def test_calls_that_it_should_not_have_heard_are_found(begin: Any, tmp_path: Path) -> None:
    pred = tmp_path / "pred"
    finish_run(begin(pred))
    (place,) = (pred / "_runs").glob("*/config.json")
    stored = json.loads(place.read_text())
    stored["shadow"]["share"] = 0.5
    place.write_text(json.dumps(stored))
    assert any("does not hear" in problem for problem in verify(pred).problems)
