"""Mel-frequency cepstral coefficients, as librosa defines them.

The numbers are those of ``librosa.feature.mfcc(S=librosa.power_to_db(melspectrogram, ref=1, …))`` to 1e-3. The code is
its own because librosa rebuilds the mel bank at every call and costs a new process seconds of just-in-time compilation.

Every step treats a frame by itself (batched FFT, sparse mel bank, batched DCT), so a frame's coefficients are bitwise
the same whatever else is computed with it. A dense matrix product would not do: BLAS chooses its kernel by the number
of frames, and some kernels (OpenBLAS's for AVX-512) sum a row in another order by where in the matrix it stands.

Everything is float32, but for one thing. A float32 FFT errs by about 1e-7 of a frame's loudest parts. Where bands lie
so far below those that the coefficients would show it (a loud voice over a floor of -80 dB), the frame is transformed
in float64, which takes twice the time. Of telephone speech that is one frame in a thousand.

The FFT is SciPy's. MKL and FFTW take 0.6 and 0.7 of its time, which would save a sixth of the whole, at the price of
numbers that depend on what a worker has installed; a compiled kernel (numba) takes longer to import than all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray

from emolib.config import MfccConfig
from emolib.errors import SettingsError

# Samples of the frames worked on at a time: they, their spectra and powers stay in a core's second-level cache. More
# frames in a block cost less in calls; fewer than the least cost more than the cache gives.
_BLOCK_SAMPLES, _LEAST_FRAMES = 98_304, 128
# The largest exposure (see `_exposed`) of a frame whose float32 spectrum is good enough. On speech, music, tones and
# noise a coefficient erred by at most 4e-6 times the exposure, so by 6e-4 here; the promise is 1e-3.
_MAX_EXPOSURE = 150.0


def mfcc(
    signal: NDArray[np.float32], *, config: MfccConfig, backend: Literal["numpy", "librosa"] = "numpy"
) -> NDArray[np.float32]:
    """Compute the MFCCs of one channel.

    Parameters
    ----------
    signal
        Samples of one channel, shape ``(sample,)``, float32 in [-1, 1], at ``config.sampling_rate``.
    config
        The front end.
    backend
        ``"librosa"`` computes the same with librosa, slower: the oracle of the tests.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(frame, coefficient)``; no frames where an uncentred signal is shorter than ``config.n_fft``.

    Raises
    ------
    ValueError
        If the signal has more than one dimension or holds NaN or infinity.

    References
    ----------
    Davis, S., & Mermelstein, P. (1980). Comparison of parametric representations for monosyllabic word recognition in
    continuously spoken sentences. IEEE Transactions on ASSP, 28(4). Reference implementation: librosa 0.11.

    Examples
    --------
    >>> from emolib.config import TELEPHONE
    >>> mfcc(np.zeros(8000, np.float32), config=TELEPHONE.features).shape
    (61, 40)
    """
    signal = _checked(signal)
    frames = frame_count(signal.size, config=config)
    if not frames:
        return np.zeros((0, config.n_mfcc), np.float32)
    if backend == "librosa":
        return _librosa_mfcc(signal, config)
    if config.center:
        signal = np.pad(signal, config.n_fft // 2)
    log_mel = _log_mel(signal, config)
    if config.top_db is not None:
        np.maximum(log_mel, log_mel.max() - np.float32(config.top_db / 10), out=log_mel)
    return _cepstra(log_mel, config)


class MfccStream:
    """The MFCCs of one channel that comes in pieces: bitwise those of `mfcc` over the whole, however it is cut.

    Parameters
    ----------
    config
        The front end: frames not centred, no floor relative to the loudest frame.

    Raises
    ------
    SettingsError
        If the front end needs the whole signal before its first frame.

    Examples
    --------
    >>> from emolib.config import TELEPHONE
    >>> stream = MfccStream(config=TELEPHONE.features)
    >>> [stream.push(np.zeros(samples, np.float32)).shape for samples in (200, 200, 128)]
    [(0, 40), (2, 40), (1, 40)]
    """

    def __init__(self, *, config: MfccConfig) -> None:
        if not can_stream(config):
            raise SettingsError(
                f"a front end with center = {config.center} and top_db = {config.top_db} found, expected frames that "
                "are not centred and no floor relative to the whole signal: only such frames can be streamed"
            )
        self._config = config
        self._rest = np.zeros(0, np.float32)  # from the first sample of the next frame on
        self._skip = 0  # samples before that, where frames are further apart than they are long

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the frames that the next samples complete, shape ``(frame, coefficient)``.

        Raises
        ------
        ValueError
            If the samples have more than one dimension or hold NaN or infinity.
        """
        signal = np.concatenate([self._rest, _checked(samples)])
        skipped = min(self._skip, signal.size)
        signal, self._skip = signal[skipped:], self._skip - skipped
        frames = frame_count(signal.size, config=self._config)
        used = frames * self._config.hop_length
        self._rest, self._skip = signal[used:].copy(), self._skip + max(0, used - signal.size)
        if not frames:
            return np.zeros((0, self._config.n_mfcc), np.float32)
        return _cepstra(_log_mel(signal, self._config), self._config)


