"""Pictures of how good a model is, and of how it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from emolib.figures import INK, NEGATIVE, NEUTRAL, POSITIVE, plain


def reliability_diagram(
    edges: NDArray[np.float64],
    count: NDArray[np.int64],
    confidence: NDArray[np.float64],
    accuracy: NDArray[np.float64],
    *,
    error: float,
) -> Figure:
    """Draw how often a model is right, by how sure it is, and below it how many predictions that are.

    Parameters
    ----------
    edges
        Of the bins of confidence, ``(bin + 1,)``.
    count
        Predictions in each bin, ``(bin,)``.
    confidence, accuracy
        Their mean confidence and the share that is right, ``(bin,)``; not a number where there are none.
    error
        The expected calibration error, for the title.

    Examples
    --------
    >>> found = reliability_diagram(np.array([0, 0.5, 1]), np.array([0, 4]), np.array([np.nan, 0.8]),
    ...                             np.array([np.nan, 0.75]), error=0.05)
    >>> found.axes[0].get_title(), len(found.axes[1].patches)
    ('expected calibration error 0.050', 2)
    """
    figure = Figure(figsize=(4.4, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(4, 1))
    upper.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=1, linestyle="--", label="calibrated", zorder=1)
    some = count > 0
    gap = {"color": NEGATIVE, "linewidth": 1.5, "label": "gap: the error is its mean"}
    upper.vlines(confidence[some], confidence[some], accuracy[some], **gap, zorder=2)
    upper.plot(confidence[some], accuracy[some], "o", color=POSITIVE, markersize=5, label="model")
    upper.set_xlim(0, 1)
    upper.set_ylim(-0.02, 1.02)
    upper.set_ylabel("accuracy")
    upper.set_title(f"expected calibration error {error:.3f}", fontsize=10)
    upper.legend(loc="upper left", frameon=False, fontsize=9)
    lower.bar(edges[:-1], count, width=np.diff(edges), align="edge", color=POSITIVE, edgecolor="white", linewidth=0.5)
    lower.set_xlabel("confidence")
    lower.set_ylabel("predictions")
    for axes in (upper, lower):
        plain(axes)
    return figure


def coverage_curve(
    coverage: NDArray[np.float64], precision: NDArray[np.float64], *, chosen: tuple[float, float, float] | None
) -> Figure:
    """Draw what precision a model has, by the share of predictions that it gives a label to.

    Parameters
    ----------
    coverage, precision
        Of each threshold of the confidence, ``(threshold,)``, the coverage rising.
    chosen
        The threshold that was chosen, its coverage and its precision; None where none was.

    Examples
    --------
    >>> found = coverage_curve(np.array([0.5, 1.0]), np.array([0.9, 0.7]), chosen=(0.8, 0.5, 0.9))
    >>> print(found.axes[0].texts[0].get_text())
    confidence at least 0.80:
    90% right, 50% labelled
    """
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(coverage, precision, color=POSITIVE, linewidth=1.5, drawstyle="steps-pre")
    if chosen is not None:
        threshold, covered, right = chosen
        axes.plot([covered], [right], "o", color=NEGATIVE, markersize=7)
        axes.annotate(
            f"confidence at least {threshold:.2f}:\n{right:.0%} right, {covered:.0%} labelled",
            (covered, right),
            (8, 8) if covered < 0.6 else (-8, -8),
            textcoords="offset points",
            ha="left" if covered < 0.6 else "right",
            va="bottom" if covered < 0.6 else "top",
            color=INK,
            fontsize=9,
        )
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("coverage: share of predictions with a label")
    axes.set_ylabel("precision: share that is right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    plain(axes)
    return figure


def agreement(true: NDArray[np.float64], found: NDArray[np.float64], *, label: str, title: str = "") -> Figure:
    """Draw what was found of a measure from -1 to 1 against what is true, and the straight line that fits best.

    Parameters
    ----------
    true, found
        One of each, ``(item,)``.
    label
        What the measure is.

    Examples
    --------
    >>> found = agreement(np.array([-0.5, 0.5]), np.array([-0.1, 0.2]), label="polarity")
    >>> found.axes[0].get_ylabel(), len(found.axes[0].lines)
    ('polarity, found', 2)
    """
    figure = Figure(figsize=(4.8, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([-1, 1], [-1, 1], color=NEUTRAL, linewidth=1, linestyle="--", label="the same", zorder=1)
    axes.scatter(true, found, s=22, color=POSITIVE, alpha=0.6, lw=0, zorder=2)
    if len(true) > 1 and np.ptp(true) > 0:
        slope, middle = np.polyfit(true, found, 1)
        ends = np.array([true.min(), true.max()])
        axes.plot(ends, slope * ends + middle, color=NEGATIVE, linewidth=1.5, label=f"slope {slope:.2f}", zorder=3)
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlabel(f"{label}, true")
    axes.set_ylabel(f"{label}, found")
    axes.set_title(title, fontsize=10)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    plain(axes)
    return figure


def training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw how a training went: the losses left, the validation speakers' UAR right.

    Epochs that learn from them, too, come after the others, and have a loss of training only.

    Parameters
    ----------
    history
        For each epoch ``epoch`` and ``loss``, and for some ``val_loss`` and ``val_uar``.

    Examples
    --------
    >>> epochs = [{"epoch": 1, "loss": 2.0, "val_loss": 2.1, "val_uar": 0.2},
    ...           {"epoch": 2, "loss": 1.5, "val_loss": 1.8, "val_uar": 0.4}, {"epoch": 3, "loss": 2.0}]
    >>> left, right = training_curves(epochs).axes
    >>> [line.get_label() for line in left.lines], [line.get_label() for line in right.lines]
    (['training', 'validation', 'training, nobody aside'], ['validation'])
    """
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    apart, whole = ([entry for entry in history if ("val_uar" in entry) == watched] for watched in (True, False))
    of_all = [(whole, "loss", "training, nobody aside", NEUTRAL)] if whole else []
    for axes, label, series in (
        (left, "loss", [(apart, "loss", "training", NEGATIVE), (apart, "val_loss", "validation", POSITIVE), *of_all]),
        (right, "UAR", [(apart, "val_uar", "validation", POSITIVE)]),
    ):
        axes.margins(y=0.1)
        for entries, key, name, colour in series:
            dots = "o-" if len(entries) == 1 else "-"  # a line needs two points
            places = [entry["epoch"] for entry in entries]
            axes.plot(places, [entry[key] for entry in entries], dots, color=colour, linewidth=1.5, label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.set_xlim(0.5, places[-1] + 0.5)
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.legend(frameon=False, fontsize=9)
        plain(axes)
    right.set_ylim(0, 1)
    return figure
