"""What a benchmark measures: rows of figures with their targets, as JSON and as one table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


class Figure(BaseModel):
    """A number that was measured so many times."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float
    min: float
    runs: int
    unit: str

    @classmethod
    def of(cls, values: Sequence[float], unit: str) -> Figure:
        return cls(median=statistics.median(values), min=min(values), runs=len(values), unit=unit)

    def text(self) -> str:
        return f"{_number(self.median)} {self.unit}".strip()


class Target(BaseModel):
    """What a figure is held against."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal[">=", "<="]
    bound: float
    unit: str

    def text(self) -> str:
        return f"{self.kind} {self.bound:,g}{'' if self.unit == 'x' else ' '}{self.unit}"

    def is_held(self, value: float) -> bool:
        return value >= self.bound if self.kind == ">=" else value <= self.bound


class Row(BaseModel):
    """One line of the table. A target is held against the ratio where there is one, else against emolib's figure.

    Attributes
    ----------
    what
        What was measured.
    emolib, theirs
        The figures of emolib and of the peer; None where there is none or it could not be measured.
    peer
        With whom emolib is compared; empty where with nobody.
    ratio
        How many times as fast emolib is as the peer, or what `what` says else; a ratio of medians.
    missing
        Whether the figure should be there and is not: the peer is not installed, the measurement died.
    note
        How the peer's work differs, and other things to know.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    emolib: Figure | None = None
    peer: str = ""
    theirs: Figure | None = None
    ratio: float | None = None
    target: Target | None = None
    missing: bool = False
    note: str = ""

    @property
    def held(self) -> str:
        """`yes`, `no`, `not measured`, or empty where there is no target."""
        value = self.ratio if self.peer or self.emolib is None else self.emolib.median
        if self.missing or (self.target is not None and value is None):
            return "not measured"
        if self.target is None or value is None:
            return ""
        return "yes" if self.target.is_held(value) else "no"

    def to_json(self) -> dict[str, Any]:
        return {**self.model_dump(mode="json"), "held": self.held}


def at_least(bound: float, unit: str = "x") -> Target:
    return Target(kind=">=", bound=bound, unit=unit)


def at_most(bound: float, unit: str = "x") -> Target:
    return Target(kind="<=", bound=bound, unit=unit)


def faster(
    what: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    *,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """Return the row of two ways whose seconds were measured: how many times as fast emolib's is."""
    mine, other = Figure.of(ours, "s"), Figure.of(theirs, "s")
    return Row(
        what=what, emolib=mine, peer=peer, theirs=other, ratio=other.median / mine.median, target=target, note=note
    )


def as_rows(measured: Mapping[str, Any], targets: Mapping[str, Target], *, prefix: str) -> list[Row]:
    """Return the numbers of a benchmark that returns figures by name, nested or not, as rows without a peer.

    Parameters
    ----------
    targets
        By the name of a figure, such as ``waiting_share: disk``. A target that finds no figure is a row not measured.
    """
    found = dict(_numbers(measured))
    rows = [
        Row(what=f"{prefix}: {name}", emolib=Figure.of([value], ""), target=targets.get(name))
        for name, value in found.items()
    ]
    lost = [Row(what=f"{prefix}: {name}", target=target) for name, target in targets.items() if name not in found]
    return rows + lost


def _numbers(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}{name}: ")
        elif isinstance(value, int | float):
            yield f"{path}{name}", value


def print_rows(console: Console, title: str, rows: Sequence[Row]) -> None:
    """Print one table, and below it the notes that its rows refer to."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("what", "emolib", "peer", "ratio", "target", "held?"):
        shown.add_column(column, justify="left" if column in ("what", "peer") else "right")
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    for row in rows:
        mark = f" ({notes.index(row.note) + 1})" if row.note else ""
        shown.add_row(
            row.what + mark,
            row.emolib.text() if row.emolib else "",
            f"{row.peer} {row.theirs.text() if row.theirs else 'missing' if row.missing else ''}".strip(),
            "" if row.ratio is None else f"{row.ratio:.2f}x",
            row.target.text() if row.target else "",
            row.held,
        )
    console.print(shown, markup=False)
    for number, note in enumerate(notes, start=1):
        console.print(f"({number}) {note}", markup=False, highlight=False)


def _number(value: float) -> str:
    """Return three significant digits, or all digits before the point."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
