"""The errors that emolib raises, and the codes that say how a recording ended.

Every message says what was found, what was expected and what to do about it.
"""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of a recording, a channel or an utterance: exactly one of three."""

    SCORED = "scored"
    SKIPPED = "skipped"
    FAILED = "failed"


class Code(StrEnum):
    """Why a recording, a channel or an utterance has its outcome.

    Examples
    --------
    >>> Code("no_speech").outcome
    <Outcome.SKIPPED: 'skipped'>
    >>> Code.from_status(Code.CORRUPT.status)
    <Code.CORRUPT: 'corrupt'>
    """

    OK = "ok"
    TRUNCATED = "truncated"
    NO_SPEECH = "no_speech"
    TOO_SHORT = "too_short"
    POLICY = "policy"
    DUPLICATE = "duplicate"
    LENGTH_OUTLIER = "length_outlier"
    EMPTY = "empty"
    CORRUPT = "corrupt"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    MISSING = "missing"
    CHANGED = "changed"
    TIMEOUT = "timeout"
    KILLED = "killed"
    AMBIGUOUS = "ambiguous"
    INTERNAL = "internal"

    @property
    def outcome(self) -> Outcome:
        """The outcome that the code belongs to."""
        return _OUTCOMES[self]

    @property
    def status(self) -> int:
        """The code's number in a feature store, 1 to 255 (0 means pending)."""
        return _STATUSES[self]

    @classmethod
    def from_status(cls, status: int) -> Code:
        """Return the code that a feature store holds as a number.

        Raises
        ------
        ValueError
            If the number is 0 (pending) or unknown.
        """
        for code, number in _STATUSES.items():
            if number == status:
                return code
        raise ValueError(f"status {status} is no outcome; expected one of {sorted(_STATUSES.values())}")


_OUTCOMES = {
    Code.OK: Outcome.SCORED,
    Code.TRUNCATED: Outcome.SCORED,
    Code.NO_SPEECH: Outcome.SKIPPED,
    Code.TOO_SHORT: Outcome.SKIPPED,
    Code.POLICY: Outcome.SKIPPED,
    Code.DUPLICATE: Outcome.SKIPPED,
    Code.LENGTH_OUTLIER: Outcome.SKIPPED,
    Code.EMPTY: Outcome.FAILED,
    Code.CORRUPT: Outcome.FAILED,
    Code.UNSUPPORTED: Outcome.FAILED,
    Code.UNREADABLE: Outcome.FAILED,
    Code.MISSING: Outcome.FAILED,
    Code.CHANGED: Outcome.FAILED,
    Code.TIMEOUT: Outcome.FAILED,
    Code.KILLED: Outcome.FAILED,
    Code.AMBIGUOUS: Outcome.FAILED,
    Code.INTERNAL: Outcome.FAILED,
}

# Stored in feature stores, so a number never changes its meaning: new codes take new numbers.
_STATUSES = {
    Code.OK: 1,
    Code.TRUNCATED: 2,
    Code.NO_SPEECH: 10,
    Code.TOO_SHORT: 11,
    Code.POLICY: 12,
    Code.DUPLICATE: 13,
    Code.LENGTH_OUTLIER: 14,
    Code.EMPTY: 20,
    Code.CORRUPT: 21,
    Code.UNSUPPORTED: 22,
    Code.UNREADABLE: 23,
    Code.MISSING: 24,
    Code.CHANGED: 25,
    Code.TIMEOUT: 26,
    Code.KILLED: 27,
    Code.AMBIGUOUS: 28,
    Code.INTERNAL: 29,
}

TRANSIENT = (Code.UNREADABLE, Code.TIMEOUT, Code.MISSING, Code.CHANGED, Code.INTERNAL)
"""What may be over another time, and is tried again then."""


class EmolibError(Exception):
    """The root of every error that emolib raises on purpose."""


class SettingsError(EmolibError):
    """Wrong usage, settings or input: the run stops before any work starts."""


class LockedError(EmolibError):
    """Another run holds the lock of the predictions."""


class OutputError(EmolibError):
    """Nothing can be stored any more, or nothing read: the run stops, and can go on later."""


class UnforeseenError(EmolibError):
    """So many recordings in a row failed in ways that nobody foresaw that it is not the recordings."""


class GoldenCheckError(EmolibError):
    """A machine does not reproduce the numbers that a model bundle was made with."""


class AudioError(EmolibError):
    """A recording that could not be used.

    Parameters
    ----------
    code
        Why, as a code that can be counted.
    message
        One line: what was found, what was expected.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
