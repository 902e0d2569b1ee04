"""The tables of the predictions: every column with its type, unit and meaning, in one place.

Schemas, checks and documentation are made from `COLUMNS`. Columns are only ever added, and a column that does not
apply to a row is null. `Column.since` says which version of the schema added it: a part that an older version wrote
lacks the newer ones, and readers show them as null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import pyarrow as pa

SCHEMA_VERSION = 2
_OF_CLASS = "<class>"

DataType: TypeAlias = Any  # pyarrow carries no types


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name
        ``<class>`` in it stands for each public class of the model: one column per class.
    unit
        Empty where the value has none; a share, a mean and a probability lie in [0, 1], a difference in [-1, 1].
    key
        Part of the table's key: never null, and no two rows of the table agree in all keys.
    since
        The version of the schema that added the column.
    """

    name: str
    type: DataType
    meaning: str
    unit: str = ""
    key: bool = False
    since: int = 1


_TEXT, _COUNT, _REAL, _SHARE = pa.string(), pa.int32(), pa.float64(), pa.float32()
_POLARITIES = ("negative", "neutral", "positive")


def _polarities(prefix: str, meaning: str) -> tuple[Column, ...]:
    return tuple(Column(f"{prefix}_{polarity}", _SHARE, meaning.format(polarity)) for polarity in _POLARITIES)


_RECORDING_ID = Column("recording_id", _TEXT, "128-bit blake2b of the recording's URI in NFC, hex", key=True)
_CHANNEL = Column("channel", _COUNT, "Channel of the recording, counted from 0", key=True)
_CALL_METADATA = (
    Column("direction", _TEXT, "inbound or outbound"),
    Column("agent", _TEXT, "The agent's identifier"),
    Column("queue", _TEXT, "The queue that the call came through"),
    Column("site", _TEXT, "The site that took the call"),
    Column("extra", pa.map_(_TEXT, _TEXT), "Whatever else is known of the call"),
)
# What `emolib.archive.talk` finds in one recording, and what becomes of it in a call: name, types, meanings, unit.
_OF_PARTY = (
    ("talk_s", _REAL, "Duration of the {}'s turns; null where no channel has that role", "s"),
    ("monologue_s", _REAL, "The {}'s longest stretch of turns before the other's", "s"),
    ("interruptions", _COUNT, "How often the {} took the floor from the other", ""),
)
_OF_BOTH = (
    ("overlap_s", _REAL, "Duration of both talking at once; null unless both have a channel", "s"),
    ("non_talk_s", _REAL, "Silence of more than 3 s on all channels", "s"),
)


def _talk(latency: Column, *, since: int) -> tuple[Column, ...]:
    """Return the columns about who talks when; of the parties' latencies a recording has all, a call the median."""
    return tuple(
        Column(name, kind, meaning, unit, since=since)
        for party in ("agent", "customer")
        for name, kind, meaning, unit in (
            *((f"{party}_{name}", kind, meaning.format(party), unit) for name, kind, meaning, unit in _OF_PARTY),
            (f"{party}_{latency.name}", latency.type, latency.meaning.format(party), latency.unit),
        )
    ) + tuple(Column(name, kind, meaning, unit, since=since) for name, kind, meaning, unit in _OF_BOTH)


