"""Recordings of one second, and twenty ways in which they break."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from tests.archive.conftest import RATE, voice
from tests.sound.test_formats import encode

_VOICES = 8


@cache
def _sound(number: int) -> np.ndarray:
    return voice(1.0, seed=number % _VOICES)


def second(number: int) -> bytes:
    """Return somebody's second: eight voices, each file at a level of its own."""
    return _as("WAV", "ULAW", (1 - 0.9 * (number // _VOICES % 500) / 500) * _sound(number))


def _as(container: str, subtype: str, sound: np.ndarray, *, rate: int = RATE) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, sound, rate, format=container, subtype=subtype)
    return target.getvalue()


def _with(data: bytes, place: int, layout: str, value: int) -> bytes:
    """Overwrite a number of a header."""
    written = struct.pack(layout, value)
    return data[:place] + written + data[place + len(written) :]


def _pcm(number: int) -> bytes:
    return _as("WAV", "PCM_16", _sound(number))


def _not_numbers(number: int) -> bytes:
    sound = _sound(number).copy()
    sound[::2] = np.nan
    return _as("WAV", "FLOAT", sound)


def _noise(number: int, size: int) -> bytes:
    return np.random.default_rng(number).bytes(size)


def _zip(number: int) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as packed:
        packed.writestr("call.wav", second(number))
    return target.getvalue()


@cache
def _mp4() -> bytes:
    return encode("mp4", "aac", 16_000, 1, None)


def _spoilt(data: bytes, number: int) -> bytes:
    """Put noise over the last half of a file."""
    return data[: len(data) // 2] + _noise(number, len(data) - len(data) // 2)


# By its name: what makes the bytes of a file, and the code that is right for it.
BYTES: dict[str, tuple[Callable[[int], bytes], str]] = {
    "empty": (lambda number: b"", "empty"),
    "page": (lambda number: b"<html><body>503 Service Unavailable</body></html>\n" * 20, "unsupported"),
    "random": (lambda number: _noise(number, 8000), "unsupported"),
    "zipped": (_zip, "unsupported"),
    "cut-in-header": (lambda number: _pcm(number)[:30], "corrupt"),
    "header-alone": (lambda number: _with(_pcm(number)[:44], 40, "<I", 0), "empty"),
    "cut-in-half": (lambda number: _pcm(number)[:8044], "truncated"),
    "no-channels": (lambda number: _with(_pcm(number), 22, "<H", 0), "corrupt"),
    "no-rate": (lambda number: _with(_pcm(number), 24, "<I", 0), "corrupt"),
    "unknown-format": (lambda number: _with(_pcm(number), 20, "<H", 0x7777), "unsupported"),
    "too-many-channels": (lambda number: _as("WAV", "PCM_16", np.zeros((200, 40))), "unsupported"),
    "too-slow": (lambda number: _as("WAV", "PCM_16", _sound(number), rate=500), "unsupported"),
    "not-numbers": (_not_numbers, "corrupt"),
    "too-short": (lambda number: _as("WAV", "ULAW", _sound(number)[:800]), "too_short"),
    "silent": (lambda number: _as("WAV", "ULAW", np.zeros(RATE)), "no_speech"),
    "flac-spoilt": (
        lambda number: _spoilt(_as("FLAC", "PCM_16", np.tile(_sound(number), 2)), number),
        "truncated",  # half a second is left, in which somebody speaks
    ),
    "ogg-cut": (lambda number: _as("OGG", "VORBIS", _sound(number))[:-1200], "corrupt"),
    "mp4-without-its-index": (lambda number: _mp4()[: len(_mp4()) // 2], "corrupt"),
}
WAYS = {
    **{name: code for name, (_, code) in BYTES.items()},
    "link-to-nothing": "missing",
    "not-unicode": "missing",
}
"""The code that is right for each way of being broken, by its name."""


def write_broken(folder: Path, way: str, number: int) -> None:
    """Write a recording that is broken in one of `WAYS`."""
    if way == "link-to-nothing":
        (folder / f"{way}-{number}.wav").symlink_to(folder / "nothing.wav")
    elif way == "not-unicode":  # pathlib would take the name, and nobody could write it down
        Path(os.fsdecode(os.fsencode(folder / f"{way}-{number}") + b"-\xff.wav")).write_bytes(second(number))
    else:
        (folder / f"{way}-{number}.wav").write_bytes(BYTES[way][0](number))
