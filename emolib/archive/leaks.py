"""Cross-talk: one channel of a recording is heard in another, as through a headset, a hybrid or a cable.

Looked at are stretches of half a second in which one channel is far louder than the other. Whoever talks there is in
the loud one; if the quiet one holds mostly the same, delayed and coloured as it may be, then that has leaked. What is
the same in both is told by their coherence: the part of the quiet one's power that a filter makes of the loud one. Of
noise, or of somebody else's voice, a filter makes next to nothing: 2 % after 44 stretches of synthetic voices. Of a
leak that is well above the noise it makes 95 % and more, or 69 % where that comes a tenth of a second late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

_STRETCH_S = 0.5  # so long that the echo of a line, some tenths of it late, is still the same stretch
_BAND_HZ = (300.0, 3400.0)  # what lies below is hum, which two channels of one recorder may share
_LOUDER = 4.0  # in power, 6 dB: a leak that is no weaker is no leak but the other half of a mix
_LEAST, _MOST = 16, 64  # stretches: of fewer nothing is said, and after so many nothing more is learnt
_LEAKED = 0.6  # of the quiet channel's power: the leak is 2 dB above all else there, or 8 dB if it is 0.1 s late
_MOST_COMPARED = 8  # channels


class Leaks:
    """Which channels of a recording hold what is said on another one; the same whatever blocks they come in.

    Parameters
    ----------
    sampling_rate
        In Hz.
    min_level_dbfs
        A channel below this level holds nothing that could be heard; a voice is 10 dB above it.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal((2, 160_000)).astype(np.float32) * 0.1
    >>> noise[1] *= 0.01
    >>> quiet, leaking = (Leaks(2, sampling_rate=8000, min_level_dbfs=-80.0) for _ in range(2))
    >>> quiet.hear(noise)
    >>> leaking.hear(np.stack([noise[0], noise[1] + 0.02 * np.roll(noise[0], 80)]))
    >>> quiet.found(), leaking.found()
    ([], [1])
    """

    def __init__(self, channels: int, *, sampling_rate: int, min_level_dbfs: float) -> None:
        self._size = 2 ** round(math.log2(_STRETCH_S * sampling_rate))
        frequencies = np.fft.rfftfreq(self._size, 1 / sampling_rate)
        self._band = slice(*np.searchsorted(frequencies, _BAND_HZ))
        self._window = np.hanning(self._size).astype(np.float32)
        self._heard_above = 10 ** (min_level_dbfs / 10)
        several = range(channels) if 1 < channels <= _MOST_COMPARED else range(0)
        # By loud and quiet channel: the number of stretches, and the power of both and of what they share.
        self._pairs = {(loud, quiet): _Pair() for loud in several for quiet in several if loud != quiet}
        self._waiting = np.zeros((channels, 0), np.float32)

    def hear(self, block: NDArray[np.float32]) -> None:
        """Listen to the next samples, ``(channel, sample)``."""
        if not any(pair.count < _MOST for pair in self._pairs.values()):
            return
        sound = np.concatenate([self._waiting, block], axis=1)
        whole = sound.shape[1] // self._size * self._size
        for start in range(0, whole, self._size):
            self._compare(sound[:, start : start + self._size])
        self._waiting = sound[:, whole:].copy()

    def found(self, groups: Sequence[Sequence[int]] = ()) -> list[int]:
        """Return the channels in which another one is heard.

        Parameters
        ----------
        groups
            Channels that hold one sound (see `emolib.sound.dual_mono`): among them is no cross-talk.
        """
        same = {pair for group in groups for pair in permutations(group, 2)}
        return sorted({pair[1] for pair, sums in self._pairs.items() if pair not in same and sums.leaked})

    def _compare(self, stretch: NDArray[np.float32]) -> None:
        power = np.mean(np.square(stretch, dtype=np.float64), axis=1)
        spectra: dict[int, NDArray[np.complex64]] = {}
        for (loud, quiet), pair in self._pairs.items():
            is_voice = power[loud] > 10 * self._heard_above and power[loud] > _LOUDER * power[quiet]
            if pair.count < _MOST and is_voice and power[quiet] > self._heard_above:
                for channel in (loud, quiet):
                    if channel not in spectra:
                        spectra[channel] = scipy.fft.rfft(stretch[channel] * self._window)[self._band]
                pair.add(spectra[loud], spectra[quiet])


class _Pair:
    """A loud and a quiet channel: the sums of which their coherence is made."""

    def __init__(self) -> None:
        self.count = 0
        self._loud: NDArray[np.float64] | float = 0.0
        self._quiet: NDArray[np.float64] | float = 0.0
        self._shared: NDArray[np.complex128] | complex = 0j

    def add(self, loud: NDArray[np.complex64], quiet: NDArray[np.complex64]) -> None:
        self.count += 1
        self._loud = self._loud + np.square(np.abs(loud), dtype=np.float64)
        self._quiet = self._quiet + np.square(np.abs(quiet), dtype=np.float64)
        self._shared = self._shared + (np.conj(loud) * quiet).astype(np.complex128)

    @property
    def leaked(self) -> bool:
        """Whether the quiet one is mostly made of the loud one."""
        if self.count < _LEAST:
            return False
        loud = np.maximum(self._loud, np.finfo(np.float64).tiny)
        made = np.sum(np.square(np.abs(self._shared)) / loud)
        return bool(made > _LEAKED * np.sum(self._quiet))
