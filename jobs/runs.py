"""Runs over an archive: what is to be done, and doing it. What `score` and `nightly` have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.compute as pc

from emolib.archive import ledger
from emolib.archive.blocks import load_bundle
from emolib.archive.forgetting import forget_buried
from emolib.archive.joining import refresh_calls
from emolib.archive.lock import Lock
from emolib.archive.overtaking import taken_by_others
from emolib.archive.promotion import successor
from emolib.archive.rewriting import make_room
from emolib.archive.run_settings import decoding_versions
from emolib.archive.scorer import score_watched
from emolib.config import differences
from emolib.errors import Code, EmolibError, Outcome, SettingsError, UnforeseenError
from emolib.isolation import MAX_UNFORESEEN, isolated, too_many_unforeseen
from emolib.sound.known_audio import load_known_audio
from jobs.cluster import connect
from jobs.console import EXIT_FAILURES, Result, StalledError, audio_progress, say, table, within_budget
from jobs.fanout import Block, Done, fan_out, patience_s
from jobs.hashing import find_duplicates
from jobs.options import Options
from jobs.tasks import SCORING_MEMORY, Gaps, Task
from jobs.workers import require_memory

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client


def carry_out(task: Task, lock: Lock) -> list[ledger.Run]:
    """Finish the open runs, then run a new one over what is due; return the runs that were closed."""
    if (promoted := successor(task.out, task.config.model_id)) is not None:
        raise SettingsError(
            f"model {promoted.model_id} was promoted while the archive was listed, found {task.config.model_id} to "
            "score with: run the same command again"
        )
    ledger.remove_unstarted(task.out, lock=lock)
    if others := ledger.strays(task.out):
        say(f"{len(others)} names in {task.out}/_runs that are no run's are left as they are: {', '.join(others[:3])}")
    forget_buried(task.out, lock=lock)
    interrupted, planned = ledger.open_runs(task.out), _unless_empty(task.plan())
    if not interrupted:
        refresh_calls(task.out, lock=lock)  # of what was erased, if that was interrupted; a run that is open will do it
        if planned is None:
            return []  # a cluster takes seconds to start
    finished: list[ledger.Run] = []
    with connect(task.where) as client:
        before_s = sum(run.totals()[1] for run in interrupted)
        for run in interrupted:
            finished += _resume(client, run, lock, task.folder)
        if interrupted:
            done_s = sum(run.totals()[1] for run in interrupted) - before_s
            choice, left_s = task.choice, max(0.0, task.choice.limit_s - done_s)
            # What is left is for the newest and for the backfill as the whole was.
            share = left_s / choice.limit_s if 0 < choice.limit_s < math.inf else 1.0
            left = replace(choice, limit_s=left_s, backfill_s=share * choice.backfill_s)
            planned = _unless_empty(replace(task, choice=left).plan())
        if planned is not None:
            if task.find_duplicates:  # which of them are, only a look at all of them tells
                together = pd.concat(planned, ignore_index=True)
                named = find_duplicates(client, task.config.archive, task.out, together, task.listed(), task.pseudonyms)
                planned = iter([named])
            gaps = Gaps(task.sources)
            counted = gaps.counted(_while_held(lock, planned))
            run = ledger.Run.create(task.out, config=task.config, plan=counted, gaps=gaps.found)
            gaps.say()
            _execute(client, run, lock)
            finished.append(run)
    return finished


def _unless_empty(parts: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame] | None:
    """Return a plan, or None where it has no rows."""
    first = next(parts, None)
    return None if first is None else chain([first], parts)


def _while_held(lock: Lock, planned: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Pass a plan on: whoever lost the lock meanwhile must not plan what the taker has planned, nor end that plan."""
    for rows in planned:
        lock.check()
        yield rows
    lock.check()


