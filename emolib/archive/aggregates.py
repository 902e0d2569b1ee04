"""Windows -> channels -> calls: how probabilities become the rows of the tables. Pure.

All sums run over arrays whose shape depends on the recording alone, never on a batch or a block, and none is a matrix
product, so the same recording gives the same bits wherever it is scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emolib.config import ScoringConfig, WindowConfig
from emolib.corpora.labels import merged
from emolib.errors import SettingsError
from emolib.learning.priors import correct_priors

if TYPE_CHECKING:
    from emolib.learning.bundle import ModelBundle

POLARITIES = ("negative", "neutral", "positive")


@dataclass(frozen=True, slots=True)
class Labels:
    """How a model's classes become public classes and polarities.

    Attributes
    ----------
    classes
        The public classes.
    members
        For each of them, which of the model's classes it is the sum of.
    polarity
        For each of `POLARITIES`, which public classes it is the sum of.
    trained
        Share of each public class that the model takes for granted.
    wanted
        The shares for which its probabilities are corrected; None: they stay as they are.
    """

    classes: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    polarity: tuple[tuple[int, ...], ...]
    trained: tuple[float, ...]
    wanted: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class ScoredWindows:
    """The scored windows of one channel.

    Attributes
    ----------
    start_s, end_s
        Shape ``(window,)``, float64 seconds.
    weight
        Valid frames of each window; shape ``(window,)``.
    probabilities
        Shape ``(window, public class)``, float32.
    polarity
        Shape ``(window, polarity)``, float32, in the order of `POLARITIES`.
    emotion
        Number of the most probable public class, -1 where the model abstains; shape ``(window,)``.
    confidence
        Its probability, abstained or not; shape ``(window,)``, float32.
    """

    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    weight: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    polarity: NDArray[np.float32]
    emotion: NDArray[np.int64]
    confidence: NDArray[np.float32]


def labels_of(bundle: ModelBundle, config: ScoringConfig) -> Labels:
    """Return the labels under which a model's predictions are published: without gender unless it was asked for.

    Raises
    ------
    SettingsError
        If the priors to correct for are not one share for each of these labels, with the sum 1, and 0 for those that
        the model has never heard.
    """
    scheme = bundle.scheme
    hidden = not config.expose_gender
    classes = scheme.public_classes if hidden else scheme.classes
    members = scheme.public_members if hidden else tuple((number,) for number in range(len(classes)))
    of_class = scheme.public_polarity if hidden else scheme.polarity
    trained = tuple(sum(bundle.priors[scheme.classes[member]] for member in group) for group in members)
    return Labels(
        classes=classes,
        members=members,
        polarity=tuple(tuple(i for i, each in enumerate(classes) if of_class[each] == word) for word in POLARITIES),
        trained=trained,
        wanted=_wanted(config.priors, dict(zip(classes, trained, strict=True))) if config.priors else None,
    )


def _wanted(priors: Mapping[str, float], trained: Mapping[str, float]) -> tuple[float, ...]:
    if sorted(priors) != sorted(trained):
        raise SettingsError(f"priors of {', '.join(sorted(priors))} found, expected one of each: {', '.join(trained)}")
    total = math.fsum(priors.values())  # the same in whatever order they were said
    if abs(total - 1) > 1e-3:
        raise SettingsError(f"priors with the sum {total:g} found, expected 1: divide them by their sum")
    if unheard := [name for name, share in trained.items() if not share and priors[name]]:
        raise SettingsError(f"a prior above 0 of {unheard[0]} found, expected 0: the model has never heard it")
    return tuple(priors[name] / total for name in trained)


def window_config(bundle: ModelBundle, config: ScoringConfig) -> WindowConfig:
    """Return how recordings are cut: the model's windows, the hop as configured.

    A model of whole clips, whose profile has no hop, sees a recording in windows edge to edge.
    """
    windows = bundle.profile.windows
    hop_s = config.hop_s or windows.hop_s or windows.duration_s
    return WindowConfig(duration_s=windows.duration_s, hop_s=hop_s, pad=windows.pad)


def judge(
    probabilities: NDArray[np.float32],
    labels: Labels,
    *,
    weight: NDArray[np.int32],
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    abstention_threshold: float | None,
) -> ScoredWindows:
    """Turn a model's probabilities, shape ``(window, class)``, into public ones, polarity and emotion.

    They are corrected for the priors of `labels`, if it has any. The model abstains where the most probable public
    class has less than the threshold.
    """
    public = published(probabilities, labels)
    confidence = public.max(axis=1)
    emotion = public.argmax(axis=1)
    if abstention_threshold is not None:
        emotion = np.where(confidence < abstention_threshold, -1, emotion)
    return ScoredWindows(start_s, end_s, weight, public, merged(public, labels.polarity), emotion, confidence)


def published(probabilities: NDArray[np.float32], labels: Labels) -> NDArray[np.float32]:
    """Return a model's probabilities ``(window, class)`` as those of the public classes, corrected for the priors."""
    public = merged(probabilities, labels.members)
    return public if labels.wanted is None else correct_priors(public, labels.trained, labels.wanted)


