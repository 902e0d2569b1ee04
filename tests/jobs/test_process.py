"""The process of the command: locales, working directories, streams that take nothing, signals at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from tests.archive.conftest import RATE, voice, write_call
from tests.conftest import PATIENCE_S
from tests.faults.world import parts, untrained_model
from tests.jobs.conftest import assert_same_rows, run_emolib

_EMOLIB = Path(sys.executable).parent / "emolib"
# No UTF-8, whatever this machine's own locale is.
_ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
_WRONG = ("--config", "nowhere.toml")
_FULL = Path("/dev/full")
_SHADOWING = ("signal", "types", "json", "queue", "tempfile", "numpy", "soundfile")
# What C libraries do to stderr, where a recording is heard; and one of them takes its worker away, once.
_INJECTED = """
import os
from emolib.sound import audio

stream = audio.stream

def injected(place, **named):
    os.write(2, b"a library speaks\\n")
    os.write(1, b"a library prints\\n")
    if place.name.startswith("takes") and not os.path.exists(os.environ["SEEN"]):
        open(os.environ["SEEN"], "wb").close()
        os.kill(os.getppid(), 9)
    return stream(place, **named)

audio.stream = injected
"""


def _emolib(*arguments: str | Path, environment: dict[str, str] | None = None, **how: object) -> subprocess.Popen[str]:
    whole = {**os.environ, **(environment or {})}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
    command = [str(_EMOLIB), *map(str, arguments)]
    return subprocess.Popen(command, env=whole, encoding="utf-8", **streams)  # type: ignore[call-overload]


def _ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.mark.skipif(not _FULL.exists(), reason="no /dev/full here")
def test_a_stream_that_is_full_changes_no_code_but_that_of_success() -> None:
    """The run is done, but whoever wanted its summary has none: it is as with any other output on a full disk."""
    with _FULL.open("w") as full:
        code, _, said = _ended(_emolib("--version", stdout=full))
        assert (code, said.count("\n")) == (5, 1)
        assert "stdout can't be written to: [Errno 28] No space left on device; make room" in said
        assert _ended(_emolib(*_WRONG, stdout=full, stderr=full))[0] == 2


def test_a_stdout_that_is_open_for_reading_only() -> None:
    with open(os.devnull, "rb") as nothing:
        _, _, said = _ended(_emolib(*_WRONG, stdout=nothing))
    assert said.endswith(
        "stdout can't be written to: [Errno 9] Bad file descriptor; expected a stream that takes the summary\n"
    )


def test_a_reader_that_went_away_changes_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for asked, code in ((("--help",), 0), (_WRONG, 2)):
        ended, _, said = _ended(_emolib(*asked, stdout=writing))
        assert ended == code
        assert said.count("\n") == bool(code), said  # the line that says what is wrong
    os.close(writing)


def test_streams_that_are_closed_change_nothing() -> None:
    shell = ["sh", "-c", '"$@" >&- 2>&- <&-', "sh", str(_EMOLIB), *_WRONG]
    done = subprocess.run(shell, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


@pytest.mark.parametrize("locale", [_ASCII, {"PYTHONIOENCODING": "ascii"}], ids=["ascii", "ascii streams"])
def test_names_are_said_in_any_locale(locale: dict[str, str]) -> None:
    code, out, said = _ended(_emolib("--log-format", "json", "--config", "Müller-😀", environment=locale))
    assert code == 2
    for line in (json.loads(out)["error"], json.loads(said)["message"]):
        assert "Müller-😀" in line


def test_modules_in_the_working_directory_are_no_modules_of_the_command(tmp_path: Path) -> None:
    for name in ("signal", "json", "queue", "numpy", "tempfile"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('in the place of another')")
    done = subprocess.run([sys.executable, "-m", "jobs", "--version"], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ended = run_emolib("verify", tmp_path)
    assert ended.exit_code == 2
    assert "the working directory is gone" in ended.summary["error"]


@pytest.mark.parametrize("place", ["none", "file"])
def test_a_place_for_temporary_files_that_is_none(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("keep me")
    monkeypatch.setenv("TMPDIR", str(tmp_path / place))
    ended = run_emolib("verify", tmp_path)
    assert ended.exit_code == 2
    assert f"no file can be written to {tmp_path / place}" in ended.summary["error"]


def _takes_signals(process: subprocess.Popen[str]) -> bool:
    """Return whether a command has its signals in hand: until then Python is only about to begin with it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _stop_again_and_again(process: subprocess.Popen[str], *, once: Callable[[], object]) -> list[psutil.Process]:
    """Tell a command to stop, every 50 ms from some moment to its end; return the processes that it had."""
    seen: dict[int, psutil.Process] = {}
    while process.poll() is None and not (_takes_signals(process) and once()):
        time.sleep(0.005)
    for number in cycle((signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)):
        if process.poll() is not None:
            return list(seen.values())
        try:
            seen |= {child.pid: child for child in psutil.Process(process.pid).children(recursive=True)}
        except psutil.Error:  # it has just ended
            continue
        process.send_signal(number)
        time.sleep(0.05)
    raise AssertionError


def _assert_interrupted(process: subprocess.Popen[str]) -> None:
    code, out, said = _ended(process)
    assert code == 5, said
    assert json.loads(out)["exit_code"] == 5
    assert said.splitlines()[-1].startswith("emolib: interrupted: run the same command again")
    assert said.count("interrupted") == 1
    assert "Traceback" not in said
    assert "Exception" not in said


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which signals a process takes")
def test_ctrl_c_again_and_again_from_the_beginning(tmp_path: Path) -> None:
    process = _emolib("score", tmp_path, "--model", tmp_path / "M", "--out", tmp_path / "P")
    _stop_again_and_again(process, once=lambda: True)
    _assert_interrupted(process)
    assert not list(tmp_path.iterdir())


