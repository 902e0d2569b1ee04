r"""Folders and object stores -> the recordings that lie there.

Everything that could be a recording is listed, so that each has an outcome. Left out, and counted in
`Listing.left_out`, are only entries whose name or kind says that they are none:

- what `emolib.sound.exclusion` says: hidden entries, recycle bins, snapshots, sidecars, uploads under way, and what the
  user excludes; packed archives (``.zip``) are listed, because recordings may be inside them and somebody should see
  them fail as `unsupported`;
- feature stores (folders that end in ``.zarr``);
- pipes, sockets and devices: opening one could wait for ever;
- what is gone before it can be looked at: a file that was renamed meanwhile, a folder that was removed;
- in an object store, folders without a name (``a//b``): no path leads there. Each is counted, not what lies below.

A folder that can't be read is a gap, `Listing.unreadable`: that what lies below it is not listed says nothing about it.

Links are followed. A dangling link is listed and ends as `missing`. A folder is listed once, however many links lead to
it and even where they form a loop: first everything below the root without links, then the linked folders; one that
leads into a folder that can't be read is a gap itself, for what lies there has other names.

Files whose names differ only in their Unicode form have one ``recording_id`` and are all listed: a plan makes one
recording of them, which ends as `ambiguous`.

A name that is not valid UTF-8 cannot be written to Parquet. Its odd bytes are written as ``\xff`` in the URI; no file
has that name, so such a recording ends as `missing` until somebody renames it.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from upath import UPath

from emolib.errors import AudioError, Code, SettingsError
from emolib.sound.exclusion import EXCLUDED, Exclusion, why_left_out
from emolib.sound.source import unreadable
from emolib.storage import AnyPath, is_local, resolve
from emolib.stores import forbidden, locked_out

NO_VERSIONS = ("missing", "unreadable")
"""In place of the version of a file that is listed and can't be looked at."""
NAMELESS: Literal["nameless"] = "nameless"
"""Why a folder of an object store is left out whose name is empty."""
REMOVED: Literal["removed"] = "removed"
"""Why an entry is left out that was gone before it could be looked at."""


class Recording(NamedTuple):
    """One file that may hold sound.

    Attributes
    ----------
    recording_id
        See the function `recording_id`.
    uri
        Path relative to the root, with ``/``, as it is on disk.
    version
        Changes when the content does: size and modification time in ns, or size and etag; ``missing`` or
        ``unreadable`` where even that could not be learnt.
    size
        In bytes.
    modified_s
        Modification time in seconds since 1970 (UTC); NaN where the store says none that can be read.
    """

    recording_id: str
    uri: str
    version: str
    size: int
    modified_s: float


