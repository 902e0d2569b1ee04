"""Make containers with whatever tracks, time stamps and neighbours a test wants."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Sound = NDArray[np.float32]  # (sample, channel)

_STEP = 2**18  # samples; libsndfile overflows its stack where Vorbis is to take a minute at once


def tone(seconds: float, rate: int, frequency: float = 440.0, *, channels: int = 1, level: float = 0.3) -> Sound:
    """Return a tone, the same on every channel."""
    times = np.arange(round(seconds * rate)) / rate
    return np.repeat(level * np.sin(2 * np.pi * frequency * times)[:, None], channels, axis=1).astype(np.float32)


def noise(seconds: float, rate: int, *, channels: int = 1, seed: int = 0, level: float = 0.1) -> Sound:
    """Return white noise."""
    made = np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))
    return (level * made).astype(np.float32)


def encode(signal: Sound, rate: int, container: str, encoding: str | None = None) -> bytes:
    """Return what libsndfile writes."""
    target = io.BytesIO()
    with soundfile.SoundFile(target, "w", rate, signal.shape[1], encoding, format=container) as file:
        for start in range(0, len(signal), _STEP):
            file.write(signal[start : start + _STEP])
    return target.getvalue()


@dataclass(frozen=True)
class Track:
    """A sound track: where each of its parts begins, in seconds, and what it holds."""

    codec: str
    rate: int
    parts: Sequence[tuple[float, Sound]]


def mux(container: str, *tracks: Track, options: Mapping[str, str] | None = None) -> bytes:
    """Return a container of tracks, whose packets are stamped as their parts say and lie in the order of the stamps."""
    target = io.BytesIO()
    with av.open(target, "w", format=container, options=dict(options or {})) as file:
        packets: list[Any] = []
        for track in tracks:
            layout = "mono" if track.parts[0][1].shape[1] == 1 else "stereo"
            stream: Any = file.add_stream(track.codec, rate=track.rate, layout=layout)
            if track.codec.startswith("wma"):  # which has no rate of its own
                stream.bit_rate = 48_000
            stream.codec_context.open()
            length = stream.codec_context.frame_size or 1000
            for start_s, signal in track.parts:
                if not len(signal):  # announced, and never sent
                    continue
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal.T), format="fltp", layout=layout)
                frame.sample_rate = track.rate
                cut = av.AudioResampler(stream.format.name, layout, track.rate, frame_size=length)
                for number, each in enumerate([*cut.resample(frame), *cut.resample(None)]):
                    each.pts, each.time_base = round(start_s * track.rate) + number * length, Fraction(1, track.rate)
                    packets += stream.encode(each)
            packets += stream.encode(None)
        file.mux(sorted(packets, key=lambda packet: packet.pts * packet.time_base))
    return target.getvalue()
