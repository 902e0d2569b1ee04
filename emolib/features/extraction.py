"""From utterances to the rows of a feature store: probe, plan, and fill one shard."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emolib.config import CLEAN, Limits, Profile
from emolib.errors import TRANSIENT, AudioError, Code
from emolib.features.commits import commit_shard
from emolib.features.store import FeatureStore
from emolib.features.windows import window_spans, windowed_features
from emolib.isolation import ONCE, UNWATCHED, Attempt, Watch
from emolib.sound import audio, variants as copies
from emolib.sound.retries import retried
from emolib.storage import AnyPath
from emolib.stores import locked_out, no_room

# Only the plan needs pandas: its import takes a worker half a second.
if TYPE_CHECKING:
    import pandas as pd

_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Probe:
    """What a look at a clip's header and bytes says.

    Attributes
    ----------
    frames, sampling_rate
        Length in samples per channel at the clip's own rate in Hz; zero where it can't be read.
    content_hash
        Hash of the file's bytes: the same recording under two names must not sit in training and test.
    code, message
        OK, or why the clip can't be used.
    """

    uri: str
    frames: int = 0
    sampling_rate: int = 0
    content_hash: str | None = None
    code: Code = Code.OK
    message: str | None = None


def probe_clip(uri: str) -> Probe:
    """Look at one clip; a bad one is a probe with a code, never an error."""
    try:
        return retried(_probe, uri)
    except AudioError as error:
        return Probe(uri, code=error.code, message=error.message)


def _probe(uri: str) -> Probe:
    with audio.stream(uri) as clip:
        content, frames = clip.content_hash(), clip.info.frames
        if not frames:  # the header does not say how long the clip is, or says nothing is in it: only decoding tells
            frames = sum(block.shape[1] for block in clip)
    return Probe(uri, frames, clip.info.sampling_rate, content)


def probe_clips(
    uris: Sequence[str], limits: Limits = _LIMITS, *, attempt: Attempt = ONCE, watch: Watch = UNWATCHED
) -> list[Probe]:
    """Look at several clips (see `probe_clip`).

    Parameters
    ----------
    limits
        Of what a clip may cost.
    attempt, watch
        See `emolib.isolation`; the items are the URIs.
    """
    watch.limit_memory(limits.recording_memory)
    found = []
    for uri in uris:
        if not attempt.takes(uri):
            continue
        if (verdict := attempt.verdicts.get(uri)) is not None:
            found.append(Probe(uri, code=verdict.code, message=verdict.message))
            continue
        watch.begin(uri, limits.recording_s)
        found.append(probe_clip(uri))
    watch.end()
    return found


def plan_windows(
    utterances: pd.DataFrame,
    probes: Sequence[Probe],
    *,
    profile: Profile,
    variants: Sequence[str] = (),
    seed: int = 0,
) -> pd.DataFrame:
    """Decide which rows a store will have.

    The order is a seeded shuffle of utterances and their copies, so that any shard is a fair sample; the windows of
    each stay together. An utterance that can't be used has one row, with its code.

    Parameters
    ----------
    utterances
        As `emolib.corpora.read` returns them.
    probes
        One for each utterance, in the same order.
    variants
        The copies to make beside the clean recording (see `emolib.sound.variants`).

    Returns
    -------
    pandas.DataFrame
        One row per window, the columns of `emolib.features.store.WINDOWS_SCHEMA`.
    """
    import pandas as pd

    records = utterances.to_dict("records")
    verdicts = [_verdict(Code(each["code"]), probe, profile) for each, probe in zip(records, probes, strict=True)]
    recordings = [
        (number, variant)
        for number, (code, _) in enumerate(verdicts)
        for variant in ((CLEAN, *variants) if code is Code.OK else (CLEAN,))
    ]
    rows = []
    for place in np.random.default_rng(seed).permutation(len(recordings)):
        number, variant = recordings[place]
        utterance, probe, (code, message) = records[number], probes[number], verdicts[number]
        common = {name: utterance[name] for name in ("utterance_id", "corpus", "speaker", "gender", "emotion")} | {
            "uri": probe.uri,
            "channel": None,
            "variant": variant,
            "content_hash": probe.content_hash,
            "code": code.value,
            "message": message,
        }
        spans = _spans(probe, profile) if code is Code.OK else np.zeros((1, 2))
        rows += [
            {**common, "window": window, "start_s": start_s, "end_s": end_s}
            for window, (start_s, end_s) in enumerate(spans)
        ]
    return pd.DataFrame(rows)


def _verdict(listed: Code, probe: Probe, profile: Profile) -> tuple[Code, str | None]:
    """Return what is known of an utterance before it is decoded."""
    if listed is not Code.OK:
        return listed, "the corpus holds this utterance under the same name already"
    if probe.code is not Code.OK:
        return probe.code, probe.message
    duration_s = probe.frames / probe.sampling_rate
    if profile.max_duration_s is not None and duration_s > profile.max_duration_s:
        return Code.LENGTH_OUTLIER, f"{duration_s:.1f} s long, expected at most {profile.max_duration_s} s"
    if not len(_spans(probe, profile)):
        return Code.TOO_SHORT, f"{duration_s:.3f} s long, expected at least 0.4 s"
    return Code.OK, None


def _spans(probe: Probe, profile: Profile) -> np.ndarray:
    """Return start and end of each window of a clip in seconds, shape ``(window, 2)``."""
    rate = profile.features.sampling_rate
    samples = audio.resampled_length(probe.frames, probe.sampling_rate, rate)
    return window_spans(samples, sampling_rate=rate, windows=profile.windows) / rate


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What filling a shard came to: small numbers for the driver.

    Attributes
    ----------
    rows
        Number of rows by code.
    audio_s
        Seconds of sound that were decoded.
    notes
        One line for each clip whose sound was not what the plan expected.
    """

    shard: int
    rows: dict[str, int]
    audio_s: float
    notes: tuple[str, ...]


