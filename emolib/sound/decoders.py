"""What libsndfile and FFmpeg make of an open file: the only module that knows them.

libsndfile is asked first; what it does not know (MP4, WMA, WebM, AMR, rare telephone codecs in WAV) goes to FFmpeg.
Both see bytes alone, never a name. What neither recognises is sound only where the settings say in which format.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from typing import Protocol, TypeAlias, cast

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from emolib.config import HeaderlessFormat
from emolib.errors import AudioError, Code
from emolib.sound.headers import AudioInfo, WavHeader, claimed_frames, slack, wav_header
from emolib.sound.source import OpenFile, one_line, opened
from emolib.storage import AnyPath, resolve

Piece: TypeAlias = NDArray[np.float32]  # (sample, channel); good until the next one is asked for

_PIECE = 2**16  # samples; the most that a decoder hands out at once
_WORD = np.float32(2**-15)  # 16-bit samples at full scale
_STEP = 4096  # samples; a compressed decoder that fails loses all that it was asked for
# Every byte of these is a sample, so that reading them can't fail, and much may be read at once.
_PLAIN = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
_PACKED = {"FLAC", "SDS"}  # but in these, which compress them or send them in packets
_SHORT = 256  # bytes; text this short may be one word
_MAX_CHANNELS = 32
_RATES = range(1000, 192_001)
# FFmpeg also guesses, by weak signs and by name, and has formats that make it open other files (playlists). It may try
# only those that content identifies.
_FFMPEG_FORMATS = "mov,matroska,asf,avi,flv,mpegts,wav,w64,aiff,au,caf,ogg,flac,mp3,aac,amr,nistsphere,voc,wv,ape"
_WITHOUT_LENGTH = {"aac", "amr", "mp3", "mpegts"}  # FFmpeg estimates the duration of these from the bit rate
_NOT_RECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT; other numbers say what is wrong with a format it knows
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
    rb"\x47.{187}\x47.{187}\x47": "MPEG-TS",
}
# libsndfile's names of what it decodes without a header; FFmpeg has raw demuxers for the others, of the same names.
_RAW = {
    "ulaw": ("ULAW", None),
    "alaw": ("ALAW", None),
    "u8": ("PCM_U8", None),
    "s16le": ("PCM_16", "LITTLE"),
    "s16be": ("PCM_16", "BIG"),
    "gsm": ("GSM610", None),
    "vox": ("VOX_ADPCM", None),
}


class Decoder(Protocol):
    """A recording that can be decoded once, from start to end."""

    info: AudioInfo
    fault: str  # after the last piece: why it ended early, or an empty string

    def pieces(self) -> Iterator[Piece]:
        """Yield the samples in pieces of any size."""
        ...

    def close(self) -> None:
        """Let go of what the decoder holds."""
        ...


@contextmanager
def decoding(
    path: AnyPath, headerless: Mapping[str, HeaderlessFormat] | None = None
) -> Iterator[tuple[OpenFile, Decoder]]:
    """Open a recording, and find the decoder that knows it.

    Parameters
    ----------
    path
        A path or an fsspec URL.
    headerless
        By suffix, the formats of files that no decoder recognises.

    Raises
    ------
    AudioError
        With the code missing, unreadable, empty, corrupt or unsupported.
    """
    place = resolve(path)
    with opened(place) as source, closing(_decoder(source, (headerless or {}).get(place.suffix.lower()))) as decoder:
        info = decoder.info
        if not 1 <= info.channels <= _MAX_CHANNELS or info.sampling_rate not in _RATES:
            limits = f"1 to {_MAX_CHANNELS} channels at {_RATES[0]} to {_RATES[-1]} Hz"
            found = f"{info.channels} channel(s) at {info.sampling_rate} Hz"
            raise AudioError(Code.UNSUPPORTED, f"{found} found, expected {limits}")
        yield source, decoder


def _decoder(source: OpenFile, headerless: HeaderlessFormat | None) -> Decoder:
    if not source.size:
        raise AudioError(Code.EMPTY, "the file has no bytes")
    if headerless is None:
        return _recognised(source)
    # Some formats have no header either, only sync words, and telephone sound holds some of these by chance: what has
    # nothing better to show must decode as a whole.
    try:
        decoder = _recognised(source, gsm=False)
        if _name(source):
            return decoder
        with closing(decoder):
            is_sound = _decodes(decoder)
        if is_sound:
            return _recognised(source, gsm=False)
    except AudioError:
        if _name(source) or _text(source):
            raise
    return _headerless(source, headerless)


def _recognised(source: OpenFile, *, gsm: bool = True) -> Decoder:
    """Return the decoder that knows a file by its content.

    Headerless `gsm` is told by four bits of each 33 bytes. Silence in A-law has them too: settings know better.
    """
    wav = wav_header(source)
    if wav is not None and not (wav.channels and wav.sampling_rate):
        found = f"{wav.channels} channel(s) at {wav.sampling_rate} Hz"
        raise AudioError(Code.CORRUPT, f"the WAV header claims {found}, expected neither to be 0")
    reason = ""
    try:
        decoder = _SoundFile(source, wav)
        by_chance = not decoder.info.sampling_rate and not _name(source)  # one MP3 sync word, and nothing behind it
        if not by_chance and (decoder.opened or wav is None or wav.claimed is not None):
            return decoder
        decoder.close()  # a stream whose header claims 0 bytes: libsndfile believes it, FFmpeg reads on
    except soundfile.LibsndfileError as error:
        if error.code != _NOT_RECOGNISED:
            reason = error.error_string
    try:
        return _FFmpeg(source, wav, _FFMPEG_FORMATS + ",gsm" * gsm)
    except av.FFmpegError as error:
        unknown = isinstance(error, av.error.PatchWelcomeError | av.error.DecoderNotFoundError)
        raise _refusal(source, reason or str(error.strerror), unknown=unknown) from error


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
    if settings.encoding in _RAW:
        return _SoundFile(source, None, settings, claimed)
    decoder = _FFmpeg(source, None, settings.encoding, settings.encoding)
    decoder.info = AudioInfo(f"raw/{settings.encoding}", settings.sampling_rate, settings.channels, claimed)
    return decoder


def _refusal(source: OpenFile, reason: str, *, unknown: bool) -> AudioError:
    name = _name(source)
    if name and unknown:
        return AudioError(Code.UNSUPPORTED, one_line(f"a {name} file in an encoding that no decoder knows: {reason}"))
    if name:
        return AudioError(Code.CORRUPT, one_line(f"a damaged {name} file of {source.size} bytes: {reason}"))
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


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from start to end.

    After each read of a seekable file, python-soundfile seeks to where it is already. That throws away the bit
    reservoir of an MP3: read in blocks, it comes out wrong at the start of every block.
    """

    def seekable(self) -> bool:
        return False


