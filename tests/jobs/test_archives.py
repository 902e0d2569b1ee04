"""Archives as they are: litter, excluded files, folders that can't be read, names that differ in their Unicode form."""

from __future__ import annotations

import json
import os
import shutil
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from emolib import archive
from emolib.archive import ledger
from tests.jobs.conftest import assert_same_rows, run_emolib, tables

_NFC, _NFD = (unicodedata.normalize(form, "2024-05-01/café.wav") for form in ("NFC", "NFD"))


@pytest.fixture
def good(calls: Path) -> list[Path]:
    return sorted(path for path in calls.rglob("*.wav") if path.stat().st_size > 500_000)


@pytest.fixture
def root(good: list[Path], tmp_path: Path) -> Path:
    """Two calls of two days, which lie there since yesterday."""
    for number in range(2):
        _add(tmp_path / "archive", f"2024-05-0{number + 1}/{number}.wav", good[number])
    return tmp_path / "archive"


def _add(root: Path, name: str, call: Path) -> Path:
    place = root / name
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(call, place)
    os.utime(place, (time.time() - 86_400,) * 2)
    return place


def _asked(root: Path, model: Path, out: Path, cluster: tuple[str, str], *more: str) -> tuple[Any, ...]:
    return ("nightly", root, "--model", model, "--out", out, *cluster, *more)


