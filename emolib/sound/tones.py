"""Which frames of a channel are tones: dial, ring-back, busy and fax tones, and dialled digits. Pure.

A tone of the telephone network (ITU-T E.180, Q.23, T.30) is one sinusoid or two, or one of which only the level moves.
A voice moves all the time, even where a single harmonic is left of it. What a frame is depends on no more than `PAST`
frames before it and `AHEAD` after it, so that a channel may be heard in pieces.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

PAST, AHEAD = 170, 10

_LOBE = np.arange(-2, 3)  # bins of a sinusoid behind a Hann window
# A frame of 30 ms goes with the one before it if so much of the energy of either lies in two peaks, and the centre of
# the two and the level are the same: tones with noise 25 dB below, whatever their beat, differ by less.
_TWO, _STEADY_HZ, _LEVEL = 0.985, 4.0, 10**0.2
# Or if so much lies in one peak, and its centre is the same: the level of some ring-back tones moves at 16 to 25 Hz.
_ONE, _UNMOVED_HZ = 0.92, 2.0
_LOWEST_HZ = 300.0  # what hums below that is no tone of a telephone
# So many frames that go together are a tone. Fewer are one if their level is the same and they are a whole burst: next
# to nothing lies before and after it.
_LONG = 6
_DROP = 10**1.2
# WebRTC's detector takes what follows a tone for speech, up to five frames of it, or all the noise of a bad line. That
# is looked for as long as a ring-back tone pauses.
_HANGOVER, _PAUSE = 5, 150

# ITU-T Q.23. Frequencies may be off by 1.8 %, and an estimate within a frame by another 10 Hz.
_DTMF_LOW_HZ, _DTMF_HIGH_HZ = (697.0, 770.0, 852.0, 941.0), (1209.0, 1336.0, 1477.0, 1633.0)
_DTMF_OFF, _DTMF_OFF_HZ = 0.018, 10.0
_DTMF_LEAST = 0.1  # of the energy in the weaker of the two


def power_spectra(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the power spectra ``(frame, bin)`` of frames ``(frame, sample)``, behind a Hann window."""
    shape = scipy.fft.rfft(frames * _taper(frames.shape[1]), axis=1)
    spectra: NDArray[np.float32] = np.square(shape.real) + np.square(shape.imag)
    return spectra


def find_peaks(spectra: NDArray[np.float32], *, bin_hz: float) -> NDArray[np.float64]:
    """Return what the highest peaks of power spectra ``(frame, bin)`` are.

    Returns
    -------
    NDArray[np.float64]
        ``(3, frame)``: the centre of the highest peak in Hz, NaN where that is not nearly all; the centre of the two
        highest, NaN where these are not nearly all; 1 where they are those of a dialled digit, else 0. Both are NaN
        below 300 Hz.
    """
    rows = np.arange(len(spectra))[:, np.newaxis]
    # Two bins of nothing at either end: there the lobe of a peak ends as well.
    left = np.zeros((len(spectra), spectra.shape[1] + 4), np.float32)
    left[:, 2:-2] = spectra
    at, energy, moment = [], [], []
    for _ in range(2):
        bins = left.argmax(axis=1)[:, np.newaxis] + _LOBE
        lobe = left[rows, bins]
        left[rows, bins] = 0
        at.append(bins[:, 2] - 2)
        energy.append(lobe.sum(axis=1))
        moment.append((lobe * _LOBE).sum(axis=1))
    total, both = spectra.sum(axis=1), energy[0] + energy[1]
    two = both > _TWO * total
    found = np.full((3, len(spectra)), np.nan)
    np.divide(moment[0], energy[0], out=found[0], where=energy[0] > _ONE * total)
    np.divide(moment[0] + moment[1] + energy[1] * (at[1] - at[0]), both, out=found[1], where=two)
    found[:2] = (found[:2] + at[0]) * bin_hz
    found[found < _LOWEST_HZ] = np.nan
    found[2] = 0
    low_hz = np.minimum(*at) * bin_hz
    pairs = np.flatnonzero(two & (energy[1] > _DTMF_LEAST * both) & (low_hz > 0.9 * _DTMF_LOW_HZ[0]))
    if len(pairs):
        hz = np.sort([_exact(spectra[pairs], each[pairs]) * bin_hz for each in at], axis=0)
        found[2, pairs] = _known(hz[0], _DTMF_LOW_HZ) & _known(hz[1], _DTMF_HIGH_HZ)
    return found


