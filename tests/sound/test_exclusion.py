"""What is left out of an archive by name: what no recorder calls sound, and what a user excludes; never a recording."""

from __future__ import annotations

import subprocess
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from emolib.errors import SettingsError
from emolib.sound.exclusion import Exclusion, why_left_out
from emolib.sound.manifest import list_recordings

LITTER_FOLDERS = {
    "recycle_bin": [
        *("$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", ".Trash", ".Trash-1000", ".Trashes", "#recycle"),
        *("@Recycle", "@recycle", ".recycle", "Recycle Bin", "Network Trash Folder", "_NAS_Recycle_RAID"),
    ],
    "snapshot": [
        *(".snapshot", ".snapshots", "~snapshot", "#snapshot", ".zfs", "@Recently-Snapshot"),
        "@GMT-2024.05.01-00.00.00",
    ],
    "system": [
        *("lost+found", "System Volume Information", "SYSTEM VOLUME INFORMATION", "FOUND.000", "@eaDir", "@tmp"),
        *(".@__thumb", "__MACOSX", "Temporary Items", "_temporary", "_delta_log", "_spark_metadata"),
    ],
    "hidden": [".git", ".svn", ".hg", ".Spotlight-V100", ".stversions", ".rsync-partial", ".AppleDouble"],
    ".zarr": ["features.zarr"],
}
LITTER_FILES = {
    "system": [
        *("thumbs.db:encryptable", "Icon\r", "a.wav@SynoEAStream", "a.wav:Zone.Identifier", "_SUCCESS"),
        *("a.wav:com.apple.quarantine", "_committed_123", "_started_123", "2024_$folder$", "SHA256SUMS", "README"),
    ],
    "upload": ["a.wav._COPYING_", "a.wav.sb-1a2b3c4d-XyZ123"],
    "hidden": ["._a.wav", ".DS_Store", ".a.wav.XyZ123", ".nfs000000000001", ".fuse_hidden0001", ".wav", ".in.a.wav."],
    ".db": ["Thumbs.db", "ehthumbs.db"],
    ".ini": ["desktop.ini"],
    ".md5": ["a.wav.md5", "a.MD5"],
    ".sha256": ["a.wav.sha256"],
    ".sig": ["a.wav.sig"],
    ".txt": ["a.wav.txt", "a.TXT"],
    ".json": ["a.wav.json"],
    ".xml": ["a.xml"],
    ".meta": ["call.meta"],
    ".pcap": ["call.pcap"],
    ".peak": ["a.wav.peak"],
    ".part": ["a.wav.part"],
    ".partial": ["a.wav.1a2b3c4d.partial"],
    ".filepart": ["b.wav.filepart"],
    ".crdownload": ["a.wav.crdownload"],
    ".tmp": ["a.wav.tmp", "~syncthing~a.wav.tmp"],
    ".gstmp": ["a.wav_.gstmp"],
    ".!sync": ["a.wav.!sync"],
    ".inprogress": ["a.wav.inprogress"],
    ".docx": ["~$notes.docx"],
}
MARKERS = ["call.done", "a.wav.lock", "call.ok", "a.wav.LCK", "call.ready", "call.trg", "a.wav.complete", "call.err"]
RECORDINGS = [
    *("tmp_2024.wav", "call", "part1.wav", "a.part1", "hidden.wav", "recycler.wav", "snapshot.mp3", "lost+found.wav"),
    *(
        "2024.05.01",
        "anna.+4917012345",
        "a.wav.bak",
        "a.wav.1",
        "a.wav.20240501",
        "a.zip",
        "a.wav.gpg",
        "a.raw",
        "a.dat",
    ),
    *("download.aspx", "a.wav~", "~a.wav", "~$a.wav", "_SUCCESS.wav", "README.wav", "success", "readme_call.au"),
    *("$folder$.wav", "a@b.wav", "a:b.wav", "desktop", "a.tmp.wav", "a.md5.wav", "#recycle", "call.vox", "a.nmf"),
]
FOLDERS = [
    *(
        "Trash",
        "trash",
        "snapshots_of_2024",
        "snapshot",
        "Snapshots",
        "recycle",
        "tmp",
        "temp",
        "backup",
        "CVS",
        "done",
    ),
    *(
        "a.done",
        "2024.part",
        "a.txt",
        "Lost and Found",
        "_SUCCESS",
        "@home",
        "#1",
        "$ales",
        "~anna",
        "System",
        "README",
    ),
]


@pytest.mark.parametrize("reason", LITTER_FOLDERS)
def test_a_folder_of_litter_is_left_out(reason: str) -> None:
    assert {name: why_left_out(name) for name in LITTER_FOLDERS[reason]} == dict.fromkeys(
        LITTER_FOLDERS[reason], reason
    )


