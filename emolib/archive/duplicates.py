"""Files that were delivered twice: found by their bytes, before a run is planned.

Of files with the same bytes one is the original: the first, by URI, of those that have their rows, else of those that
the run takes. The others are duplicates, and are not listened to. Only a recording whose bytes decided what became of
it is an original; a duplicate whose original is gone, or holds something else by now, is an orphan, and scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

import pandas as pd
from upath import UPath

from emolib.errors import AudioError, Code
from emolib.isolation import ONCE, UNWATCHED, Attempt, Watch
from emolib.sound.manifest import version_of
from emolib.sound.retries import retried
from emolib.sound.source import opened
from emolib.storage import AnyPath, below

LIMIT_S = 600.0
"""So long a file is read before it is given up; a gigabyte takes some seconds."""

# What the bytes decide. What became of a file for other reasons says nothing of another one that holds the same.
_DECIDED = (
    Code.OK,
    Code.TRUNCATED,
    Code.NO_SPEECH,
    Code.TOO_SHORT,
    Code.LENGTH_OUTLIER,
    Code.POLICY,  # of the same channels and direction
    Code.EMPTY,
    Code.CORRUPT,
    Code.UNSUPPORTED,
)


def to_hash(planned: pd.DataFrame, listing: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Return the listed recordings whose bytes must be read to find the duplicates of a plan.

    These are the planned ones and, of those that have their rows, such as are as large as one of them and of which no
    hash was stored.

    Parameters
    ----------
    planned
        See `emolib.archive.planning.plan`.
    listing
        All that is there: columns recording_id, uri, version, size and modified_s.
    known
        What has its row already: columns recording_id, version, size and content_hash.

    Returns
    -------
    pandas.DataFrame
        Rows of the listing.

    Examples
    --------
    >>> names = ["recording_id", "uri", "version", "size", "modified_s"]
    >>> listing = pd.DataFrame([(name, name, "1", size, 0.0) for name, size in zip("abc", (9, 9, 5))], columns=names)
    >>> rows = [("b", "1", 9, None), ("c", "1", 5, None)]
    >>> known = pd.DataFrame(rows, columns=["recording_id", "version", "size", "content_hash"])
    >>> to_hash(listing[:1], listing, known)["uri"].tolist()
    ['a', 'b']
    """
    alike = known[known["content_hash"].isna() & known["size"].isin(planned["size"])]
    unchanged = pd.MultiIndex.from_frame(listing[["recording_id", "version"]]).isin(
        pd.MultiIndex.from_frame(alike[["recording_id", "version"]])
    )
    return listing[listing["recording_id"].isin(planned["recording_id"]) | unchanged]


def hash_files(
    root: AnyPath, files: Iterable[tuple[str, str, str]], *, attempt: Attempt = ONCE, watch: Watch = UNWATCHED
) -> dict[str, str]:
    """Return the 128-bit blake2b of the bytes of some recordings, as hex, by ``recording_id``.

    What can't be read, or is no longer what was listed, has none: scoring will say why.

    Parameters
    ----------
    root
        Folder or URL of the archive.
    files
        ``recording_id``, URI and version of each.
    attempt, watch
        See `emolib.isolation`; the items are the ``recording_id``.
    """
    hashes = {}
    for recording_id, uri, version in files:
        if not attempt.takes(recording_id) or recording_id in attempt.verdicts:
            continue
        watch.begin(recording_id, LIMIT_S)
        try:
            found, content = retried(_hashed, below(root, uri))
        except AudioError:
            continue
        if found == version:
            hashes[recording_id] = content
    watch.end()
    return hashes


def _hashed(place: UPath) -> tuple[str, str]:
    """Return the version of a file, and the hash of its bytes."""
    with opened(place) as file:
        content = file.content_hash()
    return version_of(place)[0], content


def with_originals(planned: pd.DataFrame, known: pd.DataFrame, hashes: Mapping[str, str]) -> pd.DataFrame:
    """Return a plan that says which of its recordings are duplicates.

    Parameters
    ----------
    planned
        See `emolib.archive.planning.plan`.
    known
        What has its row already: columns recording_id, uri, code, direction and content_hash.
    hashes
        Of the bytes of recordings (see `hash_files`).

    Returns
    -------
    pandas.DataFrame
        The plan, with its columns content_hash and duplicate_of, the original's recording_id. Both are calls of the
        same direction, by which their channels may have other roles.

    Examples
    --------
    >>> planned = pd.DataFrame({"recording_id": list("abc"), "uri": list("abc"), "size": 9, "direction": None})
    >>> known = pd.DataFrame({"recording_id": ["x"], "uri": ["x"], "code": ["ok"], "direction": None})
    >>> known = known.assign(content_hash="3f")
    >>> found = with_originals(planned, known, {"a": "3f", "b": "77", "c": "77"})
    >>> found["duplicate_of"].tolist()
    ['x', None, 'b']
    """
    others = known[known["code"].isin(_DECIDED) & ~known["recording_id"].isin(planned["recording_id"])]
    stored = [
        _text(there) or hashes.get(name)
        for name, there in zip(others["recording_id"], others["content_hash"], strict=True)
    ]
    # Empty files have the same bytes, and say so by themselves.
    content = [hashes.get(row.recording_id) if row.size else None for row in planned.itertuples(index=False)]
    originals = _first(planned, content) | _first(others, stored)
    named = [each and originals[each, _text(way)] for each, way in zip(content, planned["direction"], strict=True)]
    another = [None if first == own else first for first, own in zip(named, planned["recording_id"], strict=True)]
    columns = {"content_hash": content, "duplicate_of": another}
    return planned.assign(**{name: pd.Series(values, planned.index, object) for name, values in columns.items()})


def orphans(known: pd.DataFrame) -> set[str]:
    """Return the recording_id of duplicates whose original has no row, or one that its bytes no longer explain.

    Parameters
    ----------
    known
        What has its row: columns recording_id, code, content_hash and duplicate_of.

    Examples
    --------
    >>> rows = [("a", "ok", "3f", None), ("b", "duplicate", "3f", "a"), ("c", "duplicate", "77", "a")]
    >>> orphans(pd.DataFrame(rows, columns=["recording_id", "code", "content_hash", "duplicate_of"]))
    {'c'}
    """
    if "duplicate_of" not in known:
        return set()
    decided, duplicates = known[known["code"].isin(_DECIDED)], known[known["code"] == Code.DUPLICATE]
    stored = dict(zip(decided["recording_id"], decided["content_hash"], strict=True))
    own = zip(duplicates["recording_id"], duplicates["duplicate_of"], duplicates["content_hash"], strict=True)
    # An original that was scored before anybody looked at bytes has no hash.
    return {name for name, of, content in own if of not in stored or _text(stored[of]) not in (content, None)}


def _first(rows: pd.DataFrame, content: Sequence[str | None]) -> dict[tuple[str, str | None], str]:
    """Return by content and direction the recording_id of its first URI."""
    listed = zip(rows["uri"], rows["recording_id"], content, rows["direction"], strict=True)
    named = sorted(listed, key=itemgetter(0), reverse=True)
    return {(each, _text(way)): recording_id for _, recording_id, each, way in named if each is not None}


def _text(value: object) -> str | None:
    """Return a value of a column of texts, in which pandas may have put something else for none."""
    return value if isinstance(value, str) else None