class _SoundFile:
    """What libsndfile makes of a source; where it has no header, by the settings and the samples that these claim."""

    def __init__(
        self, source: OpenFile, wav: WavHeader | None, raw: HeaderlessFormat | None = None, claimed: int = 0
    ) -> None:
        source.seek(0)
        self._source = source
        if raw is not None:
            subtype, endian = _RAW[raw.encoding]
            self._file = _Sequential(
                source, "r", raw.sampling_rate, raw.channels, subtype=subtype, endian=endian, format="RAW"
            )
        else:
            self._file = _Sequential(source)
        self.opened = int(self._file.frames)
        self.fault = ""
        self._subtype = self._file.subtype
        self._is_plain = self._subtype in _PLAIN and self._file.format not in _PACKED
        frames: int | None = claimed
        if raw is None:
            frames, self.fault = claimed_frames(
                source,
                wav,
                opened=self.opened,
                sampling_rate=self._file.samplerate,
                ticks=48_000 if self._subtype == "OPUS" else self._file.samplerate,
            )
        # Where the codes of µ-law and A-law begin, if libsndfile sees as many of them as the header says.
        self._codes: int | None = None
        if self._subtype in ("ULAW", "ALAW"):
            if raw is not None:
                self._codes = 0
            elif wav is not None and wav.claimed is not None and wav.block_bytes == self._file.channels:
                same = self.opened == min(wav.claimed, wav.there) // wav.block_bytes
                self._codes = source.size - wav.there if same else None
        codec = f"{self._file.format}/{self._subtype}".lower()
        self.info = AudioInfo(codec, self._file.samplerate, self._file.channels, frames)

    def pieces(self) -> Iterator[Piece]:
        if self._codes is not None:
            return self._levels(self._codes)
        return self._words() if self._subtype == "PCM_16" and self._is_plain else self._floats()

    def _levels(self, start: int) -> Iterator[Piece]:
        """Look the codes of a companded file up: twice as fast as libsndfile does it, and the same numbers."""
        levels = _companded(self._subtype)
        channels = self.info.channels
        numbers = np.empty(_PIECE, np.intp)
        piece = np.empty((channels, _PIECE), np.float32)
        self._source.seek(start)
        left = self.opened
        while left and (data := self._source.read(min(left, _PIECE) * channels)):
            length = len(data) // channels
            codes = np.frombuffer(data, np.uint8, length * channels).reshape(length, channels)
            for channel in range(channels):
                np.copyto(numbers[:length], codes[:, channel])
                levels.take(numbers[:length], out=piece[channel, :length], mode="clip")
            yield piece[:, :length].T
            left -= length

    def _words(self) -> Iterator[Piece]:
        """Read 16-bit samples: libsndfile hands them out eight times as fast as it makes floats, the same, of them."""
        words = np.empty((_PIECE, self.info.channels), np.int16)
        piece = np.empty(words.T.shape, np.float32)
        while length := self._file.buffer_read_into(words, "int16"):
            np.multiply(words[:length].T, _WORD, out=piece[:, :length])
            yield piece[:, :length].T

    def _floats(self) -> Iterator[Piece]:
        step = _PIECE if self._is_plain else _STEP
        piece = np.empty((_PIECE, self.info.channels), np.float32)
        length = 0
        try:
            while count := self._file.buffer_read_into(piece[length : length + step], "float32"):
                length += count
                if length == len(piece):
                    yield piece
                    length = 0
        except soundfile.LibsndfileError as error:
            self.fault = f"then the decoder failed: {error.error_string or 'the data are damaged'}"
        if length:
            yield piece[:length]

    def close(self) -> None:
        self._file.close()


