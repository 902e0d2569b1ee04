"""A model that is quick and exact, and a small archive of calls with good and bad files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from emolib import storage
from emolib.archive import blocks, commits, ledger, predictions
from emolib.archive.ledger import Run, known
from emolib.archive.lock import Lock
from emolib.archive.metadata import Sources
from emolib.archive.planning import plan
from emolib.archive.run_settings import run_config
from emolib.config import TELEPHONE, ScoringConfig
from emolib.corpora.labels import scheme
from emolib.learning.validation import Validation
from emolib.sound.manifest import list_recordings
from emolib.sound.synthetic import utterance, voice as synthetic_voice

RATE = 8000


class FakeBundle:
    """What scoring asks of a `ModelBundle`; the probabilities are a smooth function of each window alone."""

    profile = TELEPHONE
    abstention_threshold: float | None = 0.35

    def __init__(self, task: str = "emotion2", model_id: str = "fake") -> None:
        self.scheme = scheme(task, pd.DataFrame({"corpus": ["c"], "emotion": ["anger"], "gender": ["female"]}))
        self.classes = self.scheme.classes
        self.priors = dict.fromkeys(self.classes, 1 / len(self.classes))
        self.model_id = model_id
        self.asked: list[tuple[int, ...]] = []

    def predict(self, features: Any, valid_frames: Any, *, batch: int = 64) -> Any:
        self.asked.append(features.shape)
        windows = zip(features[:, :, : len(self.classes)], valid_frames, strict=True)
        scores = np.array([window[:valid].mean(axis=0) for window, valid in windows])
        scores = np.exp(scores / 20 - (scores / 20).max(axis=1, keepdims=True))
        return (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)

    def check_golden(self) -> None:
        pass

    def validation(self) -> Validation:
        """Return two windows of each class for each of two speakers, one of them mistaken."""
        truth = np.tile(np.arange(len(self.classes)).repeat(2), 2)
        said = np.where(np.arange(len(truth)) % 2, 0, truth)
        probabilities = np.full((len(truth), len(self.classes)), 0.4 / (len(self.classes) - 1), np.float32)
        probabilities[np.arange(len(truth)), said] = 0.6
        return Validation(probabilities, truth, np.repeat(["c/anna", "c/ben"], len(truth) // 2))


@cache
def voice(seconds: float, *, seed: int) -> np.ndarray:
    """Return somebody who speaks; shape ``(sample,)``."""
    spoken = utterance(synthetic_voice(seed), "anger", seed=seed, sampling_rate=RATE, duration_s=max(1.0, seconds))
    spoken.setflags(write=False)
    return spoken[: round(seconds * RATE)]


def write_call(path: Path, *channels: Any, subtype: str = "ULAW") -> Path:
    """Write channels of samples, or bytes, as a call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(channels[0], bytes):
        path.write_bytes(channels[0])
    else:
        soundfile.write(path, np.stack(channels, axis=1), RATE, subtype=subtype)
    return path


def start_run(
    pred: Any, bundle: Any, archive: Path, *, block_s: float = 20.0, batch: int = 64, sources: Sources | None = None
) -> Run:
    config = run_config(bundle, model="model", archive=archive, scoring=ScoringConfig(), batch=batch, block_s=block_s)
    listing = list_recordings(archive)
    return Run.create(pred, config=config, plan=[plan(listing, known(pred), block_s=block_s, sources=sources)])


def finish_run(run: Run) -> list[blocks.BlockResult]:
    results = [blocks.score_block(str(run.pred), run.run_id, block) for block in run.todo()["block"]]
    holding(run.pred, run.close, {"blocks": len(results)})
    return results


def holding(pred: Any, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function for the holder of the lock; no heartbeat comes between what it writes."""
    with Lock(pred, interval_s=60) as lock:
        return function(*arguments, **named, lock=lock)


@contextmanager
def killed_before_write(number: int) -> Iterator[None]:
    """Whatever is written, it dies before file number so and so: a part, calls, a plan, a note."""
    writes = iter(range(100))

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def dies(*arguments: Any, **named: Any) -> Any:
            if next(writes) == number:
                raise KeyboardInterrupt
            return write(*arguments, **named)

        return dies

    replaces, creates = dying(storage.write_bytes), dying(storage.create_bytes)
    with pytest.MonkeyPatch.context() as patch:
        for module in (storage, predictions, ledger):
            patch.setattr(module, "write_bytes", replaces)
        patch.setattr(commits, "create_bytes", creates)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.fixture
def bundle() -> FakeBundle:
    return FakeBundle()


@pytest.fixture
def write() -> Callable[..., Path]:
    return write_call


@pytest.fixture(scope="session")
def stored_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight files of three days: two-party calls, one party silent, mono, too short, empty and no sound."""
    root = tmp_path_factory.mktemp("calls") / "archive"
    for number in range(3):
        seconds = 9 + number
        write_call(root / f"2024-05-01/{number}.wav", voice(seconds, seed=number), voice(seconds, seed=50 + number))
    write_call(root / "2024-05-02/silent-agent.wav", np.zeros(12 * RATE), voice(12, seed=7))
    write_call(root / "2024-05-02/mono.wav", voice(6, seed=8))
    write_call(root / "2024-05-03/short.wav", voice(0.2, seed=9), voice(0.2, seed=10))
    write_call(root / "2024-05-03/empty.wav", b"")
    write_call(root / "2024-05-03/text.wav", b"this is no sound " * 100)
    return root


@pytest.fixture(scope="session")
def stored_predictions(stored_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive scored once; not to be changed."""
    model = FakeBundle()
    pred = tmp_path_factory.mktemp("predictions") / "pred"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "load_bundle", lambda path, model_id: model)
        finish_run(start_run(pred, model, stored_archive))
    return pred


@pytest.fixture
def archive(stored_archive: Path, tmp_path: Path) -> Path:
    """A copy of the archive that a test may change."""
    return shutil.copytree(stored_archive, tmp_path / "archive")


@pytest.fixture
def pred(stored_predictions: Path, tmp_path: Path) -> Path:
    """A copy of the predictions that a test may change."""
    return shutil.copytree(stored_predictions, tmp_path / "pred")


@pytest.fixture
def start(bundle: FakeBundle, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Plan a run over the archive; workers then get the fake model."""
    monkeypatch.setattr(blocks, "load_bundle", lambda path, model_id: bundle)
    return lambda pred, **settings: start_run(pred, bundle, archive, **settings)


@pytest.fixture
def finish() -> Callable[[Run], list[blocks.BlockResult]]:
    """Score what is left of a run and close it."""
    return finish_run
