"""(g) Start-up: first feature and first prediction in a fresh process, first block of a fresh worker.

A fresh process is a new interpreter that imports what it needs, does the one thing and says so on its standard output:
the time runs from before it is started to that line. First feature: the MFCCs of 1 s of noise. First prediction: load
the bundle, check its golden set, features and probabilities of one window; the peer loads the Keras model instead.
Ours and theirs alternate, after one uncounted start each (files in the page cache, bytecode and numba's cache written).

A worker: a driver whose imports are done starts a local cluster of one and sends it the only block of a stored run over
one call of 30 s; the time runs from there to the result of the block. Memory is the most that the worker ever held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

from tests.benchmarks import world
from tests.benchmarks.rows import Figure, Row, at_most, faster
from tests.benchmarks.timing import in_turn, is_quick

_SAY = """
import json, sys
from tests.benchmarks.timing import has_tensorflow, peak_mb
print(json.dumps({"peak_mb": peak_mb(), "tensorflow": has_tensorflow()}), flush=True)
"""
_FEATURE = """
import numpy as np
from emolib.config import TELEPHONE
from emolib.features import mfcc
mfcc(np.random.default_rng(0).standard_normal(8000).astype(np.float32) / 10, config=TELEPHONE.features)
"""
_LIBROSA_FEATURE = """
import numpy as np, librosa
librosa.feature.mfcc(
    y=np.random.default_rng(0).standard_normal(8000).astype(np.float32) / 10,
    sr=8000, n_mfcc=40, n_fft=256, hop_length=128, center=False, n_mels=40, fmin=100,
)
"""
_WINDOW = """
import sys
import numpy as np
signal = np.random.default_rng(0).standard_normal(32000).astype(np.float32) / 10
"""
_PREDICTION = f"""{_WINDOW}
from emolib.features.windows import windowed_features
from emolib.learning.bundle import ModelBundle
bundle = ModelBundle.load(sys.argv[1])
bundle.check_golden()
cut = windowed_features(signal, features=bundle.profile.features, windows=bundle.profile.windows)
bundle.predict(cut.features, cut.valid_frames)
"""
_KERAS_PREDICTION = f"""{_WINDOW}
import librosa, keras
import emolib.learning.model
model = keras.saving.load_model(sys.argv[1] + "/model.keras")
features = librosa.feature.mfcc(
    y=signal, sr=8000, n_mfcc=40, n_fft=256, hop_length=128, center=False, n_mels=40, fmin=100,
).T[None]
model.predict({{"features": features, "valid_frames": np.full(1, features.shape[1], np.int32)}}, verbose=0)
"""
_WORKER = """
import json, sys, time
from emolib.archive.blocks import score_block
from jobs.cluster import connect
from jobs.specs import cluster_spec
from jobs.fanout import Block, Done, fan_out
from tests.benchmarks.timing import has_tensorflow, peak_mb
if __name__ == "__main__":
    began = time.perf_counter()
    with connect(cluster_spec(None, workers=1)) as client:
        (ended,) = fan_out(client, score_block, [Block((sys.argv[1], sys.argv[2], 0))])
        seconds = time.perf_counter() - began
        assert isinstance(ended, Done), ended
        (peak,) = client.run(peak_mb).values()
        (tensorflow,) = client.run(has_tensorflow).values()
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "tensorflow": tensorflow}))
"""


def measure() -> list[Row]:
    model, rounds = world.model(), 1 if is_quick() else 3
    rows = []
    for what, ours, peer, theirs in (
        ("fresh process to first feature", _FEATURE, "librosa", _LIBROSA_FEATURE),
        ("fresh process to first prediction", _PREDICTION, "librosa, keras", _KERAS_PREDICTION),
    ):
        said: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
        seconds = in_turn(
            {
                "ours": lambda code=ours, said=said: _fresh(code, model, said["ours"]),  # type: ignore[misc]
                "theirs": lambda code=theirs, said=said: _fresh(code, model, said["theirs"]),  # type: ignore[misc]
            },
            rounds=rounds,
        )
        peaks = {name: Figure.of([each["peak_mb"] for each in values], "MB") for name, values in said.items()}
        rows += [
            faster(what, seconds["ours"], peer, seconds["theirs"], note=_imported(said["ours"])),
            Row(what=f"{what}: peak memory", emolib=peaks["ours"], peer=peer, theirs=peaks["theirs"]),
        ]
    return rows + _worker(rounds)


def _fresh(code: str, model: Path, said: list[dict[str, Any]]) -> float:
    """Run code in a fresh interpreter; return the seconds until it is done, and keep what it said."""
    began = time.perf_counter()
    command = [sys.executable, "-c", code + _SAY, str(model)]
    with subprocess.Popen(command, cwd=world.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - began
    said.append(json.loads(line))
    return seconds


def _worker(rounds: int) -> list[Row]:
    archive, found = world.calls("call-of-30-s", count=1, seconds=30), []
    number = count()

    def start() -> float:
        run = world.planned_run(archive, predictions=f"predictions-start-{next(number)}")
        script = world.folder("worker.py")  # a file: a spawned process imports the main module of its parent anew
        script.write_text(_WORKER)
        command = [sys.executable, str(script), str(run.pred), run.run_id]
        environment = {**os.environ, "PYTHONPATH": str(world.ROOT)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout))
        return float(found[-1]["seconds"])

    seconds = in_turn({"start": start}, rounds=rounds)["start"]
    what, note = "worker start to first predictions (local cluster of 1, one block)", _imported(found)
    return [
        Row(what=what, emolib=Figure.of(seconds, "s"), target=at_most(5, "s"), note=note),
        Row(
            what=f"{what}: peak memory of the worker",
            emolib=Figure.of([each["peak_mb"] for each in found], "MB"),
            target=at_most(350, "MB"),
            note=note,
        ),
        Row(
            what=f"{what}: workers that imported TensorFlow",
            emolib=Figure.of([sum(each["tensorflow"] for each in found)], ""),
            target=at_most(0, ""),
        ),
    ]


def _imported(said: list[dict[str, Any]]) -> str:
    return (
        f"TensorFlow was {'imported' if any(each['tensorflow'] for each in said) else 'not imported'} on emolib's side."
    )
