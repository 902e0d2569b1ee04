"""Runs over an archive: what is to be done, and doing it. What `score` and `nightly` have in common."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
from cyclopts import Parameter, validators
from cyclopts.types import NonNegativeInt

from emolib.archive import ledger
from emolib.archive.blocks import load_bundle
from emolib.archive.forgetting import forget_buried, without_buried
from emolib.archive.isolation import SLOWEST, score_apart
from emolib.archive.joining import refresh_calls
from emolib.archive.lock import Lock
from emolib.archive.metadata import Sources, calls_table, pattern_of
from emolib.archive.plan import Choice, due, estimate_s, listing_table, plan as plan_recordings
from emolib.archive.promotion import successor
from emolib.archive.pseudonyms import Pseudonyms
from emolib.archive.rewriting import make_room
from emolib.archive.run_settings import RunConfig, run_config, scoring_fingerprint, shadow_of
from emolib.archive.shadow import Shadow
from emolib.config import Limits, ScoringConfig, parse, parse_headerless
from emolib.errors import Code, EmolibError, Outcome, SettingsError
from emolib.learning.bundle import ModelBundle
from emolib.sound.known_audio import KnownAudio, load_known_audio
from emolib.sound.manifest import list_recordings
from emolib.storage import absolute
from jobs import spelling
from jobs.cluster import ClusterOption, WorkersOption, connect
from jobs.console import FailureBudget, Result, StalledError, audio_progress, say, table, within_budget
from jobs.fanout import Block, Done, fan_out
from jobs.hashing import find_duplicates
from jobs.specs import ClusterSpec, cluster_spec
from jobs.workers import require_memory

if TYPE_CHECKING:
    from distributed import Client

# A block is at most so much audio (some seconds of work), and a short night is cut into several blocks per core all
# the same, but not into such as take longer to plan, commit and report than to score.
_LARGEST_BLOCK_S, _SMALLEST_BLOCK_S, _BLOCKS_PER_CORE = 4 * 3600.0, 600.0, 8
_STALL_S = 1800.0
SCORING_MEMORY = 600 * 2**20
"""What a worker takes with its scorer, in bytes; sound streams, so that it is the same for every block."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """How an archive is scored, and where.

    Parameters
    ----------
    model
        The model bundle.
    channels
        Which party is on which channel, such as 0=agent,1=customer. Where that depends on the direction of a call it is
        given several times: inbound:0=customer,1=agent and outbound:0=agent,1=customer.
    roles
        The roles to score, such as customer,agent. Once channels are named only customers are scored: inferring the
        emotions of employees at work is prohibited in the EU (AI Act, Article 5(1)(f)).
    hop_s
        Distance between windows in seconds; the model's own if not given.
    min_level_dbfs
        What lies below this level is silence.
    min_speech_s
        Windows with fewer seconds of speech get no label.
    expose_gender
        Keep the gender in the labels of a model that tells it (emotion2).
    priors
        How frequent each emotion is in the archive, such as negative=0.1,neutral=0.8,positive=0.1: the probabilities
        are corrected for it. `emolib report` estimates it from predictions that were made without. A threshold that
        `train --precision` found holds for uncorrected ones.
    known_audio
        Hold music and announcements that get no label: a file that `emolib known-audio` made.
    headerless
        What files without a header hold, by suffix, such as .ulaw=ulaw,.g722=g722,.raw=s16le:16000:2 (encoding, rate in
        Hz, channels). Encodings: ulaw, alaw, gsm, s16le, s16be, u8, vox, g722, g726, g726le, g729.
    pattern
        What the paths of recordings say of their calls: a regular expression with named groups, such as
        `(?P<site>[a-z]+)/(?P<call_id>[0-9]+)_(?P<direction>in|out)`. Names: call_id, date (year, month, day), direction
        (inbound or in, outbound or out), agent, queue, site; any other goes to the column extra.
    calls_table
        A table of calls, CSV or Parquet, a path or URL, with a column call_id and columns of those names; any other
        goes to extra. What a path says goes before. A call is looked for by the id in the path, else by the name of the
        file without suffix. Recordings of which neither knows anything are planned as without them.
    find_duplicates
        Read every new file before anything is scored, and do not score those that have the same bytes as another one.
    pseudonyms
        A file with a secret key: the tables hold keyed hashes in place of paths, call_id and agent, and no `extra`.
    shadow
        A candidate, another model bundle for the same features and classes: it listens in on some calls, and its rows,
        which count for nothing, lie under _shadow. `emolib promote` compares it with the model, and lets it take over.
    shadow_share
        Share of the calls that it listens in on.
    block_s
        Seconds of audio of one task; chosen by the size of the archive if not given.
    batch
        Windows that the model sees at once; changes no number.
    recording_s
        Seconds that a recording may take, or a tenth of its duration where that is more; then it is given up as
        `timeout`. Recordings take far less.
    recording_memory
        Memory that scoring a recording may take; one that takes more is `killed`.
    retry
        Codes to try once more, such as killed,corrupt, however often they were tried. Without it recordings are scored
        again if their file changed, and up to three times if they were unreadable, missing, changed or timed out.
    rescore
        Score again what was scored with other settings of the same model, or by the model before the one that was
        promoted. `nightly` takes as much of it as its limits leave.
    failure_budget
        Share of recordings that may fail before the exit code is 1.
    failure_count
        So many may fail whatever share that is: of few recordings, as of a night on which little is new, a few that
        are tried again are many.
    """

    model: str
    channels: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    roles: str | None = None
    hop_s: float | None = None
    min_level_dbfs: float = -60.0
    min_speech_s: float = 0.4
    expose_gender: Annotated[bool, Parameter(negative=())] = False
    priors: str | None = None
    known_audio: str | None = None
    headerless: str | None = None
    pattern: str | None = None
    calls_table: str | None = None
    find_duplicates: Annotated[bool, Parameter(negative=())] = False
    pseudonyms: str | None = None
    shadow: str | None = None
    shadow_share: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1))] = 0.1
    block_s: float | None = None
    batch: int = 64
    recording_s: float = 300.0
    recording_memory: str = "2GiB"
    retry: str | None = None
    rescore: Annotated[bool, Parameter(negative=())] = False
    failure_budget: FailureBudget = 0.05
    failure_count: NonNegativeInt = 0
    cluster: ClusterOption = None
    workers: WorkersOption = None

    def scoring(self) -> ScoringConfig:
        """Return what of it changes the rows.

        Raises
        ------
        SettingsError
            If an option is spelt otherwise or not valid, or the known audio can't be read.
        """
        channels = spelling.channels(self.channels)
        return parse(
            ScoringConfig,
            {
                "hop_s": self.hop_s,
                "channels": channels.pop("", {}),
                "channels_by_direction": channels,
                "roles": tuple(self.roles.split(",")) if self.roles else (),
                "min_level_dbfs": self.min_level_dbfs,
                "min_speech_s": self.min_speech_s,
                "expose_gender": self.expose_gender,
                "headerless": parse_headerless(self.headerless) if self.headerless else {},
                "priors": spelling.priors(self.priors),
                "known_audio": _known_audio(self.known_audio),
            },
        )

    def sources(self) -> Sources:
        """Return what is said of calls beside their sound.

        Raises
        ------
        SettingsError
            If the pattern or the table is none, or says nothing of calls.
        """
        return Sources(
            pattern=None if self.pattern is None else pattern_of(self.pattern),
            calls=None if self.calls_table is None else calls_table(self.calls_table),
        )


@dataclass(frozen=True)
class Task:
    """What is to be scored: a listed archive, the settings, and which of the recordings a run takes.

    Attributes
    ----------
    out
        The predictions.
    """

    out: str
    listing: pd.DataFrame
    config: RunConfig
    where: ClusterSpec
    choice: Choice
    sources: Sources
    find_duplicates: bool
    pseudonyms: Pseudonyms | None

    def left(self) -> int:
        """Return how many listed recordings are to be scored, or tried again, by a later run."""
        all_due, known = Choice(keep_since=self.choice.keep_since, rescore=self.choice.rescore), self.known()
        planned = plan_recordings(self.listed(), known, block_s=math.inf, choice=all_due, sources=self.sources)
        return len(self._named(planned))

    def known(self) -> pd.DataFrame:
        """Return what has its row."""
        return ledger.known(self.out, "scoring_fingerprint")

    def listed(self) -> pd.DataFrame:
        """Return the listing without what was erased meanwhile: listing takes long, and no lock is held for it."""
        return without_buried(self.out, self.listing)

    def plan(self) -> pd.DataFrame:
        """Return the plan of a run that would begin now."""
        known, rates = self.known(), ledger.byte_rates(self.out)
        planned = plan_recordings(
            self.listed(),
            known,
            block_s=self.config.block_s,
            max_recordings=self.config.max_recordings,
            byte_rates=rates,
            choice=self.choice,
            sources=self.sources,
        )
        return self._named(planned)

    def _named(self, planned: pd.DataFrame) -> pd.DataFrame:
        """Return a plan by its pseudonyms, if there are any, without calls that were erased."""
        named = planned if self.pseudonyms is None else self.pseudonyms.planned(planned)
        return without_buried(self.out, named, by="call_id")


def prepare(archive: str, out: str, options: Options, choice: Choice | None = None) -> Task:
    """Check the options and the model, and list the archive.

    Raises
    ------
    SettingsError
        If something is wrong with the options, the model, the archive or the predictions that are there.
    GoldenCheckError
        If this machine does not reproduce the model's numbers.
    """
    where, sources = cluster_spec(options.cluster, workers=options.workers), options.sources()
    model, bundle = _model(options.model, out)
    scoring, block_s = options.scoring(), options.block_s
    if options.batch < 1 or (block_s is not None and not 0 < block_s < math.inf):
        raise SettingsError(f"batch {options.batch} and block_s {block_s} found, expected numbers above zero")
    recordings = list_recordings(archive)
    listing = listing_table(recordings)
    if listing.empty:
        raise SettingsError(f"no recordings found in {archive}, expected audio files")
    pseudonyms = None if options.pseudonyms is None else Pseudonyms.load(options.pseudonyms)
    listing = without_buried(out, listing if pseudonyms is None else pseudonyms.listed(listing))
    again = scoring_fingerprint(bundle, scoring) if options.rescore else None
    choice = replace(choice or Choice(), retry=spelling.codes(options.retry), rescore=again)
    rates, waiting = ledger.byte_rates(out), due(listing, ledger.known(out, "scoring_fingerprint"), choice)
    total_s = sum(estimate_s(uri, size, rates) for uri, size in zip(waiting["uri"], waiting["size"], strict=True))
    config = run_config(
        bundle,
        model=model,
        archive=archive,
        scoring=scoring,
        batch=options.batch,
        block_s=block_s or _block_s(min(total_s, choice.limit_s)),
        limits=parse(Limits, {"recording_s": options.recording_s, "recording_memory": options.recording_memory}),
        pattern=options.pattern,
        calls_table=None if options.calls_table is None else absolute(options.calls_table),
        pseudonyms=None if pseudonyms is None else pseudonyms.key_id,
        shadow=_shadow(options, bundle, scoring),
    )
    ledger.check_out(out, config, rescore=options.rescore)
    for last in ledger.runs(out)[-1:]:
        if (last.config.pattern, last.config.calls_table) != (config.pattern, config.calls_table):
            say("another pattern, or table of calls, than the last run had: rows that are there stay as they are")
    say(f"{len(listing)} recordings listed, {sum(recordings.left_out.values())} other files left out")
    return Task(out, listing, config, where, choice, sources, options.find_duplicates, pseudonyms)


def _model(path: str, out: str) -> tuple[str, ModelBundle]:
    """Load the model that was asked for, or the one that was promoted to its place; return where it lies, too."""
    bundle = ModelBundle.load(path)
    if (promoted := successor(out, bundle.model_id)) is not None:
        say(f"model {promoted.model_id} was promoted on {promoted.time}: it scores in place of {bundle.model_id}")
        try:
            return promoted.model, load_bundle(promoted.model, promoted.model_id)
        except SettingsError as error:
            raise SettingsError(
                f"model {promoted.model_id}, which was promoted in {out}, is not at {promoted.model}: put it back, or "
                "`emolib promote` it from where it lies"
            ) from error
    bundle.check_golden()
    return path, bundle


def _shadow(options: Options, bundle: ModelBundle, scoring: ScoringConfig) -> Shadow | None:
    """Look at the candidate, if there is one."""
    if options.shadow is None:
        return None
    candidate = ModelBundle.load(options.shadow)
    candidate.check_golden()
    if candidate.model_id == bundle.model_id:
        say(f"candidate {candidate.model_id} is the model itself: nobody listens in")
        return None
    return shadow_of(candidate, model=options.shadow, share=options.shadow_share, bundle=bundle, config=scoring)


def carry_out(task: Task, lock: Lock) -> list[ledger.Run]:
    """Finish the open runs, then run a new one over what is due; return the runs that were closed."""
    if (promoted := successor(task.out, task.config.model_id)) is not None:
        raise SettingsError(
            f"model {promoted.model_id} was promoted while the archive was listed, found {task.config.model_id} to "
            "score with: run the same command again"
        )
    ledger.remove_unstarted(task.out)
    forget_buried(task.out)
    interrupted, planned = ledger.open_runs(task.out), task.plan()
    if not interrupted:
        refresh_calls(task.out)  # of what was erased, if that was interrupted; a run that is open will do it
        if planned.empty:
            return []  # a cluster takes seconds to start
    finished: list[ledger.Run] = []
    with connect(task.where) as client:
        before_s = sum(run.totals()[1] for run in interrupted)
        for run in interrupted:
            finished += _resume(client, run, lock)
        if interrupted:
            done_s = sum(run.totals()[1] for run in interrupted) - before_s
            choice, left_s = task.choice, max(0.0, task.choice.limit_s - done_s)
            # What is left is for the newest and for the backfill as the whole was.
            share = left_s / choice.limit_s if 0 < choice.limit_s < math.inf else 1.0
            left = replace(choice, limit_s=left_s, backfill_s=share * choice.backfill_s)
            planned = replace(task, choice=left).plan()
        if len(planned):
            if task.find_duplicates:
                planned = find_duplicates(
                    client, task.config.archive, task.out, planned, task.listed(), task.pseudonyms
                )
            _say_gaps(task, planned)
            lock.check()  # whoever lost it meanwhile must not plan what the taker has planned
            run = ledger.Run.create(task.out, config=task.config, plan=planned)
            _execute(client, run, lock)
            finished.append(run)
    return finished


def paths_of(planned: pd.DataFrame) -> pd.Series:
    """Return where planned recordings lie in the archive: a pseudonym is no path."""
    return planned["path"].where(planned["path"].notna(), planned["uri"])


_GAPS = {
    "pattern_unmatched": "the pattern is not found in their paths",
    "table_unknown": "the table knows no such call",
}


def _say_gaps(task: Task, planned: pd.DataFrame) -> None:
    """Say of how many planned recordings the pattern, or the table of calls, knows nothing."""
    for gap, count in task.sources.gaps(paths_of(planned).tolist()).items():
        if count:
            say(f"{count} of {len(planned)} recordings: {_GAPS[gap]}")


def _resume(client: Client, run: ledger.Run, lock: Lock) -> list[ledger.Run]:
    """Finish an interrupted run as it was planned, or close it where its model or known audio is gone."""
    try:
        load_bundle(run.config.model, run.config.model_id)
        if (file := run.config.scoring.known_audio) is not None:
            load_known_audio(file.path, file.known_audio_id)
    except SettingsError as error:
        say(f"run {run.run_id} is abandoned, its recordings are planned anew: {error}")
        run.close({"reason": str(error)}, abandoned=True)
        return []
    elsewhere = _taken_by_others(run)
    if elsewhere:
        say(f"run {run.run_id} is abandoned: {elsewhere} of its recordings got their rows from another run")
        run.close({"reason": "another run scored the same recordings"}, abandoned=True)
        return []
    say(f"run {run.run_id} was interrupted: continuing its plan")
    if (shadow := run.config.shadow) is not None:
        try:
            load_bundle(shadow.model, shadow.model_id)
        except (EmolibError, OSError) as error:
            say(f"the candidate of run {run.run_id} listens in on no more calls: {error}")
    _execute(client, run, lock)
    return [run]


def _taken_by_others(run: ledger.Run) -> int:
    """Count recordings of a run's open blocks that have a row: a run that lost its lock had planned them too."""
    known, plan = ledger.known(run.pred), run.plan()
    others = known[known["run_id"] != run.run_id].sort_values("run_id").drop_duplicates("recording_id", keep="last")
    others = others.set_index("recording_id")["run_id"]
    left = plan[plan["block"].isin(run.todo()["block"]) & plan["recording_id"].isin(others.index)]
    older = others.reindex(left["recording_id"]).to_numpy() < run.run_id
    return int((~(older & left["replaces"].eq(True))).sum())


