"""Recordings that abort, hang, starve or surprise their scorer: an outcome each, and every other one is scored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from emolib import archive
from emolib.learning.bundle import ModelBundle
from emolib.sound.synthetic import write_calls
from tests.jobs.conftest import assert_same_rows, run_emolib

# What Python runs first in every process whose path has it: some recordings do to their decoder what their name says.
_INJECTED = """
import os, time
import numpy as np
from emolib.sound import audio

stream, heard = audio.stream, []

def injected(place, **named):
    heard.append(place)
    if place.name.startswith("abort"):
        os.abort()
    if place.name.startswith("sleep"):
        time.sleep(10_000)
    if place.name.startswith("starve"):
        np.ones(64 * 2**30, np.uint8)
    if place.name.startswith("surprise") or "EVERYTHING_SURPRISES" in os.environ:
        raise KeyError("nobody thought of this")
    if place.name.startswith("crowd") and len(heard) > 1:
        os.abort()
    if place.name.startswith("once") and not os.path.exists(f"{place}.seen"):
        open(f"{place}.seen", "w").close()
        os.kill(os.getpid(), 9)
    return stream(place, **named)

audio.stream = injected

from emolib.archive import scoring
rows = scoring._rows

def odd(heard, labels):
    if "odd" in heard.planned.uri and heard.channels:
        raise ValueError("nobody thought of these rows")
    return rows(heard, labels)

scoring._rows = odd
"""
_CANDIDATE_THAT_KILLS = """
import os
from emolib.learning.bundle import ModelBundle

predict = ModelBundle.predict

def injected(self, *arguments, **named):
    if self.path.name == "candidate":
        os.abort()
    return predict(self, *arguments, **named)

ModelBundle.predict = injected
"""


@pytest.fixture
def injected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "injected").mkdir()
    (tmp_path / "injected/sitecustomize.py").write_text(_INJECTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "injected"), prepend=":")


@pytest.mark.slow
@pytest.mark.usefixtures("injected")
def test_a_recording_that_kills_hangs_or_starves_its_scorer_costs_no_other_its_row(
    calls: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    folder, place = tmp_path / "calls", tmp_path / "P"
    shutil.copytree(calls, folder)
    some = sorted(folder.rglob("*.wav"))[0]
    for name in ("abort", "crowd", "odd", "once", "sleep", "starve", "surprise"):
        shutil.copy(some, some.with_name(f"{name}.wav"))
    common = ("score", folder, "--model", model, "--out", place, "--workers", "1", "--failure-budget", "1")
    ended = run_emolib(*common, "--recording-s", "15")
    assert (ended.exit_code, ended.summary["recordings"]) == (0, 20)
    rows = archive.read(place, table="recordings").assign(name=lambda rows: rows["uri"].map(lambda uri: Path(uri).stem))
    rows = rows.set_index("name")
    assert rows.loc[["abort", "sleep", "starve", "surprise", "odd", "crowd", "once"], "code"].tolist() == [
        *("killed", "timeout", "killed", "internal", "internal", "killed", "ok")
    ]
    assert rows.loc["crowd", "message"] == "its process died of SIGABRT, 3 times, but not alone"
    assert rows.loc["abort", "message"] == "its process died of SIGABRT, alone as well"
    assert "64.0 GiB" in rows.loc["starve", "message"]
    assert run_emolib("verify", place).exit_code == 0
    for table in ("recordings", "channels", "windows"):
        expected = archive.read(undisturbed, table=table)
        found = archive.read(place, table=table)
        shared = found[found["recording_id"].isin(expected["recording_id"])].reset_index(drop=True)
        left_out = ["run_id", "attempts", "version", "message"]
        pd.testing.assert_frame_equal(
            shared.drop(columns=left_out, errors="ignore"), expected.drop(columns=left_out, errors="ignore")
        )


@pytest.mark.slow
@pytest.mark.parametrize("batch", [8, 6400], ids=["at a recording", "between recordings"])
def test_a_candidate_that_kills_its_scorer_costs_no_recording_its_row(
    batch: int,
    calls: Path,
    model: Path,
    candidate: Path,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "injected").mkdir()
    (tmp_path / "injected/sitecustomize.py").write_text(_CANDIDATE_THAT_KILLS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "injected"), prepend=":")
    asked = ("score", calls, "--model", model, "--out", tmp_path / "P", "--workers", "1", "--failure-budget", "1")
    ended = run_emolib(*asked, "--shadow", candidate, "--shadow-share", "1", "--batch", str(batch))
    assert ended.exit_code == 0
    assert_same_rows(tmp_path / "P", undisturbed)
    assert run_emolib("verify", tmp_path / "P").exit_code == 0
    assert archive.read_shadow(tmp_path / "P", ModelBundle.load(candidate).model_id).empty


@pytest.mark.slow
@pytest.mark.usefixtures("injected")
@pytest.mark.parametrize("block_s", ["1", "10000"], ids=["a block each", "all in a block"])
def test_twenty_surprises_in_a_row_stop_the_run(
    block_s: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug, or an image that was built wrong, labels no archive in a night; the next night goes on."""
    folder, place = tmp_path / "calls", tmp_path / "P"
    write_calls(folder, calls=24, broken=0, seed=3)
    asked = ("score", folder, "--model", model, "--out", place, "--workers", "1", "--block-s", block_s)
    with monkeypatch.context() as surprised:
        surprised.setenv("EVERYTHING_SURPRISES", "1")
        stopped = run_emolib(*asked)
    assert stopped.exit_code == 70
    assert "20 recordings in a row" in stopped.summary["error"]
    assert "KeyError: 'nobody thought of this'" in stopped.summary["error"]
    for _ in range(2):  # what was stopped is finished as it was begun; the night after, what was `internal` is heard
        assert run_emolib(*asked, "--failure-budget", "1").exit_code == 0
    rows = archive.read(place, table="recordings")
    assert (len(rows), set(rows["code"])) == (24, {"ok"})
    assert run_emolib("verify", place).exit_code == 0


