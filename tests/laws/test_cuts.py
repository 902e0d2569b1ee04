"""Law 5: with a network that multiplies matrices, rows are the same to the bit however the work is cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from emolib import archive
from emolib.archive import blocks
from emolib.archive.ledger import Run, known
from emolib.archive.planning import plan
from emolib.archive.run_settings import run_config
from emolib.archive.schemas import TABLES
from emolib.archive.verification import verify
from emolib.config import ScoringConfig
from emolib.learning.bundle import ModelBundle
from emolib.sound.manifest import list_recordings
from tests.archive.conftest import holding, voice, write_call
from tests.conftest import sampled
from tests.faults.world import untrained_model

_NOT_COMPARED = ["run_id", "attempts", "version"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_model(tmp_path_factory.mktemp("law 5") / "model")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls of one to eleven windows on one or two channels, and files that no one can score."""
    folder = tmp_path_factory.mktemp("law 5") / "calls"
    for number, seconds in enumerate((3, 23, 9, 5, 14, 4)):
        parties = [voice(seconds, seed=number), voice(seconds, seed=20 + number)]
        write_call(folder / f"2024-05-0{1 + number % 2}/{number}.wav", *parties[: 1 + number % 2])
    write_call(folder / "2024-05-01/empty.wav", b"")
    write_call(folder / "2024-05-02/text.wav", b"this is no sound " * 100)
    return folder


def _score(calls: Path, model: Path, pred: Path, *, block_s: float, batch: int, backwards: bool = False) -> Path:
    bundle = ModelBundle.load(model)
    config = run_config(bundle, model=model, archive=calls, scoring=ScoringConfig(), batch=batch, block_s=block_s)
    listing = list_recordings(calls)
    run = Run.create(pred, config=config, plan=[plan(listing, known(pred), block_s=block_s)])
    todo = list(run.todo()["block"])
    for block in todo[::-1] if backwards else todo:
        blocks.score_block(str(pred), run.run_id, block)
    holding(run.pred, run.close, {"blocks": len(todo)})
    return pred


def _rows(pred: Path) -> dict[str, pd.DataFrame]:
    return {table: archive.read(pred, table=table).drop(columns=_NOT_COMPARED, errors="ignore") for table in TABLES}


@pytest.fixture(scope="module")
def whole(calls: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A block a day, and all of its windows in batches of 64."""
    return _score(calls, model, tmp_path_factory.mktemp("law 5") / "P", block_s=1e6, batch=64)


# Seconds of a block, windows of a batch, and how many blocks that makes.
_CUTS = [(1e6, 1, 2), (1e6, 7, 2), (20.0, 8, 3), (1.0, 3, 8), (1.0, 1000, 8)]


@pytest.mark.parametrize("cut", sampled(_CUTS, keep=(1.0, 3, 8)), ids=str)
def test_blocks_and_batches_change_no_row(
    cut: tuple[float, int, int], calls: Path, model: Path, whole: Path, tmp_path: Path
) -> None:
    block_s, batch, blocks_of = cut
    pred = _score(calls, model, tmp_path / "P", block_s=block_s, batch=batch, backwards=True)
    assert len(archive.predictions.committed(pred)) == blocks_of
    found, expected = _rows(pred), _rows(whole)
    assert len(expected["windows"]) > 32
    for table, rows in expected.items():
        pd.testing.assert_frame_equal(found[table], rows, check_exact=True, obj=table)
    assert verify(pred).problems == []


@pytest.mark.slow
def test_what_else_lies_in_the_archive_changes_no_row(calls: Path, model: Path, whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(calls, tmp_path / "calls")
    for number in range(3):
        write_call(folder / f"2024-05-0{1 + number % 2}/other-{number}.wav", voice(7, seed=40 + number))
    pred = _score(folder, model, tmp_path / "P", block_s=1e6, batch=64)
    found, expected = _rows(pred), _rows(whole)
    for table, rows in expected.items():
        key = "call_id" if table == "calls" else "recording_id"
        same = found[table][found[table][key].isin(rows[key])].reset_index(drop=True)
        assert len(found[table]) > len(rows)
        pd.testing.assert_frame_equal(same, rows, check_exact=True, obj=table)
