"""Windows of a recording: the one way from sound to what a model sees, for training and for scoring."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emolib.config import FeatureConfig, WindowConfig
from emolib.errors import SettingsError
from emolib.features.cepstra import MfccStream, can_stream, frame_count, mfcc

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
    """

    features: NDArray[np.float32]
    valid_frames: NDArray[np.int32]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


def windowed_features(signal: NDArray[np.float32], *, features: FeatureConfig, windows: WindowConfig) -> Windows:
    """Cut one channel into windows and compute their features.

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
    (29, 249, 40)
    """
    return WindowStream(features=features, windows=windows).push(signal, last=True)


class WindowStream:
    """The windows of one channel that comes in pieces: bitwise those of `windowed_features`, however it is cut.

    Memory holds one window and what is pushed. Overlapping windows share their frames where the front end allows it:
    frames not centred, no floor relative to the clip, padding of zeros. Otherwise every window is a clip of its own.

    Raises
    ------
    SettingsError
        If durations and hops do not fit the frames (see `window_shape`).

    Examples
    --------
    >>> from emolib.config import TELEPHONE
    >>> stream = WindowStream(features=TELEPHONE.features, windows=TELEPHONE.windows)
    >>> [stream.push(np.zeros(8000, np.float32)).start_s.tolist() for second in range(6)]
    [[], [], [], [0.0], [], [2.0]]
    >>> stream.push(np.zeros(0, np.float32), last=True).start_s.tolist()
    []
    """

    def __init__(self, *, features: FeatureConfig, windows: WindowConfig) -> None:
        self._features, self._windows = features, windows
        self._shape = window_shape(features, windows)
        self._length = _samples(windows.duration_s, features.sampling_rate)
        # Without a hop there is one window: the next would begin where no signal ends.
        self._hop = sys.maxsize if windows.hop_s is None else _samples(windows.hop_s, features.sampling_rate)
        self._stream = MfccStream(config=features) if _shares_frames(features, windows) else None
        self._seen = 0  # samples pushed
        self._next = 0  # number of the next window
        self._signal = _Tail(np.zeros(0, np.float32))
        self._frames = _Tail(np.zeros((0, features.n_mfcc), np.float32))

    def push(self, samples: NDArray[np.float32], *, last: bool = False) -> Windows:
        """Return the windows that the next samples, float32 ``(sample,)``, complete.

        With the `last` ones come the windows that the end of the signal leaves unfilled, padded.
        """
        self._seen += samples.size
        if last:
            spans = window_spans(self._seen, sampling_rate=self._features.sampling_rate, windows=self._windows)
            spans = spans[self._next :]
            missing = max(0, int(spans[-1, 0]) + self._length - self._seen) if len(spans) and self._stream else 0
            samples = np.concatenate([samples, np.zeros(missing, np.float32)])
        else:
            whole = 1 + (self._seen - self._length) // self._hop if self._seen >= self._length else 0
            starts = self._hop * np.arange(self._next, whole, dtype=np.int64)
            spans = np.stack([starts, starts + self._length], axis=1)
        self._take(samples)
        return self._cut(spans)

    def _take(self, samples: NDArray[np.float32]) -> None:
        start = self._next * self._hop
        if self._stream is None:
            self._signal.forget(start)
            self._signal.append(samples)
        else:
            self._frames.forget(start // self._features.hop_length)
            self._frames.append(self._stream.push(samples))

    def _cut(self, spans: NDArray[np.int64]) -> Windows:
        """Return the next windows, whose sound lies at these samples."""
        if not len(spans):
            return _no_windows(self._shape)
        if self._stream is None:
            sounds = [self._signal.part(start, end) for start, end in spans.tolist()]
            clips = (_filled(sound, self._length, self._windows.pad) for sound in sounds)
            values = np.stack([_KERNELS[self._features.kind](clip, config=self._features) for clip in clips])
        else:
            firsts = (spans[:, 0] // self._features.hop_length).tolist()
            values = np.stack([self._frames.part(first, first + self._shape[0]) for first in firsts])
        self._next += len(spans)
        rate = self._features.sampling_rate
        valid = -(-(spans[:, 1] - spans[:, 0]) // self._features.hop_length)
        return Windows(
            features=values,
            valid_frames=np.clip(valid, 1, self._shape[0]).astype(np.int32),
            start_s=spans[:, 0] / rate,
            end_s=spans[:, 1] / rate,
        )


class _Tail:
    """The end of a long array whose rows keep their numbers while its beginning is forgotten."""

    def __init__(self, empty: NDArray[np.float32]) -> None:
        self._rows, self._first = empty, 0

    def append(self, rows: NDArray[np.float32]) -> None:
        self._rows = np.concatenate([self._rows, rows])

    def part(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows that are not forgotten; fewer where the array ends."""
        return self._rows[start - self._first : stop - self._first]

    def forget(self, before: int) -> None:
        """Forget the rows before a number, as far as there are any."""
        gone = min(before - self._first, len(self._rows))
        if gone:
            self._rows, self._first = self._rows[gone:].copy(), self._first + gone


def _no_windows(shape: tuple[int, int]) -> Windows:
    return Windows(
        features=np.zeros((0, *shape), np.float32),
        valid_frames=np.zeros(0, np.int32),
        start_s=np.zeros(0),
        end_s=np.zeros(0),
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
        If a duration is not a whole number of samples, a hop shorter than that of the frames, a shared hop not a whole
        number of them, or a window shorter than one frame.

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
    if windows.hop_s is not None:
        hop, shares = _samples(windows.hop_s, rate), _shares_frames(features, windows)
        if hop < features.hop_length or (shares and hop % features.hop_length):
            raise SettingsError(
                f"a hop of {windows.hop_s} s (hop_s) between windows found, expected "
                f"{'a multiple of' if shares else 'at least'} the frame hop, {features.hop_length / rate} s"
            )
    return frames, features.n_mfcc


def _shares_frames(features: FeatureConfig, windows: WindowConfig) -> bool:
    return can_stream(features) and windows.pad == "zero" and windows.hop_s is not None


def _samples(seconds: float, rate: int) -> int:
    samples = round(seconds * rate)
    if abs(samples - seconds * rate) > 1e-6 * rate:
        raise SettingsError(f"{seconds} s at {rate} Hz (duration_s or hop_s) found, expected a whole number of samples")
    return samples


def _filled(sound: NDArray[np.float32], length: int, pad: str) -> NDArray[np.float32]:
    """Return a clip of ``length`` samples, what is missing filled with zeros or with the sound's median."""
    if sound.size == length:
        return sound
    value = np.median(sound) if pad == "median" else 0.0
    return np.concatenate([sound, np.full(length - sound.size, value, np.float32)])
