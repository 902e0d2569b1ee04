"""Sound at another rate: the same numbers whatever the size of the pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr
from numpy.typing import NDArray


def resampled(
    pieces: Iterable[NDArray[np.float32]], channels: int, *, source_rate: int, target_rate: int
) -> Iterator[NDArray[np.float32]]:
    """Yield sound ``(sample, channel)`` at another rate, in Hz, in pieces of any size; not clipped.

    Examples
    --------
    >>> sum(map(len, resampled([np.zeros((44_101, 1), np.float32)], 1, source_rate=44_100, target_rate=8000)))
    8001
    """
    if source_rate == target_rate:
        yield from pieces
        return
    # The streaming form gives the same bits whatever the size of the pieces, and never holds the original.
    resampler = soxr.ResampleStream(source_rate, target_rate, channels, dtype="float32", quality=soxr.HQ)
    taken = length = 0
    for piece in pieces:
        taken += len(piece)
        made = resampler.resample_chunk(piece)
        length += len(made)
        yield made
    wanted = resampled_length(taken, source_rate, target_rate)
    made = resampler.resample_chunk(np.empty((0, channels), np.float32), last=True)[: wanted - length]
    yield made
    yield np.zeros((wanted - length - len(made), channels), np.float32)


def resampled_length(frames: int, source_rate: int, target_rate: int) -> int:
    """Return how many samples resampling makes of a number of them.

    Examples
    --------
    >>> resampled_length(44_101, 44_100, 8000)
    8001
    """
    return -(-frames * target_rate // source_rate)


def resample(signal: NDArray[np.float32], *, source_rate: int, target_rate: int) -> NDArray[np.float32]:
    """Return a signal `(sample,)` at another rate, in Hz: not clipped.

    Examples
    --------
    >>> resample(np.zeros(44_101, np.float32), source_rate=44_100, target_rate=8000).shape
    (8001,)
    """
    if source_rate == target_rate:
        return signal
    resampler = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality=soxr.HQ)
    made = resampler.resample_chunk(np.ascontiguousarray(signal, np.float32), last=True)
    length = resampled_length(len(signal), source_rate, target_rate)
    return np.pad(made[:length], (0, max(0, length - len(made))))
