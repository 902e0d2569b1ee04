"""The process of the command `emolib`: its standard streams, signals, encoding and module search path.

Nothing here imports anything large: signals are in hand before anything large is loaded. What libraries
write to stderr, in this process or those that it starts, is no part of the log: without ``--debug`` it goes nowhere.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, TextIO, cast

from emolib.errors import SettingsError
from jobs.environment import remove_caches

# What a process that works for a job gets: file names are UTF-8 wherever it runs, and no file of its working directory
# takes the place of a module (types.py, queue.py).
ENVIRONMENT = {"PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}
INTERRUPTED = "interrupted: run the same command again, what is done stays done"
_INTERRUPTED, _UNEXPECTED = 5, 70
_PATIENCE_S = 1.0  # until what can't be written is lost
_ORDERLY_S = 10.0  # until whoever tells a job again to stop is not made to wait for an orderly end any more

log: TextIO | None = None
"""What stderr was when the command began; None in a process that is not the command's own."""
log_json = False
"""Each line of the log is a JSON object."""
debug = False
"""Tracebacks, and what libraries say, belong to the log."""

_stopped_at: float | None = None
_one_at_a_time = threading.Lock()


def begin(arguments: Sequence[str]) -> None:
    """Make this process the command's own, before anything large is imported.

    Parameters
    ----------
    arguments
        Those of the command. What the log holds, and in which form, must be known before they are parsed.
    """
    global log_json, debug
    log_json = "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)
    debug = "--debug" in arguments
    _use_utf8()
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and shells for what they run in the background
            signal.signal(number, _stop)
    signal.signal(signal.SIGTERM, _stop)
    os.environ.update(ENVIRONMENT)
    _divert()


def check_surroundings() -> None:
    """See that a job can do its work in this process, before it begins any.

    Raises
    ------
    SettingsError
        If the working directory is gone, no temporary file can be written, or file names are not taken for UTF-8.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise SettingsError(
            f"the working directory is gone ({error.strerror}), expected one that is there: change to another one, and "
            "run the same command again"
        ) from error
    named = next((value for name in ("TMPDIR", "TEMP", "TMP") if (value := os.environ.get(name))), None)
    try:
        with TemporaryFile(dir=named, buffering=0) as file:
            file.write(b"emolib")
    except OSError as error:
        raise SettingsError(
            f"no file can be written to {named or 'any usual place for temporary files'} ({error.strerror}), expected "
            "a folder that is there, with room: make it, or name another one by TMPDIR"
        ) from error
    if (found := sys.getfilesystemencoding()) != "utf-8":
        raise SettingsError(f"file names are taken for {found} here, expected utf-8: set PYTHONUTF8=1")


def was_stopped() -> bool:
    """Return whether a signal has told the command to stop."""
    return _stopped_at is not None


def stay() -> None:
    """Take no more signals: the command has ended, and only says so; where that never ends, they end it."""
    patient_until = time.monotonic() + _ORDERLY_S

    def leave(*_: Any) -> None:
        if time.monotonic() > patient_until:
            os._exit(_INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)


def end(code: int) -> NoReturn:
    """Exit with a code; a command that was told to stop takes its processes with it, and waits for nothing."""
    if not was_stopped():
        sys.exit(code)
    if multiprocessing := sys.modules.get("multiprocessing"):
        for child in multiprocessing.active_children():
            child.kill()
    remove_caches()
    os._exit(code)


def end_interrupted() -> NoReturn:
    """End a command that was told to stop while it loads: what is half loaded now can't be loaded anew to say so."""
    stay()
    if log_json:
        write_entry({"message": f"emolib: {INTERRUPTED}"})
    else:
        print(f"emolib: {INTERRUPTED}", file=log or sys.stderr, flush=True)
    print(as_json({"error": INTERRUPTED, "exit_code": _INTERRUPTED}, sys.stdout), flush=True)
    end(_INTERRUPTED)


def failure_of_stdout() -> OSError | None:
    """Return why stdout could not be written; None where it was, or where nobody reads it."""
    error = getattr(getattr(sys.stdout, "buffer", None), "error", None)
    return None if isinstance(error, BrokenPipeError) else error


def as_json(value: Mapping[str, Any], stream: TextIO | None) -> str:
    """Return a line of JSON that a stream can encode: names of files need not be Unicode, nor terminals UTF-8."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, default=str)
    return text


def write_entry(entry: Mapping[str, Any]) -> None:
    """Write a line of a log for machines."""
    stream = log or sys.stderr
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = as_json({"time": now, **entry}, stream) + "\n"
    with _one_at_a_time:  # libraries may be speaking, too
        stream.write(line)
        stream.flush()


class _Lossy(io.FileIO):
    """A file that raises nothing: what can't be written is lost, and the reason is kept."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of it, if that is possible."""
        left = memoryview(data).cast("B")
        try:
            while len(left):
                written = super().write(left)
                if written is None and not select.select([], [self], [], _PATIENCE_S)[1]:
                    raise BlockingIOError("nobody reads it")
                left = left[written or 0 :]
        except OSError as error:
            self.error = error
        return len(data)


def _stop(*_: Any) -> None:
    """Take a signal: further ones change nothing while the command has time to end in order."""
    global _stopped_at
    now = time.monotonic()
    if _stopped_at is None or now - _stopped_at > _ORDERLY_S:
        _stopped_at = now
        raise KeyboardInterrupt


def _use_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale has another encoding: file names would not be the same."""
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _divert() -> None:
    """Keep stdout and stderr for the command itself, and lead elsewhere what libraries write to them."""
    global log
    out, err = getattr(sys.stdout, "encoding", None), getattr(sys.stderr, "encoding", None)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: whatever is opened next would be taken for it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, log = _text(os.dup(1), out), _text(os.dup(2), err)
    if not debug:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    elif log_json:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)  # for all that inherit it: none of them ever waits
        os.dup2(writing, 2)
        os.close(writing)
        threading.Thread(target=_pass_on, args=(reading,), name="emolib-stderr", daemon=True).start()
    os.dup2(2, 1)  # what a library prints is no result
    sys.stderr, sys.excepthook = _text(2, err), _last_words
    if faulthandler.is_enabled():  # whoever asked for a crash's last words (PYTHONFAULTHANDLER) gets them
        faulthandler.enable(log)


def _text(descriptor: int, encoding: str | None) -> TextIO:
    raw = cast("BinaryIO", _Lossy(descriptor, "w", closefd=False))
    return io.TextIOWrapper(
        raw, encoding=encoding or "utf-8", errors="backslashreplace", line_buffering=True, write_through=True
    )


def _pass_on(descriptor: int) -> None:
    """Write what libraries say as entries of the log."""
    with open(descriptor, encoding="utf-8", errors="backslashreplace") as lines:
        for line in lines:
            if text := line.rstrip():
                write_entry({"message": text, "from": "stderr"})


def _last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say what nothing caught: a fault of the command itself, or of its installation."""
    text = "".join(traceback.format_exception(kind, error, trace)).rstrip()
    if log_json:
        write_entry({"message": text})
    else:
        print(text, file=log, flush=True)
    os._exit(_UNEXPECTED)
