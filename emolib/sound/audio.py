"""Decode recordings: by content and never by name, in blocks, and with a verdict on what came out.

Decoders do not complain about everything that is wrong with a file, so every decode is judged: how much came out
against what the header claims, and whether the numbers can be sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emolib.config import HeaderlessFormat
from emolib.errors import AudioError, Code
from emolib.sound.decoders import Decoder, Piece, decoding
from emolib.sound.headers import AudioInfo, slack
from emolib.sound.resampling import resample, resampled, resampled_length
from emolib.sound.source import OpenFile, one_line
from emolib.sound.timeline import MAX_GAP_S
from emolib.storage import AnyPath

__all__ = ["Audio", "AudioInfo", "AudioStream", "probe", "read", "resample", "resampled_length", "stream"]

_BLOCK = 2**16  # samples
# Lossy codecs overshoot full scale by some decibels and float files by a little more; a damaged MP3 and integers stored
# as floats leave it far behind.
_MAX_PEAK = 8.0
# A wild sample (NaN, infinite, far beyond full scale) in a file of floats is one lost sample, set to 0; more of them
# mean that these are no samples. In the decode of a compressed file it shows that its neighbours are wrong too.
_MAX_WILD = 1e-3
_FULL_SCALE = 32_124 / 32_768  # the loudest sample of µ-law; those of A-law and linear codes lie beyond
_CLIPPED_SHARE = 1e-3  # at full scale; loud sound that was recorded well touches it now and then


@dataclass(frozen=True, slots=True)
class Audio:
    """A decoded recording.

    Parameters
    ----------
    info
        What its header claims.
    signal
        Float32 ``(channel, sample)``, finite and within [-1, 1].
    sampling_rate
        Of `signal`, in Hz.
    code
        `Code.OK`, or `Code.TRUNCATED` where clearly fewer samples came out than there were once.
    message
        One line of facts about the decode, or an empty string.
    """

    info: AudioInfo
    signal: NDArray[np.float32]
    sampling_rate: int
    code: Code
    message: str

    @property
    def decoded_s(self) -> float:
        """The duration of the signal in seconds."""
        return float(self.signal.shape[1] / self.sampling_rate)


class AudioStream:
    """A recording that is being decoded, block by block; `stream` makes one.

    Iterating over it gives each block once: float32 ``(channel, sample)``, finite, within [-1, 1], of 65,536 samples,
    the last one shorter. Put together they are what `read` gives. The verdict stands after the last one.

    Attributes
    ----------
    info
        What the header of the recording claims.
    sampling_rate
        Of the blocks, in Hz.
    """

    def __init__(self, source: OpenFile, decoder: Decoder, sampling_rate: int | None) -> None:
        self.info: AudioInfo = decoder.info
        self.sampling_rate: int = sampling_rate or decoder.info.sampling_rate
        self._source = source
        self._decoder = decoder
        self._judge = _Judge(decoder.info)
        self._verdict: tuple[Code, str] | None = None
        self._blocks = self._decode()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return self._blocks

    def content_hash(self) -> str:
        """Return a hash of the bytes of the file, whatever was decoded of it; the blocks stay the same."""
        return self._source.content_hash()

    @property
    def code(self) -> Code:
        """`Code.OK`, or `Code.TRUNCATED` where clearly fewer samples came out than there were once."""
        return self._after_the_last_block()[0]

    @property
    def message(self) -> str:
        """One line of facts about the decode, or an empty string."""
        return self._after_the_last_block()[1]

    @property
    def decoded_s(self) -> float:
        """The duration of all blocks in seconds."""
        self._after_the_last_block()
        return self._length() / self.sampling_rate

    def _after_the_last_block(self) -> tuple[Code, str]:
        if self._verdict is None:
            raise RuntimeError("a recording that is still being decoded found, expected that all its blocks were taken")
        return self._verdict

    def _length(self) -> int:
        return resampled_length(self._judge.frames, self.info.sampling_rate, self.sampling_rate)

    def _decode(self) -> Iterator[NDArray[np.float32]]:
        try:
            yield from _cut(self._resampled(), self.info.channels)
            self._verdict = self._judge.verdict(self._decoder)
        finally:
            self._source.check()

    def _resampled(self) -> Iterator[Piece]:
        rates = {"source_rate": self.info.sampling_rate, "target_rate": self.sampling_rate}
        for piece in resampled(map(self._judge.sound, self._decoder.pieces()), self.info.channels, **rates):
            yield piece if self.info.sampling_rate == self.sampling_rate else np.clip(piece, -1, 1, out=piece)


def _cut(pieces: Iterator[Piece], channels: int) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of one size, whatever sizes the pieces have; a block is never touched again."""
    block = np.empty((channels, _BLOCK), np.float32)
    filled = 0
    for piece in pieces:
        start = 0
        while start < len(piece):
            part = piece[start : start + _BLOCK - filled]
            block[:, filled : filled + len(part)] = part.T
            start += len(part)
            filled += len(part)
            if filled == _BLOCK:
                yield block
                block = np.empty((channels, _BLOCK), np.float32)
                filled = 0
    if filled:
        yield block[:, :filled].copy()


