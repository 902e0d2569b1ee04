"""Work done in a process apart, so that an item that kills, hangs or starves it costs no other its result.

    worker: isolated(work) ──pipe──▶ isolated.serve ──▶ work

Work goes through items one by one (recordings, mostly) and says which one it begins with. Where its process dies, is
silent for too long, or raises what nobody foresaw, a new one tries that item alone. If it ends as badly, the work is
done again without the item, which gets a verdict: `killed`, `timeout` or `internal`; so it does where it fails again
and again, but not alone. Where something optional was under way, the work is first done again without that, for it may
have been the cause. From the first failure on, items are to share nothing, so that each is blamed for itself. So a
worker never dies of an item; one that dies was taken away by the machine or its owner.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from emolib.errors import Code, EmolibError, UnforeseenError

R = TypeVar("R")

# Whoever fails so often at one item, or between items, will fail again.
_FAILURES = 3
_KILLED_S = 10.0  # until a process that was killed is gone

_SERVE = "from emolib.isolated import serve; serve({descriptor})"

MAX_UNFORESEEN = 20
"""So many recordings in a row that are `internal` stop a run."""


class Verdict(NamedTuple):
    """Why an item gets no other outcome than this."""

    code: Code
    message: str


class Attempt(NamedTuple):
    """How work is to be done this time.

    Attributes
    ----------
    verdicts
        The items that are not to be touched, and what they get instead.
    alone
        The only item to try, to see whether it can be done: nothing is to be written then.
    extras
        Whether what is optional is done too.
    careful
        Whether items are to share nothing, such as batches: one of them failed.
    """

    verdicts: Mapping[str, Verdict] = MappingProxyType({})
    alone: str | None = None
    extras: bool = True
    careful: bool = False

    def takes(self, item: str) -> bool:
        """Return whether an item is one of those that this is about."""
        return self.alone is None or self.alone == item


class Watch:
    """What work tells of its progress. This one tells nobody: for work that is called directly."""

    def begin(self, item: str, limit_s: float, *, extras: bool = False) -> None:
        """Say that an item is begun, which may take so long, and whether something optional is under way with it."""

    def end(self, *, extras: bool = False) -> None:
        """Say that no item is under way: what follows takes as long as it takes."""

    def limit_memory(self, more: int) -> None:
        """Let the process ask for so many bytes more than it has."""


ONCE, UNWATCHED = Attempt(), Watch()
"""The defaults of work that can be called directly, too."""


class Request(NamedTuple):
    """What a process is asked for: some work by its name, ``module:function``, and how it is to be done."""

    work: str
    arguments: tuple[Any, ...]
    attempt: Attempt


class Began(NamedTuple):
    """What a process says it is at now: an item, that may take so long, or what takes as long as it takes."""

    item: str | None = None
    limit_s: float | None = None
    extras: bool = False


class Returned(NamedTuple):
    """What the work returned."""

    value: Any


class _FailedError(Exception):
    """A process died, was silent for too long, or met what nobody foresaw."""

    def __init__(self, at: Began, verdict: Verdict, *, begun: int) -> None:
        super().__init__(f"{verdict.message} (at {at.item or 'no recording'})")
        self.item, self.extras = at.item, at.extras
        self.verdict = verdict
        self.is_first = begun == 1  # none before it came to its end


def isolated(work: Callable[..., R]) -> Callable[..., R]:
    """Return a function that does some work in a process apart, whatever its items do to that.

    The process is started with the first work of a thread, and ends with the worker. What it is given, and what it
    returns, goes through a pipe: both are small.

    Parameters
    ----------
    work
        A module-level function. Beside its arguments it takes ``attempt``, an `Attempt`, and ``watch``, a `Watch`. It
        may run several times without harm. Its module is imported by that process alone.

    Raises
    ------
    EmolibError
        What the work raises; `UnforeseenError` where items fail in ways that nobody foresaw, many in a row.
    RuntimeError
        If processes fail between items again and again.
    """
    return partial(_run, f"{work.__module__}:{work.__qualname__}")


def too_many_unforeseen(first: str) -> str:
    """Return what stops a run of which so many recordings in a row are `internal`."""
    return (
        f"{MAX_UNFORESEEN} recordings in a row failed in ways that nobody foresaw: it is not they; the first: {first}"
    )


def _run(work: str, *arguments: Any) -> Any:
    verdicts: dict[str, Verdict] = {}
    failures: Counter[str | None] = Counter()
    extras, unforeseen, in_a_row = True, "", 0
    while True:
        try:
            return _ask(Request(work, arguments, Attempt(verdicts, extras=extras, careful=bool(failures))))
        except _FailedError as failed:
            if failed.extras:
                extras = False
                continue
            suspect, (code, message), is_first = failed.item, failed.verdict, failed.is_first
            failures[suspect] += 1
            if suspect is None and failures[suspect] == _FAILURES:
                raise RuntimeError(str(failed)) from failed
        if suspect is None:
            continue
        how = f"{_FAILURES} times, but not alone"
        if failures[suspect] < _FAILURES:
            try:
                _ask(Request(work, arguments, Attempt({}, alone=suspect, extras=False, careful=True)))
                continue
            except _FailedError as failed:
                (code, message), how = failed.verdict, "alone as well"
        verdicts[suspect] = Verdict(code, f"{message}, {how}")
        if code is not Code.INTERNAL:
            in_a_row = 0
            continue
        unforeseen, in_a_row = unforeseen or message, in_a_row + 1 if is_first else 1
        if in_a_row == MAX_UNFORESEEN:
            raise UnforeseenError(too_many_unforeseen(unforeseen))


class _Process:
    """A process that works, seen from the worker."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-X", "utf8", "-c", _SERVE.format(descriptor=theirs.fileno())],
                env={**os.environ, "PYTHONPATH": _python_path()},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a library says there is no result
                start_new_session=True,  # Ctrl-C is for the driver
            )
        self.close = weakref.finalize(self, _end, self._pipe, self._process)
        """End it, whatever it is at; done with the thread whose it is, or with Python, at the latest."""

    def ask(self, request: Request) -> Any:
        """Return what the work returns, or raise what it raised."""
        at, since, begun = Began(), time.monotonic(), 0
        try:
            self._pipe.send(request)
            while True:
                left_s = None if at.limit_s is None else max(0.0, since + at.limit_s - time.monotonic())
                if not self._pipe.poll(left_s):
                    raise _FailedError(at, Verdict(Code.TIMEOUT, f"not done within {at.limit_s:.0f} s"), begun=begun)
                answer = self._pipe.recv()
                if isinstance(answer, Returned):
                    return answer.value
                if isinstance(answer, EmolibError):
                    raise answer
                if isinstance(answer, Verdict):
                    raise _FailedError(at, answer, begun=begun)
                at, since, begun = answer, time.monotonic(), begun + (answer.item is not None)
        except (EOFError, OSError) as error:
            raise _FailedError(at, Verdict(Code.KILLED, f"its process {self._ending()}"), begun=begun) from error

    def _ending(self) -> str:
        try:
            code = self._process.wait(_KILLED_S)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        if code >= 0:
            return f"ended with {code}"
        return f"died of {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}"


def _end(pipe: Connection, process: subprocess.Popen[bytes]) -> None:
    pipe.close()
    process.kill()
    with suppress(subprocess.TimeoutExpired):  # one that a disk holds up can't be killed, and is left behind
        process.wait(_KILLED_S)


_of_thread = threading.local()


def _ask(request: Request) -> Any:
    """Ask this thread's process, a new one where there is none or the last one failed."""
    if not hasattr(_of_thread, "process"):
        _of_thread.process = _Process()
    process: _Process = _of_thread.process
    try:
        return process.ask(request)
    except EmolibError:
        raise
    except BaseException:  # whatever it is at now, it is not at what it will be asked next
        del _of_thread.process
        process.close()
        raise


def _python_path() -> str:
    """Return where a new process finds what this one finds."""
    given = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return os.pathsep.join([*given, *sys.path])
