"""The trace of which models took over some predictions from which, when, by whom and on what evidence.

It lies in ``PRED/_promotions.json``; the last entry is in force. Whoever scores with a model that stands in the trace
scores with the one in force, so that a schedule goes on with another model without being changed.
"""

from __future__ import annotations

import getpass
import os
import socket
from datetime import UTC, datetime
from typing import Any

from emolib.archive.lock import Lock
from emolib.config import Settings, parse
from emolib.errors import SettingsError
from emolib.storage import AnyPath, read_json, resolve, write_json


class Promotion(Settings):
    """A model that took over.

    Parameters
    ----------
    time
        When, in UTC (ISO).
    by
        The account and the machine.
    replaced
        `model_id` of the model before it.
    model, model_id
        The absolute path, or URL, of its bundle.
    agreement
        How it stood to the model before it as far as it had listened in (see `emolib.archive.agreement`); None: it had
        not.
    """

    time: str
    by: str
    replaced: str
    model: str
    model_id: str
    agreement: dict[str, Any] | None = None


def promotions(pred: AnyPath) -> list[Promotion]:
    """Return the trace of some predictions, the oldest first.

    Raises
    ------
    SettingsError
        If it is damaged.
    """
    try:
        return [parse(Promotion, each) for each in read_json(_place(pred))["promotions"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, SettingsError) as error:
        raise SettingsError(
            f"no readable {_place(pred)} found, expected the models that took over: put it back from a copy, or remove "
            "it and name the model that is to score"
        ) from error


def in_force(pred: AnyPath) -> Promotion | None:
    """Return the last promotion, or None where there was none."""
    trace = promotions(pred)
    return trace[-1] if trace else None


def successor(pred: AnyPath, model_id: str) -> Promotion | None:
    """Return the promotion in force if it took another model's place, directly or not; else None."""
    trace = promotions(pred)
    named = {name for each in trace for name in (each.replaced, each.model_id)}
    return trace[-1] if model_id in named and trace[-1].model_id != model_id else None


def record(
    pred: AnyPath, *, replaced: str, model: str, model_id: str, agreement: dict[str, Any] | None, lock: Lock
) -> Promotion:
    """Let a model take over, and return what is written down of it."""
    entry = Promotion(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        by=f"{_account()}@{socket.gethostname()}",
        replaced=replaced,
        model=model,
        model_id=model_id,
        agreement=agreement,
    )
    trace = [each.model_dump(mode="json") for each in (*promotions(pred), entry)]
    lock.check()
    write_json(_place(pred), {"promotions": trace})
    return entry


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's, that has no name
        return str(os.getuid())


def _place(pred: AnyPath) -> AnyPath:
    return resolve(pred) / "_promotions.json"
