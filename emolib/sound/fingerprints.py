"""What a channel sounds like, in 32 bits a frame that telephone codecs leave mostly alone. Streaming. Pure.

After Haitsma and Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002): a bit says whether the difference
between the energies of two neighbouring bands has grown. Unlike theirs, energies are sums over half a second of the
spectra of 30 ms that `emolib.sound.speech` needs anyway, and a bit compares that half second with the one before: so a
fingerprint costs next to nothing. The 33 bands lie side by side between 270 and 2470 Hz, where every telephone hears.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emolib.sound.tones import power_spectra

FRAME_S = 0.03
BANDS = 33
BITS = BANDS - 1
VERSION = 1
"""Raised whenever the same sound gives other bits, or something else is known by them: files are of one version."""

_LOWEST, _BINS = 8, 2  # of a spectrum of 30 ms, whose bins lie 33.3 Hz apart: where the bands begin, and how many have
# A frame's bits compare so many frames from it on with as many before it.
REACH = 16
_FEWEST = REACH  # of those 32 frames that must hold sound
# Of the 32 differences, so many are so small that a codec may turn their sign.
_WEAK = 4


class Fingerprints(NamedTuple):
    """Fingerprints of frames in a row.

    Attributes
    ----------
    bits
        ``(frame,)``, uint32; 0 where there is hardly any sound.
    weak
        ``(frame,)``, uint32: the four bits of each that are most likely to be others in another recording of the same.
    """

    bits: NDArray[np.uint32]
    weak: NDArray[np.uint32]


def band_energies(spectra: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the energies of the bands ``(frame, band)`` of power spectra of frames of 30 ms ``(frame, bin)``."""
    end = _LOWEST + _BINS * BANDS
    energies: NDArray[np.float32] = spectra[:, _LOWEST:end:_BINS] + spectra[:, _LOWEST + 1 : end : _BINS]
    return energies


class FingerprintStream:
    """Fingerprints of one channel whose energies come in pieces: the same however they are cut.

    Examples
    --------
    >>> energies = np.random.default_rng(0).random((100, BANDS), np.float32)
    >>> stream = FingerprintStream()
    >>> found = [*map(len, (stream.push(energies[:60]), stream.push(energies[60:]), stream.finish()))]
    >>> found, int(stream.push(energies[:20])[0]) != 0
    ([45, 40, 15], True)
    """

    def __init__(self) -> None:
        self._last = np.zeros((REACH, BANDS), np.float32)

    def push(self, energies: NDArray[np.float32]) -> NDArray[np.uint32]:
        """Return the bits of the frames of which enough of what follows is known now.

        Parameters
        ----------
        energies
            Of the next frames, ``(frame, band)``; 0 where there is silence.
        """
        return _bits(*self._changes(energies))

    def push_with_weak(self, energies: NDArray[np.float32]) -> Fingerprints:
        """Return what `push` does, and which of the bits are weak."""
        change, heard = self._changes(energies)
        weak = np.zeros(len(change), np.uint32)
        for position in np.argpartition(np.abs(change), _WEAK, axis=1)[:, :_WEAK].T:
            weak |= np.uint32(1) << (BITS - 1 - position).astype(np.uint32)
        return Fingerprints(_bits(change, heard), weak)

    def finish(self) -> NDArray[np.uint32]:
        """Return the bits of the last frames, where the channel ends."""
        return self.push(_SILENCE)

    def _changes(self, energies: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return how each difference between neighbouring bands has changed, ``(frame, bit)``, and where sound is."""
        whole = np.concatenate([self._last, energies])
        self._last = whole[max(0, len(whole) - 2 * REACH + 1) :].copy()
        if len(whole) < 2 * REACH:
            return np.zeros((0, BITS), np.float32), np.zeros(0, bool)
        sums, heard = whole, (whole[:, 0] > 0).astype(np.int32)
        width = 1
        while width < REACH:  # always in this order: rounding must not depend on how the sound is cut
            sums, heard = sums[width:] + sums[:-width], heard[width:] + heard[:-width]
            width *= 2
        apart = sums[:, 1:] - sums[:, :-1]
        return apart[REACH:] - apart[:-REACH], heard[REACH:] + heard[:-REACH] >= _FEWEST


_SILENCE = np.zeros((REACH - 1, BANDS), np.float32)


def _bits(change: NDArray[np.float32], heard: NDArray[np.bool_]) -> NDArray[np.uint32]:
    packed = np.packbits(change > 0, axis=1).view(">u4")[:, 0] if len(change) else np.zeros(0)
    bits: NDArray[np.uint32] = np.where(heard, packed, 0).astype(np.uint32)
    return bits


class ChannelFingerprints:
    """Fingerprints, and which of their bits are weak, of a whole channel that comes in pieces.

    Parameters
    ----------
    sampling_rate
        In Hz; 30 ms are whole samples.
    min_level_dbfs
        A frame whose RMS level lies below is silence.

    Examples
    --------
    >>> noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    >>> stream = ChannelFingerprints(8000, min_level_dbfs=-60.0)
    >>> stream.push(noise[:5000])
    >>> stream.push(noise[5000:])
    >>> found = stream.finish()
    >>> len(found.bits), len({*found.bits.tolist()}) > 50
    (66, True)
    """

    def __init__(self, sampling_rate: int, *, min_level_dbfs: float) -> None:
        self._size, self._least_power = round(sampling_rate * FRAME_S), 10 ** (min_level_dbfs / 10)
        self._stream, self._rest = FingerprintStream(), np.zeros(0, np.float32)
        self._found: list[Fingerprints] = []

    def push(self, samples: NDArray[np.float32]) -> None:
        """Take the next samples, float32 ``(sample,)``."""
        samples = np.concatenate([self._rest, samples])
        count = len(samples) // self._size
        self._rest = samples[count * self._size :].copy()
        frames = samples[: count * self._size].reshape(count, self._size)
        loud = np.einsum("ij,ij->i", frames, frames) / np.float32(self._size) >= self._least_power
        energies = np.zeros((count, BANDS), np.float32)
        energies[loud] = band_energies(power_spectra(frames[loud]))
        self._found.append(self._stream.push_with_weak(energies))

    def finish(self) -> Fingerprints:
        """Return the fingerprints from the beginning to here, where the channel ends."""
        found = [*self._found, self._stream.push_with_weak(_SILENCE)]
        return Fingerprints(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
