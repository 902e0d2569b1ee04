from __future__ import annotations

import errno
import math
import os
import shutil
import socket
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, strategies as st
from upath import UPath

from emolib.errors import AudioError, Code, SettingsError
from emolib.sound.exclusion import Exclusion
from emolib.sound.manifest import Listing, Recording, list_recordings, recording_id, version_of


def write(folder: Path | UPath, *names: str) -> None:
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(name.encode())


def uris(folder: Path | UPath) -> list[str]:
    return [recording.uri for recording in list_recordings(folder)]


@pytest.fixture
def memory() -> UPath:
    folder = UPath("memory://manifest-test")
    if folder.exists():
        folder.fs.rm(folder.path, recursive=True)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("place", ["tmp_path", "memory"])
def test_everything_that_could_be_a_recording_is_listed_in_order(place: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(place)
    names = [
        "b.wav",
        "a",
        "z/1.WAV",
        "z/y/2.raw",
        "c.zip",
        "_in/3.mp3",
        "notes.txt",
        "z/calls.CSV",
        ".x.wav",
        ".d/4.wav",
    ]
    write(folder, *names)
    listing = list_recordings(folder)
    assert [recording.uri for recording in listing] == ["a", "b.wav", "c.zip", "_in/3.mp3", "z/1.WAV", "z/y/2.raw"]
    assert listing.left_out == {"hidden": 2, ".txt": 1, ".csv": 1}
    assert list(list_recordings(str(folder))) == list(list_recordings(folder))


@pytest.mark.parametrize("place", ["tmp_path", "memory"])
def test_version_of_follows_the_rule_of_the_listing(place: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(place)
    write(folder, "a.wav", "d/b.wav")
    before = list(list_recordings(folder))
    assert [version_of(folder / recording.uri) for recording in before] == [(r.version, r.size) for r in before]
    assert [recording.recording_id for recording in before] == [recording_id("a.wav"), recording_id("d/b.wav")]
    assert all(recording.modified_s > 1.7e9 for recording in before)
    (folder / "a.wav").write_bytes(b"longer than before")
    after = list(list_recordings(folder))
    assert [a.version == b.version for a, b in zip(after, before, strict=True)] == [False, True]


@pytest.mark.parametrize("place", ["tmp_path", "memory"])
def test_what_is_no_file_has_no_version(place: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(place)
    write(folder, "d/b.wav")
    with pytest.raises(AudioError) as gone:
        version_of(folder / "a.wav")
    with pytest.raises(AudioError) as no_file:
        version_of(folder / "d")
    assert (gone.value.code, no_file.value.code) == (Code.MISSING, Code.UNREADABLE)


@pytest.mark.parametrize("place", ["tmp_path", "memory"])
def test_a_root_that_is_missing_or_a_file_is_refused_at_once(place: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(place)
    write(folder, "a.wav")
    with pytest.raises(SettingsError, match="does not exist, expected a folder"):
        list_recordings(folder / "absent")
    with pytest.raises(SettingsError, match="is a file, expected a folder"):
        list_recordings(folder / "a.wav")


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert uris(tmp_path) == []


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    archive, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    write(archive, "2024/a.wav")
    write(elsewhere, "b.wav", "deep/c.wav")
    (archive / "0-latest").symlink_to(archive / "2024")
    (archive / "2024" / "up").symlink_to(archive)
    (archive / "linked").symlink_to(elsewhere)
    (elsewhere / "home").symlink_to(tmp_path)
    (archive / "file.wav").symlink_to(elsewhere / "b.wav")
    # The real folder wins over the link that sorts before it, so a new link never renames a recording.
    assert uris(archive) == ["file.wav", "2024/a.wav", "linked/b.wav", "linked/deep/c.wav"]


def test_a_dangling_link_is_listed_as_missing(tmp_path: Path) -> None:
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    assert [(r.uri, r.version, r.size) for r in list_recordings(tmp_path)] == [
        ("gone.wav", "missing", 0),
        ("self.wav", "missing", 0),
    ]
    for name in ("gone.wav", "self.wav"):
        with pytest.raises(AudioError) as error:
            version_of(tmp_path / name)
        assert error.value.code == Code.MISSING


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    listing = list_recordings(tmp_path)
    assert list(listing) == []
    assert listing.left_out == {"special": 1}


def test_a_name_that_is_not_utf8_is_listed_once_and_ends_as_missing(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    try:
        Path(os.fsdecode(odd)).write_bytes(b"RIFF")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    (recording,) = list_recordings(tmp_path)
    assert recording.uri == r"caf\xe9.wav"
    assert recording.size == 4
    with pytest.raises(AudioError) as error:
        version_of(tmp_path / recording.uri)
    assert error.value.code == Code.MISSING
    write(tmp_path, recording.uri)  # now a file really has the name that stood for the odd one
    assert uris(tmp_path) == [r"caf\xe9.wav"] * 2  # which is which, nobody can say: a plan calls them ambiguous


@pytest.mark.parametrize("form", ["{}.wav", "{}/a.wav"])
def test_names_that_differ_only_in_unicode_form_are_both_listed(tmp_path: Path, form: str) -> None:
    names = [form.format(unicodedata.normalize(kind, "café")) for kind in ("NFC", "NFD")]
    write(tmp_path, *names)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system keeps one Unicode form")
    found = list(list_recordings(tmp_path))
    assert [each.uri for each in found] == sorted(names)
    assert len({each.recording_id for each in found}) == 1


def test_a_decomposed_name_keeps_its_spelling_and_shares_the_id_of_its_composed_form(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café.wav")
    write(tmp_path, name)
    (recording,) = list_recordings(tmp_path)
    assert (tmp_path / recording.uri).exists()
    assert recording.recording_id == recording_id(unicodedata.normalize("NFC", name))


@contextmanager
def nobody() -> Iterator[None]:
    """Whoever runs the tests may not read everything: permissions bind no root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anybody may read, unlike those that pytest makes."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_that_may_not_be_read_is_a_gap(open_folder: Path) -> None:
    write(open_folder, "a.wav", "closed/b.wav", "closed/deep/c.wav", "lost+found/d.wav", "names/e.wav", "names/f/g.wav")
    (open_folder / "into").symlink_to(open_folder / "closed/deep")
    modes = {"closed": 0o311, "names": 0o744, "lost+found": 0o700}
    for name, mode in modes.items():
        (open_folder / name).chmod(mode)
    listing = list_recordings(open_folder)
    with nobody():
        found = [(each.uri, each.version if each.uri != "a.wav" else "") for each in listing]
    # Of names/e.wav everybody may know the name alone: it fails as unreadable. What a link leads to has other names.
    assert found == [("a.wav", ""), ("names/e.wav", "unreadable")]
    assert listing.unreadable == {
        "closed": "Permission denied",
        "names/f": "Permission denied",
        "into": "it leads into a folder that can't be read",
    }
    assert listing.left_out == {"system": 1}
    listing = list_recordings(open_folder, exclude=Exclusion(["closed", "names/*", "into"]))
    with nobody():
        assert [each.uri for each in listing] == ["a.wav"]
    assert listing.unreadable == {}
    (open_folder / "closed").chmod(0o755)
    assert [uri for uri in uris(open_folder) if "names" not in uri] == ["a.wav", "closed/b.wav", "closed/deep/c.wav"]


def test_a_root_that_may_not_be_read_is_refused(open_folder: Path) -> None:
    write(open_folder, "closed/a.wav")
    (open_folder / "closed").chmod(0o311)
    with nobody(), pytest.raises(SettingsError, match="may not be read, expected read access to the archive"):
        list(list_recordings(open_folder / "closed"))


@pytest.mark.parametrize("pattern", ["closed", "closed/*", "closed/**", "**", "c*/"])
def test_what_is_excluded_is_no_gap(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "closed/a.wav")
    _fails(monkeypatch, "closed", OSError(errno.EIO, "Input/output error"))
    listing = list_recordings(tmp_path, exclude=Exclusion([pattern]))
    assert list(listing) == []
    assert (listing.unreadable, listing.left_out) == ({}, {"excluded": 1})


def _fails(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Let the listing of a folder fail as a disk, or a server, does it."""
    scandir = os.scandir

    def guarded(folder: str):  # type: ignore[no-untyped-def]
        if str(folder).endswith(f"/{name}"):
            raise error
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.ELOOP, errno.ENOENT])
def test_a_folder_that_fails_is_a_gap(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOENT: what is there all the same is a mount that fails."""
    write(tmp_path, "a.wav", "day/b.wav", "day/deep/c.wav", "z/d.wav")
    _fails(monkeypatch, "day", OSError(code, os.strerror(code)))
    listing = list_recordings(tmp_path)
    assert [each.uri for each in listing] == ["a.wav", "z/d.wav"]
    assert list(listing.unreadable) == ["day"]
    assert listing.unreadable["day"]


def test_too_many_open_files_are_no_fault_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "day/b.wav")
    _fails(monkeypatch, "day", OSError(errno.EMFILE, "Too many open files"))
    with pytest.raises(OSError, match="Too many open files"):
        list(list_recordings(tmp_path))


def test_a_path_that_is_too_long_is_a_gap(tmp_path: Path) -> None:
    write(tmp_path, "a.wav")
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(18):  # of 255 bytes each: more than any path may have
        os.mkdir("n" * 255, dir_fd=folder)
        parent, folder = folder, os.open("n" * 255, os.O_RDONLY, dir_fd=folder)
        os.close(parent)
    os.close(folder)
    listing = list_recordings(tmp_path)
    assert [each.uri for each in listing] == ["a.wav"]
    assert list(listing.unreadable.values()) == [os.strerror(errno.ENAMETOOLONG)]


def test_what_goes_while_the_archive_is_listed_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "a.wav", "b.wav", "day/c.wav", "other/d.wav")
    listing = list_recordings(tmp_path)
    assert next(listing).uri == "a.wav"
    shutil.rmtree(tmp_path / "day")
    shutil.rmtree(tmp_path / "other")
    write(tmp_path, "other")  # a file where a folder was
    assert [each.uri for each in listing] == ["b.wav"]
    assert (listing.left_out, listing.unreadable) == ({"removed": 2}, {})


def test_a_file_that_is_renamed_before_it_is_looked_at_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a.wav", "b.wav")
    scandir = os.scandir

    @contextmanager
    def slow(folder: str):  # type: ignore[no-untyped-def]
        with scandir(folder) as entries:
            found = list(entries)
        (tmp_path / "b.wav").rename(tmp_path / "c.wav")
        yield found

    monkeypatch.setattr(os, "scandir", slow)
    listing = list_recordings(tmp_path)
    assert [each.uri for each in listing] == ["a.wav"]
    assert listing.left_out == {"removed": 1}


def test_special_files_are_left_out_and_hard_links_are_recordings(tmp_path: Path) -> None:
    write(tmp_path, "a.wav")
    os.link(tmp_path / "a.wav", tmp_path / "b.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "null.wav").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s"))  # a short one: sockets have no long names
        listing = list_recordings(tmp_path)
        assert [each.uri for each in listing] == ["a.wav", "b.wav"]
    assert listing.left_out == {"special": 3}


def test_names_may_hold_any_character(tmp_path: Path) -> None:
    names = ["a\nb.wav", "tab\t.wav", "bell\a.wav", "\x1b[31mred.wav", " .wav", "a\r.wav", "\u202ecod.wav"]
    write(tmp_path, *names)
    assert sorted(uris(tmp_path)) == sorted(names)


def test_a_prefix_that_a_store_forbids_is_a_gap(memory: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    write(memory, "a.wav", "closed/b.wav", "gone/c.wav", "z/d.wav")
    ls = memory.fs.ls

    def guarded(folder: str, detail: bool = True) -> list[dict[str, object]]:
        if folder.endswith("closed"):
            raise PermissionError("Access Denied")
        if folder.endswith("gone"):
            raise FileNotFoundError(folder)
        return list(ls(folder, detail=detail))

    monkeypatch.setattr(memory.fs, "ls", guarded)
    listing = list_recordings(memory)
    assert [each.uri for each in listing] == ["a.wav", "z/d.wav"]
    assert (list(listing.unreadable), listing.left_out) == (["closed"], {"removed": 1})
    monkeypatch.setattr(memory.fs, "ls", lambda folder, detail: guarded("closed"))
    with pytest.raises(SettingsError, match="expected read access to the archive"):
        list(list_recordings(memory))


def test_a_file_of_a_store_that_goes_or_is_forbidden_hides_no_other(
    memory: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some listings say so little of a file that it is asked for by itself."""
    write(memory, "a.wav", "b.wav", "c.wav")
    errors = {"a.wav": FileNotFoundError("a.wav"), "b.wav": PermissionError("Access Denied")}

    def info(path: str) -> dict[str, object]:
        name = path.rpartition("/")[2]
        if name in errors:
            raise errors[name]
        return {"name": path, "size": 5, "type": "file", "ETag": "abc"}

    def ls(folder: str, detail: bool = True) -> list[dict[str, object]]:
        return [{"name": f"{folder}/{name}", "size": 5, "type": "file"} for name in ("a.wav", "b.wav", "c.wav")]

    monkeypatch.setattr(memory.fs, "ls", ls)
    monkeypatch.setattr(memory.fs, "info", info)
    found = [(each.uri, each.version) for each in Listing(memory, Exclusion())]
    assert found == [("a.wav", "missing"), ("b.wav", "unreadable"), ("c.wav", "5-abc")]


def test_a_file_and_a_folder_of_one_name_are_two_things(memory: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of keys of an object store one may be the beginning of another; an empty one that ends with / marks a folder."""
    root = memory.path.rstrip("/")
    files = [f"{root}/day", f"{root}/day/", f"{root}/day/a.wav"]

    def ls(folder: str, detail: bool = True) -> list[dict[str, object]]:
        below = [each for each in files if each.startswith(f"{folder}/")]
        direct = [each for each in below if "/" not in each[len(folder) + 1 :].rstrip("/")]
        folders = [{"name": f"{root}/day", "size": 0, "type": "directory"}] if folder == root else []
        return folders + [
            {"name": each, "size": 5, "type": "file", "ETag": "abc"} for each in direct if each[-1] != "/"
        ]

    monkeypatch.setattr(memory.fs, "ls", ls)
    listing = list_recordings(memory)
    assert [each.uri for each in listing] == ["day", "day/a.wav"]
    assert (listing.left_out, listing.unreadable) == ({}, {})


def test_an_etag_is_the_version_and_a_mark_of_the_folder_is_no_recording(
    memory: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(memory, "a.wav")

    def ls(folder: str, detail: bool = True) -> list[dict[str, object]]:
        return [
            {"name": f"{folder}/", "type": "file", "size": 0},
            {
                "name": f"{folder}/a.wav",
                "type": "file",
                "size": 5,
                "ETag": '"abc"',
                "LastModified": "2024-05-01T00:00:00Z",
            },
        ]

    monkeypatch.setattr(memory.fs, "ls", ls)
    (recording,) = list_recordings(memory)
    assert (recording.version, recording.size, recording.modified_s) == ("5-abc", 5, 1714521600.0)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock is not that of UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


_MAY = datetime(2024, 5, 1)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("said", [_MAY, _MAY.isoformat(), "2024-05-01T02:00:00+02:00", 1714521600])
def test_a_modification_time_without_a_zone_is_in_utc(
    said: object, memory: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    (recording,) = _listed_with({"LastModified": said}, memory, monkeypatch)
    assert (recording.version, recording.modified_s) == ("5-1714521600000000", 1714521600.0)


@pytest.mark.parametrize("said", ["yesterday", (2024, 5, 1), object(), float("inf"), float("nan"), ""])
def test_a_modification_time_that_cannot_be_read_is_not_known(
    said: object, memory: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording is listed as one of a store that knows none; another name for the time may say more."""
    (recording,) = _listed_with({"LastModified": said}, memory, monkeypatch)
    assert (recording.version, math.isnan(recording.modified_s)) == ("5-unknown", True)
    more = {"created": datetime(2024, 5, 1, tzinfo=UTC)}
    (recording,) = _listed_with({"LastModified": said, **more}, memory, monkeypatch)
    assert recording.modified_s == 1714521600.0


def _listed_with(marks: dict[str, object], memory: UPath, monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """List a file of which a store says this, and see that a look at it alone says the same."""
    write(memory, "a.wav")
    info = {"name": f"{memory.path}/a.wav", "type": "file", "size": 5, **marks}
    of_others = memory.fs.info
    monkeypatch.setattr(memory.fs, "ls", lambda folder, detail=True: [info])
    monkeypatch.setattr(memory.fs, "info", lambda place: info if place == info["name"] else of_others(place))
    listed = list(list_recordings(memory))
    assert [version_of(memory / each.uri) for each in listed] == [(each.version, each.size) for each in listed]
    return listed


NAMES = st.text(st.sampled_from("abé. _"), min_size=1, max_size=3).filter(lambda name: name.strip("."))


@given(paths=st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), max_size=8))
def test_the_listing_is_every_file_that_counts_exactly_once(
    tmp_path_factory: pytest.TempPathFactory, paths: set[tuple[str, ...]]
) -> None:
    root = tmp_path_factory.mktemp("archive")
    files = {path for path in paths if not any(other[: len(path)] == path for other in paths - {path})}
    write(root, *("/".join(path) for path in files))
    visible = {"/".join(path) for path in files if not any(name.startswith(".") for name in path)}
    found = list(list_recordings(root))
    assert sorted(recording.uri for recording in found) == sorted(visible)
    assert len({recording.recording_id for recording in found}) == len(visible)


def test_real_calls_and_broken_files_are_all_listed(shared: Path) -> None:
    for folder in (shared / "calls", shared / "broken"):
        assert uris(folder) == sorted(path.name for path in folder.iterdir())
