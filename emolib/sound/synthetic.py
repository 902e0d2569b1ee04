"""Synthetic speech from seeds: labelled corpora and archives of calls for demonstrations and tests, and golden signals.

Speakers and emotions are made in `emolib.sound.voices`, which this module shows too. The same seed gives the same
bytes, and no speaker of a corpus speaks in a call, whatever their seeds.
"""

from __future__ import annotations

import csv
import io
import os
import struct
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from emolib.errors import SettingsError
from emolib.sound.voices import EMOTIONS, Prosody, Voice, generator, utterance, voice
from emolib.storage import AnyPath, is_local, resolve, write_bytes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EMOTIONS", "Prosody", "Voice", "golden_signals", "utterance", "voice", "write_calls", "write_corpus"]

_CALL_RATE = 8000  # Hz
_FIRST_DAY = datetime(2024, 5, 1, 12, tzinfo=UTC)  # at noon it is the same date in most time zones
_DAYS = 3
_AGENTS = 6
_TRUTH = ("uri", "channel", "role", "speaker", "emotion", "start_s", "end_s")
_ROLES = ("agent", "customer")
_DEFECTS = ("empty", "truncated", "text page", "silence", "short")
_TEXT_PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>No such recording.</body></html>\n"


def write_corpus(folder: AnyPath, *, speakers: int, utterances: int, seed: int, sampling_rate: int = 16_000) -> UPath:
    """Write a labelled corpus: WAV files of 16 bits, and the table ``corpus.csv`` that says who speaks how in them.

    Parameters
    ----------
    folder
        Where to write; files of the same name are replaced.
    speakers
        How many, women and men in turn.
    utterances
        How many clips, of two seconds of speech on average, of each speaker in each of the `EMOTIONS`.
    seed
        The same seed gives the same bytes; another seed has other speakers.
    sampling_rate
        In Hz.

    Returns
    -------
    UPath
        The table, with the columns ``path`` (relative to it), ``utterance_id``, ``speaker``, ``gender``, ``emotion``.

    Raises
    ------
    SettingsError
        If there is nothing to write, or the sampling rate is out of range.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_corpus(folder, speakers=1, utterances=1, seed=0).read_text().splitlines()[0]
    'path,utterance_id,speaker,gender,emotion'
    """
    if speakers < 1 or utterances < 1:
        raise SettingsError(f"{speakers} speakers of {utterances} utterances found, expected at least 1 of each")
    root = resolve(folder)
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("path", "utterance_id", "speaker", "gender", "emotion"))
    for number in range(speakers):
        who = voice(_speaker_seed("corpus", seed, number))
        for emotion in EMOTIONS:
            for take in range(utterances):
                name = f"{who.speaker}-{emotion}-{take + 1:02d}"
                path = f"{who.speaker}/{name}.wav"
                rng = generator("room", who.seed, emotion, take)
                signal = utterance(who, emotion, seed=take, sampling_rate=sampling_rate)
                # As in RAVDESS, silence at both ends: a model has to know that it says nothing.
                signal = np.pad(signal, [round(pause_s * sampling_rate) for pause_s in rng.uniform(0.2, 1.2, size=2)])
                signal = _recorded(signal, rng, noise_dbfs=rng.uniform(-70, -60))
                write_bytes(root / path, _wav(_pcm16(signal)[None], sampling_rate))
                rows.writerow((path, name, who.speaker, who.gender, emotion))
    write_bytes(root / "corpus.csv", table.getvalue().encode())
    return root / "corpus.csv"