def _execute(client: Client, run: ledger.Run, lock: Lock) -> None:
    """Score every block of a run that has no rows yet, and close the run."""
    lock.check()
    require_memory(client, SCORING_MEMORY, "to score")
    if again := make_room(run):
        say(f"{again} recordings changed, or failed before: their rows are replaced")
    todo = run.todo()
    blocks = [Block((str(run.pred), run.run_id, int(row.block)), float(row.estimated_s)) for row in todo.itertuples()]
    lost, heard_s, core_s = [], 0.0, 0.0
    with audio_progress("score", sum(block.audio_s for block in blocks)) as progress:
        for ended in fan_out(client, score_apart, blocks, stall_s=_stall_s(run)):
            lock.check()
            progress.advance(ended.block.audio_s)
            if isinstance(ended, Done):
                heard_s, core_s = heard_s + ended.value.audio_s, core_s + ended.value.seconds
            else:
                lost.append(f"block {ended.block.arguments[2]}: {ended.message}")
    if lost:
        raise StalledError(
            f"{len(lost)} of {len(blocks)} blocks could not be scored ({lost[0]}); the rest is stored: "
            "run the same command again, with more memory for the workers if they died"
        )
    codes, audio_s = run.totals()
    lock.check()
    speed = round(heard_s / core_s, 1) if core_s else None
    run.close({**_counts(codes), "audio_s": round(audio_s, 1), "times_real_time": speed})


