"""What lies behind the sound of a file: padding and tags, or more sound that no header tells of.

Decoders stop where nothing is left that they know, and say nothing of what they leave.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from emolib.sound.headers import Source, asf_size, avi_size, tags_length

_STEP = 2**20  # bytes looked at in one go
_PAGE = 65_307  # the largest Ogg page
_STRIDE = 188  # bytes of a packet of an MPEG transport stream
_OVERLAP = 63
# How files begin, strong enough not to be met by chance. (MPEG-TS: the first table of programmes. MP3: a frame that
# holds facts instead of sound.)
_MAGIC = re.compile(
    rb"OggS\x00\x02|fLaC\x00\x00\x00\x22|(?:RIFF|RIFX|RF64|BW64).{4}(?:WAVE|AVI )|FORM.{4}AIF[FC]|#!AMR"
    rb"|\.snd\x00\x00[\x00-\x0f].{5}\x00\x00\x00[\x01-\x20]|caff\x00\x01|\x00\x00..ftyp|FLV\x01[\x00-\x07]\x00\x00\x00\x09"
    rb"|\x1a\x45\xdf\xa3.{1,48}?(?:webm|matroska)|ID3[\x02-\x04]\x00[\x00\x80][\x00-\x7f]{4}|wvpk.{4}[\x02-\x10]\x04"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|riff\x2e\x91\xcf\x11|NIST_1A\n|Creative Voice File\x1a"
    rb"|\x47\x40\x00.\x00\x00\xb0|\xff[\xe2-\xff].{2}(?:..)?\x00{9,32}(?:Info|Xing)",
    re.DOTALL,
)
_ENDS_WITH_SOUND = {"flac", "mp3", "aac", "amr", "flv"}  # nothing of a file lies behind its last packet but tags
# What may follow the last block of a Matroska file whose length was not known: the rest of its group, an index, tags.
_ELEMENTS = re.compile(
    rb"\x1c\x53\xbb\x6b|\x12\x54\xc3\x67|\x11\x4d\x9b\x74|\x15\x49\xa9\x66|\x1f\x43\xb6\x75|\x19\x41\xa4\x69|\x10\x43\xa7\x70"
)


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file, for the file that may begin behind it.

    Attributes
    ----------
    end
        Where the sound ends.
    search
        From where the next file may begin.
    fault
        What is wrong with the end, or an empty string.
    """

    end: int
    search: int
    fault: str = ""


def tail_of(file: Source, container: str, last_packet: tuple[int, int] | None) -> Tail:
    """Return the end of a file that FFmpeg has decoded.

    Parameters
    ----------
    file
        It, and all that lies behind it.
    container
        FFmpeg's name of it.
    last_packet
        Where the last packet begins and ends; None: not known.
    """
    whole = Tail(file.size, file.size)
    if container == "ogg":
        return _tail_of_ogg(file)
    if container == "mpegts":
        return Tail(_ts_end(file), _ts_end(file))
    claims = {"matroska": segment_end, "asf": asf_size, "avi": avi_size}
    claimed = claims[container](file) if container in claims else None
    if claimed is not None:
        missing = claimed - file.size
        return replace(whole, fault=f"{missing} bytes of the file are missing, by its header" if missing > 0 else "")
    if last_packet is None:
        return whole
    begins, end = last_packet
    if container == "matroska":
        return whole if _ELEMENTS.search(file.at(end, 64)) else Tail(end, end)
    if container == "mov":
        # A recording in fragments has no table of contents: a damaged fragment is taken for its end.
        is_more = any(b"moof" in file.at(place, _STEP + 3) for place in range(end, file.size, _STEP))
        return replace(whole, fault=f"{file.size - end} bytes behind a damaged fragment not read" if is_more else "")
    return Tail(end, begins) if container in _ENDS_WITH_SOUND else whole


def behind(source: Source, place: int) -> int | None:
    """Return where the first byte lies from a place on that is neither padding (zeros) nor in a tag; None: nowhere."""
    while place < source.size:
        data = source.at(place, _STEP)
        if not data:
            return None
        zeros = len(data) - len(data.lstrip(b"\0"))
        if zeros:
            place += zeros
        elif length := tags_length(data):
            place += length
        else:
            return place
    return None


def next_file(source: Source, place: int) -> int | None:
    """Return where a file begins from a place on, as its first bytes show; None where none does."""
    for start in range(max(0, place - 4), source.size, _STEP):  # an MP4 begins with zeros
        if found := _MAGIC.search(source.at(start, _STEP + _OVERLAP)):
            return start + found.start()
    return None


def _tail_of_ogg(source: Source) -> Tail:
    """Find the last whole page; it says whether it is the last of its stream."""
    whole, stop = Tail(source.size, source.size), source.size
    while stop > 0:
        start = max(0, stop - _PAGE)
        data = source.at(start, stop - start + 27 + 255)
        at = len(data)
        while (at := data.rfind(b"OggS\0", 0, at)) >= 0:
            page = data[at : at + 27 + 255]
            length = 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) > 27 else source.size
            end = start + at + length
            if end > source.size:
                continue
            if source.at(end, 4) == b"OggS":
                return replace(whole, fault="the file ends inside an Ogg page")
            return Tail(end, end, "" if page[5] & 4 else "the last page of the Ogg file is missing")
        stop = start
    return replace(whole, fault="the file ends inside an Ogg page")


def _ts_end(source: Source) -> int:
    """Return where the packets of an MPEG transport stream end: behind the last four in a row.

    Recorders of other kinds put more bytes around a packet; of those it is not known.
    """
    row = 4 * _STRIDE
    for start in range(max(0, source.size - _STEP), -_STEP, -_STEP):
        first = max(0, start)
        data = np.frombuffer(source.at(first, start + _STEP - first + row), np.uint8) == ord("G")
        count = max(0, len(data) - row + 1)
        found = np.flatnonzero(np.all([data[at : at + count] for at in range(0, row, _STRIDE)], axis=0))
        if len(found):
            return first + int(found[-1]) + row
    return source.size


def segment_end(source: Source, start: int = 0) -> int | None:
    """Return where the segment of a Matroska file ends by its header; None where that was not known."""
    _, end = _element(source, start)
    name, end = (b"", None) if end is None else _element(source, end)
    return end if name == b"\x18\x53\x80\x67" else None


def _element(source: Source, place: int) -> tuple[bytes, int | None]:
    """Return the name of an EBML element (RFC 8794), and where it ends; None: its length is not known."""
    head = source.at(place, 12)
    if len(head) < 12 or not head[0]:
        return b"", None
    name = head[: 9 - head[0].bit_length()]
    size = head[len(name) :]
    if not size[0]:
        return name, None
    length = 9 - size[0].bit_length()
    value = int.from_bytes(size[:length], "big") - (1 << 7 * length)
    return name, None if value == (1 << 7 * length) - 1 else place + len(name) + length + value
