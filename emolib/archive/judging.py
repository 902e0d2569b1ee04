"""Predictions against what is known of the calls: labels of windows, polarity of calls, speech activity, talk.

Predictions hold no frames of speech activity: the recordings are listened to once more, by the settings that they were
scored with, and what is found must be what stands in the predictions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from upath import UPath

from emolib.archive import truth as truths
from emolib.archive.aggregates import labels_of
from emolib.archive.ledger import runs
from emolib.archive.predictions import read, require_predictions
from emolib.archive.run_settings import RunConfig
from emolib.archive.talk import PARTIES, Talk, talk
from emolib.corpora import labels
from emolib.errors import AudioError, Outcome, SettingsError
from emolib.learning.bundle import ModelBundle
from emolib.learning.evaluation import metrics
from emolib.learning.intervals import correlation_intervals, correlations, speaker_intervals
from emolib.sound import audio
from emolib.sound.known_audio import load_known_audio
from emolib.sound.retries import retried
from emolib.sound.speech import FRAME_S, SpeechStream
from emolib.storage import AnyPath, below

_HEADLINE = ("accuracy", "uar", "macro_f1")
_CLOSE_S = 1e-6
# By the least signal-to-noise ratio of a channel, as its row says.
_NOISE = {25.0: "25 dB above noise", 15.0: "15 to 25 dB", float("-inf"): "less than 15 dB"}


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """How predictions agree with a truth.

    Attributes
    ----------
    report
        All figures, plain values for JSON.
    windows
        Every scored window of a recording that the truth knows: what is spoken in it (see
        `emolib.archive.truth.window_truth`), and the label that it got.
    calls
        By call: polarity of the customer and seconds of talk, both true and found.
    classes
        Of the confusion matrix.
    """

    report: dict[str, Any]
    windows: pd.DataFrame
    calls: pd.DataFrame
    classes: tuple[str, ...]


def judge(pred: AnyPath, truth: AnyPath, *, on_recording: Callable[[int, int], None] | None = None) -> Judgement:
    """Return how predictions agree with the truth of their archive.

    Parameters
    ----------
    pred
        The predictions, as `emolib score` wrote them.
    truth
        See `emolib.archive.truth`. Its recordings are found by their ``uri``.
    on_recording
        Called with the number of recordings that were listened to, and of all.

    Raises
    ------
    SettingsError
        If the two have no recording in common, contradict each other about who is on a channel, the model is gone or
        knows a speaker of the truth, or the recordings are no longer what was scored.
    """
    require_predictions(pred)
    known = truths.read(truth)
    found_runs = runs(pred)
    if not found_runs:
        raise SettingsError(f"{pred} has no run, expected what `emolib score` wrote: score the archive first")
    config = found_runs[-1].config
    bundle = ModelBundle.load(config.model)
    if bundle.model_id != config.model_id:
        raise SettingsError(
            f"model {bundle.model_id} found at {config.model}, expected {config.model_id}, which made the predictions; "
            "put that model back"
        )
    if others := int((read(pred, table="recordings")["scoring_fingerprint"] != config.scoring_fingerprint).sum()):
        raise SettingsError(
            f"{others} recordings in {pred} were scored by another model, or otherwise, expected one model to judge: "
            "score with --rescore first"
        )
    known["voice"] = known["corpus"] + "/" + known["speaker"]
    refuse_known(bundle, known["voice"].unique())
    recordings, channels = read(pred, table="recordings"), read(pred, table="channels")
    recordings = recordings[recordings["uri"].isin(known["uri"])]
    if recordings.empty:
        raise SettingsError(
            f"no recording of {truth} found in {pred}, expected those of its archive, such as {known['uri'].iloc[0]}: "
            "score the folder that its paths are relative to"
        )
    scored = recordings[recordings["outcome"] == Outcome.SCORED.value]
    known = known.assign(label=_numbers(known, bundle, config), polarity=labels.polarities(known))
    placed = channels.drop(columns="call_id").merge(scored[["recording_id", "uri", "call_id"]], on="recording_id")
    _refuse_other_roles(placed, known)
    windows = _windows(pred, scored, known, config.classes)
    listened = _listen(config, bundle, scored, placed, known, on_recording)
    calls = _calls(placed, known, listened)
    report = {
        "model_id": bundle.model_id,
        "task": bundle.scheme.name,
        "classes": list(config.classes),
        "speakers": sorted(known["voice"].unique()),
        "recordings": {
            "truth": int(known["uri"].nunique()),
            "found": len(recordings),
            "scored": len(scored),
            "audio_s": float(scored["decoded_s"].sum()),
        },
        "windows": _judged_windows(windows, config.classes),
        "polarity": _judged_polarity(calls),
        "speech": _judged_speech(listened),
        "talk": _judged_talk(calls),
    }
    return Judgement(report, windows, calls, config.classes)


def refuse_known(bundle: ModelBundle, voices: Iterable[str]) -> None:
    """Check that a model has never heard some speakers, each as ``corpus/speaker``.

    Raises
    ------
    SettingsError
        If it has learnt from one or was validated with one, or does not say from whom it learnt.
    """
    if "train_speakers" not in bundle.training:
        raise SettingsError(
            f"the model at {bundle.path} does not say from whom it learnt, expected a list of speakers: train it with "
            "this version of emolib, --leave-out those that it is judged by"
        )
    heard = {*bundle.training["train_speakers"], *bundle.training["validation_speakers"]}
    if leaks := sorted(heard & set(voices)):
        raise SettingsError(
            f"the model at {bundle.path} knows {', '.join(leaks)}, expected speakers that it has never heard: train it "
            f"with --leave-out {','.join(leaks)}, or compose calls of others"
        )


def _numbers(known: pd.DataFrame, bundle: ModelBundle, config: RunConfig) -> NDArray[np.int64]:
    """Return the number of each stretch's class among those that the predictions tell, -1 for none."""
    own = labels.label(known, bundle.scheme)
    shown = np.full(len(bundle.scheme.classes) + 1, -1)  # the last: no class
    for number, members in enumerate(labels_of(bundle, config.scoring).members):
        shown[list(members)] = number
    found: NDArray[np.int64] = shown[own]
    return found


