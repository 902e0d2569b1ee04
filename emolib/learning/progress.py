"""The folds of a cross-validation on disk, so that one that was killed goes on where it was."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd
from upath import UPath

from emolib.config import differences
from emolib.errors import SettingsError
from emolib.learning.evaluation import FoldResult
from emolib.storage import AnyPath, read_json, remove_folder, resolve, write_bytes, write_json

FOLDER = "_folds"
"""Where the folds lie in the folder of an evaluation that is not finished."""
_CHECKPOINT = "{}.checkpoint"


class Fold(NamedTuple):
    """A fold that was trained and tested.

    Attributes
    ----------
    result
        Its figures.
    predictions, uncalibrated
        Its tables (see `emolib.learning.evaluation.utterance_predictions`), the second of clean utterances before their
        probabilities were softened.
    """

    result: FoldResult
    predictions: pd.DataFrame
    uncalibrated: pd.DataFrame


class Progress:
    """The folds that are done, and the state of the one that is not.

    Parameters
    ----------
    folder
        Of the evaluation.
    facts
        What decides its result: only folds with the same facts are taken.

    Raises
    ------
    SettingsError
        If the folds of another evaluation lie there.
    """

    def __init__(self, folder: AnyPath, facts: Mapping[str, Any]) -> None:
        self._folder = resolve(folder) / FOLDER
        self._facts = json.loads(json.dumps(facts))  # as they will be read again
        place = self._folder / "facts.json"
        if not place.exists():
            remove_folder(self._folder)  # of an evaluation that was killed while it tidied up
        elif wrong := differences(read_json(place), self._facts):
            raise SettingsError(
                f"{folder} holds the folds of another evaluation: {wrong}; continue that one as it was begun, or name "
                "another folder"
            )

    def checkpoint(self, number: int) -> UPath:
        """Return where the training of a fold, which begins now, keeps its state."""
        write_json(self._folder / "facts.json", self._facts)
        return self._folder / _CHECKPOINT.format(number)

    def load(self, number: int) -> Fold | None:
        """Return a fold that is done, None if it is not."""
        place = self._folder / f"{number}.json"
        if not place.exists():
            return None
        tables = (pd.read_parquet(io.BytesIO(self._table(number, kind).read_bytes())) for kind in Fold._fields[1:])
        return Fold(FoldResult(**read_json(place)), *tables)

    def keep(self, number: int, fold: Fold) -> None:
        """Store a fold; its figures come last and say that it is whole."""
        for kind, table in zip(Fold._fields[1:], fold[1:], strict=True):
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            write_bytes(self._table(number, kind), buffer.getvalue())
        write_json(self._folder / f"{number}.json", asdict(fold.result))
        remove_folder(self._folder / _CHECKPOINT.format(number))

    def remove(self) -> None:
        """Take away what was stored: the evaluation is written."""
        remove_folder(self._folder)

    def _table(self, number: int, kind: str) -> UPath:
        return self._folder / f"{number}.{kind}.parquet"
