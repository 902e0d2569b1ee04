"""What a plan is: which recordings, in which blocks; which of those that are due a run takes. See `planning`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from emolib.errors import Code

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
        # The names of files that share the recording_id; null in plans of before.
        ("ambiguous", pa.string()),
    ]
)

KNOWN = pa.schema(
    [
        ("recording_id", pa.string()),
        ("version", pa.string()),
        ("code", pa.string()),
        ("attempts", pa.int32()),
        ("content_hash", pa.string()),
        ("duplicate_of", pa.string()),
        ("scoring_fingerprint", pa.string()),
    ]
)
"""What planning asks of the recordings that have their row."""

MOST_ATTEMPTS = 3
"""So many nights try what another one may mend (`emolib.errors.TRANSIENT`)."""

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
    ambiguous
        The names of several files that have its recording_id, because they differ only in their Unicode form; empty
        where names are pseudonyms, None where it is one file.
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
    ambiguous: str | None = None


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
    at = uri.rfind(".")
    return _known_suffix(uri[at:]) if at > uri.rfind("/") + 1 else ""


@lru_cache(maxsize=1000)
def _known_suffix(suffix: str) -> str:
    lower = suffix.lower()
    return lower if re.fullmatch(r"\.[a-z][a-z0-9]{0,5}", lower) else ""
