"""`emolib nightly`: what is to be done every night, unattended, in one command."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter, validators
from upath import UPath

from emolib.archive.agreement import Agreement, agreement
from emolib.archive.drift import Drift, drift
from emolib.archive.forgetting import check_retention, forget_before, kept_since
from emolib.archive.ledger import Run
from emolib.archive.lock import Lock
from emolib.archive.plan import Choice
from emolib.archive.predictions import is_predictions
from emolib.archive.verification import verify
from emolib.errors import SettingsError
from emolib.report.site import write_site
from emolib.storage import absolute, resolve, try_writing, write_json
from jobs.bounds import PositiveNumber, between
from jobs.console import EXIT_VERIFY, Result, code_of, say
from jobs.metrics import write_metrics
from jobs.options import Options
from jobs.preview import show_plan
from jobs.promote import show_agreement
from jobs.runs import carry_out, summarise
from jobs.tasks import Task, prepared

_SHOWN = 5


def nightly(
    archive: str,
    *,
    out: str,
    options: Options,
    report: str | None = None,
    metrics: str | None = None,
    date: str | None = None,
    since: str | None = None,
    limit_hours: PositiveNumber = None,
    backfill_hours: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 0.0,
    keep_days: Annotated[int | None, between(1, 36_500)] = None,
    really: Annotated[bool, Parameter(negative=())] = False,
    settle_s: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 300.0,
    plan: Annotated[bool, Parameter(negative=())] = False,
    night: Annotated[datetime | None, Parameter(parse=False)] = None,
) -> Result:
    """Do a night's work: finish what was interrupted, score what is new, verify, look for drift, write a page.

    Made for cron and its like: options in a file (--config nightly.toml, table [nightly]), one line of JSON and an exit
    code at the end. Run twice, it scores nothing twice; killed, it goes on the next time.

    Parameters
    ----------
    archive
        A folder or fsspec URL, walked recursively; it is only read.
    out
        The predictions: a new folder or URL, or those to continue.
    report
        A folder for summaries and pages: each night gets a folder of its own in it, and if it scored anything a page
        and what drifted.
    metrics
        A file for the night's measures as OpenMetrics text, such as Prometheus's node exporter collects; each night
        writes it anew.
    date
        Only calls of this day, such as 2026-11-25, beside what an interrupted run had planned.
    since
        Only calls from this day on; older ones only as --backfill-hours.
    limit_hours
        Score at most so many hours of sound (estimated), the newest days first; what an interrupted run had planned is
        finished all the same, and counts.
    backfill_hours
        Hours of those for what is left from before, the oldest days first.
    keep_days
        Retention: rows of calls that are older, in days, are removed, and such calls are not scored. Calls whose date
        nobody knows are kept.
    really
        Remove them although the clock is more than 7 days after the newest recording, or although they are more than
        half of all and no earlier run had this --keep-days.
    settle_s
        Files that were changed within so many seconds may still be written to, and are left for the next night.
    plan
        Say what would be done, and stop.
    night
        When it begins (UTC); now if not given.
    """
    if limit_hours is not None and backfill_hours >= limit_hours:
        raise SettingsError(
            f"{backfill_hours:g} hours of backfill in a limit of {limit_hours:g} found, expected fewer: what is new "
            "would never be scored"
        )
    date, since = _day("date", date), _day("since", since)
    if date is not None and since is not None and date < since:
        raise SettingsError(f"only calls of {date}, and none before {since}, found: there are none; leave one out")
    for name, place in (("report", report), ("metrics", metrics and str(resolve(metrics).parent))):
        if place is not None and not plan:
            _see_that_it_may_be_written(name, place)
    out, began, night = absolute(out), time.monotonic(), night or datetime.now(UTC)
    keep_since = None if keep_days is None else kept_since(night.date(), keep_days)
    choice = Choice(
        keep_since=keep_since,
        date=date,
        since=since,
        limit_s=math.inf if limit_hours is None else 3600 * limit_hours,
        backfill_s=3600 * backfill_hours,
        now_s=night.timestamp(),
        settle_s=settle_s,
    )
    if plan:
        with prepared(archive, out, options, choice, keep_days=keep_days) as task:
            if not really:
                _check_retention(task, night)
            return show_plan(task, job="nightly")
    folder = None if report is None else resolve(report) / f"{night:%Y-%m-%dT%H%M%S.%f}"  # two may end within a second
    with _noted(folder, metrics, night), prepared(archive, out, options, choice, keep_days=keep_days) as task:
        with Lock(out) as lock:
            if not really:
                _check_retention(task, night)
            forgotten = 0
            if keep_since is not None and is_predictions(out):
                forgotten = forget_before(out, keep_since, lock=lock)
            runs = carry_out(task, lock)
            problems = verify(out, folder=task.folder).problems if is_predictions(out) else []
            closed = {run.run_id for run in runs}
            whole = bool(runs) and not problems  # what is damaged may not even be readable
            drifts = drift(out, closed) if whole else []
            beside = _agreement(out, runs) if whole else None
        if keep_days is not None and not runs and (beyond := task.skipped()["beyond_retention"]):
            say(f"{beyond} recordings are older than {keep_days} days (--keep-days): they are not scored")
        for problem in problems[:_SHOWN]:
            say(problem)
        for each in drifts:
            if each.moved:
                say(each.sentence)
        if beside is not None:
            show_agreement(beside)
        seconds = time.monotonic() - began
        ended = summarise(task, runs, job="nightly", seconds=seconds, options=options)
        summary = {
            **ended.summary,
            "night": _time(night),
            "forgotten": forgotten,
            "problems": len(problems),
            "drift": [_brief(each) for each in drifts],
            "shadow": None if beside is None else beside.brief(),
            "page": None,
        }
        code = EXIT_VERIFY if problems else ended.exit_code
        if folder is not None and runs:
            summary["page"] = write_site(out, folder, runs=closed, drifts=drifts, agreement=beside)
            groups = [{**asdict(each), "verdict": each.verdict} for each in drifts]
            write_json(folder / "drift.json", {"groups": groups})
            say(f"page: {summary['page']}")
        try:
            _leave(folder, metrics, {**summary, "exit_code": code})
        except OSError as error:  # the night is done all the same
            say(f"the night's summary could not be written: {error}")
    return Result(summary, code)


def _check_retention(task: Task, night: datetime) -> None:
    """Refuse to remove what may be old by a wrong clock alone."""
    if (keep_days := task.config.keep_days) is not None and is_predictions(task.out):
        newest = task.newest_date(night.date().isoformat())
        check_retention(task.out, keep_days, clock=night.date(), newest=newest)


def _agreement(out: str, runs: Sequence[Run]) -> Agreement | None:
    """Compare the last candidate that was to listen in this night with the model."""
    for run in reversed(runs):
        if (shadow := run.config.shadow) is not None:
            closed = {run.run_id for run in runs}
            found = agreement(out, shadow.model_id, other=run.config.model_id, runs=closed)
            if found is None:
                say(f"candidate {shadow.model_id} has heard nothing this night")
            return found
    return None


def _see_that_it_may_be_written(name: str, place: str) -> None:
    """Refuse before any work what could not be written after it."""
    try:
        try_writing(place)
    except OSError as error:
        raise SettingsError(f"--{name} can't be written: {error}; give a place that may be written to") from error


@contextmanager
def _noted(folder: UPath | None, metrics: str | None, night: datetime) -> Iterator[None]:
    """Write down what ends a night early, whatever it is: whoever reads measures must not see those of the last."""
    try:
        yield
    except BaseException as error:
        text = " ".join(str(error).split()) or type(error).__name__
        with suppress(OSError):  # what ended it may keep this from being written, and is the better message
            _leave(
                folder, metrics, {"job": "nightly", "night": _time(night), "error": text, "exit_code": code_of(error)}
            )
        raise


def _leave(folder: UPath | None, metrics: str | None, summary: Mapping[str, Any]) -> None:
    """Write down how a night ended, where that was asked for."""
    if folder is not None:
        write_json(folder / "summary.json", summary)
    if metrics is not None:
        write_metrics(metrics, summary, ended_s=time.time())


def _brief(found: Drift) -> dict[str, Any]:
    """Return what a summary says of a group."""
    return {
        "site": found.site,
        "queue": found.queue,
        "recordings": found.recordings,
        "reference": found.reference,
        "verdict": found.verdict,
        "moved": {each.measure: {"psi": round(each.psi, 3), "js": round(each.js, 3)} for each in found.moved},
    }


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _day(name: str, text: str | None) -> str | None:
    """Read an ISO date."""
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%d").date().isoformat()
    except ValueError as error:
        raise SettingsError(f"{name} {text!r} found, expected a day such as 2026-11-25") from error
