"""A folder on this machine's disk for what a job holds there while it runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_PREFIX, _LOCK = "emolib-job-", "emolib.lock"
_NEW_S = 60.0  # a folder may be without its lock for a moment


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder in the directory for temporary files, that goes when the block ends; those of killed jobs go first.

    What is there may be large, and name calls.
    """
    _sweep()
    with TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder


def _sweep() -> None:
    for lock in Path(gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        try:
            with open(os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as held:  # no pipe, which waits
                found = os.fstat(held.fileno())
                if found.st_uid == os.getuid() and time.time() - found.st_mtime > _NEW_S:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # a job holds it, or another one has just removed it
            continue
