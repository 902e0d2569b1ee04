"""A candidate beside the model whose calls it listened in on: how often they say the same, and where they do not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from emolib.archive.ledger import Run
from emolib.archive.shadow import by_day
from emolib.storage import AnyPath

ABSTAINED = "none"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a candidate's labels stand to the model's.

    Attributes
    ----------
    model_id
        Of the candidate.
    other
        Of the model that it is compared with.
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
        Cohen's (1960): 1 where they always agree, 0 where they do as often as by chance; None where chance alone would
        always agree: both know one label, and the same.
    negative
        Mean probability of negative polarity, by the model and by the candidate.
    """

    model_id: str
    other: str
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
            "other": self.other,
            "calls": self.calls,
            "windows": self.windows,
            "agreement": round(self.share, 4),
            "interval": None if self.interval is None else [round(edge, 4) for edge in self.interval],
            "kappa": None if self.kappa is None else round(self.kappa, 4),
            "negative": [round(share, 4) for share in self.negative],
        }


def agreement(pred: AnyPath, model_id: str, *, other: str, runs: Collection[str] | None = None) -> Agreement | None:
    """Compare the labels of a candidate with a model's; None where there is no window that both have heard.

    Memory holds a day of windows, and two numbers for each call.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    model_id
        Of the candidate.
    other
        `model_id` of the model.
    runs
        Ids of the runs whose rows are compared; None: all.
    """
    labels: tuple[str, ...] = ()
    counts, sums, of_calls = np.zeros((0, 0), np.int64), np.zeros(2), []
    for rows in by_day(pred, model_id, runs=runs):
        rows = rows[rows["model_id"] == other]
        if rows.empty:
            continue
        if not labels:
            labels = (*Run.open(pred, rows["run_id"].iloc[0]).config.classes, ABSTAINED)
            counts = np.zeros((len(labels), len(labels)), np.int64)
        number = {name: at for at, name in enumerate(labels)}
        names = ("emotion", "emotion_shadow")
        ours, theirs = (rows[name].fillna(ABSTAINED).map(number).to_numpy(np.int64) for name in names)
        np.add.at(counts, (ours, theirs), 1)
        sums += rows[["polarity_negative", "polarity_negative_shadow"]].to_numpy(np.float64).sum(axis=0)
        same = pd.DataFrame({"call_id": rows["call_id"], "same": ours == theirs, "windows": 1})
        of_calls.append(same.groupby("call_id").sum())
    if not labels:
        return None
    calls = pd.concat(of_calls).groupby(level=0).sum()
    windows = int(counts.sum())
    return Agreement(
        model_id=model_id,
        other=other,
        calls=len(calls),
        windows=windows,
        labels=labels,
        counts=counts,
        share=float(np.trace(counts) / windows),
        interval=share_interval(calls["same"].to_numpy(np.float64), calls["windows"].to_numpy(np.float64)),
        kappa=kappa(counts),
        negative=(float(sums[0] / windows), float(sums[1] / windows)),
    )


def share_interval(hits: NDArray[np.float64], windows: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return a 95 % interval of a share of windows that come in calls; None of a single call.

    Windows of a call resemble each other, so the calls vary and not the windows: the linearised variance of a ratio
    (Cochran 1977, section 6.4), and Student's t. A bootstrap over a year of calls would take hours.

    Examples
    --------
    >>> low, high = share_interval(np.array([8.0, 9.0, 7.0, 10.0]), np.full(4, 10.0))
    >>> round(low, 2), round(high, 2)
    (0.64, 1.0)
    """
    count = len(windows)
    if count < 2:
        return None
    share = hits.sum() / windows.sum()
    deviation = np.sqrt(count / (count - 1) * np.square(hits - share * windows).sum()) / windows.sum()
    reach = float(student.ppf(0.975, count - 1) * deviation)
    return max(0.0, float(share) - reach), min(1.0, float(share) + reach)


def kappa(counts: NDArray[np.int64]) -> float | None:
    """Return Cohen's kappa (1960) of two raters' counts ``(label, label)``; None where chance alone always agrees.

    Examples
    --------
    >>> kappa(np.array([[20, 5], [10, 15]]))
    0.4
    >>> kappa(np.array([[20, 0], [0, 0]])) is None
    True
    """
    shares = counts / counts.sum()
    by_chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return None if by_chance == 1 else round((float(np.trace(shares)) - by_chance) / (1 - by_chance), 6)
