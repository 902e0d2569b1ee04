"""Drift: whether tonight's recordings are like those of the four weeks before, and if not, what changed.

Each measure is compared as counts in bins, group by group. It has moved where the population stability index and the
Jensen-Shannon distance are both beyond thresholds, so that the change matters, and chance does not explain it. For that
the index itself is no good: for 200 recordings with some rare labels it is beyond the 1e-4 quantile of its textbook
distribution, chi-squared times (1/n + 1/m), 130 times as often as it should be. The G-test is at most 3 times, at any
number of recordings from 50 on.

Recordings are what is counted: the windows of one resemble each other, and are no independent evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import chi2_contingency

from emolib.archive.ledger import Run
from emolib.archive.predictions import Part, committed, scan
from emolib.archive.schemas import schema
from emolib.storage import AnyPath

Verdict: TypeAlias = Literal["recorder", "callers", "steady", "too few"]
_Group: TypeAlias = tuple[str | None, str | None]

_DAYS = 28  # each day of the week as often as any other
_LEAST = 50  # recordings on both sides for anything to be said: five in each bin
_BINS = 10
_CHANCE = 1e-3  # of a night to say anything although nothing changed, all measures and groups together
# Of the index those of credit scoring (Siddiqi, Credit Risk Scorecards, 2006). It depends on how an empty bin is
# filled, so that one with next to nothing in it can carry it beyond any threshold: the distance must agree.
_THRESHOLDS = {"large": (0.25, 0.2), "moderate": (0.1, 0.1)}

# What a recorder, or the line to it, decides; and what callers do, as long as none of that has moved.
_TECHNICAL = ("code", "codec", "level_dbfs", "snr_db", "bandwidth_hz")
_SPOKEN = ("emotion", "confidence", "decoded_s")
_ABSTAINED = "share_no label"  # no class has such a name


@dataclass(frozen=True, slots=True)
class Shift:
    """One measure of a group, tonight against the reference.

    Attributes
    ----------
    measure
        Of a recording: ``code``, ``codec`` (with its sampling rate and number of channels), ``decoded_s``; as means
        over its channels: ``level_dbfs``, ``snr_db``, ``bandwidth_hz``, ``emotion`` (the shares of the labels) and
        ``confidence`` (the mean probability of the class that has the highest).
    recordings, reference
        How many have the measure tonight and in the reference.
    was, now
        For people: of the reference and of tonight the median, or the share of what changed most.
    psi
        Population stability index.
    js
        Jensen-Shannon distance to the base 2, from 0 to 1.
    chance
        Probability that as much or more comes about although nothing changed.
    size
        ``moderate`` or ``large``; None: it has not moved.
    """

    measure: str
    recordings: int
    reference: int
    was: str
    now: str
    psi: float
    js: float
    chance: float
    size: str | None


@dataclass(frozen=True, slots=True)
class Drift:
    """A group of recordings, tonight against the reference.

    Attributes
    ----------
    site, queue
        What they have in common; None where it is not known.
    recordings, reference
        How many there are tonight and in the reference.
    shifts
        Of each measure that enough of them have; none where they are too few.
    """

    site: str | None
    queue: str | None
    recordings: int
    reference: int
    shifts: tuple[Shift, ...]

    @property
    def moved(self) -> list[Shift]:
        """The measures that have moved."""
        return [shift for shift in self.shifts if shift.size]

    @property
    def verdict(self) -> Verdict:
        """What changed: the recorder if a technical measure moved; callers if only what they say and how long.

        A model hears other emotions through another recorder, so once that changed nothing is known of the callers.
        """
        if not self.shifts:
            return "too few"
        moved = {shift.measure for shift in self.moved}
        return "recorder" if moved & {*_TECHNICAL} else "callers" if moved else "steady"

    @property
    def sentence(self) -> str:
        """The group and what changed in it, in one line."""
        names = {"site": self.site, "queue": self.queue}
        group = ", ".join(["drift", *(f"{name} {value}" for name, value in names.items() if value is not None)])
        said = {
            "recorder": "the recorder or its line changed, so nothing is known of the callers",
            "callers": "the callers changed, nothing shows that the recorder did",
            "steady": "nothing changed",
            "too few": f"too few to compare, expected {_LEAST}",
        }
        moved = [
            f"{each.measure}: {each.was}, now {each.now} (psi {each.psi:.2f}, js {each.js:.2f})" for each in self.moved
        ]
        count = f"{self.recordings} recordings tonight, {self.reference} before"
        return "; ".join([f"{group}: {said[self.verdict]}", *moved, count])


def drift(pred: AnyPath, runs: Collection[str]) -> list[Drift]:
    """Compare what a night's runs wrote with what others wrote of the four weeks before, by the dates of the calls.

    The four weeks end with the night's newest day; what it caught up from before them is left out, and so is what
    another model labelled. Memory holds the channels of one day, and some numbers for each recording.

    Parameters
    ----------
    pred
        The predictions.
    runs
        Ids of the runs that the night closed.

    Returns
    -------
    list of Drift
        One for each group (site and queue) of the night, sorted; none where it scored fewer than 50 recordings.
    """
    parts = committed(pred)
    tonight = _by_day(part for part in parts if part.run_id in runs)
    newest = _newest_day(pred, tonight)
    if newest is None:
        return []
    oldest = f"{pd.Timestamp(newest) - pd.Timedelta(days=_DAYS):%Y-%m-%d}"
    config = Run.open(pred, max(runs)).config
    # Another model, promoted meanwhile, hears other emotions in the same calls.
    alike = {
        run_id
        for run_id in {part.run_id for part in parts if oldest <= part.date <= newest} - {*runs}
        if Run.open(pred, run_id).config.scoring_fingerprint == config.scoring_fingerprint
    }
    before = _by_day(part for part in parts if part.run_id in alike and oldest <= part.date <= newest)
    classes = config.classes
    rows = pd.concat([_measures(pred, group, classes) for day, group in tonight.items() if day >= oldest])
    reference = [_measures(pred, group, classes) for group in before.values()]
    return compare(rows, pd.concat(reference) if reference else rows[:0])


def compare(tonight: pd.DataFrame, reference: pd.DataFrame) -> list[Drift]:
    """Compare recordings with those of a reference, group by group.

    Parameters
    ----------
    tonight, reference
        A row per recording: site, queue and the measures of `Shift`, null where it has none. In place of ``emotion``
        there is a column ``share_…`` for each label, one of them for none.

    Returns
    -------
    list of Drift
        One for each group of tonight, sorted by site and queue.
    """
    before = _groups(reference)
    pairs = {group: (rows, before.get(group, reference[:0])) for group, rows in _groups(tonight).items()}
    enough = [group for group, pair in pairs.items() if min(map(len, pair)) >= _LEAST]
    # Divided by the number of comparisons (Bonferroni), so that a night of many groups says no more by chance.
    least = _CHANCE / max(1, len(enough) * len(_TECHNICAL + _SPOKEN))
    found = []
    for group in sorted(pairs, key=lambda names: [(name is not None, name or "") for name in names]):
        rows, known = pairs[group]
        shifts = [_shift(measure, rows, known, least) for measure in _TECHNICAL + _SPOKEN] if group in enough else []
        found.append(Drift(*group, len(rows), len(known), tuple(shift for shift in shifts if shift is not None)))
    return found


def population_stability_index(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the population stability index of two counts ``(bin,)``.

    A bin that is empty in one of them would make it infinite, so each is drawn towards both together with the weight of
    one count. Where their shares are equal that changes nothing.

    Examples
    --------
    >>> population_stability_index(np.array([50.0, 50.0]), np.array([400.0, 400.0]))
    0.0
    >>> round(population_stability_index(np.array([50.0, 50.0]), np.array([900.0, 100.0])), 2)
    0.87
    """
    together = (first + second) / (first.sum() + second.sum())
    p, q = ((counts + together)[together > 0] / (counts.sum() + 1) for counts in (first, second))
    return float(np.sum((p - q) * np.log(p / q)))


