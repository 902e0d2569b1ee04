"""TOML files: options of commands, and clusters. Read once, and whatever editor wrote them."""

from __future__ import annotations

import tomllib
from typing import Any

from emolib.errors import SettingsError
from emolib.storage import read_text


def read_toml(path: str, *, of: str) -> dict[str, Any]:
    """Return what a file holds.

    Parameters
    ----------
    of
        What it should hold, for the message.

    Raises
    ------
    SettingsError
        If it can't be read, or is no TOML.
    """
    try:
        return tomllib.loads(read_text(path))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} can't be read as a TOML file of {of}: {error}") from error
