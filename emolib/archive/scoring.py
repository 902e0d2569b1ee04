"""One recording -> its rows; one block of recordings -> its parts. What runs on the workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from upath import UPath

from emolib.archive.aggregates import (
    POLARITIES,
    Labels,
    ScoredWindows,
    call_columns,
    channel_columns,
    judge,
    labels_of,
    window_config,
)
from emolib.archive.calls import channel_roles, is_scored
from emolib.archive.ledger import Run, RunConfig
from emolib.archive.plan import PlannedRecording
from emolib.archive.predictions import Part, filesystem, write_part
from emolib.archive.schemas import PROVENANCE, schema
from emolib.config import Role, ScoringConfig
from emolib.errors import AudioError, Code, SettingsError
from emolib.features.windows import windowed_features
from emolib.learning.bundle import ModelBundle
from emolib.sound import audio
from emolib.sound.manifest import version_of
from emolib.storage import AnyPath, resolve

# The largest magnitudes of µ-law and A-law are 0.980 and 0.984: a telephone channel clips below full scale.
_FULL_SCALE = 0.98


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


@dataclass(frozen=True, slots=True)
class BlockResult:
    """The small numbers that come back of a block.

    Attributes
    ----------
    by_code
        Number of recordings by code.
    audio_s
        Seconds of sound that were decoded.
    windows
        Number of windows scored.
    seconds
        Time that the block took; next to nothing where it was done before.
    """

    block: int
    recordings: int
    by_code: dict[str, int]
    audio_s: float
    windows: int
    seconds: float


def score_block(pred: str, run_id: str, block: int) -> BlockResult:
    """Score the recordings of one block of a stored run and write its parts, the `recordings` part last.

    May run twice, and at once: both write the same. A block that is committed is left as it is.

    Parameters
    ----------
    pred
        Folder or URL of the predictions.

    Raises
    ------
    SettingsError
        If the run or its model is gone or is not what was planned with.
    GoldenCheckError
        If this machine does not reproduce the model's numbers.
    """
    started = time.monotonic()
    run = Run.open(pred, run_id)
    planned = run.planned(block)
    part = Part(planned[0].date, run_id, block)
    if part.path(pred, "recordings").exists():
        return _committed(pred, part, started)
    config = run.config
    bundle = load_bundle(config.model, config.model_id)
    rows = [
        score_recording(config.archive, each, bundle=bundle, config=config.scoring, batch=config.batch)
        for each in planned
    ]
    for table, written in _tables(rows, run_id, config).items():
        write_part(pred, table, part, written, classes=config.classes)
    return BlockResult(
        block=block,
        recordings=len(rows),
        by_code=dict(Counter(each.recording["code"] for each in rows)),
        audio_s=sum(each.recording["decoded_s"] or 0.0 for each in rows),
        windows=sum(len(each.windows) for each in rows),
        seconds=time.monotonic() - started,
    )


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


def score_recording(
    root: AnyPath, planned: PlannedRecording, *, bundle: ModelBundle, config: ScoringConfig, batch: int = 64
) -> RecordingRows:
    """Score one recording; one that cannot be read is a row with a code, never an exception.

    A recording is scored if one of its channels is. Otherwise its code is the first of these that one of its channels
    has: `too_short`, `no_speech`, `policy`.

    Parameters
    ----------
    root
        Folder or URL of the archive.
    batch
        Windows that the model sees at once; changes no number.

    Raises
    ------
    SettingsError
        If the settings do not fit the model.
    """
    labels = labels_of(bundle, config)
    row: dict[str, Any] = {
        "recording_id": planned.recording_id,
        "uri": planned.uri,
        "version": planned.version,
        "call_id": planned.call_id,
        "date_source": planned.date_source,
        "size": planned.size,
        "decoded_s": None,
        "attempts": 1,
    }
    try:
        sound = _read_planned(root, planned, bundle.profile.features.sampling_rate)
    except AudioError as error:
        row |= _ending(error.code) | {"message": _one_line(error.message)}
        return RecordingRows(row, [], _no_windows(labels))
    channels: list[dict[str, Any]] = []
    windows: list[pa.Table] = []
    messages: dict[str, str] = {}
    for channel, role in enumerate(channel_roles(len(sound.signal), config)):
        columns, scored, message = _score_channel(sound, channel, role, bundle=bundle, config=config, batch=batch)
        identity = {"recording_id": planned.recording_id, "channel": channel}
        channels.append({**identity, "call_id": planned.call_id, **columns})
        messages.setdefault(columns["code"], message)
        if scored is not None:
            windows.append(_window_table(scored, labels, identity))
    code = next(code for code in _PRECEDENCE if code in messages)
    facts = dict.fromkeys([messages[code], sound.message])  # one of them, where the decode already says it
    row |= _ending(code) | {
        "codec": sound.info.codec,
        "sampling_rate": sound.info.sampling_rate,
        "channels": sound.info.channels,
        "duration_s": sound.info.duration_s,
        "decoded_s": sound.decoded_s,
        "message": _one_line("; ".join(filter(None, facts))) or None,
    }
    return RecordingRows(row, channels, pa.concat_tables(windows) if windows else _no_windows(labels))


_PRECEDENCE = (Code.OK, Code.TRUNCATED, Code.TOO_SHORT, Code.NO_SPEECH, Code.POLICY)


def _read_planned(root: AnyPath, planned: PlannedRecording, sampling_rate: int) -> audio.Audio:
    try:
        place = resolve(root) / planned.uri
    except ValueError as error:  # a name with "::" in it, which means a chain of file systems to fsspec
        raise AudioError(
            Code.UNREADABLE, f"a name that is part of a URL found, expected a file name: {error}"
        ) from error
    _check_version(place, planned)
    sound = audio.read(place, sampling_rate=sampling_rate)
    _check_version(place, planned)  # a file that was written to meanwhile gave half of the old and half of the new
    return sound


def _check_version(place: UPath, planned: PlannedRecording) -> None:
    version, _ = version_of(place)
    if version != planned.version:
        raise AudioError(Code.CHANGED, f"version {version} found, expected {planned.version}, which was planned")


def _score_channel(
    sound: audio.Audio, channel: int, role: Role | None, *, bundle: ModelBundle, config: ScoringConfig, batch: int
) -> tuple[dict[str, Any], ScoredWindows | None, str]:
    """Return a channel's columns, its scored windows if it has any, and a line about its code."""
    columns: dict[str, Any] = {"role": role, "windows_total": None, "windows_scored": 0, "windows_abstained": 0}
    if not is_scored(role, config):
        only = ", ".join(config.scored_roles or ())
        return columns | _ending(Code.POLICY), None, f"a channel of role {role or 'unknown'} found, expected {only}"
    signal = sound.signal[channel]
    cut = windowed_features(signal, features=bundle.profile.features, windows=window_config(bundle, config))
    loud = cut.rms >= 10 ** (config.min_level_dbfs / 20)
    columns |= {"windows_total": len(loud), "windows_scored": int(np.count_nonzero(loud))}
    columns["clipped_share"] = _clipped_share(signal)
    if not len(loud):
        return columns | _ending(Code.TOO_SHORT), None, f"{sound.decoded_s:.3f} s of sound found, expected at least 0.4"
    if not loud.any():
        message = f"no window louder than {config.min_level_dbfs:g} dBFS found, expected speech"
        return columns | _ending(Code.NO_SPEECH), None, message
    labels = labels_of(bundle, config)
    scored = judge(
        bundle.predict(cut.features[loud], cut.valid_frames[loud], batch=batch),
        labels,
        weight=cut.valid_frames[loud],
        start_s=cut.start_s[loud],
        end_s=cut.end_s[loud],
        abstention_threshold=bundle.abstention_threshold,
    )
    columns |= _ending(sound.code) | channel_columns(scored, labels, duration_s=sound.decoded_s)
    return columns, scored, sound.message


