"""`emolib benchmark`: corpora -> calls of which everything is known."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated

import pandas as pd
from cyclopts import Parameter

from emolib import corpora as corpus_readers
from emolib.archive import truth as truths
from emolib.corpora.composed import compose, pairs
from emolib.errors import AudioError, Code, SettingsError
from emolib.sound import audio
from emolib.sound.conversation import RATE, Clip, clip
from emolib.sound.retries import retried
from emolib.sound.speech_codecs import wav
from emolib.storage import is_local, new_folder, write_bytes
from jobs.bounds import Seed, between
from jobs.console import Result, audio_progress, listed, say, table

_FIRST_DAY = datetime(2024, 5, 1, 12, tzinfo=UTC)  # at noon it is the same date in most time zones
_DAYS = 5


def benchmark(
    corpora: Annotated[list[str], Parameter(negative=())],
    *,
    out: str,
    speakers: str = "",
    calls: Annotated[int, between(1, 1_000_000)] = 100,
    duration_s: Annotated[float, between(10, 4 * 3600)] = 120.0,
    seed: Seed = 0,
) -> Result:
    """Make two-party telephone calls with known emotions from clips of speakers that a model has never heard.

    Utterances of two speakers a call, in turns, with pauses, overlaps and tones, each through a random telephone line:
    8 kHz stereo WAV of µ-law or A-law, the agent on channel 0, the customer on channel 1. OUT/calls is the archive to
    score, OUT/truth.parquet says who speaks when and with which emotion; `emolib evaluate --archive` compares.

    Parameters
    ----------
    corpora
        Folders, tables or fsspec URLs, as for `emolib extract`.
    out
        The folder to make.
    speakers
        Who speaks, joined by commas, such as ravdess/03,ravdess/04: those that `emolib train --leave-out` named.
        Everybody, if not given.
    calls
        How many.
    duration_s
        How long they are on average.
    seed
        The same seed gives the same bytes.
    """
    folder = new_folder(out)
    utterances = corpus_readers.read(corpora)
    utterances = utterances[utterances["code"] == Code.OK.value]
    names = utterances["corpus"] + "/" + utterances["speaker"]
    who = listed(speakers) or sorted(names.unique())
    if strange := sorted(set(who) - set(names)):
        raise SettingsError(
            f"no utterance of {', '.join(strange)} found, expected some of {', '.join(sorted(names.unique()))}"
        )
    parties = pairs(sorted(set(who)), calls=calls, seed=seed)
    hear, unheard = lru_cache(maxsize=2048)(_hear), set[str]()

    def heard(uri: str) -> Clip | None:
        found = hear(uri)
        if found is None:
            unheard.add(uri)
        return found

    tables, total_s = [], 0.0
    with audio_progress("calls", calls * duration_s) as progress:
        for number, (agent, customer) in enumerate(parties):
            call = compose(
                utterances, agent=agent, customer=customer, hear=heard, duration_s=duration_s, seed=seed, number=number
            )
            moment = _FIRST_DAY + timedelta(days=number * _DAYS // calls, seconds=number % 3600)
            uri = f"{moment:%Y-%m-%d}/call-{number + 1:04d}.wav"
            place = folder / "calls" / uri
            write_bytes(place, wav(call.signal, "alaw" if number % 2 else "ulaw"))
            if is_local(place):
                os.utime(str(place), (moment.timestamp(), moment.timestamp()))
            tables.append(truths.rows(uri, call.spoken))
            total_s += call.signal.shape[1] / RATE
            progress.advance(duration_s)
    truth = pd.concat(tables, ignore_index=True)
    truths.write(folder / "truth.parquet", truth)  # last: an interrupted archive has none
    for uri in sorted(unheard)[:5]:
        say(f"nothing to be heard, left out: {uri}")
    say(f"{calls} calls of {len(set(who))} speakers, {total_s / 60:.0f} minutes")
    minutes = truth.assign(minutes=(truth["end_s"] - truth["start_s"]) / 60).pivot_table(
        index="emotion", columns="role", values="minutes", aggfunc="sum", fill_value=0.0
    )
    table(
        "minutes of speech",
        ["emotion", *minutes],
        [[emotion, *map(float, row)] for emotion, row in zip(minutes.index, minutes.to_numpy(), strict=True)],
    )
    return Result(
        {
            "job": "benchmark",
            "archive": str(folder / "calls"),
            "truth": str(folder / "truth.parquet"),
            "calls": calls,
            "speakers": sorted(set(who)),
            "audio_s": round(total_s, 1),
            "speech_s": {role: round(60 * float(minutes[role].sum()), 1) for role in minutes},
            "utterances": int(truth["utterance_id"].nunique()),
            "unheard": len(unheard),
        }
    )


def _hear(uri: str) -> Clip | None:
    try:
        return clip(retried(audio.read, uri, sampling_rate=RATE).signal.mean(axis=0))
    except AudioError:
        return None
