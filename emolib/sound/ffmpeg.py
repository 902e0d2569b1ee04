"""What FFmpeg makes of an open file: all of its sound tracks, at the times that the container says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from typing import Any, cast

import av
import numpy as np
from numpy.typing import NDArray

from emolib.errors import AudioError, Code
from emolib.sound.headers import AudioInfo, begins_with_info, tags_length
from emolib.sound.resampling import resampled
from emolib.sound.source import OpenFile
from emolib.sound.tails import segment_end
from emolib.sound.timeline import Stamped, Timeline

# FFmpeg also guesses, by weak signs and by name, and has formats that make it open other files (playlists). It may try
# only those that content identifies.
FORMATS = "mov,matroska,asf,avi,flv,mpegts,wav,w64,aiff,au,caf,ogg,flac,mp3,aac,amr,nistsphere,voc,wv,ape"

_PIECE = 2**16  # samples; the most that a decoder hands out at once
# FFmpeg estimates the duration of these from the bit rate, or counts padding.
_WITHOUT_LENGTH = {"aac", "amr", "caf", "mp3", "mpegts"}
# Their time lines begin at 0. Those of the others begin where a stream was joined, and only differences count.
_BEGIN_AT_ZERO = {"matroska", "mov", "avi", "flac"}
# Their samples follow each other without a gap: where the stamps have one, sound was lost.
_WITHOUT_GAPS = {
    "ogg",
    "flac",
    "mp3",
    "aac",
    "amr",
    "wav",
    "w64",
    "aiff",
    "au",
    "caf",
    "nistsphere",
    "voc",
    "wv",
    "ape",
}
# A recorder of WMA pauses nowhere either, though its packets could say so.
_GAPS_ARE_LOSSES = _WITHOUT_GAPS | {"asf"}
# Of samples that need no conversion by FFmpeg: how they lie in memory, and what makes them floats.
_SAMPLES: dict[str, tuple[Any, float]] = {
    "s16": (np.int16, 2.0**-15),
    "s32": (np.int32, 2.0**-31),
    "flt": (np.float32, 1.0),
}
# Between two packets of these are at most so many bytes; where there are more, they could not be read.
_BETWEEN = {"matroska": 1000, "flv": 1000, "mpegts": 1880}
_IN_ORDER = {"matroska", "flv"}  # of these each packet lies whole behind the one before it
_GUESSED = {"asf", "avi"}  # lengths of these are the pictures', or estimated; sizes in bytes tell what is missing
_LEAST_MISSING_S = 0.5  # of pictures and sound: their last packets may say nothing of how long they last
_MAX_CHANGES, _LEAST_KEPT_S = 3, 1.0  # other kinds of sound in one track, and of the kind that it begins with
_MAX_RESYNCS = 100_000
_WITH_CHECKSUMS = {"flac", "wavpack"}  # of what their frames hold, in whatever container
_VORBIS_LATE_S = 0.1  # FFmpeg stamps the start of Vorbis a block too late
_MAX_PLANES = 8  # PyAV crashes at more
_SILENT_RATE = 8000  # Hz; of a track that is announced and has no sound
_MAX_TRACKS = 32  # each is decoded by a decoder of its own


class FFmpegDecoder:
    """All sound tracks of a file, side by side; where it has no header, the `raw` format says what it is.

    Parameters
    ----------
    source
        The open file.
    formats
        Those that may be tried, joined by commas.
    max_gap_s
        Seconds; a longer gap between time stamps is not filled.

    Raises
    ------
    av.FFmpegError
        If it does not open.
    AudioError
        If there is no sound in it, or none that can be decoded.
    """

    def __init__(self, source: OpenFile, *, formats: str, raw: str | None = None, max_gap_s: float) -> None:
        self.fault = self.remark = ""
        self.left_out = 0
        self._opened = ExitStack()
        with ExitStack() as opened:
            first = opened.enter_context(_Track(source, 0, formats, raw, max_gap_s))
            self._tracks = [first]
            if first.count > _MAX_TRACKS:
                raise AudioError(Code.UNSUPPORTED, f"{first.count} sound tracks found, expected at most {_MAX_TRACKS}")
            for number in range(1, first.count):
                again = opened.enter_context(source.again())  # with its own place, whatever lies between the tracks
                self._tracks.append(opened.enter_context(_Track(again, number, formats, raw, max_gap_s)))
            self._opened = opened.pop_all()
        self._rate = max(track.sampling_rate for track in self._tracks)
        self._channels = sum(track.channels for track in self._tracks)
        self.info = AudioInfo(first.codec, self._rate, self._channels, self._claimed())
        self.starts_s = min(track.starts_s for track in self._tracks)  # by its time stamps

    def _claimed(self) -> int | None:
        if self._tracks[0].format in _WITHOUT_LENGTH:
            return None
        seconds = [track.claimed_s for track in self._tracks]
        return None if None in seconds else round(max(cast("list[float]", seconds)) * self._rate)

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield the samples of all tracks, ``(sample, channel)``."""
        if len(self._tracks) == 1:
            yield from _gathered(self._tracks[0].pieces())
        else:
            yield from self._side_by_side()
        faults = [track.fault for track in self._tracks]
        if all(track.is_refused for track in self._tracks):
            raise AudioError(Code.CORRUPT, f"damaged sound found, expected whole: {'; '.join(filter(None, faults))}")
        self.fault = "; ".join(filter(None, [self.fault, *self._numbered(faults)]))
        self.left_out = round(max(track.unfilled_s for track in self._tracks) * self._rate)
        several = [f"{len(self._tracks)} sound tracks"] if len(self._tracks) > 1 else []
        self.remark = "; ".join([*several, *self._numbered([track.remark for track in self._tracks])])

    def _numbered(self, facts: Iterable[str]) -> list[str]:
        several = len(self._tracks) > 1
        return [f"track {number}: {fact}" if several else fact for number, fact in enumerate(facts) if fact]

    def _side_by_side(self) -> Iterator[NDArray[np.float32]]:
        """Yield all tracks as channels at one rate; one that ends before the others is silent from there on."""
        parts = [
            _gathered(
                resampled(track.pieces(), track.channels, source_rate=track.sampling_rate, target_rate=self._rate)
            )
            for track in self._tracks
        ]
        waiting = [np.empty((0, track.channels), np.float32) for track in self._tracks]
        ended = [False] * len(parts)
        while True:
            for number, part in enumerate(parts):
                while not ended[number] and not len(waiting[number]):
                    found = next(part, None)
                    if found is None:
                        ended[number] = True
                    else:
                        waiting[number] = found
            if all(ended) and not any(map(len, waiting)):
                return
            length = min(len(held) for held, over in zip(waiting, ended, strict=True) if not over or len(held))
            piece = np.zeros((length, self._channels), np.float32)
            channel = 0
            for number, held in enumerate(waiting):
                piece[: len(held), channel : channel + held.shape[1]] = held[:length]
                waiting[number] = held[length:]
                channel += held.shape[1]
            yield piece

    @property
    def last_packet(self) -> tuple[int, int] | None:
        """Where in the file the last packet begins and ends that was read.

        None where pictures may lie behind it, and behind damage, where FFmpeg miscounts.
        """
        is_known = self._tracks[0].is_sound_alone and not any(track.is_damaged for track in self._tracks)
        return max(track.last_packet for track in self._tracks) if is_known else None

    def close(self) -> None:
        """Let go of what the decoder holds."""
        self._opened.close()


