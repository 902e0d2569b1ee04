"""Recordings -> their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from upath import UPath

from emolib.archive.aggregates import (
    POLARITIES,
    Labels,
    ScoredWindows,
    labels_of,
)
from emolib.archive.calls import channel_roles
from emolib.archive.leaks import Leaks
from emolib.archive.listening import Channel, WindowPool
from emolib.archive.plan import PlannedRecording
from emolib.archive.schemas import PROVENANCE, schema
from emolib.archive.shadow import Shadow
from emolib.archive.talk import talk, talk_columns
from emolib.config import ScoringConfig
from emolib.errors import AudioError, Code
from emolib.isolation import Verdict
from emolib.learning.bundle import ModelBundle
from emolib.sound import audio
from emolib.sound.dual_mono import DualMonoStream
from emolib.sound.known_audio import KnownAudio, load_known_audio
from emolib.sound.manifest import version_of
from emolib.sound.retries import retried
from emolib.storage import AnyPath, below


@dataclass(frozen=True, slots=True)
class RecordingRows:
    """What is to be written of one recording; the columns of `schemas.PROVENANCE` are added with the block.

    Attributes
    ----------
    recording
        Its row in `recordings`.
    channels
        Its rows in `channels`; none where it failed.
    windows
        Its rows in `windows`.
    shadow
        The same by the candidate; none of a call that it did not listen in on.
    """

    recording: dict[str, Any]
    channels: list[dict[str, Any]]
    windows: pa.Table
    shadow: pa.Table


Begins = Callable[[PlannedRecording | None], None]


def score_recordings(
    root: AnyPath,
    planned: Sequence[PlannedRecording],
    *,
    bundle: ModelBundle,
    config: ScoringConfig,
    batch: int = 64,
    verdicts: Mapping[str, Verdict] | None = None,
    begins: Begins | None = None,
    shares_batches: bool = True,
    candidate: ModelBundle | None = None,
    shadow: Shadow | None = None,
) -> list[RecordingRows]:
    """Score some recordings; one that cannot be read is a row with a code, never an exception.

    A recording is scored if one of its channels is. Otherwise its code is the first of these that one of its channels
    has: `too_short`, `no_speech`, `policy`; but `corrupt` where it is damaged and would be one of the first two. Of
    channels that hold one sound (dual mono) the one with the most windows to score is scored, of equals the first; the
    others are `duplicate`. Memory holds a minute of sound and a batch of windows, however long the recordings are, and
    their results.

    Parameters
    ----------
    root
        Folder or URL of the archive.
    batch
        Windows that the model sees at once; changes no number.
    verdicts
        By ``recording_id``, those that are not to be heard and what they get instead.
    begins
        Told which recording is listened to next, and None after the last one; where recordings share nothing, also
        which one's rows are made.
    shares_batches
        Whether windows of several recordings go through the model together. Where they do not, what a window does to
        the model happens while its own recording is listened to. It changes no number.
    candidate, shadow
        A model that listens in, and on which calls; None: there is none.

    Returns
    -------
    list of RecordingRows
        One for each, in the same order.

    Raises
    ------
    SettingsError
        If the settings do not fit the model, the known audio is gone or another, or a planned path leaves the archive.
    OutputError
        If nothing can be read any more for want of credentials.
    """
    pool, file = WindowPool(bundle, batch=batch), config.known_audio
    listens_in = None if candidate is None or shadow is None else WindowPool(candidate, batch=batch)
    known_audio = None if file is None else load_known_audio(file.path, file.known_audio_id)
    heard = []
    for each in planned:
        if each.ambiguous is not None:
            heard.append(_Heard(each, Code.AMBIGUOUS, _AMBIGUOUS.format(each.ambiguous)))
            continue
        if verdicts and (verdict := verdicts.get(each.recording_id)):
            heard.append(_Heard(each, verdict.code, verdict.message))
            continue
        if each.duplicate_of is not None:
            heard.append(_Heard(each, Code.DUPLICATE, f"the same bytes as recording {each.duplicate_of}"))
            continue
        if begins is not None:
            begins(each)
        shadowed = listens_in if shadow is not None and shadow.hears(each.call_id) else None
        heard.append(_listen(root, each, config=config, pool=pool, shadow=shadowed, known_audio=known_audio))
        if not shares_batches:
            _flush(pool, listens_in)
    if begins is not None:
        begins(None)
    _flush(pool, listens_in)
    labels = labels_of(bundle, config)
    rows = []
    for found in heard:
        if begins is not None and not shares_batches and found.channels:
            begins(found.planned)
        rows.append(_rows(found, labels))
    if begins is not None:
        begins(None)
    return rows


def _flush(*pools: WindowPool | None) -> None:
    for waiting in filter(None, pools):
        waiting.flush()


_AMBIGUOUS = "{} found, names that differ only in their Unicode form, expected one of them; rename or remove the others"


@dataclass(frozen=True, slots=True)
class _Heard:
    """A recording that was listened to, with the verdict on its decode; or one that failed."""

    planned: PlannedRecording
    code: Code
    message: str
    info: audio.AudioInfo | None = None
    decoded_s: float | None = None
    channels: Sequence[Channel] = ()


def _listen(root: AnyPath, planned: PlannedRecording, **settings: Any) -> _Heard:
    try:
        return retried(_hear, below(root, planned.path or planned.uri), planned, **settings)
    except AudioError as error:
        return _Heard(planned, error.code, error.message)


def _hear(
    place: UPath,
    planned: PlannedRecording,
    *,
    config: ScoringConfig,
    pool: WindowPool,
    shadow: WindowPool | None,
    known_audio: KnownAudio | None,
) -> _Heard:
    _check_version(place, planned)
    rate = pool.bundle.profile.features.sampling_rate
    with audio.stream(place, sampling_rate=rate, headerless=config.headerless, max_gap_s=config.max_gap_s) as sound:
        roles = channel_roles(sound.info.channels, config, planned.direction)
        channels = [Channel(role, config=config, pool=pool, shadow=shadow, known_audio=known_audio) for role in roles]
        dual_mono = DualMonoStream(len(channels), sampling_rate=rate, min_level_dbfs=config.min_level_dbfs)
        leaks = Leaks(len(channels), sampling_rate=rate, min_level_dbfs=config.min_level_dbfs)
        for block in sound:
            dual_mono.push(block)
            leaks.hear(block)
            for channel, samples in zip(channels, block, strict=True):
                channel.hear(samples)
    _check_version(place, planned)  # a file that was written to meanwhile gave half of the old and half of the new
    for channel in channels:
        channel.finish()
    groups = dual_mono.finish()
    for group in groups:
        # The one with most speech; mostly they are equal.
        kept = max(group, key=lambda number: channels[number].windows)
        for number in group:
            channels[number].flags.append("dual_mono")
            channels[number].same_as = None if number == kept else kept
    for number in leaks.found(groups):
        channels[number].flags.append("cross_talk")
    return _Heard(planned, sound.code, sound.message, sound.info, sound.decoded_s, channels)


def _check_version(place: UPath, planned: PlannedRecording) -> None:
    version, _ = version_of(place)
    if version != planned.version:
        raise AudioError(Code.CHANGED, f"version {version} found, expected {planned.version}, which was planned")


_PRECEDENCE = (Code.OK, Code.TRUNCATED, Code.TOO_SHORT, Code.NO_SPEECH, Code.POLICY)


def _rows(heard: _Heard, labels: Labels) -> RecordingRows:
    planned = heard.planned
    row: dict[str, Any] = {
        "recording_id": planned.recording_id,
        "uri": planned.uri,
        "version": planned.version,
        "call_id": planned.call_id,
        "date_source": planned.date_source,
        "direction": planned.direction,
        "agent": planned.agent,
        "queue": planned.queue,
        "site": planned.site,
        "extra": planned.extra,
        "size": planned.size,
        "content_hash": planned.content_hash,
        "duplicate_of": planned.duplicate_of,
        "decoded_s": heard.decoded_s,
        "attempts": planned.attempts,
    }
    if heard.info is None or heard.decoded_s is None:
        row |= _ending(heard.code) | {"message": _said(planned, heard.message)}
        return RecordingRows(row, [], *[_no_windows(labels)] * 2)
    channels: list[dict[str, Any]] = []
    windows: list[pa.Table] = [_no_windows(labels)]
    shadow: list[pa.Table] = [_no_windows(labels)]
    messages: dict[Code, str] = {}
    speech = []
    for number, channel in enumerate(heard.channels):
        result = channel.result(heard.code, heard.message, duration_s=heard.decoded_s)
        identity = {"recording_id": planned.recording_id, "channel": number}
        channels.append({**identity, "call_id": planned.call_id, **_ending(result.code), **result.columns})
        messages.setdefault(result.code, result.message)
        speech.append(result.speech)
        if result.windows is not None:
            windows.append(_window_table(result.windows, labels, identity))
        if result.shadow is not None:
            shadow.append(_window_table(result.shadow, labels, identity))
    code = next(code for code in _PRECEDENCE if code in messages)
    row |= {
        "codec": heard.info.codec,
        "sampling_rate": heard.info.sampling_rate,
        "duration_s": heard.info.duration_s,
    }
    if heard.code is Code.TRUNCATED and code in (Code.TOO_SHORT, Code.NO_SPEECH):
        # Nothing says that there was nothing to score: damage may have taken it.
        message = f"{heard.message}; of what is left: {messages[code]}"
        row |= _ending(Code.CORRUPT) | {"message": _said(planned, message)}
        return RecordingRows(row, [], *[_no_windows(labels)] * 2)
    facts = dict.fromkeys([messages[code], heard.message])  # one of them, where the decode already says it
    row |= _ending(code) | {
        "channels": heard.info.channels,
        "message": _said(planned, "; ".join(filter(None, facts))),
    }
    row |= talk_columns(talk(speech, [channel["role"] for channel in channels]))
    return RecordingRows(row, channels, pa.concat_tables(windows), pa.concat_tables(shadow))


def _ending(code: Code) -> dict[str, str]:
    return {"outcome": code.outcome.value, "code": code.value}


def _said(planned: PlannedRecording, message: str) -> str | None:
    """Return a message in one line; none of a recording that has a pseudonym: it may quote what is in the file."""
    return None if planned.path is not None else " ".join(message.split()) or None


def _window_table(scored: ScoredWindows, labels: Labels, identity: dict[str, Any]) -> pa.Table:
    whole, count = _window_schema(labels), len(scored.emotion)
    named = pa.array(scored.emotion, mask=scored.emotion < 0)
    columns = {name: pa.repeat(pa.scalar(value, whole.field(name).type), count) for name, value in identity.items()} | {
        "start_s": scored.start_s,
        "end_s": scored.end_s,
        "emotion": pa.array(labels.classes, pa.string()).take(named),
        "confidence": scored.confidence,
    }
    columns |= {f"p_{name}": scored.probabilities[:, number] for number, name in enumerate(labels.classes)}
    columns |= {f"polarity_{name}": scored.polarity[:, number] for number, name in enumerate(POLARITIES)}
    return pa.table(columns, schema=whole)


def _no_windows(labels: Labels) -> pa.Table:
    return _window_schema(labels).empty_table()


def _window_schema(labels: Labels) -> pa.Schema:
    whole = schema("windows", labels.classes)
    return pa.schema([field for field in whole if field.name not in PROVENANCE])