def can_stream(config: MfccConfig) -> bool:
    """Return whether a frame's coefficients depend on its own samples alone: not centred, no relative floor."""
    return not config.center and config.top_db is None


def frame_count(samples: int, *, config: MfccConfig) -> int:
    """Return how many frames a signal of so many samples has.

    Examples
    --------
    >>> from emolib.config import ARTICLE
    >>> frame_count(120_772, config=ARTICLE.features)
    236
    """
    length = samples + 2 * (config.n_fft // 2) if config.center else samples
    return max(0, 1 + (length - config.n_fft) // config.hop_length)


def frequency_warps(factors: NDArray[np.floating], *, config: MfccConfig) -> NDArray[np.float32]:
    """Return the maps that stretch the frequencies of cepstra: the same sound from a shorter or longer vocal tract.

    Moving the bands of a mel spectrum is linear, and so are the ways from cepstra to it and back. What the higher
    coefficients would have told of the bands is left out where there are fewer coefficients than bands, and what is
    moved in from beyond the bank is its last band.

    Parameters
    ----------
    factors
        By what frequencies are multiplied, ``(factor,)``; a shorter tract has more than 1.
    config
        The front end that made the cepstra.

    Returns
    -------
    NDArray[np.float32]
        Shape ``(factor, coefficient, coefficient)``: ``cepstra @ map`` is the warped ``(frame, coefficient)``.

    References
    ----------
    Pitz, M., & Ney, H. (2005). Vocal tract normalization equals linear transformation in cepstral space. IEEE
    Transactions on Speech and Audio Processing, 13(5).

    Examples
    --------
    >>> from emolib.config import TELEPHONE
    >>> same, higher = frequency_warps(np.array([1.0, 1.1]), config=TELEPHONE.features)
    >>> bool(np.allclose(same, np.eye(40), atol=1e-5)), higher.shape
    (True, (40, 40))
    """
    centres, bands = _mel_edges(config)[1:-1], np.arange(config.n_mels)
    basis = scipy.fft.dct(np.eye(config.n_mels), axis=1, norm="ortho")[:, : config.n_mfcc]
    # Column by column: a band of the warped spectrum lies between two of the one that there is.
    sources = np.interp(centres / factors[:, None], centres, bands)
    moved = np.maximum(0.0, 1.0 - np.abs(bands[:, None] - sources[:, None, :]))
    maps: NDArray[np.float32] = (basis.T @ moved @ basis).astype(np.float32)
    return maps


def _checked(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    signal = np.ascontiguousarray(signal, dtype=np.float32)
    if signal.ndim != 1:
        raise ValueError(f"a signal of shape {signal.shape} found, expected one channel of shape (sample,)")
    if not np.isfinite(signal).all():
        raise ValueError("a signal with NaN or infinity found, expected finite samples")
    return signal


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """What a front end needs that no signal changes.

    Attributes
    ----------
    taper, precise_taper
        Periodic Hann window in float32 and in float64, ``(sample,)``.
    bank
        Mel filters, and below them a row of ones, ``(band + 1, bin)``.
    shares
        Largest weight of each filter over the number of filters, ``(band,)``.
    """

    taper: NDArray[np.float32]
    precise_taper: NDArray[np.float64]
    bank: scipy.sparse.csr_array
    shares: NDArray[np.float32]


@lru_cache(maxsize=8)
def _tables(config: MfccConfig) -> _Tables:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    filters = _mel_filters(config).astype(np.float32)
    bank = scipy.sparse.csr_array(np.vstack([filters, np.ones_like(filters[:1])]))
    return _Tables(
        taper=hann.astype(np.float32),
        precise_taper=hann,
        bank=bank,
        shares=filters.max(axis=1) / np.float32(config.n_mels),
    )


def _log_mel(signal: NDArray[np.float32], config: MfccConfig) -> NDArray[np.float32]:
    """Return the decimal logarithm of the mel spectrogram, shape (band, frame)."""
    tables = _tables(config)
    shape = (1 + (signal.size - config.n_fft) // config.hop_length, config.n_fft)
    # A view, as sliding_window_view makes it, in a tenth of its time: that shows in short clips.
    frames = np.ndarray(shape, np.float32, signal, strides=(4 * config.hop_length, 4))
    log_mel = np.empty((config.n_mels, len(frames)), np.float32)
    step = max(_LEAST_FRAMES, _BLOCK_SAMPLES // config.n_fft)
    for start in range(0, len(frames), step):
        block = frames[start : start + step]
        mel = tables.bank @ _power(block, tables.taper)
        floored = np.maximum(mel[:-1], np.float32(config.amin))
        exposed = _exposed(mel, floored, tables, config)
        if len(exposed):
            precise = tables.bank @ _power(block[exposed], tables.precise_taper)
            floored[:, exposed] = np.maximum(precise[:-1], np.float32(config.amin))
        np.log10(floored, out=log_mel[:, start : start + len(block)])
    return log_mel


def _power(frames: NDArray[np.float32], taper: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the power spectra of frames, computed in the precision of the taper, shape (bin, frame)."""
    spectra = scipy.fft.rfft(frames * taper, axis=1)
    parts = spectra.view(taper.dtype)  # real, imaginary, real, …
    np.multiply(parts, parts, out=parts)
    return np.ascontiguousarray((parts[:, 0::2] + parts[:, 1::2]).T, dtype=np.float32)


def _exposed(
    mel: NDArray[np.float32], floored: NDArray[np.float32], tables: _Tables, config: MfccConfig
) -> NDArray[np.int64]:
    """Return the numbers of the frames whose coefficients would show the errors of their float32 spectra.

    Such an error is white and proportional to the whole spectrum: in a band it weighs as the root of (energy of the
    frame * weight of the band / energy of the band), and in a coefficient as the root mean square of that over the
    bands. A band under half the floor counts little: the error must lift it over the floor before anybody sees it.
    """
    energy, amin = mel[-1] * np.float32(2 / config.n_fft), np.float32(config.amin)
    limit = np.float32(_MAX_EXPOSURE**2)
    # First with all bands in full, which is quick and leaves few frames for the closer look.
    near = np.flatnonzero(energy * (tables.shares @ np.reciprocal(floored)) > np.float32(0.99) * limit)
    if not len(near):
        return near
    seen = np.where(mel[:-1, near] < amin / 2, amin * np.float32(1e4), floored[:, near])
    # By rows, as in `_cepstra`; BLAS sums otherwise by the number of columns.
    terms = np.ascontiguousarray((tables.shares[:, None] / seen).T)
    return near[np.flatnonzero(energy[near] * terms.sum(axis=1) > limit)]


def _cepstra(log_mel: NDArray[np.float32], config: MfccConfig) -> NDArray[np.float32]:
    """Return the coefficients of decibels, shape (frame, coefficient)."""
    # By rows: numpy sums a lone column in another order than several.
    frames = np.ascontiguousarray(log_mel.T)
    # A frame's mean goes straight to its first coefficient: in a sum with the others it costs them some of their bits.
    mean = frames.mean(axis=1)
    spectra = scipy.fft.dct(frames - mean[:, None], axis=1, norm="ortho")
    cepstra: NDArray[np.float32] = np.float32(10) * spectra[:, : config.n_mfcc]
    cepstra[:, 0] += np.float32(10 * np.sqrt(config.n_mels)) * mean
    return cepstra


def _mel_filters(config: MfccConfig) -> NDArray[np.float64]:
    """Return the triangular mel filters of Slaney's Auditory Toolbox, shape (band, bin), each of unit area."""
    edges = _mel_edges(config)
    bins = np.fft.rfftfreq(config.n_fft, d=1 / config.sampling_rate)
    lower, centre, upper = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (bins - lower) / (centre - lower)
    falling = (upper - bins) / (upper - centre)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (upper - lower))


def _mel_edges(config: MfccConfig) -> NDArray[np.float64]:
    """Return where filters begin, peak and end, in Hz: each from its number to the second next, ``(band + 2,)``."""
    return _mel_to_hz(np.linspace(_hz_to_mel(config.fmin), _hz_to_mel(config.highest_frequency), config.n_mels + 2))


# Slaney's mel scale: linear below 1 kHz, logarithmic above (27 steps to a factor of 6.4).
_LINEAR_HZ = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ
_LOG_STEP = np.log(6.4) / 27


def _hz_to_mel(frequency: float) -> float:
    if frequency < _BREAK_HZ:
        return frequency / _LINEAR_HZ
    return float(_BREAK_MEL + np.log(frequency / _BREAK_HZ) / _LOG_STEP)


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ, _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL)))


def _librosa_mfcc(signal: NDArray[np.float32], config: MfccConfig) -> NDArray[np.float32]:
    import librosa  # seconds of import and compilation, for the oracle only

    mel = librosa.feature.melspectrogram(
        y=signal,
        sr=config.sampling_rate,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
        center=config.center,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    decibels = librosa.power_to_db(mel, ref=1.0, amin=config.amin, top_db=config.top_db)
    return np.ascontiguousarray(librosa.feature.mfcc(S=decibels, n_mfcc=config.n_mfcc).T, dtype=np.float32)