def jensen_shannon_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the Jensen-Shannon distance of two counts ``(bin,)`` to the base 2, from 0 to 1.

    SciPy's is not a number for some that are alike, where rounding takes its square below zero.

    Examples
    --------
    >>> jensen_shannon_distance(np.array([5.0, 0.0]), np.array([0.0, 70.0]))
    1.0
    """
    p, q = first / first.sum(), second / second.sum()
    nats = (rel_entr(p, (p + q) / 2).sum() + rel_entr(q, (p + q) / 2).sum()) / 2
    return float(np.sqrt(np.clip(nats / np.log(2), 0, 1)))


def by_chance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the probability that two counts ``(bin,)`` of the same thing differ as much or more (G-test).

    Examples
    --------
    >>> round(by_chance(np.array([90.0, 10.0]), np.array([850.0, 150.0])), 2)
    0.16
    >>> by_chance(np.array([70.0, 30.0]), np.array([900.0, 100.0])) < 1e-6
    True
    """
    counts = np.stack([first, second])
    return float(chi2_contingency(counts[:, counts.any(axis=0)], correction=False, lambda_="log-likelihood").pvalue)


def _shift(measure: str, tonight: pd.DataFrame, reference: pd.DataFrame, least: float) -> Shift | None:
    """Compare one measure; None where too few recordings have it."""
    columns = [name for name in reference if name.startswith("share_")] if measure == "emotion" else [measure]
    rows, known = tonight[columns].dropna(), reference[columns].dropna()
    if min(len(rows), len(known)) < _LEAST:
        return None
    if measure == "emotion":
        # As if a recording had one label. What it has of several varies less, and so errs on the side of silence.
        counted = rows.sum().to_numpy(np.float64), known.sum().to_numpy(np.float64)
        said = _changed_most([name.removeprefix("share_") for name in columns], *counted)
    elif measure in ("code", "codec"):
        words = sorted({*rows[measure], *known[measure]})
        counts = (each[measure].value_counts().reindex(words, fill_value=0) for each in (rows, known))
        now, was = (each.to_numpy(np.float64) for each in counts)
        counted, said = (now, was), _changed_most(words, now, was)
    else:
        values, usual = (each[measure].to_numpy(np.float64) for each in (rows, known))
        counted = _binned(values, usual)
        said = f"median {np.median(values):.3g}", f"median {np.median(usual):.3g}"
    psi, js, chance = (of(*counted) for of in (population_stability_index, jensen_shannon_distance, by_chance))
    sizes = [size for size, thresholds in _THRESHOLDS.items() if psi >= thresholds[0] and js >= thresholds[1]]
    size = sizes[0] if sizes and chance < least else None
    return Shift(measure, len(rows), len(known), was=said[1], now=said[0], psi=psi, js=js, chance=chance, size=size)