def test_a_command_that_nobody_listens_to_can_be_ended(tmp_path: Path) -> None:
    """Its summary does not fit into a pipe that nobody reads: it waits, but not against who wants to end it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while os.write(writing, bytes(1024)):
            pass
    os.set_blocking(writing, True)
    code = "from jobs import process; process._ORDERLY_S = 0; from jobs.__main__ import main; main()"
    command = [sys.executable, "-c", code, "verify", str(tmp_path / "nothing")]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "nothing found" in process.stderr.readline()  # it has ended, and says so
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert process.returncode == 5
    process.stderr.close()
    os.close(reading)
    os.close(writing)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("process") / "model")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names in several scripts, and one that is not Unicode; an MP3 that is damaged."""
    folder = tmp_path_factory.mktemp("archive") / "calls"
    for number, name in enumerate(("Müller", "Привет", "😀", "takes-its-worker-away", "plain")):
        write_call(folder / f"2024-05-0{1 + number % 3}/{name}.wav", voice(3 + number, seed=number))
    Path(os.fsdecode(os.fsencode(folder) + b"/m\xfcller.wav")).write_bytes(
        (folder / "2024-05-02/plain.wav").read_bytes()
    )
    soundfile.write(folder / "damaged.mp3", voice(8, seed=9), RATE, format="MP3")
    sound = np.fromfile(folder / "damaged.mp3", np.uint8)
    sound[2000:2040] = 0
    sound.tofile(folder / "damaged.mp3")
    return folder


@pytest.fixture(scope="module")
def asked(calls: Path, model: Path) -> tuple[str | Path, ...]:
    return "score", calls, "--model", model, "--block-s", "1", "--failure-budget", "1"


@pytest.fixture(scope="module")
def undisturbed(asked: tuple[str | Path, ...], calls: Path, cluster: tuple[str, str]) -> Path:
    assert run_emolib(*asked, "--out", calls.parent / "undisturbed", *cluster).exit_code == 0
    return calls.parent / "undisturbed"


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--debug",)], ids=["", "debug"])
def test_hostile_surroundings_change_no_row_and_nothing_but_the_log_is_on_stderr(
    options: tuple[str, ...], asked: tuple[str | Path, ...], undisturbed: Path, tmp_path: Path
) -> None:
    """A locale of seven bits, modules in the working directory, libraries that speak, a worker that is taken away."""
    (tmp_path / "injected").mkdir()
    (tmp_path / "injected/sitecustomize.py").write_text(_INJECTED)
    (tmp_path / "here").mkdir()
    for name in _SHADOWING:
        (tmp_path / f"here/{name}.py").write_text("raise SystemExit('in the place of another')")
    ended, out, said = _ended(
        _emolib(
            *("--log-format", "json", *options, *asked, "--out", tmp_path / "P", "--workers", "1"),
            environment={**_ASCII, "PYTHONPATH": str(tmp_path / "injected"), "SEEN": str(tmp_path / "seen")},
            cwd=tmp_path / "here",
        )
    )
    entries = [json.loads(line) for line in said.splitlines()]
    assert ended == 0, said
    assert json.loads(out)["codes"] == {"ok": 6, "missing": 1}
    assert_same_rows(tmp_path / "P", undisturbed)
    assert all({"time", "message"} <= set(entry) for entry in entries)
    others = " ".join(entry["message"] for entry in entries if entry.get("from") == "stderr")
    for words in ("a library speaks", "a library prints", "distributed.nanny"):
        assert (words in others) == bool(options), words


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["planned", "processes", "a block"])
def test_ctrl_c_again_and_again_at_any_moment(
    moment: str, asked: tuple[str | Path, ...], undisturbed: Path, tmp_path: Path
) -> None:
    """It ends with one line and no process left, and running it again makes the same rows."""
    out = tmp_path / "P"
    process = _emolib(*asked, "--out", out, "--workers", "2")
    begins = {
        "planned": lambda: list(out.glob("_runs/*/plan.json")),
        "processes": lambda: len(psutil.Process(process.pid).children(recursive=True)) > 1,
        "a block": lambda: parts(out),
    }
    left = _stop_again_and_again(process, once=begins[moment])
    if process.returncode != 0:  # or it had done its work before it was told
        _assert_interrupted(process)
    psutil.wait_procs(left, timeout=PATIENCE_S)
    assert not [each for each in left if each.is_running()]
    assert run_emolib(*asked, "--out", out, "--workers", "1").exit_code == 0
    assert_same_rows(out, undisturbed)


_STOPPED_WHILE_IT_LOADS = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "asyncio.runners":  # a part of asyncio is there, and all of it can't be loaded anew
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGTERM)  # SIGINT is ignored in what a shell runs in the background

sys.meta_path.insert(0, Finder())
sys.argv = ["emolib", *sys.argv[1:]]
from jobs.__main__ import main

main()
"""


@pytest.mark.parametrize("form", [(), ("--log-format", "json")], ids=["text", "json"])
def test_what_is_stopped_while_it_loads_loads_nothing_more(form: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", _STOPPED_WHILE_IT_LOADS, *form, "verify", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert json.loads(done.stdout)["exit_code"] == 5
    (line,) = done.stderr.splitlines()
    assert "interrupted: run the same command again" in (json.loads(line)["message"] if form else line)