_POISON = """
import os
import numpy as np
from emolib.archive import listening, scoring
from emolib.learning.bundle import ModelBundle

hear, add, predict, heard = scoring._hear, listening.WindowPool.add, ModelBundle.predict, [""]

def hears(place, *arguments, **named):
    heard[0] = place.name
    return hear(place, *arguments, **named)

def adds(self, features, *arguments):
    return add(self, np.full_like(features, np.nan) if heard[0] == "poison.wav" else features, *arguments)

def predicts(self, features, *arguments, **named):
    if np.isnan(features).any():
        os.abort()
    return predict(self, features, *arguments, **named)

scoring._hear, listening.WindowPool.add, ModelBundle.predict = hears, adds, predicts
"""


@pytest.mark.slow
@pytest.mark.parametrize("batch", [48, 6400])
def test_a_window_that_kills_the_model_costs_its_own_recording_and_no_other(
    batch: int, calls: Path, model: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings share batches: the one that is listened to when the model dies need not be the one."""
    (tmp_path / "injected").mkdir()
    (tmp_path / "injected/sitecustomize.py").write_text(_POISON)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "injected"), prepend=":")
    folder, place = shutil.copytree(calls, tmp_path / "calls"), tmp_path / "P"
    some = sorted(folder.rglob("*.wav"))[0]
    shutil.copy(some, some.with_name("poison.wav"))
    asked = ("score", folder, "--model", model, "--out", place, "--workers", "1", "--failure-budget", "1")
    assert run_emolib(*asked, "--batch", str(batch)).exit_code == 0
    rows = archive.read(place, table="recordings").set_index("uri")
    assert rows.loc[rows["code"] == "killed"].index.map(lambda uri: Path(uri).name).tolist() == ["poison.wav"]
    expected = archive.read(undisturbed, table="recordings").set_index("uri")
    assert rows.loc[expected.index, "code"].equals(expected["code"])
