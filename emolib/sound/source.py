"""The file of a recording, open: bytes at a place, wherever it lies, and no failed read that goes unnoticed."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from upath import UPath

from emolib.errors import AudioError, Code, EmolibError
from emolib.storage import is_local
from emolib.stores import locked_out

# What one request fetches of a remote file. Some file systems would fetch 50 MB to look at a header.
_REQUEST = 2**20
# A local file up to this size is read at once: a decoder looks around in it a hundred times before it plays it.
_AT_ONCE = 2**20
_MAX_MESSAGE = 199


class OpenFile:
    """An open file as both decoders see it.

    It has no name, since they also guess the format from that. And it keeps what a read raises: the callbacks of a C
    library cannot pass it on, so that a flaky network would look like the end of the file. A file of up to `at_once`
    bytes is held in memory. `again` opens the same file once more, with a position of its own.
    """

    def __init__(self, file: Any, *, at_once: int = 0, again: Callable[[], AbstractContextManager[OpenFile]]) -> None:
        self._file = file
        self.again = again
        self._failure: BaseException | None = None
        self._place = 0  # its own: some file systems hand out one object, with one position, to all that open a file
        self.size = int(file.seek(0, 2))
        if self.size <= at_once:
            self._file = io.BytesIO(self.at(0, self.size))
        self.head = self.at(0, 1024)

    def read(self, size: int = -1) -> bytes:
        """Return bytes; none once a read has failed."""
        try:
            if self._failure:
                return b""
            if self._file.tell() != self._place:
                self._file.seek(self._place)
            data: bytes = self._file.read(size)
            self._place += len(data)
            return data
        except BaseException as error:
            self._failure = error
            return b""

    def readinto(self, buffer: Any) -> int:
        """Read as much as a buffer takes, and return how much came."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, place: int, whence: int = 0) -> int:
        """Move within the file; a damaged header may send a decoder before its start (refused) or beyond its end."""
        place += (0, self._place, self.size)[whence]
        if place < 0:
            return -1
        self._place = min(place, self.size)
        return self._place

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def at(self, place: int, size: int) -> bytes:
        """Return bytes of the file and leave the position where the decoder had it."""
        before = self.tell()
        self.seek(place)
        data = self.read(size)
        self.seek(before)
        return data

    def content_hash(self) -> str:
        """Return a hash of all bytes, and leave the position where the decoder had it."""
        content = hashlib.blake2b(digest_size=16)
        for place in range(0, self.size, _REQUEST):
            content.update(self.at(place, _REQUEST))
        return content.hexdigest()

    def check(self) -> None:
        """Raise what a read raised: the decoder took it for the end of the file.

        Raises
        ------
        AudioError
            With the code unreadable.
        OutputError
            If nothing can be read there for want of credentials.
        """
        failure, self._failure = self._failure, None
        if isinstance(failure, Exception):
            message = f"reading the file failed: {type(failure).__name__}: {failure}"
            raise unreadable(one_line(message), failure) from failure
        if failure is not None:
            raise failure


@contextmanager
def opened(place: UPath) -> Iterator[OpenFile]:
    """Open a file, local or remote.

    Raises
    ------
    AudioError
        With the code missing or unreadable.
    OutputError
        If nothing can be read there for want of credentials.
    """
    try:
        if is_local(place):
            if not stat.S_ISREG(place.stat().st_mode):
                raise AudioError(Code.UNREADABLE, "a folder or device found, expected a file")
            file, at_once = place.open("rb"), _AT_ONCE
        else:
            file, at_once = place.open("rb", block_size=_REQUEST), 0
    except FileNotFoundError as error:
        raise AudioError(Code.MISSING, "no file found at the path") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        message = f"the file cannot be opened: {getattr(error, 'strerror', None) or error}"
        raise unreadable(one_line(message), error) from error
    except Exception as error:
        if is_local(place):
            raise
        message = f"the file cannot be opened: {type(error).__name__}: {error}"  # a store's client may raise anything
        raise unreadable(one_line(message), error) from error
    with file:
        try:
            source = OpenFile(file, at_once=at_once, again=partial(opened, place))
        except OSError as error:
            message = f"the size of the file cannot be found: {error.strerror or error}"
            raise unreadable(one_line(message), error) from error
        try:
            yield source
        finally:
            source.check()


def unreadable(message: str, error: Exception) -> EmolibError:
    """Return what to raise where a file can't be read: no recording is to blame where nobody is let in any more."""
    return locked_out(error) or AudioError(Code.UNREADABLE, message)


def one_line(text: str) -> str:
    """Return a message as one line that fits into a table."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"
