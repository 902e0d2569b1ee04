"""A process that does the work it is asked for through a pipe. See `emolib.isolation`, which starts it."""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from pkgutil import resolve_name
from queue import SimpleQueue

from emolib.errors import Code, EmolibError
from emolib.isolation import Began, Request, Returned, Verdict, Watch
from emolib.stores import locked_out

_LATE_S = 60.0  # after its limit a process ends itself, if nobody is there any more to end it


def serve(descriptor: int) -> None:
    """Answer what is asked through a pipe until it is closed. What the process runs."""
    pipe, asked = Connection(descriptor), SimpleQueue[Request]()
    threading.Thread(target=_receive, args=(pipe, asked), daemon=True).start()
    with open(os.devnull, "wb") as nowhere:
        watch = _Watched(pipe, nowhere.fileno())
        while True:
            request = asked.get()
            try:
                value = resolve_name(request.work)(*request.arguments, attempt=request.attempt, watch=watch)
                answer: Returned | EmolibError | Verdict = Returned(value)
            except EmolibError as error:
                answer = error
            except MemoryError as error:
                answer = Verdict(Code.KILLED, f"MemoryError: {error}")
            except Exception as error:  # whatever an item, or what lies under it, can raise
                answer = locked_out(error) or Verdict(Code.INTERNAL, f"{type(error).__name__}: {error}")
            faulthandler.cancel_dump_traceback_later()
            pipe.send(answer)


def _receive(pipe: Connection, asked: SimpleQueue[Request]) -> None:
    """Take requests at any time, so that the end of whoever asks is the process's end, whatever it is at."""
    try:
        while True:
            asked.put(pipe.recv())
    finally:  # nobody is there any more, or says what can't be understood
        os._exit(1)


class _Watched(Watch):
    """Tells through the pipe; and ends the process itself where nobody does."""

    def __init__(self, pipe: Connection, nowhere: int) -> None:
        self._pipe, self._nowhere = pipe, nowhere

    def begin(self, item: str, limit_s: float, *, extras: bool = False) -> None:
        # A thread of C, as the item may keep every thread of Python from running.
        faulthandler.dump_traceback_later(limit_s + _LATE_S, exit=True, file=self._nowhere)
        self._pipe.send(Began(item, limit_s, extras))

    def end(self, *, extras: bool = False) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._pipe.send(Began(extras=extras))

    def limit_memory(self, more: int) -> None:
        if sys.platform != "linux":  # elsewhere there is no such limit
            return
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = 1024 * int(status["VmData"].split()[0]) + more
        resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