def write_calls(folder: AnyPath, *, calls: int, broken: int, seed: int) -> pd.DataFrame:
    """Write an archive of two-party calls as 8 kHz µ-law stereo WAV: the agent on channel 0, the customer on 1.

    The files lie in folders by date, which is their modification time too (on a local disk). Turns alternate; the
    customer has one emotion in most turns, now and then another one at the beginning or the end, and the agent is
    calm. Broken files lie among the calls: in turn an empty one, a truncated call, a text page, digital silence, and
    one too short to be a call.

    Parameters
    ----------
    folder
        Where to write; files of the same name are replaced, and nothing but the recordings is written.
    calls, broken
        How many sound recordings of 25 to 45 s, and how many broken ones besides.
    seed
        The same seed gives the same bytes; another seed has other speakers.

    Returns
    -------
    DataFrame
        The truth, one row per turn of a sound recording, interjections of the listener included: ``uri`` (relative to
        the folder), ``channel``, ``role``, ``speaker``, ``emotion``, ``start_s``, ``end_s``.

    Raises
    ------
    SettingsError
        If a count is negative.
    """
    if min(calls, broken) < 0:
        raise SettingsError(f"{calls} calls and {broken} broken ones found, expected 0 or more of each")
    import pandas as pd

    root = resolve(folder)
    rng = generator("archive", seed)
    total = calls + broken
    defects = dict(zip(np.sort(rng.permutation(total)[:broken]).tolist(), cycle(_DEFECTS), strict=False))
    moods = iter(rng.permutation(calls) % len(EMOTIONS))
    truth: list[tuple[str | int | float, ...]] = []
    for number in range(total):
        moment = _FIRST_DAY + timedelta(days=number * _DAYS // total, seconds=number % 3600)
        uri = f"{moment:%Y-%m-%d}/call-{number + 1:04d}.wav"
        if number in defects:
            data = _broken(defects[number], seed, number)
        else:
            signal, turns = _call(seed, number, EMOTIONS[next(moods)])
            data = _wav(_mu_law(signal), _CALL_RATE)
            truth += [(uri, turn.channel, _ROLES[turn.channel], *turn[1:]) for turn in turns]
        write_bytes(root / uri, data)
        if is_local(root):
            os.utime(str(root / uri), (moment.timestamp(), moment.timestamp()))
    return pd.DataFrame(truth, columns=list(_TRUTH))


def golden_signals(*, sampling_rate: int, duration_s: float) -> NDArray[np.float32]:
    """Return eight signals that show whether a machine reproduces a model's numbers.

    Four voices, a voice in noise, digital silence, noise, and a tone: never a sound of a corpus.

    Parameters
    ----------
    sampling_rate
        In Hz.
    duration_s
        Length of each in seconds.

    Returns
    -------
    NDArray[np.float32]
        The signals `(signal, sample)`, bitwise the same on one CPU type.

    Raises
    ------
    SettingsError
        If the sampling rate or the duration is out of range.

    Examples
    --------
    >>> golden_signals(sampling_rate=8000, duration_s=0.5).shape
    (8, 4000)
    """
    voices = [
        utterance(voice(number), emotion, seed=number, sampling_rate=sampling_rate, duration_s=duration_s)
        for number, emotion in enumerate(("neutral", "anger", "sadness", "happiness", "fear"))
    ]
    samples = len(voices[0])
    hiss, noise, faint = generator("golden").standard_normal((3, samples))
    tone = np.sin(2 * np.pi * 440 * np.arange(samples) / sampling_rate)
    return np.stack(
        [
            *voices[:4],
            0.5 * voices[4] + 0.01 * hiss,
            np.zeros(samples),
            0.1 * noise,
            # The bands beside a pure tone hold rounding errors alone, which no two machines share.
            0.1 * tone + 3e-4 * faint,
        ]
    ).astype(np.float32)


def _speaker_seed(population: Literal["corpus", "calls"], seed: int, number: int) -> int:
    """Return the seed of a speaker: the last bit is the gender, the one before it the population."""
    drawn = int(generator(population, seed, number).integers(2**44))
    return 4 * drawn + 2 * (population == "calls") + number % 2


class _Turn(NamedTuple):
    channel: int
    speaker: str
    emotion: str
    start_s: float
    end_s: float


def _call(seed: int, number: int, mood: str) -> tuple[NDArray[np.float32], list[_Turn]]:
    """Return a call `(channel, sample)` and its turns by start; `mood` is the customer's emotion in most turns."""
    rng = generator("call", seed, number)
    agent = voice(_speaker_seed("calls", seed, int(rng.integers(_AGENTS))))
    customer = voice(_speaker_seed("calls", seed, _AGENTS + number))
    spoken: list[tuple[_Turn, NDArray[np.float32]]] = []

    def speak(who: Voice, emotion: str, start_s: float, duration_s: float) -> float:
        signal = utterance(who, emotion, seed=int(rng.integers(2**32)), sampling_rate=_CALL_RATE, duration_s=duration_s)
        start = round(start_s * _CALL_RATE)
        end_s = (start + len(signal)) / _CALL_RATE
        spoken.append((_Turn(int(who is customer), who.speaker, emotion, start / _CALL_RATE, end_s), signal))
        return end_s

    now_s = 0.5
    for emotion in _arc(mood, rng):
        calm = "happiness" if rng.random() < 0.25 else "neutral"
        now_s = speak(agent, calm, now_s, rng.uniform(1.5, 3)) + rng.uniform(0.2, 0.8)
        start_s, now_s = now_s, speak(customer, emotion, now_s, rng.uniform(3, 5)) + rng.uniform(0.2, 0.8)
        if rng.random() < 0.3:  # the agent says "mhm"
            speak(agent, "neutral", start_s + rng.uniform(0.8, 2), rng.uniform(0.3, 0.45))

    call = np.zeros((2, round((now_s + 0.3) * _CALL_RATE)), dtype=np.float32)
    for turn, signal in spoken:
        start = round(turn.start_s * _CALL_RATE)
        call[turn.channel, start : start + len(signal)] += signal
    lines = [_recorded(channel, rng, noise_dbfs=rng.uniform(-70, -64)) for channel in call]
    return np.stack(lines), sorted((turn for turn, _ in spoken), key=lambda turn: turn.start_s)


def _arc(mood: str, rng: np.random.Generator) -> list[str]:
    """Return the customer's emotion in each turn: less than half of them, at the ends, are not the call's mood."""
    turns = int(rng.integers(4, 6))
    others = int(rng.integers(0, (turns + 1) // 2))
    opening, ending = (others + 1) // 2, others // 2
    relief = "happiness" if rng.random() < 0.5 else "neutral"
    return ["neutral"] * opening + [mood] * (turns - others) + [relief] * ending


def _recorded(signal: NDArray[np.float32], rng: np.random.Generator, *, noise_dbfs: float) -> NDArray[np.float32]:
    """Give a signal the level of a recording, 2 dB around its own, and its noise."""
    noise = 10 ** (noise_dbfs / 20) * rng.standard_normal(len(signal))
    return (10 ** (rng.normal(0, 2) / 20) * signal + noise).astype(np.float32)


def _pcm16(signal: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.round(32768 * signal.astype(np.float64)), -32768, 32767).astype(np.int16)


def _mu_law(signal: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode as ITU-T G.711 does: a sign, three bits of exponent, four of mantissa, all inverted."""
    linear = _pcm16(signal).astype(np.int32)
    biased = np.minimum(np.abs(linear), 32635) + 132
    exponent = np.frexp(biased)[1] - 8
    mantissa = (biased >> (exponent + 3)) & 0x0F
    inverted: NDArray[np.int32] = ~(np.where(linear < 0, 0x80, 0) | exponent << 4 | mantissa)
    return (inverted & 0xFF).astype(np.uint8)


def _wav(samples: NDArray[np.int16] | NDArray[np.uint8], sampling_rate: int) -> bytes:
    """Return samples `(channel, sample)` as a WAV file: 16-bit PCM, or µ-law where they are bytes."""
    channels, frames = samples.shape
    width = samples.itemsize
    kind = 1 if samples.dtype == np.int16 else 7
    layout = struct.pack(
        "<HHIIHH", kind, channels, sampling_rate, sampling_rate * channels * width, channels * width, 8 * width
    )
    chunks = [(b"fmt ", layout)]
    if kind == 7:  # other formats than PCM say how long their extension is, and how many frames there are
        chunks = [(b"fmt ", layout + struct.pack("<H", 0)), (b"fact", struct.pack("<I", frames))]
    chunks.append((b"data", samples.T.astype(samples.dtype.newbyteorder("<")).tobytes()))
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def _broken(defect: str, seed: int, number: int) -> bytes:
    """Return a file that is called a recording and is not a good one."""
    match defect:
        case "empty":
            return b""
        case "text page":
            return _TEXT_PAGE
        case "silence":
            samples = int(generator("silence", seed, number).integers(5 * _CALL_RATE, 15 * _CALL_RATE))
            return _wav(_mu_law(np.zeros((2, samples), dtype=np.float32)), _CALL_RATE)
    signal, turns = _call(seed, number, "neutral")
    if defect == "short":
        start = round(turns[0].start_s * _CALL_RATE)
        return _wav(_mu_law(signal[:, start : start + round(0.3 * _CALL_RATE)]), _CALL_RATE)
    whole = _wav(_mu_law(signal), _CALL_RATE)
    return whole[: len(whole) * 3 // 5]