def _resume(client: Client, run: ledger.Run, lock: Lock, folder: Path) -> list[ledger.Run]:
    """Finish an interrupted run as it was planned, or close it where its model or known audio is gone."""
    sealed = run.commits.sealed_as()
    if sealed.get("abandoned"):  # whoever was closing it died
        run.close({"reason": sealed["reason"]}, lock=lock, abandoned=True)
        return []
    run.commits.settle(lock=lock)
    stored = {name: run.config.scoring_settings.get(name) for name in decoding_versions()}
    try:
        if differs := differences(stored, decoding_versions()):
            raise SettingsError(f"it was begun by another emolib: {differs}")
        load_bundle(run.config.model, run.config.model_id)
        if (file := run.config.scoring.known_audio) is not None:
            load_known_audio(file.path, file.known_audio_id)
    except SettingsError as error:
        say(f"run {run.run_id} is abandoned, its recordings are planned anew: {error}")
        run.close({"reason": str(error)}, lock=lock, abandoned=True)
        return []
    if elsewhere := taken_by_others(run, folder=folder):
        say(f"run {run.run_id} is abandoned: {elsewhere} of its recordings got their rows from another run")
        run.close({"reason": "another run scored the same recordings"}, lock=lock, abandoned=True)
        return []
    run.commits.unseal(lock=lock)
    say(f"run {run.run_id} was interrupted: continuing its plan")
    if (shadow := run.config.shadow) is not None:
        try:
            load_bundle(shadow.model, shadow.model_id)
        except (EmolibError, OSError) as error:
            say(f"the candidate of run {run.run_id} listens in on no more calls: {error}")
    _execute(client, run, lock)
    return [run]


def _execute(client: Client, run: ledger.Run, lock: Lock) -> None:
    """Score every block of a run that has no rows yet, and close the run."""
    lock.check()
    require_memory(client, SCORING_MEMORY, "to score")
    if again := make_room(run, lock=lock):
        say(f"{again} recordings changed, or failed before: their rows are replaced")
    todo = run.todo()
    blocks = [Block((str(run.pred), run.run_id, int(row.block)), float(row.estimated_s)) for row in todo.itertuples()]
    lost, heard_s, core_s, in_a_row, unforeseen = [], 0.0, 0.0, 0, ""
    with audio_progress("score", sum(block.audio_s for block in blocks)) as progress:
        for ended in fan_out(client, isolated(score_watched), blocks, stall_s=_stall_s(run)):
            lock.check()
            progress.advance(ended.block.audio_s)
            if isinstance(ended, Done):
                heard_s, core_s = heard_s + ended.value.audio_s, core_s + ended.value.seconds
                internal = ended.value.by_code.get(Code.INTERNAL.value, 0)
                in_a_row = in_a_row + internal if internal == ended.value.recordings else 0
                unforeseen = unforeseen or ended.value.unforeseen
                if in_a_row >= MAX_UNFORESEEN:
                    raise UnforeseenError(too_many_unforeseen(unforeseen))
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
    summary = {**_counts(codes), "audio_s": round(audio_s, 1), "times_real_time": speed, "gaps": run.gaps()}
    run.close(summary, lock=lock)


def _stall_s(run: ledger.Run) -> float:
    """Return how long no block may end: longer than some recordings that hang are waited for."""
    parts = run.plan_parts("estimated_s")
    longest_s = max((pc.max(part["estimated_s"]).as_py() or 0.0 for part in parts), default=0.0)
    return patience_s(run.config.limits.seconds_for(longest_s))


def _counts(codes: Mapping[str, int]) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    for code, count in codes.items():
        outcomes[Code(code).outcome.value] += count
    return {"recordings": sum(codes.values()), "outcomes": dict(outcomes), "codes": dict(sorted(codes.items()))}


def summarise(task: Task, runs: list[ledger.Run], *, job: str, seconds: float, options: Options) -> Result:
    """Say what the closed runs came to, and whether too many recordings failed."""
    codes, gaps = Counter[str](), Gaps(task.sources).found  # zeros
    audio_s = 0.0
    for run in runs:
        stored = run.summary()
        codes.update(stored["codes"])
        audio_s += stored["audio_s"]
        gaps.update(stored["gaps"])
    counts = _counts(codes)
    if codes:
        rows = [[code, Code(code).outcome.value, count] for code, count in sorted(codes.items())]
        table("recordings", ["code", "outcome", "count"], rows)
    else:
        say("nothing new to score")
    others = task.scored_otherwise()
    if others:
        say(f"{others} recordings have rows that were scored otherwise, or by another model: --rescore makes them anew")
    summary = {
        "job": job,
        "out": task.out,
        "runs": [run.run_id for run in runs],
        "listed": task.recordings,
        "left_out": dict(task.left_out),
        "unreadable_folders": len(task.unreadable),
        "ambiguous": task.ambiguous.recordings,
        **counts,
        "audio_s": round(audio_s, 1),
        **gaps,
        **task.unread_rows(),
        "left_for_later": task.left(),
        "scored_otherwise": others,
        "seconds": round(seconds, 2),
    }
    failed = counts["outcomes"].get(Outcome.FAILED.value, 0)
    budget = within_budget(failed, counts["recordings"], options.failure_budget, options.failure_count)
    return Result(summary, EXIT_FAILURES if task.unreadable else budget)
