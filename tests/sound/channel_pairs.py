"""Pairs of channels from seeds: one sound on both (dual mono), and two parties whose lines cross or echo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import av
import numpy as np
import scipy.signal
from numpy.typing import NDArray

from emolib.sound.conversation import RATE, Laid, line
from emolib.sound.impairments import active_level, band_limited
from emolib.sound.speech_codecs import alaw, gsm, opus, ulaw
from emolib.sound.synthetic import EMOTIONS, utterance, voice

Sound = NDArray[np.float32]
_LEVEL_DB = -26.0
_LONGEST_S = 0.04


@lru_cache(maxsize=8)
def parties(seed: int, *, duration_s: float = 30.0) -> Sound:
    """Return two who take turns, now and then at once, each on a telephone line of its own: ``(2, sample)``."""
    rng = np.random.default_rng([seed, 0])
    share = rng.uniform(0.25, 0.75)
    laid: list[list[Laid]] = [[], []]
    now_s = rng.uniform(0.2, 1.5)
    voices = voice(2 * seed), voice(2 * seed + 1)
    while now_s < duration_s - 1.5:
        party = int(rng.random() < share) if laid[0] and laid[1] else int(bool(laid[0]))
        lasts_s = min(rng.uniform(1.5, 5), duration_s - now_s)
        emotion = EMOTIONS[rng.integers(len(EMOTIONS))]
        said = utterance(voices[party], emotion, seed=int(rng.integers(2**31)), sampling_rate=RATE, duration_s=lasts_s)
        laid[party].append(Laid(now_s, said, 20 * float(np.log10(active_level(band_limited(said))))))
        now_s += lasts_s + rng.choice([rng.uniform(0.2, 1.2), rng.uniform(-0.5, 0.0)], p=[0.85, 0.15])
    sound = np.stack([line(each, samples=round(duration_s * RATE), seed=2 * seed + n) for n, each in enumerate(laid)])
    sound.setflags(write=False)
    return sound


def dual_mono(seed: int, sound: Sound | None = None, *, codecs: Sequence[str] = ()) -> Sound:
    """Return two channels that hold one sound, both parties: one late, of another level and sign, with an offset.

    Either has noise of its own of up to -50 dBFS, and went through a codec of its own.
    """
    rng = np.random.default_rng([seed, 1])
    mono = (parties(seed) if sound is None else sound).sum(axis=0)
    mono *= 10 ** (_LEVEL_DB / 20) / active_level(mono)
    other = late(mono, rng.uniform(-1, 1) * _LONGEST_S)
    other = other * np.float32(rng.choice([-1, 1]) * 10 ** (-rng.uniform(0, 12) / 20))
    pair = np.stack([mono, other][:: rng.choice([-1, 1])])
    return _recorded(pair, rng, codecs)


def crossed(seed: int, sound: Sound | None = None, *, codecs: Sequence[str] = ()) -> Sound:
    """Return two parties each of whom leaks into the other's channel, 10 to 40 dB lower, late and perhaps coloured."""
    rng = np.random.default_rng([seed, 2])
    apart = _levelled(parties(seed) if sound is None else sound, rng)
    leaks = [_leaked(each, rng, lowest_db=-40.0, least_s=0.0, most_s=_LONGEST_S) for each in apart]
    return _recorded(apart + np.stack(leaks[::-1]), rng, codecs)


def echoing(seed: int, sound: Sound | None = None, *, codecs: Sequence[str] = ()) -> Sound:
    """Return two parties one of whom comes back on the other's channel, 10 to 30 dB lower, after 5 to 200 ms."""
    rng = np.random.default_rng([seed, 3])
    apart = _levelled(parties(seed) if sound is None else sound, rng)
    far = rng.integers(2)
    apart[1 - far] += _leaked(apart[far], rng, lowest_db=-30.0, least_s=0.005, most_s=0.2)
    return _recorded(apart, rng, codecs)


