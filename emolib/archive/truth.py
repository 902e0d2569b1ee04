"""What is known of an archive's calls, and how predictions agree with it. Pure, but for reading and writing the table.

The truth is a Parquet table beside the archive, `COLUMNS`, one row per stretch of speech; where a channel of a
recording has no row, nobody speaks. `emolib benchmark` writes one, and so may who has listened to calls.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emolib.corpora.composed import Spoken
from emolib.errors import SettingsError
from emolib.sound.manifest import recording_id
from emolib.sound.speech import FRAME_S
from emolib.storage import AnyPath, resolve, write_bytes

COLUMNS = pa.schema(
    [
        ("uri", pa.string()),
        ("call_id", pa.string()),
        ("channel", pa.int32()),
        ("role", pa.string()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("emotion", pa.string()),
        ("speaker", pa.string()),
        ("gender", pa.string()),
        ("corpus", pa.string()),
        ("utterance_id", pa.string()),
    ]
)
"""Of the truth: a path relative to the archive, the call, who speaks when, and the emotion in the corpus's own word."""

COUNTED = "counted"
NOT_COUNTED = {
    "no_speech": "nobody speaks",
    "several_emotions": "speech of more than one class",
    "little_speech": "speech in less than half of it",
    "no_class": "an emotion that the task has no class for",
}
"""Why a scored window is not judged."""


def rows(uri: str, spoken: Iterable[Spoken]) -> pd.DataFrame:
    """Return the truth of one recording that is a call of its own."""
    found = pd.DataFrame(spoken, columns=list(Spoken._fields))
    return found.assign(uri=uri, call_id=recording_id(uri))[COLUMNS.names]


def write(path: AnyPath, truth: pd.DataFrame) -> None:
    """Write a truth as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(truth, schema=COLUMNS, preserve_index=False), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())


def read(path: AnyPath) -> pd.DataFrame:
    """Read a truth.

    Raises
    ------
    SettingsError
        If it is missing, lacks a column, or a stretch has no length.
    """
    place = resolve(path)
    try:
        with place.open("rb") as handle:
            found = pd.read_parquet(handle)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path} can't be read as a truth ({error}), expected a Parquet table such as `emolib benchmark` writes"
        ) from error
    if missing := [name for name in COLUMNS.names if name not in found]:
        raise SettingsError(f"{path} has no column {', '.join(missing)}, expected {', '.join(COLUMNS.names)}")
    if found.empty or not (found["end_s"] > found["start_s"]).all():
        raise SettingsError(
            f"{path} has {len(found)} stretches of speech, expected some, each of which ends after it begins"
        )
    return found


def window_truth(windows: pd.DataFrame, truth: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return what is spoken in windows.

    A window is judged if at least half of it is speech, and all that of one class.

    Parameters
    ----------
    windows
        With the columns ``uri``, ``channel``, ``start_s`` and ``end_s``.
    truth
        With these columns, ``label``, the number of each stretch's class (-1: none), and ``voice``, who speaks.
    classes
        The names of the classes.

    Returns
    -------
    pandas.DataFrame
        For each window, in their order: ``speech_s``; ``verdict``, `COUNTED` or one of `NOT_COUNTED`; and where it
        counts ``true``, its class, and ``voice``.

    Examples
    --------
    >>> truth = pd.DataFrame({"uri": "a", "channel": 0, "start_s": [1.0, 8.0], "end_s": [5.0, 9.0]})
    >>> truth = truth.assign(label=[0, 1], voice="me")
    >>> windows = pd.DataFrame({"uri": "a", "channel": 0, "start_s": [0.0, 4.0, 5.5], "end_s": [4.0, 8.0, 7.0]})
    >>> window_truth(windows, truth, ("fear", "joy"))[["speech_s", "verdict", "true"]].values.tolist()
    [[3.0, 'counted', 'fear'], [1.0, 'little_speech', None], [0.0, 'no_speech', None]]
    """
    found = pd.DataFrame({"speech_s": 0.0, "verdict": "no_speech", "true": None, "voice": None}, index=windows.index)
    spoken = dict(iter(truth.groupby(["uri", "channel"])))
    for key, part in windows.groupby(["uri", "channel"]):
        if key not in spoken:
            continue
        stretches = spoken[key]
        start, end = part["start_s"].to_numpy()[:, np.newaxis], part["end_s"].to_numpy()[:, np.newaxis]
        within = np.minimum(end, stretches["end_s"].to_numpy()) - np.maximum(start, stretches["start_s"].to_numpy())
        within = np.maximum(within, 0.0)
        speech_s = within.sum(axis=1)
        heard, label = within > 0, stretches["label"].to_numpy()
        first = heard.argmax(axis=1)
        one = (~heard | (label == label[first][:, np.newaxis])).all(axis=1)
        number = label[first]
        verdict = np.select(
            [speech_s == 0, ~one, speech_s < (end - start)[:, 0] / 2, number < 0],
            list(NOT_COUNTED),
            COUNTED,
        )
        counted = verdict == COUNTED
        found.loc[part.index, "speech_s"] = speech_s
        found.loc[part.index, "verdict"] = verdict
        found.loc[part.index[counted], "true"] = np.array(classes, object)[number[counted]]
        found.loc[part.index[counted], "voice"] = stretches["voice"].to_numpy()[first[counted]]
    return found


def frames(start_s: NDArray[np.float64], end_s: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Return in which frames of `emolib.sound.speech` somebody speaks: in those that are speech for at least a half.

    Parameters
    ----------
    start_s, end_s
        Of stretches of speech that do not overlap, ``(stretch,)``.
    count
        Number of frames.

    Examples
    --------
    >>> frames(np.array([0.04]), np.array([0.1]), 4).tolist()
    [False, True, True, False]
    """
    edges = np.arange(count + 1) * FRAME_S
    inside = [np.clip(edges, start, end) - start for start, end in zip(start_s, end_s, strict=True)]
    found: NDArray[np.bool_] = np.diff(np.sum([np.zeros(count + 1), *inside], axis=0)) >= FRAME_S / 2 - 1e-9
    return found


def polarity_s(truth: pd.DataFrame) -> pd.Series:
    """Return the mean polarity of each stretch's party over the seconds that it speaks, by ``call_id``.

    Parameters
    ----------
    truth
        Of one role, with ``call_id``, ``start_s``, ``end_s`` and ``polarity`` (a word).

    Returns
    -------
    pandas.Series
        From -1, all negative, to 1, all positive.

    Examples
    --------
    >>> truth = pd.DataFrame({"call_id": "a", "start_s": [0.0, 3.0], "end_s": [3.0, 4.0]})
    >>> polarity_s(truth.assign(polarity=["negative", "positive"])).to_dict()
    {'a': -0.5}
    """
    seconds = truth["end_s"] - truth["start_s"]
    signed = seconds * truth["polarity"].map({"negative": -1.0, "neutral": 0.0, "positive": 1.0})
    found: pd.Series = signed.groupby(truth["call_id"]).sum() / seconds.groupby(truth["call_id"]).sum()
    return found
