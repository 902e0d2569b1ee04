"""The sound of a call made of clips: where a clip is speech, and clips one after another on a telephone line. Pure.

Everything happens at 8 kHz. Where speech is, a studio recording says: in the band of the telephone, within 25 dB of its
active level, pauses shorter than 0.3 s included. What a line adds afterwards changes nothing about that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emolib.sound.impairments import active_level, band_limited, line_noise
from emolib.sound.speech_codecs import RATE
from emolib.sound.telephone import through

__all__ = ["RATE", "Clip", "Laid", "beep", "clip", "line", "ring_back"]

_FRAME = RATE // 100  # samples: 10 ms
_BELOW_DB = 25.0  # of the active level: the noise of studios lies 35 dB below it, and more
_PAUSE_S, _SHORTEST_S = 0.3, 0.05
_MARGIN_S = 0.1  # of the studio before and after speech; over half of it the sound is faded in and out
_NOTHING = 1e-5

_TALK_DB = -26.0  # active level of a party, against full scale
# Acted voices lie 30 dB apart. Whoever holds a telephone is heard less differently, and so is what its gain levels.
_DYNAMICS = 0.5
_FLOOR_DB = (-60.0, -45.0)  # noise of the quiet line, against active speech
_TONE_DB = -22.0


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A clip, cut to its speech and a margin.

    Attributes
    ----------
    signal
        Float32 ``(sample,)`` at 8 kHz.
    stretches
        Where speech begins and ends in it, in seconds, in order; at least one.
    level_db
        Its active level, against full scale.
    """

    signal: NDArray[np.float32]
    stretches: tuple[tuple[float, float], ...]
    level_db: float

    @property
    def start_s(self) -> float:
        """Where its speech begins."""
        return self.stretches[0][0]

    @property
    def end_s(self) -> float:
        """Where its speech ends."""
        return self.stretches[-1][1]


@dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """A sound on a channel.

    Attributes
    ----------
    start_s
        Where its first sample lies, at a whole number of samples.
    signal
        Float32 ``(sample,)`` at 8 kHz.
    level_db
        Its active level; None for what is no speech and keeps its level.
    """

    start_s: float
    signal: NDArray[np.float32]
    level_db: float | None = None


def clip(signal: NDArray[np.float32]) -> Clip | None:
    """Cut a studio recording, float32 ``(sample,)`` at 8 kHz, to its speech; None where nothing is to be heard.

    Examples
    --------
    >>> time = np.arange(8000) / RATE
    >>> said = np.concatenate([np.zeros(8000), np.sin(3000 * time), np.zeros(4000)]).astype(np.float32)
    >>> found = clip(said)
    >>> round(found.start_s, 1), round(found.end_s, 1), round(len(found.signal) / RATE, 1)
    (0.1, 1.1, 1.2)
    >>> clip(np.zeros(8000, np.float32)) is None
    True
    """
    if not len(signal):
        return None
    heard = band_limited(signal)
    level = active_level(heard)
    if level < _NOTHING:
        return None
    frames = np.pad(heard, (0, -len(heard) % _FRAME)).reshape(-1, _FRAME)
    loud = np.sqrt(np.mean(np.square(frames, dtype=np.float64), axis=1)) >= level * 10 ** (-_BELOW_DB / 20)
    spans = np.flatnonzero(np.diff(loud, prepend=False, append=False)).reshape(-1, 2)
    apart = (spans[1:, 0] - spans[:-1, 1]) * _FRAME >= _PAUSE_S * RATE
    spans = np.stack([spans[np.r_[True, apart], 0], spans[np.r_[apart, True], 1]], axis=1) * _FRAME
    spans = spans[spans[:, 1] - spans[:, 0] >= _SHORTEST_S * RATE]
    if not len(spans):
        return None
    margin = round(_MARGIN_S * RATE)
    first, last = max(0, spans[0, 0] - margin), min(len(signal), spans[-1, 1] + margin)
    ends = np.minimum(spans, last) - first
    return Clip(
        signal=_faded(signal[first:last]),
        stretches=tuple((float(start / RATE), float(end / RATE)) for start, end in ends),
        level_db=20 * float(np.log10(level)),
    )


def line(laid: Sequence[Laid], *, samples: int, seed: int) -> NDArray[np.float32]:
    """Return what is recorded of one party at the other end of a random telephone line.

    Half of what the clips' levels differ by is levelled. Whatever is on the channel then goes through the condition
    ``telephone`` of `emolib.sound.telephone` as one signal: codec, level, noise, losses, room.

    Parameters
    ----------
    laid
        What is to be heard; sounds that overlap add up.
    samples
        Length of the channel.
    seed
        Decides the line, and its noise.

    Returns
    -------
    NDArray[np.float32]
        ``(sample,)`` at 8 kHz, in time with what was laid, within [-1, 1].

    Examples
    --------
    >>> line([Laid(0.5, ring_back("europe"))], samples=16_000, seed=0).shape
    (16000,)
    """
    rng = np.random.default_rng(seed)
    channel = np.zeros(samples, np.float32)
    levels = [each.level_db for each in laid if each.level_db is not None]
    middle = float(np.median(levels)) if levels else 0.0
    for each in laid:
        gain_db = 0.0
        if each.level_db is not None:
            wanted_db = _TALK_DB + _DYNAMICS * (each.level_db - middle) + rng.normal(0, 1)
            gain_db = wanted_db - each.level_db
        start = round(each.start_s * RATE)
        part = channel[start : start + len(each.signal)]
        part += np.float32(10 ** (gain_db / 20)) * each.signal[: len(part)]
    noise = line_noise(samples, rng)
    floor_db = _TALK_DB + rng.uniform(*_FLOOR_DB)
    channel += np.float32(10 ** (floor_db / 20) / noise.std()) * noise
    return through("telephone", channel, sampling_rate=RATE, seed=seed)


def ring_back(where: str) -> NDArray[np.float32]:
    """Return one ring of what a caller hears before somebody answers (ITU-T E.180).

    Parameters
    ----------
    where
        ``europe`` (425 Hz, 1 s) or ``america`` (440 and 480 Hz, 2 s).
    """
    return _tone((425.0,), 1.0) if where == "europe" else _tone((440.0, 480.0), 2.0)


def beep() -> NDArray[np.float32]:
    """Return the tone that says that a call is recorded: 1400 Hz, 0.4 s (FCC)."""
    return _tone((1400.0,), 0.4)


def _tone(hz: tuple[float, ...], duration_s: float) -> NDArray[np.float32]:
    time_s = np.arange(round(duration_s * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * each * time_s) for each in hz) * np.sqrt(2 / len(hz)) * 10 ** (_TONE_DB / 20)
    return np.asarray(tone, np.float32)


def _faded(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    length = min(round(_MARGIN_S * RATE / 2), len(signal) // 2)
    rise = (np.arange(length, dtype=np.float32) + 0.5) / max(length, 1)
    faded = signal.copy()
    faded[:length] *= rise
    faded[len(faded) - length :] *= rise[::-1]
    return faded
