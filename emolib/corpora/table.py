"""A corpus of one's own: a CSV or Parquet table beside the sound.

Needed columns: ``path speaker emotion``. Optional ones: ``utterance_id gender corpus``; others are ignored.

- ``path``: relative to the table's folder, which it may not leave; an absolute path or a URL is taken as it stands.
- ``speaker``: any text, unique within the corpus; ``01`` stays ``01``.
- ``emotion``: the corpus's own word; `emolib.corpora.labels` knows what it means.
- ``utterance_id``: unique within the corpus; without it, the path.
- ``gender``: female, male, f, m in any case, or empty where it is not known.
- ``corpus``: without it, the name of the table, or of its folder if the table is called ``corpus``.
"""

from __future__ import annotations

import io
import posixpath

import pandas as pd
from upath import UPath

from emolib.errors import SettingsError
from emolib.storage import AnyPath, below, read_text, resolve

SUFFIXES = (".csv", ".parquet")
_NEEDED = ("path", "speaker", "emotion")
_OPTIONAL = ("utterance_id", "gender", "corpus")
_GENDERS = {"female": "female", "f": "female", "male": "male", "m": "male", "": None}


def read(table: UPath) -> pd.DataFrame:
    """Read a table of utterances.

    Parameters
    ----------
    table
        The CSV (UTF-8, commas, a header) or Parquet file.

    Returns
    -------
    DataFrame
        One row per row of the table, in its order: ``utterance_id corpus speaker gender emotion uri code``.

    Raises
    ------
    SettingsError
        If the file cannot be read as a table, a needed column or value is missing, a value is not valid, or a path
        occurs twice.
    """
    rows = _load(table)
    for name in _NEEDED:
        _refuse(rows, rows[name] == "", table, f"no {name} found, expected one in every row; fill it or drop the row")
    genders = rows["gender"].str.lower()
    _refuse(rows, ~genders.isin(list(_GENDERS)), table, "gender {gender!r} found, expected female, male or nothing")

    places = [_place(table, path) for path in rows["path"]]
    leaves = pd.Series([place is None for place in places])
    _refuse(rows, leaves, table, "path {path!r} leaves the table's folder; give a path below it or an absolute one")
    uris = pd.Series([str(place) for place in places])
    _refuse(rows, uris.duplicated(), table, "path {path!r} found a second time, expected one row per file; drop one")

    folder = table.parent.name if table.stem == "corpus" else table.stem
    corpus = rows["corpus"].mask(rows["corpus"] == "", folder)
    names = rows["utterance_id"].mask(rows["utterance_id"] == "", rows["path"])
    return pd.DataFrame(
        {
            "utterance_id": corpus + "/" + names,
            "corpus": corpus,
            "speaker": rows["speaker"],
            "gender": pd.Series([_GENDERS[gender] for gender in genders], dtype=object),
            "emotion": rows["emotion"],
            "uri": uris,
            "code": "ok",
        }
    )


def open_csv(table: AnyPath) -> io.StringIO:
    """Return the text of a CSV file, which has commas.

    Raises
    ------
    SettingsError
        If it is not in UTF-8, or has semicolons or tabs between its columns, as some spreadsheets write it.
    """
    text = read_text(table)
    expect_commas(table, text.partition("\n")[0])
    return io.StringIO(text)


def expect_commas(table: AnyPath, header: str) -> None:
    """Refuse a CSV file whose header has semicolons or tabs between its names.

    Raises
    ------
    SettingsError
        If it has.
    """
    for name, sign in (("semicolons", ";"), ("tabs", "\t")):
        if sign in header and "," not in header:
            raise SettingsError(f"{table} has {name} between its columns, expected commas: save it with those")


def _load(table: UPath) -> pd.DataFrame:
    """Return the columns of a corpus, each there and each cell as stripped text, empty where there is nothing."""
    try:
        if table.suffix.lower() == ".csv":
            # Text as it stands: a speaker may be called 01, and another one NA.
            found = pd.read_csv(open_csv(table), dtype=str, keep_default_na=False, skipinitialspace=True)
        else:
            with table.open("rb") as handle:
                found = pd.read_parquet(handle).reset_index(drop=True)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's errors of parsing and decoding are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(f"table {table} cannot be read ({reason}), expected CSV in UTF-8 or Parquet") from error
    if not isinstance(found.index, pd.RangeIndex):  # pandas takes what goes beyond the header for an index
        raise SettingsError(f"table {table} has rows of more cells than its header, expected as many; quote commas")
    found.columns = pd.Index([str(name).strip() for name in found.columns])
    missing = [name for name in _NEEDED if name not in found]
    if missing:
        raise SettingsError(
            f"table {table} has the columns {', '.join(found)}, expected path, speaker and emotion; "
            f"add {', '.join(missing)} (a CSV has commas and a header)"
        )
    if found.empty:
        raise SettingsError(f"table {table} has no rows, expected one per utterance; fill it or leave it out")
    columns = {name: found[name] if name in found else [""] * len(found) for name in (*_NEEDED, *_OPTIONAL)}
    return pd.DataFrame(
        {name: ["" if pd.isna(cell) else str(cell).strip() for cell in cells] for name, cells in columns.items()}
    )


def _refuse(rows: pd.DataFrame, wrong: pd.Series, table: UPath, message: str) -> None:
    """Raise for the first wrong row, whose values the message may name."""
    if wrong.any():
        number = int(wrong.to_numpy().argmax())
        values = {str(name): value for name, value in rows.iloc[number].items()}
        raise SettingsError(f"table {table}, row {number + 1}: {message.format(**values)}")


def _place(table: UPath, path: str) -> UPath | None:
    """Return where a row's file lies, or None if a relative path leaves the table's folder."""
    if posixpath.isabs(path) or "://" in path:
        return resolve(path)
    inside = posixpath.normpath(path)
    return None if inside == ".." or inside.startswith("../") else below(table.parent, inside)
