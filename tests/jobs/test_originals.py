"""Law 7: what a command is given to read is afterwards what it was: content, times, modes, names and links."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emolib import archive
from emolib.sound.synthetic import write_calls, write_corpus
from jobs.command import app
from tests.conftest import TRAINS, MadeOnce
from tests.faults.broken import WAYS, write_broken
from tests.faults.world import untrained_model
from tests.jobs.conftest import run_emolib

# No archive, corpus or store is given to them.
_WITHOUT_ORIGINALS = {"certs", "demo"}
_COMMANDS = """
import json, sys
from jobs import process
from jobs.environment import set_switches
asked = json.load(sys.stdin)
process.begin([])
set_switches()
from jobs.command import run
for arguments, expected in asked:
    ended = run(arguments)
    if ended.exit_code != expected:
        sys.stderr.write(f"{arguments}: {ended}\\n")
        process.end(1)
"""
# For a process and its children, what lies in a folder may only be read; it ends with 3 where nobody can see to that.
_READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 3
! touch "$1/touched" 2>/dev/null || exit 3
shift
exec "$@"
"""

Facts = dict[str, tuple[Any, ...]]
Command = tuple[tuple[object, ...], int]


def _facts(root: Path) -> Facts:
    """Return all that the file system says of a folder and of what lies in it, but when that was read last."""
    found = {}
    for place in [root, *root.rglob("*")]:
        status = place.lstat()
        if place.is_symlink():
            content = str(place.readlink())
        elif place.is_dir():
            content = ",".join(sorted(os.listdir(place)))  # noqa: PTH208
        else:
            content = hashlib.blake2b(place.read_bytes()).hexdigest()
        found[str(place.relative_to(root))] = (
            content,
            *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ino, status.st_size),
            *(status.st_mtime_ns, status.st_ctime_ns),
        )
    return found


def _changed(before: Facts, root: Path) -> list[str]:
    after = _facts(root)
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))


@pytest.fixture(scope="session")
def originals(made_once: MadeOnce) -> Path:
    """All that commands are given: an archive with files of every kind, a corpus, a model, calls that are known."""
    return made_once("originals", _make)


def _make(root: Path) -> None:
    calls = root / "calls"
    write_calls(calls, calls=3, broken=5, seed=2)
    for way in WAYS:
        write_broken(calls, way, 0)
    (calls / "others").mkdir()
    (calls / "others/.DS_Store").write_bytes(b"Bud1")
    (calls / "others/notes.txt").write_text("of a person")
    good = next(calls.rglob("call-*.wav"))
    (calls / "linked.wav").symlink_to(good)
    shutil.copy(good, calls / "others/closed.wav").chmod(0o444)
    (calls / "others").chmod(0o555)
    write_corpus(root / "corpus", speakers=4, utterances=1, seed=1)
    next((root / "corpus").rglob("*.wav")).write_bytes(b"")
    untrained_model(root / "model")
    (root / "calls.csv").write_text("call_id,direction\n0001,inbound\n")
    known = ("benchmark", root / "corpus", "--out", root / "known", "--calls", "2", "--duration-s", "15")
    assert run_emolib(*known).exit_code == 0


def _commands(root: Path, out: Path, *where: str) -> list[Command]:
    """Return commands, each with the code that it ends with; some want what those before them have made."""
    calls, store, clip = root / "calls", out / "S.zarr", max((root / "corpus").rglob("*.wav"))
    extract = ("extract", root / "corpus", "--store", store, "--failure-budget", "1", *where)
    common = ("--model", root / "model", "--failure-budget", "1", *where)
    score = ("score", calls, "--out", out / "P", *common, "--find-duplicates")
    score += ("--calls-table", root / "calls.csv", "--pattern", r"call-(?P<call_id>\d+)")
    truth = ("--archive", out / "K", "--truth", root / "known/truth.parquet")
    learn = (store, "--task", "emotion3", "--epochs", "1")
    commands: list[Command] = [
        (extract, 0),
        ((*extract, "--resume"), 0),
        (("explore", clip, "--out", out / "of clip"), 0),
        (("explore", store, "--out", out / "of store"), 0),
        (("benchmark", root / "corpus", "--out", out / "made", "--calls", "1", "--duration-s", "10"), 0),
        (("known-audio", calls, "--out", out / "music.npz", *where), 0),
        (("doctor", "--archive", calls, "--model", root / "model", "--out", out / "tried", *where), 0),
        ((*score, "--plan"), 0),
        (score, 0),
        ((*score, "--retry", "corrupt"), 0),
        (("nightly", calls, "--out", out / "N", *common, "--settle-s", "0", "--report", out / "nights"), 0),
        (("score", root / "known/calls", "--out", out / "K", *common), 0),
        (("evaluate", *truth, "--out", out / "judged"), 0),
        (("verify", out / "P"), 0),
        (("report", out / "P", "--out", out / "page"), 0),
        (("export", out / "P", "--out", out / "segments"), 0),
        (("promote", out / "P", "--model", root / "model"), 2),  # it is in force
        (("erase", out / "P", "--call-id", "0001"), 0),
        (("train", *learn, "--model", out / "trained"), 0),
        (("evaluate", *learn, "--protocol", "grouped", "--out", out / "folds"), 0),
    ]
    return commands if TRAINS else commands[:-2]


def test_every_command_that_is_given_originals_is_tried(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/a.wav").touch()
    tried = {str(arguments[0]) for arguments, _ in _commands(tmp_path, tmp_path)}
    names = {name for name in app if not name.startswith("-")}
    assert tried == names - _WITHOUT_ORIGINALS - (set() if TRAINS else {"train"})


@pytest.mark.parametrize("command", ["extract", "score"])
def test_a_command_leaves_what_it_reads_as_it_was(
    command: str, originals: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    """The first of each kind; the others take longer."""
    before = _facts(originals)
    arguments, code = next(each for each in _commands(originals, tmp_path, *cluster) if each[0][0] == command)
    assert run_emolib(*map(str, arguments)).exit_code == code
    assert _changed(before, originals) == []


@pytest.mark.slow
def test_all_commands_leave_what_they_read_as_it_was(originals: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    before = _facts(originals)
    for arguments, code in _commands(originals, tmp_path, *cluster):
        ended = run_emolib(*map(str, arguments))
        assert ended.exit_code == code, (arguments, ended.summary)
        assert _changed(before, originals) == [], arguments


@pytest.mark.slow
def test_originals_on_a_file_system_that_can_only_be_read(originals: Path, tmp_path: Path) -> None:
    """Nobody even tries to write there, or to open for writing: for everybody, root as well, that is an error."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: commands were not tried on a file system that can only be read")
    before = _facts(originals)
    commands = _commands(originals, tmp_path, "--workers", "1")
    apart = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
    done = subprocess.run(
        [*apart, "sh", "-c", _READ_ONLY, "sh", originals, sys.executable, "-c", _COMMANDS],
        input=json.dumps(commands, default=str),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 3 or "unshare failed" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {' '.join(done.stderr.split())[:80]}")
    assert done.returncode == 0, done.stderr
    assert _changed(before, originals) == []
    rows = archive.read(tmp_path / "N", table="recordings").set_index("uri")["code"].to_dict()
    codes = {uri.removesuffix("-0.wav"): code for uri, code in rows.items() if uri.endswith("-0.wav")}
    assert {way: codes.get(way) for way in WAYS if way != "not-unicode"} == {
        way: code for way, code in WAYS.items() if way != "not-unicode"
    }
    assert (rows["linked.wav"], rows["others/closed.wav"]) == ("ok", "ok")
