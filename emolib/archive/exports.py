"""Segments -> what other tools read: RTTM, the tables of audformat, CSV. Pure."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pandas as pd

_NOT_IN_CSV = ["recording_id"]


def located(segments: pd.DataFrame, recordings: pd.DataFrame, channels: pd.DataFrame) -> pd.DataFrame:
    """Return segments with what says where they were heard: columns file, call_id and role more.

    Parameters
    ----------
    segments, recordings, channels
        The tables of those names (see `emolib.archive.read`).
    """
    of_recording = recordings[["recording_id", "uri", "call_id"]].rename(columns={"uri": "file"})
    of_channel = channels[["recording_id", "channel", "role"]]
    return segments.merge(of_recording, on="recording_id").merge(of_channel, on=["recording_id", "channel"])


def rttm(located: pd.DataFrame) -> str:
    """Return segments as Rich Transcription Time Marked lines (NIST 2009): the emotion stands where the speaker would.

    White space in the name of a file is written as in URLs, because a space ends a field. Channels count from 1.

    Examples
    --------
    >>> row = {"file": "a b.wav", "channel": 0, "start_s": 1.0, "end_s": 3.5, "emotion": "sadness", "confidence": 0.75}
    >>> print(rttm(pd.DataFrame([row])), end="")
    SPEAKER a%20b.wav 1 1.000 2.500 <NA> <NA> sadness 0.750 <NA>
    """
    return "".join(
        f"SPEAKER {_one_word(row.file)} {row.channel + 1} {row.start_s:.3f} {row.end_s - row.start_s:.3f} <NA> <NA> "
        f"{_one_word(row.emotion)} {row.confidence:.3f} <NA>\n"
        for row in located.itertuples()
    )


def audformat(located: pd.DataFrame) -> str:
    """Return segments as a segmented table of audformat: indexed by file, start and end, as CSV.

    Examples
    --------
    >>> row = {"file": "a.wav", "channel": 0, "start_s": 1.0, "end_s": 3.5, "emotion": "sadness", "confidence": 0.75}
    >>> print(audformat(pd.DataFrame([{**row, "role": "agent"}])), end="")
    file,start,end,emotion,confidence,channel,role
    a.wav,0 days 00:00:01,0 days 00:00:03.500000,sadness,0.75,0,agent
    """
    table = located.assign(**{name: pd.to_timedelta(located[f"{name}_s"], unit="s") for name in ("start", "end")})
    columns = ["file", "start", "end", "emotion", "confidence", "channel", "role"]
    text: str = table[columns].to_csv(index=False, lineterminator="\n")
    return text


def plain(located: pd.DataFrame) -> str:
    """Return segments as CSV, with all that is known of them."""
    text: str = located.drop(columns=_NOT_IN_CSV).to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d")
    return text


FORMATS: dict[str, tuple[str, Callable[[pd.DataFrame], str]]] = {
    "rttm": (".rttm", rttm),
    "audformat": (".audformat.csv", audformat),
    "csv": (".csv", plain),
}
"""The suffix and the maker of each format."""


def _one_word(text: str) -> str:
    return "".join(quote(each) if each.isspace() else each for each in text)
