"""What the benchmarks work on: speech, clips, calls and a model, made in the folder of the run and removed with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
from numpy.typing import NDArray

from emolib.archive.ledger import Run, known
from emolib.archive.plan import PLAN_SCHEMA, PlannedRecording
from emolib.archive.planning import plan
from emolib.archive.run_settings import run_config
from emolib.config import ScoringConfig
from emolib.learning.bundle import ModelBundle
from emolib.sound import audio
from emolib.sound.manifest import list_recordings
from emolib.sound.synthetic import utterance, voice, write_calls, write_corpus
from emolib.sound.voices import EMOTIONS

ROOT = Path(__file__).parents[2]
# Set by the runner: everything that is made lies here, so that one process can use what another one made.
FOLDER = "EMOLIB_BENCH_FOLDER"
CALL_RATE = 8000


def folder(name: str) -> Path:
    """Return the place of something in the run's folder."""
    return Path(os.environ[FOLDER]) / name


@lru_cache(maxsize=4)
def speech(seconds: float, *, sampling_rate: int) -> NDArray[np.float32]:
    """Return synthetic voices one after the other over a noise floor of -66 dBFS; shape ``(sample,)``."""
    length, parts, number = round(seconds * sampling_rate), [np.zeros(0, np.float32)], 0
    while sum(map(len, parts)) < length:
        emotion = EMOTIONS[number % len(EMOTIONS)]
        parts.append(utterance(voice(number % 6), emotion, seed=number, sampling_rate=sampling_rate))
        number += 1
    noise = 10 ** (-66 / 20) * np.random.default_rng(0).standard_normal(length)
    return (np.concatenate(parts)[:length] + noise).astype(np.float32)


def clips(*, quick: bool) -> tuple[str, list[Path]]:
    """Return folders to extract and their name: RAVDESS where the shared folder has it, else a synthetic corpus."""
    shared = Path(os.environ.get("EMOLIB_SHARED", ROOT.parent / "shared")).resolve()
    actors = sorted(path for path in (shared / "corpora/ravdess").glob("*") if path.is_dir())
    if actors:
        return "RAVDESS", actors[:2] if quick else actors
    place = folder("corpus")
    if not place.exists():
        write_corpus(place, speakers=4 if quick else 24, utterances=6, seed=0)
    return "a synthetic corpus", [place]


def plain_wav(folders: Sequence[Path], *, sampling_rate: int) -> list[Path]:
    """Return copies of folders of clips, mono and in 16-bit WAV, which takes no time to decode."""
    made = []
    for source in folders:
        made.append(folder("plain-wav") / source.name)
        for path in filter(Path.is_file, source.rglob("*")):
            place = made[-1] / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".flac", ".wav"):
                clip = audio.read(path, sampling_rate=sampling_rate).signal.mean(axis=0)
                soundfile.write(place.with_suffix(".wav"), clip, sampling_rate, subtype="PCM_16")
            else:
                shutil.copy(path, place)
    return made


def calls(name: str, *, count: int, seconds: float) -> Path:
    """Return an archive of µ-law stereo calls: turns of synthetic calls, in every call from another point on."""
    place = folder(name)
    turns = _turns()
    for number in range(count):
        path = place / f"2024-05-{1 + number * 3 // count:02d}" / f"call-{number:04d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with soundfile.SoundFile(path, "w", CALL_RATE, 2, "ULAW") as file:
            left, at = round(seconds * CALL_RATE), (number * 7919 * CALL_RATE // 1000) % len(turns)
            while left:  # piece by piece: a call of eight hours must not cost this process its memory
                piece = turns[at : at + left]
                file.write(piece)
                left, at = left - len(piece), 0
    return place


def copies(archive: Path, name: str, *, count: int) -> Path:
    """Return an archive that holds every call of another one so many times; its files take no room of their own."""
    place = folder(name)
    for path in sorted(archive.rglob("*.wav")):
        (place / path.parent.name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (place / path.parent.name / f"{path.stem}-{number}.wav").hardlink_to(path)
    return place


@lru_cache(maxsize=1)
def _turns() -> NDArray[np.int16]:
    """Return about three minutes of calls, shape ``(sample, channel)``."""
    place = folder("turns")
    write_calls(place, calls=6, broken=0, seed=0)
    return np.concatenate([soundfile.read(path, dtype="int16")[0] for path in sorted(place.rglob("*.wav"))])


def model() -> Path:
    """Return a model of the default architecture, trained for one epoch: what it says does not matter, only its size.

    Trained by the jobs, in processes of their own: TensorFlow must not come into the one that measures.
    """
    place, store, corpus = folder("model"), folder("model-features.zarr"), folder("model-corpus")
    if not (place / "bundle.json").exists():
        write_corpus(corpus, speakers=4, utterances=1, seed=1)
        _job("extract", corpus, "--store", store, "--workers", "1")
        _job("train", store, "--task", "emotion3", "--model", place, "--epochs", "1")
    return place


def _job(*arguments: str | Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "jobs", *map(str, arguments)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )


def planned(archive: Path) -> list[PlannedRecording]:
    """Return what scoring is given of an archive of which nothing is known yet, in one block."""
    rows = plan(list_recordings(archive), known(folder("nothing")), block_s=1e9)
    return [PlannedRecording(**row) for row in pa.Table.from_pandas(rows, schema=PLAN_SCHEMA).to_pylist()]


def planned_run(archive: Path, *, predictions: str) -> Run:
    """Return a stored run over an archive, in one block per date, that nobody has begun."""
    bundle = ModelBundle.load(model())
    scoring = ScoringConfig(min_speech_s=0.0)  # every window, whatever its sound
    config = run_config(bundle, model=model(), archive=archive, scoring=scoring, block_s=1e6)
    listing = list_recordings(archive)
    return Run.create(
        folder(predictions), config=config, plan=[plan(listing, known(folder(predictions)), block_s=config.block_s)]
    )


@contextmanager
def local_cluster(workers: int) -> Iterator:
    """Connect to a local cluster of the jobs' own kind; yields its client."""
    from jobs.cluster import connect
    from jobs.specs import cluster_spec

    with connect(cluster_spec(None, workers=workers)) as client:
        yield client
