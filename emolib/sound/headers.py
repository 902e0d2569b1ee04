"""What the headers of sound files claim, read without a decoder.

Decoders trust a file's size more than its header and say nothing about the difference; here the difference is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

_OPEN_LENGTH = 0x7FFF_0000
_MAX_CHUNKS = 1000
_MAX_OGG_PAGE = 65_307
_UNKNOWN_LENGTH = 2**62  # libsndfile's way to say that a stream has no length is 2**63 - 1


class Source(Protocol):
    """An open file: its size, its first bytes, and its bytes at any place."""

    size: int
    head: bytes

    def at(self, place: int, size: int) -> bytes:
        """Return bytes of the file and leave the position where it was."""
        ...


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a recording claims.

    Parameters
    ----------
    codec
        Container and encoding, such as ``wav/ulaw`` or ``mov/aac``; ``raw`` is no container.
    sampling_rate
        In Hz.
    channels
        Number of channels.
    frames
        Samples of each channel at `sampling_rate`; None where the header does not say, as in streams.
    """

    codec: str
    sampling_rate: int
    channels: int
    frames: int | None

    @property
    def duration_s(self) -> float | None:
        """The claimed duration in seconds, or None where the header does not say."""
        return None if self.frames is None else self.frames / self.sampling_rate


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What the header of a WAV file says; ``claimed`` and ``there`` count bytes of sound."""

    channels: int
    sampling_rate: int
    block_bytes: int
    claimed: int | None  # bytes of sound; None: a stream, whose length was not known when the header was written
    there: int

    def frames(self, opened: int) -> int | None:
        """Return the claimed frames; `opened` are those that libsndfile, which trusts the file's size, will read."""
        if self.claimed is None:
            return None
        blocks = self.there // self.block_bytes if self.block_bytes else 0
        if self.claimed <= self.there or not blocks:
            return opened
        return opened * (self.claimed // self.block_bytes) // blocks


def wav_header(source: Source) -> WavHeader | None:
    """Return what the header of a WAV file (RIFF, RIFX or RF64) says, or None where it is none."""
    order: Literal["little", "big"] = "big" if source.head.startswith(b"RIFX") else "little"
    if source.head[:4] not in (b"RIFF", b"RIFX", b"RF64") or source.head[8:12] != b"WAVE":
        return None
    whole = int.from_bytes(source.head[4:8], order)
    channels = rate = block = long = 0
    for name, length, place in _chunks(source, order):
        body = source.at(place, 16)
        if name == b"fmt ":
            channels, rate, block = (int.from_bytes(body[i:j], order) for i, j in ((2, 4), (4, 8), (12, 14)))
        elif name == b"ds64":
            long = int.from_bytes(body[8:], order)
        elif name == b"data":
            there = source.size - place
            if long and length == 0xFFFF_FFFF:
                return WavHeader(channels, rate, block, long, there)
            # Streams are written with 0 or with the largest number, from which some subtract their header.
            never_set = length == 0 and (whole + 8 < source.size or whole >= _OPEN_LENGTH)
            is_stream = never_set or (length > there and length >= _OPEN_LENGTH)
            return WavHeader(channels, rate, block, None if is_stream else length, there)
    return None


def _chunks(source: Source, order: Literal["little", "big"]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the claimed length and the place of the chunks of a RIFF or an IFF file."""
    place = 12
    for _ in range(_MAX_CHUNKS):
        head = source.at(place, 8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], order)
        place += 8
        yield head[:4], length, place
        place += length + length % 2


def claimed_frames(
    source: Source, wav: WavHeader | None, *, opened: int, sampling_rate: int, ticks: int
) -> tuple[int | None, str]:
    """Return the frames that a header claims, and what is wrong with the file where that shows before the decode.

    Parameters
    ----------
    opened
        Frames that libsndfile will read; it corrects the claim of most formats by the file's size, without a word.
    sampling_rate
        Of the decode, in Hz.
    ticks
        By how many a second an Ogg file counts.
    """
    head = source.head
    if opened >= _UNKNOWN_LENGTH:
        return None, ""
    if wav is not None:
        return wav.frames(opened), ""
    claimed = 0
    if head.startswith(b"OggS"):
        # The last page counts the samples up to its end. libsndfile stops at the first damaged page.
        tail = source.at(max(0, source.size - _MAX_OGG_PAGE), _MAX_OGG_PAGE)
        page = tail[max(0, tail.rfind(b"OggS\0")) :]
        if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
            return None, "the file ends inside an Ogg page"
        claimed = int.from_bytes(page[6:14], "little", signed=True) * sampling_rate // ticks
        # Opus counts some milliseconds that a decoder leaves out; they are no part of the sound.
        claimed = claimed if claimed - opened > slack(claimed, sampling_rate) else 0
    elif head.startswith(b"FORM"):
        common = (source.at(place, 6) for name, _, place in _chunks(source, "big") if name == b"COMM")
        claimed = int.from_bytes(next(common, b"")[2:], "big")
    elif head.startswith(b"NIST_1A") and (count := re.search(rb"sample_count -i (\d+)", head)):
        claimed = int(count[1])
    elif head.startswith(b".snd"):
        size, there = int.from_bytes(head[8:12], "big"), source.size - int.from_bytes(head[4:8], "big")
        claimed = opened * size // there if 0 < there < size < 0xFFFF_FFFF else 0
    return max(opened, claimed), ""


def slack(frames: int, sampling_rate: int) -> float:
    """Return how many samples a decode may fall short: codecs pad, and containers round."""
    return min(0.1 * sampling_rate, 0.1 * frames)