def _binned(values: NDArray[np.float64], usual: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count both in bins that hold as much of the usual values each; one that many share is a bin of its own."""
    edges, ties = np.unique(np.quantile(usual, np.arange(1, _BINS) / _BINS, method="higher"), return_counts=True)
    edges = np.union1d(edges, np.nextafter(edges[ties > 1], np.inf))
    of_values, of_usual = (np.searchsorted(edges, each, side="right") for each in (values, usual))
    size = len(edges) + 1
    return np.bincount(of_values, minlength=size).astype(float), np.bincount(of_usual, minlength=size).astype(float)


def _changed_most(words: Sequence[str], now: NDArray[np.float64], was: NDArray[np.float64]) -> tuple[str, str]:
    """Return of now and before the share of the word whose share changed most."""
    shares = now / now.sum(), was / was.sum()
    most = int(np.abs(shares[0] - shares[1]).argmax())
    return f"{words[most]} {shares[0][most]:.0%}", f"{words[most]} {shares[1][most]:.0%}"


def _groups(rows: pd.DataFrame) -> dict[_Group, pd.DataFrame]:
    """Return the rows of each site and queue."""
    groups = rows.groupby(["site", "queue"], dropna=False)
    return {(_name(site), _name(queue)): group for (site, queue), group in groups}


def _name(value: object) -> str | None:
    return None if pd.isna(value) else str(value)


def _by_day(parts: Iterable[Part]) -> dict[str, list[Part]]:
    days: dict[str, list[Part]] = {}
    for part in parts:
        days.setdefault(part.date, []).append(part)
    return days


def _newest_day(pred: AnyPath, days: dict[str, list[Part]]) -> str | None:
    """Return the day that the newest recordings reach back to, enough to compare: some wrong dates don't move it."""
    columns, seen = pa.schema([schema("recordings", ()).field("code")]), 0
    for day in sorted(days, reverse=True):
        seen += scan(pred, "recordings", days[day], columns).count_rows()
        if seen >= _LEAST:
            return day
    return None


def _measures(pred: AnyPath, parts: Sequence[Part], classes: Sequence[str]) -> pd.DataFrame:
    """Read the rows of `compare`; windows, of which there are a hundred times as many, are not needed."""
    means, shares = ([f"{prefix}_{name}" for name in classes] for prefix in ("mean", "share"))
    named = ["recording_id", "site", "queue", "code", "codec", "decoded_s", "sampling_rate", "channels"]
    recordings = _read(pred, "recordings", parts, named, classes)
    rate, channels = (pc.cast(recordings[name], pa.string()) for name in ("sampling_rate", "channels"))
    codec = pc.binary_join_element_wise(channels, "-channel ", recordings["codec"], " at ", rate, " Hz", "")
    heard = _read(
        pred, "channels", parts, ["recording_id", "level_dbfs", "snr_db", "bandwidth_hz", *means, *shares], classes
    ).to_pandas()
    heard["confidence"] = heard[means].max(axis=1)
    heard[_ABSTAINED] = (1 - heard[shares].sum(axis=1, skipna=False)).clip(lower=0)
    rows = recordings.select(named[:6]).to_pandas().assign(codec=codec.to_pandas())
    of_recording = heard.drop(columns=means).groupby("recording_id").mean()
    return rows.merge(of_recording, how="left", left_on="recording_id", right_index=True).drop(columns="recording_id")


def _read(pred: AnyPath, table: str, parts: Sequence[Part], names: Sequence[str], classes: Sequence[str]) -> pa.Table:
    whole = schema(table, classes)
    return scan(pred, table, parts, pa.schema([whole.field(name) for name in names])).to_table()
