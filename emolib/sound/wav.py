"""Where the sound of a WAV file lies: in one chunk or several, in one file or in several that follow each other.

Recorders that restart write a second data chunk, or a whole second file, behind the first. Others die before they set
the sizes, or count past what 32 bits hold. Decoders read the first chunk, as far as its size says, without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from emolib.sound.headers import Source
from emolib.sound.tails import behind

_OPEN_LENGTH = 0x7FFF_0000
_UNKNOWN = 0xFFFF_FFFF
_WRAP = 2**32
_MAX_CHUNKS = 1000
_MAX_FILES = 1000
_IDENTIFIERS = (b"RIFF", b"RIFX", b"RF64", b"BW64")


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a file that holds sound: its place, and its length in bytes as claimed (None: not said) and there."""

    place: int
    claimed: int | None
    there: int


@dataclass(frozen=True, slots=True)
class WavHeader:
    """What the headers in a WAV file say.

    Attributes
    ----------
    form
        The content of its fmt chunk.
    big_endian
        Whether numbers begin with their high byte (RIFX).
    extents
        Where the sound lies; empty without a data chunk.
    behind
        What lies behind it that is not read, or an empty string.
    behind_bytes
        Its size.
    is_plain
        Whether a decoder finds all of the sound by itself.
    """

    form: bytes
    big_endian: bool
    extents: tuple[Extent, ...]
    behind: str
    behind_bytes: int
    is_plain: bool

    def _number(self, start: int, end: int) -> int:
        return int.from_bytes(self.form[start:end], "big" if self.big_endian else "little")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self._number(2, 4)

    @property
    def sampling_rate(self) -> int:
        """In Hz."""
        return self._number(4, 8)

    @property
    def block_bytes(self) -> int:
        """Bytes of one sample of all channels, or of one block of a compressed encoding."""
        return self._number(12, 14)

    @property
    def behind_s(self) -> float:
        """Seconds that what lies behind would last if it were sound like the rest."""
        return self.behind_bytes / max(1, self._number(8, 12))

    @property
    def claimed(self) -> int | None:
        """Bytes of sound by the headers; None: a stream, whose length was not known when the header was written."""
        claims = [extent.claimed for extent in self.extents]
        return None if None in claims else sum(claim or 0 for claim in claims)

    @property
    def there(self) -> int:
        """Bytes of sound in the file."""
        return sum(extent.there for extent in self.extents)

    def frames(self, opened: int) -> int | None:
        """Return the claimed frames; `opened` are those that libsndfile, which trusts the file's size, will read."""
        if self.claimed is None:
            return None
        blocks = self.there // self.block_bytes if self.block_bytes else 0
        if self.claimed <= self.there or not blocks:
            return opened
        return opened * (self.claimed // self.block_bytes) // blocks


def wav_header(source: Source) -> WavHeader | None:
    """Return what the headers of a WAV file (RIFF, RIFX or RF64) say, or None where it is none, or has no sound."""
    first = _file(source, 0)
    if first is None:
        return None
    # One file behind the other: recorders append, and so does who joins files by their bytes.
    extents, last, not_read = list(first.extents), first, ""
    place = behind(source, last.end)
    for _ in range(_MAX_FILES):
        more = None if place is None else _file(source, place)
        if more is None:
            break
        if more.form[:16] != first.form[:16] or more.big_endian != first.big_endian:
            not_read = "of WAV in another format"
            break
        extents += more.extents
        last, place = more, behind(source, more.end)
    if place is not None:
        not_read = not_read or "that no header tells of"
    is_plain = first.is_padded and len(extents) == 1 and bool(extents[0].claimed) and extents[0].there < _WRAP - 2**10
    return WavHeader(
        first.form, first.big_endian, tuple(extents), not_read, source.size - (place or source.size), is_plain
    )


@dataclass(slots=True)
class _File:
    form: bytes
    big_endian: bool
    extents: list[Extent]
    end: int
    is_padded: bool = True  # whether what is odd has a byte of padding, as the format demands


def _file(source: Source, place: int) -> _File | None:
    """Return what one RIFF header and its chunks say; None where there is none."""
    head = source.at(place, 12) if place < source.size else b""
    if head[:4] not in _IDENTIFIERS or head[8:12] != b"WAVE":
        return None
    order: Literal["big", "little"] = "big" if head.startswith(b"RIFX") else "little"
    whole = int.from_bytes(head[4:8], order)
    found = _File(b"", order == "big", [], source.size)
    long, start = 0, place
    place += 12
    for _ in range(_MAX_CHUNKS):
        found.end = min(place, source.size)
        if place >= source.size:
            break
        head = source.at(place, 8)
        if len(head) < 8 or (found.extents and head[:4] in _IDENTIFIERS):
            break
        name, length = head[:4], int.from_bytes(head[4:], order)
        place += 8
        there = source.size - place
        if name == b"fmt ":
            form = source.at(place, min(length, 256))
            if found.extents and form != found.form:  # what follows is in another format
                found.end = place - 8
                break
            found.form = found.form or form
        elif name == b"ds64":
            long = int.from_bytes(source.at(place, 16)[8:], order)
        elif name == b"data":
            if length == _UNKNOWN and long:
                length = long
            # Streams are written with 0 or with the largest number, from which some subtract their header.
            never_set = length == 0 and (
                start + whole + 8 < source.size or whole >= _OPEN_LENGTH or not _begins_chunk(source, place)
            )
            if never_set or (length > there and length >= _OPEN_LENGTH):
                found.extents.append(Extent(place, None, there))
                found.end = source.size
                break
            found.extents.append(Extent(place, length, min(length, there)))
        elif found.extents and not (_is_name(name) and length <= there + 1):
            last = _unwrapped(source, found.extents[-1])
            if last != found.extents[-1]:
                found.extents[-1], found.end = last, last.place + last.there
            break
        place += length
        if length % 2 and _begins_chunk(source, place):
            found.is_padded = found.is_padded and bool(found.extents)
        else:
            place += length % 2
    return found if found.form else None


def _unwrapped(source: Source, last: Extent) -> Extent:
    """Return an extent with the length that it has: its size field holds no more than 32 bits of it."""
    lost = (source.size - last.place - last.there) // _WRAP * _WRAP
    length = last.there + lost
    return Extent(last.place, length, length) if lost else last


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= letter < 0x7F for letter in name)


