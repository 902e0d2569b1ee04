"""Put decoded frames where their time stamps say: silence where there are none, nothing thrown away.

Containers stamp their packets. A recorder that is muted, or that sends nothing while nobody speaks (discontinuous
transmission), leaves a gap in the stamps and no samples; without the silence, all that follows would lie too early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Stamped: TypeAlias = tuple[int | None, NDArray[np.float32]]
"""A frame: the sample at which it begins by its time stamp, None without one, and its samples (sample, channel)."""

MAX_GAP_S = 3600.0
"""A gap longer than this is a wrong time stamp rather than silence, where nothing else is said."""

_JITTER_S = 0.02
_NEW_START_S = 1.0  # stamps that go back by less are of sound that is late
_PIECE = 2**16  # samples of silence at once
_MAX_HELD_S = 10.0
_MAX_SILENCE_S = 24 * 3600.0  # in all; more than that is no recording


class Timeline:
    """The time line of one sound track; iterate over `pieces` once, then look at what was done.

    A stamp may differ by less than 20 ms from the end of the sound before it: that is jitter, and nothing is moved. A
    single frame whose stamp fits neither what is before it nor what is behind it follows what is before it. Where
    stamps go back by less than a second, the sound is late, and silence is added again only where it is no longer; by
    more, it is a new start, and what follows is put behind what was there.

    Parameters
    ----------
    sampling_rate
        In Hz.
    channels
        Of the frames.
    max_gap_s
        Seconds; a longer gap is not filled.

    Attributes
    ----------
    gaps, gap_s
        How many gaps were filled with silence, and their seconds.
    moved, moved_s
        How often stamps went back, so that sound was put behind what was there, and by how many seconds in all; sound
        that is no later than it was before is not counted again.
    unfilled, unfilled_s
        How many gaps were too long to be filled, and their seconds.
    first_s
        Where the first of all these is, in seconds.

    Examples
    --------
    >>> frame = np.ones((800, 1), np.float32)
    >>> line = Timeline(8000, 1)
    >>> [len(piece) for piece in line.pieces([(0, frame), (800, frame), (9600, frame), (10_400, frame)])]
    [800, 800, 8000, 800, 800]
    >>> line.gaps, line.gap_s, line.first_s
    (1, 1.0, 0.2)
    """

    def __init__(self, sampling_rate: int, channels: int, *, max_gap_s: float = MAX_GAP_S) -> None:
        self.gaps = self.moved = self.unfilled = 0
        self.gap_s = self.moved_s = self.unfilled_s = 0.0
        self.first_s: float | None = None
        self._rate, self._channels = sampling_rate, channels
        self._max_gap = max_gap_s * sampling_rate
        self._jitter = _JITTER_S * sampling_rate
        self._new_start = _NEW_START_S * sampling_rate
        self._max_held = _MAX_HELD_S * sampling_rate
        self._length = 0  # samples handed out
        # What to add to a stamp to get its place: since the last new start, and before there was any.
        self._offset = self._first_offset = 0
        self._late = 0  # samples by which sound lay behind its stamps at most, since it was put where they say

    def pieces(self, frames: Iterable[Stamped]) -> Iterator[NDArray[np.float32]]:
        """Yield the samples and the silence between them, in order."""
        # Frames without a stamp wait for the next that has one: after damage they belong before it, not behind the
        # last one.
        held: list[NDArray[np.float32]] = []
        waiting = 0
        # Without this, a frame would have to know whether the one behind it agrees.
        following: Iterator[Stamped] = chain(frames, [(None, np.empty((0, self._channels), np.float32))])
        for (stamp, samples), (next_stamp, _) in pairwise(following):
            held.append(samples)
            waiting += len(samples)
            if stamp is None and waiting < self._max_held:
                continue
            if stamp is not None and not self._follows(stamp + self._offset - self._length - waiting + len(samples)):
                expected = None if next_stamp is None else next_stamp - len(samples)
                yield from self._silence(self._gap_before(stamp, expected, waiting - len(samples)))
            yield from held
            self._length += waiting
            held, waiting = [], 0
        yield from held
        self._length += waiting

    def _gap_before(self, stamp: int, expected: int | None, waiting: int) -> int:
        """Return how many samples are missing before the frames that wait.

        Parameters
        ----------
        expected
            The stamp that this frame would have by that of the next one, None where that has none.
        waiting
            Samples of the frames without a stamp before this one.
        """
        end = self._length + waiting
        gap = stamp + self._offset - end
        if expected is not None and self._follows(expected + self._offset - end):
            return 0  # this stamp alone is wrong
        if abs(stamp + self._first_offset - end) < self._jitter:  # stamps that went back are right again
            self._offset, self._late = self._first_offset, 0
            return 0
        if self.first_s is None:
            self.first_s = self._length / self._rate
        if gap < 0:
            later = -gap - self._late
            self.moved += 1
            self.moved_s += later / self._rate
            self._late = -gap
            if later < self._new_start:
                return 0
        elif gap > self._max_gap or self.gap_s + gap / self._rate > _MAX_SILENCE_S:
            self.unfilled += 1
            self.unfilled_s += gap / self._rate
        else:
            self._late = 0
            self.gaps += 1
            self.gap_s += gap / self._rate
            return gap
        self._offset, self._late = self._offset - gap, 0
        return 0

    def _follows(self, gap: int) -> bool:
        """Return whether sound with so many samples before it goes on where it is, no later than it was before."""
        return -self._late - self._jitter < gap < self._jitter

    def _silence(self, length: int) -> Iterator[NDArray[np.float32]]:
        self._length += length
        while length:
            size = min(length, _PIECE)
            yield np.zeros((size, self._channels), np.float32)
            length -= size