_PROVENANCE = (
    Column("model_id", _TEXT, "Hash of the model's weights and settings"),
    Column("run_id", _TEXT, "The run that wrote the row; its plan and settings lie under _runs"),
    Column("scoring_fingerprint", _TEXT, "Hash of all settings that change the numbers of a row"),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "recordings": (
        _RECORDING_ID,
        Column("uri", _TEXT, "Path relative to the archive"),
        Column("version", _TEXT, "Size and modification time, or etag, of the file that was planned"),
        Column("call_id", _TEXT, "The call that the recording belongs to"),
        Column(
            "date_source", _TEXT, "Where the date comes from: path, sidecar (the table of calls), modified or unknown"
        ),
        *_CALL_METADATA,
        Column("size", pa.int64(), "Size of the file", "byte"),
        Column("content_hash", _TEXT, "128-bit blake2b of its bytes, hex; null without `--find-duplicates`", since=2),
        Column("duplicate_of", _TEXT, "The recording_id of another one with the same bytes, which was scored", since=2),
        Column("codec", _TEXT, "Encoding that was found in the file"),
        Column("sampling_rate", _COUNT, "As the file says", "Hz"),
        Column("channels", _COUNT, "Number of channels"),
        Column("duration_s", _REAL, "Duration that the file's header claims; null where it claims none", "s"),
        Column("decoded_s", _REAL, "Duration that could be decoded", "s"),
        Column("outcome", _TEXT, "scored, skipped or failed"),
        Column("code", _TEXT, "Why the recording has its outcome"),
        Column("message", _TEXT, "One line for people about the code"),
        Column("attempts", _COUNT, "Number of runs that tried this version of the recording, this one included"),
        *_talk(Column("latencies_s", pa.list_(_REAL), "Silence before each answer of the {}", "s"), since=2),
        *_PROVENANCE,
    ),
    "channels": (
        _RECORDING_ID,
        _CHANNEL,
        Column("call_id", _TEXT, "The call that the recording belongs to"),
        Column("role", _TEXT, "agent, customer, mixed (both on one channel), or null: not known"),
        Column("outcome", _TEXT, "scored, skipped or failed"),
        Column("code", _TEXT, "Why the channel has its outcome"),
        Column("windows_total", _COUNT, "Windows of the channel; null where policy forbids to score it"),
        Column("windows_scored", _COUNT, "Windows that the model was asked about"),
        Column("windows_abstained", _COUNT, "Windows of those on which the model abstained"),
        Column("speech_s", _REAL, "Duration of speech", "s"),
        Column("tone_s", _REAL, "Duration of dialling, ring-back, busy and fax tones", "s"),
        Column(
            "known_audio_s",
            _REAL,
            "Duration of known hold music and announcements; null without a file of it",
            "s",
            since=2,
        ),
        Column("share_<class>", _SHARE, "Share of the scored sound with this emotion; abstentions are in none"),
        Column("mean_<class>", _SHARE, "Mean probability of the class over the scored sound"),
        *_polarities("polarity", "Mean probability of {} polarity over the scored sound"),
        *_polarities("first_quarter", "The same of {} polarity over windows centred in the call's first quarter"),
        *_polarities("last_quarter", "The same of {} polarity over windows centred in the call's last quarter"),
        *_polarities("trend", "Last quarter minus first quarter of {} polarity"),
        Column("worst_start_s", _REAL, "Start of the window with the highest negative polarity", "s"),
        Column("worst_end_s", _REAL, "Its end", "s"),
        Column("worst_negative", _SHARE, "Its negative polarity"),
        Column("level_dbfs", _SHARE, "RMS level of the speech; null where there is next to none", "dB"),
        Column("snr_db", _SHARE, "Signal-to-noise ratio; null where speech or noise is too short", "dB"),
        Column("bandwidth_hz", _SHARE, "Highest frequency that carries speech; null where there is next to none", "Hz"),
        Column("clipped_share", _SHARE, "Share of samples at full scale"),
        Column(
            "flags",
            pa.list_(_TEXT),
            "What is odd: dual_mono (as another channel), cross_talk (another is heard in it), dead_channel",
        ),
        *_PROVENANCE,
    ),
    "windows": (
        _RECORDING_ID,
        _CHANNEL,
        Column("start_s", _REAL, "Start in the recording", "s", key=True),
        Column("end_s", _REAL, "End of the sound in the window", "s"),
        Column("p_<class>", _SHARE, "Probability of the class, corrected for `--priors` where they were given"),
        *_polarities("polarity", "Probability of {} polarity"),
        Column("emotion", _TEXT, "The most probable class; null when the model abstains"),
        Column("confidence", _SHARE, "Probability of the most probable class"),
        *_PROVENANCE,
    ),
    "calls": (
        replace(_RECORDING_ID, name="call_id", meaning="The call"),
        Column("recordings", _COUNT, "Number of its recordings"),
        Column("duration_s", _REAL, "Decoded duration of its recordings together; null where none decoded", "s"),
        *_CALL_METADATA,
        *_polarities("customer", "Mean probability of {} polarity on scored customer channels; null without roles"),
        *_polarities("customer_trend", "Last minus first quarter of {} polarity on them"),
        Column("worst_recording_id", _TEXT, "The recording with the worst moment"),
        Column("worst_channel", _COUNT, "Its channel: a customer's where roles are known, else any that is scored"),
        Column("worst_start_s", _REAL, "Start of the window with the highest negative polarity", "s"),
        Column("worst_end_s", _REAL, "Its end", "s"),
        Column("worst_negative", _SHARE, "Its negative polarity"),
        *_talk(Column("latency_s", _REAL, "Median silence before an answer of the {}", "s"), since=1),
        *_PROVENANCE,
    ),
}

