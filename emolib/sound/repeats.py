"""What repeats across the recordings of an archive: hold music, announcements, greetings that were recorded once. Pure.

The recordings are taken in rounds, each of twice as many as the one before. What several of a round hold is known from
then on and taken out, so that what is played in every other call is found among few recordings and costs nothing among
many, and what is rare is found among many. The result depends on the recordings and their order, on nothing else.

Silence has no fingerprints, and tones, which every recording has, are left out before. Noise never repeats, and a voice
hardly ever: whoever says the same again says it differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from emolib.sound.fingerprints import FRAME_S, Fingerprints
from emolib.sound.known_audio import Index, KnownAudio, Stretch
from emolib.sound.sketches import Sketch

LEAST_S = 4.0
"""What is shorter is no stretch of known audio."""

_LEAST = round(LEAST_S / FRAME_S)
_FIRST_ROUND = round(7200 / FRAME_S)  # frames
_EVERY = 4  # of the frames of a round can be looked up: there are many, and neighbours are much alike
_PIECE = round(5.0 / FRAME_S)
# So many bits of a window may differ, fewer than where known audio is looked for: who says the same words again and
# again in the same way may be as like as music through two codecs. Of 900 clips of one voice that says "say the word",
# 24 stretches were in two of nine recordings at 0.28, and one at 0.2.
_DIFFERENT = 0.2


def find_repeats(sketches: Sequence[Sketch], *, least_recordings: int) -> KnownAudio:
    """Return what at least so many recordings have in common for at least `LEAST_S`.

    Parameters
    ----------
    sketches
        Those of a recording follow each other. A copy of a recording should not be among them.

    Returns
    -------
    KnownAudio
        Those that most recordings hold first.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> music, weak = rng.integers(1, 2**32, 200, np.uint32), np.full(300, 15, np.uint32)
    >>> calls = [np.concatenate([rng.integers(1, 2**32, 100, np.uint32), music]) for _ in range(3)]
    >>> sketches = [Sketch(f"{n}.wav", 0, Fingerprints(bits, weak)) for n, bits in enumerate(calls)]
    >>> [(each.recordings, 5 < each.duration_s < 8) for each in find_repeats(sketches, least_recordings=3).stretches]
    [(3, True)]
    """
    found: list[Stretch] = []
    for part in _rounds(sketches):
        left = _without_known(part, found)
        candidates = [
            (number, start, stop)
            for number, common in enumerate(_common(left, least_recordings - 1))
            for start, stop in _runs(common)
        ]
        # The longest first: of music that was cut off in most calls, the call that waited longest has most.
        for number, start, stop in sorted(candidates, key=lambda each: (each[1] - each[2], each)):
            _add(found, left[number], start, stop)
    return KnownAudio(tuple(_counted(found, sketches, least_recordings)))


def _rounds(sketches: Sequence[Sketch]) -> Iterator[Sequence[Sketch]]:
    ends = np.cumsum([len(each.fingerprints.bits) for each in sketches])
    size, taken = _FIRST_ROUND, 0
    while taken < len(sketches):
        taken = int(np.searchsorted(ends, size)) + 1
        while taken < len(sketches) and sketches[taken].uri == sketches[taken - 1].uri:
            taken += 1
        yield sketches[:taken]
        size *= 2


def _without_known(sketches: Sequence[Sketch], found: Sequence[Stretch]) -> list[Sketch]:
    index = _index(found)
    left = []
    for each in sketches:
        bits = each.fingerprints.bits
        known = index.find(bits).covered(len(bits))
        unknown = each.fingerprints._replace(bits=np.where(known, np.uint32(0), bits))
        left.append(replace(each, fingerprints=unknown))
    return left


def _common(sketches: Sequence[Sketch], others: int) -> Iterator[NDArray[np.bool_]]:
    """Yield for each sketch which of its frames so many other recordings hold too."""
    index = Index([each.fingerprints for each in sketches], every=_EVERY)
    recording = np.cumsum([0, *(a.uri != b.uri for a, b in zip(sketches[1:], sketches, strict=False))])
    for number, each in enumerate(sketches):
        own = (int(np.searchsorted(recording, recording[number], side=side)) for side in ("left", "right"))
        bits = each.fingerprints.bits
        matches = index.find(bits, different=_DIFFERENT, without=range(*own))
        of, count = recording[matches.stretch], np.zeros(len(bits), np.int32)
        for other in np.unique(of):
            count += replace(matches, first=matches.first[of == other]).covered(len(bits))
        yield count >= others


def _add(found: list[Stretch], sketch: Sketch, start: int, stop: int) -> None:
    """Add what is not known yet of a stretch. Music that loops is in it several times, and is added once."""
    bits, weak = (part[start:stop] for part in sketch.fingerprints)

    def unknown(after: int) -> NDArray[np.bool_]:
        return ~_index(found).find(bits).covered(len(bits))[after:]

    end = 0
    while run := next(_runs(unknown(end)), None):
        first, last = (end + each for each in run)
        others, end, begins_anew = len(found), first, False
        while end < last and not begins_anew:
            end = last if last - end < _PIECE + _LEAST else end + _PIECE
            part = Fingerprints(bits[first:end], weak[first:end])
            found[others:] = [Stretch(part, 0, sketch.uri, sketch.channel, round((start + first) * FRAME_S, 3))]
            begins_anew = end < last and unknown(end)[:_PIECE].mean() < 0.5


def _counted(found: list[Stretch], sketches: Sequence[Sketch], least_recordings: int) -> list[Stretch]:
    """Return those that enough recordings hold, the most frequent first."""
    index, counts = _index(found), np.zeros(len(found), np.int64)
    for _, channels in groupby(sketches, key=lambda each: each.uri):
        held = [index.find(each.fingerprints.bits).stretch for each in channels]
        counts[np.unique(np.concatenate(held))] += 1
    counted = [replace(each, recordings=int(count)) for each, count in zip(found, counts, strict=True)]
    return sorted(
        (each for each in counted if each.recordings >= least_recordings),
        key=lambda each: (-each.recordings, -each.duration_s, each.uri, each.channel, each.start_s),
    )


def _index(found: Iterable[Stretch]) -> Index:
    return Index([each.fingerprints for each in found])


def _runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield where runs of at least `LEAST_S` begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    for start, stop in edges.reshape(-1, 2).tolist():
        if stop - start >= _LEAST:
            yield start, stop