@cache
def _companded(subtype: str) -> NDArray[np.float32]:
    """Return the levels of the 256 codes of µ-law or A-law."""
    codes = io.BytesIO(bytes(range(256)))
    levels, _ = soundfile.read(codes, dtype="float32", samplerate=8000, channels=1, format="RAW", subtype=subtype)
    return cast("NDArray[np.float32]", levels)


class _FFmpeg:
    """What FFmpeg makes of a source, as one of some formats, or as a `raw` one."""

    def __init__(self, source: OpenFile, wav: WavHeader | None, formats: str, raw: str | None = None) -> None:
        source.seek(0)
        self._source = source
        self._container = av.open(
            source, "r", format=raw, metadata_errors="replace", options={"format_whitelist": formats}
        )
        self._format = self._container.format.name.split(",")[0]
        self.fault = ""
        if not self._container.streams.audio:
            raise AudioError(Code.EMPTY, f"a {self._format} file without a sound track")
        self._stream = self._container.streams.audio[0]
        context = self._stream.codec_context
        if context is None:
            raise AudioError(Code.UNSUPPORTED, f"a {self._format} file in an encoding that no decoder knows")
        seconds = None
        if self._format not in _WITHOUT_LENGTH and not (wav is not None and wav.claimed is None):
            if self._stream.duration is not None and self._stream.time_base is not None:
                seconds = float(self._stream.duration * self._stream.time_base)
            elif self._container.duration is not None:
                seconds = self._container.duration / av.time_base
        rate = context.sample_rate
        frames = None if seconds is None else round(seconds * rate)
        self.info = AudioInfo(f"{self._format}/{context.name}", rate, context.channels, frames)

    def pieces(self) -> Iterator[Piece]:
        parts: list[Piece] = []
        held = 0
        for part in self._parts():
            parts.append(part)
            held += len(part)
            if held >= _PIECE:
                yield np.concatenate(parts)
                parts, held = [], 0
        if parts:
            yield np.concatenate(parts)

    def _parts(self) -> Iterator[Piece]:
        to_float = av.AudioResampler(format="flt")  # interleaved: PyAV crashes at more than eight planes
        packets = damaged = 0
        try:
            for packet in self._container.demux(self._stream):
                packets += 1
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    damaged += 1
                    continue
                for frame in frames:
                    found = (frame.layout.nb_channels, frame.sample_rate)
                    if found != (self.info.channels, self.info.sampling_rate):
                        raise AudioError(Code.CORRUPT, f"the sound changes to {found[0]} channel(s) at {found[1]} Hz")
                    for part in to_float.resample(frame):
                        yield cast("Piece", part.to_ndarray().reshape(-1, found[0]))
        except (av.FFmpegError, IndexError) as error:  # IndexError: a damaged file announces one more stream midway
            self.fault = f"then the decoder failed: {getattr(error, 'strerror', 'the data are damaged')}"
        if damaged:
            self.fault = f"{damaged} of {packets} packets are damaged"
        if damaged > packets / 2:
            # An elementary stream has no header, only sync words; telephone noise holds some by chance.
            raise _refusal(self._source, self.fault, unknown=False)

    def close(self) -> None:
        self._container.close()
