"""Find the decoder that knows an open file.

libsndfile reads samples as they are (WAV, AIFF, AU, SPHERE …), companded and block-coded ones. What comes in packets
(MP3, FLAC, Ogg, MP4, WebM …) goes to FFmpeg, which goes on behind a damaged one. Both see bytes alone, never a name.
What neither recognises is sound only where the settings say in which format.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Protocol, TypeAlias

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from emolib.config import HeaderlessFormat
from emolib.errors import AudioError, Code
from emolib.sound.ffmpeg import FORMATS, FFmpegDecoder
from emolib.sound.headers import AudioInfo, mp3_frames, ogg_first_samples, slack, tags_length
from emolib.sound.links import link
from emolib.sound.resampling import resampled
from emolib.sound.sndfile import RAW, SndfileDecoder
from emolib.sound.source import OpenFile, one_line, opened
from emolib.sound.tails import Tail, behind, next_file, tail_of
from emolib.sound.timeline import MAX_GAP_S
from emolib.sound.wav import Spliced, WavHeader, wav_header
from emolib.storage import AnyPath, resolve

Piece: TypeAlias = NDArray[np.float32]  # (sample, channel); good until the next one is asked for

_SHORT = 256  # bytes; text this short may be one word
_MATTERS_S = 0.4  # what is shorter is never judged
_MAX_CHANNELS = 32
_RATES = range(1000, 192_001)
_MPEG_SYNC = re.compile(rb"\xff[\xe0-\xff]")
# libsndfile's SF_ERR_UNRECOGNISED_FORMAT and SF_ERR_SYSTEM (which blames the file system for any short file); other
# numbers say what is wrong with a format it knows.
_NOT_RECOGNISED, _SYSTEM = 1, 2
_MAGIC = {
    rb"RIFF....WAV|RIFX....WAV|RF64....WAV": "WAV",
    rb"FORM....AIF": "AIFF",
    rb"OggS": "Ogg",
    rb"fLaC": "FLAC",
    rb"ID3": "MP3",
    rb"NIST_1A": "SPHERE",
    rb"\.snd": "AU",
    rb"caff": "CAF",
    rb"....ftyp": "MP4",
    rb"\x1a\x45\xdf\xa3": "Matroska",
    rb"#!AMR": "AMR",
    rb"\x30\x26\xb2\x75": "WMA",
    rb"wvpk": "WavPack",
    rb"FLV\x01": "FLV",
    rb"Creative Voice File": "VOC",
    rb"\x47.{187}\x47.{187}\x47": "MPEG-TS",
}
_LARGE_TAG = 2**19  # bytes; FFmpeg looks for sound behind a tag, but not behind any
_MAX_PADDING = 4096  # bytes; more zeros than that are what a power cut leaves
_LEAST_BEHIND, _HARDLY = 1000, 64  # bytes; what is less is no sound, or not worth a word
_PACKETS = {"Ogg", "FLAC", "MP3", "VOC"}  # what libsndfile could open, but FFmpeg is to decode


class Decoder(Protocol):
    """A recording that can be decoded once, from start to end."""

    info: AudioInfo
    fault: str  # after the last piece: why it ended early or what of it is lost, or an empty string
    remark: str  # after the last piece: what else is to be said of it
    left_out: int  # after the last piece: samples that its time stamps claim, and that are none

    def pieces(self) -> Iterator[Piece]:
        """Yield the samples in pieces of any size."""
        ...

    def close(self) -> None:
        """Let go of what the decoder holds."""
        ...


@contextmanager
def decoding(
    path: AnyPath, headerless: Mapping[str, HeaderlessFormat] | None = None, *, max_gap_s: float = MAX_GAP_S
) -> Iterator[tuple[OpenFile, Decoder]]:
    """Open a recording, and find the decoder that knows it.

    Parameters
    ----------
    path
        A path or an fsspec URL.
    headerless
        By suffix, the formats of files that no decoder recognises.
    max_gap_s
        Seconds; a longer gap between time stamps is not filled with silence.

    Raises
    ------
    AudioError
        With the code missing, unreadable, empty, corrupt or unsupported.
    """
    place = resolve(path)
    settings = (headerless or {}).get(place.suffix.lower())
    with opened(place) as source, closing(_decoder(source, settings, max_gap_s)) as decoder:
        info = decoder.info
        if not 1 <= info.channels <= _MAX_CHANNELS or info.sampling_rate not in _RATES:
            limits = f"1 to {_MAX_CHANNELS} channels at {_RATES[0]} to {_RATES[-1]} Hz"
            found = f"{info.channels} channel(s) at {info.sampling_rate} Hz"
            raise AudioError(Code.UNSUPPORTED, f"{found} found, expected {limits}")
        yield source, decoder


def _decoder(source: OpenFile, headerless: HeaderlessFormat | None, max_gap_s: float) -> Decoder:
    if not source.size:
        raise AudioError(Code.EMPTY, "the file has no bytes")
    if headerless is None:
        return _recognised(source, max_gap_s)
    # Some formats have no header either, only sync words, and telephone sound holds some of these by chance: what has
    # nothing better to show must decode as a whole.
    try:
        decoder = _recognised(source, max_gap_s, gsm=False)
        if _name(source):
            return decoder
        with closing(decoder):
            is_sound = _decodes(decoder)
        if is_sound:
            return _recognised(source, max_gap_s, gsm=False)
    except AudioError:
        if _name(source) or _text(source):
            raise
    return _headerless(source, headerless)


class _Chain:
    """The files that follow each other in one file, as one."""

    def __init__(self, source: OpenFile, max_gap_s: float, *, gsm: bool) -> None:
        self._source, self._max_gap_s = source, max_gap_s
        tags = tags_length(source.head)
        first, self._link = link(source, tags if tags > _LARGE_TAG else 0)
        self._decoder = _known(first, max_gap_s, gsm=gsm)
        self.info = self._decoder.info
        self.fault = self.remark = ""
        self.left_out = 0

    def pieces(self) -> Iterator[Piece]:
        faults, remarks, count = [], [], 0
        while True:
            count += 1
            info = self._decoder.info
            self._frames = 0
            rates = {"source_rate": info.sampling_rate, "target_rate": self.info.sampling_rate}
            try:
                yield from resampled(map(self._counted, self._decoder.pieces()), self.info.channels, **rates)
            except AudioError as error:
                if count == 1:
                    raise
                faults.append(error.message)
            tail = self._tail()
            faults += [self._decoder.fault, tail.fault]
            remarks.append(self._decoder.remark)
            self.left_out += self._decoder.left_out
            missing = (info.frames or 0) - self._decoder.left_out - self._frames
            unread = self._next(tail, faults)
            # Of one file alone, whoever decodes it compares. What an Ogg file claims is read at the end of them all.
            is_claimed = not info.codec.startswith("ogg/")
            if is_claimed and (count > 1 or unread is None) and missing > slack(info.frames or 0, info.sampling_rate):
                faults.append(
                    f"stream {count} ends {missing / info.sampling_rate:.2f} s before the end that its header claims"
                )
            if unread is not None:
                break
        if count > 1:
            self.info = replace(self.info, frames=None)  # it was the claim of the first
            remarks.insert(0, f"{count} streams, one behind the other")
        (faults if unread[1] else remarks).append(unread[0])
        self.fault, self.remark = ("; ".join(dict.fromkeys(filter(None, facts))) for facts in (faults, remarks))

    def _counted(self, piece: Piece) -> Piece:
        self._frames += len(piece)
        return piece

    def _tail(self) -> Tail:
        """Return the end of the file that was decoded last. Only now it is known."""
        file = OpenFile(self._link, again=self._source.again)
        if not isinstance(self._decoder, FFmpegDecoder):
            return Tail(file.size, file.size)
        return tail_of(file, self._decoder.info.codec.partition("/")[0], self._decoder.last_packet)

    def _next(self, tail: Tail, faults: list[str]) -> tuple[str, bool] | None:
        """Go on to the next file; where there is none, return what lies there instead, and whether it matters."""
        info = self._decoder.info
        per_second = tail.end / max(1.0, self._frames / info.sampling_rate)
        matters = max(_LEAST_BEHIND, per_second * _MATTERS_S)
        self._decoder.close()
        end = self._link.start + tail.end
        first = behind(self._source, end)
        if first is None:  # padding is no sound that is lost, where the file says how much there is
            zeros = self._source.size - end if self._source.at(end, 1) == b"\0" else 0
            is_known = info.frames is not None or info.codec.startswith("ogg/")
            is_lost = not is_known and zeros >= max(_MAX_PADDING, matters)
            return (f"the last {zeros} of {self._source.size} bytes are zeros", True) if is_lost else ("", False)
        if tail.search < tail.end:  # a file or a tag may begin within the bytes that the last frame could have had
            found = next_file(self._source, self._link.start + tail.search)
            first = first if found is None else behind(self._source, found)
            if first is None:
                return "", False
        found = next_file(self._source, first)
        start = first if found is None else found
        if start <= self._link.start:  # what was read says nothing of its places
            return "", False
        if start - first >= matters:
            faults.append(f"{start - first} bytes behind the sound not read (no known container)")
        unread = self._source.size - start
        try:
            source, self._link = link(self._source, start)
            wav = wav_header(source)
            if wav is not None:
                decoder = _wav(source, wav, self._max_gap_s)
            else:
                decoder = _known(source, self._max_gap_s, gsm=False)
        except AudioError as error:
            if unread < _HARDLY:
                return "", False
            reason = error.message if _name(source) or _text(source) else "no known container"
            return f"{unread} bytes behind the sound not read ({reason})", unread >= matters
        if decoder.info.channels != self.info.channels:
            decoder.close()
            channels = f"{decoder.info.channels} channel(s) found, expected {self.info.channels}"
            return f"{unread} bytes behind the sound not read: {channels}", True
        self._decoder = decoder
        return None

    def close(self) -> None:
        self._decoder.close()


def _recognised(source: OpenFile, max_gap_s: float, *, gsm: bool = True) -> Decoder:
    """Return the decoder that knows a file by its content.

    Headerless `gsm` is told by four bits of each 33 bytes. Silence in A-law has them too: settings know better.
    """
    wav = wav_header(source)
    return _wav(source, wav, max_gap_s) if wav is not None else _Chain(source, max_gap_s, gsm=gsm)


def _known(source: OpenFile, max_gap_s: float, *, gsm: bool) -> Decoder:
    reason = ""
    if _name(source) not in _PACKETS and not _MPEG_SYNC.match(source.head):  # libsndfile's MP3 decoder prints warnings
        try:
            decoder = SndfileDecoder(source, None)
            if not decoder.is_packets:
                return decoder
            decoder.close()
        except soundfile.LibsndfileError as error:
            reason = _reason(error)
    try:
        packets = FFmpegDecoder(source, formats=FORMATS + ",gsm" * gsm, max_gap_s=max_gap_s)
    except av.FFmpegError as error:
        raise _refusal(source, reason, error) from error
    if packets.info.codec.startswith("mp3/"):
        packets.info = replace(packets.info, frames=mp3_frames(source))
    if packets.info.codec.startswith("ogg/"):
        rate = packets.info.sampling_rate
        # A stream that was joined late starts late as well, but within its first page.
        if packets.starts_s * rate >= max(ogg_first_samples(source), 0.1 * rate):
            packets.fault = f"the first {packets.starts_s:.2f} s are damaged"
    return packets


def _wav(source: OpenFile, wav: WavHeader, max_gap_s: float) -> Decoder:
    if not (wav.channels and wav.sampling_rate):
        found = f"{wav.channels} channel(s) at {wav.sampling_rate} Hz"
        raise AudioError(Code.CORRUPT, f"the WAV header claims {found}, expected neither to be 0")
    header = wav
    end = sum((wav.extents[-1].place, wav.extents[-1].there)) if wav.extents else 0
    is_file = bool(header.behind) and next_file(source, end) is not None  # its start may look like a chunk
    if not wav.is_plain and wav.there:
        source = OpenFile(Spliced(source, wav), again=source.again)
        wav = wav_header(source) or wav
    decoder: Decoder | None = None
    reason = ""
    try:
        samples = SndfileDecoder(source, wav)
        decoder = None if samples.is_packets else samples
    except soundfile.LibsndfileError as error:
        reason = _reason(error)
    if decoder is None:
        try:
            decoder = FFmpegDecoder(source, formats="wav", max_gap_s=max_gap_s)
        except av.FFmpegError as error:
            raise _refusal(source, reason, error) from error
    if header.claimed is None:
        decoder.info = replace(decoder.info, frames=None)
    if header.behind:
        not_read = f"{header.behind_bytes} bytes {header.behind} lie behind the sound, not read"
        if header.behind_s < _MATTERS_S and not is_file:
            decoder.remark = not_read
        else:
            decoder.fault = not_read
    return decoder


def _reason(error: soundfile.LibsndfileError) -> str:
    """Return what libsndfile says is wrong with a format it knows, or an empty string."""
    return "" if error.code in (_NOT_RECOGNISED, _SYSTEM) else str(error.error_string)


def _decodes(decoder: Decoder) -> bool:
    """Return whether a whole file decodes to what it claims."""
    info = decoder.info
    if not info.sampling_rate:
        return False
    frames = sum(len(piece) for piece in decoder.pieces())
    claimed = info.frames or 0
    return bool(frames) and not decoder.fault and claimed - frames <= slack(claimed, info.sampling_rate)


def _headerless(source: OpenFile, settings: HeaderlessFormat) -> Decoder:
    claimed = settings.frames(source.size)
    if settings.encoding in RAW:
        return SndfileDecoder(source, None, settings, claimed)
    decoder = FFmpegDecoder(source, formats=settings.encoding, raw=settings.encoding, max_gap_s=MAX_GAP_S)
    decoder.info = AudioInfo(f"raw/{settings.encoding}", settings.sampling_rate, settings.channels, claimed)
    return decoder


def _refusal(source: OpenFile, reason: str, error: av.FFmpegError) -> AudioError:
    """Return what to raise where no decoder opens a file; `reason` is libsndfile's, where it has one."""
    name, library = _name(source), reason or str(error.strerror)
    if name and isinstance(error, av.error.PatchWelcomeError | av.error.DecoderNotFoundError):
        return AudioError(Code.UNSUPPORTED, one_line(f"no decoder knows the encoding of the {name} file ({library})"))
    if name:
        found = f"the start of the {name} file ({source.size} bytes) is damaged or broken off"
        return AudioError(Code.CORRUPT, one_line(f"{found}, expected a whole header ({library})"))
    text = _text(source)
    if text:
        return AudioError(Code.UNSUPPORTED, f"text found, expected sound: {one_line(text)[:60]!r}")
    advice = "if it is headerless sound, the setting headerless must say its format, such as .raw=ulaw:8000"
    return AudioError(Code.UNSUPPORTED, f"no known container in {source.size} bytes; {advice}")


def _name(source: OpenFile) -> str | None:
    return next((name for magic, name in _MAGIC.items() if re.match(magic, source.head, re.DOTALL)), None)


def _text(source: OpenFile) -> str:
    """Return the start of a file that is text, or an empty string.

    Silence in A-law may be ``UUUU…``, and loud sound may look like letters for a while, but hardly with spaces.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(source.head)
    except UnicodeDecodeError:
        return ""
    is_text = all(letter.isprintable() or letter.isspace() for letter in text)
    return text if is_text and (source.size < _SHORT or any(map(str.isspace, text))) else ""
