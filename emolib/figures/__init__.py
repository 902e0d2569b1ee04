"""Every picture: arrays in, matplotlib figures out. Knows no other module of emolib; those of sound are in `sound`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

# Colour-blind safe (Okabe and Ito 2008).
NEGATIVE, NEUTRAL, POSITIVE = "#d55e00", "#bdbdbd", "#0072b2"
INK = "#333333"
_GROUPS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000", "#8f8f8f")
_MARKERS = "os^Dv"  # with the colours, forty groups that can be told apart
_RASTER_DPI = 110


def shares(
    names: Sequence[str], values: NDArray[np.float64], *, label: str, interval: NDArray[np.float64] | None = None
) -> Figure:
    """Draw shares as horizontal bars, the first name on top.

    Parameters
    ----------
    values
        Shares in [0, 1], one for each name; not a number where it is not known.
    label
        What the shares are of.
    interval
        Between which bounds each lies, ``(name, 2)``.

    Examples
    --------
    >>> len(shares(["fear", "neutral"], np.array([0.25, 0.75]), label="share of windows").axes[0].patches)
    2
    """
    figure = Figure(figsize=(6.4, 0.6 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    known = np.nan_to_num(values)
    bars = axes.barh(list(names), known, color=POSITIVE, height=0.7)
    ends = known
    texts = [f"{value:.1%}" for value in values]
    if interval is not None:
        low, high = np.nan_to_num(interval).T
        axes.hlines(list(names), low, high, color=INK, linewidth=1.5)
        ends = np.maximum(known, high)
        texts = [f"{text} ({low:.1%} to {high:.1%})" for text, (low, high) in zip(texts, interval, strict=True)]
    texts = ["not known" if np.isnan(value) else text for value, text in zip(values, texts, strict=True)]
    for bar, end, text in zip(bars, ends, texts, strict=True):
        place = (end, bar.get_y() + bar.get_height() / 2)
        axes.annotate(text, place, (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(ends.max(), 0.05) * (1.15 if interval is None else 1.5))
    axes.set_xlabel(label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
    plain(axes)
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
    plain(axes)
    return figure


def histogram(
    values: NDArray[Any], *, label: str, span: tuple[float, float] = (0.0, 1.0), counted: str = "windows"
) -> Figure:
    """Draw how often values occur, in 20 steps over a span.

    Parameters
    ----------
    label
        What the values are, with their unit.
    counted
        What has the values.

    Examples
    --------
    >>> len(histogram(np.array([0.1, 0.9]), label="confidence").axes[0].patches)
    20
    """
    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(values, bins=20, range=span, color=POSITIVE)
    axes.set_xlabel(label)
    axes.set_ylabel(counted)
    plain(axes)
    return figure


def confusion_matrix(
    counts: NDArray[np.int64],
    classes: Sequence[str],
    *,
    title: str = "",
    rows: str = "true",
    columns: str = "predicted",
) -> Figure:
    """Draw a confusion matrix, each row as shares of its true class; or how two models agree.

    Parameters
    ----------
    counts
        Rows are true classes, columns predicted ones; shape ``(class, class)``.
    rows, columns
        What they are called.

    Examples
    --------
    >>> len(confusion_matrix(np.array([[3, 1], [0, 2]]), ["fear", "neutral"]).axes[0].texts)
    4
    """
    names = [name.replace("_", "\n") for name in classes]
    figure, axes = _table(counts, names, names)
    axes.set_xlabel(columns)
    axes.set_ylabel(rows)
    axes.set_title(title, fontsize=10)
    return figure


def cluster_table(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Draw how the utterances of each cluster divide among the classes.

    Parameters
    ----------
    counts
        Shape ``(cluster, class)``.

    Examples
    --------
    >>> len(cluster_table(np.array([[3, 1], [0, 2]]), ["fear", "neutral"]).axes[0].texts)
    4
    """
    clusters = [str(number + 1) for number in range(len(counts))]
    figure, axes = _table(counts, clusters, [name.replace("_", "\n") for name in classes])
    axes.set_xlabel("class")
    axes.set_ylabel("cluster")
    return figure


def scatter(points: NDArray[Any], numbers: NDArray[np.int64], names: Sequence[str], *, labels: Sequence[str]) -> Figure:
    """Draw points of several groups in a plane.

    Parameters
    ----------
    points
        Shape ``(point, 2)``.
    numbers
        Group of each point, an index into `names`.
    labels
        What the two axes are.

    Examples
    --------
    >>> points = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> len(scatter(points, np.array([0, 1]), ["fear", "neutral"], labels=["first", "second"]).axes[0].collections)
    2
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(6000 / len(points), 3, 20))
    for number, name in enumerate(names):
        own = points[numbers == number]
        marker = _MARKERS[number // len(_GROUPS) % len(_MARKERS)]
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=size,
            color=_group(number),
            marker=marker,
            label=name,
            lw=0,
            alpha=0.7,
            rasterized=True,
        )
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    larger = float(np.sqrt(24 / size))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, markerscale=larger)
    plain(axes)
    return figure


def counts(names: Sequence[str], groups: Sequence[str], values: NDArray[Any], *, label: str) -> Figure:
    """Draw counts as horizontal bars, each divided into groups, the first name on top.

    Parameters
    ----------
    values
        Shape ``(name, group)``.
    label
        What is counted.

    Examples
    --------
    >>> len(counts(["fear", "neutral"], ["women", "men"], np.ones((2, 2)), label="utterances").axes[0].patches)
    4
    """
    figure = Figure(figsize=(6.4, 1.1 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(names))
    for number, group in enumerate(groups):
        bars = axes.barh(list(names), values[:, number], left=left, color=_group(number), height=0.7, label=group)
        left = left + values[:, number]
    axes.bar_label(bars, labels=[f"{total:,.0f}" for total in left], padding=3, color=INK, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(left.max(), 1) * 1.12)
    axes.set_xlabel(label)
    axes.legend(ncols=6, loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, fontsize=9)
    plain(axes)
    return figure


def to_svg(figure: Figure) -> str:
    """Return a figure as an SVG element, to stand inside a page; the same figure gives the same text.

    Examples
    --------
    >>> to_svg(shares(["fear"], np.ones(1), label="share")).startswith("<svg")
    True
    """
    buffer = io.StringIO()
    # Names within the text come from what they name, not from chance: several figures may stand in one page.
    with mpl.rc_context({"svg.hashsalt": "emolib"}):
        figure.savefig(buffer, format="svg", dpi=_RASTER_DPI, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def plain(axes: Any) -> None:
    """Take from axes what says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0, labelsize=9)


def _group(number: int) -> str:
    return _GROUPS[number % len(_GROUPS)]


def _table(counts: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str]) -> tuple[Figure, Any]:
    """Draw counts and their shares of each row; return the axes too."""
    size = 2.0 + 0.62 * len(columns)
    figure = Figure(figsize=(size, size - 0.3), layout="constrained")
    axes = figure.subplots()
    shares_of_row = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares_of_row, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        text = f"{shares_of_row[row, column]:.0%}\n{counts[row, column]}"
        colour = "white" if shares_of_row[row, column] > 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    return figure, axes
