"""Pseudonyms: no file of the predictions names a recording or a call."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from emolib import archive
from emolib.archive import ledger
from emolib.archive.pseudonyms import Pseudonyms
from tests.jobs.conftest import run_emolib

_KEY = "correct horse battery staple"
_PATTERN = r"(?P<agent>ag\w+)-(?P<call_id>\w+)\.wav"


@pytest.fixture
def named(calls: Path, tmp_path: Path) -> Path:
    """Three recordings, one of them broken, whose names tell of people."""
    folder = tmp_path / "archive" / "2024-05-01-zürich"
    folder.mkdir(parents=True)
    good = sorted(path for path in calls.rglob("*.wav") if path.stat().st_size > 100_000)
    shutil.copy(good[0], folder / "agmiller-caller1.wav")
    shutil.copy(good[1], folder / "agsmith-caller2.wav")
    (folder / "agsmith-broken3.wav").write_bytes(b"no sound at all")
    (tmp_path / "key").write_text(_KEY + "\n")
    return tmp_path / "archive"


def _traces(pred: Path, words: tuple[str, ...]) -> list[str]:
    """Return the files of predictions that hold one of some words, in their Parquet rows too."""
    found = []
    for file in filter(Path.is_file, pred.rglob("*")):
        text = file.read_bytes().decode("latin-1")
        if file.suffix == ".parquet":
            text += str(pq.read_table(file, partitioning=None).to_pylist())
        found += [f"{file.name}: {word}" for word in words if word in text or word in file.name]
    return found


def test_no_file_names_a_recording_a_call_or_an_agent(
    named: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    pred, words = tmp_path / "P", ("caller", "agmiller", "agsmith", "broken3", "rich", _KEY)
    common = ("score", named, "--model", model, "--failure-budget", "1", "--pattern", _PATTERN, *cluster)
    hidden = (*common, "--out", pred, "--pseudonyms", tmp_path / "key")
    assert run_emolib(*common, "--out", tmp_path / "plain").exit_code == 0
    assert run_emolib(*hidden).summary["recordings"] == 3
    assert not _traces(pred, words)
    assert len(_traces(tmp_path / "plain", ("caller1",))) > 1  # they would have been found
    assert run_emolib("verify", pred).exit_code == 0
    assert run_emolib(*hidden).summary["recordings"] == 0  # and they are known again
    rows, plain = (archive.read(place, table="recordings") for place in (pred, tmp_path / "plain"))
    pseudonyms = Pseudonyms(_KEY.encode())
    assert set(rows["call_id"]) == {pseudonyms.of(name) for name in plain["call_id"]}
    assert set(rows["agent"]) == {pseudonyms.of("agmiller", "agent"), pseudonyms.of("agsmith", "agent")}
    assert sorted(rows["code"]) == sorted(plain["code"])
    for table in ("windows", "channels"):
        counts = [len(archive.read(place, table=table)) for place in (pred, tmp_path / "plain")]
        assert counts[0] == counts[1] > 0


@pytest.mark.slow
def test_an_open_run_goes_on_and_a_call_is_erased_by_its_name(
    named: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    pred, key = tmp_path / "P", ("--pseudonyms", tmp_path / "key")
    hidden = ("score", named, "--model", model, "--out", pred, "--pattern", _PATTERN, "--failure-budget", "1", *cluster)
    assert run_emolib(*hidden, *key).exit_code == 0
    (run,) = ledger.runs(pred)
    shutil.rmtree(pred / "recordings")  # as if it had been killed before anything was committed,
    (run.folder / "summary.json").unlink()
    plan = run.plan()
    assert plan["path"].isna().all()
    named_again = plan.assign(path=sorted(str(path.relative_to(named)) for path in named.rglob("*.wav")))
    shutil.rmtree(run.folder)
    shutil.rmtree(pred / "calls")
    ledger.Run.create(pred, config=run.config, plan=[named_again])  # with its paths still in the plan
    assert run_emolib(*hidden, *key).summary["recordings"] == 3
    assert not _traces(pred, ("caller", "agsmith"))
    assert run_emolib("erase", pred, "--call-id", "caller1").exit_code == 2
    assert run_emolib("erase", pred, "--call-id", "caller1", *key).summary["recordings"] == 1
    assert len(archive.read(pred, table="recordings")) == 2
    assert run_emolib(*hidden, *key).summary["recordings"] == 0


def test_another_key_or_none_is_refused(named: Path, model: Path, cluster: tuple[str, str], tmp_path: Path) -> None:
    common = ("score", named, "--model", model, "--out", tmp_path / "P", "--failure-budget", "1", *cluster)
    assert run_emolib(*common, "--pseudonyms", tmp_path / "key").exit_code == 0
    (tmp_path / "other").write_text("another horse battery staple")
    for asked in ((), ("--pseudonyms", tmp_path / "other")):
        ended = run_emolib(*common, *asked)
        assert ended.exit_code == 2
        assert "--pseudonyms" in ended.summary["error"]
    (tmp_path / "short").write_text("short")
    ended = run_emolib(*common, "--pseudonyms", tmp_path / "short")
    assert (ended.exit_code, "16 to 64" in ended.summary["error"]) == (2, True)
