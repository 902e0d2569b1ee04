"""Listing minus what has its rows -> blocks: the plan of a run, a pure function of its tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from emolib.archive.calls import call_of, is_before
from emolib.archive.duplicates import orphans
from emolib.archive.metadata import Sources
from emolib.errors import Code, SettingsError
from emolib.sound.manifest import NO_VERSIONS

if TYPE_CHECKING:
    from emolib.sound.manifest import Recording

LISTING_COLUMNS = ["recording_id", "uri", "version", "size", "modified_s"]
PLAN_SCHEMA = pa.schema(
    [
        ("block", pa.int32()),
        ("recording_id", pa.string()),
        ("uri", pa.string()),
        ("version", pa.string()),
        ("size", pa.int64()),
        ("date", pa.string()),
        ("date_source", pa.string()),
        ("call_id", pa.string()),
        ("estimated_s", pa.float64()),
        ("attempts", pa.int32()),
        ("replaces", pa.bool_()),
        # Since version 2; null in older plans.
        ("direction", pa.string()),
        ("agent", pa.string()),
        ("queue", pa.string()),
        ("site", pa.string()),
        ("extra", pa.map_(pa.string(), pa.string())),
        ("content_hash", pa.string()),
        ("duplicate_of", pa.string()),
        ("path", pa.string()),
    ]
)

# What another night may mend, and how many nights try.
_PASSING = (Code.UNREADABLE, Code.TIMEOUT, Code.MISSING, Code.CHANGED)
_MOST_ATTEMPTS = 3

# Bytes per second of what usually stands behind a suffix, where no run has measured it yet.
_BYTE_RATES = {
    ".gsm": 1650, ".amr": 1500, ".awb": 3000, ".opus": 3000, ".wma": 4000, ".mp3": 4000, ".m4a": 8000, ".mp4": 8000,
    ".aac": 8000, ".ogg": 8000, ".g722": 8000, ".ul": 8000, ".ulaw": 8000, ".al": 8000, ".alaw": 8000, ".flac": 12_000,
}  # fmt: skip
_BYTE_RATE = 16_000  # µ-law in stereo or 16 bit in mono, both at 8 kHz


@dataclass(frozen=True, slots=True)
class PlannedRecording:
    """One row of a plan.

    Attributes
    ----------
    attempts
        How many runs will have tried this version of it.
    replaces
        Whether it has rows already, that the run replaces.
    direction, agent, queue, site, extra
        What is known of its call, see `emolib.archive.calls.Call`.
    content_hash, duplicate_of
        Of its bytes, and the recording_id of another one that has the same; None where nobody looked (see
        `emolib.archive.duplicates`).
    path
        Where it lies in the archive, if ``uri`` is a pseudonym and the run is open (see `emolib.archive.pseudonyms`).
    """

    block: int
    recording_id: str
    uri: str
    version: str
    size: int
    date: str
    date_source: str
    call_id: str
    estimated_s: float
    attempts: int = 1
    replaces: bool = False
    direction: str | None = None
    agent: str | None = None
    queue: str | None = None
    site: str | None = None
    extra: Sequence[tuple[str, str]] | None = None
    content_hash: str | None = None
    duplicate_of: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the recordings that are due a run takes; by default all.

    Attributes
    ----------
    retry
        Codes that are due once more, however often they were tried.
    rescore
        A scoring fingerprint: rows that have another one are due once more. None: no matter which they have.
    keep_since
        No calls from before this day (ISO): they are beyond retention. Those whose date nobody knows are taken.
    date
        Only calls of this day (ISO).
    since
        Calls from this day on (ISO); older ones only as backfill.
    limit_s
        At most so many estimated seconds of sound in all, of the newest days first.
    backfill_s
        So many of them for what else is left, of the oldest days first.
    now_s, settle_s
        Files that were modified so many seconds around now (since 1970) may still be written to, and are left for
        another run. Those from the future have a wrong clock.
    """

    retry: frozenset[Code] = frozenset()
    rescore: str | None = None
    keep_since: str | None = None
    date: str | None = None
    since: str | None = None
    limit_s: float = math.inf
    backfill_s: float = 0.0
    now_s: float = 0.0
    settle_s: float = 0.0

    def take(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that a run takes.

        Parameters
        ----------
        rows
            Columns date, uri, estimated_s and modified_s.

        Examples
        --------
        >>> days = ["2024-05-01", "2024-05-02", "2024-05-03"]
        >>> rows = pd.DataFrame({"date": days, "uri": days, "estimated_s": 60.0, "modified_s": 0.0})
        >>> Choice(limit_s=120.0, backfill_s=60.0).take(rows)["date"].tolist()
        ['2024-05-01', '2024-05-03']
        """
        rows = rows[~((rows["modified_s"] - self.now_s).abs() < self.settle_s)]  # not a number where nobody knows
        if self.keep_since is not None:
            rows = rows[~is_before(rows["date"], self.keep_since)]
        if self.date is not None:
            rows = rows[rows["date"] == self.date]
        newest = rows.sort_values(["date", "uri"], ascending=[False, True])
        if self.since is not None:
            newest = newest[newest["date"] >= self.since]
        newest = _up_to(newest, self.limit_s - min(self.backfill_s, self.limit_s))
        left = rows.drop(newest.index).sort_values(["date", "uri"])
        return pd.concat([newest, _up_to(left, min(self.backfill_s, self.limit_s))]).sort_index()


def _up_to(rows: pd.DataFrame, seconds: float) -> pd.DataFrame:
    """Return the first rows that last so long together; the first one even if it lasts longer by itself."""
    if not seconds:
        return rows[:0]
    return rows[(rows["estimated_s"].cumsum() <= seconds) | (np.arange(len(rows)) == 0)]


def listing_table(recordings: Iterable[Recording]) -> pd.DataFrame:
    """Return listed recordings as the table that `plan` takes."""
    return pd.DataFrame(
        [(each.recording_id, each.uri, each.version, each.size, each.modified_s) for each in recordings],
        columns=LISTING_COLUMNS,
    )


def due(listing: pd.DataFrame, known: pd.DataFrame, choice: Choice | None = None) -> pd.DataFrame:
    """Return the listed recordings that are to be scored: new or changed ones, failures that may pass, orphans.

    Parameters
    ----------
    listing
        See `listing_table`.
    known
        What has its row already: columns recording_id, version, code, attempts, and, where there are duplicates,
        content_hash and duplicate_of; for `Choice.rescore` scoring_fingerprint.
    choice
        What else is due: its retry and rescore.

    Returns
    -------
    pandas.DataFrame
        Rows of the listing with two columns more, attempts and replaces (see `PlannedRecording`).

    Examples
    --------
    >>> listing = pd.DataFrame([(name, name, "2", 1, 0.0) for name in "abcd"], columns=LISTING_COLUMNS)
    >>> rows = [("a", "2", "ok", 1), ("b", "1", "ok", 1), ("c", "2", "unreadable", 2)]
    >>> known = pd.DataFrame(rows, columns=["recording_id", "version", "code", "attempts"])
    >>> due(listing, known)[["uri", "attempts", "replaces"]].values.tolist()
    [['b', 1, True], ['c', 3, True], ['d', 1, False]]
    """
    # Two rows of one recording are damage, which scoring it once more mends.
    twice = set(known.loc[known["recording_id"].duplicated(), "recording_id"])
    last = known.drop_duplicates("recording_id", keep="last")
    before = last.set_index("recording_id").reindex(listing["recording_id"])
    is_new, attempts = before["version"].isna().to_numpy(), before["attempts"].fillna(0).to_numpy(np.int32)
    changed = before["version"].to_numpy() != listing["version"].to_numpy()
    # A file that can't be looked at tonight is no reason to give up what is known of it.
    readable = ~listing["version"].isin(NO_VERSIONS).to_numpy()
    changed &= is_new | readable
    passing = before["code"].isin(_PASSING).to_numpy() & (attempts < _MOST_ATTEMPTS)
    choice = choice or Choice()
    is_due = is_new | changed | passing | before["code"].isin(list(choice.retry)).to_numpy()
    if choice.rescore is not None:
        is_due |= readable & (before["scoring_fingerprint"].to_numpy() != choice.rescore)
    is_due |= listing["recording_id"].isin(twice).to_numpy()
    is_due |= listing["recording_id"].isin(orphans(last)).to_numpy()
    return listing.assign(attempts=np.where(changed, 0, attempts) + 1, replaces=~is_new)[is_due]


def plan(
    listing: pd.DataFrame,
    known: pd.DataFrame,
    *,
    block_s: float,
    max_recordings: int = 1000,
    byte_rates: Mapping[str, float] | None = None,
    choice: Choice | None = None,
    sources: Sources | None = None,
) -> pd.DataFrame:
    """Plan the recordings that are due, in blocks of about equal work.

    The plan does not depend on the order of the listing. Its rows are sorted by date and URI; a block is a run of them
    within one date.

    Parameters
    ----------
    listing, known
        See `due`.
    block_s
        Estimated seconds of sound in a block; only a single recording that is longer makes a longer block.
    max_recordings
        Most recordings in a block.
    byte_rates
        Bytes per second of sound by suffix, as earlier runs found them (see `emolib.archive.ledger.byte_rates`).
    choice
        Which of them are taken; None: all.
    sources
        Where the metadata of calls comes from; what they say stands in the plan.

    Returns
    -------
    pandas.DataFrame
        The columns of `PLAN_SCHEMA`; block counts from 0, date is an ISO date.

    Raises
    ------
    SettingsError
        If two rows of the listing have one recording_id.

    Examples
    --------
    >>> rows = [("a", "2024-05-01/a.wav", "1", 960_000, 0.0), ("b", "2024-05-02/b.wav", "1", 960_000, 0.0)]
    >>> listing = pd.DataFrame(rows, columns=LISTING_COLUMNS)
    >>> known = pd.DataFrame(columns=["recording_id", "version", "code", "attempts"])
    >>> plan(listing, known, block_s=600)[["block", "uri", "estimated_s"]].values.tolist()
    [[0, '2024-05-01/a.wav', 60.0], [1, '2024-05-02/b.wav', 60.0]]
    """
    twins = listing[listing["recording_id"].duplicated(keep=False)].sort_values(["recording_id", "uri"])
    if len(twins):
        raise SettingsError(
            f"{' and '.join(map(ascii, twins['uri'][:2]))} have one recording_id, expected URIs that are distinct in "
            "Unicode form NFC; rename one of them"
        )
    choice = choice or Choice()
    new = due(listing, known, choice)
    listed = zip(new["recording_id"], new["uri"], new["modified_s"], strict=True)
    calls = [call_of(*row, sources) for row in listed]
    rows = new.assign(
        **{
            name: pd.Series([getattr(call, name) for call in calls], new.index, object)
            for name in ("call_id", "date", "date_source", "direction", "agent", "queue", "site", "extra")
        },
        estimated_s=[estimate_s(*row, byte_rates) for row in zip(new["uri"], new["size"], strict=True)],
        **dict.fromkeys(("content_hash", "duplicate_of", "path")),
    )
    rows = choice.take(rows).sort_values(["date", "uri"], ignore_index=True)
    rows["block"] = _blocks(rows, block_s, max_recordings)
    return rows[PLAN_SCHEMA.names]


def estimate_s(uri: str, size: int, byte_rates: Mapping[str, float] | None = None) -> float:
    """Return about how many seconds of sound a file of this name and size (byte) holds: an archive is not probed.

    Examples
    --------
    >>> estimate_s("a.GSM", 99_000), estimate_s("a.wav", 16_000)
    (60.0, 1.0)
    >>> estimate_s("a.wav", 16_000, {".wav": 32_000.0})
    0.5
    """
    suffix = suffix_of(uri)
    return size / ((byte_rates or {}).get(suffix) or _BYTE_RATES.get(suffix, _BYTE_RATE))


def suffix_of(uri: str) -> str:
    """Return the suffix of a recording's name in lower case, empty where it has none that tells of a format.

    Examples
    --------
    >>> suffix_of("2024.05/a.WAV"), suffix_of("2024.05/a")
    ('.wav', '')
    >>> suffix_of("anna.+4917012345")
    ''
    """
    suffix = PurePosixPath(uri).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z][a-z0-9]{0,5}", suffix) else ""


def _blocks(rows: pd.DataFrame, block_s: float, max_recordings: int) -> list[int]:
    blocks: list[int] = []
    last_date, filled_s, count = None, 0.0, 0
    for date, estimated_s in zip(rows["date"], rows["estimated_s"], strict=True):
        if not blocks or date != last_date or count == max_recordings or filled_s + estimated_s > block_s:
            blocks.append(blocks[-1] + 1 if blocks else 0)
            last_date, filled_s, count = date, estimated_s, 1
        else:
            blocks.append(blocks[-1])
            filled_s, count = filled_s + estimated_s, count + 1
    return blocks