def _begins_chunk(source: Source, place: int) -> bool:
    return place >= source.size or _is_name(source.at(place, 4))


class Spliced:
    """The sound of a WAV file behind one header that says how much there is: what any decoder reads whole.

    A file object, to be read from anywhere.
    """

    def __init__(self, source: Source, wav: WavHeader) -> None:
        order: Literal["big", "little"] = "big" if wav.big_endian else "little"
        there = wav.there
        long = there >= _WRAP - 2**10
        form = wav.form + bytes(len(wav.form) % 2)
        chunks = b"fmt " + len(wav.form).to_bytes(4, order) + form
        if long:  # the sizes of the file and of its sound, the samples (not needed), no table
            sizes = (there + len(chunks) + 48, there, 0)
            chunks = (
                b"ds64" + (28).to_bytes(4, order) + b"".join(n.to_bytes(8, order) for n in sizes) + bytes(4) + chunks
            )
        size, length = (_UNKNOWN, _UNKNOWN) if long else (there + len(chunks) + 12, there)
        name = b"RF64" if long else b"RIFX" if wav.big_endian else b"RIFF"
        self._head = name + size.to_bytes(4, order) + b"WAVE" + chunks + b"data" + length.to_bytes(4, order)
        self._source, self._extents = source, wav.extents
        self._size = len(self._head) + there
        self._place = 0

    def seek(self, place: int, whence: int = 0) -> int:
        """Move to a position."""
        self._place = place + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def read(self, size: int = -1) -> bytes:
        """Return bytes, those that are left at most."""
        left = self._size - self._place
        wanted = left if size < 0 else min(size, left)
        parts: list[Any] = [self._head[self._place : self._place + max(wanted, 0)]]
        start, wanted = self._place + len(parts[0]), wanted - len(parts[0])
        base = len(self._head)
        for extent in self._extents:
            inside = start - base
            if wanted > 0 and 0 <= inside < extent.there:
                data = self._source.at(extent.place + inside, min(wanted, extent.there - inside))
                parts.append(data)
                start, wanted = start + len(data), wanted - len(data)
            base += extent.there
        whole = b"".join(parts)
        self._place += len(whole)
        return whole
