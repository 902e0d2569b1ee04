"""What the headers of sound files claim, read without a decoder.

Decoders trust a file's size more than its header and say nothing about the difference; here the difference is found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

_MAX_CHUNKS = 1000
_MAX_SEGMENTS, _NEVER_SET = 10_000, 0x7FFF_0000
_MAX_HEADER_PAGES = 64
ASF = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"
"""How an ASF file begins."""
_ASF_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
_INFO = re.compile(rb"Xing|Info")
_LYRICS_END = re.compile(rb"LYRICSEND|\d{6}LYRICS200")
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


def claimed_frames(source: Source, *, opened: int) -> int | None:
    """Return the frames that a header claims, where libsndfile reads the file.

    Parameters
    ----------
    opened
        Frames that libsndfile will read; it corrects the claim of most formats by the file's size, without a word.
    """
    head = source.head
    if opened >= _UNKNOWN_LENGTH:
        return None
    claimed = 0
    if head.startswith(b"FORM"):
        common = (source.at(place, 6) for name, _, place in _chunks(source, "big") if name == b"COMM")
        claimed = int.from_bytes(next(common, b"")[2:], "big")
    elif head.startswith(b"NIST_1A") and (count := re.search(rb"sample_count -i (\d+)", head)):
        claimed = int(count[1])
    elif head.startswith(b".snd"):
        size, there = int.from_bytes(head[8:12], "big"), source.size - int.from_bytes(head[4:8], "big")
        claimed = opened * size // there if 0 < there < size < 0xFFFF_FFFF else 0
    return max(opened, claimed)


def ogg_first_samples(source: Source) -> int:
    """Return how many samples an Ogg file counts at the end of its first page with sound; 0 where that is damaged."""
    place = 0
    for _ in range(_MAX_HEADER_PAGES):
        page = source.at(place, 27 + 255)
        if len(page) < 27 or not page.startswith(b"OggS\0"):
            return 0
        if 0 < (samples := int.from_bytes(page[6:14], "little")) < 2**63:
            return samples
        place += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return 0


def mp3_frames(source: Source) -> int | None:
    """Return how many samples the Info frame of an MP3 file claims; None without one.

    Encoders write it as the first frame, silent, for players that seek [1]_.

    References
    ----------
    .. [1] G. Bouvigne, "MP3 Info Tag revision 1 specifications" (LAME project, 2002).
    """
    frame = source.at(tags_length(source.head), 256)
    found = _INFO.search(frame)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0 or found is None:
        return None
    tag = frame[found.start() :]
    if not tag[7] & 1:
        return None
    is_first_version = frame[1] & 0x18 == 0x18
    samples = int.from_bytes(tag[8:12], "big") * (1152 if is_first_version else 576)
    place = 12 + 4 * bool(tag[7] & 2) + 100 * bool(tag[7] & 4) + 4 * bool(tag[7] & 8)
    padding = int.from_bytes(tag[place + 21 : place + 24], "big") if tag[place : place + 4] else 0
    return max(0, samples - (padding >> 12) - (padding & 0xFFF))


def asf_size(source: Source, start: int = 0) -> int | None:
    """Return the size in bytes of an ASF (WMA) file by its header [1]_; None where it does not say.

    References
    ----------
    .. [1] "Advanced Systems Format (ASF) Specification", revision 01.20.05 (Microsoft, 2012), section 3.2.
    """
    head = source.at(start, 1024)
    place = head.find(_ASF_PROPERTIES)
    size = int.from_bytes(head[place + 40 : place + 48], "little")
    return size if head.startswith(ASF) and place > 0 and size > len(head) else None


def avi_size(source: Source, start: int = 0) -> int | None:
    """Return the size in bytes of an AVI file by its header; None where it is none, or its size was never set.

    Beyond 1 GiB it goes on in more RIFF chunks (OpenDML).
    """
    place = start
    for _ in range(_MAX_SEGMENTS):
        head = source.at(place, 12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or head[8:] != (b"AVI " if place == start else b"AVIX"):
            break
        if not 0 < length < _NEVER_SET:
            return None
        place += 8 + length + length % 2
    return place - start if place > start else None


def tags_length(data: bytes) -> int:
    r"""Return how many bytes the tags take that stand where an MP3 frame could; it may be more than there are.

    Tags are ID3v1 and ID3v2 [1]_, APEv2 and Lyrics3. They hold text and pictures.

    References
    ----------
    .. [1] M. Nilsson, "ID3 tag version 2.4.0: main structure" (id3.org, 2000).

    Examples
    --------
    >>> tags_length(b"TAG" + 125 * b"." + b"ID3\4\0\0\0\0\1\2"), tags_length(b"\xff\xfb\x90\x00")
    (268, 0)
    """
    place = 0
    while tag := data[place : place + 32]:
        if tag.startswith(b"TAG"):
            place += 128
        elif tag.startswith(b"ID3") and len(tag) >= 10:  # its size has 7 bits in each byte; a footer is not in it
            place += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:10], (21, 14, 7, 0), strict=True))
            place += 10 * bool(tag[5] & 0x10)
        elif tag.startswith(b"APETAGEX"):  # the size is that of what lies behind its header; one alone is the footer
            is_header = len(tag) == 32 and tag[23] & 0x20
            place += 32 + (int.from_bytes(tag[12:16], "little") if is_header else 0)
        elif tag.startswith(b"LYRICSBEGIN") and (end := _LYRICS_END.search(data, place)):
            place = end.end()
        else:
            break
    return place


def begins_with_info(frame: bytes) -> bool:
    """Return whether an MP3 frame is an Info frame: it holds facts and no sound."""
    return _INFO.search(frame, 0, 64) is not None


def slack(frames: int, sampling_rate: int) -> float:
    """Return how many samples a decode may fall short: codecs pad, and containers round."""
    return min(0.1 * sampling_rate, 0.1 * frames)
