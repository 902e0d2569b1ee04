"""What a run would do, and leave: what `--plan` of `score` and `nightly` says. Nothing is started."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from emolib.archive import ledger
from emolib.archive.calls import against_policy
from emolib.archive.plan import due
from emolib.errors import AudioError
from emolib.sound import audio
from emolib.storage import resolve
from jobs.console import Result, say, table
from jobs.runs import SCORING_MEMORY, Task, paths_of

_LOOKED_AT = 500  # recordings, at most, whose channels are counted
_TIMES_REAL_TIME = 1000.0  # seconds of sound that a core scores in a second, until a run has measured it


def show_plan(task: Task, *, job: str) -> Result:
    """Say what would be done."""
    open_runs = ledger.open_runs(task.out)
    planned = task.plan()
    waiting = len(due(task.listed(), task.known(), task.choice))
    hours = planned["estimated_s"].sum() / 3600
    by_date = planned.groupby("date").agg(recordings=("uri", "size"), hours=("estimated_s", "sum"))
    core_hours = hours / (ledger.speed(task.out) or _TIMES_REAL_TIME)
    memory = f"{SCORING_MEMORY / 2**30:.1f} GiB a worker"
    limit = f"a recording that asks for {task.config.limits.recording_memory} more is given up"
    say(f"about {core_hours:.2f} hours of one core, {memory}; {limit}")
    table(
        "plan",
        ["date", "recordings", "hours (estimated)"],
        [[d, int(r.recordings), r.hours / 3600] for d, r in by_date.iterrows()],
    )
    policy = _against_policy(task, planned)
    if policy:
        table(
            "skipped by policy, of those looked at",
            ["roles of the channels", "recordings"],
            [*map(list, policy.items())],
        )
    return Result(
        {
            "job": job,
            "plan": True,
            "listed": len(task.listing),
            "to_score": len(planned),
            "scored_again": int(planned["replaces"].sum()),
            "scored_before": len(task.listing) - waiting,
            "left_for_later": waiting - len(planned),
            **task.sources.gaps(paths_of(planned).tolist()),
            "against_policy": policy,
            "blocks": int(planned["block"].nunique()),
            "estimated_hours": round(float(hours), 3),
            "core_hours": round(float(core_hours), 6),
            "open_runs": [run.run_id for run in open_runs],
        }
    )


def _against_policy(task: Task, planned: pd.DataFrame) -> dict[str, int]:
    """Count by their roles the planned recordings that policy leaves unscored; of many a sample is looked at."""
    scoring, policy = task.config.scoring, Counter[str]()
    if scoring.scored_roles is None or planned.empty:
        return {}
    chosen = planned.iloc[:: -(-len(planned) // _LOOKED_AT)]
    looked_at = 0
    for uri, direction in zip(paths_of(chosen), chosen["direction"], strict=True):
        try:
            channels = audio.probe(resolve(task.config.archive) / uri, headerless=scoring.headerless).channels
        except (AudioError, ValueError):  # it will fail, whatever its roles
            continue
        looked_at += 1
        if roles := against_policy(channels, scoring, direction):
            policy[roles] += 1
    return {"looked_at": looked_at, **dict(sorted(policy.items()))}
