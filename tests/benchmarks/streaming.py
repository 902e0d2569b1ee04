"""Does the store keep the trainer fed, and in how much memory: `.venv/bin/python tests/benchmarks/streaming.py`.

Everything is measured in one run on a store of noise in the shape of the profile telephone. What the default network
consumes is `train_on_batch` on batches that lie ready in memory. "Cold" means that the system was told to forget the
files; what lies below the system (a virtual disk) may still remember them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emolib.config import TELEPHONE
from emolib.errors import Code
from emolib.features.store import FeatureStore
from emolib.learning.batches import Batch, Batches, InMemory, Shards, in_order

ROWS, EPOCHS, BATCH_SIZE, CLASSES = 2048, 3, 32, 6
MEMORY_ROWS = (4_000, 32_000)  # 80 and 640 MB of features


def measure(memory_rows: tuple[int, int] = MEMORY_ROWS) -> dict[str, Any]:
    """Measure rows a second, the share of time that the network waits, and peak memory; print them and return them."""
    found: dict[str, Any] = {"peak_mb": {rows: _peak_mb(rows) for rows in memory_rows}}
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder) / "S.zarr", ROWS)
        memory = InMemory(store)
        list(_batches(memory).epoch(0))
        alone: dict[str, Callable[[], Iterable[Any]]] = {
            "batches, cold disk": lambda: _batches(store).epoch(0),
            "batches, warm disk": lambda: _batches(store).epoch(0),
            "batches, memory": lambda: _batches(memory).epoch(0),
            "in order, warm disk": lambda: in_order(store, np.arange(ROWS)),
        }
        found["rows_per_s"] = {}
        for name, stream in alone.items():
            seconds = []
            for _ in range(5):
                if "cold" in name:
                    _forget(Path(folder))
                began = time.perf_counter()
                for _ in stream():
                    pass
                seconds.append(time.perf_counter() - began)
            found["rows_per_s"][name] = ROWS / statistics.median(seconds)
        found |= _training(store, memory)
    found["times_consumption"] = found["rows_per_s"]["batches, cold disk"] / found["consumed_rows_per_s"]
    _print(found)
    return found


def make_store(path: Path, rows: int) -> FeatureStore:
    """Write a store of noise, padded where a clip of 1.6 to 4 s ends."""
    windows = pd.DataFrame(
        {
            "utterance_id": [str(number) for number in range(rows)],
            **{
                "window": 0,
                "corpus": "noise",
                "speaker": "s",
                "gender": None,
                "emotion": "sad",
                "uri": "",
                "code": "ok",
            },
            **{"channel": None, "start_s": 0.0, "end_s": 4.0, "variant": "clean", "content_hash": "", "message": None},
        }
    )
    store = FeatureStore.create(path, profile=TELEPHONE, windows=windows)
    generator = np.random.default_rng(0)
    for shard, (start, stop) in enumerate(store.shards):
        features = 20.0 * generator.standard_normal((stop - start, *store.shape[1:]), np.float32)
        valid_frames = generator.integers(100, 250, stop - start)
        features[np.arange(store.shape[1]) >= valid_frames[:, np.newaxis]] = -80.0
        store.write_shard(shard, features, valid_frames, np.full(stop - start, Code.OK.status))
    store.finish()
    return store


def _batches(store: Shards) -> Batches:
    rows = np.arange(store.shape[0])
    return Batches(store, rows, rows % CLASSES, batch_size=BATCH_SIZE, seed=0)


def _training(store: FeatureStore, memory: InMemory) -> dict[str, Any]:
    """Train on ready batches, from disk and from memory in turn, so that a busy machine is busy for all of them."""
    from emolib.learning.model import build

    scale = np.full(store.shape[2], 20.0, np.float32)
    shape: dict[str, Any] = {"words": range(CLASSES), "classes": CLASSES, "mean": np.zeros_like(scale), "scale": scale}
    model = build("default", profile=store.profile, filters=64, seed=0, **shape)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    ready = list(_batches(store).epoch(0))
    ways: dict[str, Callable[[int], Iterable[Batch]]] = {
        "ready": lambda epoch: ready,
        "disk": _batches(store).epoch,
        "memory": _batches(memory).epoch,
    }

    def fit(stream: Iterable[Batch]) -> tuple[float, float]:
        """Return the seconds of an epoch, and how many of them went by in asking for batches."""
        waited, began = [0.0], time.perf_counter()
        for inputs, labels in _timed(stream, waited):
            model.train_on_batch(inputs, labels)
        return time.perf_counter() - began, waited[0]

    fit(ready)  # compiles
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for epoch in range(EPOCHS):
        for name, stream in ways.items():
            seconds[name].append(fit(stream(epoch)))
    fastest = {name: min(total for total, _ in epochs) for name, epochs in seconds.items()}
    return {
        "consumed_rows_per_s": ROWS / fastest["ready"],
        "trained_rows_per_s": {name: ROWS / fastest[name] for name in ("disk", "memory")},
        "waiting_share": {
            name: statistics.median(waited / total for total, waited in seconds[name]) for name in ("disk", "memory")
        },
    }


def _timed(stream: Iterable[Batch], waited: list[float]) -> Iterator[tuple[dict[str, Any], Any]]:
    batches = iter(stream)
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        waited[0] += time.perf_counter() - began
        if batch is None:
            return
        yield {"features": batch.features, "valid_frames": batch.valid_frames}, batch.labels


def _forget(folder: Path) -> None:
    """Ask the system to drop the files from its cache."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb+") as handle:
                os.fsync(handle.fileno())
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _peak_mb(rows: int) -> float:
    """Return the peak memory of a new process that goes through an epoch of a store, less what it began with."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "S.zarr"
        make_store(path, rows)
        command = [sys.executable, __file__, "epoch", str(path)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _epoch_in_this_process(path: str) -> None:
    store = FeatureStore.open(path)
    store.read(0, 1)
    before = _high_water_mb()
    for _ in _batches(store).epoch(0):
        pass
    for _ in in_order(store, np.arange(store.shape[0])):
        pass
    print(_high_water_mb() - before)


def _high_water_mb() -> float:
    # Not getrusage: what it says of a new process includes the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _print(found: dict[str, Any]) -> None:
    consumed = found["consumed_rows_per_s"]
    print(f"{'':28}{'rows/s':>10}{'x network':>11}{'waiting':>9}")
    print(f"{'network on ready batches':28}{consumed:10.0f}{1:11.2f}")
    for name, rate in found["trained_rows_per_s"].items():
        print(f"{'network on ' + name:28}{rate:10.0f}{rate / consumed:11.2f}{found['waiting_share'][name]:9.1%}")
    for name, rate in found["rows_per_s"].items():
        print(f"{name:28}{rate:10.0f}{rate / consumed:11.2f}")
    for rows, peak in found["peak_mb"].items():
        size = rows * TELEPHONE.features.n_mfcc * 249 * 4 / 1e6
        print(f"an epoch of {rows} rows ({size:.0f} MB) takes {peak:.0f} MB of memory")


if __name__ == "__main__":
    if sys.argv[1:2] == ["epoch"]:
        _epoch_in_this_process(sys.argv[2])
    else:
        measure()
