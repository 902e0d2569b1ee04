"""Who talks when: turns, answers, interruptions and silence of a recording. Pure.

A turn is what somebody says without a pause of half a second; shorter sounds than a fifth of a second are none. Frames
are those of `emolib.sound.speech`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emolib.sound.speech import FRAME_S

PARTIES = ("agent", "customer")

_PAUSE_S, _SHORTEST_S = 0.5, 0.2
_NON_TALK_S = 3.0  # silence of a call that lasts longer is time in which nobody talks
# Who takes the floor from somebody who has had it for so long, and keeps it for so long, interrupts: "yes" does not.
_HAD_S, _KEPT_S = 0.5, 1.0

_Spans = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Talk:
    """The talk of one recording, of each of `PARTIES` that is heard in it.

    Attributes
    ----------
    talk_s
        Seconds of turns.
    monologue_s
        The longest stretch from the beginning of a party's turn to the end of the last one before the other's.
    interruptions
        How often the party took the floor from the other.
    latencies_s
        Silence before each of the party's answers.
    overlap_s
        Seconds in which both talk; None where not both parties are heard.
    non_talk_s
        Seconds of silence on all channels that lasts more than three.
    """

    talk_s: Mapping[str, float]
    monologue_s: Mapping[str, float]
    interruptions: Mapping[str, int]
    latencies_s: Mapping[str, tuple[float, ...]]
    overlap_s: float | None
    non_talk_s: float


def talk(speech: Sequence[NDArray[np.bool_]], roles: Sequence[str | None]) -> Talk:
    """Return who talks when in a recording.

    Parameters
    ----------
    speech
        For each channel whether somebody speaks, ``(frame,)``, all equally long.
    roles
        The role of each channel. Channels of one role count together; others than those of `PARTIES` only for silence.

    Examples
    --------
    >>> customer, agent = np.zeros((2, 400), bool)
    >>> customer[50:150] = agent[170:270] = True
    >>> found = talk([customer, agent], ["customer", "agent"])
    >>> found.talk_s, found.latencies_s["agent"], found.overlap_s, found.non_talk_s
    ({'agent': 3.0, 'customer': 3.0}, (0.6,), 0.0, 3.9)
    """
    frames = len(speech[0]) if speech else 0
    heard = {
        party: _turns(np.logical_or.reduce([mask for mask, role in zip(speech, roles, strict=True) if role == party]))
        for party in PARTIES
        if party in roles
    }
    both = len(heard) == len(PARTIES)
    silent = ~np.logical_or.reduce([_mask(_turns(mask), frames) for mask in speech]) if speech else np.zeros(0, bool)
    quiet = _lengths(_spans(silent))
    floor = _floor(heard)
    return Talk(
        talk_s={party: _seconds(_lengths(turns).sum()) for party, turns in heard.items()},
        monologue_s={
            party: _seconds(max((end - start for who, start, end in floor if who == party), default=0))
            for party in heard
        },
        interruptions={party: _interruptions(heard[party], _other(heard, party)) for party in heard},
        latencies_s={
            party: tuple(
                _seconds(start - end)
                for (before, _, end), (who, start, _) in pairwise(floor)
                if who == party != before and start >= end
            )
            for party in heard
        },
        overlap_s=_seconds((_mask(heard["agent"], frames) & _mask(heard["customer"], frames)).sum()) if both else None,
        non_talk_s=_seconds(quiet[quiet * FRAME_S > _NON_TALK_S].sum()),
    )


def talk_columns(found: Talk) -> dict[str, Any]:
    """Return what the `recordings` table says of a recording's talk; null of a party that is not heard in it.

    Examples
    --------
    >>> columns = talk_columns(talk([np.ones(100, bool)], ["customer"]))
    >>> columns["customer_talk_s"], columns["customer_latencies_s"], columns["agent_talk_s"], columns["overlap_s"]
    (3.0, [], None, None)
    """
    columns: dict[str, Any] = {"overlap_s": found.overlap_s, "non_talk_s": found.non_talk_s}
    for party in PARTIES:
        latencies = found.latencies_s.get(party)
        columns |= {
            f"{party}_talk_s": found.talk_s.get(party),
            f"{party}_monologue_s": found.monologue_s.get(party),
            f"{party}_interruptions": found.interruptions.get(party),
            f"{party}_latencies_s": None if latencies is None else list(latencies),
        }
    return columns


def joined_talk(recordings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the talk of a call from its rows in `recordings`: recordings add up, none is laid over another.

    Examples
    --------
    >>> row = talk_columns(talk([np.ones(100, bool)], ["customer"]))
    >>> joined = joined_talk([row, row])
    >>> joined["customer_talk_s"], joined["customer_monologue_s"], joined["customer_latency_s"]
    (6.0, 3.0, None)
    """

    def known(name: str) -> list[Any]:
        return [row[name] for row in recordings if row[name] is not None]

    def total(name: str) -> Any:
        return sum(values) if (values := known(name)) else None

    columns: dict[str, Any] = {name: total(name) for name in ("overlap_s", "non_talk_s")}
    for party in PARTIES:
        latencies = [latency for each in known(f"{party}_latencies_s") for latency in each]
        columns |= {f"{party}_{name}": total(f"{party}_{name}") for name in ("talk_s", "interruptions")} | {
            f"{party}_monologue_s": max(known(f"{party}_monologue_s"), default=None),
            f"{party}_latency_s": median(latencies) if latencies else None,
        }
    return columns


