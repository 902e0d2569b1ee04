"""`emolib known-audio`: an archive -> a file of what repeats in it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from cyclopts import Parameter, validators

from emolib.archive.plan import estimate_s
from emolib.config import HeaderlessFormat, Limits, parse_headerless
from emolib.errors import Code, SettingsError
from emolib.isolation import isolated
from emolib.sound.known_audio import KnownAudio
from emolib.sound.manifest import Recording, list_recordings
from emolib.sound.repeats import LEAST_S, find_repeats
from emolib.sound.sketches import Sketch, SketchedRecording, sketch_recordings
from emolib.storage import absolute, resolve, write_bytes
from jobs.bounds import between
from jobs.cluster import ClusterOption, WorkersOption, connect
from jobs.console import EXIT_DONE, EXIT_FAILURES, Result, audio_progress, say, say_unreadable, table
from jobs.fanout import Block, Done, fan_out, patience_s
from jobs.specs import ClusterSpec, cluster_spec

_BLOCK_S = 1200.0
_SHOWN = 20
_COLUMNS = ("number", "recordings", "uri", "channel", "start_s", "end_s")


def known_audio(
    source: str,
    *,
    out: str,
    recordings: Annotated[int, between(2, 1_000_000)] = 5,
    limit_hours: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 50.0,
    leave_out: str | None = None,
    headerless: str | None = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
) -> Result:
    """Find what is played in many calls: hold music, announcements, recorded greetings. `score` leaves it out.

    Stretches of at least 4 seconds that repeat in different recordings are written to a file for `emolib score
    --known-audio`, and beside it to a table (.csv) that says where an example of each lies: listen, and leave out what
    is none. Copies of a recording count once, if they are the same to the byte.

    Parameters
    ----------
    source
        The archive, a folder or fsspec URL, walked recursively; or a file of known audio, to leave some of it out.
    out
        The file to write, .npz.
    recordings
        In how many recordings a stretch must be.
    limit_hours
        Hours of sound (estimated) to listen to, taken evenly from the whole archive; each hour of a stereo call takes
        2 MB of memory here.
    leave_out
        Numbers of stretches of a file that are not known audio, such as 3,7.
    headerless
        What files without a header hold, by suffix, as in `emolib score`.
    """
    where, target = cluster_spec(cluster, workers=workers), resolve(out)
    page = target.with_suffix(".csv")
    if target.suffix != ".npz":
        raise SettingsError(f"--out {out} found, expected a name that ends in .npz")
    for place in (target, page):
        if place.exists():
            raise SettingsError(f"{place} exists, expected a new file: name another --out, or move it away")
    facts: dict[str, object] = {}
    exit_code = EXIT_DONE
    if resolve(source).suffix == ".npz":
        if leave_out is None:
            raise SettingsError(f"{source} is known audio already, expected an archive, or --leave-out with it")
        found = KnownAudio.load(source).without(_numbers(leave_out))
    elif leave_out is not None:
        raise SettingsError(
            f"--leave-out with {source} found, expected a file of known audio (.npz) to leave it out of"
        )
    else:
        archive, formats = absolute(source), parse_headerless(headerless) if headerless else {}
        listing = list_recordings(archive)
        taken = _sample(list(listing), 3600 * limit_hours)
        say_unreadable(listing.unreadable)
        exit_code = EXIT_FAILURES if listing.unreadable else EXIT_DONE
        if not taken:
            raise SettingsError(f"no recordings found in {source}, expected audio files")
        heard = _listen(where, archive, taken, formats)
        codes = Counter(each.code.value for each in heard)
        facts = {
            "recordings": len(taken),
            "unreadable_folders": len(listing.unreadable),
            "codes": dict(sorted(codes.items())),
            "audio_s": round(sum(each.decoded_s for each in heard), 1),
        }
        found = find_repeats(_sketches(heard), least_recordings=recordings)
    found.save(target)
    write_bytes(page, _page(found))
    _say(found, str(page))
    return Result(
        {
            "job": "known-audio",
            "out": str(target),
            "table": str(page),
            "known_audio_id": found.known_audio_id,
            **facts,
            "stretches": len(found.stretches),
            "known_audio_s": round(sum(each.duration_s for each in found.stretches), 1),
        },
        exit_code,
    )


def _sample(listed: list[Recording], limit_s: float) -> list[Recording]:
    """Take recordings by their ids, which are hashes: evenly from the whole archive, and the same ones every time."""
    taken, seconds = [], 0.0
    for each in sorted(listed, key=lambda recording: recording.recording_id):
        if seconds >= limit_s:
            break
        seconds += estimate_s(each.uri, each.size)
        taken.append(each)
    return taken


def _listen(
    where: ClusterSpec, archive: str, taken: list[Recording], formats: dict[str, HeaderlessFormat]
) -> list[SketchedRecording]:
    """Return what was heard of each recording, in their order."""
    found: dict[str, SketchedRecording] = {}
    durations_s = [{each.uri: estimate_s(each.uri, each.size) for each in group} for group in _groups(taken)]
    blocks = [Block((archive, group, formats), sum(group.values())) for group in durations_s]
    longest_s = Limits().seconds_for(max(max(group.values()) for group in durations_s))
    with connect(where) as client, audio_progress("listen", sum(block.audio_s for block in blocks)) as progress:
        for ended in fan_out(client, isolated(sketch_recordings), blocks, stall_s=patience_s(longest_s)):
            progress.advance(ended.block.audio_s)
            if isinstance(ended, Done):
                found.update((each.uri, each) for each in ended.value)
            else:
                say(f"{len(ended.block.arguments[1])} recordings left out: {ended.message}")
                found.update((uri, SketchedRecording(uri, Code.KILLED)) for uri in ended.block.arguments[1])
    return [found[each.uri] for each in taken]


def _groups(taken: list[Recording]) -> Iterator[list[Recording]]:
    group: list[Recording] = []
    for each in taken:
        group.append(each)
        if _seconds(group) >= _BLOCK_S:
            yield group
            group = []
    if group:
        yield group


def _seconds(group: list[Recording]) -> float:
    return sum(estimate_s(each.uri, each.size) for each in group)


def _sketches(heard: list[SketchedRecording]) -> list[Sketch]:
    """Return the sketches of all recordings but copies of others."""
    first = {each.content_hash: each for each in reversed(heard)}
    return [channel for each in heard if first[each.content_hash] is each for channel in each.channels]


def _page(found: KnownAudio) -> bytes:
    """Return the table of where to listen."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for number, each in enumerate(found.stretches, start=1):
        end_s = each.start_s + each.duration_s
        rows.writerow((number, each.recordings, each.uri, each.channel, f"{each.start_s:.2f}", f"{end_s:.2f}"))
    return text.getvalue().encode()


def _say(found: KnownAudio, page: str) -> None:
    if not found.stretches:
        say(f"nothing of {LEAST_S:g} s or more repeats in enough recordings: the file holds nothing")
        return
    rows = [
        [f"{number}: {each.uri}, channel {each.channel}, at {each.start_s:.1f} s", each.duration_s, each.recordings]
        for number, each in enumerate(found.stretches[:_SHOWN], start=1)
    ]
    table("known audio", ["example", "seconds", "recordings"], rows)
    say(f"{len(found.stretches)} stretches: listen to the examples in {page}; --leave-out takes out what is none")


def _numbers(text: str) -> list[int]:
    """Read ``3,7``."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise SettingsError(f"leave_out {text!r} found, expected numbers of stretches such as 3,7") from error
