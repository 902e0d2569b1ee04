"""Recordings -> their rows; one block of recordings -> its parts. What runs on the workers."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential
from upath import UPath

from emolib.archive.aggregates import (
    POLARITIES,
    Labels,
    ScoredWindows,
    labels_of,
)
from emolib.archive.calls import channel_roles
from emolib.archive.leaks import Leaks
from emolib.archive.ledger import Run, RunConfig
from emolib.archive.listening import Channel, Twins, WindowPool
from emolib.archive.outcomes import BlockResult, Verdict
from emolib.archive.plan import PlannedRecording
from emolib.archive.predictions import Part, filesystem, write_part
from emolib.archive.schemas import PROVENANCE, schema
from emolib.archive.talk import talk, talk_columns
from emolib.config import ScoringConfig
from emolib.errors import AudioError, Code, OutputError, SettingsError
from emolib.learning.bundle import ModelBundle
from emolib.sound import audio
from emolib.sound.known_audio import KnownAudio, load_known_audio
from emolib.sound.manifest import version_of
from emolib.storage import AnyPath, resolve


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
    """

    recording: dict[str, Any]
    channels: list[dict[str, Any]]
    windows: pa.Table


Begins = Callable[[PlannedRecording | None], None]


def score_block(
    pred: str, run_id: str, block: int, *, alone: str | None = None, begins: Begins | None = None
) -> BlockResult:
    """Score the recordings of one block of a stored run and write its parts, the `recordings` part last.

    May run twice, and at once: both write the same. A block that is committed is left as it is. A recording on which
    there is a verdict gets that for an outcome, unheard.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.
    alone
        Score only this recording of the block, and write nothing: to see whether it can be done.
    begins
        See `score_recordings`.

    Raises
    ------
    SettingsError
        If the run or its model is gone or is not what was planned with.
    GoldenCheckError
        If this machine does not reproduce the model's numbers.
    OutputError
        If there is no room for the parts, or no leave to write them.
    """
    started = time.monotonic()
    run = Run.open(pred, run_id)
    planned = run.planned(block)
    part = Part(planned[0].date, run_id, block)
    if part.path(pred, "recordings").exists():
        return _committed(pred, part, started)
    config, verdicts = run.config, run.verdicts(block)
    if alone is not None:
        planned, verdicts = [each for each in planned if each.recording_id == alone], {}
    rows = score_recordings(
        config.archive,
        planned,
        bundle=load_bundle(config.model, config.model_id),
        config=config.scoring,
        batch=config.batch,
        verdicts=verdicts,
        begins=begins,
    )
    if alone is None:
        _write(pred, part, _tables(rows, run_id, config), config.classes)
    return BlockResult(
        block=block,
        recordings=len(rows),
        by_code=dict(Counter(each.recording["code"] for each in rows)),
        audio_s=sum(each.recording["decoded_s"] or 0.0 for each in rows),
        windows=sum(len(each.windows) for each in rows),
        seconds=time.monotonic() - started,
    )


# Of a write: what every other one would meet as well. All else may pass, and the block is tried again.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def _write(pred: str, part: Part, tables: Mapping[str, pa.Table], classes: Sequence[str]) -> None:
    try:
        for table, rows in tables.items():
            write_part(pred, table, part, rows, classes=classes)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise OutputError(
            f"{error.strerror} in {pred}, expected room to write to: make some, then run the same command again; what "
            "is done stays done"
        ) from error


@lru_cache(maxsize=1)
def load_bundle(path: str, model_id: str) -> ModelBundle:
    """Return a model that reproduces its golden set on this machine, loaded once per process.

    Raises
    ------
    SettingsError
        If another model lies there.
    GoldenCheckError
        If the numbers deviate.
    """
    bundle = ModelBundle.load(path)
    if bundle.model_id != model_id:
        raise SettingsError(
            f"model {bundle.model_id} found at {path}, expected {model_id}, which the run was planned with; "
            "put that model back"
        )
    bundle.check_golden()
    return bundle


def score_recordings(
    root: AnyPath,
    planned: Sequence[PlannedRecording],
    *,
    bundle: ModelBundle,
    config: ScoringConfig,
    batch: int = 64,
    verdicts: Mapping[str, Verdict] | None = None,
    begins: Begins | None = None,
) -> list[RecordingRows]:
    """Score some recordings; one that cannot be read is a row with a code, never an exception.

    A recording is scored if one of its channels is. Otherwise its code is the first of these that one of its channels
    has: `too_short`, `no_speech`, `policy`. Memory holds a block of sound and a batch of windows, however long the
    recordings are, and their results.

    Parameters
    ----------
    root
        Folder or URL of the archive.
    batch
        Windows that the model sees at once; changes no number.
    verdicts
        By ``recording_id``, those that are not to be heard and what they get instead.
    begins
        Told which recording is listened to next, and None after the last one.

    Returns
    -------
    list of RecordingRows
        One for each, in the same order.

    Raises
    ------
    SettingsError
        If the settings do not fit the model, or the known audio is gone or another.
    """
    pool, file = WindowPool(bundle, batch=batch), config.known_audio
    known_audio = None if file is None else load_known_audio(file.path, file.known_audio_id)
    heard = []
    for each in planned:
        if verdicts and (verdict := verdicts.get(each.recording_id)):
            heard.append(_Heard(each, verdict.code, verdict.message))
            continue
        if each.duplicate_of is not None:
            heard.append(_Heard(each, Code.DUPLICATE, f"the same bytes as recording {each.duplicate_of}"))
            continue
        if begins is not None:
            begins(each)
        heard.append(_listen(root, each, bundle=bundle, config=config, pool=pool, known_audio=known_audio))
    if begins is not None:
        begins(None)
    pool.flush()
    labels = labels_of(bundle, config)
    return [_rows(each, labels) for each in heard]


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
        return _RETRYING(_hear, _place(root, planned), planned, **settings)
    except AudioError as error:
        return _Heard(planned, error.code, error.message)


