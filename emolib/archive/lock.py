"""The lock of a predictions folder: a token with a heartbeat.

The holder renews the token every two seconds. A token that has not changed for 15 s, on the clock of who wants to take
it, belongs to a dead process; one of this machine whose process is gone is dead at once. On a local disk the token is
created exclusively. Where that is impossible (taking over from the dead, and object stores, not all of which can
create exclusively) the last of several takers wins: each writes its token, waits, and looks whose token lies there.

The lock spares work, it does not carry the safety of the data: two drivers would write parts of different names.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

from emolib.errors import LockedError
from emolib.storage import AnyPath, create_bytes, is_local, resolve, write_json

LOCK_NAME = "_lock.json"


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
        self._place = resolve(pred) / LOCK_NAME
        self._interval_s, self._dead_after_s = interval_s, dead_after_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="emolib-lock", daemon=True)
        self._token: dict[str, Any] = {
            "token": uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "beat": 0,
        }

    def __enter__(self) -> Lock:
        while not self._create():
            found = self._read()
            if found is not None and self._dies(found):
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
            self._place.unlink(missing_ok=True)

    def check(self) -> None:
        """Raise `LockedError` if somebody else has taken the lock, who held this one for dead: stop writing then."""
        if not self._is_mine():
            raise LockedError(f"{self._describe(self._read())}; this run took too long to renew its lock and stops")

    def _create(self) -> bool:
        """Write the token where none lies; return whether none did."""
        data = json.dumps(self._token).encode()
        try:
            create_bytes(self._place, data)
        except FileExistsError:
            return False
        if not is_local(self._place):
            self._confirm()
        return True

    def _confirm(self) -> None:
        time.sleep(min(1.0, self._dead_after_s / 4))
        if not self._is_mine():
            raise LockedError(f"{self._describe(self._read())}; wait until it ends")

    def _dies(self, found: bytes) -> bool:
        """Watch a token; return whether its holder is dead, or False if the lock was given back meanwhile."""
        if self._is_gone(found):
            return True
        give_up = time.monotonic() + self._dead_after_s
        while time.monotonic() < give_up:
            time.sleep(min(0.5, self._interval_s / 2))
            now = self._read()
            if now is None:
                return False
            if now != found:
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
        while not self._stop.wait(self._interval_s):
            try:
                if not self._is_mine():
                    return
                self._token["beat"] += 1
                write_json(self._place, self._token)
            except OSError:  # the file system may be back at the next beat; if not, others may take the lock
                continue
            except Exception:  # a store's client may raise anything
                if is_local(self._place):
                    raise

    def _is_mine(self) -> bool:
        return bool(_parse(self._read()).get("token") == self._token["token"])

    def _read(self) -> bytes | None:
        try:
            if is_local(self._place):
                return Path(self._place.path).read_bytes()
            # In one request: a heartbeat between two of them would make another file of it.
            return bytes(self._place.fs.cat_file(self._place.path))
        except FileNotFoundError:
            return None
        except OSError:
            raise
        except Exception as error:  # a store's client may raise anything
            if is_local(self._place):
                raise
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(self._place)) from error

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