def find_tones(
    power: NDArray[np.float64],
    one_hz: NDArray[np.float64],
    two_hz: NDArray[np.float64],
    digit: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which frames are tones, and which are the line after a tone, with nothing on it.

    Parameters
    ----------
    power
        Mean power of frames of 30 ms in a row, ``(frame,)``.
    one_hz, two_hz, digit
        What `find_peaks` found in them; NaN in silence, where nobody looked.

    Returns
    -------
    tuple
        Twice ``(frame,)``, bool.

    Examples
    --------
    >>> burst = np.sin(2 * np.pi * 425 / 8000 * np.arange(1000))
    >>> frames = np.concatenate([np.zeros(4900), burst, np.zeros(6100)]).astype(np.float32).reshape(-1, 240)
    >>> peaks = find_peaks(power_spectra(frames), bin_hz=8000 / 240)
    >>> tone, after = find_tones(np.square(frames, dtype=np.float64).mean(axis=1), *peaks)
    >>> np.flatnonzero(tone).tolist(), np.flatnonzero(after)[0]
    ([20, 21, 22, 23, 24], np.int64(25))
    """
    steady = _level(power) & (np.abs(two_hz[1:] - two_hz[:-1]) <= _STEADY_HZ)
    together = steady | (np.abs(one_hz[1:] - one_hz[:-1]) <= _UNMOVED_HZ)
    core = digit == 1
    for first, last in _runs(together):
        core[first : last + 1] |= last - first + 1 >= _LONG
    for first, last in _runs(steady):
        # The next frame at either end may hold a part of the burst, the one beyond does not.
        outside = power[max(0, first - 2)], power[min(last + 2, len(power) - 1)]
        core[first : last + 1] |= max(outside) * _DROP < power[first]
    if not core.any():
        return core, core
    tone = core | _cut_short(core, power) | _cut_short(core[::-1], power[::-1])[::-1]
    return tone, _after(tone, power)


@lru_cache(maxsize=8)
def _taper(samples: int) -> NDArray[np.float32]:
    taper: NDArray[np.float32] = scipy.signal.windows.hann(samples, sym=False).astype(np.float32)
    return taper


def _exact(spectra: NDArray[np.float32], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return where peaks lie between the bins: a parabola through the logarithms of three of them."""
    rows, at = np.arange(len(at)), np.clip(at, 1, spectra.shape[1] - 2)
    below, top, above = (np.log(spectra[rows, at + step].astype(np.float64) + 1e-30) for step in (-1, 0, 1))
    curve = below - 2 * top + above
    offset = np.where(curve < 0, 0.5 * (below - above) / np.where(curve < 0, curve, 1.0), 0.0)
    exact: NDArray[np.float64] = at + np.clip(offset, -0.5, 0.5)
    return exact


def _known(hz: NDArray[np.float64], group: tuple[float, ...]) -> NDArray[np.bool_]:
    off = np.min([np.abs(hz - known) - _DTMF_OFF * known for known in group], axis=0)
    known: NDArray[np.bool_] = off <= _DTMF_OFF_HZ
    return known


def _level(power: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which powers are those that come before them, ``(power - 1,)``."""
    level: NDArray[np.bool_] = np.maximum(power[1:], power[:-1]) <= _LEVEL * np.minimum(power[1:], power[:-1])
    return level


def _runs(together: NDArray[np.bool_]) -> list[list[int]]:
    """Return first and last frame of each run; ``together (frame - 1,)`` says which go with the one before."""
    padded = np.concatenate([[False], together, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    runs: list[list[int]] = edges.reshape(-1, 2).tolist()
    return runs


def _cut_short(core: NDArray[np.bool_], power: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the frames within which a tone begins: before them is nothing, or a tone that ends there."""
    at = np.flatnonzero(~core[:-1] & core[1:])
    before, tone = power.take(at - 1, mode="clip"), power[at + 1]
    ends = core.take(at - 1, mode="clip") | core.take(at - 2, mode="clip")
    found = np.zeros(len(core), bool)
    found[at[(ends | (before * _DROP < tone)) & (power[at] <= _LEVEL * tone)]] = True
    return found


def _after(tone: NDArray[np.bool_], power: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return what follows tones: next to nothing, and soon no more than the steady noise of the line."""
    after, level = np.zeros(len(tone), bool), _level(power)
    for end in np.flatnonzero(tone[:-1] & ~tone[1:]) + 1:
        pause = slice(end, end + _PAUSE)
        nothing = power[pause] * _DROP < power[max(0, end - 2) : end].max()
        nothing[_HANGOVER:] &= level[end - 1 : end - 1 + _PAUSE][_HANGOVER:]
        after[end : end + np.append(nothing, False).argmin()] = True
    return after
