"""What is said of calls on the command line, as far as a plan shows it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emolib.archive.ledger import known
from tests.archive.conftest import RATE, FakeBundle, write_call
from tests.jobs.conftest import run_emolib

PATTERN = r"(?P<site>[a-z]+)/(?P<date>\d{8})_(?P<call_id>\d+)(?:_(?P<direction>in|out))?\.wav"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One stereo call in, one out, one of which only the table knows that; a mix, and one that is named otherwise."""
    monkeypatch.setattr("jobs.tasks.ModelBundle.load", lambda path: FakeBundle())
    stereo = np.zeros((2, RATE), np.float32)
    for name in ("bonn/20240501_1_in", "bonn/20240501_2_out", "bonn/20240502_3", "rome/other"):
        write_call(tmp_path / f"archive/{name}.wav", *stereo)
    write_call(tmp_path / "archive/rome/20240503_4_in.wav", stereo[0])
    (tmp_path / "calls.csv").write_text("call_id,direction,crm\n3,outbound,77\n")
    return tmp_path / "archive"


def _plan(archive: Path, *asked: Any) -> dict[str, Any]:
    ended = run_emolib("score", archive, "--model", "model", "--out", archive.parent / "P", "--plan", *asked)
    assert ended.exit_code == 0, ended.summary
    return ended.summary


def test_a_plan_counts_what_is_not_known_and_what_policy_leaves(archive: Path) -> None:
    found = _plan(archive)
    assert (found["to_score"], found["against_policy"]) == (5, {})
    assert not {"pattern_unmatched", "table_unknown"} & found.keys()
    maps = ("--channels", "inbound:0=customer,1=agent", "--channels", "outbound:0=agent,1=customer")
    found = _plan(archive, "--pattern", PATTERN, "--calls-table", archive.parent / "calls.csv", *maps)
    assert (found["pattern_unmatched"], found["table_unknown"]) == (1, 4)
    assert found["against_policy"] == {"looked_at": 5, "mixed": 1, "unknown": 1}
    found = _plan(archive, "--pattern", PATTERN, *maps, "--channels", "0=agent,1=customer", "--roles", "customer,mixed")
    assert found["against_policy"] == {"looked_at": 5}
    assert not known(archive.parent / "P")["code"].tolist()


def test_what_of_a_table_and_of_names_is_not_read_is_counted_and_said(
    archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (archive.parent / "calls.csv").write_text("Call ID , direction,date\n3.0,outbound,2024-05-02\n4.0,sideways,\n")
    for name in ("rome/other", "rome/240503_5"):
        os.utime(write_call(archive / f"{name}.wav", np.zeros(RATE, np.float32)), (1.7e9, 1.7e9))
    found = _plan(archive, "--calls-table", archive.parent / "calls.csv")
    said = capsys.readouterr().err
    assert (found["table_unknown"], found["table_rows_unread"], found["dated_by_modification"]) == (6, 1, 2)
    assert "1 of 2 rows of the table of calls are left out, line 3: direction 'sideways' found" in said
    assert "ids of the form '999999_9', and has such as '9.9'" in said
    assert "2 of 6 recordings: no date is read in their paths, '240503' found, expected such as 2026-11-25" in said
    found = _plan(archive, "--pattern", r"/(?P<date>\d{6,8})_(?P<call_id>\d+)")
    said = capsys.readouterr().err
    assert (found["pattern_unmatched"], found["dated_by_modification"]) == (2, 2)
    assert "or what it finds can't be read, such as date '240503' found, expected a day" in said


@pytest.mark.parametrize("channels", ["0=agent,1=customer", ["outbound:0=agent,1=customer", "0=customer,1=agent"]])
def test_all_of_it_stands_in_a_file(archive: Path, channels: Any) -> None:
    options = {"archive": str(archive), "model": "model", "out": str(archive.parent / "P"), "channels": channels}
    options |= {"pattern": PATTERN, "calls_table": str(archive.parent / "calls.csv")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    (archive.parent / "night.toml").write_text("\n".join(["[nightly]", *lines, "settle_s = 0"]))
    found = run_emolib("nightly", "--config", archive.parent / "night.toml", "--plan").summary
    assert (found["to_score"], found["pattern_unmatched"], found["table_unknown"]) == (5, 1, 4)
    assert found["against_policy"] == {"looked_at": 5, "mixed": 1}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--pattern", "(?P<call_id"), "expected a regular expression"),
        (("--pattern", r"(\d+)"), "named groups: none"),
        (("--calls-table", "nowhere.csv"), "can't be read as a table of calls"),
        (("--pattern", r"(?P<call_id>\d+)_(?P<direciton>in)"), "perhaps direction is meant"),
        (("--calls-table", "nearly.csv"), "column 'direciton' found, perhaps 'direction' is meant"),
        (("--channels", "sideways:0=agent"), "channels 'sideways:0=agent' found"),
        (("--channels", "inbound:0=agent", "--channels", "inbound:0=customer"), "only once"),
        (("--channels", "inbound:0=manager"), "channels_by_direction.inbound.0"),
    ],
)
def test_what_says_nothing_of_calls_is_refused_before_any_work(
    archive: Path, asked: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (archive.parent / "nearly.csv").write_text("call_id,direciton\n3,out\n")
    monkeypatch.chdir(archive.parent)
    ended = run_emolib("score", archive, "--model", "model", "--out", archive.parent / "P", *asked)
    assert ended.exit_code == 2
    assert said in ended.summary["error"]
    assert not (archive.parent / "P").exists()