@pytest.mark.parametrize("reason", LITTER_FILES)
def test_a_file_of_litter_is_left_out_whatever_its_size(reason: str) -> None:
    for size in (0, 100_000):
        found = {name: why_left_out(name, size=size) for name in LITTER_FILES[reason]}
        assert found == dict.fromkeys(LITTER_FILES[reason], reason)


def test_a_marker_is_left_out_only_where_it_is_too_small_for_sound() -> None:
    """Some pipelines rename a recording that they have processed: a.wav.done."""
    for name in MARKERS:
        assert why_left_out(name, size=20) == f".{name.rpartition('.')[2].lower()}"
        assert why_left_out(name, size=100_000) is None
        assert why_left_out(name) is None


def test_odd_names_of_recordings_and_of_folders_are_listed() -> None:
    assert {name for name in RECORDINGS if why_left_out(name, size=8000) is not None} == set()
    assert {name for name in FOLDERS if why_left_out(name) is not None} == set()


_STEMS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(stem=_STEMS.filter(lambda stem: stem[0] != "."), suffix=st.sampled_from([".wav", ".MP3", ".ogg", ".gsm"]))
def test_no_name_that_ends_like_sound_is_left_out(stem: str, suffix: str) -> None:
    """But for hidden ones, and copies of streams that are no sound."""
    assert why_left_out(stem + suffix, size=0) is None or ":" in stem


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("test", ["b/test.wav", "c.bak"]),
        ("*.bak", ["a/test/1.wav", "b/test.wav", "test/x/2.wav"]),
        ("test/*", ["a/test/1.wav", "b/test.wav", "c.bak"]),
        ("/test", ["a/test/1.wav", "b/test.wav", "c.bak"]),
        ("./test/", ["a/test/1.wav", "b/test.wav", "c.bak"]),
        ("test/", ["b/test.wav", "c.bak"]),
        ("c.bak/", ["a/test/1.wav", "b/test.wav", "c.bak", "test/x/2.wav"]),
        ("*/test/*", ["b/test.wav", "c.bak", "test/x/2.wav"]),
        ("**/test/**", ["b/test.wav", "c.bak"]),
        ("**/*.wav", ["c.bak"]),
        ("test/**/*.wav", ["a/test/1.wav", "b/test.wav", "c.bak"]),
        ("[ab]", ["c.bak", "test/x/2.wav"]),
        ("?/*.wav", ["a/test/1.wav", "c.bak", "test/x/2.wav"]),
        ("TEST", ["a/test/1.wav", "b/test.wav", "c.bak", "test/x/2.wav"]),
        ("[", ["a/test/1.wav", "b/test.wav", "c.bak", "test/x/2.wav"]),
    ],
)
def test_a_pattern_leaves_out(pattern: str, left: list[str], tmp_path: Path) -> None:
    for name in ("a/test/1.wav", "b/test.wav", "c.bak", "test/x/2.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"RIFF")
    listing = list_recordings(tmp_path, exclude=Exclusion([pattern]))
    assert sorted(each.uri for each in listing) == left
    assert set(listing.left_out) == ({"excluded"} if len(left) < 4 else set())


@pytest.mark.parametrize("pattern", ["", "/", "./", "../other", "a/../b"])
def test_a_pattern_that_names_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="expected a pattern"):
        Exclusion(["a", pattern])


_NAMES = st.text(st.sampled_from("ab*?[]é.-"), min_size=1, max_size=3).filter(lambda name: name.strip("."))
_PATHS = st.lists(_NAMES, min_size=1, max_size=3)


@given(path=_PATHS, other=_PATHS)
def test_a_path_whose_characters_are_escaped_matches_itself_alone(path: list[str], other: list[str]) -> None:
    escaped = Exclusion(["/" + "/".join("".join(f"[{c}]" if c in "*?[" else c for c in name) for name in path)])
    uri = "/".join(path)
    assert escaped.matches(uri)
    assert escaped.matches(unicodedata.normalize("NFD", uri))
    assert escaped.matches("/".join(other)) == (path == other)


@given(path=_PATHS, folders=st.lists(_NAMES, max_size=3))
def test_any_number_of_folders_is_two_stars(path: list[str], folders: list[str]) -> None:
    assert Exclusion(["**"]).matches("/".join(path))
    assert Exclusion([f"**/{'/'.join('?' * len(name) for name in path)}"]).matches("/".join([*folders, *path]))


def test_the_litter_of_file_servers_recorders_and_uploads(shared: Path, tmp_path: Path) -> None:
    subprocess.run(
        ["bash", shared / "cases/make_litter.sh", next((shared / "calls").glob("*.wav")), tmp_path / "archive"],
        check=True,
    )
    listing = list_recordings(tmp_path / "archive")
    assert [each.uri for each in listing] == ["2024-05-01/a.wav"]
    assert listing.left_out == Counter(
        {"recycle_bin": 2, "system": 3, ".meta": 1, ".pcap": 1, ".filepart": 1, ".sig": 1, ".done": 1}
    )
