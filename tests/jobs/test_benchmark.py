"""Calls of which everything is known: made, scored, judged; and a model that knows who speaks is not judged by them."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emolib import archive
from emolib.archive import truth as truths
from emolib.learning.bundle import ModelBundle
from emolib.sound import audio
from emolib.sound.manifest import recording_id
from emolib.storage import resolve
from tests.jobs.conftest import run_emolib

pytestmark = pytest.mark.slow
_ROLES = ("--channels", "0=agent,1=customer", "--roles", "agent,customer")


@dataclass(frozen=True)
class World:
    """Speakers who are left out, a model that does not know them, their calls and what it says of them."""

    left_out: list[str]
    model: Path
    calls: Path
    truth: Path
    predictions: Path


@pytest.fixture(scope="module")
def left_out(corpus: Path) -> list[str]:
    speakers = pd.read_csv(corpus / "corpus.csv")["speaker"].unique()
    return [f"corpus/{name}" for name in sorted(speakers)[:3]]


@pytest.fixture(scope="module")
def world(
    training: None,
    corpus: Path,
    store: Path,
    left_out: list[str],
    cluster: tuple[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    root, names = tmp_path_factory.mktemp("truth"), ",".join(left_out)
    made = run_emolib(
        "benchmark", corpus, "--out", root / "known", "--speakers", names, "--calls", "6", "--duration-s", "20"
    )
    assert made.exit_code == 0
    asked = ("--task", "emotion3", "--architecture", "article", "--epochs", "3", "--leave-out", names)
    assert run_emolib("train", store, *asked, "--model", root / "model").exit_code == 0
    calls, predictions = root / "known" / "calls", root / "predictions"
    scored = run_emolib("score", calls, "--model", root / "model", "--out", predictions, *_ROLES, *cluster)
    assert scored.exit_code == 0
    return World(left_out, root / "model", calls, root / "known" / "truth.parquet", predictions)


@pytest.fixture(scope="module")
def judged(world: World) -> Path:
    place = world.predictions.parent / "judged"
    ended = run_emolib("evaluate", "--archive", world.predictions, "--truth", world.truth, "--out", place)
    assert ended.exit_code == 0
    assert (
        ended.summary["windows"]["all"]["n"]
        == json.loads((place / "evaluation.json").read_text())["windows"]["all"]["n"]
    )
    return place


def test_who_is_left_out_is_not_learnt_from_and_the_model_says_from_whom_it_learnt(world: World, corpus: Path) -> None:
    training = ModelBundle.load(world.model).training
    known = {*training["train_speakers"], *training["validation_speakers"]}
    everybody = {f"corpus/{name}" for name in pd.read_csv(corpus / "corpus.csv")["speaker"]}
    assert known == everybody - set(world.left_out)
    assert len(training["train_speakers"]) == training["train"]["speakers"]


def test_a_benchmark_is_dated_stereo_of_both_codecs_and_its_truth_fits(world: World) -> None:
    truth = truths.read(world.truth)
    files = sorted(path.relative_to(world.calls).as_posix() for path in world.calls.rglob("*.wav"))
    assert files == sorted(truth["uri"].unique())
    assert len(files) == 6
    assert all(path.startswith("2024-05-0") for path in files)
    sounds = {uri: audio.read(world.calls / uri) for uri in files}
    assert {each.info.codec for each in sounds.values()} == {"wav/ulaw", "wav/alaw"}
    assert {each.signal.shape[0] for each in sounds.values()} == {2}
    assert (truth["end_s"] < truth["uri"].map({uri: each.decoded_s for uri, each in sounds.items()})).all()
    assert (truth["call_id"] == truth["uri"].map(recording_id)).all()
    assert set(truth["corpus"] + "/" + truth["speaker"]) == set(world.left_out)
    parties = truth.groupby("uri").apply(lambda rows: rows.groupby("role")["speaker"].first(), include_groups=False)
    assert (parties["agent"] != parties["customer"]).all()


def test_the_same_seed_gives_the_same_bytes(world: World, corpus: Path, tmp_path: Path) -> None:
    asked = ("--speakers", ",".join(world.left_out), "--calls", "2", "--duration-s", "20", "--out")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run_emolib("benchmark", corpus, *asked, tmp_path / name, "--seed", str(seed)).exit_code == 0
    first, again, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*")) if path.is_file()] for name in "abc"
    )
    assert first == again
    assert first != other


def test_every_figure_can_be_computed_from_what_is_saved(judged: Path, world: World) -> None:
    report = json.loads((judged / "evaluation.json").read_text())
    names = {path.name for path in judged.iterdir()}
    assert names == {"evaluation.json", "windows.parquet", "calls.parquet", "confusion.svg", "polarity.svg"}
    windows, calls = (pd.read_parquet(judged / f"{name}.parquet") for name in ("windows", "calls"))
    assert len(windows) == len(archive.read(world.predictions, table="windows")) == report["windows"]["all"]["scored"]
    counted = windows[windows["verdict"] == "counted"]
    for role in ("all", "agent", "customer"):
        part, own = counted if role == "all" else counted[counted["role"] == role], report["windows"][role]
        assert own["n"] + own["abstained"] == len(part)
        assert own["accuracy"] == pytest.approx((part["true"] == part["predicted"]).mean())
        recall = (part["true"] == part["predicted"]).groupby(part["true"]).mean()
        assert own["uar"] == pytest.approx(recall.mean())
        low, high = own["intervals"]["uar"]
        assert 0 <= low <= high <= 1
        assert own["n"] + own["abstained"] + sum(own["not_counted"].values()) == own["scored"]
    polarity = report["polarity"]
    assert polarity["calls"] == len(calls) == 6
    expected = np.corrcoef(calls["polarity_true"], calls["polarity_found"])[0, 1]
    assert polarity["pearson"] == pytest.approx(expected)
    customers = archive.read(world.predictions, table="calls").set_index("call_id")
    for row in calls.itertuples():
        own_call = customers.loc[row.call_id]
        assert row.polarity_found == pytest.approx(own_call["customer_positive"] - own_call["customer_negative"])
        for name in ("agent_talk_s", "customer_talk_s", "overlap_s", "non_talk_s"):
            assert getattr(row, f"{name}_found") == pytest.approx(own_call[name])
    talk = report["talk"]["customer_talk_s"]
    assert talk["error"] == pytest.approx((calls["customer_talk_s_found"] - calls["customer_talk_s_true"]).mean())


def test_speech_activity_adds_up(judged: Path, world: World) -> None:
    speech = json.loads((judged / "evaluation.json").read_text())["speech"]
    truth, channels = truths.read(world.truth), archive.read(world.predictions, table="channels")
    for role in ("agent", "customer"):
        own = speech[role]
        spoken = truth[truth["role"] == role]
        # In frames of 30 ms, of which an edge may be half speech.
        assert own["speech_s"] == pytest.approx((spoken["end_s"] - spoken["start_s"]).sum(), abs=0.03 * len(spoken))
        found = channels.loc[channels["role"] == role, "speech_s"].sum()
        assert own["speech_s"] - own["missed_s"] + own["false_alarm_s"] == pytest.approx(found, abs=0.01)
        assert own["error"] == pytest.approx((own["missed_s"] + own["false_alarm_s"]) / own["speech_s"], abs=1e-3)
        assert own["missed"] < 0.5
    for name in ("speech_s", "missed_s", "false_alarm_s", "silence_s"):
        assert speech["all"][name] == pytest.approx(speech["agent"][name] + speech["customer"][name], abs=0.02)


def refused(tmp_path: Path, predictions: Path, truth: Path, *words: str) -> None:
    ended = run_emolib("evaluate", "--archive", predictions, "--truth", truth, "--out", tmp_path / "E")
    assert ended.exit_code == 2, ended
    for word in words:
        assert word in ended.summary["error"]
    assert not (tmp_path / "E").exists()


def test_a_model_is_not_judged_by_speakers_whom_it_knows(world: World, tmp_path: Path) -> None:
    truth, training = truths.read(world.truth), ModelBundle.load(world.model).training
    for names in ("train_speakers", "validation_speakers"):
        known = training[names][0]
        mine = truth["speaker"] == truth["speaker"].iloc[0]
        truths.write(tmp_path / "known.parquet", truth.assign(speaker=truth["speaker"].mask(mine, known.split("/")[1])))
        refused(tmp_path, world.predictions, tmp_path / "known.parquet", f"knows {known}", f"--leave-out {known}")


def test_a_model_that_does_not_say_from_whom_it_learnt_is_refused(world: World, tmp_path: Path) -> None:
    whole = (world.model / "bundle.json").read_text()
    values = json.loads(whole)
    del values["training"]["train_speakers"]
    (world.model / "bundle.json").write_text(json.dumps(values))
    try:
        refused(tmp_path, world.predictions, world.truth, "does not say from whom it learnt")
    finally:
        (world.model / "bundle.json").write_text(whole)


def test_a_truth_of_something_else_is_refused(world: World, tmp_path: Path) -> None:
    truth = truths.read(world.truth)
    truths.write(tmp_path / "other.parquet", truth.assign(uri="other/" + truth["uri"]))
    refused(tmp_path, world.predictions, tmp_path / "other.parquet", "no recording of", "relative to")
    swapped = truth.assign(role=truth["role"].map({"agent": "customer", "customer": "agent"}))
    truths.write(tmp_path / "swapped.parquet", swapped)
    refused(tmp_path, world.predictions, tmp_path / "swapped.parquet", "--channels")
    refused(tmp_path, world.predictions, tmp_path / "nowhere.parquet", "nowhere.parquet")


def test_recordings_that_changed_since_are_refused(world: World, tmp_path: Path) -> None:
    first, second = sorted(world.calls.rglob("*.wav"))[:2]
    shutil.copy2(first, tmp_path / "kept.wav")
    try:
        shutil.copy2(second, first)
        refused(tmp_path, world.predictions, world.truth, first.name, "score the archive anew")
        first.unlink()
        refused(tmp_path, world.predictions, world.truth, first.name, "put the archive back")
    finally:
        shutil.copy2(tmp_path / "kept.wav", first)


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The files of sound that a disk did not give when they were opened first."""
    kind, refused = type(resolve("/a")), set[str]()
    opens = kind.open

    def refuses(self: Path, *arguments: Any, **named: Any) -> Any:
        if self.suffix == ".wav" and str(self) not in refused:
            refused.add(str(self))
            raise OSError(errno.EIO, "the disk said no")
        return opens(self, *arguments, **named)

    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.setattr(kind, "open", refuses)
    return refused


