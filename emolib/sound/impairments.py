"""What rooms, lines and networks do to speech on its way through a telephone, besides the codec; all at 8 kHz.

References
----------
.. [1] ITU-T G.712, "Transmission performance characteristics of pulse code modulation channels", 2001.
.. [2] ITU-T P.56, "Objective measurement of active speech level", 2011.
.. [3] J.-D. Polack, "La transmission de l'énergie sonore dans les salles", thesis, Université du Maine, 1988.
.. [4] E. N. Gilbert, "Capacity of a burst-noise channel", Bell System Technical Journal 39, 1960.
.. [5] ITU-T G.711 Appendix I, "A high quality low-complexity algorithm for packet loss concealment with G.711", 1999.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from emolib.sound.speech_codecs import RATE

__all__ = ["PACKET", "active_level", "band_limited", "concealed", "line_noise", "lost_packets", "reverberated"]

PACKET = RATE // 50  # samples: 20 ms
# Half the transitions lie on either side of these, so that the band from 300 to 3400 Hz passes whole.
_EDGES = (260.0, 3440.0)  # Hz
_TRANSITION = 80.0  # Hz
_STOP_DB = 40.0
_ACTIVE_DB = 25.0  # below the loudest frame
_MAINS = 50  # Hz
_HUM_DB = -3.0  # against the rest of the noise
_REFLECTIONS_S = 0.003  # after the direct sound
_LOSS = 0.05  # share of the packets
_BURST = 2.0  # packets, on average
_SHORTEST, _LONGEST = 40, 120  # samples: pitch periods of 200 to 67 Hz
_PAST = PACKET + _LONGEST + _LONGEST // 4  # samples that concealment looks back on
_STEP = RATE // 100  # samples: 10 ms, in which concealment fades by a fifth; the first do not fade


def band_limited(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a signal `(sample,)` in the band of telephone channels [1]_, without a delay.

    The filter has linear phase. It is flat within 0.1 dB from 300 to 3400 Hz, and 39 dB down below 220 Hz and above
    3480 Hz: steeper than what lines and telephone sets do at the edges.

    Examples
    --------
    >>> tones = np.sin(2 * np.pi * np.array([[100], [1000]]) * np.arange(8000) / 8000).astype(np.float32)
    >>> [round(float(band_limited(tone)[4000:5000].std()), 2) for tone in tones]
    [0.0, 0.71]
    """
    return _filtered(signal, _band())


@cache
def _band() -> NDArray[np.float32]:
    from scipy import signal  # its import takes longer than reading a clip: only who hears a telephone needs it

    taps, beta = signal.kaiserord(_STOP_DB, _TRANSITION / (RATE / 2))
    taps |= 1  # an odd number: the delay is a whole number of samples
    window = ("kaiser", beta)
    return np.asarray(signal.firwin(taps, _EDGES, window=window, pass_zero=False, fs=RATE), np.float32)


