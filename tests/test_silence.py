"""Law 9: nothing talks to anybody, and nothing is written but outputs and temporary files."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from emolib import archive
from emolib.learning.bundle import _Manifest
from emolib.sound.synthetic import write_calls, write_corpus
from tests.faults.world import untrained_model
from tests.tracing import require_strace, trespasses

_SCORES = """
import os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "0"
from emolib.learning.bundle import ModelBundle
bundle = ModelBundle.load(sys.argv[1])
bundle.check_golden()
"""
# What the command `emolib` does, several times in one process: TensorFlow is imported once.
_COMMANDS = """
import json, sys
from jobs import process
from jobs.environment import set_switches
asked = json.load(sys.stdin)
process.begin([])
set_switches()
from jobs.command import run
for arguments in asked:
    if run(arguments).exit_code != 0:
        process.end(1)  # it has said why
"""


def test_the_library_alone_is_silent(tmp_path: Path) -> None:
    model = untrained_model(tmp_path / "model")
    assert trespasses([sys.executable, "-c", _SCORES, str(model)], tmp_path) == ""
    require_strace()


@pytest.mark.slow
def test_the_commands_are_silent_and_their_workers_and_scorers_too(tmp_path: Path) -> None:
    corpus, other, calls, out = (tmp_path / name for name in ("corpus", "other", "calls", "out"))
    write_corpus(corpus, speakers=4, utterances=1, seed=1)
    write_corpus(other, speakers=4, utterances=1, seed=3)
    write_calls(calls, calls=3, broken=2, seed=2)
    store, model, labels = out / "S.zarr", out / "model", out / "labels"
    call = next(calls.rglob("call-*.wav"))
    local, scoring = ("--workers", "1"), ("--model", model, "--out", labels, "--workers", "1", "--failure-budget", "1")
    way = [
        ("extract", corpus, other, "--store", store, *local),
        ("train", store, "--task", "emotion3", "--model", model, "--epochs", "1"),
        ("evaluate", store, "--task", "emotion3", "--protocol", "corpus", "--epochs", "1", "--out", out / "folds"),
        ("explore", call, "--out", out / "recording"),
        ("explore", store, "--out", out / "store"),
        ("benchmark", corpus, "--calls", "2", "--duration-s", "20", "--out", out / "known"),
        ("known-audio", calls, "--out", out / "music.npz", *local),
        ("score", calls, *scoring),
        ("verify", labels),
        ("report", labels, "--out", out / "page"),
        ("export", labels, "--out", out / "segments"),
        ("nightly", calls, *scoring, "--report", out / "pages"),
        ("doctor", "--archive", calls, "--model", model, "--out", out / "tried", *local),
        ("certs", "--out", out / "certificates"),
    ]
    python = [sys.executable, "-c", _COMMANDS]
    assert trespasses(python, tmp_path, asked=json.dumps(way, default=str)) == ""

    candidate = shutil.copytree(model, out / "candidate")
    stored = json.loads((candidate / "bundle.json").read_text()) | {"temperature": 0.5}
    stored["model_id"] = _Manifest(**stored).identity()
    (candidate / "bundle.json").write_text(json.dumps(stored))
    erased = archive.read(labels, table="calls")["call_id"].iloc[0]
    way = [("promote", labels, "--model", candidate), ("erase", labels, "--call-id", erased)]
    assert trespasses(python, tmp_path, asked=json.dumps(way, default=str)) == ""
    require_strace()


_ASKS_LIBRARIES = """
from jobs.environment import set_switches
set_switches()
import dask, dask_jobqueue, keras, matplotlib.font_manager
assert dask.config.get("jobqueue.slurm.walltime") == "17:00"
assert matplotlib.rcParams["font.size"] == 17
assert keras.config.epsilon() == 1e-7  # decides numbers: whose home it is does not
"""


@pytest.mark.slow
def test_settings_in_the_home_folder_are_read_and_none_are_added(tmp_path: Path) -> None:
    for name, text in (
        (".config/dask/own.yaml", "jobqueue: {slurm: {walltime: '17:00'}}"),
        (".config/matplotlib/matplotlibrc", "font.size: 17"),
        (".keras/keras.json", '{"epsilon": 0.5}'),
    ):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert trespasses([sys.executable, "-c", _ASKS_LIBRARIES], tmp_path, home=tmp_path / "own") == ""
    require_strace()


_TRESPASSES = """
import os, pathlib, socket
pathlib.Path("left").mkdir()
(pathlib.Path.home() / "id").write_text("me")
os.rename(os.environ["TMPDIR"], os.environ["TMPDIR"] + "-moved")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 53))  # no packet leaves
pathlib.Path("/etc/resolv.conf").exists() and open("/etc/resolv.conf")
"""


def test_what_is_not_silent_is_found(tmp_path: Path) -> None:
    found = trespasses([sys.executable, "-c", _TRESPASSES], tmp_path)
    assert f"{tmp_path}/home/id" in found
    assert f"{tmp_path}/cwd/left" in found
    require_strace()
    assert f"rename {tmp_path}/tmp-moved" in found
    assert "connect 192.0.2.1" in found
    assert "a name looked up" in found
