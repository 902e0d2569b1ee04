"""Files that follow each other in one file: chained Ogg streams, and whatever was joined by its bytes.

Players play them all. Decoders stop at the end of the first, or mistake the header of the second for damaged sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

from emolib.sound.headers import Source, asf_size, avi_size
from emolib.sound.source import OpenFile
from emolib.sound.tails import segment_end

_OVERLAP = 63  # bytes; one less than the longest mark
_MAX_ATOMS = 64
# What an MP4 file consists of (ISO/IEC 14496-12, QuickTime), and what a CAF file does (Apple).
_ATOMS = frozenset(
    b"ftyp free skip wide mdat moov moof mfra mfro sidx ssix styp prft emsg meta uuid udta pdin pnot PICT".split()
)
_CHUNKS = frozenset(
    b"desc data pakt chan cook info kuki strg mark regn inst midi umid uuid free edct ovvw peak".split()
)
_LEAST_FORM = 46  # bytes of an AIFF file without sound
_NAME = re.compile(rb"[ -~\xa9][ -~]{3}")
# How a file begins that may follow another one anywhere, strong enough not to be met by chance. (Ogg: a page that
# begins a stream, at sample 0.)
_MARK = re.compile(
    rb"OggS\x00\x02\x00{8}|fLaC\x00\x00\x00\x22|RIFF.{4}WAVEfmt .\x00\x00\x00|#!AMR|\x00\x00\x00[\x10-\xff]ftyp"
    rb"|FLV\x01[\x00-\x07]\x00\x00\x00\x09|\x1a\x45\xdf\xa3.{1,48}?(?:webm|matroska)",
    re.DOTALL,
)
# Each mark holds three bytes in a row of these, which compressed sound seldom does.
_SIGNS = (b"\x00\x00\x00", b"#!A", b"\x1a\x45\xdf")
_WATCHED = (b"OggS", b"fLaC", b"#!AM", b"FLV\1", b"\x1a\x45\xdf\xa3")


class Link:
    """One of the files in a file, from a place on; as a file object it ends where the next one begins.

    Parameters
    ----------
    source
        The whole file.
    start
        Where the link begins.

    Attributes
    ----------
    start, end
        Where it begins and ends. Some only show where they end once they have been read.
    """

    def __init__(self, source: Source, start: int) -> None:
        self._source, self.start, self._place = source, start, 0
        head = source.at(start, 64)
        self._first = _end_of_first_pages(source, start) if head.startswith(b"OggS") else 1
        end = None if head.startswith(_WATCHED) else _end(source, start, head)
        self._is_watched = end is None
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            end = segment_end(source, start)
        self.end = source.size if end is None else min(source.size, end)

    @property
    def is_whole(self) -> bool:
        """Whether it is known beforehand to be the whole file."""
        return not self._is_watched and not self.start and self.end == self._source.size

    def seek(self, place: int, whence: int = 0) -> int:
        """Move to a position."""
        self._place = place + (0, self._place, self.end - self.start)[whence]
        return self._place

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return bytes up to the end of the link at most."""
        place = self.start + self._place
        left = max(0, self.end - place)
        size = left if size < 0 else min(size, left)
        before = min(_OVERLAP, self._place) if self._is_watched else 0
        data = self._source.at(place - before, size + before)
        if self._is_watched and _may_hold_a_mark(data):
            found = _MARK.search(data, max(0, self._first - self._place + before))
            if found:
                self.end = place - before + found.start()
                data = data[: found.start()]
        data = data[before:]
        self._place += len(data)
        return data


def link(source: OpenFile, start: int) -> tuple[OpenFile, Link]:
    """Return what a decoder is to read of a file from a place on, and where that will have ended."""
    found = Link(source, start)
    if found.is_whole:
        return source, found

    @contextmanager
    def again() -> Iterator[OpenFile]:
        with source.again() as other:
            yield link(other, start)[0]

    return OpenFile(found, again=again), found


def _may_hold_a_mark(data: bytes) -> bool:
    """Return whether it is worth looking for a mark; to find that out takes a fraction of the time of looking."""
    found = np.frombuffer(data, np.uint8)
    first, second, third = found[:-2], found[1:-1], found[2:]
    return any(((first == sign[0]) & (second == sign[1]) & (third == sign[2])).any() for sign in _SIGNS)


def _end_of_first_pages(source: Source, start: int) -> int:
    """Return the length of the Ogg pages that begin the streams, one for each that runs beside the others."""
    place = start
    while (page := source.at(place, 27 + 255)).startswith(b"OggS\0") and len(page) > 27 and page[5] & 2:
        place += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return max(1, place - start)


def _end(source: Source, start: int, head: bytes) -> int | None:
    """Return where the header of a container says that it ends, the end of the file where it does not say.

    None: another file may begin anywhere.
    """
    if head.startswith(b"FORM"):
        length = int.from_bytes(head[4:8], "big")
        return start + 8 + length if _LEAST_FORM <= length < 0x7FFF_FFFF else source.size
    if head.startswith(b".snd"):
        length = int.from_bytes(head[8:12], "big")
        return start + int.from_bytes(head[4:8], "big") + length if 0 < length < 0x7FFF_FFFF else source.size
    if head.startswith(b"caff"):
        return _end_of_chunks(source, start + 8, name_first=True)
    if head[4:8] == b"ftyp":
        return _end_of_chunks(source, start, name_first=False)
    if head.startswith(b"riff\x2e\x91\xcf\x11"):
        length = int.from_bytes(head[16:24], "little")
        return start + length if 0 < length < 2**63 else source.size
    if head.startswith(b"NIST_1A"):
        return start + _length_of_sphere(source.at(start, 1024))
    if (size := asf_size(source, start) or avi_size(source, start)) is not None:
        return start + size
    return source.size


def _length_of_sphere(head: bytes) -> int:
    """Return the length of a NIST SPHERE file by its header; a very great one where it does not say."""
    fields = dict(re.findall(rb"(?m)^(sample_count|channel_count|sample_n_bytes) -i (\d+)", head))
    header = re.match(rb"NIST_1A\n\s*(\d+)", head)
    if header is None or b"embedded" in head or len(fields) < 2:
        return 2**62
    return int(header[1]) + prod(map(int, fields.values()))


def _end_of_chunks(source: Source, start: int, *, name_first: bool) -> int | None:
    """Return where the chunks of a CAF file or the atoms of an MP4 file end: before another file, or with the file.

    None: there are too many to look.
    """
    place = start
    for number in range(_MAX_ATOMS):
        head = source.at(place, 16) if place < source.size else b""
        if len(head) < 8:
            break
        if name_first:
            name, length, header = head[:4], int.from_bytes(head[4:12], "big"), 12
        else:
            name, length, header = head[4:8], int.from_bytes(head[:4], "big"), 0
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
        if number and (name == (b"caff" if name_first else b"ftyp") or not _NAME.fullmatch(name)):
            return place
        if name == b"moof":  # a fragmented recording has thousands of them
            return None
        if not header + length >= 8 or length >= 2**63:  # 0 or -1: one that was never finished
            break
        # Behind a file that was cut, what looks like an atom lies in the middle of something else.
        if place + header + length > source.size and name not in (_CHUNKS if name_first else _ATOMS):
            return place
        place += header + length
    return source.size
