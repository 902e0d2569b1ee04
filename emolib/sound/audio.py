"""Decode recordings: by content and never by name, in blocks, and with a verdict on what came out.

libsndfile is asked first; what it does not know (MP4, WMA, WebM, AMR, rare telephone codecs in WAV) goes to FFmpeg.
Neither complains about everything that is wrong with a file, so every decode is judged: how much came out against
what the header claims, and whether the numbers can be sound.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from emolib.errors import AudioError, Code
from emolib.sound.headers import WavHeader, claimed_frames, slack, wav_header
from emolib.storage import AnyPath, is_local, resolve

_Block: TypeAlias = NDArray[np.float32]  # (sample, channel)

_BLOCK = 4096  # samples; a decoder that fails loses the whole block it was reading
_MAX_CHANNELS = 32
_RATES = range(1000, 192_001)
# Lossy codecs overshoot full scale by some decibels and float files by a little more; a damaged MP3 and integers stored
# as floats leave it far behind.
_MAX_PEAK = 8.0
# A wild sample (NaN, infinite, far beyond full scale) in a file of floats is one lost sample, set to 0; more of them
# mean that these are no samples. In the decode of a compressed file it shows that its neighbours are wrong too.
_MAX_WILD = 1e-3
# FFmpeg also guesses, by weak signs and by name, and has formats that make it open other files (playlists). It may try
# only those that content identifies.
_FFMPEG_FORMATS = "mov,matroska,asf,avi,flv,mpegts,wav,w64,aiff,au,caf,ogg,flac,mp3,aac,amr,gsm,nistsphere,voc,wv,ape"
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
}


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a recording claims.

    Parameters
    ----------
    codec
        Container and encoding, such as ``wav/ulaw`` or ``mov/aac``.
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


def probe(source: AnyPath) -> AudioInfo:
    """Return what the header of a recording claims, without decoding it.

    Parameters
    ----------
    source
        A path or an fsspec URL.

    Raises
    ------
    AudioError
        With the code missing, unreadable, empty, corrupt or unsupported.
    """
    with _decoding(source) as decoder:
        return decoder.info


def read(source: AnyPath, *, sampling_rate: int | None = None) -> Audio:
    """Decode a whole recording, and resample it where another rate is asked for.

    Parameters
    ----------
    source
        A path or an fsspec URL.
    sampling_rate
        Rate of the signal in Hz; None keeps the recording's own.

    Raises
    ------
    AudioError
        With the code missing, unreadable, empty, corrupt or unsupported.

    Examples
    --------
    >>> import soundfile, tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".mp3") as file:
    ...     soundfile.write(file, np.zeros((8000, 2)), 8000, format="WAV", subtype="ULAW")
    ...     audio = read(file.name, sampling_rate=16_000)
    >>> audio.info.codec, audio.signal.shape, str(audio.code)
    ('wav/ulaw', (2, 16000), 'ok')
    """
    with _decoding(source) as decoder:
        info = decoder.info
        target = sampling_rate or info.sampling_rate
        judge = _Judge(info)
        resampler = None
        if target != info.sampling_rate:
            # The streaming form gives the same bits whatever the size of the blocks, and never holds the original.
            resampler = soxr.ResampleStream(info.sampling_rate, target, info.channels, dtype="float32", quality=soxr.HQ)
        pieces: list[_Block] = []
        for block in decoder.blocks():
            block = judge.sound(block)
            pieces.append(block if resampler is None else resampler.resample_chunk(block))
        if resampler is not None:
            pieces.append(resampler.resample_chunk(np.empty((0, info.channels), np.float32), last=True))
    code, message = judge.verdict(decoder.fault)
    signal = np.zeros((info.channels, resampled_length(judge.frames, info.sampling_rate, target)), np.float32)
    start = 0
    for piece in pieces:
        part = signal[:, start : start + len(piece)]
        part[...] = piece[: part.shape[1]].T
        start += len(piece)
    np.clip(signal, -1, 1, out=signal)
    return Audio(info, signal, target, code, message)


def resampled_length(frames: int, source_rate: int, target_rate: int) -> int:
    """Return how many samples `read` makes of a number of decoded ones.

    Examples
    --------
    >>> resampled_length(44_101, 44_100, 8000)
    8001
    """
    return -(-frames * target_rate // source_rate)


class _Source:
    """An open file as both decoders see it.

    It has no name, since they also guess the format from that. And it keeps what a read raises: the callbacks of a C
    library cannot pass it on, so that a flaky network would look like the end of the file.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.failure: BaseException | None = None
        self.size = int(file.seek(0, 2))
        self.head = self.at(0, 1024)

    def read(self, size: int = -1) -> bytes:
        try:
            return b"" if self.failure else self._file.read(size)
        except BaseException as error:
            self.failure = error
            return b""

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, place: int, whence: int = 0) -> int:
        """Move within the file; a damaged header may send a decoder before its start (refused) or beyond its end."""
        place += (0, self.tell(), self.size)[whence]
        return int(self._file.seek(min(place, self.size))) if place >= 0 else -1

    def tell(self) -> int:
        return int(self._file.tell())

    def at(self, place: int, size: int) -> bytes:
        """Return bytes of the file and leave the position where the decoder had it."""
        before = self.tell()
        self.seek(place)
        data = self.read(size)
        self.seek(before)
        return data