def mistakes(bundle: ModelBundle, config: ScoringConfig) -> NDArray[np.int64]:
    """Return how often windows of the validation speakers would get a label: ``(speaker, class, label)``.

    They are judged as a recording's windows are. The last label is none.
    """
    labels = labels_of(bundle, config)
    heard = bundle.validation()
    found = heard.merged(labels.members)._replace(probabilities=published(heard.probabilities, labels))
    return found.mistakes(bundle.abstention_threshold)


def channel_columns(windows: ScoredWindows, labels: Labels, *, duration_s: float) -> dict[str, Any]:
    """Return what the `channels` table says of the windows of a channel, of which there is at least one.

    Parameters
    ----------
    duration_s
        Duration of the call; its quarters are those of a clock, not of the windows that were scored.
    """
    everything = np.ones(windows.weight.shape, bool)
    centre_s = (windows.start_s + windows.end_s) / 2
    mean = _mean(windows.probabilities, windows.weight, everything)
    share = _mean(windows.emotion[:, None] == np.arange(len(labels.classes)), windows.weight, everything)
    first = _mean(windows.polarity, windows.weight, centre_s < 0.25 * duration_s)
    last = _mean(windows.polarity, windows.weight, centre_s >= 0.75 * duration_s)
    trend = [None if one is None or other is None else other - one for one, other in zip(first, last, strict=True)]
    worst = int(windows.polarity[:, 0].argmax())
    return {
        "windows_abstained": int(np.count_nonzero(windows.emotion < 0)),
        **_named("share", labels.classes, share),
        **_named("mean", labels.classes, mean),
        **_named("polarity", POLARITIES, _mean(windows.polarity, windows.weight, everything)),
        **_named("first_quarter", POLARITIES, first),
        **_named("last_quarter", POLARITIES, last),
        **_named("trend", POLARITIES, trend),
        "worst_start_s": float(windows.start_s[worst]),
        "worst_end_s": float(windows.end_s[worst]),
        "worst_negative": float(windows.polarity[worst, 0]),
    }


def call_columns(recordings: Sequence[Mapping[str, Any]], channels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the row of a call from its rows in `recordings` and `channels`.

    Several customer channels count by their number of scored windows.
    """
    scored = [row for row in channels if row["outcome"] == "scored"]
    customers = [row for row in scored if row["role"] == "customer"]
    roles_known = any(row["role"] for row in channels)
    worst = max(customers if roles_known else scored, key=lambda row: row["worst_negative"], default=None)
    decoded = [row["decoded_s"] for row in recordings if row["decoded_s"] is not None]
    columns: dict[str, Any] = {
        "call_id": recordings[0]["call_id"],
        "recordings": len(recordings),
        "duration_s": sum(decoded) if decoded else None,
    }
    for source, target in (("polarity", "customer"), ("trend", "customer_trend")):
        for word in POLARITIES:
            columns[f"{target}_{word}"] = _weighted(customers, f"{source}_{word}")
    if worst is not None:
        columns |= {"worst_recording_id": worst["recording_id"], "worst_channel": worst["channel"]}
        columns |= {name: worst[name] for name in ("worst_start_s", "worst_end_s", "worst_negative")}
    return columns


def _mean(values: NDArray[Any], weight: NDArray[np.int32], chosen: NDArray[np.bool_]) -> list[float | None]:
    """Return the weighted mean of the chosen rows, column by column; None where there are none."""
    if not chosen.any():
        return [None] * values.shape[1]
    weights = weight[chosen].astype(np.float64)
    return [float(np.sum(weights * column) / np.sum(weights)) for column in values[chosen].astype(np.float64).T]


def _named(prefix: str, names: Sequence[str], values: Sequence[float | None]) -> dict[str, float | None]:
    return {f"{prefix}_{name}": value for name, value in zip(names, values, strict=True)}


def _weighted(channels: Sequence[Mapping[str, Any]], name: str) -> float | None:
    rows = [(row[name], row["windows_scored"]) for row in channels if row[name] is not None]
    return sum(value * weight for value, weight in rows) / sum(weight for _, weight in rows) if rows else None
