"""`emolib export`: predictions -> files of segments for other tools."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from emolib.archive.exports import FORMATS, located
from emolib.archive.predictions import dates, read, require_predictions
from emolib.errors import SettingsError
from emolib.storage import new_folder, write_bytes
from jobs.console import Result, say

FormatOption = Annotated[
    Literal["rttm", "audformat", "csv"],
    Parameter(name="--format", help="rttm: for tools of diarisation; audformat: a segmented table; csv: everything."),
]


def export(pred: str, *, out: str, format: FormatOption = "csv", date: str | None = None) -> Result:
    """Write the segments of predictions, runs of one emotion, for other tools: a file for each day of calls.

    Parameters
    ----------
    pred
        The predictions that `emolib score` wrote.
    out
        The folder to make.
    date
        Only calls of this day (ISO); without it all days.
    """
    require_predictions(pred)
    folder = new_folder(out)
    days = [day for day in dates(pred) if date in (None, day)]
    if not days:
        raise SettingsError(f"no rows found{f' of {date}' if date else ''} in {pred}, expected some to export")
    suffix, make = FORMATS[format]
    count = 0
    for day in days:  # each by itself: an archive's segments need not fit into memory
        found = located(*(read(pred, table=table, date=day) for table in ("segments", "recordings", "channels")))
        write_bytes(folder / f"{day}{suffix}", make(found).encode())
        count += len(found)
    say(f"{count} segments of {len(days)} days in {out}")
    return Result({"job": "export", "out": out, "format": format, "days": len(days), "segments": count})
