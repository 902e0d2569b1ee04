"""What a recording is to the business: its call, the date of the call, and who speaks on which channel.

Everything here is a pure function of names, times and settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from emolib.config import Role, ScoringConfig

# Most explicit first: eight digits in a row may also be a telephone number or an order.
_DATES = (
    re.compile(r"(?<!\d)((?:19|20)\d\d)-(\d\d)-(\d\d)(?!\d)"),
    re.compile(r"(?<!\d)((?:19|20)\d\d)/(\d\d)/(\d\d)(?!\d)"),
    re.compile(r"(?<!\d)((?:19|20)\d\d)(\d\d)(\d\d)(?!\d)"),
)

# Of calls of which nobody knows it.
UNKNOWN_DATE = "1970-01-01"


def is_before(date: Any, limit: str) -> Any:
    """Return whether a call's date (ISO), or each of a Series of them, is known and before another.

    Examples
    --------
    >>> is_before("2024-05-01", "2024-05-02"), is_before(UNKNOWN_DATE, "2024-05-02")
    (True, False)
    """
    return (date < limit) & (date != UNKNOWN_DATE)


@dataclass(frozen=True, slots=True)
class Call:
    """The call that a recording belongs to.

    Attributes
    ----------
    call_id
        The recording's own ``recording_id``: every recording is a call of its own.
    date
        ISO date of the call, never of the processing.
    date_source
        ``path``, ``modified``, or ``unknown`` (the date is then 1970-01-01).
    """

    call_id: str
    date: str
    date_source: str


def call_of(recording_id: str, uri: str, modified_s: float) -> Call:
    """Return the call of a recording.

    Parameters
    ----------
    modified_s
        Modification time of the file in seconds since 1970 (UTC); NaN where nobody knows.

    Examples
    --------
    >>> call_of("89db", "2024-05-01/a.wav", 0.0)
    Call(call_id='89db', date='2024-05-01', date_source='path')
    """
    day, source = call_date(uri, modified_s)
    return Call(recording_id, day, source)


def call_date(uri: str, modified_s: float) -> tuple[str, str]:
    """Return the date of a call and where it comes from.

    A date in the path counts (``YYYY-MM-DD``, else ``YYYY/MM/DD``, else ``YYYYMMDD``; of several the one nearest to the
    file's own name), otherwise the day (UTC) on which the file was modified.

    Examples
    --------
    >>> call_date("2024-05-01/call_17.wav", 0.0)
    ('2024-05-01', 'path')
    >>> call_date("2024/05/01/call_20991231.wav", 0.0)
    ('2024-05-01', 'path')
    >>> call_date("site-3/20240229_0800.wav", 0.0)
    ('2024-02-29', 'path')
    >>> call_date("20230229/a.wav", 86_400.0)  # 2023 had no 29 February
    ('1970-01-02', 'modified')
    >>> call_date("a.wav", float("nan"))
    ('1970-01-01', 'unknown')
    """
    for pattern in _DATES:
        possible = list(_possible(pattern, uri))
        if possible:
            return possible[-1].isoformat(), "path"
    try:
        return datetime.fromtimestamp(modified_s, tz=UTC).date().isoformat(), "modified"
    except (ValueError, OverflowError, OSError):  # unknown (NaN), or a year that no calendar has
        return UNKNOWN_DATE, "unknown"


def _possible(pattern: re.Pattern[str], uri: str) -> Iterator[date]:
    for match in pattern.finditer(uri):
        try:
            yield date(*map(int, match.groups()))
        except ValueError:  # no such day
            continue


def channel_roles(channels: int, config: ScoringConfig) -> list[Role | None]:
    """Return the role of each channel of a recording, None where nothing says it.

    A recording of one channel carries both parties, so its role is ``mixed``, unless the map is of channel 0 alone and
    so speaks of just such recordings.

    Examples
    --------
    >>> stereo = ScoringConfig(channels={0: "agent", 1: "customer"})
    >>> channel_roles(2, stereo), channel_roles(3, stereo), channel_roles(1, stereo)
    (['agent', 'customer'], ['agent', 'customer', None], ['mixed'])
    >>> channel_roles(2, ScoringConfig()), channel_roles(1, ScoringConfig(channels={0: "customer"}))
    ([None, None], ['customer'])
    """
    if channels == 1 and config.channels and set(config.channels) != {0}:
        return ["mixed"]
    return [config.channels.get(channel) for channel in range(channels)]


def is_scored(role: Role | None, config: ScoringConfig) -> bool:
    """Return whether a channel of this role may be scored.

    Examples
    --------
    >>> is_scored("agent", ScoringConfig(channels={0: "agent", 1: "customer"})), is_scored(None, ScoringConfig())
    (False, True)
    """
    return config.scored_roles is None or role in config.scored_roles