@contextmanager
def stream(
    source: AnyPath,
    *,
    sampling_rate: int | None = None,
    headerless: Mapping[str, HeaderlessFormat] | None = None,
    max_gap_s: float = MAX_GAP_S,
) -> Iterator[AudioStream]:
    """Decode a recording block by block, and resample it where another rate is asked for.

    Memory holds a few blocks, however long the recording is.

    Parameters
    ----------
    source
        A path or an fsspec URL.
    sampling_rate
        Rate of the blocks in Hz; None keeps the recording's own.
    headerless
        By suffix, in lower case and with its dot (empty: a name without one), the format of files that have no header
        (see `emolib.config.parse_headerless`). It is used only where no decoder recognises the content; bare MP3 and
        AAC frames, which telephone sound may resemble by chance, are recognised if they decode without a fault.
    max_gap_s
        Seconds; a longer gap between time stamps is not filled with silence.

    Raises
    ------
    AudioError
        With the code missing, unreadable, empty, corrupt or unsupported; some show only at the end of the iteration.

    Examples
    --------
    >>> import soundfile, tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
    ...     soundfile.write(file, np.zeros((100_000, 2)), 8000, format="WAV", subtype="ULAW")
    ...     with stream(file.name) as sound:
    ...         shapes = [block.shape for block in sound]
    >>> shapes, sound.decoded_s, str(sound.code), sound.message
    ([(2, 65536), (2, 34464)], 12.5, 'ok', 'all samples are zero')
    """
    with decoding(source, headerless, max_gap_s=max_gap_s) as (file, decoder):
        yield AudioStream(file, decoder, sampling_rate)


def probe(source: AnyPath, *, headerless: Mapping[str, HeaderlessFormat] | None = None) -> AudioInfo:
    """Return what the header of a recording claims, without decoding it.

    Parameters
    ----------
    source
        A path or an fsspec URL.
    headerless
        See `stream`; what it says of a file is the claim, and the length follows from the file's size.

    Raises
    ------
    AudioError
        With the code missing, unreadable, empty, corrupt or unsupported.
    """
    with decoding(source, headerless) as (_, decoder):
        return decoder.info


def read(
    source: AnyPath, *, sampling_rate: int | None = None, headerless: Mapping[str, HeaderlessFormat] | None = None
) -> Audio:
    """Decode a whole recording, and resample it where another rate is asked for.

    Parameters
    ----------
    source
        A path or an fsspec URL.
    sampling_rate
        Rate of the signal in Hz; None keeps the recording's own.
    headerless
        See `stream`.

    Raises
    ------
    AudioError
        With the code missing, unreadable, empty, corrupt or unsupported.

    Examples
    --------
    >>> import soundfile, tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
    ...     soundfile.write(file, np.full((8000, 2), 0.1), 8000, format="WAV", subtype="ULAW")
    ...     audio = read(file.name, sampling_rate=16_000)
    >>> audio.info.codec, audio.signal.shape, str(audio.code)
    ('wav/ulaw', (2, 16000), 'ok')
    """
    with stream(source, sampling_rate=sampling_rate, headerless=headerless) as sound:
        blocks = list(sound)
    signal = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
    return Audio(sound.info, signal, sound.sampling_rate, sound.code, sound.message)