def _hear(
    place: UPath,
    planned: PlannedRecording,
    *,
    bundle: ModelBundle,
    config: ScoringConfig,
    pool: WindowPool,
    known_audio: KnownAudio | None,
) -> _Heard:
    _check_version(place, planned)
    rate = bundle.profile.features.sampling_rate
    with audio.stream(place, sampling_rate=rate, headerless=config.headerless) as sound:
        roles = channel_roles(sound.info.channels, config, planned.direction)
        channels = [Channel(role, bundle=bundle, config=config, pool=pool, known_audio=known_audio) for role in roles]
        twins = Twins(len(channels))
        leaks = Leaks(len(channels), sampling_rate=rate, min_level_dbfs=config.min_level_dbfs)
        for block in sound:
            twins.hear(block)
            leaks.hear(block)
            for channel, samples in zip(channels, block, strict=True):
                channel.hear(samples)
    _check_version(place, planned)  # a file that was written to meanwhile gave half of the old and half of the new
    for channel in channels:
        channel.finish()
    for number in twins.found():
        channels[number].flags.append("dual_mono")
    for number in leaks.found():
        channels[number].flags.append("cross_talk")
    return _Heard(planned, sound.code, sound.message, sound.info, sound.decoded_s, channels)


def _may_pass(error: BaseException) -> bool:
    """Return whether reading a recording failed in a way that may be over in a moment."""
    cause = error.__cause__
    return (
        isinstance(error, AudioError)
        and error.code is Code.UNREADABLE
        and isinstance(cause, Exception)
        and not isinstance(cause, ValueError)  # a name that no file can have
        and getattr(cause, "errno", None) not in _LASTING
    )


# What a file system says that it will say again; anything else that it, or a network, says may pass.
_LASTING = {errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR}
_RETRYING = Retrying(
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(multiplier=1.0),
    retry=retry_if_exception(_may_pass),
    reraise=True,
)


def _place(root: AnyPath, planned: PlannedRecording) -> UPath:
    try:
        return resolve(root) / (planned.path or planned.uri)
    except ValueError as error:  # a name with "::" in it, which means a chain of file systems to fsspec
        raise AudioError(
            Code.UNREADABLE, f"a name that is part of a URL found, expected a file name: {error}"
        ) from error


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
        return RecordingRows(row, [], _no_windows(labels))
    channels: list[dict[str, Any]] = []
    windows: list[pa.Table] = []
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
    code = next(code for code in _PRECEDENCE if code in messages)
    facts = dict.fromkeys([messages[code], heard.message])  # one of them, where the decode already says it
    row |= _ending(code) | {
        "codec": heard.info.codec,
        "sampling_rate": heard.info.sampling_rate,
        "channels": heard.info.channels,
        "duration_s": heard.info.duration_s,
        "message": _said(planned, "; ".join(filter(None, facts))),
    }
    row |= talk_columns(talk(speech, [channel["role"] for channel in channels]))
    return RecordingRows(row, channels, pa.concat_tables(windows) if windows else _no_windows(labels))


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


def _tables(rows: Sequence[RecordingRows], run_id: str, config: RunConfig) -> dict[str, pa.Table]:
    """Return a block's tables in the order in which they are written: `recordings` is the commit."""
    stamp = {"model_id": config.model_id, "run_id": run_id, "scoring_fingerprint": config.scoring_fingerprint}
    windows = pa.concat_tables([each.windows for each in rows])
    whole = schema("windows", config.classes)
    stamped = [pa.repeat(pa.scalar(stamp[name], whole.field(name).type), len(windows)) for name in PROVENANCE]
    named = {
        "channels": [channel for each in rows for channel in each.channels],
        "recordings": [each.recording for each in rows],
    }
    return {"windows": pa.Table.from_arrays([*windows.columns, *stamped], schema=whole)} | {
        table: pa.Table.from_pylist([{**row, **stamp} for row in listed], schema=schema(table, config.classes))
        for table, listed in named.items()
    }


def _committed(pred: str, part: Part, started: float) -> BlockResult:
    """Return the numbers of a block that was done before, from its parts."""
    recordings, windows = part.path(pred, "recordings"), part.path(pred, "windows")
    rows = pq.read_table(recordings.path, columns=["code", "decoded_s"], filesystem=filesystem(recordings))
    return BlockResult(
        block=part.block,
        recordings=len(rows),
        by_code=dict(Counter(rows["code"].to_pylist())),
        audio_s=sum(seconds or 0.0 for seconds in rows["decoded_s"].to_pylist()),
        windows=pq.read_metadata(windows.path, filesystem=filesystem(windows)).num_rows,
        seconds=time.monotonic() - started,
    )
