"""How the jobs talk: words to stderr, progress in hours of audio, one JSON object as the last line of stdout."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import CycloptsError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from emolib.errors import EmolibError, GoldenCheckError, LockedError, OutputError, SettingsError
from emolib.stores import forbidden, locked_out, out_of_reach
from jobs import process
from jobs.bounds import between

EXIT_DONE = 0
EXIT_FAILURES = 1
EXIT_SETTINGS = 2
EXIT_LOCKED = 3
EXIT_GOLDEN = 4
EXIT_INTERRUPTED = 5
EXIT_VERIFY = 6
EXIT_UNEXPECTED = 70

# A log has no cursor to redraw a bar with, so there it gets a line this often.
_LOG_EVERY_S = 30.0
_ESTIMATED_FROM = 0.01, 600.0  # share of the audio, and seconds of it, of which one must be done
_NAMED = 5  # folders, in a line


class StalledError(EmolibError):
    """The cluster went away, or stopped making progress: what is done stays done, the rest can be done later."""


FailureBudget = Annotated[float, between(0, 1)]


def listed(text: str) -> list[str]:
    """Return what an option names, joined by commas.

    Examples
    --------
    >>> listed("ravdess/03, ravdess/04")
    ['ravdess/03', 'ravdess/04']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


stderr = Console(file=process.log, stderr=True, highlight=False)


@dataclass(frozen=True)
class Result:
    """How a command ended: the summary that goes to stdout, and its exit code."""

    summary: Mapping[str, Any]
    exit_code: int = EXIT_DONE

    def print(self) -> None:
        """Print the summary as one line of JSON on stdout."""
        print(process.as_json({**self.summary, "exit_code": self.exit_code}, sys.stdout), flush=True)


def say(text: str) -> None:
    """Print a line on stderr; text in square brackets stays text."""
    if process.log_json:
        process.write_entry({"message": text})
    else:
        stderr.print(text, markup=False, soft_wrap=True)


def say_unreadable(folders: Mapping[str, str], keep_days: int | None = None) -> None:
    """Say in one line which folders of an archive could not be read, by their paths in it, and why.

    Parameters
    ----------
    keep_days
        The retention; None without one.
    """
    if folders:
        named = ", ".join(f"{folder!a} ({reason})" for folder, reason in list(folders.items())[:_NAMED])
        more = f" and {len(folders) - _NAMED} more" if len(folders) > _NAMED else ""
        old = "" if keep_days is None else f", but for calls older than {keep_days} days (--keep-days)"
        say(
            f"{len(folders)} folders could not be read: {named}{more}; nothing below was looked at, and rows of what "
            f"lies there stay as they are{old}: grant read access, or leave the folders out"
        )


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table on stderr: the first column is a name, the others are numbers."""
    if process.log_json:
        process.write_entry({"message": title, "rows": [dict(zip(columns, row, strict=True)) for row in rows]})
        return
    shown = Table(
        title=title, title_justify="left", title_style="bold", header_style="", pad_edge=False, box=SIMPLE_HEAD
    )
    for number, column in enumerate(columns):
        shown.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        shown.add_row(
            *("" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row)
        )
    stderr.print(shown)


def _draws() -> bool:
    return stderr.is_terminal and not process.log_json


class AudioProgress:
    """Progress of a job, counted in seconds of audio; on a terminal a bar, in a log a line now and then."""

    def __init__(self, progress: Progress, task: TaskID, total_s: float) -> None:
        self._progress, self._task, self._total_s = progress, task, total_s
        self._done_s, self._began, self._logged = 0.0, time.monotonic(), time.monotonic()

    def advance(self, audio_s: float) -> None:
        """Count audio as done."""
        self._done_s += audio_s
        self._progress.advance(self._task, audio_s)
        spent_s = max(time.monotonic() - self._began, 1e-3)
        self._progress.update(self._task, hours=self._hours(), speed=f"{self._done_s / spent_s:,.0f} x real time")
        if not _draws() and time.monotonic() - self._logged > _LOG_EVERY_S:
            self._logged = time.monotonic()
            share, enough_s = _ESTIMATED_FROM
            if self._done_s < max(min(share * self._total_s, enough_s), 1e-3):
                say(self._hours())
                return
            left_s = spent_s * (self._total_s - self._done_s) / self._done_s
            say(f"{self._hours()}, about {max(left_s, 0) / 60:.1f} minutes left")

    def _hours(self) -> str:
        return f"{self._done_s / 3600:.2f} of {self._total_s / 3600:.2f} h of audio"


@contextmanager
def audio_progress(description: str, total_s: float) -> Iterator[AudioProgress]:
    """Show progress over so many seconds of audio."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[hours]}  {task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, disable=not _draws()) as progress:
        task = progress.add_task(description, total=max(total_s, 1e-3), hours="", speed="")
        yield AudioProgress(progress, task, total_s)