def _filtered(signal: NDArray[np.float32], response: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve a signal with a symmetric response, without its delay."""
    from scipy.signal import oaconvolve

    delay = len(response) // 2
    full = oaconvolve(signal, response)
    return np.asarray(full[delay : delay + len(signal)], np.float32)


def active_level(signal: NDArray[np.float32]) -> float:
    """Return the RMS of a signal `(sample,)` while somebody speaks.

    After the idea of P.56 [2]_, pauses do not count: the mean power is that of the frames of 20 ms within 25 dB of the
    loudest one.

    Examples
    --------
    >>> active_level(np.concatenate((np.zeros(8000), np.full(800, 0.5))).astype(np.float32))
    0.5
    """
    frames = np.pad(signal, (0, -len(signal) % PACKET)).reshape(-1, PACKET)
    power = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return float(np.sqrt(power[power >= power.max() * 10 ** (-_ACTIVE_DB / 10)].mean()))


def line_noise(samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return noise `(sample,)` of any level: pink from 50 Hz on, with the hum of mains and all their harmonics.

    The hum lies 3 dB below the rest; in the band of telephone channels, which leaves only weak harmonics, about 10 dB.

    Examples
    --------
    >>> line_noise(4, np.random.default_rng(0)).shape
    (4,)
    """
    length = scipy.fft.next_fast_len(max(samples, RATE), real=True)
    frequency = np.arange(length // 2 + 1) * RATE / length
    slope = np.where(frequency < _MAINS, 0, 1 / np.sqrt(np.maximum(frequency, _MAINS)))
    real, imaginary = rng.standard_normal((2, len(slope)))
    pink = scipy.fft.irfft(slope * (real + 1j * imaginary), length)
    harmonic = np.arange(1, RATE // 2 // _MAINS)
    phase = np.exp(2j * np.pi * rng.random(len(harmonic)))
    hum = scipy.fft.irfft(np.concatenate(([0], phase / harmonic)), RATE // _MAINS)  # one period
    hum *= 10 ** (_HUM_DB / 20) * pink.std() / hum.std()
    return np.asarray(pink[:samples] + np.resize(hum, samples), np.float32)


def reverberated(signal: NDArray[np.float32], t60_s: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a signal `(sample,)` as it is heard in a room, at the level that it had.

    The response of the room is Polack's [3]_: the direct sound, and noise whose level falls by 60 dB in `t60_s`
    seconds. Both have the same energy, as at roughly 70 cm from the speaker in an office: a hands-free telephone.

    Examples
    --------
    >>> click = np.eye(1, 8000, dtype=np.float32)[0]
    >>> heard = reverberated(click, 0.4, np.random.default_rng(0))
    >>> int(heard.argmax()), int(np.flatnonzero(np.abs(heard) > 1e-6)[-1]) < 3200
    (0, True)
    """
    from scipy.signal import oaconvolve

    time_s = np.arange(round(t60_s * RATE)) / RATE
    response = 10 ** (-3 * time_s / t60_s) * rng.standard_normal(len(time_s))
    response[time_s < _REFLECTIONS_S] = 0
    response /= np.sqrt(np.sum(response**2))
    response[0] = 1
    heard = oaconvolve(signal, response.astype(np.float32))[: len(signal)]
    level = active_level(heard)
    return np.asarray(heard * (active_level(signal) / level if level else 1), np.float32)


def lost_packets(packets: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which packets `(packet,)` get lost: 5 % on average, in bursts of two on average (Gilbert's model [4]_).

    Examples
    --------
    >>> lost = lost_packets(100_000, np.random.default_rng(0))
    >>> round(float(lost.mean()), 2), round(float(lost.sum() / np.sum(lost[1:] > lost[:-1])), 1)
    (0.05, 2.0)
    """
    stays = 1 - 1 / _BURST
    starts = _LOSS / (1 - _LOSS) / _BURST
    lost = np.zeros(packets, np.bool_)
    is_lost = bool(rng.random() < _LOSS)
    for packet, chance in enumerate(rng.random(packets)):
        is_lost = bool(chance < (stays if is_lost else starts))
        lost[packet] = is_lost
    return lost


def concealed(signal: NDArray[np.float32], lost: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return a signal `(sample,)` in which lost packets `(packet,)` of 20 ms are replaced by what came before.

    G.711 Appendix I [5]_, simplified: the last pitch period before the gap is repeated, with a crossfade of a quarter
    of it at all seams, and fades from 10 ms on, to silence after 60 ms. The appendix also takes in a second and a third
    period as the gap grows.

    Examples
    --------
    >>> tone = np.sin(2 * np.pi * 100 * np.arange(1600) / 8000).astype(np.float32)
    >>> heard = concealed(tone, np.arange(10) == 5)
    >>> float(np.abs(heard - tone)[800:880].max()) < 1e-4, round(float(np.abs(heard - tone).max()), 1)
    (True, 0.2)
    """
    heard = signal.copy()
    edges = np.flatnonzero(np.diff(lost, prepend=False, append=False)) * PACKET
    for start, end in edges.reshape(-1, 2).tolist():
        end = min(end, len(signal))
        past = np.pad(heard[max(0, start - _PAST) : start], (max(0, _PAST - start), 0))
        lag = _pitch_period(past)
        seam = lag // 4
        rise = np.arange(1, seam + 1, dtype=np.float32) / (seam + 1)
        period = past[-lag:].copy()
        period[-seam:] += rise * (past[-lag - seam : -lag] - period[-seam:])
        time = np.arange(end - start + seam)
        fading = np.clip(1 - (time / _STEP - 1) / 5, 0, 1).astype(np.float32)
        made = fading * period[time % lag]
        before, after = heard[max(0, start - seam) : start], heard[end : end + seam]
        before[:] = period[lag - len(before) :]
        heard[start:end] = made[: end - start]
        made = made[end - start :][: len(after)]
        after[:] = made + rise[: len(after)] * (after - made)
    return heard


def _pitch_period(past: NDArray[np.float32]) -> int:
    """Return the lag, in samples, at which the last 20 ms resemble most what came before."""
    recent = past[-PACKET:].astype(np.float64)
    earlier = np.lib.stride_tricks.sliding_window_view(past[-PACKET - _LONGEST : -_SHORTEST].astype(np.float64), PACKET)
    likeness = np.einsum("ls,s->l", earlier, recent) / np.sqrt(np.einsum("ls,ls->l", earlier, earlier) + 1e-9)
    return _LONGEST - int(likeness.argmax())
