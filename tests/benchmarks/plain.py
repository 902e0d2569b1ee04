"""What a user would write without emolib: the peers of the jobs, run in processes of their own.

Settings are those of emolib's front ends. What differs: `librosa.feature.mfcc` has no `amin`, so its floor lies lower
(probabilities differ by less than 0.01 for it).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pandas as pd

from emolib.config import PROFILES, TELEPHONE, MfccConfig

_model: Any = None


def mfcc(signal: np.ndarray, config: MfccConfig) -> np.ndarray:
    """Return librosa's MFCCs, ``(frame, coefficient)``."""
    found = librosa.feature.mfcc(
        y=signal,
        sr=config.sampling_rate,
        n_mfcc=config.n_mfcc,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        center=config.center,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    return np.asarray(found).T


def save_mfcc(path: Path, profile: str, out: Path) -> int:
    """Decode a clip, compute its MFCCs and save them; return their number of frames."""
    config = PROFILES[profile].features
    signal, _ = librosa.load(path, sr=config.sampling_rate)
    found = mfcc(signal, config)
    np.save(out / f"{path.stem}.npy", found)
    return len(found)


def start_model(path: Path) -> None:
    """Load a Keras model for `label_calls`, TensorFlow on one thread: the initializer of a pool."""
    global _model
    import keras
    import tensorflow as tf

    import emolib.learning.model  # noqa: F401 - registers the layers of the default architecture

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    _model = keras.saving.load_model(path)


def label_calls(paths: Sequence[Path], out: Path) -> tuple[float, float]:
    """Label stereo calls: a librosa MFCC per window, one `model.predict` per channel, one Parquet file at the end.

    Returns
    -------
    tuple
        Seconds of wall time and of this process's CPU time.
    """
    began, began_cpu = time.perf_counter(), time.process_time()
    rate = TELEPHONE.features.sampling_rate
    length, hop = round(TELEPHONE.windows.duration_s * rate), round((TELEPHONE.windows.hop_s or 0) * rate)
    tables = []
    for path in paths:
        channels, _ = librosa.load(path, sr=rate, mono=False)
        for channel, signal in enumerate(channels):
            starts = range(0, len(signal) - length + 1, hop)
            features = np.stack([mfcc(signal[start : start + length], TELEPHONE.features) for start in starts])
            frames = np.full(len(features), features.shape[1], np.int32)
            probabilities = _model.predict({"features": features, "valid_frames": frames}, verbose=0)
            table = pd.DataFrame(probabilities, columns=[f"p_{number}" for number in range(probabilities.shape[1])])
            tables.append(table.assign(uri=str(path), channel=channel, start_s=np.array(starts) / rate))
    pd.concat(tables, ignore_index=True).to_parquet(out)
    return time.perf_counter() - began, time.process_time() - began_cpu