def _refuse_other_roles(channels: pd.DataFrame, known: pd.DataFrame) -> None:
    roles = known.drop_duplicates(["uri", "channel"])[["uri", "channel", "role"]]
    both = channels.merge(roles, on=["uri", "channel"], suffixes=("", "_true"))
    wrong = both[both["role"].isin(PARTIES) & both["role_true"].notna() & (both["role"] != both["role_true"])]
    if len(wrong):
        first = wrong.iloc[0]
        raise SettingsError(
            f"channel {first['channel']} of {first['uri']} was scored as that of the {first['role']}, the truth says "
            f"{first['role_true']}: score it with other --channels"
        )


def _windows(pred: AnyPath, scored: pd.DataFrame, known: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    windows = read(pred, table="windows").merge(scored[["recording_id", "uri"]], on="recording_id")
    columns = ["uri", "channel", "start_s", "end_s", "emotion", "confidence"]
    windows = windows[columns].rename(columns={"emotion": "predicted"})
    roles = known.drop_duplicates(["uri", "channel"])[["uri", "channel", "role"]]
    return windows.join(truths.window_truth(windows, known, classes)).merge(roles, on=["uri", "channel"], how="left")


@dataclass(frozen=True, slots=True, eq=False)
class _Listened:
    """What was found on the channels of a recording, and what is true: masks ``(frame,)`` of each channel."""

    call_id: str
    roles: list[str | None]
    snr_db: list[float]  # not a number where nobody knows
    found: list[NDArray[np.bool_]]
    true: list[NDArray[np.bool_]]


def _listen(
    config: RunConfig,
    bundle: ModelBundle,
    scored: pd.DataFrame,
    channels: pd.DataFrame,
    known: pd.DataFrame,
    on_recording: Callable[[int, int], None] | None,
) -> list[_Listened]:
    spoken = dict(iter(known.groupby("uri")))
    of_recording = dict(iter(channels.groupby("recording_id")))
    found = []
    for count, row in enumerate(scored.itertuples(index=False), start=1):
        heard = _heard(config, row.uri, bundle.profile.features.sampling_rate)
        there = of_recording[row.recording_id].sort_values("channel")
        seconds = [int(mask.sum()) * FRAME_S for mask in heard]
        if len(there) != len(heard) or not np.allclose(there["speech_s"], seconds, atol=_CLOSE_S):
            raise SettingsError(
                f"other speech found in {row.uri} than its row says, expected what was scored: the recording or "
                "emolib has changed since, score the archive anew"
            )
        true, roles = [], []
        for channel, (mask, role) in enumerate(zip(heard, there["role"], strict=True)):
            stretches = spoken[row.uri][spoken[row.uri]["channel"] == channel]
            true.append(truths.frames(stretches["start_s"].to_numpy(), stretches["end_s"].to_numpy(), len(mask)))
            roles.append(stretches["role"].iloc[0] if len(stretches) else role)
        found.append(_Listened(row.call_id, roles, there["snr_db"].tolist(), heard, true))
        if on_recording is not None:
            on_recording(count, len(scored))
    return found


def _heard(config: RunConfig, uri: str, sampling_rate: int) -> list[NDArray[np.bool_]]:
    place = below(config.archive, uri)
    try:
        return retried(_speech, config, place, sampling_rate)
    except AudioError as error:
        raise SettingsError(
            f"{place} can't be read ({error.message}), expected the recording that was scored: put the archive back"
        ) from error


def _speech(config: RunConfig, place: UPath, sampling_rate: int) -> list[NDArray[np.bool_]]:
    level, file = config.scoring.min_level_dbfs, config.scoring.known_audio
    known = None if file is None else load_known_audio(file.path, file.known_audio_id)
    with audio.stream(place, sampling_rate=sampling_rate, headerless=config.scoring.headerless) as sound:
        streams = [
            SpeechStream(sampling_rate, min_level_dbfs=level, known_audio=known) for _ in range(sound.info.channels)
        ]
        for block in sound:
            for stream, samples in zip(streams, block, strict=True):
                stream.push(samples)
    return [stream.finish().speech for stream in streams]


def _calls(channels: pd.DataFrame, known: pd.DataFrame, listened: list[_Listened]) -> pd.DataFrame:
    """Return one row per call: the customer's polarity and the talk, true and found."""
    customer = (
        known[known["role"] == "customer"]
        .drop(columns="call_id")
        .merge(channels[["uri", "channel", "call_id"]], on=["uri", "channel"])
    )
    own = channels.merge(customer[["uri", "channel"]].drop_duplicates(), on=["uri", "channel"])
    own = own[own["windows_scored"] > 0].astype({"windows_scored": np.int64})  # of none of these it is missing
    signed = (own["polarity_positive"] - own["polarity_negative"]).astype(np.float64) * own["windows_scored"]
    calls = pd.DataFrame(
        {
            "customer": customer.groupby("call_id")["voice"].first(),
            "polarity_true": truths.polarity_s(customer),
            "polarity_found": signed.groupby(own["call_id"]).sum() / own.groupby("call_id")["windows_scored"].sum(),
        },
        index=pd.Index(sorted({each.call_id for each in listened}), name="call_id"),
    )
    for name, which in (("true", "true"), ("found", "found")):
        talks = pd.DataFrame(
            [{"call_id": each.call_id, **_talk(talk(getattr(each, which), each.roles))} for each in listened]
        )
        calls = calls.join(talks.groupby("call_id").sum(min_count=1).add_suffix(f"_{name}"))
    return calls.reset_index()


def _talk(found: Talk) -> dict[str, float | None]:
    return {
        **{f"{party}_talk_s": found.talk_s.get(party) for party in PARTIES},
        "overlap_s": found.overlap_s,
        "non_talk_s": found.non_talk_s,
    }


def _judged_windows(windows: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    parts = {"all": windows} | {str(role): part for role, part in windows.groupby("role")}
    return {name: _judged_part(part, classes) for name, part in parts.items()}


def _judged_part(part: pd.DataFrame, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return how the labels of some windows agree with what is spoken in them, and which windows do not count."""
    counted = part[part["verdict"] == truths.COUNTED]
    labelled = counted[counted["predicted"].notna()]
    verdicts = Counter(part["verdict"])
    found: dict[str, Any] = {
        "scored": len(part),
        "not_counted": {name: verdicts[name] for name in truths.NOT_COUNTED},
        "abstained": len(counted) - len(labelled),
    }
    if labelled.empty:
        return {"n": 0, **found}
    number = {name: index for index, name in enumerate(classes)}
    intervals = speaker_intervals(
        labelled["true"].map(number).to_numpy(np.int64),
        labelled["predicted"].map(number).to_numpy(np.int64),
        labelled["voice"],
        classes=len(classes),
    )
    return {**metrics(labelled, classes), "intervals": intervals, "speakers": labelled["voice"].nunique(), **found}


def _judged_polarity(calls: pd.DataFrame) -> dict[str, Any]:
    """Return how the customers' polarity correlates with the truth, call by call."""
    both = calls.dropna(subset=["polarity_true", "polarity_found"])
    true, found = (both[name].to_numpy(np.float64) for name in ("polarity_true", "polarity_found"))
    return {
        "calls": len(both),
        "customers": both["customer"].nunique(),
        **correlations(true, found),
        "intervals": correlation_intervals(true, found, both["customer"]),
        "mean_true": float(true.mean()) if len(both) else None,
        "mean_found": float(found.mean()) if len(both) else None,
    }


def _judged_speech(listened: list[_Listened]) -> dict[str, Any]:
    """Return the error of speech activity: what is missed, and what is none, against all speech."""
    seconds = {name: Counter[str]() for name in ("all", *PARTIES, *_NOISE.values())}
    for each in listened:
        for role, snr_db, found, true in zip(each.roles, each.snr_db, each.found, each.true, strict=True):
            counts = {
                "speech_s": int(true.sum()),
                "missed_s": int((true & ~found).sum()),
                "false_alarm_s": int((found & ~true).sum()),
                "silence_s": int((~true).sum()),
            }
            noise = next((name for least, name in _NOISE.items() if snr_db >= least), None)
            for name in ("all", role, noise):
                if name in seconds:
                    seconds[name].update(counts)
    return {name: _speech_error(counts) for name, counts in seconds.items() if counts}


def _speech_error(counts: Counter[str]) -> dict[str, float | None]:
    speech = counts["speech_s"]
    missed, false_alarm = (counts[name] / speech if speech else None for name in ("missed_s", "false_alarm_s"))
    return {
        **{name: round(count * FRAME_S, 2) for name, count in counts.items()},
        "missed": missed,
        "false_alarm": false_alarm,
        "error": (counts["missed_s"] + counts["false_alarm_s"]) / speech if speech else None,
    }


def _judged_talk(calls: pd.DataFrame) -> dict[str, Any]:
    """Return how far the seconds of talk in a call are off: on average with their sign, and without it."""
    report = {}
    for name in (*(f"{party}_talk_s" for party in PARTIES), "overlap_s", "non_talk_s"):
        true, found = calls[f"{name}_true"].astype(np.float64), calls[f"{name}_found"].astype(np.float64)
        both = true.notna() & found.notna()
        if both.any():
            off = (found - true)[both]
            report[name] = {
                "calls": int(both.sum()),
                "true": float(true[both].mean()),
                "found": float(found[both].mean()),
                "error": float(off.mean()),
                "absolute_error": float(off.abs().mean()),
            }
    return report
