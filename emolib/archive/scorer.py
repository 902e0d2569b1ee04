"""A process that scores what it is asked for through a pipe. See `emolib.archive.isolation`, which starts it."""

from __future__ import annotations

import os
import resource
import sys
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

from emolib.archive.isolation import At, Request
from emolib.archive.ledger import Run
from emolib.archive.outcomes import BlockResult, Verdict
from emolib.archive.plan import PlannedRecording
from emolib.archive.scoring import score_block
from emolib.errors import Code, EmolibError

# However slow a machine is, sound is scored at many times the speed at which it was spoken.
_SLOWEST = 10.0


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
        except Exception as error:  # whatever a recording, or what lies under it, can raise
            pipe.send(Verdict(Code.KILLED, f"{type(error).__name__}: {error}"))
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
    limits = run.config.limits
    if sys.platform == "linux":  # elsewhere there is no such limit, or it counts what is only reserved as well
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = limits.recording_memory if hard == resource.RLIM_INFINITY else min(limits.recording_memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    if request.verdicts:
        run.judge(request.block, request.verdicts)

    def begins(recording: PlannedRecording | None) -> None:
        if recording is None:
            pipe.send(At())
        else:
            pipe.send(At(recording.recording_id, max(limits.recording_s, recording.estimated_s / _SLOWEST)))

    return score_block(request.pred, request.run_id, request.block, alone=request.alone, begins=begins)