def _turns(speech: NDArray[np.bool_]) -> _Spans:
    """Return the turns of a party as first frame and frame after the last, ``(turn, 2)``."""
    spans = _spans(speech)
    if not len(spans):
        return spans
    apart = (spans[1:, 0] - spans[:-1, 1]) * FRAME_S >= _PAUSE_S
    joined = np.stack([spans[np.r_[True, apart], 0], spans[np.r_[apart, True], 1]], axis=1)
    return joined[_lengths(joined) * FRAME_S >= _SHORTEST_S]


def _spans(mask: NDArray[np.bool_]) -> _Spans:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return edges.reshape(-1, 2)


def _mask(spans: _Spans, frames: int) -> NDArray[np.bool_]:
    mask = np.zeros(frames, bool)
    for start, end in spans:
        mask[start:end] = True
    return mask


def _lengths(spans: _Spans) -> NDArray[np.int64]:
    lengths: NDArray[np.int64] = spans[:, 1] - spans[:, 0]
    return lengths


def _seconds(frames: Any) -> float:
    return round(int(frames) * FRAME_S, 2)


def _other(heard: Mapping[str, _Spans], party: str) -> _Spans:
    return next((turns for who, turns in heard.items() if who != party), np.zeros((0, 2), np.int64))


def _floor(heard: Mapping[str, _Spans]) -> list[tuple[str, int, int]]:
    """Return who had the floor from when to when: turns in order, those of one party in a row joined.

    What is said wholly within a turn of the other ("mhm") takes no floor.
    """
    held: list[tuple[str, int, int]] = []
    taken = [
        (int(start), int(end), party)
        for party, turns in heard.items()
        for start, end in turns
        if not ((_other(heard, party)[:, 0] < start) & (_other(heard, party)[:, 1] > end)).any()
    ]
    for start, end, party in sorted(taken):
        if held and held[-1][0] == party:
            held[-1] = (party, held[-1][1], end)
        else:
            held.append((party, start, end))
    return held


def _interruptions(turns: _Spans, others: _Spans) -> int:
    """Count the turns that begin within one of the other's and go on after it."""
    count = 0
    for start, end in turns:
        had, kept = (start - others[:, 0]) * FRAME_S, (end - others[:, 1]) * FRAME_S
        count += bool(((had >= _HAD_S) & (start < others[:, 1]) & (kept >= _KEPT_S)).any())
    return count