class _Track(AbstractContextManager["_Track"]):
    """One sound track of a file, decoded for itself: tracks may lie far apart in a file, and memory stays flat."""

    def __init__(self, source: OpenFile, number: int, formats: str, raw: str | None, max_gap_s: float) -> None:
        source.seek(0)
        self._container = av.open(
            source, "r", format=raw, metadata_errors="replace", options={"format_whitelist": formats}
        )
        try:
            self._open(source, number, max_gap_s)
        except BaseException:
            self._container.close()
            raise

    def _open(self, source: OpenFile, number: int, max_gap_s: float) -> None:
        self.format = self._container.format.name.split(",")[0]
        self.fault = self.remark = ""
        streams = self._container.streams.audio
        self.count = len(streams)
        # What FFmpeg takes for data may be the start of another file.
        self.is_sound_alone = all(stream.type in ("audio", "data") for stream in self._container.streams)
        if not streams:
            raise AudioError(Code.EMPTY, f"no sound track found in the {self.format} file")
        self._stream = streams[number]
        context: av.AudioCodecContext | None = self._stream.codec_context
        if context is None:
            track = f"track {number} of " if self.count > 1 else ""
            raise AudioError(Code.UNSUPPORTED, f"no decoder knows the encoding of {track}the {self.format} file")
        if context.name in _WITH_CHECKSUMS:  # FFmpeg takes damaged frames for sound where nobody asks for them
            context.options = {"err_detect": "crccheck+explode"}
        self._decoder = _decoder_of(context)
        self.claimed_s: float | None = None
        self._all_s: float | None = None  # claimed for pictures and sound together
        if self.format in _GUESSED or (self.format == "matroska" and segment_end(source) is None):
            pass  # FFmpeg estimates it from the bit rate, or takes that of the pictures for it
        elif self._stream.duration is not None and self._stream.time_base is not None:
            self.claimed_s = float(self._stream.duration * self._stream.time_base)
        elif self._container.duration is not None:
            self._all_s = self._container.duration / av.time_base
            if self.is_sound_alone:
                self.claimed_s = self._all_s
        if self.format == "ogg" and context.name == "opus" and self.claimed_s:
            # What the decoder is to leave out at the start, in samples at 48 kHz (RFC 7845).
            self.claimed_s -= int.from_bytes((context.extradata or b"")[10:12], "little") / 48_000
        self.codec = f"{self.format}/{context.name.removesuffix('float')}"
        self.sampling_rate, self.channels = context.sample_rate, context.channels
        self._packets = self._damaged = 0
        self._seen_s = 0.0  # where the last packet of all streams ends
        self._damaged_s = 0.0  # where the first damaged packet is
        self._last_packet = self._packets_end = 0  # where the last packet begins and ends, in the file
        self._largest = _largest_frame(context) if self.format == "flac" else 2**62  # bytes that a packet may have
        self._skipped = 0  # bytes between packets that are too many to be headers
        is_in_order = self.format in _IN_ORDER or (self.is_sound_alone and self.count == 1)
        self._between = _BETWEEN.get(self.format, 2**62) if is_in_order else 2**62
        self._headers_s = 0.0  # of packets without sound, which are stamped as if they had some
        self._tags_end = 0  # where in the file the last tag ends
        self._other: dict[str, float] = {}  # seconds of sound of other kinds, by kind
        self._kept = 0  # samples
        self._frames = self._decode()
        # Only the first frame says what comes out: AAC may carry twice the rate and two channels for its header's one.
        first = next(self._frames, None)
        if first is not None:
            self.sampling_rate, self.channels = first.sample_rate, first.layout.nb_channels
            self._frames = chain([first], self._frames)
        self.starts_s = 0.0 if first is None else float((first.pts or 0) * (first.time_base or 0))
        self._origin_s = self._begins_s(context.name)
        if self.count > 1 and not (self.sampling_rate and self.channels):
            self.sampling_rate, self.channels = _SILENT_RATE, 1
        self._line = Timeline(self.sampling_rate, self.channels, max_gap_s=max_gap_s)

    def _begins_s(self, codec: str) -> float:
        """Return the time stamp at which the recording begins."""
        if codec == "vorbis" and self.count == 1 and self.starts_s < _VORBIS_LATE_S:
            return self.starts_s
        if self.format in _BEGIN_AT_ZERO:
            return 0.0
        # A track that is alone begins the file: the stamps of WMA count what the decoder leaves out.
        is_alone = len(self._container.streams) == 1 or (self.count == 1 and self.format in _WITHOUT_GAPS)
        if is_alone or self._container.start_time is None:
            return self.starts_s
        return self._container.start_time / av.time_base

    def pieces(self) -> Iterator[NDArray[np.float32]]:
        """Yield its samples and the silence between them."""
        yield from self._line.pieces(self._stamped())
        self._sum_up()

    @property
    def last_packet(self) -> tuple[int, int]:
        """Where the last packet begins and ends, in the file. What lies behind a FLAC file is in its last packet."""
        return self._last_packet, min(self._packets_end, self._last_packet + self._largest)

    @property
    def unfilled_s(self) -> float:
        """Seconds of the gaps that were too long to be filled with silence."""
        return self._line.unfilled_s

    @property
    def is_damaged(self) -> bool:
        """Whether a packet did not decode."""
        return bool(self._damaged)

    @property
    def is_refused(self) -> bool:
        """Whether more of it is damaged than whole.

        An elementary stream has no header, only sync words; telephone noise holds some by chance, of many kinds.
        """
        kept_s = self._kept / self.sampling_rate
        is_odd = len(self._other) > _MAX_CHANGES or kept_s < _LEAST_KEPT_S
        is_noise = self._damaged > self._packets / 2 and self._damaged_s < _LEAST_KEPT_S
        return is_noise or (is_odd and sum(self._other.values()) > kept_s)

    def _decode(self) -> Iterator[av.AudioFrame]:
        for packet in self._read():
            if packet.pos is not None and packet.pos >= 0:
                between = packet.pos - self._packets_end
                if self._packets_end and between > self._between:
                    self._skipped += between
                self._last_packet, self._packets_end = packet.pos, packet.pos + packet.size
            if packet.stream_index != self._stream.index:
                self._seen_s = max(self._seen_s, float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base))
                continue
            self._packets += 1
            frames = self._heard(packet)
            if len(frames) > 1 and self.format == "flac":  # damage joined them, and their stamp is one's alone
                for frame in frames:
                    frame.pts = None
            yield from frames

    def _read(self) -> Iterator[av.Packet]:
        """Yield the packets, and note where that ends too early."""
        # What lies between two packets of one stream are those of the others, where they do not run through each other.
        streams = self._container.streams if self.format in _IN_ORDER else [self._stream]
        for _ in range(_MAX_RESYNCS):
            try:
                yield from self._container.demux(*streams)
                return
            except (av.FFmpegError, IndexError) as error:  # IndexError: a damaged file announces one more stream midway
                # FFmpeg gives an Ogg file up where no page begins within 64 KiB; asked again, it looks further.
                if self.format != "ogg" or not isinstance(error, av.error.InvalidDataError):
                    self.fault = f"then the decoder failed: {getattr(error, 'strerror', 'the data are damaged')}"
                    return

    def _heard(self, packet: av.Packet) -> list[av.AudioFrame]:
        """Return the frames of a packet, and count it where it is damaged."""
        frames = self._decoded(packet)
        if frames or not packet.size or (frames is not None and self.format != "mp3"):
            return frames or []
        # Of MP3s that were joined, tags come in packets that do not decode, with the next frame in the last of them.
        data, place = bytes(packet), packet.pos or 0
        length = max(0, self._tags_end - place)
        length += tags_length(data[length:])
        sound = data[length:]
        if length:
            self._tags_end = place + length
        if not any(sound):  # padding, if it is the end: else zeros come with the frame behind them
            self._packets_end = self._last_packet = place
        if not any(sound) or begins_with_info(sound):
            self._headers_s += float((packet.duration or 0) * (packet.time_base or 0))
            return []
        if length:
            behind = av.Packet(sound)
            behind.pts, behind.dts, behind.time_base = packet.pts, packet.dts, packet.time_base
            frames = self._decoded(behind)
        if frames is None:
            self._damaged_s = self._damaged_s if self._damaged else self._kept / (self.sampling_rate or 1)
            self._damaged += 1
        return frames or []

    def _decoded(self, packet: av.Packet) -> list[av.AudioFrame] | None:
        """Return the frames of a packet, None where it does not decode."""
        try:
            return self._decoder.decode(packet)
        except av.FFmpegError:
            return None

    def _stamped(self) -> Iterator[Stamped]:
        to_float = av.AudioResampler(format="flt")  # interleaved: PyAV crashes at more than eight planes
        for stamp, frame in _joined(self._kept_frames()):
            form, channels = frame.format, self.channels
            planes = channels if form.is_planar else 1
            if planes <= _MAX_PLANES and form.name.removesuffix("p") in _SAMPLES:
                yield stamp, _samples(frame, planes, channels // planes)
                continue
            for part in to_float.resample(frame):
                yield stamp, cast("NDArray[np.float32]", part.to_ndarray()).reshape(-1, channels)
                stamp = None

    def _kept_frames(self) -> Iterator[tuple[int | None, av.AudioFrame]]:
        """Yield the frames of the kind that the track begins with, and the sample at which each begins."""
        channels, rate = self.channels, self.sampling_rate
        ticks = float(rate * (self._stream.time_base or 0))  # samples of a tick of the stamps
        origin = self._origin_s * rate
        for frame in self._frames:
            if frame.sample_rate != rate or frame.layout.nb_channels != channels:
                kind = f"{frame.layout.nb_channels} channel(s) at {frame.sample_rate} Hz"
                self._other[kind] = self._other.get(kind, 0.0) + frame.samples / (frame.sample_rate or 1)
                continue
            # Stamps of AVI count packets, not samples: only the first says something.
            pts = None if self.format == "avi" and self._kept else frame.pts
            self._kept += frame.samples
            stamp = None if pts is None else round(pts * ticks - origin - self._headers_s * rate)
            yield stamp, frame

    def _sum_up(self) -> None:
        line, rate = self._line, self.sampling_rate
        faults, remarks = [self.fault], []
        at = "" if line.first_s is None else f" at {line.first_s:.2f} s"
        if self._damaged:
            faults.append(
                f"{self._damaged} of {self._packets} packets are damaged, the first at {self._damaged_s:.2f} s"
            )
        if line.gaps:
            silent = f"{line.gap_s:.2f} s {{}} in {line.gaps} place(s), the first{at}, left silent"
            # After the other tracks, or after the pictures.
            begins_late = line.gaps == 1 and not line.first_s and (self.count > 1 or self.format == "asf")
            is_lost = self.format in _GAPS_ARE_LOSSES and not begins_late
            if is_lost or self._damaged or self._skipped:
                faults.append(silent.format("of sound are lost"))
            else:
                remarks.append(silent.format("have no sound"))
        if self._skipped and self.format in _IN_ORDER and not line.gaps:
            faults.append(f"{self._skipped} bytes between packets can't be read")
        if self._all_s is not None and not self.is_sound_alone:
            missing_s = self._all_s - max(self._seen_s, self._kept / rate + line.gap_s)
            if missing_s > max(_LEAST_MISSING_S, 0.01 * self._all_s):
                faults.append(f"the file ends {missing_s:.2f} s before the end that its header claims")
        if not self._kept and self.count > 1:
            remarks.append("no sound")
        if line.moved:
            remarks.append(
                f"time stamps go back {line.moved} time(s){at}, by {line.moved_s:.2f} s: the sound follows on"
            )
        if line.unfilled:
            remarks.append(f"gap(s) of {line.unfilled_s / 3600:.1f} h in the time stamps, the first{at}, not filled")
        faults += [
            f"{seconds:.2f} s of {kind} left out, expected {self.channels} channel(s) at {rate} Hz"
            for kind, seconds in self._other.items()
        ]
        self.fault, self.remark = "; ".join(filter(None, faults)), "; ".join(remarks)

    def __exit__(self, *_: object) -> None:
        self._container.close()


def _decoder_of(context: av.AudioCodecContext) -> av.AudioCodecContext:
    """Return what decodes a track: what FFmpeg chose, but for Opus the library of those who made it.

    FFmpeg's own decoder turns a frame of some files into noise far beyond full scale.
    """
    if context.name != "opus":
        return context
    decoder = av.CodecContext.create("libopus", "r")
    decoder.extradata = context.extradata
    decoder.sample_rate, decoder.layout = context.sample_rate, context.layout
    return decoder


def _largest_frame(context: av.AudioCodecContext) -> int:
    """Return the size of the largest frame of a FLAC file in bytes, by its header."""
    head = context.extradata or b""
    samples, size = int.from_bytes(head[2:4], "big"), int.from_bytes(head[7:10], "big")
    return size or 64 + samples * context.channels * 4


class _Run:
    """Frames of one track, each of which begins where the one before it ends: handled as one.

    A frame of an MP3 is so short that what Python does for each costs half of what decoding it does.
    """

    def __init__(self, begins: int | None, first: av.AudioFrame) -> None:
        self.begins = begins
        self._first, self._queue, self._is_queued = first, av.AudioFifo(), False
        self._length = first.samples

    def takes(self, frame: av.AudioFrame) -> bool:
        """Return whether a frame that follows may be one of them."""
        return self._length < _PIECE and frame.format.name == self._first.format.name

    def add(self, frame: av.AudioFrame) -> None:
        """Put a frame behind the others."""
        for each in (frame,) if self._is_queued else (self._first, frame):
            each.pts = None  # known already, and the queue has its own idea of it
            self._queue.write(each)
        self._is_queued, self._length = True, self._length + frame.samples

    def whole(self) -> av.AudioFrame:
        """Return all of them as one frame."""
        return (self._queue.read() if self._is_queued else None) or self._first


def _joined(
    frames: Iterable[tuple[int | None, av.AudioFrame]],
) -> Iterator[tuple[int | None, av.AudioFrame]]:
    """Yield frames and their stamps; those that follow each other as one.

    The first one behind a gap stays alone: whether its stamp is wrong shows in the stamp of the next.
    """
    run, ends, may_grow = None, None, False
    for stamp, frame in frames:
        follows = stamp is not None and stamp == ends
        if run is not None and may_grow and follows and run.takes(frame):
            run.add(frame)
        else:
            if run is not None:
                yield run.begins, run.whole()
            run, may_grow = _Run(stamp, frame), follows
        ends = None if stamp is None else stamp + frame.samples
    if run is not None:
        yield run.begins, run.whole()


def _samples(frame: av.AudioFrame, planes: int, interleaved: int) -> NDArray[np.float32]:
    """Return a frame as ``(sample, channel)``: what PyAV's to_ndarray does, in half the time."""
    dtype, scale = _SAMPLES[frame.format.name.removesuffix("p")]
    count = frame.samples * interleaved
    samples = np.empty((planes * interleaved, frame.samples), np.float32)
    for number, plane in enumerate(frame.planes):
        found = np.frombuffer(plane, dtype, count)  # type: ignore[call-overload]
        if interleaved == 1:
            samples[number] = found
        else:
            samples[:] = found.reshape(-1, interleaved).T
    if scale != 1.0:
        samples *= np.float32(scale)
    return samples.T


def _gathered(parts: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield the same samples in fewer pieces."""
    waiting: list[NDArray[np.float32]] = []
    held = 0
    for part in parts:
        waiting.append(part.T)  # each channel in one run, as they will be cut
        held += len(part)
        if held >= _PIECE:
            yield (waiting[0] if len(waiting) == 1 else np.concatenate(waiting, axis=1)).T
            waiting, held = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1).T
