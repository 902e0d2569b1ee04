"""What a recording is to the business: its call, the date of the call, and who speaks on which channel.

Everything here is a pure function of names, times and settings.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from emolib.archive.metadata import EXTRA, NAMES, Sources
from emolib.config import Role, ScoringConfig

# Most explicit first: eight digits in a row may also be a telephone number or an order. What was added later comes
# last, so that paths keep the date that they have. Of twelve digits nobody knows whether four or two are the year.
_YEAR = r"((?:19|20)\d\d)"
_A_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d")
_DATES = (
    # Behind two numbers of a date there may be a year and a time: 01-05-2024-10-12.
    re.compile(rf"(?<!\d)(?:(\d\d?)-(\d\d?)-)?{_YEAR}-(\d\d)-(\d\d)(?!\d)"),
    re.compile(rf"(?<!\d)()(){_YEAR}/(\d\d)/(\d\d)(?!\d)"),
    re.compile(rf"(?<!\d)()(){_YEAR}(\d\d)(\d\d)(?!\d)"),
    re.compile(rf"(?<!\d)(?:(\d\d?)\.(\d\d?)\.)?{_YEAR}\.(\d\d)\.(\d\d)(?!\d)"),
    re.compile(rf"(?<!\d)(?:(\d\d?)_(\d\d?)_)?{_YEAR}_(\d\d)_(\d\d)(?!\d)"),
    re.compile(rf"(?<!\d)()(){_YEAR}(\d\d)(\d\d)(?:[01]\d|2[0-3])[0-5]\d[0-5]\d(?:\d{{3}})?(?!\d)"),
)
# What looks like a date and has several readings, or no day; not just any number: it may be that of a telephone.
_MONTH, _DAY, _TIME = "(?:0[1-9]|1[0-2])", "(?:0[1-9]|[12]\\d|3[01])", "(?:[0-2]\\d[0-5]\\d(?:[0-5]\\d)?)?"
_LIKE_DATES = re.compile(
    r"(?<!\d)(?:\d{1,2}([-./_])\d{1,2}\1(?:19|20)?\d\d|(?:19|20)\d\d([-./_])\d{1,2}\2\d{1,2}"
    r"|\d{1,2}[-._ ]?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[-._ ]?(?:19|20)?\d\d"
    rf"|(?:\d\d{_MONTH}{_DAY}|{_DAY}{_MONTH}\d\d){_TIME}"
    rf"|(?:{_DAY}{_MONTH}|{_MONTH}{_DAY})(?:19|20)\d\d|(?:19|20)\d\d{_MONTH}{_DAY}\d{{4,6}})(?!\d)",
    re.IGNORECASE,
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


class Call(NamedTuple):
    """The call that a recording belongs to.

    Attributes
    ----------
    call_id
        As the sources have it; else the recording's own ``recording_id``: the recording is a call of its own.
    date
        ISO date of the call, never of the processing.
    date_source
        ``path``, ``sidecar`` (the table of calls), ``modified``, or ``unknown`` (the date is then 1970-01-01).
    direction
        ``inbound`` or ``outbound``.
    extra
        What else the sources say, names and values, sorted.
    """

    call_id: str
    date: str
    date_source: str
    direction: str | None = None
    agent: str | None = None
    queue: str | None = None
    site: str | None = None
    extra: tuple[tuple[str, str], ...] | None = None


def call_of(recording_id: str, uri: str, modified_s: float, sources: Sources | None = None) -> Call:
    """Return the call of a recording.

    Each value is the first that is there: what the pattern finds in the path, what the table says. So it does not
    depend on when the table was delivered where the path knows it. A date comes from the pattern, then from the table,
    and then from the rules of `call_date`.

    Parameters
    ----------
    modified_s
        Modification time of the file in seconds since 1970 (UTC); NaN where nobody knows.
    sources
        Where the metadata of calls comes from.

    Examples
    --------
    >>> call = call_of("89db", "2024-05-01/a.wav", 0.0)
    >>> call.call_id, call.date, call.date_source
    ('89db', '2024-05-01', 'path')
    >>> sources = Sources(calls={"call_id": ["a"], "date": ["2024-04-30"], "queue": ["sales"], "crm": ["7"]})
    >>> call = call_of("89db", "2024-05-01/a.wav", 0.0, sources)
    >>> call.call_id, call.date, call.date_source, call.queue, call.extra
    ('a', '2024-04-30', 'sidecar', 'sales', (('crm', '7'),))
    """
    if sources is None:
        return Call(recording_id, *call_date(uri, modified_s))
    in_path, in_table = sources.of(uri)
    known = {**in_table, **in_path}
    if "date" in known:
        day, source = known["date"], "path" if "date" in in_path else "sidecar"
    else:
        day, source = call_date(uri, modified_s)
    extra = {name.removeprefix(EXTRA): value for name, value in known.items() if name not in NAMES}
    return Call(
        known.get("call_id", recording_id),
        day,
        source,
        **{name: known.get(name) for name in NAMES if name not in ("call_id", "date")},
        extra=tuple(sorted(extra.items())) or None,
    )


def call_date(uri: str, modified_s: float) -> tuple[str, str]:
    """Return the date of a call and where it comes from.

    A date in the path counts (``YYYY-MM-DD``, else ``YYYY/MM/DD``, else ``YYYYMMDD``, else ``YYYY.MM.DD``, else
    ``YYYY_MM_DD``, else ``YYYYMMDDHHMMSS``; of several the one nearest to the file's own name), otherwise the day (UTC)
    on which the file was modified.

    Examples
    --------
    >>> call_date("2024-05-01/call_17.wav", 0.0)
    ('2024-05-01', 'path')
    >>> call_date("2024/05/01/call_20991231.wav", 0.0)
    ('2024-05-01', 'path')
    >>> call_date("site-3/20240229_0800.wav", 0.0)
    ('2024-02-29', 'path')
    >>> call_date("20240501080000.wav", 0.0), call_date("call_2024.05.01.wav", 0.0)
    (('2024-05-01', 'path'), ('2024-05-01', 'path'))
    >>> call_date("20230229/a.wav", 86_400.0)  # 2023 had no 29 February
    ('1970-01-02', 'modified')
    >>> call_date("a.wav", float("nan"))
    ('1970-01-01', 'unknown')
    """
    for pattern in _DATES if _A_YEAR.search(uri) else ():
        for found in reversed(pattern.findall(uri)):
            if day := _day(*found):
                return day, "path"
    try:
        return datetime.fromtimestamp(modified_s, tz=UTC).date().isoformat(), "modified"
    except (ValueError, OverflowError, OSError):  # unknown (NaN), or a year that no calendar has
        return UNKNOWN_DATE, "unknown"


def unread_date(uri: str) -> str | None:
    """Return what in a path looks like a date and is read as none, because it has several readings or no day.

    Examples
    --------
    >>> [unread_date(uri) for uri in ("a/240501_17.wav", "01.05.2024/a.wav", "1May2024.wav", "2024-13-01.wav", "a.wav")]
    ['240501', '01.05.2024', '1May2024', '2024-13-01', None]
    """
    found = _LIKE_DATES.search(uri)
    return found and found[0]


@lru_cache(maxsize=10_000)  # an archive has millions of recordings, and some days
def _day(first: str, second: str, year: str, month: str, day: str) -> str | None:
    if first and 0 < min(int(first), int(second)) <= 12 and max(int(first), int(second)) <= 31:
        return None
    try:
        return date(int(year), int(month), int(day)).isoformat()
    except ValueError:  # no such day
        return None


def channel_roles(channels: int, config: ScoringConfig, direction: str | None = None) -> list[Role | None]:
    """Return the role of each channel of a recording, None where nothing says it.

    The map of the call's direction counts, else the one that is of no direction. A recording of one channel carries
    both parties, so its role is ``mixed``, unless the map is of channel 0 alone and so speaks of just such recordings.

    Parameters
    ----------
    direction
        ``inbound`` or ``outbound``; None where nobody knows.

    Examples
    --------
    >>> stereo = ScoringConfig(channels={0: "agent", 1: "customer"})
    >>> channel_roles(2, stereo), channel_roles(3, stereo), channel_roles(1, stereo)
    (['agent', 'customer'], ['agent', 'customer', None], ['mixed'])
    >>> channel_roles(2, ScoringConfig()), channel_roles(1, ScoringConfig(channels={0: "customer"}))
    ([None, None], ['customer'])
    >>> called = ScoringConfig(channels_by_direction={"outbound": {0: "agent", 1: "customer"}})
    >>> channel_roles(2, called, "outbound"), channel_roles(2, called), channel_roles(1, called)
    (['agent', 'customer'], [None, None], ['mixed'])
    """
    named = {str(name): roles for name, roles in config.channels_by_direction.items()}
    roles = named.get(direction or "", config.channels)
    if channels == 1 and all(set(each) != {0} for each in ([roles] if roles else named.values())):
        return ["mixed"] if roles or named else [None]
    return [roles.get(channel) for channel in range(channels)]


def against_policy(channels: int, config: ScoringConfig, direction: str | None = None) -> str | None:
    """Return the roles for which no channel of a recording may be scored, in words; None where one may.

    Examples
    --------
    >>> stereo = ScoringConfig(channels={0: "agent", 1: "customer"})
    >>> against_policy(1, stereo), against_policy(2, stereo)
    ('mixed', None)
    >>> against_policy(2, ScoringConfig(channels_by_direction={"inbound": {0: "customer", 1: "agent"}}))
    'unknown'
    """
    roles = channel_roles(channels, config, direction)
    if any(is_scored(role, config) for role in roles):
        return None
    return " and ".join(sorted({role or "unknown" for role in roles}))


def is_scored(role: Role | None, config: ScoringConfig) -> bool:
    """Return whether a channel of this role may be scored.

    Examples
    --------
    >>> is_scored("agent", ScoringConfig(channels={0: "agent", 1: "customer"})), is_scored(None, ScoringConfig())
    (False, True)
    """
    return config.scored_roles is None or role in config.scored_roles