def due(status: NDArray[np.uint8], planned: Sequence[str]) -> NDArray[np.bool_]:
    """Return which rows are to be filled: those that are pending, and those that may be read by now.

    Parameters
    ----------
    status
        Of each row, as `FeatureStore.status` returns it.
    planned
        The code of each in the plan: what has another one than ``ok`` keeps it.

    Examples
    --------
    >>> codes = [Code.OK, Code.UNREADABLE, Code.KILLED, Code.MISSING]
    >>> due(np.array([0, *(code.status for code in codes)]), ["ok", "ok", "ok", "ok", "missing"]).tolist()
    [True, False, True, False, False]
    """
    transient = np.isin(status, [code.status for code in TRANSIENT])
    found: NDArray[np.bool_] = (status == 0) | (transient & (np.asarray(planned) == Code.OK.value))
    return found


def extract_shard(
    store: AnyPath, shard: int, limits: Limits = _LIMITS, *, attempt: Attempt = ONCE, watch: Watch = UNWATCHED
) -> ShardResult:
    """Compute and write the rows of one shard of a store that are due (see `due`); may run twice without harm.

    All other rows stay as they are.

    Parameters
    ----------
    limits
        Of what a copy of a clip may cost.
    attempt, watch
        See `emolib.isolation`; the items are the names of utterances. A verdict is for all copies of one.

    Raises
    ------
    OutputError
        If there is no room for the shard, or if credentials have expired.
    """
    opened = FeatureStore.open(store)
    watch.limit_memory(limits.recording_memory)
    planned, status = opened.shard_windows(shard), opened.status(shard)
    is_due = due(status, [row["code"] for row in planned])
    codes = [
        Code(row["code"]) if again else Code.from_status(number)
        for row, again, number in zip(planned, is_due, status.tolist(), strict=True)
    ]
    if not is_due.any():
        return ShardResult(shard, dict(Counter(code.value for code in codes)), 0.0, ())
    if status.any():
        features, valid_frames = opened.read(*opened.shards[shard])
        features[is_due], valid_frames[is_due] = 0.0, 0
    else:
        features = np.zeros((len(planned), *opened.shape[1:]), np.float32)
        valid_frames = np.zeros(len(planned), np.int32)
    audio_s, notes = 0.0, dict[str, None]()
    usable = [number for number in np.flatnonzero(is_due).tolist() if codes[number] is Code.OK]
    for (name, variant), group in itertools.groupby(usable, key=lambda number: _copy(planned[number])):
        rows = list(group)
        if not attempt.takes(name):
            continue
        try:
            if (verdict := attempt.verdicts.get(name)) is not None:
                raise AudioError(*verdict)
            watch.begin(name, limits.seconds_for(planned[rows[-1]]["end_s"]))
            signal, clip = retried(
                copies.read,
                planned[rows[0]]["uri"],
                variant,
                sampling_rate=opened.profile.features.sampling_rate,
                name=name,
            )
        except AudioError as error:
            notes[f"{name}: {error}"] = None
            for row in rows:
                codes[row] = error.code
            continue
        audio_s += clip.decoded_s
        found = windowed_features(signal, features=opened.profile.features, windows=opened.profile.windows)
        for row in rows:
            window = planned[row]["window"]
            if window < len(found.features):
                features[row], valid_frames[row] = found.features[window], found.valid_frames[window]
                codes[row] = clip.code
            else:
                codes[row] = Code.TOO_SHORT
        last = planned[rows[-1]]["window"]
        end_s = found.end_s[last] if last < len(found.end_s) else 0.0
        if clip.code is not Code.OK:
            notes[f"{name}: {clip.code}: {clip.message}"] = None
        elif abs(end_s - planned[rows[-1]]["end_s"]) > 0.01:
            notes[f"{name}: decoded to {clip.decoded_s:.2f} s, other than its header promised"] = None
    watch.end()
    if attempt.alone is None:
        try:
            outcomes = np.array([code.status for code in codes], np.uint8)
            commit_shard(opened, shard, features, valid_frames, outcomes, begun=status)
        except Exception as error:  # a store's client may raise anything
            if (stop := locked_out(error) or no_room(error, opened.path)) is not None:
                raise stop from error
            raise
    return ShardResult(shard, dict(Counter(code.value for code in codes)), audio_s, tuple(notes))


def _copy(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["utterance_id"], row["variant"]
