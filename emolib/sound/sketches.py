"""Recordings -> the fingerprints of their channels: what repeats across an archive is looked for in these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emolib.config import HeaderlessFormat
from emolib.errors import AudioError, Code
from emolib.sound import audio
from emolib.sound.fingerprints import REACH, ChannelFingerprints, Fingerprints
from emolib.sound.speech import SpeechStream
from emolib.storage import below

_RATE = 8000
_MIN_LEVEL_DBFS = -60.0


@dataclass(frozen=True, slots=True)
class Sketch:
    """The fingerprints of one channel, and where it lies."""

    uri: str
    channel: int
    fingerprints: Fingerprints


@dataclass(frozen=True, slots=True)
class SketchedRecording:
    """A recording of which sketches were made.

    Attributes
    ----------
    code
        ``ok`` or ``truncated``; otherwise it could not be heard, and there is nothing else of it.
    content_hash
        Of its bytes: copies have the same.
    decoded_s
        Seconds of sound.
    channels
        A sketch of each.
    """

    uri: str
    code: Code
    content_hash: str = ""
    decoded_s: float = 0.0
    channels: tuple[Sketch, ...] = ()


def sketch_recordings(
    root: str, uris: Sequence[str], headerless: Mapping[str, HeaderlessFormat]
) -> list[SketchedRecording]:
    """Return sketches of some recordings of an archive; one that can't be read is a code. What runs on the workers.

    About 1 MB for an hour of a channel. Tones, and what is near them, leave nothing in a sketch.
    """
    return [_sketched(root, uri, headerless) for uri in uris]


def _sketched(root: str, uri: str, headerless: Mapping[str, HeaderlessFormat]) -> SketchedRecording:
    try:
        with audio.stream(below(root, uri), sampling_rate=_RATE, headerless=headerless) as sound:
            channels = [_Channel() for _ in range(sound.info.channels)]
            for block in sound:
                for channel, samples in zip(channels, block, strict=True):
                    channel.speech.push(samples)
                    channel.fingerprints.push(samples)
            found = tuple(Sketch(uri, number, each.finish()) for number, each in enumerate(channels))
            return SketchedRecording(uri, sound.code, sound.content_hash(), sound.decoded_s, found)
    except AudioError as error:
        return SketchedRecording(uri, error.code)


class _Channel:
    def __init__(self) -> None:
        self.speech = SpeechStream(_RATE, min_level_dbfs=_MIN_LEVEL_DBFS)
        self.fingerprints = ChannelFingerprints(_RATE, min_level_dbfs=_MIN_LEVEL_DBFS)

    def finish(self) -> Fingerprints:
        tone, found = self.speech.finish().tone, self.fingerprints.finish()
        near = np.convolve(tone, np.ones(2 * REACH + 1, np.int64))[REACH : REACH + len(tone)] > 0
        return found._replace(bits=np.where(near, np.uint32(0), found.bits))
