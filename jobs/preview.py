"""What a run would do, and leave: what `--plan` of `score` and `nightly` says. Nothing is started."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from emolib.archive import ledger
from emolib.archive.calls import against_policy
from emolib.archive.plan import PLAN_SCHEMA
from emolib.errors import AudioError
from emolib.sound import audio
from emolib.storage import below
from jobs.console import Result, say, table
from jobs.tasks import SCORING_MEMORY, Gaps, Task, paths_of

_LOOKED_AT = 500  # recordings, at most, whose channels are counted
_TIMES_REAL_TIME = 1000.0  # seconds of sound that a core scores in a second, until a run has measured it


def show_plan(task: Task, *, job: str) -> Result:
    """Say what would be done."""
    open_runs, gaps, sample = ledger.open_runs(task.out), Gaps(task.sources), _Sample()
    by_date: dict[str, list[float]] = {}
    recordings = again = blocks = 0
    for rows in gaps.counted(task.plan()):
        recordings, again = recordings + len(rows), again + int(rows["replaces"].sum())
        blocks = int(rows["block"].max()) + 1
        for date, seconds in rows.groupby("date")["estimated_s"].agg(["size", "sum"]).iterrows():
            kept = by_date.setdefault(str(date), [0.0, 0.0])
            kept[0], kept[1] = kept[0] + seconds["size"], kept[1] + seconds["sum"]
        sample.take(rows)
    gaps.say()
    hours = sum(seconds for _, seconds in by_date.values()) / 3600
    core_hours = hours / (ledger.speed(task.out) or _TIMES_REAL_TIME)
    memory = f"{SCORING_MEMORY / 2**30:.1f} GiB a worker"
    limit = f"a recording that asks for {task.config.limits.recording_memory} more is given up"
    say(f"about {core_hours:.2f} hours of one core, {memory}; {limit}")
    table(
        "plan",
        ["date", "recordings", "hours (estimated)"],
        [[date, int(count), seconds / 3600] for date, (count, seconds) in sorted(by_date.items())],
    )
    skipped = {reason: count for reason, count in task.skipped().items() if count}
    later = sum(count for reason, count in skipped.items() if reason not in ("erased", "beyond_retention"))
    if skipped:
        table("left, and why", ["why", "recordings"], [[_WHY[reason], count] for reason, count in skipped.items()])
    if task.find_duplicates:
        say("copies of one recording are looked for when a run begins: they are planned here, and scored once")
    policy = _against_policy(task, sample.rows())
    if policy:
        table(
            "skipped by policy, of those looked at",
            ["roles of the channels", "recordings"],
            [[roles, count] for roles, count in policy.items() if roles != "looked_at"],
        )
    return Result(
        {
            "job": job,
            "plan": True,
            "listed": task.recordings,
            "left_out": dict(task.left_out),
            "unreadable_folders": len(task.unreadable),
            "ambiguous": task.ambiguous.recordings,
            "to_score": recordings,
            "scored_again": again,
            "scored_before": task.recordings - recordings - later - skipped.get("beyond_retention", 0),
            "left_for_later": later,
            "skipped": skipped,
            "memory": {"worker_bytes": SCORING_MEMORY, "recording": task.config.limits.recording_memory},
            **gaps.found,
            **task.unread_rows(),
            "against_policy": policy,
            "blocks": blocks,
            "estimated_hours": round(float(hours), 3),
            "core_hours": round(float(core_hours), 6),
            "open_runs": [run.run_id for run in open_runs],
        }
    )


_WHY = {
    "erased": "erased: never scored again",
    "settling": "changed a moment ago: may still be written to",
    "beyond_retention": "beyond retention (--keep-days): never scored",
    "other_days": "of other days than --date",
    "beyond_limit": "beyond --since, --limit-hours and --backfill-hours: another night",
}


class _Sample:
    """Some recordings of a plan, evenly spread: every one, every second one, every fourth one."""

    def __init__(self) -> None:
        self._kept: list[pd.DataFrame] = []
        self._every, self._seen = 1, 0

    def take(self, rows: pd.DataFrame) -> None:
        """Look at the next rows."""
        self._kept.append(rows.iloc[-self._seen % self._every :: self._every])
        self._seen += len(rows)
        while sum(map(len, self._kept)) > _LOOKED_AT:
            self._kept, self._every = [pd.concat(self._kept).iloc[::2]], 2 * self._every

    def rows(self) -> pd.DataFrame:
        """Return the sample; no rows where nothing was planned."""
        return pd.concat(self._kept) if self._kept else pd.DataFrame(columns=PLAN_SCHEMA.names)


def _against_policy(task: Task, chosen: pd.DataFrame) -> dict[str, int]:
    """Count by their roles the planned recordings that policy leaves unscored; of many a sample is looked at."""
    scoring, policy = task.config.scoring, Counter[str]()
    if scoring.scored_roles is None or chosen.empty:
        return {}
    looked_at = 0
    chosen = chosen[chosen["ambiguous"].isna()]
    for uri, direction in zip(paths_of(chosen), chosen["direction"], strict=True):
        try:
            channels = audio.probe(below(task.config.archive, uri), headerless=scoring.headerless).channels
        except AudioError:  # it will fail, whatever its roles
            continue
        looked_at += 1
        if roles := against_policy(channels, scoring, direction):
            policy[roles] += 1
    return {"looked_at": looked_at, **dict(sorted(policy.items()))}