def late(signal: Sound, delay_s: float) -> Sound:
    """Return a signal that comes so much later, or earlier, by no whole number of samples."""
    padded = np.pad(signal, RATE)
    turned = np.fft.rfft(padded) * np.exp(-2j * np.pi * np.fft.rfftfreq(len(padded)) * delay_s * RATE)
    return np.fft.irfft(turned, len(padded))[RATE:-RATE].astype(np.float32)


def amr(signal: Sound) -> Sound:
    """Return what AMR at 4.75 kbit/s, the lowest rate of GSM and UMTS, leaves of a signal."""
    return _through("libopencore_amrnb", "amrnb", signal, bit_rate=4750, packet=160)


def g723(signal: Sound) -> Sound:
    """Return what G.723.1 at 6.3 kbit/s leaves of a signal."""
    return _through("g723_1", "g723_1", signal, bit_rate=6300, packet=240)


def mp3(signal: Sound) -> Sound:
    """Return what MP3 at 16 kbit/s leaves of a signal."""
    return _through("libmp3lame", "mp3float", signal, bit_rate=16_000, packet=576, format="fltp")


CODECS: dict[str, Callable[[Sound], Sound]] = {
    "linear": lambda signal: signal,
    "ulaw": ulaw,
    "alaw": alaw,
    "gsm": gsm,
    "opus": opus,
    "amr": amr,
    "g723": g723,
    "mp3": mp3,
}


def _levelled(sound: Sound, rng: np.random.Generator) -> Sound:
    """Return two parties of levels that differ by up to 12 dB."""
    levels = 10 ** ((_LEVEL_DB - np.array([0.0, rng.uniform(0, 12)])) / 20)[:: rng.choice([-1, 1])]
    return np.stack([np.float32(to / active_level(each)) * each for each, to in zip(sound, levels, strict=True)])


def _leaked(signal: Sound, rng: np.random.Generator, *, lowest_db: float, least_s: float, most_s: float) -> Sound:
    leak = late(signal, rng.uniform(least_s, most_s))
    if rng.random() < 0.5:  # a hybrid, a headset: some milliseconds of a room of its own
        response = rng.standard_normal(40) * np.exp(-np.arange(40) / rng.uniform(2, 15))
        leak = scipy.signal.lfilter(response / np.sqrt(np.sum(response**2)), 1.0, leak)
    return np.asarray(10 ** (rng.uniform(lowest_db, -10.0) / 20) * leak, np.float32)


def _recorded(pair: Sound, rng: np.random.Generator, codecs: Sequence[str]) -> Sound:
    noise = 10 ** (rng.uniform(-80, -50, size=(2, 1)) / 20) * rng.standard_normal(pair.shape)
    offset = rng.uniform(-0.05, 0.05, size=(2, 1))
    recorded = np.clip(pair + noise + offset, -1, 1).astype(np.float32)
    chosen = codecs or rng.choice(["linear", "ulaw", "alaw", "gsm", "opus"], size=2)
    return np.stack([CODECS[name](each) for name, each in zip(chosen, recorded, strict=True)])


def _through(encoder: str, decoder: str, signal: Sound, *, bit_rate: int, packet: int, format: str = "s16") -> Sound:
    coder = av.CodecContext.create(encoder, "w")
    coder.sample_rate, coder.layout, coder.format, coder.bit_rate = RATE, "mono", format, bit_rate
    words = np.pad(signal, (0, -len(signal) % packet + 4 * packet))
    words = np.round(32_767 * np.clip(words, -1, 1)).astype(np.int16) if format == "s16" else words
    packets = []
    for number, some in enumerate(words.reshape(-1, 1, packet)):
        frame = av.AudioFrame.from_ndarray(some, format=format, layout="mono")
        frame.sample_rate, frame.pts = RATE, number * packet
        packets += coder.encode(frame)
    packets += coder.encode(None)
    back = av.CodecContext.create(decoder, "r")
    back.sample_rate, back.layout = RATE, "mono"
    frames = [frame.to_ndarray()[0] for each in [*packets, None] for frame in back.decode(each)]
    decoded = np.concatenate(frames)
    decoded = decoded.astype(np.float32) / 32_768 if decoded.dtype == np.int16 else decoded.astype(np.float32)
    assert len(decoded) >= len(signal)
    return decoded[: len(signal)]
