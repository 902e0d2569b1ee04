"""Files that follow each other in one file: chained Ogg streams, and whatever was joined by its bytes.

Players play them all. Decoders stop at the end of the first, or mistake the header of the second for damaged sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from emolib.sound.headers import Source
from emolib.sound.source import OpenFile

_OVERLAP = 15  # bytes; one less than the longest mark
_MAX_ATOMS = 64
# How a file begins that may follow another one anywhere. (Ogg: a page that begins a stream, at sample 0.)
_MARKS = {b"OggS": b"OggS\0\2" + bytes(8), b"fLaC": b"fLaC\0\0\0\x22", b"#!AM": b"#!AMR"}


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
    end
        Where it ends. Some only show where they end once they have been read.
    """

    def __init__(self, source: Source, start: int) -> None:
        self._source, self._start, self._place = source, start, 0
        head = source.at(start, 64)
        self._mark = _MARKS.get(head[:4])
        self._first = _end_of_first_pages(source, start) if head.startswith(b"OggS") else 1
        self.end = source.size if self._mark else min(source.size, _end(source, start, head))

    @property
    def is_whole(self) -> bool:
        """Whether it is known beforehand to be the whole file."""
        return self._mark is None and not self._start and self.end == self._source.size

    def seek(self, place: int, whence: int = 0) -> int:
        """Move to a position."""
        self._place = place + (0, self._place, self.end - self._start)[whence]
        return self._place

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return bytes up to the end of the link at most."""
        place = self._start + self._place
        left = max(0, self.end - place)
        size = left if size < 0 else min(size, left)
        before = min(_OVERLAP, self._place) if self._mark else 0
        data = self._source.at(place - before, size + before)
        if self._mark is not None:
            found = data.find(self._mark, max(0, self._first - self._place + before))
            if found >= 0:
                self.end = place - before + found
                data = data[:found]
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


def _end_of_first_pages(source: Source, start: int) -> int:
    """Return the length of the Ogg pages that begin the streams, one for each that runs beside the others."""
    place = start
    while (page := source.at(place, 27 + 255)).startswith(b"OggS\0") and len(page) > 27 and page[5] & 2:
        place += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return max(1, place - start)


def _end(source: Source, start: int, head: bytes) -> int:
    """Return where the header of a container says that it ends; the end of the file where it does not say."""
    if head.startswith(b"FORM"):
        return start + 8 + int.from_bytes(head[4:8], "big")
    if head.startswith(b".snd"):
        length = int.from_bytes(head[8:12], "big")
        return source.size if length >= 0x7FFF_FFFF else start + int.from_bytes(head[4:8], "big") + length
    if head.startswith(b"caff"):
        return _end_of_chunks(source, start + 8, name_first=True)
    if head[4:8] == b"ftyp":
        return _end_of_chunks(source, start, name_first=False)
    return source.size


def _end_of_chunks(source: Source, start: int, *, name_first: bool) -> int:
    """Return where the chunks of a CAF file or the atoms of an MP4 file end: before another file, or with the file."""
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
        if number and name == (b"caff" if name_first else b"ftyp"):
            return place
        # A fragmented recording has thousands of them; a length of 0 or -1 is that of one that was never finished.
        if name == b"moof" or not header + length >= 8 or length >= 2**63:
            break
        place += header + length
    return source.size