class Listing(Iterator[Recording]):
    """The recordings below a folder, one directory at a time; what was passed over so far.

    Attributes
    ----------
    left_out
        Number of entries by the reason: one of `emolib.sound.exclusion`, ``special``, ``removed``, or `NAMELESS`. A
        folder counts as one.
    unreadable
        Why a folder could not be read, by its URI.
    """

    def __init__(self, root: UPath, exclude: Exclusion) -> None:
        self.left_out: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}
        self._exclude, self._is_local = exclude, is_local(root)
        self._list_folder: _List = _local_entries if self._is_local else _remote_lister(root)
        self._seen: set[tuple[int, int]] = set()
        self._closed: list[str] = []  # where the folders that can't be read really are
        self._recordings = self._walk(str(root) if self._is_local else root.path)

    def __next__(self) -> Recording:
        return next(self._recordings)

    def _walk(self, root: str) -> Iterator[Recording]:
        waiting, links = [(root, "")], deque[tuple[str, str]]()
        while waiting or links:
            place, prefix = waiting.pop() if waiting else self._through(*links.popleft())
            folders: list[tuple[str, str]] = []
            for entry in self._entries(place, prefix) if place else ():
                uri, found = prefix + entry.name, entry.found
                if self._leaves_out(entry, uri):
                    continue
                if isinstance(found, _File):
                    yield Recording(recording_id(uri), uri, found.version, found.size, found.modified_s)
                else:
                    (links if found == "link" else folders).append((entry.place, uri + "/"))
            waiting.extend(reversed(folders))

    def _leaves_out(self, entry: _Entry, uri: str) -> bool:
        found = entry.found
        reason: str | None
        if isinstance(found, _File):
            is_file, reason = True, why_left_out(entry.name, size=found.size)
        else:
            is_file, reason = False, found if found not in ("folder", "link") else why_left_out(entry.name)
        if reason is None and self._exclude and self._exclude.matches(uri, is_file=is_file):
            reason = EXCLUDED
        if reason is not None:
            self.left_out[reason] += 1
        return reason is not None

    def _through(self, link: str, prefix: str) -> tuple[str, str]:
        """Return a linked folder; no place where it leads into a folder that can't be read."""
        if self._closed:
            real = f"{os.path.realpath(link)}/"
            if any(real.startswith(f"{each}/") for each in self._closed):
                self.unreadable[prefix.rstrip("/")] = "it leads into a folder that can't be read"
                return "", prefix
        return link, prefix

    def _entries(self, place: str, prefix: str) -> list[_Entry]:
        """Return what lies in a folder, by name; nothing where it can't be read, or was listed by another name."""
        try:
            if self._is_local:
                status = Path(place).stat()
                if (status.st_dev, status.st_ino) in self._seen:
                    return []
                self._seen.add((status.st_dev, status.st_ino))
            found = self._list_folder(place)
        except Exception as error:  # a store's client may raise anything
            if not self._is_local and (stop := locked_out(error)) is not None:
                raise stop from error
            if not prefix:
                return _of_an_unreadable_root(error, place)
            folder, reason = prefix.rstrip("/"), _why_unreadable(error, place, is_local=self._is_local)
            if reason is None:
                self.left_out[REMOVED] += 1
            elif self._exclude.covers(folder):
                self.left_out[EXCLUDED] += 1
            else:
                self.unreadable[folder] = reason
                if self._is_local:
                    self._closed.append(os.path.realpath(place))
            return []
        return sorted(found, key=lambda entry: (entry.name, entry.place))


def list_recordings(root: AnyPath, *, exclude: Exclusion | None = None) -> Listing:
    """List the recordings below a folder.

    The order is the same at every call: by name within a directory, files before folders. No more than one directory
    is held in memory.

    Parameters
    ----------
    root
        A folder, or an fsspec URL of one.
    exclude
        What a user leaves out.

    Returns
    -------
    Listing
        An iterator of `Recording`; empty for an empty folder.

    Raises
    ------
    SettingsError
        If the root is missing or no folder (at once); while iterating, if the root may not be read.
    OutputError
        While iterating, if nothing can be read any more for want of credentials.

    Examples
    --------
    >>> from upath import UPath
    >>> archive = UPath("memory://doc-archive")
    >>> for name in ("a.wav", "notes.txt"):
    ...     _ = (archive / name).write_bytes(b"RIFF")
    >>> listing = list_recordings(archive)
    >>> [(recording.uri, recording.size) for recording in listing]
    [('a.wav', 4)]
    >>> listing.left_out
    Counter({'.txt': 1})
    """
    folder = resolve(root)
    if not folder.exists():
        raise SettingsError(f"{root} does not exist, expected a folder of recordings; check the path")
    if not folder.is_dir():
        raise SettingsError(f"{root} is a file, expected a folder of recordings; give the folder that holds it")
    return Listing(folder, exclude or Exclusion())


def recording_id(uri: str) -> str:
    """Return the 128-bit blake2b of a URI in Unicode form NFC, as hex.

    Examples
    --------
    >>> recording_id("2024/a.wav")
    'd00791a8604d9c1c23dc7624c1fb34f8'
    """
    return hashlib.blake2b(unicodedata.normalize("NFC", uri).encode(), digest_size=16).hexdigest()