@contextmanager
def _opened(path: AnyPath) -> Iterator[_Source]:
    place = resolve(path)
    try:
        if is_local(place) and not stat.S_ISREG(Path(place.path).stat().st_mode):
            raise AudioError(Code.UNREADABLE, "a folder or device found, expected a file")
        file = place.open("rb")
    except FileNotFoundError as error:
        raise AudioError(Code.MISSING, "no file found at the path") from error
    except OSError as error:
        raise AudioError(Code.UNREADABLE, f"the file cannot be opened: {error.strerror or error}") from error
    with file:
        source = _Source(file)
        try:
            yield source
        finally:
            if isinstance(source.failure, Exception):
                message = f"reading the file failed: {type(source.failure).__name__}: {source.failure}"
                raise AudioError(Code.UNREADABLE, _one_line(message)) from source.failure
            if source.failure is not None:
                raise source.failure


@contextmanager
def _decoding(path: AnyPath) -> Iterator[_SoundFile | _FFmpeg]:
    with _opened(path) as source, closing(_decoder(source)) as decoder:
        info = decoder.info
        if not 1 <= info.channels <= _MAX_CHANNELS or info.sampling_rate not in _RATES:
            limits = f"1 to {_MAX_CHANNELS} channels at {_RATES[0]} to {_RATES[-1]} Hz"
            found = f"{info.channels} channel(s) at {info.sampling_rate} Hz"
            raise AudioError(Code.UNSUPPORTED, f"{found} found, expected {limits}")
        yield decoder


def _decoder(source: _Source) -> _SoundFile | _FFmpeg:
    if not source.size:
        raise AudioError(Code.EMPTY, "the file has no bytes")
    wav = wav_header(source)
    if wav is not None and not (wav.channels and wav.sampling_rate):
        found = f"{wav.channels} channel(s) at {wav.sampling_rate} Hz"
        raise AudioError(Code.CORRUPT, f"the WAV header claims {found}, expected neither to be 0")
    reason = ""
    try:
        decoder = _SoundFile(source, wav)
        if decoder.opened or wav is None or wav.claimed is not None:
            return decoder
        decoder.close()  # a stream whose header claims 0 bytes: libsndfile believes it, FFmpeg reads on
    except soundfile.LibsndfileError as error:
        if error.code != _NOT_RECOGNISED:
            reason = error.error_string
    try:
        return _FFmpeg(source, wav)
    except av.FFmpegError as error:
        unknown = isinstance(error, av.error.PatchWelcomeError | av.error.DecoderNotFoundError)
        raise _refusal(source, reason or str(error.strerror), unknown=unknown) from error


