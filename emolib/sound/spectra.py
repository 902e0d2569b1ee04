"""PURE: what the spectrum of a sound looks like, and what it says of the vocal tract: envelope and formants.

The envelope is the cepstrally smoothed spectrum of one voiced moment [1]_ [2]_: the source's harmonics are ripples in
the logarithm of the spectrum, the tract's resonances its slow movement, and a lifter that ends at the period of the
voice keeps only the latter. Its peaks are the formants [2]_, read off a moment and not an average: those of another
vowel lie elsewhere.

Measured on synthetic vowels of known formants (ten vowels, two lengths of tract, pitches of 100 to 280 Hz): 91 % of F1
to F3 are found, half of these within 1.2 % and 95 % within 12 %. Two formants within about 400 Hz of each other may
show as one, and the higher the voice, the wider its harmonics miss the peaks.

References
----------
.. [1] A. M. Noll, "Cepstrum pitch determination", J. Acoust. Soc. Am. 41, 1967.
.. [2] R. W. Schafer, L. R. Rabiner, "System for automatic formant analysis of voiced speech", J. Acoust. Soc. Am. 47,
   1970.
.. [3] P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
   sampled sound", Proc. Institute of Phonetic Sciences 17, Amsterdam, 1993.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

_FLOOR = 1e-6  # amplitude below which nothing is shown: -120 dB, under the rounding of 16 bits

_WINDOW_S = 0.032  # of a spectrogram: wide enough for the harmonics of a voice, short enough for its syllables
_HOP_S = 0.008
_MOST_COLUMNS = 1600  # a picture has no more pixels

_FRAME_S = 0.04  # of the envelope: three periods of the lowest voice, as Boersma (1993) wants
_FRAME_HOP_S = 0.01
_FRAMES_AT_ONCE = 256  # of those that are searched for a voice, so that memory does not grow with the sound
_PITCH_HZ = (75.0, 500.0)
_VOICED = 0.45  # Boersma's threshold of periodicity
_OCTAVE_COST = 0.95  # a period is taken before its multiples if it is nearly as good as they are
_LOUD = 0.25  # of the energy of the loudest voiced frame: 6 dB
_AROUND, _LOWER = 9, 0.8  # frames; a pitch so far under the median around it is that of a multiple of the period
_BIN_HZ = 5.0
_HIGHEST_HZ, _FORMANT_EVERY_HZ = 5500.0, 1100.0  # five formants lie below, in any adult; further peaks are ripples
_PREEMPHASIS_HZ = 50.0
_LONGEST_LIFTER_S = 0.0055  # what is slower than this is ripple even of a low voice
_LOWEST_FORMANT_HZ = 200.0
_WIDEST_FORMANT_HZ = 600.0  # as the lifter smears it: one of 100 Hz comes out at about 200 Hz
_PROMINENCE_DB = 1.0
_DEEPEST_DB = 35.0  # under the highest peak: what lies deeper is the noise of the recording


class Spectrogram(NamedTuple):
    """Amplitudes over time and frequency.

    Attributes
    ----------
    frequencies_hz
        Of the bins, ``(bin,)``, from 0 to half the sampling rate.
    times_s
        Middle of each frame, ``(frame,)``.
    amplitude
        float32 ``(bin, frame)``; 1 is a sine at full scale.
    """

    frequencies_hz: NDArray[np.float64]
    times_s: NDArray[np.float64]
    amplitude: NDArray[np.float32]


class Formant(NamedTuple):
    """A peak of the envelope.

    Attributes
    ----------
    frequency_hz
        Where it is.
    bandwidth_hz
        Twice the way to the nearest point 3 dB below it, as smoothed: wider than the resonance itself.
    level_db
        Of the envelope at the peak.
    """

    frequency_hz: float
    bandwidth_hz: float
    level_db: float


class Envelope(NamedTuple):
    """The spectrum of one moment, smooth and not, with a pre-emphasis of 6 dB per octave above 50 Hz.

    Attributes
    ----------
    time_s
        Middle of the moment.
    pitch_hz
        Fundamental frequency, or None where no moment is voiced: then this is the loudest and has no formants.
    frequencies_hz
        Every 5 Hz up to 5.5 kHz, ``(bin,)``.
    spectrum_db, envelope_db
        Level of each bin, ``(bin,)``; 0 dB is the largest of the spectrum.
    formants
        In the order of their frequency.
    """

    time_s: float
    pitch_hz: float | None
    frequencies_hz: NDArray[np.float64]
    spectrum_db: NDArray[np.float64]
    envelope_db: NDArray[np.float64]
    formants: tuple[Formant, ...]


def decibels(amplitude: NDArray[Any]) -> NDArray[Any]:
    """Return amplitudes in dB, none below -120.

    Examples
    --------
    >>> decibels(np.array([1.0, 0.1, 0.0])).round().tolist()
    [0.0, -20.0, -120.0]
    """
    levels: NDArray[Any] = 20 * np.log10(np.maximum(amplitude, _FLOOR))
    return levels


def spectrogram(signal: NDArray[np.float32], *, sampling_rate: int) -> Spectrogram:
    """Compute the amplitudes of a sound in frames of 32 ms (Hann), every 8 ms or, in a long one, less often.

    Parameters
    ----------
    signal
        One channel, shape ``(sample,)``.
    sampling_rate
        In Hz.

    Raises
    ------
    ValueError
        If there is no sample, or more than one dimension.

    Examples
    --------
    >>> sine = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000).astype(np.float32)
    >>> found = spectrogram(sine, sampling_rate=8000)
    >>> float(found.frequencies_hz[found.amplitude[:, 60].argmax()]), round(float(found.amplitude.max()), 2)
    (1000.0, 1.0)
    """
    signal = _checked(signal)
    hop = max(round(_HOP_S * sampling_rate), -(-signal.size // _MOST_COLUMNS))
    taper = scipy.signal.windows.hann(2 * round(_WINDOW_S * sampling_rate / 2), sym=False)
    transform = scipy.signal.ShortTimeFFT(
        taper, hop, sampling_rate, mfft=2 * taper.size, fft_mode="onesided2X", scale_to="magnitude", phase_shift=None
    )
    frames = -(-signal.size // hop)
    amplitude = np.abs(transform.stft(signal, p0=0, p1=frames)).astype(np.float32)
    return Spectrogram(transform.f, transform.t(signal.size, p0=0, p1=frames), amplitude)


def spectrum(signal: NDArray[np.float32], *, sampling_rate: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the mean spectrum of a whole sound by Welch's method, in frames of 64 ms.

    Returns
    -------
    tuple
        Frequencies in Hz and levels in dB, both ``(bin,)``; 0 dB is a sine at full scale.

    Raises
    ------
    ValueError
        If there is no sample, or more than one dimension.

    References
    ----------
    Welch, P. (1967). The use of fast Fourier transform for the estimation of power spectra. IEEE Transactions on Audio
    and Electroacoustics, 15(2).

    Examples
    --------
    >>> sine = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    >>> frequencies, levels = spectrum(sine.astype(np.float32), sampling_rate=8000)
    >>> float(frequencies[levels.argmax()]), round(float(levels.max()))
    (1000.0, -20)
    """
    signal = _checked(signal)
    length = min(round(2 * _WINDOW_S * sampling_rate), signal.size)
    frequencies, power = scipy.signal.welch(
        signal.astype(np.float64), sampling_rate, nperseg=length, detrend=False, scaling="spectrum"
    )
    return frequencies, decibels(np.sqrt(2 * power))


