"""Known audio: hold music, announcements and greetings that are played in many calls, found again on a channel.

A channel is at a known place where its fingerprints (see `emolib.sound.fingerprints`) are those of a known stretch for
`WINDOW` frames, 3 s, but for few of the bits. Where to compare is found by looking each frame up among the known ones,
whose weak bits may be others: at least one frame of the 3 s must be the same to the bit. So what a moment is depends on
no more than the 3.5 s before and after it, and a channel may be heard in pieces.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from emolib.errors import SettingsError
from emolib.sound.fingerprints import BITS, FRAME_S, VERSION, Fingerprints, FingerprintStream
from emolib.storage import AnyPath, resolve, write_bytes

WINDOW = 100
"""Frames that are compared at once."""

# The share of bits that may differ: in a window, and in each quarter of it, so that it ends where the sound does.
# Of what was played twice and went through a codec, 3 to 20 % do, and of two pieces of speech at least 37 %. Of the
# frames so many must hold sound in both: silence is like any other.
_DIFFERENT, _DIFFERENT_QUARTER, _QUARTERS = 0.28, 0.36, 4
_FEWEST = 3 * WINDOW // 4
# More places that look like one frame are not compared: something that says nothing, such as a hum.
_MOST_PLACES = 64

_FORMAT = "emolib known audio 1"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of known audio, and where an example of it lies.

    Attributes
    ----------
    fingerprints
        Its frames.
    recordings
        In how many recordings it was found.
    uri, channel, start_s
        Where to listen to it; it is as long as its fingerprints.
    """

    fingerprints: Fingerprints
    recordings: int
    uri: str
    channel: int
    start_s: float

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.fingerprints.bits) * FRAME_S


@dataclass(frozen=True, slots=True)
class Matches:
    """Windows of a channel that are at known places; sorted by place, and not by time.

    Attributes
    ----------
    first
        First frame of each, ``(match,)``.
    stretch
        Number of the stretch where it was found, ``(match,)``.
    """

    first: NDArray[np.int64]
    stretch: NDArray[np.int64]

    def covered(self, frames: int) -> NDArray[np.bool_]:
        """Return which of so many frames of the channel lie in a window."""
        edges = np.bincount(self.first, minlength=frames + 1) - np.bincount(self.first + WINDOW, minlength=frames + 1)
        found: NDArray[np.bool_] = np.cumsum(edges)[:frames] > 0
        return found


