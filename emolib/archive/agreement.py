"""A candidate beside the model whose calls it listened in on: how often they say the same, and where they do not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, confusion_matrix

from emolib.archive.ledger import Run
from emolib.archive.predictions import Part, committed, parts, scan
from emolib.archive.schemas import KEYS, schema
from emolib.archive.shadow import place_of
from emolib.learning.intervals import speaker_intervals
from emolib.storage import AnyPath

ABSTAINED = "none"
_COMPARED = ("model_id", "emotion", "polarity_negative", "confidence")
_WINDOWS = pa.schema([schema("windows", ()).field(name) for name in (*KEYS["windows"], *_COMPARED)])
_CALLS = pa.schema([schema("recordings", ()).field(name) for name in ("recording_id", "call_id")])


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a candidate's labels stand to the model's.

    Attributes
    ----------
    model_id
        Of the candidate.
    others
        `model_id` of what it is compared with; more than one where another model was promoted meanwhile.
    calls, windows
        How many both have heard.
    labels
        The classes and, last, `ABSTAINED`.
    counts
        Windows, shape ``(label of the model, label of the candidate)``.
    share
        Of the windows, those to which both give the same label.
    interval
        95 % of it, for the choice of calls; None with fewer than two.
    kappa
        Cohen's (1960): 1 where they always agree, 0 where they do as often as by chance; None where neither has ever
        given more than one label.
    negative
        Mean probability of negative polarity, by the model and by the candidate.
    """

    model_id: str
    others: tuple[str, ...]
    calls: int
    windows: int
    labels: tuple[str, ...]
    counts: NDArray[np.int64]
    share: float
    interval: tuple[float, float] | None
    kappa: float | None
    negative: tuple[float, float]

    def brief(self) -> dict[str, Any]:
        """Return it as JSON has it, rounded, without the matrix."""
        return {
            "model_id": self.model_id,
            "others": list(self.others),
            "calls": self.calls,
            "windows": self.windows,
            "agreement": round(self.share, 4),
            "interval": None if self.interval is None else [round(edge, 4) for edge in self.interval],
            "kappa": None if self.kappa is None else round(self.kappa, 4),
            "negative": [round(share, 4) for share in self.negative],
        }


def read_shadow(
    pred: AnyPath, model_id: str, *, date: str | None = None, runs: Collection[str] | None = None
) -> pd.DataFrame:
    """Read what a candidate says, beside what the model says of the same windows.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    model_id
        Of the candidate.
    date
        ISO date; None reads all.
    runs
        Ids of the runs whose rows are read; None reads all.

    Returns
    -------
    pandas.DataFrame
        A row for each window that both have, sorted by date and keys: the keys of `windows`; ``model_id``,
        ``emotion``, ``polarity_negative`` and ``confidence`` of the model and, with the suffix ``_shadow``, of the
        candidate; ``call_id`` and ``date`` (ISO).
    """
    place, done = place_of(pred, model_id), set(committed(pred))
    by_date: dict[str, list[Part]] = {}
    for part in parts(place, "windows"):
        if part in done and (date is None or part.date == date) and (runs is None or part.run_id in runs):
            by_date.setdefault(part.date, []).append(part)
    frames = [_beside(_WINDOWS.empty_table(), _WINDOWS.empty_table(), _CALLS.empty_table(), "")]
    for day, group in by_date.items():
        ours, theirs = (scan(root, "windows", group, _WINDOWS).to_table() for root in (pred, place))
        frames.append(_beside(ours, theirs, scan(pred, "recordings", group, _CALLS).to_table(), day))
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _beside(ours: pa.Table, theirs: pa.Table, calls: pa.Table, day: str) -> pd.DataFrame:
    both = ours.to_pandas().merge(theirs.to_pandas(), on=KEYS["windows"], suffixes=("", "_shadow"))
    return both.merge(calls.to_pandas(), on="recording_id").sort_values(KEYS["windows"]).assign(date=day)


def agreement(pred: AnyPath, model_id: str, *, runs: Collection[str] | None = None) -> Agreement | None:
    """Compare the labels of a candidate with the model's; None where there is no window that both have heard.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    model_id
        Of the candidate.
    runs
        Ids of the runs whose rows are compared; None: all.
    """
    rows = read_shadow(pred, model_id, runs=runs)
    rows = rows[rows["model_id"] != model_id]  # scored anew since it was promoted
    if rows.empty:
        return None
    newest = max(part.run_id for part in parts(place_of(pred, model_id), "windows"))
    labels = (*Run.open(pred, newest).config.classes, ABSTAINED)
    number = {name: at for at, name in enumerate(labels)}
    ours, theirs = (
        rows[name].fillna(ABSTAINED).map(number).to_numpy(np.int64) for name in ("emotion", "emotion_shadow")
    )
    sure = speaker_intervals(ours, theirs, rows["call_id"], classes=len(labels))
    alone = len({*ours, *theirs}) == 1  # for which kappa is not defined
    return Agreement(
        model_id=model_id,
        others=tuple(sorted(rows["model_id"].unique())),
        calls=rows["call_id"].nunique(),
        windows=len(rows),
        labels=labels,
        counts=confusion_matrix(ours, theirs, labels=range(len(labels))),
        share=float((ours == theirs).mean()),
        interval=None if sure is None else sure["accuracy"],
        kappa=None if alone else float(cohen_kappa_score(ours, theirs)),
        negative=(float(rows["polarity_negative"].mean()), float(rows["polarity_negative_shadow"].mean())),
    )