def _closed(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> pytest.MonkeyPatch:
    """Let folders be of those that may not be read; who runs the tests may be allowed to read all."""
    scandir = os.scandir

    def guarded(folder: str):  # type: ignore[no-untyped-def]
        if Path(str(folder)) in folders:
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    return monkeypatch


def test_a_night_in_which_a_folder_can_not_be_read(
    root: Path,
    good: list[Path],
    model: Path,
    cluster: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The rest is scored, and what is known of what lies there stays as it is: with its rows, as it was."""
    asked = _asked(root, model, tmp_path / "P", cluster)
    assert run_emolib(*asked).exit_code == 0
    before = tables(tmp_path / "P")
    _add(root, "2024-05-02/new.wav", good[2])
    (root / "2024-05-01/0.wav").write_bytes(b"another")  # behind a closed door
    with monkeypatch.context() as patch:
        _closed(patch, root / "2024-05-01")
        night = run_emolib(*asked, "--settle-s", "0", "--keep-days", "36500", "--metrics", tmp_path / "emolib.prom")
    assert (night.exit_code, night.summary["unreadable_folders"], night.summary["problems"]) == (1, 1, 0)
    assert (night.summary["codes"], night.summary["listed"]) == ({"ok": 1}, 2)
    said = capfd.readouterr().err
    assert "1 folders could not be read: '2024-05-01' (Permission denied)" in said
    assert "stay as they are, but for calls older than 36500 days (--keep-days): grant read access" in said
    assert "emolib_night_folders_unreadable 1.0" in (tmp_path / "emolib.prom").read_text()
    after = tables(tmp_path / "P")
    for table, rows in before.items():
        key = "call_id" if table == "calls" else "recording_id"
        kept = after[table][after[table][key].isin(rows[key])].reset_index(drop=True)
        assert kept.equals(rows), table
    assert len(after["recordings"]) == len(after["calls"]) == 3
    assert run_emolib("verify", tmp_path / "P").exit_code == 0
    opened = run_emolib(*asked, "--settle-s", "0", "--failure-budget", "1")
    assert (opened.exit_code, opened.summary["codes"]) == (0, {"unsupported": 1})  # now it is seen to have changed


@pytest.mark.slow
def test_where_no_folder_can_be_read_the_night_ends_with_1_and_without_the_root_with_2(
    root: Path, model: Path, cluster: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _asked(root, model, tmp_path / "P", cluster)
    with monkeypatch.context() as patch:
        _closed(patch, root / "2024-05-01", root / "2024-05-02")
        night = run_emolib(*asked)
        assert (night.exit_code, night.summary["listed"], night.summary["unreadable_folders"]) == (1, 0, 2)
        planned = run_emolib(*asked, "--plan").summary
        assert (planned["to_score"], planned["unreadable_folders"]) == (0, 2)
    _closed(monkeypatch, root)
    ended = run_emolib(*asked)
    assert ended.exit_code == 2
    assert "expected read access to the archive" in ended.summary["error"]


def test_litter_is_left_out_and_counted(
    root: Path, good: list[Path], model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("#recycle/a.wav", "2024-05-01/@eaDir/a.wav", "2024-05-01/a.wav.filepart", "2024-05-01/.a.wav.XyZ123"):
        _add(root, name, good[0])
    (root / "2024-05-01/0.wav.md5").write_text("3f")
    planned = run_emolib("score", root, "--model", model, "--out", tmp_path / "P", "--plan").summary
    assert planned["listed"] == planned["to_score"] == 2
    expected = {"recycle_bin": 1, "system": 1, ".filepart": 1, "hidden": 1, ".md5": 1}
    assert planned["left_out"] == expected
    said = next(line for line in capfd.readouterr().err.splitlines() if "recordings listed" in line)
    assert all(f"{count} {reason}" in said for reason, count in expected.items())


def test_an_archive_of_litter_holds_no_recordings(good: list[Path], model: Path, tmp_path: Path) -> None:
    _add(tmp_path / "archive", ".trash/a.wav", good[0])
    ended = run_emolib("score", tmp_path / "archive", "--model", model, "--out", tmp_path / "P")
    assert ended.exit_code == 2
    assert "(left out: 1 recycle_bin)" in ended.summary["error"]


@pytest.mark.slow
def test_what_is_excluded_later_keeps_its_rows(
    root: Path, model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    asked = _asked(root, model, tmp_path / "P", cluster)
    assert run_emolib(*asked).exit_code == 0
    before = tables(tmp_path / "P")
    settings = tmp_path / "nightly.toml"
    settings.write_text(f"[nightly]\nexclude = {json.dumps(['2024-05-01', '*/b.wav'])}\n")
    shutil.copy(root / "2024-05-02/1.wav", root / "2024-05-02/b.wav")
    shutil.copy(root / "2024-05-02/1.wav", root / "2024-05-02/c.wav")
    (root / "2024-05-01/0.wav").unlink()
    night = run_emolib(*asked, "--config", settings, "--settle-s", "0")
    assert (night.exit_code, night.summary["problems"], night.summary["codes"]) == (0, 0, {"ok": 1})
    assert night.summary["left_out"] == {"excluded": 2}
    assert ledger.runs(tmp_path / "P")[-1].config.exclude == ("2024-05-01", "*/b.wav")
    rows = archive.read(tmp_path / "P", table="recordings")
    assert sorted(rows["uri"]) == [*sorted(before["recordings"]["uri"]), "2024-05-02/c.wav"]
    assert set(rows["code"]) == {"ok"}
    refused = run_emolib(*asked, "--exclude", "../other")
    assert refused.exit_code == 2
    assert "exclude '../other' found" in refused.summary["error"]


@pytest.mark.slow
def test_two_spellings_of_one_name_fail_until_one_of_them_goes(
    root: Path,
    good: list[Path],
    model: Path,
    cluster: tuple[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    _add(root, _NFC, good[2])
    other = _add(root, _NFD, good[3])
    if len(list(other.parent.iterdir())) == 2:
        pytest.skip("this file system keeps one Unicode form")
    asked = _asked(root, model, tmp_path / "P", cluster, "--find-duplicates")
    night = run_emolib(*asked)
    assert (night.exit_code, night.summary["problems"], night.summary["codes"]) == (1, 0, {"ok": 2, "ambiguous": 1})
    assert (night.summary["listed"], night.summary["recordings"], night.summary["ambiguous"]) == (3, 3, 1)
    assert r"'2024-05-01/cafe\u0301.wav' and '2024-05-01/caf\xe9.wav'" in capfd.readouterr().err
    rows = archive.read(tmp_path / "P", table="recordings").set_index("code")
    (row,) = rows.loc[["ambiguous"]].to_dict("records")
    assert row["outcome"] == "failed"
    assert r"'2024-05-01/cafe\u0301.wav' and '2024-05-01/caf\xe9.wav' found" in row["message"]
    again = run_emolib(*asked)
    assert (again.exit_code, again.summary["recordings"], again.summary["ambiguous"]) == (0, 0, 1)
    assert run_emolib(*asked, "--retry", "ambiguous").summary["codes"] == {"ambiguous": 1}

    other.unlink()
    mended = run_emolib(*asked)
    assert (mended.exit_code, mended.summary["problems"], mended.summary["codes"]) == (0, 0, {"ok": 1})
    assert run_emolib("score", root, "--model", model, "--out", tmp_path / "plain", *cluster).exit_code == 0
    left, plain = (archive.read(place, table="windows") for place in (tmp_path / "P", tmp_path / "plain"))
    keys = ["recording_id", "channel", "start_s"]
    left, plain = (each.drop(columns="run_id").sort_values(keys, ignore_index=True) for each in (left, plain))
    assert left.equals(plain)


@pytest.mark.slow
def test_another_spelling_takes_nothing_from_what_was_scored(
    root: Path, good: list[Path], model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    """A synchronisation that writes every name anew must not cost the archive its labels."""
    first = _add(root, _NFC, good[2])
    asked = _asked(root, model, tmp_path / "P", cluster)
    assert run_emolib(*asked).exit_code == 0
    shutil.copytree(tmp_path / "P", tmp_path / "before")
    other = _add(root, _NFD, good[3])
    if len(list(other.parent.iterdir())) == 2:
        pytest.skip("this file system keeps one Unicode form")
    night = run_emolib(*asked)
    assert (night.exit_code, night.summary["recordings"], night.summary["ambiguous"]) == (0, 0, 1)
    assert_same_rows(tmp_path / "P", tmp_path / "before")
    rescored = run_emolib(*asked, "--rescore", "--min-speech-s", "0.5")
    assert rescored.summary["codes"] == {"ok": 2}  # whichever file it would be
    assert rescored.summary["scored_otherwise"] == 1
    assert run_emolib(*asked, "--min-speech-s", "0.5").summary["recordings"] == 0
    first.write_bytes(good[1].read_bytes())  # none of the two is what the row tells of
    changed = run_emolib(*asked, "--min-speech-s", "0.5", "--settle-s", "0")
    assert (changed.exit_code, changed.summary["codes"], changed.summary["problems"]) == (1, {"ambiguous": 1}, 0)
    first.unlink()
    mended = run_emolib(*asked, "--min-speech-s", "0.5")
    assert (mended.exit_code, mended.summary["codes"]) == (0, {"ok": 1})


@pytest.mark.slow
def test_ambiguous_names_have_pseudonyms(
    root: Path, good: list[Path], model: Path, cluster: tuple[str, str], tmp_path: Path
) -> None:
    _add(root, _NFC, good[2])
    if len(list(_add(root, _NFD, good[3]).parent.iterdir())) == 2:
        pytest.skip("this file system keeps one Unicode form")
    (tmp_path / "key").write_text("correct horse battery staple")
    asked = _asked(root, model, tmp_path / "P", cluster, "--exclude", "secret", "--pseudonyms", str(tmp_path / "key"))
    night = run_emolib(*asked)
    assert (night.summary["codes"], night.summary["problems"]) == ({"ok": 2, "ambiguous": 1}, 0)
    assert archive.read(tmp_path / "P", table="recordings")["message"].isna().all()
    (run,) = ledger.runs(tmp_path / "P")
    assert sorted(run.plan()["ambiguous"].dropna()) == [""]
    assert "secret" not in str(run.config.exclude)
