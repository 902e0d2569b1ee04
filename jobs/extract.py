"""`emolib extract`: corpora -> feature store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from emolib import corpora as corpus_readers
from emolib.config import DECODING_VERSION, PROFILES, Limits, Profile, differences, parse
from emolib.errors import TRANSIENT, Code, Outcome, SettingsError
from emolib.features.extraction import Probe, due, extract_shard, plan_windows, probe_clips
from emolib.features.store import FeatureStore
from emolib.isolation import isolated
from emolib.sound.variants import expand
from emolib.storage import absolute, is_same
from jobs.bounds import Seed
from jobs.cluster import ClusterOption, WorkersOption, connect
from jobs.console import FailureBudget, Result, StalledError, audio_progress, listed, say, table, within_budget
from jobs.fanout import Block, Done, fan_out, patience_s
from jobs.specs import cluster_spec
from jobs.workers import require_memory

if TYPE_CHECKING:
    import pandas as pd
    from distributed import Client

ProfileName = Literal["telephone", "wideband", "article"]

_PROBES_PER_BLOCK = 256
# What a worker takes with the process that extracts (200 and 230 MB), and how often that holds the windows it computes.
_WORKER_MEMORY, _COPIES = 450 * 2**20, 3


def extract(
    corpora: Annotated[list[str], Parameter(negative=())],
    *,
    store: str,
    profile: ProfileName = "telephone",
    variants: str = "",
    resume: Annotated[bool, Parameter(negative=())] = False,
    seed: Seed = 0,
    recording_s: float = 300.0,
    recording_memory: str = "2GiB",
    failure_budget: FailureBudget = 0.05,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
) -> Result:
    """Fill a feature store from corpora of labelled clips.

    A corpus is a folder of RAVDESS, SAVEE or TESS (names decide, any container), or a table (CSV or Parquet, or a
    folder with corpus.csv) with the columns path, speaker, emotion and, if known, gender, corpus, utterance_id.

    Parameters
    ----------
    corpora
        Folders, tables or fsspec URLs.
    store
        The store to write, S.zarr.
    profile
        The front end: telephone (8 kHz, for calls), wideband (16 kHz), article (as published, 44.1 kHz).
    variants
        Copies to make of each clip, joined by commas. To learn from: telephone (one random line) or telephones
        (five). To judge by: channels, noise, or one by its name, such as ulaw, gsm, opus, noise10, reverb.
    resume
        Continue the plan of a store that an earlier run has begun. Clips that were unreadable, missing, changed, timed
        out or `internal` when they were decoded are tried again, also if the store is complete; all else stays.
    seed
        Seed of the order of the rows.
    recording_s
        Seconds that a clip may take, or a tenth of its duration where that is more; then it is given up as `timeout`.
    recording_memory
        Memory that a clip may take; one that takes more is `killed`.
    failure_budget
        Share of clips that may fail before the exit code is 1.
    """
    settings, where, store = PROFILES[profile], cluster_spec(cluster, workers=workers), absolute(store)
    copies = expand(listed(variants))
    limits = parse(Limits, {"recording_s": recording_s, "recording_memory": recording_memory})
    source = {"corpora": [absolute(corpus) for corpus in corpora], "variants": list(copies), "seed": seed}
    opened = _continued(store, settings, source) if resume else None
    utterances = None
    if opened is None:
        FeatureStore.refuse_existing(store)
        utterances = corpus_readers.read(corpora)
        for name in utterances.attrs["unrecognised"][:5]:
            say(f"not recognised, left out: {name}")
        say(f"{len(utterances)} utterances found, {len(utterances.attrs['unrecognised'])} files not recognised")
    with connect(where) as client:
        if utterances is not None:
            probes = _probe(client, list(utterances["uri"]), limits)
            rows = plan_windows(utterances, probes, profile=settings, variants=copies, seed=seed)
            opened = FeatureStore.create(store, profile=settings, windows=rows, source=source)
        assert opened is not None
        audio_s = _fill(client, opened, limits)
    opened.finish()
    return _summary(opened, audio_s, failure_budget)


def _continued(store: str, settings: Profile, source: Mapping[str, Any]) -> FeatureStore | None:
    """Return the planned store to continue, or None where there is no plan yet."""
    if not FeatureStore.is_planned(store):
        return None
    opened = FeatureStore.open(store)
    if opened.fingerprint != settings.fingerprint:
        wrong = differences(settings.fingerprinted(), opened.profile.fingerprinted())
        raise SettingsError(f"{store} has other settings: {wrong}; continue it with --profile {opened.profile.name}")
    if opened.decoding_version != DECODING_VERSION and not opened.status().all():
        found = f"{store} was begun with decoding version {opened.decoding_version}"
        raise SettingsError(f"{found}, expected {DECODING_VERSION}: its rows would not match; extract it anew")
    planned, corpora = opened.source, source["corpora"]
    theirs = planned.get("corpora", [])
    if len(corpora) == len(theirs) and all(map(is_same, corpora, theirs)):
        source = {**source, "corpora": theirs}
    if wrong := differences(source, planned):
        raise SettingsError(f"{store} was planned from something else: {wrong}; continue it as it was begun")
    return opened


def _probe(client: Client, uris: list[str], limits: Limits) -> list[Probe]:
    """Look at all clips; at those twice that may be read by then, for what is planned of them stays."""
    found = _look_at(client, uris, limits)
    # What takes too long was tried twice, and would hold up all others here.
    may_pass = set(TRANSIENT) - {Code.TIMEOUT}
    if again := [uri for uri, probe in found.items() if probe.code in may_pass]:
        say(f"{len(again)} clips could not be read, which may have passed: they are looked at again")
        found |= _look_at(client, again, limits)
    return [found[uri] for uri in uris]


def _look_at(client: Client, uris: list[str], limits: Limits) -> dict[str, Probe]:
    found: dict[str, Probe] = {}
    parts = [uris[start : start + _PROBES_PER_BLOCK] for start in range(0, len(uris), _PROBES_PER_BLOCK)]
    blocks, lost = [Block((part, limits)) for part in parts], []
    for ended in fan_out(client, isolated(probe_clips), blocks, stall_s=patience_s(limits.recording_s)):
        if isinstance(ended, Done):
            found.update((probe.uri, probe) for probe in ended.value)
        else:
            lost.append(ended.message)
    if lost:
        raise StalledError(f"{len(lost)} of {len(blocks)} blocks of clips were not looked at ({lost[0]}): run it again")
    return found


def _fill(client: Client, store: FeatureStore, limits: Limits) -> float:
    """Fill all rows that are due; return the seconds of audio that were read."""
    status, rows = store.status(), store.windows
    is_due = due(status, rows["code"])
    if again := int((is_due & (status != 0)).sum()):
        if store.decoding_version != DECODING_VERSION:
            say(f"{again} rows are not tried again: the others have decoding version {store.decoding_version}")
            return 0.0
        say(f"{again} rows failed in a way that may have passed: they are tried again")
    seconds = (rows["end_s"] - rows["start_s"]).where(is_due & (rows["code"] == Code.OK.value), 0.0)
    blocks = [
        Block((str(store.path), shard, limits), float(seconds[start:stop].sum()))
        for shard, (start, stop) in enumerate(store.shards)
        if is_due[start:stop].any()
    ]
    if len(blocks) < len(store.shards):
        say(f"{len(store.shards) - len(blocks)} of {len(store.shards)} shards are filled already")
    largest = max(stop - start for start, stop in store.shards)
    shard_bytes = largest * 4 * store.shape[1] * store.shape[2]
    require_memory(client, _WORKER_MEMORY + _COPIES * shard_bytes, f"for {largest} windows at a time")
    if store.complete and blocks:
        store.reopen()
    audio_s, lost = 0.0, []
    with audio_progress("extract", sum(block.audio_s for block in blocks)) as progress:
        longest_s = limits.seconds_for(float(rows["end_s"].max()))
        for ended in fan_out(client, isolated(extract_shard), blocks, stall_s=patience_s(longest_s)):
            progress.advance(ended.block.audio_s)
            if isinstance(ended, Done):
                audio_s += ended.value.audio_s
                for note in ended.value.notes:
                    say(note)
            else:
                lost.append(f"shard {ended.block.arguments[1]}: {ended.message}")
    if lost:
        raise StalledError(f"{len(lost)} shards are not filled ({lost[0]}): run it again with --resume")
    return audio_s


def _summary(store: FeatureStore, audio_s: float, failure_budget: float) -> Result:
    outcomes = store.utterance_codes()
    codes = Counter(outcomes.tolist())
    counts: Counter[str] = Counter()
    for code, count in codes.items():
        counts[Code(code).outcome.value] += count
    rows: pd.DataFrame = store.windows
    per_corpus = rows.drop_duplicates("utterance_id").groupby("corpus").size()
    table("utterances", ["corpus", "utterances"], [[name, int(count)] for name, count in per_corpus.items()])
    table("outcomes", ["code", "utterances"], [[code, count] for code, count in sorted(codes.items())])
    return Result(
        {
            "job": "extract",
            "store": str(store.path),
            "profile": store.profile.name,
            "fingerprint": store.fingerprint,
            "utterances": len(outcomes),
            "outcomes": dict(counts),
            "codes": dict(sorted(codes.items())),
            "windows": store.shape[0],
            "audio_s": round(audio_s, 1),
        },
        within_budget(counts[Outcome.FAILED.value], len(outcomes), failure_budget),
    )