def _stall_s(run: ledger.Run) -> float:
    """Return how long no block may end: longer than a recording that hangs is waited for, twice."""
    longest_s = float(run.plan()["estimated_s"].max())
    return _STALL_S + 2 * max(run.config.limits.recording_s, longest_s / SLOWEST)


def _counts(codes: Mapping[str, int]) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    for code, count in codes.items():
        outcomes[Code(code).outcome.value] += count
    return {"recordings": sum(codes.values()), "outcomes": dict(outcomes), "codes": dict(sorted(codes.items()))}


def summarise(task: Task, runs: list[ledger.Run], *, job: str, seconds: float, options: Options) -> Result:
    """Say what the closed runs came to, and whether too many recordings failed."""
    codes: Counter[str] = Counter()
    audio_s = 0.0
    for run in runs:
        stored = run.summary()
        codes.update(stored["codes"])
        audio_s += stored["audio_s"]
    counts = _counts(codes)
    if codes:
        rows = [[code, Code(code).outcome.value, count] for code, count in sorted(codes.items())]
        table("recordings", ["code", "outcome", "count"], rows)
    else:
        say("nothing new to score")
    others = int((task.known()["scoring_fingerprint"] != task.config.scoring_fingerprint).sum())
    if others:
        say(f"{others} recordings have rows that were scored otherwise, or by another model: --rescore makes them anew")
    summary = {
        "job": job,
        "out": task.out,
        "runs": [run.run_id for run in runs],
        "listed": len(task.listing),
        **counts,
        "audio_s": round(audio_s, 1),
        "left_for_later": task.left(),
        "scored_otherwise": others,
        "seconds": round(seconds, 2),
    }
    failed = counts["outcomes"].get(Outcome.FAILED.value, 0)
    return Result(summary, within_budget(failed, counts["recordings"], options.failure_budget, options.failure_count))


def _known_audio(path: str | None) -> dict[str, str] | None:
    """Name the file, and what it holds."""
    if path is None:
        return None
    return {"path": absolute(path), "known_audio_id": KnownAudio.load(path).known_audio_id}


def _block_s(total_s: float) -> float:
    return min(_LARGEST_BLOCK_S, max(_SMALLEST_BLOCK_S, total_s / (_BLOCKS_PER_CORE * (os.cpu_count() or 1))))