def _refusal(source: _Source, reason: str, *, unknown: bool) -> AudioError:
    name = next((name for magic, name in _MAGIC.items() if re.match(magic, source.head, re.DOTALL)), None)
    if name and unknown:
        return AudioError(Code.UNSUPPORTED, f"a {name} file in an encoding that no decoder knows: {reason}")
    if name:
        return AudioError(Code.CORRUPT, f"a damaged {name} file of {source.size} bytes: {reason}")
    text = source.head.decode("ascii", errors="replace")[:200]
    if all(letter.isprintable() or letter.isspace() for letter in text) and "\ufffd" not in text:
        return AudioError(Code.UNSUPPORTED, f"text found, expected sound: {_one_line(text)[:60]!r}")
    advice = "headerless sound needs a header first (convert it to WAV)"
    return AudioError(Code.UNSUPPORTED, f"no known container in {source.size} bytes; {advice}")


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from start to end.

    After each read of a seekable file, python-soundfile seeks to where it is already. That throws away the bit
    reservoir of an MP3: read in blocks, it comes out wrong at the start of every block.
    """

    def seekable(self) -> bool:
        return False


class _SoundFile:
    """What libsndfile makes of a source."""

    def __init__(self, source: _Source, wav: WavHeader | None) -> None:
        source.seek(0)
        self._file = _Sequential(source)
        self.opened = int(self._file.frames)
        frames, self.fault = claimed_frames(
            source,
            wav,
            opened=self.opened,
            sampling_rate=self._file.samplerate,
            ticks=48_000 if self._file.subtype == "OPUS" else self._file.samplerate,
        )
        codec = f"{self._file.format}/{self._file.subtype}".lower()
        self.info = AudioInfo(codec, self._file.samplerate, self._file.channels, frames)

    def blocks(self) -> Iterator[_Block]:
        try:
            while len(block := self._file.read(_BLOCK, dtype="float32", always_2d=True)):
                yield block
        except soundfile.LibsndfileError as error:
            self.fault = f"then the decoder failed: {error.error_string or 'the data are damaged'}"

    def close(self) -> None:
        self._file.close()


class _FFmpeg:
    """What FFmpeg makes of a source."""

    def __init__(self, source: _Source, wav: WavHeader | None) -> None:
        source.seek(0)
        options = {"format_whitelist": _FFMPEG_FORMATS}
        self._source = source
        self._container = av.open(source, "r", metadata_errors="replace", options=options)
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

    def blocks(self) -> Iterator[_Block]:
        to_float = av.AudioResampler(format="fltp")
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
                        yield cast("_Block", part.to_ndarray().T)
        except (av.FFmpegError, IndexError) as error:  # IndexError: a damaged file announces one more stream midway
            self.fault = f"then the decoder failed: {getattr(error, 'strerror', 'the data are damaged')}"
        if damaged:
            self.fault = f"{damaged} of {packets} packets are damaged"
        if damaged > packets / 2:
            # An elementary stream has no header, only sync words; telephone noise holds some by chance.
            raise _refusal(self._source, self.fault, unknown=False)

    def close(self) -> None:
        self._container.close()


class _Judge:
    """Watch the samples of a decode go by, make them fit to use, and say at the end what they were."""

    def __init__(self, info: AudioInfo) -> None:
        self.frames = 0
        self._info = info
        self._peak = 0.0
        self._clipped = 0
        self._wild = 0

    def sound(self, block: _Block) -> _Block:
        """Return a block with every sample finite and within full scale."""
        self.frames += len(block)
        peak = float(np.abs(block).max(initial=0.0))
        if peak <= 1:  # false for NaN
            return block
        tame = np.abs(block) <= _MAX_PEAK
        self._wild += block.size - int(np.count_nonzero(tame))
        block = np.where(tame, block, np.float32(0))
        self._clipped += int(np.count_nonzero(np.abs(block) > 1))
        self._peak = max(self._peak, float(np.abs(block).max()))
        return np.clip(block, -1, 1)

    def verdict(self, fault: str) -> tuple[Code, str]:
        """Return the code and the message of the whole decode; `fault` says why it ended early."""
        info = self._info
        claim = "" if not info.duration_s else f"; the {info.codec} header claims {info.duration_s:.2f} s"
        if not self.frames and fault:
            raise AudioError(Code.CORRUPT, f"no sample could be decoded{claim}; {fault}")
        if not self.frames:
            raise AudioError(Code.EMPTY, f"the {info.codec} file holds no samples{claim}")
        samples = self.frames * info.channels
        stored_as_floats = info.codec.endswith(("/float", "/double")) or "/pcm_f" in info.codec
        if self._wild > (_MAX_WILD * samples if stored_as_floats else 0):
            found = f"{self._wild} of {samples} samples are not finite or beyond {_MAX_PEAK:g} times full scale"
            raise AudioError(Code.CORRUPT, f"{found}, expected within -1 to 1")
        decoded = f"decoded {self.frames / info.sampling_rate:.2f} s"
        notes = []
        short = info.frames is not None and info.frames - self.frames > slack(info.frames, info.sampling_rate)
        if short:
            notes.append(f"{decoded} of the {info.duration_s:.2f} s that the header claims")
        elif fault:
            notes.append(decoded)
        elif info.frames is None:
            notes.append(f"{decoded}; the header does not say how much there is")
        if fault:
            notes.append(fault)
        if self._wild:
            notes.append(f"{self._wild} samples, not finite or beyond {_MAX_PEAK:g} times full scale, set to 0")
        if self._clipped:
            notes.append(f"{self._clipped} samples beyond full scale clipped (peak {self._peak:.2f})")
        return (Code.TRUNCATED if short or fault else Code.OK), "; ".join(notes)


def _one_line(text: str) -> str:
    return " ".join(text.split())