class _Judge:
    """Watch the samples of a decode go by, make them fit to use, and say at the end what they were."""

    def __init__(self, info: AudioInfo) -> None:
        self.frames = 0
        self._info = info
        self._peak = 0.0
        self._beyond = 0
        self._loud = 0
        self._wild = 0

    def sound(self, piece: Piece) -> Piece:
        """Return a piece with every sample finite and within full scale."""
        self.frames += len(piece)
        peak = max(float(piece.max(initial=0)), -float(piece.min(initial=0)))
        if not peak <= 1:  # true for NaN
            tame = np.abs(piece) <= _MAX_PEAK
            self._wild += piece.size - int(np.count_nonzero(tame))
            piece = np.where(tame, piece, np.float32(0))
            peak = float(np.abs(piece).max())
            self._beyond += int(np.count_nonzero(np.abs(piece) > 1))
            piece = np.clip(piece, -1, 1)
        if peak >= _FULL_SCALE:
            self._loud += int(np.count_nonzero(piece >= _FULL_SCALE) + np.count_nonzero(piece <= -_FULL_SCALE))
        self._peak = max(self._peak, peak)
        return piece

    def verdict(self, decoder: Decoder) -> tuple[Code, str]:
        """Return the code and the message of the whole decode."""
        fault = decoder.fault
        info = self._info
        claim = "" if not info.duration_s else f"; the {info.codec} header claims {info.duration_s:.2f} s"
        if not self.frames and fault:
            raise AudioError(Code.CORRUPT, one_line(f"no sample could be decoded{claim}; {fault}"))
        if not self.frames:
            raise AudioError(Code.EMPTY, f"the {info.codec} file holds no samples{claim}")
        samples = self.frames * info.channels
        stored_as_floats = info.codec.endswith(("/float", "/double")) or "/pcm_f" in info.codec
        if self._wild > (_MAX_WILD * samples if stored_as_floats or fault else 0):
            found = f"{self._wild} of {samples} samples are not finite or beyond {_MAX_PEAK:g} times full scale"
            raise AudioError(Code.CORRUPT, f"{found}, expected within -1 to 1")
        claimed = decoder.info.frames  # which one that reads on may withdraw
        short = claimed is not None and claimed - decoder.left_out - self.frames > slack(claimed, info.sampling_rate)
        facts = [*self._length(fault, short=short), fault, decoder.remark, *self._levels(samples)]
        return (Code.TRUNCATED if short or fault else Code.OK), one_line("; ".join(filter(None, facts)))

    def _length(self, fault: str, *, short: bool) -> Iterator[str]:
        decoded = f"decoded {self.frames / self._info.sampling_rate:.2f} s"
        if short:
            yield f"{decoded} of the {self._info.duration_s:.2f} s that the header claims"
        elif fault:
            yield decoded
        elif self._info.frames is None:
            yield f"{decoded}; the header does not say how much there is"

    def _levels(self, samples: int) -> Iterator[str]:
        if self._wild:
            yield f"{self._wild} samples, not finite or beyond {_MAX_PEAK:g} times full scale, set to 0"
        if self._beyond:
            yield f"{self._beyond} samples beyond full scale clipped (peak {self._peak:.2f})"
        elif self._loud >= _CLIPPED_SHARE * samples:
            yield f"{self._loud / samples:.1%} of the samples at full scale"
        if not self._peak:
            yield "all samples are zero"
