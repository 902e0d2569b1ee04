"""Every option of every command: a value works, or is refused in a line that names it, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from jobs.command import app
from tests.jobs.conftest import Ended, run_emolib

# What each command wants at least. None of it is there: a command that takes a value goes on to say so.
NEEDED = {
    "demo": {},
    "extract": {"corpora": "corpus", "store": "S.zarr"},
    "train": {"store": "S.zarr", "task": "emotion3", "model": "M"},
    "evaluate": {"store": "S.zarr", "task": "emotion3", "protocol": "grouped", "out": "E"},
    "benchmark": {"corpora": "corpus", "out": "B"},
    "explore": {"source": "a.wav", "out": "X"},
    "known-audio": {"source": "calls", "out": "k.npz"},
    "score": {"archive": "calls", "model": "M", "out": "P"},
    "nightly": {"archive": "calls", "model": "M", "out": "P"},
    "erase": {"pred": "P", "call_id": "17"},
    "promote": {"pred": "P", "model": "M"},
    "doctor": {},
    "certs": {},
    "verify": {"path": "P"},
    "report": {"pred": "P", "out": "R"},
    "export": {"pred": "P", "out": "X"},
}
NO_WHOLE_NUMBERS = ("1.5", "-1", "two", "true", "nan", "inf", "-inf", "1e3", "", "9" * 30, "9" * 5000)
NO_NUMBERS = ("two", "true", "nan", "-NaN", "inf", "-inf", "infinity", "")
ANY_NUMBER = {"failure_count"}  # whatever number it is


def kinds(command: str) -> dict[str, set[Any]]:
    """Return the options of a command by what their values are made of."""
    found = app[command].assemble_argument_collection()
    assert len(found) > 0
    named = {each.name.removeprefix("--").replace("-", "_"): {each.hint, *get_args(each.hint)} for each in found}
    return {name: of for name, of in named.items() if name != "*"}


# One of them is a fair sample: all go through one door.
COMMANDS = [pytest.param(name, marks=[] if name == "train" else [pytest.mark.slow]) for name in NEEDED]
OPTIONS = [(command, name, of) for command in NEEDED for name, of in kinds(command).items()]


def asked(command: str, **given: str) -> list[str]:
    """Return a command with options; one that begins with a dash is no option."""
    return [command, *(f"--{name.replace('_', '-')}={value}" for name, value in (NEEDED[command] | given).items())]


def refused(ended: Ended, name: str, folder: Path) -> None:
    message = str(ended.summary["error"])
    assert ended.exit_code == 2, message
    assert "\n" not in message
    assert name in message.replace("-", "_"), message
    assert list(folder.iterdir()) == []


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


def test_every_command_is_walked_over() -> None:
    assert set(NEEDED) == {name for name in app if not name.startswith("-")}
    assert sum({int, float} & of != set() for _, _, of in OPTIONS) > 40


@pytest.mark.parametrize("command", COMMANDS)
def test_no_number_is_taken_for_one(command: str, nowhere: Path) -> None:
    for name, of in kinds(command).items():
        for value in NO_WHOLE_NUMBERS if int in of else NO_NUMBERS if float in of else ():
            if name in ANY_NUMBER and value.isdecimal():
                continue
            refused(run_emolib(*asked(command, **{name: value})), name, nowhere)


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_no_value(command: str, nowhere: Path) -> None:
    """Such as of a variable of the shell that is not set: ``--roles "$ROLES"``."""
    for name, of in kinds(command).items():
        if bool not in of:
            refused(run_emolib(*asked(command, **{name: ""})), name, nowhere)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_is_given_once(command: str, nowhere: Path) -> None:
    for name, of in kinds(command).items():
        if name in NEEDED[command] and tuple not in {getattr(each, "__origin__", None) for each in of}:
            if list in {getattr(each, "__origin__", None) for each in of}:
                continue
            again = run_emolib(*asked(command), f"--{name.replace('_', '-')}={NEEDED[command][name]}")
            refused(again, name, nowhere)


@pytest.mark.parametrize("command", COMMANDS)
def test_values_of_another_type_in_a_file(command: str, nowhere: Path, tmp_path: Path) -> None:
    """TOML has booleans, dates, lists and tables: none of them becomes a text that looks like it."""
    file = tmp_path / "options.toml"
    for name, of in kinds(command).items():
        is_list = any(getattr(each, "__origin__", None) in (list, tuple) for each in of)
        wrong = ["{ a = 1 }", "[[1], [2]]", *(() if is_list else ("[]", '["a", "b"]'))]
        wrong += ["[true]" if is_list else "true"] if bool not in of else ["3", "2024-05-01"]
        wrong += ["1.5", "2024-05-01", "00:07:00"] if int in of else ["2024-05-01T00:07:00Z"] if float in of else []
        for value in wrong:
            others = "".join(f"{key} = '{each}'\n" for key, each in NEEDED[command].items() if key != name)
            file.write_text(f"[{command}]\n{others}{name} = {value}\n", encoding="utf-8")
            ended = run_emolib("--config", file, command)
            if value == "[[1], [2]]" and is_list:  # the texts "[1]" and "[2]": of no file
                assert ended.exit_code == 2
                continue
            refused(ended, name, nowhere)


@pytest.mark.parametrize(
    ("command", "name", "values"),
    [
        ("score", "hop_s", ["0", "-1", "1e300", "a day"]),
        ("score", "min_level_dbfs", ["1", "nan"]),
        ("score", "min_speech_s", ["-1"]),
        ("score", "block_s", ["0", "-1"]),
        ("score", "batch", ["0", "-1", str(10**12)]),
        ("score", "recording_s", ["0", "-1", "1e300"]),
        ("score", "recording_memory", ["2XB", "-1", "0", "1KB", "nan", "1e300GB", "9" * 40, "true"]),
        ("score", "shadow_share", ["0", "1.1", "-1"]),
        ("score", "failure_budget", ["-0.1", "1.5"]),
        ("score", "retry", ["5", "kiled", "ok,"]),
        ("score", "channels", ["0=agent,0=agent", "x"]),
        ("score", "exclude", ["/", "../other"]),
        ("score", "headerless", ["x", ".raw=ulaw:0", f".raw=ulaw:{10**30}", ".raw=ulaw:8000:0"]),
        ("score", "priors", ["x", "neutral=1,neutral=1"]),
        ("score", "pattern", ["(", "x", "(?P<call_id"]),
        ("score", "calls_table", ["no.csv"]),
        ("score", "known_audio", ["no.npz"]),
        ("score", "pseudonyms", ["no.key"]),
        ("score", "cluster", ["no.toml", "tcp://", "ftp://host:1", "tls://host"]),
        ("score", "workers", ["0", str(10**6)]),
        ("nightly", "limit_hours", ["0", "-1"]),
        ("nightly", "backfill_hours", ["-1"]),
        ("nightly", "keep_days", ["0", str(10**9)]),
        ("nightly", "settle_s", ["-1"]),
        ("nightly", "date", ["2024-02-30", "today", "2024-13-01", "20240501x"]),
        ("nightly", "since", ["2024-02-30", "0"]),
        ("train", "precision", ["0", "1", "-1"]),
        ("train", "epochs", ["0"]),
        ("train", "seed", [str(2**32)]),
        ("extract", "profile", ["telefone", "true"]),
        ("extract", "variants", ["gsmm"]),
        ("explore", "duration_s", ["0", "61"]),
        ("explore", "start_s", ["-1", "1e300"]),
        ("explore", "headerless", ["x"]),
        ("benchmark", "duration_s", ["0", "9", "1e9"]),
        ("benchmark", "calls", ["0"]),
        ("known-audio", "recordings", ["1"]),
        ("known-audio", "out", ["k.txt"]),
        ("known-audio", "leave_out", ["a"]),
        ("certs", "days", ["0", "3651"]),
        ("export", "format", ["xml"]),
    ],
)
def test_values_that_cannot_be(command: str, name: str, values: list[str], nowhere: Path) -> None:
    for value in values:
        ended = run_emolib(*asked(command, **{name: value}))
        refused(ended, value if value in ("gsmm", "no.npz", "no.csv", "no.key") else name, nowhere)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_in_a_file_is_named_with_the_nearest(command: str, nowhere: Path, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    for name in kinds(command):
        file.write_text(f"[{command}]\n{name}x = 1\n", encoding="utf-8")
        refused(run_emolib("--config", file, command, *asked(command)[1:]), f"{name}x", nowhere)


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("before", [b"", MARK])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_options_as_any_editor_writes_it(before: bytes, end: str, nowhere: Path, tmp_path: Path) -> None:
    file = tmp_path / "Nächte #1.toml"
    lines = ["[score]", "archive = 'calls'", "out = 'Gespräche'", "model = 'M'", "hop_s = -1"]
    file.write_bytes(before + end.join(lines).encode())
    refused(run_emolib("--config", file, "score"), "hop_s", nowhere)
    refused(run_emolib("--config", f"file://{file}", "score"), "hop_s", nowhere)
    file.write_text("score = 5\n", encoding="utf-8")
    refused(run_emolib("--config", file, "score"), "score", nowhere)
    file.write_text(end.join(lines), encoding="utf-16")
    refused(run_emolib("--config", file, "score"), "UTF_16", nowhere)


@pytest.mark.parametrize("before", [b"", MARK])
def test_a_cluster_file_as_any_editor_writes_it(before: bytes, nowhere: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_bytes(before + b'[cluster]\r\nkind = "local"\r\nworkers = 2\r\n')
    for place in (str(file), f"file://{file}"):  # what is missing is the corpus
        refused(run_emolib(*asked("extract", cluster=place)), "corpus", nowhere)
    file.write_text('[cluster]\nkind = "local"\n', encoding="utf-16")
    refused(run_emolib(*asked("extract", cluster=str(file))), "UTF_16", nowhere)


@pytest.mark.parametrize(
    "line",
    [
        *("workers = 1.5", "workers = 0", "workers = -1", "workers = true", "workers = 'two'", "workers = nan"),
        *("workers = 1000000000000", "workers = [1]", "workers = 2024-05-01", "workers = { a = 1 }"),
        *("memory = 2", "memory = ''", "memory = '2XB'", "memory = '-2GB'", "memory = 'nan'", "memory = '1e999GB'"),
        *("kind = 1", "kind = ''", "kind = true", "worker = 2"),
    ],
)
def test_a_cluster_that_cannot_be(line: str, nowhere: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(f"[cluster]\n{line}\n", encoding="utf-8")
    refused(run_emolib(*asked("extract", cluster=str(file))), line.partition(" ")[0], nowhere)
