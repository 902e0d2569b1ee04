"""A candidate beside the model whose calls it listened in on: how often they say the same, and where they do not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emolib.archive.ledger import Run
from emolib.archive.predictions import parts
from emolib.archive.shadow import place_of, read_shadow
from emolib.learning.intervals import confusions, speaker_intervals
from emolib.storage import AnyPath

ABSTAINED = "none"


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
    counts = confusions(ours, theirs, rows["call_id"], classes=len(labels)).sum(axis=0)
    sure = speaker_intervals(ours, theirs, rows["call_id"], classes=len(labels))
    return Agreement(
        model_id=model_id,
        others=tuple(sorted(rows["model_id"].unique())),
        calls=rows["call_id"].nunique(),
        windows=len(rows),
        labels=labels,
        counts=counts,
        share=float(np.trace(counts) / len(rows)),
        interval=None if sure is None else sure["accuracy"],
        kappa=kappa(counts),
        negative=(float(rows["polarity_negative"].mean()), float(rows["polarity_negative_shadow"].mean())),
    )


def kappa(counts: NDArray[np.int64]) -> float | None:
    """Return Cohen's kappa (1960) of two raters' counts ``(label, label)``; None where both give one label alone.

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
