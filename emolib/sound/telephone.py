"""The telephone as a function: what becomes of speech that goes through a room, a line, a codec and a network.

For variants of studio recordings to train on, and to measure how a model bears each condition. A signal keeps its
length, its rate, and its place in time, and gets the level at which codecs are tested (ITU-T P.56, G.191): a telephone
is spoken into at one level, and studio recordings lie anywhere. Everything in between happens at 8 kHz. What a
condition draws (noise, room, losses) depends on the seed alone: clips of one seed share them, and so do the three
levels of noise.

Approximations: packets are lost after decoding, so that a codec with a memory recovers at once; noise and rooms are
models, not recordings; nobody else speaks in the background.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.sound import speech_codecs
from emolib.sound.audio import resample
from emolib.sound.impairments import (
    PACKET,
    active_level,
    band_limited,
    concealed,
    line_noise,
    lost_packets,
    reverberated,
)
from emolib.sound.speech_codecs import RATE
from emolib.sound.voices import generator

__all__ = ["CONDITIONS", "through"]

CONDITIONS: dict[str, str] = {
    "band": "8 kHz, G.712 band (300 to 3400 Hz), no codec",
    "ulaw": "band and G.711 µ-law, 64 kbit/s",
    "alaw": "band and G.711 A-law, 64 kbit/s",
    "gsm": "band and GSM 06.10 full rate, 13 kbit/s",
    "opus": "8 kHz and narrowband Opus for speech, 10 kbit/s, no band-pass",
    "loss": "µ-law, 5 % of its packets of 20 ms lost in bursts of two on average, and concealed",
    "reverb": "a room with a reverberation time of 0.45 s, then µ-law",
    "noise20": "noise 20 dB below active speech, in the band, then µ-law",
    "noise10": "noise 10 dB below active speech, in the band, then µ-law",
    "noise5": "noise 5 dB below active speech, in the band, then µ-law",
    "telephone": "a draw of all of this: codec or none, level, and perhaps a room, noise of 10 to 35 dB, and losses",
}


_NOMINAL_DB = -26.0  # of active speech, against full scale
_SILENCE = 1e-6


class _Line(NamedTuple):
    """What a signal meets, in this order; None: it does not."""

    level_db: float = _NOMINAL_DB
    t60_s: float | None = None
    band: bool = True
    snr_db: float | None = None
    codec: str | None = "ulaw"
    loses: bool = False


_CODECS = {
    "ulaw": speech_codecs.ulaw,
    "alaw": speech_codecs.alaw,
    "gsm": speech_codecs.gsm,
    "opus": speech_codecs.opus,
}
_LINES = {
    "band": _Line(codec=None),
    "ulaw": _Line(),
    "alaw": _Line(codec="alaw"),
    "gsm": _Line(codec="gsm"),
    "opus": _Line(codec="opus", band=False),
    "loss": _Line(loses=True),
    "reverb": _Line(t60_s=0.45),
    "noise20": _Line(snr_db=20),
    "noise10": _Line(snr_db=10),
    "noise5": _Line(snr_db=5),
}


def through(condition: str, signal: NDArray[np.float32], *, sampling_rate: int, seed: int) -> NDArray[np.float32]:
    """Return what arrives of a signal at the other end.

    Parameters
    ----------
    condition
        One of `CONDITIONS`.
    signal
        Float32 ``(sample,)``, finite; what lies beyond full scale is clipped.
    sampling_rate
        Of the signal, in Hz.
    seed
        What chance does; the same signal and seed give the same samples, whatever came before.

    Returns
    -------
    NDArray[np.float32]
        ``(sample,)``, as long as the signal, at its rate, in time with it, within [-1, 1]; active speech at about
        -26 dBFS.

    Raises
    ------
    SettingsError
        If the condition is unknown, or the sampling rate is below 8 kHz.

    Examples
    --------
    >>> from emolib.sound.synthetic import utterance, voice
    >>> speech = utterance(voice(1), "anger", seed=0, sampling_rate=16_000, duration_s=1)
    >>> through("gsm", speech, sampling_rate=16_000, seed=0).shape
    (16000,)
    """
    if condition not in CONDITIONS:
        raise SettingsError(f"condition {condition!r} found, expected one of {', '.join(CONDITIONS)}")
    if sampling_rate < RATE:
        raise SettingsError(f"a sampling rate of {sampling_rate} Hz found, expected at least {RATE} Hz")
    line = _drawn(seed) if condition == "telephone" else _LINES[condition]
    speech = resample(np.clip(signal, -1, 1), source_rate=sampling_rate, target_rate=RATE)
    heard = resample(_sent(line, speech, seed), source_rate=RATE, target_rate=sampling_rate)
    return np.clip(heard[: len(signal)], -1, 1)


def _drawn(seed: int) -> _Line:
    """Return any line; the ranges are wide rather than typical, for a model that has to bear them all."""
    rng = generator("telephone", seed)
    codec = [*_CODECS, None][rng.integers(len(_CODECS) + 1)]
    return _Line(
        level_db=_NOMINAL_DB + rng.uniform(-12, 3),
        t60_s=rng.uniform(0.2, 0.6) if rng.random() < 0.3 else None,
        band=codec != "opus",
        snr_db=rng.uniform(10, 35) if rng.random() < 0.75 else None,
        codec=codec,
        loses=bool(rng.random() < 0.25),
    )


def _sent(line: _Line, speech: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return what a line makes of speech at 8 kHz."""
    if not len(speech):
        return speech
    # In the band: neither an offset nor rumble is speech.
    active = active_level(band_limited(speech))
    sent = speech * np.float32(10 ** (line.level_db / 20) / active if active > _SILENCE else 1.0)
    if line.t60_s is not None:
        sent = reverberated(sent, line.t60_s, generator("room", seed))
    if line.band:
        sent = band_limited(sent)
    if line.snr_db is not None:
        noise = line_noise(len(sent), generator("noise", seed))
        if line.band:
            noise = band_limited(noise)
        wanted = active_level(sent) * 10 ** (-line.snr_db / 20)
        sent = sent + np.float32(wanted / np.sqrt(np.mean(noise**2))) * noise
    if line.codec is not None:
        sent = _CODECS[line.codec](sent)
    if line.loses:
        sent = concealed(sent, lost_packets(-(-len(sent) // PACKET), generator("loss", seed)))
    return sent
