from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from upath import UPath

from emolib.errors import AudioError, Code, SettingsError
from emolib.sound.manifest import list_recordings, recording_id, version_of


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
    with pytest.raises(SettingsError, match="rename one of them"):
        list(list_recordings(tmp_path))


@pytest.mark.parametrize("form", ["{}.wav", "{}/a.wav"])
def test_names_that_differ_only_in_unicode_form_are_refused(tmp_path: Path, form: str) -> None:
    names = [form.format(unicodedata.normalize(kind, "café")) for kind in ("NFC", "NFD")]
    write(tmp_path, *names)
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system keeps one Unicode form")
    with pytest.raises(SettingsError, match=r"caf\\xe9.*cafe\\u0301|cafe\\u0301.*caf\\xe9"):
        list(list_recordings(tmp_path))


def test_a_decomposed_name_keeps_its_spelling_and_shares_the_id_of_its_composed_form(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café.wav")
    write(tmp_path, name)
    (recording,) = list_recordings(tmp_path)
    assert (tmp_path / recording.uri).exists()
    assert recording.recording_id == recording_id(unicodedata.normalize("NFC", name))


def test_a_folder_that_may_not_be_read_stops_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "closed/a.wav", "lost+found/b.wav")
    scandir = os.scandir

    def guarded(folder: str):  # type: ignore[no-untyped-def]
        if folder.endswith(("closed", "lost+found")):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(SettingsError, match="closed' may not be read"):
        list(list_recordings(tmp_path))
    (tmp_path / "closed" / "a.wav").unlink()
    (tmp_path / "closed").rmdir()
    assert uris(tmp_path) == []


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