def test_calls_are_made_of_clips_that_are_read_at_the_second_try(corpus: Path, tmp_path: Path, flaky: set[str]) -> None:
    made = run_emolib("benchmark", corpus, "--out", tmp_path / "known", "--calls", "1", "--duration-s", "10")
    assert (made.exit_code, made.summary["unheard"]) == (0, 0)
    assert any(Path(name).is_relative_to(corpus) for name in flaky)


def test_recordings_are_judged_that_are_read_at_the_second_try(
    world: World, judged: Path, tmp_path: Path, flaky: set[str]
) -> None:
    asked = ("evaluate", "--archive", world.predictions, "--truth", world.truth, "--out", tmp_path / "E")
    assert run_emolib(*asked).exit_code == 0
    assert any(Path(name).is_relative_to(world.calls) for name in flaky)
    found, expected = ((place / "evaluation.json").read_text() for place in (tmp_path / "E", judged))
    assert json.loads(found) == json.loads(expected)


@pytest.mark.parametrize(
    "asked", [("--archive", "P"), ("--truth", "T"), ("S", "--archive", "P", "--truth", "T"), ("S",)]
)
def test_half_of_what_is_needed_is_refused(asked: tuple[str, ...], tmp_path: Path) -> None:
    ended = run_emolib("evaluate", *asked, "--out", tmp_path / "E")
    assert ended.exit_code == 2
    assert "give those of one of the two" in ended.summary["error"]


def test_speakers_who_are_not_there_are_refused(corpus: Path, store: Path, tmp_path: Path) -> None:
    ended = run_emolib("benchmark", corpus, "--out", tmp_path / "B", "--speakers", "corpus/nobody")
    assert ended.exit_code == 2
    assert "corpus/nobody" in ended.summary["error"]
    asked = ("--task", "emotion3", "--model", tmp_path / "M", "--leave-out", "corpus/nobody")
    ended = run_emolib("train", store, *asked)
    assert ended.exit_code == 2
    assert "corpus/nobody" in ended.summary["error"]
    assert list(tmp_path.iterdir()) == []
