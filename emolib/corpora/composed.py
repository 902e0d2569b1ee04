"""Calls of which everything is known, made of the utterances of a corpus. Pure, from a seed.

Two speakers talk in turns: the agent, on channel 0, is mostly neutral; the customer, on channel 1, has a mood of its
own in each call, from which every turn takes its emotion. A turn is some utterances of one emotion. Between turns there
is a pause, at times a long one, or the next begins before the last has ended; at times the listener says something
meanwhile, and at times a call begins with ring-back tones or a beep. Each channel goes through a random telephone line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.corpora import labels
from emolib.errors import SettingsError
from emolib.sound.conversation import RATE, Clip, Laid, beep, line, ring_back
from emolib.sound.voices import generator

ROLES = ("agent", "customer")
"""By channel."""

_POLARITIES = ("negative", "neutral", "positive")
_AGENT_MOOD = (0.1, 0.7, 0.2)
# Below 1: most calls have more of one polarity than of the others, as calls do that somebody should look at.
_MOOD_SPREAD = 0.7
_UTTERANCES = {"agent": (1, 3), "customer": (2, 4)}  # in a turn
_BREATH_S = (0.1, 0.5)
_OVERLAPS, _WAITS, _INTERJECTS = 0.15, 0.08, 0.12  # how often
_OVERLAP_S, _GAP_S, _WAIT_S = (0.2, 1.0), (0.1, 1.2), (3.5, 8.0)
_RINGS, _BEEPS = 0.3, 0.2  # how often
_SPREAD = 0.25  # of durations, either way
_LEAST_S = 10.0


class Spoken(NamedTuple):
    """A stretch of speech in a call: between two pauses of an utterance, or its ends."""

    channel: int
    role: str
    start_s: float
    end_s: float
    emotion: str
    speaker: str
    gender: str | None
    corpus: str
    utterance_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call.

    Attributes
    ----------
    signal
        Float32 ``(channel, sample)`` at 8 kHz.
    spoken
        All speech in it, by start.
    """

    signal: NDArray[np.float32]
    spoken: list[Spoken]


def pairs(speakers: Sequence[str], *, calls: int, seed: int) -> list[tuple[str, str]]:
    """Return the agent and the customer of each call: everybody is a customer as often as anybody else, give or take 1.

    Raises
    ------
    SettingsError
        If there are fewer than two speakers.

    Examples
    --------
    >>> sorted(customer for agent, customer in pairs(["a/1", "a/2", "a/3"], calls=3, seed=0))
    ['a/1', 'a/2', 'a/3']
    """
    if len(speakers) < 2:
        raise SettingsError(
            f"speakers {', '.join(speakers) or 'none'} found, expected at least two: who talks to whom?"
        )
    found: list[tuple[str, str]] = []
    while len(found) < calls:
        rng = generator("parties", seed, len(found))
        for customer in rng.permutation(len(speakers)).tolist():
            agent = (customer + int(rng.integers(1, len(speakers)))) % len(speakers)
            found.append((speakers[agent], speakers[customer]))
    return found[:calls]


def compose(
    utterances: pd.DataFrame,
    *,
    agent: str,
    customer: str,
    hear: Callable[[str], Clip | None],
    duration_s: float,
    seed: int,
    number: int,
) -> Call:
    """Return one call.

    Parameters
    ----------
    utterances
        Of both speakers at least (see `emolib.corpora.read`), sorted by ``utterance_id``.
    agent, customer
        Each as ``corpus/speaker``.
    hear
        Returns the sound of an utterance by its ``uri``; None where nothing is to be heard: that one is passed over.
    duration_s
        How long calls are on average; each is up to a quarter shorter or longer.
    seed, number
        Decide everything, together with the speakers' utterances; other calls change nothing.

    Raises
    ------
    SettingsError
        If a call is to be shorter than ten seconds, or a speaker has no utterance that can be heard.
    """
    if duration_s < _LEAST_S:
        raise SettingsError(f"calls of {duration_s:g} s found, expected at least {_LEAST_S:g}")
    rng = generator("composed", seed, number)
    names = utterances["corpus"] + "/" + utterances["speaker"]
    if strange := {agent, customer} - set(names):
        raise SettingsError(f"no utterance of {', '.join(sorted(strange))} found, expected some of both parties")
    parties = [
        _Party(channel, utterances[names == name], hear=hear, mood=mood, rng=rng)
        for channel, (name, mood) in enumerate(
            [(agent, np.array(_AGENT_MOOD)), (customer, rng.dirichlet([_MOOD_SPREAD] * len(_POLARITIES)))]
        )
    ]
    tones, begin_s = _opening(rng)
    end_s = _talk(parties, begin_s, begin_s + duration_s * rng.uniform(1 - _SPREAD, 1 + _SPREAD), rng)
    samples = round((end_s + rng.uniform(0.3, 1.5)) * RATE)
    signal = np.stack(
        [
            line([*before, *party.laid], samples=samples, seed=int(rng.integers(2**32)))
            for before, party in zip(tones, parties, strict=True)
        ]
    )
    spoken = [each for party in parties for each in party.spoken]
    return Call(signal, sorted(spoken, key=lambda each: (each.start_s, each.channel)))


