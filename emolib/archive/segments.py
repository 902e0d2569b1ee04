"""Windows -> segments: runs of one emotion, each moment in one of them at most. Pure.

Windows overlap, segments do not: where two windows do, each speaks for the half of the overlap on its own side. A gap
in the scored sound ends a segment, and so does a window on which the model abstained, which is in none.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

COLUMNS = (
    "recording_id",
    "channel",
    "start_s",
    "end_s",
    "emotion",
    "windows",
    "confidence",
    "polarity_negative",
    "polarity_neutral",
    "polarity_positive",
)
"""Of a table of segments: where one is, its emotion, the number of its windows, and their means over time."""

_MEANS = [name for name in COLUMNS if name.startswith(("confidence", "polarity"))]
_CLOSE_S = 1e-6  # ends are sums of floats


def segments(windows: pd.DataFrame) -> pd.DataFrame:
    """Return the segments of the windows of some channels.

    Parameters
    ----------
    windows
        The table of that name (see `emolib.archive.read`), sorted by its keys.

    Returns
    -------
    pandas.DataFrame
        `COLUMNS`, and ``date`` where the windows have it; sorted by recording, channel and start.

    Examples
    --------
    >>> windows = pd.DataFrame({"recording_id": "a", "channel": 0, "start_s": [0.0, 2.0, 4.0, 20.0]})
    >>> windows = windows.assign(end_s=windows["start_s"] + 4, emotion=["sad", "sad", "happy", "happy"], confidence=0.5)
    >>> windows = windows.assign(polarity_negative=0.2, polarity_neutral=0.3, polarity_positive=0.5)
    >>> segments(windows)[["start_s", "end_s", "emotion", "windows"]].values.tolist()
    [[0.0, 5.0, 'sad', 2], [5.0, 8.0, 'happy', 1], [20.0, 24.0, 'happy', 1]]
    """
    dated = [*COLUMNS, *(["date"] if "date" in windows else [])]
    if windows.empty:
        return windows.reindex(columns=dated).astype({"windows": np.int64})
    start, end = windows["start_s"].to_numpy(), windows["end_s"].to_numpy()
    same = _as_before(windows["recording_id"]) & _as_before(windows["channel"])
    joined = np.zeros(len(windows), bool)
    joined[1:] = same[1:] & (start[1:] <= end[:-1] + _CLOSE_S)
    # Where a window meets the one before it, or begins.
    begins, ends = start.copy(), end.copy()
    begins[1:] = np.where(joined[1:], (end[:-1] + start[1:]) / 2, start[1:])
    ends[:-1] = np.where(joined[1:], begins[1:], end[:-1])
    number = (~(joined & _as_before(windows["emotion"].fillna("")))).cumsum()
    own = windows.assign(start_s=begins, end_s=ends, number=number, seconds=np.maximum(ends - begins, _CLOSE_S))
    own = own[own["emotion"].notna()]
    for name in _MEANS:
        own[name] = own[name].astype(np.float64) * own["seconds"]
    how = (
        dict.fromkeys(dated, "first")
        | {"end_s": "last", "windows": "size"}
        | dict.fromkeys([*_MEANS, "seconds"], "sum")
    )
    found = own.assign(windows=0).groupby("number", sort=True).agg(how)
    found[_MEANS] = found[_MEANS].div(found["seconds"], axis=0).astype(np.float32)
    return found[dated].reset_index(drop=True)


def _as_before(values: pd.Series) -> np.ndarray:
    """Return which values are those of the row before, bool ``(row,)``."""
    found: np.ndarray = values.eq(values.shift()).to_numpy()
    return found
