"""The parts of a voice: glottal pulses, resonators, and a filter that moves with the articulation."""

from __future__ import annotations

from math import gcd, lcm, sqrt

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz; signals are resampled from it, so that a voice is the same voice at every sampling rate
HOP = 240  # samples between two settings of the filter: 15 ms
_BINS = 960  # length of its Fourier transform, a multiple of the hop: two hops, and 30 ms in which they fade


def glottal_flow(phase: NDArray[np.float64], *, open_share: float, closing_share: float) -> NDArray[np.float64]:
    """Return the air flow at phases 0 to 1 of the glottal cycle, Rosenberg's (1971) polynomial pulse with peak 1.

    Parameters
    ----------
    phase
        Place in the cycle.
    open_share
        Share of the cycle in which the glottis is open.
    closing_share
        Share of the open time in which it closes; the shorter, the brighter the voice.
    """
    peak = open_share * (1 - closing_share)
    opening = phase / peak
    closing = (phase - peak) / (open_share - peak)
    return np.where(phase < peak, opening**2 * (3 - 2 * opening), np.where(phase < open_share, 1 - closing**2, 0.0))


def resonator(frequency: NDArray[np.float64], bandwidth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Klatt's (1980) pair of poles as polynomials `(..., 3)` in the delay; frequency and bandwidth in Hz."""
    radius = np.exp(-np.pi * bandwidth / RATE)
    linear, square = -2 * radius * np.cos(2 * np.pi * frequency / RATE), radius**2
    return np.stack(np.broadcast_arrays(1.0, linear, square), axis=-1)


def tilt(tilt_db: float) -> NDArray[np.float64]:
    """Return the pole, a polynomial `(1, 2)`, that sets 4 kHz that far below low frequencies: 0 to -24 dB."""
    loss = 1 - 10 ** (min(max(tilt_db, -24.0), 0.0) / 10)
    pole = loss / (1 + sqrt(1 - loss**2))
    return np.array([[1 / (1 - pole), -pole / (1 - pole)]])


def cascade(*sections: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply polynomials `(frame or 1, order + 1)`.

    Examples
    --------
    >>> cascade(np.array([[1, -1]]), np.array([[1, 1]]))
    array([[ 1.,  0., -1.]])
    """
    product = np.ones((1, 1))
    for section in sections:
        order = section.shape[1] - 1
        shifted = [np.pad(product * section[:, i, None], ((0, 0), (i, order - i))) for i in range(order + 1)]
        product = np.sum(shifted, axis=0)
    return product


def moving_filter(
    signal: NDArray[np.float64], *, zeros: NDArray[np.float64], poles: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Filter a signal with settings that are crossfaded from hop to hop (overlap-add).

    Parameters
    ----------
    signal
        `(sample,)`, a whole number of hops.
    zeros, poles
        Numerator and denominator, polynomials in the delay `(frame or 1, order + 1)`; frame k is centred on sample
        k `HOP`, so there is one frame more than hops.

    Returns
    -------
    NDArray[np.float64]
        The filtered signal `(sample,)`.
    """
    hops = np.pad(signal, HOP).reshape(-1, HOP)
    frames = np.concatenate((hops[:-1], hops[1:]), axis=1) * np.hanning(2 * HOP + 1)[:-1]
    spectra = np.fft.rfft(frames, _BINS) * np.fft.rfft(zeros, _BINS) / np.fft.rfft(poles, _BINS)
    pieces = np.fft.irfft(spectra, _BINS).reshape(len(frames), -1, HOP)
    filtered = np.zeros((len(frames) + pieces.shape[1], HOP))
    for place in range(pieces.shape[1]):
        filtered[place : place + len(frames)] += pieces[:, place]
    return filtered.ravel()[HOP : HOP + len(signal)]


def whole_length(duration_s: float, *, sampling_rate: int) -> int:
    """Return the least number of samples at `RATE` that hold a duration, in whole hops, and can be resampled.

    Examples
    --------
    >>> whole_length(0.01, sampling_rate=8000), whole_length(0.01, sampling_rate=44_100)
    (240, 480)
    """
    unit = lcm(HOP, RATE // gcd(sampling_rate, RATE))
    return -(-round(duration_s * RATE) // unit) * unit


def resample(signal: NDArray[np.float64], *, sampling_rate: int) -> NDArray[np.float64]:
    """Resample a signal of `whole_length` from `RATE` through its Fourier transform; its ends must be silent."""
    if sampling_rate == RATE:
        return signal
    samples = len(signal) * sampling_rate // RATE
    return np.fft.irfft(np.fft.rfft(signal), samples) * (sampling_rate / RATE)
