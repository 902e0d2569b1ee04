"""The lock of a predictions folder: a token with a heartbeat.

The holder writes a heartbeat beside the token every two seconds. Where that has not changed for 15 s, on the clock of
who wants to take the lock, the holder is dead; one of this machine whose process is gone is dead at once. The token
itself is written once: a holder that was held for dead and wakes up can't write over that of the taker.

On a local disk the token is created exclusively. Where that is impossible (taking over from the dead, file systems
without hard links, object stores) the last of several takers wins: each writes its token, waits, and looks whose token
lies there.

Whoever replaces or removes what lies in the predictions takes the lock as a parameter, and checks it before each write.
The commits of blocks need no lock (see `emolib.archive.commits`), and replacing may be done twice. What is left is a
holder who hangs between the check and the end of one write until a taker has done more: that one file is then as old as
the holder's view of it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from upath import UPath

from emolib.errors import LockedError
from emolib.storage import AnyPath, create_bytes, is_local, read_bytes, resolve, write_json

LOCK_NAME = "_lock.json"
BEAT_NAME = ".lock-beat"


class Lock:
    """Hold the lock of a predictions folder, as a context manager.

    Parameters
    ----------
    pred
        Folder or URL of the predictions; a local folder is made.
    interval_s
        Time between two heartbeats.
    dead_after_s
        A token that does not change for so long is dead.

    Raises
    ------
    LockedError
        On entering, if somebody alive holds the lock.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as pred, Lock(pred) as lock:
    ...     lock.check()
    """

    def __init__(self, pred: AnyPath, *, interval_s: float = 2.0, dead_after_s: float = 15.0) -> None:
        self._pred = pred
        self._place, self._heart = resolve(pred) / LOCK_NAME, resolve(pred) / BEAT_NAME
        self._interval_s, self._dead_after_s = interval_s, dead_after_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="emolib-lock", daemon=True)
        self._token: dict[str, Any] = {
            "token": uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def __enter__(self) -> Lock:
        give_up = time.monotonic() + self._dead_after_s
        while not self._create():
            found = self._read(self._place)
            if found is None:  # given back a moment ago
                if time.monotonic() > give_up:
                    raise LockedError(
                        f"{self._place} can be neither created nor read, expected one of the two: see that the file "
                        "system or object store shows at once what was written"
                    )
                time.sleep(self._pause_s)
            elif self._dies(found):
                write_json(self._place, self._token)
                self._confirm()
                break
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._is_mine():
            self._heart.unlink(missing_ok=True)
            self._place.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `LockedError` if somebody else has taken the lock, who held this one for dead: stop writing then."""
        if not self._is_mine():
            raise LockedError(
                f"{self._describe(self._read(self._place))}; this run took too long to renew its lock and stops"
            )

    def _create(self) -> bool:
        """Write the token where none lies; return whether none did."""
        data = json.dumps(self._token).encode()
        try:
            is_alone = create_bytes(self._place, data)
        except FileExistsError:
            return False
        if not is_alone:
            self._confirm()
        return True

    def _confirm(self) -> None:
        time.sleep(min(1.0, self._dead_after_s / 4))
        if not self._is_mine():
            raise LockedError(f"{self._describe(self._read(self._place))}; wait until it ends")

    def _dies(self, found: bytes) -> bool:
        """Watch who holds a token; return whether they are dead, or False if the lock was given back meanwhile."""
        if self._is_gone(found):
            return True
        beat, give_up = self._read(self._heart), time.monotonic() + self._dead_after_s
        while time.monotonic() < give_up:
            time.sleep(self._pause_s)
            now = self._read(self._place)
            if now is None:
                return False
            if now != found or self._read(self._heart) != beat:
                raise LockedError(f"{self._describe(now)}; wait until it ends")
        return True

    def _is_gone(self, found: bytes) -> bool:
        """Return whether the holder was a process of this very machine that lives no more."""
        holder = _parse(found)
        if not _machine() or holder.get("machine") != _machine():
            return False
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it lives, and is somebody else's
            return False
        return False

    def _beat(self) -> None:
        for beat in count(1):
            if self._stop.wait(self._interval_s):
                return
            try:
                if not self._is_mine():
                    return
                write_json(self._heart, {"token": self._token["token"], "beat": beat})
            except OSError:  # the file system may be back at the next beat; if not, others may take the lock
                continue
            except Exception:  # a store's client may raise anything
                if is_local(self._place):
                    raise

    def _is_mine(self) -> bool:
        return bool(_parse(self._read(self._place)).get("token") == self._token["token"])

    @property
    def _pause_s(self) -> float:
        return min(0.5, self._interval_s / 2)

    @staticmethod
    def _read(place: UPath) -> bytes | None:
        try:
            return read_bytes(place)
        except FileNotFoundError:
            return None
        except OSError:
            raise
        except Exception as error:  # a store's client may raise anything
            if is_local(place):
                raise
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(place)) from error

    def _describe(self, found: bytes | None) -> str:
        holder = _parse(found)
        if not holder:
            return f"the lock of {self._pred} is gone or unreadable"
        return f"{self._pred} is locked by process {holder['pid']} on {holder['host']} since {holder['since']}"


def _parse(token: bytes | None) -> dict[str, Any]:
    """Return what a token says; nothing where it is not there, or only half written."""
    try:
        return dict(json.loads(token or b"{}"))
    except (ValueError, TypeError):
        return {}


def _machine() -> str:
    """Return what process ids are unique in: this start of this kernel, and the container; '' where nothing says it."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot_id} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  (the link leads to no file)
    except OSError:
        return ""
