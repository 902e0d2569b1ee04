"""Two runs that planned the same recordings: one lost its lock, and both are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emolib.archive import blocks
from emolib.archive.overtaking import taken_by_others


def test_rows_of_another_run_are_counted(start: Any, finish: Any, tmp_path: Path) -> None:
    pred, folder = tmp_path / "P", tmp_path / "scratch"
    folder.mkdir()
    first, second = start(pred), start(pred)
    blocks.score_block(str(pred), first.run_id, 0)
    assert taken_by_others(first, folder=folder) == 0, "its own rows"
    assert taken_by_others(second, folder=folder) == len(first.planned(0))
    finish(second)
    left = first.plan("recording_id", "block")
    assert taken_by_others(first, folder=folder) == int((left["block"] != 0).sum())
    assert list(folder.iterdir()) == []


def test_rows_that_the_run_is_to_replace_are_not(
    start: Any, finish: Any, archive: Path, write: Any, tmp_path: Path
) -> None:
    pred = tmp_path / "P"
    finish(start(pred))
    write(archive / "2024-05-01/0.wav", b"changed")
    again = start(pred)
    assert again.plan("replaces")["replaces"].tolist() == [True]
    assert taken_by_others(again, folder=tmp_path) == 0