def _clipped_share(signal: NDArray[np.float32]) -> float | None:
    return float(np.count_nonzero(np.abs(signal) >= _FULL_SCALE)) / signal.size if signal.size else None


def _ending(code: Code) -> dict[str, str]:
    return {"outcome": code.outcome.value, "code": code.value}


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _window_table(scored: ScoredWindows, labels: Labels, identity: dict[str, Any]) -> pa.Table:
    count = len(scored.emotion)
    columns = {name: [value] * count for name, value in identity.items()} | {
        "start_s": scored.start_s,
        "end_s": scored.end_s,
        "emotion": [labels.classes[number] if number >= 0 else None for number in scored.emotion],
        "confidence": scored.confidence,
    }
    columns |= {f"p_{name}": scored.probabilities[:, number] for number, name in enumerate(labels.classes)}
    columns |= {f"polarity_{name}": scored.polarity[:, number] for number, name in enumerate(POLARITIES)}
    return pa.table(columns, schema=_window_schema(labels))


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
    by_call: dict[str, list[RecordingRows]] = {}
    for each in rows:
        by_call.setdefault(each.recording["call_id"], []).append(each)
    calls = [
        call_columns([each.recording for each in group], [channel for each in group for channel in each.channels])
        for group in by_call.values()
    ]
    named = {
        "channels": [channel for each in rows for channel in each.channels],
        "calls": calls,
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