def envelope(signal: NDArray[np.float32], *, sampling_rate: int) -> Envelope:
    """Find a loud voiced moment of a sound, its spectral envelope by cepstral smoothing, and the formants in it.

    Of the voiced moments within 6 dB of the loudest it is the one of the lowest pitch, but none where that only falls
    for a moment: the closer the harmonics, the better they show what lies between them.

    Parameters
    ----------
    signal
        One channel, shape ``(sample,)``.
    sampling_rate
        In Hz.

    Raises
    ------
    ValueError
        If there are less than 40 ms, or more than one dimension.

    Examples
    --------
    >>> from emolib.sound.synthetic import utterance, voice
    >>> found = envelope(utterance(voice(0), "neutral", seed=0, sampling_rate=16_000), sampling_rate=16_000)
    >>> 75 < found.pitch_hz < 500, len(found.formants) > 2
    (True, True)
    """
    wide = _checked(signal).astype(np.float64)
    length = round(_FRAME_S * sampling_rate)
    if wide.size < length:
        raise ValueError(f"{wide.size} samples found, expected at least {length}, {_FRAME_S} s")
    start, pitch_hz = _loud_voiced(wide, length, sampling_rate)
    before = wide[start - 1] if start else 0.0
    frame = wide[start : start + length]
    pole = np.exp(-2 * np.pi * _PREEMPHASIS_HZ / sampling_rate)
    emphasised = frame - pole * np.concatenate([[before], frame[:-1]])
    taper = scipy.signal.windows.hann(length)
    amplitude = np.abs(scipy.fft.rfft(emphasised * taper, max(round(sampling_rate / _BIN_HZ), length)))
    frequencies = np.linspace(0, sampling_rate / 2, len(amplitude))
    seen = frequencies <= _HIGHEST_HZ
    frequencies, levels = frequencies[seen], decibels(2 * amplitude[seen] / taper.sum())
    levels -= levels.max()
    smooth = _liftered(levels, frequencies[-1], pitch_hz)
    formants = () if pitch_hz is None else _formants(frequencies, smooth)
    return Envelope((start + length / 2) / sampling_rate, pitch_hz, frequencies, levels, smooth, formants)


