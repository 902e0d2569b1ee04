"""`emolib explore`: the article's pictures, of a recording or of a feature store."""

from __future__ import annotations

from typing import Annotated, Any

from emolib.config import PROFILES, parse_headerless
from emolib.errors import AudioError, SettingsError
from emolib.report.explore import explore_recording, explore_store
from emolib.storage import resolve
from jobs.bounds import Seed, between
from jobs.console import Result, say, table
from jobs.extract import ProfileName
from jobs.train import TaskOption

# Of sound: a picture of more shows nothing, and all of it is in memory.
_Duration = Annotated[float, between(0.1, 60)]


def explore(
    source: str,
    *,
    out: str,
    channel: Annotated[int, between(0, 31)] = 0,
    start_s: Annotated[float, between(0, 1e6)] = 0.0,
    duration_s: _Duration = 30.0,
    profile: ProfileName = "telephone",
    headerless: str | None = None,
    task: TaskOption = "emotion8",
    seed: Seed = 0,
) -> Result:
    """Draw a recording or a feature store: a page, a file for each picture, and summary.json.

    Of a recording: waveform, spectrograms, spectrum, spectral envelope with its formants, MFCCs. Of a store: class
    counts, durations, and k-means with as many clusters as classes beside the classes.

    Parameters
    ----------
    source
        Any audio file, or a complete store, S.zarr.
    out
        The folder to make; index.html shows everything.
    channel
        Of a recording, from 0. Channels are never mixed: in a call they are two people.
    start_s
        Where to begin in a recording.
    duration_s
        How much of a recording to draw, at most 60 seconds.
    profile
        The front end of the MFCCs of a recording; a store has its own.
    headerless
        What a file without a header holds, by suffix, as in `emolib score`, such as .raw=s16le:16000:2.
    task
        What the classes of a store are.
    seed
        Decides where k-means begins.
    """
    place = resolve(source)
    if place.name.endswith(".zarr") or (place / "zarr.json").exists():
        summary = explore_store(source, out, task=task, seed=seed)
        _say_store(summary)
    elif place.is_dir():
        raise SettingsError(f"{source} is a folder, expected an audio file or a feature store")
    else:
        try:
            summary = explore_recording(
                source,
                out,
                profile=PROFILES[profile],
                channel=channel,
                start_s=start_s,
                duration_s=duration_s,
                headerless=parse_headerless(headerless) if headerless else {},
            )
        except AudioError as error:
            raise SettingsError(f"{source} can't be drawn: {error}") from error
        _say_recording(summary)
    page = str(resolve(out) / "index.html")
    say(f"page: {page}")
    return Result({"job": "explore", "page": page, **summary})


def _say_recording(summary: dict[str, Any]) -> None:
    whole = summary["recording_s"]
    of = "" if whole is None else f" of {whole:,.1f} s"
    say(
        f"{summary['duration_s']:.1f} s{of} from {summary['start_s']:g} s on, channel {summary['channel']} "
        f"of {summary['channels']}; others: --start-s, --duration-s, --channel"
    )
    if summary["note"]:
        say(summary["note"])
    if summary["pitch_hz"] is None:
        say("no voiced moment found: no formants")
        return
    rows = [[f"F{number}", frequency] for number, frequency in enumerate(summary["formants_hz"], start=1)]
    say(f"the moment of the envelope: {summary['moment_s']:.2f} s, pitch {summary['pitch_hz']:.0f} Hz")
    table("formants", ["", "Hz"], rows)


def _say_store(summary: dict[str, Any]) -> None:
    names = list(summary["classes"])
    rows = [[number, *row] for number, row in enumerate(summary["cluster_table"], start=1)]
    table(f"clusters and classes, task {summary['task']}", ["cluster", *names], rows)
    say(f"adjusted Rand index {summary['adjusted_rand_index']:.3f} over {summary['utterances']:,} utterances")
