"""A shadow: a candidate that listens in on some calls. What it says counts for nothing, until it is promoted.

The candidate sees the very windows that the model labels, of calls that their own ids choose, so the same ones every
night. Its rows lie in ``PRED/_shadow/<model_id>/windows/date=…/part-…`` in the form of the table `windows`; each part
is created before those of its block, counts with them, and goes with them. They are there to be compared (see
`emolib.archive.agreement`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from hashlib import blake2b

import pandas as pd
import pyarrow as pa
from pydantic import Field
from upath import UPath

from emolib.archive.predictions import Part, committed, parts, scan
from emolib.archive.schemas import BLOCK_TABLES, KEYS, schema
from emolib.config import Settings
from emolib.storage import AnyPath, is_local, resolve

_FOLDER = "_shadow"
_COMPARED = ("model_id", "run_id", "emotion", "polarity_negative", "confidence")
_WINDOWS = pa.schema([schema("windows", ()).field(name) for name in (*KEYS["windows"], *_COMPARED)])
_CALLS = pa.schema([schema("recordings", ()).field(name) for name in ("recording_id", "call_id")])


class Shadow(Settings):
    """Who listens in, and on how much.

    Parameters
    ----------
    model
        Absolute path or URL of the candidate's bundle.
    model_id, scoring_fingerprint
        What stands on its rows.
    share
        Of the calls, above 0 and at most 1.
    """

    model: str
    model_id: str = Field(pattern=r"^\w+$")  # its rows lie in a folder of this name
    scoring_fingerprint: str
    share: float = Field(gt=0, le=1)

    def hears(self, call_id: str) -> bool:
        """Return whether a call is one of those that the candidate listens in on.

        A larger share holds all calls of a smaller one.

        Examples
        --------
        >>> shadow = Shadow(model="b", model_id="b", scoring_fingerprint="f", share=0.25)
        >>> sum(shadow.hears(f"call-{number}") for number in range(1000))
        235
        """
        return int.from_bytes(blake2b(call_id.encode(), digest_size=8).digest()) < self.share * 2**64


def place_of(pred: AnyPath, model_id: str) -> UPath:
    """Return where the rows of a candidate lie: a folder with a table `windows`, as predictions have it."""
    return resolve(pred) / folder_of(model_id)


def folder_of(model_id: str) -> str:
    """Return the same as a path below the predictions."""
    return f"{_FOLDER}/{model_id}"


def candidates(pred: AnyPath) -> list[str]:
    """Return the `model_id` of every candidate that has rows, sorted."""
    folder = resolve(pred) / _FOLDER
    if not is_local(folder):
        folder.fs.invalidate_cache()
    if not folder.exists():
        return []
    return sorted(place.name for place in folder.iterdir() if place.is_dir())


def tables_of_blocks(pred: AnyPath) -> list[tuple[UPath, str]]:
    """Return the folder and the name of each table that blocks have parts in, in the order of their writing.

    Those of candidates come first, and not every block has a part in them.
    """
    shadows = [(place_of(pred, model_id), "windows") for model_id in candidates(pred)]
    return shadows + [(resolve(pred), table) for table in BLOCK_TABLES]


def read_shadow(
    pred: AnyPath, model_id: str, *, date: str | None = None, runs: Collection[str] | None = None
) -> pd.DataFrame:
    """Read what a candidate says, beside what the model says of the same windows.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    model_id
        Of the candidate.
    date
        ISO date; None reads all.
    runs
        Ids of the runs whose rows are read; None reads all.

    Returns
    -------
    pandas.DataFrame
        A row for each window that both have, sorted by date and keys: the keys of `windows`; ``model_id``, ``run_id``,
        ``emotion``, ``polarity_negative`` and ``confidence`` of the model and, with the suffix ``_shadow``, of the
        candidate; ``call_id`` and ``date`` (ISO).
    """
    frames = list(by_day(pred, model_id, date=date, runs=runs))
    nothing = _beside(_WINDOWS.empty_table(), _WINDOWS.empty_table(), _CALLS.empty_table(), "")
    return pd.concat(frames or [nothing], ignore_index=True)


def by_day(
    pred: AnyPath, model_id: str, *, date: str | None = None, runs: Collection[str] | None = None
) -> Iterator[pd.DataFrame]:
    """Yield what `read_shadow` returns day by day, for more than memory holds."""
    place, done = place_of(pred, model_id), set(committed(pred))
    groups: dict[str, list[Part]] = {}
    for part in parts(place, "windows"):
        if part in done and (date is None or part.date == date) and (runs is None or part.run_id in runs):
            groups.setdefault(part.date, []).append(part)
    for day, group in groups.items():
        ours, theirs = (scan(root, "windows", group, _WINDOWS).to_table() for root in (pred, place))
        yield _beside(ours, theirs, scan(pred, "recordings", group, _CALLS).to_table(), day)


def _beside(ours: pa.Table, theirs: pa.Table, calls: pa.Table, day: str) -> pd.DataFrame:
    both = ours.to_pandas().merge(theirs.to_pandas(), on=KEYS["windows"], suffixes=("", "_shadow"))
    return both.merge(calls.to_pandas(), on="recording_id").sort_values(KEYS["windows"]).assign(date=day)
