"""Every picture: arrays in, matplotlib figures out. Knows no other module of emolib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Colour-blind safe (Okabe and Ito 2008).
NEGATIVE, NEUTRAL, POSITIVE = "#d55e00", "#bdbdbd", "#0072b2"
_INK = "#333333"


def shares(names: Sequence[str], values: Sequence[float], *, label: str) -> Figure:
    """Draw shares as horizontal bars, the first name on top.

    Parameters
    ----------
    values
        Shares in [0, 1], one for each name.
    label
        What the shares are of.

    Examples
    --------
    >>> len(shares(["fear", "neutral"], [0.25, 0.75], label="share of windows").axes[0].patches)
    2
    """
    figure = Figure(figsize=(6.4, 0.6 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(names), list(values), color=POSITIVE, height=0.7)
    axes.bar_label(bars, labels=[f"{value:.1%}" for value in values], padding=3, color=_INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max([*values, 0.05]) * 1.15)
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _plain(axes)
    return figure


def polarity_by_date(dates: Sequence[str], polarity: NDArray[Any]) -> Figure:
    """Draw the mean polarity of each date as a stacked bar.

    Parameters
    ----------
    polarity
        Negative, neutral, positive; shape ``(date, 3)``, each row sums to 1.

    Examples
    --------
    >>> len(polarity_by_date(["2024-05-01"], np.array([[0.2, 0.5, 0.3]])).axes[0].patches)
    3
    """
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.subplots()
    below = np.zeros(len(dates))
    for column, (name, colour) in enumerate((("negative", NEGATIVE), ("neutral", NEUTRAL), ("positive", POSITIVE))):
        axes.bar(list(dates), polarity[:, column], bottom=below, color=colour, label=name, width=0.7)
        below = below + polarity[:, column]
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylabel("mean polarity")
    every = -(-len(dates) // 8)  # more labels than this run into each other
    axes.set_xticks(range(0, len(dates), every), list(dates)[::every])
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False, fontsize=9)
    _plain(axes)
    return figure


def histogram(values: NDArray[Any], *, label: str, span: tuple[float, float] = (0.0, 1.0)) -> Figure:
    """Draw how often values occur, in 20 steps over a span.

    Examples
    --------
    >>> len(histogram(np.array([0.1, 0.9]), label="confidence").axes[0].patches)
    20
    """
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=20, range=span, color=POSITIVE)
    axes.set_xlabel(label)
    axes.set_ylabel("windows")
    _plain(axes)
    return figure


def confusion_matrix(counts: NDArray[np.int64], classes: Sequence[str], *, title: str = "") -> Figure:
    """Draw a confusion matrix, each row as shares of its true class.

    Parameters
    ----------
    counts
        Rows are true classes, columns predicted ones; shape ``(class, class)``.

    Examples
    --------
    >>> len(confusion_matrix(np.array([[3, 1], [0, 2]]), ["fear", "neutral"]).axes[0].texts)
    4
    """
    size = 2.0 + 0.62 * len(classes)
    figure = Figure(figsize=(size, size - 0.3), layout="constrained")
    axes = figure.subplots()
    recall = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(recall, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        text = f"{recall[row, column]:.0%}\n{counts[row, column]}"
        colour = "white" if recall[row, column] > 0.55 else _INK
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    names = [name.replace("_", "\n") for name in classes]
    axes.set_xticks(range(len(classes)), names, fontsize=8)
    axes.set_yticks(range(len(classes)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, fontsize=10)
    return figure


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG element, to stand inside a page; the same figure gives the same text.

    Examples
    --------
    >>> to_svg(shares(["fear"], [1.0], label="share")).startswith("<svg")
    True
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, labelsize=9)
