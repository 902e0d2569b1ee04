r"""Folders and object stores -> the recordings that lie there.

Everything that could be a recording is listed, so that each has an outcome. Left out, and counted in
`Listing.left_out`, are only entries whose name or kind says that they are none:

- hidden files and folders (see `emolib.storage.is_hidden`);
- files whose suffix is in `NOT_SOUND`, and feature stores (folders that end in ``.zarr``); packed archives (``.zip``)
  are listed, because recordings may be inside them and somebody should see them fail as `unsupported`;
- pipes, sockets and devices: opening one could wait for ever;
- in an object store, folders without a name (``a//b``): no path leads there. Each is counted, not what lies below.

Links are followed. A dangling link is listed and ends as `missing`. A folder is listed once, however many links lead to
it and even where they form a loop: first everything below the root without links, then the linked folders.

A name that is not valid UTF-8 cannot be written to Parquet. Its odd bytes are written as ``\xff`` in the URI; no file
has that name, so such a recording ends as `missing` until somebody renames it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, TypeAlias

from upath import UPath

from emolib.errors import AudioError, Code, SettingsError
from emolib.sound.source import unreadable
from emolib.storage import AnyPath, is_hidden, is_local, resolve
from emolib.stores import locked_out

_TEXTS = (".txt", ".md", ".rst", ".html", ".htm", ".pdf", ".rtf", ".doc", ".docx", ".srt", ".vtt", ".textgrid", ".log")
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".xml", ".parquet", ".xls", ".xlsx", ".db", ".sqlite")
_OWN = (".rttm", ".prom")  # of `emolib export`, and of `emolib nightly --metrics`
_SETTINGS = (".toml", ".yaml", ".yml", ".ini", ".cfg", ".py")
_CHECKSUMS = (".md5", ".sha1", ".sha256", ".sha512")
_MODELS = (".keras", ".onnx", ".npz")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg")
NOT_SOUND = frozenset(_TEXTS + _TABLES + _OWN + _SETTINGS + _CHECKSUMS + _MODELS + _PICTURES)
"""Suffixes, in lower case, of files that are no recordings."""
NO_VERSIONS = ("missing", "unreadable")
"""In place of the version of a file that is listed and can't be looked at."""
NAMELESS: Literal["nameless"] = "nameless"
"""Why a folder of an object store is left out whose name is empty."""


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
        Modification time in seconds since 1970 (UTC); NaN where the store knows none.
    """

    recording_id: str
    uri: str
    version: str
    size: int
    modified_s: float


class Listing(Iterator[Recording]):
    """The recordings below a folder, one directory at a time; `left_out` counts what was passed over so far.

    Attributes
    ----------
    left_out
        Number of entries by the reason: ``hidden``, ``special``, `NAMELESS`, or the suffix.
    """

    def __init__(self, root: UPath) -> None:
        self.left_out: Counter[str] = Counter()
        self._recordings = _walk(root, self.left_out)

    def __next__(self) -> Recording:
        return next(self._recordings)


def list_recordings(root: AnyPath) -> Listing:
    """List the recordings below a folder.

    The order is the same at every call: by name within a directory, files before folders. No more than one directory
    is held in memory.

    Parameters
    ----------
    root
        A folder, or an fsspec URL of one.

    Returns
    -------
    Listing
        An iterator of `Recording`; empty for an empty folder.

    Raises
    ------
    SettingsError
        If the root is missing or no folder (at once); while iterating, if a folder may not be read, or two names
        differ only in their Unicode form and would share one ``recording_id``.

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
    return Listing(folder)


def is_recording(name: str) -> bool:
    """Return whether a file of this name is listed as a recording.

    Examples
    --------
    >>> is_recording("call.wav"), is_recording("call"), is_recording("calls.CSV"), is_recording(".call.wav")
    (True, True, False, False)
    """
    return _why_not(name) is None


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
    found: _File | Literal["folder", "link", "special", "nameless"]  # link: one to a folder


_List: TypeAlias = Callable[[str], list[_Entry]]


def _walk(root: UPath, left_out: Counter[str]) -> Iterator[Recording]:
    local = is_local(root)
    list_folder: _List = _local_entries if local else _remote_lister(root)
    waiting, links = [(str(root) if local else root.path, "")], deque[tuple[str, str]]()
    seen: set[tuple[int, int]] = set()
    while waiting or links:
        place, prefix = waiting.pop() if waiting else links.popleft()
        try:
            if local:
                status = Path(place).stat()
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            entries = list_folder(place)
        except (FileNotFoundError, NotADirectoryError):  # removed since its parent was listed: nothing lies there
            continue
        except PermissionError as error:
            raise locked_out(error) or SettingsError(
                f"folder {place!a} may not be read, expected read access to every folder of the archive; "
                "grant it or give another root"
            ) from error
        folders: list[tuple[str, str]] = []
        for entry in _listed(entries, prefix, left_out):
            uri = prefix + entry.name
            if isinstance(entry.found, _File):
                yield Recording(recording_id(uri), uri, entry.found.version, entry.found.size, entry.found.modified_s)
            else:
                (links if entry.found == "link" else folders).append((entry.place, uri + "/"))
        waiting.extend(reversed(folders))


def _listed(entries: list[_Entry], prefix: str, left_out: Counter[str]) -> Iterator[_Entry]:
    """Yield what counts of one directory, by name; see that no two names are one in NFC."""
    taken: dict[tuple[bool, str], str] = {}
    for entry in sorted(entries, key=lambda entry: (entry.name, entry.place)):
        is_file = isinstance(entry.found, _File)
        reason = entry.found if entry.found in ("special", NAMELESS) else _why_not(entry.name, is_file=is_file)
        if reason:
            left_out[reason] += 1
            continue
        twin = taken.setdefault((is_file, unicodedata.normalize("NFC", entry.name)), entry.place)
        if twin != entry.place:
            raise SettingsError(
                f"{twin!a} and {entry.place!a} differ only in their Unicode form, expected names that are distinct "
                f"in NFC; rename one of them in {prefix or '/'}"
            )
        yield entry


def _why_not(name: str, *, is_file: bool = True) -> str | None:
    """Return why an entry of this name is left out, or None."""
    if is_hidden(name, is_file=is_file):
        return "hidden"
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in (NOT_SOUND if is_file else (".zarr",)) else None


def _local_entries(folder: str) -> list[_Entry]:
    with os.scandir(folder) as entries:
        return [_local_entry(entry) for entry in entries]


def _local_entry(entry: os.DirEntry[str]) -> _Entry:
    name = os.fsencode(entry.name).decode("utf-8", "backslashreplace")
    try:
        status = entry.stat()
    except OSError as error:
        version = NO_VERSIONS[0] if error.errno in _GONE else NO_VERSIONS[1]
        return _Entry(entry.path, name, _File(version, 0, float("nan")))
    if stat.S_ISDIR(status.st_mode):
        return _Entry(entry.path, name, "link" if entry.is_symlink() else "folder")
    return _Entry(entry.path, name, _local_file(status) or "special")


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
                found[place, is_folder] = _Entry(place, name, "folder" if is_folder else _remote_file(system, info))
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
    times = (info.get(name) for name in ("LastModified", "last_modified", "mtime", "updated", "modified", "created"))
    time = next((time for time in times if time is not None), None)
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        time = time.timestamp()
    return (str(etag).strip('"') if etag else None), (None if time is None else float(time))