TABLES = tuple(COLUMNS)
BLOCK_TABLES = ("windows", "channels", "recordings")
"""The tables that each block has a part in, in the order in which those are written, or taken away: `recordings` is the
block's commit. `calls` is derived from them (see `emolib.archive.joining`)."""
PROVENANCE = tuple(column.name for column in _PROVENANCE)
KEYS = {table: [column.name for column in columns if column.key] for table, columns in COLUMNS.items()}


def schema(table: str, classes: Sequence[str], *, version: int = SCHEMA_VERSION) -> pa.Schema:
    """Return the schema of a table for a model of these public classes, as a version of it had it.

    The call's date is no column of it: it stands in the path of each part (see `emolib.archive.predictions`).

    Examples
    --------
    >>> schema("windows", ["negative", "neutral", "positive"]).names[4:7]
    ['p_negative', 'p_neutral', 'p_positive']
    """
    fields = [
        pa.field(column.name, column.type, nullable=not column.key)
        for column in columns(table, classes)
        if column.since <= version
    ]
    return pa.schema(fields, metadata={"emolib_table": table, "emolib_schema_version": str(version)})


def columns(table: str, classes: Sequence[str]) -> list[Column]:
    """Return the columns of a table, those of ``<class>`` once per class."""
    return [expanded for column in COLUMNS[table] for expanded in _expand(column, classes)]


def classes_in(table: str, names: Iterable[str]) -> list[str]:
    """Return the classes that have columns among those of a table.

    Examples
    --------
    >>> classes_in("windows", schema("windows", ["negative", "positive"]).names), classes_in("calls", ["call_id"])
    (['negative', 'positive'], [])
    """
    marked = next((column.name for column in COLUMNS[table] if column.name.endswith(_OF_CLASS)), None)
    if marked is None:
        return []
    prefix = marked.removesuffix(_OF_CLASS)
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def markdown() -> str:
    """Return the tables and their columns as Markdown, for people."""
    lines = []
    for table, listed in COLUMNS.items():
        lines += [f"## {table}", "", "| column | type | meaning |", "|---|---|---|"]
        for column in listed:
            unit = f", in {column.unit}" if column.unit else ""
            notes = (" **Key.**" if column.key else "") + (f" *Since {column.since}.*" if column.since > 1 else "")
            lines.append(f"| `{column.name}` | {column.type} | {column.meaning}{unit}.{notes} |")
        lines.append("")
    return "\n".join(lines)


def _expand(column: Column, classes: Sequence[str]) -> Iterator[Column]:
    if not column.name.endswith(_OF_CLASS):
        yield column
        return
    for name in classes:
        yield replace(column, name=column.name.replace(_OF_CLASS, name))