def version_of(path: AnyPath) -> tuple[str, int]:
    """Return the version and the size in bytes of one file as it is now, by the rule of `list_recordings`.

    Raises
    ------
    AudioError
        `missing` if nothing is there, `unreadable` if it may not be looked at or is no file.
    OutputError
        If nothing can be read there for want of credentials.
    """
    place = resolve(path)
    try:
        found = _local_file(Path(place.path).stat()) if is_local(place) else _remote_now(place)
    except OSError as error:
        message = f"{error.strerror or error}, expected a readable file; check {path}"
        if error.errno in _GONE or isinstance(error, FileNotFoundError):
            raise AudioError(Code.MISSING, message) from error
        raise unreadable(message, error) from error
    except Exception as error:  # a store's client may raise anything
        if is_local(place):
            raise
        said = f"{type(error).__name__}: {error}"
        raise unreadable(f"{said}, expected a readable file; check {path}", error) from error
    if found is None:
        raise AudioError(Code.UNREADABLE, f"a folder or special file found, expected a file; check {path}")
    return found.version, found.size


# What the file system says of a name whose file is gone: no such file, a link in a circle, a folder that became a file.
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class _File:
    version: str
    size: int
    modified_s: float


@dataclass(frozen=True, slots=True)
class _Entry:
    place: str  # what the file system calls it
    name: str  # the last part of its URI
    found: _File | Literal["folder", "link", "special", "nameless", "removed"]  # link: one to a folder


_List: TypeAlias = Callable[[str], list[_Entry]]


# What this process, and not the folder, has too little of.
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def _why_unreadable(error: Exception, place: str, *, is_local: bool) -> str | None:
    """Return why a folder that a listing names can't be read, or None where it is gone; raise what ends the listing."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        is_there = is_local and isinstance(error, FileNotFoundError) and os.path.lexists(place)
        return "it is there, and can't be opened" if is_there else None  # as a mount that fails
    if is_local and isinstance(error, OSError) and error.errno not in _OURS:
        return error.strerror or type(error).__name__
    if not is_local and (isinstance(error, PermissionError) or forbidden(error)):
        return "the store forbids to list it"
    raise error


def _of_an_unreadable_root(error: Exception, place: str) -> list[_Entry]:
    if isinstance(error, FileNotFoundError | NotADirectoryError):  # removed since it was looked at: nothing lies there
        return []
    if isinstance(error, PermissionError) or forbidden(error):
        raise SettingsError(
            f"folder {place!a} may not be read, expected read access to the archive; grant it or give another root"
        ) from error
    raise error


def _local_entries(folder: str) -> list[_Entry]:
    with os.scandir(folder) as entries:
        return [_local_entry(entry) for entry in entries]


def _local_entry(entry: os.DirEntry[str]) -> _Entry:
    name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    try:
        status = entry.stat()
    except OSError as error:
        if _is_real_folder(entry):  # whether it can be read, its own turn will tell
            return _Entry(entry.path, name, "folder")
        is_gone = error.errno in _GONE
        if is_gone and not os.path.lexists(entry.path):
            return _Entry(entry.path, name, REMOVED)
        return _Entry(entry.path, name, _File(NO_VERSIONS[0 if is_gone else 1], 0, float("nan")))
    if stat.S_ISDIR(status.st_mode):
        return _Entry(entry.path, name, "link" if entry.is_symlink() else "folder")
    return _Entry(entry.path, name, _local_file(status) or "special")


def _is_real_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry that can't be looked at is a folder, as far as the folder that it lies in says."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _local_file(status: os.stat_result) -> _File | None:
    if not stat.S_ISREG(status.st_mode):
        return None
    return _File(f"{status.st_size}-{status.st_mtime_ns}", status.st_size, status.st_mtime_ns / 1e9)


def _remote_lister(root: UPath) -> _List:
    system = root.fs
    system.invalidate_cache()  # a listing of last night that the file system remembers would hide today's recordings

    def entries(folder: str) -> list[_Entry]:
        found: dict[tuple[str, bool], _Entry] = {}  # adlfs lists a folder twice that has a mark
        itself = folder.strip("/")
        for info in _infos(system, folder):
            place, is_folder = info["name"].rstrip("/"), info["type"] == "directory"
            if place.strip("/") != itself:
                below = place.strip("/").startswith(f"{itself}/")
                name = place.strip("/").removeprefix(f"{itself}/") if below else place.rsplit("/", 1)[-1]
                found[place, is_folder] = _Entry(place, name, "folder" if is_folder else _listed_file(system, info))
            # Else an object store's mark that the folder exists, or a folder in it without a name.
            elif is_folder and _marks(info) == (None, None) and system.find(itself, prefix="/"):
                found[place, is_folder] = _Entry(place, "", NAMELESS)
        return list(found.values())

    return entries


def _infos(system: Any, folder: str) -> list[Mapping[str, Any]]:
    """Return what a store's file system says of the files and folders in a folder, and perhaps of itself."""
    infos: list[Mapping[str, Any]] = system.ls(folder, detail=True)
    itself = folder.strip("/")
    if [(info["name"].strip("/"), info["type"]) for info in infos] != [(itself, "file")]:
        return infos
    # A blob that is called as the folder is: adlfs does not look further, but for a prefix.
    parent, _, name = itself.rpartition("/")
    below = system.find(parent, prefix=f"{name}/", detail=True)
    return [info for place, info in below.items() if place.strip("/").startswith(f"{itself}/")]


