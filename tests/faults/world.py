"""What faults happen to: a model that nobody trained, an archive of short recordings, processes that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from emolib.archive.verification import verify
from emolib.config import TELEPHONE
from emolib.corpora.labels import scheme
from emolib.learning import bundle as bundles
from emolib.learning.validation import Validation
from tests.archive.conftest import voice, write_call
from tests.conftest import PATIENCE_S, wait_for
from tests.jobs.conftest import assert_same_rows, command, striking

_LOOPBACK = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")


def untrained_model(place: Path, *, seed: int = 0) -> Path:
    """Write a bundle whose network has seeded weights and has learnt nothing: real to every job, and made at once."""
    labels = scheme("emotion3", pd.DataFrame({"corpus": ["c"], "emotion": ["anger"], "gender": ["female"]}))
    weights = _weights(len(labels.classes), seed)
    network = _network(weights)
    session = onnxruntime.InferenceSession(network)
    truth = np.arange(len(labels.classes)).repeat(2)
    said = np.full((len(truth), len(labels.classes)), 0.1, np.float32)
    said[np.arange(len(truth)), truth] = 0.5
    trained = SimpleNamespace(
        model=SimpleNamespace(
            predict_on_batch=lambda windows: session.run(["probabilities"], windows)[0],
            get_weights=lambda: list(weights.values()),
        ),
        profile=TELEPHONE,
        scheme=labels,
        temperature=1.0,
        priors=np.full(len(labels.classes), 1 / len(labels.classes)),
        training={"corpora": ["none"], "train_speakers": [], "validation_speakers": []},
        metrics={},
        windows=Validation(said, truth, np.array(["c/anna", "c/ben"] * len(labels.classes))),
    )
    networks = SimpleNamespace(to_onnx=lambda model: network, to_keras=lambda model: b"none", versions=dict)
    with pytest.MonkeyPatch.context() as patch:  # in the place of what imports TensorFlow
        patch.setitem(sys.modules, "emolib.learning.model", networks)
        patch.setattr("emolib.learning.model", networks, raising=False)
        bundles.save(place, trained)
    return place


_COEFFICIENTS, _FILTERS, _HIDDEN = 40, 32, 64


def _weights(classes: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = {
        "scale": (_COEFFICIENTS, 1),
        "filters": (_FILTERS, _COEFFICIENTS, 5),
        "hidden": (_FILTERS, _HIDDEN),
        "told": (_HIDDEN, classes),
    }
    spread = {"scale": 0.01, "filters": 0.1, "hidden": 0.3, "told": 0.3}
    return {name: generator.normal(0, spread[name], shape).astype(np.float32) for name, shape in shapes.items()}


def _network(weights: dict[str, np.ndarray]) -> bytes:
    """Return a convolution over the frames, their mean and two dense layers as ONNX.

    Products of matrices, as real networks have them: the kernel that computes one, and so how it rounds, depends on how
    many windows there are at once.
    """
    constants = {"frame": np.array([2]), "last": np.array([1]), **weights}
    nodes = [
        helper.make_node("Transpose", ["features"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["turned", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "filters"], ["seen"]),
        helper.make_node("Relu", ["seen"], ["rising"]),
        helper.make_node("ReduceSum", ["rising", "frame"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["valid_frames"], ["frames"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["frames", "last"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["mean"]),
        helper.make_node("MatMul", ["mean", "hidden"], ["hid"]),
        helper.make_node("Relu", ["hid"], ["known"]),
        helper.make_node("MatMul", ["known", "told"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "untrained",
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["window", "frame", _COEFFICIENTS]),
            helper.make_tensor_value_info("valid_frames", TensorProto.INT32, ["window"]),
        ],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["window", weights["told"].shape[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(made.SerializeToString())


def write_archive(folder: Path, *, recordings: int) -> Path:
    """Write short recordings of three days, two-party and mono, and four files that no one can score."""
    for number in range(recordings):
        name = folder / f"2024-05-{1 + number % 3:02d}/call-{number:03d}.wav"
        parties = [voice(3 + number % 3, seed=number % 5), voice(3 + number % 3, seed=5 + number % 5)]
        write_call(name, *(0.9 ** (number // 5) * party for party in parties[: 1 + number % 2]))
    write_call(folder / "2024-05-01/empty.wav", b"")
    write_call(folder / "2024-05-02/text.wav", b"this is no sound " * 100)
    write_call(folder / "2024-05-02/header.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ")
    write_call(folder / "2024-05-03/short.wav", voice(0.2, seed=9))
    return folder


def files_of(folder: Path) -> int:
    """Return how many recordings lie in a folder."""
    return sum(path.is_file() for path in folder.rglob("*"))


def assert_whole(pred: Path | str, expected: Path, *, recordings: int) -> None:
    """Check that predictions pass `verify` (no recording twice), in number, and are those of an undisturbed run."""
    found = verify(pred)
    assert not found.problems
    assert found.counts["recordings"] == recordings
    assert_same_rows(pred, expected)


def parts(pred: Path) -> int:
    """Return how many blocks are committed."""
    return len(list(pred.glob("recordings/*/part-*.parquet")))


@dataclass
class Job:
    """A command in a process of its own."""

    process: subprocess.Popen[str]

    def end(self, seconds: float = PATIENCE_S) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it said on both streams."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out + err

    def has_stopped(self) -> bool:
        """Return whether SIGSTOP has stopped it (see `tests.jobs.conftest.striking`)."""
        return bool(psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)


def job(*arguments: str | Path, environment: dict[str, str] | None = None) -> AbstractContextManager[Job]:
    """Start a command; whatever is left of it at the end is killed."""
    return started(command(*arguments), environment=environment)


@contextmanager
def started(line: list[str], *, environment: dict[str, str] | None = None) -> Iterator[Job]:
    """Start a command line; whatever is left of it at the end is killed."""
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield Job(process)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def paused(
    *arguments: str | Path, blocks: int = 1, environment: dict[str, str] | None = None
) -> Iterator[tuple[Job, Callable[[], None]]]:
    """Start a command that waits when so many blocks have ended; give it, and what lets it go on.

    Its lock is renewed all the while, and what workers have already they finish.
    """
    with TemporaryDirectory() as folder:
        end = Path(folder) / "end"
        line = striking(*arguments, after="jobs.fanout._outcome", times=blocks, by=end)
        with started(line, environment=environment) as running:
            waits = end.with_name("end.waits")
            wait_for(lambda: waits.exists() or running.process.poll() is not None, f"{blocks} blocks")
            yield running, end.touch


def run_apart(*arguments: str | Path, environment: dict[str, str] | None = None) -> tuple[int, dict[str, Any], str]:
    """Run a command in a process of its own; return its exit code, its summary, and what it said on both streams."""
    with job(*arguments, environment=environment) as running:
        code, said = running.end()
    lines = [line for line in said.splitlines() if line.startswith('{"')]
    return code, json.loads(lines[0]) if lines else {}, said


@dataclass
class Cluster:
    """A scheduler and its workers, each a process of its own; `mend` starts again what was killed."""

    logs: Path
    workers_wanted: int = 2
    address: str = ""
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _started: int = 0

    def mend(self) -> str:
        """Start what does not live; return the scheduler's address."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            for worker in self.workers:
                _kill(worker)
            place = self.logs / f"scheduler-{self._started}.json"
            self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(place))
            wait_for(lambda: place.exists() and place.stat().st_size, "the scheduler's address")
            self.address = _address(place)
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < self.workers_wanted:
            threads = ("--nthreads", "1", "--no-nanny", "--local-directory", str(self.logs))
            self.workers.append(self._start("worker", self.address, *threads))
        return self.address

    def close(self) -> None:
        """Kill all of them."""
        for process in filter(None, [*self.workers, self.scheduler]):
            _kill(process)

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        self._started += 1
        log = self.logs / f"{kind}-{self._started}.log"
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", kind, *_LOOPBACK, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
            )


def _address(place: Path) -> str:
    return str(pd.read_json(place, typ="series")["address"])


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
