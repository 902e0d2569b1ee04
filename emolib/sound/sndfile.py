"""What libsndfile makes of an open file: of samples as they are, and of companded and block-coded ones."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from typing import cast

import numpy as np
import soundfile
from numpy.typing import NDArray

from emolib.config import HeaderlessFormat
from emolib.sound.headers import AudioInfo, claimed_frames
from emolib.sound.source import OpenFile
from emolib.sound.wav import WavHeader

_PIECE = 2**16  # samples; the most that a decoder hands out at once
_WORD = np.float32(2**-15)  # 16-bit samples at full scale
_STEP = 4096  # samples; a compressed decoder that fails loses all that it was asked for
# Every byte of these is a sample, so that reading them can't fail, and much may be read at once.
_PLAIN = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"}
_PACKED = {"FLAC", "SDS"}  # but in these, which compress them or send them in packets
# libsndfile's names of what it decodes without a header; FFmpeg has raw demuxers for the others, of the same names.
RAW = {
    "ulaw": ("ULAW", None),
    "alaw": ("ALAW", None),
    "u8": ("PCM_U8", None),
    "s16le": ("PCM_16", "LITTLE"),
    "s16be": ("PCM_16", "BIG"),
    "gsm": ("GSM610", None),
    "vox": ("VOX_ADPCM", None),
}
# Containers and encodings of packets. It loses what lies behind a damaged one; FFmpeg goes on.
_PACKETS = ("FLAC", "OGG", "MP3", "MPEG", "ALAC")


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from start to end.

    After each read of a seekable file, python-soundfile seeks to where it is already. That throws away the bit
    reservoir of an MP3: read in blocks, it comes out wrong at the start of every block.
    """

    def seekable(self) -> bool:
        return False


class SndfileDecoder:
    """What libsndfile makes of a source; where it has no header, by the settings and the samples that these claim."""

    def __init__(
        self, source: OpenFile, wav: WavHeader | None, raw: HeaderlessFormat | None = None, claimed: int = 0
    ) -> None:
        source.seek(0)
        self._source = source
        if raw is not None:
            subtype, endian = RAW[raw.encoding]
            self._file = _Sequential(
                source, "r", raw.sampling_rate, raw.channels, subtype=subtype, endian=endian, format="RAW"
            )
        else:
            self._file = _Sequential(source)
        self.opened = int(self._file.frames)
        self.fault = self.remark = ""
        self.left_out = 0
        self._subtype = self._file.subtype
        self._is_plain = self._subtype in _PLAIN and self._file.format not in _PACKED
        frames: int | None = claimed
        if wav is not None:
            frames = wav.frames(self.opened)
        elif raw is None:
            frames = claimed_frames(source, opened=self.opened)
        # Where the codes of µ-law and A-law begin, if libsndfile sees as many of them as the header says.
        self._codes: int | None = None
        if self._subtype in ("ULAW", "ALAW"):
            if raw is not None:
                self._codes = 0
            elif wav is not None and len(wav.extents) == 1 and wav.block_bytes == self._file.channels:
                self._codes = wav.extents[0].place if self.opened == wav.there // wav.block_bytes else None
        codec = f"{self._file.format}/{self._subtype}".lower()
        self.info = AudioInfo(codec, self._file.samplerate, self._file.channels, frames)

    @property
    def is_packets(self) -> bool:
        """Whether the sound comes in packets: then FFmpeg is to decode it."""
        return any(name.startswith(_PACKETS) for name in (str(self._file.format), str(self._subtype)))

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples, ``(sample, channel)``; a piece is good until the next one is asked for."""
        if self._codes is not None:
            return self._levels(self._codes)
        return self._words() if self._subtype == "PCM_16" and self._is_plain else self._floats()

    def _levels(self, start: int) -> Iterator[NDArray[np.float32]]:
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

    def _words(self) -> Iterator[NDArray[np.float32]]:
        """Read 16-bit samples: libsndfile hands them out eight times as fast as it makes floats, the same, of them."""
        words = np.empty((_PIECE, self.info.channels), np.int16)
        piece = np.empty(words.T.shape, np.float32)
        while length := self._file.buffer_read_into(words, "int16"):
            np.multiply(words[:length].T, _WORD, out=piece[:, :length])
            yield piece[:, :length].T

    def _floats(self) -> Iterator[NDArray[np.float32]]:
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
        """Let go of what the decoder holds."""
        self._file.close()


@cache
def _companded(subtype: str) -> NDArray[np.float32]:
    """Return the levels of the 256 codes of µ-law or A-law."""
    codes = io.BytesIO(bytes(range(256)))
    levels, _ = soundfile.read(codes, dtype="float32", samplerate=8000, channels=1, format="RAW", subtype=subtype)
    return cast("NDArray[np.float32]", levels)
