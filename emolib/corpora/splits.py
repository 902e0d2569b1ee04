"""PURE: protocols -> which rows train and which test.

No speaker is on both sides, unless the protocol is called random; no recording is on both sides, whatever it is called
and however many windows or copies it has: rows of one utterance, and utterances of one content hash, stay together.
The folds depend on what the rows are, never on their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.errors import SettingsError

Mask: TypeAlias = NDArray[np.bool_]
Unit: TypeAlias = Literal["speaker", "utterance"]

PROTOCOLS: dict[str, str] = {
    "random5": "5 random folds, stratified by class and corpus; speakers are on both sides, so only for comparison",
    "speaker6": "RAVDESS, SAVEE and TESS together in 6 folds, every speaker tested once",
    "ravdess6": "RAVDESS in the 6 folds of EmoBox, four actors each",
    "savee4": "SAVEE in the 4 folds of EmoBox, one speaker each",
    "corpus": "one corpus left out after the other",
    "grouped": "whole speakers left out, in up to 5 folds: for corpora of one's own",
}
"""The protocols and what each does."""


def _actors(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number:02d}" for number in numbers)


# EmoBox (github.com/emo-box/EmoBox), data/ravdess/fold_1..6: actors of each test fold.
_RAVDESS = (
    _actors(1, 11, 20, 21),
    _actors(4, 10, 12, 14),
    _actors(8, 9, 19, 23),
    _actors(3, 5, 7, 24),
    _actors(2, 15, 16, 18),
    _actors(6, 13, 17, 22),
)
# EmoBox, data/savee/fold_1..4: leave one speaker out.
_SAVEE = (("JE",), ("KL",), ("DC",), ("JK",))
# This project: all three corpora together; TESS's two speakers go where SAVEE has none left.
_TESS = ((), (), (), (), ("OAF",), ("YAF",))
# Protocol: for each corpus that it takes, the test speakers of each fold.
_PUBLISHED: dict[str, dict[str, Sequence[tuple[str, ...]]]] = {
    "speaker6": {"ravdess": _RAVDESS, "savee": (*_SAVEE, (), ()), "tess": _TESS},
    "ravdess6": {"ravdess": _RAVDESS},
    "savee4": {"savee": _SAVEE},
}


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One division of rows into training and test.

    Attributes
    ----------
    name
        Its number from 1, or the corpus that is left out.
    train, test
        bool (row,); rows without a class, and those the protocol does not take, are in neither.
    """

    name: str
    train: Mask
    test: Mask


def validation_by(protocol: str) -> Unit:
    """Return what validation data are set aside by: whole speakers wherever the test speakers are new to the model.

    Raises
    ------
    SettingsError
        If the protocol is unknown.

    Examples
    --------
    >>> validation_by("speaker6"), validation_by("random5")
    ('speaker', 'utterance')
    """
    _refuse_unknown(protocol)
    return "utterance" if protocol == "random5" else "speaker"


def folds(
    protocol: str, rows: pd.DataFrame, labels: NDArray[np.int64], *, learn_from_others: bool = False
) -> list[Fold]:
    """Divide rows into the folds of a protocol.

    Every labelled row that the protocol takes is tested once. A training row whose content is in the test is dropped.

    Parameters
    ----------
    protocol
        One of `PROTOCOLS`.
    rows
        With the columns ``corpus``, ``speaker``, ``utterance_id`` and ``content_hash``; an empty hash is not known.
    labels
        (row,): class of each row, -1 for none.
    learn_from_others
        Corpora that a published protocol does not take are learnt from in each of its folds.

    Returns
    -------
    list of Fold
        Published folds of which no speaker is there are left out.

    Raises
    ------
    SettingsError
        If the protocol is unknown or the rows do not have at least two folds of it.

    Examples
    --------
    >>> rows = pd.DataFrame({"corpus": "mine", "speaker": list("aabb"), "utterance_id": range(4), "content_hash": ""})
    >>> [fold.test.tolist() for fold in folds("grouped", rows, np.zeros(4, dtype=np.int64))]
    [[True, True, False, False], [False, False, True, True]]
    """
    _refuse_unknown(protocol)
    taken = labels >= 0
    if not taken.any():
        raise SettingsError(f"no row has a class of the task, expected labelled utterances for protocol {protocol}")
    units = _recordings(rows)
    if protocol == "random5":
        tests = _random(rows, labels, units, taken)
    elif protocol == "corpus":
        tests = _by_corpus(rows, taken)
    elif protocol == "grouped":
        tests = _by_speaker(rows, taken)
    else:
        tests = _published(protocol, rows, taken)
        if not learn_from_others:
            taken = taken & np.logical_or.reduce(list(tests.values()))
    return [_fold(name, test, taken, units) for name, test in tests.items()]


