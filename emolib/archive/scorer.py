"""A process that scores what it is asked for through a pipe. See `emolib.archive.isolation`, which starts it."""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from emolib.archive.blocks import score_block
from emolib.archive.isolation import SLOWEST, At, Request
from emolib.archive.ledger import Run
from emolib.archive.outcomes import BlockResult, Verdict
from emolib.archive.plan import PlannedRecording
from emolib.errors import Code, EmolibError

_LATE_S = 60.0  # after its limit a scorer ends itself, if nobody is there any more to end it


def serve(descriptor: int) -> None:
    """Answer what is asked through a pipe until it is closed. What a scorer runs."""
    pipe, asked = Connection(descriptor), SimpleQueue[Request]()
    threading.Thread(target=_receive, args=(pipe, asked), daemon=True).start()
    while True:
        request = asked.get()
        try:
            answer = _answer(request, pipe)
        except EmolibError as error:
            pipe.send(error)
        except MemoryError as error:
            pipe.send(Verdict(Code.KILLED, f"MemoryError: {error}"))
        except Exception as error:  # whatever a recording, or what lies under it, can raise
            pipe.send(Verdict(Code.INTERNAL, f"{type(error).__name__}: {error}"))
        else:
            pipe.send(answer)


def _receive(pipe: Connection, asked: SimpleQueue[Request]) -> None:
    """Take requests at any time, so that the end of whoever asks is the scorer's end, whatever it is at."""
    try:
        while True:
            asked.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(1)


def _answer(request: Request, pipe: Connection) -> BlockResult:
    run = Run.open(request.pred, request.run_id)
    limits, listens_in = run.config.limits, request.listens_in and run.config.shadow is not None
    pipe.send(At(listens_in=listens_in))
    _limit_memory(limits.recording_memory)
    if request.verdicts:
        run.judge(request.block, request.verdicts)

    def begins(recording: PlannedRecording | None) -> None:
        if recording is None:
            faulthandler.cancel_dump_traceback_later()
            pipe.send(At(listens_in=listens_in))
        else:
            limit_s = max(limits.recording_s, recording.estimated_s / SLOWEST)
            # A thread of C, as the recording may keep every thread of Python from running.
            faulthandler.dump_traceback_later(limit_s + _LATE_S, exit=True, file=nowhere)
            pipe.send(At(recording.recording_id, limit_s, listens_in))

    with open(os.devnull, "wb") as nowhere:
        try:
            return score_block(
                request.pred,
                request.run_id,
                request.block,
                alone=request.alone,
                begins=begins,
                listens_in=request.listens_in,
                shares_batches=request.shares_batches,
            )
        finally:
            faulthandler.cancel_dump_traceback_later()


def _limit_memory(more: int) -> None:
    """Let this process ask for so many bytes more than it has, on Linux: elsewhere there is no such limit."""
    if sys.platform != "linux":
        return
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = 1024 * int(status["VmData"].split()[0]) + more
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
