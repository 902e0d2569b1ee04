"""Writes that are whole or not there, also after a power cut."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import fsspec
import pytest
from upath import UPath
from upath.registry import get_upath_class

from emolib import storage


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """What was synced, in order: its name, and for a folder which names were in it by then."""
    seen: list[tuple[str, list[str]]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        visible = [name for name in os.listdir(place) if name[0] != "."] if place.is_dir() else []  # noqa: PTH208
        seen.append((place.name, sorted(visible)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return seen


def test_a_file_is_on_the_disk_before_whatever_is_written_next(
    synced: list[tuple[str, list[str]]], tmp_path: Path
) -> None:
    """The bytes, then the name; a folder that was made for it, then what lies in it."""
    top = tmp_path / "top"
    top.mkdir()
    for write in (storage.write_bytes, storage.create_bytes):
        synced.clear()
        write(top / write.__name__ / "b" / "file", b"whole")
        folders, (bytes_of, _), (folder, names) = synced[:-2], synced[-2], synced[-1]
        assert [(name, write.__name__ in there or "b" in there) for name, there in folders] == [
            ("top", True),
            (write.__name__, True),
        ]
        assert bytes_of.startswith(".file.")
        assert (folder, names) == ("b", ["file"])
        assert (top / write.__name__ / "b" / "file").read_bytes() == b"whole"


def test_what_is_created_is_never_seen_half_and_never_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "lock"
    seen = []
    real = os.link

    def link(source: Path, target: Path) -> None:
        seen.append((Path(source).read_bytes(), place.exists()))
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    assert storage.create_bytes(place, b"first"), "nobody can have come between"
    assert seen == [(b"first", False)]
    with pytest.raises(FileExistsError):
        storage.create_bytes(place, b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert place.read_bytes() == b"first"


def test_file_systems_without_links_or_syncs_of_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "no folders here")
        real(descriptor)

    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "fsync", fsync)
    assert not storage.create_bytes(tmp_path / "a", b"first"), "somebody may have come between"
    storage.write_bytes(tmp_path / "b", b"whole")
    with pytest.raises(FileExistsError):
        storage.create_bytes(tmp_path / "a", b"second")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"first", "b": b"whole"}


def test_what_everybody_shares_stays_as_it_is_when_a_place_in_s3_is_named() -> None:
    """A user's own code beside this library reaches S3 as it always did."""
    s3fs = pytest.importorskip("s3fs")
    own = UPath("s3://bucket/own", anon=True)
    place = storage.resolve("s3://bucket/archive")
    assert fsspec.get_filesystem_class("s3") is fsspec.get_filesystem_class("s3a") is s3fs.S3FileSystem
    assert type(own.fs) is type(UPath("s3://bucket").fs) is s3fs.S3FileSystem
    assert get_upath_class("s3") is type(own)
    there = [
        place,
        place / "a" / "b.wav",
        (place / "a").parent,
        pickle.loads(pickle.dumps(place)),
        storage.resolve(own),
    ]
    assert all(type(each.fs) is type(place.fs) is not s3fs.S3FileSystem for each in there)
    assert all(each.fs is place.fs for each in there[:-1])
    assert storage.resolve(own).fs.anon
    assert storage.resolve(place) is place
    assert (str(place / "a"), (place / "a").path) == ("s3://bucket/archive/a", "bucket/archive/a")
    assert storage.is_same("s3://bucket/archive/", place)
