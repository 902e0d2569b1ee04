"""How frequent emotions are in an archive: estimates with intervals in place of counts of labels.

Corpora are balanced and calls mostly neutral, so a model finds too much of everything rare, and its labels can't simply
be counted (see `emolib.learning.priors`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emolib.archive.run_settings import RunConfig
from emolib.learning.priors import Prevalence, estimate_priors, prevalence

_WINDOWS = 1_000_000  # that the likely mixture is estimated from; more would say no more


@dataclass(frozen=True, slots=True)
class Mixture:
    """What an archive is made of, by two ways that have nothing in common but the model.

    Attributes
    ----------
    classes
        The public classes.
    counted
        Share of each among the labels that were given, ``(class,)``.
    prevalence
        How frequent each is, given the mistakes that the model made with its validation speakers; not a number where
        these said nothing of a class.
    likely
        The mixture under which the probabilities of the windows are most likely, ``(class,)``: what `--priors` wants.
    calls, speakers
        From how many calls, and by the mistakes with how many validation speakers, that is estimated.
    """

    classes: tuple[str, ...]
    counted: NDArray[np.float64]
    prevalence: Prevalence
    likely: NDArray[np.float64]
    calls: int
    speakers: int


def mixture(windows: pd.DataFrame, recordings: pd.DataFrame, config: RunConfig) -> Mixture | None:
    """Estimate how frequent the emotions are in what was scored; None where nothing was.

    Parameters
    ----------
    windows, recordings
        The tables of the predictions.
    config
        Of the run that wrote them.
    """
    if windows.empty:
        return None
    classes = list(config.classes)
    calls = windows["recording_id"].map(recordings.set_index("recording_id")["call_id"])
    # The label after the last: none.
    label = windows["emotion"].map({name: number for number, name in enumerate(classes)}).fillna(len(classes))
    counts = pd.crosstab(calls, label.astype(int)).reindex(columns=range(len(classes) + 1), fill_value=0).to_numpy()
    labelled = counts[:, :-1].sum()
    every = -(-len(windows) // _WINDOWS)
    probabilities = windows[[f"p_{name}" for name in classes]].iloc[::every].to_numpy(np.float64)
    return Mixture(
        classes=config.classes,
        counted=counts[:, :-1].sum(axis=0) / labelled if labelled else np.full(len(classes), np.nan),
        prevalence=_prevalence(counts, np.array(config.mistakes)),
        likely=estimate_priors(probabilities, config.priors),
        calls=len(counts),
        speakers=len(config.mistakes),
    )


def _prevalence(counts: NDArray[np.int64], mistakes: NDArray[np.int64]) -> Prevalence:
    """Return the prevalence of the classes that the validation speakers said something of."""
    known = mistakes.sum(axis=(0, 2)) > 0
    found = prevalence(counts, mistakes[:, known])
    estimate, interval = np.full(len(known), np.nan), np.full((len(known), 2), np.nan)
    estimate[known] = found.estimate
    if found.interval is not None:
        interval[known] = found.interval
    return Prevalence(estimate, None if found.interval is None else interval)
