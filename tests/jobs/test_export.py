"""Segments for other tools."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from emolib import archive
from emolib.storage import resolve
from tests.jobs.conftest import run_emolib


@pytest.mark.parametrize(("kind", "suffix"), [("csv", ".csv"), ("audformat", ".audformat.csv"), ("rttm", ".rttm")])
def test_every_segment_is_exported_to_the_file_of_its_day(
    kind: str, suffix: str, undisturbed: Path, tmp_path: Path
) -> None:
    ended = run_emolib("export", undisturbed, "--out", tmp_path / "out", "--format", kind)
    segments = archive.read(undisturbed, table="segments")
    assert ended.exit_code == 0
    assert ended.summary["segments"] == len(segments) > 0
    days = segments["date"].dt.strftime("%Y-%m-%d").value_counts()
    for day, count in days.items():
        lines = (tmp_path / "out" / f"{day}{suffix}").read_text(encoding="utf-8").splitlines()
        assert len(lines) - (kind != "rttm") == count


def test_csv_says_where_each_segment_was_heard(undisturbed: Path, tmp_path: Path) -> None:
    day = f"{archive.read(undisturbed, table='segments')['date'].iloc[0]:%Y-%m-%d}"
    run_emolib("export", undisturbed, "--out", tmp_path / "out", "--date", day)
    (file,) = (tmp_path / "out").iterdir()
    found = pd.read_csv(file)
    recordings = archive.read(undisturbed, table="recordings", date=day)
    assert set(found["file"]) <= set(recordings["uri"])
    assert set(found["date"]) == {day}


def test_a_folder_that_is_not_empty_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    ended = run_emolib("export", undisturbed, "--out", tmp_path)
    assert ended.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_day_without_rows_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    ended = run_emolib("export", undisturbed, "--out", tmp_path / "out", "--date", "1999-01-01")
    assert ended.exit_code == 2
    assert "1999-01-01" in ended.summary["error"]
    assert not resolve(tmp_path / "out").exists()
