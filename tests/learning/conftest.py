"""Small stores whose features say the class, with enough noise that it must be learnt."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from emolib.config import MfccConfig, Profile, WindowConfig
from emolib.errors import Code
from emolib.features.store import FeatureStore

PROFILE = Profile(
    name="small",
    features=MfccConfig(sampling_rate=8000, n_fft=256, hop_length=128, n_mels=16, n_mfcc=6, fmin=100.0),
    windows=WindowConfig(duration_s=0.8, hop_s=0.4),
)
FRAMES, COEFFICIENTS = 49, 6
WORDS = ("anger", "happiness", "neutral")

MakeStore = Callable[..., FeatureStore]


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """A function that writes a store: each speaker says some utterances in each emotion, every third of two windows.

    What the hard speakers say in an emotion sounds as the next one does with the others.
    """

    def make(
        *,
        speakers: int = 6,
        utterances: int = 12,
        corpus: str = "mine",
        finish: bool = True,
        bad: int = 0,
        seed: int = 0,
        hard: Collection[str] = (),
    ) -> FeatureStore:
        generator = np.random.default_rng(0)
        rows = [
            {
                "utterance_id": f"mine/{speaker}/{word}/{number}",
                "window": window,
                "corpus": "mine",
                "speaker": f"s{speaker}",
                "gender": ("female", "male")[speaker % 2],
                "emotion": word,
                "uri": f"{speaker}-{word}-{number}.wav",
                "channel": None,
                "start_s": 0.4 * window,
                "end_s": 0.4 * window + 0.8,
                "variant": "clean",
                "content_hash": f"{speaker}-{word}-{number}",
                "code": "ok",
                "message": None,
            }
            for speaker in range(speakers)
            for word in WORDS
            for number in range(utterances)
            for window in range(1 + (number % 3 == 0))
        ]
        windows = pd.DataFrame([rows[place] for place in generator.permutation(len(rows))])
        path = Path(tmp_path_factory.mktemp("store")) / "S.zarr"
        store = FeatureStore.create(path, profile=PROFILE, windows=windows, shard_windows=32, chunk_windows=16)
        pattern = generator.standard_normal((len(WORDS), COEFFICIENTS))
        for shard, (start, stop) in enumerate(store.shards):
            part = windows.iloc[start:stop]
            features = generator.standard_normal((len(part), FRAMES, COEFFICIENTS)) + 5.0
            sounds = part["emotion"].map(WORDS.index) + part["speaker"].isin(list(hard))
            features += 3.0 * pattern[sounds % len(WORDS)][:, np.newaxis]
            valid_frames = generator.integers(FRAMES // 2, FRAMES + 1, len(part))
            features[np.arange(FRAMES) >= valid_frames[:, np.newaxis]] = -80.0  # padding, far from any sound
            status = np.where(np.arange(start, stop) < bad, Code.CORRUPT.status, Code.OK.status)
            store.write_shard(shard, features.astype(np.float32), valid_frames, status)
        if finish:
            store.finish()
        return store

    return make
