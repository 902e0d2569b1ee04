"""Blocks scored in a process apart, so that a recording that kills, hangs or starves it costs no other its row.

    worker: score_apart ──pipe──▶ scorer.serve ──▶ score_block

A scorer says which recording it begins with. Where it dies, is silent for too long, or raises what nobody foresaw, a
new one tries that recording alone; where a candidate listens in, the block is first scored without it, for it may have
been that. If it ends as badly, the block is scored again without the recording, which is `killed`, `timeout` or
`internal`. From the first failure on, recordings share no batch: what a window does to the model is blamed on its own
recording. So a worker never dies of a recording; one that dies was taken away by the machine or its owner.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Pipe
from typing import NamedTuple

from emolib.archive.outcomes import MAX_UNFORESEEN, BlockResult, Verdict, too_many_unforeseen
from emolib.errors import Code, EmolibError, UnforeseenError

# Whoever fails so often at one recording that can be scored alone, or between recordings, will fail again.
_FAILURES = 3
# However slow a machine is, sound is scored at many times the speed at which it was spoken.
SLOWEST = 10.0
_KILLED_S = 10.0  # until a process that was killed is gone

_SERVE = "from emolib.archive.scorer import serve; serve({descriptor})"


class Request(NamedTuple):
    """What a scorer is asked for: a block, or one recording of it to see whether it can be done."""

    pred: str
    run_id: str
    block: int
    verdicts: Mapping[str, Verdict]
    alone: str | None = None
    listens_in: bool = True
    shares_batches: bool = True


class At(NamedTuple):
    """What a scorer begins with: a recording, that may take so long, or what takes as long as it takes."""

    recording_id: str | None = None
    limit_s: float | None = None
    listens_in: bool = False  # a candidate does


class _FailedError(Exception):
    """A scorer died, was silent for too long, or met what nobody foresaw."""

    def __init__(self, at: At, verdict: Verdict, *, begun: int) -> None:
        super().__init__(f"{verdict.message} (at {at.recording_id or 'no recording'})")
        self.recording_id, self.listens_in = at.recording_id, at.listens_in
        self.verdict = verdict
        self.is_first = begun == 1  # none before it came to its end


def score_apart(pred: str, run_id: str, block: int) -> BlockResult:
    """Score a block of a stored run like `emolib.archive.blocks.score_block`, whatever its recordings do.

    The scorer is started with the first block of a thread, and ends with its process.

    Raises
    ------
    EmolibError
        What `score_block` raises; `UnforeseenError` where recordings fail in ways that nobody foresaw, many in a row.
    RuntimeError
        If scorers fail between recordings, or again and again at one that can be scored alone.
    """
    verdicts: dict[str, Verdict] = {}
    failures: Counter[str | None] = Counter()
    listens_in, unforeseen, in_a_row = True, "", 0
    while True:
        try:
            shares_batches = not failures
            return _ask(Request(pred, run_id, block, verdicts, listens_in=listens_in, shares_batches=shares_batches))
        except _FailedError as failed:
            if failed.listens_in:
                listens_in = False
                continue
            suspect, is_first = failed.recording_id, failed.is_first
            failures[suspect] += 1
            if failures[suspect] == _FAILURES:
                raise RuntimeError(str(failed)) from failed
        if suspect is not None:
            try:
                _ask(Request(pred, run_id, block, {}, alone=suspect, listens_in=False))
            except _FailedError as failed:
                code, message = failed.verdict
                verdicts[suspect] = Verdict(code, f"{message}, alone as well")
                if code is not Code.INTERNAL:
                    in_a_row = 0
                    continue
                unforeseen, in_a_row = unforeseen or message, in_a_row + 1 if is_first else 1
                if in_a_row == MAX_UNFORESEEN:
                    raise UnforeseenError(too_many_unforeseen(unforeseen)) from failed


class _Scorer:
    """A process that scores, seen from the worker."""

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

    def ask(self, request: Request) -> BlockResult:
        """Return what it answers, or raise what it raised."""
        at, since, begun = At(), time.monotonic(), 0
        try:
            self._pipe.send(request)
            while True:
                left_s = None if at.limit_s is None else max(0.0, since + at.limit_s - time.monotonic())
                if not self._pipe.poll(left_s):
                    raise _FailedError(at, Verdict(Code.TIMEOUT, f"not done within {at.limit_s:.0f} s"), begun=begun)
                answer = self._pipe.recv()
                if isinstance(answer, BlockResult):
                    return answer
                if isinstance(answer, EmolibError):
                    raise answer
                if isinstance(answer, Verdict):
                    raise _FailedError(at, answer, begun=begun)
                at, since, begun = answer, time.monotonic(), begun + (answer.recording_id is not None)
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

    def close(self) -> None:
        """End it, whatever it is at."""
        self._pipe.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # one that a disk holds up can't be killed, and is left behind
            self._process.wait(_KILLED_S)


_of_thread = threading.local()


def _ask(request: Request) -> BlockResult:
    """Ask this thread's scorer, a new one where there is none or the last one failed."""
    if not hasattr(_of_thread, "scorer"):
        _of_thread.scorer = _Scorer()
    scorer: _Scorer = _of_thread.scorer
    try:
        return scorer.ask(request)
    except EmolibError:
        raise
    except BaseException:  # whatever it is at now, it is not at what it will be asked next
        del _of_thread.scorer
        scorer.close()
        raise


def _python_path() -> str:
    """Return where a new process finds what this one finds."""
    given = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return os.pathsep.join([*given, *sys.path])
