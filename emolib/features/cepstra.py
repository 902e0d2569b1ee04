"""Mel-frequency cepstral coefficients, as librosa defines them.

The numbers are those of ``librosa.feature.mfcc(S=librosa.power_to_db(melspectrogram, ref=1, …))`` to 1e-3. The code is
its own because librosa rebuilds the mel bank at every call and costs a new process seconds of just-in-time compilation.

Every step treats a frame by itself (batched FFT, sparse mel bank, FFT-based DCT), so a frame's coefficients are bitwise
the same whatever else is computed with it; a dense matrix product would choose its kernel by the number of frames.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import scipy.fft
import scipy.sparse
from numpy.typing import NDArray

from emolib.config import MfccConfig

# Frames worked on at a time: their samples, spectra and powers stay in a core's second-level cache.
_BLOCK_FRAMES = 128


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
    (61, 20)
    """
    signal = np.ascontiguousarray(signal, dtype=np.float32)
    if signal.ndim != 1:
        raise ValueError(f"a signal of shape {signal.shape} found, expected one channel of shape (sample,)")
    if not np.isfinite(signal).all():
        raise ValueError("a signal with NaN or infinity found, expected finite samples")
    if frame_count(signal.size, config=config) == 0:
        return np.zeros((0, config.n_mfcc), np.float32)
    if backend == "librosa":
        return _librosa_mfcc(signal, config)
    decibels = _log_mel(signal, config)
    if config.top_db is not None:
        np.maximum(decibels, decibels.max() - np.float32(config.top_db), out=decibels)
    cepstra = scipy.fft.dct(decibels, type=2, axis=1, norm="ortho", overwrite_x=True)
    return np.ascontiguousarray(cepstra[:, : config.n_mfcc])


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


def _log_mel(signal: NDArray[np.float32], config: MfccConfig) -> NDArray[np.float32]:
    """Return the mel spectrogram in dB, shape (frame, band)."""
    if config.center:
        signal = np.pad(signal, config.n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(signal, config.n_fft)[:: config.hop_length]
    taper, bank = _hann(config.n_fft), _mel_bank(config)
    decibels = np.empty((len(frames), config.n_mels), np.float32)
    for start in range(0, len(frames), _BLOCK_FRAMES):
        block = slice(start, start + _BLOCK_FRAMES)
        spectrum = scipy.fft.rfft(frames[block] * taper, axis=1)
        power = np.square(spectrum.real)
        power += np.square(spectrum.imag)
        mel = np.asarray(power.astype(np.float32) @ bank)
        np.maximum(mel, np.float32(config.amin), out=mel)
        np.multiply(np.log10(mel), np.float32(10), out=decibels[block])
    return decibels


@lru_cache(maxsize=8)
def _hann(length: int) -> NDArray[np.float64]:
    """Return the periodic Hann window.

    In float64, and so the FFT after it: a float32 FFT errs by 1e-7 of the loudest bin, which a floor 80 dB below a
    voice shows as 5e-3 in the coefficients, and measured no faster.
    """
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


@lru_cache(maxsize=8)
def _mel_bank(config: MfccConfig) -> scipy.sparse.csr_array:
    """Return the triangular mel filters of Slaney's Auditory Toolbox, shape (bin, band), each of unit area."""
    edges = _mel_to_hz(np.linspace(_hz_to_mel(config.fmin), _hz_to_mel(config.highest_frequency), config.n_mels + 2))
    bins = np.fft.rfftfreq(config.n_fft, d=1 / config.sampling_rate)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - lower) / (centre - lower)
    falling = (upper - bins[:, None]) / (upper - centre)
    triangles = np.maximum(0, np.minimum(rising, falling)) * (2 / (upper - lower))
    return scipy.sparse.csr_array(triangles.astype(np.float32))


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
