"""Paths and fsspec URLs behind one door, and writes that are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from uuid import uuid4

from upath import UPath

from emolib.errors import SettingsError
from emolib.stores import has_no_bucket

AnyPath: TypeAlias = str | os.PathLike[str] | UPath

# The extra of emolib that brings the package of a file system.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_URL = re.compile(r"(?:[a-z][\w+.-]*::)*[a-z][\w+.-]*://", re.IGNORECASE)
_LINK = re.compile(rf"::(?={_URL.pattern})", re.IGNORECASE)  # of a chain
# Folders of ext4, and of NTFS and exFAT, at the top of a file system.
_OF_FILE_SYSTEMS = {"lost+found", "System Volume Information", "$RECYCLE.BIN"}
# What file systems say that can't sync a folder, or give a file a second name (of networks; FAT).
_NO_SYNC = {errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}
_NO_LINKS = {errno.EMLINK, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM}
# What URLs carry where they carry secrets: a password, a token as a user's name, a signature. Buckets have no ports.
_SECRETS = (
    re.compile(r"(?:s3a?|gc?s|az)://[^/]*:"),
    re.compile(r"https?://[^/?#]*@"),
    re.compile(r"\w://[^/?#]*:[^/?#]*@"),
    re.compile(r"://.*[?&;](?:sig|[\w-]*(?:signature|token|secret|password|credential|key(?:id)?))=", re.IGNORECASE),
)


def resolve(path: AnyPath) -> UPath:
    """Return a path or an fsspec URL (``s3://…``) as a pathlib-like object.

    A text is a URL if it begins with ``name://``, or with a chain of file systems that leads to one
    (``simplecache::s3://…``). Any other is a path of this machine, whatever colons it has; ``~`` is the home folder. It
    becomes absolute: libraries take a relative one such as ``sip::a`` or ``~`` for something else.

    Raises
    ------
    SettingsError
        If the text is empty, the URL names a file system that is unknown or whose package is not installed, or it holds
        credentials: it is written down with the results and said in messages.

    Examples
    --------
    >>> resolve("/archive") / "2024" / "a.wav"
    PosixUPath('/archive/2024/a.wav')
    >>> resolve("sip::a.wav").name
    'sip::a.wav'
    """
    if not isinstance(path, UPath) and not (isinstance(path, str) and _URL.match(path)):
        # Not pathlib's: that has an error for ~$a.wav, whose name is no user's.
        return _local(os.path.expanduser(path) if isinstance(path, str) else os.fspath(path))  # noqa: PTH111
    if isinstance(path, str):
        _refuse_url(path)
    try:
        found = path if isinstance(path, UPath) else UPath(path)
        if found.protocol in ("s3", "s3a"):
            from emolib.renewal import renewing  # what comes with an extra

            found = renewing(found)
        if not is_local(found):
            _ = found.fs  # made here, so that a missing package shows before any work
    # TypeError, and files that are not found: file systems that want to be told more than a URL says.
    except (ValueError, TypeError, FileNotFoundError, IsADirectoryError, ImportError) as error:
        extra = _EXTRAS.get(str(path).partition("://")[0])
        if extra is None:
            remedy = "a path or a URL that fsspec knows, with its package installed"
        elif isinstance(error, ImportError):
            remedy = f"its package: pip install 'emolib[{extra}]'"
        else:
            remedy = "an account and credentials where the store's own tools find them (cluster/README.md)"
        raise SettingsError(f"{path} can't be reached ({error}), expected {remedy}") from error
    return _local(found.path) if is_local(found) else found


def _local(path: str) -> UPath:
    if not path or "\0" in path or any("\ud800" <= sign <= "\udfff" for sign in path):  # the last: of odd bytes
        raise SettingsError(f"path {path!a} found, expected the name of a file or folder, in UTF-8, or a URL")
    return UPath(Path(re.sub("^/+", "/", path)).absolute())  # pathlib keeps two slashes, which mean one


def _refuse_url(url: str) -> None:
    """See that a URL tells no secret, and means one place."""
    if any(secret.search(url) for secret in _SECRETS):
        raise SettingsError(
            f"a URL ({url.partition('://')[0]}://…) with credentials in it found, expected one without: give them "
            "as the store's own tools take them, by environment, profile or role; they are then written down nowhere"
        )
    if "::" in _LINK.sub("", url):  # universal_pathlib would take what follows for another file system
        raise SettingsError(
            f"{url} with '::' in it found, expected a URL without, or a chain of file systems such as "
            "simplecache::s3://… or zip://calls::file:///calls.zip: spell it so, or rename the file or folder"
        )


def absolute(path: AnyPath) -> str:
    """Return a path that means the same in any process of this machine, whatever its working directory.

    Links stay as they are: one may lead elsewhere tomorrow, where an archive moved. But what comes before ``..`` is
    looked up, as the file system does it. URLs stay.

    Examples
    --------
    >>> absolute("/archive/./calls//"), absolute("file:///archive/2024/../calls"), absolute("memory://archive")
    ('/archive/calls', '/archive/calls', 'memory://archive')
    """
    place = resolve(path)
    if not is_local(place):
        return str(place)
    parts = place.parts
    if ".." not in parts:
        return str(Path(*parts))
    above = len(parts) - parts[::-1].index("..")
    return str(Path(os.path.realpath(Path(*parts[:above])), *parts[above:]))


def is_same(path: AnyPath, other: AnyPath) -> bool:
    """Return whether two paths or URLs lead to one place, however they are spelt, and by whatever links.

    Examples
    --------
    >>> is_same("/archive/calls", "/archive/2024/../calls/"), is_same("memory://archive", "/archive")
    (True, False)
    """
    one, two = resolve(path), resolve(other)
    if is_local(one) or is_local(two):
        return is_local(one) == is_local(two) and os.path.realpath(one.path) == os.path.realpath(two.path)
    return bool(one.path.strip("/") == two.path.strip("/") and one.fs == two.fs)


def is_local(path: UPath) -> bool:
    """Return whether a path lies on a file system of this machine."""
    return path.protocol in ("", "file", "local")


def below(root: AnyPath, name: str) -> UPath:
    """Return a place below a folder, by a relative path that a stored table or file says.

    Links in the folder lead where they lead: whoever made them chose it.

    Raises
    ------
    SettingsError
        If the path leaves the folder.

    Examples
    --------
    >>> below("/archive", "2024/a.wav")
    PosixUPath('/archive/2024/a.wav')
    >>> below("memory://archive", "sip::a.wav").path
    '/archive/sip::a.wav'
    """
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise SettingsError(
            f"path {name!r} below {root} found, expected one that stays there: what says it was changed: put it "
            "back from a copy"
        )
    return resolve(root) / PurePosixPath(name)  # of a text, "sip::" would be taken for a file system


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write a file whole: a reader, or a restart after a crash, sees all of it or none.

    On a local disk the bytes go under a dot-name, are synced and renamed, and the folder is synced: what is written
    later is not there after a power cut where this is not. On an object store one PUT does the same.
    """
    target = resolve(path)
    if not is_local(target):
        with bucket_expected(target):
            target.write_bytes(data)
        return
    place = Path(target.path)
    with _synced(place, data) as temporary:
        temporary.replace(place)


@contextmanager
def _synced(place: Path, data: bytes) -> Iterator[Path]:
    """Give a file beside a place that holds its bytes on the disk; afterwards the folder is on the disk as it is."""
    _make_folder(place.parent)
    temporary = place.with_name(f".{place.name}.{uuid4().hex[:8]}.partial")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(place.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on the disk before what lies in it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync(path: AnyPath, *, below: AnyPath) -> None:
    """See that a local file that was written by other means is on the disk, and its name.

    Parameters
    ----------
    below
        A folder above it: those between may be new.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    target = resolve(path)
    if is_local(target):
        place = Path(target.path)
        with place.open("rb") as handle:
            os.fsync(handle.fileno())
        top = Path(resolve(below).path)
        for folder in place.parents:
            _sync_folder(folder)
            if folder == top:
                break


def create_bytes(path: AnyPath, data: bytes) -> bool:
    """Write a file whole where none is.

    Returns
    -------
    bool
        Whether nobody can have done the same at the same time. File systems without hard links, and object stores, not
        all of which have conditional writes, are looked at a moment before.

    Raises
    ------
    FileExistsError
        If one is.
    """
    target = resolve(path)
    if not is_local(target):
        if exists(target):
            raise FileExistsError(f"{path} is there already")
        with bucket_expected(target):
            target.fs.pipe_file(target.path, data, mode="create")
        return False
    place = Path(target.path)
    if place.exists():  # no need to write what would be thrown away
        raise FileExistsError(f"{path} is there already")
    with _synced(place, data) as temporary:
        try:
            os.link(temporary, place)
            return True
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        if place.exists():
            raise FileExistsError(f"{path} is there already")
        temporary.replace(place)
        return False


def exists(path: AnyPath) -> bool:
    """Return whether a file or folder is there now, whatever fsspec remembers of it."""
    target = resolve(path)
    if not is_local(target):
        target.fs.invalidate_cache()  # all of it: some file systems keep the listing of a folder when a file is named
    return bool(target.exists())


def read_bytes(path: AnyPath) -> bytes:
    """Read a file in one request: one that is replaced meanwhile is the old or the new.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    target = resolve(path)
    return Path(target.path).read_bytes() if is_local(target) else bytes(target.fs.cat_file(target.path))


@contextmanager
def bucket_expected(target: UPath) -> Iterator[None]:
    """See that a bucket that is not there is said to be missing, where something is written to it or listed.

    Raises
    ------
    SettingsError
        If it is not there.
    """
    try:
        yield
    except Exception as error:  # a store's client may raise anything
        if is_local(target) or not has_no_bucket(error):
            raise
        raise SettingsError(
            f"no bucket or container found for {target}, expected one that is there: make it"
        ) from error


def is_hidden(name: str, *, is_file: bool = False) -> bool:
    """Return whether a name in a folder is none of a user's: it begins with a dot, or file systems make the folder.

    Examples
    --------
    >>> [name for name in ("a.wav", ".DS_Store", "lost+found", "System Volume Information") if is_hidden(name)]
    ['.DS_Store', 'lost+found', 'System Volume Information']
    """
    return name.startswith(".") or (name in _OF_FILE_SYSTEMS and not is_file)


def names_in(folder: AnyPath) -> set[str]:
    """Return the names in a folder that are not hidden; none where there is no folder."""
    place = resolve(folder)
    if not place.is_dir():
        return set()
    if is_local(place):
        names = {entry.name for entry in place.iterdir()}
    else:  # a folder made in a store's console is an empty object of its name, which is listed as lying in itself
        own = place.path.strip("/")
        there = (entry["name"].strip("/") for entry in place.fs.ls(place.path, detail=True))
        names = {entry.rpartition("/")[2] for entry in there if entry != own}
    return {name for name in names if not is_hidden(name)}


def new_folder(
    path: AnyPath,
    *,
    option: str = "--out",
    expected: str = "a new folder",
    mark: str | None = None,
    files: Collection[str] = (),
) -> UPath:
    """Return a folder to write to that holds nothing yet: it is new, or whatever lies in it is hidden.

    Parameters
    ----------
    option, expected
        For the message: the option that names it, and what it may name.
    mark
        The name of what a job leaves there that was interrupted, and takes away last.
    files
        Names that may lie beside that.

    Raises
    ------
    SettingsError
        If it is no folder, or something lies in it.
    """
    place = resolve(path)
    allowed = {mark, *files} if mark is not None and (place / mark).exists() else set()
    is_link = is_local(place) and place.is_symlink()  # perhaps to nothing, which then can't be made
    if (place.exists() or is_link) and not place.is_dir():
        raise SettingsError(f"{path} exists and is no folder, expected {expected}: name another {option}")
    if found := names_in(place) - allowed:
        raise SettingsError(
            f"{path} exists and is not empty ({min(found)} found), expected {expected}: name another {option}"
        )
    return place


def remove_folder(path: AnyPath) -> None:
    """Remove a folder with all that lies in it, if it is there."""
    target = resolve(path)
    if target.exists():
        target.fs.rm(target.path, recursive=True)


def write_json(path: AnyPath, value: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, whole (see `write_bytes`)."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def try_writing(path: AnyPath) -> None:
    """Write a file to a folder, which is made if it is not there, and remove the file.

    Raises
    ------
    OSError
        If the folder may not be written to.
    """
    mark = resolve(path) / f".trial-{uuid4().hex}"
    write_bytes(mark, b"emolib")
    mark.unlink()


def read_text(path: AnyPath) -> str:
    """Read a text that people write, in UTF-8, with or without the mark that editors on Windows begin it with.

    Raises
    ------
    SettingsError
        If it is in another encoding.
    """
    return text_of(resolve(path).read_bytes(), path)


def text_of(data: bytes, path: AnyPath) -> str:
    """Return the text of bytes that were read from a path, see `read_text`.

    Raises
    ------
    SettingsError
        If it is in another encoding.
    """
    if b"\0" in data:  # as every second byte of UTF-16 is
        raise SettingsError(f"{path} is no text in UTF-8, but perhaps in UTF-16, expected UTF-8: save it as that")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no text in UTF-8 ({error}), expected UTF-8: save it as that") from error


def read_json(path: AnyPath) -> Any:
    """Read a JSON file.

    Raises
    ------
    SettingsError
        If it holds none.
    """
    try:
        return json.loads(resolve(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise SettingsError(f"{path} is damaged, expected JSON ({error}): put it back from a copy") from error
