"""Corpora of labelled utterances -> one table.

Three published corpora are known by their file names (`ravdess`, `savee`, `tess`); any other is a table
(`emolib.corpora.table`). What the corpora's words mean is in `labels`, how to split them in `splits`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from upath import UPath

from emolib.corpora import ravdess, savee, table, tess
from emolib.corpora.names import CorpusParser
from emolib.errors import Code, SettingsError
from emolib.sound.manifest import list_recordings
from emolib.storage import AnyPath, absolute, below, is_local, resolve

PARSERS: tuple[CorpusParser, ...] = (ravdess, savee, tess)


def read(paths: Sequence[AnyPath]) -> pd.DataFrame:
    """Read the utterances of corpora.

    Parameters
    ----------
    paths
        Folders, walked recursively without hidden files, and tables (``.csv``, ``.parquet``); local or fsspec URLs. A
        folder with a ``corpus.csv`` or ``corpus.parquet`` at its top is that table.

    Returns
    -------
    DataFrame
        One row per recognised file, sorted by ``utterance_id``:

        - ``utterance_id``: ``corpus/official name``
        - ``corpus``, ``speaker``: text; a speaker is unique within a corpus
        - ``gender``: female, male or None
        - ``emotion``: the corpus's own word
        - ``uri``: absolute path or URL
        - ``code``: ``ok``, or ``duplicate`` where another file of the same corpus and official name comes first in path
          order (some downloads hold the corpus twice); duplicates are named ``…#2``, ``…#3``

        A file that several of the paths lead to counts once. ``attrs["unrecognised"]`` lists the URIs of files that
        could be sound and belong to no corpus.

    Raises
    ------
    SettingsError
        If a path is missing, holds nothing that is recognised, or is a table that is not valid, or if two rows of
        tables share an ``utterance_id``.

    Examples
    --------
    >>> folder = UPath("memory://doc-corpora")
    >>> for name in ("DC_a01.wav", "copy/DC_a01.wav", "hello.wav"):
    ...     (folder / name).parent.mkdir(parents=True, exist_ok=True)
    ...     _ = (folder / name).write_bytes(b"RIFF")
    >>> utterances = read([folder])
    >>> utterances[["utterance_id", "speaker", "emotion", "code"]]
         utterance_id speaker emotion       code
    0    savee/DC_a01      DC   anger         ok
    1  savee/DC_a01#2      DC   anger  duplicate
    >>> utterances.attrs["unrecognised"]
    ['memory://doc-corpora/hello.wav']
    """
    if not paths:
        raise SettingsError("no corpus given, expected at least one folder or table")
    named: dict[str, dict[str, str]] = {}
    unrecognised: set[str] = set()
    tables: dict[str, pd.DataFrame] = {}
    for path in paths:
        place = _absolute(path)
        source = _table_of(place)
        if source is not None:
            tables[str(source)] = table.read(source)
        else:
            recognised, others = _read_folder(place)
            named |= recognised
            unrecognised.update(others)
    utterances = pd.concat([_number_duplicates(named), *tables.values()] if named else [*tables.values()])
    for uri in utterances["uri"][utterances["uri"].str.contains("::", regex=False)]:
        resolve(uri)  # of this machine's files any name will do, in a URL it is refused: now, not by a worker
    _refuse_shared_ids(utterances)
    utterances = utterances.sort_values("utterance_id", ignore_index=True)
    # pandas writes a missing text now as None, now as NaN; here it is None.
    utterances["gender"] = utterances["gender"].astype(object).where(utterances["gender"].notna(), None)
    utterances.attrs["unrecognised"] = sorted(unrecognised)
    return utterances


def _absolute(path: AnyPath) -> UPath:
    place = resolve(path)
    return resolve(absolute(place)) if is_local(place) else place


def _table_of(place: UPath) -> UPath | None:
    """Return the table that a path means, or None if it means a folder of named files."""
    if place.is_dir():
        found = [place / f"corpus{suffix}" for suffix in table.SUFFIXES if (place / f"corpus{suffix}").is_file()]
        if len(found) > 1:
            raise SettingsError(f"{place} has corpus.csv and corpus.parquet, expected one table; give the one you mean")
        return found[0] if found else None
    if not place.exists():
        raise SettingsError(f"corpus {place} does not exist, expected a folder or a table; check the path")
    if place.suffix.lower() not in table.SUFFIXES:
        raise SettingsError(f"corpus {place} is a file, expected a folder or a table ({', '.join(table.SUFFIXES)})")
    return place


def _read_folder(folder: UPath) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the recognised files by URI, and the URIs of the others."""
    recognised: dict[str, dict[str, str]] = {}
    others: list[str] = []
    listing = list_recordings(folder)
    for recording in listing:
        uri = str(below(folder, recording.uri))
        row = _recognise(uri)
        if row is None:
            others.append(uri)
        else:
            recognised[uri] = row
    for name, reason in listing.unreadable.items():  # a corpus without some of its speakers is another corpus
        raise SettingsError(
            f"folder {name!a} of corpus {folder} can't be read ({reason}), expected read access to all of it; grant "
            "it, or name the folders to take"
        )
    if not recognised:
        found = f"{len(others)} files, none with a name of these corpora" if others else "no sound files"
        raise SettingsError(
            f"corpus {folder} holds {found}, expected {', '.join(parser.CORPUS for parser in PARSERS)} under their "
            "official names; describe any other corpus in a table corpus.csv (path,speaker,emotion)"
        )
    return recognised, others


def _recognise(uri: str) -> dict[str, str] | None:
    for parser in PARSERS:
        fields = parser.parse(uri)
        if fields is not None:
            return {
                "utterance_id": f"{parser.CORPUS}/{fields.name}",
                "corpus": parser.CORPUS,
                "speaker": fields.speaker,
                "gender": fields.gender,
                "emotion": fields.emotion,
                "uri": uri,
                "code": Code.OK.value,
            }
    return None


def _number_duplicates(named: dict[str, dict[str, str]]) -> pd.DataFrame:
    rows = pd.DataFrame([named[uri] for uri in sorted(named, key=lambda uri: uri.split("/"))])
    earlier = rows.groupby("utterance_id").cumcount()
    again = earlier > 0
    rows.loc[again, "utterance_id"] += "#" + (earlier[again] + 1).astype(str)
    rows.loc[again, "code"] = Code.DUPLICATE.value
    return rows


def _refuse_shared_ids(utterances: pd.DataFrame) -> None:
    shared = utterances[utterances["utterance_id"].duplicated(keep=False)].sort_values("utterance_id", kind="stable")
    if len(shared):
        first, second = shared["uri"].iloc[:2]
        raise SettingsError(
            f"utterance_id {shared['utterance_id'].iloc[0]!r} found for {first} and {second}, expected one file each; "
            "rename one, or give each table its own name in a column corpus"
        )
