"""Recordings -> the fingerprints of their channels: what repeats across an archive is looked for in these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emolib.config import HeaderlessFormat, Limits
from emolib.errors import AudioError, Code
from emolib.isolation import ONCE, UNWATCHED, Attempt, Watch
from emolib.sound import audio
from emolib.sound.fingerprints import REACH, ChannelFingerprints, Fingerprints
from emolib.sound.retries import retried
from emolib.sound.speech import SpeechStream
from emolib.storage import below

_RATE = 8000
_MIN_LEVEL_DBFS = -60.0
_LIMITS = Limits()


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
    root: str,
    uris: Mapping[str, float],
    headerless: Mapping[str, HeaderlessFormat],
    *,
    attempt: Attempt = ONCE,
    watch: Watch = UNWATCHED,
) -> list[SketchedRecording]:
    """Return sketches of some recordings of an archive; one that can't be read is a code. What runs on the workers.

    About 1 MB for an hour of a channel. Tones, and what is near them, leave nothing in a sketch.

    Parameters
    ----------
    uris
        Of the recordings, each with its duration in seconds, as far as that is known.
    attempt, watch
        See `emolib.isolation`; the items are the URIs.
    """
    watch.limit_memory(_LIMITS.recording_memory)
    found = []
    for uri, duration_s in uris.items():
        if not attempt.takes(uri):
            continue
        if (verdict := attempt.verdicts.get(uri)) is not None:
            found.append(SketchedRecording(uri, verdict.code))
            continue
        watch.begin(uri, _LIMITS.seconds_for(duration_s))
        try:
            found.append(retried(_sketched, root, uri, headerless))
        except AudioError as error:
            found.append(SketchedRecording(uri, error.code))
    watch.end()
    return found


def _sketched(root: str, uri: str, headerless: Mapping[str, HeaderlessFormat]) -> SketchedRecording:
    with audio.stream(below(root, uri), sampling_rate=_RATE, headerless=headerless) as sound:
        channels = [_Channel() for _ in range(sound.info.channels)]
        for block in sound:
            for channel, samples in zip(channels, block, strict=True):
                channel.speech.push(samples)
                channel.fingerprints.push(samples)
        found = tuple(Sketch(uri, number, each.finish()) for number, each in enumerate(channels))
        return SketchedRecording(uri, sound.code, sound.content_hash(), sound.decoded_s, found)


class _Channel:
    def __init__(self) -> None:
        self.speech = SpeechStream(_RATE, min_level_dbfs=_MIN_LEVEL_DBFS)
        self.fingerprints = ChannelFingerprints(_RATE, min_level_dbfs=_MIN_LEVEL_DBFS)

    def finish(self) -> Fingerprints:
        tone, found = self.speech.finish().tone, self.fingerprints.finish()
        near = np.convolve(tone, np.ones(2 * REACH + 1, np.int64))[REACH : REACH + len(tone)] > 0
        return found._replace(bits=np.where(near, np.uint32(0), found.bits))