class _Party:
    """One of the two: what there is to say, and what was said."""

    def __init__(
        self,
        channel: int,
        utterances: pd.DataFrame,
        *,
        hear: Callable[[str], Clip | None],
        mood: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        self._channel, self._hear, self._rng = channel, hear, rng
        self._words: dict[str, list[str]] = {name: [] for name in _POLARITIES}
        self._decks: dict[str, Iterator[pd.Series]] = {}
        for polarity, (word, rows) in zip(*_by_word(utterances), strict=True):
            self._words[polarity].append(word)
            self._decks[word] = _dealt(rows, rng)
        there = np.array([bool(self._words[name]) for name in _POLARITIES])
        mood = (mood + 1e-9) * there  # all of a mood may be of a polarity that the speaker lacks
        self._mood = mood / mood.sum()
        self.laid: list[Laid] = []
        self.spoken: list[Spoken] = []

    @property
    def role(self) -> str:
        return ROLES[self._channel]

    @property
    def ended_s(self) -> float:
        """When the party has last spoken."""
        return max((each.end_s for each in self.spoken), default=0.0)

    def emotion(self) -> str:
        """Return the emotion of the next turn."""
        polarity = _POLARITIES[self._rng.choice(len(_POLARITIES), p=self._mood)]
        return str(self._rng.choice(self._words[polarity]))

    def calm(self) -> str:
        """Return the emotion of what is said in between."""
        return str(self._rng.choice(self._words["neutral"] or [*self._decks]))

    def say(self, emotion: str, start_s: float) -> float:
        """Say one utterance, its speech from a moment on; return where it ends."""
        row, said = self._next(emotion)
        # At a whole sample, and speech never before the beginning of the call.
        begin_s = max(0, round((start_s - said.start_s) * RATE)) / RATE
        self.laid.append(Laid(begin_s, said.signal, said.level_db))
        self.spoken += [
            Spoken(
                channel=self._channel,
                role=self.role,
                start_s=begin_s + first,
                end_s=begin_s + last,
                emotion=emotion,
                speaker=row["speaker"],
                gender=row["gender"],
                corpus=row["corpus"],
                utterance_id=row["utterance_id"],
            )
            for first, last in said.stretches
        ]
        return begin_s + said.end_s

    def _next(self, emotion: str) -> tuple[pd.Series, Clip]:
        missed = set[str]()
        for row in self._decks[emotion]:
            said = self._hear(row["uri"])
            if said is not None:
                return row, said
            if row["uri"] in missed:
                break
            missed.add(row["uri"])
        raise SettingsError(
            f"nothing is to be heard in the {len(missed)} utterances of {row['corpus']}/{row['speaker']} in {emotion}, "
            "expected speech: leave the speaker out"
        )


def _by_word(utterances: pd.DataFrame) -> tuple[list[str], list[tuple[str, pd.DataFrame]]]:
    groups = [(str(word), rows) for word, rows in utterances.groupby("emotion", observed=True)]
    return list(labels.polarities(pd.DataFrame([rows.iloc[0] for _, rows in groups]))), groups


def _dealt(rows: pd.DataFrame, rng: np.random.Generator) -> Iterator[pd.Series]:
    """Yield rows in random order, and again when all were there."""
    while True:
        for place in rng.permutation(len(rows)):
            yield rows.iloc[place]


def _opening(rng: np.random.Generator) -> tuple[tuple[list[Laid], list[Laid]], float]:
    """Return the tones of each channel before the talk, and when that begins."""
    chance = rng.random()
    if chance < _RINGS:  # the agent has called: the customer's line rings
        where = "europe" if rng.random() < 0.5 else "america"
        ring, every_s = ring_back(where), {"europe": 5.0, "america": 6.0}[where]
        rings = [Laid(0.3 + every_s * count, ring) for count in range(int(rng.integers(1, 3)))]
        answered_s = rings[-1].start_s + len(ring) / RATE + rng.uniform(0.3, 2.0)
        return ([], rings), answered_s
    if chance < _RINGS + _BEEPS:
        return ([Laid(0.2, beep())], [Laid(0.2, beep())]), 0.8 + rng.uniform(0.2, 1.0)
    return ([], []), rng.uniform(0.3, 1.5)


def _talk(parties: Sequence[_Party], begin_s: float, until_s: float, rng: np.random.Generator) -> float:
    """Let two parties talk in turns until a moment has passed; return when they end."""
    now_s = begin_s
    while True:
        for party, other in (parties, parties[::-1]):
            emotion, (fewest, most) = party.emotion(), _UTTERANCES[party.role]
            start_s = now_s
            for count in range(int(rng.integers(fewest, most + 1))):
                now_s = party.say(emotion, now_s + (rng.uniform(*_BREATH_S) if count else 0.0))
            if now_s >= until_s:
                return max(each.ended_s for each in parties)
            if rng.random() < _INTERJECTS:
                other.say(other.calm(), max(start_s + rng.uniform(0.3, 1.5), other.ended_s + _BREATH_S[0]))
            # Nobody speaks over themselves: what was said in between ends first.
            now_s = max(now_s + _pause(rng), other.ended_s + _BREATH_S[0])


def _pause(rng: np.random.Generator) -> float:
    """Return the silence before an answer; negative where it begins before the other has ended."""
    chance = rng.random()
    if chance < _OVERLAPS:
        return -float(rng.uniform(*_OVERLAP_S))
    return float(rng.uniform(*(_WAIT_S if chance < _OVERLAPS + _WAITS else _GAP_S)))