@contextmanager
def epoch_progress() -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show how a training goes: on a terminal one line that moves, in a log a line now and then.

    Give each epoch's entry of the history (see `emolib.learning.training.fit`) to what it yields.
    """
    line, is_first, logged = stderr.status("training"), True, time.monotonic()

    def show(entry: Mapping[str, float]) -> None:
        nonlocal is_first, logged
        if is_first and entry["epoch"] > 1:
            say(f"goes on after epoch {entry['epoch'] - 1:.0f}, where it was interrupted")
        is_first = False
        if _draws():
            line.update(_epoch(entry))
        elif time.monotonic() - logged > _LOG_EVERY_S:
            logged = time.monotonic()
            say(_epoch(entry))

    with line if _draws() else nullcontext():
        yield show


def _epoch(entry: Mapping[str, float]) -> str:
    """Say how an epoch went, and how long the rest will take if it goes on so."""
    left_s = (entry["epochs"] - entry["epoch"]) * entry["seconds"]
    aside = ""
    if "val_uar" in entry:
        aside = f", set aside: loss {entry['val_loss']:.3f}, UAR {entry['val_uar']:.3f}"
    return (
        f"epoch {entry['epoch']:.0f} of {entry['epochs']:.0f}: loss {entry['loss']:.3f}{aside} "
        f"({entry['seconds']:.1f} s, {left_s / 60:.1f} min left)"
    )


def within_budget(failed: int, total: int, budget: float, count: int = 0) -> int:
    """Return the exit code for so many failures: done, or done with more than a share of all and than a count of them.

    Examples
    --------
    >>> within_budget(2, 2, 0.05), within_budget(2, 2, 0.05, count=10), within_budget(11, 20, 0.05, count=10)
    (1, 0, 1)
    """
    return EXIT_FAILURES if failed > count and failed / total > budget else EXIT_DONE


# What a disk says that may be over another time. A store's client has such numbers too.
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REMOTE = getattr(errno, "EREMOTEIO", errno.EIO)  # what s3fs makes of "internal server error"
_PASSING = _FULL | {errno.EIO, _REMOTE, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}


def _passes(error: BaseException) -> bool:
    return out_of_reach(error) or (isinstance(error, OSError) and error.errno in _PASSING)


def advice(error: BaseException) -> str:
    """Return what to do about an error that a file system or an object store ended a job with; '' if nobody knows."""
    if isinstance(error, SettingsError):  # it says what to do
        return ""
    if locked_out(error) is not None:
        return "renew the credentials, then run the same command again: what is done stays done"
    if _passes(error):
        first = "make room" if getattr(error, "errno", None) in _FULL else "see that it works"
        return f"{first}, then run the same command again: what is done stays done"
    if getattr(error, "errno", None) == errno.EROFS:
        return "expected a place that may be written to: give another one, or mount it for writing"
    if forbidden(error):
        return "expected a store that lets this job read and write there: give it the rights, or another place"
    return ""


def code_of(error: BaseException) -> int:
    """Return the exit code of a job that an error ended."""
    if locked_out(error) is not None:  # to some clients it is a want of permission
        return EXIT_INTERRUPTED
    # What a job names as its input or output is a folder where a file should be, or may not be used.
    places = NotADirectoryError | IsADirectoryError | PermissionError
    # One that can't be there: a disk that is only for reading, a name that is too long, a link to itself.
    is_refused = getattr(error, "errno", None) in (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP) or forbidden(error)
    if isinstance(error, SettingsError | CycloptsError | places) or is_refused:
        return EXIT_SETTINGS
    if isinstance(error, LockedError):
        return EXIT_LOCKED
    if isinstance(error, GoldenCheckError):
        return EXIT_GOLDEN
    if isinstance(error, StalledError | OutputError | KeyboardInterrupt) or _passes(error):
        return EXIT_INTERRUPTED
    return EXIT_UNEXPECTED
