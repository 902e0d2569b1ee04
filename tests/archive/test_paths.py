"""What is stored says where to read and write, and is no reason to leave the archive or the predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emolib.archive import blocks
from emolib.archive.joining import refresh_calls
from emolib.archive.ledger import Run
from emolib.archive.predictions import Part
from emolib.errors import SettingsError
from emolib.storage import below


def _with(run: Run, **values: str) -> None:
    """Change the first row of a stored plan."""
    place = Path(run.folder.path) / "plan/part-00000.parquet"
    rows = pq.read_table(place)
    for name, value in values.items():
        at = rows.schema.get_field_index(name)
        rows = rows.set_column(at, rows.schema.field(at), pa.array([value, *rows[name].to_pylist()[1:]], pa.string()))
    pq.write_table(rows, place)


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["../secret.wav", "2024-05-01/../../secret.wav", "/etc/hostname", "s3://other/a.wav"])
@pytest.mark.parametrize("column", ["uri", "path"])
def test_a_planned_path_that_leaves_the_archive(
    column: str, name: str, start: Any, archive: Path, tmp_path: Path
) -> None:
    (archive.parent / "secret.wav").write_bytes(b"RIFF")
    run = start(tmp_path / "P")
    _with(run, **{column: name})
    before = _files(tmp_path)
    with pytest.raises(SettingsError, match="expected one that stays there"):
        blocks.score_block(str(tmp_path / "P"), run.run_id, 0)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("date", ["../../../elsewhere", "2024-05-01/../../../elsewhere", "today", ""])
def test_a_planned_date_that_leaves_the_predictions(date: str, start: Any, tmp_path: Path) -> None:
    run = start(tmp_path / "P")
    _with(run, date=date)
    before = _files(tmp_path)
    with pytest.raises(SettingsError, match="expected one such as"):
        blocks.score_block(str(tmp_path / "P"), run.run_id, 0)
    assert _files(tmp_path) == before


def test_a_noted_date_that_leaves_the_predictions(pred: Path, tmp_path: Path) -> None:
    (pred / "_stale.json").write_text(json.dumps({"dates": ["../../elsewhere"]}))
    before = _files(tmp_path)
    with pytest.raises(SettingsError, match="expected one such as"):
        refresh_calls(pred)
    assert _files(tmp_path) == before


def test_a_part_of_a_plan_that_lies_elsewhere(start: Any, tmp_path: Path) -> None:
    run = start(tmp_path / "P")
    stored = json.loads((run.folder / "plan.json").read_text())
    stored["parts"][0]["name"] = "../../../../elsewhere.parquet"
    (run.folder / "plan.json").write_text(json.dumps(stored))
    with pytest.raises(SettingsError, match="expected one that stays there"):
        run.plan()


def test_a_candidate_whose_folder_lies_elsewhere(start: Any, tmp_path: Path) -> None:
    run = start(tmp_path / "P")
    place = run.folder / "config.json"
    shadow = {"model": "m", "model_id": "../../elsewhere", "scoring_fingerprint": "f", "share": 1.0}
    place.write_text(json.dumps(json.loads(place.read_text()) | {"shadow": shadow}))
    with pytest.raises(SettingsError, match=r"shadow\.model_id"):
        Run.open(tmp_path / "P", run.run_id)


def test_keys_of_an_object_store_are_no_way_up() -> None:
    for name in ("../a.wav", "2024//a.wav", "/a.wav", "./a.wav", "..", ""):
        with pytest.raises(SettingsError, match="expected one that stays there"):
            below("memory://archive", name)
    assert str(below("memory://archive", "2024/a..wav")) == "memory://archive/2024/a..wav"
    assert Part("2024-05-01", "20240501T000000-0000", 0).path("memory://P", "windows").name.startswith("part-")