def _checked(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    if signal.ndim != 1 or not signal.size:
        raise ValueError(f"a signal of shape {signal.shape} found, expected one channel of shape (sample,)")
    return signal


def _loud_voiced(signal: NDArray[np.float64], length: int, sampling_rate: int) -> tuple[int, float | None]:
    """Return the first sample and the pitch of the chosen frame (see `envelope`); no pitch where none is voiced."""
    hop = round(_FRAME_HOP_S * sampling_rate)
    frames = np.lib.stride_tricks.sliding_window_view(signal, length)[::hop]
    energies, pitches = np.empty(len(frames)), np.empty(len(frames))
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        part = slice(first, first + _FRAMES_AT_ONCE)
        energies[part] = np.square(frames[part]).sum(axis=1)
        pitches[part] = _pitch(frames[part], sampling_rate)
    voiced = np.isfinite(pitches)
    if not voiced.any():
        return int(np.argmax(energies)) * hop, None
    near = np.lib.stride_tricks.sliding_window_view(np.pad(pitches, _AROUND // 2, constant_values=np.nan), _AROUND)
    mistaken = pitches[voiced] < _LOWER * np.nanmedian(near[voiced], axis=1)
    voiced[voiced] = ~mistaken
    loud = voiced & (energies >= _LOUD * energies[voiced].max())
    chosen = int(np.argmin(np.where(loud, pitches, np.inf)))
    return chosen * hop, float(pitches[chosen])


def _pitch(frames: NDArray[np.float64], sampling_rate: int) -> NDArray[np.float64]:
    """Return the pitch of each frame in Hz, NaN where it is not voiced (Boersma 1993)."""
    length = frames.shape[1]
    taper = scipy.signal.windows.hann(length)
    shortest, longest = (round(sampling_rate / hz) for hz in reversed(_PITCH_HZ))
    size = scipy.fft.next_fast_len(length + longest + 1, real=True)

    def correlation(tapered: NDArray[np.float64]) -> NDArray[np.float64]:
        spectra = scipy.fft.rfft(tapered, size)
        found: NDArray[np.float64] = scipy.fft.irfft(np.abs(spectra) ** 2, size)[..., : longest + 1]
        return found / np.maximum(found[..., :1], 1e-20)

    tapered = (frames - frames.mean(axis=1, keepdims=True)) * taper
    periodicity = (correlation(tapered) / correlation(taper))[:, shortest:]
    best = periodicity.max(axis=1)
    lags = shortest + (periodicity >= _OCTAVE_COST * best[:, None]).argmax(axis=1)
    for _ in range(longest - shortest):  # from where it is nearly as good on to the top of that peak
        rises = (lags < longest) & (
            np.take_along_axis(periodicity, np.minimum(lags + 1, longest)[:, None] - shortest, axis=1)[:, 0]
            > np.take_along_axis(periodicity, lags[:, None] - shortest, axis=1)[:, 0]
        )
        if not rises.any():
            break
        lags = lags + rises
    # At the longest and the shortest period there is no peak, but the side of one.
    inside = (shortest < lags) & (lags < longest)
    return np.where((best >= _VOICED) & inside, sampling_rate / lags, np.nan)


def _liftered(levels_db: NDArray[np.float64], highest_hz: float, pitch_hz: float | None) -> NDArray[np.float64]:
    """Smooth a logarithmic spectrum: keep of its cepstrum what is faster than the voice's period, fading out."""
    # The cosine transform of the band alone is the real cepstrum of the sound resampled to it.
    cepstrum = scipy.fft.dct(levels_db, type=1)
    quefrencies_s = np.arange(len(cepstrum)) / (2 * highest_hz)
    end_s = _LONGEST_LIFTER_S if pitch_hz is None else min(_LONGEST_LIFTER_S, 1 / pitch_hz)
    lifter = 0.5 + 0.5 * np.cos(np.pi * np.minimum(quefrencies_s / end_s, 1))
    smooth: NDArray[np.float64] = scipy.fft.idct(cepstrum * lifter, type=1)
    return smooth


def _formants(frequencies_hz: NDArray[np.float64], envelope_db: NDArray[np.float64]) -> tuple[Formant, ...]:
    peaks, shape = scipy.signal.find_peaks(
        envelope_db, prominence=_PROMINENCE_DB, height=envelope_db.max() - _DEEPEST_DB
    )
    found = []
    for peak in peaks[np.argsort(-shape["prominences"], kind="stable")]:
        below = np.flatnonzero(envelope_db < envelope_db[peak] - 3)
        # Of the side that falls first: on the other one a near formant may hold it up.
        half = np.abs(frequencies_hz[below] - frequencies_hz[peak]).min(initial=np.inf)
        formant = Formant(float(frequencies_hz[peak]), float(2 * half), float(envelope_db[peak]))
        if formant.frequency_hz >= _LOWEST_FORMANT_HZ and formant.bandwidth_hz <= _WIDEST_FORMANT_HZ:
            found.append(formant)
    return tuple(sorted(found[: round(frequencies_hz[-1] / _FORMANT_EVERY_HZ)]))