class Index:
    """Stretches of fingerprints among which others are looked for.

    Parameters
    ----------
    every
        Only each so many-th frame can be looked up: less memory, and less is found.

    Examples
    --------
    >>> bits = np.random.default_rng(0).integers(1, 2**32, 300, np.uint32)
    >>> index = Index([Fingerprints(bits, np.full(300, 15, np.uint32))])
    >>> heard = np.concatenate([bits[:50][::-1], bits[100:220] ^ np.uint32(4)])  # one of the weak bits is another
    >>> index.find(heard).covered(170)[50:].all()
    np.True_
    """

    def __init__(self, stretches: Sequence[Fingerprints], *, every: int = 1) -> None:
        gap = np.zeros(WINDOW, np.uint32)  # nothing is like what lies beyond the ends of a stretch
        self._bits = np.concatenate([gap, *(part for each in stretches for part in (each.bits, gap))])
        self._starts = np.cumsum([WINDOW, *(len(each.bits) + WINDOW for each in stretches)])[:-1]
        places = [np.arange(0, len(each.bits), every) for each in stretches]
        weak = np.concatenate([np.zeros(0, np.uint32), *(s.weak[at] for s, at in zip(stretches, places, strict=True))])
        at = np.concatenate([np.zeros(0, np.int64), *(s + at for s, at in zip(self._starts, places, strict=True))])
        at, weak = at[self._bits[at] != 0].astype(np.uint32), weak[self._bits[at] != 0]
        variants = _variants(self._bits[at], weak)
        keys, order = variants.ravel(), np.argsort(variants.ravel(), kind="stable")
        self._keys = keys[order]
        self._places = np.repeat(at, variants.shape[1])[order]

    def find(self, bits: NDArray[np.uint32], *, different: float = _DIFFERENT, without: range = range(0)) -> Matches:
        """Return the windows of a channel's frames ``(frame,)`` that are at known places.

        Parameters
        ----------
        different
            The share of bits of a window that may differ.
        without
            Numbers of stretches that don't count: those of the channel's own recording.
        """
        first, shift = self._spans(bits, without)
        if not len(first):
            return Matches(np.zeros(0, np.int64), np.zeros(0, np.int64))
        # All frames of all spans in a row, and how much each differs from the place that is `shift` beyond it.
        lengths = first[:, 1] - first[:, 0]
        ends = np.cumsum(lengths)
        frame = np.arange(ends[-1]) + np.repeat(first[:, 0] - (ends - lengths), lengths)
        mine, theirs = bits[frame], self._bits[frame + np.repeat(shift, lengths)]
        errors = _running(np.bitwise_count(mine ^ theirs))
        sound, shared = _running((mine | theirs) != 0), _running((mine != 0) & (theirs != 0))
        # Where a window begins that lies in one span.
        at = np.flatnonzero(np.repeat(ends, lengths) - np.arange(ends[-1]) >= WINDOW)
        at = at[shared[at + WINDOW] - shared[at] >= _FEWEST]
        at = at[_differs(errors, sound, at, at + WINDOW) < different]
        quarter = WINDOW // _QUARTERS
        for begin in range(0, WINDOW, quarter):
            at = at[_differs(errors, sound, at + begin, at + begin + quarter) < _DIFFERENT_QUARTER]
        place = frame[at] + np.repeat(shift, lengths)[at]
        return Matches(frame[at], np.searchsorted(self._starts, place + WINDOW // 2, side="right") - 1)

    def _spans(self, bits: NDArray[np.uint32], without: range) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where to compare: spans ``(span, 2)`` of frames of which no window is without one that was looked up.

        And how far each of them lies from the place that it may be.
        """
        asked = np.flatnonzero(bits)
        low = np.searchsorted(self._keys, bits[asked], side="left")
        count = np.minimum(np.searchsorted(self._keys, bits[asked], side="right") - low, _MOST_PLACES)
        frame = np.repeat(asked, count)
        nth = np.arange(len(frame)) - np.repeat(np.cumsum(count) - count, count)
        place = self._places[np.repeat(low, count) + nth].astype(np.int64)
        if without:
            stretch = np.searchsorted(self._starts, place, side="right") - 1
            others = (stretch < without.start) | (stretch >= without.stop)
            frame, place = frame[others], place[others]
        order = np.lexsort((frame, place - frame))
        frame, shift = frame[order], (place - frame)[order]
        new = np.ones(len(frame), bool)
        new[1:] = (shift[1:] != shift[:-1]) | (frame[1:] - frame[:-1] > WINDOW)
        begins, ends = np.flatnonzero(new), np.flatnonzero(np.append(new[1:], True)[: len(new)])
        first = np.maximum(frame[begins] - WINDOW + 1, np.maximum(0, -shift[begins]))
        last = np.minimum(frame[ends] + WINDOW, np.minimum(len(bits), len(self._bits) - shift[begins]))
        return np.stack([first, last], axis=1), shift[begins]


@dataclass(frozen=True)
class KnownAudio:
    """Stretches of known audio, as one file holds them."""

    stretches: tuple[Stretch, ...]

    @cached_property
    def known_audio_id(self) -> str:
        """64 bits of a hash over what decides whether a moment is known, as hex: not over where examples lie."""
        content = hashlib.blake2b(f"{_FORMAT}, {VERSION}".encode(), digest_size=8)
        for each in self.stretches:
            content.update(len(each.fingerprints.bits).to_bytes(8, "little"))
            for part in each.fingerprints:
                content.update(part.astype("<u4").tobytes())
        return content.hexdigest()

    @cached_property
    def index(self) -> Index:
        """The stretches, to look for others among them."""
        return Index([each.fingerprints for each in self.stretches])

    def save(self, path: AnyPath) -> None:
        """Write the file (.npz, without pickles)."""
        lengths, nothing = [len(each.fingerprints.bits) for each in self.stretches], np.zeros(0, np.uint32)
        sink = io.BytesIO()
        np.savez_compressed(
            sink,
            format=np.array(_FORMAT),
            version=np.array(VERSION),
            bits=np.concatenate([nothing, *(each.fingerprints.bits for each in self.stretches)]),
            weak=np.concatenate([nothing, *(each.fingerprints.weak for each in self.stretches)]),
            lengths=np.array(lengths, np.int64),
            recordings=np.array([each.recordings for each in self.stretches], np.int64),
            uri=np.array([each.uri for each in self.stretches], np.str_),
            channel=np.array([each.channel for each in self.stretches], np.int64),
            start_s=np.array([each.start_s for each in self.stretches], np.float64),
        )
        write_bytes(path, sink.getvalue())

    @classmethod
    def load(cls, path: AnyPath) -> KnownAudio:
        """Read a file that `save` wrote.

        Raises
        ------
        SettingsError
            If it can't be read, is no such file, or is one of another version.
        """
        expected = "expected a file that `emolib known-audio` wrote"
        try:
            with np.load(io.BytesIO(resolve(path).read_bytes()), allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            if str(found["format"]) != _FORMAT:
                raise SettingsError(f"{path} is a file of {str(found['format'])[:40]!r}, {expected}")
            if (version := int(found["version"])) != VERSION:
                raise SettingsError(
                    f"{path} holds fingerprints of version {version}, expected {VERSION}: make it anew with "
                    "`emolib known-audio`"
                )
            ends = [0, *np.cumsum(found["lengths"]).tolist()]
            bits, weak = found["bits"].astype(np.uint32), found["weak"].astype(np.uint32)
            if not ends[-1] == len(bits) == len(weak):
                raise SettingsError(f"{path} holds {len(bits)} frames, expected {ends[-1]}: it is damaged")
            where = zip(*(found[name].tolist() for name in ("recordings", "uri", "channel", "start_s")), strict=True)
            stretches = [
                Stretch(Fingerprints(bits[start:end], weak[start:end]), *each)
                for (start, end), each in zip(pairwise(ends), where, strict=True)
            ]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise SettingsError(f"{path} can't be read ({type(error).__name__}: {error}), {expected}") from error
        return cls(tuple(stretches))

    def without(self, numbers: Sequence[int]) -> KnownAudio:
        """Return the others than some of the stretches, which are numbered from 1.

        Raises
        ------
        SettingsError
            If there is no stretch of a number.
        """
        if unknown := [number for number in numbers if not 0 < number <= len(self.stretches)]:
            raise SettingsError(f"stretch {unknown[0]} to leave out found, expected 1 to {len(self.stretches)}")
        return replace(
            self, stretches=tuple(each for n, each in enumerate(self.stretches, start=1) if n not in numbers)
        )


@lru_cache(maxsize=2)
def load_known_audio(path: str, known_audio_id: str) -> KnownAudio:
    """Return the known audio that was planned with, loaded once per process.

    Raises
    ------
    SettingsError
        If it can't be read, or something else lies there.
    """
    known = KnownAudio.load(path)
    if known.known_audio_id != known_audio_id:
        raise SettingsError(
            f"known audio {known.known_audio_id} found at {path}, expected {known_audio_id}, which the run was planned "
            "with; put that file back"
        )
    return known


class KnownAudioStream:
    """Which frames of one channel are known audio, where the channel comes in pieces: the same however it is cut.

    Examples
    --------
    >>> stream = KnownAudioStream(KnownAudio(()))
    >>> len(stream.push(np.zeros((300, 33), np.float32))), len(stream.finish())
    (186, 114)
    """

    def __init__(self, known: KnownAudio) -> None:
        self._index = known.index
        self._fingerprints = FingerprintStream()
        self._bits = np.zeros(0, np.uint32)
        self._decided = 0  # of those frames

    def push(self, energies: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return which of the frames are known audio of which enough of what follows is known now.

        Parameters
        ----------
        energies
            Of the bands of the next frames, see `emolib.sound.fingerprints.band_energies`.
        """
        return self._decide(self._fingerprints.push(energies), wait=WINDOW - 1)

    def finish(self) -> NDArray[np.bool_]:
        """Return which of the last frames are, where the channel ends."""
        return self._decide(self._fingerprints.finish(), wait=0)

    def _decide(self, bits: NDArray[np.uint32], *, wait: int) -> NDArray[np.bool_]:
        whole, done = np.concatenate([self._bits, bits]), self._decided
        upto = max(done, len(whole) - wait)
        found = self._index.find(whole).covered(len(whole))[done:upto]
        kept = max(0, upto - WINDOW + 1)  # a window that holds the next frame begins here
        self._bits, self._decided = whole[kept:], upto - kept
        return found


def _variants(bits: NDArray[np.uint32], weak: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the fingerprints with each choice of their weak bits, ``(frame, choice)``."""
    variants, left = bits[:, np.newaxis], weak
    while left.any():
        lowest = left & (~left + np.uint32(1))
        left = left ^ lowest
        variants = np.concatenate([variants, variants ^ lowest[:, np.newaxis]], axis=1)
    return variants


def _differs(
    errors: NDArray[np.int64], sound: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the share of bits that differ, from one frame to another, of those where either holds sound."""
    share: NDArray[np.float64] = (errors[last] - errors[first]) / (BITS * np.maximum(1, sound[last] - sound[first]))
    return share


def _running(values: NDArray[np.generic]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
