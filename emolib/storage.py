"""Paths and fsspec URLs behind one door, and writes that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

from upath import UPath

from emolib.errors import SettingsError

AnyPath: TypeAlias = str | os.PathLike[str] | UPath


def resolve(path: AnyPath) -> UPath:
    """Return a path or an fsspec URL (``s3://…``) as a pathlib-like object.

    Raises
    ------
    SettingsError
        If the URL names a file system that is unknown or whose package is not installed.

    Examples
    --------
    >>> resolve("/archive") / "2024" / "a.wav"
    PosixUPath('/archive/2024/a.wav')
    """
    try:
        found = UPath(path)
        if not is_local(found):
            _ = found.fs  # made here, so that a missing package shows before any work
    except (ValueError, ImportError) as error:
        raise SettingsError(
            f"{path} can't be reached ({error}), expected a path or a URL that fsspec knows, with its package installed"
        ) from error
    if not is_local(found):
        return found
    return (UPath(found.path) if found.protocol else found).expanduser()


def absolute(path: AnyPath) -> str:
    """Return a path that means the same in any process of this machine, whatever its working directory; URLs stay."""
    place = resolve(path)
    return str(place.absolute()) if is_local(place) else str(place)


def is_local(path: UPath) -> bool:
    """Return whether a path lies on a file system of this machine."""
    return path.protocol in ("", "file", "local")


def write_bytes(path: AnyPath, data: bytes) -> None:
    """Write a file whole: a reader, or a restart after a crash, sees all of it or none.

    On a local disk the bytes go under a dot-name, are synced and renamed; on an object store one PUT does the same.
    """
    target = resolve(path)
    if not is_local(target):
        target.write_bytes(data)
        return
    place = Path(target.path)
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{uuid4().hex[:8]}.partial")
    try:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


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
