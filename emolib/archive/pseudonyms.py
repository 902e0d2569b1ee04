"""Pseudonyms: keyed hashes in place of the paths of recordings, the ids of calls and those of agents.

Who has the key can tell which pseudonym a call has; a pseudonym by itself tells nothing. The key lies outside the
predictions. As long as a run is open its plan names the paths: without them it could not go on. Sizes, times of
modification and dates stay: whoever may list the archive can tell files by them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field

import pandas as pd

from emolib.archive.plan import suffix_of
from emolib.errors import SettingsError
from emolib.storage import AnyPath, resolve

_SHORTEST, _LONGEST = 16, 64  # bytes, of a key; blake2b takes no longer one


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Gives pseudonyms.

    Attributes
    ----------
    key
        Secret, 16 to 64 bytes.

    Examples
    --------
    >>> pseudonyms = Pseudonyms(b"0123456789abcdef")
    >>> pseudonyms.of("17") == pseudonyms.of("17", "agent")
    False
    """

    key: bytes = field(repr=False)

    @classmethod
    def load(cls, place: AnyPath) -> Pseudonyms:
        """Return those of the key in a file; white space around it does not count.

        Raises
        ------
        SettingsError
            If it can't be read, or is too short or too long for a key.
        """
        try:
            key = resolve(place).read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"{place} can't be read, expected a file that holds a key: {error}") from error
        if not _SHORTEST <= len(key) <= _LONGEST:
            raise SettingsError(
                f"{place} holds {len(key)} bytes, expected a key of {_SHORTEST} to {_LONGEST}, such as "
                "`openssl rand -hex 32` makes"
            )
        return cls(key)

    @property
    def key_id(self) -> str:
        """Tells this key from others, and nothing else about it."""
        return self.of("", "key")

    def of(self, text: str, kind: str = "call") -> str:
        """Return the 128-bit keyed blake2b of a text in NFC, as hex; the same name of two kinds has two pseudonyms."""
        data, person = unicodedata.normalize("NFC", text).encode(), kind.encode()
        return hashlib.blake2b(data, key=self.key, person=person, digest_size=16).hexdigest()

    def planned(self, plan: pd.DataFrame) -> pd.DataFrame:
        """Return a plan (see `emolib.archive.planning.plan`) that names calls and agents by their pseudonyms.

        The paths are in its column path, for as long as the run is open. What is known of calls beyond the columns that
        have a name of their own, `extra`, is left out: it may be anything.
        """
        named = {
            "path": plan["uri"],
            "uri": [f"{name}{suffix_of(uri)}" for name, uri in zip(plan["recording_id"], plan["uri"], strict=True)],
            # A call that is known by its recording alone keeps that id.
            "call_id": [
                name if name == own else self.of(name)
                for name, own in zip(plan["call_id"], plan["recording_id"], strict=True)
            ],
            "agent": [self.of(name, "agent") if isinstance(name, str) else None for name in plan["agent"]],
            "extra": [None] * len(plan),
            "ambiguous": ["" if isinstance(names, str) else None for names in plan["ambiguous"]],
        }
        return plan.assign(**{name: pd.Series(list(values), plan.index, object) for name, values in named.items()})