def validation(
    rows: pd.DataFrame,
    labels: NDArray[np.int64],
    train: Mask,
    *,
    seed: int,
    share: float = 0.1,
    by: Unit = "speaker",
) -> Mask:
    """Set aside some of the training rows, by which a model finds out how sure it may be of itself.

    Parameters
    ----------
    rows, labels
        As for `folds`.
    train
        bool (row,): where to choose from.
    seed
        Decides which speakers or utterances are chosen.
    share
        Of the training rows, as nearly as whole speakers allow.
    by
        ``speaker``: whole speakers, of each corpus that has at least six in training, the share of its rows; where
        no corpus has six, one or more of all. Speakers that share a recording count as one. ``utterance``: stratified
        by class and corpus.

    Returns
    -------
    bool (row,)
        A part of ``train``, never empty, never all of it.

    Raises
    ------
    SettingsError
        If there are fewer than two speakers or utterances to choose from.
    """
    places = np.flatnonzero(train & (labels >= 0))
    if not len(places):
        raise SettingsError("no training rows with a class found, expected some to set aside for validation")
    rows, labels = rows.iloc[places], labels[places]
    units = _recordings(rows)
    if by == "speaker":
        units = _joined(units, _speakers(rows))
    table = _table(rows, labels, units)
    if len(table) < 2:
        raise SettingsError(
            f"{len(table)} training {by} found (those that share a recording count as one), expected at least 2 to set "
            f"some aside for validation; add {by}s"
        )
    generator = np.random.default_rng(seed)
    chosen = _some_speakers(table, share, generator) if by == "speaker" else _some_utterances(table, share, generator)
    mask = np.zeros(len(train), dtype=bool)
    mask[places] = np.isin(units, chosen)
    return mask


def without(rows: pd.DataFrame, speakers: Sequence[str]) -> Mask:
    """Return which rows are left where some speakers are left out, and every recording that is one of theirs.

    Parameters
    ----------
    rows
        As for `folds`.
    speakers
        Each as ``corpus/speaker``.

    Raises
    ------
    SettingsError
        If one of them is not there, or nobody is left.

    Examples
    --------
    >>> rows = pd.DataFrame({"corpus": "mine", "speaker": list("aabb"), "utterance_id": range(4), "content_hash": ""})
    >>> without(rows, ["mine/a"]).tolist()
    [False, False, True, True]
    """
    if not speakers:
        return np.ones(len(rows), dtype=bool)
    names = rows["corpus"].astype(str) + "/" + rows["speaker"].astype(str)
    if strange := sorted(set(speakers) - set(names)):
        raise SettingsError(
            f"no utterance of {', '.join(strange)} found to leave out, expected some of {', '.join(sorted(set(names)))}"
        )
    units = _recordings(rows)
    left = ~np.isin(units, units[names.isin(speakers)])
    if not left.any():
        raise SettingsError(f"{', '.join(sorted(speakers))} left out and nobody left, expected speakers to learn from")
    return left


