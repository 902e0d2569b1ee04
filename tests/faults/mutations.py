"""Sound files in every format that can be made here, and seeded damage to their headers and bodies."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from functools import cache

import av
import numpy as np
import soundfile

from tests.sound.test_formats import encode

RATE = 8000
_BY_LIBSNDFILE = [
    *[("WAV", each) for each in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW", "GSM610", "MS_ADPCM")],
    *[("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "ULAW"), ("CAF", "ALAW")],
    *[("NIST", "ULAW"), ("VOC", "ALAW"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")],
    *[("MP3", "MPEG_LAYER_III"), ("SDS", "PCM_16"), ("IRCAM", "PCM_16"), ("AVR", "PCM_16"), ("WVE", "ALAW")],
]
_BY_FFMPEG = [
    *[("mp4", "aac", 16_000), ("ipod", "alac", 8000), ("3gp", "amr_nb", 8000), ("webm", "libopus", 48_000)],
    *[("asf", "wmav2", 16_000), ("amr", "amr_nb", 8000), ("wav", "g722", 16_000), ("wav", "g726", 8000)],
    *[("wav", "g723_1", 8000), ("mpegts", "aac", 16_000), ("adts", "aac", 16_000), ("flv", "aac", 16_000)],
]
_BIT_RATES = {"amr_nb": 12_200, "wmav2": 64_000, "g726": 32_000, "g723_1": 6300}
# What reads as nothing, as everything, as negative or as one too many, in 8 to 64 bits.
_NUMBERS = [0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2, 2**63 - 1, 2**64 - 1]
_HEADER = 256  # bytes


@cache
def whole_files() -> dict[str, bytes]:
    """Return half a second, or two, of sound in each format whose encoder is at hand, by its name."""
    times = np.arange(RATE // 2) / RATE
    noise = np.random.default_rng(0).normal(0, 0.01, len(times))
    sound = (0.4 * np.sin(2 * np.pi * 300 * times) + noise).astype(np.float32)
    made = {}
    for container, subtype in _BY_LIBSNDFILE:
        target = io.BytesIO()
        try:
            soundfile.write(target, sound, RATE, format=container, subtype=subtype)
        except soundfile.LibsndfileError:  # this libsndfile knows no such format
            continue
        made[f"{container}/{subtype}".lower()] = target.getvalue()
    for container, codec, rate in _BY_FFMPEG:
        try:
            av.Codec(codec, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        made[f"{container}/{codec}"] = encode(container, codec, rate, 1, _BIT_RATES.get(codec))
    made["raw/gsm"] = made["wav/gsm610"][60:]
    return made


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """Return the format of a damaged file, and its bytes: the same for the same numbers, whatever came before."""
    chance = random.Random(f"{seed} {number}")
    files = whole_files()
    name = chance.choice(sorted(files))
    data = bytearray(files[name])
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        chance.choice(_DAMAGE)(data, chance)
    return name, bytes(data)


def _flip_in_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        _flip(data, chance, _HEADER)


def _flip_anywhere(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 4, 16, 64, 256])):
        _flip(data, chance, len(data))


def _flip(data: bytearray, chance: random.Random, end: int) -> None:
    if data:
        data[chance.randrange(min(end, len(data)))] ^= 1 << chance.randrange(8)


def _number_in_header(data: bytearray, chance: random.Random) -> None:
    """Overwrite one or some of the header's numbers with one that nobody expects."""
    for _ in range(chance.choice([1, 1, 2, 5])):
        _overwrite(data, chance, chance.randrange(min(_HEADER, len(data)) or 1))


def _number_anywhere(data: bytearray, chance: random.Random) -> None:
    _overwrite(data, chance, chance.randrange(len(data) or 1))


def _overwrite(data: bytearray, chance: random.Random, place: int) -> None:
    letter = chance.choice("BHIQ")
    value = chance.choice(_NUMBERS) % 2 ** (8 * struct.calcsize("=" + letter))
    written = struct.pack(chance.choice("<>") + letter, value)
    data[place : place + len(written)] = written


def _noise(data: bytearray, chance: random.Random) -> None:
    place, length = chance.randrange(len(data) or 1), chance.choice([4, 32, 512, 4096])
    data[place : place + length] = chance.randbytes(length)


def _zeros(data: bytearray, chance: random.Random) -> None:
    place, length = chance.randrange(len(data) or 1), chance.choice([4, 32, 512, 4096])
    data[place : place + length] = bytes(length)


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.choice([chance.randrange(len(data) or 1), chance.randrange(min(_HEADER, len(data)) or 1)]) :]


def _leave_out(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data) or 1)
    del data[place : place + chance.choice([1, 2, 4, 100, 1000])]


def _repeat(data: bytearray, chance: random.Random) -> None:
    place, length = chance.randrange(len(data) or 1), chance.choice([1, 4, 8, 24, 500])
    data[place:place] = data[place : place + length] * chance.choice([1, 1, 2, 100])


def _body_of_another(data: bytearray, chance: random.Random) -> None:
    other = whole_files()[chance.choice(sorted(whole_files()))]
    place = chance.randrange(min(_HEADER, len(data)) or 1)
    data[place:] = other[chance.randrange(len(other)) :]


_DAMAGE: list[Callable[[bytearray, random.Random], None]] = [
    *[_flip_in_header, _flip_in_header, _number_in_header, _number_in_header, _flip_anywhere, _number_anywhere],
    *[_noise, _zeros, _cut, _leave_out, _repeat, _body_of_another],
]
