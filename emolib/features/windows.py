"""Windows of a recording: the one way from sound to what a model sees, for training and for scoring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emolib.config import FeatureConfig, WindowConfig
from emolib.errors import SettingsError
from emolib.features.cepstra import frame_count, mfcc

# A window must bring this much sound that the one before it did not have.
MIN_NEW_S = 0.4

_KERNELS: dict[str, Callable[..., NDArray[np.float32]]] = {"mfcc": mfcc}


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one channel.

    Attributes
    ----------
    features
        Shape ``(window, frame, coefficient)``, float32.
    valid_frames
        Frames of each window that begin in real sound, not in padding; shape ``(window,)``, int32.
    start_s, end_s
        Where the real sound of each window lies in the recording; shape ``(window,)``, float64 seconds.
    rms
        Root mean square of each window's real samples; shape ``(window,)``, float32.
    """

    features: NDArray[np.float32]
    valid_frames: NDArray[np.int32]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    rms: NDArray[np.float32]


def windowed_features(signal: NDArray[np.float32], *, features: FeatureConfig, windows: WindowConfig) -> Windows:
    """Cut one channel into windows and compute their features.

    Overlapping windows share their frames where the front end allows it: frames not centred, no floor relative to the
    clip. Otherwise every window is a clip of its own.

    Parameters
    ----------
    signal
        Shape ``(sample,)``, float32, at ``features.sampling_rate``.

    Returns
    -------
    Windows
        No windows where the signal is shorter than 0.4 s.

    Raises
    ------
    SettingsError
        If durations and hops do not fit the frames (see `window_shape`).

    Examples
    --------
    >>> from emolib.config import TELEPHONE
    >>> minute = np.zeros(60 * 8000, np.float32)
    >>> windowed_features(minute, features=TELEPHONE.features, windows=TELEPHONE.windows).features.shape
    (29, 249, 20)
    """
    frames, coefficients = window_shape(features, windows)
    rate = features.sampling_rate
    spans = window_spans(signal.size, sampling_rate=rate, windows=windows)
    if not len(spans):
        return Windows(
            features=np.zeros((0, frames, coefficients), np.float32),
            valid_frames=np.zeros(0, np.int32),
            start_s=np.zeros(0),
            end_s=np.zeros(0),
            rms=np.zeros(0, np.float32),
        )
    kernel, length = _KERNELS[features.kind], _samples(windows.duration_s, rate)
    filled = _fill(signal, int(spans[-1, 0]) + length, windows.pad)
    if _shares_frames(features) and windows.hop_s is not None:
        stride = _samples(windows.hop_s, rate) // features.hop_length
        channel = kernel(filled, config=features)
        views = np.lib.stride_tricks.sliding_window_view(channel, frames, axis=0)[::stride]
        values = np.ascontiguousarray(views[: len(spans)].transpose(0, 2, 1))
    else:
        values = np.stack([kernel(filled[start : start + length], config=features) for start, _ in spans])
    valid = -(-(spans[:, 1] - spans[:, 0]) // features.hop_length)
    return Windows(
        features=values,
        valid_frames=np.clip(valid, 1, frames).astype(np.int32),
        start_s=spans[:, 0] / rate,
        end_s=spans[:, 1] / rate,
        rms=np.array([_rms(signal[start:end]) for start, end in spans], np.float32),
    )


def window_spans(samples: int, *, sampling_rate: int, windows: WindowConfig) -> NDArray[np.int64]:
    """Return where the windows of a signal begin and where their real sound ends, in samples.

    A window stays if it brings at least 0.4 s that its predecessor did not have; its missing rest is padding.

    Returns
    -------
    NDArray[np.int64]
        Shape ``(window, 2)``.

    Examples
    --------
    >>> window_spans(50, sampling_rate=10, windows=WindowConfig(duration_s=2, hop_s=1)).tolist()
    [[0, 20], [10, 30], [20, 40], [30, 50]]
    """
    length = _samples(windows.duration_s, sampling_rate)
    least = round(MIN_NEW_S * sampling_rate)
    if samples < least:
        return np.zeros((0, 2), np.int64)
    if windows.hop_s is None:
        starts = np.zeros(1, np.int64)
    else:
        hop = _samples(windows.hop_s, sampling_rate)
        seen = max(0, length - hop)  # the part of a window that its predecessor had
        starts = hop * np.arange(1 + max(0, (samples - min(least, hop) - seen) // hop), dtype=np.int64)
    return np.stack([starts, np.minimum(starts + length, samples)], axis=1)


def window_shape(features: FeatureConfig, windows: WindowConfig) -> tuple[int, int]:
    """Return the shape of one window's features, ``(frame, coefficient)``.

    Raises
    ------
    SettingsError
        If a duration is not a whole number of samples, a shared hop not a whole number of frame hops, or a window
        shorter than one frame.

    Examples
    --------
    >>> from emolib.config import ARTICLE
    >>> window_shape(ARTICLE.features, ARTICLE.windows)
    (236, 20)
    """
    rate = features.sampling_rate
    frames = frame_count(_samples(windows.duration_s, rate), config=features)
    if frames == 0:
        raise SettingsError(
            f"a window of {windows.duration_s} s found, expected at least one frame of {features.n_fft} samples"
        )
    if windows.hop_s is not None and _shares_frames(features) and _samples(windows.hop_s, rate) % features.hop_length:
        raise SettingsError(
            f"a hop of {windows.hop_s} s between windows found, expected a multiple of the frame hop, "
            f"{features.hop_length / rate} s"
        )
    return frames, features.n_mfcc


def _shares_frames(features: FeatureConfig) -> bool:
    return not features.center and features.top_db is None


def _samples(seconds: float, rate: int) -> int:
    samples = round(seconds * rate)
    if abs(samples - seconds * rate) > 1e-6 * rate:
        raise SettingsError(f"{seconds} s at {rate} Hz found, expected a whole number of samples")
    return samples


def _fill(signal: NDArray[np.float32], length: int, pad: str) -> NDArray[np.float32]:
    """Return the first ``length`` samples, what is missing filled with zeros or with the signal's median."""
    if signal.size >= length:
        return signal[:length]
    value = np.median(signal) if pad == "median" else 0.0
    return np.concatenate([signal, np.full(length - signal.size, value, np.float32)])


def _rms(samples: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