def _remote_now(place: UPath) -> _File | None:
    place.fs.invalidate_cache(place.parent.path)
    info = place.fs.info(place.path)
    return None if info["type"] == "directory" else _remote_file(place.fs, info)


def _listed_file(system: Any, info: Mapping[str, Any]) -> _File:
    """Return what is known of a file that a listing names, and that perhaps may not be looked at by itself."""
    try:
        return _remote_file(system, info)
    except Exception as error:  # a store's client may raise anything
        if isinstance(error, FileNotFoundError):
            return _File(NO_VERSIONS[0], 0, float("nan"))
        if locked_out(error) is None and (isinstance(error, PermissionError) or forbidden(error)):
            return _File(NO_VERSIONS[1], 0, float("nan"))
        raise


def _remote_file(system: Any, info: Mapping[str, Any]) -> _File:
    etag, modified_s = _marks(info)
    if etag is None and modified_s is None:  # some listings (HTTP) say less than a question for the one file does
        info = system.info(info["name"])
        etag, modified_s = _marks(info)
    size = int(info.get("size") or 0)
    # Microseconds: what file systems that report floats and those that report datetimes agree on.
    mark = etag or ("unknown" if modified_s is None else f"{round(modified_s * 1e6)}")
    return _File(f"{size}-{mark}", size, float("nan") if modified_s is None else modified_s)


def _marks(info: Mapping[str, Any]) -> tuple[str | None, float | None]:
    """Return etag and modification time (s) under the names that fsspec's file systems give them."""
    etag = info.get("ETag") or info.get("etag")
    names = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
    times = (_seconds(info.get(name)) for name in names)
    return (str(etag).strip('"') if etag else None), next((time for time in times if time is not None), None)


def _seconds(time: Any) -> float | None:
    """Return what a file system says of a time in seconds since 1970; None where that can't be read.

    Without a zone it is in UTC, as stores have it: this machine's own would make of one file two versions.
    """
    try:
        if isinstance(time, str):
            time = datetime.fromisoformat(time)
        if isinstance(time, datetime):
            time = (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()
        seconds = float(time)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None
