"""The state of a training after an epoch, so that one that was killed goes on where it was."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from emolib.config import differences
from emolib.errors import SettingsError
from emolib.learning import model as networks
from emolib.storage import AnyPath, resolve, write_bytes


class Checkpoint:
    """A file with the weights, the optimizer's state and the history; each epoch replaces it as a whole.

    Parameters
    ----------
    path
        Where it lies.
    facts
        What decides the result of the training: only a state with the same facts, left by the same versions of the
        libraries, is continued.
    """

    def __init__(self, path: AnyPath, facts: Mapping[str, Any]) -> None:
        self._path = resolve(path)
        self._facts = json.loads(json.dumps({**facts, "versions": networks.versions()}))  # as it will be read again

    def restore(self, model: keras.Model) -> list[dict[str, float]]:
        """Bring a compiled network to the state that was kept, and return its history: empty where there is none.

        Raises
        ------
        SettingsError
            If it is the state of another training.
        """
        if not self._path.exists():
            return []
        with np.load(io.BytesIO(self._path.read_bytes()), allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        found = json.loads(str(arrays.pop("state")))
        if wrong := differences(found["facts"], self._facts):
            raise SettingsError(
                f"{self._path} was left by another training: {wrong}; continue that one as it was begun, or remove it"
            )
        for number, variable in enumerate(_variables(model)):
            variable.assign(arrays[str(number)])
        history: list[dict[str, float]] = found["history"]
        return history

    def keep(self, model: keras.Model, history: list[dict[str, float]]) -> None:
        """Replace the state that was kept."""
        state = json.dumps({"facts": self._facts, "history": history})
        arrays = {str(number): np.asarray(variable) for number, variable in enumerate(_variables(model))}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, state=np.array(state), **arrays)
        write_bytes(self._path, buffer.getvalue())


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Return everything that an epoch changes: weights, running means, the states of random numbers, moments."""
    return [*model.variables, *model.optimizer.variables]