def _refuse_unknown(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise SettingsError(f"protocol {protocol!r} found, expected one of {', '.join(PROTOCOLS)}")


def _fold(name: str, test: Mask, taken: Mask, units: NDArray[np.intp]) -> Fold:
    train = taken & ~np.isin(units, units[test])
    if not train.any():
        raise SettingsError(
            f"no training rows found for fold {name}: every other recording is a copy of one in its test; expected "
            "corpora with recordings of their own, leave the copies out"
        )
    return Fold(name, train, test)


# ---- Units: what must not be divided, as one number per row


def _speakers(rows: pd.DataFrame) -> NDArray[np.intp]:
    """Return a number for each speaker; a name means somebody only within its corpus."""
    names = rows[["corpus", "speaker"]].astype(str)
    return np.asarray(names.groupby(["corpus", "speaker"]).ngroup(), dtype=np.intp)


def _recordings(rows: pd.DataFrame) -> NDArray[np.intp]:
    """Return a number for each recording: utterances, with all that share a content hash joined to one."""
    utterances = _numbers(rows["utterance_id"])
    hashes = rows["content_hash"]
    known = (hashes.notna() & (hashes != "")).to_numpy()
    alone = utterances + len(hashes)  # an unknown content is nobody else's
    return _joined(utterances, np.where(known, _numbers(hashes), alone))


def _numbers(names: pd.Series) -> NDArray[np.intp]:
    return np.asarray(pd.factorize(names.astype(str))[0], dtype=np.intp)


def _joined(first: NDArray[np.intp], second: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return numbers that are equal for rows equal in the one or the other, directly or over further rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    offset = int(first.max()) + 1
    size = offset + int(second.max()) + 1
    links = coo_array((np.ones(len(first), dtype=bool), (first, second + offset)), shape=(size, size))
    component: NDArray[np.intp] = connected_components(links, directed=False)[1][first]
    return component.astype(np.intp)


def _table(rows: pd.DataFrame, labels: NDArray[np.int64], units: NDArray[np.intp]) -> pd.DataFrame:
    """Return one line per unit, in an order that does not depend on that of the rows, with its first utterance."""
    table = pd.DataFrame(
        {
            "unit": units,
            "utterance_id": rows["utterance_id"].astype(str).to_numpy(),
            "corpus": rows["corpus"].astype(str).to_numpy(),
            "label": labels,
        }
    ).sort_values(["utterance_id", "label"], kind="stable")
    firsts = table.drop_duplicates("unit").set_index("unit")
    return firsts.assign(rows=table.groupby("unit").size())


def _shuffled(table: pd.DataFrame, by: list[str], generator: np.random.Generator) -> pd.DataFrame:
    """Return the table in random order within each stratum, strata after one another."""
    return table.iloc[generator.permutation(len(table))].sort_values(by, kind="stable")


# ---- Protocols: name of each fold -> its test rows


def _random(rows: pd.DataFrame, labels: NDArray[np.int64], units: NDArray[np.intp], taken: Mask) -> Mapping[str, Mask]:
    count = 5
    table = _table(rows[taken], labels[taken], units[taken])
    if len(table) < count:
        raise SettingsError(f"{len(table)} utterances found, expected at least {count} for protocol random5; add some")
    # Dealt like cards, stratum after stratum: every fold gets its part of each, give or take one.
    dealt = _shuffled(table, ["corpus", "label"], np.random.default_rng(0)).index
    return {str(fold + 1): taken & np.isin(units, dealt[fold::count]) for fold in range(count)}


def _by_corpus(rows: pd.DataFrame, taken: Mask) -> Mapping[str, Mask]:
    corpora = rows["corpus"].astype(str).to_numpy()
    names = sorted(set(corpora[taken]))
    if len(names) < 2:
        raise SettingsError(
            f"one corpus found ({names[0]}), expected at least 2 for protocol corpus; extract another into the same "
            "store, or take the protocol grouped"
        )
    return {name: taken & (corpora == name) for name in names}


def _by_speaker(rows: pd.DataFrame, taken: Mask) -> Mapping[str, Mask]:
    speakers = _speakers(rows)
    sizes = np.bincount(speakers[taken], minlength=int(speakers.max()) + 1)
    present = np.flatnonzero(sizes)
    count = min(5, len(present))
    _refuse_one_speaker("grouped", len(present), count)
    fold_of, filled = np.zeros_like(sizes), np.zeros(count, dtype=np.int64)
    for speaker in present[np.argsort(-sizes[present], kind="stable")]:  # largest first, each to the emptiest fold
        fold_of[speaker] = filled.argmin()
        filled[fold_of[speaker]] += sizes[speaker]
    return {str(fold + 1): taken & (fold_of[speakers] == fold) for fold in range(count)}


def _published(protocol: str, rows: pd.DataFrame, taken: Mask) -> Mapping[str, Mask]:
    corpora, speakers = rows["corpus"].astype(str).to_numpy(), rows["speaker"].astype(str).to_numpy()
    lists = _PUBLISHED[protocol]
    found = set(corpora[taken])
    if not found & lists.keys():
        raise SettingsError(
            f"corpora {', '.join(sorted(found))} found, expected {', '.join(lists)} for protocol {protocol}; extract "
            f"{'them' if len(lists) > 1 else 'it'}, or take the protocol grouped"
        )
    tests: dict[str, Mask] = {}
    for number in range(max(map(len, lists.values()))):
        test = np.zeros(len(rows), dtype=bool)
        for corpus, speakers_of_fold in lists.items():
            test |= taken & (corpora == corpus) & np.isin(speakers, speakers_of_fold[number])
        if test.any():
            tests[str(number + 1)] = test
    there = taken & np.isin(corpora, list(lists))
    _refuse_one_speaker(protocol, len(set(zip(corpora[there], speakers[there], strict=True))), len(tests))
    return tests


def _refuse_one_speaker(protocol: str, speakers: int, count: int) -> None:
    if count < 2:
        raise SettingsError(
            f"number of speakers is {speakers}, in {count} folds, expected at least 2 in 2 folds for protocol "
            f"{protocol}; add speakers, or take another protocol ({', '.join(PROTOCOLS)})"
        )


# ---- Validation: the units that are set aside

# Speakers of a corpus that can do without some: of SAVEE's four, one is a quarter of all that it teaches.
_ENOUGH = 6


def _some_speakers(table: pd.DataFrame, share: float, generator: np.random.Generator) -> list[int]:
    """Choose, of each corpus with enough speakers, some that come near to the share of its rows."""
    chosen: list[int] = []
    for part in [part for _, part in table.groupby("corpus") if len(part) >= _ENOUGH] or [table]:
        units, sizes = part.index.to_numpy(), part["rows"].to_numpy()
        missing, taken = share * sizes.sum(), list[int]()
        nearest = int(np.abs(sizes - missing).argmin())
        for place in generator.permutation(len(part)):
            if abs(missing - sizes[place]) < abs(missing) and len(taken) < len(part) - 1:
                taken.append(int(place))
                missing -= sizes[place]
        chosen += units[taken or [nearest]].tolist()
    return chosen


def _some_utterances(table: pd.DataFrame, share: float, generator: np.random.Generator) -> list[int]:
    order = _shuffled(table, ["corpus", "label"], generator).index.to_numpy()
    count = min(max(round(share * len(order)), 1), len(order) - 1)
    # At equal distances through the strata, so that each gives its part.
    places = ((np.arange(count) + 0.5) * len(order) / count).astype(int)
    chosen: list[int] = order[places].tolist()
    return chosen
