"""Dual-mono channels: one sound that a recorder wrote on several channels, at other levels, late, inverted, with noise.

Both parties are then heard on each of them. Two channels hold one sound if what is heard on either is the other one
times a number that never changes, so much later. Whose lines cross or echo is heard on both channels, too, but each
party is louder on his own: the difference of the levels turns with whoever speaks.

A pair is compared by its normalised cross-correlation [1]_ in the band where speech is strongest and codecs keep its
waveform, at the one lag that suits all stretches of half a second in which somebody is heard. With every stretch made
equally loud (as the geometric mean of both channels) it is ``sum(r) / sqrt(sum(a) * sum(1 / a))``, where ``r`` is the
correlation of a stretch and ``a`` the ratio of its levels. It is 1 for one sound, and falls with noise, with another
lag, and with every other ratio. Of 400 pairs of one sound with codecs and noise the lowest was 0.87; of 400 with
crossed lines or echo the highest was 0.48, and 0.57 of 80 made of the voices of a real call.

Where one party alone is heard, and leaks into the other channel, that is one sound too: it is taken for dual mono if
the leak is less than 14 dB lower. So it is where lines cross as much, and one party hardly ever speaks.

References
----------
.. [1] C. Knapp, G. Carter, "The generalized correlation method for estimation of time delay", IEEE Transactions on
   Acoustics, Speech, and Signal Processing 24, 1976.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

_STRETCH_S = 0.5
# Stretches that are kept, evenly spaced over the recording, and those of them that are compared in full.
_MOST_KEPT, _MOST_COMPARED = 128, 64
_MOST_CHANNELS = 8  # a pair costs some milliseconds, and more channels have dozens of pairs
_BAND_HZ = (200.0, 1500.0)
_LATEST_S = 0.05  # by which a channel may be late, what codecs add to 40 ms included
_APART_DB = 14.0  # what is lower is a leak (a headset, a hybrid), and the party is louder on another channel
# Somebody is heard where the power is a quarter of the way from pauses to loud speech: noise has no say.
_QUIET, _LOUD, _HEARD = 0.1, 0.95, 0.25
_FAINT = 0.1  # of the energy of most stretches
_LEVEL_DB, _ALIKE = 6.0, 0.4  # a stretch whose ratio differs by more, or that correlates less, contradicts
_LOOK_NO_FURTHER = 0.25  # share of contradictions in level alone; a word that is cut by a delay is one of a few
_CONTRADICTED = 0.04  # share of the stretches: who says only a word in a minute is a party
_SAME = 0.7


class DualMonoStream:
    """Find the channels of a recording that hold one sound; the same whatever blocks they come in.

    Memory holds a minute of sound at most, however long the recording is: from then on every second stretch is looked
    at, then every fourth, and so on.

    Parameters
    ----------
    sampling_rate
        In Hz.
    min_level_dbfs
        A channel whose loud stretches lie below this level is silent, and silence is no sound that is the same.

    Examples
    --------
    >>> first, other = 0.1 * np.random.default_rng(0).standard_normal((2, 80_000)).astype(np.float32)
    >>> stream = DualMonoStream(3, sampling_rate=8000, min_level_dbfs=-60.0)
    >>> stream.push(np.stack([first, other, 0.02 - 0.3 * np.roll(first, 200)]))
    >>> stream.finish()
    [(0, 2)]
    """

    def __init__(self, channels: int, *, sampling_rate: int, min_level_dbfs: float) -> None:
        self._is_compared = 1 < channels <= _MOST_CHANNELS
        self._size = 2 ** round(math.log2(_STRETCH_S * sampling_rate))
        self._rate = sampling_rate
        self._least_power = 10 ** (min_level_dbfs / 10)
        self._samples = 0
        # The stretch that is being filled, its number, and how far it is from the one before.
        self._open = np.empty((channels, self._size), np.float32)
        self._number, self._step = 0, 1
        self._kept: list[NDArray[np.float32]] = []

    def push(self, block: NDArray[np.float32]) -> None:
        """Take the next samples, float32 ``(channel, sample)``."""
        begin, self._samples = self._samples, self._samples + block.shape[1]
        while self._is_compared and (start := self._number * self._size) < self._samples:
            part = block[:, max(0, start - begin) : start + self._size - begin]
            filled = max(0, begin - start)
            self._open[:, filled : filled + part.shape[1]] = part
            if start + self._size > self._samples:
                return
            self._kept.append(self._open)
            self._open = np.empty_like(self._open)
            self._number += self._step
            if len(self._kept) == _MOST_KEPT:
                self._kept, self._step = self._kept[::2], 2 * self._step

    def finish(self) -> list[tuple[int, ...]]:
        """Return the groups of channels that hold one sound, each in order, by their first channels."""
        kept = [*self._kept, *self._rest()] if self._is_compared else []
        if not kept:
            return []
        # One by one: some of them together are many more samples.
        power = np.stack([_power([each[channel] for each in kept]) for channel in range(len(kept[0]))], axis=1)
        quiet, loud = np.quantile(power, [_QUIET, _LOUD], axis=0)
        heard = power >= quiet + _HEARD * (loud - quiet)
        level_db = 10 * np.log10(np.maximum(power - quiet, 1e-3 * self._least_power))
        groups: list[list[int]] = []
        for channel in np.flatnonzero(loud >= self._least_power).tolist():
            for group in groups:
                pair = [group[0], channel]
                on_either = np.flatnonzero(heard[:, pair].any(axis=1))
                apart_db = level_db[on_either, group[0]] - level_db[on_either, channel]
                if _is_far(apart_db).mean() > _LOOK_NO_FURTHER:
                    continue
                count = min(len(on_either), _MOST_COMPARED)
                chosen = on_either[np.linspace(0, len(on_either) - 1, count).round().astype(np.int64)]
                if self._is_same(np.stack([kept[number][pair] for number in chosen])):
                    group.append(channel)
                    break
            else:
                groups.append([channel])
        return [tuple(group) for group in groups if len(group) > 1]

    def _rest(self) -> list[NDArray[np.float32]]:
        """Return what is left at the end, filled up with the means of the channels, if it is most of a stretch."""
        filled = self._samples - self._number * self._size
        if filled <= self._size // 2:
            return []
        self._open[:, filled:] = self._open[:, :filled].mean(axis=1, keepdims=True)
        return [self._open]

    def _is_same(self, stretches: NDArray[np.float32]) -> bool:
        """Return whether two channels hold one sound, ``(stretch, 2, sample)``."""
        correlations, energies = self._correlations(stretches)
        mean = correlations.mean(axis=0)
        lag = int(np.abs(mean).argmax())
        correlation, energy = correlations[:, lag] * np.sign(mean[lag]), energies[:, :, lag]
        # Of a stretch that is loud at its ends alone the middle, which is compared, is noise.
        loud = (energy >= _FAINT * np.median(energy, axis=1, keepdims=True)).any(axis=0)
        correlation, ratio = correlation[loud], np.sqrt(energy[0, loud] / energy[1, loud])
        apart_db = 20 * np.log10(ratio)
        contradicted = int(np.count_nonzero(_is_far(apart_db) | (correlation < _ALIKE)))
        return bool(
            abs(np.median(apart_db)) <= _APART_DB
            and contradicted <= max(1, _CONTRADICTED * len(ratio))
            and correlation.sum() >= _SAME * math.sqrt(ratio.sum() * (1 / ratio).sum())
        )

    def _correlations(self, stretches: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return normalised cross-correlation ``(stretch, lag)``, and energies ``(channel, stretch, lag)``.

        The middle of a stretch of the first channel is held against as much of the second one, at every lag.
        """
        size = self._size
        spectra = scipy.fft.rfft(stretches, axis=2)
        first, last = np.searchsorted(scipy.fft.rfftfreq(size, 1 / self._rate), _BAND_HZ)
        spectra[..., :first] = spectra[..., last:] = 0
        lags = round(_LATEST_S * self._rate)
        middle, other = np.moveaxis(scipy.fft.irfft(spectra, size, axis=2), 1, 0)
        middle[:, :lags] = middle[:, size - lags :] = 0
        shared = scipy.fft.irfft(np.conj(scipy.fft.rfft(middle, axis=1)) * scipy.fft.rfft(other, axis=1), size, axis=1)
        shared = np.concatenate([shared[:, size - lags :], shared[:, : lags + 1]], axis=1).astype(np.float64)
        energy = np.square(middle, dtype=np.float64).sum(axis=1, keepdims=True)
        # Of the second one: from lag to lag a sample comes at the end, and one goes at the beginning.
        energies = np.empty(shared.shape)
        energies[:, 0] = np.square(other[:, : size - 2 * lags], dtype=np.float64).sum(axis=1)
        comes = np.square(other[:, size - 2 * lags :], dtype=np.float64)
        goes = np.square(other[:, : 2 * lags], dtype=np.float64)
        energies[:, 1:] = energies[:, :1] + np.cumsum(comes - goes, axis=1)
        least = 1e-6 * self._least_power * size
        both = np.maximum(np.stack([np.broadcast_to(energy, energies.shape), energies]), least)
        return shared / np.sqrt(both[0] * both[1]), both


def _power(stretches: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return the power of each stretch without its offset."""
    sound = np.stack(stretches)
    energy = np.einsum("ij,ij->i", sound, sound).astype(np.float64)
    power: NDArray[np.float64] = energy / sound.shape[1] - np.square(sound.mean(axis=1), dtype=np.float64)
    return power


def _is_far(ratio_db: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which ratios of the levels are far from most of them."""
    far: NDArray[np.bool_] = np.abs(ratio_db - np.median(ratio_db)) > _LEVEL_DB
    return far
